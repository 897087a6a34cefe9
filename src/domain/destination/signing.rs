//! The signatures of a webhook: where their keys are kept, and what is wrong with them.

use std::time::Duration;

use http::HeaderName;

use super::check::{Check, in_secret};
use super::{Identity, ready_service};
use crate::api::names::{ROTATED_SUFFIX, SIGNING_SUFFIX};
use crate::api::v1alpha1::SecretKeyRef;
use crate::api::v1alpha1::common::DEFAULT_HEADERS;
use crate::api::v1alpha1::event_destination::{
    EventDestinationSpec, HeaderSpec, SignatureEncoding, SigningScheme, SigningSpec,
};
use crate::domain::duration;
use crate::domain::signature::content::Content;
use crate::domain::signature::key::Key;
use crate::domain::signature::{
    GITHUB_PREFIX, GITHUB_SIGNATURE, STRIPE_SIGNATURE, Scheme, Signature, Signer, WEBHOOK_SIGNATURE,
    check_prefix,
};

/// Name of the first signature, and key of its generated Secret.
pub const FIRST_SIGNATURE: &str = "secret";
/// Where the first signature is described.
const BASE: &str = "spec.webhook.signing";
/// Where its key's Secret is named.
pub const SIGNING_PATH: &str = "spec.webhook.signing.secretRef";
/// Most signatures besides the first.
const MAX_ALSO: usize = 4;
/// Default of `previousSecretTTL`, except where a key of the user's own is the only one that can sign: then whoever
/// changes it decides when.
const DEFAULT_TTL: Duration = Duration::from_secs(24 * 3600);
/// Most of it.
const MAX_TTL: Duration = Duration::from_secs(168 * 3600);

/// The name of the Secret that is generated for a destination's signing keys.
#[must_use]
pub fn generated_secret_name(destination: &str) -> String {
    format!("{destination}{SIGNING_SUFFIX}")
}

/// The name of the Secret that keeps earlier keys of Secrets that are the user's.
#[must_use]
pub fn rotated_secret_name(destination: &str) -> String {
    format!("{destination}{ROTATED_SUFFIX}")
}

/// Where the key of a signature is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct SigningKeyRef {
    /// Name of the signature; [`FIRST_SIGNATURE`], or that of one in `also`.
    pub name: String,
    /// Secret and key.
    pub key: SecretKeyRef,
    /// Scheme the key is for.
    pub scheme: SigningScheme,
    /// Postrider makes the Secret, because the spec names none.
    pub generated: bool,
    /// How long a previous key signs.
    pub previous_ttl: Duration,
    /// Where it is described.
    base: String,
    spec: SigningSpec,
}

impl SigningKeyRef {
    /// Path of the field that names the Secret: one of the status when the spec names none.
    #[must_use]
    pub fn path(&self) -> String {
        if self.generated {
            "status.signingSecretRef".to_owned()
        } else {
            format!("{}.secretRef", self.base)
        }
    }

    /// Whether a request can carry signatures of several keys.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        has_room(self.scheme)
    }

    /// Path of the field that would name the Secret.
    #[must_use]
    pub fn field(&self) -> String {
        format!("{}.secretRef", self.base)
    }

    /// Reads a key as this signature needs it.
    ///
    /// # Errors
    /// What is wrong with it; nothing of the key is in the message.
    pub fn parse(&self, secret: &[u8]) -> Result<Key, String> {
        Key::parse(self.scheme, self.spec.algorithm.unwrap_or_default(), secret)
    }
}

/// Where the keys of a destination's signatures are kept, in the order of the signatures; none when nothing is signed.
#[must_use]
pub fn signing_key_refs(name: &str, spec: &EventDestinationSpec) -> Vec<SigningKeyRef> {
    let Some(webhook) = &spec.webhook else {
        return Vec::new();
    };
    if webhook.signing.is_none() && ready_service(webhook).is_some() {
        return Vec::new();
    }
    let first = webhook.signing.clone().unwrap_or_default();
    if first.scheme.unwrap_or_default() == SigningScheme::None {
        return Vec::new();
    }
    let also: Vec<_> = first.also.clone();
    let also = also
        .iter()
        .enumerate()
        .map(|(index, one)| (one.name.clone(), format!("{BASE}.also[{index}]"), one.to_spec()));
    std::iter::once((FIRST_SIGNATURE.to_owned(), BASE.to_owned(), first))
        .chain(also)
        .map(|(slot, base, spec)| {
            let generated = spec.secret_ref.is_none();
            let scheme = spec.scheme.unwrap_or_default();
            let usual = if generated || has_room(scheme) {
                DEFAULT_TTL
            } else {
                Duration::ZERO
            };
            let given = spec.previous_secret_ttl.as_ref();
            SigningKeyRef {
                key: spec.secret_ref.clone().unwrap_or_else(|| SecretKeyRef {
                    name: generated_secret_name(name),
                    key: slot.clone(),
                }),
                name: slot,
                scheme,
                generated,
                previous_ttl: given.map_or(usual, |text| duration::parse(&text.0).unwrap_or(usual)),
                base,
                spec,
            }
        })
        .collect()
}

/// Whether a request can carry signatures of several keys.
const fn has_room(scheme: SigningScheme) -> bool {
    matches!(
        scheme,
        SigningScheme::StandardWebhooks | SigningScheme::StandardWebhooksEd25519 | SigningScheme::Stripe
    )
}

