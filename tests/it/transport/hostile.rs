//! Receivers that hang, flood, lie and talk nonsense.

use std::time::Duration;

use postrider::domain::outcome::FailureReason::{ConnectionReset, ProtocolError, ResponseTooLarge, Timeout};
use postrider::domain::outcome::{Outcome, Reading, classify};
use tokio::net::{TcpSocket, TcpStream};

use super::receiver::{Receiver, answer, closed, flood, request};
use super::{LONG, SHORT, refused, send, transport};

/// Most that a receiver may get rid of: what is read, and what fills the socket's buffers on both sides.
const TAKEN: usize = 16 << 20;

/// A receiver that answers with `head` and then keeps the connection open until the sender closes it.
async fn hanging(head: &'static str) -> Receiver {
    Receiver::start(move |mut stream, log| async move {
        request(&mut stream).await;
        answer(&mut stream, head).await;
        closed(&mut stream).await;
        log.note("closed");
    })
    .await
}

/// A receiver that answers with `head` and then sends `piece` until the sender goes away.
async fn flooding(head: &'static str, piece: String) -> Receiver {
    let piece: &str = piece.leak();
    Receiver::start(move |mut stream, log| async move {
        request(&mut stream).await;
        answer(&mut stream, head).await;
        let written = flood(&mut stream, piece.as_bytes(), 1_500_000_000).await;
        log.note(written.to_string());
    })
    .await
}

async fn took(receiver: &Receiver) -> usize {
    receiver.noted().await.parse().expect("a number")
}

#[tokio::test]
async fn a_host_that_does_not_accept_is_a_timeout_without_connection() {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind("127.0.0.1:0".parse().expect("an address"))
        .expect("a port");
    let listener = socket.listen(1).expect("a listener");
    let address = listener.local_addr().expect("an address");
    // Fill the backlog, until the kernel leaves the next one hanging.
    let mut waiting = Vec::new();
    while let Ok(stream) = tokio::time::timeout(Duration::from_millis(300), TcpStream::connect(address)).await
    {
        waiting.push(stream.expect("a connection"));
        assert!(waiting.len() < 64, "the backlog has no end");
    }
    refused(
        &format!("http://{address}"),
        SHORT,
        Timeout,
        None,
        "no connection within",
    )
    .await;
}

#[tokio::test]
async fn a_receiver_that_never_accepts_or_answers_is_a_timeout() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let origin = format!("http://{}", listener.local_addr().expect("an address"));
    refused(&origin, SHORT, Timeout, None, "no answer within").await;

    let receiver = hanging("").await;
    refused(&receiver.origin(), SHORT, Timeout, None, "no answer within").await;
    assert_eq!(receiver.noted().await, "closed");
}

#[tokio::test]
async fn a_receiver_that_hangs_in_its_answer_is_a_timeout_and_loses_the_connection() {
    for (head, status) in [
        ("HTTP/1.1 200 OK\r\ncontent-", None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhal", Some(200)),
        (
            "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
            Some(500),
        ),
        ("HTTP/1.1 200 OK\r\n\r\nuntil close", Some(200)),
        ("HTTP/1.1 102 Processing\r\n\r\n", None),
    ] {
        let receiver = hanging(head).await;
        refused(&receiver.origin(), SHORT, Timeout, status, "").await;
        assert_eq!(receiver.noted().await, "closed", "{head:?}");
    }
}

#[tokio::test]
async fn a_drip_does_not_outlive_the_deadline() {
    for (head, status) in [
        ("HTTP/1.1 200 OK\r\nx-drip: ", None),
        ("HTTP/1.1 200 OK\r\n\r\n", Some(200)),
    ] {
        let receiver = Receiver::start(move |mut stream, log| async move {
            request(&mut stream).await;
            answer(&mut stream, head).await;
            let mut tick = tokio::time::interval(Duration::from_millis(100));
            while flood(&mut stream, b"x", 1).await == 1 {
                tick.tick().await;
            }
            log.note("closed");
        })
        .await;
        refused(
            &receiver.origin(),
            Duration::from_millis(700),
            Timeout,
            status,
            "",
        )
        .await;
        assert_eq!(receiver.noted().await, "closed");
    }
}

#[tokio::test]
async fn a_flood_is_cut_off_at_the_cap() {
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for (head, piece) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1500000000\r\n\r\n",
            "x".repeat(0x10000),
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", "x".repeat(0x10000)),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", chunk),
    ] {
        let receiver = flooding(head, piece).await;
        refused(&receiver.origin(), LONG, ResponseTooLarge, Some(200), "64 KiB").await;
        let taken = took(&receiver).await;
        assert!(taken < TAKEN, "{head:?}: {taken}");
    }
}

