//! Published vectors, keys that are refused, and what verification lets through.

use super::key::generate;
use super::*;
use crate::api::v1alpha1::event_destination::{SignatureAlgorithm, SigningScheme};
use crate::domain::event::sample::at;
use crate::domain::secret::Secret;

const VECTOR_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const VECTOR_ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const VECTOR_BODY: &[u8] = br#"{"test": 2432232314}"#;
const VECTOR_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn vector_time() -> Timestamp {
    Timestamp::from_second(1_614_265_330).unwrap()
}

const URL: &str = "https://hooks.example.com/in?a=b";

fn signed(signer: &Signer, body: &[u8], now: Timestamp) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let id = EventId::parse(VECTOR_ID).unwrap();
    let outgoing = Outgoing {
        id: &id,
        now,
        body,
        url: URL,
        method: "POST",
    };
    signer.sign(&outgoing, &mut headers);
    headers
}

fn verified(signer: &Signer, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), VerifyError> {
    let request = Received {
        headers,
        body,
        url: URL,
        method: "POST",
    };
    signer.verify(&request, now)
}

fn one(scheme: Scheme, key: Key) -> Signer {
    Signer::new(vec![Signature::new(scheme, key)])
}

fn custom(prefix: &str, encoding: SignatureEncoding, content: &str) -> Scheme {
    Scheme::Plain {
        header: HeaderName::from_static("x-acme-signature"),
        prefix: prefix.into(),
        encoding,
        content: Content::parse(content).unwrap(),
    }
}

fn plain(key: &[u8]) -> Result<Signer, String> {
    let scheme = custom("sha256=", SignatureEncoding::Hex, "{{ $.body }}");
    Key::plain(SignatureAlgorithm::Sha256, key).map(|key| one(scheme, key))
}

#[test]
fn the_published_vector_of_standard_webhooks_signs_as_published() {
    let signer = Signer::standard(VECTOR_KEY.as_bytes()).unwrap();
    let headers = signed(&signer, VECTOR_BODY, vector_time());
    assert_eq!(headers["webhook-id"], VECTOR_ID);
    assert_eq!(headers["webhook-timestamp"], "1614265330");
    assert_eq!(headers["webhook-signature"], VECTOR_SIGNATURE);
    assert!(headers["webhook-signature"].is_sensitive());
    assert_eq!(verified(&signer, &headers, VECTOR_BODY, vector_time()), Ok(()));
}

#[test]
fn the_published_vector_of_hmac_sha_256_signs_as_published() {
    // RFC 4231 §4.3.
    let headers = signed(
        &plain(b"Jefe").unwrap(),
        b"what do ya want for nothing?",
        vector_time(),
    );
    let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    assert_eq!(headers["x-acme-signature"], expected);
    let base64 = one(
        custom("", SignatureEncoding::Base64, "{{ $.body }}"),
        Key::plain(SignatureAlgorithm::Sha256, b"Jefe").unwrap(),
    );
    let headers = signed(&base64, b"what do ya want for nothing?", vector_time());
    assert_eq!(
        headers["x-acme-signature"],
        "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM="
    );
}

#[test]
fn id_and_timestamp_are_set_whatever_the_scheme() {
    for signer in [Signer::none(), plain(b"key").unwrap()] {
        let headers = signed(&signer, b"", vector_time());
        assert_eq!(headers["webhook-id"], VECTOR_ID);
        assert_eq!(headers["webhook-timestamp"], "1614265330");
        assert!(!headers.contains_key("webhook-signature"));
    }
}

#[test]
fn a_newline_after_a_standard_key_does_not_count() {
    for end in ["\n", "\r\n", ""] {
        let signer = Signer::standard(format!("{VECTOR_KEY}{end}").as_bytes()).unwrap();
        assert_eq!(
            signed(&signer, VECTOR_BODY, vector_time())["webhook-signature"],
            VECTOR_SIGNATURE
        );
    }
}

