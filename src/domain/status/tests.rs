//! Every state of a destination and of a project, how long conditions keep their time, how often is written, and
//! what is told.

use std::time::Duration;

use super::*;
use crate::api::conditions::RECONCILING;
use crate::api::v1alpha1::{EventDestinationSpec, EventDestinationStatus, EventProjectStatus, SecretKeyRef};
use crate::domain::destination::{Destination, Identity, References};
use crate::domain::egress::EgressPolicy;
use crate::domain::fault::Faults;
use crate::domain::health::{DisableReason, Disabled, Health, LastFailure};
use crate::domain::id::{ObjectKey, Uid};
use crate::domain::outcome::FailureReason;
use crate::domain::test_send::TestResult;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn made(suspend: bool) -> Destination {
    let spec: EventDestinationSpec = serde_json::from_value(serde_json::json!({
        "events": ["*"], "suspend": suspend,
        "webhook": {"url": "https://hooks.example.com/secret", "signing": {"scheme": "None"}},
    }))
    .unwrap();
    let identity = Identity {
        key: ObjectKey::new("ns", "x"),
        uid: Uid::new("u"),
        generation: 3,
    };
    Destination::try_from_spec(identity, &spec, &References::new(), &EgressPolicy::default()).unwrap()
}

fn failure(second: i64, reason: FailureReason) -> LastFailure {
    LastFailure {
        time: at(second),
        reason,
        status: Some(500),
        message: "the receiver answered 500".to_owned(),
    }
}

fn failing() -> Health {
    Health {
        generation: 3,
        consecutive_failures: 2,
        failing_since: Some(at(10)),
        last_failure: Some(failure(20, FailureReason::ServerError)),
        ..Health::default()
    }
}

fn disabled(reason: DisableReason) -> Health {
    Health {
        disabled: Some(Disabled {
            since: at(30),
            reason,
            next_probe: None,
        }),
        ..failing()
    }
}

fn healthy() -> Health {
    Health {
        generation: 3,
        delivered: 5,
        last_success: Some(at(40)),
        ..Health::default()
    }
}

fn compute(
    configuration: Configuration<'_>,
    health: Option<&Health>,
    previous: Option<&EventDestinationStatus>,
    now: i64,
) -> (EventDestinationStatus, Change) {
    destination(&DestinationFacts {
        generation: 3,
        configuration,
        signing_secret: None,
        delivery: health.map(|health| Delivery {
            health,
            pending: 7,
            parked: 0,
            next_attempt: None,
            waiting_for: None,
        }),
        test: None,
        signatures: &[],
        rotation: None,
        replay: None,
        reconcile_request: None,
        previous,
        now: at(now),
    })
}

/// `Ready Delivering Stalled Reconciling`, each as status and reason, and the state.
fn shape(status: &EventDestinationStatus) -> String {
    let of = |kind: &str| {
        find(&status.conditions, kind).map_or("-".to_owned(), |found| {
            format!("{}/{}", found.status, found.reason)
        })
    };
    let state = status
        .delivery
        .as_ref()
        .and_then(|delivery| delivery.state.clone())
        .unwrap_or_default();
    format!(
        "{} {} {} {} {state}",
        of(READY),
        of(DELIVERING),
        of(STALLED),
        of(RECONCILING)
    )
}

