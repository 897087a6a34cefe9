//! [`parse`]: the body and headers of a publish request to [`Draft`]s, or every fault.
//!
//! Owns the choice of the mode by content type and the reading of canonical events. Modes:
//!
//! | Content type | Body |
//! |---|---|
//! | `application/json`, or none | one canonical event, or an array of them |
//! | `application/cloudevents+json` | one CloudEvent, structured mode |
//! | `application/cloudevents-batch+json` | an array of CloudEvents |
//! | any JSON type, with `ce-id`, `ce-source`, `ce-type` or `ce-specversion` | the data of one CloudEvent, binary mode |
//!
//! Invariants: what leaves here is within the bounds named below; its raw members are valid JSON without duplicate
//! names, NUL, lone surrogates or deep nesting; nothing that the producer sent is dropped silently: a member that no
//! event has is a fault. `null` stands for an absent optional member.
//!
//! Authentication, the body's size, making ids and the time of acceptance are left to others.

use http::{HeaderMap, header};
use jiff::Timestamp;
use serde_json::value::RawValue;

use super::json::{self, Document, Halt, Item, Kind, Member};
use super::refusal::{EventFault, EventFaults, FaultReason, ParseError, Pointer, quote};
use super::scope::Scope;
use super::{Content, Draft, Integration, Sync, User, Workflow, cloudevents};
use crate::domain::type_rules::Places;

pub use super::scope::{MAX_NAME, MAX_TYPE, is_event_type};

/// Most events of one request.
pub const MAX_EVENTS: usize = 1000;
/// Most bytes of `message`.
pub const MAX_MESSAGE: usize = 16 * 1024;
const MEMBERS: [&str; 10] = [
    "id",
    "type",
    "timestamp",
    "message",
    "user",
    "integration",
    "workflow",
    "sync",
    "error",
    "data",
];

/// Reads a publish request.
///
/// # Errors
/// Every fault of every event (400), or the content type is none that events come in (415).
pub fn parse(body: &[u8], headers: &HeaderMap) -> Result<Vec<Draft>, ParseError> {
    let media = MediaType::of(headers)?;
    let text = std::str::from_utf8(body).map_err(|error| {
        let detail = format!("the body is not UTF-8 from byte {} on", error.valid_up_to());
        ParseError::from(body_fault(FaultReason::InvalidUtf8, detail))
    })?;
    if media == MediaType::CloudEventData {
        let mut faults = EventFaults::default();
        let draft = cloudevents::binary(text, headers, &mut faults);
        return finish(draft.into_iter().collect(), faults);
    }
    if text.trim_ascii().is_empty() {
        return Err(body_fault(
            FaultReason::Empty,
            "the body is empty; send an event object or an array".into(),
        )
        .into());
    }
    let document = json::document(text, MAX_EVENTS).map_err(|halt| EventFaults::of(halted(text, &halt)))?;
    let read = if media == MediaType::Canonical {
        canonical
    } else {
        cloudevents::structured
    };
    match document {
        Document::One(item) => {
            if media == MediaType::CloudEventBatch {
                let detail = "a CloudEvents batch is an array of events".to_owned();
                return Err(body_fault(FaultReason::WrongType, detail).into());
            }
            let mut faults = EventFaults::default();
            let draft = read_item(&item, None, &mut faults, read);
            finish(draft.into_iter().collect(), faults)
        }
        Document::Many(items) => {
            if media == MediaType::CloudEvent {
                let detail =
                    "the body is an array; use content type application/cloudevents-batch+json".to_owned();
                return Err(body_fault(FaultReason::WrongType, detail).into());
            }
            if items.is_empty() {
                let detail = "the array is empty; send at least one event".to_owned();
                return Err(body_fault(FaultReason::Empty, detail).into());
            }
            let mut faults = EventFaults::default();
            let mut drafts = Vec::with_capacity(items.len());
            for (index, item) in items.iter().enumerate() {
                drafts.extend(read_item(item, Some(index), &mut faults, read));
            }
            finish(drafts, faults)
        }
    }
}

/// Where the events of a request that was read stand in its body.
#[must_use]
pub fn places(body: &[u8], headers: &HeaderMap) -> Places {
    let is_data = matches!(MediaType::of(headers), Ok(MediaType::CloudEventData));
    Places {
        is_batch: !is_data && body.trim_ascii_start().first() == Some(&b'['),
        is_data,
    }
}

fn finish(drafts: Vec<Draft>, faults: EventFaults) -> Result<Vec<Draft>, ParseError> {
    if faults.total() == 0 {
        Ok(drafts)
    } else {
        Err(faults.into())
    }
}

