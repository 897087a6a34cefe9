<<<<<<< HEAD
//! What the rest of the process may know of the lanes: for status, and for gauges.

use std::sync::Arc;

use async_trait::async_trait;

use super::directory::{DeliveryView, DirectoryListener, LaneView};
use super::{Core, Engine};
use crate::domain::id::Uid;
use crate::domain::window::{self, Admission};

#[async_trait]
impl DeliveryView for Engine {
    fn view(&self, uid: &Uid) -> Option<LaneView> {
        let core = self.core();
        let lane = core.running_lane(uid)?;
        let depth = core.queue.depth(uid);
        let (health, next_attempt) = lane.with(|state| (state.health.clone(), state.next_attempt));
        let parked = if is_parked(core, uid, &health) { depth.pending } else { 0 };
        let next_attempt = next_attempt.filter(|_| depth.pending > 0);
        Some(LaneView { health, depth, parked, next_attempt })
    }

    async fn changed(&self) -> Vec<Uid> {
        self.core().changes.next().await
    }
}

impl DirectoryListener for Engine {
    fn destination_changed(&self, uid: &Uid) {
        self.core().wake(uid);
    }

    fn destination_removed(&self, uid: &Uid) {
        if let Some(lane) = self.core().running_lane(uid) {
            lane.wake();
        }
    }

    fn synced(&self) {
        for lane in self.core().running_lanes() {
            lane.wake();
=======
//! [`DeliveryView`]: how each destination is doing, for whoever writes its status.
//!
//! The engine answers from memory. Transitions of health are told through [`Changes`], a set and not a queue: a
//! destination that changes often while nobody looks stands in it once, so it is bounded by the destinations.

use std::collections::HashSet;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::queue::Depth;
use crate::domain::health::Health;
use crate::domain::id::Uid;

/// How a destination is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneView {
    /// Health, as the last attempt left it.
    pub health: Health,
    /// How much waits.
    pub depth: Depth,
    /// How much of it waits because the destination is suspended, disabled or not ready.
    pub parked: u64,
    /// When the next attempt is due; `None` when nothing waits, or nothing is tried.
    pub next_attempt: Option<Timestamp>,
}

/// Answers how destinations are doing.
pub trait DeliveryView: Send + Sync {
    /// How a destination is doing; `None` when the engine does not know it (yet).
    fn view(&self, uid: &Uid) -> Option<LaneView>;

    /// The destinations whose health made a transition, or that handled an enable request.
    fn changes(&self) -> &Changes;
}

/// Destinations that changed since somebody last looked.
#[derive(Debug, Default)]
pub struct Changes {
    changed: Mutex<HashSet<Uid>>,
    ready: Notify,
}

impl Changes {
    /// Says that a destination changed.
    pub fn push(&self, uid: Uid) {
        if self.changed.lock().insert(uid) {
            self.ready.notify_one();
        }
    }

    /// Waits until something changed and takes all of it. For one reader; dropping the future loses nothing.
    pub async fn next(&self) -> HashSet<Uid> {
        loop {
            let taken = std::mem::take(&mut *self.changed.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.ready.notified().await;
>>>>>>> main
        }
    }
}

<<<<<<< HEAD
fn is_parked(core: &Core, uid: &Uid, health: &crate::domain::health::Health) -> bool {
    let entry = core.directory.destination(uid);
    let destination = entry.as_ref().and_then(|entry| entry.destination());
    let admission = window::admission(destination.map(AsRef::as_ref), health, core.clock.now());
    matches!(admission, Admission::Parked { .. } | Admission::Probe)
}

/// Sums over all lanes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) pending: u64,
    pub(crate) parked: u64,
    pub(crate) disabled: u64,
    pub(crate) failing: u64,
    pub(crate) oldest_age: u64,
}

pub(crate) fn totals(core: &Arc<Core>) -> Totals {
    let now = core.clock.now().as_millisecond();
    let mut totals = Totals::default();
    for lane in core.running_lanes() {
        let depth = core.queue.depth(&lane.uid);
        let health = lane.with(|state| state.health.clone());
        totals.pending += depth.pending;
        if is_parked(core, &lane.uid, &health) {
            totals.parked += depth.pending;
        }
        totals.disabled += u64::from(health.disabled.is_some());
        totals.failing += u64::from(health.is_failing());
        let age = depth.oldest_due.map_or(0, |due| now.saturating_sub(due) / 1000);
        totals.oldest_age = totals.oldest_age.max(u64::try_from(age).unwrap_or(0));
    }
    totals
=======
#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_are_told_once_however_often_they_happen() {
        let changes = Changes::default();
        for uid in ["a", "b", "a"] {
            changes.push(Uid::new(uid));
        }
        assert_eq!(
            changes.next().await,
            HashSet::from([Uid::new("a"), Uid::new("b")])
        );
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), changes.next());
        assert!(waiting.await.is_err());
        changes.push(Uid::new("a"));
        assert_eq!(changes.next().await, HashSet::from([Uid::new("a")]));
    }
>>>>>>> main
}
