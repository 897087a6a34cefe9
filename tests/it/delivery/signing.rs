//! Signatures of real requests, judged by libraries that are not ours.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Received, Stage, Verifier};

fn request(received: &Received, more: &Value) -> Value {
    let headers: serde_json::Map<String, Value> = received
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap_or_default())))
        .collect();
    let mut request = json!({"headers": headers, "body_base64": STANDARD.encode(&received.body)});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

/// What the Standard Webhooks library of Python says of a request.
pub(super) fn verdict(received: &Received, secret: &str) -> Result<(), String> {
    let facts = json!({"scheme": "standard", "secret": secret});
    Verifier::Python.verify(&[request(received, &facts)]).remove(0)
}

/// What each language says of an HMAC over a body that need not be text.
pub(super) fn raw_verdicts(received: &Received, secret: &str) -> Vec<Result<(), String>> {
    let facts = json!({
        "scheme": "hmac", "secret": secret, "header": "X-Signature", "encoding": "hex", "prefix": "",
        "algorithm": "sha256",
    });
    let languages = Verifier::ALL.into_iter();
    languages
        .map(|verifier| verifier.verify(&[request(received, &facts)]).remove(0))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_signature_verifies_with_the_standard_webhooks_libraries() {
    let stage = Stage::set("signing").await;
    stage.destination("hook", "/hook", &json!({}));
    let secret = stage.secret("hook-signing", "secret").await;
    assert!(secret.starts_with("whsec_"));
    for text in ["plain", "ünïcödé \u{1F40E}", "line\nbreak \"quoted\""] {
        stage.publish("x", &json!({"text": text})).await;
    }
    let received = stage.receiver.wait_for("/hook", 3).await;
    let mut requests: Vec<_> = received
        .iter()
        .map(|r| request(r, &json!({"scheme": "standard", "secret": secret})))
        .collect();
    let mut forged = requests[0].clone();
    forged["body_base64"] = STANDARD.encode(b"{}").into();
    requests.push(forged);
    for verifier in Verifier::ALL {
        let verdicts = verifier.verify(&requests);
        assert_eq!(&verdicts[..3], [Ok(()), Ok(()), Ok(())], "{verifier:?}");
        assert!(verdicts[3].is_err(), "{verifier:?} accepts a forged body");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signature_in_a_header_of_your_own_verifies_with_other_languages() {
    let stage = Stage::set("signing").await;
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"},
        "stringData": {"key": "correct horse battery staple"},
    }));
    for (name, encoding, prefix) in [("hex", "Hex", ""), ("base64", "Base64", "sha256=")] {
        let mut signing = json!({
            "scheme": "HmacSHA256", "header": "X-Acme-HMAC-SHA-256", "encoding": encoding,
            "secretRef": {"name": "key", "key": "key"},
        });
        if !prefix.is_empty() {
            signing["prefix"] = prefix.into();
        }
        let path = format!("/{name}");
        stage.destination(name, &path, &json!({"webhook": {"signing": signing}}));
        stage.publish("x", &json!({"n": 1})).await;
        let received = stage.receiver.wait_for(&path, 1).await.remove(0);
        let facts = json!({
            "scheme": "hmac", "secret": "correct horse battery staple", "header": "X-Acme-HMAC-SHA-256",
            "encoding": encoding.to_lowercase(), "prefix": prefix,
        });
        for verifier in Verifier::ALL {
            assert_eq!(
                verifier.verify(&[request(&received, &facts)]),
                [Ok(())],
                "{verifier:?} {name}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_takes_effect() {
    let stage = Stage::set("signing").await;
    let secret = |value: &str| {
        stage.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"value": value},
        }));
    };
    secret("first");
    let header = json!([{"name": "X-Key", "valueFrom": {"secretKeyRef": {"name": "key", "key": "value"}}}]);
    stage.destination("hook", "/hook", &json!({"webhook": {"headers": header}}));
    stage.publish("x", &json!({})).await;
    assert_eq!(
        stage.receiver.wait_for("/hook", 1).await[0].header("x-key"),
        "first"
    );
    secret("second");
    crate::support::eventually(
        "the new value is used",
        std::time::Duration::from_secs(5),
        || async {
            stage.publish("x", &json!({})).await;
            let received = stage.receiver.received("/hook");
            received
                .iter()
                .any(|request| request.header("x-key") == "second")
                .then_some(())
                .ok_or("not yet")
        },
    )
    .await;
}
