//! [`Queues`]: which delivery of an ordered destination goes next.
//!
//! Deliveries come in the order of their acceptance. Of each key one is under way at a time. While one of a key failed
//! and waits for its next attempt, the younger ones of the key are put off to the same time; then everything that is
//! due is asked for by age again, which brings the one that failed first. Other keys are not affected. When the one that
//! failed is cancelled, its key opens at once.
//!
//! Bounds: [`MAX_HELD`] deliveries and [`MAX_HELD_BYTES`] of events that wait for one of their key to end, and
//! [`MAX_BLOCKED`] keys with a failed delivery. At a bound no more deliveries are asked for until something ends.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use super::key::Key;

/// Most deliveries that are looked ahead at.
pub const MAX_HELD: usize = 1024;
/// Most bytes of their events, about.
pub const MAX_HELD_BYTES: usize = 4 << 20;
/// Most keys that a failed delivery blocks.
pub const MAX_BLOCKED: usize = 10_000;
/// The key of events that lack what the expression names, and of all events without an expression.
pub const KEYLESS: u128 = 0;

/// Deliveries in the order of acceptance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// What events are in order of; `None`: of the whole destination.
    pub key: Option<Key>,
}

/// What becomes of a delivery that is due.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict<D> {
    /// It is kept until it may go.
    Kept,
    /// One before it failed: it is to be asked for again then.
    PutOff(D, Timestamp),
}

#[derive(Debug)]
struct Held<D> {
    key: u128,
    bytes: usize,
    delivery: D,
}

/// What is under way of a key.
#[derive(Debug)]
struct Busy {
    position: u64,
    /// It failed and was cancelled before that was told here.
    is_cancelled: bool,
}

/// What failed of a key.
#[derive(Debug)]
struct Blocked {
    /// Its position, when it is known.
    head: Option<u64>,
    /// Its next attempt.
    until: Timestamp,
}

/// Deliveries `D` of one destination that wait for their turn.
#[derive(Debug)]
pub struct Queues<D> {
    /// By position of acceptance.
    held: BTreeMap<u64, Held<D>>,
    bytes: usize,
    /// Keys of which one is under way.
    busy: HashMap<u128, Busy>,
    /// Keys of which one failed.
    blocked: HashMap<u128, Blocked>,
}

impl<D> Default for Queues<D> {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            bytes: 0,
            busy: HashMap::new(),
            blocked: HashMap::new(),
        }
    }
}

impl<D> Queues<D> {
    /// Takes a delivery that is due; they must come in the order of their positions, those that were put off apart.
    pub fn offer(&mut self, key: u128, position: u64, bytes: usize, delivery: D) -> Verdict<D> {
        if let Some(blocked) = self.blocked.get(&key) {
            return Verdict::PutOff(delivery, blocked.until);
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.held.insert(position, Held { key, bytes, delivery });
        Verdict::Kept
    }

    /// The oldest delivery whose key is free; it is under way from now on.
    pub fn take_next(&mut self) -> Option<(u128, D)> {
        let mut free = self
            .held
            .iter()
            .filter(|(_, held)| !self.busy.contains_key(&held.key));
        let position = *free.next()?.0;
        let held = self.held.remove(&position)?;
        self.bytes = self.bytes.saturating_sub(held.bytes);
        let busy = Busy {
            position,
            is_cancelled: false,
        };
        self.busy.insert(held.key, busy);
        Some((held.key, held.delivery))
    }

    /// A delivery that [`take_next`](Self::take_next) gave did not start: it goes back to its place.
    pub fn put_back(&mut self, key: u128, position: u64, bytes: usize, delivery: D) {
        self.busy.remove(&key);
        self.bytes = self.bytes.saturating_add(bytes);
        self.held.insert(position, Held { key, bytes, delivery });
    }

    /// The one under way of a key is done with.
    pub fn done(&mut self, key: u128) {
        self.busy.remove(&key);
    }

    /// The one under way of a key failed and is tried again then. Returns the younger ones, to be put off to that time.
    pub fn failed(&mut self, key: u128, until: Timestamp) -> Vec<D> {
        // A store keeps milliseconds: it hands out then what is due within this one.
        let until = Timestamp::from_millisecond(until.as_millisecond()).unwrap_or(until);
        let busy = self.busy.remove(&key);
        if busy.as_ref().is_some_and(|busy| busy.is_cancelled) {
            return Vec::new();
        }
        let head = busy.map(|busy| busy.position);
        self.blocked.insert(key, Blocked { head, until });
        self.give_up(key)
    }

    /// A delivery was cancelled. If it is the one that blocks its key, opens the key; returns the time to which the
    /// younger ones were put off: everything due by then must be asked for by age.
    pub fn cancelled(&mut self, position: u64) -> Option<Timestamp> {
        for busy in self.busy.values_mut() {
            busy.is_cancelled |= busy.position == position;
        }
        let mut blocked = self.blocked.iter();
        let (key, until) = blocked
            .find(|(_, blocked)| blocked.head == Some(position))
            .map(|(key, blocked)| (*key, blocked.until))?;
        self.blocked.remove(&key);
        Some(until)
    }

    /// The one under way of a key ended without a result and is due as before. Returns the younger ones, which must be
    /// asked for again after it.
    pub fn give_up(&mut self, key: u128) -> Vec<D> {
        self.busy.remove(&key);
        let positions: Vec<u64> = self
            .held
            .iter()
            .filter(|(_, held)| held.key == key)
            .map(|(position, _)| *position)
            .collect();
        let held = positions
            .into_iter()
            .filter_map(|position| self.held.remove(&position));
        let mut given = Vec::new();
        for one in held {
            self.bytes = self.bytes.saturating_sub(one.bytes);
            given.push(one.delivery);
        }
        given
    }

    /// Opens the keys whose time has come; answers whether there are any. Then everything due must be asked for by age.
    pub fn open(&mut self, now: Timestamp) -> bool {
        let before = self.blocked.len();
        self.blocked.retain(|_, blocked| blocked.until > now);
        self.blocked.len() < before
    }

    /// When the next key opens.
    #[must_use]
    pub fn next_opening(&self) -> Option<Timestamp> {
        self.blocked.values().map(|blocked| blocked.until).min()
    }

    /// How many more deliveries may be asked for.
    #[must_use]
    pub fn room(&self) -> usize {
        if self.bytes >= MAX_HELD_BYTES || self.blocked.len() >= MAX_BLOCKED {
            0
        } else {
            MAX_HELD.saturating_sub(self.held.len())
        }
    }
}

#[cfg(test)]
mod tests;
