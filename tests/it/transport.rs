//! The HTTP transport against real receivers on loopback, most of them hostile.
//!
//! Receivers are raw sockets, so that they can break any rule. Each test sends to a URL with a secret path, and no
//! failure's message may show it.

mod hostile;
mod identity;
mod names;
mod pool;
mod proxy;
pub(crate) mod receiver;
mod secure;
mod timings;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method};
use postrider::adapters::webhook::{HttpTransport, TransportSettings};
use postrider::domain::delivery::WebhookRequest;
use postrider::domain::destination::Endpoint;
use postrider::domain::egress::EgressPolicy;
use postrider::domain::outcome::{Failure, FailureReason, MAX_REPLY_KEPT, MAX_REPLY_READ, Reply};
use postrider::engine::transport::Transport as _;

use receiver::{Receiver, answer, request};

/// For requests that are answered.
const LONG: Duration = Duration::from_secs(20);
/// For requests that are not.
const SHORT: Duration = Duration::from_millis(400);
const SECRET: &str = "hidden-path";

/// A policy that opens loopback.
fn loopback() -> EgressPolicy {
    EgressPolicy::new(["127.0.0.0/8", "::1/128"].map(|net| net.parse().expect("a range")))
}

/// Settings that open loopback and resolve every name to 127.0.0.1.
fn settings() -> TransportSettings {
    let lookup = |_: &str| Ok(vec![IpAddr::from([127, 0, 0, 1])]);
    TransportSettings {
        policy: loopback(),
        lookup: std::sync::Arc::new(lookup),
        ..TransportSettings::default()
    }
}

fn transport() -> HttpTransport {
    HttpTransport::new(settings()).expect("a transport")
}

fn webhook(origin: &str) -> WebhookRequest {
    let url = format!("{origin}/{SECRET}?token={SECRET}");
    WebhookRequest {
        method: Method::POST,
        endpoint: Endpoint::parse(&url, &loopback()).unwrap_or_else(|fault| panic!("{url}: {fault}")),
        headers: HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        )]),
        body: Bytes::from_static(b"{\"event\":1}"),
        passage: None,
    }
}

/// Sends and checks what holds for every send: the deadline, and that no message shows the URL.
async fn send(transport: &HttpTransport, origin: &str, deadline: Duration) -> Result<Reply, Failure> {
    let start = Instant::now();
    let result = transport.send(&webhook(origin), deadline).await;
    let took = start.elapsed();
    assert!(
        took < deadline + Duration::from_secs(2),
        "{took:?} for a deadline of {deadline:?}"
    );
    if let Err(failure) = &result {
        assert!(!failure.message.contains(SECRET), "{}", failure.message);
        let length = failure.message.chars().count();
        assert!(
            (1..=512).contains(&length),
            "{length} characters: {}",
            failure.message
        );
    }
    result
}

/// Sends something that must fail, and checks reason, status and a part of the message.
async fn refused(origin: &str, deadline: Duration, reason: FailureReason, status: Option<u16>, part: &str) {
    let transport = transport();
    let failure = send(&transport, origin, deadline).await.expect_err("a failure");
    assert_eq!(
        (failure.reason, failure.status),
        (reason, status),
        "{}",
        failure.message
    );
    assert!(
        failure.message.contains(part),
        "{} lacks {part:?}",
        failure.message
    );
}

