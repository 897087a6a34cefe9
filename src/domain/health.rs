//! [`Health`]: how a destination is doing, and when to give up on it.
//!
//! The tracker answers with data and touches nothing; callers act on the [`Signal`]. It is stored beside the queue,
//! so a restart does not forgive a failing receiver.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::outcome::{Failure, FailureReason, Outcome};
use super::retry;

/// When to give up on a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisablePolicy {
    /// Whether to disable at all.
    pub enabled: bool,
    /// Failed attempts in a row …
    pub consecutive_failures: u32,
    /// … that have lasted at least so long.
    pub minimum_duration: Duration,
    /// How often a disabled destination is tried; `None` never.
    pub probe_interval: Option<Duration>,
}

impl Default for DisablePolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            consecutive_failures: 20,
            minimum_duration: Duration::from_secs(3600),
            probe_interval: Some(Duration::from_secs(15 * 60)),
        }
    }
}

/// How a destination is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Failed attempts since the last success.
    pub consecutive_failures: u64,
    /// When the current row of failures began.
    pub failing_since: Option<Timestamp>,
    /// Last success.
    pub last_success: Option<Timestamp>,
    /// Last failure.
    pub last_failure: Option<LastFailure>,
    /// Set while disabled.
    pub disabled: Option<Disabled>,
    /// Deliveries that succeeded.
    pub delivered: u64,
    /// Deliveries given up.
    pub exhausted: u64,
    /// Generation of the spec that the health belongs to.
    pub generation: i64,
    /// Token of the last handled enable request.
    pub handled_enable: Option<String>,
    /// The lane rests until then.
    pub resting_until: Option<Timestamp>,
}

/// The last failed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    /// When.
    pub time: Timestamp,
    /// Why.
    pub reason: FailureReason,
    /// Status code, if any.
    pub status: Option<u16>,
    /// What happened.
    pub message: String,
}

/// Since when and why a destination is disabled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disabled {
    /// Since when.
    pub since: Timestamp,
    /// Why.
    pub reason: DisableReason,
    /// When the next probe is due.
    pub next_probe: Option<Timestamp>,
}

/// Why a destination was disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DisableReason {
    /// Too many failures in a row for too long.
    AutoDisabled,
    /// The receiver answered 410.
    Gone,
}

/// A change that people should hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The first failure after a success.
    Failing,
    /// Now disabled.
    Disabled(DisableReason),
    /// The first success after failures.
    Recovered,
}
