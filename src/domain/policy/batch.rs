//! [`Batch`]: several events in one request, as an array.
//!
//! Events wait until there are enough for a request, or the oldest has waited for long enough. What failed together is
//! due together, and goes as one request again, without those that came meanwhile: so the request has the same id.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::retry;

/// Fewest events that a request may be asked to hold at most.
pub const LEAST_EVENTS: u32 = 2;
/// Most events of a request.
pub const MOST_EVENTS: u32 = 100;
/// Bounds of the longest wait.
pub const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(5));
/// Most bytes of events, as stored, that one request is made of, unless a single one is larger.
pub const MAX_STORED: usize = 1 << 20;

/// How events are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Most events in a request.
    pub max_events: usize,
    /// How long the oldest of them waits for others.
    pub max_wait: Duration,
}

/// What is known of a delivery that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Since when.
    pub due: Timestamp,
    /// Attempts made, when it is due by its schedule; 0 when by its age.
    pub attempts: u32,
    /// Bytes of its event as stored.
    pub bytes: usize,
}

/// What goes now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// The first request's events, as places among the candidates.
    pub now: Vec<usize>,
    /// Another request could go, too.
    pub more: bool,
    /// When those that wait for others go at the latest.
    pub until: Option<Timestamp>,
}

impl Batch {
    /// When a delivery that is due goes at the latest, whether or not others come.
    #[must_use]
    pub fn closes(&self, due: Timestamp) -> Timestamp {
        retry::after(due, self.max_wait)
    }

    /// Chooses the next request among deliveries that are due, in the order of their acceptance. Those that failed
    /// together come first.
    #[must_use]
    pub fn choose(&self, candidates: &[Candidate], now: Timestamp) -> Choice {
        let together = |one: &Candidate| (one.attempts > 0).then_some((one.due, one.attempts));
        let places = |group: Option<(Timestamp, u32)>| -> Vec<usize> {
            let all = candidates.iter().enumerate();
            all.filter(|(_, one)| together(one) == group)
                .map(|(place, _)| place)
                .collect()
        };
        let mut groups: Vec<_> = candidates.iter().filter_map(together).collect();
        groups.sort_unstable();
        groups.dedup();
        if let Some(first) = groups.first() {
            let group = places(Some(*first));
            let taken = self.fitting(candidates, &group);
            return Choice {
                more: taken < group.len() || groups.len() > 1 || taken < candidates.len(),
                now: group.into_iter().take(taken).collect(),
                until: None,
            };
        }
        let fresh = places(None);
        let taken = self.fitting(candidates, &fresh);
        let oldest = candidates.iter().map(|one| one.due).min();
        let Some(closes) = oldest.map(|oldest| self.closes(oldest)) else {
            return Choice::default();
        };
        if taken == self.max_events || taken < fresh.len() || closes <= now {
            return Choice {
                more: taken < fresh.len(),
                now: fresh.into_iter().take(taken).collect(),
                until: None,
            };
        }
        Choice {
            until: Some(closes),
            ..Choice::default()
        }
    }

    /// How many of a group fit into one request: at least one.
    fn fitting(&self, candidates: &[Candidate], group: &[usize]) -> usize {
        let mut bytes = 0_usize;
        let fits = group.iter().take(self.max_events).take_while(|place| {
            let next = candidates.get(**place).map_or(0, |one| one.bytes);
            let is_first = bytes == 0;
            bytes = bytes.saturating_add(next.max(1));
            is_first || bytes <= MAX_STORED
        });
        fits.count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BATCH: Batch = Batch {
        max_events: 3,
        max_wait: Duration::from_secs(10),
    };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    fn one(due: i64, attempts: u32) -> Candidate {
        Candidate {
            due: at(due),
            attempts,
            bytes: 10,
        }
    }

    fn large(due: i64) -> Candidate {
        Candidate {
            bytes: MAX_STORED / 2 + 1,
            ..one(due, 0)
        }
    }

    fn going(candidates: &[Candidate], now: i64) -> (Vec<usize>, bool, Option<Timestamp>) {
        let choice = BATCH.choose(candidates, at(now));
        (choice.now, choice.more, choice.until)
    }

    #[test]
    fn events_go_when_there_are_enough_or_the_oldest_has_waited() {
        assert_eq!(going(&[], 0), (vec![], false, None));
        let two = [one(0, 0), one(4, 0)];
        assert_eq!(going(&two, 9), (vec![], false, Some(at(10))));
        assert_eq!(going(&two, 10), (vec![0, 1], false, None));
        let four = [one(0, 0), one(1, 0), one(2, 0), one(3, 0)];
        assert_eq!(going(&four, 4), (vec![0, 1, 2], true, None));
        assert_eq!(going(&four[..3], 4), (vec![0, 1, 2], false, None));
    }

    #[test]
    fn a_request_closes_early_when_the_next_event_is_too_large_for_it() {
        assert_eq!(going(&[one(0, 0), large(0)], 1), (vec![], false, Some(at(10))));
        assert_eq!(going(&[large(0), large(0)], 1), (vec![0], true, None));
        let huge = Candidate {
            bytes: MAX_STORED * 3,
            ..one(0, 0)
        };
        assert_eq!(going(&[huge, one(0, 0)], 1), (vec![0], true, None));
    }

    #[test]
    fn what_failed_together_goes_together_and_at_once() {
        let mixed = [one(1, 0), one(5, 1), one(2, 0), one(5, 1), one(6, 1)];
        assert_eq!(going(&mixed, 6), (vec![1, 3], true, None));
        assert_eq!(going(&[mixed[0], mixed[2], mixed[4]], 6), (vec![2], true, None));
        assert_eq!(going(&[mixed[0], mixed[2]], 6), (vec![], false, Some(at(11))));
        let many = [one(5, 1), one(5, 1), one(5, 1), one(5, 1)];
        assert_eq!(going(&many, 6), (vec![0, 1, 2], true, None));
    }

    proptest! {
        #[test]
        fn every_event_goes_once_in_requests_within_their_bounds(
            given in prop::collection::vec((0..20_i64, 0..3_u32, 1..MAX_STORED), 0..30),
        ) {
            let mut left: Vec<(usize, Candidate)> = given
                .into_iter()
                .map(|(due, attempts, bytes)| Candidate { bytes, ..one(due, attempts) })
                .enumerate()
                .collect();
            let mut gone = Vec::new();
            let count = left.len();
            while !left.is_empty() {
                let candidates: Vec<_> = left.iter().map(|(_, one)| *one).collect();
                let choice = BATCH.choose(&candidates, at(30));
                prop_assert!(!choice.now.is_empty() && choice.now.len() <= BATCH.max_events);
                prop_assert_eq!(choice.more, choice.now.len() < candidates.len());
                let bytes: usize = choice.now.iter().map(|place| candidates[*place].bytes).sum();
                prop_assert!(bytes <= MAX_STORED || choice.now.len() == 1);
                prop_assert!(choice.now.is_sorted());
                gone.extend(choice.now.iter().map(|place| left[*place].0));
                let mut place = 0;
                left.retain(|_| {
                    place += 1;
                    !choice.now.contains(&(place - 1))
                });
            }
            gone.sort_unstable();
            prop_assert_eq!(gone, (0..count).collect::<Vec<_>>());
        }
    }
}