#[tokio::test]
async fn an_answer_is_read_and_the_request_is_as_prepared() {
    let receiver = Receiver::start(|mut stream, log| async move {
        log.note(request(&mut stream).await);
        let head = "HTTP/1.1 503 Busy\r\nretry-after: 120\r\ncontent-length: 4\r\n\r\nbusy";
        answer(&mut stream, head).await;
    })
    .await;
    let reply = send(&transport(), &receiver.origin(), LONG)
        .await
        .expect("an answer");
    assert_eq!(
        (reply.status, reply.retry_after.as_deref(), &reply.excerpt[..]),
        (503, Some("120"), &b"busy"[..])
    );
    let request = receiver.noted().await.to_ascii_lowercase();
    let mut lines = request.lines();
    assert_eq!(
        lines.next(),
        Some(format!("post /{SECRET}?token={SECRET} http/1.1").as_str())
    );
    for line in [
        format!("host: {}", receiver.address()),
        "content-type: application/json".to_owned(),
        "content-length: 11".to_owned(),
        concat!("user-agent: postrider/", env!("CARGO_PKG_VERSION")).to_owned(),
    ] {
        assert!(lines.clone().any(|have| have == line), "no {line:?} in {request}");
    }
    assert!(request.ends_with("\r\n\r\n{\"event\":1}"), "{request}");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let target =
        Receiver::start(async |mut stream, _| answer(&mut stream, "HTTP/1.1 200 OK\r\n\r\n").await).await;
    let location: &str = target.origin().leak();
    let receiver = Receiver::start(move |mut stream, _| async move {
        request(&mut stream).await;
        let head = format!("HTTP/1.1 307 Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
        answer(&mut stream, &head).await;
    })
    .await;
    assert_eq!(
        send(&transport(), &receiver.origin(), LONG)
            .await
            .expect("an answer")
            .status,
        307
    );
    assert_eq!(target.accepted(), 0);
}

#[tokio::test]
async fn a_body_up_to_the_cap_is_read_and_its_beginning_kept() {
    for (length, expected) in [
        (0, Some(0)),
        (MAX_REPLY_KEPT, Some(MAX_REPLY_KEPT)),
        (MAX_REPLY_READ, Some(MAX_REPLY_KEPT)),
        (MAX_REPLY_READ + 1, None),
    ] {
        for chunked in [false, true] {
            let receiver = Receiver::start(move |mut stream, _| async move {
                request(&mut stream).await;
                let body = "x".repeat(length);
                let text = match (chunked, length) {
                    (false, _) => format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"),
                    (true, 0) => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(),
                    (true, _) => {
                        format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n")
                    }
                };
                answer(&mut stream, &text).await;
            })
            .await;
            let transport = transport();
            match (send(&transport, &receiver.origin(), LONG).await, expected) {
                (Ok(reply), Some(kept)) => assert_eq!(reply.excerpt.len(), kept),
                (Err(failure), None) => {
                    assert_eq!(
                        (failure.reason, failure.status),
                        (FailureReason::ResponseTooLarge, Some(200))
                    );
                    assert_eq!(transport.metrics().truncations(), 1);
                }
                (other, _) => panic!("{length}, chunked {chunked}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn an_old_receiver_is_understood() {
    for head in [
        "HTTP/1.0 200 OK\r\n\r\nbye",
        "HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nbye",
        "HTTP/1.1 200\r\n\r\nbye",
    ] {
        let receiver = Receiver::start(move |mut stream, _| async move {
            request(&mut stream).await;
            answer(&mut stream, head).await;
        })
        .await;
        let reply = send(&transport(), &receiver.origin(), LONG)
            .await
            .expect("an answer");
        assert_eq!((reply.status, &reply.excerpt[..]), (200, &b"bye"[..]), "{head:?}");
    }
}

#[tokio::test]
async fn a_retry_after_that_is_no_text_or_too_long_is_dropped() {
    for value in ["\u{e9}", &*"9".repeat(65).leak()] {
        let receiver = Receiver::start(move |mut stream, _| async move {
            request(&mut stream).await;
            answer(
                &mut stream,
                &format!("HTTP/1.1 503 Busy\r\nretry-after: {value}\r\n\r\n"),
            )
            .await;
        })
        .await;
        let reply = send(&transport(), &receiver.origin(), LONG)
            .await
            .expect("an answer");
        assert_eq!((reply.status, reply.retry_after), (503, None));
    }
}

#[tokio::test]
async fn nothing_listening_is_a_refused_connection() {
    let address = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        listener.local_addr().expect("an address")
    };
    refused(
        &format!("http://{address}"),
        LONG,
        FailureReason::ConnectionRefused,
        None,
        "check host and port",
    )
    .await;
}
