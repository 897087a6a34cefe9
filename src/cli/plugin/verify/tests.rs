//! Each reason that `verify` names.

use clap::Parser as _;

use super::*;
use crate::cli::plugin::{Command, Plugin};
use crate::domain::id::EventId;
use crate::domain::signature::{Outgoing, Signer, WEBHOOK_SIGNATURE};

const KEY: &[u8] = b"whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
const BODY: &[u8] = b"{\"b\":1,\"a\":\"x\"}";

fn args(more: &[&str]) -> VerifyArgs {
    let all = [
        "p",
        "verify",
        "--secret",
        "k",
        "--body",
        "b",
        "--now",
        "2025-01-01T00:00:00Z",
    ];
    match Plugin::parse_from(all.iter().chain(more)).command {
        Command::Verify(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn signed(args: &VerifyArgs, at: &str) -> HeaderMap {
    signed_with(args, read_key(args, KEY).unwrap(), at)
}

fn signed_with(args: &VerifyArgs, key: Key, at: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let id = EventId::parse("evt-1").unwrap();
    let outgoing = Outgoing {
        id: &id,
        now: at.parse().unwrap(),
        body: BODY,
        url: &args.url,
        method: &args.method,
    };
    Signer::new(vec![Signature::new(scheme(args).unwrap(), key)]).sign(&outgoing, &mut headers);
    headers
}

#[track_caller]
fn says(args: &VerifyArgs, key: &[u8], headers: &HeaderMap, body: &[u8], words: &[&str]) {
    let found = problems(args, key, headers, body).unwrap();
    let fit = found.len() == words.len() && found.iter().zip(words).all(|(text, word)| text.contains(word));
    assert!(fit, "{found:?} instead of {words:?}");
}

#[test]
fn each_reason_is_named() {
    let args = args(&[]);
    let headers = signed(&args, "2025-01-01T00:04:00Z");
    let other = b"whsec_YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFh\n";
    says(&args, KEY, &headers, BODY, &[]);
    says(&args, &[KEY, b"\n"].concat(), &headers, BODY, &[]);
    says(&args, other, &headers, BODY, &["another key"]);
    says(&args, KEY, &headers, b"{}", &["webhook-timestamp was changed"]);
    says(
        &args,
        KEY,
        &headers,
        &[BODY, b"\n"].concat(),
        &["without white space"],
    );
    says(
        &args,
        KEY,
        &headers,
        b"{\n  \"b\": 1,\n  \"a\": \"x\"\n}",
        &["JSON without spaces"],
    );
    says(
        &args,
        KEY,
        &HeaderMap::new(),
        BODY,
        &["webhook-id", "webhook-timestamp", "webhook-signature"],
    );

    let old = signed(&args, "2024-12-31T23:00:00Z");
    says(&args, KEY, &old, BODY, &["3600s old, more than 5m"]);
    says(&args, other, &old, BODY, &["old", "another key"]);
    says(
        &args,
        KEY,
        &signed(&args, "2025-01-01T01:00:00Z"),
        BODY,
        &["in the future"],
    );

    for (value, word) in [("v2,abc", "begins with"), ("v1,abc", "damaged")] {
        let mut headers = headers.clone();
        headers.insert(WEBHOOK_SIGNATURE, value.parse().unwrap());
        says(&args, KEY, &headers, BODY, &[word]);
    }
    let mut headers = headers.clone();
    headers.insert(WEBHOOK_TIMESTAMP, "soon".parse().unwrap());
    says(&args, KEY, &headers, BODY, &["seconds since 1970"]);
}

#[test]
fn a_wider_tolerance_is_heeded() {
    let args = args(&["--tolerance", "2h"]);
    says(&args, KEY, &signed(&args, "2024-12-31T23:00:00Z"), BODY, &[]);
}

#[test]
fn a_plain_signature_is_explained_too() {
    let plain = |more: &[&str]| args(&[&["--scheme", "hmac", "--header-name", "X-Sig"], more].concat());
    let headers = signed(&plain(&["--prefix", "sha256="]), "2020-01-01T00:00:00Z");
    says(&plain(&["--prefix", "sha256="]), KEY, &headers, BODY, &[]);
    says(
        &plain(&["--prefix", "sha256="]),
        &[KEY, b"\r\n"].concat(),
        &headers,
        BODY,
        &[],
    );
    says(
        &plain(&["--prefix", "sha256="]),
        b"other",
        &headers,
        BODY,
        &["another key"],
    );
    says(
        &plain(&["--prefix", "sha1="]),
        KEY,
        &headers,
        BODY,
        &["does not begin with"],
    );
    says(&plain(&[]), KEY, &headers, BODY, &["--prefix"]);
    let base64 = plain(&["--prefix", "sha256=", "--encoding", "base64"]);
    says(&base64, KEY, &headers, BODY, &["--encoding hex"]);
    says(&plain(&[]), KEY, &HeaderMap::new(), BODY, &["x-sig is missing"]);
}

const NOW: &str = "2025-01-01T00:00:00Z";
const PRIVATE: &[u8] =
    b"whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const PUBLIC: &[u8] = b"whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=\n";

#[test]
fn a_key_pair_verifies_with_either_half() {
    let pair = args(&["--scheme", "ed25519"]);
    let headers = signed_with(&pair, read_key(&pair, PRIVATE).unwrap(), NOW);
    says(&pair, PUBLIC, &headers, BODY, &[]);
    says(&pair, PRIVATE, &headers, BODY, &[]);
    says(&pair, PUBLIC, &headers, b"{}", &["another key"]);
    says(&args(&[]), KEY, &headers, BODY, &["say --scheme ed25519"]);
    let standard = signed(&args(&[]), NOW);
    says(&pair, PUBLIC, &standard, BODY, &["say --scheme standard"]);
    for (args, key, word) in [
        (&pair, KEY, "this is a key of scheme standard"),
        (&args(&[]), PUBLIC, "this is a key of scheme ed25519"),
    ] {
        let fault = problems(args, key, &headers, BODY).unwrap_err();
        assert!(fault.contains(word), "{fault}");
    }
}

#[test]
fn stripes_and_githubs_signatures_are_explained() {
    let stripe = args(&["--scheme", "stripe"]);
    let headers = signed(&stripe, NOW);
    says(&stripe, KEY, &headers, BODY, &[]);
    says(&stripe, b"other", &headers, BODY, &["another key"]);
    says(
        &stripe,
        KEY,
        &signed(&stripe, "2024-12-31T23:00:00Z"),
        BODY,
        &["3600s old"],
    );
    let decoded = Key::standard(KEY).unwrap();
    says(
        &stripe,
        KEY,
        &signed_with(&stripe, decoded, NOW),
        BODY,
        &["text itself is the key"],
    );
    for (value, word) in [
        ("v1=00", "t= in header"),
        ("t=1735689600,v0=00", "no v1="),
        ("t=1735689600,v1=00", "damaged"),
    ] {
        let headers = HeaderMap::from_iter([(STRIPE_SIGNATURE, value.parse().unwrap())]);
        says(&stripe, KEY, &headers, BODY, &[word]);
    }

    let github = args(&["--scheme", "github"]);
    let headers = signed(&github, NOW);
    says(&github, KEY, &headers, BODY, &[]);
    says(
        &github,
        KEY,
        &headers,
        &[BODY, b"\r\n"].concat(),
        &["without white space"],
    );
    let newline = Key::mac(SignatureAlgorithm::Sha256, &[KEY, b"\n"].concat()).unwrap();
    says(
        &github,
        KEY,
        &signed_with(&github, newline, NOW),
        BODY,
        &["ends in a newline"],
    );
    let bare = HeaderMap::from_iter([(GITHUB_SIGNATURE, "00".repeat(32).parse().unwrap())]);
    says(&github, KEY, &bare, BODY, &["does not begin with \"sha256=\""]);
    says(
        &github,
        KEY,
        &HeaderMap::new(),
        BODY,
        &["x-hub-signature-256 is missing"],
    );
}

#[test]
fn a_custom_hmac_is_explained_by_hash_content_and_url() {
    let custom = |more: &[&str]| args(&[&["--scheme", "hmac", "--header-name", "X-Sig"], more].concat());
    let all = [
        "--algorithm",
        "sha512",
        "--signed-content",
        "{{ $.url }}{{ $.body }}",
        "--url",
        "https://h.example/",
    ];
    let right = custom(&all);
    let headers = signed(&right, NOW);
    says(&right, KEY, &headers, BODY, &[]);
    says(
        &custom(&[&all[..5], &["https://h.example"]].concat()),
        KEY,
        &headers,
        BODY,
        &["--url is another"],
    );
    says(&custom(&[]), KEY, &headers, BODY, &["say --algorithm sha512"]);
    let dated = custom(&["--signed-content", "{{ $.timestamp }}.{{ $.body }}"]);
    let headers = signed(&dated, NOW);
    says(&dated, KEY, &headers, BODY, &[]);
    says(
        &custom(&[]),
        KEY,
        &headers,
        BODY,
        &["it fits --signed-content '{{ $.timestamp }}.{{ $.body }}'"],
    );
    says(
        &dated,
        KEY,
        &signed(&dated, "2024-12-31T23:00:00Z"),
        BODY,
        &["old"],
    );
    let undecoded = Key::mac(SignatureAlgorithm::Sha256, KEY).unwrap();
    let standard = args(&[]);
    says(
        &standard,
        KEY,
        &signed_with(&standard, undecoded, NOW),
        BODY,
        &["did not decode the key"],
    );
    let fault = problems(&custom(&["--signed-content", "{{ $.x }}"]), KEY, &headers, BODY).unwrap_err();
    assert!(
        fault.contains("--signed-content: character 1: there is no"),
        "{fault}"
    );
}
