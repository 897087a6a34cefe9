//! What a destination's policy makes of its lane: rules about answers, a rate.

use std::time::Duration;

use serde_json::json;

use super::fixture::*;

#[tokio::test(start_paused = true)]
async fn an_answer_that_counts_as_delivered_is_not_tried_again() {
    let fixture = Fixture::new();
    fixture.receiver("a", &json!({"success": ["2xx", "409"]}), Script::Status(409));
    fixture.receiver(
        "b",
        &json!({"success": ["200"], "retry": {"maxAttempts": 2}}),
        Script::Status(202),
    );
    fixture.publish("a", 1).await;
    fixture.publish("b", 1).await;
    fixture.pass(3600).await;
    assert_eq!((fixture.sent("a"), fixture.view("a").health.delivered), (1, 1));
    assert_eq!((fixture.sent("b"), fixture.view("b").health.exhausted), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_the_rules_do_not_name_ends_the_delivery() {
    let fixture = Fixture::new();
    let retry = json!({"retry": {"schedule": ["1s"], "maxAttempts": 4, "retryOn": ["429", "5xx"], "giveUpOn": ["4xx"]}});
    for (name, status, attempts) in [("a", 404, 1), ("b", 500, 4), ("c", 302, 4)] {
        fixture.receiver(name, &retry, Script::Status(status));
        fixture.publish(name, 1).await;
        fixture.pass(60).await;
        assert_eq!(
            (fixture.sent(name), fixture.view(name).health.exhausted),
            (attempts, 1),
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_rate_holds_a_lane_back_and_no_other() {
    let fixture = Fixture::new();
    let rate = json!({"rateLimit": {"events": 2, "per": "1s", "burst": 5}});
    fixture.receiver("a", &rate, Script::Status(200));
    fixture.receiver("b", &json!({}), Script::Status(200));
    fixture.publish("a", 25).await;
    fixture.publish("b", 25).await;
    fixture.pass_time(Duration::from_millis(1)).await;
    assert_eq!((fixture.sent("a"), fixture.sent("b")), (5, 25));
    let view = fixture.view("a");
    assert_eq!(
        (view.waiting_for, view.health.consecutive_failures),
        (Some("RateLimit"), 0)
    );
    assert!(view.next_attempt.is_some());
    fixture.pass(5).await;
    assert_eq!(fixture.sent("a"), 15);
    fixture.pass(6).await;
    assert_eq!((fixture.sent("a"), fixture.view("a").waiting_for), (25, None));
}

#[tokio::test(start_paused = true)]
async fn retries_count_towards_the_rate() {
    let fixture = Fixture::new();
    let policy = json!({
        "maxInFlight": 8, "retry": {"schedule": ["0s"], "maxAttempts": 100}, "rateLimit": {"events": 1, "per": "1s"},
    });
    fixture.receiver("a", &policy, Script::Status(500));
    fixture.publish("a", 10).await;
    fixture.pass(30).await;
    let sent = fixture.sent("a");
    assert!((30..=31).contains(&sent), "{sent}");
}

#[tokio::test(start_paused = true)]
async fn a_rate_that_is_lifted_is_lifted_at_once() {
    let fixture = Fixture::new();
    fixture.receiver(
        "a",
        &json!({"rateLimit": {"events": 1, "per": "24h"}}),
        Script::Status(200),
    );
    fixture.publish("a", 10).await;
    fixture.pass(60).await;
    assert_eq!(fixture.sent("a"), 1);
    fixture.destination("a", 2, &json!({}));
    fixture.pass(1).await;
    assert_eq!((fixture.sent("a"), fixture.view("a").waiting_for), (10, None));
}
