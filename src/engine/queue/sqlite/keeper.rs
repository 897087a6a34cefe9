//! The keeper thread: removes what retention allows, gives free pages back, and checks the file after a crash.
//!
//! It only reads, and asks the writer to remove: [`STEP`] events at a time, waiting for each answer, so that events in
//! flight never wait for more than one such step.
//!
//! What may go: an event without open deliveries that is older than `retention`, or that is one of the oldest while
//! the file holds more than `retention_bytes`, or that is further back than `max_ids`. Its id stays for 24 hours
//! (moved to `old_ids`), but never further back than `max_ids`.
//!
//! Which events are open is read from the deliveries in the same read transaction as the events, [`SPAN`] positions at
//! a time. The set can only shrink afterwards, but for replays, which the writer knows of: see
//! [`Recent`](super::replays::Recent). Open events are skipped, and looked at again later, so seldom that it costs at most a twentieth of a processor.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OptionalExtension};

use super::Shared;
use super::complaint::Complaint;
use super::fault::StoreError;
use super::inbox::Op;
use super::opening::quick_check;
use super::rows::nanoseconds;
use super::schema::{self, PAGE};
use super::store::Store;
use super::vanished::Identity;
use crate::engine::queue::ID_WINDOW;

/// Events removed per transaction.
pub(super) const STEP: usize = 512;

/// Positions looked at per read transaction.
const SPAN: i64 = 65_536;

/// Looking again at what was skipped waits for so many times what the last look took.
const AGAIN: u32 = 20;

/// Pages given back per transaction.
const VACUUM: u32 = 256;

/// Free bytes that are left for reuse at least.
const SLACK: u64 = 4 << 20;

/// What the writer is to remove.
#[derive(Debug, Default)]
pub(super) struct Trim {
    /// Finished events.
    pub(super) events: Vec<i64>,
    /// Rows of `old_ids`.
    pub(super) old_ids: Vec<i64>,
    /// Ids used before may be forgotten.
    pub(super) used_before: i64,
    /// Ids of events up to this position are forgotten in any case.
    pub(super) up_to: i64,
    /// When the events were found to be finished: see [`Recent`](super::replays::Recent).
    pub(super) planned: u64,
}

/// What the writer answers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trimmed {
    /// Bytes that are still in use.
    pub(super) used: u64,
    /// Ids that were forgotten although they were not old enough.
    pub(super) evicted: u64,
    /// Events were left because they are to be delivered again.
    pub(super) spared: bool,
}

struct Keeper {
    shared: Arc<Shared>,
    /// Everything before was removed or is open.
    cursor: i64,
    /// An open event was skipped since.
    skipped: Option<Instant>,
    /// How long looking took since the cursor was at the start.
    spent: Duration,
    /// When the last plan was made, in replays.
    planned: u64,
    /// The file that is open, as it was first seen, and how often one was opened by then.
    opened: Option<(u64, Identity)>,
}

/// Looks after the file until the queue is closed.
pub(super) fn run(shared: &Arc<Shared>, stop: &Receiver<()>) {
    let mut keeper = Keeper {
        shared: Arc::clone(shared),
        cursor: 0,
        skipped: None,
        spent: Duration::ZERO,
        planned: 0,
        opened: None,
    };
    let interval = shared.settings.retention_interval;
    let mut complaint = Complaint::default();
    while matches!(stop.recv_timeout(interval), Err(RecvTimeoutError::Timeout)) {
        if shared.down().is_some() {
            (keeper.cursor, keeper.skipped) = (0, None);
            continue;
        }
        if let Err(error) = keeper.look() {
            *shared.keeper_slot.lock() = None;
            match error {
                StoreError::Damaged(what) => drop(shared.inbox.push(Op::Damaged(what))),
                error => {
                    if let Some(times) = complaint.make(&error, Instant::now()) {
                        tracing::warn!(error = %error, times, "the queue's retention failed; it is tried again");
                    }
                }
            }
        }
    }
}

