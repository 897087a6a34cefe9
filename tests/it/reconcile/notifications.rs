//! The destinations that a project's notifications stand for.

use std::sync::Arc;
use std::task::{self, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::operator::{Operator, Playground, SOON, condition, ready, truth, uid};
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
    children_within(ground, count, SOON).await
}

async fn children_within(ground: &Playground, count: usize, limit: Duration) -> Vec<String> {
    eventually(&format!("{count} children"), limit, async || {
        let project = ground.project("acme").await;
        let told = project["status"]["notifications"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let current = project["status"]["observedGeneration"] == project["metadata"]["generation"];
        if told.len() == count && current {
            let names = told.iter().map(|child| child.as_str().unwrap().to_owned());
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
    let operator = Operator::start(&ground.namespace).synced().await;
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

    // What is changed while nobody looks is caught up with.
    operator.stop().await;
    changed["events"][0]["emailSubscribers"] = json!("b@x.example, e@x.example");
    notify(&ground, &changed);
    let _operator = Operator::start(&ground.namespace).synced().await;
    children(&ground, 5).await;
    let now = destinations(&ground);
    let kept = after.iter().filter(|one| now.contains(one)).count();
    assert_eq!((kept, now.len()), (4, 5), "two went, one came: {after:?} {now:?}");

    notify(&ground, &json!({}));
    children(&ground, 0).await;
    assert!(destinations(&ground).is_empty());
}

/// The Events about a child that was put back.
fn put_back(ground: &Playground, name: &str) -> Vec<Value> {
    let told = ground
        .kubectl(&["get", "events.events.k8s.io", "-o", "json"])
        .ok();
    let told: Value = serde_json::from_str(&told).unwrap();
    let is_it = |event: &&Value| event["reason"] == "PutBack" && event["regarding"]["name"] == name;
    told["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(is_it)
        .cloned()
        .collect()
}

/// Waits until an Event says that a child was put back.
async fn await_put_back(ground: &Playground, name: &str) -> Value {
    eventually("an Event says so", SOON, async || {
        let told = put_back(ground, name);
        told.first().cloned().ok_or(format!("{told:?}"))
    })
    .await
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
    let event = await_put_back(&ground, "acme-webhook").await;
    let note = event["note"].as_str().unwrap();
    assert!(
        note.contains("spec.notifications of EventProject \"acme\" decides it"),
        "{note}"
    );
    // A label that is gone is put back, too, and so is a pause that is not asked for by annotation.
    ground
        .kubectl(&["label", "ed/acme-webhook", "postrider.dev/notification-"])
        .ok();
    ground
        .await_destination("acme-webhook", "labelled again", |ed| {
            ed["metadata"]["labels"]["postrider.dev/notification"] == "webhook"
        })
        .await;
    let pause = r#"{"spec":{"suspend":true}}"#;
    ground
        .kubectl(&["patch", "ed/acme-primary-contact", "--type=merge", "-p", pause])
        .ok();
    await_put_back(&ground, "acme-primary-contact").await;
    let contact = ground.destination("acme-primary-contact").await;
    assert_eq!(contact["spec"]["suspend"], Value::Null);
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
    // Events are told in order, so that none about the annotation can follow this one.
    let pause = r#"{"spec":{"suspend":true}}"#;
    ground
        .kubectl(&["patch", "ed/acme-webhook", "--type=merge", "-p", pause])
        .ok();
    let event = await_put_back(&ground, "acme-webhook").await;
    assert_eq!(
        (put_back(&ground, "acme-webhook").len(), &event["series"]),
        (1, &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_that_is_made_again_has_children_of_its_own() {
    let ground = Playground::new("notify").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    notify(&ground, &contacts());
    children(&ground, 5).await;
    let before = destinations(&ground);
    ground.kubectl(&["delete", "eproj/acme"]).ok();
    notify(&ground, &contacts());
    // The controller manager removes what was left over, in its own time.
    children_within(&ground, 5, Duration::from_secs(30)).await;
    let after = destinations(&ground);
    assert_eq!(after.len(), 5);
    assert!(
        after.iter().all(|one| !before.contains(one)),
        "{before:?} {after:?}"
    );
    let project = ground.project("acme").await;
    let child = ground.destination("acme-webhook").await;
    assert_eq!(
        child["metadata"]["ownerReferences"][0]["uid"],
        project["metadata"]["uid"]
    );
}

/// A client that notes what it is asked to write.
#[derive(Clone)]
struct Noting {
    client: kube::Client,
    writes: Arc<Mutex<Vec<String>>>,
    /// How many of the next PUTs are overtaken by another writer.
    overtaken: Arc<Mutex<u32>>,
}

impl Noting {
    fn new(client: kube::Client, overtaken: u32) -> Self {
        Self {
            client,
            writes: Arc::default(),
            overtaken: Arc::new(Mutex::new(overtaken)),
        }
    }

    /// Changes an object so that a write that has read it before is a conflict.
    async fn overtake(client: &kube::Client, path: &str, count: u32) {
        let label = json!({"metadata": {"labels": {"overtaken": count.to_string()}}});
        let request = http::Request::patch(path)
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(&label).unwrap())
            .unwrap();
        client.request::<Value>(request).await.unwrap();
    }
}

impl tower_service::Service<http::Request<Body>> for Noting {
    type Response = http::Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut task::Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.method() != http::Method::GET {
            let write = format!("{} {}", request.method(), request.uri());
            self.writes.lock().push(write);
        }
        let client = self.client.clone();
        let count = *self.overtaken.lock();
        let is_overtaken = request.method() == http::Method::PUT && count > 0;
        if is_overtaken {
            *self.overtaken.lock() -= 1;
        }
        Box::pin(async move {
            if is_overtaken {
                Self::overtake(&client, request.uri().path(), count).await;
            }
            client.send(request).await
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hundreds_of_subscribers_are_made_once_and_left_alone() {
    let ground = Playground::new("notify").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    let subscribers: Vec<_> = (0..256).map(|n| format!("user{n}@x.example")).collect();
    let mut spec = contacts();
    spec["events"][0]["emailSubscribers"] = json!(subscribers.join(", "));
    notify(&ground, &spec);
    let limit = Duration::from_secs(60);
    children_within(&ground, 259, limit).await;
    eventually("all are looked at", limit, async || {
        let query = "jsonpath={range .items[*]}{.status.observedGeneration}{\"\\n\"}{end}";
        let listed = ground.kubectl(&["get", "ed", "-o", query]).ok();
        let count = listed.lines().filter(|line| !line.is_empty()).count();
        if count == 259 {
            Ok(())
        } else {
            Err(count.to_string())
        }
    })
    .await;
    operator.stop().await;
    let before = destinations(&ground);

    // A restart and every further look at the project cost no write but the echo of the request.
    let noting = Noting::new(ground.namespace.client(), 0);
    let writes = Arc::clone(&noting.writes);
    let client = kube::Client::new(noting, ground.name());
    let _operator = Operator::start_with(client, Some(ground.name()), Duration::from_secs(30))
        .synced()
        .await;
    for request in ["1", "2", "3"] {
        let annotation = format!("postrider.dev/reconcile={request}");
        ground
            .kubectl(&["annotate", "--overwrite", "eproj/acme", &annotation])
            .ok();
        eventually("the request is handled", SOON, async || {
            let project = ground.project("acme").await;
            if project["status"]["lastHandledReconcileAt"] == request && ready(&project) {
                Ok(())
            } else {
                Err(format!("{:#}", project["status"]["conditions"]))
            }
        })
        .await;
    }
    let writes = writes.lock().clone();
    let others = writes
        .iter()
        .filter(|write| !write.contains("/eventprojects/acme/status"))
        .count();
    assert_eq!((others, writes.len()), (0, 3), "{writes:#?}");
    assert_eq!(destinations(&ground), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_another_one_overtakes_is_tried_again() {
    let ground = Playground::new("notify").await;
    let noting = Noting::new(ground.namespace.client(), 4);
    let writes = Arc::clone(&noting.writes);
    let client = kube::Client::new(noting, ground.name());
    let _operator = Operator::start_with(client, Some(ground.name()), Duration::from_secs(30))
        .synced()
        .await;
    notify(&ground, &contacts());
    children(&ground, 5).await;
    let edit = r#"{"spec":{"events":["*"]}}"#;
    ground
        .kubectl(&["patch", "ed/acme-webhook", "--type=merge", "-p", edit])
        .ok();
    // Three tries, and then a look at the project as a whole.
    let webhook = ground
        .await_destination("acme-webhook", "put back", |ed| {
            ed["spec"]["events"] == json!(["run_failed"])
        })
        .await;
    assert_eq!(
        webhook["metadata"]["labels"]["overtaken"], "1",
        "what others set stays"
    );
    await_put_back(&ground, "acme-webhook").await;
    assert_eq!(put_back(&ground, "acme-webhook").len(), 1);
    let puts = writes
        .lock()
        .iter()
        .filter(|write| write.starts_with("PUT "))
        .count();
    assert_eq!(puts, 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_told_and_publishing_goes_on() {
    let ground = Playground::new("notify").await;
    let user = format!("{}-operator", ground.name());
    let allow = |group: &str, resources: Value, verbs: Value| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let grant = |verbs: Value| {
        let role = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "operator"},
            "rules": [
                allow("postrider.dev", json!(["eventprojects", "eventdestinations"]), json!(["get", "list", "watch"])),
                allow("postrider.dev", json!(["eventprojects/status", "eventdestinations/status"]), json!(["patch"])),
                allow("", json!(["secrets"]), json!(["get", "list", "watch", "create", "patch"])),
                allow("events.k8s.io", json!(["events"]), json!(["create", "patch"])),
                allow("postrider.dev", json!(["eventdestinations"]), verbs),
            ],
        });
        ground.apply(&role.to_string());
    };
    grant(json!(["get"]));
    ground
        .kubectl(&[
            "create",
            "rolebinding",
            "operator",
            "--role=operator",
            &format!("--user={user}"),
        ])
        .ok();
    let mut config = ground.cluster.config().await;
    config.auth_info.impersonate = Some(user);
    let client = kube::Client::try_from(config).unwrap();
    let operator = Operator::start_with(client, Some(ground.name()), Duration::from_secs(30))
        .synced()
        .await;
    notify(&ground, &contacts());
    let told = async |verb: &str| {
        eventually(&format!("it says that it cannot {verb}"), SOON, async || {
            let project = ground.project("acme").await;
            let message = condition(&project, "Ready")["message"].to_string();
            let says = message.contains(&format!("cannot {verb} EventDestination"))
                && message.contains("install Postrider with rbac.notifications=true");
            if says && truth(&project, "Reconciling") == "True" {
                Ok(())
            } else {
                Err(message)
            }
        })
        .await;
    };
    told("create").await;
    let key = postrider::domain::id::ObjectKey::new(ground.name(), "acme");
    assert!(operator.directory.project(&key).unwrap().token.known().is_some());
    let limit = Duration::from_secs(90);
    grant(json!(["create"]));
    children_within(&ground, 5, limit).await;
    // Without the right to delete, new ones are made all the same.
    let mut changed = contacts();
    changed["events"][0]["emailSubscribers"] = json!("b@x.example, c@x.example");
    notify(&ground, &changed);
    told("delete").await;
    assert_eq!(destinations(&ground).len(), 6);
    grant(json!(["create", "update", "delete"]));
    children_within(&ground, 5, limit).await;
    eventually("it is ready", limit, async || {
        let project = ground.project("acme").await;
        if ready(&project) && destinations(&ground).len() == 5 {
            Ok(())
        } else {
            Err(format!("{:#}", project["status"]))
        }
    })
    .await;
    assert!(
        put_back(&ground, "acme-webhook").is_empty(),
        "nobody changed anything by hand"
    );
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_only_goes_with_the_project_is_left_alone() {
    let ground = Playground::new("notify").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    notify(&ground, &contacts());
    children(&ground, 5).await;
    let project = ground.project("acme").await;
    let owner = json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventProject", "name": "acme",
        "uid": project["metadata"]["uid"],
    });
    let own = json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination",
        "metadata": {"name": "by-hand", "ownerReferences": [owner]},
        "spec": {"events": ["*"], "webhook": {"url": "https://hooks.example.com/in"}},
    });
    ground.apply(&own.to_string());
    ground.await_destination("by-hand", "ready", ready).await;
    notify(&ground, &json!({}));
    children(&ground, 0).await;
    let left: Vec<_> = destinations(&ground).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, ["by-hand"]);
}