#[test]
fn every_state_has_its_conditions() {
    let (sending, suspended) = (made(false), made(true));
    let mut faults = Faults::default();
    faults.missing("spec.webhook.urlFrom", "Secret \"s\" does not exist");
    let missing = faults.clone();
    faults.invalid("spec.events", "name at least one");
    let gave_up = Health {
        last_failure: Some(failure(50, FailureReason::TemplateFault)),
        ..healthy()
    };
    let forgiven = Health {
        consecutive_failures: 0,
        failing_since: None,
        ..failing()
    };
    let held_up = Health {
        held_up_since: Some(at(45)),
        last_failure: Some(failure(50, FailureReason::ProxyRefused)),
        ..healthy()
    };
    let older = Health {
        generation: 2,
        ..disabled(DisableReason::AutoDisabled)
    };
    for (configuration, health, expected) in [
        (
            Configuration::InForce(&sending),
            Health::default(),
            "True/Succeeded Unknown/NoAttempts - - Delivering",
        ),
        (
            Configuration::InForce(&sending),
            healthy(),
            "True/Succeeded True/Delivered - - Delivering",
        ),
        (
            Configuration::InForce(&sending),
            failing(),
            "True/Succeeded False/ServerError - - Failing",
        ),
        (
            Configuration::InForce(&sending),
            gave_up,
            "True/Succeeded False/TemplateFault - - Delivering",
        ),
        (
            Configuration::InForce(&sending),
            held_up,
            "True/Succeeded False/ProxyRefused - - Failing",
        ),
        (
            Configuration::InForce(&sending),
            forgiven,
            "True/Succeeded Unknown/NoAttempts - - Delivering",
        ),
        (
            Configuration::InForce(&sending),
            disabled(DisableReason::AutoDisabled),
            "False/AutoDisabled False/AutoDisabled True/AutoDisabled - Disabled",
        ),
        (
            Configuration::InForce(&suspended),
            disabled(DisableReason::Gone),
            "False/Gone False/Gone True/Gone - Disabled",
        ),
        // A new generation re-enables, also when the lane has yet to notice.
        (
            Configuration::InForce(&sending),
            older,
            "True/Succeeded False/ServerError - - Failing",
        ),
        (
            Configuration::InForce(&suspended),
            failing(),
            "True/Succeeded False/Suspended - - Suspended",
        ),
        (
            Configuration::Faulty(&missing),
            healthy(),
            "False/ReferenceMissing False/ReferenceMissing True/ReferenceMissing - Parked",
        ),
        (
            Configuration::Faulty(&faults),
            healthy(),
            "False/InvalidSpec False/InvalidSpec True/InvalidSpec - Parked",
        ),
        (
            Configuration::Undecodable("spec.x: wrong"),
            Health::default(),
            "False/Undecodable False/Undecodable True/Undecodable - Parked",
        ),
        (
            Configuration::Waiting("the API server is busy"),
            Health::default(),
            "False/Progressing False/Progressing - True/Progressing Parked",
        ),
    ] {
        let (status, _) = compute(configuration, Some(&health), None, 60);
        assert_eq!(shape(&status), expected);
        assert!(
            status
                .conditions
                .iter()
                .all(|condition| condition.observed_generation == Some(3))
        );
    }
}

#[test]
fn messages_say_what_since_when_and_what_to_do() {
    let sending = made(false);
    let (status, _) = compute(Configuration::InForce(&sending), Some(&failing()), None, 60);
    let message =
        |status: &EventDestinationStatus, kind| find(&status.conditions, kind).unwrap().message.clone();
    assert_eq!(
        message(&status, DELIVERING),
        "failing since 2023-11-14T22:13:30Z: the receiver answered 500"
    );
    assert_eq!(status.endpoint.as_deref(), Some("https://hooks.example.com"));
    let (status, _) = compute(
        Configuration::InForce(&sending),
        Some(&disabled(DisableReason::AutoDisabled)),
        None,
        60,
    );
    assert_eq!(
        message(&status, STALLED),
        "disabled since 2023-11-14T22:13:50Z: too many failures in a row; events are kept; to enable it again, \
         change the spec or set the annotation postrider.dev/enable to a new value"
    );
    assert_eq!(message(&status, READY), message(&status, STALLED));
}

