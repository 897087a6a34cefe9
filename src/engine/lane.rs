//! A lane: one destination's part of the queue, and the task that empties it.
//!
//! The task looks at everything anew each time it wakes: the destination as configured now, its health, what is due.
//! It wakes when an event was stored for it, its destination changed, an attempt ended, or time has come.

mod batches;
mod ending;
mod order;
mod pacing;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinSet};

pub(crate) use self::order::Turn;
use self::order::{End, InOrder};
use self::pacing::Pacing;
pub(crate) use self::pacing::Restraint;
use super::Core;
use super::attempt;
use super::budget::{self, Asker, Budget, LaneShares, Share};
use super::metrics::Bound;
use super::operations::Telling;
use super::queue::{Lease, Outlook, QueueError, Reach};
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
    /// What of the policy keeps due deliveries waiting, for status.
    pub(crate) waiting_for: Option<Restraint>,
    /// The store failed an attempt; nothing is leased before then.
    pub(crate) paused_until: Option<Timestamp>,
    /// How attempts of an ordered lane ended that it has not looked at.
    pub(crate) ended: Vec<(u128, End)>,
    /// Positions of waiting deliveries that were cancelled since an ordered lane last looked.
    pub(crate) cancelled: Vec<u64>,
    /// When deliveries of batches that failed are due, in milliseconds since 1970, as far as known.
    pub(crate) retries: BTreeSet<i64>,
    /// What was lately told of it.
    pub(crate) telling: Telling,
}

