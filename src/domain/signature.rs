//! [`Signer`]: signs exactly the bytes that are sent, and verifies for tools and tests.
//!
//! Owns the schemes: Standard Webhooks (its specification, 1.0: `v1` is HMAC-SHA-256 and `v1a` Ed25519 over
//! `id.timestamp.body`), Stripe's `t=…,v1=…`, GitHub's `sha256=…`, and HMACs in a header, with hash, content and form
//! of the user's choice. Several may sign one request. `webhook-id` and `webhook-timestamp` are set for every
//! request, signed or not.
//!
//! A signature has one key or, while keys change, several, the newest first. Where there is room, each of them signs;
//! where there is not, the oldest does: it is the one that every receiver has. Which keys these are is
//! [`rotation`](super::rotation)'s.
//!
//! Keys never show: see [`key`]; header values are marked sensitive where they could help to guess. Comparing is
//! constant-time. Generating randomness and reading Secrets is left to others.

pub mod content;
pub mod key;
mod verify;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;

use self::content::Content;
use self::key::{Code, Key};
pub use self::verify::{Received, VerifyError};
use super::id::EventId;
use crate::api::v1alpha1::event_destination::SignatureEncoding;

/// Header of the message id: the event's id, the same on every attempt.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// Header of the time of the attempt, in seconds since 1970.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// Header of the Standard Webhooks signature.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// The same, to be borrowed.
static STANDARD_HEADER: HeaderName = WEBHOOK_SIGNATURE;
/// Default header of Stripe's signature.
pub const STRIPE_SIGNATURE: HeaderName = HeaderName::from_static("stripe-signature");
/// Default header of GitHub's signature.
pub const GITHUB_SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");
/// Text before GitHub's signature.
pub const GITHUB_PREFIX: &str = "sha256=";
/// Start of a Standard Webhooks key.
pub const KEY_PREFIX: &str = "whsec_";
/// Start of a private Ed25519 key of Standard Webhooks.
pub const PRIVATE_PREFIX: &str = "whsk_";
/// Start of a public Ed25519 key of Standard Webhooks.
pub const PUBLIC_PREFIX: &str = "whpk_";
/// Fewest bytes of a Standard Webhooks key.
pub const MIN_KEY: usize = 24;
/// Most bytes of a Standard Webhooks key.
pub const MAX_KEY: usize = 64;
/// Most bytes of a plain key.
pub const MAX_PLAIN_KEY: usize = 4096;
/// Longest prefix of a plain signature.
pub const MAX_PREFIX: usize = 64;
/// How far a timestamp may lie from now when verifying, in seconds: what the specification's libraries use.
pub const TOLERANCE: i64 = 5 * 60;
/// Most characters of one Standard Webhooks signature and the space before it.
const STANDARD_LEN: usize = 1 + 3 + 44;

/// Signs requests; without signatures it only sets id and time.
#[derive(Clone, Debug, Default)]
pub struct Signer(Box<[Signature]>);

/// One signature of each request.
#[derive(Clone, Debug)]
pub struct Signature {
    scheme: Scheme,
    /// The newest first; at least one.
    keys: Box<[Key]>,
}

/// How a request is signed.
#[derive(Clone, Debug)]
pub enum Scheme {
    /// Standard Webhooks, `v1`.
    Standard,
    /// Standard Webhooks, `v1a`.
    Ed25519,
    /// `t=…,v1=…`.
    Stripe {
        /// Header of the signature.
        header: HeaderName,
    },
    /// An HMAC in one header.
    Plain {
        /// Header of the signature.
        header: HeaderName,
        /// Text before the signature.
        prefix: Box<str>,
        /// How the signature is written.
        encoding: SignatureEncoding,
        /// What is signed.
        content: Content,
    },
}

/// A request that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    /// Id of the event.
    pub id: &'a EventId,
    /// When the attempt is made.
    pub now: Timestamp,
    /// The exact bytes.
    pub body: &'a [u8],
    /// The URL it goes to.
    pub url: &'a str,
    /// Method.
    pub method: &'a str,
}

/// What signatures may cover.
pub(crate) struct Message<'a> {
    pub(crate) id: &'a str,
    pub(crate) timestamp: &'a str,
    pub(crate) body: &'a [u8],
    pub(crate) url: &'a str,
    pub(crate) method: &'a str,
}

impl Message<'_> {
    /// What Standard Webhooks signs.
    fn standard(&self) -> impl Iterator<Item = &[u8]> {
        [
            self.id.as_bytes(),
            b".",
            self.timestamp.as_bytes(),
            b".",
            self.body,
        ]
        .into_iter()
    }

    /// What Stripe signs.
    fn stripe(&self) -> impl Iterator<Item = &[u8]> {
        [self.timestamp.as_bytes(), b".", self.body].into_iter()
    }
}

