//! What the writer does when there is no room.
//!
//! | Missing | For events and healths | For settlements, trims, dropping and rewinding |
//! |---|---|---|
//! | room in the file (`max_bytes`) | delivered events are removed, the oldest first, and the group is written again | may use [`HEADROOM`] more |
//! | room on the volume | the same, with the reserve given up before | the reserve is given up, and the log moved into the file, so that it begins anew in its own place |
//!
//! While the reserve is missing, the file may not grow for events: they use what is free inside it, so the reserve's
//! room stays for settlements. The log stays within SQLite's checkpoints and one group.
//!
//! Settlements for which there is no room even so are parked; until they are written nothing is leased, no event is
//! taken, and they are tried again every [`SETTLE_AGAIN`](super::writer::SETTLE_AGAIN). So what is parked is bounded
//! by the attempts that were under way, and nothing is sent twice unless the process ends.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::fault::StoreError;
use super::inbox::{Op, Settling};
use super::keeper::{self, Cutoffs, Trim};
use super::rows::{Row, nanoseconds};
use super::schema;
use super::store::{HEADROOM, Store};
use super::writer::{Phase, Write, Writer};
use crate::engine::queue::ID_WINDOW;

/// Bytes that removing delivered events frees at once, at least, when there are so many.
const AT_ONCE: u64 = 1 << 20;

/// For how long delivered events are looked for at once, while everybody waits. Each look reads all deliveries, so one
/// may take longer; none begins later.
const LOOKING: Duration = Duration::from_millis(100);

/// Looking again when there was too little to remove waits for so many times what the look took: at most a twentieth of
/// the writer's time goes into looks that do not help.
const AGAIN: u32 = 20;

/// Room in the file that a statement may fail to find for want of whole pages.
const MARGIN: u64 = 256 << 10;

/// What the writer knows about room.
#[derive(Debug)]
pub(super) struct Room {
    /// The file may not grow for events.
    capped: bool,
    /// Delivered events before are gone already.
    oldest: i64,
    /// There was too little to remove; not looked for before then.
    next: Instant,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            capped: false,
            oldest: 0,
            next: Instant::now(),
        }
    }
}

/// Bytes of a health, about.
const HEALTH: usize = 1024;

/// Bytes of the events and healths in a group. Its settlements make their own room, see `settle_alone`.
pub(super) fn bytes(writes: &[Write]) -> u64 {
    let rows = writes.iter().map(|write| match write {
        Write::Enqueue(rows, _) => rows.iter().map(Row::cost).sum(),
        Write::Health(healths, _) => healths.len().saturating_mul(HEALTH),
        Write::Settle(_) => 0_usize,
    });
    rows.sum::<usize>() as u64
}

/// Bytes that settlements write, about: a delivery each, and healths.
fn settled_bytes(settlings: &[Settling]) -> u64 {
    let settles = settlings.iter().flat_map(|settling| &settling.settles);
    let bytes = settles.map(|settle| {
        let health = settle.health.as_ref();
        let json = health.and_then(|health| serde_json::to_string(health).ok());
        json.map_or(0, |json| json.len()).saturating_add(64)
    });
    bytes.sum::<usize>() as u64
}

impl Writer {
    /// Lets the file grow for events exactly as long as the reserve is there.
    pub(super) fn follow_reserve(&mut self) {
        let missing = self.shared.reserve.is_missing();
        if self.room.capped != missing {
            self.room.capped = missing;
            self.limit();
        }
    }

    /// Keeps a file that was opened anew from growing while the reserve is missing.
    pub(super) fn cap(&mut self) {
        self.room = Room {
            capped: self.shared.reserve.is_missing(),
            ..Room::default()
        };
        self.limit();
    }

    /// The bound of the file for events. SQLite takes no bound below the present size, so 0 is that.
    fn limit(&self) {
        if let Phase::Up(store) = &self.phase {
            let bound = if self.room.capped {
                0
            } else {
                self.shared.settings.max_bytes
            };
            if let Err(error) = schema::limit(&store.connection, bound) {
                tracing::warn!(%error, "the file's size limit was not set");
            }
        }
    }

