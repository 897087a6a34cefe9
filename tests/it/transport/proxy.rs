//! Proxies: proxy-chain as one that works, and raw sockets as those that do not.

use std::sync::Arc;

use postrider::adapters::webhook::{HttpTransport, TransportSettings};
use postrider::domain::egress::EgressPolicy;
use postrider::domain::outcome::FailureReason::{
    ConnectionRefused, EgressRefused, ProxyFailed, ProxyRefused, Timeout, TlsError,
};
use postrider::domain::outcome::{Failure, FailureReason, Reply};
use postrider::domain::proxy::Proxy;
use postrider::domain::request::Passage;
use postrider::domain::tls::{Parts, Tls};
use postrider::engine::transport::Transport as _;
use rustls::version::TLS13;
use serde_json::json;

use super::receiver::{Receiver, answer, closed, request};
use super::{LONG, SECRET, SHORT, loopback, settings, webhook};
use crate::support::{Authority, Program};

const NAME: &str = "receiver.example";
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

fn transport() -> HttpTransport {
    let proxies = loopback();
    HttpTransport::new(TransportSettings {
        proxies,
        ..settings()
    })
    .expect("a transport")
}

fn through(url: &str) -> Passage {
    Passage {
        proxy: Some(Proxy::read(url, None).expect("a proxy")),
        ..Passage::default()
    }
}

async fn send(transport: &HttpTransport, origin: &str, passage: Passage) -> Result<Reply, Failure> {
    let mut request = webhook(origin);
    request.passage = Some(Arc::new(passage));
    let result = transport.send(&request, LONG).await;
    if let Err(failure) = &result {
        for secret in [SECRET, "hunter2", "aHVudGVyMg"] {
            assert!(!failure.message.contains(secret), "{}", failure.message);
        }
    }
    result
}

async fn fails(origin: &str, proxy: &str, reason: FailureReason, part: &str) {
    let failure = send(&transport(), origin, through(proxy))
        .await
        .expect_err("a failure");
    assert_eq!(failure.reason, reason, "{}", failure.message);
    assert!(
        failure.message.contains(part),
        "{} lacks {part:?}",
        failure.message
    );
    assert!(!reason.is_terminal() && !reason.counts_against_receiver());
}

fn with_login(proxy: &Program, login: &str) -> String {
    proxy.fact("url").replace("http://", &format!("http://{login}@"))
}

