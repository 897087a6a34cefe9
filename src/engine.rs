//! Queue, lanes and delivery: the running part of Postrider, without Kubernetes and HTTP.
//!
//! [`Engine`] is the face: it publishes, runs one lane per destination, and tells how each is doing. It knows the
//! world through its ports: [`queue::Queue`], [`transport::Transport`], [`transport::Mailer`], [`clock::Clock`], and
//! the [`directory`] that the controllers fill. What is decided is decided in `domain`.
//!
//! Invariants:
//!
//! - A lane's task is the only one that leases from its part of the queue, and it never holds more deliveries than
//!   its window, the destination's `maxInFlight` and its share of the common places and bytes allow.
//! - An attempt that our own shutdown cuts off is no outcome: its lease lapses and the delivery is made again.
//! - If a lane's task ends unasked, [`Runner::run`] ends with it.
//! - No lane starts before the stored health is known, so a restart forgives nothing.

pub mod attempt;
pub mod budget;
pub mod clock;
mod complaint;
mod dead_letters;
pub mod deliveries;
pub mod directory;
mod filters;
pub mod history;
pub mod lane;
mod lanes;
pub mod metrics;
mod operations;
pub mod publish;
pub mod queue;
mod recording;
pub mod replayer;
pub mod tester;
pub mod transport;
pub mod view;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::budget::Budget;
use self::clock::Clock;
use self::complaint::Complaints;
use self::deliveries::DeliveryLog;
use self::directory::Directory;
use self::filters::Filters;
use self::lane::Lane;
use self::metrics::EngineMetrics;
use self::operations::Operations;
use self::queue::Queue;
use self::replayer::Replays;
use self::tester::Tests;
use self::transport::{Mailer, Transport};
use self::view::Changes;
use crate::domain::health::Health;
use crate::domain::id::Uid;

/// How often counters are stored and idle leftovers looked for.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);

/// What an [`Engine`] is made of.
pub struct Parts {
    /// Projects and destinations.
    pub directory: Arc<Directory>,
    /// The durable store.
    pub queue: Arc<dyn Queue>,
    /// Keeps what became of attempts.
    pub deliveries: Arc<dyn DeliveryLog>,
    /// Sends requests.
    pub transport: Arc<dyn Transport>,
    /// Sends mails.
    pub mailer: Arc<dyn Mailer>,
    /// Says what time it is.
    pub clock: Arc<dyn Clock>,
    /// Metrics to keep.
    pub metrics: EngineMetrics,
    /// Requests in flight over all destinations; see [`budget`].
    pub max_in_flight: usize,
    /// Bytes of events in flight over all destinations; see [`budget`].
    pub max_in_flight_bytes: usize,
    /// The only namespace whose destinations are seen; `None` when all are.
    pub watched_namespace: Option<String>,
}

/// The running part of Postrider.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
}

/// What the engine's tasks share.
pub(crate) struct Core {
    pub(crate) directory: Arc<Directory>,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) deliveries: Arc<dyn DeliveryLog>,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) mailer: Arc<dyn Mailer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: EngineMetrics,
    pub(crate) places: Budget,
    pub(crate) loads: Budget,
    pub(crate) filters: Filters,
    pub(crate) tests: Tests,
    pub(crate) operations: Operations,
    pub(crate) replays: Replays,
    watched_namespace: Option<String>,
    pub(crate) changes: Changes,
    /// What the store refuses the lanes.
    pub(crate) complaints: Complaints,
    /// Writes that outlive the publisher who asked for them.
    pub(crate) tasks: TaskTracker,
    /// No new attempts.
    pub(crate) stopping: CancellationToken,
    /// Attempts under way are given up.
    pub(crate) aborting: CancellationToken,
    lanes: RwLock<HashMap<Uid, Arc<Lane>>>,
    /// Health of lanes that have not started; `None` until it was read.
    stored_health: Mutex<Option<HashMap<Uid, Health>>>,
    /// Lanes that wait for their task; as many as there are lanes at most.
    starting: Mutex<Vec<Arc<Lane>>>,
    started: Notify,
}

/// Why the engine ended.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A lane's task ended unasked.
    #[error("a delivery task ended unasked")]
    LaneEnded(#[source] tokio::task::JoinError),
}

impl Engine {
    /// Builds an engine; [`Runner::run`] makes it deliver.
    #[must_use]
    pub fn new(parts: Parts) -> (Self, Runner) {
        let core = Arc::new(Core {
            directory: parts.directory,
            queue: parts.queue,
            deliveries: parts.deliveries,
            transport: parts.transport,
            mailer: parts.mailer,
            clock: parts.clock,
            metrics: parts.metrics,
            places: budget::places(u32::try_from(parts.max_in_flight).unwrap_or(u32::MAX)),
            loads: budget::loads(parts.max_in_flight_bytes),
            filters: Filters::default(),
            tests: Tests::default(),
            operations: Operations::default(),
            replays: Replays::default(),
            watched_namespace: parts.watched_namespace,
            changes: Changes::default(),
            complaints: Complaints::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            aborting: CancellationToken::new(),
            lanes: RwLock::default(),
            stored_health: Mutex::default(),
            starting: Mutex::default(),
            started: Notify::new(),
        });
        let engine = Self { core };
        let runner = Runner {
            engine: engine.clone(),
        };
        (engine, runner)
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }
}

