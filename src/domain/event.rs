//! [`Event`]: what a producer published, normalised once.
//!
//! Owns the canonical object of the publish API and its stored form. [`parse`] reads requests (canonical JSON, and
//! CloudEvents through `cloudevents`), [`refusal`] says what is wrong with them; shapes and templates render from here.
//!
//! Members that only travel (`data`, `user.metadata`, `error`, CloudEvents attributes) stay raw JSON, so a number
//! or a key order that the producer chose reaches the receiver unchanged. They have been checked to be valid,
//! free of duplicate keys and of bounded depth before they get here.

mod cloudevents;
pub use cloudevents::subject_as_user;
pub(crate) mod json;
pub mod parse;
pub mod refusal;
pub mod reserved;
#[cfg(test)]
pub(crate) mod sample;
mod scope;

use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::id::EventId;
use super::project::ProjectFacts;

/// An event as parsed from a request, before it is accepted.
#[derive(Debug)]
pub struct Draft {
    /// The producer's id; `None`: one is made.
    pub id: Option<EventId>,
    /// When it happened, in whole milliseconds; `None`: time of acceptance, and `content.timestamp` is 0.
    pub timestamp: Option<Timestamp>,
    /// What the producer said.
    pub content: Content,
}

/// An accepted event.
#[derive(Debug)]
pub struct Event {
    /// Id within the project.
    pub id: EventId,
    /// When Postrider accepted it.
    pub accepted: Timestamp,
    /// What the producer said.
    pub content: Content,
    /// What the project adds.
    pub project: Arc<ProjectFacts>,
    /// `$.event` as templates see it, made on first use.
    pub(crate) view: OnceLock<Value>,
}

/// What the producer said. Serialises to the stored form.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Content {
    /// Event type: `[A-Za-z0-9_.-]{1,128}`.
    #[serde(rename = "type")]
    pub event_type: Arc<str>,
    /// When it happened, in milliseconds since 1970.
    pub timestamp: i64,
    /// One human sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The connected user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<User>,
    /// The third-party service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<Integration>,
    /// The workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Workflow>,
    /// The running sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<Sync>,
    /// An object with at least a `message` string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Box<RawValue>>,
    /// Everything specific to the type: an object.
    pub data: Box<RawValue>,
    /// `source` and extension attributes of a CloudEvent: an object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_event: Option<Box<RawValue>>,
}

/// The connected user an event belongs to.
#[derive(Debug, Serialize, Deserialize)]
pub struct User {
    /// Id of the user.
    pub id: String,
    /// Any JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Box<RawValue>>,
}

/// The third-party service an event is about.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Integration {
    /// Id of the integration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Such as `slack`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Human name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The workflow an event is about.
#[derive(Debug, Serialize, Deserialize)]
pub struct Workflow {
    /// Id of the workflow.
    pub id: String,
    /// Human name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The running sync an event is about.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sync {
    /// Id of the sync instance.
    pub id: String,
    /// Such as `googledrive`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub integration: Option<String>,
    /// Credential that the sync runs with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<String>,
}

impl Event {
    /// Joins the parts of an accepted event.
    #[must_use]
    pub fn new(id: EventId, accepted: Timestamp, content: Content, project: Arc<ProjectFacts>) -> Self {
        Self {
            id,
            accepted,
            content,
            project,
            view: OnceLock::new(),
        }
    }

    /// Lets go of what was made for templates, which takes several times the memory of the event.
    pub fn forget_view(&mut self) {
        self.view = OnceLock::new();
    }
}

impl Content {
    /// The stored form: JSON of the content, without id, acceptance time and project, which a store keeps beside it.
    ///
    /// # Errors
    /// Never for content that was parsed; serde's signature is kept so that no caller needs a panic.
    pub fn to_stored(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads the stored form back.
    ///
    /// # Errors
    /// When the bytes are not what [`Content::to_stored`] wrote.
    pub fn from_stored(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
