//! Which rules hold for which events.

use serde_json::json;

use super::*;
use crate::domain::catalogue::EVENT_TYPES;
use crate::domain::event::parse::{parse, places};
use crate::domain::event::sample;

fn faults_of(types: &Value) -> Vec<String> {
    let types: Vec<EventTypeSpec> = serde_json::from_value(types.clone()).unwrap();
    let (_, faults) = TypeRules::compile(&types, Validation::Enforce);
    faults
        .iter()
        .map(|fault| format!("{}: {}", fault.path, fault.message))
        .collect()
}

fn rules(types: &Value) -> TypeRules {
    let types: Vec<EventTypeSpec> = serde_json::from_value(types.clone()).unwrap();
    let (rules, faults) = TypeRules::compile(&types, Validation::Enforce);
    assert!(faults.is_empty(), "{faults}");
    rules
}

fn told(rules: &TypeRules, body: &Value) -> Vec<String> {
    let drafts = sample::drafts(&body.to_string()).unwrap();
    let places = Places {
        is_batch: body.is_array(),
        is_data: false,
    };
    let faults = rules.check(&drafts, places);
    faults
        .listed()
        .iter()
        .map(|fault| format!("{}: {}", fault.pointer, fault.detail))
        .collect()
}

#[test]
fn every_built_in_schema_compiles_and_its_example_follows_it() {
    assert_eq!(BUILT_IN.len(), EVENT_TYPES.len());
    let rules = TypeRules::default();
    for entry in &EVENT_TYPES {
        let definition = entry.definition();
        assert_eq!(definition.example["type"], entry.name);
        assert_eq!(told(&rules, &definition.example), [""; 0], "{}", entry.name);
        let work = BUILT_IN[entry.name].schema.work();
        assert!(work <= BUILT_IN_WORK, "{}: {work}", entry.name);
    }
}

#[test]
fn every_member_that_a_built_in_type_needs_is_missed() {
    let rules = TypeRules::default();
    for entry in &EVENT_TYPES {
        let definition = entry.definition();
        for name in definition.schema["required"].as_array().unwrap() {
            let mut body = definition.example.clone();
            body["data"]
                .as_object_mut()
                .unwrap()
                .remove(name.as_str().unwrap());
            let found = told(&rules, &body);
            assert_eq!(
                found,
                [format!("/data: {name} is a required property")],
                "{}",
                entry.name
            );
        }
        for need in &definition.needs {
            let mut body = definition.example.clone();
            let mut is_needed = true;
            for path in need.split('|') {
                let (root, rest) = path.split_once('.').unwrap();
                let whole = matches!(path, "user.id" | "workflow.id" | "sync.id" | "error.message");
                let members = body.as_object_mut().unwrap();
                if whole {
                    members.remove(root);
                } else if let Some(inner) = members.get_mut(root).and_then(Value::as_object_mut) {
                    is_needed &= inner.remove(rest).is_some() || need.contains('|');
                }
            }
            let found = told(&rules, &body);
            let expected = format!(
                ": an event of type {} needs {}",
                entry.name,
                need.replace('|', " or ")
            );
            assert!(is_needed && found.contains(&expected), "{need}: {found:?}");
        }
    }
}

#[test]
fn records_never_travel() {
    let mut body = catalogue::find("record_created").unwrap().definition().example;
    body["data"]["contents"] = json!("row");
    let found = told(&TypeRules::default(), &body);
    assert!(
        found[0].starts_with("/data: Additional properties are not allowed"),
        "{found:?}"
    );
}

#[test]
fn a_projects_own_type_is_checked_event_by_event() {
    let rules = rules(&json!([
        {"name": "invoice.paid", "schema": {"required": ["total"], "properties": {"total": {"type": "number"}}},
         "example": {"total": 1.5}},
        {"name": "free", "description": "anything"},
    ]));
    let found = told(
        &rules,
        &json!([
            {"type": "invoice.paid", "data": {"total": 5}},
            {"type": "invoice.paid", "data": {"total": "5"}},
            {"type": "free", "data": {"x": 1}},
            {"type": "unheard.of"},
            {"type": "invoice.paid"},
        ]),
    );
    assert_eq!(
        found,
        [
            "/1/data/total: value is not of type \"number\"",
            "/4/data: \"total\" is a required property"
        ]
    );
    let single = told(&rules, &json!({"type": "invoice.paid"}));
    assert_eq!(single, ["/data: \"total\" is a required property"]);
}

#[test]
fn off_asks_nothing_and_is_no_work() {
    let (rules, _) = TypeRules::compile(&[], Validation::Off);
    assert_eq!(told(&rules, &json!({"type": "workflow_failure"})), [""; 0]);
    assert_eq!(rules.work(1_000_000), 0);
    assert!(TypeRules::default().work(100) > 100);
    let with_pattern = self::rules(&json!([{"name": "t", "schema": {"pattern": "^a+$"}}]));
    assert!(
        with_pattern.work(100) > 10 * TypeRules::default().work(100),
        "patterns are work"
    );
}

