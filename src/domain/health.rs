//! [`Health`]: how a destination is doing, and when to give up on it.
//!
//! The tracker answers with data and touches nothing; callers act on the [`Signal`]. It is stored beside the queue,
//! so a restart does not forgive a failing receiver.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::outcome::{Failure, FailureReason, Outcome};
use super::retry::{self, MAX_RETRY_AFTER};

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
    /// Since when attempts fail that are made again and for which the receiver is not to blame: they do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_up_since: Option<Timestamp>,
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
    /// Events that were left out because they are the same as others.
    #[serde(default, skip_serializing_if = "is_zero_count")]
    pub suppressed: u64,
    /// Generation of the spec that the health belongs to.
    pub generation: i64,
    /// Token of the last handled enable request.
    pub handled_enable: Option<String>,
    /// The lane rests until then.
    pub resting_until: Option<Timestamp>,
    /// How often in a row the receiver asked for rest again after a rest.
    #[serde(default)]
    pub rests: u32,
    /// Namespace of the destination: without it nobody could tell whether one that is not seen is gone, or only its
    /// namespace is not watched. `None` until the destination is seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Arc<str>>,
    /// Highest threshold of the auto-disable rule that was told in this row of failures; see
    /// [`operation`](super::operation).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub announced: u8,
    /// When failures were told that have not been told to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alarmed: Option<Timestamp>,
    /// Given-up deliveries that were told; `None`: those that there are, and no more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exhausted_told: Option<u64>,
    /// Grows with every change: of two states of a destination the one with the higher number is the newer.
    #[serde(default)]
    pub revision: u64,
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
    /// When the next probe is due; `None` when only a person re-enables.
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

/// First rest of a lane whose receiver asks to slow down; doubles with each further failure …
const FIRST_REST: Duration = Duration::from_secs(1);
/// … up to this, unless the receiver names a longer one.
const LONGEST_REST: Duration = Duration::from_secs(300);

impl Health {
    /// Records an attempt of the current generation that ran from `started` to `now`; answers with the change people
    /// should hear of.
    ///
    /// Attempts overlap. What one says is news only about the time since it started: a success that was under way
    /// when the receiver was disabled does not re-enable it, and of many attempts that are asked for rest at once
    /// only the first lengthens it.
    pub fn record(
        &mut self,
        policy: &DisablePolicy,
        outcome: &Outcome,
        started: Timestamp,
        now: Timestamp,
    ) -> Option<Signal> {
        self.changed();
        match outcome {
            Outcome::Delivered { .. } => self.record_success(started, now),
            Outcome::Failed(failure) => self.record_failure(policy, failure, started, now),
        }
    }

    /// Counts an attempt that was made with an older generation's configuration, which says nothing of this one.
    pub fn record_outdated(&mut self, outcome: &Outcome) {
        if matches!(outcome, Outcome::Delivered { .. }) {
            self.changed();
            self.delivered = self.delivered.saturating_add(1);
        }
    }

    fn record_success(&mut self, started: Timestamp, now: Timestamp) -> Option<Signal> {
        self.delivered = self.delivered.saturating_add(1);
        self.last_success = Some(now);
        self.record_life(started, now)
    }

    /// The receiver works: failures are forgotten, unless it was disabled after the attempt had begun.
    fn record_life(&mut self, started: Timestamp, now: Timestamp) -> Option<Signal> {
        if self
            .disabled
            .as_ref()
            .is_some_and(|disabled| !disabled.is_over(started, now))
        {
            return None;
        }
        let was_failing = self.is_failing() || self.disabled.is_some();
        self.forgive();
        was_failing.then_some(Signal::Recovered)
    }

    fn record_failure(
        &mut self,
        policy: &DisablePolicy,
        failure: &Failure,
        started: Timestamp,
        now: Timestamp,
    ) -> Option<Signal> {
        self.last_failure = Some(LastFailure {
            time: now,
            reason: failure.reason,
            status: failure.status,
            message: failure.message.clone(),
        });
        if failure.reason.shows_that_receiver_works() {
            return self.record_life(started, now);
        }
        if !failure.reason.counts_against_receiver() {
            // What is given up holds nothing up.
            let holds_up = !failure.reason.is_terminal();
            return holds_up.then(|| self.record_held_up(policy, now)).flatten();
        }
        let first = !self.is_failing();
        self.consecutive_failures = self.consecutive_failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        if failure.reason.slows_lane() {
            self.rest(failure, started, now);
        }
        if let Some(disabled) = &mut self.disabled {
            disabled.next_probe = next_probe(policy, disabled.reason, now);
            return None;
        }
        if let Some(reason) = policy.verdict(failure, self.consecutive_failures, since, now) {
            self.disabled = Some(Disabled {
                since: now,
                reason,
                next_probe: next_probe(policy, reason, now),
            });
            return Some(Signal::Disabled(reason));
        }
        first.then_some(Signal::Failing)
    }