fn body_fault(reason: FaultReason, detail: String) -> EventFaults {
    EventFaults::of(EventFault {
        index: None,
        pointer: Pointer::default(),
        reason,
        detail,
    })
}

/// The fault of a text that is not JSON, with line and column as editors count them.
pub(super) fn halted(text: &str, halt: &Halt) -> EventFault {
    let read = text.as_bytes().get(..halt.offset).unwrap_or_default();
    let line = 1 + read.split(|byte| *byte == b'\n').count().saturating_sub(1);
    let column = 1 + read.iter().rev().take_while(|byte| **byte != b'\n').count();
    let detail = match halt.reason {
        FaultReason::TooManyEvents => format!("{}: at most {MAX_EVENTS}; split it", halt.detail),
        _ => format!("{}, at line {line} column {column}", halt.detail),
    };
    let pointer = halt
        .index
        .map(|index| Pointer::new(&format!("/{index}")))
        .unwrap_or_default();
    EventFault {
        index: halt.index,
        pointer,
        reason: halt.reason,
        detail,
    }
}

/// What the content type says about the body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum MediaType {
    Canonical,
    CloudEvent,
    CloudEventBatch,
    CloudEventData,
}

impl MediaType {
    fn of(headers: &HeaderMap) -> Result<Self, ParseError> {
        let binary = cloudevents::is_binary(headers);
        let Some(given) = headers.get(header::CONTENT_TYPE) else {
            return Ok(if binary {
                Self::CloudEventData
            } else {
                Self::Canonical
            });
        };
        let given = String::from_utf8_lossy(given.as_bytes());
        let (essence, parameters) = given.split_once(';').unwrap_or((&given, ""));
        let essence = essence.trim().to_ascii_lowercase();
        if let Some(charset) = charset(parameters)
            && !matches!(charset.as_str(), "utf-8" | "utf8" | "us-ascii")
        {
            let detail = format!("charset {} is not supported; send UTF-8", quote(&charset));
            return Err(ParseError::UnsupportedMediaType(detail));
        }
        match essence.as_str() {
            "application/cloudevents+json" => Ok(Self::CloudEvent),
            "application/cloudevents-batch+json" => Ok(Self::CloudEventBatch),
            "application/json" if !binary => Ok(Self::Canonical),
            _ if binary && is_json(&essence) => Ok(Self::CloudEventData),
            _ => Err(ParseError::UnsupportedMediaType(format!(
                "content type {} is not supported; send application/json, application/cloudevents+json, \
                 application/cloudevents-batch+json, or a binary-mode CloudEvent with JSON data",
                quote(&essence)
            ))),
        }
    }
}

fn charset(parameters: &str) -> Option<String> {
    parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    })
}

/// Whether a media type says JSON (RFC 6839 §3.1 for `+json`).
fn is_json(essence: &str) -> bool {
    matches!(essence, "application/json" | "text/json")
        || (essence.ends_with("+json") && !essence.starts_with("application/cloudevents"))
}

fn read_item(
    item: &Item<'_>,
    index: Option<usize>,
    faults: &mut EventFaults,
    read: fn(&Item<'_>, &mut Scope<'_>) -> Option<Draft>,
) -> Option<Draft> {
    let mut scope = Scope::new(index, faults);
    if !scope.take_flaws(item) {
        return None;
    }
    if json::kind(item.raw) != Kind::Object {
        scope.fault("", FaultReason::WrongType, "an event is a JSON object");
        return None;
    }
    let draft = read(item, &mut scope);
    draft.filter(|_| scope.is_clean())
}

