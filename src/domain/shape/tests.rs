//! The exact bytes of every format, and what becomes of events that do not fit theirs.

use std::path::Path;

use serde_json::{Value, json};

use super::*;
use crate::domain::event::parse::parse;
use crate::domain::event::sample;
use crate::domain::type_rules::{Places, TypeRules};

fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/domain/shape/golden")
        .join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// An event as it is published: a built-in type's example.
fn published(name: &str) -> Value {
    match catalogue::find(name) {
        Some(entry) => entry.definition().example,
        None => golden(&format!("{name}.published.json")),
    }
}

/// The types whose form receivers have documented: all but Postrider's own.
fn documented_types() -> impl Iterator<Item = &'static catalogue::EventType> {
    let is_own = |entry: &&catalogue::EventType| crate::domain::operation::is_operational(entry.name);
    catalogue::EVENT_TYPES.iter().filter(move |entry| !is_own(entry))
}

/// Every key, in order, with the kind of its value.
fn keys(value: &Value, path: &str, found: &mut Vec<String>) {
    let kind = match value {
        Value::Object(members) => {
            for (name, member) in members {
                keys(member, &format!("{path}/{name}"), found);
            }
            "object"
        }
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::Bool(_) => "boolean",
        Value::Null => "null",
    };
    found.push(format!("{path}: {kind}"));
}

fn render(format: PayloadFormat, event: &Event) -> Result<Rendered, RenderError> {
    Payload::Format(format).render(event, &sample::identity(), sample::attempt())
}

fn body(format: PayloadFormat, event: &Event) -> String {
    String::from_utf8(render(format, event).unwrap().body.into()).unwrap()
}

fn hostile() -> Event {
    sample::event(&json!({
        "id": "evt-\"1\"", "type": "custom", "timestamp": "2026-01-31T08:15:30.5+01:00",
        "message": "a \"quoted\" \\ line\nand\ttab \u{1} \u{2028} 😀 </script>",
        "user": {"id": "u\"1\u{7}", "metadata": {"a": [1, {"b": null}]}},
        "integration": {"name": "C\\M"}, "workflow": {"id": "w"},
        "sync": {"id": "s"}, "error": {"message": "m", "details": {"x": 1}}, "data": {"k\"ey\n": "v"},
    }))
}

#[test]
fn every_built_in_type_renders_as_its_golden_file() {
    let mut names: Vec<&str> = catalogue::EVENT_TYPES.iter().map(|entry| entry.name).collect();
    names.push("custom.type");
    for name in names {
        let event = sample::event(&published(name));
        // Key order is kept by `Value`, so this compares bytes up to white space.
        let expected = golden(&format!("{name}.json")).to_string();
        let rendered = render(PayloadFormat::Default, &event).unwrap();
        assert_eq!(String::from_utf8_lossy(&rendered.body), expected, "{name}");
        assert_eq!(rendered.content_type, "application/json", "{name}");
    }
}

#[test]
fn every_built_in_type_has_the_keys_of_its_receivers_documentation() {
    for entry in documented_types() {
        let expected = golden(&format!("reference/{}.json", entry.name));
        let mut sent = serde_json::from_str::<Value>(&body(
            PayloadFormat::Default,
            &sample::event(&published(entry.name)),
        ))
        .unwrap();
        // Free members of the user are no part of the form.
        if let Some(metadata) = sent.pointer_mut("/user/metadata") {
            *metadata = json!({});
        }
        let (mut here, mut there) = (Vec::new(), Vec::new());
        keys(&sent, "", &mut here);
        keys(&expected, "", &mut there);
        assert_eq!(here, there, "{}", entry.name);
    }
}

/// What a receiver's documentation shows for a type, with what its writers left open filled in: two instants that are
/// meant to be one, placeholders, and what belongs to the destination and its project.
fn documented(name: &str) -> Value {
    let mut expected = golden(&format!("reference/{name}.json"));
    if name == "credentials_failure" {
        expected["timestampISO"] = json!("2024-10-22T20:37:29.422Z");
        let message = expected["message"]
            .as_str()
            .unwrap()
            .replace("<Integration>", "slack");
        expected["message"] = json!(message);
    }
    if expected.get("webhookId").is_some() {
        expected["webhookId"] = json!(sample::identity().uid.as_str());
        expected["webhookPublishedAt"] = json!(sample::ACCEPTED);
        expected["projectId"] = json!(&*sample::project().id);
    }
    expected
}