impl Scheme {
    /// The header of the signature.
    #[must_use]
    pub fn header(&self) -> &HeaderName {
        match self {
            Self::Standard | Self::Ed25519 => &STANDARD_HEADER,
            Self::Stripe { header } | Self::Plain { header, .. } => header,
        }
    }

    /// Whether a request can carry signatures of several keys.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        !matches!(self, Self::Plain { .. })
    }
}

impl Signature {
    /// A signature with one key.
    #[must_use]
    pub fn new(scheme: Scheme, key: Key) -> Self {
        Self {
            scheme,
            keys: [key].into(),
        }
    }

    /// How it signs.
    #[must_use]
    pub const fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The keys, the newest first.
    #[must_use]
    pub const fn keys(&self) -> &[Key] {
        &self.keys
    }

    /// The key that signs where there is room for one.
    fn oldest(&self) -> Option<&Key> {
        self.keys.last()
    }

    fn write(&self, message: &Message<'_>, standard: &mut String, headers: &mut HeaderMap) {
        match &self.scheme {
            Scheme::Standard | Scheme::Ed25519 => {
                let version = if matches!(self.scheme, Scheme::Standard) {
                    "v1,"
                } else {
                    "v1a,"
                };
                standard.reserve(self.keys.len() * STANDARD_LEN);
                for code in self.keys.iter().filter_map(|key| key.code(message.standard())) {
                    if !standard.is_empty() {
                        standard.push(' ');
                    }
                    standard.push_str(version);
                    STANDARD.encode_string(code.bytes(), standard);
                }
            }
            Scheme::Stripe { header } => {
                let mut text = ["t=", message.timestamp].concat();
                for code in self.keys.iter().filter_map(|key| key.code(message.stripe())) {
                    text.push_str(",v1=");
                    text.push_str(&hex::encode(code.bytes()));
                }
                insert(headers, header, text);
            }
            Scheme::Plain {
                header,
                prefix,
                encoding,
                content,
            } => {
                if let Some(code) = self.oldest().and_then(|key| key.code(content.pieces(message))) {
                    insert(headers, header, [prefix, &*written(*encoding, &code)].concat());
                }
            }
        }
    }
}

impl Signer {
    /// A signer with these signatures.
    #[must_use]
    pub fn new(signatures: Vec<Signature>) -> Self {
        Self(signatures.into())
    }

    /// Signs nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// A Standard Webhooks signer from the bytes of a Secret.
    ///
    /// # Errors
    /// What is wrong with the key; nothing of the key is in the message.
    pub fn standard(secret: &[u8]) -> Result<Self, String> {
        let key = Key::standard(secret)?;
        Ok(Self::new(vec![Signature::new(Scheme::Standard, key)]))
    }

    /// The signatures.
    #[must_use]
    pub const fn signatures(&self) -> &[Signature] {
        &self.0
    }

    /// Gives a signature the keys that count, the newest first; no keys change nothing.
    pub fn hold(&mut self, index: usize, keys: Vec<Key>) {
        if let Some(signature) = self.0.get_mut(index)
            && !keys.is_empty()
        {
            signature.keys = keys.into();
        }
    }

    /// Sets `webhook-id`, `webhook-timestamp` and the signatures' own headers.
    pub fn sign(&self, request: &Outgoing<'_>, headers: &mut HeaderMap) {
        if let Ok(value) = HeaderValue::from_str(request.id.as_str()) {
            headers.insert(WEBHOOK_ID, value);
        }
        let seconds = HeaderValue::from(request.now.as_second());
        headers.insert(WEBHOOK_TIMESTAMP, seconds.clone());
        let message = Message {
            id: request.id.as_str(),
            timestamp: seconds.to_str().unwrap_or_default(), // digits
            body: request.body,
            url: request.url,
            method: request.method,
        };
        let mut standard = String::new();
        for signature in &self.0 {
            signature.write(&message, &mut standard, headers);
        }
        if !standard.is_empty() {
            insert(headers, &WEBHOOK_SIGNATURE, standard);
        }
    }
}

/// Checks the text before a plain signature.
///
/// # Errors
/// What is wrong with it.
pub fn check_prefix(prefix: &str) -> Result<(), String> {
    if prefix.len() > MAX_PREFIX || !prefix.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "the prefix must be at most {MAX_PREFIX} visible ASCII characters"
        ));
    }
    Ok(())
}

fn written(encoding: SignatureEncoding, code: &Code) -> String {
    match encoding {
        SignatureEncoding::Hex => hex::encode(code.bytes()),
        SignatureEncoding::Base64 => STANDARD.encode(code.bytes()),
    }
}

fn insert(headers: &mut HeaderMap, header: &HeaderName, text: String) {
    // Prefixes and encodings are visible ASCII, so this holds.
    if let Ok(mut value) = HeaderValue::try_from(text) {
        value.set_sensitive(true);
        headers.insert(header.clone(), value);
    }
}

#[cfg(test)]
mod tests;
