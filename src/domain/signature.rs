//! [`Signer`]: signs exactly the bytes that are sent, and verifies for tools and tests.
//!
//! Owns the Standard Webhooks scheme (its specification, 1.0: HMAC-SHA-256 over `id.timestamp.body`, keys written
//! `whsec_` and base64), the plain scheme (HMAC-SHA-256 over the raw body in one header) and the headers of both.
//! `webhook-id` and `webhook-timestamp` are set for every request, signed or not.
//!
//! Keys never show: `Debug` is redacted and header values are marked sensitive where they could help to guess. The
//! HMAC state of a key is computed once; comparing is constant-time. Generating randomness and reading Secrets is
//! left to others.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::id::EventId;
use super::secret::Secret;
use crate::api::v1alpha1::event_destination::SignatureEncoding;

/// Header of the message id: the event's id, the same on every attempt.
pub const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
/// Header of the time of the attempt, in seconds since 1970.
pub const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
/// Header of the Standard Webhooks signature.
pub const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// Start of a Standard Webhooks key.
pub const KEY_PREFIX: &str = "whsec_";
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

/// Signs requests.
#[derive(Clone, Debug)]
pub enum Signer {
    /// No signature.
    None,
    /// Standard Webhooks.
    StandardWebhooks {
        /// The key.
        key: Key,
    },
    /// HMAC-SHA-256 of the raw body in one header.
    Hmac {
        /// Header of the signature.
        header: HeaderName,
        /// Text before the signature.
        prefix: Box<str>,
        /// How the signature is written.
        encoding: SignatureEncoding,
        /// The key.
        key: Key,
    },
}

/// A key, ready for use.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
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

