//! The writer thread: groups what waits into transactions, answers after the commit, and heals.
//!
//! Bounds: a group has at most [`Settings::group`](super::Settings::group) calls and [`GROUP_BYTES`], or one call; how
//! long it waits for calls to share it with is bounded by [`Pace`];
//! settlements that could not be written wait for at most `settle_patience`, or, for want of room, until there is some
//! (see `room`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Shared;
use super::complaint::Complaint;
use super::fault::StoreError;
use super::inbox::{Op, Reply, Settling};
use super::notes;
use super::opening::{self, Opened};
use super::pace::Pace;
use super::room::{self, Room};
use super::rows::Row;
use super::store::{Group, Settle, Store};
use crate::domain::health::Health;
use crate::domain::id::Uid;
use crate::engine::queue::{Enqueued, QueueError};

/// Most bytes of events in one group.
pub(super) const GROUP_BYTES: usize = 8 << 20;

/// How long settlements wait before they are tried again on their own.
pub(super) const SETTLE_AGAIN: Duration = Duration::from_millis(100);

/// A write that shares its transaction with others.
pub(super) enum Write {
    /// Events.
    Enqueue(Vec<Row>, Reply<Vec<Enqueued>>),
    /// What became of deliveries.
    Settle(Settling),
    /// Healths.
    Health(Vec<(Uid, Health)>, Reply<()>),
}

enum Answer {
    Enqueue(Result<Vec<Enqueued>, QueueError>),
    Done,
}

/// Whether the file is open.
pub(super) enum Phase {
    /// It is.
    Up(Box<Store>),
    /// It is not: why, and when it is tried again.
    Down {
        /// Why.
        error: StoreError,
        /// When.
        next: Instant,
    },
}

/// How many times longer than after other faults a damaged file without room for its copy is left alone.
const STRANDED_PAUSE: u32 = 60;

/// The writer's state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) phase: Phase,
    lock: Option<std::fs::File>,
    pub(super) parked: Vec<Settling>,
    pub(super) room: Room,
    pub(super) dropping: Vec<(i64, u64, Option<Reply<u64>>)>,
    /// Position of the newest event that any file of this process held.
    newest: i64,
    /// A step of dropping failed; not tried again before then.
    pub(super) drop_next: Instant,
    complaint: Complaint,
}

/// Serves the inbox until it is closed and empty.
pub(super) fn run(shared: &Arc<Shared>, opened: oneshot::Sender<()>) {
    let phase = Phase::Down {
        error: StoreError::Down("it is not open yet".to_owned()),
        next: Instant::now(),
    };
    let mut writer = Writer {
        shared: Arc::clone(shared),
        phase,
        lock: None,
        parked: Vec::new(),
        room: Room::default(),
        dropping: Vec::new(),
        newest: 0,
        drop_next: Instant::now(),
        complaint: Complaint::default(),
    };
    writer.reopen(None);
    opened.send(()).ok();
    let mut ops = Vec::new();
    let mut pace = Pace::new(Instant::now());
    loop {
        let until = writer.wake_at();
        let gather = pace.gather();
        if shared
            .inbox
            .take(shared.settings.group, GROUP_BYTES, until, gather, &mut ops)
            .is_none()
        {
            break;
        }
        pace.begins(ops.len(), Instant::now());
        writer.serve(&mut ops);
    }
    writer.end();
}

impl Writer {
    /// When there is work although nobody asks.
    fn wake_at(&self) -> Option<Instant> {
        let now = Instant::now();
        match &self.phase {
            Phase::Down { next, .. } => {
                let patience = (!self.parked.is_empty()).then(|| now + SETTLE_AGAIN);
                Some(patience.map_or(*next, |patience| patience.min(*next)))
            }
            Phase::Up(_) if !self.dropping.is_empty() => Some(self.drop_next.max(now)),
            Phase::Up(_) if !self.parked.is_empty() => Some(now + SETTLE_AGAIN),
            Phase::Up(_) => None,
        }
    }

    fn serve(&mut self, ops: &mut Vec<Op>) {
        if let Phase::Down { next, .. } = &self.phase
            && *next <= Instant::now()
        {
            self.reopen(None);
        }
        self.follow_reserve();
        let mut writes: Vec<Write> = self.parked.drain(..).map(Write::Settle).collect();
        self.write(&mut writes);
        let stuck = self.stuck();
        for op in ops.drain(..) {
            match op {
                Op::Enqueue(rows, reply) => match &stuck {
                    Some(missing) => self.refuse_one(Write::Enqueue(rows, reply), missing),
                    None => writes.push(Write::Enqueue(rows, reply)),
                },
                Op::Settle(settling) => writes.push(Write::Settle(settling)),
                Op::Health(healths, reply) => writes.push(Write::Health(healths, reply)),
                other => {
                    self.write(&mut writes);
                    self.single(other);
                }
            }
        }
        self.write(&mut writes);
        self.drop_step();
        self.mark_stuck();
    }

