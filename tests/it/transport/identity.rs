//! Authorities, client certificates and names of a destination's own, against servers that ask for a certificate.

use std::sync::Arc;

use postrider::adapters::webhook::HttpTransport;
use postrider::domain::outcome::FailureReason::TlsError;
use postrider::domain::outcome::{Failure, Reply};
use postrider::domain::request::Passage;
use postrider::domain::tls::{Parts, Tls};
use postrider::engine::transport::Transport as _;
use rustls::SupportedProtocolVersion;
use rustls::version::{TLS12, TLS13};

use super::receiver::{Receiver, answer, request};
use super::{LONG, SECRET, transport, webhook};
use crate::support::{Authority, Pair};

const NAME: &str = "receiver.example";

/// A receiver that lets in only clients of an authority, and notes the number of each request's connection.
async fn receiver(authority: &Authority, version: &'static SupportedProtocolVersion) -> Receiver {
    let acceptor = authority.asking(NAME, version);
    Receiver::start(move |stream, log| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            while !request(&mut stream).await.is_empty() {
                log.note(log.number.to_string());
                answer(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await
}

fn passage(authority: &Authority, client: Option<&Pair>, name: Option<&str>) -> Arc<Passage> {
    let bundle = authority.bundle();
    let client = client.map(|pair| (pair.chain(), pair.key()));
    let tls = Tls::read(Parts {
        bundle: Some(bundle.as_bytes()),
        client: client
            .as_ref()
            .map(|(chain, key)| (chain.as_bytes(), key.as_bytes())),
        server_name: name,
    });
    Arc::new(Passage {
        tls: Some(tls.expect("sound parts")),
        ..Passage::default()
    })
}

async fn send(
    transport: &HttpTransport,
    host: &str,
    receiver: &Receiver,
    passage: &Arc<Passage>,
) -> Result<Reply, Failure> {
    let mut request = webhook(&format!("https://{host}:{}", receiver.address().port()));
    request.passage = Some(Arc::clone(passage));
    let result = transport.send(&request, LONG).await;
    if let Err(failure) = &result {
        assert!(!failure.message.contains(SECRET), "{}", failure.message);
    }
    result
}

#[tokio::test]
async fn a_client_certificate_opens_what_is_closed_without() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    for version in [&TLS12, &TLS13] {
        let receiver = receiver(&ours, version).await;
        let transport = transport();
        let good = passage(&ours, Some(&ours.pair("client")), None);
        let reply = send(&transport, NAME, &receiver, &good).await.expect("an answer");
        assert_eq!(reply.status, 200);
        for (client, part) in [
            (None, "client certificate"),
            (
                Some(theirs.pair("client")),
                "does not accept our client certificate",
            ),
            (
                Some(ours.expired("client")),
                "does not accept our client certificate",
            ),
        ] {
            let bad = passage(&ours, client.as_ref(), None);
            let failure = send(&transport, NAME, &receiver, &bad)
                .await
                .expect_err("a failure");
            assert_eq!(failure.reason, TlsError, "{version:?} {}", failure.message);
            assert!(failure.message.contains(part), "{version:?} {}", failure.message);
        }
    }
}

#[tokio::test]
async fn only_the_named_authorities_are_trusted_and_the_named_host_is_expected() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let receiver = receiver(&ours, &TLS13).await;
    let transport = transport();
    let client = ours.pair("client");
    let stranger = passage(&theirs, Some(&client), None);
    let failure = send(&transport, NAME, &receiver, &stranger)
        .await
        .expect_err("a failure");
    assert_eq!(failure.reason, TlsError);
    assert!(failure.message.contains("tls.caFrom"), "{}", failure.message);
    let plain = passage(&ours, Some(&client), None);
    let failure = send(&transport, "other.example", &receiver, &plain)
        .await
        .expect_err("a failure");
    assert!(failure.message.contains("tls.serverName"), "{}", failure.message);
    for host in ["other.example", "127.0.0.1"] {
        let named = passage(&ours, Some(&client), Some(NAME));
        assert_eq!(
            send(&transport, host, &receiver, &named)
                .await
                .expect("an answer")
                .status,
            200
        );
    }
}

#[tokio::test]
async fn connections_are_shared_by_one_identity_and_by_no_other() {
    let authority = Authority::new();
    let receiver = receiver(&authority, &TLS13).await;
    let transport = transport();
    let (one, other) = (authority.pair("client"), authority.pair("client"));
    // A destination that is read anew has the same identity.
    for (client, connection) in [
        (&one, "1"),
        (&one, "1"),
        (&other, "2"),
        (&one, "1"),
        (&other, "2"),
    ] {
        let passage = passage(&authority, Some(client), None);
        send(&transport, NAME, &receiver, &passage)
            .await
            .expect("an answer");
        assert_eq!(receiver.noted().await, connection);
    }
    assert_eq!(receiver.accepted(), 2);
}
