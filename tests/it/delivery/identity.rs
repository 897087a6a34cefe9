//! Client certificates from Secrets, end to end.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustls::version::TLS13;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::support::{Authority, Pair, Stage, condition, eventually};

const NAME: &str = "receiver.example";

/// A receiver that lets in only clients of an authority, and notes the certificate of each request.
async fn receiver(authority: &Authority) -> (String, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/in", listener.local_addr().unwrap());
    let acceptor = authority.asking(NAME, &TLS13);
    let seen = Arc::<Mutex<Vec<Vec<u8>>>>::default();
    let noted = Arc::clone(&seen);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, noted) = (acceptor.clone(), Arc::clone(&noted));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut bytes = vec![0; 64 * 1024];
                // Each request of this test fits into what one read brings, head and body.
                while let Ok(1..) = stream.read(&mut bytes).await {
                    let certificates = stream.get_ref().1.peer_certificates().unwrap_or_default();
                    noted.lock().extend(certificates.first().map(|one| one.to_vec()));
                    let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
                    stream.write_all(answer).await.ok();
                    stream.shutdown().await.ok();
                }
            });
        }
    });
    (url, seen)
}

fn identity(stage: &Stage, chain: &Pair, key: &Pair) {
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "identity"}, "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": chain.chain(), "tls.key": key.key()},
    }));
}

fn tls() -> Value {
    json!({
        "caFrom": {"secretKeyRef": {"name": "authority", "key": "ca.crt"}},
        "clientCertificateFrom": {"secretRef": {"name": "identity"}},
        "serverName": NAME,
    })
}

fn der(pair: &Pair) -> Vec<u8> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let chain = pair.chain();
    let text: String = chain.lines().filter(|line| !line.starts_with('-')).collect();
    BASE64_STANDARD.decode(text).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_shown_within_seconds_and_a_spoilt_one_is_a_fault() {
    let stage = Stage::set("identity").await;
    let authority = Authority::new();
    let (url, seen) = receiver(&authority).await;
    let (first, second) = (authority.pair("first"), authority.pair("second"));
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "authority"},
        "stringData": {"ca.crt": authority.bundle()},
    }));
    identity(&stage, &first, &first);
    stage.destination("hook", "/", &json!({"webhook": {"url": url, "tls": tls()}}));
    stage.publish("x", &json!({})).await;
    let shown = |pair: &Pair| {
        let wanted = der(pair);
        let seen = seen.lock();
        if seen.contains(&wanted) {
            Ok(())
        } else {
            Err(format!("{} requests", seen.len()))
        }
    };
    eventually("the certificate is shown", Duration::from_secs(10), || async {
        shown(&first)
    })
    .await;
    identity(&stage, &second, &second);
    eventually("the new certificate is shown", Duration::from_secs(5), || async {
        stage.publish("x", &json!({})).await;
        shown(&second)
    })
    .await;
    identity(&stage, &second, &first);
    let ed = stage
        .until("ed", "hook", "the fault shows", |ed| {
            condition(ed, "Stalled")["status"] == "True"
        })
        .await;
    let message = condition(&ed, "Ready")["message"].as_str().unwrap();
    for part in [
        "spec.webhook.tls.clientCertificateFrom.secretRef",
        "\"identity\" key \"tls.key\"",
        "the key does not belong to the certificate",
    ] {
        assert!(message.contains(part), "{message}");
    }
}
