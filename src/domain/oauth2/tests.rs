//! The token request is as the RFC says, and nothing of an answer is shown but its code.

use super::*;
use crate::domain::egress::EgressPolicy;
use crate::domain::outcome::FailureReason::{TokenRefused, TokenRequestFailed};

fn endpoint() -> Endpoint {
    Endpoint::parse(
        "https://login.example.com/oauth2/token?tenant=1",
        &EgressPolicy::default(),
    )
    .unwrap()
}

fn client(in_body: bool, secret: &str) -> ClientCredentials {
    let client = Client {
        endpoint: endpoint(),
        id: "my client",
        secret: &Secret::new(secret.to_owned()),
        in_body,
        parameters: vec![("scope", "a b".to_owned()), ("audience", "https://x/".to_owned())],
        passage: Passage::default(),
    };
    ClientCredentials::new(&client, &Uid::new("u"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn answer(status: u16, body: &'static str) -> Result<AccessToken, Failure> {
    let reply = Reply {
        status,
        excerpt: Bytes::from_static(body.as_bytes()),
        ..Reply::default()
    };
    read(&reply, Some(Duration::from_secs(7)))
}

#[test]
fn the_client_authenticates_in_the_header_or_in_the_body_and_shows_nothing() {
    let header = client(false, "hunter+2");
    let request = header.request();
    assert_eq!(
        text(&request.body),
        "grant_type=client_credentials&scope=a+b&audience=https%3A%2F%2Fx%2F"
    );
    // RFC 6749 §2.3.1: both are form-encoded first.
    let expected = format!("Basic {}", STANDARD.encode("my+client:hunter%2B2"));
    assert_eq!(request.headers[header::AUTHORIZATION], expected);
    assert!(request.headers[header::AUTHORIZATION].is_sensitive());
    let body = client(true, "hunter+2");
    let request = body.request();
    assert_eq!(request.headers.get(header::AUTHORIZATION), None);
    assert!(text(&request.body).ends_with("&client_id=my+client&client_secret=hunter%2B2"));
    for client in [header, body] {
        let shown = format!("{client:?}");
        assert!(!shown.contains("hunter") && !shown.contains("tenant"), "{shown}");
    }
}

#[test]
fn whatever_differs_gives_another_fingerprint() {
    assert_eq!(client(true, "a").fingerprint(), client(true, "a").fingerprint());
    for other in [client(true, "b"), client(false, "a")] {
        assert_ne!(client(true, "a").fingerprint(), other.fingerprint());
    }
}

#[test]
fn a_token_is_read_with_its_life() {
    for (body, seconds, fresh) in [
        (
            r#"{"access_token":"t","token_type":"Bearer","expires_in":3600}"#,
            3600,
            3540,
        ),
        (
            r#"{"access_token":"t","token_type":"bearer","expires_in":"100"}"#,
            100,
            75,
        ),
        (r#"{"access_token":"t"}"#, 300, 240),
        (r#"{"access_token":"t","expires_in":-1}"#, 300, 240),
        (r#"{"access_token":"t","expires_in":1e300}"#, 300, 240),
        (r#"{"access_token":"t","expires_in":0}"#, 0, 0),
        (r#"{"access_token":"t","expires_in":999999999}"#, 86400, 86340),
    ] {
        let token = answer(200, body).unwrap();
        assert_eq!(token.authorization, "Bearer t", "{body}");
        assert!(token.authorization.is_sensitive());
        assert_eq!(token.lifetime.as_secs(), seconds, "{body}");
        assert_eq!(token.fresh_for().as_secs(), fresh, "{body}");
    }
}

#[test]
fn a_refusal_says_what_to_do_and_repeats_nothing_but_its_code() {
    for (status, body, reason, part) in [
        (
            401,
            r#"{"error":"invalid_client","error_description":"hunter2"}"#,
            TokenRefused,
            "401 invalid_client; check clientID",
        ),
        (
            400,
            r#"{"error":"invalid_scope"}"#,
            TokenRefused,
            "invalid_scope; check scopes",
        ),
        (
            400,
            r#"{"error":"unauthorized_client"}"#,
            TokenRefused,
            "client_credentials",
        ),
        (400, r#"{"error":"hunter2"}"#, TokenRefused, "400; check tokenURL"),
        (404, "<html>hunter2</html>", TokenRefused, "404; check tokenURL"),
        (302, "", TokenRefused, "redirects are not followed"),
        (503, r#"{"error":"invalid_client"}"#, TokenRequestFailed, "503"),
        (429, "hunter2", TokenRequestFailed, "429"),
        (200, "hunter2", TokenRefused, "without an access_token"),
        (
            200,
            r#"{"access_token":"hunter2","token_type":"mac"}"#,
            TokenRefused,
            "not of type Bearer",
        ),
        (
            200,
            r#"{"access_token":"hunter2\n"}"#,
            TokenRefused,
            "not visible ASCII",
        ),
    ] {
        let failure = answer(status, body).unwrap_err();
        assert_eq!(failure.reason, reason, "{status} {body}");
        assert!(failure.message.contains(part), "{}", failure.message);
        assert!(!failure.message.contains("hunter2"), "{}", failure.message);
        let waits = (reason == TokenRequestFailed).then_some(Duration::from_secs(7));
        assert_eq!(failure.retry_after, waits, "{status}");
        assert!(
            !reason.is_terminal(),
            "whoever mends a Secret expects what waited to be sent"
        );
    }
}

#[test]
fn an_answer_beyond_the_bound_is_told_as_that() {
    let long = format!(
        r#"{{"access_token":"{}","token_type":"Bearer"}}"#,
        "t".repeat(20_000)
    );
    let reply = Reply {
        status: 200,
        excerpt: Bytes::copy_from_slice(&long.as_bytes()[..MAX_REPLY_KEPT]),
        ..Reply::default()
    };
    let failure = read(&reply, None).unwrap_err();
    assert_eq!(failure.reason, TokenRefused);
    assert!(
        failure.message.contains("16 KiB") && !failure.message.contains("without"),
        "{}",
        failure.message
    );
}
