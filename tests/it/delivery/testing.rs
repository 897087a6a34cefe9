//! Test sends: an annotation asks, the status answers.

use serde_json::{Value, json};

use crate::support::{Manner, Stage, condition};

fn annotate(stage: &Stage, name: &str, asked: &str) {
    let object = format!("ed/{name}");
    let annotation = format!("postrider.dev/test={asked}");
    let namespace = stage.namespace.name();
    stage
        .cluster
        .kubectl(&["annotate", "--overwrite", "-n", namespace, &object, &annotation])
        .ok();
}

/// Asks for a test and waits for the answer.
async fn test(stage: &Stage, name: &str, asked: &str) -> Value {
    annotate(stage, name, asked);
    let ed = stage
        .until("ed", name, "the test is answered", |ed| {
            ed["status"]["lastHandledTest"] == asked
        })
        .await;
    ed["status"]["lastTest"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_sends_the_example_of_a_type_once_marked_and_signed() {
    let mut stage = Stage::set("test").await;
    stage.destination("hook", "/hook", &json!({}));
    let told = test(&stage, "hook", "run_failed@1").await;
    assert_eq!(
        (
            &told["outcome"],
            &told["statusCode"],
            &told["eventType"],
            &told["reply"]
        ),
        (
            &json!("Delivered"),
            &json!(200),
            &json!("run_failed"),
            &json!("ok")
        )
    );
    assert!(told["latency"].as_str().unwrap().ends_with("ms"), "{told}");
    let received = stage.receiver.received("/hook");
    assert_eq!(received.len(), 1);
    let request = &received[0];
    assert_eq!(request.header("x-postrider-test"), "true");
    assert_eq!(request.header("x-postrider-event-type"), "run_failed");
    assert!(request.header("webhook-signature").starts_with("v1,"));
    assert_eq!(request.json()["run_id"], 99);

    // A restart does not ask again, and another value does.
    let settings = stage.take_operator().kill();
    stage.start_again(settings).await;
    test(&stage, "hook", "2").await;
    assert_eq!(stage.receiver.received("/hook").len(), 2);
    stage.publish("x", &json!({})).await;
    let delivered = stage.receiver.wait_for("/hook", 3).await;
    assert_eq!(
        delivered[2].header("x-postrider-test"),
        "",
        "a delivery is not marked"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_works_while_nothing_is_sent_and_never_touches_health() {
    let stage = Stage::set("test").await;
    stage.receiver.answer("/off", Manner::Status(503));
    stage.destination("off", "/off", &json!({"suspend": true}));
    let told = test(&stage, "off", "1").await;
    assert_eq!(
        (&told["outcome"], &told["reason"], &told["statusCode"]),
        (&json!("Failed"), &json!("Unavailable"), &json!(503))
    );
    let ed = stage.get("ed", "off");
    assert_eq!(condition(&ed, "Delivering")["reason"], "Suspended");
    assert_eq!(ed["status"]["delivery"]["consecutiveFailures"], 0);
    assert_eq!(stage.receiver.received("/off").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_that_cannot_be_sent_is_answered_with_what_to_do() {
    let stage = Stage::set("test").await;
    stage.destination("hook", "/hook", &json!({"events": ["sync_*"]}));
    for (asked, reason, expected) in [
        ("run_failed@1", "InvalidRequest", "spec.events"),
        ("run failed@1", "InvalidRequest", "TYPE@TOKEN"),
        ("@", "InvalidRequest", "TYPE@TOKEN"),
    ] {
        let told = test(&stage, "hook", asked).await;
        assert_eq!(
            (&told["outcome"], &told["reason"]),
            (&json!("NotSent"), &json!(reason))
        );
        assert!(told["message"].as_str().unwrap().contains(expected), "{told}");
    }
    let missing =
        json!({"webhook": {"url": null, "urlFrom": {"secretKeyRef": {"name": "none", "key": "url"}}}});
    stage.apply_destination("faulty", "/faulty", &missing);
    let told = test(&stage, "faulty", "1").await;
    assert_eq!(told["reason"], "NotReady");
    assert!(stage.receiver.received("/hook").is_empty());
}
