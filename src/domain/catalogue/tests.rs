use serde_json::{Value, json};

use super::*;
use crate::domain::event::sample;
use crate::domain::template::Template;

fn message_of(body: &Value) -> String {
    message(&sample::event(body)).into_owned()
}

#[test]
fn names_are_unique_and_valid() {
    for (index, entry) in EVENT_TYPES.iter().enumerate() {
        assert!(
            crate::domain::event::parse::is_event_type(entry.name),
            "{}",
            entry.name
        );
        assert!(
            EVENT_TYPES
                .iter()
                .skip(index + 1)
                .all(|other| other.name != entry.name),
            "{}",
            entry.name
        );
        assert!(
            entry.description.ends_with('.') && !entry.sentence.ends_with('.'),
            "{}",
            entry.name
        );
        assert_ne!(entry.format, PayloadFormat::Default);
    }
}

#[test]
fn every_family_has_its_format() {
    for (name, format) in [
        ("workflow_failure", PayloadFormat::Event),
        ("credentials_failure", PayloadFormat::Event),
        ("record_errored", PayloadFormat::Sync),
        ("run_failed", PayloadFormat::Flat),
        ("workflowExecution.failed", PayloadFormat::Envelope),
        ("workflowexecution.failed", PayloadFormat::Event),
        ("order.paid", PayloadFormat::Event),
    ] {
        assert_eq!(format_of(name), format, "{name}");
    }
    assert_eq!(reserved_members("run_failed").len(), 5);
    assert!(reserved_members("sync_complete").is_empty());
}

#[test]
fn the_producers_message_wins() {
    let body =
        json!({"type": "workflow_failure", "message": "mine", "user": {"id": "u"}, "workflow": {"id": "w"}});
    assert_eq!(message_of(&body), "mine");
}

#[test]
fn known_messages_have_their_known_wording() {
    let workflow = |name: Value| json!({"type": "workflow_failure", "user": {"id": "u"}, "workflow": {"id": "w", "name": name}});
    assert_eq!(
        message_of(&workflow(json!("Sync leads"))),
        "Workflow “Sync leads“ failed for User u"
    );
    assert_eq!(
        message_of(&workflow(json!(null))),
        "Workflow “w“ failed for User u"
    );
    for (integration, name) in [
        (json!({"id": "i", "type": "slack", "name": "Slack"}), "Slack"),
        (json!({"id": "i", "type": "slack"}), "slack"),
        (json!({"id": "i"}), "i"),
    ] {
        let body = json!({"type": "credentials_failure", "user": {"id": "u"}, "integration": integration});
        let expected = format!("Connected User “u“ credential for {name} expired and can not be refreshed.");
        assert_eq!(message_of(&body), expected);
    }
}

#[test]
fn an_event_without_the_facts_of_its_message_gets_a_plain_sentence() {
    for (body, expected) in [
        (json!({"type": "workflow_failure"}), "A workflow failed"),
        (
            json!({"type": "workflow_failure", "user": {"id": "u"}}),
            "A workflow failed for User u",
        ),
        (
            json!({"type": "credentials_failure", "user": {"id": "u"}, "integration": {}}),
            "A credential expired and can not be refreshed for User u",
        ),
        (
            json!({"type": "sync_complete", "user": {"id": "u"}}),
            "A sync completed for User u",
        ),
        (json!({"type": "order.paid"}), "Event order.paid occurred"),
    ] {
        assert_eq!(message_of(&body), expected);
    }
}

#[test]
fn the_message_template_of_a_type_makes_the_message_of_its_events() {
    for entry in &EVENT_TYPES {
        let mut body = entry.definition().example;
        body["user"] = json!({"id": "u"});
        body["integration"] = json!({"type": "slack", "name": "Slack"});
        let event = sample::event(&body);
        let template = Template::parse(&json!(entry.message_template())).unwrap();
        let rendered = template
            .render(&event, &sample::identity(), sample::attempt())
            .unwrap();
        assert_eq!(rendered.body, message(&event).as_bytes(), "{}", entry.name);
    }
}
