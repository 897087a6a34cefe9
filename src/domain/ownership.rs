//! The proof that a receiver wants the events, before the first one is sent.
//!
//! Two manners: the handshake of the CloudEvents webhook specification (1.0, §4: `OPTIONS` with
//! `WebHook-Request-Origin`), without its callback; and a signed challenge that the receiver has to answer with.
//! Owns what is asked, how the answer is read, and how long to wait before it is asked again.
//!
//! A proof holds for one object, one manner and one URL. That it was given is written to the status with a seal, an
//! HMAC over all of that with a key of the installation: who can write a status cannot make one up. A proof whose seal
//! does not fit counts as none, and is asked for again.

use std::time::Duration;

use bytes::Bytes;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::Sha256;
use zeroize::Zeroize as _;

use super::delivery::{EVENT_TYPE, USER_AGENT, WebhookRequest};
use super::destination::{Identity, Webhook};
use super::id::EventId;
use super::outcome::{self, Failure, FailureReason, Outcome, Reply};
use super::policy::rate::Rate;
use super::secret::Secret;
use super::shape::JSON;
use super::signature::Outgoing;
use crate::api::conditions::reason;
use crate::api::v1alpha1::ownership::OwnershipProofType;

/// Header that says who wants to send.
pub const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
/// Header that says how many requests a minute there may be.
pub const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
/// Header of the answer: who may send.
pub const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
/// Header of the answer: how many requests a minute it takes.
pub const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");
/// Type of a challenge, in the header of the event's type and in the body.
pub const CHALLENGE_TYPE: &str = "postrider.challenge";
/// First wait before a receiver is asked again; doubles with each further one …
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// … up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// Longest `Retry-After` that is heeded.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// What a webhook asks of its receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// In which manner.
    pub manner: OwnershipProofType,
    /// Most requests in a minute, when there is a limit.
    pub rate: Option<u32>,
    /// What the receiver has said; `None`: nothing is sent yet.
    pub proved: Option<Proved>,
}

/// What a receiver has agreed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proved {
    /// Most requests in a minute; `None`: as many as we like.
    pub allowed_rate: Option<u32>,
    /// When.
    pub time: Timestamp,
    /// See [`seal`].
    pub seal: String,
}

/// Why there is no proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unproved {
    /// The receiver says no, or what is no answer: somebody must do something. Otherwise it may be better soon.
    pub refused: bool,
    /// What happened and what to do.
    pub message: String,
    /// The wait that the receiver asked for.
    pub retry_after: Option<Duration>,
}

impl Unproved {
    /// The word for it.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        if self.refused {
            reason::OWNERSHIP_REFUSED
        } else {
            reason::OWNERSHIP_UNPROVED
        }
    }
}

/// A question, and the answer that is wanted.
#[derive(Clone, Debug)]
pub struct Question {
    /// What is sent.
    pub request: WebhookRequest,
    expected: Expected,
}

#[derive(Clone, Debug)]
enum Expected {
    Origin(String),
    Challenge(String),
}

impl Proof {
    /// The question; `origin` is what this installation is called, and `random` makes it one that nobody can foresee.
    #[must_use]
    pub fn question(
        &self,
        webhook: &Webhook,
        origin: &str,
        random: &Secret<[u8; 32]>,
        now: Timestamp,
    ) -> Question {
        let mut headers = HeaderMap::new();
        for (name, value) in &webhook.headers {
            headers.append(name.clone(), value.clone());
        }
        headers
            .entry(header::USER_AGENT)
            .or_insert(HeaderValue::from_static(USER_AGENT));
        let (method, body, expected) = match self.manner {
            OwnershipProofType::CloudEventsOptions => {
                if let Ok(value) = HeaderValue::from_str(origin) {
                    headers.insert(REQUEST_ORIGIN, value);
                }
                if let Some(rate) = self.rate {
                    headers.insert(REQUEST_RATE, HeaderValue::from(rate));
                }
                (Method::OPTIONS, Bytes::new(), Expected::Origin(origin.to_owned()))
            }
            OwnershipProofType::SignedChallenge => {
                let challenge = hex::encode(random.expose());
                let body = json!({"type": CHALLENGE_TYPE, "challenge": challenge});
                let body = Bytes::from(body.to_string());
                headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
                headers.insert(EVENT_TYPE, HeaderValue::from_static(CHALLENGE_TYPE));
                let id = format!("challenge-{}", challenge.get(..32).unwrap_or_default());
                if let Some(id) = EventId::parse(&id) {
                    let outgoing = Outgoing {
                        id: &id,
                        now,
                        body: &body,
                        url: webhook.endpoint.expose().as_str(),
                        method: Method::POST.as_str(),
                    };
                    webhook.signer.sign(&outgoing, &mut headers);
                }
                (Method::POST, body, Expected::Challenge(challenge))
            }
        };
        Question {
            request: WebhookRequest {
                method,
                endpoint: webhook.endpoint.clone(),
                headers,
                body,
                passage: webhook.request.passage.clone(),
            },
            expected,
        }
    }

    /// Has every request say who sends it, as the handshake demands once it was agreed to.
    pub fn announce(&self, webhook: &mut Webhook, origin: &str) {
        if let (OwnershipProofType::CloudEventsOptions, Ok(value)) =
            (self.manner, HeaderValue::from_str(origin))
        {
            webhook.headers.retain(|(name, _)| name != header::ORIGIN);
            webhook.headers.push((header::ORIGIN, value));
        }
    }

