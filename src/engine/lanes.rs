//! What the rest of the process may know of the lanes: for status, and for gauges.

use std::sync::Arc;

use super::directory::DirectoryListener;
use super::lane::Restraint;
use super::view::{Changes, DeliveryView, LaneView};
use super::{Core, Engine};
use crate::domain::id::Uid;
use crate::domain::window::{self, Admission};

impl DeliveryView for Engine {
    fn view(&self, uid: &Uid) -> Option<LaneView> {
        let core = self.core();
        let lane = core.running_lane(uid)?;
        let depth = core.queue.depth(uid);
        let (health, next_attempt, waiting_for) =
            lane.with(|state| (state.health.clone(), state.next_attempt, state.waiting_for));
        let parked = if is_parked(core, uid, &health) {
            depth.pending
        } else {
            0
        };
        let next_attempt = next_attempt.filter(|_| depth.pending > 0);
        Some(LaneView {
            health,
            depth,
            parked,
            next_attempt,
            waiting_for: waiting_for.filter(|_| depth.pending > 0).map(Restraint::as_str),
        })
    }

    fn changes(&self) -> &Changes {
        &self.core().changes
    }

    fn store_repaired(&self) -> Option<String> {
        self.core().queue.state().repaired
    }
}

impl DirectoryListener for Engine {
    fn destination_changed(&self, uid: &Uid) {
        self.core().wake(uid);
    }

    fn synced(&self) {
        let core = self.core();
        for uid in core.queue.lanes() {
            if core.directory.destination(&uid).is_none() {
                core.wake(&uid);
            }
        }
    }

    fn destination_removed(&self, uid: &Uid) {
        self.core().tests.forget(uid);
        self.core().proofs.forget(uid);
        self.core().replays.forget(uid);
        if let Some(lane) = self.core().running_lane(uid) {
            lane.wake();
        }
    }
}

fn is_parked(core: &Core, uid: &Uid, health: &crate::domain::health::Health) -> bool {
    let entry = core.directory.destination(uid);
    let destination = entry.as_ref().and_then(|entry| entry.ready());
    let admission = window::admission(destination.map(AsRef::as_ref), health, core.clock.now());
    matches!(admission, Admission::Parked { .. } | Admission::Probe)
}

/// Sums over all lanes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) pending: u64,
    pub(crate) parked: u64,
    pub(crate) unwatched: u64,
    pub(crate) disabled: u64,
    pub(crate) failing: u64,
    pub(crate) oldest_age: u64,
    pub(crate) oldest_unparked_age: u64,
}

pub(crate) fn totals(core: &Arc<Core>) -> Totals {
    let now = core.clock.now().as_millisecond();
    let mut totals = Totals::default();
    for lane in core.running_lanes() {
        let depth = core.queue.depth(&lane.uid);
        let health = lane.with(|state| state.health.clone());
        totals.pending += depth.pending;
        let parked = is_parked(core, &lane.uid, &health);
        if parked {
            totals.parked += depth.pending;
        }
        if core.directory.destination(&lane.uid).is_none() && core.may_exist_unwatched(&lane.uid, &health) {
            totals.unwatched += depth.pending;
        }
        totals.disabled += u64::from(health.disabled.is_some());
        totals.failing += u64::from(health.is_failing());
        let age = depth
            .oldest
            .map_or(0, |accepted| now.saturating_sub(accepted) / 1000);
        let age = u64::try_from(age).unwrap_or(0);
        totals.oldest_age = totals.oldest_age.max(age);
        // What is parked on purpose is not late.
        if !parked {
            totals.oldest_unparked_age = totals.oldest_unparked_age.max(age);
        }
    }
    totals
}