/// The event that a documented body comes from.
fn published_for(format: PayloadFormat, body: &Value) -> Value {
    let mut body = body.as_object().unwrap().clone();
    let mut take = |name: &str| body.shift_remove(name);
    let mut published = serde_json::Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        published.extend(value.map(|value| (name.to_owned(), value)));
    };
    match format {
        PayloadFormat::Event => {
            for made in ["timestampISO", "message", "project"] {
                take(made).unwrap();
            }
            return Value::Object(body);
        }
        PayloadFormat::Sync => {
            put("type", take("event"));
            let mut sync = json!({"id": take("syncInstanceId"), "integration": take("sync")});
            if let Some(id) = take("credentialId") {
                sync["credentialId"] = id;
            }
            put("sync", Some(sync));
            for name in ["user", "data", "error"] {
                put(name, take(name));
            }
            assert!(body.is_empty(), "{body:?}");
        }
        PayloadFormat::Flat => {
            put("type", take("event_type"));
            put("timestamp", take("timestamp"));
            for of_the_project in ["environment", "account_id", "account_name"] {
                take(of_the_project).unwrap();
            }
            put("data", Some(Value::Object(body)));
        }
        PayloadFormat::Envelope => {
            put("type", take("eventType"));
            let mut payload = take("payload").unwrap();
            put("error", payload.as_object_mut().unwrap().shift_remove("error"));
            put("data", Some(payload));
        }
        other => panic!("no type has {other:?}"),
    }
    Value::Object(published)
}

#[test]
fn every_documented_example_comes_out_value_by_value_and_follows_its_schema() {
    for entry in documented_types() {
        let expected = documented(entry.name);
        let published = published_for(entry.format, &expected);
        assert_eq!(published["type"], entry.name);
        let drafts = sample::drafts(&published.to_string()).unwrap();
        let faults = TypeRules::default().check(&drafts, Places::default());
        assert_eq!(faults.listed(), [], "{}", entry.name);
        // The order of keys counts, too.
        let sent = body(PayloadFormat::Default, &sample::event(&published));
        assert_eq!(sent, expected.to_string(), "{}", entry.name);
    }
}

#[test]
fn a_member_that_an_event_may_lack_is_left_out() {
    let mut left_out = 0;
    for entry in documented_types() {
        for optional in [
            "/credentialId",
            "/error/code",
            "/payload/workflowActionId",
            "/user/metadata",
        ] {
            let mut expected = documented(entry.name);
            let (parent, name) = optional.rsplit_once('/').unwrap();
            let mut remove = || expected.pointer_mut(parent)?.as_object_mut()?.shift_remove(name);
            if remove().is_none() || (name == "workflowActionId" && !entry.name.ends_with("failed")) {
                continue;
            }
            left_out += 1;
            let published = published_for(entry.format, &expected);
            let drafts = sample::drafts(&published.to_string()).unwrap();
            let faults = TypeRules::default().check(&drafts, Places::default());
            assert_eq!(faults.listed(), [], "{} without {optional}", entry.name);
            if name == "metadata" {
                // This one is always there.
                expected = documented(entry.name);
            }
            let sent = body(PayloadFormat::Default, &sample::event(&published));
            assert_eq!(sent, expected.to_string(), "{} without {optional}", entry.name);
        }
    }
    assert_eq!(left_out, 6 + 2 + 1 + 2);
}

#[test]
fn a_forced_format_wins_over_the_types_own() {
    let event = sample::event(&published("tenant_created"));
    let body: Value = serde_json::from_str(&body(PayloadFormat::Event, &event)).unwrap();
    assert_eq!(body["type"], "tenant_created");
    assert_eq!(body["data"]["tenant_name"], "Globex");
}

#[test]
fn every_format_of_a_hostile_event_is_valid_json() {
    let event = hostile();
    for format in [
        PayloadFormat::Default,
        PayloadFormat::Event,
        PayloadFormat::Flat,
        PayloadFormat::Envelope,
        PayloadFormat::CloudEvent,
    ] {
        let text = body(format, &event);
        let item = json::value(&text).unwrap();
        assert_eq!(item.flaw_count, 0, "{format:?} {text}");
        serde_json::from_str::<Value>(&text).unwrap();
    }
    let value: Value = serde_json::from_str(&body(PayloadFormat::Event, &event)).unwrap();
    assert_eq!(
        value["message"],
        "a \"quoted\" \\ line\nand\ttab \u{1} \u{2028} 😀 </script>"
    );
    assert_eq!(value["user"]["id"], "u\"1\u{7}");
    assert_eq!(value["timestampISO"], "2026-01-31T07:15:30.500Z");
}

