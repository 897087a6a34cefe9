//! [`Key`]: one key of a signature, read from a Secret and ready for use.
//!
//! Keys never show: `Debug` is redacted, and no message about a faulty key holds a part of it. The HMAC state of a key
//! is computed once.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha1::Sha1;
use sha2::{Sha256, Sha384, Sha512};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::{KEY_PREFIX, MAX_KEY, MAX_PLAIN_KEY, MIN_KEY, PRIVATE_PREFIX, PUBLIC_PREFIX};
use crate::api::v1alpha1::event_destination::{SignatureAlgorithm, SigningScheme};
use crate::domain::secret::Secret;

/// Bytes of an Ed25519 seed and of a public key.
const ED25519_LEN: usize = 32;
/// Most bytes of a signature.
const MAX_CODE: usize = 64;

/// A key, ready for use.
#[derive(Clone)]
pub struct Key(Kind);

#[derive(Clone)]
enum Kind {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
    Sha384(Hmac<Sha384>),
    Sha512(Hmac<Sha512>),
    Ed25519(Arc<Ed25519KeyPair>),
    /// Only verifies.
    Public([u8; ED25519_LEN]),
}

/// A signature's bytes.
pub(super) struct Code {
    bytes: [u8; MAX_CODE],
    length: usize,
}

/// A new key as text, with what receivers verify with if that is something else.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The key.
    pub secret: Secret<String>,
    /// `whpk_` and base64.
    pub public: Option<String>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Code {
    fn of(code: &[u8]) -> Self {
        let mut bytes = [0; MAX_CODE];
        let length = code.len().min(MAX_CODE);
        for (to, from) in bytes.iter_mut().zip(code) {
            *to = *from;
        }
        Self { bytes, length }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

impl Key {
    /// The key of a scheme from the bytes of a Secret.
    ///
    /// # Errors
    /// What is wrong with the key; nothing of the key is in the message.
    pub fn parse(
        scheme: SigningScheme,
        algorithm: SignatureAlgorithm,
        secret: &[u8],
    ) -> Result<Self, String> {
        match scheme {
            SigningScheme::StandardWebhooks => Self::standard(secret),
            SigningScheme::StandardWebhooksEd25519 => Self::ed25519(secret),
            SigningScheme::Hmac => Self::plain(algorithm, secret),
            SigningScheme::Stripe
            | SigningScheme::GitHub
            | SigningScheme::HmacSha256
            | SigningScheme::None => Self::plain(SignatureAlgorithm::Sha256, secret),
        }
    }

    /// `whsec_` and base64 of 24 to 64 bytes. White space after it, such as the newline that files end in, does not
    /// count: it is no part of base64.
    ///
    /// # Errors
    /// What is wrong with the key; nothing of the key is in the message.
    pub fn standard(secret: &[u8]) -> Result<Self, String> {
        let key = decode(secret, KEY_PREFIX)?;
        if !(MIN_KEY..=MAX_KEY).contains(&key.len()) {
            return Err(format!(
                "the signing key is {} bytes long after base64; it must be {MIN_KEY} to {MAX_KEY}",
                key.len()
            ));
        }
        Self::mac(SignatureAlgorithm::Sha256, &key)
    }

    /// `whsk_` and base64 of the 32 bytes of the seed, or of seed and public key.
    ///
    /// # Errors
    /// What is wrong with the key; nothing of the key is in the message.
    pub fn ed25519(secret: &[u8]) -> Result<Self, String> {
        let key = decode(secret, PRIVATE_PREFIX)?;
        let pair = match key.split_at_checked(ED25519_LEN) {
            Some((seed, [])) => Ed25519KeyPair::from_seed_unchecked(seed),
            Some((seed, public)) if public.len() == ED25519_LEN => {
                Ed25519KeyPair::from_seed_and_public_key(seed, public)
            }
            _ => {
                return Err(format!(
                    "the signing key is {} bytes long after base64; it must be {ED25519_LEN}, the seed, or {}, seed and \
                     public key",
                    key.len(),
                    2 * ED25519_LEN
                ));
            }
        };
        pair.map(|pair| Self(Kind::Ed25519(Arc::new(pair))))
            .map_err(|_| "the second half of the signing key is not the public key of the first".to_owned())
    }

    /// `whpk_` and base64: verifies signatures of `whsk_` and makes none.
    ///
    /// # Errors
    /// What is wrong with the key.
    pub fn public(text: &[u8]) -> Result<Self, String> {
        let key = decode(text, PUBLIC_PREFIX)?;
        <[u8; ED25519_LEN]>::try_from(key.as_slice())
            .map(|key| Self(Kind::Public(key)))
            .map_err(|_| {
                format!(
                    "the public key is {} bytes long after base64; it must be {ED25519_LEN}",
                    key.len()
                )
            })
    }

    /// The bytes of the Secret are the key as they are, 1 to 4096.
    ///
    /// A text that ends in a newline is refused, not trimmed: the receiver may hold either, and a signature that
    /// never fits is harder to find than a message. Bytes that are no text may end as they like.
    ///
    /// # Errors
    /// What is wrong with the key; nothing of the key is in the message.
    pub fn plain(algorithm: SignatureAlgorithm, key: &[u8]) -> Result<Self, String> {
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
        Self::mac(algorithm, key)
    }

    /// An HMAC key, whatever its bytes.
    ///
    /// # Errors
    /// Never, as any length will do; what the library says.
    pub fn mac(algorithm: SignatureAlgorithm, key: &[u8]) -> Result<Self, String> {
        let kind = match algorithm {
            SignatureAlgorithm::Sha1 => Hmac::new_from_slice(key).map(Kind::Sha1),
            SignatureAlgorithm::Sha256 => Hmac::new_from_slice(key).map(Kind::Sha256),
            SignatureAlgorithm::Sha384 => Hmac::new_from_slice(key).map(Kind::Sha384),
            SignatureAlgorithm::Sha512 => Hmac::new_from_slice(key).map(Kind::Sha512),
        };
        kind.map(Self)
            .map_err(|_| "the signing key has no usable length".to_owned())
    }

    /// What receivers verify with: `whpk_` and base64; `None` for keys that both sides know.
    #[must_use]
    pub fn public_text(&self) -> Option<String> {
        let bytes = match &self.0 {
            Kind::Ed25519(pair) => pair.public_key().as_ref(),
            Kind::Public(key) => key,
            Kind::Sha1(_) | Kind::Sha256(_) | Kind::Sha384(_) | Kind::Sha512(_) => return None,
        };
        Some([PUBLIC_PREFIX, &STANDARD.encode(bytes)].concat())
    }

    /// Signs; `None`: this key only verifies.
    pub(super) fn code<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>) -> Option<Code> {
        Some(match &self.0 {
            Kind::Sha1(state) => mac(state, pieces),
            Kind::Sha256(state) => mac(state, pieces),
            Kind::Sha384(state) => mac(state, pieces),
            Kind::Sha512(state) => mac(state, pieces),
            Kind::Ed25519(pair) => Code::of(pair.sign(&joined(pieces)).as_ref()),
            Kind::Public(_) => return None,
        })
    }

    /// Whether a signature fits; in constant time.
    pub(super) fn fits<'a>(&self, pieces: impl Iterator<Item = &'a [u8]>, code: &[u8]) -> bool {
        let public: &[u8] = match &self.0 {
            Kind::Ed25519(pair) => pair.public_key().as_ref(),
            Kind::Public(key) => key,
            _ => {
                return self
                    .code(pieces)
                    .is_some_and(|expected| expected.bytes().ct_eq(code).into());
            }
        };
        UnparsedPublicKey::new(&ED25519, public)
            .verify(&joined(pieces), code)
            .is_ok()
    }

    /// Bytes of this key's signatures.
    #[must_use]
    pub const fn code_length(&self) -> usize {
        match &self.0 {
            Kind::Sha1(_) => 20,
            Kind::Sha256(_) => 32,
            Kind::Sha384(_) => 48,
            Kind::Sha512(_) | Kind::Ed25519(_) | Kind::Public(_) => 64,
        }
    }
}

