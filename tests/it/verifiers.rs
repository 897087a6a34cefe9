//! The signature libraries of other languages accept what is right and refuse what is not.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::Verifier;

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// A request signed by hand as the Standard Webhooks specification says.
fn standard(body: &str) -> Value {
    let now = jiff::Timestamp::now().as_second().to_string();
    let signature = BASE64_STANDARD.encode(hmac_sha256(
        b"a key of at least 24 bytes",
        format!("msg_1.{now}.{body}").as_bytes(),
    ));
    json!({
        "scheme": "standard",
        "secret": format!("whsec_{}", BASE64_STANDARD.encode("a key of at least 24 bytes")),
        "headers": {
            "Webhook-Id": "msg_1",
            "Webhook-Timestamp": now,
            "Webhook-Signature": format!("v1,{} v1,{signature}", BASE64_STANDARD.encode([0; 32])),
        },
        "body_base64": BASE64_STANDARD.encode(body),
    })
}

fn custom(encoding: &str, signature: &str) -> Value {
    json!({
        "scheme": "hmac",
        "secret": "s3cret",
        "headers": {"x-signature": format!("sha256={signature}")},
        "body_base64": BASE64_STANDARD.encode("{}"),
        "header": "X-Signature",
        "encoding": encoding,
        "prefix": "sha256=",
    })
}

#[test]
fn each_language_accepts_the_right_signature_only() {
    let digest = hmac_sha256(b"s3cret", b"{}");
    let mut changed_body = standard(r#"{"a":1}"#);
    changed_body["body_base64"] = BASE64_STANDARD.encode(r#"{"a":2}"#).into();
    let mut old = standard("{}");
    old["headers"]["Webhook-Timestamp"] = "1700000000".into();
    let requests = [
        standard(r#"{"a":1}"#),
        standard("text, not JSON: ü"),
        custom("hex", &hex::encode(&digest)),
        custom("base64", &BASE64_STANDARD.encode(&digest)),
        changed_body,
        old,
        custom("base64", &hex::encode(&digest)),
    ];
    for verifier in Verifier::ALL {
        let verdicts = verifier.verify(&requests);
        assert!(
            verdicts[..4].iter().all(Result::is_ok),
            "{verifier:?}: {verdicts:?}"
        );
        assert!(
            verdicts[4..].iter().all(Result::is_err),
            "{verifier:?}: {verdicts:?}"
        );
    }
}