#[tokio::test]
async fn a_proxy_tunnels_https_and_passes_http_on() {
    let mut proxy = Program::node("proxy.mjs", &json!({"user": "me", "password": "hunter2"}));
    let url = with_login(&proxy, "me:hunter2");
    let transport = transport();

    let plain = Receiver::start(|mut stream, log| async move {
        log.note(request(&mut stream).await);
        answer(&mut stream, OK).await;
    })
    .await;
    let reply = send(&transport, &plain.origin(), through(&url))
        .await
        .expect("an answer");
    assert_eq!((reply.status, &reply.excerpt[..]), (200, &b"ok"[..]));
    let request_text = plain.noted().await;
    assert!(
        request_text.starts_with(&format!("POST /{SECRET}")),
        "{request_text}"
    );
    assert!(
        !request_text.to_ascii_lowercase().contains("proxy-authorization"),
        "the receiver sees the proxy's password: {request_text}"
    );

    let authority = Authority::new();
    let acceptor = authority.asking(NAME, &TLS13);
    let secure = Receiver::start(move |stream, _| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(stream).await.expect("a client of ours");
            while !request(&mut stream).await.is_empty() {
                answer(&mut stream, OK).await;
            }
        }
    })
    .await;
    let (pair, bundle) = (authority.pair("client"), authority.bundle());
    let (chain, key) = (pair.chain(), pair.key());
    let tls = |name| {
        Tls::read(Parts {
            bundle: Some(bundle.as_bytes()),
            client: Some((chain.as_bytes(), key.as_bytes())),
            server_name: Some(name),
        })
    };
    let origin = format!("https://{}", secure.address());
    for _ in 0..3 {
        let passage = Passage {
            tls: tls(NAME).ok(),
            ..through(&url)
        };
        assert_eq!(
            send(&transport, &origin, passage)
                .await
                .expect("an answer")
                .status,
            200
        );
    }
    assert_eq!(secure.accepted(), 1, "the tunnel is used again");
    // What is wrong inside the tunnel is the receiver's.
    let passage = Passage {
        tls: tls("other.example").ok(),
        ..through(&url)
    };
    let failure = send(&transport, &origin, passage).await.expect_err("a failure");
    assert_eq!(failure.reason, TlsError, "{}", failure.message);

    let seen = proxy.ask("seen");
    assert_eq!(seen["requests"], json!([plain.address().to_string()]));
    let tunnels = seen["tunnels"].as_array().expect("a list");
    assert_eq!(tunnels.len(), secure.accepted(), "{seen}");
    let address = secure.address().to_string();
    assert!(tunnels.iter().all(|one| *one == address), "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_the_proxys_refusal_for_http_and_https() {
    let proxy = Program::node("proxy.mjs", &json!({"user": "me", "password": "s3cret"}));
    let receiver = Receiver::start(async |mut stream, _| closed(&mut stream).await).await;
    for url in [proxy.fact("url").to_owned(), with_login(&proxy, "me:hunter2")] {
        for origin in [receiver.origin(), receiver.origin().replace("http:", "https:")] {
            fails(
                &origin,
                &url,
                ProxyRefused,
                "407: it wants another user name or password",
            )
            .await;
        }
    }
    assert_eq!(receiver.accepted(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_the_proxy_does_not_reach_is_the_proxys_failure() {
    let proxy = Program::node("proxy.mjs", &json!({}));
    fails(
        "https://127.0.0.1:1",
        proxy.fact("url"),
        ProxyFailed,
        "it may not reach the receiver",
    )
    .await;
}

#[tokio::test]
async fn proxies_that_refuse_break_or_are_none_are_told_apart_from_receivers() {
    const TARGET: &str = "https://receiver.example";
    fails(
        TARGET,
        "http://127.0.0.1:1",
        ProxyFailed,
        "the proxy is not reached",
    )
    .await;
    for (text, reason, part) in [
        (
            "HTTP/1.1 403 Forbidden\r\n\r\n",
            ProxyRefused,
            "403: it does not let us through",
        ),
        (
            "HTTP/1.1 502 Bad Gateway\r\n\r\nhunter2",
            ProxyFailed,
            "502: it does not reach",
        ),
        (
            "SSH-2.0-OpenSSH hunter2\r\n\r\n",
            ProxyFailed,
            "does not answer as a proxy",
        ),
        ("", ProxyFailed, "closed the connection without an answer"),
    ] {
        let proxy = Receiver::start(move |mut stream, log| async move {
            log.note(request(&mut stream).await);
            answer(&mut stream, text).await;
        })
        .await;
        fails(TARGET, &proxy.origin(), reason, part).await;
        let head = proxy.noted().await;
        assert!(
            head.starts_with("CONNECT receiver.example:443 HTTP/1.1\r\nHost: receiver.example:443\r\n"),
            "{head}"
        );
        assert!(!head.contains(SECRET), "{head}");
    }
    let floods = Receiver::start(|mut stream, _| async move {
        request(&mut stream).await;
        super::receiver::flood(&mut stream, b"x", 1 << 20).await;
    })
    .await;
    fails(
        TARGET,
        &floods.origin(),
        ProxyFailed,
        "does not answer as a proxy",
    )
    .await;
    let plain =
        Receiver::start(async |mut stream, _| answer(&mut stream, "HTTP/1.1 400 Bad\r\n\r\n").await).await;
    let secure = plain.origin().replace("http:", "https:");
    fails(TARGET, &secure, ProxyFailed, "of the proxy: ").await;
}

#[tokio::test]
async fn a_proxy_that_hangs_ends_with_the_deadline_and_is_to_blame_where_it_can_be_known() {
    let hangs = Receiver::start(async |mut stream, _| closed(&mut stream).await).await;
    let (plain, secure) = (hangs.origin(), hangs.origin().replace("http:", "https:"));
    let opens = Receiver::start(|mut stream, _| async move {
        request(&mut stream).await;
        answer(&mut stream, "HTTP/1.1 200 OK\r\n\r\n").await;
        closed(&mut stream).await;
    })
    .await;
    let opens = opens.origin();
    let silent = "the proxy did not answer within 400ms";
    for (target, through_it, reason, part) in [
        ("https://receiver.example", &*plain, ProxyFailed, silent),
        ("https://receiver.example", &*secure, ProxyFailed, silent),
        ("http://receiver.example", &*secure, ProxyFailed, silent),
        // Whose silence it is, nobody can tell.
        (
            "http://receiver.example",
            &*plain,
            Timeout,
            "no answer through the proxy within 400ms",
        ),
        // The proxy has opened the tunnel: what is in it is the receiver's.
        (
            "https://receiver.example",
            &*opens,
            Timeout,
            "no connection through the proxy within 400ms",
        ),
    ] {
        let mut request = webhook(target);
        request.passage = Some(Arc::new(through(through_it)));
        let failure = transport().send(&request, SHORT).await.expect_err("a failure");
        assert_eq!(failure.reason, reason, "{target}: {}", failure.message);
        assert!(failure.message.starts_with(part), "{target}: {}", failure.message);
    }
}

#[tokio::test]
async fn the_installations_proxy_is_taken_as_it_is_and_shares_nothing_with_a_named_one() {
    let program = Program::node("proxy.mjs", &json!({}));
    let plain = Receiver::start(|mut stream, _| async move {
        while !request(&mut stream).await.is_empty() {
            answer(&mut stream, OK).await;
        }
    })
    .await;
    // No proxy on loopback is allowed here.
    let transport = HttpTransport::new(settings()).expect("a transport");
    let proxy = || Proxy::read(program.fact("url"), None).expect("a proxy");
    let installed = || Passage {
        proxy: Some(proxy().of_installation()),
        ..Passage::default()
    };
    for _ in 0..2 {
        let reply = send(&transport, &plain.origin(), installed()).await;
        assert_eq!(reply.expect("an answer").status, 200);
        let failure = send(&transport, &plain.origin(), through(program.fact("url"))).await;
        assert_eq!(failure.expect_err("a failure").reason, ProxyRefused);
    }
    // The receiver is looked at as ever.
    let guarded = HttpTransport::new(TransportSettings::default()).expect("a transport");
    let failure = send(&guarded, &plain.origin(), installed()).await;
    assert_eq!(failure.expect_err("a failure").reason, EgressRefused);
}

#[tokio::test]
async fn the_guard_checks_the_proxy_and_literal_receivers() {
    let proxy = Receiver::start(async |mut stream, _| closed(&mut stream).await).await;
    let closed_to = |policy, proxies| {
        HttpTransport::new(TransportSettings {
            policy,
            proxies,
            ..settings()
        })
        .expect("a transport")
    };
    // Loopback is open to receivers, and not to proxies.
    let transport = closed_to(loopback(), EgressPolicy::default());
    let by_name = format!("http://proxy.example:{}", proxy.address().port());
    for url in [proxy.origin(), by_name] {
        let failure = send(&transport, "https://receiver.example", through(&url))
            .await
            .expect_err("a failure");
        assert_eq!(failure.reason, ProxyRefused, "{}", failure.message);
        assert!(failure.message.contains("--allow-proxy"), "{}", failure.message);
    }
    // A receiver's literal is looked at although the proxy would connect to it.
    let transport = closed_to(EgressPolicy::default(), loopback());
    let failure = {
        let mut request = webhook("http://127.0.0.1:8080");
        request.passage = Some(Arc::new(through(&proxy.origin())));
        transport.send(&request, LONG).await.expect_err("a failure")
    };
    assert_eq!(failure.reason, EgressRefused, "{}", failure.message);
    assert_eq!(proxy.accepted(), 0);
    // Without proxy, the receiver's own fault is its own.
    let failure = super::send(&super::transport(), "http://127.0.0.1:1", LONG)
        .await
        .expect_err("a failure");
    assert_eq!(failure.reason, ConnectionRefused);
}