    /// The bound that a write of so many bytes hit, which decides what is done about it.
    ///
    /// SQLite has one word for both. The file's own limit is always met by a statement; the volume's by the commit,
    /// or, when a transaction is larger than the cache, by a statement, too. So what a statement met is the volume's
    /// when the file could have taken that much, `beyond` its limit included.
    fn bound_hit(&self, error: StoreError, bytes: u64, beyond: u64) -> StoreError {
        let Phase::Up(store) = &self.phase else {
            return error;
        };
        match (&error, keeper::sizes(&store.connection)) {
            (StoreError::Limit, Ok((total, free))) => {
                let bound = if self.room.capped {
                    total
                } else {
                    self.shared.settings.max_bytes
                };
                let left = bound
                    .saturating_add(beyond)
                    .saturating_sub(total)
                    .saturating_add(free);
                if left < bytes.saturating_mul(2).saturating_add(MARGIN) {
                    StoreError::Limit
                } else {
                    StoreError::Full
                }
            }
            _ => error,
        }
    }

    /// The bound that callers are told of: a file that may not grow is held back by the volume.
    fn to_tell(&self, hit: StoreError) -> StoreError {
        match hit {
            StoreError::Limit if self.room.capped => StoreError::Full,
            error => error,
        }
    }

    /// The bound that callers are told of when events of so many bytes found no room.
    pub(super) fn refusal(&self, error: StoreError, bytes: u64) -> StoreError {
        self.to_tell(self.bound_hit(error, bytes, 0))
    }

    /// Tries to make room for events and healths; answers whether it is worth writing them again.
    pub(super) fn make_room(&mut self, error: StoreError, bytes: u64) -> bool {
        if bytes == 0 {
            return false;
        }
        let relieved = matches!(self.bound_hit(error, bytes, 0), StoreError::Full) && self.relieve();
        let trimmed = self.trim_oldest(bytes.saturating_mul(2).max(AT_ONCE));
        relieved || trimmed
    }

    /// Makes room on the volume for what makes room in the file; answers whether it is worth trying again.
    fn relieve(&mut self) -> bool {
        // Its look at an old state of the file would keep the log from being moved.
        self.shared.threads.interrupt_keeper();
        let shared = &self.shared;
        let given = shared.reserve.give_up(&shared.metrics);
        self.room.capped = shared.reserve.is_missing();
        self.limit();
        self.begin_log_anew() || given
    }

    /// Moves the log into the file, so that it is written from its beginning again and the file is cut to its size.
    fn begin_log_anew(&self) -> bool {
        let Phase::Up(store) = &self.phase else {
            return false;
        };
        match store.checkpoint() {
            Ok(whole) => whole,
            Err(error) => {
                tracing::debug!(%error, "the log was not moved into the file");
                false
            }
        }
    }

    /// Removes delivered events, the oldest first, until so many bytes are free; answers whether it removed any. When
    /// it could not free as many, the keeper goes on at its leisure, and events are refused meanwhile.
    fn trim_oldest(&mut self, bytes: u64) -> bool {
        let started = Instant::now();
        if self.room.next > started {
            return false;
        }
        let (removed, freed) = self.look_for_oldest(bytes, started);
        // A look that was cut short by its time but found something goes on at the next need.
        if freed < bytes / 8 {
            self.room.next = Instant::now() + started.elapsed() * AGAIN;
        }
        removed > 0
    }

    /// Events removed, and bytes freed.
    fn look_for_oldest(&mut self, bytes: u64, started: Instant) -> (u64, u64) {
        let now = nanoseconds(self.shared.clock.now());
        let cutoffs = Cutoffs {
            accepted: i64::MIN,
            id: i64::MIN,
            max_ids: i64::try_from(self.shared.settings.max_ids).unwrap_or(i64::MAX),
            over: true,
        };
        let (mut removed, mut freed) = (0_u64, 0_u64);
        while started.elapsed() < LOOKING {
            let Phase::Up(store) = &self.phase else { break };
            let planned = keeper::plan(&store.connection, self.room.oldest, cutoffs);
            let Ok((plan, cursor, _)) = planned else { break };
            self.room.oldest = cursor;
            let up_to = plan.up_to;
            for events in plan.events.chunks(keeper::STEP) {
                let trim = Trim {
                    events: events.to_vec(),
                    used_before: now.saturating_sub(ID_WINDOW),
                    up_to,
                    planned: self.shared.replays.lock().epoch(),
                    ..Trim::default()
                };
                let done = self.making_room(0, |store| {
                    let (total, free) = keeper::sizes(&store.connection)?;
                    let before = total.saturating_sub(free);
                    let trimmed = keeper::trim(store, &trim)?;
                    Ok((before.saturating_sub(trimmed.used), trimmed.evicted))
                });
                let Ok((bytes_now, evicted)) = done else {
                    self.room.oldest = events.first().copied().unwrap_or(self.room.oldest);
                    return (removed, freed);
                };
                freed = freed.saturating_add(bytes_now);
                removed = removed.saturating_add(events.len() as u64);
                self.shared.metrics.trimmed.inc_by(events.len() as u64);
                self.shared.metrics.ids_evicted.inc_by(evicted);
                if freed >= bytes {
                    self.room.oldest = events.last().map_or(cursor, |last| last.saturating_add(1));
                    return (removed, freed);
                }
            }
            if !plan.more {
                // From the start next time: what was open may have been delivered.
                self.room.oldest = 0;
                break;
            }
        }
        (removed, freed)
    }

