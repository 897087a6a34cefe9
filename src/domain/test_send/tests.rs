//! What is asked for, what is sent, what is told.

use http::HeaderName;
use serde_json::json;

use super::*;
use crate::api::v1alpha1::event_project::{EventTypeSpec, Validation};
use crate::domain::delivery::prepare_test;
use crate::domain::destination::{Destination, References, Target};
use crate::domain::egress::EgressPolicy;
use crate::domain::event::sample;
use crate::domain::id::ObjectKey;
use crate::domain::outcome::Failure;
use crate::domain::project::Token;

fn project(types: &[EventTypeSpec]) -> Project {
    let (types, faults) = TypeRules::compile(types, Validation::Warn);
    assert!(faults.is_empty(), "{faults}");
    Project {
        key: ObjectKey::new("shop", "acme"),
        facts: Arc::new(sample::project()),
        token: Token::Unknown,
        types: Arc::new(types),
    }
}

fn subscription(events: &[&str]) -> Subscription {
    Subscription::lenient(None, events.iter().copied())
}

fn invoice() -> EventTypeSpec {
    serde_json::from_value(json!({"name": "invoice.paid", "example": {"amount": 12}})).unwrap()
}

fn sent(asked: &str, events: &[&str], types: &[EventTypeSpec]) -> Result<Event, String> {
    let request = TestRequest::parse(asked).unwrap();
    event(
        &request,
        &subscription(events),
        &project(types),
        sample::at(sample::ACCEPTED),
    )
}

#[test]
fn the_annotation_is_a_token_or_a_type_and_a_token() {
    let request = TestRequest::parse("2026-01-31T08:15:30Z").unwrap();
    assert_eq!(
        (&*request.asked, request.event_type),
        ("2026-01-31T08:15:30Z", None)
    );
    let request = TestRequest::parse("run_failed@1").unwrap();
    assert_eq!(
        (&*request.asked, request.event_type.as_deref()),
        ("run_failed@1", Some("run_failed"))
    );
    let long = "x".repeat(300);
    for (asked, expected) in [
        ("", "the token is empty"),
        ("   ", "the token is empty"),
        ("run_failed@", "the token is empty"),
        ("@1", "is no event type"),
        ("run failed@1", "is no event type"),
        (long.as_str(), "over 256 characters"),
    ] {
        let fault = TestRequest::parse(asked).unwrap_err();
        assert!(fault.contains(expected), "{asked:?}: {fault}");
    }
    assert_eq!(echo(&"ä".repeat(300)), "ä".repeat(256));
}

