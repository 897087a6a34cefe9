//! [`History`]: what became of deliveries, and what people do about it: deliver again, cancel.
//!
//! What was tried is read from the delivery log, what waits from the queue. What is stored in the queue alone decides
//! what can be delivered again; the log only says which events failed. Every call is bounded; a long replay is a chain
//! of calls, each of which says where the next goes on.
//!
//! A caller may go away at any time. What was begun by then is finished all the same, with its counting, its record and
//! the waking of the lane: a step of a replay, a replay of one event, a cancellation. Further steps are not begun.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::deliveries::{LogError, MAX_PAGE, Query, Which};
use super::directory::Entry;
use super::publish::Finished;
use super::queue::asked::{Cancelled, Open, REPLAY_STEP, Replay, Replayed, Retained, Waiting, Waits};
use super::queue::{QueueError, Stored};
use super::{Core, Engine};
use crate::domain::delivery_log::{Record, State, Timings};
use crate::domain::event::Event;
use crate::domain::id::{EventId, ObjectKey, Uid};

/// Steps that one call makes at most.
const STEPS: usize = 8;
/// Deliveries after which a call makes no further step.
const ENOUGH: u64 = 2_000;

/// Why a question was not answered, or nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The queue's fault.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The log's fault.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// One event at one destination.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Attempts, oldest first, as far as the log has them.
    pub attempts: Vec<Record>,
    /// The event, while it is stored.
    pub event: Option<Arc<Event>>,
    /// Its delivery, while it waits.
    pub open: Option<Open>,
}

/// Which events are to be delivered again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Accepted from then on; with `failed_only`, given up from then on.
    pub since: Timestamp,
    /// But before then.
    pub until: Timestamp,
    /// Those only that were given up.
    pub failed_only: bool,
    /// Those of this type only.
    pub event_type: Option<Arc<str>>,
}

/// What one call of a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Deliveries made.
    pub made: u64,
    /// Events whose delivery waits anyway.
    pub open: u64,
    /// Events that retention has removed.
    pub gone: u64,
    /// Dead letters of other destinations, which are replayed there.
    pub dead_letters: u64,
    /// Where the next call goes on; `None` at the end.
    pub next: Option<i64>,
}

/// What became of a replay of one event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayedOne {
    /// It is delivered again.
    Made,
    /// Its delivery waits, or is under way, anyway.
    Open,
    /// It was delivered here, or tried, but retention has removed it.
    Gone,
    /// It came here as the dead letter of another destination, and is replayed there.
    DeadLetter,
    /// It never came here, as far as is known.
    Unknown,
}

/// What became of a cancellation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelledOne {
    /// The delivery was dropped.
    Done,
    /// An attempt is under way.
    InFlight,
    /// It does not wait.
    NotWaiting,
    /// It never came here, as far as is known.
    Unknown,
}

/// What became of deliveries, and what people do about it.
#[async_trait]
pub trait History: Send + Sync {
    /// The destination of that name. From memory.
    fn destination(&self, key: &ObjectKey) -> Option<Arc<Entry>>;

    /// Deliveries that were tried, each by its last attempt: see [`DeliveryLog::list`](super::deliveries::DeliveryLog::list).
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn tried(&self, uid: &Uid, query: Query) -> Result<super::deliveries::Page, HistoryError>;

    /// Deliveries that wait, in the order in which they are due, after that place.
    ///
    /// # Errors
    /// When the queue cannot be read.
    async fn waiting(
        &self,
        uid: &Uid,
        after: Option<(i64, u64)>,
        limit: usize,
    ) -> Result<Waits, HistoryError>;

    /// All that is known of one event; `None` when nothing is.
    ///
    /// # Errors
    /// When log or queue cannot be read.
    async fn show(&self, uid: &Uid, id: &EventId) -> Result<Option<Shown>, HistoryError>;

    /// Delivers one event again.
    ///
    /// # Errors
    /// When that cannot be stored.
    async fn replay_one(&self, uid: &Uid, id: &EventId) -> Result<ReplayedOne, HistoryError>;

    /// Delivers some events again, from where an earlier call ended.
    ///
    /// # Errors
    /// When nothing could be stored. When something could, the next call goes on there.
    async fn replay(
        &self,
        uid: &Uid,
        selection: &Selection,
        from: Option<i64>,
    ) -> Result<Progress, HistoryError>;

