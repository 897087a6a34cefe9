//! Secrets that vanish, lose a key or hold what is no text.

use serde_json::{Value, json};

use super::{lines, patient};
use crate::support::{Stage, condition, until};

const NOT_TEXT: &str = "/wD+AYA=";

fn secret(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "place"}, "stringData": data})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_goes_bad_is_told_and_its_events_wait_until_it_is_mended() {
    let stage = Stage::set("secrets").await;
    let good = secret(&json!({"url": stage.receiver.url("/hook")}));
    stage.apply(&good);
    let mut from_secret = patient();
    from_secret["webhook"] =
        json!({"url": null, "urlFrom": {"secretKeyRef": {"name": "place", "key": "url"}}});
    stage.destination("hook", "/", &from_secret);
    stage.destination("well", "/well", &json!({}));
    let mut ids = vec![stage.publish("x", &json!({})).await];
    stage.receiver.wait_for("/hook", 1).await;

    let namespace = stage.namespace.name();
    let patch = |data: &Value| {
        let patch = json!({"data": data}).to_string();
        [
            "patch",
            "secret/place",
            "-n",
            namespace,
            "--type=merge",
            "-p",
            &patch,
        ]
        .map(ToOwned::to_owned)
        .to_vec()
    };
    let vanish = ["delete", "secret/place", "-n", namespace]
        .map(ToOwned::to_owned)
        .to_vec();
    let deeds = [
        (vanish, "ReferenceMissing", "Secret \"place\" does not exist"),
        (
            patch(&json!({"url": null})),
            "ReferenceMissing",
            "has no key \"url\"",
        ),
        (
            patch(&json!({"url": NOT_TEXT})),
            "InvalidSpec",
            "the value is not UTF-8 text",
        ),
        (patch(&json!({"url": ""})), "InvalidSpec", "the value is empty"),
    ];
    for (deed, reason, part) in deeds {
        stage.cluster.kubectl(&deed).ok();
        let is_told = |ed: &Value| {
            condition(ed, "Stalled")["message"]
                .as_str()
                .is_some_and(|text| text.contains(part))
        };
        let ed = stage.until("ed", "hook", part, is_told).await;
        assert_eq!(condition(&ed, "Ready")["reason"], reason, "{part}");
        assert!(!ed["status"].to_string().contains(NOT_TEXT));
        let before = stage.receiver.received("/hook").len();
        ids.push(stage.publish("x", &json!({})).await);
        stage.receiver.wait_for("/well", ids.len()).await;
        assert_eq!(stage.receiver.received("/hook").len(), before, "{part}: it waits");
        assert!(stage.operator().metric("postrider_parked").await > 0.0, "{part}");
        // Log and metric come behind the status.
        let is_logged = || {
            let told = lines(&stage, "object.name", "hook");
            let is_right = |line: &Value| line["detail"].as_str().is_some_and(|text| text.contains(part));
            told.iter().any(|line| line["reason"] == reason && is_right(line))
        };
        until(is_logged).await;
        let metric = format!("postrider_notices_total{{kind=\"EventDestination\",reason=\"{reason}\"}}");
        assert!(stage.operator().metric(&metric).await > 0.0, "{metric}");

        stage.apply(&good);
        stage.receiver.wait_for("/hook", ids.len()).await;
        let is_well =
            |ed: &Value| condition(ed, "Ready")["status"] == "True" && condition(ed, "Stalled").is_null();
        stage.until("ed", "hook", "it is mended", is_well).await;
    }
    let received = stage.receiver.received("/hook");
    let arrived: Vec<_> = received
        .iter()
        .map(|request| request.header("webhook-id"))
        .collect();
    assert_eq!(arrived, ids, "everything arrived once");
}
