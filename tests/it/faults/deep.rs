//! Objects that nest too deep for the JSON reader: the API server takes them where a schema leaves the depth open.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Stage, condition, eventually};

/// More than the reader's 128.
const DEPTH: usize = 150;

fn nested(inner: &Value, depth: usize) -> Value {
    (0..depth).fold(inner.clone(), |value, _| json!({"a": value}))
}

fn destination(stage: &Stage, template: &Value) -> Value {
    json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination", "metadata": {"name": "deep"},
        "spec": {"events": ["*"], "webhook": {"url": stage.receiver.url("/deep"), "payload": {"template": template}}},
    })
}

/// Waits until the object is refused; what is said.
async fn refused(stage: &Stage, kind: &str) -> String {
    // What the object holds is too deep for this program, too.
    let form = "jsonpath={.metadata.generation} {.status}";
    let get = ["get", "-n", stage.namespace.name(), kind, "deep", "-o", form];
    eventually("it is refused", Duration::from_secs(20), async || {
        let told = stage.cluster.kubectl(&get).ok();
        let (generation, status) = told.split_once(' ').ok_or("no status")?;
        let object = json!({"status": serde_json::from_str::<Value>(status).unwrap_or_default()});
        let ready = condition(&object, "Ready");
        let is_new = object["status"]["observedGeneration"].as_i64() == generation.parse().ok();
        match ready["message"].as_str() {
            Some(message) if is_new && ready["reason"] == "InvalidSpec" => Ok(message.to_owned()),
            _ => Err(told),
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_nests_too_deep_is_refused_by_name_and_stops_nobody_else() {
    let mut stage = Stage::set("deep").await;
    stage.destination("well", "/well", &json!({}));
    stage.apply(&destination(&stage, &json!({"a": "shallow"})));
    stage.wait_ready("ed", "deep");

    // A change of an object that is known.
    let namespace = stage.namespace.name().to_owned();
    let change =
        json!({"spec": {"webhook": {"payload": {"template": nested(&json!("x"), DEPTH)}}}}).to_string();
    let patch = [
        "patch",
        "-n",
        &namespace,
        "ed/deep",
        "--type=merge",
        "-p",
        &change,
    ];
    stage.cluster.kubectl(&patch).ok();
    let message = refused(&stage, "ed").await;
    assert!(
        message.contains("spec.webhook.payload.template") && message.contains("nests"),
        "{message}"
    );
    let schema = json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventProject", "metadata": {"name": "deep"},
        "spec": {"eventTypes": [
            {"name": "a", "schema": nested(&json!({}), DEPTH)},
            {"name": "b", "example": nested(&json!({}), DEPTH)},
        ]},
    });
    stage.apply(&schema);
    let message = refused(&stage, "eproj").await;
    assert!(
        message.contains("[0].schema") && message.contains("[1].example"),
        "{message}"
    );

    // A list that holds them.
    let settings = stage.take_operator().kill();
    stage.start_again(settings).await;
    let id = stage.publish("x", &json!({})).await;
    let received = stage.receiver.wait_for("/well", 1).await;
    assert_eq!(received[0].header("webhook-id"), id);
    stage.destination("late", "/late", &json!({}));

    // The events that waited for it go out once it is mended.
    stage.apply(&destination(&stage, &json!({"a": "shallow"})));
    stage.wait_ready("ed", "deep");
    assert_eq!(stage.receiver.wait_for("/deep", 1).await.len(), 1);
}
