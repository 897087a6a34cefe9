//! [`Inbox`]: what waits for the writer thread.
//!
//! Enqueues are bounded by number and bytes, and refused beyond. What people ask has a small bound of its own,
//! [`MAX_ASKED`], and takes no place from those who publish. Settlements are always let in: there are never more
//! than leases, which the callers bound, and refusing one would cause a delivery to be repeated.

use std::collections::VecDeque;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::fault::StoreError;
use super::pace::Gather;
use super::rows::Row;
use super::store::Settle;
use crate::domain::health::Health;
use crate::domain::id::Uid;
use crate::engine::queue::metrics::QueueMetrics;
use crate::engine::queue::{Enqueued, QueueError};

/// Most requests of people that wait; further ones are refused.
const MAX_ASKED: usize = 16;

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, QueueError>>;

/// Settlements of one call.
#[derive(Debug)]
pub(super) struct Settling {
    /// What to write.
    pub(super) settles: Vec<Settle>,
    /// Where the answer goes.
    pub(super) reply: Reply<()>,
    /// When they could not be written for the first time.
    pub(super) failed: Option<Instant>,
    /// They wait for this room.
    pub(super) missing: Option<StoreError>,
}

impl Settling {
    pub(super) const fn new(settles: Vec<Settle>, reply: Reply<()>) -> Self {
        Self {
            settles,
            reply,
            failed: None,
            missing: None,
        }
    }
}

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Op {
    /// Store events.
    Enqueue(Vec<Row>, Reply<Vec<Enqueued>>),
    /// Store what became of deliveries.
    Settle(Settling),
    /// Store healths.
    Health(Vec<(Uid, Health)>, Reply<()>),
    /// Read healths.
    LoadHealth(Reply<Vec<(Uid, Health)>>),
    /// Read the note of a lane's delivery.
    Note(Uid, i64, Reply<Option<Box<[u8]>>>),
    /// Drop a lane.
    Drop(Uid, Reply<u64>),
    /// Put deliveries back to the place of their age; answers where to go on.
    Rewind(super::rewind::Rewind, Reply<super::rewind::Step>),
    /// What people ask for.
    Asked(super::asked::Asked),
    /// Remove old events.
    Trim(
        super::keeper::Trim,
        SyncSender<Result<super::keeper::Trimmed, StoreError>>,
    ),
    /// Give free pages back; answers how many are left.
    Vacuum(u32, SyncSender<Result<u64, StoreError>>),
    /// The file that was opened is not where it was.
    Vanished(super::vanished::Identity),
    /// The keeper or the reader found damage.
    Damaged(String),
}

/// What is worth a commit: so many calls, or so many bytes.
#[derive(Clone, Copy, Debug)]
struct Enough {
    calls: usize,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    ops: VecDeque<Op>,
    bytes: usize,
    /// Of `ops`, those that people ask for.
    asked: usize,
    /// The writer waits for this.
    awaited: Option<Enough>,
    closed: bool,
}

impl Waiting {
    fn has(&self, enough: Enough) -> bool {
        self.ops.len() >= enough.calls || self.bytes >= enough.bytes
    }
}

/// What waits for the writer thread.
#[derive(Debug)]
pub(super) struct Inbox {
    waiting: Mutex<Waiting>,
    bell: Condvar,
    max_calls: usize,
    max_bytes: usize,
}

fn size(op: &Op) -> usize {
    match op {
        Op::Enqueue(rows, _) => rows.iter().map(Row::cost).sum(),
        _ => 0,
    }
}

/// Whether people ask for it. Handing over is part of an attempt, and attempts have bounds of their own.
const fn is_question(op: &Op) -> bool {
    matches!(op, Op::Asked(asked) if !matches!(asked, super::asked::Asked::HandOver(..)))
}

