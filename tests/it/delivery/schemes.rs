//! Each signing scheme on the wire, judged by libraries that are not ours.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::support::{Received, Stage, Verifier, condition};

/// A request as the verifiers read it.
pub(crate) fn request(received: &Received, more: &Value) -> Value {
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

/// Every language accepts the request, and refuses it with another body and with another key.
#[track_caller]
fn judged(received: &Received, facts: &Value, other_key: &str) {
    let genuine = request(received, facts);
    let mut forged = genuine.clone();
    forged["body_base64"] = STANDARD.encode(b"{}").into();
    let mut other = genuine.clone();
    other["secret"] = other_key.into();
    for verifier in Verifier::ALL {
        let verdicts = verifier.verify(&[genuine.clone(), forged.clone(), other.clone()]);
        assert_eq!(verdicts[0], Ok(()), "{verifier:?} {facts}");
        assert!(verdicts[1].is_err(), "{verifier:?} accepts another body: {facts}");
        assert!(verdicts[2].is_err(), "{verifier:?} accepts another key: {facts}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_scheme_verifies_with_the_libraries_of_five_languages() {
    let stage = Stage::set("schemes").await;
    let custom = json!({
        "scheme": "Hmac", "header": "X-Acme-Signature", "prefix": "v0=", "encoding": "Base64", "algorithm": "SHA512",
        "signedContent": "{{ $.method }}:{{ $.url }}:{{ $.body }}:end",
    });
    for (name, signing) in [
        ("ed25519", json!({"scheme": "StandardWebhooksEd25519"})),
        ("stripe", json!({"scheme": "Stripe"})),
        ("github", json!({"scheme": "GitHub"})),
        ("hmac", custom),
    ] {
        stage.destination(
            name,
            &format!("/{name}"),
            &json!({"webhook": {"signing": signing}}),
        );
    }
    stage
        .publish("x", &json!({"text": "ünïcödé \u{1F40E}\n\"quoted\""}))
        .await;
    let first = async |path: &str| stage.receiver.wait_for(path, 1).await.remove(0);

    let private = stage.secret("ed25519-signing", "secret").await;
    let public = stage.secret("ed25519-signing", "publicKey").await;
    assert!(private.starts_with("whsk_") && public.starts_with("whpk_"));
    let told = stage.get("ed", "ed25519");
    assert_eq!(told["status"]["signatures"][0]["publicKey"], public.as_str());
    judged(
        &first("/ed25519").await,
        &json!({"scheme": "ed25519", "secret": public}),
        "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
    );
    for scheme in ["stripe", "github"] {
        let secret = stage.secret(&format!("{scheme}-signing"), "secret").await;
        let facts = json!({"scheme": scheme, "secret": secret});
        judged(&first(&format!("/{scheme}")).await, &facts, "another key");
    }
    let secret = stage.secret("hmac-signing", "secret").await;
    let before = format!("POST:{}:", stage.receiver.url("/hmac"));
    let facts = json!({
        "scheme": "hmac", "secret": secret, "header": "X-Acme-Signature", "encoding": "base64", "prefix": "v0=",
        "algorithm": "sha512", "before": before, "after": ":end",
    });
    judged(&first("/hmac").await, &facts, "another key");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_signatures_stand_side_by_side_while_receivers_move() {
    let stage = Stage::set("schemes").await;
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "house"}, "stringData": {"key": "the house's old key"},
    }));
    let signing = json!({
        "scheme": "HmacSHA256", "header": "X-House-Signature", "secretRef": {"name": "house", "key": "key"},
        "also": [{"name": "standard"}, {"name": "pair", "scheme": "StandardWebhooksEd25519"}],
    });
    stage.destination("hook", "/hook", &json!({"webhook": {"signing": signing}}));
    stage.publish("x", &json!({"n": 1})).await;
    let received = stage.receiver.wait_for("/hook", 1).await.remove(0);
    let standard = stage.secret("hook-signing", "standard").await;
    let public = stage.secret("hook-signing", "pair.publicKey").await;
    judged(
        &received,
        &json!({
            "scheme": "hmac", "secret": "the house's old key", "header": "X-House-Signature", "encoding": "hex",
            "prefix": "", "algorithm": "sha256",
        }),
        "another key",
    );
    let other = "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh";
    judged(
        &received,
        &json!({"scheme": "standard", "secret": standard}),
        other,
    );
    judged(
        &received,
        &json!({"scheme": "ed25519", "secret": public}),
        "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_content_that_cannot_be_read_is_told_with_its_place() {
    let stage = Stage::set("schemes").await;
    let signing = json!({"scheme": "Hmac", "header": "X-Sig", "signedContent": "{{ $.boddy }}"});
    stage.apply_destination("hook", "/hook", &json!({"webhook": {"signing": signing}}));
    stage
        .until("ed", "hook", "the fault is told", |ed| {
            let message = condition(ed, "Ready")["message"].as_str().unwrap_or_default();
            message.contains("spec.webhook.signing.signedContent: character 1: there is no \"$.boddy\"")
        })
        .await;
}
