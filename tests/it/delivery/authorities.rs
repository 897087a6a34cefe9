//! Authorities from ConfigMaps, end to end.

use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::{Authority, Stage, condition, eventually};
use crate::transport::receiver::{Receiver, answer, request};

const NAME: &str = "receiver.example";
const OK: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
const BINARY: &str = "/wD+AYA=";

/// A receiver with a certificate of an authority.
async fn receiver(authority: &Authority) -> Receiver {
    let acceptor = Authority::showing(&authority.pair(NAME));
    Receiver::start(move |stream, log| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else {
                return;
            };
            log.note(request(&mut stream).await);
            answer(&mut stream, OK).await;
        }
    })
    .await
}

/// Waits until an event has arrived.
async fn arrives(receiver: &Receiver, id: &str) {
    while !receiver.noted().await.contains(id) {}
}

fn bundle(stage: &Stage, pem: &str) {
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "authorities"}, "data": {"ca.crt": pem},
    }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_in_a_config_map_counts_within_seconds_and_a_spoilt_one_is_a_fault() {
    let stage = Stage::set("authorities").await;
    let (ours, theirs) = (Authority::new(), Authority::new());
    let receiver = receiver(&ours).await;
    let url = format!("https://{}/in", receiver.address());
    bundle(&stage, &ours.bundle());
    stage.destination(
        "hook",
        "/",
        &json!({
            "webhook": {"url": url, "tls": {
                "caFrom": {"configMapKeyRef": {"name": "authorities", "key": "ca.crt"}}, "serverName": NAME,
            }},
            "delivery": {"retry": {"schedule": ["1s"], "maxAttempts": 100}},
        }),
    );
    arrives(&receiver, &stage.publish("x", &json!({})).await).await;

    bundle(&stage, &theirs.bundle());
    let refused = Mutex::new(String::new());
    eventually(
        "another authority is trusted",
        Duration::from_secs(5),
        async || {
            let id = stage.publish("x", &json!({})).await;
            *refused.lock() = id;
            let ed = stage.get("ed", "hook");
            match ed["status"]["delivery"]["lastFailure"]["reason"].as_str() {
                Some("TlsError") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        },
    )
    .await;
    let refused = refused.into_inner();
    bundle(&stage, &format!("{}{}", theirs.bundle(), ours.bundle()));
    arrives(&receiver, &refused).await;

    let namespace = stage.namespace.name();
    let patch = |data: &Value| {
        let patch = data.to_string();
        let words = [
            "patch",
            "configmap/authorities",
            "-n",
            namespace,
            "--type=merge",
            "-p",
            &patch,
        ];
        words.map(ToOwned::to_owned).to_vec()
    };
    let vanish = ["delete", "configmap/authorities", "-n", namespace];
    let vanish = vanish.map(ToOwned::to_owned).to_vec();
    let no_pem = "ConfigMap \"authorities\" key \"ca.crt\": this must be 1 to 64 certificates";
    for (deed, reason, part) in [
        (
            vanish.clone(),
            "ReferenceMissing",
            "ConfigMap \"authorities\" does not exist",
        ),
        (
            patch(&json!({"data": {"ca.crt": null}})),
            "ReferenceMissing",
            "ConfigMap \"authorities\" has no key \"ca.crt\"",
        ),
        (
            patch(&json!({"data": {"ca.crt": null}, "binaryData": {"ca.crt": BINARY}})),
            "InvalidSpec",
            no_pem,
        ),
        (patch(&json!({"data": {"ca.crt": ""}})), "InvalidSpec", no_pem),
    ] {
        stage.cluster.kubectl(&deed).ok();
        let told = format!("spec.webhook.tls.caFrom: {part}");
        let is_told = |ed: &Value| {
            condition(ed, "Stalled")["message"]
                .as_str()
                .is_some_and(|text| text.contains(&told))
        };
        let ed = stage.until("ed", "hook", &told, is_told).await;
        assert_eq!(condition(&ed, "Ready")["reason"], reason, "{part}");
        let id = stage.publish("x", &json!({})).await;
        // What is binary cannot become text by an apply.
        stage.cluster.kubectl(&vanish);
        bundle(&stage, &ours.bundle());
        arrives(&receiver, &id).await;
    }
}
