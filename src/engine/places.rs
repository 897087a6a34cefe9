//! [`Places`]: how many requests all lanes together may have in flight, and who gets them.
//!
//! Places are handed out in the order of asking. Lanes whose receiver fails share half of them, so however many
//! receivers hang, the other half is there for those that answer.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places.
#[derive(Debug)]
pub struct Places {
    all: Arc<Semaphore>,
    failing: Arc<Semaphore>,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    _all: OwnedSemaphorePermit,
    _failing: Option<OwnedSemaphorePermit>,
}

impl Places {
    /// So many places, at least two.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let count = count.clamp(2, Semaphore::MAX_PERMITS);
        Self {
            all: Arc::new(Semaphore::new(count)),
            failing: Arc::new(Semaphore::new(count / 2)),
        }
    }

    /// Waits for a place. `None` never happens while the places exist.
    pub async fn take(&self, failing: bool) -> Option<Place> {
        let failing = if failing {
            Some(Arc::clone(&self.failing).acquire_owned().await.ok()?)
        } else {
            None
        };
        let all = Arc::clone(&self.all).acquire_owned().await.ok()?;
        Some(Place {
            _all: all,
            _failing: failing,
        })
    }

    /// Takes a place if one is free and nobody waits.
    #[must_use]
    pub fn try_take(&self, failing: bool) -> Option<Place> {
        let failing = if failing {
            Some(Arc::clone(&self.failing).try_acquire_owned().ok()?)
        } else {
            None
        };
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some(Place {
            _all: all,
            _failing: failing,
        })
    }
}
