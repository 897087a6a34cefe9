//! [`DeliveryView`]: how each destination is doing, for whoever writes its status.
//!
//! The engine answers from memory. Transitions of health are told through [`Changes`], a set and not a queue: what
//! changes often while nobody looks stands in it once, so it is bounded by what there is.

use std::collections::HashSet;
use std::hash::Hash;

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
    /// What of the policy keeps due deliveries waiting, in one word.
    pub waiting_for: Option<&'static str>,
}

/// Answers how destinations are doing.
pub trait DeliveryView: Send + Sync {
    /// How a destination is doing; `None` when the engine does not know it (yet).
    fn view(&self, uid: &Uid) -> Option<LaneView>;

    /// The destinations whose health made a transition, or that handled an enable request.
    fn changes(&self) -> &Changes;

    /// What was done to a damaged store since the process started; `None` when it was sound.
    fn store_repaired(&self) -> Option<String>;
}

/// What changed since somebody last looked: destinations, unless said otherwise.
#[derive(Debug)]
pub struct Changes<T = Uid> {
    changed: Mutex<HashSet<T>>,
    ready: Notify,
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self {
            changed: Mutex::default(),
            ready: Notify::new(),
        }
    }
}

impl<T: Eq + Hash> Changes<T> {
    /// Says that something changed.
    pub fn push(&self, what: T) {
        if self.changed.lock().insert(what) {
            self.ready.notify_one();
        }
    }

    /// Waits until something changed and takes all of it. For one reader; dropping the future loses nothing.
    pub async fn next(&self) -> HashSet<T> {
        loop {
            let taken = std::mem::take(&mut *self.changed.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.ready.notified().await;
        }
    }
}

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
}