fn canonical(item: &Item<'_>, scope: &mut Scope<'_>) -> Option<Draft> {
    let (mut id, mut event_type, mut timestamp) = (None, None, None);
    let (mut message, mut user, mut integration, mut workflow) = (None, None, None, None);
    let (mut sync, mut error, mut data) = (None, None, None);
    for Member { name, value } in &item.members {
        let null = json::kind(value) == Kind::Null;
        match &**name {
            "type" => event_type = Some(scope.event_type("/type", value)),
            name if null && MEMBERS.contains(&name) => {}
            "id" => id = scope.event_id("/id", value),
            "timestamp" => timestamp = scope.timestamp("/timestamp", value),
            "message" => message = scope.text("/message", value, MAX_MESSAGE),
            "user" => user = read_user(value, scope),
            "integration" => integration = read_integration(value, scope),
            "workflow" => workflow = read_workflow(value, scope),
            "sync" => sync = read_sync(value, scope),
            "error" => error = read_error(value, scope),
            "data" if json::kind(value) == Kind::Object => data = Some(*value),
            "data" => scope.wrong_type("/data", value, "an object"),
            "specversion" => {
                let detail = "this is a CloudEvent; send it with Content-Type: application/cloudevents+json";
                scope.member_fault("", "specversion", FaultReason::UnknownMember, detail.to_owned());
            }
            name => scope.unknown("", name, &MEMBERS),
        }
    }
    if event_type.is_none() {
        scope.missing("", "an event needs `type`, for example \"workflow_failure\"");
    }
    let event_type = event_type??;
    let data = data.unwrap_or("{}");
    scope.check_data(&event_type, data);
    if !scope.is_clean() {
        return None;
    }
    let content = Content {
        event_type: event_type.into(),
        timestamp: timestamp.map_or(0, Timestamp::as_millisecond),
        message,
        user,
        integration,
        workflow,
        sync,
        error,
        data: scope.raw("/data", data.to_owned())?,
        cloud_event: None,
    };
    Some(Draft {
        id,
        timestamp,
        content,
    })
}

fn read_user(raw: &str, scope: &mut Scope<'_>) -> Option<User> {
    let (mut id, mut metadata) = (None, None);
    for member in scope.object("/user", raw, &["id", "metadata"])? {
        match (&*member.name, json::kind(member.value)) {
            ("id", _) => id = Some(scope.name("/user/id", member.value)),
            ("metadata", Kind::Object) => metadata = scope.raw("/user/metadata", member.value.to_owned()),
            (_, Kind::Null) => {}
            ("metadata", _) => scope.wrong_type("/user/metadata", member.value, "an object"),
            _ => {}
        }
    }
    if id.is_none() {
        scope.missing("/user", "user needs `id`");
    }
    Some(User { id: id??, metadata })
}

fn read_integration(raw: &str, scope: &mut Scope<'_>) -> Option<Integration> {
    let mut integration = Integration::default();
    for member in scope.object("/integration", raw, &["id", "type", "name"])? {
        match (&*member.name, json::kind(member.value)) {
            (_, Kind::Null) => {}
            ("id", _) => integration.id = scope.name("/integration/id", member.value),
            ("type", _) => integration.kind = scope.name("/integration/type", member.value),
            ("name", _) => integration.name = scope.name("/integration/name", member.value),
            _ => {}
        }
    }
    Some(integration)
}

fn read_workflow(raw: &str, scope: &mut Scope<'_>) -> Option<Workflow> {
    let (mut id, mut name) = (None, None);
    for member in scope.object("/workflow", raw, &["id", "name"])? {
        match (&*member.name, json::kind(member.value)) {
            ("id", _) => id = Some(scope.name("/workflow/id", member.value)),
            (_, Kind::Null) => {}
            ("name", _) => name = scope.name("/workflow/name", member.value),
            _ => {}
        }
    }
    if id.is_none() {
        scope.missing("/workflow", "workflow needs `id`");
    }
    Some(Workflow { id: id??, name })
}

fn read_sync(raw: &str, scope: &mut Scope<'_>) -> Option<Sync> {
    let (mut id, mut integration, mut credential_id) = (None, None, None);
    for member in scope.object("/sync", raw, &["id", "integration", "credentialId"])? {
        match (&*member.name, json::kind(member.value)) {
            ("id", _) => id = Some(scope.name("/sync/id", member.value)),
            (_, Kind::Null) => {}
            ("integration", _) => integration = scope.name("/sync/integration", member.value),
            ("credentialId", _) => credential_id = scope.name("/sync/credentialId", member.value),
            _ => {}
        }
    }
    if id.is_none() {
        scope.missing("/sync", "sync needs `id`, the id of the sync instance");
    }
    Some(Sync {
        id: id??,
        integration,
        credential_id,
    })
}

fn read_error(raw: &str, scope: &mut Scope<'_>) -> Option<Box<RawValue>> {
    if json::kind(raw) != Kind::Object {
        scope.wrong_type("/error", raw, "an object with a `message`");
        return None;
    }
    match json::members(raw).iter().find(|member| member.name == "message") {
        Some(message) if json::kind(message.value) == Kind::String => scope.raw("/error", raw.to_owned()),
        Some(message) => {
            scope.wrong_type("/error/message", message.value, "a string");
            None
        }
        None => {
            scope.missing("/error", "error needs `message`, a string");
            None
        }
    }
}

#[cfg(test)]
mod tests;
