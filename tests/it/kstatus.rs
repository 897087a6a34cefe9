//! What Flux and its like make of a status: the verdicts of kstatus' reference implementation on objects in each state.
//!
//! They wait for `Current` after they applied an object, and give up at `Failed`.

use serde_json::{Value, json};

use crate::support::{Manner, PROJECT, Stage, condition, kstatus};

const CURRENT: &str = "Current";
const IN_PROGRESS: &str = "InProgress";
const FAILED: &str = "Failed";
const TERMINATING: &str = "Terminating";

/// The verdict on an object as it is now.
#[track_caller]
fn verdict(stage: &Stage, kind: &str, name: &str) -> (String, String) {
    kstatus(&stage.get(kind, name))
}

/// Waits for an object that kstatus judges so; answers its message.
async fn judged(stage: &Stage, kind: &str, name: &str, wanted: &str) -> String {
    let what = format!("{kind}/{name} is {wanted}");
    let object = stage
        .until(kind, name, &what, |object| kstatus(object).0 == wanted)
        .await;
    kstatus(&object).1
}

fn held(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name, "finalizers": ["example.com/hold"]}, "spec": spec,
    })
}

/// Deletes an object that a finalizer holds, and says what kstatus makes of it meanwhile.
fn deleted(stage: &Stage, object: &str) -> String {
    let namespace = stage.namespace.name();
    let kubectl = |args: &[&str]| {
        let all = [&["-n", namespace][..], args].concat();
        stage.cluster.kubectl(&all).ok()
    };
    kubectl(&["delete", object, "--wait=false"]);
    let (kind, name) = object.split_once('/').unwrap();
    let (status, _) = verdict(stage, kind, name);
    let nothing = r#"{"metadata":{"finalizers":null}}"#;
    kubectl(&["patch", object, "--type=merge", "-p", nothing]);
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitops_tool_waits_for_a_destination_until_it_is_in_force_or_needs_a_person() {
    let mut stage = Stage::set("kstatus").await;
    stage.destination("hook", "/hook", &json!({}));
    assert_eq!(verdict(&stage, "ed", "hook").0, CURRENT, "ready");

    stage.apply_destination("hook", "/hook", &json!({"suspend": true}));
    judged(&stage, "ed", "hook", CURRENT).await;
    let is_suspended = |ed: &Value| condition(ed, "Delivering")["reason"] == "Suspended";
    let suspended = stage.until("ed", "hook", "it is suspended", is_suspended).await;
    assert_eq!(kstatus(&suspended).0, CURRENT, "what is suspended was asked for");

    let missing =
        json!({"webhook": {"url": null, "urlFrom": {"secretKeyRef": {"name": "late", "key": "url"}}}});
    stage.apply_destination("late", "/late", &missing);
    let message = judged(&stage, "ed", "late", FAILED).await;
    assert!(
        message.starts_with("spec.webhook.urlFrom: Secret \"late\" does not exist"),
        "{message}"
    );
    let url = stage.receiver.url("/late");
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"url": url},
    }));
    judged(&stage, "ed", "late", CURRENT).await;

    stage.apply_destination(
        "faulty",
        "/",
        &json!({"webhook": {"url": "http://169.254.169.254/"}}),
    );
    let message = judged(&stage, "ed", "faulty", FAILED).await;
    assert!(message.starts_with("spec.webhook.url: "), "{message}");

    // A receiver that is down says nothing of the configuration, until the destination is disabled.
    stage.receiver.answer("/down", Manner::Status(500));
    let patient = json!({"delivery": {"retry": {"schedule": ["50ms"], "maxAttempts": 100}}});
    stage.destination("down", "/down", &patient);
    stage.publish("x", &json!({})).await;
    let is_failing = |ed: &Value| condition(ed, "Delivering")["reason"] == "ServerError";
    let down = stage.until("ed", "down", "the failure shows", is_failing).await;
    assert_eq!(kstatus(&down).0, CURRENT, "the configuration is in force");
    let strict = json!({
        "delivery": {"retry": {"schedule": ["50ms"], "maxAttempts": 100}},
        "autoDisable": {"consecutiveFailures": 3, "minimumDuration": "0s", "probeInterval": "0s"},
    });
    stage.apply_destination("down", "/down", &strict);
    let message = judged(&stage, "ed", "down", FAILED).await;
    assert!(message.starts_with("disabled since "), "{message}");

    stage.apply(&held(
        "EventDestination",
        "held",
        &json!({"events": ["*"], "webhook": {"url": url}}),
    ));
    judged(&stage, "ed", "held", CURRENT).await;
    assert_eq!(deleted(&stage, "ed/held"), TERMINATING);

    // Nobody looks: neither what is new nor what was changed passes for done.
    let (_, settings) = stage.take_operator().stop().await;
    stage.apply_destination("hook", "/changed", &json!({}));
    assert_eq!(verdict(&stage, "ed", "hook").0, IN_PROGRESS, "a new generation");
    stage.apply_destination("new", "/new", &json!({}));
    assert_eq!(verdict(&stage, "ed", "new").0, IN_PROGRESS, "a new object");
    stage.start_again(settings).await;
    for name in ["hook", "new"] {
        judged(&stage, "ed", name, CURRENT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gitops_tool_waits_for_a_project_until_it_takes_events_or_needs_a_person() {
    let mut stage = Stage::set("kstatus").await;
    assert_eq!(verdict(&stage, "eproj", PROJECT).0, CURRENT);

    let project = |name: &str, spec: &Value| {
        json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "EventProject", "metadata": {"name": name}, "spec": spec,
        })
    };
    let faulty = json!({"eventTypes": [{"name": "paid", "schema": {"type": "no such type"}}]});
    stage.apply(&project("faulty", &faulty));
    let message = judged(&stage, "eproj", "faulty", FAILED).await;
    assert!(message.starts_with("spec.eventTypes[0].schema"), "{message}");
    stage.apply(&project("faulty", &json!({"eventTypes": [{"name": "paid"}]})));
    judged(&stage, "eproj", "faulty", CURRENT).await;

    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "taken-publish-token"},
        "stringData": {"token": "somebody-elses-token"},
    }));
    stage.apply(&project("taken", &json!({})));
    let message = judged(&stage, "eproj", "taken", FAILED).await;
    assert!(message.contains("does not belong to this project"), "{message}");

    stage.apply(&held("EventProject", "held", &json!({})));
    judged(&stage, "eproj", "held", CURRENT).await;
    assert_eq!(deleted(&stage, "eproj/held"), TERMINATING);

    let (_, settings) = stage.take_operator().stop().await;
    stage.apply(&project(PROJECT, &json!({"displayName": "Changed"})));
    assert_eq!(
        verdict(&stage, "eproj", PROJECT).0,
        IN_PROGRESS,
        "a new generation"
    );
    stage.apply(&project("new", &json!({})));
    assert_eq!(verdict(&stage, "eproj", "new").0, IN_PROGRESS, "a new object");
    stage.start_again(settings).await;
    for name in [PROJECT, "new"] {
        judged(&stage, "eproj", name, CURRENT).await;
    }
}
