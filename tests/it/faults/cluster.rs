//! The API server and etcd go away for a while.
//!
//! `POSTRIDER_OUTAGE_SECONDS` sets for how long (3).

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{assert_each_attempt_is_told_once, attempts};
use crate::support::{Cluster, Manner, Stage, condition, eventually};

/// Publishes for as long as the outage lasts, and waits until a receiver has got all of it.
async fn publish_during_outage(stage: &Stage, ids: &mut Vec<String>) {
    let seconds = std::env::var("POSTRIDER_OUTAGE_SECONDS").ok();
    let seconds = seconds.map_or(3, |text| {
        text.parse().expect("POSTRIDER_OUTAGE_SECONDS is a number")
    });
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    while Instant::now() < end {
        tick.tick().await;
        ids.push(stage.publish("x", &json!({})).await);
    }
    stage.receiver.wait_for("/well", ids.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deliveries_go_on_without_the_api_server_or_etcd_and_the_status_catches_up() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::private()));
    let stage = Stage::on(cluster, "outage", &[]).await;
    stage.destination("well", "/well", &json!({}));
    stage.receiver.answer("/flaky", Manner::Status(500));
    // More than the longest outage, with fewer than 100 attempts.
    let patient = json!({"delivery": {"retry": {"schedule": ["4s"], "maxAttempts": 100}}});
    stage.destination("flaky", "/flaky", &patient);
    let mut ids = vec![stage.publish("x", &json!({})).await];
    stage.receiver.wait_for("/well", 1).await;
    let is_failing = |ed: &Value| condition(ed, "Delivering")["reason"] == "ServerError";
    stage.until("ed", "flaky", "the failure shows", is_failing).await;

    for program in ["kube-apiserver", "etcd"] {
        cluster.stop(program);
        publish_during_outage(&stage, &mut ids).await;
        // A receiver that recovers meanwhile gets what waits.
        stage.receiver.answer("/flaky", Manner::Status(200));
        eventually("what waits is delivered", Duration::from_secs(60), async || {
            let received = stage.receiver.received("/flaky");
            match received.iter().filter(|request| request.accepted).count() {
                count if count == ids.len() => Ok(()),
                count => Err(format!("{count} of {}", ids.len())),
            }
        })
        .await;
        cluster.start_again(program);
        // Both are there already or come back now, and it waits until the API server answers.
        cluster.start_again("kube-apiserver");
        let is_recovered = |ed: &Value| condition(ed, "Delivering")["status"] == "True";
        let what = format!("a recovery without {program} shows");
        stage.until("ed", "flaky", &what, is_recovered).await;
        // What is applied afterwards is noticed.
        let late = format!("after-{program}");
        stage.destination(&late, &format!("/{late}"), &json!({}));
        ids.push(stage.publish("x", &json!({})).await);
        stage.receiver.wait_for(&format!("/{late}"), 1).await;
        stage.receiver.wait_for("/flaky", ids.len()).await;
        stage.receiver.answer("/flaky", Manner::Status(500));
    }
    stage.receiver.answer("/flaky", Manner::Status(200));

    for name in ["well", "flaky"] {
        let is_right = |ed: &Value| {
            let delivery = &ed["status"]["delivery"];
            delivery["delivered"] == ids.len() && delivery["pending"] == 0 && delivery["exhausted"] == 0
        };
        stage
            .until("ed", name, "all that was delivered shows", is_right)
            .await;
        assert_each_attempt_is_told_once(&attempts(&stage, name), &ids);
    }
    let errors = stage
        .operator()
        .metric("postrider_watch_errors_total{kind=\"EventDestination\"}")
        .await;
    assert!(errors > 0.0, "the outage shows in the metrics");
    let log = stage.operator().log();
    for line in ["watch failed; will try again until it works", "watch works again"] {
        assert!(log.contains(line), "{line}: {log}");
    }
}
