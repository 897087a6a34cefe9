//! When to try a failed delivery again.

use std::time::Duration;

use jiff::Timestamp;

use super::outcome::Failure;
use super::policy::replies::RetryRules;

/// Each wait is multiplied by a factor in `1 - JITTER ..= 1 + JITTER`.
pub const JITTER: f64 = 0.2;
/// Most attempts a policy may ask for.
pub const MAX_ATTEMPTS: u32 = 100;
/// Longest `Retry-After` that is honoured in full; a longer one is cut to it.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(24 * 3600);

/// Longest `maxAge` that a destination may have.
pub const LONGEST_MAX_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// The default schedule : 85 h 35 min in all.
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
    /// Which failures are tried again.
    pub rules: RetryRules,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            schedule: DEFAULT_SCHEDULE.to_vec(),
            max_attempts: 11,
            max_age: None,
            rules: RetryRules::default(),
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
    if failure.reason.is_terminal() || attempts >= policy.max_attempts || !policy.rules.allow(failure) {
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

/// `now` less a span; the beginning of time when that overflows.
#[must_use]
pub fn before(now: Timestamp, span: Duration) -> Timestamp {
    now.checked_sub(span).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::outcome::FailureReason;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn wait(policy: &RetryPolicy, failure: &Failure, attempts: u32, jitter: f64) -> Option<Duration> {
        match decide(policy, failure, attempts, NOW, NOW, jitter) {
            RetryDecision::RetryAt(at) => Some(Duration::try_from(at.duration_since(NOW)).unwrap()),
            RetryDecision::Exhausted => None,
        }
    }

    fn timeout() -> Failure {
        Failure::new(FailureReason::Timeout, "x")
    }

    #[test]
    fn the_default_schedule_is_ten_waits_and_then_the_event_is_given_up() {
        let policy = RetryPolicy::default();
        let waits: Vec<_> = (1..=11)
            .map(|attempts| wait(&policy, &timeout(), attempts, 0.5))
            .collect();
        let expected: Vec<_> = DEFAULT_SCHEDULE.into_iter().map(Some).chain([None]).collect();
        assert_eq!(waits, expected);
        assert_eq!(
            DEFAULT_SCHEDULE.iter().sum::<Duration>(),
            Duration::from_secs(85 * 3600 + 35 * 60 + 5)
        );
    }

    #[test]
    fn one_attempt_means_no_retry() {
        let policy = RetryPolicy {
            max_attempts: 1,
            ..RetryPolicy::default()
        };
        assert_eq!(wait(&policy, &timeout(), 1, 0.5), None);
    }

    #[test]
    fn the_last_wait_repeats_when_more_attempts_are_allowed() {
        let policy = RetryPolicy {
            schedule: vec![Duration::from_secs(1)],
            max_attempts: 4,
            ..RetryPolicy::default()
        };
        let waits: Vec<_> = (1..=4)
            .map(|attempts| wait(&policy, &timeout(), attempts, 0.5))
            .collect();
        let second = Some(Duration::from_secs(1));
        assert_eq!(waits, [second, second, second, None]);
    }

    #[test]
    fn faults_of_our_own_are_not_retried() {
        let failure = Failure::new(FailureReason::EgressRefused, "x");
        assert_eq!(wait(&RetryPolicy::default(), &failure, 1, 0.5), None);
    }

    #[test]
    fn retry_after_lengthens_a_wait_and_never_shortens_it() {
        let mut failure = Failure::new(FailureReason::TooManyRequests, "x");
        for (asked, expected) in [(60, 60), (1, 5), (10_000_000, 24 * 3600)] {
            failure.retry_after = Some(Duration::from_secs(asked));
            assert_eq!(
                wait(&RetryPolicy::default(), &failure, 1, 0.5),
                Some(Duration::from_secs(expected))
            );
        }
    }

    #[test]
    fn a_retry_beyond_the_age_limit_is_given_up_now() {
        let policy = RetryPolicy {
            max_age: Some(Duration::from_secs(60)),
            ..RetryPolicy::default()
        };
        assert!(wait(&policy, &timeout(), 1, 0.5).is_some());
        assert_eq!(wait(&policy, &timeout(), 2, 0.5), None);
    }

    proptest! {
        #[test]
        fn waits_stay_within_a_fifth_of_the_schedule(attempts in 1..11_u32, jitter in 0.0..1.0_f64) {
            let base = DEFAULT_SCHEDULE[attempts as usize - 1];
            let wait = wait(&RetryPolicy::default(), &timeout(), attempts, jitter).unwrap();
            prop_assert!(wait >= base.mul_f64(0.799) && wait <= base.mul_f64(1.201));
        }

        #[test]
        fn every_policy_ends(max_attempts in 1..=MAX_ATTEMPTS, attempts in 0..1000_u32, jitter in 0.0..1.0_f64) {
            let policy = RetryPolicy { max_attempts, ..RetryPolicy::default() };
            prop_assert_eq!(wait(&policy, &timeout(), attempts, jitter).is_none(), attempts >= max_attempts);
        }
    }
}