#[test]
fn standard_keys_that_no_receiver_could_use_are_refused_without_showing_them() {
    let long = format!("whsec_{}", STANDARD.encode([7; 65]));
    let short = format!("whsec_{}", STANDARD.encode([7; 23]));
    let unpadded = format!("whsec_{}", STANDARD.encode([7; 25]).trim_end_matches('='));
    for (key, part) in [
        ("", "must start with whsec_"),
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "must start with whsec_"),
        ("whsec_", "0 bytes long"),
        ("whsec_hunter2!", "not base64"),
        (&unpadded, "not base64"),
        (&short, "23 bytes long"),
        (&long, "65 bytes long"),
        ("\0\0\0", "must start with"),
    ] {
        let message = Signer::standard(key.as_bytes()).unwrap_err();
        assert!(message.contains(part), "{message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    for bytes in [24, 64] {
        assert!(Signer::standard(format!("whsec_{}", STANDARD.encode(vec![7; bytes])).as_bytes()).is_ok());
    }
}

#[test]
fn plain_keys_that_are_mistakes_are_refused() {
    for (key, part) in [
        (&b""[..], "empty"),
        (b"  \n ", "blank"),
        (b"\0\0", "NUL"),
        (b"secret\n", "newline"),
        (b"secret\r\n", "newline"),
        (&[b'a'; 4097], "longer than 4096"),
    ] {
        let message = plain(key).unwrap_err();
        assert!(message.contains(part), "{message}");
        assert!(!message.contains("secret\n"), "{message}");
    }
    assert!(plain(&[b'a'; 4096]).is_ok());
    assert!(
        plain(b"\xff\xfe\n").is_ok(),
        "bytes that are no text may end as they like"
    );
}

#[test]
fn a_prefix_that_no_header_can_hold_is_refused() {
    for prefix in ["a b", "é", "a\n", &"a".repeat(65)] {
        assert!(check_prefix(prefix).is_err(), "{prefix:?}");
    }
}

#[test]
fn verification_refuses_another_body_key_id_and_time() {
    let signer = Signer::standard(VECTOR_KEY.as_bytes()).unwrap();
    let headers = signed(&signer, VECTOR_BODY, vector_time());
    assert_eq!(
        verified(&signer, &headers, b"{}", vector_time()),
        Err(VerifyError::Mismatch)
    );
    let made = generate(SigningScheme::StandardWebhooks, [1; 32]).unwrap();
    let other = Signer::standard(made.secret.expose().as_bytes()).unwrap();
    assert_eq!(
        verified(&other, &headers, VECTOR_BODY, vector_time()),
        Err(VerifyError::Mismatch)
    );
    let mut forged = headers.clone();
    forged.insert("webhook-id", HeaderValue::from_static("msg_other"));
    assert_eq!(
        verified(&signer, &forged, VECTOR_BODY, vector_time()),
        Err(VerifyError::Mismatch)
    );
    for (at, expected) in [
        (300, Ok(())),
        (-300, Ok(())),
        (301, Err(VerifyError::Timestamp)),
        (-301, Err(VerifyError::Timestamp)),
    ] {
        let now = Timestamp::from_second(1_614_265_330 + at).unwrap();
        assert_eq!(verified(&signer, &headers, VECTOR_BODY, now), expected, "{at}");
    }
    assert_eq!(
        verified(&signer, &HeaderMap::new(), VECTOR_BODY, vector_time()),
        Err(VerifyError::Header)
    );
}

#[test]
fn one_fitting_signature_among_several_is_enough() {
    let signer = Signer::standard(VECTOR_KEY.as_bytes()).unwrap();
    let mut headers = signed(&signer, VECTOR_BODY, vector_time());
    let several = format!("v1a,AAAA v1,bogus {VECTOR_SIGNATURE}");
    headers.insert("webhook-signature", HeaderValue::try_from(several).unwrap());
    assert_eq!(verified(&signer, &headers, VECTOR_BODY, vector_time()), Ok(()));
}

#[test]
fn plain_verification_needs_prefix_and_signature() {
    let signer = plain(b"key").unwrap();
    let mut headers = signed(&signer, b"body", vector_time());
    assert_eq!(
        verified(&signer, &headers, b"body", at("2030-01-01T00:00:00Z")),
        Ok(())
    );
    assert_eq!(
        verified(&signer, &headers, b"other", vector_time()),
        Err(VerifyError::Mismatch)
    );
    headers.insert("x-acme-signature", HeaderValue::from_static("5bdc"));
    assert_eq!(
        verified(&signer, &headers, b"body", vector_time()),
        Err(VerifyError::Mismatch)
    );
}