#[tokio::test]
async fn endless_heads_are_cut_off() {
    let many: String = "x-many: y\r\n".repeat(129);
    let long = format!("HTTP/1.1 200 OK\r\nx-long: {}", "x".repeat(0x10000));
    for (head, piece) in [
        ("HTTP/1.1 200 OK\r\n", many + "\r\n"),
        ("HTTP/1.1 200 OK\r\n", "x-flood: y\r\n".repeat(1000)),
        ("", long),
        ("HTTP/1.1 200 ", "x".repeat(0x10000)),
    ] {
        let receiver = flooding(head, piece).await;
        refused(&receiver.origin(), LONG, ProtocolError, None, "").await;
        let taken = took(&receiver).await;
        assert!(taken < TAKEN, "{taken}");
    }
}

#[tokio::test]
async fn endless_trailers_and_chunk_extensions_are_cut_off() {
    for (head, piece) in [
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5;x=",
            "y".repeat(0x10000),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
            "x-trailer: y\r\n".repeat(1000),
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "1;ext=yyyyyyyyyyyyyyyyyy\r\nx\r\n".repeat(1000),
        ),
    ] {
        let receiver = flooding(head, piece).await;
        let failure = send(&transport(), &receiver.origin(), LONG)
            .await
            .expect_err("a failure");
        assert!(
            matches!(failure.reason, ProtocolError | ResponseTooLarge),
            "{failure:?}"
        );
        assert_eq!(failure.status, Some(200));
        let taken = took(&receiver).await;
        assert!(taken < TAKEN, "{head:?}: {taken}");
    }
}

#[tokio::test]
async fn endless_informational_answers_end_at_the_deadline() {
    let receiver = flooding("", "HTTP/1.1 100 Continue\r\n\r\n".repeat(100)).await;
    refused(&receiver.origin(), SHORT, Timeout, None, "no answer within").await;
    took(&receiver).await;
}

#[tokio::test]
async fn what_is_not_http_is_a_protocol_error() {
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\0\0\0\0\0\0\0\0\0\0\0\0",
        "220 mail.example.com ESMTP\r\n",
        "HTTP/9.9 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 abc OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx: \u{0}\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: ten\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "<html>hello</html>\r\n\r\n",
        "{\"ok\":true}\r\n\r\n",
    ] {
        let receiver = hanging(text).await;
        refused(&receiver.origin(), LONG, ProtocolError, None, "").await;
        assert_eq!(receiver.noted().await, "closed", "{text:?}");
    }
}

