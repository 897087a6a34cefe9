//! Names of things: objects, events, deliveries.
//!
//! Ids are never bare strings, so they cannot be swapped. All of them are cheap to clone.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The uid of a Kubernetes object. Two objects of the same name, one after the other, differ in it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uid(Arc<str>);

impl Uid {
    /// Wraps a uid.
    #[must_use]
    pub fn new(uid: &str) -> Self {
        Self(uid.into())
    }

    /// The uid as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace of the object.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key of its two parts.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Most characters of an [`EventId`].
pub const MAX_EVENT_ID: usize = 128;

/// The id of an event within its project: the idempotency key, and the id receivers see on every attempt.
///
/// 1 to 128 visible ASCII characters, because it travels in a header.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(Arc<str>);

impl EventId {
    /// Checks and wraps an id; `None` when it is empty, too long or not visible ASCII.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits =
            !text.is_empty() && text.len() <= MAX_EVENT_ID && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.into()))
    }

    /// An id made by Postrider.
    #[must_use]
    pub fn from_uuid(uuid: uuid::Uuid) -> Self {
        let mut buffer = uuid::Uuid::encode_buffer();
        Self((&*uuid.hyphenated().encode_lower(&mut buffer)).into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of several deliveries that are made as one: the same for the same deliveries in the same order.
pub fn batch_id(deliveries: impl Iterator<Item = uuid::Uuid>) -> uuid::Uuid {
    let bytes: Vec<u8> = deliveries.flat_map(uuid::Uuid::into_bytes).collect();
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, &bytes)
}

/// The id of one event's delivery to one destination: the same on every attempt, and derivable from the two.
#[must_use]
pub fn delivery_id(event: &EventId, project: &Uid, destination: &Uid) -> uuid::Uuid {
    let space = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, destination.as_str().as_bytes());
    let event = [project.as_str(), "/", event.as_str()].concat();
    uuid::Uuid::new_v5(&space, event.as_bytes())
}
