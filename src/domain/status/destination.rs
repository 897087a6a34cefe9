//! The status of an `EventDestination`.

use jiff::Timestamp;

use super::{Change, Conditions, Truth, essence, find, seconds};
use crate::api::ENABLE_ANNOTATION;
use crate::api::conditions::{Condition, DELIVERING, READY, RECONCILING, STALLED, reason};
use crate::api::v1alpha1::event_destination::{
    DeliveryStatus, LastFailure, LastReplay, LastRotation, LastTest, SignatureStatus,
};
use crate::api::v1alpha1::ownership::OwnershipProofStatus;
use crate::api::v1alpha1::{EventDestinationStatus, SecretKeyRef};
use crate::domain::destination::{Destination, Target};
use crate::domain::duration;
use crate::domain::fault::Faults;
use crate::domain::health::{DisableReason, Disabled, Health};
use crate::domain::replay_request::{ReplayCounts, ReplayResult};
use crate::domain::rotation::RotationResult;
use crate::domain::test_send::{TestResult, echo};

/// What is known of a destination.
#[derive(Clone, Copy, Debug)]
pub struct DestinationFacts<'a> {
    /// Generation of the spec.
    pub generation: i64,
    /// Whether the configuration is in force.
    pub configuration: Configuration<'a>,
    /// Where the signing key is kept, if anything is signed.
    pub signing_secret: Option<&'a SecretKeyRef>,
    /// How deliveries are doing; `None` while nobody knows.
    pub delivery: Option<Delivery<'a>>,
    /// What came of a test that the status does not tell yet.
    pub test: Option<&'a TestResult>,
    /// What is told of the signatures.
    pub signatures: &'a [SignatureStatus],
    /// What came of a request for new keys that the status does not tell yet.
    pub rotation: Option<&'a RotationResult>,
    /// What came of a replay that the status does not tell yet.
    pub replay: Option<&'a ReplayResult>,
    /// Token of the newest reconcile request.
    pub reconcile_request: Option<&'a str>,
    /// The status as it is.
    pub previous: Option<&'a EventDestinationStatus>,
    /// Now.
    pub now: Timestamp,
}