#[test]
fn a_generated_key_serves_its_scheme() {
    for scheme in [
        SigningScheme::StandardWebhooks,
        SigningScheme::StandardWebhooksEd25519,
        SigningScheme::Stripe,
        SigningScheme::GitHub,
        SigningScheme::HmacSha256,
        SigningScheme::Hmac,
    ] {
        let made = generate(scheme, [9; 32]).unwrap();
        let key = Key::parse(
            scheme,
            SignatureAlgorithm::Sha512,
            made.secret.expose().as_bytes(),
        );
        assert_eq!(key.unwrap().public_text(), made.public, "{scheme:?}");
    }
    let standard = generate(SigningScheme::StandardWebhooks, [9; 32]).unwrap();
    assert_eq!(
        standard.secret.expose(),
        "whsec_CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk="
    );
}

/// The private key whose public key and signature the Standard Webhooks specification's own servers publish.
const ED25519_KEY: &str =
    "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==";
const ED25519_PUBLIC: &str = "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=";
const ED25519_SIGNATURE: &str =
    "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

#[test]
fn the_published_vector_of_ed25519_signs_and_verifies_as_published() {
    let key = Key::ed25519(ED25519_KEY.as_bytes()).unwrap();
    assert_eq!(key.public_text().as_deref(), Some(ED25519_PUBLIC));
    let signer = one(Scheme::Ed25519, key);
    let headers = signed(&signer, VECTOR_BODY, vector_time());
    assert_eq!(headers["webhook-signature"], ED25519_SIGNATURE);
    let public = one(Scheme::Ed25519, Key::public(ED25519_PUBLIC.as_bytes()).unwrap());
    assert_eq!(verified(&public, &headers, VECTOR_BODY, vector_time()), Ok(()));
    assert_eq!(
        verified(&public, &headers, b"{}", vector_time()),
        Err(VerifyError::Mismatch)
    );
    assert!(
        !signed(&public, VECTOR_BODY, vector_time()).contains_key("webhook-signature"),
        "a public key signs nothing"
    );
    let seed = STANDARD.decode(&ED25519_KEY[5..]).unwrap()[..32].to_vec();
    let short = format!("whsk_{}\n", STANDARD.encode(seed));
    let signer = one(Scheme::Ed25519, Key::ed25519(short.as_bytes()).unwrap());
    assert_eq!(
        signed(&signer, VECTOR_BODY, vector_time())["webhook-signature"],
        ED25519_SIGNATURE
    );
}

#[test]
fn ed25519_keys_that_cannot_be_are_refused() {
    let pair =
        |seed: u8, public: u8| format!("whsk_{}", STANDARD.encode([[seed; 32], [public; 32]].concat()));
    for (key, part) in [
        ("whsec_CQkJ".to_owned(), "must start with whsk_"),
        ("whsk_CQkJ".to_owned(), "3 bytes long after base64; it must be 32"),
        (pair(1, 2), "is not the public key of the first"),
    ] {
        let fault = Key::ed25519(key.as_bytes()).unwrap_err();
        assert!(fault.contains(part), "{fault}");
    }
}

