//! What a request of several events holds, and that it is the same on every attempt.

use serde_json::{Value, json};

use super::*;
use crate::api::v1alpha1::event_destination::PayloadFormat;
use crate::domain::delivery;
use crate::domain::destination::{Endpoint, RequestTemplates};
use crate::domain::egress::EgressPolicy;
use crate::domain::event::sample;
use crate::domain::request::RequestForm;
use crate::domain::shape::Payload;
use crate::domain::signature::{Received, Signer};
use crate::domain::template::Template;

const KEY: &[u8] = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn webhook(payload: Payload) -> Webhook {
    Webhook {
        endpoint: Endpoint::parse("https://hooks.example.com/in", &EgressPolicy::default()).unwrap(),
        headers: Vec::new(),
        templates: RequestTemplates::default(),
        payload,
        signer: Signer::standard(KEY).unwrap(),
        request: RequestForm {
            is_batch: true,
            ..RequestForm::default()
        },
    }
}

fn events(count: usize, size: usize) -> Vec<Event> {
    (0..count)
        .map(|n| {
            sample::event(
                &json!({"id": format!("e{n}"), "type": "x", "data": {"n": n, "text": "x".repeat(size)}}),
            )
        })
        .collect()
}

fn made(webhook: &Webhook, events: &[Event], number: u32) -> (Option<WebhookRequest>, Vec<Place>) {
    let events: Vec<_> = events.iter().map(|event| (event, number)).collect();
    prepare(webhook, &sample::identity(), &events, sample::attempt().now)
}

fn body(request: &WebhookRequest) -> Vec<Value> {
    serde_json::from_slice(&request.body).unwrap()
}

#[test]
fn a_request_holds_the_bodies_under_one_id_and_one_signature() {
    let webhook = webhook(Payload::Format(PayloadFormat::Event));
    let (request, places) = made(&webhook, &events(3, 0), 1);
    let request = request.unwrap();
    assert_eq!(places, [Place::Taken, Place::Taken, Place::Taken]);
    let numbers: Vec<_> = body(&request)
        .iter()
        .map(|one| one["data"]["n"].clone())
        .collect();
    assert_eq!(numbers, [json!(0), json!(1), json!(2)]);
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-postrider-batch-size", "3"),
        ("x-postrider-attempt", "1"),
    ] {
        assert_eq!(request.headers[name], value, "{name}");
    }
    for absent in [
        "x-postrider-event-id",
        "x-postrider-event-type",
        "x-postrider-delivery-id",
    ] {
        assert!(!request.headers.contains_key(absent), "{absent}");
    }
    let received = Received {
        headers: &request.headers,
        body: &request.body,
        url: "https://hooks.example.com/in",
        method: "POST",
    };
    let now = sample::attempt().now;
    assert_eq!(webhook.signer.verify(&received, now), Ok(()));
}

#[test]
fn the_same_events_have_the_same_id_and_others_another() {
    let webhook = webhook(Payload::Format(PayloadFormat::Event));
    let events = events(4, 0);
    let id = |events: &[Event], number| {
        let request = made(&webhook, events, number).0.unwrap();
        request.headers["webhook-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(id(&events[..3], 1), id(&events[..3], 2));
    assert_ne!(id(&events[..3], 1), id(&events, 1));
    assert_ne!(id(&events[..1], 1), id(&events[1..2], 1));
}

#[test]
fn one_event_goes_as_an_array_too() {
    let webhook = webhook(Payload::Format(PayloadFormat::Event));
    let events = events(1, 0);
    let attempt = sample::attempt();
    let alone = delivery::prepare(&webhook, &sample::identity(), &events[0], attempt).unwrap();
    let (batch, _) = made(&webhook, &events, attempt.number);
    let batch = batch.unwrap();
    assert_eq!((alone.body, alone.headers), (batch.body, batch.headers));
}

#[test]
fn cloud_events_are_a_batch_of_their_own_content_type() {
    let webhook = webhook(Payload::Format(PayloadFormat::CloudEvent));
    let (request, _) = made(&webhook, &events(2, 0), 1);
    let request = request.unwrap();
    assert_eq!(request.headers["content-type"], CLOUD_EVENTS);
    assert!(body(&request).iter().all(|one| one["specversion"] == "1.0"));
}

#[test]
fn a_body_is_closed_before_it_is_too_large() {
    let webhook = webhook(Payload::Format(PayloadFormat::Event));
    let (request, places) = made(&webhook, &events(5, MAX_OUTPUT / 3), 1);
    let request = request.unwrap();
    assert_eq!(
        places,
        [Place::Taken, Place::Taken, Place::Left, Place::Left, Place::Left]
    );
    assert_eq!(body(&request).len(), 2);
    assert!(request.body.len() <= MAX_OUTPUT);
    let (request, places) = made(&webhook, &events(2, MAX_OUTPUT + 1), 1);
    assert_eq!(
        places,
        [Place::Taken, Place::Left],
        "a single one goes whatever its size"
    );
    assert_eq!(request.unwrap().headers[SIZE], "1");
}

#[test]
fn an_event_that_cannot_be_rendered_costs_no_other_its_place() {
    let template =
        Template::parse(&json!({"n": "{{ $.event.data.n }}", "user": "{{ $.event.user.id }}"})).unwrap();
    let webhook = webhook(Payload::Template(template));
    let user = |n: u32| {
        sample::event(&json!({"id": format!("u{n}"), "type": "x", "user": {"id": "u"}, "data": {"n": n}}))
    };
    let mut events = events(1, 0);
    assert_eq!(made(&webhook, &events, 1).0.map(|request| request.body), None);
    events.extend([user(1), user(2)]);
    let (request, places) = made(&webhook, &events, 1);
    assert!(
        matches!(places[..], [Place::Faulty(_), Place::Taken, Place::Taken]),
        "{places:?}"
    );
    assert_eq!(
        body(&request.unwrap()),
        [json!({"n": 1, "user": "u"}), json!({"n": 2, "user": "u"})]
    );
}

#[test]
fn a_large_array_is_compressed_as_a_whole() {
    let mut webhook = webhook(Payload::Format(PayloadFormat::Event));
    webhook.request.gzip_above = Some(1000);
    let (small, _) = made(&webhook, &events(1, 10), 1);
    let (large, _) = made(&webhook, &events(3, 900), 1);
    let (small, large) = (small.unwrap(), large.unwrap());
    assert!(!small.headers.contains_key("content-encoding"));
    assert_eq!(large.headers["content-encoding"], "gzip");
    assert!(large.body.len() < 1000);
}
