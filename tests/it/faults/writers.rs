//! Others who write to the same objects all the time.

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
