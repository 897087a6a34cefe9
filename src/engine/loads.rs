//! [`Loads`]: how many bytes of events all lanes together may have in flight, and who gets them.
//!
//! The twin of [`places`](super::places), with the same three pots: three quarters for everyone, one quarter for lanes
//! that have nothing in flight, and at most half of the common pot for failing lanes together. One lane holds at most
//! a third of the common pot.
//!
//! Room is handed out in the order of asking, so a large event waits until there is room for it and is not overtaken
//! for ever by small ones. An event larger than a pot takes all of it, and goes alone: nothing is too large to be sent.
//! What counts is the event as stored; the request made of it takes about as much again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::places::Asker;

/// Bytes of one unit: semaphores count no further than some thousand millions.
const UNIT: usize = 1024;

/// The room.
#[derive(Debug)]
pub struct Loads {
    common: Pot,
    first: Pot,
    failing: Pot,
    per_lane: u32,
}

#[derive(Debug)]
struct Pot {
    units: Arc<Semaphore>,
    size: u32,
}

/// Room for one event; free again when dropped.
#[derive(Debug)]
pub struct Load {
    _room: OwnedSemaphorePermit,
    _failing: Option<OwnedSemaphorePermit>,
    units: u32,
    lane: Option<Arc<AtomicU32>>,
}

/// What one lane has in flight.
#[derive(Debug, Default)]
pub struct LaneLoad(Arc<AtomicU32>);

impl Pot {
    fn new(size: u32) -> Self {
        let size = size.max(1);
        Self {
            units: Arc::new(Semaphore::new(usize::try_from(size).unwrap_or(1))),
            size,
        }
    }

    async fn take(&self, units: u32) -> Option<OwnedSemaphorePermit> {
        let units = units.min(self.size);
        Arc::clone(&self.units).acquire_many_owned(units).await.ok()
    }

    fn try_take(&self, units: u32) -> Option<OwnedSemaphorePermit> {
        let units = units.min(self.size);
        Arc::clone(&self.units).try_acquire_many_owned(units).ok()
    }
}

impl Loads {
    /// Room for so many bytes, at least four units.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let largest = u32::MAX >> 3;
        let units = u32::try_from(bytes / UNIT).unwrap_or(largest).clamp(4, largest);
        let common = units - units / 4;
        Self {
            common: Pot::new(common),
            first: Pot::new(units / 4),
            failing: Pot::new(common / 2),
            per_lane: (common / 3).max(1),
        }
    }

    /// Whether a lane may have an event more in flight, whatever others have. One event always may.
    #[must_use]
    pub fn admits(&self, lane: &LaneLoad, bytes: usize) -> bool {
        let held = lane.0.load(Ordering::Acquire);
        held == 0 || held.saturating_add(units(bytes)) <= self.per_lane
    }

    /// Waits for room. `None` never happens while the room exists.
    pub async fn take(&self, asker: Asker, bytes: usize) -> Option<Load> {
        let units = units(bytes);
        let failing = match asker {
            Asker::Failing => Some(self.failing.take(units).await?),
            Asker::First | Asker::Further => None,
        };
        let room = if asker == Asker::First {
            tokio::select! {
                biased;
                room = self.common.take(units) => room,
                room = self.first.take(units) => room,
            }
        } else {
            self.common.take(units).await
        };
        Some(Load::new(room?, failing, units))
    }

    /// Takes room if there is enough and nobody waits.
    #[must_use]
    pub fn try_take(&self, asker: Asker, bytes: usize) -> Option<Load> {
        let units = units(bytes);
        let failing = match asker {
            Asker::Failing => Some(self.failing.try_take(units)?),
            Asker::First | Asker::Further => None,
        };
        let mut room = self.common.try_take(units);
        if room.is_none() && asker == Asker::First {
            room = self.first.try_take(units);
        }
        Some(Load::new(room?, failing, units))
    }
}

impl Load {
    fn new(room: OwnedSemaphorePermit, failing: Option<OwnedSemaphorePermit>, units: u32) -> Self {
        Self {
            _room: room,
            _failing: failing,
            units,
            lane: None,
        }
    }

    /// Whether it is room enough for an event.
    #[must_use]
    pub fn holds(&self, bytes: usize) -> bool {
        units(bytes) <= self.units
    }

    /// Counts as what a lane has in flight from now on.
    #[must_use]
    pub fn of(mut self, lane: &LaneLoad) -> Self {
        lane.0.fetch_add(self.units, Ordering::AcqRel);
        self.lane = Some(Arc::clone(&lane.0));
        self
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(lane) = &self.lane {
            lane.fetch_sub(self.units, Ordering::AcqRel);
        }
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT))
        .unwrap_or(u32::MAX)
        .clamp(1, u32::MAX >> 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test]
    async fn an_event_larger_than_all_room_goes_alone_and_does_go() {
        let loads = Loads::new(8 * MIB);
        let small = loads.try_take(Asker::Further, MIB).unwrap();
        assert!(loads.try_take(Asker::Further, 100 * MIB).is_none());
        let mut large = Box::pin(loads.take(Asker::Further, 100 * MIB));
        assert!(futures::poll!(&mut large).is_pending());
        assert!(
            loads.try_take(Asker::Further, 1).is_none(),
            "small ones do not overtake it"
        );
        drop(small);
        let large = large.await.unwrap();
        assert!(large.holds(100 * MIB));
        assert!(loads.try_take(Asker::Further, 1).is_none());
        assert!(loads.try_take(Asker::First, 2 * MIB).is_some());
    }

    #[tokio::test]
    async fn one_lane_holds_a_third_but_always_one_event() {
        let loads = Loads::new(16 * MIB);
        let lane = LaneLoad::default();
        assert!(loads.admits(&lane, 100 * MIB));
        let mut held = Vec::new();
        while loads.admits(&lane, MIB) {
            held.push(loads.try_take(Asker::Further, MIB).unwrap().of(&lane));
        }
        assert_eq!(held.len(), 4, "a third of twelve");
        held.clear();
        assert!(loads.admits(&lane, 100 * MIB));
    }

    #[tokio::test]
    async fn failing_lanes_leave_half_of_the_common_room() {
        let loads = Loads::new(16 * MIB);
        let failing: Vec<_> = std::iter::from_fn(|| loads.try_take(Asker::Failing, MIB)).collect();
        assert_eq!(failing.len(), 6);
        assert!(loads.try_take(Asker::Further, MIB).is_some());
    }
}