#[test]
fn the_event_format_loses_nothing_that_was_sent_unless_receivers_know_the_type() {
    let published = |event_type: &str| {
        json!({
            "id": "e", "type": event_type, "timestamp": 5, "message": "m",
            "user": {"id": "u", "metadata": {"plan": "pro"}},
            "integration": {"id": "i", "type": "slack", "name": "Slack"},
            "workflow": {"id": "w", "name": "W"},
            "sync": {"id": "s", "integration": "drive", "credentialId": "c"},
            "error": {"message": "gone", "code": 7, "details": {"x": 1.10}},
            "data": {"n": 1},
        })
    };
    for event_type in ["custom.type", "sync_errored"] {
        let published = published(event_type);
        let event = sample::event(&published);
        let sent: Value = serde_json::from_str(&body(PayloadFormat::Event, &event)).unwrap();
        for (name, value) in published.as_object().unwrap() {
            if name != "id" {
                assert_eq!(
                    &sent[name], value,
                    "{event_type}: {name} (the id is in the headers)"
                );
            }
        }
    }
    for event_type in ["workflow_failure", "credentials_failure"] {
        let event = sample::event(&published(event_type));
        let sent: Value = serde_json::from_str(&body(PayloadFormat::Event, &event)).unwrap();
        let names: Vec<&String> = sent.as_object().unwrap().keys().collect();
        assert_eq!(
            names,
            [
                "type",
                "timestamp",
                "timestampISO",
                "message",
                "user",
                "project",
                "integration",
                "workflow",
                "data"
            ],
            "{event_type}"
        );
    }
}

#[test]
fn a_cloud_event_of_a_custom_type_keeps_where_it_came_from() {
    let published = json!({
        "specversion": "1.0", "id": "e", "type": "custom.type", "source": "/crm", "subject": "row/7",
        "traceparent": "00-abc", "data": {"n": 1},
    })
    .to_string();
    let mut drafts = parse(
        published.as_bytes(),
        &sample::headers("application/cloudevents+json"),
    )
    .unwrap();
    let event = sample::accepted(drafts.remove(0), sample::project());
    let sent: Value = serde_json::from_str(&body(PayloadFormat::Event, &event)).unwrap();
    assert_eq!(
        sent["cloudEvent"],
        json!({"source": "/crm", "subject": "row/7", "traceparent": "00-abc"})
    );
}