    fn end(&mut self) {
        let mut writes: Vec<Write> = self.parked.drain(..).map(Write::Settle).collect();
        self.write(&mut writes);
        for settling in self.parked.drain(..) {
            settling.reply.send(Err(QueueError::Closed)).ok();
        }
        self.shared.state.lock().closed = true;
        self.shared.reader_slot.lock().close();
        self.shared.close_keeper();
        let down = Phase::Down {
            error: StoreError::Down("it is closed".to_owned()),
            next: Instant::now(),
        };
        drop(std::mem::replace(&mut self.phase, down));
        self.lock = None;
    }

    /// Opens the file; a damaged one is replaced.
    fn reopen(&mut self, damage: Option<&str>) {
        self.shared.reader_slot.lock().close();
        self.shared.close_keeper();
        let down = Phase::Down {
            error: StoreError::Down("it is being opened".to_owned()),
            next: Instant::now(),
        };
        self.note_newest();
        drop(std::mem::replace(&mut self.phase, down));
        let mut opened = self.lock_and_open(damage);
        if self.lock.is_some()
            && opened.as_ref().is_err_and(StoreError::lacks_room)
            && self.shared.reserve.give_up(&self.shared.metrics)
        {
            opened = self.lock_and_open(damage);
        }
        match opened {
            Ok(Opened { store, dropped }) => {
                if store.last_seq() < self.newest {
                    let lost = self.newest - store.last_seq();
                    let what =
                        format!("the queue's file is older than it was: {lost} events that it held are gone");
                    opening::say(&self.shared, &what);
                    self.newest = store.last_seq();
                }
                self.phase = Phase::Up(Box::new(store));
                self.shared.reserve.keep(&self.shared.metrics);
                self.cap();
                for (number, count, reply) in std::mem::take(&mut self.dropping) {
                    if dropped.contains(&number) {
                        self.dropping.push((number, count, reply));
                    } else if let Some(reply) = reply {
                        // The lane went with the damaged part of the file.
                        reply.send(Ok(count)).ok();
                    }
                }
                for number in dropped {
                    if self.dropping.iter().all(|(other, ..)| *other != number) {
                        self.dropping.push((number, 0, None));
                    }
                }
                let mut state = self.shared.state.lock();
                (state.down, state.known) = (None, true);
            }
            Err(error) => self.fall(error),
        }
    }

    fn note_newest(&mut self) {
        if let Phase::Up(store) = &self.phase {
            self.newest = self.newest.max(store.last_seq());
        }
    }

    fn lock_and_open(&mut self, damage: Option<&str>) -> Result<Opened, StoreError> {
        if self.lock.is_none() {
            self.lock = Some(opening::lock(&self.shared.settings.path)?);
        }
        match damage {
            None => opening::open(&self.shared),
            Some(damage) => opening::replace(&self.shared, damage),
        }
    }

    /// Lets another process, or this one, take the file again.
    pub(super) fn release_lock(&mut self) {
        self.lock = None;
    }

    /// Goes down until the next try.
    fn fall(&mut self, error: StoreError) {
        let mut pause = self.shared.settings.reopen;
        if matches!(error, StoreError::Stranded { .. }) {
            // Each try copies as much as there is room for.
            pause *= STRANDED_PAUSE;
        }
        self.fall_until(error, Instant::now() + pause);
    }

    pub(super) fn fall_until(&mut self, error: StoreError, next: Instant) {
        let told = error.to_queue_error();
        let path = self.shared.settings.path.display();
        let mut state = self.shared.state.lock();
        if state.down.as_ref() != Some(&told) {
            tracing::error!(queue.path = %path, error = %error, "the queue is unavailable");
        }
        state.down = Some(told);
        drop(state);
        self.note_newest();
        self.phase = Phase::Down { error, next };
    }

    /// Does what an error asks for.
    pub(super) fn heal(&mut self, error: StoreError) {
        match error {
            error @ (StoreError::Full | StoreError::Limit) => {
                self.shared.state.lock().full = Some((Instant::now(), error.to_queue_error()));
            }
            StoreError::Damaged(what) => {
                tracing::error!(damage = what, "the queue's file turned out to be damaged");
                self.shared.state.lock().down = Some(QueueError::Unavailable(what.clone()));
                self.reopen(Some(&what));
            }
            error => self.fall(error),
        }
    }

