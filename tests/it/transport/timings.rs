//! How long the parts of an attempt took: of the receiver's own request, also through a proxy and with a token.

use std::sync::Arc;
use std::time::Duration;

use postrider::adapters::webhook::{HttpTransport, TransportSettings};
use postrider::domain::delivery_log::Timings;
use postrider::domain::destination::Endpoint;
use postrider::domain::id::Uid;
use postrider::domain::oauth2::{Client, ClientCredentials};
use postrider::domain::proxy::Proxy;
use postrider::domain::request::Passage;
use postrider::domain::secret::Secret;
use postrider::domain::tls::{Parts, Tls};
use postrider::engine::transport::Transport as _;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::receiver::{Receiver, answer, request};
use super::{LONG, loopback, settings, webhook};
use crate::support::Authority;

const NAME: &str = "receiver.example";
/// What a proxy and a token endpoint take for their answers.
const SLOW: Duration = Duration::from_millis(150);

fn transport() -> HttpTransport {
    let proxies = loopback();
    HttpTransport::new(TransportSettings {
        proxies,
        ..settings()
    })
    .expect("a transport")
}

/// A receiver with TLS and kept connections that answers with a status, by the number of the request on its connection.
async fn receiver(authority: &Authority, status: fn(usize) -> u16) -> Receiver {
    let acceptor = Authority::showing(&authority.pair(NAME));
    Receiver::start(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            let mut number = 0;
            while !request(&mut stream).await.is_empty() {
                number += 1;
                let head = format!("HTTP/1.1 {} Said\r\ncontent-length: 0\r\n\r\n", status(number));
                answer(&mut stream, &head).await;
            }
        }
    })
    .await
}

fn trusting(authority: &Authority) -> Passage {
    let bundle = authority.bundle();
    let parts = Parts {
        bundle: Some(bundle.as_bytes()),
        client: None,
        server_name: None,
    };
    Passage {
        tls: Some(Tls::read(parts).expect("a bundle")),
        ..Passage::default()
    }
}

async fn send(transport: &HttpTransport, to: &Receiver, passage: &Passage) -> (u16, Timings) {
    let mut request = webhook(&format!("https://{NAME}:{}", to.address().port()));
    request.passage = Some(Arc::new(passage.clone()));
    let (result, timings) = transport.send_timed(&request, LONG).await;
    let parts = [timings.dns, timings.connect, timings.tls, timings.first_byte];
    let sum: Duration = parts.into_iter().flatten().sum();
    assert!(sum <= timings.total, "{timings:?}");
    (result.expect("an answer").status, timings)
}

/// Which parts there are.
fn parts(timings: &Timings) -> Vec<&'static str> {
    let all = [
        ("dns", timings.dns),
        ("connect", timings.connect),
        ("tls", timings.tls),
        ("firstByte", timings.first_byte),
    ];
    let there = all.into_iter().filter(|(_, part)| part.is_some());
    there.map(|(name, _)| name).collect()
}

/// An endpoint that numbers its tokens, slowly, each on a connection of its own.
async fn token_endpoint() -> Receiver {
    Receiver::start(|mut stream, log| async move {
        request(&mut stream).await;
        // Time must pass: what is measured is whose it is.
        tokio::time::sleep(SLOW).await;
        let body = format!(r#"{{"access_token":"t{}","token_type":"Bearer","expires_in":3600}}"#, log.number);
        let head = format!(
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        answer(&mut stream, &head).await;
    })
    .await
}

fn with_token(passage: Passage, endpoint: &Receiver) -> Passage {
    let url = format!("http://login.example:{}/token", endpoint.address().port());
    let client = Client {
        endpoint: Endpoint::parse(&url, &loopback()).expect("a URL"),
        id: "me",
        secret: &Secret::new("s3cret".to_owned()),
        in_body: false,
        parameters: Vec::new(),
        passage: Passage::default(),
    };
    Passage {
        credentials: Some(ClientCredentials::new(&client, &Uid::new("owner"))),
        ..passage
    }
}

#[tokio::test]
async fn a_new_connection_has_every_part_and_a_kept_one_only_the_answer() {
    let authority = Authority::new();
    let receiver = receiver(&authority, |_| 200).await;
    let (transport, passage) = (transport(), trusting(&authority));
    let (_, first) = send(&transport, &receiver, &passage).await;
    assert_eq!(parts(&first), ["dns", "connect", "tls", "firstByte"]);
    let (_, second) = send(&transport, &receiver, &passage).await;
    assert_eq!(parts(&second), ["firstByte"]);
}

#[tokio::test]
async fn the_way_through_a_proxy_is_connecting_and_tls_is_the_receivers() {
    let authority = Authority::new();
    let receiver = receiver(&authority, |_| 200).await;
    let target = receiver.address();
    let proxy = Receiver::start(move |mut stream, _| async move {
        request(&mut stream).await;
        // Time must pass: what is measured is whose it is.
        tokio::time::sleep(SLOW).await;
        answer(&mut stream, "HTTP/1.1 200 OK\r\n\r\n").await;
        let mut onward = TcpStream::connect(target).await.expect("the receiver");
        copy_bidirectional(&mut stream, &mut onward).await.ok();
    })
    .await;
    let url = format!("http://proxy.example:{}", proxy.address().port());
    let passage = Passage {
        proxy: Some(Proxy::read(&url, None).expect("a proxy")),
        ..trusting(&authority)
    };
    let transport = transport();
    let (_, first) = send(&transport, &receiver, &passage).await;
    assert_eq!(parts(&first), ["dns", "connect", "tls", "firstByte"]);
    assert!(first.connect >= Some(SLOW), "{first:?}");
    let (_, second) = send(&transport, &receiver, &passage).await;
    assert_eq!(parts(&second), ["firstByte"]);
}

#[tokio::test]
async fn getting_a_token_is_no_part_of_the_receivers() {
    let authority = Authority::new();
    let endpoint = token_endpoint().await;
    let receiver = receiver(&authority, |number| if number == 2 { 401 } else { 200 }).await;
    let (transport, passage) = (transport(), with_token(trusting(&authority), &endpoint));
    let (status, first) = send(&transport, &receiver, &passage).await;
    assert_eq!((status, endpoint.accepted()), (200, 1));
    assert_eq!(parts(&first), ["dns", "connect", "tls", "firstByte"]);
    // Refused once, sent anew with another token on the kept connection.
    let (status, second) = send(&transport, &receiver, &passage).await;
    assert_eq!((status, endpoint.accepted()), (200, 2));
    assert_eq!(parts(&second), ["firstByte"]);
    for timings in [first, second] {
        let beside = timings
            .total
            .saturating_sub(timings.first_byte.unwrap_or_default());
        assert!(beside >= SLOW, "{timings:?}");
    }
}

#[tokio::test]
async fn a_receiver_that_takes_no_token_costs_two_and_not_one_for_each_delivery() {
    let authority = Authority::new();
    let endpoint = token_endpoint().await;
    let receiver = receiver(&authority, |_| 401).await;
    let (transport, passage) = (transport(), with_token(trusting(&authority), &endpoint));
    for _ in 0..5 {
        let (status, _) = send(&transport, &receiver, &passage).await;
        assert_eq!(status, 401);
    }
    assert_eq!(endpoint.accepted(), 2);
}
