//! [`Replayer`]: replays that a destination's annotation asks for.
//!
//! Two steps, so that nothing is replayed twice: the replay is announced, which the status tells, and only then started.
//! A process that ends in between, or while it runs, leaves a status that says that it runs; the next one has no such
//! replay, and says so instead of beginning anew.
//!
//! Steps take turns, a few at once for the whole process. A replay that waits for room holds no turn, so full projects are
//! in nobody's way. A newer replay of the same destination ends the older one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::history::{History as _, HistoryError, ReplayedOne, Selection};
use super::queue::QueueError;
use super::{Core, Engine};
use crate::domain::dead_letter::NOT_REPLAYED as DEAD_LETTER;
use crate::domain::id::Uid;
use crate::domain::replay_request::{ReplayCounts, ReplayRequest, ReplayResult, What};

/// Calls of replays at once; further ones wait for their turn.
const AT_ONCE: usize = 2;
/// How often a replay is tried again whose project's queue is full, and the wait in between.
const PATIENCE: u32 = 60;
const PAUSE: Duration = Duration::from_secs(5);

/// How a replay stands in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Not known here.
    Unknown,
    /// Announced, not started.
    Announced,
    /// It runs.
    Running,
    /// It ended.
    Ended(ReplayResult),
}

/// Makes replays.
pub trait Replayer: Send + Sync {
    /// Takes note that the status is about to tell of a replay.
    fn announce(&self, uid: &Uid, request: &ReplayRequest);

    /// Starts an announced replay. Its end is told as a change of the destination, see
    /// [`super::view::DeliveryView::changes`].
    fn start(&self, uid: &Uid, asked: &str);

    /// How a replay stands.
    fn stand(&self, uid: &Uid, asked: &str) -> Stand;
}

/// The replays of this process: the last one of each destination.
pub(crate) struct Replays {
    turns: Semaphore,
    slots: Mutex<HashMap<Uid, Slot>>,
}

/// The last replay of a destination.
struct Slot {
    request: ReplayRequest,
    stand: Stand,
    /// Ends it.
    stop: CancellationToken,
    /// The one that it ended.
    ended: Option<Arc<str>>,
}

impl Default for Replays {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE),
            slots: Mutex::default(),
        }
    }
}

impl Replays {
    pub(crate) fn forget(&self, uid: &Uid) {
        if let Some(slot) = self.slots.lock().remove(uid) {
            slot.stop.cancel();
        }
    }
}

impl Replayer for Engine {
    fn announce(&self, uid: &Uid, request: &ReplayRequest) {
        let mut slots = self.core().replays.slots.lock();
        let known = slots.get(uid);
        if known.is_some_and(|slot| slot.request == *request) {
            return;
        }
        let open = known.filter(|slot| !matches!(slot.stand, Stand::Ended(_)));
        let ended = open.map(|slot| {
            slot.stop.cancel();
            Arc::clone(&slot.request.asked)
        });
        let slot = Slot {
            request: request.clone(),
            stand: Stand::Announced,
            stop: CancellationToken::new(),
            ended,
        };
        slots.insert(uid.clone(), slot);
    }

    fn start(&self, uid: &Uid, asked: &str) {
        let core = self.core();
        if core.stopping.is_cancelled() {
            return;
        }
        let (request, stop) = {
            let mut slots = core.replays.slots.lock();
            match slots.get_mut(uid) {
                Some(slot) if *slot.request.asked == *asked && slot.stand == Stand::Announced => {
                    slot.stand = Stand::Running;
                    (slot.request.clone(), slot.stop.clone())
                }
                _ => return,
            }
        };
        let (engine, uid) = (self.clone(), uid.clone());
        core.tasks.spawn(async move {
            let core = Arc::clone(engine.core());
            let result = tokio::select! {
                result = make(&engine, &uid, &request) => result,
                () = core.stopping.cancelled() => return,
                () = stop.cancelled() => {
                    tracing::info!(destination.uid = %uid, "replay ended early for a newer one");
                    return;
                }
            };
            tracing::info!(
                destination.uid = %uid, outcome = result.outcome.as_str(), message = result.message,
                "replay ended"
            );
            if let Some(slot) = core.replays.slots.lock().get_mut(&uid)
                && slot.request == request
            {
                slot.stand = Stand::Ended(result);
            }
            core.changes.push(uid);
        });
    }

    fn stand(&self, uid: &Uid, asked: &str) -> Stand {
        let slots = self.core().replays.slots.lock();
        match slots.get(uid) {
            Some(slot) if *slot.request.asked == *asked => slot.stand.clone(),
            Some(slot) if slot.ended.as_deref() == Some(asked) => {
                Stand::Ended(ReplayResult::superseded(asked, self.core().clock.now()))
            }
            _ => Stand::Unknown,
        }
    }
}

async fn make(engine: &Engine, uid: &Uid, request: &ReplayRequest) -> ReplayResult {
    let core = engine.core();
    let mut counts = ReplayCounts::default();
    let fault = match &request.what {
        What::One(id) => match patiently(core, || engine.replay_one(uid, id)).await {
            Ok(ReplayedOne::Made) => {
                counts.made = 1;
                None
            }
            Ok(ReplayedOne::Open) => {
                counts.open = 1;
                None
            }
            Ok(ReplayedOne::Gone) => {
                counts.gone = 1;
                Some("the event is no longer stored; publish it again under a new id".to_owned())
            }
            Ok(ReplayedOne::DeadLetter) => {
                counts.dead_letters = 1;
                Some(DEAD_LETTER.to_owned())
            }
            Ok(ReplayedOne::Unknown) => Some(
                "nothing is known here of an event of this id: it was not sent to this destination, or too long ago"
                    .to_owned(),
            ),
            Err(error) => Some(error.to_string()),
        },
        What::Span {
            since,
            until,
            failed_only,
            event_type,
        } => {
            let now = core.clock.now();
            let selection = Selection {
                since: *since,
                until: until.map_or(now, |until| until.min(now)),
                failed_only: *failed_only,
                event_type: event_type.clone(),
            };
            span(engine, uid, &selection, &mut counts).await
        }
    };
    ReplayResult::ended(&request.asked, counts, fault, core.clock.now())
}

/// Makes a call in its turn; again after a pause, in which others have theirs, while there is no room.
async fn patiently<T, Call>(core: &Core, call: impl Fn() -> Call) -> Result<T, HistoryError>
where
    Call: Future<Output = Result<T, HistoryError>>,
{
    let mut tries = 0;
    loop {
        // Never closed.
        let turn = core.replays.turns.acquire().await.ok();
        let done = call().await;
        drop(turn);
        match done {
            // Deliveries make room.
            Err(HistoryError::Queue(QueueError::ProjectFull { .. } | QueueError::Overloaded))
                if tries < PATIENCE =>
            {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Replays a span step by step; answers why it ended early.
async fn span(
    engine: &Engine,
    uid: &Uid,
    selection: &Selection,
    counts: &mut ReplayCounts,
) -> Option<String> {
    let mut from = None;
    loop {
        match patiently(engine.core(), || engine.replay(uid, selection, from)).await {
            Ok(progress) => {
                counts.made += progress.made;
                counts.open += progress.open;
                counts.gone += progress.gone;
                counts.dead_letters += progress.dead_letters;
                from = progress.next;
                from?;
            }
            Err(error) => {
                return Some(format!("{error}; ask again with a new token for what is missing"));
            }
        }
    }
}
