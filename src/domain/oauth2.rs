//! OAuth 2.0 client credentials (RFC 6749 §4.4): the token request, and what its answer means.
//!
//! The token endpoint is not the receiver, so its failures have reasons of their own: [`TokenRequestFailed`] when trying
//! again may help, [`TokenRefused`] when the server says that the client, its secret or what it asks for is wrong. Neither
//! gives the event up: whoever mends a Secret expects that what waited is sent. Of what the server says only the error
//! codes of the RFCs are shown, because an `error_description` may repeat what was sent.
//!
//! [`TokenRequestFailed`]: FailureReason::TokenRequestFailed
//! [`TokenRefused`]: FailureReason::TokenRefused

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;
use url::form_urlencoded;

use super::delivery::WebhookRequest;
use super::destination::Endpoint;
use super::id::Uid;
use super::outcome::{Failure, FailureReason, MAX_REPLY_KEPT, Reply};
use super::request::{Fingerprint, Passage};
use super::secret::Secret;

/// How long a token is used whose server does not say how long it lives.
const USUAL_LIFETIME: Duration = Duration::from_secs(300);
/// A token is fetched anew this long before it expires, or after three quarters of a shorter life.
const EARLY: Duration = Duration::from_secs(60);
/// The longest life that is believed.
const LONGEST_LIFETIME: Duration = Duration::from_hours(24);
const FORM: &str = "application/x-www-form-urlencoded";

/// Error codes of RFC 6749 §5.2 and RFC 8707 §2, with what to do. They say that the client must change something.
const REFUSALS: [(&str, &str); 8] = [
    ("invalid_client", "check clientID, clientSecretFrom and authStyle"),
    (
        "unauthorized_client",
        "allow the client the grant client_credentials",
    ),
    ("invalid_scope", "check scopes"),
    ("invalid_target", "check audience and parameters"),
    (
        "unsupported_grant_type",
        "the server must offer client_credentials; check tokenURL",
    ),
    ("invalid_request", "check authStyle, audience and parameters"),
    ("invalid_grant", "check clientID and clientSecretFrom"),
    ("access_denied", "the server's rules must allow the client"),
];

/// A client and what it asks for.
#[derive(Clone, Debug)]
pub struct ClientCredentials {
    endpoint: Endpoint,
    authorization: Option<HeaderValue>,
    form: Secret<Vec<u8>>,
    passage: Option<Arc<Passage>>,
    fingerprint: Fingerprint,
}

/// What a [`ClientCredentials`] is made of.
#[derive(Clone, Debug)]
pub struct Client<'a> {
    /// The token endpoint.
    pub endpoint: Endpoint,
    /// The client's id.
    pub id: &'a str,
    /// The client's secret.
    pub secret: &'a Secret<String>,
    /// Id and secret are sent in the body.
    pub in_body: bool,
    /// Further parameters, in order.
    pub parameters: Vec<(&'a str, String)>,
    /// How the token endpoint is reached.
    pub passage: Passage,
}

/// A token.
#[derive(Clone, Debug)]
pub struct AccessToken {
    /// Value of `Authorization`, marked sensitive.
    pub authorization: HeaderValue,
    /// How long it lives.
    pub lifetime: Duration,
}

impl AccessToken {
    /// After which part of its life it is fetched anew.
    #[must_use]
    pub fn fresh_for(&self) -> Duration {
        self.lifetime.saturating_sub(EARLY.min(self.lifetime / 4))
    }
}

impl ClientCredentials {
    /// The client of one destination: tokens are not shared between destinations.
    #[must_use]
    pub fn new(client: &Client<'_>, owner: &Uid) -> Self {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        for (name, value) in &client.parameters {
            form.append_pair(name, value);
        }
        let authorization = if client.in_body {
            form.append_pair("client_id", client.id);
            form.append_pair("client_secret", client.secret.expose());
            None
        } else {
            basic(&encoded(client.id), &Secret::new(encoded(client.secret.expose())))
        };
        let form = Secret::new(form.finish().into_bytes());
        let fingerprint = Fingerprint::of([
            owner.as_str().as_bytes(),
            client.endpoint.expose().as_str().as_bytes(),
            authorization.as_ref().map_or(&[][..], HeaderValue::as_bytes),
            form.expose().as_slice(),
        ]);
        let passage = (!client.passage.is_plain()).then(|| Arc::new(client.passage.clone()));
        Self {
            passage,
            endpoint: client.endpoint.clone(),
            authorization,
            form,
            fingerprint,
        }
    }

    /// Where tokens come from.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Differs when anything else differs, the secret too.
    #[must_use]
    pub const fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// The request for a token.
    #[must_use]
    pub fn request(&self) -> WebhookRequest {
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(FORM));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        if let Some(value) = &self.authorization {
            headers.insert(header::AUTHORIZATION, value.clone());
        }
        WebhookRequest {
            method: Method::POST,
            endpoint: self.endpoint.clone(),
            headers,
            body: Bytes::copy_from_slice(self.form.expose()),
            passage: self.passage.clone(),
        }
    }
}

