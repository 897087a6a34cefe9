//! Ordered destinations: each key in order, over failures and a restart.

use std::collections::HashMap;

use serde_json::json;

use crate::support::{Manner, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn each_key_arrives_in_order_over_failures_and_a_restart() {
    let mut stage = Stage::set("order").await;
    stage.receiver.answer("/hook", Manner::Status(500));
    let fifo = json!({
        "delivery": {
            "ordering": "Fifo", "orderingKey": "$.event.data.customer",
            "retry": {"schedule": ["200ms"], "maxAttempts": 100},
        },
        "autoDisable": {"enabled": false},
    });
    stage.destination("hook", "/hook", &fifo);
    let publish = |numbers: std::ops::Range<u32>| {
        let events: Vec<_> = numbers
            .flat_map(|n| (0..10).map(move |c| json!({"type": "x", "data": {"customer": c, "n": n}})))
            .collect();
        json!(events)
    };
    assert_eq!(stage.publish_raw(&publish(0..10)).await.0, 202);
    stage.receiver.wait_for("/hook", 10).await;
    let first: Vec<_> = stage.receiver.received("/hook");
    assert!(
        first.iter().all(|request| request.json()["data"]["n"] == 0),
        "the others wait"
    );

    let settings = stage.take_operator().kill();
    stage.start_again(settings).await;
    assert_eq!(stage.publish_raw(&publish(10..20)).await.0, 202);
    stage.receiver.answer("/hook", Manner::Status(200));
    let is_done = |ed: &serde_json::Value| ed["status"]["delivery"]["pending"] == 0;
    stage.until("ed", "hook", "all are delivered", is_done).await;
    let mut customers: HashMap<String, Vec<u64>> = HashMap::new();
    for request in stage.receiver.received("/hook") {
        if request.accepted {
            let data = &request.json()["data"];
            let numbers = customers.entry(data["customer"].to_string()).or_default();
            numbers.push(data["n"].as_u64().unwrap());
        }
    }
    assert_eq!(customers.len(), 10);
    for (customer, numbers) in customers {
        assert_eq!(numbers, (0..20).collect::<Vec<_>>(), "{customer}");
    }
}
