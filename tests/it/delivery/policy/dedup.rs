//! The same event is sent once: over a batch, two publishers and a killed operator, until its window ends.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Stage, eventually};

fn invoice(number: &str, n: u32) -> Value {
    json!({"type": "invoice.paid", "data": {"invoice": number, "n": n}})
}

/// How many deliveries each event of an answer made.
fn deliveries(answer: &Value) -> Vec<u64> {
    let events = answer["events"].as_array().unwrap();
    events
        .iter()
        .map(|event| event["deliveries"].as_u64().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_event_is_sent_once_over_a_killed_operator() {
    let mut stage = Stage::set("dedup").await;
    let dedup =
        |window: &str| json!({"delivery": {"dedup": {"key": "$.event.data.invoice", "window": window}}});
    stage.destination("hook", "/hook", &dedup("1h"));
    stage.destination("all", "/all", &json!({}));
    let batch = json!([invoice("i1", 1), invoice("i1", 2), invoice("i2", 3), {"type": "x", "data": {}}]);
    let (status, answer) = stage.publish_raw(&batch).await;
    assert_eq!((status, deliveries(&answer)), (202, vec![2, 1, 2, 2]), "{answer}");
    let racing = (0..8).map(|n| {
        let event = invoice("i3", n);
        let stage = &stage;
        async move { deliveries(&stage.publish_raw(&event).await.1)[0] }
    });
    let mut raced = futures::future::join_all(racing).await;
    raced.sort_unstable();
    assert_eq!(raced, [1, 1, 1, 1, 1, 1, 1, 2]);

    // What is under way at a kill is sent again, which is not what is looked for here.
    let is_settled = |ed: &Value| ed["status"]["delivery"]["delivered"] == 4;
    stage.receiver.wait_for("/hook", 4).await;
    stage.until("ed", "hook", "all is settled", is_settled).await;
    let settings = stage.take_operator().kill();
    stage.start_again(settings).await;
    let again = json!([
        invoice("i1", 4),
        invoice("i2", 5),
        invoice("i3", 6),
        invoice("i4", 7)
    ]);
    let (_, answer) = stage.publish_raw(&again).await;
    assert_eq!(deliveries(&answer), [1, 1, 1, 2], "{answer}");
    stage.receiver.wait_for("/all", 16).await;
    stage.receiver.wait_for("/hook", 5).await;
    let counted = "postrider_events_deduplicated_total{outcome=\"Suppressed\"}";
    let counted = stage.operator().metric(counted).await;
    assert!((counted - 3.0).abs() < f64::EPSILON, "{counted}");
    // What came before the kill may be forgotten by the counter, as by the others.
    let is_told = |ed: &Value| {
        let delivery = &ed["status"]["delivery"];
        delivery["pending"] == 0 && delivery["suppressed"].as_u64() >= Some(3)
    };
    stage.until("ed", "hook", "it is told", is_told).await;

    // A window that has ended meanwhile holds nothing back.
    stage.destination("hook", "/hook", &dedup("1s"));
    stage
        .until("ed", "hook", "the new window is in force", |ed| {
            ed["status"]["observedGeneration"] == ed["metadata"]["generation"]
        })
        .await;
    let stage = &stage;
    eventually("the window ends", Duration::from_secs(20), || async move {
        let (_, answer) = stage.publish_raw(&invoice("i1", 8)).await;
        let is_sent = deliveries(&answer) == [2];
        is_sent.then_some(()).ok_or_else(|| answer.to_string())
    })
    .await;
    let sent = stage.receiver.wait_for("/hook", 6).await;
    let numbers: Vec<_> = sent
        .iter()
        .map(|request| request.json()["data"]["invoice"].clone())
        .collect();
    assert_eq!(
        numbers.iter().filter(|number| **number == "i1").count(),
        2,
        "{numbers:?}"
    );
}