    /// Drops one waiting delivery.
    ///
    /// # Errors
    /// When that cannot be stored.
    async fn cancel(&self, uid: &Uid, id: &EventId) -> Result<CancelledOne, HistoryError>;
}

/// What the queue has of an event, and what the log has when the queue has nothing.
async fn find(
    core: &Core,
    uid: &Uid,
    id: &EventId,
) -> Result<(Option<Retained>, Option<Vec<Record>>), HistoryError> {
    if let Some(retained) = core.queue.find(uid, id, None).await? {
        return Ok((Some(retained), None));
    }
    // Ids are forgotten before the log is.
    let attempts = match core.deliveries.attempts(uid, Which::Id(id.clone())).await {
        Ok(attempts) => attempts,
        Err(LogError::Off) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let retained = match attempts.last() {
        Some(last) => core.queue.find(uid, id, Some(last.seq)).await?,
        None => None,
    };
    Ok((retained, Some(attempts)))
}

#[async_trait]
impl History for Engine {
    fn destination(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        self.core().directory.destination_named(key)
    }

    async fn tried(&self, uid: &Uid, query: Query) -> Result<super::deliveries::Page, HistoryError> {
        Ok(self.core().deliveries.list(uid, query).await?)
    }

    async fn waiting(
        &self,
        uid: &Uid,
        after: Option<(i64, u64)>,
        limit: usize,
    ) -> Result<Waits, HistoryError> {
        Ok(self.core().queue.waiting(uid, after, limit).await?)
    }

    async fn show(&self, uid: &Uid, id: &EventId) -> Result<Option<Shown>, HistoryError> {
        let core = self.core();
        let (retained, attempts) = find(core, uid, id).await?;
        let attempts = match (&retained, attempts) {
            (_, Some(attempts)) => attempts,
            (Some(retained), None) => {
                let which = Which::Position(retained.seq, id.clone());
                match core.deliveries.attempts(uid, which).await {
                    Ok(attempts) => attempts,
                    Err(LogError::Off) => Vec::new(),
                    Err(error) => return Err(error.into()),
                }
            }
            (None, None) => Vec::new(),
        };
        if retained.is_none() && attempts.is_empty() {
            return Ok(None);
        }
        let (event, open) = retained.map_or((None, None), |retained| (Some(retained.event), retained.open));
        Ok(Some(Shown {
            attempts,
            event,
            open,
        }))
    }

    async fn replay_one(&self, uid: &Uid, id: &EventId) -> Result<ReplayedOne, HistoryError> {
        let core = self.core();
        let work = replay_one(Arc::clone(core), uid.clone(), id.clone());
        Finished::new(&core.tasks, work).await
    }

    async fn replay(
        &self,
        uid: &Uid,
        selection: &Selection,
        from: Option<i64>,
    ) -> Result<Progress, HistoryError> {
        let core = self.core();
        let mut progress = Progress {
            next: from,
            ..Progress::default()
        };
        for _ in 0..STEPS {
            let work = step(Arc::clone(core), uid.clone(), selection.clone(), progress.next);
            match Finished::new(&core.tasks, work).await {
                Ok(step) => {
                    progress.made += step.made;
                    progress.open += step.open;
                    progress.gone += step.gone;
                    progress.dead_letters += step.dead_letters;
                    progress.next = step.next;
                }
                Err(error) if progress.made == 0 => return Err(error),
                // The next call meets the same fault, and says so.
                Err(_) => break,
            }
            if progress.next.is_none() || progress.made >= ENOUGH {
                break;
            }
        }
        Ok(progress)
    }

    async fn cancel(&self, uid: &Uid, id: &EventId) -> Result<CancelledOne, HistoryError> {
        let core = self.core();
        let work = cancel(Arc::clone(core), uid.clone(), id.clone());
        Finished::new(&core.tasks, work).await
    }
}

/// Makes deliveries, counts them, and wakes their lane.
async fn deliver(core: &Core, uid: &Uid, replay: Replay) -> Result<Replayed, QueueError> {
    let done = core.queue.replay(uid, replay, core.clock.now()).await?;
    if done.made > 0 {
        core.metrics.replayed(done.made);
        core.wake(uid);
    }
    Ok(done)
}

async fn replay_one(core: Arc<Core>, uid: Uid, id: EventId) -> Result<ReplayedOne, HistoryError> {
    let (retained, attempts) = find(&core, &uid, &id).await?;
    // What came here from another destination is found while it waits, and by its attempts.
    if retained.as_ref().is_some_and(|retained| retained.open.is_some()) {
        return Ok(ReplayedOne::Open);
    }
    let tried = attempts.as_ref().and_then(|attempts| attempts.last());
    let Some(seq) = retained
        .map(|retained| retained.seq)
        .or(tried.map(|last| last.seq))
    else {
        return Ok(ReplayedOne::Unknown);
    };
    let done = deliver(&core, &uid, Replay::Events(vec![(seq, id)])).await?;
    Ok(if done.made > 0 {
        ReplayedOne::Made
    } else if done.open > 0 {
        ReplayedOne::Open
    } else if done.elsewhere > 0 {
        ReplayedOne::DeadLetter
    } else {
        ReplayedOne::Gone
    })
}

async fn cancel(core: Arc<Core>, uid: Uid, id: EventId) -> Result<CancelledOne, HistoryError> {
    let (retained, attempts) = find(&core, &uid, &id).await?;
    let Some(retained) = retained else {
        let known = attempts.is_some_and(|attempts| !attempts.is_empty());
        return Ok(if known {
            CancelledOne::NotWaiting
        } else {
            CancelledOne::Unknown
        });
    };
    Ok(match core.queue.cancel(&uid, retained.seq).await? {
        Cancelled::InFlight => CancelledOne::InFlight,
        Cancelled::NotWaiting => CancelledOne::NotWaiting,
        Cancelled::Done { attempts } => {
            core.metrics.dropped(1, CANCELLED);
            core.deliveries
                .record(cancelled(&core, &uid, &retained, attempts));
            if let Some(lane) = core.running_lane(&uid) {
                lane.cancelled(retained.seq);
            }
            core.wake(&uid);
            CancelledOne::Done
        }
    })
}

/// Why a delivery was dropped that somebody cancelled.
const CANCELLED: &str = "Cancelled";

fn cancelled(core: &Core, uid: &Uid, retained: &Retained, attempts: u32) -> Record {
    Record {
        lane: uid.clone(),
        event_id: retained.event.id.clone(),
        event_type: retained.event.content.event_type.clone(),
        seq: retained.seq,
        attempt: attempts,
        began: core.clock.now(),
        state: State::Cancelled,
        status: None,
        reason: CANCELLED.into(),
        message: "cancelled on request".to_owned(),
        timings: Timings::default(),
        headers: Arc::default(),
        excerpt: None,
        next_attempt: None,
        replayed: retained.open.is_some_and(|open| open.replayed),
    }
}

/// One step of a replay.
async fn step(
    core: Arc<Core>,
    uid: Uid,
    selection: Selection,
    from: Option<i64>,
) -> Result<Progress, HistoryError> {
    if !selection.failed_only {
        let replay = Replay::Accepted {
            since: selection.since,
            until: selection.until,
            event_type: selection.event_type,
            from: from.unwrap_or(0).cast_unsigned(),
        };
        let done = deliver(&core, &uid, replay).await?;
        return Ok(Progress {
            made: done.made,
            open: done.open,
            gone: done.gone,
            dead_letters: done.elsewhere,
            next: done.next.map(u64::cast_signed),
        });
    }
    let query = Query {
        state: Some(State::Exhausted),
        event_type: selection.event_type,
        since: Some(selection.since),
        until: Some(selection.until),
        cursor: from.filter(|from| *from > 0),
        oldest_first: true,
        limit: REPLAY_STEP.min(MAX_PAGE),
    };
    let page = core.deliveries.list(&uid, query).await?;
    let events = page
        .records
        .into_iter()
        .map(|record| (record.seq, record.event_id));
    let events: Vec<(u64, EventId)> = events.collect();
    let mut progress = Progress {
        next: page.next,
        ..Progress::default()
    };
    if !events.is_empty() {
        let done = deliver(&core, &uid, Replay::Events(events)).await?;
        (progress.made, progress.open) = (done.made, done.open);
        (progress.gone, progress.dead_letters) = (done.gone, done.elsewhere);
    }
    Ok(progress)
}

/// The event of a waiting delivery, when it can be read.
#[must_use]
pub fn event_of(waiting: &Waiting) -> Option<&Event> {
    match &waiting.stored {
        Stored::Event(event) => Some(event),
        Stored::Corrupt { .. } => None,
    }
}
