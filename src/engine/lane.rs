//! A lane: one destination's part of the queue, and the task that empties it.
//!
//! The task looks at everything anew each time it wakes: the destination as configured now, its health, what is due.
//! It wakes when an event was stored for it, its destination changed, an attempt ended, or time has come.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};

use super::Core;
use super::attempt;
use super::places::{Asker, Place};
use crate::domain::destination::Destination;
use crate::domain::health::Health;
use crate::domain::id::Uid;
use crate::domain::retry;
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
    /// The store failed an attempt; nothing is leased before then.
    pub(crate) paused_until: Option<Timestamp>,
}

impl Lane {
    pub(crate) fn new(uid: Uid, health: Health) -> Self {
        let window = Window::new(health.is_failing() || health.disabled.is_some());
        let state = State {
            health,
            window,
            active: false,
            next_attempt: None,
            paused_until: None,
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

    /// Leases nothing for a moment, because the store or we ourselves failed.
    pub(crate) fn pause(&self, now: Timestamp) {
        self.with(|state| state.paused_until = Some(retry::after(now, STORE_PAUSE)));
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
    /// Look again at once: something changed meanwhile.
    Again,
    /// The destination is gone and so is its work.
    Gone,
}

/// A lane's task: the attempts under way, and a place that was waited for.
struct Task<'a> {
    core: &'a Arc<Core>,
    lane: &'a Arc<Lane>,
    attempts: JoinSet<()>,
    held: Option<Place>,
}

/// Empties a lane until its destination is gone or the engine stops.
pub(crate) async fn run(core: &Arc<Core>, lane: &Arc<Lane>) {
    let mut task = Task {
        core,
        lane,
        attempts: JoinSet::new(),
        held: None,
    };
    while !core.stopping.is_cancelled() {
        match task.advance().await {
            Step::Gone => break,
            Step::Again => {}
            Step::Wait(until) => task.wait(until).await,
        }
        while let Some(ended) = task.attempts.try_join_next() {
            task.ended(ended);
        }
    }
    while let Some(ended) = task.attempts.join_next().await {
        task.ended(ended);
    }
}

impl Task<'_> {
    async fn wait(&mut self, until: Option<Timestamp>) {
        self.held = None;
        tokio::select! {
            () = self.lane.wake.notified() => {}
            Some(ended) = self.attempts.join_next() => self.ended(ended),
            () = sleep_until(self.core, until) => {}
            () = self.core.stopping.cancelled() => {}
        }
    }

    /// An attempt that panicked has given its lease back; pausing keeps it from being made again at once for ever.
    fn ended(&self, ended: Result<(), JoinError>) {
        if let Err(error) = ended {
            tracing::error!(destination.uid = %self.lane.uid, %error, reason = "AttemptPanicked", "an attempt broke off");
            self.core.metrics.broken();
            self.lane.pause(self.core.clock.now());
        }
    }

    async fn advance(&mut self) -> Step {
        let (core, lane) = (self.core, self.lane);
        let Some(entry) = core.directory.destination(&lane.uid) else {
            return if core.directory.synced() {
                self.discard().await
            } else {
                Step::Wait(None)
            };
        };
        let now = core.clock.now();
        let destination = entry.ready();
        let changed = lane.with(|state| {
            let changed = state
                .health
                .observe(entry.identity.generation, entry.enable_request.as_deref());
            changed.then(|| state.health.clone())
        });
        if let Some(health) = changed {
            core.changes.push(lane.uid.clone());
            if let Err(error) = core.queue.save_health(vec![(lane.uid.clone(), health)]).await {
                tracing::warn!(reason = error.reason(), %error, destination.uid = %lane.uid, "health was not stored");
            }
        }
        let (admission, window, failing, paused_until) = lane.with(|state| {
            let admission = window::admission(destination.map(AsRef::as_ref), &state.health, now);
            let failing = state.health.is_failing() || state.health.disabled.is_some();
            (admission, state.window, failing, state.paused_until)
        });
        if let Some(until) = paused_until.filter(|until| *until > now) {
            return Step::Wait(Some(until));
        }
        match (admission, destination) {
            (Admission::Open, Some(destination)) => {
                let limit = window.limit(destination.max_in_flight.min(core.places.per_lane()));
                self.fill(destination, limit, now, failing).await
            }
            // The oldest delivery, however far away its next attempt is.
            (Admission::Probe, Some(destination)) => self.fill(destination, 1, Timestamp::MAX, true).await,
            (Admission::RestUntil(until), _) => wait_until(lane, Some(until)),
            (Admission::Parked { until, .. }, _) => wait_until(lane, until),
            (Admission::Open | Admission::Probe, None) => wait_until(lane, None),
        }
    }

    /// Starts as many attempts as the limit and the common places allow, of what is due by `now`.
    async fn fill(
        &mut self,
        destination: &Arc<Destination>,
        limit: u32,
        now: Timestamp,
        failing: bool,
    ) -> Step {
        let (core, lane) = (self.core, self.lane);
        let free = usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .saturating_sub(self.attempts.len());
        if free == 0 {
            return Step::Wait(None);
        }
        if core.queue.depth(&lane.uid).oldest_due.is_none() {
            return wait_until(lane, None);
        }
        let asker = match (failing, self.attempts.is_empty()) {
            (true, _) => Asker::Failing,
            (false, true) => Asker::First,
            (false, false) => Asker::Further,
        };
        let Some(first) = self.held.take().or_else(|| core.places.try_take(asker)) else {
            return self.wait_for_place(asker).await;
        };
        let more = std::iter::from_fn(|| core.places.try_take(if failing { asker } else { Asker::Further }));
        let places: Vec<_> = std::iter::once(first).chain(more.take(free - 1)).collect();
        let leased = match core.queue.lease(&lane.uid, now, places.len()).await {
            Ok(leased) => leased,
            Err(error) => {
                tracing::warn!(reason = error.reason(), %error, destination.uid = %lane.uid, "the queue cannot be read");
                lane.pause(core.clock.now());
                return Step::Again;
            }
        };
        for (place, lease) in places.into_iter().zip(leased.leases) {
            let attempt = attempt::make(
                Arc::clone(core),
                Arc::clone(lane),
                Arc::clone(destination),
                lease,
                place,
            );
            self.attempts.spawn(attempt);
        }
        wait_until(lane, leased.next_due)
    }

    /// Waits for a place and keeps it for the next look, because the world may have changed meanwhile.
    async fn wait_for_place(&mut self, asker: Asker) -> Step {
        tokio::select! {
            place = self.core.places.take(asker) => self.held = place,
            () = self.lane.wake.notified() => {}
            Some(ended) = self.attempts.join_next() => self.ended(ended),
            () = self.core.stopping.cancelled() => {}
        }
        Step::Again
    }

    /// Drops the work of a destination that is gone.
    async fn discard(&self) -> Step {
        let (core, lane) = (self.core, self.lane);
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
                Step::Wait(Some(retry::after(core.clock.now(), STORE_PAUSE)))
            }
        }
    }
}

async fn sleep_until(core: &Core, until: Option<Timestamp>) {
    let wait = until.map_or(LONGEST_SLEEP, |until| {
        Duration::try_from(until.duration_since(core.clock.now()))
            .unwrap_or_default()
            .min(LONGEST_SLEEP)
    });
    tokio::time::sleep(wait).await;
}

fn wait_until(lane: &Lane, until: Option<Timestamp>) -> Step {
    lane.with(|state| state.next_attempt = until);
    Step::Wait(until)
}
