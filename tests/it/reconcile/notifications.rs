//! The destinations that a project's notifications stand for.

use std::time::Duration;

use serde_json::{Value, json};

use super::operator::{Operator, Playground, SOON, condition, truth, uid};
use crate::support::eventually;

/// Applies the project with these notifications.
fn notify(ground: &Playground, notifications: &Value) {
    let project = json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventProject", "metadata": {"name": "acme"},
        "spec": {"notifications": notifications},
    });
    ground.apply(&project.to_string());
}

/// Waits until the project's status names so many children; returns their names.
async fn children(ground: &Playground, count: usize) -> Vec<String> {
    eventually(&format!("{count} children"), SOON, async || {
        let project = ground.project("acme").await;
        let told = project["status"]["notifications"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let current = project["status"]["observedGeneration"] == project["metadata"]["generation"];
        if told.len() == count && current {
            let names = told
                .iter()
                .map(|child| child["name"].as_str().unwrap().to_owned());
            Ok(names.collect())
        } else {
            Err(format!("{:#}", project["status"]))
        }
    })
    .await
}

/// All destinations of the namespace, as name and uid.
fn destinations(ground: &Playground) -> Vec<(String, String)> {
    let query = "jsonpath={range .items[*]}{.metadata.name} {.metadata.uid}{\"\\n\"}{end}";
    let listed = ground.kubectl(&["get", "ed", "-o", query]).ok();
    let pairs = listed.lines().filter_map(|line| line.split_once(' '));
    pairs
        .map(|(name, uid)| (name.to_owned(), uid.to_owned()))
        .collect()
}

fn contacts() -> Value {
    json!({
        "ownerEmail": "dev@acme.example",
        "primaryContact": ["ops@acme.example"],
        "webhook": {"url": "https://hooks.acme.example/in"},
        "events": [
            {"type": "run_failed", "sendWebhook": true, "emailSubscribers": "a@x.example, b@x.example"},
        ],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_become_destinations_that_go_with_the_project() {
    let ground = Playground::new("notify").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    notify(&ground, &contacts());
    let names = children(&ground, 5).await;
    assert!(names.contains(&"acme-owner".to_owned()), "{names:?}");
    let project = ground.project("acme").await;
    let webhook = ground.destination("acme-webhook").await;
    assert_eq!(webhook["spec"]["events"], json!(["run_failed"]));
    assert_eq!(webhook["spec"]["webhook"]["payload"], json!({"format": "Flat"}));
    assert_eq!(
        webhook["metadata"]["labels"]["postrider.dev/notification"],
        "webhook"
    );
    let owner = &webhook["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"]),
        (&json!("EventProject"), &project["metadata"]["uid"])
    );
    let selected = ground
        .kubectl(&[
            "get",
            "ed",
            "-l",
            "postrider.dev/notification=subscriber",
            "-o",
            "name",
        ])
        .ok();
    assert_eq!(selected.lines().count(), 2, "{selected}");

    ground.kubectl(&["delete", "eproj/acme"]).ok();
    eventually(
        "the children are collected",
        Duration::from_secs(30),
        async || {
            let left = destinations(&ground);
            if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            }
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_touches_its_own_child_and_no_other() {
    let ground = Playground::new("notify").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    notify(&ground, &contacts());
    children(&ground, 5).await;
    let before = destinations(&ground);

    let mut changed = contacts();
    changed["events"][0]["emailSubscribers"] = json!(["b@x.example", "c@x.example", "d@x.example"]);
    notify(&ground, &changed);
    children(&ground, 6).await;
    let after = destinations(&ground);
    let kept = before.iter().filter(|one| after.contains(one)).count();
    assert_eq!(
        (kept, after.len()),
        (4, 6),
        "one went, two came: {before:?} {after:?}"
    );

    // A restart, and a change of something else, touch none.
    operator.stop().await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    ground
        .kubectl(&[
            "patch",
            "eproj/acme",
            "--type=merge",
            "-p",
            r#"{"spec":{"displayName":"New"}}"#,
        ])
        .ok();
    children(&ground, 6).await;
    assert_eq!(destinations(&ground), after);

    notify(&ground, &json!({}));
    children(&ground, 0).await;
    assert!(destinations(&ground).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_that_somebody_changed_or_deleted_is_put_back() {
    let ground = Playground::new("notify").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    notify(&ground, &contacts());
    children(&ground, 5).await;
    let edit = r#"{"spec":{"events":["*"],"delivery":{"timeout":"1s"}}}"#;
    ground
        .kubectl(&["patch", "ed/acme-webhook", "--type=merge", "-p", edit])
        .ok();
    ground
        .await_destination("acme-webhook", "put back", |ed| {
            ed["spec"]["events"] == json!(["run_failed"]) && ed["spec"]["delivery"]["timeout"] == Value::Null
        })
        .await;
    eventually("an Event says so", SOON, async || {
        let query = "jsonpath={range .items[*]}{.reason} {.regarding.name} {.note}{\"\\n\"}{end}";
        let told = ground.kubectl(&["get", "events.events.k8s.io", "-o", query]).ok();
        let line = told
            .lines()
            .find(|line| line.starts_with("PutBack acme-webhook "));
        line.map(ToOwned::to_owned).ok_or(told)
    })
    .await;
    let first = uid(&ground.destination("acme-owner").await);
    ground.kubectl(&["delete", "ed/acme-owner"]).ok();
    ground
        .await_destination("acme-owner", "made again", |ed| {
            ed["metadata"]["uid"].as_str().is_some_and(|uid| uid != first)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_child_is_paused_by_an_annotation() {
    let ground = Playground::new("notify").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    notify(&ground, &contacts());
    children(&ground, 5).await;
    for (value, suspended) in [("true", json!(true)), ("false", Value::Null)] {
        let annotation = format!("postrider.dev/suspend={value}");
        ground
            .kubectl(&["annotate", "--overwrite", "ed/acme-webhook", &annotation])
            .ok();
        ground
            .await_destination("acme-webhook", value, |ed| ed["spec"]["suspend"] == suspended)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_object_of_the_name_is_a_fault_and_never_touched() {
    let ground = Playground::new("notify").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&super::destination("acme-webhook", super::HOOK));
    let foreign = ground
        .await_destination("acme-webhook", "there", |ed| ed["metadata"]["uid"].is_string())
        .await;
    notify(&ground, &contacts());
    let stalled = |project: &Value| truth(project, "Stalled") == "True";
    eventually("the clash is told", SOON, async || {
        let project = ground.project("acme").await;
        let message = condition(&project, "Ready")["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if stalled(&project) && message.contains("\"acme-webhook\" exists") {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;
    children(&ground, 4).await;
    let now = ground.destination("acme-webhook").await;
    assert_eq!(
        (&now["spec"], &now["metadata"]["uid"]),
        (&foreign["spec"], &foreign["metadata"]["uid"])
    );
    // It heals when the name is free.
    ground.kubectl(&["delete", "ed/acme-webhook"]).ok();
    ground
        .kubectl(&["annotate", "eproj/acme", "postrider.dev/reconcile=1"])
        .ok();
    children(&ground, 5).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faulty_notifications_change_nothing_and_stop_no_publishing() {
    let ground = Playground::new("notify").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    notify(&ground, &contacts());
    children(&ground, 5).await;
    let before = destinations(&ground);
    let mut faulty = contacts();
    faulty["events"][0]["emailSubscribers"] = json!("a@x.example, nonsense");
    notify(&ground, &faulty);
    eventually("the fault is told", SOON, async || {
        let project = ground.project("acme").await;
        let message = condition(&project, "Ready")["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if message.contains("spec.notifications.events[0].emailSubscribers") {
            Ok(())
        } else {
            Err(message)
        }
    })
    .await;
    assert_eq!(destinations(&ground), before);
    let key = postrider::domain::id::ObjectKey::new(ground.name(), "acme");
    assert!(operator.directory.project(&key).unwrap().token.known().is_some());
}
