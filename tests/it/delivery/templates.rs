//! Templates from ConfigMaps, end to end.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Received, Stage, condition, eventually};

const KEY: &str = "body.json";
const BINARY: &str = "/wD+AYA=";

fn config_map(stage: &Stage, template: &str) {
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "templates"}, "data": {KEY: template},
    }));
}

fn template(title: &str) -> String {
    json!({"title": title, "n": "{{ $.event.data.n }}"}).to_string()
}

/// The request for an event.
async fn arrived(stage: &Stage, id: &str) -> Received {
    eventually("the event arrives", Duration::from_secs(20), || {
        let mut received = stage.receiver.received("/hook").into_iter();
        let found = received.find(|request| request.header("webhook-id") == id);
        std::future::ready(found.ok_or("not yet"))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_in_a_config_map_counts_within_seconds_and_a_spoilt_one_is_a_fault() {
    let stage = Stage::set("templates").await;
    config_map(&stage, &template("first"));
    let source = json!({"configMapKeyRef": {"name": "templates", "key": KEY}});
    stage.destination(
        "hook",
        "/hook",
        &json!({"webhook": {"payload": {"templateFrom": source}}}),
    );
    let id = stage.publish("x", &json!({"n": 7})).await;
    let request = arrived(&stage, &id).await;
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.json(), json!({"title": "first", "n": 7}));

    config_map(&stage, &template("second"));
    eventually("the new template counts", Duration::from_secs(5), async || {
        let id = stage.publish("x", &json!({"n": 8})).await;
        let body = arrived(&stage, &id).await.json();
        if body == json!({"title": "second", "n": 8}) {
            Ok(())
        } else {
            Err(body)
        }
    })
    .await;

    let namespace = stage.namespace.name();
    let patch = |data: &Value| {
        let patch = data.to_string();
        let words = [
            "patch",
            "configmap/templates",
            "-n",
            namespace,
            "--type=merge",
            "-p",
            &patch,
        ];
        words.map(ToOwned::to_owned).to_vec()
    };
    let vanish = ["delete", "configmap/templates", "-n", namespace]
        .map(ToOwned::to_owned)
        .to_vec();
    let held = |fault: &str| format!("ConfigMap \"templates\" key \"{KEY}\": {fault}");
    for (deed, reason, part) in [
        (
            vanish.clone(),
            "ReferenceMissing",
            "ConfigMap \"templates\" does not exist".to_owned(),
        ),
        (
            patch(&json!({"data": {KEY: null}})),
            "ReferenceMissing",
            format!("ConfigMap \"templates\" has no key \"{KEY}\""),
        ),
        (
            patch(&json!({"data": {KEY: null}, "binaryData": {KEY: BINARY}})),
            "InvalidSpec",
            held("a template is UTF-8 text"),
        ),
        (
            patch(&json!({"data": {KEY: ""}})),
            "InvalidSpec",
            held("the template is empty"),
        ),
        (
            patch(&json!({"data": {KEY: "{"}})),
            "InvalidSpec",
            held("this is no JSON"),
        ),
        (
            patch(&json!({"data": {KEY: template("{{ $.event.tpe }}")}})),
            "InvalidSpec",
            held("title: "),
        ),
    ] {
        stage.cluster.kubectl(&deed).ok();
        let told = format!("spec.webhook.payload.templateFrom: {part}");
        let is_told = |ed: &Value| {
            condition(ed, "Stalled")["message"]
                .as_str()
                .is_some_and(|text| text.contains(&told))
        };
        let ed = stage.until("ed", "hook", &told, is_told).await;
        assert_eq!(condition(&ed, "Ready")["reason"], reason, "{part}");
        let id = stage.publish("x", &json!({"n": 9})).await;
        // What is binary cannot become text by an apply.
        stage.cluster.kubectl(&vanish);
        config_map(&stage, &template("mended"));
        let body = arrived(&stage, &id).await.json();
        assert_eq!(
            body,
            json!({"title": "mended", "n": 9}),
            "what waited is sent: {part}"
        );
    }
}
