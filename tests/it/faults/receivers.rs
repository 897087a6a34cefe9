//! Receivers that hang, drip, flood, reset, talk nonsense or speak bad TLS, all at once and beside one that works.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{assert_each_attempt_is_told_once, attempts, patient};
use crate::support::{Stage, condition, eventually, until};
use crate::transport::receiver::{Receiver, answer, closed, flood, request};

/// A broken receiver, and the reason that everybody is told.
struct Broken {
    name: &'static str,
    reason: &'static str,
    url: String,
    _receiver: Kept,
}

enum Kept {
    Raw { _receiver: Receiver },
    Tls { _server: TlsServer },
}

/// A TLS server that is not ours; killed when it is dropped.
struct TlsServer {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl TlsServer {
    /// openssl's, with a certificate of its own and these flags.
    async fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let (certificate, key) = (path("cert.pem"), path("key.pem"));
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:prime256v1",
                "-nodes",
            ])
            .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"])
            .args(["-keyout", &key, "-out", &certificate])
            .output()
            .expect("openssl runs; run tools/setup.sh");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let child = Command::new("openssl")
            .args(["s_server", "-quiet", "-accept", &address.to_string(), "-cert", &certificate, "-key", &key])
            .args(flags)
            // It ends with its standard input.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        eventually("the TLS server listens", Duration::from_secs(10), async || {
            tokio::net::TcpStream::connect(address).await
        })
        .await;
        let url = format!("https://{address}/");
        Self {
            child,
            url,
            _folder: folder,
        }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A receiver that reads a request, answers so and then floods with `piece` until nobody listens.
async fn says(name: &'static str, reason: &'static str, head: &'static str, piece: &'static str) -> Broken {
    let handler = async move |mut stream: tokio::net::TcpStream, _| {
        request(&mut stream).await;
        answer(&mut stream, head).await;
        if !piece.is_empty() {
            flood(&mut stream, piece.as_bytes(), 1 << 30).await;
        }
        closed(&mut stream).await;
    };
    raw(name, reason, Receiver::start(handler).await)
}

fn raw(name: &'static str, reason: &'static str, receiver: Receiver) -> Broken {
    let url = format!("{}/", receiver.origin());
    let receiver = Kept::Raw { _receiver: receiver };
    Broken {
        name,
        reason,
        url,
        _receiver: receiver,
    }
}

async fn drips() -> Broken {
    let receiver = Receiver::start(async |mut stream, _| {
        request(&mut stream).await;
        answer(&mut stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n").await;
        let mut tick = tokio::time::interval(Duration::from_millis(100));
        while flood(&mut stream, b"x", 1).await == 1 {
            tick.tick().await;
        }
    });
    raw("drips", "Timeout", receiver.await)
}

/// What is closed with something unread is reset.
async fn resets() -> Broken {
    let receiver = Receiver::start(async |stream: tokio::net::TcpStream, _| {
        stream.readable().await.ok();
    });
    raw("resets", "ConnectionReset", receiver.await)
}

async fn tls(name: &'static str, flags: &[&str]) -> Broken {
    let server = TlsServer::start(flags).await;
    Broken {
        name,
        reason: "TlsError",
        url: server.url.clone(),
        _receiver: Kept::Tls { _server: server },
    }
}

async fn broken() -> Vec<Broken> {
    let packed = "HTTP/1.1 500 Oh\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\n\r\n\u{1f}\u{8b}\u{1}\0";
    vec![
        says("hangs", "Timeout", "", "").await,
        drips().await,
        says(
            "floods",
            "ResponseTooLarge",
            "HTTP/1.1 200 OK\r\n\r\n",
            "xxxxxxxxxxxxxxxx",
        )
        .await,
        resets().await,
        says("babbles", "ProtocolError", "220 mail.example ESMTP\r\n", "").await,
        says("goes-on", "Timeout", "", "HTTP/1.1 100 Continue\r\n\r\n").await,
        says(
            "boasts",
            "ProtocolError",
            "HTTP/1.1 200 OK\r\n",
            "x-header: of many\r\n",
        )
        .await,
        says("packs-badly", "ServerError", packed, "").await,
        tls("is-a-stranger", &[]).await,
        tls("is-old", &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"]).await,
    ]
}

fn destination(name: &str, url: &str, timeout: &str) -> Value {
    let mut spec = patient();
    spec["delivery"]["timeout"] = json!(timeout);
    spec["events"] = json!(["*"]);
    spec["webhook"] = json!({"url": url});
    json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination", "metadata": {"name": name}, "spec": spec,
    })
}

