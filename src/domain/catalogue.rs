//! The built-in event types: which format belongs to each, what its events hold, and the message of an event that
//! has none.
//!
//! Owns [`EVENT_TYPES`], the names of which are contracts with existing receivers. What an event of a type holds stands
//! in `catalogue/<type>.json`: the JSON Schema of `data`, the other members that the type needs, and an example. A
//! type that is not listed is as welcome as a listed one: its format is `Event`. What a format looks like is left to
//! [`shape`](crate::domain::shape).

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::event::{Content, Event};
use super::shape::FLAT_FIELDS;
use crate::api::v1alpha1::event_destination::PayloadFormat;

/// A built-in event type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventType {
    /// Its name, as in `type`.
    pub name: &'static str,
    /// The format that `Default` picks for it.
    pub format: PayloadFormat,
    /// One line about when it is sent.
    pub description: &'static str,
    /// The message of an event without one, the user left out.
    sentence: &'static str,
    /// Text of `catalogue/<type>.json`.
    definition: &'static str,
}

/// What an event of a built-in type holds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Members that an event needs, as paths such as `user.id`; of paths joined by `|` one is enough.
    pub needs: Vec<String>,
    /// JSON Schema of `data`.
    pub schema: Value,
    /// An event as it would be published.
    pub example: Value,
}

impl EventType {
    /// What an event of this type holds.
    #[must_use]
    pub fn definition(&self) -> Definition {
        // Compiled in and read by a test.
        serde_json::from_str(self.definition).unwrap_or_else(|_| Definition {
            needs: Vec::new(),
            schema: Value::Bool(true),
            example: Value::Null,
        })
    }

    /// The message of an event without one, as a template. An event that lacks the user, the workflow or the integration
    /// gets a plainer sentence, and one whose workflow or integration has no name gets its type or id there.
    #[must_use]
    pub fn message_template(&self) -> String {
        match self.name {
            "workflow_failure" => {
                "Workflow “{{ $.event.workflow.name }}“ failed for User {{ $.event.user.id }}".to_owned()
            }
            "credentials_failure" => "Connected User “{{ $.event.user.id }}“ credential for \
                {{ $.event.integration.name }} expired and can not be refreshed."
                .to_owned(),
            name => match operational_message(name) {
                Some(template) => template.to_owned(),
                None => format!("{} for User {{{{ $.event.user.id }}}}", self.sentence),
            },
        }
    }
}

macro_rules! entry {
    ($name:literal, $format:expr, $description:literal, $sentence:literal $(,)?) => {
        EventType {
            name: $name,
            format: $format,
            description: $description,
            sentence: $sentence,
            definition: include_str!(concat!("catalogue/", $name, ".json")),
        }
    };
}

/// Every built-in event type.
pub const EVENT_TYPES: [EventType; 23] = {
    use PayloadFormat::{Envelope, Event, Flat, Sync};
    [
        entry!(
            "workflow_failure",
            Event,
            "A workflow reached the failed status.",
            "A workflow failed",
        ),
        entry!(
            "credentials_failure",
            Event,
            "A user's credential expired and could not be refreshed.",
            "A credential expired and can not be refreshed",
        ),
        entry!(
            "sync_complete",
            Sync,
            "The first run of a sync is done.",
            "A sync completed",
        ),
        entry!(
            "sync_errored",
            Sync,
            "A sync failed and needs help to go on.",
            "A sync failed",
        ),
        entry!(
            "record_created",
            Sync,
            "A sync found a new record.",
            "A synced record was created",
        ),
        entry!(
            "record_updated",
            Sync,
            "A sync found a changed record.",
            "A synced record was updated",
        ),
        entry!(
            "record_deleted",
            Sync,
            "A sync found that a record is gone.",
            "A synced record was deleted",
        ),
        entry!(
            "record_errored",
            Sync,
            "A sync could not process one record.",
            "A synced record could not be processed",
        ),
        entry!(
            "integration_created",
            Flat,
            "An integration was created.",
            "An integration was created",
        ),
        entry!(
            "tenant_created",
            Flat,
            "A tenant of an integration was created.",
            "A tenant was created",
        ),
        entry!(
            "tenant_archived",
            Flat,
            "A tenant of an integration was archived.",
            "A tenant was archived",
        ),
        entry!(
            "partner_integration_updated",
            Flat,
            "A partner changed an integration.",
            "A partner updated an integration",
        ),
        entry!(
            "run_failed",
            Flat,
            "A run of an integration failed.",
            "An integration run failed",
        ),
        entry!(
            "workflowExecution.started",
            Envelope,
            "A workflow execution began.",
            "A workflow execution started",
        ),
        entry!(
            "workflowExecution.actionExecuted",
            Envelope,
            "An action of a workflow execution was executed.",
            "A workflow action was executed",
        ),
        entry!(
            "workflowExecution.completed",
            Envelope,
            "A workflow execution ended well.",
            "A workflow execution completed",
        ),
        entry!(
            "workflowExecution.waitingForTrigger",
            Envelope,
            "A workflow execution waits for an outside trigger.",
            "A workflow execution waits for a trigger",
        ),
        entry!(
            "workflowExecution.canceled",
            Envelope,
            "A workflow execution was canceled by a person.",
            "A workflow execution was canceled",
        ),
        entry!(
            "workflowExecution.failed",
            Envelope,
            "A workflow execution failed.",
            "A workflow execution failed",
        ),
        entry!(
            "postrider.destination.failing",
            Event,
            "A destination passed 50, 70 or 90 % of its auto-disable rule.",
            "A destination keeps failing",
        ),
        entry!(
            "postrider.destination.disabled",
            Event,
            "A destination was disabled.",
            "A destination was disabled",
        ),
        entry!(
            "postrider.destination.recovered",
            Event,
            "A destination of which failures were told works again.",
            "A destination works again",
        ),
        entry!(
            "postrider.destination.exhausted",
            Event,
            "Deliveries to a destination were given up, told once a minute at most.",
            "Deliveries to a destination were given up",
        ),
    ]
};