#[test]
fn the_published_vector_of_github_signs_as_published() {
    let scheme = Scheme::Plain {
        header: GITHUB_SIGNATURE,
        prefix: GITHUB_PREFIX.into(),
        encoding: SignatureEncoding::Hex,
        content: Content::body(),
    };
    let key = Key::plain(SignatureAlgorithm::Sha256, b"It's a Secret to Everybody").unwrap();
    let headers = signed(&one(scheme, key), b"Hello, World!", vector_time());
    assert_eq!(
        headers["x-hub-signature-256"],
        "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    );
}

#[test]
fn stripe_signs_time_and_body_with_each_key() {
    let scheme = Scheme::Stripe {
        header: STRIPE_SIGNATURE,
    };
    let key = |text: &[u8]| Key::plain(SignatureAlgorithm::Sha256, text).unwrap();
    let mut signer = one(scheme.clone(), key(b"whsec_new"));
    signer.hold(0, vec![key(b"whsec_new"), key(b"whsec_old")]);
    let headers = signed(&signer, VECTOR_BODY, vector_time());
    let text = headers["stripe-signature"].to_str().unwrap();
    let parts: Vec<_> = text.split(',').collect();
    assert_eq!((parts[0], parts.len()), ("t=1614265330", 3), "{text}");
    for text in [&b"whsec_new"[..], b"whsec_old"] {
        let alone = one(scheme.clone(), key(text));
        assert_eq!(verified(&alone, &headers, VECTOR_BODY, vector_time()), Ok(()));
    }
    let other = one(scheme, key(b"whsec_other"));
    assert_eq!(
        verified(&other, &headers, VECTOR_BODY, vector_time()),
        Err(VerifyError::Mismatch)
    );
}

#[test]
fn each_hash_signs_as_its_rfc_says() {
    // RFC 2202 §3 and RFC 4231 §4.3.
    for (algorithm, expected) in [
        (
            SignatureAlgorithm::Sha1,
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79",
        ),
        (
            SignatureAlgorithm::Sha384,
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649",
        ),
        (
            SignatureAlgorithm::Sha512,
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
        ),
    ] {
        let scheme = custom("", SignatureEncoding::Hex, "{{ $.body }}");
        let signer = one(scheme, Key::plain(algorithm, b"Jefe").unwrap());
        let headers = signed(&signer, b"what do ya want for nothing?", vector_time());
        assert_eq!(headers["x-acme-signature"], expected, "{algorithm:?}");
    }
}

#[test]
fn several_signatures_share_a_request() {
    let scheme = custom(
        "v0=",
        SignatureEncoding::Hex,
        "v0:{{ $.timestamp }}:{{ $.method }}{{ $.url }}{{ $.body }}",
    );
    let signer = Signer::new(vec![
        Signature::new(Scheme::Standard, Key::standard(VECTOR_KEY.as_bytes()).unwrap()),
        Signature::new(Scheme::Ed25519, Key::ed25519(ED25519_KEY.as_bytes()).unwrap()),
        Signature::new(scheme, Key::plain(SignatureAlgorithm::Sha256, b"key").unwrap()),
    ]);
    let headers = signed(&signer, VECTOR_BODY, vector_time());
    assert_eq!(
        headers["webhook-signature"].to_str().unwrap(),
        format!("{VECTOR_SIGNATURE} {ED25519_SIGNATURE}")
    );
    assert_eq!(verified(&signer, &headers, VECTOR_BODY, vector_time()), Ok(()));
    let elsewhere = Received {
        headers: &headers,
        body: VECTOR_BODY,
        url: "https://other.example.com/",
        method: "POST",
    };
    assert_eq!(
        signer.verify(&elsewhere, vector_time()),
        Err(VerifyError::Mismatch),
        "the URL is covered"
    );
}

#[test]
fn while_keys_change_standard_webhooks_signs_with_both_and_a_single_place_with_the_older() {
    let made = |random| {
        generate(SigningScheme::StandardWebhooks, [random; 32])
            .unwrap()
            .secret
    };
    let (new, old) = (made(1), made(2));
    let key = |text: &Secret<String>| Key::standard(text.expose().as_bytes()).unwrap();
    let mut signer = one(Scheme::Standard, key(&new));
    signer.hold(0, vec![key(&new), key(&old)]);
    let headers = signed(&signer, VECTOR_BODY, vector_time());
    for text in [&new, &old] {
        let alone = one(Scheme::Standard, key(text));
        assert_eq!(verified(&alone, &headers, VECTOR_BODY, vector_time()), Ok(()));
    }
    let mut single = plain(b"new").unwrap();
    let keys = [b"new", b"old"].map(|text| Key::plain(SignatureAlgorithm::Sha256, text).unwrap());
    single.hold(0, keys.to_vec());
    let headers = signed(&single, VECTOR_BODY, vector_time());
    assert_eq!(
        verified(&plain(b"old").unwrap(), &headers, VECTOR_BODY, vector_time()),
        Ok(())
    );
}

#[test]
fn debug_shows_no_key() {
    let text = format!(
        "{:?} {:?}",
        Signer::standard(VECTOR_KEY.as_bytes()),
        plain(b"hunter2")
    );
    assert!(
        !text.contains("MfKQ") && !text.contains("hunter2") && text.contains("Key(…)"),
        "{text}"
    );
}
