//! Which alerts join, and what of an event every service tells.

use serde_json::{Value, json};

use super::{body, plain, sent};
use crate::domain::catalogue;
use crate::domain::event::sample;
use crate::domain::format::FORMATS;

/// What tells things apart in the example of each type, and what does not.
fn identity_of(event_type: &str) -> (Vec<&'static str>, Vec<&'static str>) {
    let sync = ["/user/id", "/sync/id"];
    let (is, is_not): (&[&str], &[&str]) = match event_type {
        "workflow_failure" => (
            &["/integration/id", "/workflow/id"],
            &[
                "/user/id",
                "/data/workflowExecution/id",
                "/data/executionUrl",
                "/data/error",
            ],
        ),
        "credentials_failure" => (&["/user/id", "/integration/id"], &["/data/error"]),
        "sync_errored" => (&sync, &["/sync/credentialId", "/error/message"]),
        "sync_complete" => (
            &["/user/id", "/sync/id", "/data/model"],
            &["/data/numRecords", "/data/syncedAt"],
        ),
        "record_errored" => (
            &["/user/id", "/sync/id", "/error/model"],
            &["/error/recordId", "/error/message"],
        ),
        "record_created" | "record_updated" | "record_deleted" => (
            &["/user/id", "/sync/id", "/data/model"],
            &["/data/recordId", "/data/syncedAt"],
        ),
        "integration_created" => (&["/data/integration_id"], &[]),
        "tenant_created" | "tenant_archived" => (&["/data/integration_id", "/data/tenant_id"], &[]),
        "partner_integration_updated" => (&["/data/integration_id", "/data/partner_id"], &[]),
        "run_failed" => (
            &["/data/integration_id", "/data/tenant_id"],
            &["/data/run_id", "/data/run_status", "/data/admin_link"],
        ),
        name if name.starts_with("workflowExecution.") => (
            &["/data/workflowId"],
            &["/data/workflowExecutionId", "/data/workflowActionId"],
        ),
        name if name.starts_with("postrider.destination.") => (
            &["/data/destination", "/data/namespace"],
            &["/data/percent", "/data/failures", "/data/count", "/data/since"],
        ),
        name => panic!("{name}"),
    };
    (is.to_vec(), is_not.to_vec())
}

/// What joins alerts at each service.
fn keys(event: &Value) -> Vec<(&'static str, Value)> {
    let sentry = body(&plain("Sentry"), &sample::event(event));
    let sentry: Value = serde_json::from_str(sentry.lines().last().unwrap()).unwrap();
    vec![
        ("PagerDuty", sent("PagerDuty", event)["dedup_key"].clone()),
        ("Opsgenie", sent("Opsgenie", event)["alias"].clone()),
        ("Sentry", sentry["fingerprint"].clone()),
        ("Alertmanager", sent("Alertmanager", event)[0]["labels"].clone()),
    ]
}

/// The example with other letters or numbers at that place; `None`: there is nothing.
fn changed(example: &Value, place: &str) -> Option<Value> {
    let mut event = example.clone();
    let value = event.pointer_mut(place)?;
    *value = match &*value {
        Value::Number(number) => json!(number.as_u64().unwrap() + 1),
        text => json!(format!("{}-other", text.as_str().unwrap())),
    };
    Some(event)
}

#[test]
fn alerts_of_every_type_join_when_they_are_about_the_same_thing_and_only_then() {
    for entry in catalogue::EVENT_TYPES {
        let example = entry.definition().example;
        let (is, is_not) = identity_of(entry.name);
        for place in is {
            let other = changed(&example, place).unwrap_or_else(|| panic!("{} {place}", entry.name));
            for ((service, key), (_, other)) in keys(&example).into_iter().zip(keys(&other)) {
                assert_ne!(key, other, "{service}, {}, {place}", entry.name);
            }
        }
        for other in is_not.into_iter().filter_map(|place| changed(&example, place)) {
            assert_eq!(keys(&example), keys(&other), "{}", entry.name);
        }
        let mut repeat = example.clone();
        repeat["id"] = json!("evt_2");
        repeat["timestamp"] = json!(1_769_900_000_000_i64);
        repeat["message"] = json!("again");
        assert_eq!(keys(&example), keys(&repeat), "{}", entry.name);
    }
}

#[test]
fn names_that_look_like_a_key_join_nothing() {
    let event = |data| json!({"type": "tenant_created", "message": "m", "data": data});
    let one = event(json!({"tenant_id": "7/integration=3"}));
    let two = event(json!({"tenant_id": 7, "integration_id": 3}));
    for ((service, one), (_, two)) in keys(&one).into_iter().zip(keys(&two)) {
        assert_ne!(one, two, "{service}");
    }
}

#[test]
fn every_service_tells_what_a_mail_tells() {
    for (event_type, words) in [
        (
            "run_failed",
            &["Run 99 of CRM failed for tenant Globex", "Globex (7)", "CRM (3)"][..],
        ),
        (
            "tenant_archived",
            &["Tenant Globex of CRM was archived", "CRM (3)"],
        ),
        (
            "partner_integration_updated",
            &["Initech updated integration CRM", "Initech (5)"],
        ),
        (
            "workflowExecution.failed",
            &["Workflow wf-1 failed: it broke", "ex-1", "act-1", "E1"],
        ),
        ("workflowExecution.started", &["Workflow wf-1 started", "ex-1"]),
        ("sync_complete", &["Sync of googledrive completed: 1000 files"]),
        (
            "postrider.destination.disabled",
            &["Destination slack was disabled", "shop"],
        ),
    ] {
        let example = catalogue::find(event_type).unwrap().definition().example;
        let event = sample::event(&example);
        for service in &FORMATS {
            // Logs have the facts as members of the event, alerts of Alertmanager those that tell them apart.
            let sentence_alone = matches!(
                service.name,
                "Datadog" | "NewRelic" | "Sentry" | "PagerDuty" | "Alertmanager"
            );
            let shown = body(&plain(service.name), &event).replace('\\', "");
            for word in words.iter().take(if sentence_alone { 1 } else { words.len() }) {
                assert!(shown.contains(word), "{}: {word}: {shown}", service.name);
            }
        }
    }
}

#[test]
fn labels_are_plain_names_to_route_by() {
    let example = catalogue::find("run_failed").unwrap().definition().example;
    let labels = sent("Alertmanager", &example)[0]["labels"].clone();
    assert_eq!(
        labels,
        json!({
            "account": "Acme Inc", "alertname": "run_failed", "environment": "production", "integration": "CRM",
            "project": "Test Project Name", "severity": "critical", "tenant": "Globex",
            "subject": "613b038f-e9bf-49ec-bc58-ba8d620754c7/run_failed/tenant=7/integration=3",
        })
    );
}