/// `Basic …`, marked sensitive; `None` only for what no header can hold, which base64 never is.
#[must_use]
pub fn basic(user: &str, password: &Secret<String>) -> Option<HeaderValue> {
    let pair = Secret::new(format!("{user}:{}", password.expose()));
    sensitive(&Secret::new(format!("Basic {}", STANDARD.encode(pair.expose()))))
}

/// `Bearer …`, marked sensitive; `None` when the token is no visible ASCII without spaces.
#[must_use]
pub fn bearer(token: &str) -> Option<HeaderValue> {
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    sensitive(&Secret::new(format!("Bearer {token}")))
}

fn sensitive(text: &Secret<String>) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text.expose()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// RFC 6749 §2.3.1: id and secret are form-encoded before they become user name and password.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Reads the token endpoint's answer.
///
/// # Errors
/// When it holds no token that can be used.
pub fn read(reply: &Reply, wait: Option<Duration>) -> Result<AccessToken, Failure> {
    let answer = serde_json::from_slice::<Value>(&reply.excerpt).unwrap_or_default();
    if !(200..300).contains(&reply.status) {
        return Err(refusal(reply.status, &answer, wait));
    }
    let unusable = |what: &str| {
        Failure::new(
            FailureReason::TokenRefused,
            format!(
                "the token endpoint answered {}, but {what}; check tokenURL",
                reply.status
            ),
        )
    };
    // Cut off, and so no JSON.
    if answer.is_null() && reply.excerpt.len() >= MAX_REPLY_KEPT {
        return Err(unusable(&format!(
            "the answer is over {} KiB, of which no token can be read",
            MAX_REPLY_KEPT / 1024
        )));
    }
    let token = answer.get("access_token").and_then(Value::as_str);
    let token = token.ok_or_else(|| unusable("without an access_token"))?;
    let kind = answer.get("token_type").and_then(Value::as_str);
    if kind.is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err(unusable("its token is not of type Bearer"));
    }
    let authorization = bearer(token).ok_or_else(|| unusable("its token is not visible ASCII"))?;
    Ok(AccessToken {
        authorization,
        lifetime: lifetime(&answer),
    })
}

/// `expires_in`, which some servers write as text.
fn lifetime(answer: &Value) -> Duration {
    let seconds = answer.get("expires_in").and_then(|value| match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.as_f64(),
    });
    let told = seconds.and_then(|seconds: f64| Duration::try_from_secs_f64(seconds).ok());
    told.unwrap_or(USUAL_LIFETIME).min(LONGEST_LIFETIME)
}

fn refusal(status: u16, answer: &Value, wait: Option<Duration>) -> Failure {
    let code = answer.get("error").and_then(Value::as_str);
    let known = code.and_then(|code| REFUSALS.iter().find(|(known, _)| *known == code));
    let may_pass = matches!(status, 408 | 425 | 429 | 500..=599);
    match known {
        Some((code, remedy)) if !may_pass => Failure::new(
            FailureReason::TokenRefused,
            format!("the token endpoint answered {status} {code}; {remedy}"),
        ),
        _ if may_pass => Failure {
            retry_after: wait,
            ..Failure::new(
                FailureReason::TokenRequestFailed,
                format!("the token endpoint answered {status}; it is asked again"),
            )
        },
        _ if (300..400).contains(&status) => Failure::new(
            FailureReason::TokenRefused,
            format!(
                "the token endpoint answered {status}; redirects are not followed, set tokenURL to the final URL"
            ),
        ),
        _ => Failure::new(
            FailureReason::TokenRefused,
            format!("the token endpoint answered {status}; check tokenURL, clientID and clientSecretFrom"),
        ),
    }
}

/// A refresh that took too long.
#[must_use]
pub fn late_refresh() -> Failure {
    Failure::new(
        FailureReason::TokenRequestFailed,
        "the token endpoint did not answer in time; it is asked again",
    )
}

/// What a failure on the way to the token endpoint is to the attempt that needed the token.
#[must_use]
pub fn unreachable(failure: &Failure) -> Failure {
    Failure::new(
        match failure.reason {
            reason @ (FailureReason::EgressRefused
            | FailureReason::ProxyRefused
            | FailureReason::ProxyFailed) => reason,
            _ => FailureReason::TokenRequestFailed,
        },
        format!(
            "no token could be fetched; of the token endpoint: {}: {}",
            failure.reason.as_str(),
            failure.message
        ),
    )
}

#[cfg(test)]
mod tests;
