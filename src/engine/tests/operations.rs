//! Operational events: who is told of a destination's health, and that nobody is kept busy with it.

use std::sync::Arc;

use serde_json::json;

use super::fixture::*;
use crate::engine::queue::QueueError;
use crate::engine::queue::memory::MemoryQueue;

/// Disabled after ten failures that last at least ten seconds; tried every two seconds.
fn fragile() -> serde_json::Value {
    json!({
        "delivery": {"maxInFlight": 1, "retry": {"schedule": ["2s"], "maxAttempts": 100}},
        "autoDisable": {"consecutiveFailures": 10, "minimumDuration": "10s", "probeInterval": "1m"},
    })
}

#[tokio::test(start_paused = true)]
async fn a_watcher_is_told_each_threshold_the_end_and_the_recovery() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Status(500));
    fixture.destination("a", 1, &fragile());
    fixture.destination("watch", 1, &json!({"events": ["postrider.*"]}));
    fixture.destination("star", 1, &json!({"events": ["*"]}));
    fixture.destination("one", 1, &json!({"events": ["postrider.destination.disabled"]}));
    fixture.publish("a", 1).await;
    fixture.pass(40).await;
    assert!(fixture.view("a").health.disabled.is_some());
    assert_eq!(
        fixture.sent("watch"),
        4,
        "50, 70 and 90 %, and that it is disabled"
    );
    assert_eq!((fixture.sent("one"), fixture.sent("star")), (1, 1));
    fixture.answer("a", Script::Status(200));
    fixture.pass(120).await;
    assert_eq!((fixture.sent("watch"), fixture.sent("one")), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_destination_is_never_told_of_itself_nor_by_a_watcher_of_another_project() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Status(500));
    let mut spec = fragile();
    spec["events"] = json!(["a", "postrider.*"]);
    spec["projectRef"] = json!({"name": "p"});
    fixture.destination("a", 1, &spec);
    fixture.destination(
        "other",
        1,
        &json!({"events": ["postrider.*"], "projectRef": {"name": "q"}}),
    );
    fixture.destination(
        "same",
        1,
        &json!({"events": ["postrider.*"], "projectRef": {"name": "p"}}),
    );
    fixture.publish("a", 1).await;
    fixture.pass(40).await;
    let attempts = fixture.transport.sent.lock().clone();
    let ids: std::collections::HashSet<_> = attempts.iter().filter(|(path, _)| path == "/a").collect();
    assert_eq!(ids.len(), 1, "its own event alone");
    assert_eq!((fixture.sent("other"), fixture.sent("same")), (0, 4));
}

#[tokio::test(start_paused = true)]
async fn two_destinations_that_watch_each_other_do_not_keep_each_other_busy() {
    let fixture = Fixture::new();
    for name in ["a", "b"] {
        fixture.answer(name, Script::Status(500));
        let once = json!({
            "events": [name, "postrider.*"], "delivery": {"retry": {"maxAttempts": 1}},
            "autoDisable": {"enabled": false},
        });
        fixture.destination(name, 1, &once);
    }
    fixture.publish("a", 1).await;
    fixture.pass(24 * 3600).await;
    assert_eq!(fixture.sent("a"), 1);
    assert_eq!(
        fixture.sent("b"),
        1,
        "it is told of the given-up delivery, in vain"
    );
    let view = fixture.view("b");
    assert_eq!((view.health.exhausted, view.depth.pending), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn given_up_deliveries_are_told_once_a_minute_with_their_number() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Status(400));
    let once = json!({"delivery": {"retry": {"maxAttempts": 1}}, "autoDisable": {"enabled": false}});
    fixture.destination("a", 1, &once);
    let template = "{{ $.event.data.count }}/{{ $.event.data.total }} {{ $.event.data.reason }}";
    let exhausted = json!({
        "events": ["postrider.destination.exhausted"], "filter": "event.data.destination == 'a'",
        "webhook": {"url": "https://example.com/watch", "signing": {"scheme": "None"}, "payload": {"template": template}},
    });
    fixture.destination("watch", 1, &exhausted);
    fixture.publish("a", 40).await;
    fixture.pass(200).await;
    assert_eq!(
        fixture.sent("watch"),
        2,
        "the first at once, the others after a minute"
    );
    assert_eq!(fixture.view("a").health.exhausted_told, Some(40));
}

#[tokio::test(start_paused = true)]
async fn what_the_store_does_not_take_is_told_later() {
    let queue = Arc::new(MemoryQueue::new(1));
    let fixture = Fixture::with_queue(Arc::clone(&queue) as _, 8);
    fixture.answer("a", Script::Status(410));
    fixture.destination("a", 1, &json!({}));
    fixture.destination("watch", 1, &json!({"events": ["postrider.*"]}));
    fixture.publish("a", 1).await;
    fixture.pass(5).await;
    assert_eq!(fixture.sent("watch"), 0, "the project's queue is full");
    // The destination goes, and its delivery with it.
    fixture.directory.remove_destination(&identity("a", 1).uid);
    fixture.pass(60).await;
    assert_eq!(fixture.sent("watch"), 1);
    queue.fail(Some(QueueError::Closed));
}
