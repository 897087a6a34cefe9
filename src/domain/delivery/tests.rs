//! Which headers and body a request has, on the first attempt and on later ones.

use serde_json::json;

use super::*;
use crate::api::v1alpha1::event_destination::PayloadFormat;
use crate::domain::event::sample;
use crate::domain::shape::Payload;

fn made(own: &[(HeaderName, HeaderValue)], attempt: Attempt) -> (HeaderMap, Bytes) {
    let event = sample::event(&json!({"id": "evt-7", "type": "workflow_failure", "data": {"a": 1}}));
    let rendered = Payload::Format(PayloadFormat::Default)
        .render(&event, &sample::identity(), attempt)
        .unwrap();
    let signer = Signer::standard(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
    (
        headers(
            own,
            Attributes::new(),
            &signer,
            &rendered,
            &event,
            &sample::identity(),
            attempt,
        ),
        rendered.body,
    )
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
    assert_eq!(signer.verify(&headers, &body, sample::attempt().now), Ok(()));
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
