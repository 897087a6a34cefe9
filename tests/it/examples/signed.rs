//! The examples of signatures, judged by the libraries of five languages.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::secret;
use super::site::Site;
use crate::delivery::schemes::request;
use crate::support::{Received, Verifier};

const OTHER_PAIR: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const OTHER_KEY: &str = "whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh";

/// The request to an example's receiver.
async fn received(site: &Site, name: &str) -> Received {
    site.publish(name, &json!({"type": "x", "data": {"text": "ünïcödé"}}))
        .await;
    site.receiver
        .wait_for(&format!("/{name}/{name}"), 1)
        .await
        .remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_examples_verify_with_the_libraries_of_five_languages() {
    let site = Site::set("signing").await;
    let names = ["ed25519", "github", "hmac", "migration", "stripe"].map(|name| format!("signing-{name}"));
    for name in &names {
        site.apply(name);
    }
    let [ed25519, github, hmac, migration, stripe] = &names;
    let key = async |name: &str, key: &str| secret(&site.namespace, &format!("{name}-signing"), key).await;
    let mut judged: Vec<Value> = Vec::new();

    let one = received(&site, ed25519).await;
    let public = site.get(ed25519)["status"]["signatures"][0]["publicKey"].clone();
    judged.push(request(&one, &json!({"scheme": "ed25519", "secret": public})));

    let one = received(&site, github).await;
    judged.push(request(
        &one,
        &json!({"scheme": "github", "secret": key(github, "secret").await}),
    ));

    let one = received(&site, hmac).await;
    let url = site.receiver.url("/signing-hmac/signing-hmac");
    let before = format!("v0:{}:{url}:", one.header("webhook-timestamp"));
    judged.push(request(
        &one,
        &json!({
            "scheme": "hmac", "secret": key(hmac, "secret").await, "header": "X-Acme-Signature", "encoding": "base64",
            "prefix": "v0=", "algorithm": "sha512", "before": before, "after": "",
        }),
    ));

    let one = received(&site, stripe).await;
    let facts = json!({"scheme": "stripe", "secret": key(stripe, "secret").await});
    let mut as_stripe = request(&one, &facts);
    // The library is handed the value, whatever header it came in.
    as_stripe["headers"]["stripe-signature"] = one.header("acme-signature").into();
    judged.push(as_stripe);

    let one = received(&site, migration).await;
    let house = json!({
        "scheme": "hmac", "secret": "replace-me-by-the-key-that-receivers-know", "header": "X-House-Signature",
        "encoding": "hex", "prefix": "", "algorithm": "sha256",
    });
    let standard = json!({"scheme": "standard", "secret": key(migration, "standard").await});
    let pair = json!({"scheme": "ed25519", "secret": key(migration, "pair.publicKey").await});
    judged.extend([house, standard, pair].map(|facts| request(&one, &facts)));

    let spoilt = judged.iter().flat_map(|genuine| {
        let (mut forged, mut other) = (genuine.clone(), genuine.clone());
        forged["body_base64"] = STANDARD.encode(b"{}").into();
        let is_pair = genuine["scheme"] == "ed25519";
        other["secret"] = if is_pair { OTHER_PAIR } else { OTHER_KEY }.into();
        [forged, other]
    });
    let all: Vec<_> = judged.iter().cloned().chain(spoilt).collect();
    for verifier in Verifier::ALL {
        let verdicts = verifier.verify(&all);
        for (verdict, asked) in verdicts.iter().zip(&all).take(judged.len()) {
            assert_eq!(*verdict, Ok(()), "{verifier:?} {}", asked["scheme"]);
        }
        for (verdict, asked) in verdicts.iter().zip(&all).skip(judged.len()) {
            assert!(verdict.is_err(), "{verifier:?} accepts what is spoilt: {asked}");
        }
    }
}
