//! [`Pace`]: how long calls wait for others before a commit.
//!
//! A commit costs much the same whatever it holds, so while calls come fast, commits begin no more often than every
//! [`GATHER`]; nobody waits longer than that for company. While they come slowly, none would come, and none waits.

use std::time::{Duration, Instant};

/// Least time between the beginnings of two commits while calls come fast.
const GATHER: Duration = Duration::from_millis(1);
/// Calls are counted over this time.
const SPAN: Duration = Duration::from_millis(10);
/// This many calls in a [`SPAN`] are fast: eight share a commit.
const FAST: usize = 80;

/// How fast calls come.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the last commit began.
    began: Instant,
    /// When the present span began.
    span: Instant,
    /// Calls in it.
    calls: usize,
    /// Calls in the one before.
    before: usize,
}

impl Pace {
    /// Of a queue that nobody has called yet.
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            began: now,
            span: now,
            calls: 0,
            before: 0,
        }
    }

    /// A commit of so many calls begins.
    pub(super) fn begins(&mut self, calls: usize, now: Instant) {
        self.began = now;
        let past = now.duration_since(self.span);
        if past < SPAN {
            self.calls = self.calls.saturating_add(calls);
            return;
        }
        self.before = if past < 2 * SPAN { self.calls } else { 0 };
        (self.span, self.calls) = (now, calls);
    }

    /// Until when further calls are waited for once there is one; `None` while they come slowly.
    pub(super) fn gather(&self) -> Option<Instant> {
        (self.before.max(self.calls) >= FAST).then(|| self.began + GATHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_micros(500);

    /// The pace after commits of so many calls, one each half millisecond, and when the last of them began.
    fn after(commits: u32, calls: usize) -> (Pace, Instant) {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for number in 0..commits {
            pace.begins(calls, start + STEP * number);
        }
        (pace, start + STEP * commits.saturating_sub(1))
    }

    #[test]
    fn calls_that_come_slowly_wait_for_no_others() {
        // A lane that delivers one after the other makes two calls for each delivery at most.
        let (pace, _) = after(1000, 2);
        assert_eq!(pace.gather(), None);
        assert_eq!(after(0, 0).0.gather(), None);
    }

    #[test]
    fn commits_of_calls_that_come_fast_begin_a_millisecond_apart() {
        let (mut pace, last) = after(40, 10);
        assert_eq!(pace.gather(), Some(last + GATHER));
        pace.begins(1, last + STEP);
        assert_eq!(
            pace.gather(),
            Some(last + STEP + GATHER),
            "one small commit changes nothing"
        );
    }

    #[test]
    fn after_a_pause_no_call_waits() {
        let (mut pace, last) = after(40, 10);
        pace.begins(1, last + 3 * SPAN);
        assert_eq!(pace.gather(), None);
    }
}