#[tokio::test]
async fn an_answer_without_a_final_status_is_a_protocol_error() {
    for (text, status, part) in [
        (
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            101,
            "answered 101, which announces another answer and is none",
        ),
        (
            "HTTP/1.1 600 Beyond\r\ncontent-length: 0\r\n\r\n",
            600,
            "answered 600, which is no status of HTTP",
        ),
        (
            "HTTP/1.1 999 Denied\r\ncontent-length: 2\r\n\r\nno",
            999,
            "answered 999, which is no status of HTTP",
        ),
    ] {
        let receiver = hanging(text).await;
        let reply = send(&transport(), &receiver.origin(), LONG)
            .await
            .unwrap_or_else(|failure| panic!("{text:?}: {}", failure.message));
        assert_eq!(reply.status, status);
        let Outcome::Failed(failure) = classify(&reply, Reading::Status, jiff::Timestamp::now()) else {
            panic!("{text:?} is a failure")
        };
        assert_eq!(failure.reason, ProtocolError);
        assert!(failure.message.contains(part), "{}", failure.message);
    }
    for text in [
        "HTTP/1.1 099 Low\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 000 None\r\ncontent-length: 0\r\n\r\n",
    ] {
        let receiver = hanging(text).await;
        refused(&receiver.origin(), LONG, ProtocolError, None, "").await;
    }
    let receiver = hanging(
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 204 Done\r\n\r\n",
    )
    .await;
    let reply = send(&transport(), &receiver.origin(), LONG)
        .await
        .expect("an answer");
    assert_eq!(reply.status, 204, "what comes before the final answer is skipped");
}

#[tokio::test]
async fn a_body_in_nonsense_chunks_is_a_protocol_error() {
    for body in [
        "zz\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "fffffffffffffffff\r\nx",
        "5\r\nhelloworld\r\n",
        "\r\n\r\n",
        "5 5\r\nhello",
    ] {
        let receiver = Receiver::start(move |mut stream, _| async move {
            request(&mut stream).await;
            answer(
                &mut stream,
                &format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}"),
            )
            .await;
            closed(&mut stream).await;
        })
        .await;
        let failure = send(&transport(), &receiver.origin(), LONG)
            .await
            .expect_err("a failure");
        assert_eq!(
            (failure.reason, failure.status),
            (ProtocolError, Some(200)),
            "{body:?}: {}",
            failure.message
        );
    }
}

#[tokio::test]
async fn an_answer_that_ends_early_is_a_broken_connection() {
    for (text, status) in [
        ("", None),
        ("HTT", None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n", None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n", Some(200)),
        ("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello", Some(200)),
        (
            "HTTP/1.1 500 Oh\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhel",
            Some(500),
        ),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", Some(200)),
    ] {
        for reset in [false, true] {
            let receiver = Receiver::start(move |mut stream, _| async move {
                request(&mut stream).await;
                answer(&mut stream, text).await;
                if reset {
                    stream.set_zero_linger().expect("an option");
                }
            })
            .await;
            let failure = send(&transport(), &receiver.origin(), LONG)
                .await
                .expect_err("a failure");
            assert_eq!(
                failure.reason, ConnectionReset,
                "{text:?}, reset {reset}: {}",
                failure.message
            );
            // A reset may overtake what was written before it.
            if !reset {
                assert_eq!(failure.status, status, "{text:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_body_longer_than_announced_is_cut_and_the_rest_is_no_answer_to_the_next_request() {
    let receiver = Receiver::start(|mut stream, log| async move {
        request(&mut stream).await;
        answer(
            &mut stream,
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 500 Smuggled\r\n\r\n",
        )
        .await;
        closed(&mut stream).await;
        log.note("closed");
    })
    .await;
    let transport = transport();
    for _ in 0..3 {
        let reply = send(&transport, &receiver.origin(), LONG)
            .await
            .expect("an answer");
        assert_eq!((reply.status, &reply.excerpt[..]), (200, &b"ok"[..]));
        assert_eq!(receiver.noted().await, "closed");
    }
}

#[tokio::test]
async fn nothing_of_a_failed_send_stays_open() {
    let receiver = hanging("HTTP/1.1 200 OK\r\n\r\nuntil close").await;
    let transport = transport();
    send(&transport, &receiver.origin(), SHORT)
        .await
        .expect_err("a timeout");
    assert_eq!(receiver.noted().await, "closed");
    crate::support::eventually("no open connection", LONG, || async {
        match transport.metrics().open_connections() {
            0 => Ok(()),
            open => Err(open),
        }
    })
    .await;
}
