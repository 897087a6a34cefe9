//! Ordered destinations: order holds for each key whatever fails, and no key waits for another.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::fixture::*;
use crate::domain::id::EventId;
use crate::engine::history::{CancelledOne, History as _};
use crate::engine::queue::memory::MemoryQueue;

fn fifo(more: &Value) -> Value {
    let mut delivery = json!({"ordering": "Fifo", "retry": {"schedule": ["1s"], "maxAttempts": 5}});
    delivery
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    json!({"delivery": delivery, "autoDisable": {"enabled": false}})
}

/// The numbers that each key was sent, attempts included: ids are `key-number`.
fn by_key(ids: &[String]) -> HashMap<String, Vec<u32>> {
    let mut keys: HashMap<String, Vec<u32>> = HashMap::new();
    for id in ids {
        let (key, number) = id.split_once('-').unwrap();
        keys.entry(key.to_owned())
            .or_default()
            .push(number.parse().unwrap());
    }
    keys
}

#[tokio::test(start_paused = true)]
async fn a_thousand_keys_are_delivered_in_order_each_while_many_fail() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Flaky);
    fixture.destination(
        "a",
        1,
        &fifo(&json!({"orderingKey": "$.event.user.id", "maxInFlight": 64})),
    );
    for number in 0..3 {
        for key in 0..1000 {
            fixture
                .publish_for("a", &format!("{key}-{number}"), &format!("{key}"))
                .await;
        }
    }
    fixture.pass(3600).await;
    let view = fixture.view("a");
    assert_eq!((view.health.delivered, view.depth.pending), (3000, 0));
    for (key, numbers) in by_key(&fixture.ids("a")) {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_head_blocks_its_key_until_it_is_given_up_and_no_other() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::FailIds("x-0"));
    fixture.destination("a", 1, &fifo(&json!({"orderingKey": "{{ $.event.user.id }}"})));
    for number in 0..50 {
        for key in ["x", "y", "z"] {
            fixture.publish_for("a", &format!("{key}-{number}"), key).await;
        }
    }
    fixture.pass_time(std::time::Duration::from_millis(500)).await;
    let keys = by_key(&fixture.ids("a"));
    assert_eq!((keys["x"].len(), keys["y"].len(), keys["z"].len()), (1, 50, 50));
    fixture.pass(60).await;
    let numbers = by_key(&fixture.ids("a")).remove("x").unwrap();
    let expected: Vec<u32> = [0; 4].into_iter().chain(0..50).collect();
    assert_eq!(
        numbers, expected,
        "five attempts of the first, and then the others"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_key_the_whole_destination_is_in_order_and_one_is_under_way() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Flaky);
    fixture.destination("a", 1, &fifo(&json!({})));
    for number in 0..100 {
        fixture.publish_for("a", &format!("all-{number}"), "u").await;
    }
    fixture.pass(600).await;
    let numbers = by_key(&fixture.ids("a")).remove("all").unwrap();
    assert!(numbers.is_sorted(), "{numbers:?}");
    assert_eq!(
        (fixture.view("a").health.delivered, fixture.most_in_flight("a")),
        (100, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_restart_keeps_the_order() {
    let queue = Arc::new(MemoryQueue::default());
    let spec = fifo(&json!({"orderingKey": "$.event.user.id", "retry": {"schedule": ["1h"]}}));
    let first = Fixture::with_queue(Arc::clone(&queue) as _, 8);
    first.answer("a", Script::FailIds("x"));
    first.destination("a", 1, &spec);
    for number in 0..5 {
        first.publish_for("a", &format!("x-{number}"), "x").await;
        first.publish_for("a", &format!("y-{number}"), "y").await;
    }
    first.pass(10).await;
    assert_eq!(first.ids("a").len(), 6, "the first of one, and all of the other");
    first.stop().await;
    let second = Fixture::with_queue(queue, 8);
    second.destination("a", 1, &spec);
    second.publish_for("a", "x-5", "x").await;
    second.pass(10).await;
    assert_eq!(second.ids("a"), ["x-0", "x-1", "x-2", "x-3", "x-4", "x-5"]);
}

#[tokio::test(start_paused = true)]
async fn a_suspended_or_newly_ordered_destination_goes_on_in_order() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::FailIds("x-0"));
    fixture.destination("a", 1, &json!({"delivery": {"retry": {"schedule": ["1h"]}}}));
    fixture.publish_for("a", "x-0", "x").await;
    fixture.pass(5).await;
    let mut spec = fifo(&json!({}));
    fixture.destination("a", 2, &spec);
    fixture.publish_for("a", "x-1", "x").await;
    fixture.pass_time(std::time::Duration::from_millis(100)).await;
    assert_eq!(fixture.ids("a"), ["x-0", "x-0"], "the oldest is first");
    spec["suspend"] = json!(true);
    fixture.destination("a", 3, &spec);
    fixture.publish_for("a", "x-2", "x").await;
    fixture.pass(60).await;
    fixture.answer("a", Script::Status(200));
    fixture.destination("a", 4, &fifo(&json!({})));
    fixture.pass(60).await;
    assert_eq!(fixture.ids("a")[2..], ["x-0", "x-1", "x-2"]);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_head_lets_the_next_of_its_key_go_at_once_and_a_cancelled_younger_one_does_not() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Status(500));
    fixture.destination(
        "a",
        1,
        &fifo(&json!({"orderingKey": "$.event.user.id", "retry": {"schedule": ["1h"]}})),
    );
    for number in 0..4 {
        for key in ["x", "y"] {
            fixture.publish_for("a", &format!("{key}-{number}"), key).await;
        }
    }
    let second = std::time::Duration::from_secs(1);
    fixture.pass_time(second).await;
    assert_eq!(fixture.ids("a"), ["x-0", "y-0"]);
    fixture.answer("a", Script::Status(200));
    let cancel = async |id: &str| {
        let id = EventId::parse(id).unwrap();
        let cancelled = fixture.engine.cancel(&identity("a", 1).uid, &id).await.unwrap();
        assert_eq!(cancelled, CancelledOne::Done);
        fixture.pass_time(second).await;
    };
    cancel("x-2").await;
    assert_eq!(fixture.ids("a").len(), 2, "x-0 still comes first");
    cancel("x-0").await;
    assert_eq!(fixture.ids("a")[2..], ["x-1", "x-3"], "y waits for its own");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_breaks_off_keeps_its_place() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Panic);
    fixture.destination("a", 1, &fifo(&json!({})));
    for number in 0..3 {
        fixture.publish_for("a", &format!("x-{number}"), "x").await;
    }
    fixture.pass(3).await;
    fixture.answer("a", Script::Status(200));
    fixture.pass(3).await;
    let numbers = by_key(&fixture.ids("a")).remove("x").unwrap();
    assert!(
        numbers.is_sorted() && numbers.ends_with(&[0, 1, 2]),
        "{numbers:?}"
    );
}
