//! [`Pacing`]: what a destination's policy asks of its lane before something is sent.

use jiff::Timestamp;

use crate::domain::destination::Destination;
use crate::domain::policy::rate::Pace;
use crate::engine::Core;

/// What of the policy keeps due deliveries waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Restraint {
    /// The rate is used up.
    RateLimit,
    /// Those before them have not ended.
    Order,
    /// They wait for others to go with them.
    Batch,
}

impl Restraint {
    /// The word for status and metrics.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimit => "RateLimit",
            Self::Order => "Order",
            Self::Batch => "Batch",
        }
    }
}

/// What is used up. In memory: after a restart a whole burst may go.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    pace: Pace,
    is_waiting: bool,
}

impl Pacing {
    /// How many of so many attempts may be made now; otherwise when the next may.
    pub(super) fn room(
        &mut self,
        core: &Core,
        destination: &Destination,
        wanted: usize,
    ) -> Result<usize, Timestamp> {
        let Some(rate) = destination.policy.rate else {
            return Ok(wanted);
        };
        match self.pace.room(rate, core.clock.now()) {
            Ok(room) => {
                self.is_waiting = false;
                Ok(wanted.min(usize::try_from(room).unwrap_or(usize::MAX)))
            }
            Err(until) => {
                if !std::mem::replace(&mut self.is_waiting, true) {
                    core.metrics.policy_waits(Restraint::RateLimit.as_str());
                }
                Err(until)
            }
        }
    }

    /// Notes an attempt.
    pub(super) fn took(&mut self, core: &Core, destination: &Destination) {
        if let Some(rate) = destination.policy.rate {
            self.pace.take(rate, core.clock.now(), 1);
        }
    }
}
