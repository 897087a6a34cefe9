//! [`Places`]: how many requests all lanes together may have in flight, and who gets them.
//!
//! Places are handed out in the order of asking, from three pots:
//!
//! - Three quarters are for everyone. One lane holds at most a third of these, so receivers that start to hang at the
//!   same moment do not leave the others without.
//! - One quarter is for lanes that have nothing in flight: a lane's first request does not wait behind the many
//!   requests of others.
//! - Lanes whose receiver fails use the common pot only, and at most half of it together.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::loads::Load;

/// The places.
#[derive(Debug)]
pub struct Places {
    common: Arc<Semaphore>,
    first: Arc<Semaphore>,
    failing: Arc<Semaphore>,
    per_lane: u32,
}

/// One place; free again when dropped.
#[derive(Debug)]
pub struct Place {
    _common: OwnedSemaphorePermit,
    _failing: Option<OwnedSemaphorePermit>,
    _load: Option<Load>,
}

/// Who asks for a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A lane with nothing in flight.
    First,
    /// A lane with something in flight.
    Further,
    /// A lane whose receiver fails.
    Failing,
}

impl Place {
    /// Frees the room of its event together with the place.
    #[must_use]
    pub fn with(self, load: Load) -> Self {
        Self {
            _load: Some(load),
            ..self
        }
    }
}

impl Places {
    /// So many places, at least four.
    #[must_use]
    pub fn new(count: usize) -> Self {
        let count = count.clamp(4, Semaphore::MAX_PERMITS);
        let common = count - count / 4;
        Self {
            common: Arc::new(Semaphore::new(common)),
            first: Arc::new(Semaphore::new(count / 4)),
            failing: Arc::new(Semaphore::new((common / 2).max(1))),
            per_lane: u32::try_from(common / 3).unwrap_or(u32::MAX).max(1),
        }
    }

    /// Most places of one lane.
    #[must_use]
    pub const fn per_lane(&self) -> u32 {
        self.per_lane
    }

    /// Waits for a place. `None` never happens while the places exist.
    pub async fn take(&self, asker: Asker) -> Option<Place> {
        let failing = match asker {
            Asker::Failing => Some(Arc::clone(&self.failing).acquire_owned().await.ok()?),
            Asker::First | Asker::Further => None,
        };
        let common = Arc::clone(&self.common).acquire_owned();
        let place = if asker == Asker::First {
            tokio::select! {
                biased;
                place = common => place,
                place = Arc::clone(&self.first).acquire_owned() => place,
            }
        } else {
            common.await
        };
        Some(Place {
            _common: place.ok()?,
            _failing: failing,
            _load: None,
        })
    }

    /// Takes a place if one is free and nobody waits.
    #[must_use]
    pub fn try_take(&self, asker: Asker) -> Option<Place> {
        let failing = match asker {
            Asker::Failing => Some(Arc::clone(&self.failing).try_acquire_owned().ok()?),
            Asker::First | Asker::Further => None,
        };
        let mut place = Arc::clone(&self.common).try_acquire_owned();
        if place.is_err() && asker == Asker::First {
            place = Arc::clone(&self.first).try_acquire_owned();
        }
        Some(Place {
            _common: place.ok()?,
            _failing: failing,
            _load: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_lane_without_requests_gets_a_place_when_all_others_are_taken() {
        let places = Places::new(8);
        let taken: Vec<_> = std::iter::from_fn(|| places.try_take(Asker::Further)).collect();
        assert_eq!((taken.len(), places.per_lane()), (6, 2));
        let reserved = [places.take(Asker::First).await, places.try_take(Asker::First)];
        assert!(reserved.iter().all(Option::is_some));
        assert!(places.try_take(Asker::First).is_none());
    }

    #[tokio::test]
    async fn failing_lanes_leave_half_of_the_common_places() {
        let places = Places::new(8);
        let failing: Vec<_> = std::iter::from_fn(|| places.try_take(Asker::Failing)).collect();
        assert_eq!(failing.len(), 3);
        assert!(places.try_take(Asker::Further).is_some());
    }
}
