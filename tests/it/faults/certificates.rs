//! Receivers whose certificate has expired, is for somebody else, or is from nobody who is trusted.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::{assert_each_attempt_is_told_once, attempts, patient};
use crate::support::{Authority, Pair, Stage, condition, until};
use crate::transport::receiver::{Receiver, answer, request};

const NAME: &str = "receiver.example";
const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A receiver that shows one certificate first and may be given another.
async fn receiver(first: &Pair) -> (Receiver, Arc<Mutex<TlsAcceptor>>) {
    let shown = Arc::new(Mutex::new(Authority::showing(first)));
    let acceptor = Arc::clone(&shown);
    let receiver = Receiver::start(move |stream, log| {
        let acceptor = acceptor.lock().clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            log.note(request(&mut stream).await);
            answer(&mut stream, OK).await;
        }
    });
    (receiver.await, shown)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_certificate_is_told_by_what_is_wrong_with_it_and_loses_nothing() {
    let stage = Stage::set("certificates").await;
    let (ours, theirs) = (Authority::new(), Authority::new());
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authority"}, "data": {"ca.crt": ours.bundle()},
    }));
    stage.destination("well", "/well", &json!({}));
    let bad = [
        (
            "expired",
            ours.expired(NAME),
            "the receiver's certificate has expired",
        ),
        (
            "somebody-else",
            ours.pair("other.example"),
            "the receiver's certificate is for another host name; check the URL and tls.serverName",
        ),
        (
            "authority",
            ours.intermediate(NAME),
            "the receiver's certificate is an authority's own (CA:TRUE), as a self-signed one often is; have the \
             receiver show one for its host name with CA:FALSE",
        ),
        (
            "stranger",
            theirs.pair(NAME),
            "the receiver's certificate is from an authority that is not trusted",
        ),
    ];
    let mut receivers = Vec::new();
    for (name, pair, part) in &bad {
        let (receiver, shown) = receiver(pair).await;
        let mut spec = patient();
        spec["webhook"] = json!({
            "url": format!("https://{}/", receiver.address()),
            "tls": {"caFrom": {"configMapKeyRef": {"name": "authority", "key": "ca.crt"}}, "serverName": NAME},
        });
        stage.destination(name, "/", &spec);
        receivers.push((*name, *part, receiver, shown));
    }
    let id = stage.publish("x", &json!({})).await;
    stage.receiver.wait_for("/well", 1).await;
    for (name, part, ..) in &receivers {
        let is_told = |ed: &Value| ed["status"]["delivery"]["lastFailure"]["reason"] == "TlsError";
        let ed = stage.until("ed", name, part, is_told).await;
        assert_eq!(condition(&ed, "Ready")["status"], "True", "{name}");
        let delivering = condition(&ed, "Delivering");
        assert_eq!(
            (&delivering["status"], &delivering["reason"]),
            (&json!("False"), &json!("TlsError")),
            "{name}"
        );
        for message in [
            &delivering["message"],
            &ed["status"]["delivery"]["lastFailure"]["message"],
        ] {
            assert!(message.as_str().unwrap().contains(part), "{name}: {message}");
        }
        // The log is written behind what happens.
        let is_logged = || {
            let is_told = |line: &Value| line["detail"].as_str().is_some_and(|text| text.contains(part));
            let attempts = attempts(&stage, name);
            attempts
                .iter()
                .any(|line| line["reason"] == "TlsError" && is_told(line))
        };
        until(is_logged).await;
    }
    let metric = "postrider_deliveries_total{outcome=\"failed\",reason=\"TlsError\"}";
    assert!(stage.operator().metric(metric).await >= 4.0);

    // Renewed, each gets what waited.
    let good = Authority::showing(&ours.pair(NAME));
    for (name, _, receiver, shown) in receivers {
        *shown.lock() = good.clone();
        let text = receiver.noted().await;
        assert!(text.contains(&id), "{name}: {text}");
        let is_over = || {
            attempts(&stage, name)
                .iter()
                .any(|line| line["outcome"] == "delivered")
        };
        until(is_over).await;
        assert_each_attempt_is_told_once(&attempts(&stage, name), std::slice::from_ref(&id));
    }
}
