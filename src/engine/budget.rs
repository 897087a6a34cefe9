//! [`Budget`]: how much all lanes together may have in flight, and who gets it. There is one of requests, [`places`],
//! and one of bytes of events, [`loads`].
//!
//! Shares are handed out in the order of asking, from three pots:
//!
//! - Three quarters are for everyone. One lane holds at most a third of these, so receivers that start to hang at the
//!   same moment do not leave the others without.
//! - One quarter is for lanes that have nothing in flight: a lane's first request does not wait behind the many
//!   requests of others.
//! - Lanes whose receiver fails use the common pot only, and at most half of it together.
//!
//! A large share waits until there is room for it and is not overtaken for ever by small ones, as long as the asker
//! keeps the future of [`Budget::take`]. One that is larger than a pot takes all of it, and goes alone: nothing is too
//! large to be sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bytes of one unit of a budget of bytes: semaphores count no further than some thousand millions.
const UNIT: usize = 1024;
/// Most units of a budget.
const LARGEST: u32 = u32::MAX >> 3;

/// A budget.
#[derive(Debug)]
pub struct Budget {
    common: Pot,
    first: Pot,
    failing: Pot,
    per_lane: u32,
}

#[derive(Clone, Debug)]
struct Pot {
    units: Arc<Semaphore>,
    size: u32,
}

/// A share of a budget; free again when dropped.
#[derive(Debug)]
pub struct Share {
    _pot: OwnedSemaphorePermit,
    _failing: Option<OwnedSemaphorePermit>,
    units: u32,
    lane: Option<Arc<AtomicU32>>,
}

/// What one lane holds of a budget.
#[derive(Debug, Default)]
pub struct LaneShares(Arc<AtomicU32>);

/// Who asks for a share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// A lane with nothing in flight.
    First,
    /// A lane with something in flight.
    Further,
    /// A lane whose receiver fails.
    Failing,
}

impl Pot {
    fn new(size: u32) -> Self {
        let size = size.max(1);
        Self {
            units: Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(1))),
            size,
        }
    }

    /// `None` never happens: the semaphores are never closed.
    async fn take(self, units: u32) -> Option<OwnedSemaphorePermit> {
        self.units.acquire_many_owned(units.min(self.size)).await.ok()
    }

    fn try_take(&self, units: u32) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.units)
            .try_acquire_many_owned(units.min(self.size))
            .ok()
    }
}

/// So many requests, at least four.
#[must_use]
pub fn places(count: u32) -> Budget {
    Budget::new(count)
}

/// So many bytes of events as stored, at least four units. The requests made of them take about as much again.
#[must_use]
pub fn loads(bytes: usize) -> Budget {
    Budget::new(u32::try_from(bytes / UNIT).unwrap_or(LARGEST))
}

/// Units of a budget of bytes that an event takes.
#[must_use]
pub fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT))
        .unwrap_or(LARGEST)
        .clamp(1, LARGEST)
}

impl Budget {
    fn new(units: u32) -> Self {
        let units = units.clamp(4, LARGEST);
        let common = units - units / 4;
        Self {
            common: Pot::new(common),
            first: Pot::new(units / 4),
            failing: Pot::new(common / 2),
            per_lane: (common / 3).max(1),
        }
    }

    /// Most units of one lane.
    #[must_use]
    pub const fn per_lane(&self) -> u32 {
        self.per_lane
    }

    /// Whether a lane may hold so many units more, whatever others hold. One share it always may.
    #[must_use]
    pub fn admits(&self, lane: &LaneShares, units: u32) -> bool {
        let held = lane.0.load(Ordering::Acquire);
        held == 0 || held.saturating_add(units) <= self.per_lane
    }