    /// Runs what makes room and writes so many bytes for it: it may use more than the file's limit, and the reserve.
    pub(super) fn making_room<T>(
        &mut self,
        bytes: u64,
        mut work: impl FnMut(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let first = self.within_headroom(&mut work);
        let done = match first.map_err(|error| self.bound_hit(error, bytes, HEADROOM)) {
            Err(StoreError::Full) if self.relieve() => {
                let again = self.within_headroom(&mut work);
                again.map_err(|error| self.bound_hit(error, bytes, HEADROOM))
            }
            done => done,
        };
        done.map_err(|error| self.to_tell(error))
    }

    fn within_headroom<T>(
        &mut self,
        work: impl FnOnce(&mut Store) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let capped = self.room.capped;
        match &mut self.phase {
            Phase::Up(store) => {
                let bound = if capped {
                    keeper::sizes(&store.connection)?.0
                } else {
                    self.shared.settings.max_bytes
                };
                store.with_headroom(bound, work)
            }
            Phase::Down { error, .. } => Err(error.clone()),
        }
    }

    /// Writes settlements of a group that failed: all at once, or, when there is no room for so many, one by one.
    pub(super) fn settle_alone(&mut self, mut settlings: Vec<Settling>) {
        let mut last = None;
        for at_once in [settlings.len(), 1] {
            while last.is_none() && !settlings.is_empty() {
                let some = settlings.get(..at_once.min(settlings.len())).unwrap_or_default();
                let done = self.making_room(settled_bytes(some), |store| {
                    store.transact(|writing| {
                        some.iter()
                            .try_for_each(|settling| writing.settle(&settling.settles))
                    })
                });
                match done {
                    Ok(((), group)) => {
                        self.apply(group);
                        for settling in settlings.drain(..at_once.min(settlings.len())) {
                            settling.reply.send(Ok(())).ok();
                        }
                    }
                    Err(error) => last = Some(error),
                }
            }
            if settlings.len() > 1 && at_once > 1 && last.as_ref().is_some_and(StoreError::is_full) {
                last = None;
            }
        }
        let Some(error) = last else { return };
        self.heal(error.clone());
        for settling in settlings {
            self.park(settling, &error);
        }
    }

    /// The room that settlements wait for.
    pub(super) fn stuck(&self) -> Option<StoreError> {
        self.parked.iter().find_map(|settling| settling.missing.clone())
    }

    /// Says whether settlements wait for room; then nothing is leased.
    pub(super) fn mark_stuck(&self) {
        let waiting: usize = self.parked.iter().map(|settling| settling.settles.len()).sum();
        self.shared
            .metrics
            .unsettled
            .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let missing = self.stuck();
        if missing.is_some() != self.shared.stuck.swap(missing.is_some(), Ordering::AcqRel) {
            if let Some(error) = missing {
                tracing::error!(
                    results = waiting,
                    reason = error.to_queue_error().reason(),
                    error = %error,
                    "results cannot be stored for want of room; nothing is sent until they are"
                );
            } else {
                tracing::info!("results are stored again; deliveries go on");
            }
        }
    }

    /// Removes what the keeper found, and gives free pages back. The keeper is told what went wrong.
    pub(super) fn tidy(&mut self, op: Op) {
        let failed = match op {
            Op::Trim(mut trim, done) => {
                let spared = self.shared.replays.lock().spare(&mut trim);
                let trimmed = self.making_room(0, |store| keeper::trim(store, &trim));
                let trimmed = trimmed.map(|trimmed| keeper::Trimmed { spared, ..trimmed });
                let failed = trimmed.as_ref().err().cloned();
                done.send(trimmed).ok();
                failed
            }
            Op::Vacuum(pages, done) => {
                let left = self.making_room(0, |store| keeper::vacuum(store, pages));
                let failed = left.as_ref().err().cloned();
                if failed.is_none() && self.room.capped {
                    // The volume gets the pages when the log is moved, and events may not take them again.
                    self.begin_log_anew();
                    self.limit();
                }
                done.send(left).ok();
                failed
            }
            _ => None,
        };
        if let Some(error) = failed {
            self.heal(error);
        }
    }
}
