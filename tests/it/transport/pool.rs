//! Kept-alive connections.

use std::sync::Arc;

use futures::future::join_all;
use tokio::sync::Barrier;

use super::receiver::{Receiver, answer, request};
use super::{LONG, send, transport};

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

#[tokio::test]
async fn a_connection_is_used_again() {
    let receiver = Receiver::start(|mut stream, _| async move {
        while !request(&mut stream).await.is_empty() {
            answer(&mut stream, OK).await;
        }
    })
    .await;
    let transport = transport();
    for _ in 0..50 {
        send(&transport, &receiver.origin(), LONG)
            .await
            .expect("an answer");
    }
    assert_eq!(
        (receiver.accepted(), transport.metrics().open_connections()),
        (1, 1)
    );
}

#[tokio::test]
async fn connections_that_were_needed_at_once_are_kept_for_the_next_time() {
    const AT_ONCE: usize = 300;
    let together = Arc::new(Barrier::new(AT_ONCE));
    let receiver = Receiver::start(move |mut stream, _| {
        let together = Arc::clone(&together);
        async move {
            request(&mut stream).await;
            together.wait().await;
            answer(&mut stream, OK).await;
            while !request(&mut stream).await.is_empty() {
                answer(&mut stream, OK).await;
            }
        }
    })
    .await;
    let transport = transport();
    let origin = receiver.origin();
    let sent = join_all((0..AT_ONCE).map(|_| send(&transport, &origin, LONG))).await;
    assert!(sent.iter().all(Result::is_ok));
    for _ in 0..20 {
        send(&transport, &origin, LONG).await.expect("an answer");
    }
    assert_eq!(
        (receiver.accepted(), transport.metrics().open_connections()),
        (AT_ONCE, 300)
    );
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced_without_failure() {
    let receiver = Receiver::start(|mut stream, log| async move {
        request(&mut stream).await;
        answer(&mut stream, OK).await;
        drop(stream);
        log.note("closed");
    })
    .await;
    let transport = transport();
    for round in 1..=20 {
        send(&transport, &receiver.origin(), LONG)
            .await
            .unwrap_or_else(|failure| panic!("{round}: {failure:?}"));
        receiver.noted().await;
        assert_eq!(receiver.accepted(), round);
    }
}

/// The receiver closes just as the next request is written: the request is sent again on a new connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_closed_under_a_request_is_replaced_without_failure() {
    let receiver = Receiver::start(|mut stream, _| async move {
        request(&mut stream).await;
        answer(&mut stream, OK).await;
    })
    .await;
    let transport = transport();
    let origin = receiver.origin();
    let senders = (0..8).map(|_| async {
        for round in 0..250 {
            send(&transport, &origin, LONG)
                .await
                .unwrap_or_else(|failure| panic!("{round}: {failure:?}"));
        }
    });
    join_all(senders).await;
}

/// Reads the next request, then closes: nothing tells a receiver that worked on it from one that did not.
#[tokio::test]
async fn a_request_that_was_read_on_a_kept_connection_is_sent_once_more_and_no_more() {
    let receiver = Receiver::start(|mut stream, log| async move {
        if log.number == 1 {
            request(&mut stream).await;
            answer(&mut stream, OK).await;
        }
        request(&mut stream).await;
        log.note("read");
    })
    .await;
    let transport = transport();
    send(&transport, &receiver.origin(), LONG)
        .await
        .expect("an answer");
    let failure = send(&transport, &receiver.origin(), LONG)
        .await
        .expect_err("a failure");
    assert_eq!(
        failure.reason,
        postrider::domain::outcome::FailureReason::ConnectionReset
    );
    assert_eq!(receiver.accepted(), 2);
    assert_eq!(
        (receiver.noted().await, receiver.noted().await),
        ("read".to_owned(), "read".to_owned())
    );
}