impl Check<'_> {
    pub(super) fn signer(&mut self, identity: &Identity, spec: &EventDestinationSpec) -> Option<Signer> {
        let own = spec.webhook.as_ref().map_or(&[][..], |webhook| &webhook.headers);
        let signing = spec.webhook.as_ref().and_then(|webhook| webhook.signing.as_ref());
        if signing
            .is_some_and(|signing| signing.scheme == Some(SigningScheme::None) && !signing.also.is_empty())
        {
            self.faults
                .invalid(BASE, "scheme None signs nothing; remove also, or choose a scheme");
        }
        let references = signing_key_refs(&identity.key.name, spec);
        if references.len() > MAX_ALSO + 1 {
            self.faults.invalid(
                format!("{BASE}.also"),
                format!("give at most {MAX_ALSO} further signatures"),
            );
            return None;
        }
        let mut signatures: Vec<Option<Signature>> = Vec::with_capacity(references.len());
        for (index, reference) in references.iter().enumerate() {
            let earlier = references.get(..index).unwrap_or_default();
            if earlier.iter().any(|other| other.name == reference.name) || reference.name.is_empty() {
                self.faults.invalid(
                    format!("{}.name", reference.base),
                    "each signature needs a name of its own",
                );
            }
            let signature = self.signature(reference, own);
            let taken = signature.as_ref().is_some_and(|signature| {
                let header = signature.scheme().header();
                let others = signatures.iter().flatten();
                *header != WEBHOOK_SIGNATURE
                    && others.into_iter().any(|other| other.scheme().header() == header)
            });
            if taken {
                self.faults.invalid(
                    format!("{}.header", reference.base),
                    "another signature is in this header; choose another name",
                );
            }
            signatures.push(signature);
        }
        signatures
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .map(Signer::new)
    }

    fn signature(&mut self, reference: &SigningKeyRef, own: &[HeaderSpec]) -> Option<Signature> {
        let key = self.secret(&reference.path(), &reference.key);
        let scheme = self.scheme(reference, own);
        if let Some(ttl) = &reference.spec.previous_secret_ttl {
            let path = format!("{}.previousSecretTTL", reference.base);
            self.bounded(&path, Some(ttl), Duration::ZERO, MAX_TTL);
        }
        let (key, scheme) = (key?, scheme?);
        match reference.parse(key.expose()) {
            Ok(key) => Some(Signature::new(scheme, key)),
            Err(fault) => {
                let mut fault = in_secret(&reference.key, &fault);
                if reference.generated {
                    fault.push_str(
                        "; delete the Secret to have a new one made, and give the receiver the new key",
                    );
                }
                self.faults.invalid(reference.path(), fault);
                None
            }
        }
    }

    fn scheme(&mut self, reference: &SigningKeyRef, own: &[HeaderSpec]) -> Option<Scheme> {
        let spec = &reference.spec;
        let usual = match reference.scheme {
            SigningScheme::StandardWebhooks => return Some(Scheme::Standard),
            SigningScheme::StandardWebhooksEd25519 => return Some(Scheme::Ed25519),
            SigningScheme::Stripe => Some(&STRIPE_SIGNATURE),
            SigningScheme::GitHub => Some(&GITHUB_SIGNATURE),
            SigningScheme::HmacSha256 | SigningScheme::Hmac => None,
            SigningScheme::None => {
                self.faults.invalid(
                    format!("{}.scheme", reference.base),
                    "a further signature has a scheme other than None; remove it instead",
                );
                return None;
            }
        };
        let path = format!("{}.header", reference.base);
        let Some(name) = spec.header.as_deref().or(usual.map(HeaderName::as_str)) else {
            let word = if reference.scheme == SigningScheme::Hmac {
                "Hmac"
            } else {
                "HmacSHA256"
            };
            self.faults
                .invalid(path, format!("scheme {word} needs the name of a header"));
            return None;
        };
        let header = self.signature_header(&path, name, own);
        let prefix = spec.prefix.as_deref().unwrap_or_default();
        let prefix_checked = check_prefix(prefix);
        if let Err(fault) = &prefix_checked {
            self.faults
                .invalid(format!("{}.prefix", reference.base), fault.clone());
        }
        let content = match spec.signed_content.as_deref().map(Content::parse) {
            Some(Err(fault)) => {
                self.faults
                    .invalid(format!("{}.signedContent", reference.base), fault);
                return None;
            }
            Some(Ok(content)) => content,
            None => Content::body(),
        };
        let header = header?;
        prefix_checked.ok()?;
        Some(match reference.scheme {
            SigningScheme::Stripe => Scheme::Stripe { header },
            SigningScheme::GitHub => Scheme::Plain {
                header,
                prefix: GITHUB_PREFIX.into(),
                encoding: SignatureEncoding::Hex,
                content: Content::body(),
            },
            _ => Scheme::Plain {
                header,
                prefix: prefix.into(),
                encoding: spec.encoding.unwrap_or_default(),
                content,
            },
        })
    }

    /// The header that carries the signature: it must not take the place of another one that is sent.
    fn signature_header(&mut self, path: &str, name: &str, own: &[HeaderSpec]) -> Option<HeaderName> {
        let header = self.header_name(path, name)?;
        let same = |other: &HeaderSpec| other.name.eq_ignore_ascii_case(header.as_str());
        let fault = if let Some(index) = own.iter().position(same) {
            format!(
                "this header is also set by spec.webhook.headers[{index}]; choose another name for one of them"
            )
        } else if DEFAULT_HEADERS.contains(&header.as_str()) {
            "every request has this header with another meaning; choose another name".to_owned()
        } else {
            return Some(header);
        };
        self.faults.invalid(path, fault);
        None
    }
}
