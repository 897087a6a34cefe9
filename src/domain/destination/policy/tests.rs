//! What cannot go in batches is told with its field and what to do.

use std::time::Duration;

use serde_json::{Value, json};

use crate::api::v1alpha1::EventDestinationSpec;
use crate::domain::destination::{Destination, References, Target};
use crate::domain::egress::EgressPolicy;
use crate::domain::event::sample;
use crate::domain::policy::batch::Batch;

fn check(webhook: &Value, delivery: &Value) -> Result<Destination, Vec<String>> {
    let mut spec = json!({
        "events": ["*"], "webhook": {"url": "https://hooks.example.com/in", "signing": {"scheme": "None"}},
        "delivery": {"batch": {"maxEvents": 5, "maxWait": "10s"}},
    });
    for (member, more) in [("webhook", webhook), ("delivery", delivery)] {
        let members = spec[member].as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
    }
    let spec: EventDestinationSpec = serde_json::from_value(spec).unwrap();
    let checked = Destination::try_from_spec(
        sample::identity(),
        &spec,
        &References::new(),
        &EgressPolicy::default(),
    );
    checked.map_err(|faults| {
        let told = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.path, fault.message));
        told.collect()
    })
}

#[test]
fn json_bodies_of_requests_that_are_alike_go_in_batches() {
    let whole = "{{ $.event.data }}";
    for webhook in [
        json!({}),
        json!({"method": "PUT", "contentType": "application/json", "headers": [{"name": "X-A", "value": "b"}]}),
        json!({"payload": {"format": "CloudEvent"}, "cloudEvents": "Structured"}),
        json!({"payload": {"template": {"n": "{{ $.event.data.n }}"}}}),
        json!({"payload": {"template": whole}}),
    ] {
        let destination =
            check(&webhook, &json!({})).unwrap_or_else(|faults| panic!("{webhook}: {faults:?}"));
        let batch = Batch {
            max_events: 5,
            max_wait: Duration::from_secs(10),
        };
        assert_eq!(destination.policy.batch, Some(batch), "{webhook}");
        assert!(matches!(destination.target, Target::Webhook(webhook) if webhook.request.is_batch));
    }
}

#[test]
fn what_a_request_cannot_have_for_several_events_is_refused() {
    let plain = json!({});
    for (webhook, delivery, part) in [
        (
            json!({"payload": {"format": "Slack"}}),
            &plain,
            "take one event each",
        ),
        (
            json!({"payload": {"format": "CloudEvent"}, "cloudEvents": "Binary"}),
            &plain,
            "one CloudEvent in binary mode",
        ),
        (
            json!({"contentType": "application/x-www-form-urlencoded"}),
            &plain,
            "no JSON value",
        ),
        (
            json!({"payload": {"template": "{{ $.event.type }} came"}}),
            &plain,
            "no JSON value",
        ),
        (
            json!({"url": "https://a.example/{{ $.event.type }}"}),
            &plain,
            "remove the placeholders",
        ),
        (
            json!({"headers": [{"name": "X-A", "value": "{{ $.event.type }}"}]}),
            &plain,
            "remove the placeholders",
        ),
        (json!({}), &json!({"ordering": "Fifo"}), "exclude each other"),
    ] {
        let faults = check(&webhook, delivery).unwrap_err();
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("spec.delivery.batch: ") && fault.contains(part)),
            "{webhook} {delivery}: {faults:?}"
        );
    }
    for (batch, path) in [
        (
            json!({"maxEvents": 1, "maxWait": "10s"}),
            "spec.delivery.batch.maxEvents: must be between 2 and 100",
        ),
        (
            json!({"maxEvents": 101, "maxWait": "10s"}),
            "spec.delivery.batch.maxEvents: ",
        ),
        (
            json!({"maxEvents": 2, "maxWait": "6m"}),
            "spec.delivery.batch.maxWait: ",
        ),
    ] {
        let faults = check(&plain, &json!({"batch": batch})).unwrap_err();
        assert!(faults[0].starts_with(path), "{faults:?}");
    }
}

#[test]
fn what_waits_for_others_must_not_grow_too_old_meanwhile() {
    for age in ["1s", "10s"] {
        let faults = check(&json!({}), &json!({"maxAge": age})).unwrap_err();
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(
            faults[0].starts_with("spec.delivery.batch.maxWait: must be shorter than spec.delivery.maxAge"),
            "{faults:?}"
        );
    }
    assert!(check(&json!({}), &json!({"maxAge": "11s"})).is_ok());
}
