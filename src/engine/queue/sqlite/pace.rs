//! [`Pace`]: how long calls wait for others before a commit.
//!
//! A commit costs much the same whatever it holds, so while calls come fast, commits begin no more often than every
//! [`GATHER`], unless as many calls are there as shared one lately: of those who wait for an answer before they call
//! again, all have called then. While calls come slowly, no others would come, and none waits.

use std::time::{Duration, Instant};

/// Least time between the beginnings of two commits while calls come fast, so the longest that a call waits for others.
const GATHER: Duration = Duration::from_millis(1);
/// Calls are counted over this time.
const SPAN: Duration = Duration::from_millis(10);
/// This many calls in a [`SPAN`] are fast: eight in each [`GATHER`].
const FAST: usize = 80;

/// What the next commit waits for, whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gather {
    /// When it begins at the latest.
    pub(super) until: Instant,
    /// How many calls are enough.
    pub(super) calls: usize,
}

/// The calls of a span.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    all: usize,
    /// Most that shared a commit.
    most: usize,
}

/// How fast calls come.
#[derive(Debug)]
pub(super) struct Pace {
    /// When the last commit began.
    began: Instant,
    /// When the present span began.
    span: Instant,
    present: Calls,
    /// Those of the span before.
    before: Calls,
}

impl Pace {
    /// Of a queue that nobody has called yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            began: now,
            span: now,
            present: Calls::default(),
            before: Calls::default(),
        }
    }

    /// A commit of so many calls begins.
    pub(super) fn begins(&mut self, calls: usize, now: Instant) {
        self.began = now;
        let past = now.duration_since(self.span);
        if past >= SPAN {
            self.before = if past < 2 * SPAN {
                self.present
            } else {
                Calls::default()
            };
            (self.span, self.present) = (now, Calls::default());
        }
        self.present.all = self.present.all.saturating_add(calls);
        self.present.most = self.present.most.max(calls);
    }

    /// What further calls are waited for once there is one; `None` while they come slowly.
    pub(super) fn gather(&self) -> Option<Gather> {
        let are_fast = self.before.all.max(self.present.all) >= FAST;
        are_fast.then(|| Gather {
            until: self.began + GATHER,
            calls: self.before.most.max(self.present.most),
        })
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
        let gather = |began| {
            Some(Gather {
                until: began + GATHER,
                calls: 10,
            })
        };
        assert_eq!(pace.gather(), gather(last));
        pace.begins(1, last + STEP);
        assert_eq!(
            pace.gather(),
            gather(last + STEP),
            "one small commit changes nothing"
        );
    }

    #[test]
    fn what_is_enough_falls_when_fewer_calls_come() {
        let (mut pace, last) = after(40, 20);
        for number in 1..=60 {
            pace.begins(8, last + STEP * number);
        }
        assert_eq!(pace.gather().map(|gather| gather.calls), Some(8));
    }

    #[test]
    fn after_a_pause_no_call_waits() {
        let (mut pace, last) = after(40, 10);
        pace.begins(1, last + 3 * SPAN);
        assert_eq!(pace.gather(), None);
    }
}
