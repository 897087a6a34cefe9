//! How much a lane may do now: whether it may send at all ([`admission`]), and how much at once ([`Window`]).
//!
//! The window shrinks by half with each failure and grows by one with each success, from one up to the
//! destination's `maxInFlight`. So a receiver that comes back is drained at a ramped rate, and a receiver that
//! hangs holds few of the places that all lanes share.

use jiff::Timestamp;

use super::destination::Destination;
use super::health::Health;
use super::retry::{self, MAX_RETRY_AFTER};

/// Whether a lane may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// As much as the window allows.
    Open,
    /// One delivery, to see whether the receiver works again.
    Probe,
    /// Nothing until then.
    RestUntil(Timestamp),
    /// Nothing; the deliveries wait without spending attempts.
    Parked {
        /// Why.
        reason: ParkReason,
        /// When to look again without being told.
        until: Option<Timestamp>,
    },
}

/// Why deliveries are parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::EnumIter)]
pub enum ParkReason {
    /// The configuration has faults.
    NotReady,
    /// `spec.suspend` is true.
    Suspended,
    /// Disabled after too many failures, or because the receiver is gone.
    Disabled,
}

/// Decides whether a lane may send at `now`; `destination` is `None` while it is not ready.
#[must_use]
pub fn admission(destination: Option<&Destination>, health: &Health, now: Timestamp) -> Admission {
    let Some(destination) = destination else {
        return Admission::Parked {
            reason: ParkReason::NotReady,
            until: None,
        };
    };
    if destination.suspended {
        return Admission::Parked {
            reason: ParkReason::Suspended,
            until: None,
        };
    }
    if let Some(disabled) = &health.disabled {
        let interval = destination.disable.probe_interval;
        let is_astray = |due| interval.is_some_and(|interval| retry::is_astray(due, now, interval));
        return match disabled.next_probe {
            Some(due) if due <= now || is_astray(due) => Admission::Probe,
            until => Admission::Parked {
                reason: ParkReason::Disabled,
                until,
            },
        };
    }
    match health.resting_until {
        Some(until) if until > now && !retry::is_astray(until, now, MAX_RETRY_AFTER) => {
            Admission::RestUntil(until)
        }
        _ => Admission::Open,
    }
}

/// How many requests a lane may have in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window(u32);

impl Window {
    /// The window of a lane that starts: full when its receiver was well, one when it was not.
    #[must_use]
    pub const fn new(failing: bool) -> Self {
        Self(if failing { 1 } else { u32::MAX })
    }

    /// The window now, for a destination's `maxInFlight`.
    #[must_use]
    pub fn limit(self, max_in_flight: u32) -> u32 {
        self.0.clamp(1, max_in_flight.max(1))
    }

    /// After a success.
    pub fn grow(&mut self) {
        self.0 = self.0.saturating_add(1);
    }

    /// After a failure of the receiver.
    pub fn shrink(&mut self, max_in_flight: u32) {
        self.0 = (self.limit(max_in_flight) / 2).max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_halves_with_failures_and_ramps_up_with_successes() {
        let mut window = Window::new(false);
        assert_eq!(window.limit(16), 16);
        for expected in [8, 4, 2, 1, 1] {
            window.shrink(16);
            assert_eq!(window.limit(16), expected);
        }
        for _ in 0..40 {
            window.grow();
        }
        assert_eq!(window.limit(16), 16);
        assert_eq!(Window::new(true).limit(16), 1);
    }

    #[test]
    fn a_lane_that_is_not_ready_is_parked() {
        let parked = Admission::Parked {
            reason: ParkReason::NotReady,
            until: None,
        };
        assert_eq!(admission(None, &Health::default(), Timestamp::UNIX_EPOCH), parked);
    }
}