/// Whether a destination's configuration is in force.
#[derive(Clone, Copy, Debug)]
pub enum Configuration<'a> {
    /// It is.
    InForce(&'a Destination),
    /// The spec has faults.
    Faulty(&'a Faults),
    /// The object does not decode.
    Undecodable(&'a str),
    /// Something must happen first, and will.
    Waiting(&'a str),
    /// The receiver has not proved that it wants the events.
    Unproved {
        /// Somebody must do something.
        refused: bool,
        /// What happened and what to do.
        message: &'a str,
    },
}

/// How a destination's deliveries are doing.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// Health.
    pub health: &'a Health,
    /// Deliveries that wait.
    pub pending: u64,
    /// Those of them that wait because nothing may be sent.
    pub parked: u64,
    /// When the next attempt is due.
    pub next_attempt: Option<Timestamp>,
    /// What of the policy keeps due deliveries waiting.
    pub waiting_for: Option<&'static str>,
}

impl Delivery<'_> {
    /// Whether the counters are others than a status tells.
    #[must_use]
    pub fn has_moved(&self, told: &DeliveryStatus) -> bool {
        self.count(told.clone()) != *told
    }

    /// A status with these counters.
    fn count(&self, status: DeliveryStatus) -> DeliveryStatus {
        let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        DeliveryStatus {
            pending: count(self.pending),
            parked: count(self.parked),
            delivered: count(self.health.delivered),
            exhausted: count(self.health.exhausted),
            suppressed: count(self.health.suppressed),
            consecutive_failures: count(self.health.consecutive_failures),
            ..status
        }
    }
}

/// Computes the status and how much it differs from the previous one.
#[must_use]
pub fn destination(facts: &DestinationFacts<'_>) -> (EventDestinationStatus, Change) {
    let previous = facts.previous.map_or(&[][..], |status| &status.conditions);
    let mut conditions = Conditions::new(previous, facts.generation, facts.now);
    set_ready(&mut conditions, facts);
    set_delivering(&mut conditions, facts);
    let endpoint = match facts.configuration {
        Configuration::InForce(destination) => Some(destination.target.origin()),
        _ => None,
    };
    let before = facts.previous.and_then(|status| status.delivery.as_ref());
    let next = EventDestinationStatus {
        observed_generation: Some(facts.generation),
        conditions: conditions.next,
        endpoint,
        signing_secret_ref: facts.signing_secret.cloned(),
        ownership_proof: ownership(facts),
        delivery: facts
            .delivery
            .map(|delivery| numbers(facts, delivery))
            .or_else(|| before.cloned()),
        last_handled_reconcile_at: facts.reconcile_request.map(ToOwned::to_owned),
        last_handled_enable: match facts.delivery {
            Some(delivery) => delivery.health.handled_enable.clone(),
            None => facts
                .previous
                .and_then(|status| status.last_handled_enable.clone()),
        },
        last_handled_test: facts.test.map_or_else(
            || facts.previous.and_then(|status| status.last_handled_test.clone()),
            |test| Some(test.asked.to_string()),
        ),
        last_test: facts.test.map_or_else(
            || facts.previous.and_then(|status| status.last_test.clone()),
            |test| Some(last_test(test)),
        ),
        signatures: facts.signatures.to_vec(),
        last_handled_rotate_secret: facts.rotation.map_or_else(
            || {
                let previous = facts.previous?;
                previous.last_handled_rotate_secret.clone()
            },
            |rotation| Some(rotation.asked.clone()),
        ),
        last_rotation: facts.rotation.map_or_else(
            || facts.previous.and_then(|status| status.last_rotation.clone()),
            |rotation| Some(last_rotation(rotation)),
        ),
        last_handled_replay: facts.replay.map_or_else(
            || {
                facts
                    .previous
                    .and_then(|status| status.last_handled_replay.clone())
            },
            |replay| Some(replay.asked.to_string()),
        ),
        last_replay: facts.replay.map_or_else(
            || facts.previous.and_then(|status| status.last_replay.clone()),
            |replay| Some(last_replay(replay)),
        ),
    };
    let change = change(facts.previous, &next);
    (next, change)
}

/// What is told of the proof. While the configuration is not in force, it may hold again when it is.
fn ownership(facts: &DestinationFacts<'_>) -> Option<OwnershipProofStatus> {
    let Configuration::InForce(destination) = facts.configuration else {
        return facts.previous?.ownership_proof.clone();
    };
    let Target::Webhook(webhook) = &destination.target else {
        return None;
    };
    let proof = webhook.request.proof.as_ref()?;
    let proved = proof.proved.as_ref()?;
    Some(OwnershipProofStatus {
        manner: proof.manner.as_str().to_owned(),
        proved_time: seconds(proved.time),
        allowed_rate: proved.allowed_rate.map(Into::into),
        seal: proved.seal.clone(),
    })
}

fn last_rotation(rotation: &RotationResult) -> LastRotation {
    LastRotation {
        requested: rotation.asked.clone(),
        outcome: if rotation.rotated { "Rotated" } else { "NotRotated" }.to_owned(),
        reason: rotation.reason.to_owned(),
        message: rotation.message.clone(),
        completion_time: Some(seconds(rotation.completed)),
    }
}

/// The request for new keys that the status does not answer yet.
#[must_use]
pub fn unanswered_rotation<'a>(
    asked: Option<&'a str>,
    previous: Option<&EventDestinationStatus>,
) -> Option<&'a str> {
    let handled = previous.and_then(|status| status.last_handled_rotate_secret.as_deref());
    asked.filter(|asked| handled != Some(echo(asked)))
}

fn last_test(test: &TestResult) -> LastTest {
    LastTest {
        requested: test.asked.to_string(),
        event_type: test.event_type.as_deref().map(ToOwned::to_owned),
        outcome: test.outcome.as_str().to_owned(),
        reason: test.reason.clone(),
        status_code: test.status.map(Into::into),
        latency: test.latency.map(duration::format),
        message: test.message.clone(),
        reply: test.excerpt.clone(),
        completion_time: Some(seconds(test.completed)),
    }
}