/// A new key of a scheme.
///
/// # Errors
/// Never with 32 random bytes; what the library says.
pub fn generate(scheme: SigningScheme, random: [u8; 32]) -> Result<Generated, String> {
    let random = Zeroizing::new(random);
    let (secret, public) = match scheme {
        SigningScheme::StandardWebhooksEd25519 => {
            let pair = Ed25519KeyPair::from_seed_unchecked(random.as_slice())
                .map_err(|_| "no Ed25519 key comes of the random bytes".to_owned())?;
            let public = pair.public_key().as_ref();
            let both = Zeroizing::new([random.as_slice(), public].concat());
            let text = |prefix: &str, bytes: &[u8]| [prefix, &STANDARD.encode(bytes)].concat();
            (text(PRIVATE_PREFIX, &both), Some(text(PUBLIC_PREFIX, public)))
        }
        SigningScheme::HmacSha256 | SigningScheme::Hmac | SigningScheme::GitHub => {
            (hex::encode(random.as_slice()), None)
        }
        SigningScheme::StandardWebhooks | SigningScheme::Stripe | SigningScheme::None => {
            ([KEY_PREFIX, &STANDARD.encode(random.as_slice())].concat(), None)
        }
    };
    Ok(Generated {
        secret: Secret::new(secret),
        public,
    })
}

fn decode(text: &[u8], prefix: &str) -> Result<Zeroizing<Vec<u8>>, String> {
    let encoded = text
        .trim_ascii_end()
        .strip_prefix(prefix.as_bytes())
        .ok_or_else(|| format!("the signing key must start with {prefix}, followed by base64"))?;
    STANDARD.decode(encoded).map(Zeroizing::new).map_err(|_| {
        format!("the signing key is not base64 (standard alphabet, with padding) after {prefix}")
    })
}

fn mac<'a, M: Mac + Clone>(state: &M, pieces: impl Iterator<Item = &'a [u8]>) -> Code {
    let mut state = state.clone();
    for piece in pieces {
        state.update(piece);
    }
    Code::of(&state.finalize().into_bytes())
}

fn joined<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    pieces.flatten().copied().collect()
}