    /// Writes a group and answers.
    fn write(&mut self, writes: &mut Vec<Write>) {
        if writes.is_empty() {
            return;
        }
        if let Phase::Down { error, .. } = &self.phase {
            let error = error.clone();
            return self.refuse(writes, &error);
        }
        let started = Instant::now();
        let mut done = self.transact(writes);
        // Twice: what was made in the file may need room in the log, too.
        for _ in 0..2 {
            match &done {
                Err(error) if error.is_full() && self.make_room(error.clone(), room::bytes(writes)) => {
                    done = self.transact(writes);
                }
                _ => break,
            }
        }
        match done {
            Ok((answers, group)) => {
                let metrics = &self.shared.metrics;
                metrics.commit.observe(started.elapsed().as_secs_f64());
                metrics
                    .group
                    .observe(u32::try_from(writes.len()).unwrap_or(u32::MAX).into());
                self.apply(group);
                self.answer(writes, answers);
            }
            Err(error) => self.failed(writes, error),
        }
    }

    fn transact(&mut self, writes: &[Write]) -> Result<(Vec<Answer>, Group), StoreError> {
        let settings = &self.shared.settings;
        let store = match &mut self.phase {
            Phase::Up(store) => store,
            Phase::Down { error, .. } => return Err(error.clone()),
        };
        store.transact(|writing| {
            let mut answers = Vec::with_capacity(writes.len());
            for write in writes {
                answers.push(match write {
                    Write::Enqueue(rows, _) => Answer::Enqueue(writing.enqueue(rows, settings)?),
                    Write::Settle(settling) => {
                        writing.settle(&settling.settles)?;
                        Answer::Done
                    }
                    Write::Health(healths, _) => {
                        for (lane, health) in healths {
                            writing.health(lane, health)?;
                        }
                        Answer::Done
                    }
                });
            }
            Ok(answers)
        })
    }

    pub(super) fn apply(&self, group: Group) {
        self.shared.metrics.keys_forgotten.inc_by(group.keys_forgotten);
        let mut suspect = false;
        let mut lanes = self.shared.lanes.lock();
        for (uid, number, key, hot) in group.added {
            lanes.add(&uid, number, key, hot);
        }
        for (uid, seq, token, settled) in group.settled {
            suspect |= lanes.settled(&uid, seq, token, settled);
        }
        for (uid, number) in group.healths {
            lanes.mark_health(&uid, number);
        }
        self.shared.metrics.window_bytes.set(lanes.bytes() as u64);
        drop(lanes);
        if suspect && !self.shared.suspect.swap(true, Ordering::AcqRel) {
            tracing::error!(
                "a delivery that was read from the queue's file is not found in it; nothing is handed out until the \
                 file was looked through"
            );
            self.shared.state.lock().check = true;
        }
    }

    fn answer(&self, writes: &mut Vec<Write>, answers: Vec<Answer>) {
        // First, so that whoever is told sees it.
        if answers
            .iter()
            .any(|answer| matches!(answer, Answer::Enqueue(Ok(_))))
        {
            self.shared.state.lock().full = None;
        }
        for (write, answer) in writes.drain(..).zip(answers) {
            match (write, answer) {
                (Write::Enqueue(_, reply), Answer::Enqueue(answer)) => {
                    if matches!(answer, Err(QueueError::ProjectFull { .. })) {
                        self.shared.metrics.refused_project.inc();
                    }
                    reply.send(answer).ok();
                }
                (Write::Settle(Settling { reply, .. }) | Write::Health(_, reply), _) => {
                    drop(reply.send(Ok(())));
                }
                (Write::Enqueue(_, reply), Answer::Done) => drop(reply.send(Err(QueueError::Closed))),
            }
        }
    }

    /// A group failed as a whole: its settlements are tried alone, because they make room; the rest is refused.
    fn failed(&mut self, writes: &mut Vec<Write>, error: StoreError) {
        let error = self.refusal(error, room::bytes(writes));
        self.shared.metrics.failed_groups.inc();
        if let Some(groups) = self.complaint.make(&error, Instant::now()) {
            tracing::warn!(error = %error, groups, "a group commit failed; it is said again in a minute at the soonest");
        }
        let mut settlings = Vec::new();
        match &error {
            error if error.is_full() => {
                self.shared.state.lock().full = Some((Instant::now(), error.to_queue_error()));
            }
            error => self.shared.state.lock().down = Some(error.to_queue_error()),
        }
        for write in writes.drain(..) {
            match write {
                Write::Settle(settling) => settlings.push(settling),
                other => self.refuse_one(other, &error),
            }
        }
        self.heal(error);
        self.settle_alone(settlings);
    }

