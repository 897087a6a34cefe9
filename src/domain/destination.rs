//! [`Destination`]: a validated `EventDestination`, the only form the engine sees.
//!
//! [`Destination::try_from_spec`] either returns a value or *every* fault of the spec, each with its field path.
//! A [`Subscription`] is the part that decides which events are meant; it exists even when the rest is faulty,
//! because a destination that is not ready parks its events.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::health::DisablePolicy;
use super::id::{ObjectKey, Uid};
use super::pattern::TypePattern;
use super::retry::RetryPolicy;
use super::secret::Secret;
use super::shape::Payload;
use super::signature::Signer;
use crate::api::v1alpha1::SecretKeyRef;

/// Which object a destination was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Namespace and name.
    pub key: ObjectKey,
    /// uid: the lane's name in the queue.
    pub uid: Uid,
    /// Generation of the spec.
    pub generation: i64,
}

/// Which events a destination wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Name of the project, or every project of the namespace.
    pub project: Option<Box<str>>,
    /// Patterns, any of which must fit.
    pub events: Vec<TypePattern>,
}

/// A validated destination.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Which object it is.
    pub identity: Identity,
    /// Which events it wants.
    pub subscription: Subscription,
    /// Events are kept, nothing is sent.
    pub suspended: bool,
    /// Where to and in what form.
    pub webhook: Webhook,
    /// One deadline over connect, TLS, request and the whole answer.
    pub timeout: Duration,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Most requests at once.
    pub max_in_flight: u32,
    /// When to give up on the receiver.
    pub disable: DisablePolicy,
}

/// A webhook target.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where to.
    pub endpoint: Endpoint,
    /// Extra headers; values from Secrets are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Form of the body.
    pub payload: Payload,
    /// Signs the body.
    pub signer: Signer,
}

/// A URL whose path and query may be secret: only scheme and host are ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Scheme, host and port, such as `https://hooks.slack.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// The whole URL; never log, format or store it.
    #[must_use]
    pub const fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}/…)", self.origin())
    }
}

/// The values of the Secrets that a spec refers to.
pub type References = BTreeMap<SecretKeyRef, Reference>;

/// What was found for one reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The value.
    Found(Secret<Vec<u8>>),
    /// There is no such Secret.
    NoSecret,
    /// The Secret has no such key.
    NoKey,
}