impl Keeper {
    fn look(&mut self) -> Result<(), StoreError> {
        if let Some(opened) = self.vanished() {
            self.shared.inbox.push(Op::Vanished(opened)).ok();
            return Ok(());
        }
        if std::mem::take(&mut self.shared.state.lock().check) {
            if let Err(error) = self.read(quick_check) {
                // Begun anew after whatever broke it off.
                self.shared.state.lock().check = true;
                return Err(error);
            }
            self.shared.suspect.store(false, Ordering::Release);
        }
        self.shared.reserve.keep(&self.shared.metrics);
        let (total, free) = self.read(sizes)?;
        self.gauge(total, free);
        let kept = self.kept(total);
        let pause = (self.shared.settings.retention_interval * 5).max(self.spent * AGAIN);
        if self.skipped.is_some_and(|since| since.elapsed() > pause) {
            (self.cursor, self.skipped, self.spent) = (0, None, Duration::ZERO);
        }
        let mut used = total.saturating_sub(free);
        loop {
            let now = nanoseconds(self.shared.clock.now());
            let over = used > kept;
            let plan = self.plan(now, over)?;
            if plan.events.is_empty() && plan.old_ids.is_empty() {
                if plan.more {
                    continue;
                }
                break;
            }
            let Plan {
                events,
                old_ids,
                up_to,
                more,
            } = plan;
            let mut old_ids = old_ids.chunks(STEP);
            for events in events.chunks(STEP) {
                let trim = Trim {
                    events: events.to_vec(),
                    ..Trim::default()
                };
                used = self.trim(trim, now, up_to)?;
                if over && used <= kept {
                    // Those that were not removed are looked at again.
                    self.cursor = events.last().map_or(self.cursor, |last| last.saturating_add(1));
                    break;
                }
            }
            for old_ids in &mut old_ids {
                used = self.trim(
                    Trim {
                        old_ids: old_ids.to_vec(),
                        ..Trim::default()
                    },
                    now,
                    up_to,
                )?;
            }
            if over && used <= kept && !more {
                break;
            }
        }
        self.vacuum()?;
        let (left, _) = self.read(sizes)?;
        if left < total {
            self.shared.reserve.try_soon();
        }
        self.shared.reserve.keep(&self.shared.metrics);
        Ok(())
    }

    /// The file that was opened, when it is not the one at the path any more, as far as the first look can tell.
    fn vanished(&mut self) -> Option<Identity> {
        let openings = self.shared.openings.load(Ordering::Acquire);
        let there = Identity::of(&self.shared.settings.path);
        let known = self.opened.filter(|(known, _)| *known == openings);
        // The log may have come later.
        self.opened = Some((openings, there));
        known
            .map(|(_, known)| known)
            .filter(|known| !known.is_still(there))
    }

    /// Bytes in use above which delivered events are removed; fewer while the reserve needs room.
    fn kept(&self, total: u64) -> u64 {
        let reserve = &self.shared.reserve;
        let bound = self.shared.settings.retention_bytes;
        if reserve.is_missing() {
            return bound.min(total.saturating_sub(reserve.bytes().saturating_mul(3)));
        }
        bound
    }

