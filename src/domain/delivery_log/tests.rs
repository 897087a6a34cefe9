//! What gets into the delivery log, and what does not.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::json;

use super::*;
use crate::domain::destination::{Destination, Endpoint, References, Target};
use crate::domain::egress::EgressPolicy;
use crate::domain::event::sample;
use crate::domain::proxy::Proxy;
use crate::domain::request::Passage;

fn endpoint() -> Endpoint {
    let spec = serde_json::from_value(json!({
        "events": ["*"],
        "webhook": {
            "url": "https://hooks.example.com/T000000/s3cr3t-path?token=qu3ry-token",
            "signing": {"scheme": "None"},
        },
    }))
    .unwrap();
    let made = Destination::try_from_spec(
        sample::identity(),
        &spec,
        &References::new(),
        &EgressPolicy::default(),
    );
    let Target::Webhook(webhook) = made.unwrap().target else {
        panic!("the spec has a webhook");
    };
    webhook.endpoint
}

fn request() -> WebhookRequest {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("content-type", "application/json"),
        ("x-postrider-event-id", "evt_1"),
        ("x-postrider-attempt", "2"),
        ("webhook-id", "evt_1"),
        ("webhook-timestamp", "1770000000"),
        ("webhook-signature", "v1,c2lnbmF0dXJl"),
        ("x-api-key", "plain-k3y"),
        ("x-team", "payments"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let mut secret = HeaderValue::from_static("Bearer b34rer-token");
    secret.set_sensitive(true);
    headers.insert("x-custom", secret);
    WebhookRequest {
        method: Method::POST,
        endpoint: endpoint(),
        headers,
        body: Bytes::new(),
        passage: None,
    }
}

fn record(headers: Arc<str>) -> Record {
    Record {
        lane: Uid::new("u"),
        event_id: EventId::parse("evt_1").unwrap(),
        event_type: "a.b".into(),
        seq: 1,
        attempt: 2,
        began: sample::at("2026-02-02T02:40:00Z"),
        state: State::Delivered,
        status: Some(200),
        reason: "".into(),
        message: String::new(),
        timings: Timings::default(),
        headers,
        excerpt: None,
        next_attempt: None,
        replayed: false,
    }
}

#[test]
fn headers_are_kept_without_what_proves_who_sends() {
    let request = request();
    let notes = RequestNotes::of(&request, None);
    let read = headers(&record(notes.headers(None)), Some("delivery-1"));
    let value = |name: &str| {
        let found = read.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    };
    for (name, expected) in [
        ("content-type", "application/json"),
        ("x-team", "payments"),
        ("x-postrider-event-id", "evt_1"),
        ("x-postrider-attempt", "2"),
        ("webhook-id", "evt_1"),
        ("webhook-timestamp", "1770000000"),
        ("webhook-signature", REDACTED),
        ("x-api-key", REDACTED),
        ("x-custom", REDACTED),
    ] {
        assert_eq!(value(name), Some(expected), "{name}");
    }
}

#[test]
fn two_deliveries_of_one_destination_have_the_same_stored_headers() {
    let mut second = request();
    for (name, value) in [
        ("webhook-id", "evt_2"),
        ("x-postrider-attempt", "7"),
        ("webhook-timestamp", "9"),
    ] {
        second.headers.insert(name, HeaderValue::from_static(value));
    }
    assert_eq!(
        RequestNotes::of(&request(), None).headers(None),
        RequestNotes::of(&second, None).headers(None)
    );
}

#[test]
fn the_id_of_a_batch_is_told_as_it_was_sent() {
    let mut request = request();
    request
        .headers
        .insert("webhook-id", HeaderValue::from_static("batch-1"));
    request.headers.insert(batch::SIZE, HeaderValue::from_static("3"));
    let noted = RequestNotes::of(&request, None).headers(None);
    assert!(!are_shared(&noted));
    let read = headers(&record(noted), None);
    assert!(
        read.contains(&("webhook-id".to_owned(), "batch-1".to_owned())),
        "{read:?}"
    );
    let plain = RequestNotes::of(&self::request(), None).headers(None);
    assert!(are_shared(&plain));
}

#[test]
fn headers_that_are_those_of_last_time_are_not_written_again() {
    let first = RequestNotes::of(&request(), None).headers(None);
    let again = RequestNotes::of(&request(), None).headers(Some(&first));
    assert!(Arc::ptr_eq(&first, &again));
    for (name, value) in [
        ("x-team", "billing"),
        ("x-zone", "b"),
        ("x-long", &"x".repeat(MAX_HEADERS)),
    ] {
        let mut other = request();
        other.headers.insert(name, HeaderValue::from_str(value).unwrap());
        let notes = RequestNotes::of(&other, None);
        assert_eq!(notes.headers(Some(&first)), notes.headers(None), "{name}");
        assert_ne!(notes.headers(Some(&first)), first, "{name}");
    }
    let mut fewer = request();
    fewer.headers.remove("x-team");
    let notes = RequestNotes::of(&fewer, None);
    assert_eq!(notes.headers(Some(&first)), notes.headers(None));
}

#[test]
fn an_excerpt_has_nothing_that_the_request_told_in_confidence() {
    let in_body = Secret::new("r0uting-key".to_owned());
    let request = request();
    let notes = RequestNotes::of(&request, Some(&in_body));
    let echo = b"got Bearer b34rer-token, plain-k3y, v1,c2lnbmF0dXJl, r0uting-key at \
        /T000000/s3cr3t-path?token=qu3ry-token, fine";
    let excerpt = notes.excerpt(echo).unwrap();
    for secret in ["b34rer", "plain-k3y", "c2ln", "r0uting", "s3cr3t", "qu3ry"] {
        assert!(!excerpt.contains(secret), "{excerpt}");
    }
    assert!(excerpt.contains("fine"));
    assert_eq!(notes.excerpt(b""), None);
    assert_eq!(notes.excerpt(b"ok").as_deref(), Some("ok"));
}

#[test]
fn long_headers_are_cut() {
    let mut request = request();
    let long = "x".repeat(MAX_HEADERS);
    for name in ["x-one", "x-two"] {
        request
            .headers
            .insert(name, HeaderValue::from_str(&long).unwrap());
    }
    assert!(RequestNotes::of(&request, None).headers(None).len() < MAX_HEADERS + 64);
}

#[test]
fn a_secret_behind_long_headers_is_masked_all_the_same() {
    let mut request = request();
    request.headers.clear();
    let long = HeaderValue::from_str(&"x".repeat(MAX_HEADERS)).unwrap();
    request.headers.insert("x-long", long);
    request
        .headers
        .insert("authorization", HeaderValue::from_static("Bearer behind-all"));
    let notes = RequestNotes::of(&request, None);
    assert_eq!(
        notes.excerpt(b"got behind-all").as_deref(),
        Some("got [redacted]")
    );
    assert!(notes.headers(None).ends_with(CUT));
}

#[test]
fn the_password_of_a_proxy_that_echoes_it_is_masked() {
    let url = "http://user:pr0xy-word@proxy.example:3128";
    let proxy = Proxy::read(url, None).unwrap();
    let shown = proxy.authorization.clone().unwrap();
    let mut request = request();
    request.passage = Some(Arc::new(Passage {
        proxy: Some(proxy),
        ..Passage::default()
    }));
    let notes = RequestNotes::of(&request, None);
    let echo = [b"got ", shown.as_bytes()].concat();
    let excerpt = notes.excerpt(&echo).unwrap();
    assert!(excerpt.starts_with("got [redacted]"), "{excerpt}");
}

/// What is shown of an answer to a request with this sensitive header.
fn shown_of(header: &str, body: &str) -> String {
    let mut request = request();
    let mut value = HeaderValue::from_bytes(header.as_bytes()).unwrap();
    value.set_sensitive(true);
    request.headers.insert("authorization", value);
    RequestNotes::of(&request, None).excerpt(body.as_bytes()).unwrap()
}

#[test]
fn the_password_of_a_login_is_masked_as_the_receiver_has_read_it() {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode("app1:pä:ss w0rd");
    let header = format!("Basic {encoded}");
    for echo in [
        "app1:pä:ss w0rd",
        "pä:ss w0rd",
        &header,
        &encoded,
        "p\\u00e4:ss w0rd",
        "p%C3%A4%3ass+w0rd",
        "app1%3Ap%c3%a4%3Ass%20w0rd",
        "p&auml;:ss w0rd".replace("&auml;", "&#228;").as_str(),
    ] {
        let shown = shown_of(&header, &format!("got <{echo}>, no"));
        assert_eq!(shown, "got <[redacted]>, no", "{echo}");
    }
    assert_eq!(shown_of("Basic YTpiMQ==", "b1 or not b1"), "b1 or not b1");
}

#[test]
fn a_value_that_comes_back_escaped_is_masked() {
    let secret = r#"k3y"a&b<c>'d/e+f %41=="#;
    for echo in [
        secret.to_owned(),
        serde_json::to_string(secret)
            .unwrap()
            .trim_matches('"')
            .to_owned(),
        r#"k3y\"a\u0026b\u003cc\u003E\u0027d\/e+f %41=="#.to_owned(),
        "k3y%22a%26b%3Cc%3E%27d%2Fe%2Bf%20%2541%3D%3D".to_owned(),
        "k3y%22a%26b%3cc%3e'd/e%2bf+%2541%3d%3d".to_owned(),
        "k3y&quot;a&amp;b&lt;c&gt;&#39;d/e+f %41==".to_owned(),
        "k3y&#34;a&#x26;b&#60;c&#X3e;&apos;d&#x2F;e+f %41==".to_owned(),
    ] {
        for body in [format!("<{echo}>"), format!("{{\"x\": \"\\n%20&amp; {echo}\"}}")] {
            let shown = shown_of(secret, &body);
            assert!(
                shown.contains(REDACTED) && !shown.contains("k3y") && !shown.contains("41"),
                "{body}: {shown}"
            );
        }
    }
    let shown = shown_of(
        "Bearer t0ken/x+y",
        r#"{"token": "t0ken\/x+y"} \ud800 \u12 %zz &# &#x; &#9999999999;"#,
    );
    assert_eq!(
        shown,
        r#"{"token": "[redacted]"} \ud800 \u12 %zz &# &#x; &#9999999999;"#
    );
}

#[test]
fn a_key_in_the_body_need_not_be_ascii() {
    let key = Secret::new("schlüssel".to_owned());
    let request = request();
    let shown = RequestNotes::of(&request, Some(&key)).excerpt("no schlüssel".as_bytes());
    assert_eq!(shown.as_deref(), Some("no [redacted]"));
}
