//! Published vectors, keys that are refused, and what verification lets through.

use super::*;
use crate::domain::event::sample::at;

const VECTOR_KEY: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const VECTOR_ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const VECTOR_BODY: &[u8] = br#"{"test": 2432232314}"#;
const VECTOR_SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

fn vector_time() -> Timestamp {
    Timestamp::from_second(1_614_265_330).unwrap()
}

fn signed(signer: &Signer, body: &[u8], now: Timestamp) -> HeaderMap {
    let mut headers = HeaderMap::new();
    signer.sign(&EventId::parse(VECTOR_ID).unwrap(), now, body, &mut headers);
    headers
}

fn plain(key: &[u8]) -> Result<Signer, String> {
    Signer::hmac(
        HeaderName::from_static("x-acme-signature"),
        "sha256=",
        SignatureEncoding::Hex,
        key,
    )
}

#[test]
fn the_published_vector_of_standard_webhooks_signs_as_published() {
    let signer = Signer::standard(VECTOR_KEY.as_bytes()).unwrap();
    let headers = signed(&signer, VECTOR_BODY, vector_time());
    assert_eq!(headers["webhook-id"], VECTOR_ID);
    assert_eq!(headers["webhook-timestamp"], "1614265330");
    assert_eq!(headers["webhook-signature"], VECTOR_SIGNATURE);
    assert!(headers["webhook-signature"].is_sensitive());
    assert_eq!(signer.verify(&headers, VECTOR_BODY, vector_time()), Ok(()));
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
    let base64 = Signer::hmac(
        HeaderName::from_static("x-s"),
        "",
        SignatureEncoding::Base64,
        b"Jefe",
    )
    .unwrap();
    let headers = signed(&base64, b"what do ya want for nothing?", vector_time());
    assert_eq!(headers["x-s"], "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
}

#[test]
fn id_and_timestamp_are_set_whatever_the_scheme() {
    for signer in [Signer::None, plain(b"key").unwrap()] {
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
    let header = HeaderName::from_static("x-s");
    for prefix in ["a b", "é", "a\n", &"a".repeat(65)] {
        assert!(
            Signer::hmac(header.clone(), prefix, SignatureEncoding::Hex, b"key").is_err(),
            "{prefix:?}"
        );
    }
}

#[test]
fn verification_refuses_another_body_key_id_and_time() {
    let signer = Signer::standard(VECTOR_KEY.as_bytes()).unwrap();
    let headers = signed(&signer, VECTOR_BODY, vector_time());
    assert_eq!(
        signer.verify(&headers, b"{}", vector_time()),
        Err(VerifyError::Mismatch)
    );
    let other = Signer::standard(generate([1; 32]).expose().as_bytes()).unwrap();
    assert_eq!(
        other.verify(&headers, VECTOR_BODY, vector_time()),
        Err(VerifyError::Mismatch)
    );
    let mut forged = headers.clone();
    forged.insert("webhook-id", HeaderValue::from_static("msg_other"));
    assert_eq!(
        signer.verify(&forged, VECTOR_BODY, vector_time()),
        Err(VerifyError::Mismatch)
    );
    for (at, expected) in [
        (300, Ok(())),
        (-300, Ok(())),
        (301, Err(VerifyError::Timestamp)),
        (-301, Err(VerifyError::Timestamp)),
    ] {
        let now = Timestamp::from_second(1_614_265_330 + at).unwrap();
        assert_eq!(signer.verify(&headers, VECTOR_BODY, now), expected, "{at}");
    }
    assert_eq!(
        signer.verify(&HeaderMap::new(), VECTOR_BODY, vector_time()),
        Err(VerifyError::Header)
    );
}

#[test]
fn one_fitting_signature_among_several_is_enough() {
    let signer = Signer::standard(VECTOR_KEY.as_bytes()).unwrap();
    let mut headers = signed(&signer, VECTOR_BODY, vector_time());
    let several = format!("v1a,AAAA v1,bogus {VECTOR_SIGNATURE}");
    headers.insert("webhook-signature", HeaderValue::try_from(several).unwrap());
    assert_eq!(signer.verify(&headers, VECTOR_BODY, vector_time()), Ok(()));
}

#[test]
fn plain_verification_needs_prefix_and_signature() {
    let signer = plain(b"key").unwrap();
    let mut headers = signed(&signer, b"body", vector_time());
    assert_eq!(
        signer.verify(&headers, b"body", at("2030-01-01T00:00:00Z")),
        Ok(())
    );
    assert_eq!(
        signer.verify(&headers, b"other", vector_time()),
        Err(VerifyError::Mismatch)
    );
    headers.insert("x-acme-signature", HeaderValue::from_static("5bdc"));
    assert_eq!(
        signer.verify(&headers, b"body", vector_time()),
        Err(VerifyError::Mismatch)
    );
}

#[test]
fn a_generated_key_serves_both_schemes() {
    let key = generate([9; 32]);
    assert_eq!(key.expose(), "whsec_CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=");
    assert!(Signer::standard(key.expose().as_bytes()).is_ok());
    assert!(plain(key.expose().as_bytes()).is_ok());
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