impl Lane {
    pub(crate) fn new(uid: Uid, health: Health) -> Self {
        let window = Window::new(health.is_failing() || health.disabled.is_some());
        let state = State {
            health,
            window,
            active: false,
            next_attempt: None,
            waiting_for: None,
            paused_until: None,
            ended: Vec::new(),
            cancelled: Vec::new(),
            retries: BTreeSet::new(),
            telling: Telling::default(),
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

type Waiting = Pin<Box<dyn Future<Output = Option<Share>> + Send + Sync>>;

/// A lane's turn to get a share of a budget. It lasts as long as this is kept.
struct Place {
    bound: Bound,
    failing: bool,
    units: u32,
    common: Waiting,
    /// Its turn at the pot for lanes with nothing in flight, while it has nothing.
    reserved: Option<Waiting>,
}

/// A lane's task: the attempts under way, and a place and room that were waited for.
struct Task<'a> {
    core: &'a Arc<Core>,
    lane: &'a Arc<Lane>,
    attempts: JoinSet<()>,
    held: Option<Share>,
    load: LaneShares,
    held_load: Option<Share>,
    turn: Option<Place>,
    /// Most deliveries leased at once; few after there was no room for all, so that they are not leased in vain.
    most: usize,
    /// Nothing was sent for a while on purpose, so what is due goes by age when that ends.
    was_parked: bool,
    /// Its namespace is not watched, which was logged.
    unwatched: bool,
    /// What the destination's policy asks of the lane.
    pacing: Pacing,
    /// What it holds while its destination is ordered.
    in_order: Option<Box<InOrder>>,
}

/// Empties a lane until its destination is gone or the engine stops.
pub(crate) async fn run(core: &Arc<Core>, lane: &Arc<Lane>) {
    let mut task = Task {
        core,
        lane,
        attempts: JoinSet::new(),
        held: None,
        load: LaneShares::default(),
        held_load: None,
        turn: None,
        most: usize::MAX,
        was_parked: false,
        unwatched: false,
        pacing: Pacing::default(),
        in_order: None,
    };
    while !core.stopping.is_cancelled() {
        let step = tokio::select! {
            step = task.advance() => step,
            // The store may keep it waiting for longer than the grace period.
            () = core.aborting.cancelled() => break,
        };
        match step {
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

impl Place {
    fn new(budget: &Budget, bound: Bound, failing: bool, units: u32) -> Self {
        Self {
            bound,
            failing,
            units,
            common: Box::pin(budget.take(failing, units)),
            reserved: None,
        }
    }

    /// Whether what this waits for will do.
    fn serves(&self, bound: Bound, failing: bool, units: u32) -> bool {
        self.bound == bound && self.failing == failing && self.units >= units
    }

    async fn share(&mut self) -> Option<Share> {
        match &mut self.reserved {
            None => (&mut self.common).await,
            Some(reserved) => tokio::select! {
                biased;
                share = &mut self.common => share,
                share = reserved => share,
            },
        }
    }
}

impl Task<'_> {
    async fn wait(&mut self, until: Option<Timestamp>) {
        self.held = None;
        self.held_load = None;
        self.turn = None;
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
            return if !core.directory.synced() {
                Step::Wait(None)
            } else if lane.with(|state| core.may_exist_unwatched(&lane.uid, &state.health)) {
                self.keep().await
            } else {
                self.discard().await
            };
        };
        let now = core.clock.now();
        let destination = entry.ready();
        let changed = lane.with(|state| {
            let changed = state
                .health
                .observe(entry.identity.generation, entry.enable_request.as_deref());
            let moved = state.health.live_in(&entry.identity.key.namespace);
            (changed || moved).then(|| state.health.clone())
        });
        if let Some(health) = changed {
            core.changes.push(lane.uid.clone());
            if let Err(error) = core.queue.save_health(vec![(lane.uid.clone(), health)]).await {
                core.complaints.warn("health was not stored", &error, &lane.uid);
            }
        }
        let (admission, window, failing, paused_until) = lane.with(|state| {
            let admission = window::admission(destination.map(AsRef::as_ref), &state.health, now);
            let failing = state.health.is_failing() || state.health.disabled.is_some();
            if destination.is_none_or(|destination| destination.policy.order.is_none()) {
                state.cancelled.clear();
            }
            (admission, state.window, failing, state.paused_until)
        });
        let is_paused = |until: &Timestamp| *until > now && !retry::is_astray(*until, now, STORE_PAUSE);
        if let Some(until) = paused_until.filter(is_paused) {
            return Step::Wait(Some(until));
        }
        if !self.put_in_order(&admission, now).await {
            return Step::Again;
        }
        let order = destination.and_then(|destination| destination.policy.order.as_ref());
        if order.is_none() || matches!(admission, Admission::Parked { .. } | Admission::Probe) {
            self.in_order = None;
        }
        match (admission, destination) {
            (Admission::Open, Some(destination)) => {
                let limit = window.limit(destination.max_in_flight.min(core.places.per_lane()));
                if let Some(order) = order {
                    return self.fill_in_order(destination, order, limit, now, failing).await;
                }
                if let Some(batch) = destination.policy.batch {
                    return self
                        .fill_in_batches(destination, batch, limit, now, failing)
                        .await;
                }
                self.fill(destination, limit, now, failing).await
            }
            // The oldest delivery, however far away its next attempt is.
            (Admission::Probe, Some(destination)) => self.fill(destination, 1, Timestamp::MAX, true).await,
            (Admission::RestUntil(until), _) => wait_until(lane, Some(until)),
            (Admission::Parked { until, .. }, _) => wait_until(lane, until),
            (Admission::Open | Admission::Probe, None) => wait_until(lane, None),
        }
    }

    /// Has deliveries leased in the order that the admission asks for. Returns whether to go on.
    async fn put_in_order(&mut self, admission: &Admission, now: Timestamp) -> bool {
        match admission {
            Admission::Open => {
                let in_order = !self.was_parked || self.rewind(Reach::DueBy(now)).await;
                self.was_parked &= !in_order;
                in_order
            }
            Admission::Probe => {
                // A probe that is under way has its delivery already.
                let in_order = !self.attempts.is_empty() || self.rewind(Reach::Oldest).await;
                self.was_parked |= in_order;
                in_order
            }
            Admission::Parked { .. } => {
                self.was_parked = true;
                true
            }
            Admission::RestUntil(_) => true,
        }
    }

    /// Has deliveries leased by age. Returns whether to go on; if not, the lane is paused. Without room for it on the
    /// disk they go in the order in which they are due, because sending them is what makes room.
    async fn rewind(&self, reach: Reach) -> bool {
        let (core, lane) = (self.core, self.lane);
        let Err(error) = core.queue.rewind(&lane.uid, reach).await else {
            return true;
        };
        let what = "deliveries were not put in order of age";
        core.complaints.warn(what, &error, &lane.uid);
        let full = matches!(error, QueueError::DiskFull | QueueError::FileFull);
        if !full {
            lane.pause(core.clock.now());
        }
        full
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
        // Places are for lanes that have something to send now, and one is enough to wait for the disk.
        let Outlook { next_due, ready } = core.queue.outlook(&lane.uid, now, free);
        if next_due.is_none_or(|due| due > now) {
            return wait_until(lane, next_due);
        }
        let free = match self.pacing.room(core, destination, free) {
            Ok(free) => free,
            Err(until) => return wait_because(lane, Some(until), Restraint::RateLimit),
        };
        let asker = if failing { Asker::Failing } else { self.asker() };
        let Some(first) = self.held.take().or_else(|| core.places.try_take(asker, 1)) else {
            return self.wait_for_turn(Bound::Requests, asker, 1).await;
        };
        let further = if failing { asker } else { Asker::Further };
        let more = std::iter::from_fn(|| core.places.try_take(further, 1));
        let most = free.min(self.most).min(ready.max(1));
        let places: Vec<_> = std::iter::once(first).chain(more.take(most - 1)).collect();
        let leased = match core.queue.lease(&lane.uid, now, places.len()).await {
            Ok(leased) => leased,
            Err(error) => {
                core.complaints
                    .warn("the queue cannot be read", &error, &lane.uid);
                lane.pause(core.clock.now());
                return Step::Again;
            }
        };
        let many = leased.leases.len();
        let mut lacking = None;
        for (started, (place, lease)) in places.into_iter().zip(leased.leases).enumerate() {
            let asker = if failing { asker } else { self.asker() };
            let Some(load) = self.take_room(asker, &lease) else {
                self.most = started.max(1);
                lacking = Some((asker, budget::units(lease.bytes)));
                break;
            };
            let attempt = attempt::make(
                Arc::clone(core),
                Arc::clone(lane),
                Arc::clone(destination),
                lease,
                (place, load),
                None,
            );
            self.attempts.spawn(attempt);
            self.pacing.took(core, destination);
        }
        // By now the other places and leases are given back.
        if let Some((asker, units)) = lacking {
            return self.wait_for_room(asker, units).await;
        }
        self.most = self.most.saturating_mul(2);
        if many == most && most < free {
            return Step::Again;
        }
        wait_until(lane, leased.next_due)
    }

    fn asker(&self) -> Asker {
        if self.attempts.is_empty() {
            Asker::First
        } else {
            Asker::Further
        }
    }

    /// Takes room for an event: what was waited for, or what is free.
    fn take_room(&mut self, asker: Asker, lease: &Lease) -> Option<Share> {
        self.take_units(asker, budget::units(lease.bytes))
    }

    fn take_units(&mut self, asker: Asker, units: u32) -> Option<Share> {
        let loads = &self.core.loads;
        if !loads.admits(&self.load, units) {
            return None;
        }
        let held = self.held_load.take().filter(|held| held.holds(units));
        let load = held.or_else(|| loads.try_take(asker, units))?;
        Some(load.of(&self.load))
    }

    /// Waits for room; when the lane has its share, until an attempt ends.
    async fn wait_for_room(&mut self, asker: Asker, units: u32) -> Step {
        if self.core.loads.admits(&self.load, units) {
            return self.wait_for_turn(Bound::Bytes, asker, units).await;
        }
        self.core.metrics.waits(Bound::Bytes);
        Step::Wait(None)
    }

    /// Waits for a share of a budget and keeps it for the next look, because the world may have changed meanwhile.
    /// What wakes the lane does not cost it its turn.
    async fn wait_for_turn(&mut self, bound: Bound, asker: Asker, units: u32) -> Step {
        let core = self.core;
        let budget = match bound {
            Bound::Requests => &core.places,
            Bound::Bytes => &core.loads,
        };
        let failing = asker == Asker::Failing;
        let mut turn = match self.turn.take() {
            Some(turn) if turn.serves(bound, failing, units) => turn,
            _ => {
                core.metrics.waits(bound);
                Place::new(budget, bound, failing, units)
            }
        };
        if asker != Asker::First {
            turn.reserved = None;
        } else if turn.reserved.is_none() {
            turn.reserved = Some(Box::pin(budget.take_reserved(turn.units)));
        }
        tokio::select! {
            share = turn.share() => {
                match bound {
                    Bound::Requests => self.held = share,
                    Bound::Bytes => self.held_load = share,
                }
                return Step::Again;
            }
            () = self.lane.wake.notified() => {}
            Some(ended) = self.attempts.join_next() => self.ended(ended),
            () = core.stopping.cancelled() => {}
        }
        self.turn = Some(turn);
        Step::Again
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
    lane.with(|state| (state.next_attempt, state.waiting_for) = (until, None));
    Step::Wait(until)
}

/// Waits for what the policy says.
fn wait_because(lane: &Lane, until: Option<Timestamp>, waiting: Restraint) -> Step {
    lane.with(|state| (state.next_attempt, state.waiting_for) = (until, Some(waiting)));
    Step::Wait(until)
}