#[test]
fn a_condition_keeps_its_time_until_it_flips() {
    let sending = made(false);
    let time = |status: &EventDestinationStatus, kind| {
        find(&status.conditions, kind)
            .unwrap()
            .last_transition_time
            .0
            .as_second()
            - at(0).as_second()
    };
    let (first, _) = compute(Configuration::InForce(&sending), Some(&healthy()), None, 100);
    let (second, change) = compute(
        Configuration::InForce(&sending),
        Some(&healthy()),
        Some(&first),
        200,
    );
    assert_eq!((first.clone(), Change::Nothing), (second, change));
    let (third, change) = compute(
        Configuration::InForce(&sending),
        Some(&failing()),
        Some(&first),
        300,
    );
    assert_eq!(change, Change::Delivering);
    assert_eq!((time(&third, READY), time(&third, DELIVERING)), (100, 300));
    let gone = disabled(DisableReason::Gone);
    let (fourth, change) = compute(Configuration::InForce(&sending), Some(&gone), Some(&third), 400);
    assert_eq!(change, Change::Configuration);
    assert_eq!((time(&fourth, READY), time(&fourth, DELIVERING)), (400, 300));
}

#[test]
fn what_is_read_back_equals_what_was_computed() {
    let sending = made(false);
    let now = Timestamp::from_nanosecond(1_700_000_000_987_654_321).unwrap();
    let mut health = failing();
    health.last_success = Some(now);
    let key = SecretKeyRef {
        name: "s".to_owned(),
        key: "k".to_owned(),
    };
    let facts = DestinationFacts {
        generation: 3,
        configuration: Configuration::InForce(&sending),
        signing_secret: Some(&key),
        delivery: Some(Delivery {
            health: &health,
            pending: 1,
            parked: 1,
            next_attempt: Some(now),
            waiting_for: None,
        }),
        test: None,
        signatures: &[],
        rotation: None,
        replay: None,
        reconcile_request: Some("token"),
        previous: None,
        now,
    };
    let (status, _) = destination(&facts);
    let read: EventDestinationStatus =
        serde_json::from_value(serde_json::to_value(&status).unwrap()).unwrap();
    assert_eq!(read, status);
    let (again, change) = destination(&DestinationFacts {
        previous: Some(&read),
        ..facts
    });
    assert_eq!((again, change), (read, Change::Nothing));
}

#[test]
fn unknown_deliveries_are_left_as_they_were() {
    let sending = made(false);
    let mut health = failing();
    health.handled_enable = Some("token".to_owned());
    let (known, _) = compute(Configuration::InForce(&sending), Some(&health), None, 100);
    let (unknown, change) = compute(Configuration::InForce(&sending), None, Some(&known), 200);
    assert_eq!((unknown, change), (known, Change::Nothing));
}

#[test]
fn changes_are_ranked() {
    let sending = made(false);
    let base = failing();
    let (previous, change) = compute(Configuration::InForce(&sending), Some(&base), None, 100);
    assert_eq!(change, Change::Configuration);
    let another_reason = Health {
        last_failure: Some(failure(90, FailureReason::Timeout)),
        ..base.clone()
    };
    let more = Health {
        consecutive_failures: 3,
        ..base.clone()
    };
    let enabled = Health {
        handled_enable: Some("token".to_owned()),
        ..base.clone()
    };
    for (health, expected) in [
        (base, Change::Nothing),
        (more, Change::Counters),
        (another_reason, Change::Counters),
        (healthy(), Change::Delivering),
        (enabled, Change::Configuration),
        (disabled(DisableReason::AutoDisabled), Change::Configuration),
    ] {
        assert_eq!(
            compute(
                Configuration::InForce(&sending),
                Some(&health),
                Some(&previous),
                200
            )
            .1,
            expected
        );
    }
}

