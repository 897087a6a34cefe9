//! [`Payload`]: the form of a request body, and its rendering.
//!
//! Owns the ready formats: which keys, in which order, of which types. They are contracts with existing receivers,
//! kept by the files in `shape/golden/`. Rendering is pure and does not depend on the attempt, except in templates
//! that ask for it, so every attempt sends the same bytes.
//!
//! What an event lacks: a key that the receiver may miss is left out, never `null`; one that it cannot do without is
//! a [`RenderError`], which no retry mends. Facts of the project (environment, account) are left out when the project
//! does not state them. Which format belongs to which type is left to [`catalogue`].

mod cloud_event;
pub(crate) mod write;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::value::RawValue;

use self::write::Json;
use super::catalogue;
use super::delivery::Attempt;
use super::destination::Identity;
use super::event::{Event, json};
use super::fault::field_path;
use super::format::ReadyFormat;
use super::outcome::Reading;
use super::project::{AccountId, ProjectFacts};
use super::secret::Secret;
use super::template::Template;
use crate::api::v1alpha1::event_destination::PayloadFormat;

/// Content type of JSON bodies.
pub const JSON: &str = "application/json";
/// Content type of the `CloudEvent` format: CloudEvents 1.0 JSON format §3.
pub const CLOUD_EVENT_JSON: &str = "application/cloudevents+json";
/// Content type of templates that are text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// Common fields of the `Flat` format; members of `data` must not have these names.
pub const FLAT_FIELDS: [&str; 5] = [
    "event_type",
    "environment",
    "account_id",
    "account_name",
    "timestamp",
];

/// The form of a request body.
#[derive(Clone, Debug)]
pub enum Payload {
    /// One of Postrider's own formats.
    Format(PayloadFormat),
    /// The ready format of a service.
    Ready(Box<ReadyFormat>),
    /// The user's own template.
    Template(Template),
}

/// A rendered body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Its content type; a valid header value.
    pub content_type: &'static str,
    /// The bytes.
    pub body: Bytes,
}

/// Why a body could not be rendered. Terminal: the same event fails again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// The event lacks what the format cannot do without.
    #[error(
        "format {format} needs {field}, which the event does not have; publish it or choose another format"
    )]
    Missing {
        /// Name of the format.
        format: &'static str,
        /// Field of the published event, such as `sync.id`.
        field: &'static str,
    },
    /// The template asks for something the event does not have.
    #[error(
        "spec.webhook.payload.template{pointer}: the event has no {path}; publish it or add `| default(…)`"
    )]
    NoValue {
        /// Where in the template (RFC 6901).
        pointer: Place,
        /// The path that leads nowhere.
        path: String,
    },
    /// The template puts an object or array into text.
    #[error(
        "spec.webhook.payload.template{pointer}: {path} is {kind} and cannot stand inside text; add `| json`"
    )]
    NotText {
        /// Where in the template (RFC 6901).
        pointer: Place,
        /// The path.
        path: String,
        /// `an object` or `an array`.
        kind: &'static str,
    },
    /// The body would be over the bound.
    #[error("the body would be over {0} bytes; send less of the event")]
    TooLarge(usize),
}

/// A place in a template, which messages show as a field path; before its first `/` stands what holds the template when
/// that is not the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub Box<str>);

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.split('/').next().unwrap_or_default())?;
        f.write_str(&field_path(&self.0))
    }
}

impl Payload {
    /// What the body carries of a Secret.
    #[must_use]
    pub const fn body_secret(&self) -> Option<&Secret<String>> {
        match self {
            Self::Ready(ready) => ready.body_secret(),
            Self::Format(_) | Self::Template(_) => None,
        }
    }

    /// How the receiver's replies are read.
    #[must_use]
    pub const fn reading(&self) -> Reading {
        match self {
            Self::Ready(format) => format.service.reading,
            Self::Format(_) | Self::Template(_) => Reading::Status,
        }
    }

