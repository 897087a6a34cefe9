//! Which headers and body a request has, on the first attempt and on later ones.

use serde_json::json;

use super::*;
use crate::api::v1alpha1::event_destination::PayloadFormat;
use crate::domain::destination::RequestTemplates;
use crate::domain::egress::EgressPolicy;
use crate::domain::event::sample;
use crate::domain::request::RequestForm;
use crate::domain::shape::Payload;
use crate::domain::signature::{Received, Signer};

fn made(own: &[(HeaderName, HeaderValue)], attempt: Attempt) -> (HeaderMap, Bytes) {
    let event = sample::event(&json!({"id": "evt-7", "type": "workflow_failure", "data": {"a": 1}}));
    let webhook = Webhook {
        endpoint: Endpoint::parse("https://hooks.example.com/in", &EgressPolicy::default()).unwrap(),
        headers: own.to_vec(),
        templates: RequestTemplates::default(),
        payload: Payload::Format(PayloadFormat::Default),
        signer: Signer::standard(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(),
        request: RequestForm::default(),
    };
    let request = prepare(&webhook, &sample::identity(), &event, attempt).unwrap();
    (request.headers, request.body)
}

#[test]
fn a_request_says_what_it_delivers() {
    let (headers, _) = made(
        &[],
        Attempt {
            number: 3,
            ..sample::attempt()
        },
    );
    for (name, value) in [
        ("content-type", "application/json"),
        ("user-agent", concat!("Postrider/", env!("CARGO_PKG_VERSION"))),
        ("x-postrider-event-type", "workflow_failure"),
        ("x-postrider-event-id", "evt-7"),
        ("x-postrider-attempt", "3"),
        ("webhook-id", "evt-7"),
        ("webhook-timestamp", "1769847331"),
    ] {
        assert_eq!(headers[name], value, "{name}");
    }
    assert_eq!(headers.len(), OWN_HEADERS);
    assert!(uuid::Uuid::parse_str(headers["x-postrider-delivery-id"].to_str().unwrap()).is_ok());
}

#[test]
fn a_later_attempt_differs_only_in_number_time_and_signature() {
    let (mut first, first_body) = made(&[], sample::attempt());
    let later = Attempt {
        number: 2,
        now: sample::at("2026-01-31T08:20:31Z"),
    };
    let (mut second, second_body) = made(&[], later);
    assert_eq!(first_body, second_body);
    for name in ["x-postrider-attempt", "webhook-timestamp", "webhook-signature"] {
        assert_ne!(first.remove(name), second.remove(name), "{name}");
    }
    assert_eq!(first, second);
}

#[test]
fn the_signature_is_over_the_body_that_is_sent() {
    let signer = Signer::standard(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    let (headers, body) = made(&[], sample::attempt());
    let request = Received {
        headers: &headers,
        body: &body,
        url: "https://hooks.example.com/in",
        method: "POST",
    };
    assert_eq!(signer.verify(&request, sample::attempt().now), Ok(()));
}

#[test]
fn own_headers_win_over_defaults_and_never_over_the_deliverys() {
    let own = [
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/vnd.acme+json"),
        ),
        (header::USER_AGENT, HeaderValue::from_static("acme")),
        (HeaderName::from_static("x-tag"), HeaderValue::from_static("a")),
        (HeaderName::from_static("x-tag"), HeaderValue::from_static("b")),
        (
            HeaderName::from_static("webhook-id"),
            HeaderValue::from_static("forged"),
        ),
        (
            HeaderName::from_static("x-postrider-attempt"),
            HeaderValue::from_static("9"),
        ),
    ];
    let (headers, _) = made(&own, sample::attempt());
    assert_eq!(headers["content-type"], "application/vnd.acme+json");
    assert_eq!(headers["user-agent"], "acme");
    assert_eq!(headers.get_all("x-tag").iter().count(), 2);
    assert_eq!(
        headers.get_all("webhook-id").iter().collect::<Vec<_>>(),
        ["evt-7"]
    );
    assert_eq!(headers["x-postrider-attempt"], "1");
}
