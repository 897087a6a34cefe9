//! HTTP/2 without TLS: it works, and what its clients do on purpose is bounded.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use postrider::adapters::http::HttpSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::{EVENTS, PATIENCE, Server, TOKEN, settings};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

async fn connect(server: &Server) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let (send, connection) = h2::client::handshake(server.connect().await).await.unwrap();
    (send, tokio::spawn(connection))
}

fn request(authorization: &str) -> Request<()> {
    let request = Request::post(format!("http://x{EVENTS}"))
        .header("authorization", authorization)
        .header("content-type", "application/json");
    request.body(()).unwrap()
}

/// Publishes on a connection; status and body.
async fn publish(send: &SendRequest<Bytes>, authorization: &str, body: &str) -> (u16, String) {
    let mut send = send.clone().ready().await.unwrap();
    let (answer, mut stream) = send.send_request(request(authorization), false).unwrap();
    // A server that refuses early resets what is left of the request.
    drop(stream.send_data(Bytes::copy_from_slice(body.as_bytes()), true));
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    let status = answer.status().as_u16();
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(Ok(data)) = body.data().await {
        drop(body.flow_control().release_capacity(data.len()));
        text.extend_from_slice(&data);
    }
    (status, String::from_utf8(text).unwrap())
}

#[tokio::test]
async fn events_are_published_over_one_connection() {
    let server = Server::start(settings()).await;
    let (send, _connection) = connect(&server).await;
    let bearer = format!("Bearer {TOKEN}");
    let all = (0..100).map(|number| {
        let (send, bearer) = (&send, &bearer);
        async move { publish(send, bearer, &format!(r#"{{"id":"{number}","type":"x"}}"#)).await }
    });
    for (number, (status, body)) in futures::future::join_all(all).await.into_iter().enumerate() {
        assert_eq!(status, 202);
        assert_eq!(
            body,
            format!(r#"{{"events":[{{"id":"{number}","duplicate":false,"deliveries":1}}]}}"#)
        );
    }
    let (status, body) = publish(&send, "Bearer no", "{}").await;
    assert_eq!(status, 401);
    assert!(body.contains("problems/unauthorized"), "{body}");
    let (status, body) = publish(&send, &bearer, &" ".repeat(60_000)).await;
    assert_eq!(
        (status, body.contains("problems/invalid-event")),
        (400, true),
        "{body}"
    );
}

#[tokio::test]
async fn a_preface_and_no_more_ends_in_time() {
    let server = Server::start(settings()).await;
    for start in [
        PREFACE.to_vec(),
        [PREFACE, SETTINGS].concat(),
        [PREFACE, &[0, 0, 99, 4]].concat(),
    ] {
        server
            .unharmed(async {
                let mut stream = server.connect().await;
                stream.write_all(&start).await.unwrap();
                let mut bytes = Vec::new();
                drop(
                    timeout(Duration::from_secs(5), stream.read_to_end(&mut bytes))
                        .await
                        .expect("closed in time"),
                );
            })
            .await;
    }
}

#[tokio::test]
async fn a_header_in_endless_continuations_ends() {
    let server = Server::start(settings()).await;
    server
        .unharmed(async {
            let mut stream = server.connect().await;
            stream.write_all(&[PREFACE, SETTINGS].concat()).await.unwrap();
            // HEADERS on stream 1 without END_HEADERS, then CONTINUATION for ever: literal fields never indexed.
            let field = [&[0x10, 1, b'x', 100][..], &[b'y'; 100]].concat();
            let frame = |kind: u8| {
                let length = u8::try_from(field.len()).unwrap();
                [&[0, 0, length, kind, 0, 0, 0, 0, 1][..], &field].concat()
            };
            let mut ended = stream.write_all(&frame(1)).await.is_err();
            let started = tokio::time::Instant::now();
            while !ended {
                ended = stream.write_all(&frame(9)).await.is_err();
                assert!(started.elapsed() < Duration::from_secs(5), "never refused");
            }
        })
        .await;
}

#[tokio::test]
async fn a_body_that_does_not_end_is_408() {
    let server = Server::start(settings()).await;
    let (mut send, _connection) = connect(&server).await;
    let (answer, mut stream) = send
        .send_request(request(&format!("Bearer {TOKEN}")), false)
        .unwrap();
    stream.send_data(Bytes::from_static(b"{"), false).unwrap();
    let status = server.unharmed(answer).await.unwrap().status();
    assert_eq!(status, 408);
    let (status, _) = publish(&send, &format!("Bearer {TOKEN}"), r#"{"type":"x"}"#).await;
    assert_eq!(status, 202, "the connection lives on");
}

#[tokio::test]
async fn an_oversize_body_is_413_announced_or_not() {
    let server = Server::start(settings()).await;
    let (send, _connection) = connect(&server).await;
    let mut ready = send.clone().ready().await.unwrap();
    let mut announced = request(&format!("Bearer {TOKEN}"));
    announced.headers_mut().insert("content-length", 70_000.into());
    let (answer, _stream) = ready.send_request(announced, false).unwrap();
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 413);
    let (answer, mut stream) = ready
        .send_request(request(&format!("Bearer {TOKEN}")), false)
        .unwrap();
    for _ in 0..20 {
        drop(stream.send_data(Bytes::from(vec![b' '; 4_000]), false));
    }
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 413);
}

#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let server = Server::start(settings()).await;
    let hostile = async {
        let (send, connection) = connect(&server).await;
        let mut started = 0;
        while let Ok(Ok(mut send)) = timeout(Duration::from_secs(2), send.clone().ready()).await {
            let Ok((_, mut stream)) = send.send_request(request("Bearer x"), false) else {
                break;
            };
            stream.send_reset(h2::Reason::CANCEL);
            started += 1;
            assert!(started < 200_000, "never refused");
            if started % 64 == 0 {
                tokio::task::yield_now().await;
            }
        }
        let end = timeout(PATIENCE, connection).await.unwrap().unwrap();
        assert_eq!(end.unwrap_err().reason(), Some(h2::Reason::ENHANCE_YOUR_CALM));
    };
    server.unharmed(hostile).await;
}

#[tokio::test]
async fn streams_of_a_connection_are_bounded() {
    let server = Server::start(HttpSettings {
        body_timeout: PATIENCE,
        ..settings()
    })
    .await;
    let (mut send, _connection) = connect(&server).await;
    let (status, _) = publish(&send, &format!("Bearer {TOKEN}"), r#"{"type":"x"}"#).await;
    assert_eq!(status, 202);
    let streams = send.current_max_send_streams();
    assert!(streams <= 128, "{streams} streams at once");
    let mut held = Vec::new();
    while held.len() < 1_000 {
        let Ok(ready) = timeout(Duration::from_millis(200), send.ready()).await else {
            break;
        };
        send = ready.unwrap();
        held.push(
            send.send_request(request(&format!("Bearer {TOKEN}")), false)
                .unwrap(),
        );
        // Only streams that the connection has opened count.
        tokio::task::yield_now().await;
    }
    assert!((120..=130).contains(&held.len()), "{}", held.len());
}

#[tokio::test]
async fn an_idle_connection_is_closed_whatever_its_pings() {
    let server = Server::start(settings()).await;
    let (send, mut connection) = h2::client::handshake(server.connect().await).await.unwrap();
    let mut pings = connection.ping_pong().unwrap();
    let connection = tokio::spawn(connection);
    let (status, _) = publish(&send, &format!("Bearer {TOKEN}"), r#"{"type":"x"}"#).await;
    assert_eq!(status, 202);
    let pinging = async { while pings.ping(h2::Ping::opaque()).await.is_ok() {} };
    timeout(Duration::from_secs(5), pinging)
        .await
        .expect("closed in time");
    drop(connection.await.unwrap());
}

#[tokio::test]
async fn an_answer_without_a_window_ends_the_connection_whatever_its_pings() {
    let server = Server::start(settings()).await;
    let hostile = async {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(0);
        let (mut send, mut connection) = builder
            .handshake::<_, Bytes>(server.connect().await)
            .await
            .unwrap();
        let mut pings = connection.ping_pong().unwrap();
        let connection = tokio::spawn(connection);
        let (answer, _stream) = send.send_request(request("Bearer x"), true).unwrap();
        let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert_eq!(answer.status(), 401);
        let pinging = async { while pings.ping(h2::Ping::opaque()).await.is_ok() {} };
        timeout(Duration::from_secs(5), pinging)
            .await
            .expect("closed in time");
        drop(connection.await.unwrap());
        drop(answer);
    };
    server.unharmed(hostile).await;
    assert_eq!(
        server.metric(r#"postrider_limit_hits_total{limit="write_timeout"}"#),
        1
    );
}

#[tokio::test]
async fn too_many_header_fields_are_431() {
    let server = Server::start(settings()).await;
    let (mut send, _connection) = connect(&server).await;
    let mut many = request(&format!("Bearer {TOKEN}"));
    for number in 0..150 {
        let name = http::HeaderName::try_from(format!("x-{number}")).unwrap();
        many.headers_mut().insert(name, 1.into());
    }
    let (answer, _) = send.send_request(many, true).unwrap();
    assert_eq!(timeout(PATIENCE, answer).await.unwrap().unwrap().status(), 431);
}
