//! Checking a request as a receiver would.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName};
use jiff::Timestamp;

use super::{Message, Scheme, Signature, Signer, TOLERANCE, WEBHOOK_ID, WEBHOOK_TIMESTAMP};
use crate::api::v1alpha1::event_destination::SignatureEncoding;

/// A request as it arrived.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// All headers.
    pub headers: &'a HeaderMap,
    /// The bytes.
    pub body: &'a [u8],
    /// The URL it was sent to; for signatures that cover it.
    pub url: &'a str,
    /// Method.
    pub method: &'a str,
}

/// Why a request does not verify.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// A header that the scheme needs is missing or unreadable.
    #[error("a signature header is missing or unreadable")]
    Header,
    /// The timestamp is too far from now.
    #[error("the timestamp is more than {TOLERANCE} s away from now")]
    Timestamp,
    /// No signature fits the body and key.
    #[error("no signature fits")]
    Mismatch,
}

impl Received<'_> {
    fn text(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

impl Signature {
    /// Checks one signature: one of those in its header must fit one of the keys. Standard Webhooks, Stripe and a
    /// content with the timestamp bound the age.
    ///
    /// # Errors
    /// Why the request does not verify.
    pub fn verify(&self, request: &Received<'_>, now: Timestamp) -> Result<(), VerifyError> {
        let given = request.text(self.scheme.header()).ok_or(VerifyError::Header)?;
        let (timestamp, dated) = match &self.scheme {
            Scheme::Standard | Scheme::Ed25519 => {
                (request.text(&WEBHOOK_TIMESTAMP).ok_or(VerifyError::Header)?, true)
            }
            Scheme::Stripe { .. } => {
                let time = given.split(',').find_map(|part| part.trim().strip_prefix("t="));
                (time.ok_or(VerifyError::Header)?, true)
            }
            Scheme::Plain { content, .. } => {
                let dated = content.covers_time();
                let time = request.text(&WEBHOOK_TIMESTAMP);
                if dated && time.is_none() {
                    return Err(VerifyError::Header);
                }
                (time.unwrap_or_default(), dated)
            }
        };
        if dated {
            let seconds: i64 = timestamp.parse().map_err(|_| VerifyError::Header)?;
            if now.as_second().saturating_sub(seconds).saturating_abs() > TOLERANCE {
                return Err(VerifyError::Timestamp);
            }
        }
        let id = request.text(&WEBHOOK_ID);
        if matches!(self.scheme, Scheme::Standard | Scheme::Ed25519) && id.is_none() {
            return Err(VerifyError::Header);
        }
        let message = Message {
            id: id.unwrap_or_default(),
            timestamp,
            body: request.body,
            url: request.url,
            method: request.method,
        };
        if self.fits(&message, given) {
            Ok(())
        } else {
            Err(VerifyError::Mismatch)
        }
    }

    fn fits(&self, message: &Message<'_>, given: &str) -> bool {
        let any_standard = |version| {
            given
                .split(' ')
                .filter_map(|one| STANDARD.decode(one.strip_prefix(version)?).ok())
                .any(|code| self.keys.iter().any(|key| key.fits(message.standard(), &code)))
        };
        match &self.scheme {
            Scheme::Standard => any_standard("v1,"),
            Scheme::Ed25519 => any_standard("v1a,"),
            Scheme::Stripe { .. } => given
                .split(',')
                .filter_map(|part| hex::decode(part.trim().strip_prefix("v1=")?).ok())
                .any(|code| self.keys.iter().any(|key| key.fits(message.stripe(), &code))),
            Scheme::Plain {
                prefix,
                encoding,
                content,
                ..
            } => {
                let text = given.strip_prefix(&**prefix);
                let code = text.and_then(|text| match encoding {
                    // Lower case alone: receivers compare texts.
                    SignatureEncoding::Hex if text.bytes().any(|byte| byte.is_ascii_uppercase()) => None,
                    SignatureEncoding::Hex => hex::decode(text).ok(),
                    SignatureEncoding::Base64 => STANDARD.decode(text).ok(),
                });
                code.is_some_and(|code| {
                    self.keys
                        .iter()
                        .any(|key| key.fits(content.pieces(message), &code))
                })
            }
        }
    }
}

impl Signer {
    /// Checks a request: every signature must verify. Without any everything does.
    ///
    /// # Errors
    /// Why the request does not verify.
    pub fn verify(&self, request: &Received<'_>, now: Timestamp) -> Result<(), VerifyError> {
        self.signatures()
            .iter()
            .try_for_each(|signature| signature.verify(request, now))
    }
}