impl Inbox {
    /// An empty inbox.
    pub(super) fn new(max_calls: usize, max_bytes: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            bell: Condvar::new(),
            max_calls,
            max_bytes,
        }
    }

    /// [`Inbox::push`], and counts what is refused.
    pub(super) fn offer(&self, op: Op, metrics: &QueueMetrics) -> Result<(), QueueError> {
        let refused = match &op {
            op if is_question(op) => &metrics.refused_asked,
            _ => &metrics.refused_inbox,
        };
        let pushed = self.push(op);
        if pushed == Err(QueueError::Overloaded) {
            refused.inc();
        }
        pushed
    }

    /// Puts something in.
    ///
    /// # Errors
    /// `Overloaded` for an enqueue or a question beyond the bounds, `Closed` after the end.
    pub(super) fn push(&self, op: Op) -> Result<(), QueueError> {
        let bytes = size(&op);
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(QueueError::Closed);
        }
        let others = waiting.ops.len().saturating_sub(waiting.asked);
        let full = others >= self.max_calls
            || (waiting.bytes > 0 && waiting.bytes.saturating_add(bytes) > self.max_bytes);
        if full && matches!(op, Op::Enqueue(..) | Op::Health(..)) {
            return Err(QueueError::Overloaded);
        }
        if is_question(&op) {
            if waiting.asked >= MAX_ASKED {
                return Err(QueueError::Overloaded);
            }
            waiting.asked += 1;
        }
        waiting.bytes = waiting.bytes.saturating_add(bytes);
        waiting.ops.push_back(op);
        let ring = waiting.awaited.is_some_and(|enough| waiting.has(enough));
        if ring {
            waiting.awaited = None;
        }
        drop(waiting);
        if ring {
            self.bell.notify_one();
        }
        Ok(())
    }

    /// Waits for work, at most until `until`, lets more [`gather`](Gather), and takes at most `most` calls of at most
    /// `bytes`, but at least one. `None` after the end, when everything was taken.
    pub(super) fn take(
        &self,
        most: usize,
        bytes: usize,
        until: Option<Instant>,
        gather: Option<Gather>,
        into: &mut Vec<Op>,
    ) -> Option<()> {
        let mut waiting = self.waiting.lock();
        while waiting.ops.is_empty() {
            if waiting.closed {
                return None;
            }
            let calls = 1;
            waiting.awaited = Some(Enough { calls, bytes });
            match until {
                None => self.bell.wait(&mut waiting),
                Some(until) => {
                    if self.bell.wait_until(&mut waiting, until).timed_out() {
                        break;
                    }
                }
            }
        }
        if let Some(Gather { until, calls }) = gather {
            let calls = calls.min(most);
            let enough = Enough { calls, bytes };
            while !waiting.ops.is_empty() && !waiting.closed && !waiting.has(enough) {
                waiting.awaited = Some(enough);
                if self.bell.wait_until(&mut waiting, until).timed_out() {
                    break;
                }
            }
        }
        waiting.awaited = None;
        let mut taken = 0_usize;
        while into.len() < most {
            let Some(next) = waiting.ops.front().map(size) else {
                break;
            };
            if taken > 0 && taken.saturating_add(next) > bytes {
                break;
            }
            taken += next;
            waiting.bytes = waiting.bytes.saturating_sub(next);
            let op = waiting.ops.pop_front();
            if op.as_ref().is_some_and(is_question) {
                waiting.asked = waiting.asked.saturating_sub(1);
            }
            into.extend(op);
        }
        Some(())
    }

    /// Lets nothing more in.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.bell.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::id::EventId;
    use crate::engine::queue::sqlite::asked::Asked;

    fn question() -> Op {
        let id = EventId::parse("evt_1").unwrap();
        Op::Asked(Asked::Find(Uid::new("a"), id, None, oneshot::channel().0))
    }

    fn events() -> Op {
        Op::Enqueue(Vec::new(), oneshot::channel().0)
    }

    /// Takes while another thread puts calls in; how many were taken.
    fn gathered(inbox: &Inbox, gather: Gather, put: impl FnOnce() + Send) -> usize {
        let mut taken = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(put);
            inbox.take(512, 1 << 20, None, Some(gather), &mut taken)
        })
        .unwrap();
        taken.len()
    }

    fn long_from_now(calls: usize) -> Gather {
        let until = Instant::now() + std::time::Duration::from_secs(3600);
        Gather { until, calls }
    }

    #[test]
    fn the_writer_waits_until_as_many_calls_are_there_as_came_before() {
        let inbox = Inbox::new(64, 1 << 20);
        let put = || (0..8).for_each(|_| inbox.push(events()).unwrap());
        assert_eq!(gathered(&inbox, long_from_now(8), put), 8);
    }

    #[test]
    fn the_writer_waits_no_longer_than_it_is_told() {
        let inbox = Inbox::new(64, 1 << 20);
        inbox.push(events()).unwrap();
        let now = Instant::now();
        let gather = Gather { until: now, calls: 8 };
        assert_eq!(gathered(&inbox, gather, || {}), 1);
    }

    #[test]
    fn the_writer_waits_for_no_more_calls_when_their_bytes_fill_a_commit() {
        let inbox = Inbox::new(64, 4 << 20);
        let put = || {
            inbox.push(events()).unwrap();
            let mut waiting = inbox.waiting.lock();
            waiting.bytes = 1 << 20;
            drop(waiting);
            inbox.push(events()).unwrap();
        };
        assert!(gathered(&inbox, long_from_now(8), put) > 0);
    }

    #[test]
    fn closing_ends_the_wait_for_further_calls() {
        let inbox = Inbox::new(64, 1 << 20);
        let put = || {
            inbox.push(events()).unwrap();
            inbox.close();
        };
        assert_eq!(gathered(&inbox, long_from_now(8), put), 1);
    }

    #[test]
    fn what_people_ask_takes_no_place_from_publishers() {
        let (inbox, metrics) = (Inbox::new(4, 1 << 20), QueueMetrics::default());
        for _ in 0..MAX_ASKED {
            inbox.offer(question(), &metrics).unwrap();
        }
        assert_eq!(inbox.offer(question(), &metrics), Err(QueueError::Overloaded));
        for _ in 0..4 {
            inbox.offer(events(), &metrics).unwrap();
        }
        assert_eq!(inbox.offer(events(), &metrics), Err(QueueError::Overloaded));
        assert_eq!((metrics.refused_asked.get(), metrics.refused_inbox.get()), (1, 1));
        let mut taken = Vec::new();
        inbox.take(1, 1 << 20, None, None, &mut taken).unwrap();
        inbox.offer(question(), &metrics).unwrap();
        assert_eq!(inbox.offer(question(), &metrics), Err(QueueError::Overloaded));
    }
}