impl Core {
    /// Tells a lane that something changed for it, and starts it when it is not running. Before the stored health is
    /// known nothing starts: the runner looks at every destination and lane once it is.
    pub(crate) fn wake(&self, uid: &Uid) {
        if let Some(lane) = self.running_lane(uid) {
            return lane.wake();
        }
        let mut lanes = self.lanes.write();
        let mut stored = self.stored_health.lock();
        let Some(stored) = stored.as_mut() else { return };
        let lane = lanes.entry(uid.clone()).or_insert_with(|| {
            let lane = Arc::new(Lane::new(uid.clone(), stored.remove(uid).unwrap_or_default()));
            self.starting.lock().push(Arc::clone(&lane));
            self.started.notify_one();
            lane
        });
        lane.wake();
    }

    /// Counts an event that a destination is not sent because it had the same one before.
    pub(crate) fn suppressed(&self, uid: &Uid) {
        let started = || {
            self.wake(uid);
            self.running_lane(uid)
        };
        if let Some(lane) = self.running_lane(uid).or_else(started) {
            lane.with(|state| {
                state.health.record_suppressed(1);
                state.active = true;
            });
        }
    }

    /// Whether a destination that the directory does not have may exist all the same, in a namespace that is not
    /// watched. One whose namespace is not known may, when not all are watched.
    pub(crate) fn may_exist_unwatched(&self, uid: &Uid, health: &Health) -> bool {
        let Some(watched) = &self.watched_namespace else {
            return false;
        };
        health.namespace.as_deref() != Some(watched) && !self.directory.was_removed(uid)
    }

    pub(crate) fn running_lane(&self, uid: &Uid) -> Option<Arc<Lane>> {
        self.lanes.read().get(uid).cloned()
    }

    pub(crate) fn running_lanes(&self) -> Vec<Arc<Lane>> {
        self.lanes.read().values().cloned().collect()
    }

    /// Forgets a lane that ended; what was stored for it meanwhile starts it again, to be dropped too.
    fn forget_lane(&self, uid: &Uid) {
        self.lanes.write().remove(uid);
        if self.queue.depth(uid).oldest.is_some() {
            self.wake(uid);
        }
    }
}

/// Runs the engine's tasks.
pub struct Runner {
    engine: Engine,
}

impl Runner {
    /// Delivers until `shutdown`; then stops leasing, lets attempts end for at most `grace`, stores the counters and
    /// returns. Closing the queue is the caller's.
    ///
    /// # Errors
    /// When a lane ends unasked.
    pub async fn run(self, shutdown: CancellationToken, grace: Duration) -> Result<(), EngineError> {
        let core = Arc::clone(self.engine.core());
        load_health(&core, &shutdown).await;
        for uid in core
            .queue
            .lanes()
            .into_iter()
            .chain(core.directory.destinations())
        {
            core.wake(&uid);
        }
        let mut tasks = JoinSet::new();
        // Beside the loop, because it waits for the store.
        let mut sweeping = Box::pin(sweep(Arc::clone(&core)));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = core.started.notified() => {
                    for lane in std::mem::take(&mut *core.starting.lock()) {
                        let core = Arc::clone(&core);
                        tasks.spawn(async move {
                            lane::run(&core, &lane).await;
                            lane
                        });
                    }
                }
                Some(ended) = tasks.join_next() => {
                    let lane = ended.map_err(EngineError::LaneEnded)?;
                    core.forget_lane(&lane.uid);
                }
                () = &mut sweeping => {}
            }
        }
        drop(sweeping);
        stop(&core, tasks, grace).await;
        Ok(())
    }
}

/// Reads the stored health, and keeps trying while the store is unavailable: without it a disabled destination would
/// be tried again.
async fn load_health(core: &Core, shutdown: &CancellationToken) {
    const RETRY: Duration = Duration::from_secs(1);
    loop {
        match core.queue.load_health().await {
            Ok(healths) => {
                *core.stored_health.lock() = Some(healths.into_iter().collect());
                return;
            }
            Err(error) => {
                tracing::warn!(reason = error.reason(), %error, "stored health is unreadable; will retry");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn sweep(core: Arc<Core>) {
    let mut ticks = tokio::time::interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        sweep_lanes(&core).await;
        operations::sweep(&core).await;
    }
}

/// Stores counters that moved, announces them, and starts lanes for whatever the queue holds without one.
async fn sweep_lanes(core: &Core) {
    save_counters(core).await;
    for uid in core.queue.lanes() {
        if core.directory.destination(&uid).is_none() {
            core.wake(&uid);
        }
    }
}

async fn save_counters(core: &Core) {
    let (lanes, moved): (Vec<_>, Vec<_>) = core
        .running_lanes()
        .into_iter()
        .filter_map(|lane| lane.take_activity().map(|moved| (lane, moved)))
        .unzip();
    if moved.is_empty() {
        return;
    }
    for (uid, _) in &moved {
        core.changes.push(uid.clone());
    }
    if let Err(error) = core.queue.save_health(moved).await {
        tracing::warn!(reason = error.reason(), %error, "counters were not stored; will try again");
        for lane in lanes {
            lane.with(|state| state.active = true);
        }
    }
}

async fn stop(core: &Core, mut tasks: JoinSet<Arc<Lane>>, grace: Duration) {
    core.stopping.cancel();
    let ended = tokio::time::timeout(grace, async { while tasks.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!("attempts were cut off by the end of the grace period; they will be made again");
        core.aborting.cancel();
        while tasks.join_next().await.is_some() {}
    }
    core.tasks.close();
    core.tasks.wait().await;
    save_counters(core).await;
}

#[cfg(test)]
mod tests;
