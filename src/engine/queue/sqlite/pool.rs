//! [`Pool`]: the events that lanes hold in memory, each once however many lanes wait for it.
//!
//! Invariant: an event is here exactly as long as an entry of some lane's window uses it, and is charged once.
//! Which entries there are is left to [`Lanes`](super::lanes::Lanes).

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::engine::queue::Stored;

/// Bytes that a window's entry is charged with beside its event.
const ENTRY: usize = 128;

#[derive(Debug)]
struct Pooled {
    stored: Stored,
    cost: usize,
    uses: usize,
}

/// Events in memory by position.
#[derive(Debug, Default)]
pub(super) struct Pool {
    events: HashMap<i64, Pooled>,
    bytes: usize,
}

impl Pool {
    /// Bytes of all events and entries.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes that one more entry for an event would add.
    pub(super) fn price(&self, seq: i64, cost: usize) -> usize {
        let event = if self.events.contains_key(&seq) { 0 } else { cost };
        event.saturating_add(ENTRY)
    }

    /// The event at a position, and its cost.
    pub(super) fn get(&self, seq: i64) -> Option<(Stored, usize)> {
        let pooled = self.events.get(&seq)?;
        Some((pooled.stored.clone(), pooled.cost))
    }

    /// An entry begins to use an event.
    pub(super) fn acquire(&mut self, seq: i64, stored: &Stored, cost: usize) {
        self.bytes = self.bytes.saturating_add(ENTRY);
        match self.events.entry(seq) {
            Entry::Occupied(pooled) => pooled.into_mut().uses += 1,
            Entry::Vacant(free) => {
                self.bytes = self.bytes.saturating_add(cost);
                free.insert(Pooled {
                    stored: stored.clone(),
                    cost,
                    uses: 1,
                });
            }
        }
    }

    /// An entry ends to use an event.
    pub(super) fn release(&mut self, seq: i64) {
        self.bytes = self.bytes.saturating_sub(ENTRY);
        let Entry::Occupied(mut pooled) = self.events.entry(seq) else {
            return;
        };
        if pooled.get().uses > 1 {
            pooled.get_mut().uses -= 1;
        } else {
            self.bytes = self.bytes.saturating_sub(pooled.remove().cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_charged_once_and_leaves_with_its_last_use() {
        let (mut pool, stored) = (Pool::default(), Stored::Corrupt { id: None });
        assert_eq!(pool.price(7, 1000), 1128);
        pool.acquire(7, &stored, 1000);
        assert_eq!(pool.price(7, 1000), 128);
        pool.acquire(7, &stored, 1000);
        assert_eq!(pool.bytes(), 1256);
        pool.release(7);
        assert_eq!((pool.bytes(), pool.get(7).is_some()), (1128, true));
        pool.release(7);
        assert_eq!((pool.bytes(), pool.get(7).is_none()), (0, true));
    }
}