    fn refuse(&mut self, writes: &mut Vec<Write>, error: &StoreError) {
        for write in writes.drain(..) {
            match write {
                Write::Settle(settling) => self.park(settling, error),
                other => self.refuse_one(other, error),
            }
        }
    }

    fn refuse_one(&self, write: Write, error: &StoreError) {
        let told = error.to_queue_error();
        match write {
            Write::Enqueue(rows, reply) => {
                if error.is_full() {
                    self.shared.metrics.refused_disk.inc_by(rows.len() as u64);
                }
                reply.send(Err(told)).ok();
            }
            Write::Health(_, reply) | Write::Settle(Settling { reply, .. }) => drop(reply.send(Err(told))),
        }
    }

    /// Keeps settlements for later; gives their leases back when that took too long.
    pub(super) fn park(&mut self, mut settling: Settling, error: &StoreError) {
        let since = *settling.failed.get_or_insert_with(Instant::now);
        settling.missing = error.is_full().then(|| error.clone());
        if settling.missing.is_some() {
            settling.failed = None;
        }
        if settling.missing.is_some() || since.elapsed() < self.shared.settings.settle_patience {
            self.parked.push(settling);
            return;
        }
        self.shared
            .metrics
            .failed_settlements
            .inc_by(settling.settles.len() as u64);
        let mut lanes = self.shared.lanes.lock();
        for Settle { lane, row, token, .. } in &settling.settles {
            lanes.release(lane, row.key.1, *token);
        }
        drop(lanes);
        settling.reply.send(Err(error.to_queue_error())).ok();
    }

    fn single(&mut self, op: Op) {
        let store = match &mut self.phase {
            Phase::Up(store) => store,
            Phase::Down { error, .. } => {
                let told = error.to_queue_error();
                match op {
                    Op::LoadHealth(reply) => drop(reply.send(Err(told))),
                    Op::Drop(_, reply) => drop(reply.send(Err(told))),
                    Op::Note(.., reply) => drop(reply.send(Err(told))),
                    Op::Rewind(_, reply) => drop(reply.send(Err(told))),
                    Op::Asked(asked) => asked.refuse(told),
                    Op::Trim(_, done) => drop(done.send(Err(error.clone()))),
                    Op::Vacuum(_, done) => drop(done.send(Err(error.clone()))),
                    _ => {}
                }
                return;
            }
        };
        match op {
            Op::LoadHealth(reply) => {
                let loaded = load_health(store);
                let failed = loaded.as_ref().err().cloned();
                reply.send(loaded.map_err(|error| error.to_queue_error())).ok();
                if let Some(error) = failed {
                    self.heal(error);
                }
            }
            Op::Drop(lane, reply) => self.start_drop(&lane, reply),
            Op::Note(lane, seq, reply) => {
                let read = notes::read(store, &lane, seq);
                let failed = read.as_ref().err().cloned();
                reply.send(read.map_err(|error| error.to_queue_error())).ok();
                if let Some(error) = failed {
                    self.heal(error);
                }
            }
            Op::Rewind(rewind, reply) => {
                let done = self.rewind(&rewind);
                let failed = done.as_ref().err().cloned();
                reply.send(done.map_err(|error| error.to_queue_error())).ok();
                if let Some(error) = failed {
                    self.heal(error);
                }
            }
            Op::Asked(asked) => self.asked(asked),
            op @ (Op::Trim(..) | Op::Vacuum(..)) => self.tidy(op),
            Op::Damaged(what) => self.heal(StoreError::Damaged(what)),
            Op::Vanished(opened) => self.rescue(opened),
            Op::Enqueue(..) | Op::Settle(_) | Op::Health(..) => {}
        }
    }
}

fn load_health(store: &Store) -> Result<Vec<(Uid, Health)>, StoreError> {
    let mut statement = store.connection.prepare_cached(
        "SELECT uid, json FROM health JOIN lanes ON lanes.number = health.lane WHERE dropped = 0",
    )?;
    let mut rows = statement.query([])?;
    let mut healths = Vec::new();
    while let Some(row) = rows.next()? {
        let (uid, json): (String, String) = (row.get(0)?, row.get(1)?);
        match serde_json::from_str(&json) {
            Ok(health) => healths.push((Uid::new(&uid), health)),
            Err(error) => {
                tracing::error!(destination.uid = uid, error = %error, "a stored health is damaged");
            }
        }
    }
    Ok(healths)
}
