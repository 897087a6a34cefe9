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
use super::{Content, Draft, Integration, Sync, User, Workflow, cloudevents};
use crate::domain::catalogue;
use crate::domain::id::{EventId, MAX_EVENT_ID};

/// Most events of one request.
pub const MAX_EVENTS: usize = 1000;
/// Most characters of an event type.
pub const MAX_TYPE: usize = 128;
/// Most bytes of an id or a name in `user`, `integration`, `workflow` and `sync`.
pub const MAX_NAME: usize = 1024;
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

/// Collects the faults of one event.
pub(super) struct Scope<'f> {
    index: Option<usize>,
    faults: &'f mut EventFaults,
    before: usize,
}

impl<'f> Scope<'f> {
    pub(super) fn new(index: Option<usize>, faults: &'f mut EventFaults) -> Self {
        let before = faults.total();
        Self {
            index,
            faults,
            before,
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults.total() == self.before
    }

    /// Notes a fault; `pointer` is relative to the event.
    pub(super) fn fault(&mut self, pointer: &str, reason: FaultReason, detail: impl Into<String>) {
        self.fault_at(Pointer::new(pointer), reason, detail.into());
    }

    /// Notes a fault of a member with a name from the request.
    pub(super) fn member_fault(&mut self, parent: &str, name: &str, reason: FaultReason, detail: String) {
        let mut pointer = Pointer::default();
        pointer.prepend_name(name);
        pointer.prepend_path(parent);
        self.fault_at(pointer, reason, detail);
    }

    fn fault_at(&mut self, mut pointer: Pointer, reason: FaultReason, detail: String) {
        if let Some(index) = self.index {
            pointer.prepend_index(index);
        }
        self.faults.push(EventFault {
            index: self.index,
            pointer,
            reason,
            detail,
        });
    }

    pub(super) fn halted(&mut self, fault: EventFault) {
        self.faults.push(fault);
    }

    /// Takes over what the check of the text found; whether that was nothing.
    pub(super) fn take_flaws(&mut self, item: &Item<'_>) -> bool {
        for flaw in &item.flaws {
            self.fault_at(flaw.pointer.clone(), flaw.reason, flaw.detail.to_owned());
        }
        let unlisted = item.flaw_count - item.flaws.len();
        if unlisted > 0 {
            self.faults.count(self.index, unlisted);
        }
        item.flaw_count == 0
    }

    /// The members of an object whose names must all be known; `None` after a fault of its type.
    fn object<'a>(&mut self, pointer: &str, raw: &'a str, known: &[&str]) -> Option<Vec<Member<'a>>> {
        if json::kind(raw) != Kind::Object {
            self.wrong_type(pointer, raw, "an object");
            return None;
        }
        let members = json::members(raw);
        for member in members.iter().filter(|member| !known.contains(&&*member.name)) {
            self.unknown(pointer, &member.name, known);
        }
        Some(members)
    }

    fn unknown(&mut self, parent: &str, name: &str, known: &[&str]) {
        let place = if parent.is_empty() {
            "an event"
        } else {
            parent.trim_start_matches('/')
        };
        let hint = if parent.is_empty() {
            "; what is specific to the type goes into data"
        } else {
            ""
        };
        let detail = format!(
            "{place} has no member `{}`; known are {}{hint}",
            quote(name),
            known.join(", ")
        );
        self.member_fault(parent, name, FaultReason::UnknownMember, detail);
    }

    pub(super) fn missing(&mut self, pointer: &str, detail: &str) {
        self.fault(pointer, FaultReason::MissingMember, detail);
    }

    pub(super) fn wrong_type(&mut self, pointer: &str, raw: &str, wanted: &str) {
        let given = match json::kind(raw) {
            Kind::Object => "an object",
            Kind::Array => "an array",
            Kind::String => "a string",
            Kind::Number => "a number",
            Kind::Bool => "a boolean",
            Kind::Null => "null",
        };
        self.fault(
            pointer,
            FaultReason::WrongType,
            format!("must be {wanted}, not {given}"),
        );
    }

    /// A string of at most `most` bytes.
    pub(super) fn text(&mut self, pointer: &str, raw: &str, most: usize) -> Option<String> {
        let Some(text) = json::text(raw) else {
            self.wrong_type(pointer, raw, "a string");
            return None;
        };
        if text.len() > most {
            self.fault(
                pointer,
                FaultReason::TooLong,
                format!("must be at most {most} bytes"),
            );
            return None;
        }
        Some(text.into_owned())
    }

    /// A string of 1 to [`MAX_NAME`] bytes.
    fn name(&mut self, pointer: &str, raw: &str) -> Option<String> {
        let text = self.text(pointer, raw, MAX_NAME)?;
        if text.is_empty() {
            self.fault(
                pointer,
                FaultReason::InvalidValue,
                "must not be empty; leave the member out instead",
            );
            return None;
        }
        Some(text)
    }

    pub(super) fn event_id(&mut self, pointer: &str, raw: &str) -> Option<EventId> {
        let Some(text) = json::text(raw) else {
            self.wrong_type(pointer, raw, "a string");
            return None;
        };
        self.event_id_of(pointer, &text)
    }

    pub(super) fn event_id_of(&mut self, pointer: &str, text: &str) -> Option<EventId> {
        let id = EventId::parse(text);
        if id.is_none() {
            let detail = format!("an event id is 1 to {MAX_EVENT_ID} visible ASCII characters");
            self.fault(pointer, FaultReason::InvalidValue, detail);
        }
        id
    }

    pub(super) fn event_type(&mut self, pointer: &str, raw: &str) -> Option<String> {
        let Some(text) = json::text(raw) else {
            self.wrong_type(pointer, raw, "a string");
            return None;
        };
        self.event_type_of(pointer, &text)
    }

    pub(super) fn event_type_of(&mut self, pointer: &str, text: &str) -> Option<String> {
        if !is_event_type(text) {
            let detail = format!("an event type is 1 to {MAX_TYPE} of the characters A-Z a-z 0-9 _ . -");
            self.fault(pointer, FaultReason::InvalidValue, detail);
            return None;
        }
        Some(text.to_owned())
    }

    fn timestamp(&mut self, pointer: &str, raw: &str) -> Option<Timestamp> {
        match json::kind(raw) {
            Kind::String => {
                let text = json::text(raw)?;
                self.rfc3339(pointer, &text)
            }
            Kind::Number => {
                let timestamp = raw.parse().ok().and_then(within_time);
                if timestamp.is_none() {
                    let detail =
                        "as a number, a time is whole milliseconds since 1970, before the year 10000";
                    self.fault(pointer, FaultReason::InvalidValue, detail);
                }
                timestamp
            }
            _ => {
                self.wrong_type(
                    pointer,
                    raw,
                    "an RFC 3339 string or whole milliseconds since 1970",
                );
                None
            }
        }
    }

    pub(super) fn rfc3339(&mut self, pointer: &str, text: &str) -> Option<Timestamp> {
        let timestamp = rfc3339(text);
        if timestamp.is_none() {
            let detail =
                "must be an RFC 3339 time such as 2026-01-31T08:15:30.123Z, of the years 1970 to 9999";
            self.fault(pointer, FaultReason::InvalidValue, detail);
        }
        timestamp
    }

    /// A checked value, kept as it was written.
    pub(super) fn raw(&mut self, pointer: &str, text: String) -> Option<Box<RawValue>> {
        let raw = RawValue::from_string(text).ok();
        if raw.is_none() {
            self.fault(pointer, FaultReason::Malformed, "is not JSON");
        }
        raw
    }

    /// Refuses members of `data` that would overwrite a common field of the type's default payload.
    pub(super) fn check_data(&mut self, event_type: &str, raw: &str) {
        let reserved = catalogue::reserved_members(event_type);
        if reserved.is_empty() {
            return;
        }
        for member in json::members(raw)
            .iter()
            .filter(|member| reserved.contains(&&*member.name))
        {
            let detail = format!(
                "a payload of type {event_type} has `{}` as a common field; rename this member",
                quote(&member.name)
            );
            self.member_fault("/data", &member.name, FaultReason::OverwritesField, detail);
        }
    }
}

