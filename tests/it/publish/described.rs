//! The OpenAPI document against itself and against what the server does.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use postrider::adapters::http::OPENAPI;
use serde_json::{Value, json};

use super::{EVENTS, Server, TOKEN, only, settings};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(OPENAPI).unwrap());
static PROBLEM: LazyLock<Validator> = LazyLock::new(|| schema("Problem"));

/// The schema of that name, with those it refers to.
fn schema(name: &str) -> Validator {
    let schema =
        json!({"$ref": format!("#/components/schemas/{name}"), "components": DOCUMENT["components"]});
    jsonschema::draft202012::options()
        .should_validate_formats(true)
        .build(&schema)
        .unwrap()
}

fn operation() -> &'static Value {
    &DOCUMENT["paths"]["/v1/namespaces/{namespace}/projects/{project}/events"]["post"]
}

/// Checks a problem document of the publish API, and that its status is documented.
pub(super) fn check_problem(problem: &Value) {
    let errors: Vec<_> = PROBLEM
        .iter_errors(problem)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{problem}: {errors:?}");
    let status = problem["status"].to_string();
    assert!(
        operation()["responses"].get(&status).is_some(),
        "{status} is not documented"
    );
}

/// Checks an answer of the delivery API.
pub(super) fn check_described(method: &str, below: &str, status: u16, body: &Value) {
    let path = below.split('?').next().unwrap();
    let path = match path.split_once('/').map(|(_, id)| id.split_once(':')) {
        Some(Some((_, action))) => format!("/{{id}}:{action}"),
        Some(None) => "/{id}".to_owned(),
        None => path.to_owned(),
    };
    let path = format!("/v1/namespaces/{{namespace}}/eventdestinations/{{name}}/deliveries{path}");
    let operation = &DOCUMENT["paths"][&path][method.to_lowercase()];
    let response = &operation["responses"][status.to_string()];
    assert!(
        response.is_object(),
        "{method} {path}: {status} is not documented"
    );
    let reference = response["content"]["application/json"]["schema"]["$ref"].as_str();
    let name = reference.map_or("Problem", |at| at.rsplit('/').next().unwrap());
    let errors: Vec<_> = schema(name)
        .iter_errors(body)
        .map(|error| error.to_string())
        .collect();
    assert!(errors.is_empty(), "{method} {path}: {body}: {errors:?}");
}