impl Signer {
    /// A Standard Webhooks signer from the bytes of a Secret: `whsec_` and base64 of 24 to 64 bytes. White space
    /// after it, such as the newline that files end in, does not count: it is no part of base64.
    ///
    /// # Errors
    /// What is wrong with the key; nothing of the key is in the message.
    pub fn standard(secret: &[u8]) -> Result<Self, String> {
        let encoded = secret
            .trim_ascii_end()
            .strip_prefix(KEY_PREFIX.as_bytes())
            .ok_or_else(|| format!("the signing key must start with {KEY_PREFIX}, followed by base64"))?;
        let key = STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| {
            format!("the signing key is not base64 (standard alphabet, with padding) after {KEY_PREFIX}")
        })?;
        if !(MIN_KEY..=MAX_KEY).contains(&key.len()) {
            return Err(format!(
                "the signing key is {} bytes long after base64; it must be {MIN_KEY} to {MAX_KEY}",
                key.len()
            ));
        }
        Ok(Self::StandardWebhooks { key: Key::new(&key)? })
    }

    /// A plain HMAC signer; the bytes of the Secret are the key as they are, 1 to 4096.
    ///
    /// A text that ends in a newline is refused, not trimmed: the receiver may hold either, and a signature that
    /// never fits is harder to find than a message. Bytes that are no text may end as they like.
    ///
    /// # Errors
    /// What is wrong with key or prefix; nothing of the key is in the message.
    pub fn hmac(
        header: HeaderName,
        prefix: &str,
        encoding: SignatureEncoding,
        key: &[u8],
    ) -> Result<Self, String> {
        check_prefix(prefix)?;
        if key.is_empty() {
            return Err("the signing key is empty".to_owned());
        }
        if key.len() > MAX_PLAIN_KEY {
            return Err(format!("the signing key is longer than {MAX_PLAIN_KEY} bytes"));
        }
        if key.iter().all(|byte| *byte == 0) {
            return Err("the signing key holds only NUL bytes".to_owned());
        }
        if let Ok(text) = std::str::from_utf8(key) {
            if text.trim().is_empty() {
                return Err("the signing key is blank".to_owned());
            }
            if text.ends_with('\n') {
                let detail = "the signing key ends in a newline, which would become part of the key; store it \
                              without, for example with printf instead of echo";
                return Err(detail.to_owned());
            }
        }
        Ok(Self::Hmac {
            header,
            prefix: prefix.into(),
            encoding,
            key: Key::new(key)?,
        })
    }

    /// Sets `webhook-id`, `webhook-timestamp` and the scheme's own header.
    pub fn sign(&self, id: &EventId, now: Timestamp, body: &[u8], headers: &mut HeaderMap) {
        let seconds = now.as_second();
        if let Ok(value) = HeaderValue::from_str(id.as_str()) {
            headers.insert(WEBHOOK_ID, value);
        }
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(seconds));
        match self {
            Self::None => {}
            Self::StandardWebhooks { key } => {
                let code = key.standard(id.as_str(), seconds, body);
                insert(
                    headers,
                    &WEBHOOK_SIGNATURE,
                    "v1,",
                    SignatureEncoding::Base64,
                    &code,
                );
            }
            Self::Hmac {
                header,
                prefix,
                encoding,
                key,
            } => {
                insert(headers, header, prefix, *encoding, &key.code([body]));
            }
        }
    }

    /// Checks a request as a receiver would: one of the space-separated `v1` signatures, or the plain one, must fit.
    /// Only Standard Webhooks bounds the age. Without a scheme everything verifies.
    ///
    /// # Errors
    /// Why the request does not verify.
    pub fn verify(&self, headers: &HeaderMap, body: &[u8], now: Timestamp) -> Result<(), VerifyError> {
        let text = |name: &HeaderName| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .ok_or(VerifyError::Header)
        };
        match self {
            Self::None => Ok(()),
            Self::StandardWebhooks { key } => {
                let (id, signatures) = (text(&WEBHOOK_ID)?, text(&WEBHOOK_SIGNATURE)?);
                let seconds: i64 = text(&WEBHOOK_TIMESTAMP)?
                    .parse()
                    .map_err(|_| VerifyError::Header)?;
                if now.as_second().saturating_sub(seconds).saturating_abs() > TOLERANCE {
                    return Err(VerifyError::Timestamp);
                }
                let expected = STANDARD.encode(key.standard(id, seconds, body));
                let fits = signatures
                    .split(' ')
                    .filter_map(|signature| signature.strip_prefix("v1,"))
                    .any(|signature| signature.as_bytes().ct_eq(expected.as_bytes()).into());
                if fits { Ok(()) } else { Err(VerifyError::Mismatch) }
            }
            Self::Hmac {
                header,
                prefix,
                encoding,
                key,
            } => {
                let given = text(header)?
                    .strip_prefix(&**prefix)
                    .ok_or(VerifyError::Mismatch)?;
                let expected = write(*encoding, &key.code([body]));
                if given.as_bytes().ct_eq(expected.as_bytes()).into() {
                    Ok(())
                } else {
                    Err(VerifyError::Mismatch)
                }
            }
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

/// A new key as text: `whsec_` and base64 of the bytes. It serves both schemes, as plain HMAC takes any text.
#[must_use]
pub fn generate(random: [u8; 32]) -> Secret<String> {
    let random = Zeroizing::new(random);
    Secret::new([KEY_PREFIX, &STANDARD.encode(random.as_slice())].concat())
}

impl Key {
    fn new(key: &[u8]) -> Result<Self, String> {
        Hmac::new_from_slice(key)
            .map(Self)
            .map_err(|_| "the signing key has no usable length".to_owned())
    }

    fn code<const N: usize>(&self, parts: [&[u8]; N]) -> [u8; 32] {
        let mut state = self.0.clone();
        for part in parts {
            state.update(part);
        }
        state.finalize().into_bytes().into()
    }

    fn standard(&self, id: &str, seconds: i64, body: &[u8]) -> [u8; 32] {
        self.code([id.as_bytes(), b".", seconds.to_string().as_bytes(), b".", body])
    }
}

fn write(encoding: SignatureEncoding, code: &[u8; 32]) -> String {
    match encoding {
        SignatureEncoding::Hex => hex::encode(code),
        SignatureEncoding::Base64 => STANDARD.encode(code),
    }
}

fn insert(
    headers: &mut HeaderMap,
    header: &HeaderName,
    prefix: &str,
    encoding: SignatureEncoding,
    code: &[u8; 32],
) {
    let text = [prefix, &write(encoding, code)].concat();
    // Prefix and encodings are visible ASCII, so this holds.
    if let Ok(mut value) = HeaderValue::try_from(text) {
        value.set_sensitive(true);
        headers.insert(header.clone(), value);
    }
}

#[cfg(test)]
mod tests;
