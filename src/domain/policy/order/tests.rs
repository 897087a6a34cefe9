//! Order holds whatever fails: a model of a store and of receivers that fail at random.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::domain::retry;

fn at(seconds: u64) -> Timestamp {
    retry::after(Timestamp::UNIX_EPOCH, Duration::from_secs(seconds))
}

#[test]
fn a_failed_delivery_blocks_its_key_alone() {
    let mut queues = Queues::default();
    for (position, key) in [(1, 7), (2, 7), (3, 8), (4, 7)] {
        assert_eq!(queues.offer(key, position, 10, position), Verdict::Kept);
    }
    assert_eq!(queues.take_next(), Some((7, 1)));
    assert_eq!(queues.take_next(), Some((8, 3)));
    assert_eq!(queues.take_next(), None, "one of each key at a time");
    assert_eq!(queues.failed(7, at(60)), [2, 4]);
    queues.done(8);
    assert_eq!(queues.offer(7, 5, 10, 5), Verdict::PutOff(5, at(60)));
    assert_eq!(queues.offer(8, 6, 10, 6), Verdict::Kept);
    assert_eq!(queues.take_next(), Some((8, 6)));
    assert_eq!(queues.next_opening(), Some(at(60)));
    assert!(!queues.open(at(59)) && queues.open(at(60)));
    assert_eq!(queues.offer(7, 1, 10, 1), Verdict::Kept);
}

#[test]
fn a_failed_delivery_that_is_cancelled_opens_its_key_and_no_other_does() {
    let mut queues = Queues::default();
    for (position, key) in [(1, 7), (2, 8), (3, 7)] {
        queues.offer(key, position, 10, position);
    }
    assert_eq!(
        (queues.take_next(), queues.take_next()),
        (Some((7, 1)), Some((8, 2)))
    );
    assert_eq!(
        (queues.failed(7, at(60)), queues.failed(8, at(90))),
        (vec![3], vec![])
    );
    assert_eq!(queues.cancelled(3), None, "a younger one blocks nothing");
    assert_eq!(queues.cancelled(1), Some(at(60)));
    assert_eq!(queues.offer(8, 4, 10, 4), Verdict::PutOff(4, at(90)));
    assert_eq!(queues.offer(7, 3, 10, 3), Verdict::Kept);
    assert_eq!(queues.take_next(), Some((7, 3)));
    queues.offer(7, 5, 10, 5);
    assert_eq!(queues.cancelled(3), None);
    assert!(
        queues.failed(7, at(120)).is_empty(),
        "it was told after the cancellation"
    );
    assert_eq!(queues.take_next(), Some((7, 5)));
}

#[test]
fn what_is_looked_ahead_at_is_bounded() {
    let mut queues = Queues::default();
    for position in 0..MAX_HELD as u64 {
        queues.offer(1, position, 1, ());
    }
    assert_eq!(queues.room(), 0);
    queues.take_next();
    assert_eq!(queues.room(), 1);
    let mut queues = Queues::default();
    queues.offer(1, 1, MAX_HELD_BYTES, ());
    assert_eq!(queues.room(), 0);
    queues.take_next();
    assert_eq!(queues.room(), MAX_HELD);
    for key in 0..MAX_BLOCKED as u128 {
        queues.failed(key, at(1));
    }
    assert_eq!(queues.room(), 0);
}

/// A store as the queue's contract says: due deliveries by due time and position.
#[derive(Default)]
struct Store {
    waiting: BTreeMap<(Timestamp, u64), u128>,
}

impl Store {
    fn rewind(&mut self, now: Timestamp) {
        let due: Vec<_> = self
            .waiting
            .range(..=(now, u64::MAX))
            .map(|(at, key)| (*at, *key))
            .collect();
        for ((due, position), key) in due {
            self.waiting.remove(&(due, position));
            self.waiting.insert((at(position), position), key);
        }
    }

    fn lease(&mut self, now: Timestamp, most: usize) -> Vec<(u64, u128)> {
        let due = self.waiting.range(..=(now, u64::MAX)).take(most);
        let mut due: Vec<_> = due.map(|(at, key)| (*at, *key)).collect();
        for (at, _) in &due {
            self.waiting.remove(at);
        }
        due.sort_by_key(|((_, position), _)| *position);
        due.into_iter()
            .map(|((_, position), key)| (position, key))
            .collect()
    }
}

proptest! {
    #[test]
    fn each_key_is_delivered_in_order_whatever_fails(
        keys in prop::collection::vec(1..6_u128, 1..60),
        ends in prop::collection::vec((0..4_usize, 0..5_u8, 1..30_u64), 0..400),
    ) {
        let mut store = Store::default();
        for (position, key) in keys.iter().enumerate() {
            store.waiting.insert((at(position as u64), position as u64), *key);
        }
        let (mut queues, mut under_way, mut now) = (Queues::default(), Vec::new(), 100);
        let mut delivered: HashMap<u128, Vec<u64>> = HashMap::new();
        // When the script is over everything succeeds.
        let mut ends = ends.into_iter();
        let mut count = 0;
        for _ in 0..20_000 {
            if queues.open(at(now)) {
                store.rewind(at(now));
            }
            while under_way.len() < 4 {
                if let Some((key, position)) = queues.take_next() {
                    under_way.push((key, position));
                    continue;
                }
                let leased = store.lease(at(now), 8);
                if leased.is_empty() {
                    break;
                }
                for (position, key) in leased {
                    if let Verdict::PutOff(position, until) = queues.offer(key, position, 1, position) {
                        store.waiting.insert((until, position), key);
                    }
                }
            }
            if under_way.is_empty() {
                now += 1;
                if count == keys.len() {
                    break;
                }
                continue;
            }
            let (which, what, wait) = ends.next().unwrap_or((0, 4, 1));
            let (key, position) = under_way.remove(which % under_way.len());
            match what {
                0 | 1 => {
                    let until = at(now + wait);
                    store.waiting.insert((until, position), key);
                    for younger in queues.failed(key, until) {
                        store.waiting.insert((until, younger), key);
                    }
                }
                2 => {
                    // It broke off: all of the key are due as they were.
                    store.waiting.insert((at(position), position), key);
                    for younger in queues.give_up(key) {
                        store.waiting.insert((at(younger), younger), key);
                    }
                }
                _ => {
                    queues.done(key);
                    delivered.entry(key).or_default().push(position);
                    count += 1;
                }
            }
        }
        prop_assert_eq!(count, keys.len(), "everything is delivered");
        for positions in delivered.values() {
            prop_assert!(positions.is_sorted(), "{:?}", positions);
        }
    }
}