fn last_replay(replay: &ReplayResult) -> LastReplay {
    let count = |count: fn(ReplayCounts) -> u64| {
        let number = replay.counts.map(count);
        number.map(|number| i64::try_from(number).unwrap_or(i64::MAX))
    };
    LastReplay {
        requested: replay.asked.to_string(),
        outcome: replay.outcome.as_str().to_owned(),
        message: replay.message.clone(),
        replayed: count(|counts| counts.made),
        already_waiting: count(|counts| counts.open),
        no_longer_stored: count(|counts| counts.gone),
        completion_time: replay.completed.map(seconds),
    }
}

/// The test that is asked for and that the status does not tell yet.
#[must_use]
pub fn unanswered_test<'a>(
    asked: Option<&'a str>,
    previous: Option<&EventDestinationStatus>,
) -> Option<&'a str> {
    let handled = previous.and_then(|status| status.last_handled_test.as_deref());
    asked.filter(|asked| handled != Some(echo(asked)))
}

fn set_ready(conditions: &mut Conditions<'_>, facts: &DestinationFacts<'_>) {
    let mut stalled = |reason: &str, message: String| {
        conditions.set(READY, Truth::False, reason, message.as_str());
        conditions.set(STALLED, Truth::True, reason, message);
    };
    match (facts.configuration, disabled(facts)) {
        (Configuration::Faulty(faults), _) => stalled(faults.reason(), faults.to_string()),
        (Configuration::Undecodable(error), _) => stalled(reason::UNDECODABLE, error.to_owned()),
        (Configuration::Waiting(message), _) => {
            conditions.set(READY, Truth::False, reason::PROGRESSING, message);
            conditions.set(RECONCILING, Truth::True, reason::PROGRESSING, message);
        }
        (
            Configuration::Unproved {
                refused: true,
                message,
            },
            _,
        ) => stalled(reason::OWNERSHIP_REFUSED, message.to_owned()),
        (Configuration::Unproved { message, .. }, _) => {
            conditions.set(READY, Truth::False, reason::OWNERSHIP_UNPROVED, message);
            conditions.set(RECONCILING, Truth::True, reason::OWNERSHIP_UNPROVED, message);
        }
        (Configuration::InForce(_), Some(disabled)) => {
            stalled(disabled.reason.as_str(), why_disabled(disabled));
        }
        (Configuration::InForce(destination), None) => {
            let message = if destination.suspended {
                "the configuration is in force; suspended: events are kept and nothing is sent"
            } else {
                "the configuration is in force"
            };
            conditions.set(READY, Truth::True, reason::SUCCEEDED, message);
        }
    }
}

fn why_disabled(disabled: &Disabled) -> String {
    let since = seconds(disabled.since).0;
    let why = match disabled.reason {
        DisableReason::AutoDisabled => "too many failures in a row",
        DisableReason::Gone => "the receiver answered 410 Gone",
    };
    format!(
        "disabled since {since}: {why}; events are kept; to enable it again, change the spec or set the annotation \
         {ENABLE_ANNOTATION} to a new value"
    )
}

/// Why the destination is disabled. A new generation re-enables at once, also when the lane has yet to notice it.
fn disabled<'a>(facts: &DestinationFacts<'a>) -> Option<&'a Disabled> {
    let health = facts.delivery?.health;
    health
        .disabled
        .as_ref()
        .filter(|_| health.generation >= facts.generation)
}