#[test]
fn faults_of_a_projects_types_have_their_field_paths() {
    for (types, expected) in [
        (
            json!([{"name": "a b"}]),
            "spec.eventTypes[0].name: use letters, digits, \"_\", \".\" and \"-\", at most 128 characters",
        ),
        (
            json!([{"name": "run_failed"}]),
            "spec.eventTypes[0].name: \"run_failed\" is a built-in type; choose another name",
        ),
        (
            json!([{"name": "a"}, {"name": "a"}]),
            "spec.eventTypes[1].name: \"a\" is declared above; remove one of them",
        ),
        (
            json!([{"name": "a"}, {"name": "b", "schema": {"properties": {"x.y": {"$ref": "https://x"}}}}]),
            "spec.eventTypes[1].schema.properties[\"x.y\"][\"$ref\"]: https://x leads out of the schema, and nothing is ever \
             fetched; put it under $defs and refer to #/$defs/…",
        ),
        (
            json!([{"name": "a", "schema": {"required": ["n"]}, "example": {"m": [1]}}]),
            "spec.eventTypes[0].example: the example breaks its schema: \"n\" is a required property",
        ),
        (
            json!([{"name": "a", "schema": {"properties": {"m": {"type": "string"}}}, "example": {"m": 1}}]),
            "spec.eventTypes[0].example.m: the example breaks its schema: value is not of type \"string\"",
        ),
        (
            json!([{"name": "a", "example": 5}]),
            "spec.eventTypes[0].example: an example is an object: the `data` of an event",
        ),
    ] {
        assert_eq!(faults_of(&types), [expected], "{types}");
    }
    let many: Vec<Value> = (0..65).map(|n| json!({"name": format!("t{n}")})).collect();
    assert_eq!(
        faults_of(&json!(many)),
        ["spec.eventTypes: at most 64 event types are allowed"]
    );
}

#[test]
fn one_faulty_type_does_not_stop_the_others() {
    let types = json!([
        {"name": "bad", "schema": {"type": "objekt"}},
        {"name": "good", "schema": {"required": ["x"]}},
    ]);
    let types: Vec<EventTypeSpec> = serde_json::from_value(types).unwrap();
    let (rules, faults) = TypeRules::compile(&types, Validation::Enforce);
    assert_eq!(faults.iter().count(), 1);
    assert_eq!(told(&rules, &json!({"type": "bad"})), [""; 0]);
    assert_eq!(told(&rules, &json!({"type": "good"})).len(), 1);
    let spec = EventProjectSpec {
        event_types: types,
        validation: Some(Validation::Enforce),
        ..EventProjectSpec::default()
    };
    assert!(rules.is_of(&spec));
    let differing = [
        EventProjectSpec {
            validation: Some(Validation::Warn),
            ..spec.clone()
        },
        EventProjectSpec {
            cloud_events_subject: Some(CloudEventsSubject::UserId),
            ..spec.clone()
        },
        EventProjectSpec {
            event_types: Vec::new(),
            ..spec
        },
    ];
    assert!(differing.iter().all(|spec| !rules.is_of(spec)));
}

#[test]
fn a_type_with_a_pattern_too_many_does_not_stop_those_after_it() {
    let patterns: Vec<Value> = (0..16).map(|n| json!({"pattern": format!("a{n}")})).collect();
    let mut types: Vec<Value> = (0..5)
        .map(|n| json!({"name": format!("t{n}"), "schema": {"anyOf": patterns}}))
        .collect();
    types.push(json!({"name": "plain", "schema": {"required": ["x"]}}));
    let types: Vec<EventTypeSpec> = serde_json::from_value(json!(types)).unwrap();
    let (rules, faults) = TypeRules::compile(&types, Validation::Enforce);
    let told_of: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(told_of, ["spec.eventTypes[4].schema"]);
    assert_eq!(told(&rules, &json!({"type": "t4"})), [""; 0]);
    assert_eq!(told(&rules, &json!({"type": "plain"})).len(), 1);
}

#[test]
fn a_pointer_leads_into_the_body_in_every_mode() {
    let rules = rules(&json!([{"name": "t", "schema": {"properties": {"n": {"type": "integer"}}}}]));
    let json_headers = sample::headers("application/json");
    let cloud = sample::headers("application/cloudevents+json");
    let batch = sample::headers("application/cloudevents-batch+json");
    let mut binary = sample::headers("application/json");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "t"),
    ] {
        binary.insert(name, http::HeaderValue::from_static(value));
    }
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":"x"}}"#;
    for (headers, body, pointer, index) in [
        (
            &json_headers,
            r#"{"type":"t","data":{"n":"x"}}"#.to_owned(),
            "/data/n",
            None,
        ),
        (
            &json_headers,
            r#" [{"type":"t","data":{"n":"x"}}]"#.to_owned(),
            "/0/data/n",
            Some(0),
        ),
        (&cloud, event.to_owned(), "/data/n", None),
        (&batch, format!("[{event}]"), "/0/data/n", Some(0)),
        (&binary, r#"{"n":"x"}"#.to_owned(), "/n", None),
    ] {
        let drafts = parse(body.as_bytes(), headers).unwrap();
        let faults = rules.check(&drafts, places(body.as_bytes(), headers));
        let fault = &faults.listed()[0];
        assert_eq!((fault.pointer.as_str(), fault.index), (pointer, index), "{body}");
        let value: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(value.pointer(pointer), Some(&json!("x")), "{body}");
    }
}
