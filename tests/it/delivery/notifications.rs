//! A project's notifications on a real control plane, with a receiver and an SMTP server.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::mail::server::{Make, Server};
use crate::support::{Manner, PROJECT, Stage, eventually, repository_file};

/// A project with notifications, all mails through the Secret `smtp`.
fn project(notifications: &Value) -> Value {
    let mut notifications = notifications.clone();
    notifications["smtpRef"] = json!({"name": "smtp"});
    json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventProject", "metadata": {"name": PROJECT},
        "spec": {"displayName": "Acme", "notifications": notifications},
    })
}

fn smtp(data: &[(&str, &str)]) -> Value {
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "smtp"},
        "stringData": {"from": "Acme <events@acme.example>"},
    });
    for (key, value) in data {
        secret["stringData"][*key] = json!(value);
    }
    secret
}

/// Applies the project and waits until it has so many children, all of them ready.
async fn notify(stage: &Stage, notifications: &Value, count: usize) {
    stage.apply(&project(notifications));
    let has_children = |project: &Value| {
        let names = project["status"]["notifications"].as_array().map_or(0, Vec::len);
        names == count && project["status"]["observedGeneration"] == project["metadata"]["generation"]
    };
    stage
        .until("eproj", PROJECT, "it has its children", has_children)
        .await;
    let all = ["wait", "--for=condition=Ready", "--all", "--timeout=30s", "ed"];
    stage
        .cluster
        .kubectl(&[&all[..], &["-n", stage.namespace.name()]].concat())
        .ok();
}