    /// Runs something on the keeper's connection.
    fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let mut slot = self.shared.keeper_slot.lock();
        // Seen under the lock: the writer closes the connection after it has said so.
        if let Some(error) = self.shared.down() {
            return Err(StoreError::Down(error.to_string()));
        }
        let connection = match &mut *slot {
            Some(connection) => connection,
            slot => {
                let opened = schema::open_reader(&self.shared.settings.path)?;
                self.shared.threads.keeper_opened(&opened);
                slot.insert(opened)
            }
        };
        work(connection)
    }

    fn plan(&mut self, now: i64, over: bool) -> Result<Plan, StoreError> {
        let settings = &self.shared.settings;
        let retention = i64::try_from(settings.retention.as_nanos()).unwrap_or(i64::MAX);
        let limits = Cutoffs {
            accepted: now.saturating_sub(retention),
            id: now.saturating_sub(ID_WINDOW),
            max_ids: i64::try_from(settings.max_ids).unwrap_or(i64::MAX),
            over,
        };
        let from = self.cursor;
        let started = Instant::now();
        self.planned = self.shared.replays.lock().epoch();
        let (plan, cursor, skipped) = self.read(|connection| plan(connection, from, limits))?;
        self.spent += started.elapsed();
        self.cursor = cursor;
        if skipped {
            self.skipped.get_or_insert_with(Instant::now);
        }
        Ok(plan)
    }

    fn trim(&mut self, trim: Trim, now: i64, up_to: i64) -> Result<u64, StoreError> {
        let count = trim.events.len() as u64;
        let trim = Trim {
            used_before: now.saturating_sub(ID_WINDOW),
            up_to,
            planned: self.planned,
            ..trim
        };
        let (reply, answer) = sync_channel(1);
        let gone = |_| StoreError::Down("the writer is gone".to_owned());
        self.shared
            .inbox
            .push(Op::Trim(trim, reply))
            .map_err(|error| StoreError::Down(error.to_string()))?;
        let trimmed = answer.recv().map_err(gone)??;
        self.shared.metrics.trimmed.inc_by(count);
        self.shared.metrics.ids_evicted.inc_by(trimmed.evicted);
        if trimmed.spared {
            self.skipped.get_or_insert_with(Instant::now);
        }
        Ok(trimmed.used)
    }

    /// Gives free pages back, but leaves what the next events will use.
    fn vacuum(&self) -> Result<(), StoreError> {
        loop {
            let (total, free) = self.read(sizes)?;
            self.gauge(total, free);
            let reserve = &self.shared.reserve;
            let slack = if reserve.is_missing() {
                SLACK.min(reserve.bytes())
            } else {
                SLACK.max(total.saturating_sub(free) / 4)
            };
            if free <= slack {
                return Ok(());
            }
            let (reply, answer) = sync_channel(1);
            let op = Op::Vacuum(VACUUM, reply);
            self.shared
                .inbox
                .push(op)
                .map_err(|error| StoreError::Down(error.to_string()))?;
            let left = answer
                .recv()
                .map_err(|_| StoreError::Down("the writer is gone".to_owned()))??;
            if left == 0 {
                return Ok(());
            }
        }
    }

    fn gauge(&self, total: u64, free: u64) {
        self.shared.metrics.bytes.set(total.cast_signed());
        self.shared.metrics.free_bytes.set(free.cast_signed());
    }
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Finished events.
    pub(super) events: Vec<i64>,
    old_ids: Vec<i64>,
    /// Ids of events up to this position are forgotten in any case.
    pub(super) up_to: i64,
    /// Rows after those looked at may be due, too.
    pub(super) more: bool,
}

#[derive(Clone, Copy)]
pub(super) struct Cutoffs {
    /// Events accepted until then are due.
    pub(super) accepted: i64,
    /// Ids used until then are due.
    pub(super) id: i64,
    /// Most ids.
    pub(super) max_ids: i64,
    /// All events are due.
    pub(super) over: bool,
}

/// Size of the file, and how much of it is free.
pub(super) fn sizes(connection: &Connection) -> Result<(u64, u64), StoreError> {
    let pages: i64 = connection.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let free: i64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    let bytes = |pages: i64| pages.cast_unsigned().saturating_mul(PAGE as u64);
    Ok((bytes(pages), bytes(free)))
}

