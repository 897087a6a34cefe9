//! [`RequestForm`]: what a destination asks of its requests beyond URL, headers, body and signature.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::oauth2::ClientCredentials;

/// What a destination asks of its requests.
#[derive(Clone, Debug, Default)]
pub struct RequestForm {
    /// How they get to their receiver, when it is not the plain way.
    pub passage: Option<Arc<Passage>>,
}

/// How requests get to their receiver: what the transport needs beyond the URL. Destinations that ask for none of it have
/// no `Passage`, so that theirs costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Passage {
    /// Fetches the token that requests carry.
    pub credentials: Option<ClientCredentials>,
}

impl Passage {
    /// Whether it asks for nothing.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        let Self { credentials } = self;
        credentials.is_none()
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
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}