#[test]
fn configuration_is_written_at_once_flips_soon_and_counters_now_and_then() {
    let seconds = Duration::from_secs;
    for (change, since, expected) in [
        (Change::Nothing, None, Pace::Nothing),
        (Change::Nothing, Some(seconds(900)), Pace::Nothing),
        (Change::Counters, None, Pace::Now),
        (Change::Counters, Some(seconds(10)), Pace::After(seconds(20))),
        (Change::Counters, Some(seconds(30)), Pace::Now),
        (
            Change::Delivering,
            Some(Duration::from_millis(400)),
            Pace::After(Duration::from_millis(600)),
        ),
        (Change::Delivering, Some(seconds(1)), Pace::Now),
        (Change::Configuration, Some(Duration::ZERO), Pace::Now),
    ] {
        assert_eq!(pace(change, since, seconds(30)), expected, "{change:?} {since:?}");
    }
}

#[test]
fn people_are_told_once_of_each_turn() {
    let (sending, suspended) = (made(false), made(true));
    let mut faults = Faults::default();
    faults.invalid("spec.events", "name at least one");
    let status = |configuration, health: &Health| compute(configuration, Some(health), None, 60).0.conditions;
    let fresh = status(Configuration::InForce(&sending), &Health::default());
    let good = status(Configuration::InForce(&sending), &healthy());
    let bad = status(Configuration::InForce(&sending), &failing());
    let other = Health {
        last_failure: Some(failure(90, FailureReason::Timeout)),
        ..failing()
    };
    let worse = status(Configuration::InForce(&sending), &other);
    let off = status(
        Configuration::InForce(&sending),
        &disabled(DisableReason::AutoDisabled),
    );
    let invalid = status(Configuration::Faulty(&faults), &healthy());
    let paused = status(Configuration::InForce(&suspended), &healthy());
    let told = |previous: &[Condition], next: &[Condition]| {
        let words = notices(previous, next).into_iter();
        words
            .map(|told| format!("{}{}", if told.warning { "!" } else { "" }, told.reason))
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&[], &fresh), ["Succeeded"]);
    assert_eq!(told(&fresh, &good), ["Delivered"]);
    assert_eq!(told(&good, &good), [""; 0]);
    assert_eq!(told(&good, &bad), ["!ServerError"]);
    assert_eq!(told(&bad, &worse), [""; 0]);
    assert_eq!(told(&bad, &off), ["!AutoDisabled"]);
    assert_eq!(told(&off, &good), ["Succeeded", "Recovered"]);
    assert_eq!(told(&bad, &good), ["Recovered"]);
    assert_eq!(told(&[], &invalid), ["!InvalidSpec"]);
    assert_eq!(told(&invalid, &fresh), ["Succeeded"]);
    assert_eq!(told(&good, &paused), ["Suspended"]);
    assert_eq!(told(&paused, &good), ["Resumed"]);
    assert_eq!(told(&paused, &fresh), ["Resumed"], "nothing was sent before");
    assert_eq!(told(&paused, &bad), ["!ServerError"]);
    assert_eq!(
        told(&invalid, &good),
        ["Succeeded"],
        "nothing recovered: no receiver had failed"
    );
    assert_eq!(told(&invalid, &bad), ["Succeeded", "!ServerError"]);
}

fn summary<'a>(state: ProjectState<'a>, previous: Option<&'a EventProjectStatus>) -> ProjectSummary<'a> {
    ProjectSummary {
        generation: 2,
        state,
        ingest_url: "https://events.example/v1/namespaces/ns/projects/x/events",
        project_id: Some("id"),
        token_secret: "x-publish-token",
        notifications: &[],
        reconcile_request: None,
        store_repaired: None,
        previous,
        now: at(5),
    }
}