#[test]
fn the_example_of_the_first_type_that_is_wanted_is_sent() {
    for (events, expected) in [
        (&["record_*"][..], "record_created"),
        (&["*"], "workflow_failure"),
        (&["nothing*", "run_failed"], "run_failed"),
        (&["my.own"], "my.own"),
    ] {
        let event = sent("1", events, &[]).unwrap();
        assert_eq!(&*event.content.event_type, expected);
        assert_eq!(
            event.content.timestamp,
            sample::at(sample::ACCEPTED).as_millisecond()
        );
    }
    let event = sent("1", &["invoice.*"], &[invoice()]).unwrap();
    assert_eq!(event.content.data.get(), r#"{"amount":12}"#);
    assert_eq!(
        event.content.message.as_deref(),
        Some("A test event of type invoice.paid")
    );
    let event = sent("run_failed@1", &["*"], &[]).unwrap();
    assert_eq!(&*event.content.event_type, "run_failed");
    assert!(sent("1", &["nothing*"], &[]).unwrap_err().contains("TYPE@TOKEN"));
    assert!(
        sent("run_failed@1", &["sync_*"], &[])
            .unwrap_err()
            .contains("does not want")
    );
}

#[test]
fn every_built_in_type_can_be_tested() {
    for entry in catalogue::EVENT_TYPES {
        let event = sent(&format!("{}@1", entry.name), &["*", "postrider.*"], &[]).unwrap();
        assert_eq!(&*event.content.event_type, entry.name);
    }
}

#[test]
fn one_request_always_has_the_same_id() {
    let id = |asked| sent(asked, &["*"], &[]).unwrap().id;
    assert_eq!(id("1"), id("1"));
    assert_ne!(id("1"), id("2"));
}

fn request() -> WebhookRequest {
    let spec = serde_json::from_value(json!({
        "events": ["*"],
        "webhook": {
            "url": "https://hooks.example.com/T000000/s3cr3t-path?token=qu3ry-token",
            "signing": {"scheme": "None"},
        },
    }))
    .unwrap();
    let mut destination = Destination::try_from_spec(
        sample::identity(),
        &spec,
        &References::new(),
        &EgressPolicy::default(),
    )
    .unwrap();
    let mut value = HeaderValue::from_static("Bearer b34rer-token");
    value.set_sensitive(true);
    let name = HeaderName::from_static("authorization");
    let identity = destination.identity.clone();
    let Target::Webhook(webhook) = &mut destination.target else {
        panic!("the spec has a webhook");
    };
    webhook.headers.push((name, value));
    let event = sent("1", &["*"], &[]).unwrap();
    prepare_test(webhook, &identity, &event, sample::at(sample::ACCEPTED)).unwrap()
}

#[test]
fn a_test_is_marked() {
    assert_eq!(request().headers["x-postrider-test"], "true");
}

#[test]
fn a_reply_that_repeats_secrets_is_shown_without_them() {
    let request = request();
    let body = br#"{"url": "https://hooks.example.com/T000000/s3cr3t-path?token=qu3ry-token",
        "headers": {"Authorization": "Bearer b34rer-token"}, "token": "b34rer-token", "path": "s3cr3t-path"}"#;
    let shown = excerpt(body, &request).unwrap();
    for secret in ["s3cr3t", "qu3ry", "b34rer", "T000000"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    assert!(
        shown.contains("hooks.example.com") && shown.contains(REDACTED),
        "{shown}"
    );
}

#[test]
fn a_reply_is_shown_in_one_bounded_line() {
    let request = request();
    assert_eq!(excerpt(b"", &request), None);
    assert_eq!(excerpt(b" \n\0 ", &request), None);
    assert_eq!(excerpt(b"a\nb\x1b[31m", &request).unwrap(), "a b [31m");
    assert_eq!(excerpt(b"a\xffb", &request).unwrap(), "a\u{fffd}b");
    let long = excerpt("ä".repeat(5000).as_bytes(), &request).unwrap();
    assert_eq!(
        (long.chars().count(), long.ends_with('…')),
        (MAX_EXCERPT + 1, true)
    );
}

#[test]
fn a_result_says_how_it_ended() {
    let asked = TestRequest::parse("1").unwrap();
    let result = |outcome: &Outcome| {
        let now = sample::at(sample::ACCEPTED);
        TestResult::of(
            &asked,
            &"x".into(),
            outcome,
            Duration::from_millis(132),
            None,
            now,
        )
    };
    let delivered = result(&Outcome::Delivered { status: 204 });
    assert_eq!(
        (delivered.outcome, delivered.status, delivered.latency),
        (
            TestOutcome::Delivered,
            Some(204),
            Some(Duration::from_millis(132))
        )
    );
    let failed = |reason| result(&Outcome::Failed(Failure::new(reason, "why")));
    let refused = failed(crate::domain::outcome::FailureReason::ConnectionRefused);
    assert_eq!(
        (refused.outcome, &*refused.reason),
        (TestOutcome::Failed, "ConnectionRefused")
    );
    let unrendered = failed(crate::domain::outcome::FailureReason::TemplateFault);
    assert_eq!(
        (unrendered.outcome, unrendered.latency),
        (TestOutcome::NotSent, None)
    );
}