    /// The receiver was not reached, and is not to blame.
    fn record_held_up(&mut self, policy: &DisablePolicy, now: Timestamp) -> Option<Signal> {
        if let Some(disabled) = &mut self.disabled {
            disabled.next_probe = next_probe(policy, disabled.reason, now);
            return None;
        }
        let first = !self.is_failing();
        self.held_up_since.get_or_insert(now);
        first.then_some(Signal::Failing)
    }

    /// Lets the lane rest after a failure that slows it; never shortens a rest.
    fn rest(&mut self, failure: &Failure, started: Timestamp, now: Timestamp) {
        let is_over = |until| started >= until || retry::is_astray(until, now, MAX_RETRY_AFTER);
        if self.resting_until.is_none_or(is_over) {
            self.rests = self.rests.saturating_add(1);
        }
        let doublings = self.rests.saturating_sub(1).min(16);
        let own = FIRST_REST.saturating_mul(1 << doublings).min(LONGEST_REST);
        let wait = own.max(failure.retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
        let before = self
            .resting_until
            .filter(|until| !retry::is_astray(*until, now, MAX_RETRY_AFTER));
        self.resting_until = before.max(Some(retry::after(now, wait)));
    }

    /// Records a delivery that was given up.
    pub fn record_exhausted(&mut self) {
        self.changed();
        self.exhausted = self.exhausted.saturating_add(1);
    }

    /// Records further deliveries that the same request made.
    pub fn record_further(&mut self, count: u64) {
        self.changed();
        self.delivered = self.delivered.saturating_add(count);
    }

    /// Records events that were left out because they are the same as others.
    pub fn record_suppressed(&mut self, count: u64) {
        self.changed();
        self.suppressed = self.suppressed.saturating_add(count);
    }

    /// Whether the last attempt failed, whoever is to blame.
    #[must_use]
    pub const fn is_failing(&self) -> bool {
        self.consecutive_failures > 0 || self.held_up_since.is_some()
    }

    /// Since when attempts fail, whoever is to blame.
    #[must_use]
    pub fn fails_since(&self) -> Option<Timestamp> {
        self.failing_since.into_iter().chain(self.held_up_since).min()
    }

    /// Takes note of the object's generation and enable request. A new one of either re-enables at once and forgets
    /// the failures. Answers whether anything changed that must be stored.
    pub fn observe(&mut self, generation: i64, enable_request: Option<&str>) -> bool {
        let first_sight = self.generation == 0;
        let new_generation = generation > self.generation;
        let new_request = enable_request.is_some() && enable_request != self.handled_enable.as_deref();
        if new_generation {
            self.generation = generation;
        }
        if new_request {
            self.handled_enable = enable_request.map(ToOwned::to_owned);
        }
        if new_request || (new_generation && !first_sight) {
            self.forgive();
        }
        if new_generation || new_request {
            self.changed();
        }
        new_generation || new_request
    }

    /// Takes note of the object's namespace. Answers whether that must be stored.
    pub fn live_in(&mut self, namespace: &Arc<str>) -> bool {
        let news = self.namespace.as_ref() != Some(namespace);
        if news {
            self.namespace = Some(Arc::clone(namespace));
            self.changed();
        }
        news
    }

    fn changed(&mut self) {
        self.revision = self.revision.saturating_add(1);
    }

    fn forgive(&mut self) {
        self.consecutive_failures = 0;
        self.failing_since = None;
        self.held_up_since = None;
        self.resting_until = None;
        self.rests = 0;
        self.disabled = None;
        self.announced = 0;
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u8) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero_count(number: &u64) -> bool {
    *number == 0
}

impl Disabled {
    /// Whether a success that started then shows that the receiver works again. A clock that was put back since says
    /// nothing of the order.
    fn is_over(&self, started: Timestamp, now: Timestamp) -> bool {
        self.reason != DisableReason::Gone && (started >= self.since || self.since > now)
    }
}

impl DisablePolicy {
    fn verdict(
        &self,
        failure: &Failure,
        failures: u64,
        since: Timestamp,
        now: Timestamp,
    ) -> Option<DisableReason> {
        if failure.reason == FailureReason::Gone {
            return Some(DisableReason::Gone);
        }
        let long_enough = now >= retry::after(since, self.minimum_duration);
        (self.enabled && failures >= self.consecutive_failures.into() && long_enough)
            .then_some(DisableReason::AutoDisabled)
    }
}

/// A receiver that is gone is not probed: it asked for no more.
fn next_probe(policy: &DisablePolicy, reason: DisableReason, now: Timestamp) -> Option<Timestamp> {
    match reason {
        DisableReason::Gone => None,
        DisableReason::AutoDisabled => policy.probe_interval.map(|interval| retry::after(now, interval)),
    }
}

impl DisableReason {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AutoDisabled => crate::api::conditions::reason::AUTO_DISABLED,
            Self::Gone => crate::api::conditions::reason::GONE,
        }
    }
}

#[cfg(test)]
mod tests;