#[test]
fn raw_members_reach_the_receiver_as_they_were_written() {
    let data = r#"{ "big":123456789012345678901234567890, "z":1.10,"a":1e2 ,"é":"\u00e9"}"#;
    let event = sample::event_of(
        &format!(r#"{{"type":"custom","data":{data}}}"#),
        sample::project(),
    );
    for format in [
        PayloadFormat::Event,
        PayloadFormat::Envelope,
        PayloadFormat::CloudEvent,
    ] {
        assert!(body(format, &event).contains(data), "{format:?}");
    }
    assert!(
        body(PayloadFormat::Flat, &event)
            .contains(r#""big":123456789012345678901234567890,"z":1.10,"a":1e2"#)
    );
}

#[test]
fn sync_names_the_field_it_cannot_do_without() {
    let full = published("sync_complete");
    for (remove, field) in [("sync", "sync.id"), ("user", "user.id")] {
        let mut body = full.clone();
        body.as_object_mut().unwrap().remove(remove);
        let error = render(PayloadFormat::Default, &sample::event(&body)).unwrap_err();
        assert_eq!(
            error,
            RenderError::Missing {
                format: "Sync",
                field
            }
        );
        assert_eq!(
            error.to_string(),
            format!(
                "format Sync needs {field}, which the event does not have; publish it or choose another format"
            )
        );
    }
    let mut body = full.clone();
    body["sync"].as_object_mut().unwrap().remove("integration");
    let error = render(PayloadFormat::Default, &sample::event(&body)).unwrap_err();
    assert_eq!(
        error,
        RenderError::Missing {
            format: "Sync",
            field: "sync.integration"
        }
    );
    body["integration"] = json!({"type": "googledrive"});
    body["sync"].as_object_mut().unwrap().remove("credentialId");
    let rendered = self::body(PayloadFormat::Default, &sample::event(&body));
    assert!(rendered.contains(r#""sync":"googledrive","user""#), "{rendered}");
}

#[test]
fn flat_leaves_out_what_the_project_does_not_state() {
    let facts = ProjectFacts {
        environment: None,
        account_id: None,
        account_name: None,
        ..sample::project()
    };
    let event = sample::event_of(
        r#"{"type":"run_failed","timestamp":1769847330120,"data":{"run_id":1}}"#,
        facts,
    );
    assert_eq!(
        body(PayloadFormat::Default, &event),
        r#"{"event_type":"run_failed","timestamp":"2026-01-31T08:15:30.120Z","run_id":1}"#
    );
}

#[test]
fn flat_writes_an_account_id_that_is_text_as_text() {
    let facts = ProjectFacts {
        account_id: Some(AccountId::Text("acc-1".into())),
        ..sample::project()
    };
    let event = sample::event_of(r#"{"type":"run_failed"}"#, facts);
    assert!(
        body(PayloadFormat::Default, &event).contains(r#""account_id":"acc-1","account_name":"Acme Inc""#)
    );
}

#[test]
fn flat_keeps_its_common_fields_for_types_that_were_not_checked_for_it() {
    let event = sample::event(&published("workflow_failure"));
    let text = body(PayloadFormat::Flat, &event);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["timestamp"], "2024-10-22T20:40:42.607Z");
    assert_eq!(text.matches("\"timestamp\"").count(), 1);
}

#[test]
fn envelope_takes_the_error_from_data_when_it_has_one() {
    let event = sample::event(&json!({
        "type": "workflowExecution.failed", "error": {"message": "outer"}, "data": {"error": {"message": "inner"}}
    }));
    let value: Value = serde_json::from_str(&body(PayloadFormat::Default, &event)).unwrap();
    assert_eq!(value["payload"], json!({"error": {"message": "inner"}}));
}

#[test]
fn cloud_event_carries_the_rest_as_extension_attributes() {
    let event = sample::event(&json!({
        "id": "e-1", "type": "workflow_failure", "timestamp": 1_729_629_642_607_i64, "message": "m",
        "user": {"id": "user-7", "metadata": {"plan": "pro"}}, "integration": {"id": "i", "type": "slack"},
        "workflow": {"id": "w", "name": "W"}, "error": {"message": "no"}, "data": {"a": 1},
    }));
    let rendered = render(PayloadFormat::CloudEvent, &event).unwrap();
    assert_eq!(rendered.content_type, "application/cloudevents+json");
    assert_eq!(
        String::from_utf8_lossy(&rendered.body),
        json!({
            "specversion": "1.0", "id": "e-1", "source": "/projects/613b038f-e9bf-49ec-bc58-ba8d620754c7",
            "type": "workflow_failure", "subject": "user-7", "time": "2024-10-22T20:40:42.607Z",
            "datacontenttype": "application/json", "message": "m", "projectname": "Test Project Name",
            "environment": "production", "accountid": 42, "accountname": "Acme Inc",
            "usermetadata": "{\"plan\":\"pro\"}", "integrationid": "i", "integrationtype": "slack",
            "workflowid": "w", "workflowname": "W", "errormessage": "no", "error": "{\"message\":\"no\"}",
            "data": {"a": 1},
        })
        .to_string()
    );
}

#[test]
fn a_cloud_event_that_came_in_keeps_its_attributes_on_the_way_out() {
    let body = json!({
        "specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.paid", "subject": "order-1",
        "dataschema": "https://example.com/schema", "datacontenttype": "application/json", "message": "theirs",
        "traceparent": "00-1", "data": {"a": 1},
    });
    let headers = sample::headers("application/cloudevents+json");
    let draft = parse(body.to_string().as_bytes(), &headers).unwrap().remove(0);
    let facts = ProjectFacts {
        id: "p 1/ä".into(),
        environment: None,
        account_id: None,
        account_name: None,
        ..sample::project()
    };
    let event = sample::accepted(draft, facts);
    let value: Value = serde_json::from_str(&self::body(PayloadFormat::CloudEvent, &event)).unwrap();
    assert_eq!(
        value,
        json!({
            "specversion": "1.0", "id": "e-1", "source": "/projects/p%201%2F%C3%A4", "type": "order.paid",
            "subject": "order-1", "time": "2026-01-31T08:15:30.123Z", "datacontenttype": "application/json",
            "dataschema": "https://example.com/schema", "projectname": "Test Project Name",
            "originsource": "/shop", "message": "theirs", "traceparent": "00-1", "data": {"a": 1},
        })
    );
}

#[test]
fn every_time_has_exactly_three_decimals() {
    for (text, expected) in [
        ("2024-10-22T20:40:42Z", "2024-10-22T20:40:42.000Z"),
        ("2024-10-22T20:40:42.1Z", "2024-10-22T20:40:42.100Z"),
        ("2024-10-22T20:40:42.1239Z", "2024-10-22T20:40:42.123Z"),
        ("9999-12-30T21:59:59.999Z", "9999-12-30T21:59:59.999Z"),
    ] {
        let event = sample::event(&json!({"type": "x", "timestamp": text}));
        assert!(body(PayloadFormat::Event, &event).contains(expected), "{text}");
    }
}