/// What to remove among the next events; where to go on, and whether an open event was skipped.
pub(super) fn plan(
    connection: &Connection,
    from: i64,
    cutoffs: Cutoffs,
) -> Result<(Plan, i64, bool), StoreError> {
    let transaction = connection.unchecked_transaction()?;
    let newest: Option<i64> = transaction.query_row("SELECT max(seq) FROM events", [], |row| row.get(0))?;
    let newest = newest.max(schema::meta(&transaction, "seq")?).unwrap_or(0);
    let up_to = newest.saturating_sub(cutoffs.max_ids);
    let mut plan = Plan {
        up_to,
        ..Plan::default()
    };
    {
        let mut statement =
            transaction.prepare_cached("SELECT seq, accepted FROM old_ids ORDER BY seq LIMIT 8192")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (seq, accepted): (i64, i64) = (row.get(0)?, row.get(1)?);
            if accepted > cutoffs.id && seq > up_to {
                break;
            }
            plan.old_ids.push(seq);
        }
    }
    let mut first =
        transaction.prepare_cached("SELECT seq FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    let Some(first) = first.query_row([from], |row| row.get::<_, i64>(0)).optional()? else {
        plan.more = plan.old_ids.len() == 8192;
        return Ok((plan, from, false));
    };
    let end = first.saturating_add(SPAN);
    let mut cursor = end;
    let mut due: Vec<i64> = Vec::new();
    {
        let mut statement = transaction
            .prepare_cached("SELECT seq, accepted FROM events WHERE seq >= ?1 AND seq < ?2 ORDER BY seq")?;
        let mut rows = statement.query([first, end])?;
        while let Some(row) = rows.next()? {
            let (seq, accepted): (i64, i64) = (row.get(0)?, row.get(1)?);
            if accepted > cutoffs.accepted && seq > up_to && !cutoffs.over {
                cursor = seq;
                break;
            }
            due.push(seq);
        }
    }
    if due.is_empty() {
        return Ok((plan, cursor, false));
    }
    plan.more = cursor == end && end <= newest;
    cursor = cursor.min(newest.saturating_add(1));
    let open = open_among(&transaction, first, end)?;
    let found = due.len();
    due.retain(|seq| !open.contains(seq));
    let skipped = due.len() < found;
    plan.events = due;
    Ok((plan, cursor, skipped))
}

/// Positions of a range that have deliveries. Reads all deliveries, in the order of their table.
fn open_among(connection: &Connection, first: i64, end: i64) -> Result<HashSet<i64>, StoreError> {
    let mut open = HashSet::new();
    let mut statement =
        connection.prepare_cached("SELECT seq FROM deliveries WHERE seq >= ?1 AND seq < ?2")?;
    let mut rows = statement.query([first, end])?;
    while let Some(row) = rows.next()? {
        open.insert(row.get(0)?);
    }
    Ok(open)
}

/// Removes events and ids, on the writer.
pub(super) fn trim(store: &mut Store, trim: &Trim) -> Result<Trimmed, StoreError> {
    let newest = store.last_seq();
    let (evicted, _) = store.transact(|writing| {
        let connection = writing.connection();
        let mut evicted = 0_u64;
        let mut forget =
            connection.prepare_cached("DELETE FROM ids WHERE project = ?1 AND id = ?2 AND accepted = ?3")?;
        for (table, seqs) in [("events", &trim.events), ("old_ids", &trim.old_ids)] {
            let mut find = connection.prepare_cached(&format!(
                "SELECT project, id, accepted FROM {table} WHERE seq = ?1"
            ))?;
            let mut remove = connection.prepare_cached(&format!("DELETE FROM {table} WHERE seq = ?1"))?;
            let mut keep = connection.prepare_cached(
                "INSERT OR REPLACE INTO old_ids(seq, project, id, accepted) VALUES(?1, ?2, ?3, ?4)",
            )?;
            for seq in seqs {
                let mut rows = find.query([seq])?;
                let Some(row) = rows.next()? else { continue };
                let (project, accepted): (i64, i64) = (row.get(0)?, row.get(2)?);
                let id: rusqlite::types::Value = row.get(1)?;
                drop(rows);
                // First, so that a full file has room for the rest.
                remove.execute([seq])?;
                let old = accepted <= trim.used_before;
                if old || *seq <= trim.up_to {
                    let forgotten = forget.execute((project, &id, accepted))?;
                    evicted += if old { 0 } else { forgotten as u64 };
                } else {
                    keep.execute((seq, project, &id, accepted))?;
                }
            }
        }
        schema::set_meta(connection, "seq", newest)?;
        Ok(evicted)
    })?;
    let (total, free) = sizes(&store.connection)?;
    Ok(Trimmed {
        used: total.saturating_sub(free),
        evicted,
        spared: false,
    })
}

/// Gives free pages back, on the writer; returns how many are left.
pub(super) fn vacuum(store: &mut Store, pages: u32) -> Result<u64, StoreError> {
    {
        // Executing the batch would free a single page: the statement has to be stepped to its end.
        let mut statement = store
            .connection
            .prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
    }
    let (_, free) = sizes(&store.connection)?;
    Ok(free / PAGE as u64)
}
