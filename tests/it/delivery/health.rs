//! Failing receivers: auto-disable, probe, re-enable, gone; and what waits meanwhile.

use serde_json::{Value, json};

use crate::support::{Manner, Stage, condition};

/// Disables after three failures without a span; tries again quickly.
fn quick(probe: &str) -> Value {
    json!({
        "delivery": {"timeout": "2s", "maxInFlight": 1, "retry": {"schedule": ["50ms"], "maxAttempts": 100}},
        "autoDisable": {"consecutiveFailures": 3, "minimumDuration": "0s", "probeInterval": probe},
    })
}

fn disabled(ed: &Value) -> bool {
    condition(ed, "Stalled")["status"] == "True"
}

fn recovered(ed: &Value) -> bool {
    condition(ed, "Ready")["status"] == "True" && ed["status"]["delivery"]["pending"] == 0
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_keeps_failing_is_disabled_and_its_events_wait() {
    let mut stage = Stage::set("health").await;
    stage.receiver.answer("/down", Manner::Status(500));
    stage.destination("down", "/down", &quick("0s"));
    stage.publish("x", &json!({"n": 0})).await;
    let ed = stage.until("ed", "down", "it is disabled", disabled).await;
    assert_eq!(condition(&ed, "Ready")["status"], "False");
    assert_eq!(condition(&ed, "Stalled")["reason"], "AutoDisabled");
    assert_eq!(condition(&ed, "Delivering")["status"], "False");
    assert!(ed["status"]["delivery"]["disabledTime"].is_string());
    for n in 1..=5 {
        stage.publish("x", &json!({"n": n})).await;
    }
    let attempts = stage.receiver.received("/down").len();
    assert_eq!(attempts, 3, "nothing is sent while disabled");

    // A restart forgives nothing.
    stage.receiver.answer("/down", Manner::Status(200));
    let settings = stage.take_operator().kill();
    stage.start_again(settings).await;
    let ed = stage
        .until("ed", "down", "six events wait", |ed| {
            ed["status"]["delivery"]["parked"] == 6
        })
        .await;
    assert!(disabled(&ed), "{:#}", ed["status"]);
    assert_eq!(stage.receiver.received("/down").len(), attempts);

    stage
        .cluster
        .kubectl(&[
            "annotate",
            "-n",
            stage.namespace.name(),
            "ed/down",
            "postrider.dev/enable=now",
        ])
        .ok();
    let ed = stage.until("ed", "down", "it recovers", recovered).await;
    assert_eq!(ed["status"]["lastHandledEnable"], "now");
    let mut numbers: Vec<_> = stage.receiver.received("/down")[attempts..]
        .iter()
        .map(|request| request.json()["data"]["n"].as_u64().unwrap())
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5], "everything that waited is sent once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_finds_out_that_the_receiver_works_again() {
    let stage = Stage::set("health").await;
    stage.receiver.answer("/probe", Manner::Status(503));
    stage.destination("probe", "/probe", &quick("1s"));
    for n in 0..10 {
        stage.publish("x", &json!({"n": n})).await;
    }
    stage.until("ed", "probe", "it is disabled", disabled).await;
    stage.receiver.answer("/probe", Manner::Status(200));
    let ed = stage
        .until("ed", "probe", "it recovers by itself", recovered)
        .await;
    assert_eq!(condition(&ed, "Delivering")["status"], "True");
    assert_eq!(
        stage
            .receiver
            .received("/probe")
            .iter()
            .filter(|request| request.accepted)
            .count(),
        10
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_re_enables_at_once() {
    let stage = Stage::set("health").await;
    stage.receiver.answer("/moved", Manner::Status(500));
    stage.destination("moved", "/moved", &quick("0s"));
    stage.publish("x", &json!({})).await;
    stage.until("ed", "moved", "it is disabled", disabled).await;
    stage.apply_destination("moved", "/right", &quick("0s"));
    stage.until("ed", "moved", "it recovers", recovered).await;
    assert_eq!(stage.receiver.received("/right").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_gone_is_left_alone() {
    let stage = Stage::set("health").await;
    stage.receiver.answer("/gone", Manner::Status(410));
    stage.destination("gone", "/gone", &json!({}));
    stage.publish("x", &json!({})).await;
    let ed = stage.until("ed", "gone", "it is disabled", disabled).await;
    assert_eq!(condition(&ed, "Stalled")["reason"], "Gone");
    assert_eq!(condition(&ed, "Delivering")["reason"], "Gone");
    stage.publish("x", &json!({})).await;
    assert_eq!(stage.receiver.received("/gone").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_destination_keeps_its_events_and_sends_them_oldest_first() {
    let stage = Stage::set("health").await;
    stage.destination(
        "hook",
        "/hook",
        &json!({"suspend": true, "delivery": {"maxInFlight": 1}}),
    );
    for n in 0..20 {
        stage.publish("x", &json!({"n": n})).await;
    }
    let ed = stage
        .until("ed", "hook", "twenty wait", |ed| {
            ed["status"]["delivery"]["parked"] == 20
        })
        .await;
    assert_eq!(
        condition(&ed, "Ready")["status"],
        "True",
        "suspended is not broken"
    );
    assert!(stage.receiver.received("/hook").is_empty());
    stage.apply_destination(
        "hook",
        "/hook",
        &json!({"suspend": false, "delivery": {"maxInFlight": 1}}),
    );
    let received = stage.receiver.wait_for("/hook", 20).await;
    let numbers: Vec<_> = received
        .iter()
        .map(|request| request.json()["data"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..20).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_that_is_not_ready_parks_its_events_and_sends_them_when_it_is() {
    let stage = Stage::set("health").await;
    let url_from =
        json!({"webhook": {"url": null, "urlFrom": {"secretKeyRef": {"name": "late", "key": "url"}}}});
    stage.apply_destination("late", "/late", &url_from);
    let ed = stage.until("ed", "late", "the fault shows", disabled).await;
    assert_eq!(condition(&ed, "Ready")["reason"], "ReferenceMissing");
    stage.publish("x", &json!({})).await;
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"},
        "stringData": {"url": stage.receiver.url("/late")},
    }));
    assert_eq!(stage.receiver.wait_for("/late", 1).await.len(), 1);
    stage.until("ed", "late", "it is ready", recovered).await;
}