/// Whether a text may be an event type.
#[must_use]
pub fn is_event_type(text: &str) -> bool {
    (1..=MAX_TYPE).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// 1970 to the last instant that [`Timestamp`] holds, 9999-12-30T22:00:00.999Z.
fn within_time(milliseconds: i64) -> Option<Timestamp> {
    Timestamp::from_millisecond(milliseconds)
        .ok()
        .filter(|_| milliseconds >= 0)
}

/// Reads an RFC 3339 time of the years 1970 to 9999, cut to milliseconds. A leap second is the second before it.
fn rfc3339(text: &str) -> Option<Timestamp> {
    let (date_time, tail) = text.split_at_checked(19)?;
    let fits = date_time.bytes().enumerate().all(|(at, byte)| match at {
        4 | 7 => byte == b'-',
        10 => matches!(byte, b'T' | b't' | b' '),
        13 | 16 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let offset = match tail.strip_prefix('.') {
        Some(fraction) => {
            let offset = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
            let digits = fraction.len() - offset.len();
            if !(1..=9).contains(&digits) {
                return None;
            }
            offset
        }
        None => tail,
    };
    let offset_fits = match offset.as_bytes() {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', hour @ .., b':', m1, m2] => {
            hour.len() == 2 && hour.iter().chain([m1, m2]).all(u8::is_ascii_digit)
        }
        _ => false,
    };
    if !fits || !offset_fits {
        return None;
    }
    let timestamp: Timestamp = text.parse().ok()?;
    within_time(timestamp.as_millisecond()).filter(|_| timestamp >= Timestamp::UNIX_EPOCH)
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
