//! Several events in one request: one signature, one id over failures, and nothing lost over a kill.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::delivery::signing::verdict;
use crate::support::{Manner, Received, Stage};

fn numbered(numbers: std::ops::Range<u32>) -> Value {
    let events: Vec<_> = numbers.map(|n| json!({"type": "x", "data": {"n": n}})).collect();
    json!(events)
}

fn numbers(request: &Received) -> Vec<u64> {
    let body = request.json();
    let events = body.as_array().unwrap().iter();
    events.map(|event| event["data"]["n"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_signed_request_and_the_same_again_after_a_failure() {
    let stage = Stage::set("batch").await;
    stage.receiver.answer("/hook", Manner::Status(500));
    let batch = json!({"delivery": {
        "batch": {"maxEvents": 5, "maxWait": "1s"}, "retry": {"schedule": ["300ms"], "maxAttempts": 100},
    }});
    stage.destination("hook", "/hook", &batch);
    let secret = stage.secret("hook-signing", "secret").await;
    assert_eq!(stage.publish_raw(&numbered(0..12)).await.0, 202);
    stage.receiver.wait_for("/hook", 6).await;
    stage.receiver.answer("/hook", Manner::Status(200));
    let is_done = |ed: &Value| ed["status"]["delivery"]["delivered"] == 12;
    let ed = stage.until("ed", "hook", "all are delivered", is_done).await;
    assert_eq!(ed["status"]["delivery"]["exhausted"], 0);
    let requests = stage.receiver.received("/hook");
    let mut accepted = BTreeSet::new();
    for request in &requests {
        assert_eq!(verdict(request, &secret), Ok(()));
        let held = numbers(request);
        assert_eq!(request.header("x-postrider-batch-size"), held.len().to_string());
        let same = requests
            .iter()
            .filter(|other| other.header("webhook-id") == request.header("webhook-id"));
        assert!(
            same.map(numbers).all(|other| other == held),
            "an id stands for its events"
        );
        if request.accepted {
            for number in held {
                assert!(accepted.insert(number), "{number} is delivered once");
            }
        }
    }
    assert_eq!(accepted, (0..12).collect());
    let sizes: Vec<_> = requests
        .iter()
        .filter(|one| one.accepted)
        .map(|one| numbers(one).len())
        .collect();
    assert_eq!((sizes.len(), sizes.iter().max()), (3, Some(&5)), "{sizes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_others_survives_a_kill_and_cloud_events_are_a_batch() {
    let mut stage = Stage::set("batch-kill").await;
    let batch = json!({
        "webhook": {"url": stage.receiver.url("/hook"), "payload": {"format": "CloudEvent"}},
        "delivery": {"batch": {"maxEvents": 100, "maxWait": "10s"}},
    });
    stage.destination("hook", "/hook", &batch);
    assert_eq!(stage.publish_raw(&numbered(0..3)).await.0, 202);
    let settings = stage.take_operator().kill();
    assert_eq!(stage.receiver.received("/hook").len(), 0, "they wait");
    stage.start_again(settings).await;
    assert_eq!(stage.publish_raw(&numbered(3..5)).await.0, 202);
    let is_done = |ed: &Value| ed["status"]["delivery"]["delivered"] == 5;
    stage.receiver.wait_for("/hook", 1).await;
    stage.until("ed", "hook", "all are delivered", is_done).await;
    let mut found = BTreeSet::new();
    for request in stage.receiver.received("/hook") {
        assert_eq!(
            request.header("content-type"),
            "application/cloudevents-batch+json"
        );
        for event in request.json().as_array().unwrap() {
            assert_eq!(event["specversion"], "1.0");
            found.insert(event["data"]["n"].as_u64().unwrap());
        }
    }
    assert_eq!(found, (0..5).collect());
}