#[test]
fn a_repaired_store_shows_on_every_project_and_is_told_once() {
    for state in [
        ProjectState::Open,
        ProjectState::Waiting("soon"),
        ProjectState::Undecodable("wrong"),
    ] {
        let (sound, _) = project(&summary(state, None));
        assert_eq!(find(&sound.conditions, STORE_REPAIRED), None);
        let repaired = |previous| ProjectSummary {
            store_repaired: Some("the file was moved aside"),
            ..summary(state, previous)
        };
        let (shown, change) = project(&repaired(Some(&sound)));
        assert_eq!(change, Change::Configuration);
        let condition = find(&shown.conditions, STORE_REPAIRED).unwrap();
        assert_eq!(
            (&*condition.status, &*condition.reason, &*condition.message),
            ("True", "FileDamaged", "the file was moved aside")
        );
        let told = notices(&sound.conditions, &shown.conditions);
        assert_eq!(
            told,
            [Notice {
                warning: true,
                reason: "FileDamaged".to_owned(),
                message: "the file was moved aside".to_owned(),
            }]
        );
        assert_eq!(notices(&[], &shown.conditions).len(), 2);
        let again = project(&repaired(Some(&shown)));
        assert_eq!(again, (shown.clone(), Change::Nothing));
        assert_eq!(notices(&shown.conditions, &again.0.conditions), []);
        let (after, _) = project(&summary(state, Some(&shown)));
        assert_eq!(find(&after.conditions, STORE_REPAIRED), None);
        assert_eq!(notices(&shown.conditions, &after.conditions), []);
    }
}

#[test]
fn a_project_shows_where_to_publish() {
    let mut faults = Faults::default();
    faults.missing(
        "status.tokenSecretRef",
        "Secret \"x\" does not belong to this project",
    );
    let of = |status: &EventProjectStatus, kind| {
        find(&status.conditions, kind)
            .map(|found| format!("{}/{}", found.status, found.reason))
            .unwrap_or_default()
    };
    for (state, ready, stalled, reconciling) in [
        (ProjectState::Open, "True/Succeeded", "", ""),
        (
            ProjectState::Faulty(&faults),
            "False/ReferenceMissing",
            "True/ReferenceMissing",
            "",
        ),
        (
            ProjectState::Undecodable("wrong"),
            "False/Undecodable",
            "True/Undecodable",
            "",
        ),
        (
            ProjectState::Waiting("soon"),
            "False/Progressing",
            "",
            "True/Progressing",
        ),
    ] {
        let (status, change) = project(&summary(state, None));
        assert_eq!(
            (of(&status, READY), of(&status, STALLED), of(&status, RECONCILING)),
            (ready.to_owned(), stalled.to_owned(), reconciling.to_owned())
        );
        assert_eq!(change, Change::Configuration);
        assert_eq!(
            project(&summary(state, Some(&status))),
            (status.clone(), Change::Nothing)
        );
    }
}

#[test]
fn a_test_is_answered_once_and_its_result_stays() {
    let sending = made(false);
    let result = TestResult::not_sent("now", "NotReady", "why", at(5));
    let mut facts = DestinationFacts {
        generation: 3,
        configuration: Configuration::InForce(&sending),
        signing_secret: None,
        delivery: None,
        test: Some(&result),
        signatures: &[],
        rotation: None,
        replay: None,
        reconcile_request: None,
        previous: None,
        now: at(5),
    };
    let (told, _) = destination(&facts);
    assert_eq!(told.last_handled_test.as_deref(), Some("now"));
    assert_eq!(told.last_test.as_ref().unwrap().outcome, "NotSent");
    (facts.test, facts.previous) = (None, Some(&told));
    let (kept, change) = destination(&facts);
    assert_eq!(
        (kept.last_test == told.last_test, change),
        (true, Change::Nothing)
    );
    for (asked, unanswered) in [(None, None), (Some("now"), None), (Some("later"), Some("later"))] {
        assert_eq!(unanswered_test(asked, Some(&told)), unanswered);
    }
    let long = "x".repeat(300);
    let result = TestResult::not_sent(&long, "InvalidRequest", "why", at(5));
    (facts.test, facts.previous) = (Some(&result), None);
    let (told, _) = destination(&facts);
    assert_eq!(
        unanswered_test(Some(&long), Some(&told)),
        None,
        "what is cut is answered, too"
    );
}
