//! Dead letters: what one destination gives up arrives at another, over a missing object and a killed operator.

use serde_json::{Value, json};

use crate::support::{Manner, Stage, condition};

fn giving_up_at_once() -> Value {
    json!({"delivery": {"retry": {"maxAttempts": 1}, "deadLetter": {"name": "dead"}}})
}

/// Asks for nothing itself.
fn dead() -> Value {
    json!({
        "events": ["none"], "webhook": {"payload": {"format": "Envelope"}},
        "delivery": {"retry": {"schedule": ["100ms"], "maxAttempts": 100}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_up_arrives_elsewhere_as_soon_as_there_is_an_elsewhere() {
    let stage = Stage::set("dead-letters").await;
    stage.receiver.answer("/hook", Manner::Status(500));
    stage.apply_destination("hook", "/hook", &giving_up_at_once());
    let is_missing = |ed: &Value| condition(ed, "Ready")["reason"] == "ReferenceMissing";
    let ed = stage.until("ed", "hook", "the fault shows", is_missing).await;
    let message = condition(&ed, "Ready")["message"].as_str().unwrap();
    let expected =
        "spec.delivery.deadLetter.name: EventDestination \"dead\" does not exist in this namespace";
    assert!(message.contains(expected), "{message}");
    let id = stage.publish("x", &json!({"n": 1})).await;
    assert!(stage.receiver.received("/hook").is_empty(), "it waits");

    stage.destination("dead", "/dead", &dead());
    let request = stage.receiver.wait_for("/dead", 1).await.remove(0);
    assert_eq!(request.header("x-postrider-dead-letter-from"), "hook");
    assert_eq!(request.header("x-postrider-dead-letter-reason"), "ServerError");
    assert_eq!(request.header("x-postrider-event-id"), id);
    let body = request.json();
    assert_eq!(
        (&body["eventType"], &body["payload"]),
        (&json!("x"), &json!({"n": 1}))
    );
    let is_told = |ed: &Value| ed["status"]["delivery"]["exhausted"] == 1;
    stage.until("ed", "hook", "it is told", is_told).await;
    let sent = stage
        .operator()
        .metric("postrider_dead_letters_total{outcome=\"sent\"}")
        .await;
    assert!((sent - 1.0).abs() < f64::EPSILON, "{sent}");

    let namespace = stage.namespace.name();
    stage
        .cluster
        .kubectl(&["delete", "-n", namespace, "ed/dead"])
        .ok();
    stage
        .until("ed", "hook", "the fault shows again", is_missing)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_waits_survives_a_kill() {
    let mut stage = Stage::set("dead-letters").await;
    stage.receiver.answer("/hook", Manner::Status(404));
    stage.receiver.answer("/dead", Manner::Status(500));
    stage.destination("dead", "/dead", &dead());
    stage.destination("hook", "/hook", &giving_up_at_once());
    let id = stage.publish("x", &json!({})).await;
    stage.receiver.wait_for("/dead", 2).await;
    let settings = stage.take_operator().kill();
    let before = stage.receiver.received("/dead").len();
    stage.receiver.answer("/dead", Manner::Status(200));
    stage.start_again(settings).await;
    let requests = stage.receiver.wait_for("/dead", before + 1).await;
    let last = requests.last().unwrap();
    assert_eq!(last.header("x-postrider-event-id"), id);
    assert_eq!(last.header("x-postrider-dead-letter-from"), "hook");
    assert_eq!(last.header("x-postrider-dead-letter-reason"), "ClientError");
    assert_eq!(
        stage.receiver.received("/hook").len(),
        1,
        "it was given up for good"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_tells_whose_dead_letter_it_is() {
    use crate::mail::server::{Make, Server, header};

    let stage = Stage::set("dead-letters").await;
    stage.receiver.answer("/hook", Manner::Status(404));
    let mut server = Server::start(Make::Python, &json!({}));
    let data: serde_json::Map<_, _> = [server.plain().as_slice(), &[("from", "events@acme.example")]]
        .concat()
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    stage.apply(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "smtp"}, "stringData": data}),
    );
    stage.apply(&json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination", "metadata": {"name": "dead"},
        "spec": {"events": ["none"], "email": {"to": ["a@x.example"], "smtpRef": {"name": "smtp"}}},
    }));
    stage.wait_ready("ed", "dead");
    stage.destination("hook", "/hook", &giving_up_at_once());
    stage
        .publish("workflow_failure", &json!({"error": "rate limit"}))
        .await;
    let mail = server.mail();
    assert_eq!(header(&mail, "X-Postrider-Dead-Letter-From"), "hook");
    assert_eq!(header(&mail, "X-Postrider-Dead-Letter-Reason"), "ClientError");
}
