//! What is left out of a log says so.

use serde_json::{Map, Value, json};

use super::sent;

fn attributes(data: &Value) -> Map<String, Value> {
    let body = sent("NewRelic", &json!({"type": "x", "message": "m", "data": data}));
    body[0]["logs"][0]["attributes"].as_object().unwrap().clone()
}

#[test]
fn new_relic_is_told_how_many_attributes_it_lacks() {
    let data = |count: usize| Value::Object((0..count).map(|n| (format!("m{n}"), json!(n))).collect());
    let some = attributes(&data(180));
    assert_eq!(some.get("[cut]"), None);
    let beside = some.len() - 180;
    let many = attributes(&data(300));
    assert_eq!(many.len(), 201);
    let kept = 200 - beside;
    assert_eq!(many["[cut]"], format!("{} more", 300 - kept));
}

#[test]
fn new_relic_gets_null_as_text() {
    let found = attributes(&json!({"gone": null, "deep": {"gone": null}}));
    assert_eq!(found["event.data.gone"], "null");
    assert_eq!(found["event.data.deep.gone"], "null");
    assert_eq!(found.get("[cut]"), None);
}

#[test]
fn new_relic_is_told_of_attributes_whose_names_became_the_same() {
    let long = "n".repeat(300);
    let found = attributes(&json!({format!("{long}1"): 1, format!("{long}2"): 2, format!("{long}3"): 3}));
    assert_eq!(found["[cut]"], "2 more");
    let found = attributes(&json!({"a": {"b": 1}, "a.b": 2}));
    assert_eq!(
        (&found["event.data.a.b"], &found["[cut]"]),
        (&json!(1), &json!("1 more"))
    );
}
