//! [`RequestForm`]: what a destination asks of its requests beyond URL, headers, body and signature.

pub mod body;

use std::fmt;
use std::sync::Arc;

use http::Method;
use sha2::{Digest as _, Sha256};

use self::body::BodyForm;
use super::oauth2::ClientCredentials;
use super::proxy::Proxy;
use super::tls::Tls;

/// What a destination asks of its requests.
#[derive(Clone, Debug)]
pub struct RequestForm {
    /// Method.
    pub method: Method,
    /// What becomes of a rendered body.
    pub body: BodyForm,
    /// Bodies are the members of an array.
    pub is_batch: bool,
    /// Bodies over so many bytes are compressed.
    pub gzip_above: Option<usize>,
    /// How they get to their receiver, when it is not the plain way.
    pub passage: Option<Arc<Passage>>,
}

impl Default for RequestForm {
    fn default() -> Self {
        Self {
            method: Method::POST,
            body: BodyForm::default(),
            is_batch: false,
            gzip_above: None,
            passage: None,
        }
    }
}

/// How requests get to their receiver: what the transport needs beyond the URL. Destinations that ask for none of it have
/// no `Passage`, so that theirs costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Passage {
    /// Fetches the token that requests carry.
    pub credentials: Option<ClientCredentials>,
    /// An answer `401` counts as delivered, so that it says nothing of the token.
    pub takes_401: bool,
    /// What TLS asks of the receiver, and shows to it.
    pub tls: Option<Tls>,
    /// What it goes through.
    pub proxy: Option<Proxy>,
}

impl Passage {
    /// Whether it asks for nothing.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        let Self {
            credentials,
            takes_401: _,
            tls,
            proxy,
        } = self;
        credentials.is_none() && tls.is_none() && proxy.is_none()
    }

    /// What its connections must have in common; `None`: they are plain ones.
    #[must_use]
    pub fn pool(&self) -> Option<Fingerprint> {
        match (&self.tls, &self.proxy) {
            (None, None) => None,
            (Some(tls), None) => Some(tls.fingerprint),
            (None, Some(proxy)) => Some(proxy.fingerprint),
            (Some(tls), Some(proxy)) => Some(tls.fingerprint.with(proxy.fingerprint)),
        }
    }

    /// The way to another host of the same people, such as their token endpoint.
    #[must_use]
    pub fn for_other_host(&self) -> Self {
        Self {
            credentials: None,
            takes_401: false,
            tls: self.tls.as_ref().map(Tls::for_other_host),
            proxy: self.proxy.clone(),
        }
    }
}

/// Stands for values, secret ones among them: what is kept for one set of values is not used for another. Never shown: a
/// short password could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of values in that order.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for value in values {
            hash.update((value.len() as u64).to_le_bytes());
            hash.update(value);
        }
        Self(hash.finalize().into())
    }

    /// Another one, that of both.
    #[must_use]
    pub fn with(&self, other: Self) -> Self {
        self.and(&other.0)
    }

    /// Another one, that of these values and a further one.
    #[must_use]
    pub fn and(&self, value: &[u8]) -> Self {
        Self::of([&self.0[..], value])
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}
