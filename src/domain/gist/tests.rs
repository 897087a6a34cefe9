//! Facts stand where the schemas of the catalogue have them, and are told once.

use serde_json::{Value, json};

use super::*;
use crate::domain::event::sample;

fn shown(event: &Value) -> Vec<String> {
    let event = sample::event(event);
    let facts = Gist::of(&event).facts;
    facts
        .iter()
        .filter(|fact| fact.role != Role::Scope)
        .map(|fact| format!("{}: {}", fact.label, fact.shown()))
        .collect()
}

#[test]
fn every_fact_is_a_member_of_the_types_schema() {
    for entry in &catalogue::EVENT_TYPES {
        let definition = entry.definition();
        for member in members(entry.name) {
            for name in [Some(member.id), member.name].into_iter().flatten() {
                let in_error = format!("error.{name}");
                let is_known = definition.schema["properties"].get(name).is_some()
                    || definition.needs.contains(&in_error);
                assert!(is_known, "{}: {name}", entry.name);
            }
        }
    }
}

#[test]
fn a_fact_that_stands_beside_data_and_in_it_is_told_once() {
    let event = |user: &str| {
        json!({
            "type": "credentials_failure", "user": {"id": "u-1"}, "integration": {"type": "slack"},
            "data": {"userId": user, "error": "invalid_grant"},
        })
    };
    assert_eq!(shown(&event("u-1")), ["User: u-1", "Integration: slack"]);
    assert_eq!(
        shown(&event("u-2")),
        ["User: u-1", "Integration: slack", "User: u-2"]
    );
}

#[test]
fn a_type_that_is_not_built_in_tells_nothing_of_its_data() {
    let event = json!({"type": "order.paid", "data": {"tenant_name": "Globex", "run_id": 1, "total": 12}});
    assert!(shown(&event).is_empty());
}

#[test]
fn nothing_that_is_no_text_or_number_becomes_a_fact() {
    let data = json!({"run_id": [1], "tenant_id": {"a": 1}, "tenant_name": " ", "integration_name": null});
    assert!(shown(&json!({"type": "run_failed", "data": data})).is_empty());
}

#[test]
fn a_message_of_blanks_counts_as_none() {
    let event = sample::event(&json!({"type": "order.paid", "message": " \n"}));
    assert_eq!(Gist::of(&event).headline, "Event order.paid occurred");
}