fn list(objects: impl Iterator<Item = Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": objects.collect::<Vec<_>>()})
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_receiver_is_told_by_its_reason_and_costs_the_others_nothing() {
    let stage = Stage::set("broken").await;
    let broken = broken().await;
    // What nobody unpacks does no harm: a 2xx is a 2xx.
    let packed =
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 5\r\nconnection: close\r\n\r\nno gz";
    let careless = says("careless", "", packed, "").await;
    stage.apply(&list(
        broken
            .iter()
            .chain([&careless])
            .map(|one| destination(one.name, &one.url, "1s")),
    ));
    stage.destination("well", "/well", &json!({}));
    for one in &broken {
        stage.wait_ready("ed", one.name);
    }
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(stage.publish("x", &json!({"number": number})).await);
    }
    stage.receiver.wait_for("/well", 3).await;

    for Broken { name, reason, .. } in &broken {
        let is_told = |ed: &Value| ed["status"]["delivery"]["lastFailure"]["reason"] == *reason;
        let ed = stage
            .until("ed", name, &format!("{name}: {reason}"), is_told)
            .await;
        assert_eq!(condition(&ed, "Delivering")["reason"], *reason, "{name}");
        assert_eq!(
            condition(&ed, "Ready")["status"],
            "True",
            "{name}: the configuration is in force"
        );
        let message = ed["status"]["delivery"]["lastFailure"]["message"]
            .as_str()
            .unwrap();
        assert!(
            !message.is_empty() && !message.contains(char::is_control),
            "{name}: {message:?}"
        );
        let metric = format!("postrider_deliveries_total{{outcome=\"failed\",reason=\"{reason}\"}}");
        assert!(stage.operator().metric(&metric).await > 0.0, "{metric}");
        // On a machine under load the deadline may pass at first. The log is written behind what happens.
        let is_logged = || {
            let attempts = attempts(&stage, name);
            let mut attempts = attempts.iter().filter(|line| line["outcome"] == "failed");
            attempts.any(|line| line["reason"] == *reason && line["detail"] == message)
        };
        until(is_logged).await;
    }
    ids.push(stage.publish("x", &json!({"number": 3})).await);
    stage.receiver.wait_for("/well", 4).await;
    let is_delivered = |ed: &Value| condition(ed, "Delivering")["status"] == "True";
    stage
        .until(
            "ed",
            "careless",
            "what is not unpacked is delivered",
            is_delivered,
        )
        .await;

    // Each moves to a receiver that works: everything arrives, once.
    let path = |name: &str| format!("/mended/{name}");
    let url = |name: &str| stage.receiver.url(&path(name));
    stage.apply(&list(
        broken
            .iter()
            .map(|one| destination(one.name, &url(one.name), "20s")),
    ));
    let wanted: BTreeSet<_> = ids.iter().map(String::as_str).collect();
    for Broken { name, .. } in &broken {
        stage.receiver.wait_for(&path(name), 4).await;
        let received = stage.receiver.received(&path(name));
        let arrived: BTreeSet<_> = received
            .iter()
            .map(|request| request.header("webhook-id"))
            .collect();
        assert_eq!((received.len(), &arrived), (4, &wanted), "{name}");
    }
    eventually("nothing waits", Duration::from_secs(20), async || {
        match stage.operator().metric("postrider_pending").await {
            0.0 => Ok(()),
            pending => Err(pending.to_string()),
        }
    })
    .await;
    for Broken { name, .. } in broken.iter().chain([&careless]) {
        // The log is written behind what happens.
        let are_told = || {
            attempts(&stage, name)
                .iter()
                .filter(|line| line["outcome"] == "delivered")
                .count()
                == 4
        };
        until(are_told).await;
        assert_each_attempt_is_told_once(&attempts(&stage, name), &ids);
    }
}