/// Every value of a key, anywhere.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get(key));
            members.values().for_each(|value| all(value, key, found));
        }
        Value::Array(items) => items.iter().for_each(|value| all(value, key, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_sound() {
    assert!(DOCUMENT["openapi"].as_str().unwrap().starts_with("3.1."));
    let mut references = Vec::new();
    all(&DOCUMENT, "$ref", &mut references);
    for reference in &references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(DOCUMENT.pointer(pointer).is_some(), "{reference}");
    }
    let named = |section: &str| DOCUMENT["components"][section].as_object().unwrap().keys();
    for (section, name) in named("schemas")
        .map(|n| ("schemas", n))
        .chain(named("responses").map(|n| ("responses", n)))
    {
        let reference = json!(format!("#/components/{section}/{name}"));
        assert!(references.contains(&&reference), "{reference} is not used");
    }
    for name in named("schemas") {
        let plain = &DOCUMENT["components"]["schemas"][name];
        assert!(jsonschema::draft202012::meta::is_valid(plain), "{name}");
        for example in plain["examples"].as_array().into_iter().flatten() {
            assert!(schema(name).is_valid(example), "{name}: {example}");
        }
    }
    for (path, item) in DOCUMENT["paths"].as_object().unwrap() {
        for part in path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        {
            let parameters = item["parameters"].as_array().unwrap();
            assert!(
                parameters
                    .iter()
                    .any(|parameter| parameter["name"] == part && parameter["required"] == true)
            );
        }
    }
    for response in operation()["responses"].as_object().unwrap().values() {
        let response = response["$ref"]
            .as_str()
            .and_then(|at| DOCUMENT.pointer(&at[1..]))
            .unwrap_or(response);
        assert!(
            response["description"].is_string() && response["content"].is_object(),
            "{response}"
        );
    }
}

#[tokio::test]
async fn the_server_serves_the_document() {
    let server = Server::start(settings()).await;
    for method in ["GET", "HEAD"] {
        let request = format!("{method} /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let mut stream = server.connect().await;
        tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
            .await
            .unwrap();
        if method == "GET" {
            let answer = only(super::Answer::all(&mut stream).await);
            assert_eq!(
                (answer.status, answer.header("content-type")),
                (200, Some("application/json"))
            );
            assert_eq!(answer.json(), *DOCUMENT);
        } else {
            let mut head = String::new();
            tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut head)
                .await
                .unwrap();
            assert!(
                head.contains(&format!("content-length: {}\r\n", OPENAPI.len()))
                    && head.ends_with("\r\n\r\n")
            );
        }
    }
}

#[tokio::test]
async fn what_the_document_says_of_bodies_is_what_the_server_takes() {
    let server = Server::start(settings()).await;
    let accepted = schema("Accepted");
    let bearer = format!("Bearer {TOKEN}");
    let event = |members: Value| {
        let mut event = json!({"type": "x"});
        event
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        event
    };
    let cloud = |members: Value| {
        let mut event = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "x"});
        event
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        event
    };
    let bodies = [
        ("Event", event(json!({}))),
        (
            "Event",
            event(json!({"id": "~!", "timestamp": 1, "message": "m", "data": {"a": [1, null]}})),
        ),
        (
            "Event",
            event(json!({"timestamp": "2026-01-31T08:15:30.5+02:00", "user": {"id": "u", "metadata": {}}})),
        ),
        (
            "Event",
            event(json!({"workflow": {"id": "w", "name": null}, "integration": {}, "sync": {"id": "s"}})),
        ),
        (
            "Event",
            event(json!({"error": {"message": "m", "code": 3, "more": []}, "user": null, "id": null})),
        ),
        ("Event", json!({})),
        ("Event", json!("text")),
        ("Event", event(json!({"type": "no spaces"}))),
        ("Event", event(json!({"id": "no spaces"}))),
        ("Event", event(json!({"id": ""}))),
        ("Event", event(json!({"timestamp": "yesterday"}))),
        ("Event", event(json!({"timestamp": 1.5}))),
        ("Event", event(json!({"unknown": 1}))),
        ("Event", event(json!({"user": {}}))),
        ("Event", event(json!({"user": {"id": ""}}))),
        ("Event", event(json!({"user": {"id": "u", "name": "n"}}))),
        ("Event", event(json!({"workflow": {"name": "n"}}))),
        ("Event", event(json!({"error": {"code": 1}}))),
        ("Event", event(json!({"data": []}))),
        ("EventBatch", json!([])),
        ("EventBatch", json!([event(json!({})), event(json!({}))])),
        ("EventBatch", json!([event(json!({})), {}])),
        ("CloudEvent", cloud(json!({}))),
        (
            "CloudEvent",
            cloud(json!({"data": [1], "time": "2026-01-31T08:15:30Z", "ext": true})),
        ),
        ("CloudEvent", cloud(json!({"specversion": "0.3"}))),
        ("CloudEvent", cloud(json!({"ext": {}}))),
        (
            "CloudEvent",
            json!({"specversion": "1.0", "id": "1", "type": "x"}),
        ),
        ("CloudEventBatch", json!([cloud(json!({}))])),
        ("CloudEventBatch", json!([])),
    ];
    let mut statuses = BTreeSet::new();
    for (name, body) in bodies {
        let content_type = match name {
            "CloudEvent" => "application/cloudevents+json",
            "CloudEventBatch" => "application/cloudevents-batch+json",
            _ => "application/json",
        };
        assert!(operation()["requestBody"]["content"].get(content_type).is_some());
        let headers = [("authorization", &*bearer), ("content-type", content_type)];
        let answer = server.post(EVENTS, &headers, &body.to_string()).await;
        statuses.insert(answer.status);
        assert_eq!(
            schema(name).is_valid(&body),
            answer.status == 202,
            "{name} {body}: {answer:?}"
        );
        if answer.status == 202 {
            assert!(accepted.is_valid(&answer.json()), "{answer:?}");
        } else {
            answer.is_problem(400, "invalid-event");
        }
    }
    assert_eq!(statuses, BTreeSet::from([202, 400]));
}
