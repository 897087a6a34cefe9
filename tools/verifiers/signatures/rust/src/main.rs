//! Verifies webhook signatures with crates that are not Postrider's: standardwebhooks and webhook-verify; `v1a`, which
//! neither knows, is judged by ed25519-dalek.
//!
//! Reads one JSON object per line from standard input and answers each with one JSON line; ../../../verify.py describes
//! both.

use std::io::{BufRead as _, Write as _};
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use serde_json::{Value, json};
use webhook_verify::{CustomScheme, Encoding, HashAlg, Provider, Secret, VerifyOptions};

const TOLERANCE: u64 = 300;

fn main() {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let verdict = line
            .map_err(|error| error.to_string())
            .and_then(|line| serde_json::from_str(&line).map_err(|error| error.to_string()))
            .and_then(|request| verify(&request));
        let answer = json!({"ok": verdict.is_ok(), "error": verdict.err()});
        writeln!(out, "{answer}").expect("standard output is open");
    }
}

fn verify(request: &Value) -> Result<(), String> {
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    let body = STANDARD.decode(text("body_base64")).map_err(|error| error.to_string())?;
    let headers: Vec<(String, String)> = request["headers"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.to_lowercase(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    let secret = Secret::new(text("secret"));
    let judged = |provider, body: &[u8]| {
        webhook_verify::verify(provider, &headers, body, &secret, VerifyOptions::default())
            .map_err(|error| error.to_string())
    };
    match text("scheme") {
        "standard" => {
            let mut map = http::HeaderMap::new();
            for (name, value) in &headers {
                if let (Ok(name), Ok(value)) = (name.parse::<http::HeaderName>(), value.parse()) {
                    map.insert(name, value);
                }
            }
            let hook = standardwebhooks::Webhook::new(text("secret")).map_err(|error| error.to_string())?;
            hook.verify(&body, &map).map_err(|error| error.to_string())?;
            judged(Provider::StandardWebhooks, &body)
        }
        "ed25519" => ed25519(text("secret"), &headers, &body),
        "stripe" => judged(Provider::Stripe, &body),
        "github" => judged(Provider::GitHub, &body),
        "hmac" => {
            let signed = [text("before").as_bytes(), &body, text("after").as_bytes()].concat();
            let leaked = |text: &str| -> &'static str { String::leak(text.to_owned()) };
            let scheme = CustomScheme {
                hash: match text("algorithm") {
                    "sha1" => HashAlg::Sha1,
                    "sha512" => HashAlg::Sha512,
                    "" | "sha256" => HashAlg::Sha256,
                    other => return Err(format!("webhook-verify has no {other}")),
                },
                signature_header: leaked(text("header")),
                timestamp_header: None,
                encoding: if text("encoding") == "base64" { Encoding::Base64 } else { Encoding::Hex },
                prefix: (!text("prefix").is_empty()).then(|| leaked(text("prefix"))),
                signed_string: |_, body| body.to_vec(),
            };
            judged(Provider::Custom(scheme), &signed)
        }
        other => Err(format!("unknown scheme {other}")),
    }
}

fn ed25519(public: &str, headers: &[(String, String)], body: &[u8]) -> Result<(), String> {
    let header = |name: &str| {
        let found = headers.iter().find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str()).ok_or_else(|| format!("header {name} is missing"))
    };
    let key = STANDARD
        .decode(public.trim_start_matches("whpk_"))
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .and_then(|bytes| VerifyingKey::from_bytes(&bytes).ok())
        .ok_or("this is no public key")?;
    let stamp = header("webhook-timestamp")?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?;
    let seconds: u64 = stamp.parse().map_err(|_| "the timestamp is no number")?;
    if now.as_secs().abs_diff(seconds) > TOLERANCE {
        return Err("the timestamp is too far from now".to_owned());
    }
    let signed = [format!("{}.{stamp}.", header("webhook-id")?).as_bytes(), body].concat();
    let fits = header("webhook-signature")?
        .split(' ')
        .filter_map(|one| STANDARD.decode(one.strip_prefix("v1a,")?).ok())
        .filter_map(|code| Signature::from_slice(&code).ok())
        .any(|signature| key.verify_strict(&signed, &signature).is_ok());
    if fits { Ok(()) } else { Err("no signature fits".to_owned()) }
}