/// The child for an address or URL.
fn child(stage: &Stage, whom: &str) -> Value {
    let listed = stage
        .cluster
        .kubectl(&["get", "ed", "-n", stage.namespace.name(), "-o", "json"])
        .ok();
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let mut found = listed["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|ed| ed["spec"]["email"]["to"][0] == whom);
    found
        .next()
        .unwrap_or_else(|| panic!("nobody tells {whom}"))
        .clone()
}

/// Takes so many mails; how many each address got.
fn mails(server: &mut Server, count: usize) -> BTreeMap<String, usize> {
    let mut told = BTreeMap::new();
    for _ in 0..count {
        let mail = server.mail();
        for address in mail["to"].as_array().unwrap() {
            *told.entry(address.as_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    told
}

fn told(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs
        .iter()
        .map(|(address, count)| ((*address).to_owned(), *count))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_told_of_what_is_theirs_and_the_url_once() {
    let stage = Stage::set("notify").await;
    let mut server = Server::start(Make::Python, &json!({}));
    stage.apply(&smtp(&server.plain()));
    stage.receiver.answer("/broken", Manner::Status(500));
    let notifications = json!({
        "ownerEmail": "dev@acme.example",
        "primaryContact": ["ops@acme.example"],
        "webhook": {"url": stage.receiver.url("/in")},
        "events": [
            {"type": "run_failed", "sendWebhook": true, "emailSubscribers": "a@x.example, b@x.example"},
            {"type": "tenant_created", "emailSubscribers": ["a@x.example"]},
        ],
    });
    notify(&stage, &notifications, 6).await;

    let id = stage
        .publish("run_failed", &json!({"tenant_id": "t-1", "error": "rate limit"}))
        .await;
    let expected = [("a@x.example", 1), ("b@x.example", 1), ("ops@acme.example", 1)];
    assert_eq!(mails(&mut server, 3), told(&expected));
    let request = &stage.receiver.wait_for("/in", 1).await[0];
    let body = request.json();
    assert_eq!(
        (&body["event_type"], &body["tenant_id"]),
        (&json!("run_failed"), &json!("t-1")),
        "{body}"
    );
    assert_eq!(request.header("webhook-signature"), "", "{:?}", request.headers);
    assert_eq!(request.header("x-postrider-event-id"), id);

    stage
        .publish("workflow_failure", &json!({"error": "rate limit"}))
        .await;
    let expected = [("dev@acme.example", 1), ("ops@acme.example", 1)];
    assert_eq!(mails(&mut server, 2), told(&expected));
    stage
        .publish("tenant_created", &json!({"tenant_id": "t-2"}))
        .await;
    let expected = [("a@x.example", 1), ("ops@acme.example", 1)];
    assert_eq!(mails(&mut server, 2), told(&expected));
    assert_eq!(
        stage.receiver.received("/in").len(),
        1,
        "only the type that is switched on"
    );

    // A 500 is not tried again: the event is given up at once.
    let mut broken = notifications.clone();
    broken["webhook"]["url"] = json!(stage.receiver.url("/broken"));
    notify(&stage, &broken, 6).await;
    stage.publish("run_failed", &json!({})).await;
    let is_given_up = |ed: &Value| ed["status"]["delivery"]["exhausted"] == 1;
    let webhook = stage
        .until("ed", "acme-webhook", "it is given up", is_given_up)
        .await;
    assert_eq!(webhook["status"]["delivery"]["lastFailure"]["statusCode"], 500);
    assert_eq!(stage.receiver.received("/broken").len(), 1);

    // Everything goes with the project; the controller manager collects it.
    let name = stage.namespace.name();
    stage
        .cluster
        .kubectl(&["delete", "-n", name, "eproj", PROJECT])
        .ok();
    eventually(
        "the children are collected",
        Duration::from_secs(30),
        async || {
            let left = stage
                .cluster
                .kubectl(&["get", "ed,secrets", "-n", name, "-o", "name"])
                .ok();
            if left.trim() == "secret/smtp" {
                Ok(())
            } else {
                Err(left)
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_while_events_wait_loses_and_doubles_nothing() {
    let stage = Stage::set("notify").await;
    // Nobody listens there: every mail waits.
    let nobody = [("host", "localhost"), ("port", "1"), ("security", "None")];
    stage.apply(&smtp(&nobody));
    let subscribers = |all: &str| json!({"events": [{"type": "x", "emailSubscribers": all}]});
    notify(&stage, &subscribers("kept@x.example, gone@x.example"), 2).await;
    for number in 0..5 {
        stage.publish("x", &json!({"number": number})).await;
    }
    for whom in ["kept@x.example", "gone@x.example"] {
        let name = child(&stage, whom)["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        let waits = |ed: &Value| {
            let delivery = &ed["status"]["delivery"];
            delivery["pending"].as_i64().unwrap_or_default() + delivery["parked"].as_i64().unwrap_or_default()
                == 5
        };
        stage.until("ed", &name, "its events wait", waits).await;
    }
    let before = child(&stage, "kept@x.example");
    notify(&stage, &subscribers("new@x.example, kept@x.example"), 2).await;
    let after = child(&stage, "kept@x.example");
    assert_eq!(
        (&before["metadata"]["uid"], &before["metadata"]["generation"]),
        (&after["metadata"]["uid"], &after["metadata"]["generation"])
    );
    for number in 5..8 {
        stage.publish("x", &json!({"number": number})).await;
    }

    let mut server = Server::start(Make::Node, &json!({}));
    stage.apply(&smtp(&server.plain()));
    let expected = [("kept@x.example", 8), ("new@x.example", 3)];
    assert_eq!(mails(&mut server, 11), told(&expected));
    for whom in ["kept@x.example", "new@x.example"] {
        let name = child(&stage, whom)["metadata"]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        let is_done = |ed: &Value| ed["status"]["delivery"]["pending"] == 0;
        stage.until("ed", &name, "nothing waits", is_done).await;
    }
    assert_eq!(server.count(), 11, "nobody is told twice, and nobody who is gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_tells_whom_its_readme_says() {
    let read = |name: &str| {
        let path = repository_file("examples/notifications").join(name);
        std::fs::read_to_string(path).unwrap()
    };
    let stage = Stage::set("notify").await;
    let mut server = Server::start(Make::Python, &json!({}));
    stage.apply(&smtp(&server.plain()));
    let mut project: Value = serde_saphyr::from_str(&read("project.yaml")).unwrap();
    project["spec"]["notifications"]["webhook"]["url"] = json!(stage.receiver.url("/in"));
    notify(&stage, &project["spec"]["notifications"], 7).await;
    let event: Value = serde_json::from_str(&read("event.json")).unwrap();
    let (status, answer) = stage.publish_raw(&event).await;
    assert_eq!(
        (status, &answer["events"][0]["deliveries"]),
        (202, &json!(4)),
        "{answer}"
    );
    let expected = [
        ("ops@example.com", 1),
        ("oncall@example.com", 1),
        ("partner@example.org", 1),
    ];
    assert_eq!(mails(&mut server, 3), told(&expected));
    let body = stage.receiver.wait_for("/in", 1).await[0].json();
    assert_eq!(
        (&body["event_type"], &body["tenant_name"]),
        (&json!("run_failed"), &json!("Globex"))
    );
}
