//! The egress guard: literals, and what names resolve to.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use futures::future::join_all;
use postrider::adapters::webhook::{HttpTransport, Lookup, TransportSettings};
use postrider::domain::egress::EgressPolicy;
use postrider::domain::outcome::FailureReason::{DnsError, EgressRefused, Timeout};

use super::receiver::{Receiver, answer, request};
use super::{LONG, SHORT, send, settings};

async fn answering(address: &str) -> Receiver {
    Receiver::on(address, |mut stream, _| async move {
        request(&mut stream).await;
        answer(
            &mut stream,
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
        )
        .await;
    })
    .await
}

/// 127.0.0.1 plays the Internet; the rest of loopback is a private network.
fn guarded(lookup: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> HttpTransport {
    let policy = EgressPolicy::new(["127.0.0.1/32".parse().expect("a range")]);
    let lookup: Lookup = Arc::new(lookup);
    HttpTransport::new(TransportSettings {
        policy,
        lookup,
        ..TransportSettings::default()
    })
    .expect("a transport")
}

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts
        .iter()
        .map(|text| text.parse().expect("an address"))
        .collect()
}

#[tokio::test]
async fn literals_in_every_notation_are_refused_before_any_connection() {
    let v4 = answering("0.0.0.0:0").await;
    let v6 = answering("[::1]:0").await;
    let transport = HttpTransport::new(TransportSettings::default()).expect("a transport");
    let mut sent = 0;
    for (host, port) in [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "0x7f.1",
        "0x7f000001",
        "2130706433",
        "017700000001",
        "0177.0.0.1",
        "127.0.0.1.",
        "127.8.9.10",
        "１２７．０．０．１",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:1]",
    ]
    .into_iter()
    .map(|host| (host, v4.address().port()))
    .chain(["[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]"].map(|host| (host, v6.address().port())))
    {
        for scheme in ["http", "https"] {
            let failure = send(&transport, &format!("{scheme}://{host}:{port}"), LONG)
                .await
                .expect_err("a refusal");
            assert_eq!(failure.reason, EgressRefused, "{host}: {}", failure.message);
            assert!(failure.message.contains("--allow-egress"), "{}", failure.message);
            sent += 1;
        }
    }
    assert_eq!((v4.accepted(), v6.accepted()), (0, 0));
    assert_eq!(
        (
            transport.metrics().literal_refusals(),
            transport.metrics().resolved_refusals()
        ),
        (sent, 0)
    );
}

#[tokio::test]
async fn a_name_whose_addresses_are_all_refused_is_not_connected_to() {
    let receiver = answering("0.0.0.0:0").await;
    for answer in [
        &["127.0.0.2"][..],
        &["10.0.0.1", "127.0.0.2", "::1"],
        &["::ffff:127.0.0.2"],
        &["0.0.0.0"],
    ] {
        let answer = addresses(answer);
        let transport = guarded(move |_| Ok(answer.clone()));
        let origin = format!("http://inside.example:{}", receiver.address().port());
        let failure = send(&transport, &origin, LONG).await.expect_err("a refusal");
        assert_eq!(failure.reason, EgressRefused, "{}", failure.message);
        assert!(
            failure.message.starts_with("the host's name resolves to"),
            "{}",
            failure.message
        );
        assert!(
            !failure.message.contains("127.0.0.2") && !failure.message.contains("10.0.0.1"),
            "{}",
            failure.message
        );
        assert_eq!(
            (
                transport.metrics().literal_refusals(),
                transport.metrics().resolved_refusals()
            ),
            (0, 1)
        );
    }
    assert_eq!(receiver.accepted(), 0);
}

#[tokio::test]
async fn of_mixed_addresses_only_the_allowed_are_used() {
    let public = answering("127.0.0.1:0").await;
    let private = answering(&format!("127.0.0.2:{}", public.address().port())).await;
    let transport = guarded(|_| {
        Ok(addresses(&[
            "127.0.0.2",
            "::1",
            "10.0.0.1",
            "127.0.0.1",
            "127.0.0.2",
        ]))
    });
    let origin = format!("http://mixed.example:{}", public.address().port());
    for _ in 0..5 {
        assert_eq!(
            send(&transport, &origin, LONG).await.expect("an answer").status,
            200
        );
    }
    assert_eq!((public.accepted(), private.accepted()), (5, 0));
}