    /// Renders an event for a destination.
    ///
    /// # Errors
    /// When the event lacks what the format or the template needs, or the body grows over 1 MiB.
    pub fn render(
        &self,
        event: &Event,
        destination: &Identity,
        attempt: Attempt,
    ) -> Result<Rendered, RenderError> {
        match self {
            Self::Format(format) => render_format(*format, event, destination),
            Self::Ready(format) => Ok(format.render(event, destination)),
            Self::Template(template) => template.render(event, destination, attempt),
        }
    }
}

fn render_format(
    format: PayloadFormat,
    event: &Event,
    destination: &Identity,
) -> Result<Rendered, RenderError> {
    let format = match format {
        PayloadFormat::Default => catalogue::format_of(&event.content.event_type),
        format => format,
    };
    let (content_type, body) = match format {
        PayloadFormat::Sync => (JSON, sync(event)?),
        PayloadFormat::Flat => (JSON, flat(event)),
        PayloadFormat::Envelope => (JSON, envelope(event, destination)),
        PayloadFormat::CloudEvent => (CLOUD_EVENT_JSON, cloud_event::render(event)),
        // `Event`. `format_of` never answers `Default`, and services have `Payload::Ready`.
        _ => (JSON, whole_event(event)),
    };
    Ok(Rendered {
        content_type,
        body: body.into(),
    })
}

/// The `Event` format: the members that built-in types have, and for all others also what else their producers sent.
///
/// Receivers of the types whose own format this is know exactly those members.
pub(crate) fn whole_event(event: &Event) -> String {
    let mut json = Json::with_capacity(capacity(event));
    json.open();
    event_members(event, &mut json);
    let is_known = |entry: &catalogue::EventType| entry.format == PayloadFormat::Event;
    if !catalogue::find(&event.content.event_type).is_some_and(is_known) {
        further_members(event, &mut json);
    }
    json.close();
    json.finish()
}

/// What templates see as `event`: the members of the `Event` format, then `id`, `sync`, `error`, `cloudEvent`,
/// `environment` and `account`, each only when there is one.
pub(crate) fn event_view(event: &Event) -> String {
    let project = &event.project;
    let mut json = Json::with_capacity(capacity(event));
    json.open();
    event_members(event, &mut json);
    json.member("id", event.id.as_str());
    further_members(event, &mut json);
    json.optional("environment", project.environment.as_deref());
    if project.account_id.is_some() || project.account_name.is_some() {
        json.name("account").open();
        account_id(&mut json, "id", project);
        json.optional("name", project.account_name.as_deref()).close();
    }
    json.close();
    json.finish()
}

/// What a producer may send beside [`event_members`].
fn further_members(event: &Event, json: &mut Json) {
    let content = &event.content;
    if let Some(sync) = &content.sync {
        json.name("sync").open().member("id", &sync.id);
        json.optional("integration", sync.integration.as_deref());
        json.optional("credentialId", sync.credential_id.as_deref())
            .close();
    }
    json.optional_raw("error", content.error.as_deref());
    json.optional_raw("cloudEvent", content.cloud_event.as_deref());
}

fn event_members(event: &Event, json: &mut Json) {
    let content = &event.content;
    json.member("type", &content.event_type);
    json.name("timestamp").number(content.timestamp);
    json.name("timestampISO").time(happened(event));
    json.member("message", &catalogue::message(event));
    if let Some(user) = &content.user {
        json.name("user").open().member("id", &user.id);
        json.name("metadata")
            .raw(user.metadata.as_deref().map_or("{}", RawValue::get))
            .close();
    }
    json.name("project")
        .open()
        .member("id", &event.project.id)
        .member("name", &event.project.name)
        .close();
    if let Some(integration) = &content.integration {
        json.name("integration").open();
        json.optional("id", integration.id.as_deref());
        json.optional("type", integration.kind.as_deref());
        json.optional("name", integration.name.as_deref()).close();
    }
    if let Some(workflow) = &content.workflow {
        json.name("workflow").open().member("id", &workflow.id);
        json.optional("name", workflow.name.as_deref()).close();
    }
    json.name("data").raw(content.data.get());
}

