//! What an answer means, and how many requests are made in a time.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Manner, Stage, condition};

#[tokio::test(flavor = "multi_thread")]
async fn answers_mean_what_the_destination_says() {
    let stage = Stage::set("answers").await;
    stage.receiver.answer("/has-it", Manner::Status(409));
    stage.receiver.answer("/refuses", Manner::Status(422));
    let delivery = json!({"delivery": {
        "success": ["2xx", "409"],
        "retry": {"schedule": ["50ms"], "maxAttempts": 9, "retryOn": ["408", "429", "5xx"], "giveUpOn": ["4xx"]},
    }});
    stage.destination("has-it", "/has-it", &delivery);
    stage.destination("refuses", "/refuses", &delivery);
    stage.publish("x", &json!({})).await;
    let told = |name, field: &'static str| {
        let told = move |ed: &serde_json::Value| ed["status"]["delivery"][field] == 1;
        stage.until("ed", name, "it is told", told)
    };
    let ed = told("has-it", "delivered").await;
    assert_eq!(condition(&ed, "Delivering")["status"], "True");
    told("refuses", "exhausted").await;
    assert_eq!(stage.receiver.received("/refuses").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_rule_is_told_with_its_place() {
    let stage = Stage::set("answers").await;
    let delivery =
        json!({"delivery": {"success": ["299-200"], "retry": {"retryOn": ["Timeout", "599-500"]}}});
    stage.apply_destination("hook", "/hook", &delivery);
    let stalled = |ed: &serde_json::Value| condition(ed, "Stalled")["status"] == "True";
    let ed = stage.until("ed", "hook", "the fault shows", stalled).await;
    let message = condition(&ed, "Ready")["message"].as_str().unwrap();
    for part in [
        "spec.delivery.success[0]: the range ends before it begins",
        "spec.delivery.retry.retryOn[1]: the range ends before it begins",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_is_kept_and_shown() {
    let stage = Stage::set("rate").await;
    let rate = json!({"delivery": {"rateLimit": {"events": 5, "per": "1s", "burst": 2}}});
    stage.destination("hook", "/hook", &rate);
    let started = Instant::now();
    for n in 0..12 {
        stage.publish("x", &json!({"n": n})).await;
    }
    stage.receiver.wait_for("/hook", 12).await;
    // Two at once and ten more at five a second.
    assert!(
        started.elapsed() >= Duration::from_millis(1900),
        "{:?}",
        started.elapsed()
    );
    let waits = stage
        .operator()
        .metric("postrider_policy_waits_total{reason=\"RateLimit\"}")
        .await;
    assert!(waits >= 1.0, "{waits}");

    let slow = json!({"delivery": {"rateLimit": {"events": 1, "per": "24h"}}});
    stage.destination("slow", "/slow", &slow);
    for n in 0..2 {
        stage.publish("x", &json!({"n": n})).await;
    }
    let waits = |ed: &serde_json::Value| ed["status"]["delivery"]["waitingFor"] == "RateLimit";
    let ed = stage.until("ed", "slow", "what it waits for shows", waits).await;
    assert!(ed["status"]["delivery"]["nextAttemptTime"].is_string());
    assert_eq!(stage.receiver.received("/slow").len(), 1);
}