    /// What a destination's rate becomes once its receiver has agreed to so many in a minute.
    #[must_use]
    pub fn agreed(&self, own: Option<Rate>) -> Option<Rate> {
        let allowed = self.proved.as_ref().and_then(|proved| proved.allowed_rate);
        match (self.rate, allowed) {
            (Some(asked), Some(allowed)) if asked <= allowed => own,
            (_, Some(allowed)) => Some(Rate::new(allowed, MINUTE, 1)),
            (_, None) => own,
        }
    }
}

impl Question {
    /// Reads the answer: the requests in a minute that are agreed to, `None` for any number.
    ///
    /// # Errors
    /// Why it proves nothing.
    pub fn judge(&self, answer: Result<Reply, Failure>, now: Timestamp) -> Result<Option<u32>, Unproved> {
        let failed = |failure: Failure| Unproved {
            refused: needs_a_person(&failure),
            message: failure.message,
            retry_after: failure.retry_after.map(|wait| wait.min(LONGEST_RETRY_AFTER)),
        };
        let reply = answer.map_err(failed)?;
        if let Outcome::Failed(failure) = outcome::classify(&reply, outcome::Reading::default(), now) {
            return Err(failed(failure));
        }
        let answered = match &self.expected {
            Expected::Origin(origin) => granted(origin, reply.headers.as_deref()),
            Expected::Challenge(challenge) => echoed(challenge, &reply.excerpt).map(|()| None),
        };
        answered.map_err(|message| Unproved {
            refused: true,
            message,
            retry_after: None,
        })
    }
}

/// Whether waiting alone does not help.
fn needs_a_person(failure: &Failure) -> bool {
    match failure.reason {
        // A request that took too long, or came too early.
        FailureReason::ClientError => !matches!(failure.status, Some(408 | 425)),
        FailureReason::Redirect
        | FailureReason::Gone
        | FailureReason::Rejected
        | FailureReason::EgressRefused
        | FailureReason::ResponseTooLarge
        | FailureReason::TokenRefused => true,
        _ => false,
    }
}

fn granted(origin: &str, headers: Option<&HeaderMap>) -> Result<Option<u32>, String> {
    let texts = |name: &HeaderName| {
        let all = headers
            .into_iter()
            .flat_map(|headers| headers.get_all(name).into_iter().cloned().collect::<Vec<_>>());
        all.map(|value| value.to_str().unwrap_or_default().trim().to_owned())
            .collect::<Vec<_>>()
    };
    let origins = texts(&ALLOWED_ORIGIN);
    if origins.is_empty() {
        return Err(format!(
            "the receiver's answer to OPTIONS has no header WebHook-Allowed-Origin; let it be {origin} or *"
        ));
    }
    if !origins
        .iter()
        .any(|one| one == "*" || one.eq_ignore_ascii_case(origin))
    {
        return Err(format!(
            "the receiver allows another origin; let its WebHook-Allowed-Origin be {origin} or *"
        ));
    }
    match texts(&ALLOWED_RATE).first().map(String::as_str) {
        None | Some("*") => Ok(None),
        Some(text) => match text.parse::<u32>() {
            Ok(rate @ 1..) => Ok(Some(rate)),
            _ => Err("the receiver's WebHook-Allowed-Rate must be a number from 1 on, or *".to_owned()),
        },
    }
}

fn echoed(challenge: &str, body: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(body).unwrap_or_default().trim();
    let is_it = text == challenge
        || serde_json::from_str::<Value>(text).is_ok_and(|value| value == json!({"challenge": challenge}));
    // Who sends back whatever comes has neither read nor verified it.
    if is_it {
        Ok(())
    } else {
        Err(
            "the receiver does not answer the challenge; let it verify the signature and answer with {\"challenge\": \
             …}, the challenge of the request and nothing else"
                .to_owned(),
        )
    }
}

/// The wait after so many failed tries, at least one.
#[must_use]
pub fn wait(tries: u32, unproved: &Unproved) -> Duration {
    let doubled = FIRST_WAIT.saturating_mul(1 << tries.saturating_sub(1).min(16));
    // Who refuses has to be mended by somebody, who may say so.
    let usual = doubled.min(LONGEST_WAIT);
    unproved.retry_after.map_or(usual, |asked| asked.max(usual))
}

/// Stands for a proof: that of one object, manner and URL, with what was agreed; of the handshake, which names one, also
/// of one origin.
#[must_use]
pub fn seal(
    key: &Secret<[u8; 32]>,
    identity: &Identity,
    manner: OwnershipProofType,
    webhook: &Webhook,
    origin: &str,
    allowed_rate: Option<u32>,
) -> String {
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key.expose()) {
        *to = *from;
    }
    let mut mac = Hmac::<Sha256>::new((&block).into());
    block.zeroize();
    let rate = allowed_rate.map(|rate| rate.to_string()).unwrap_or_default();
    let origin = match manner {
        OwnershipProofType::CloudEventsOptions => origin,
        OwnershipProofType::SignedChallenge => "",
    };
    for part in [
        identity.uid.as_str(),
        manner.as_str(),
        webhook.endpoint.expose().as_str(),
        origin,
        &rate,
    ] {
        mac.update(&(part.len() as u64).to_le_bytes());
        mac.update(part.as_bytes());
    }
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests;
