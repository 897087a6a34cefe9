//! When to try a failed delivery again.

use std::time::Duration;

use jiff::Timestamp;

use super::outcome::Failure;

/// Each wait is multiplied by a factor in `1 - JITTER ..= 1 + JITTER`.
pub const JITTER: f64 = 0.2;
/// Most attempts a policy may ask for.
pub const MAX_ATTEMPTS: u32 = 100;
/// Longest `Retry-After` that is honoured in full; a longer one is cut to it.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// The default schedule (Standard Webhooks' example): 75 h 35 min in all.
pub const DEFAULT_SCHEDULE: [Duration; 10] = {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 3600;
    [
        Duration::from_secs(5),
        Duration::from_secs(5 * MINUTE),
        Duration::from_secs(30 * MINUTE),
        Duration::from_secs(2 * HOUR),
        Duration::from_secs(5 * HOUR),
        Duration::from_secs(10 * HOUR),
        Duration::from_secs(10 * HOUR),
        Duration::from_secs(14 * HOUR),
        Duration::from_secs(20 * HOUR),
        Duration::from_secs(24 * HOUR),
    ]
};

/// When to try again, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Wait before each further attempt; the last repeats.
    pub schedule: Vec<Duration>,
    /// Attempts in all, the first included; at least 1.
    pub max_attempts: u32,
    /// Age at which an event is given up.
    pub max_age: Option<Duration>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            schedule: DEFAULT_SCHEDULE.to_vec(),
            max_attempts: 11,
            max_age: None,
        }
    }
}

/// What to do with a failed delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again then.
    RetryAt(Timestamp),
    /// Give up.
    Exhausted,
}

/// Decides about a delivery that has now failed `attempts` times (at least 1).
///
/// `jitter` is uniform in `[0, 1)`. A `Retry-After` lengthens the wait, never shortens it.
#[must_use]
pub fn decide(
    policy: &RetryPolicy,
    failure: &Failure,
    attempts: u32,
    accepted: Timestamp,
    now: Timestamp,
    jitter: f64,
) -> RetryDecision {
    if failure.reason.is_terminal() || attempts >= policy.max_attempts {
        return RetryDecision::Exhausted;
    }
    let position = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(base) = policy.schedule.get(position).or(policy.schedule.last()) else {
        return RetryDecision::Exhausted;
    };
    let wait = jittered(*base, jitter).max(failure.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
    match after(now, wait) {
        at if is_too_old(policy, accepted, at) => RetryDecision::Exhausted,
        at => RetryDecision::RetryAt(at),
    }
}

/// Whether an event accepted then is over the policy's age at `at`.
#[must_use]
pub fn is_too_old(policy: &RetryPolicy, accepted: Timestamp, at: Timestamp) -> bool {
    policy.max_age.is_some_and(|age| at > after(accepted, age))
}

/// A wait with ±20 % of jitter; `jitter` is uniform in `[0, 1)`.
#[must_use]
pub fn jittered(wait: Duration, jitter: f64) -> Duration {
    wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * jitter.clamp(0.0, 1.0))
}

/// `now` plus a wait; the end of time when that overflows.
#[must_use]
pub fn after(now: Timestamp, wait: Duration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}
