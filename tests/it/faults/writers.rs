//! Others who write to the same objects all the time.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams};
use postrider::api::v1alpha1::EventDestination;
use serde_json::{Value, json};

use super::{assert_each_attempt_is_told_once, attempts};
use crate::support::{Stage, condition};

/// How often each of the others writes.
const WRITES: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_others_writes_loses_nothing_and_is_not_answered_with_another() {
    let stage = Stage::set("storm").await;
    stage.destination("hook", "/hook", &json!({}));
    let api: Api<EventDestination> = stage.namespace.api();
    let params = PatchParams::default();
    let labels = async {
        for number in 0..WRITES {
            let labels = json!({"metadata": {"labels": {"storm": number.to_string()}, "annotations": {"n": number.to_string()}}});
            api.patch("hook", &params, &Patch::Merge(&labels)).await.unwrap();
        }
    };
    let statuses = async {
        for number in 0..WRITES {
            let theirs = json!({"status": {"observedGeneration": 0, "endpoint": format!("nowhere-{number}"), "conditions": [{
                "type": "Ready", "status": "False", "reason": "Stormy", "message": "not ours",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]}});
            api.patch_status("hook", &params, &Patch::Merge(&theirs))
                .await
                .unwrap();
        }
    };
    let publishing = async {
        let mut ids = Vec::new();
        for _ in 0..30 {
            ids.push(stage.publish("x", &json!({})).await);
            stage.receiver.wait_for("/hook", ids.len()).await;
        }
        ids
    };
    let ((), (), ids) = tokio::join!(labels, statuses, publishing);
    let writes = stage
        .operator()
        .metric("postrider_status_writes_total{kind=\"EventDestination\"}")
        .await;
    assert!(writes < 40.0, "{writes} of our own writes");

    let is_right = |ed: &Value| {
        ed["status"]["delivery"]["delivered"] == ids.len()
            && condition(ed, "Ready")["status"] == "True"
            && condition(ed, "Delivering")["status"] == "True"
            && ed["status"]["observedGeneration"] == ed["metadata"]["generation"]
            && ed["status"]["endpoint"] == stage.receiver.url("")
    };
    stage
        .until("ed", "hook", "the status is ours again", is_right)
        .await;
    assert_each_attempt_is_told_once(&attempts(&stage, "hook"), &ids);
    assert_eq!(stage.receiver.received("/hook").len(), ids.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_rotate_once_while_somebody_writes_to_their_secret_all_the_time() {
    let stage = Stage::set("storm").await;
    stage.destination("hook", "/hook", &json!({"delivery": {"timeout": "1s"}}));
    let before = stage.secret("hook-signing", "secret").await;
    let api: Api<Secret> = stage.namespace.api();
    let destinations: Api<EventDestination> = stage.namespace.api();
    let params = PatchParams::default();
    let request = json!({"metadata": {"annotations": {"postrider.dev/rotate-secret": "a"}}});
    destinations
        .patch("hook", &params, &Patch::Merge(&request))
        .await
        .unwrap();
    // Until the rotation has begun and for as long after: most of our writes meet one of theirs.
    for number in 0..WRITES {
        let theirs = json!({"metadata": {"labels": {"storm": number.to_string()}}});
        api.patch("hook-signing", &params, &Patch::Merge(&theirs))
            .await
            .unwrap();
    }
    let is_answered = |ed: &Value| ed["status"]["lastHandledRotateSecret"] == "a";
    let ed = stage
        .until("ed", "hook", "the request is answered", is_answered)
        .await;
    assert_eq!(ed["status"]["lastRotation"]["reason"], "Rotated");
    let after = stage.secret("hook-signing", "secret").await;
    assert_ne!(after, before);
    let secret = api.get("hook-signing").await.unwrap();
    let last = (WRITES - 1).to_string();
    assert_eq!(secret.metadata.labels.unwrap().get("storm"), Some(&last));
    stage.publish("x", &json!({})).await;
    let received = stage.receiver.wait_for("/hook", 1).await;
    let signatures = received[0].header("webhook-signature").split(' ').count();
    assert_eq!(signatures, 2, "the new key and the one before it");
}