#[tokio::test]
async fn a_name_that_changes_its_address_is_checked_at_each_connection() {
    let public = answering("127.0.0.1:0").await;
    let private = answering(&format!("127.0.0.2:{}", public.address().port())).await;
    let calls = AtomicUsize::new(0);
    let transport = guarded(move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(addresses(&["127.0.0.1"])),
        _ => Ok(addresses(&["127.0.0.2"])),
    });
    let origin = format!("http://rebinding.example:{}", public.address().port());
    assert_eq!(
        send(&transport, &origin, LONG).await.expect("an answer").status,
        200
    );
    for _ in 0..3 {
        let failure = send(&transport, &origin, LONG).await.expect_err("a refusal");
        assert_eq!(failure.reason, EgressRefused, "{}", failure.message);
    }
    assert_eq!((public.accepted(), private.accepted()), (1, 0));
}

#[tokio::test]
async fn localhost_is_a_name_like_any_other() {
    let receiver = answering("127.0.0.1:0").await;
    let transport = HttpTransport::new(TransportSettings::default()).expect("a transport");
    let origin = format!("http://localhost:{}", receiver.address().port());
    let failure = send(&transport, &origin, LONG).await.expect_err("a refusal");
    assert_eq!(
        (failure.reason, receiver.accepted()),
        (EgressRefused, 0),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_name_without_address_is_a_dns_error() {
    for answer in [None, Some(Vec::new())] {
        let transport = guarded(move |_| answer.clone().ok_or_else(|| io::Error::other("no such host")));
        let failure = send(&transport, "http://nowhere.example", LONG)
            .await
            .expect_err("a failure");
        assert_eq!(failure.reason, DnsError, "{}", failure.message);
        assert!(
            failure.message.contains("does not resolve"),
            "{}",
            failure.message
        );
        assert_eq!(transport.metrics().resolved_refusals(), 0);
    }
}

/// Lookups that hang until the gate is opened, counted by name.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    running: AtomicUsize,
    most: AtomicUsize,
    calls: Mutex<BTreeMap<String, usize>>,
}

impl Gate {
    fn transport(self: &Arc<Self>) -> HttpTransport {
        let gate = self.clone();
        let lookup = move |host: &str| {
            *gate
                .calls
                .lock()
                .expect("a lock")
                .entry(host.to_owned())
                .or_default() += 1;
            let running = gate.running.fetch_add(1, Ordering::SeqCst) + 1;
            gate.most.fetch_max(running, Ordering::SeqCst);
            let mut open = gate.open.lock().expect("a lock");
            while !*open {
                open = gate.opened.wait(open).expect("a lock");
            }
            gate.running.fetch_sub(1, Ordering::SeqCst);
            Ok(addresses(&["127.0.0.1"]))
        };
        HttpTransport::new(TransportSettings {
            lookup: Arc::new(lookup),
            ..settings()
        })
        .expect("a transport")
    }

    fn open(&self) {
        *self.open.lock().expect("a lock") = true;
        self.opened.notify_all();
    }
}

#[tokio::test]
async fn a_hanging_lookup_ends_with_the_deadline() {
    let gate = Arc::new(Gate::default());
    let failure = send(&gate.transport(), "http://slow.example", SHORT)
        .await
        .expect_err("a failure");
    assert_eq!(failure.reason, Timeout, "{}", failure.message);
    assert!(failure.message.contains("no connection"), "{}", failure.message);
    gate.open();
}

#[tokio::test]
async fn hanging_lookups_are_bounded_and_those_of_one_name_are_shared() {
    let gate = Arc::new(Gate::default());
    let transport = gate.transport();
    let names: Vec<_> = (0..100)
        .map(|index| format!("http://slow-{}.example", index % 50))
        .collect();
    for failed in join_all(names.iter().map(|name| send(&transport, name, SHORT))).await {
        assert_eq!(failed.expect_err("a failure").reason, Timeout);
    }
    assert_eq!(gate.most.load(Ordering::SeqCst), 32);
    assert!(
        gate.calls
            .lock()
            .expect("a lock")
            .values()
            .all(|calls| *calls == 1)
    );
    gate.open();
    let receiver = answering("127.0.0.1:0").await;
    let origin = format!("http://slow-49.example:{}", receiver.address().port());
    assert_eq!(
        send(&transport, &origin, LONG).await.expect("an answer").status,
        200
    );
}