fn set_delivering(conditions: &mut Conditions<'_>, facts: &DestinationFacts<'_>) {
    let Configuration::InForce(destination) = facts.configuration else {
        let why = conditions
            .next
            .first()
            .map_or(reason::PROGRESSING, |ready| ready.reason.as_str())
            .to_owned();
        conditions.set(
            DELIVERING,
            Truth::False,
            &why,
            "nothing is sent until the configuration is in force",
        );
        return;
    };
    let Some(delivery) = facts.delivery else {
        if !conditions.keep(DELIVERING) {
            conditions.set(
                DELIVERING,
                Truth::Unknown,
                reason::NO_ATTEMPTS,
                "no attempt has been made yet",
            );
        }
        return;
    };
    let health = delivery.health;
    let last = health.last_failure.as_ref();
    let failing = last.filter(|_| health.is_failing());
    let given_up =
        last.filter(|last| last.reason.is_terminal() && health.last_success.is_none_or(|at| at < last.time));
    let (status, why, message) = if let Some(disabled) = disabled(facts) {
        let message = match last {
            Some(last) => format!("disabled since {}: {}", seconds(disabled.since).0, last.message),
            None => format!("disabled since {}", seconds(disabled.since).0),
        };
        (Truth::False, disabled.reason.as_str(), message)
    } else if destination.suspended {
        (
            Truth::False,
            reason::SUSPENDED,
            "spec.suspend is true: events are kept and nothing is sent".to_owned(),
        )
    } else if let Some(failure) = failing {
        let since = seconds(health.fails_since().unwrap_or(failure.time)).0;
        (
            Truth::False,
            failure.reason.as_str(),
            format!("failing since {since}: {}", failure.message),
        )
    } else if let Some(failure) = given_up {
        (
            Truth::False,
            failure.reason.as_str(),
            format!("the last event was given up: {}", failure.message),
        )
    } else if health.last_success.is_some() && last.is_none_or(|last| health.last_success > Some(last.time)) {
        (
            Truth::True,
            reason::DELIVERED,
            "the last attempt succeeded".to_owned(),
        )
    } else if last.is_some() {
        (
            Truth::Unknown,
            reason::NO_ATTEMPTS,
            "no attempt has been made since failures were forgiven".to_owned(),
        )
    } else {
        (
            Truth::Unknown,
            reason::NO_ATTEMPTS,
            "no attempt has been made yet".to_owned(),
        )
    };
    conditions.set(DELIVERING, status, why, message);
}

fn numbers(facts: &DestinationFacts<'_>, delivery: Delivery<'_>) -> DeliveryStatus {
    let health = delivery.health;
    let disabled = disabled(facts);
    let state = match facts.configuration {
        Configuration::InForce(_) if disabled.is_some() => "Disabled",
        Configuration::InForce(destination) if destination.suspended => "Suspended",
        Configuration::InForce(_) if health.is_failing() => "Failing",
        Configuration::InForce(_) if delivery.pending > 0 => "Delivering",
        Configuration::InForce(_) => "Idle",
        _ => "Parked",
    };
    delivery.count(DeliveryStatus {
        state: Some(state.to_owned()),
        last_success_time: health.last_success.map(seconds),
        last_failure_time: health.last_failure.as_ref().map(|failure| seconds(failure.time)),
        last_failure: health.last_failure.as_ref().map(|failure| LastFailure {
            reason: failure.reason.as_str().to_owned(),
            status_code: failure.status.map(Into::into),
            message: failure.message.clone(),
        }),
        failing_since: health.fails_since().map(seconds),
        disabled_time: disabled.map(|disabled| seconds(disabled.since)),
        waiting_for: delivery.waiting_for.map(ToOwned::to_owned),
        next_attempt_time: delivery.next_attempt.map(seconds),
        ..DeliveryStatus::default()
    })
}

/// How much two statuses differ.
#[must_use]
pub fn change(previous: Option<&EventDestinationStatus>, next: &EventDestinationStatus) -> Change {
    let Some(previous) = previous else {
        return Change::Configuration;
    };
    let flips = |status: &EventDestinationStatus| {
        let delivering = find(&status.conditions, DELIVERING);
        delivering.map(|condition| (condition.status.clone(), essence(&condition.reason).to_owned()))
    };
    if previous == next {
        Change::Nothing
    } else if without_deliveries(previous) != without_deliveries(next) {
        Change::Configuration
    } else if flips(previous) != flips(next) {
        Change::Delivering
    } else {
        Change::Counters
    }
}

fn without_deliveries(status: &EventDestinationStatus) -> EventDestinationStatus {
    let quiet = |condition: &&Condition| condition.type_ != DELIVERING;
    EventDestinationStatus {
        conditions: status.conditions.iter().filter(quiet).cloned().collect(),
        delivery: None,
        ..status.clone()
    }
}