/// The `Sync` format. `data` is left out when it is empty; `sync` falls back to the integration's type.
fn sync(event: &Event) -> Result<String, RenderError> {
    let content = &event.content;
    let missing = |field| RenderError::Missing {
        format: "Sync",
        field,
    };
    let sync = content.sync.as_ref().ok_or_else(|| missing("sync.id"))?;
    let integration = content
        .integration
        .as_ref()
        .and_then(|integration| integration.kind.as_ref());
    let integration = sync
        .integration
        .as_ref()
        .or(integration)
        .ok_or_else(|| missing("sync.integration"))?;
    let user = content.user.as_ref().ok_or_else(|| missing("user.id"))?;
    let mut json = Json::with_capacity(capacity(event));
    json.open().member("event", &content.event_type);
    json.member("syncInstanceId", &sync.id)
        .member("sync", integration);
    json.optional("credentialId", sync.credential_id.as_deref());
    json.name("user").open().member("id", &user.id).close();
    if !is_empty_object(&content.data) {
        json.name("data").raw(content.data.get());
    }
    json.optional_raw("error", content.error.as_deref()).close();
    Ok(json.finish())
}

/// The `Flat` format. A member of `data` with the name of a common field, which publishing refuses for the types
/// whose default this is, is left out for other types.
fn flat(event: &Event) -> String {
    let project = &event.project;
    let mut json = Json::with_capacity(capacity(event));
    json.open().member("event_type", &event.content.event_type);
    json.optional("environment", project.environment.as_deref());
    account_id(&mut json, "account_id", project);
    json.optional("account_name", project.account_name.as_deref());
    json.name("timestamp").short_time(happened(event));
    for member in json::members(event.content.data.get()) {
        if !FLAT_FIELDS.contains(&&*member.name) {
            json.any_name(&member.name).raw(member.value);
        }
    }
    json.close();
    json.finish()
}

/// The `Envelope` format. `payload` is `data`, joined by the event's `error` unless `data` has a member of that name.
fn envelope(event: &Event, destination: &Identity) -> String {
    let content = &event.content;
    let mut json = Json::with_capacity(capacity(event));
    json.open().member("webhookId", destination.uid.as_str());
    json.name("webhookPublishedAt").time(event.accepted);
    json.member("projectId", &event.project.id)
        .member("eventType", &content.event_type);
    json.name("payload");
    match &content.error {
        None => json.raw(content.data.get()),
        Some(error) => {
            let members = json::members(content.data.get());
            json.open();
            for member in &members {
                json.any_name(&member.name).raw(member.value);
            }
            if members.iter().all(|member| member.name != "error") {
                json.name("error").raw(error.get());
            }
            json.close()
        }
    };
    json.close();
    json.finish()
}

fn account_id(json: &mut Json, name: &str, project: &ProjectFacts) {
    match &project.account_id {
        Some(AccountId::Number(number)) => {
            json.name(name).number(number);
        }
        Some(AccountId::Text(text)) => {
            json.member(name, text);
        }
        None => {}
    }
}

/// When the event happened. The time of acceptance stands in for a stored time out of range, which parsing refuses.
fn happened(event: &Event) -> Timestamp {
    Timestamp::from_millisecond(event.content.timestamp).unwrap_or(event.accepted)
}

fn is_empty_object(raw: &RawValue) -> bool {
    raw.get()
        .bytes()
        .all(|byte| matches!(byte, b'{' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
}

/// A capacity that most bodies fit into.
fn capacity(event: &Event) -> usize {
    768 + event.content.data.get().len()
}

#[cfg(test)]
mod tests;
