//! The examples of `spec.delivery`, of operational events and of replay, driven.

use std::time::Instant;

use serde_json::{Value, json};

use super::site::Site;
use crate::mail::server::{Make, Server, header};
use crate::support::{Manner, http_client};

fn invoices(count: u32) -> Value {
    let events = (0..count).map(|n| json!({"type": "invoice.paid", "data": {"invoice": n, "n": n}}));
    Value::Array(events.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_takes_409_for_delivered_and_gives_other_4xx_up() {
    let site = Site::set("answers").await;
    site.apply("answers");
    for (answer, counter) in [(409, "delivered"), (422, "exhausted")] {
        site.receiver.answer("/answers/webhook", Manner::Status(answer));
        site.publish("answers", &json!({"type": "invoice.paid"})).await;
        site.counts("answers", counter, 1).await;
    }
    assert_eq!(
        site.receiver.received("/answers/webhook").len(),
        2,
        "none is tried again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limit_sends_no_more_than_it_says() {
    let site = Site::set("rate-limit").await;
    site.apply("rate-limit");
    let start = Instant::now();
    site.publish("rate-limit", &invoices(60)).await;
    let waits = |ed: &Value| ed["status"]["delivery"]["waitingFor"] == "RateLimit";
    site.until("rate-limit", "what it waits for shows", waits).await;
    let received = site.receiver.wait_for("/rate-limit/webhook", 5).await.len();
    let most = 6 + start.elapsed().as_millis() * 50 / 60_000;
    assert!((received as u128) <= most, "{received} requests, at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ordered_holds_up_the_customer_whose_event_fails() {
    let site = Site::set("ordered").await;
    site.apply("ordered");
    let event =
        |customer: &str, n: u32| json!({"type": "invoice.paid", "data": {"customer": customer, "n": n}});
    site.receiver.answer("/ordered/webhook", Manner::Status(500));
    let events = json!([
        event("a", 1),
        event("a", 2),
        event("b", 1),
        event("a", 3),
        event("b", 2)
    ]);
    site.publish("ordered", &events).await;
    site.receiver.wait_for("/ordered/webhook", 2).await;
    site.receiver.answer("/ordered/webhook", Manner::Status(200));
    site.counts("ordered", "delivered", 5).await;
    for (customer, expected) in [("a", vec![1, 2, 3]), ("b", vec![1, 2])] {
        let received = site.receiver.received("/ordered/webhook");
        let of_customer = received
            .iter()
            .filter(|one| one.json()["data"]["customer"] == customer);
        let mut numbers: Vec<_> = of_customer
            .map(|one| one.json()["data"]["n"].as_u64().unwrap())
            .collect();
        assert!(
            numbers.len() > expected.len(),
            "the first failed: {customer} {numbers:?}"
        );
        numbers.dedup();
        assert_eq!(numbers, expected, "{customer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_brings_to_lost_what_billing_gives_up() {
    let site = Site::set("dead-letters").await;
    site.apply("dead-letters");
    // An hour is long for a test.
    let once = json!({"delivery": {"retry": {"maxAttempts": 1}}});
    site.patch("dead-letters-billing", &once).await;
    site.receiver.answer("/dead-letters/webhook", Manner::Status(500));
    let event = json!({"type": "invoice.paid", "data": {"n": 1}});
    site.publish("dead-letters", &event).await;
    let lost = site.receiver.wait_for("/dead-letters/lost", 1).await.remove(0);
    assert_eq!(
        lost.header("x-postrider-dead-letter-from"),
        "dead-letters-billing"
    );
    assert_eq!(lost.header("x-postrider-dead-letter-reason"), "ServerError");
    let body = lost.json();
    assert_eq!(
        (&body["eventType"], &body["payload"]),
        (&json!("invoice.paid"), &event["data"])
    );
    site.counts("dead-letters-billing", "exhausted", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dedup_sends_each_invoice_once() {
    let site = Site::set("dedup").await;
    site.apply("dedup");
    let of = |invoice: &str| json!({"type": "invoice.paid", "data": {"invoice": invoice}});
    let answer = site
        .publish("dedup", &json!([of("i1"), of("i1"), of("i2")]))
        .await;
    let deliveries: Vec<_> = (0..3)
        .map(|index| &answer["events"][index]["deliveries"])
        .collect();
    assert_eq!(deliveries, [1, 0, 1], "{answer}");
    let ed = site.counts("dedup", "delivered", 2).await;
    assert_eq!(ed["status"]["delivery"]["suppressed"], 1);
    assert_eq!(site.receiver.received("/dedup/webhook").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn batch_sends_50_events_in_a_request() {
    let site = Site::set("batch").await;
    site.apply("batch");
    site.publish("batch", &invoices(50)).await;
    site.counts("batch", "delivered", 50).await;
    let requests = site.receiver.received("/batch/webhook");
    assert_eq!(requests.len(), 1);
    assert_eq!(
        requests[0].header("content-type"),
        "application/cloudevents-batch+json"
    );
    assert_eq!(requests[0].header("content-encoding"), "gzip");
    let body: Value = serde_json::from_reader(flate2::read::GzDecoder::new(&requests[0].body[..])).unwrap();
    let numbers: Vec<_> = body
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["data"]["n"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (0..50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn operational_events_tells_the_owner_by_mail_what_becomes_of_the_chat() {
    let site = Site::set("operational").await;
    let mut server = Server::start(Make::Python, &json!({}));
    site.smtp("operational-events-smtp", &server);
    let chat = site.receiver.url("/chat/");
    let moved = [("https://hooks.slack.com/services/", &*chat)];
    site.apply_without("operational-events", "host: smtp.example.com", &moved);
    let path = "/chat/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX";
    site.receiver.answer(path, Manner::Status(410));
    site.publish(
        "operational-events",
        &json!({"type": "workflow_failure", "data": {"error": "x"}}),
    )
    .await;
    site.receiver.wait_for(path, 1).await;
    let mail = server.mail();
    assert_eq!(mail["to"], json!(["owner@example.com"]));
    assert_eq!(
        header(&mail, "Subject"),
        "[Acme] Destination operational-events-chat was disabled: Gone"
    );
    site.receiver.answer(path, Manner::Says("ok"));
    site.kubectl(&["annotate", "ed/operational-events-chat", "postrider.dev/enable=1"]);
    assert_eq!(
        header(&server.mail(), "Subject"),
        "[Acme] Destination operational-events-chat works again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_is_seen_by_the_account_and_delivers_again_what_failed() {
    let site = Site::set("replay").await;
    site.apply_with("replay", &[]);
    site.publish("replay", &json!({"type": "invoice.paid", "data": {"n": 1}}))
        .await;
    site.counts("replay", "exhausted", 1).await;
    let account = format!("--serviceaccount={}:oncall", site.namespace.name());
    site.kubectl(&["create", "rolebinding", "oncall", "--role=oncall", &account]);
    let token = site.kubectl(&["create", "token", "oncall"]);
    let publish = site.operator.publish_url("replay");
    let base = publish.split("/projects/").next().unwrap();
    let asked = http_client()
        .get(format!(
            "{base}/eventdestinations/replay/deliveries?state=Exhausted"
        ))
        .bearer_auth(token.trim());
    let answer = asked.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let list: Value = serde_json::from_str(&answer.text().await.unwrap()).unwrap();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    assert_eq!(list["items"][0]["attempt"], 2, "{list}");

    let mended = json!({"webhook": {"url": site.receiver.url("/hook")}});
    site.patch("replay", &mended).await;
    site.kubectl(&[
        "annotate",
        "ed/replay",
        "--overwrite",
        "postrider.dev/replay=failed token=1",
    ]);
    let is_done = |ed: &Value| ed["status"]["lastReplay"]["outcome"] == "Done";
    let ed = site.until("replay", "it is replayed", is_done).await;
    assert_eq!(ed["status"]["lastReplay"]["replayed"], 1);
    assert_eq!(site.receiver.wait_for("/hook", 1).await[0].json()["data"]["n"], 1);
}