/// The built-in type of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static EventType> {
    EVENT_TYPES.iter().find(|entry| entry.name == name)
}

/// The format that `Default` picks; never `Default` itself. `Event` for a type that is not built in.
#[must_use]
pub fn format_of(event_type: &str) -> PayloadFormat {
    find(event_type).map_or(PayloadFormat::Event, |entry| entry.format)
}

/// Names that members of `data` must not have, because the type's default format puts `data` beside them.
#[must_use]
pub fn reserved_members(event_type: &str) -> &'static [&'static str] {
    if format_of(event_type) == PayloadFormat::Flat {
        &FLAT_FIELDS
    } else {
        &[]
    }
}

/// The event's own message, or the one that belongs to its type.
///
/// Two types have a wording that receivers know, typographic quotes included (both are `“`). It needs the event's
/// user and workflow or integration; an event without them, and every other type, gets a plain sentence.
#[must_use]
pub fn message(event: &Event) -> Cow<'_, str> {
    match &event.content.message {
        Some(message) => Cow::Borrowed(message),
        None => Cow::Owned(default_message(&event.content)),
    }
}

/// The message of an operational event, as a template over members of `data`.
fn operational_message(event_type: &str) -> Option<&'static str> {
    Some(match event_type.strip_prefix("postrider.destination.")? {
        "failing" => {
            "Destination {{ $.event.data.destination }} keeps failing: {{ $.event.data.percent }} % of the way to \
             being disabled"
        }
        "disabled" => {
            "Destination {{ $.event.data.destination }} was disabled: {{ $.event.data.disabledReason }}"
        }
        "recovered" => "Destination {{ $.event.data.destination }} works again",
        "exhausted" => {
            "{{ $.event.data.count }} deliveries to destination {{ $.event.data.destination }} were given up"
        }
        _ => return None,
    })
}

/// A template over members of `data` filled in; `None` when one is missing.
fn fill(template: &str, data: &RawValue) -> Option<String> {
    let data: Map<String, Value> = serde_json::from_str(data.get()).ok()?;
    let mut pieces = template.split("{{ $.event.data.");
    let mut text = pieces.next()?.to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once(" }}")?;
        match data.get(name)? {
            Value::String(value) => text.push_str(value),
            value @ Value::Number(_) => text.push_str(&value.to_string()),
            _ => return None,
        }
        text.push_str(rest);
    }
    Some(text)
}

fn default_message(content: &Content) -> String {
    if let Some(message) =
        operational_message(&content.event_type).and_then(|template| fill(template, &content.data))
    {
        return message;
    }
    let user = content.user.as_ref().map(|user| user.id.as_str());
    match (&*content.event_type, user) {
        ("workflow_failure", Some(user)) => {
            if let Some(workflow) = &content.workflow {
                let name = workflow.name.as_deref().unwrap_or(&workflow.id);
                return format!("Workflow “{name}“ failed for User {user}");
            }
        }
        ("credentials_failure", Some(user)) => {
            let integration = content.integration.as_ref();
            if let Some(name) =
                integration.and_then(|it| it.name.as_ref().or(it.kind.as_ref()).or(it.id.as_ref()))
            {
                return format!(
                    "Connected User “{user}“ credential for {name} expired and can not be refreshed."
                );
            }
        }
        _ => {}
    }
    let sentence = match find(&content.event_type) {
        Some(entry) => Cow::Borrowed(entry.sentence),
        None => Cow::Owned(format!("Event {} occurred", content.event_type)),
    };
    match user {
        Some(user) => format!("{sentence} for User {user}"),
        None => sentence.into_owned(),
    }
}

#[cfg(test)]
mod tests;
