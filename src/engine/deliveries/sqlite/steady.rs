//! [`Steady`]: for how long the machine's clock has run as time passes, so that nothing is removed by a clock that is
//! wrong for a moment.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// By how much the clock may be corrected and still count as running.
const TOLERANCE: Duration = Duration::from_secs(60);

/// Watches a clock.
#[derive(Debug)]
pub(super) struct Steady {
    seen: Option<(Instant, Timestamp)>,
    since: Instant,
}

impl Steady {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            seen: None,
            since: now,
        }
    }

    /// Looks at the clock; says for how long it has not jumped.
    pub(super) fn look(&mut self, now: Instant, clock: Timestamp) -> Duration {
        if let Some((then, told)) = self.seen {
            let passed = now.saturating_duration_since(then).as_secs_f64();
            let told = clock.duration_since(told).as_secs_f64();
            if (told - passed).abs() > TOLERANCE.as_secs_f64() {
                self.since = now;
            }
        }
        self.seen = Some((now, clock));
        now.saturating_duration_since(self.since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_steady_from_its_last_jump_on() {
        let start = Instant::now();
        let mut steady = Steady::new(start);
        let mut look = |passed: u64, told: i64| {
            let clock = Timestamp::from_second(1_000_000 + told).unwrap();
            let steady = steady.look(start + Duration::from_secs(passed), clock);
            steady.as_secs()
        };
        assert_eq!(look(0, 0), 0);
        assert_eq!(look(100, 130), 100, "a correction is no jump");
        assert_eq!(look(110, 300_000), 0, "ahead");
        assert_eq!(look(210, 300_100), 100);
        assert_eq!(look(220, 250), 0, "back");
        assert_eq!(look(520, 550), 300);
    }
}
