//! [`Rate`]: at most so many deliveries in a time, with a burst after quiet ones.
//!
//! The generic cell rate algorithm: [`Pace`] holds the time at which the account would be even. In any span of time at
//! most `span / interval + burst` are let through. A clock that jumps back costs one burst's time at most.

use std::time::Duration;

use jiff::Timestamp;

use crate::domain::retry;

/// How many deliveries may be tried in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds from one to the next.
    interval: i128,
    /// How many may go at once.
    burst: u32,
}

/// How much of a rate is used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// When everything let through would have gone evenly, in nanoseconds since 1970.
    even: Option<i128>,
}

impl Rate {
    /// So many in a time, and so many of them at once.
    #[must_use]
    pub fn new(events: u32, per: Duration, burst: u32) -> Self {
        let per = i128::try_from(per.as_nanos()).unwrap_or(i128::MAX);
        Self {
            interval: (per / i128::from(events.max(1))).max(1),
            burst: burst.max(1),
        }
    }

    fn span(self) -> i128 {
        self.interval.saturating_mul(self.burst.into())
    }
}

impl Pace {
    fn even(self, rate: Rate, now: i128) -> i128 {
        self.even
            .map_or(now, |even| even.clamp(now, now.saturating_add(rate.span())))
    }

    /// How many may go now.
    ///
    /// # Errors
    /// None; when the next one may.
    pub fn room(self, rate: Rate, now: Timestamp) -> Result<u32, Timestamp> {
        let nanos = now.as_nanosecond();
        let even = self.even(rate, nanos);
        let left = nanos.saturating_add(rate.span()).saturating_sub(even);
        match u32::try_from(left / rate.interval).unwrap_or(u32::MAX) {
            0 => {
                let wait = u64::try_from(rate.interval - left).unwrap_or(u64::MAX);
                Err(retry::after(now, Duration::from_nanos(wait)))
            }
            room => Ok(room),
        }
    }

    /// Notes that so many went.
    pub fn take(&mut self, rate: Rate, now: Timestamp, count: u32) {
        let even = self.even(rate, now.as_nanosecond());
        self.even = Some(even.saturating_add(rate.interval.saturating_mul(count.into())));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        retry::after(Timestamp::UNIX_EPOCH, Duration::from_millis(millis))
    }

    #[test]
    fn a_burst_goes_at_once_and_then_one_by_one() {
        let rate = Rate::new(10, Duration::from_secs(1), 3);
        let mut pace = Pace::default();
        assert_eq!(pace.room(rate, at(0)), Ok(3));
        pace.take(rate, at(0), 3);
        assert_eq!(pace.room(rate, at(0)), Err(at(100)));
        assert_eq!(pace.room(rate, at(40)), Err(at(100)));
        assert_eq!(pace.room(rate, at(100)), Ok(1));
        pace.take(rate, at(100), 1);
        assert_eq!(pace.room(rate, at(100)), Err(at(200)));
        assert_eq!(
            pace.room(rate, at(10_000)),
            Ok(3),
            "no more than a burst is saved up"
        );
    }

    #[test]
    fn a_clock_that_jumps_back_costs_a_bursts_time_at_most() {
        let rate = Rate::new(1, Duration::from_secs(1), 2);
        let mut pace = Pace::default();
        pace.take(rate, at(1_000_000), 2);
        assert_eq!(pace.room(rate, at(0)), Err(at(1000)));
    }

    proptest! {
        #[test]
        fn no_window_lets_through_more_than_its_share_and_a_burst(
            events in 1..50_u32, per in 1..20_u64, burst in 1..20_u32, steps in prop::collection::vec(0..2000_u64, 1..80),
        ) {
            let rate = Rate::new(events, Duration::from_secs(per), burst);
            let (mut pace, mut now, mut sent) = (Pace::default(), 0, Vec::new());
            for step in steps {
                now += step;
                match pace.room(rate, at(now)) {
                    Ok(room) => {
                        prop_assert!(room <= burst);
                        pace.take(rate, at(now), room);
                        sent.extend(std::iter::repeat_n(now, room as usize));
                    }
                    Err(until) => {
                        prop_assert!(until > at(now));
                        prop_assert!(pace.room(rate, until).is_ok(), "it may go when it was told");
                    }
                }
            }
            for (index, first) in sent.iter().enumerate() {
                for (count, last) in sent.iter().skip(index).enumerate() {
                    let count = u64::try_from(count).unwrap();
                    let share = (last - first) * u64::from(events) + u64::from(burst) * per * 1000;
                    prop_assert!(count * per * 1000 <= share + 1);
                }
            }
        }
    }
}
