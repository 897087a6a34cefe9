//! [`Changes`]: which destinations' health moved, coalesced. Bounded by the number of destinations.

use std::collections::HashSet;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::domain::id::Uid;

/// A set of uids that one reader drains.
#[derive(Debug, Default)]
pub struct Changes {
    marked: Mutex<HashSet<Uid>>,
    notify: Notify,
}

impl Changes {
    /// Marks a destination; marking it twice before it is read is one change.
    pub fn mark(&self, uid: Uid) {
        self.marked.lock().insert(uid);
        self.notify.notify_one();
    }

    /// Waits until at least one is marked, and takes all.
    pub async fn next(&self) -> Vec<Uid> {
        loop {
            let taken: Vec<Uid> = self.marked.lock().drain().collect();
            if !taken.is_empty() {
                return taken;
            }
            self.notify.notified().await;
        }
    }
}
