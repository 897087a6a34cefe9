//! The whole way with the real binary: publish, store, deliver, fail, recover, stop.

mod auth;
mod authorities;
mod deliveries;
mod health;
mod identity;
mod lifecycle;
mod mail;
mod notifications;
mod ownership;
mod policy;
mod proxied;
mod ready;
mod requests;
mod rotation;
pub(crate) mod schemes;
mod signing;
mod templates;
mod testing;

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Manner, Stage, condition, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_published_event_arrives_and_shows_in_status() {
    let stage = Stage::set("delivery").await;
    stage.destination("hook", "/hook", &json!({}));
    let id = stage.publish("invoice.paid", &json!({"number": 7})).await;
    let request = stage.receiver.wait_for("/hook", 1).await.remove(0);
    assert_eq!(request.header("webhook-id"), id);
    assert_eq!(request.header("content-type"), "application/json");
    assert_eq!(request.header("x-postrider-event-type"), "invoice.paid");
    assert_eq!(request.header("x-postrider-attempt"), "1");
    assert_eq!(request.json()["data"], json!({"number": 7}));
    assert_eq!(request.json()["project"]["name"], "Acme");
    let object = stage
        .until("ed", "hook", "the success shows", |ed| {
            ed["status"]["delivery"]["delivered"] == 1
        })
        .await;
    assert_eq!(condition(&object, "Delivering")["status"], "True");
    assert_eq!(object["status"]["endpoint"], stage.receiver.url(""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_goes_to_each_destination_that_wants_it_and_to_no_other() {
    let stage = Stage::set("delivery").await;
    stage.destination("records", "/records", &json!({"events": ["record_*"]}));
    stage.destination("all", "/all", &json!({}));
    stage.destination(
        "others",
        "/others",
        &json!({"projectRef": {"name": "acme"}, "events": ["other"]}),
    );
    let sync = json!({"id": "s1", "integration": "googledrive"});
    let body = json!([
        {"type": "record_created", "sync": sync, "user": {"id": "u"}, "data": {"model": "files"}},
        {"type": "unrelated"},
    ]);
    let (status, answer) = stage.publish_raw(&body).await;
    assert_eq!(
        (
            status,
            &answer["events"][0]["deliveries"],
            &answer["events"][1]["deliveries"]
        ),
        (202, &json!(2), &json!(1))
    );
    assert_eq!(stage.receiver.wait_for("/all", 2).await.len(), 2);
    assert_eq!(stage.receiver.wait_for("/records", 1).await.len(), 1);
    assert!(stage.receiver.received("/others").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_is_delivered_once() {
    let stage = Stage::set("delivery").await;
    stage.destination("hook", "/hook", &json!({}));
    let event = json!({"id": "order-1", "type": "order"});
    let (_, first) = stage.publish_raw(&event).await;
    assert_eq!(
        first["events"][0],
        json!({"id": "order-1", "duplicate": false, "deliveries": 1})
    );
    stage.receiver.wait_for("/hook", 1).await;
    let (status, second) = stage.publish_raw(&event).await;
    assert_eq!((status, &second["events"][0]["duplicate"]), (202, &json!(true)));
    stage.publish("marker", &json!({})).await;
    let ids: Vec<_> = stage
        .receiver
        .wait_for("/hook", 2)
        .await
        .iter()
        .map(|request| request.json()["type"].clone())
        .collect();
    assert_eq!(ids, ["order", "marker"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_receiver_costs_the_others_nothing() {
    let stage = Stage::set("delivery").await;
    stage.receiver.answer("/hangs", Manner::Hang);
    stage.destination(
        "hangs",
        "/hangs",
        &json!({"events": ["slow"], "delivery": {"timeout": "60s"}}),
    );
    stage.destination("works", "/works", &json!({"events": ["quick"]}));
    for _ in 0..100 {
        stage.publish("slow", &json!({})).await;
    }
    for _ in 0..20 {
        stage.publish("quick", &json!({})).await;
    }
    assert_eq!(stage.receiver.wait_for("/works", 20).await.len(), 20);
    let hanging = stage.receiver.wait_for("/hangs", 1).await.len();
    assert!(
        hanging <= 16,
        "{hanging} requests hang, over the default of maxInFlight"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_is_made_again_with_the_same_id_and_a_new_timestamp_count() {
    let stage = Stage::set("delivery").await;
    stage.receiver.answer("/flaky", Manner::Status(500));
    stage.destination(
        "flaky",
        "/flaky",
        &json!({"delivery": {"retry": {"schedule": ["100ms"], "maxAttempts": 50}}}),
    );
    let id = stage.publish("x", &json!({})).await;
    stage.receiver.wait_for("/flaky", 2).await;
    stage.receiver.answer("/flaky", Manner::Status(204));
    let is_done =
        |ed: &Value| ed["status"]["delivery"]["delivered"] == 1 && ed["status"]["delivery"]["pending"] == 0;
    stage.until("ed", "flaky", "it is delivered", is_done).await;
    let requests = stage.receiver.received("/flaky");
    assert!(requests.iter().all(|request| request.header("webhook-id") == id));
    let delivery_ids: std::collections::HashSet<_> = requests
        .iter()
        .map(|request| request.header("x-postrider-delivery-id").to_owned())
        .collect();
    assert_eq!(delivery_ids.len(), 1);
    let attempts: Vec<_> = requests
        .iter()
        .map(|request| request.header("x-postrider-attempt").to_owned())
        .collect();
    let expected: Vec<_> = (1..=requests.len()).map(|number| number.to_string()).collect();
    assert_eq!(attempts, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_attempt_is_one_attempt_and_then_counts_as_exhausted() {
    let stage = Stage::set("delivery").await;
    stage.receiver.answer(
        "/once",
        Manner::StatusWith(307, "location", stage.receiver.url("/elsewhere")),
    );
    stage.destination(
        "once",
        "/once",
        &json!({"delivery": {"retry": {"maxAttempts": 1}}}),
    );
    stage.publish("x", &json!({})).await;
    let ed = stage
        .until("ed", "once", "it is given up", |ed| {
            ed["status"]["delivery"]["exhausted"] == 1
        })
        .await;
    assert_eq!(ed["status"]["delivery"]["lastFailure"]["reason"], "Redirect");
    assert_eq!(ed["status"]["delivery"]["lastFailure"]["statusCode"], 307);
    assert_eq!(condition(&ed, "Delivering")["status"], "False");
    assert_eq!(stage.receiver.received("/once").len(), 1);
    assert!(
        stage.receiver.received("/elsewhere").is_empty(),
        "redirects are not followed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_fault_at_delivery_is_terminal_and_visible() {
    let stage = Stage::set("delivery").await;
    let payload = json!({"webhook": {"payload": {"template": {"id": "{{ $.event.data.missing }}"}}}});
    stage.destination("hook", "/hook", &payload);
    stage.publish("x", &json!({"present": 1})).await;
    let ed = stage
        .until("ed", "hook", "it is given up", |ed| {
            ed["status"]["delivery"]["exhausted"] == 1
        })
        .await;
    let failure = &ed["status"]["delivery"]["lastFailure"];
    assert_eq!(failure["reason"], "TemplateFault");
    assert!(
        failure["message"].as_str().unwrap().contains("data.missing"),
        "{failure}"
    );
    assert!(stage.receiver.received("/hook").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn url_and_headers_are_made_of_the_event() {
    let stage = Stage::set("delivery").await;
    let url = stage
        .receiver
        .url("/in/{{ $.event.data.team }}?type={{ $.event.type }}");
    let headers = json!([
        {"name": "X-Title", "value": "{{ $.event.data.title }}, try {{ $.delivery.attempt }}"},
        {"name": "X-Plain", "value": "as it is"},
    ]);
    stage.destination("hook", "/", &json!({"webhook": {"url": url, "headers": headers}}));
    let data = json!({"team": "../a b", "title": "Größe\r\nX-Evil: 1"});
    stage.publish("invoice.paid", &data).await;
    let path = "/in/..%2Fa%20b";
    let request = stage.receiver.wait_for(path, 1).await.remove(0);
    assert_eq!(request.query, "type=invoice.paid");
    assert_eq!(request.header("x-title"), "Gr%C3%B6%C3%9Fe  X-Evil: 1, try 1");
    assert_eq!(request.header("x-plain"), "as it is");
    stage
        .publish("invoice.paid", &json!({"team": "..", "title": "t"}))
        .await;
    let ed = stage
        .until("ed", "hook", "it is given up", |ed| {
            ed["status"]["delivery"]["exhausted"] == 1
        })
        .await;
    let failure = &ed["status"]["delivery"]["lastFailure"];
    assert_eq!(failure["reason"], "TemplateFault");
    let message = failure["message"].as_str().unwrap();
    assert!(message.starts_with("spec.webhook.url: a segment"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_placeholders_show_at_apply_with_their_field() {
    let stage = Stage::set("delivery").await;
    let url = stage.receiver.url("/in/{{ $.event.idd }}");
    let headers = json!([{"name": "X-A", "value": "{{ $.evnt }}"}]);
    let webhook = json!({"webhook": {"url": url, "headers": headers}});
    stage.apply_destination("hook", "/", &webhook);
    let ed = stage
        .until("ed", "hook", "the faults show", |ed| {
            condition(ed, "Stalled")["status"] == "True"
        })
        .await;
    let message = condition(&ed, "Ready")["message"].as_str().unwrap();
    for word in ["spec.webhook.url", "idd", "spec.webhook.headers[0].value"] {
        assert!(message.contains(word), "{word}: {message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_that_are_not_allowed_are_refused_at_apply() {
    let stage = Stage::set("delivery").await;
    stage.apply_destination(
        "inside",
        "/",
        &json!({"webhook": {"url": "http://169.254.169.254/latest"}}),
    );
    let ed = stage
        .until("ed", "inside", "the fault shows", |ed| {
            condition(ed, "Stalled")["status"] == "True"
        })
        .await;
    assert_eq!(condition(&ed, "Ready")["status"], "False");
    let message = condition(&ed, "Ready")["message"].as_str().unwrap();
    assert!(
        message.contains("spec.webhook.url") && message.contains("169.254.169.254"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_lane_waits_as_long_as_the_receiver_asks() {
    let stage = Stage::set("delivery").await;
    stage
        .receiver
        .answer("/busy", Manner::StatusWith(429, "retry-after", "600".into()));
    stage.destination(
        "busy",
        "/busy",
        &json!({"delivery": {"retry": {"schedule": ["100ms"], "maxAttempts": 9}}}),
    );
    stage.publish("first", &json!({})).await;
    stage.receiver.wait_for("/busy", 1).await;
    let ed = stage
        .until("ed", "busy", "the failure shows", |ed| {
            ed["status"]["delivery"]["consecutiveFailures"] == 1
        })
        .await;
    assert_eq!(condition(&ed, "Delivering")["reason"], "TooManyRequests");
    stage.publish("second", &json!({})).await;
    let next = eventually(
        "the next attempt is far away",
        Duration::from_secs(35),
        || async {
            let ed = stage.get("ed", "busy");
            ed["status"]["delivery"]["nextAttemptTime"]
                .as_str()
                .map(ToOwned::to_owned)
                .ok_or("not yet".to_owned())
        },
    )
    .await;
    let next: jiff::Timestamp = next.parse().unwrap();
    assert!(
        next.duration_since(jiff::Timestamp::now()).as_secs() > 500,
        "{next}"
    );
    assert_eq!(
        stage.receiver.received("/busy").len(),
        1,
        "the second event waits with the lane"
    );
}