    /// Waits for a share of the common pot. The turn lasts as long as the future is kept. `None` never happens.
    pub fn take(
        &self,
        failing: bool,
        units: u32,
    ) -> impl Future<Output = Option<Share>> + Send + Sync + 'static {
        let (common, failing) = (self.common.clone(), failing.then(|| self.failing.clone()));
        async move {
            let failing = match failing {
                Some(failing) => Some(failing.take(units).await?),
                None => None,
            };
            Some(Share::new(common.take(units).await?, failing, units))
        }
    }

    /// The same of the pot for lanes that have nothing in flight.
    pub fn take_reserved(&self, units: u32) -> impl Future<Output = Option<Share>> + Send + Sync + 'static {
        let first = self.first.clone();
        async move { Some(Share::new(first.take(units).await?, None, units)) }
    }

    /// Takes a share if there is enough and nobody waits.
    #[must_use]
    pub fn try_take(&self, asker: Asker, units: u32) -> Option<Share> {
        let failing = match asker {
            Asker::Failing => Some(self.failing.try_take(units)?),
            Asker::First | Asker::Further => None,
        };
        let mut common = self.common.try_take(units);
        if common.is_none() && asker == Asker::First {
            common = self.first.try_take(units);
        }
        Some(Share::new(common?, failing, units))
    }
}

impl Share {
    const fn new(pot: OwnedSemaphorePermit, failing: Option<OwnedSemaphorePermit>, units: u32) -> Self {
        Self {
            _pot: pot,
            _failing: failing,
            units,
            lane: None,
        }
    }

    /// Whether it is enough for so many units.
    #[must_use]
    pub const fn holds(&self, units: u32) -> bool {
        units <= self.units
    }

    /// Counts as what a lane holds from now on.
    #[must_use]
    pub fn of(mut self, lane: &LaneShares) -> Self {
        lane.0.fetch_add(self.units, Ordering::AcqRel);
        self.lane = Some(Arc::clone(&lane.0));
        self
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(lane) = &self.lane {
            lane.fetch_sub(self.units, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn mib(count: usize) -> u32 {
        units(count * MIB)
    }

    #[tokio::test]
    async fn a_lane_without_requests_gets_a_place_when_all_others_are_taken() {
        let places = places(8);
        let taken: Vec<_> = std::iter::from_fn(|| places.try_take(Asker::Further, 1)).collect();
        assert_eq!((taken.len(), places.per_lane()), (6, 2));
        let reserved = [places.take_reserved(1).await, places.try_take(Asker::First, 1)];
        assert!(reserved.iter().all(Option::is_some));
        assert!(places.try_take(Asker::First, 1).is_none());
    }

    #[tokio::test]
    async fn failing_lanes_leave_half_of_the_common_pot() {
        let (places, loads) = (places(8), loads(16 * MIB));
        let failing: Vec<_> = std::iter::from_fn(|| places.try_take(Asker::Failing, 1)).collect();
        assert_eq!(failing.len(), 3);
        assert!(places.try_take(Asker::Further, 1).is_some());
        let failing: Vec<_> = std::iter::from_fn(|| loads.try_take(Asker::Failing, mib(1))).collect();
        assert_eq!(failing.len(), 6);
        assert!(loads.try_take(Asker::Further, mib(1)).is_some());
    }

    #[tokio::test]
    async fn an_event_larger_than_all_room_goes_alone_and_does_go() {
        let loads = loads(8 * MIB);
        let small = loads.try_take(Asker::Further, mib(1)).unwrap();
        assert!(loads.try_take(Asker::Further, mib(100)).is_none());
        let mut large = Box::pin(loads.take(false, mib(100)));
        assert!(futures::poll!(&mut large).is_pending());
        assert!(
            loads.try_take(Asker::Further, 1).is_none(),
            "small ones do not overtake it"
        );
        drop(small);
        let large = large.await.unwrap();
        assert!(large.holds(mib(100)));
        assert!(loads.try_take(Asker::Further, 1).is_none());
        assert!(loads.try_take(Asker::First, mib(2)).is_some());
    }

    #[tokio::test]
    async fn one_lane_holds_a_third_but_always_one_event() {
        let loads = loads(16 * MIB);
        let lane = LaneShares::default();
        assert!(loads.admits(&lane, mib(100)));
        let mut held = Vec::new();
        while loads.admits(&lane, mib(1)) {
            held.push(loads.try_take(Asker::Further, mib(1)).unwrap().of(&lane));
        }
        assert_eq!(held.len(), 4, "a third of twelve");
        held.clear();
        assert!(loads.admits(&lane, mib(100)));
    }
}
