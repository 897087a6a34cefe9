//! [`Complaints`]: what the store refuses many lanes for long is one line a minute, not one for each lane and second.
//!
//! A line is written at once when something goes wrong for the first time, or again after a minute without a line; it
//! tells of how many lanes and how often since the one before. What and why are words of closed lists, and of a lane
//! only its uid is held, once: the memory is bounded by the lanes there are.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::queue::QueueError;
use crate::domain::id::Uid;

/// How often the same is said again while it goes on.
const EVERY: Duration = Duration::from_secs(60);

/// What went wrong with the store, for all lanes.
#[derive(Debug, Default)]
pub(crate) struct Complaints(Mutex<HashMap<(&'static str, &'static str), Unsaid>>);

/// What was not said yet of one thing that goes wrong.
#[derive(Debug, Default)]
struct Unsaid {
    /// When a line was last written.
    said: Option<Instant>,
    lanes: HashSet<Uid>,
    times: u64,
}

/// What a line tells: since the one before, and its own cause counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sum {
    pub(crate) lanes: usize,
    pub(crate) times: u64,
}

impl Complaints {
    /// Notes that something went wrong for a lane. With a sum when it is time for a line.
    pub(crate) fn note(
        &self,
        what: &'static str,
        why: &'static str,
        lane: &Uid,
        now: Instant,
    ) -> Option<Sum> {
        let mut all = self.0.lock();
        let unsaid = all.entry((what, why)).or_default();
        unsaid.times = unsaid.times.saturating_add(1);
        if !unsaid.lanes.contains(lane) {
            unsaid.lanes.insert(lane.clone());
        }
        let lately = |said| now.saturating_duration_since(said) < EVERY;
        if unsaid.said.is_some_and(lately) {
            return None;
        }
        unsaid.said = Some(now);
        Some(Sum {
            lanes: std::mem::take(&mut unsaid.lanes).len(),
            times: std::mem::take(&mut unsaid.times),
        })
    }

    /// Warns that the store failed a lane, when it is time for a line.
    pub(crate) fn warn(&self, what: &'static str, error: &QueueError, lane: &Uid) {
        if let Some(Sum { lanes, times }) = self.note(what, error.reason(), lane, Instant::now()) {
            tracing::warn!(
                reason = error.reason(), %error, destination.uid = %lane, lanes, times,
                "{what}; said once a minute for all lanes"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    //! When a line is written, and what it tells.

    use super::*;

    #[test]
    fn a_thousand_lanes_that_fail_each_second_are_one_line_a_minute() {
        let complaints = Complaints::default();
        let start = Instant::now();
        let mut lines = Vec::new();
        for second in 0..=120 {
            for lane in 0..1000 {
                let now = start + Duration::from_secs(second);
                let said = complaints.note("unread", "Unavailable", &Uid::new(&lane.to_string()), now);
                lines.extend(said.map(|sum| (second, sum)));
            }
        }
        let sum = |lanes, times| Sum { lanes, times };
        assert_eq!(
            lines,
            [(0, sum(1, 1)), (60, sum(1000, 60_000)), (120, sum(1000, 60_000))]
        );
    }

    #[test]
    fn another_thing_and_another_reason_are_news() {
        let complaints = Complaints::default();
        let (lane, now) = (Uid::new("a"), Instant::now());
        let first = Some(Sum { lanes: 1, times: 1 });
        assert_eq!(complaints.note("unread", "Unavailable", &lane, now), first);
        assert_eq!(complaints.note("unread", "DiskFull", &lane, now), first);
        assert_eq!(complaints.note("unwritten", "Unavailable", &lane, now), first);
        assert_eq!(complaints.note("unread", "Unavailable", &lane, now), None);
        let later = now + EVERY;
        let two = Some(Sum { lanes: 1, times: 2 });
        assert_eq!(complaints.note("unread", "Unavailable", &lane, later), two);
    }
}
