//! A lane: one destination's part of the queue, and the task that empties it.
//!
//! The task looks at everything anew each time it wakes: the destination as configured now, its health, what is due.
//! It wakes when an event was stored for it, its destination changed, an attempt ended, or time has come.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::Core;
use super::attempt;
use super::places::Place;
use crate::domain::destination::Destination;
use crate::domain::health::Health;
use crate::domain::id::Uid;
use crate::domain::window::{self, Admission, Window};

/// How long a lane waits after the store failed it.
const STORE_PAUSE: Duration = Duration::from_secs(1);
/// Longest sleep of a lane: the system's clock may have jumped meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// One destination's lane.
#[derive(Debug)]
pub struct Lane {
    /// uid of the destination.
    pub uid: Uid,
    state: Mutex<State>,
    wake: Notify,
}

/// What is known of a lane's receiver.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) health: Health,
    pub(crate) window: Window,
    /// Counters moved since they were last stored.
    pub(crate) active: bool,
    /// When the next attempt is due, for status.
    pub(crate) next_attempt: Option<Timestamp>,
    /// The store failed an attempt; the lane pauses before it leases again.
    pub(crate) store_failed: bool,
}

impl Lane {
    pub(crate) fn new(uid: Uid, health: Health) -> Self {
        let window = Window::new(health.is_failing() || health.disabled.is_some());
        let state = State {
            health,
            window,
            active: false,
            next_attempt: None,
            store_failed: false,
        };
        Self {
            uid,
            state: Mutex::new(state),
            wake: Notify::new(),
        }
    }

    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock())
    }

    /// The health, if counters moved since it was last asked for here.
    pub(crate) fn take_activity(&self) -> Option<(Uid, Health)> {
        self.with(|state| std::mem::take(&mut state.active).then(|| (self.uid.clone(), state.health.clone())))
    }
}

/// What a lane does next.
enum Step {
    /// Wait until woken, or until then.
    Wait(Option<Timestamp>),
    /// Ask the store again after a pause.
    Pause,
    /// The destination is gone and so is its work.
    Gone,
}

/// Empties a lane until its destination is gone or the engine stops.
pub(crate) async fn run(core: &Arc<Core>, lane: &Arc<Lane>) {
    let mut attempts = JoinSet::new();
    while !core.stopping.is_cancelled() {
        let until = match advance(core, lane, &mut attempts).await {
            Step::Gone => break,
            Step::Wait(until) => until,
            Step::Pause => Some(crate::domain::retry::after(core.clock.now(), STORE_PAUSE)),
        };
        tokio::select! {
            () = lane.wake.notified() => {}
            Some(_) = attempts.join_next() => {}
            () = sleep_until(core, until) => {}
            () = core.stopping.cancelled() => {}
        }
        while attempts.try_join_next().is_some() {}
    }
    while attempts.join_next().await.is_some() {}
}

async fn sleep_until(core: &Core, until: Option<Timestamp>) {
    let wait = until.map_or(LONGEST_SLEEP, |until| {
        Duration::try_from(until.duration_since(core.clock.now()))
            .unwrap_or_default()
            .min(LONGEST_SLEEP)
    });
    tokio::time::sleep(wait).await;
}

async fn advance(core: &Arc<Core>, lane: &Arc<Lane>, attempts: &mut JoinSet<()>) -> Step {
    let Some(entry) = core.directory.destination(&lane.uid) else {
        return if core.directory.synced() {
            discard(core, lane).await
        } else {
            Step::Wait(None)
        };
    };
    let now = core.clock.now();
    let destination = entry.ready();
    let (changed, health) = lane.with(|state| {
        let changed = state
            .health
            .observe(entry.identity.generation, entry.enable_request.as_deref());
        (changed, state.health.clone())
    });
    if changed {
        core.changes.push(lane.uid.clone());
        if let Err(error) = core
            .queue
            .save_health(vec![(lane.uid.clone(), health.clone())])
            .await
        {
            tracing::warn!(reason = error.reason(), %error, destination.uid = %lane.uid, "health was not stored");
        }
    }
    if lane.with(|state| std::mem::take(&mut state.store_failed)) {
        return Step::Pause;
    }
    let limit = match (
        window::admission(destination.map(AsRef::as_ref), &health, now),
        destination,
    ) {
        (Admission::Open, Some(destination)) => {
            lane.with(|state| state.window.limit(destination.max_in_flight))
        }
        (Admission::Probe, Some(_)) => 1,
        (Admission::RestUntil(until), _) => return wait_until(lane, Some(until)),
        (Admission::Parked { until, .. }, _) => return wait_until(lane, until),
        (Admission::Open | Admission::Probe, None) => return wait_until(lane, None),
    };
    let Some(destination) = destination else {
        return Step::Wait(None);
    };
    let failing = health.is_failing() || health.disabled.is_some();
    fill(core, lane, destination, limit, failing, attempts).await
}

fn wait_until(lane: &Lane, until: Option<Timestamp>) -> Step {
    lane.with(|state| state.next_attempt = until);
    Step::Wait(until)
}

/// Starts as many attempts as the limit and the common places allow.
async fn fill(
    core: &Arc<Core>,
    lane: &Arc<Lane>,
    destination: &Arc<Destination>,
    limit: u32,
    failing: bool,
    attempts: &mut JoinSet<()>,
) -> Step {
    let free = usize::try_from(limit)
        .unwrap_or(usize::MAX)
        .saturating_sub(attempts.len());
    if free == 0 {
        return Step::Wait(None);
    }
    if core.queue.depth(&lane.uid).pending == 0 {
        return wait_until(lane, None);
    }
    let Some(places) = take_places(core, free, failing).await else {
        return Step::Wait(None);
    };
    let leased = match core.queue.lease(&lane.uid, core.clock.now(), places.len()).await {
        Ok(leased) => leased,
        Err(error) => {
            tracing::warn!(reason = error.reason(), %error, destination.uid = %lane.uid, "the queue cannot be read");
            return Step::Pause;
        }
    };
    for (place, lease) in places.into_iter().zip(leased.leases) {
        attempts.spawn(attempt::make(
            Arc::clone(core),
            Arc::clone(lane),
            Arc::clone(destination),
            lease,
            place,
        ));
    }
    wait_until(lane, leased.next_due)
}

/// At least one place, at most `most`; `None` when the engine stops.
async fn take_places(core: &Core, most: usize, failing: bool) -> Option<Vec<Place>> {
    let first = tokio::select! {
        place = core.places.take(failing) => place?,
        () = core.stopping.cancelled() => return None,
    };
    let more = std::iter::from_fn(|| core.places.try_take(failing));
    Some(
        std::iter::once(first)
            .chain(more.take(most.saturating_sub(1)))
            .collect(),
    )
}

/// Drops the work of a destination that is gone.
async fn discard(core: &Core, lane: &Lane) -> Step {
    match core.queue.drop_lane(&lane.uid).await {
        Ok(dropped) => {
            core.metrics.dropped(dropped);
            if dropped > 0 {
                tracing::info!(
                    destination.uid = %lane.uid, deliveries = dropped, reason = "DestinationDeleted",
                    "deliveries dropped"
                );
            }
            Step::Gone
        }
        Err(error) => {
            tracing::warn!(reason = error.reason(), %error, destination.uid = %lane.uid, "a lane was not dropped");
            Step::Pause
        }
    }
}
