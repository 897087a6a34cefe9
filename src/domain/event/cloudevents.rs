//! CloudEvents 1.0 as publish requests: JSON format (structured and batch) and the HTTP binding's binary mode.
//!
//! Owns the mapping to the canonical event: `id`, `type`, `time` and `data`; every other attribute is kept under
//! `cloudEvent`, as written. `data` that is no object becomes `{"value": …}`, `data_base64` becomes
//! `{"data_base64": "…"}`. Names of attributes and their types are checked as the specification says (§3.1).
//!
//! The id alone is the idempotency key, not id and source together. Choosing the mode is left to `parse`.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;

use super::json::{self, Item, Kind, Member};
use super::parse::halted;
use super::refusal::{EventFault, EventFaults, FaultReason, Pointer, quote};
use super::scope::{MAX_NAME, Scope};
use super::{Content, Draft, User};

use crate::domain::id::EventId;

/// Most attributes of a CloudEvent.
const MAX_ATTRIBUTES: usize = 64;
/// Most bytes of an attribute's value.
const MAX_ATTRIBUTE: usize = 4096;
/// Most characters of an extension's name; the specification asks for at most 20.
const MAX_EXTENSION_NAME: usize = 64;
const PREFIX: &str = "ce-";
/// Headers of which one makes a request binary mode.
const MARKS: [&str; 4] = ["ce-specversion", "ce-id", "ce-source", "ce-type"];

/// Whether a request that is not of a CloudEvents content type carries a CloudEvent in binary mode.
pub(super) fn is_binary(headers: &HeaderMap) -> bool {
    MARKS.iter().any(|name| headers.contains_key(*name))
}

/// A required attribute: outer `None` when it is missing, inner `None` after a fault in it.
type Read<T> = Option<Option<T>>;

/// What an event's attributes gave.
#[derive(Default)]
struct Attributes {
    version: bool,
    source: bool,
    id: Read<EventId>,
    event_type: Read<String>,
    time: Option<Timestamp>,
    count: usize,
    /// Members of `cloudEvent`, each `"name":value`.
    kept: String,
}

impl Attributes {
    /// Takes an attribute; `raw` is its checked JSON value.
    fn take(&mut self, name: &str, raw: &str, scope: &mut Scope<'_>, pointer: &str) {
        self.count += 1;
        match (name, json::kind(raw)) {
            ("id", _) => self.id = Some(scope.event_id(pointer, raw)),
            ("type", _) => self.event_type = Some(scope.event_type(pointer, raw)),
            ("specversion", _) => {
                self.version = true;
                if json::text(raw).as_deref() != Some("1.0") {
                    scope.fault(pointer, FaultReason::InvalidValue, "specversion must be \"1.0\"");
                }
            }
            (_, Kind::Null) => {}
            ("time", _) => {
                if let Some(text) = scope.text(pointer, raw, MAX_NAME) {
                    self.time = scope.rfc3339(pointer, &text);
                }
            }
            ("source" | "subject" | "dataschema" | "datacontenttype", _) => {
                self.source |= name == "source";
                if let Some(text) = scope.text(pointer, raw, MAX_ATTRIBUTE) {
                    if text.is_empty() {
                        scope.fault(pointer, FaultReason::InvalidValue, "must not be empty");
                    }
                    self.keep(name, raw);
                }
            }
            _ if !is_extension_name(name) => {
                let detail = format!(
                    "CloudEvents has no attribute `{}`; extension names are lower-case letters and digits, and \
                     the event's own members go into data",
                    quote(name)
                );
                scope.member_fault("", name, FaultReason::UnknownMember, detail);
            }
            (_, Kind::String) if raw.len() > MAX_ATTRIBUTE + 2 => {
                scope.fault(
                    pointer,
                    FaultReason::TooLong,
                    format!("must be at most {MAX_ATTRIBUTE} bytes"),
                );
            }
            (_, Kind::String | Kind::Bool) => self.keep(name, raw),
            (_, Kind::Number) if raw.parse::<i32>().is_ok() => self.keep(name, raw),
            (_, Kind::Number) => {
                let detail =
                    "a number in an extension attribute must be a 32-bit integer; send other numbers as text";
                scope.fault(pointer, FaultReason::InvalidValue, detail);
            }
            _ => scope.wrong_type(pointer, raw, "a string, a boolean or an integer"),
        }
    }

    fn keep(&mut self, name: &str, raw: &str) {
        let separator = if self.kept.is_empty() { '{' } else { ',' };
        self.kept.push(separator);
        self.kept.push('"');
        self.kept.push_str(name);
        self.kept.push_str("\":");
        self.kept.push_str(raw);
    }

    fn finish(mut self, data: String, scope: &mut Scope<'_>, place: &str) -> Option<Draft> {
        for (there, name) in [
            (self.version, "specversion"),
            (self.id.is_some(), "id"),
            (self.source, "source"),
            (self.event_type.is_some(), "type"),
        ] {
            if !there {
                scope.missing("", &format!("a CloudEvent needs {place}{name}"));
            }
        }
        if self.count > MAX_ATTRIBUTES {
            scope.fault(
                "",
                FaultReason::TooLong,
                format!("a CloudEvent may have at most {MAX_ATTRIBUTES} attributes"),
            );
        }
        let (id, event_type) = (self.id??, self.event_type??);
        scope.check_data(&event_type, &data);
        if !scope.is_clean() {
            return None;
        }
        self.kept.push('}');
        let content = Content {
            event_type: event_type.into(),
            timestamp: self.time.map_or(0, Timestamp::as_millisecond),
            message: None,
            user: None,
            integration: None,
            workflow: None,
            sync: None,
            error: None,
            data: scope.raw("/data", data)?,
            cloud_event: Some(scope.raw("", self.kept)?),
        };
        Some(Draft {
            id: Some(id),
            timestamp: self.time,
            content,
        })
    }
}

/// Makes the attribute `subject` of what was a CloudEvent the id of the event's user, unless it is too long for one.
pub fn subject_as_user(draft: &mut Draft) {
    let Some(attributes) = draft.content.cloud_event.as_ref() else {
        return;
    };
    let subject = json::members(attributes.get())
        .into_iter()
        .find(|member| member.name == "subject");
    let id = subject.and_then(|subject| json::text(subject.value).map(Cow::into_owned));
    if let Some(id) = id.filter(|id| id.len() <= MAX_NAME) {
        draft.content.user = Some(User { id, metadata: None });
    }
}

fn is_extension_name(name: &str) -> bool {
    (1..=MAX_EXTENSION_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && name != "data"
}

/// Reads a CloudEvent of the JSON format.
pub(super) fn structured(item: &Item<'_>, scope: &mut Scope<'_>) -> Option<Draft> {
    let mut attributes = Attributes::default();
    let mut data = None;
    let mut base64 = None;
    for Member { name, value } in &item.members {
        match &**name {
            "data" => data = Some(object(value)),
            "data_base64" => base64 = Some(*value).filter(|raw| json::kind(raw) != Kind::Null),
            _ => {
                let mut pointer = Pointer::default();
                pointer.prepend_name(name);
                attributes.take(name, value, scope, pointer.as_str());
            }
        }
    }
    if let Some(raw) = base64 {
        if data.is_some() {
            scope.fault(
                "/data_base64",
                FaultReason::InvalidValue,
                "set at most one of data and data_base64",
            );
        }
        match json::text(raw) {
            Some(text) if STANDARD.decode(text.as_bytes()).is_ok() => {
                data = Some(["{\"data_base64\":", raw, "}"].concat());
            }
            Some(_) => scope.fault("/data_base64", FaultReason::InvalidValue, "is not base64"),
            None => scope.wrong_type("/data_base64", raw, "a base64 string"),
        }
    }
    attributes.finish(data.unwrap_or_else(|| "{}".to_owned()), scope, "")
}

/// Reads a CloudEvent whose attributes are headers and whose data is the body.
pub(super) fn binary(text: &str, headers: &HeaderMap, faults: &mut EventFaults) -> Option<Draft> {
    let mut scope = Scope::new(None, faults);
    let mut attributes = Attributes::default();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix(PREFIX) else {
            continue;
        };
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            header_fault(&mut scope, name.as_str(), "is set more than once");
            continue;
        };
        match decode(value) {
            Some(text) if text.contains('\0') => header_fault(&mut scope, name.as_str(), "holds a NUL"),
            Some(text)
                if matches!(attribute, "id" | "type" | "specversion" | "time")
                    || is_extension_name(attribute) =>
            {
                let raw = serde_json::Value::from(text).to_string();
                attributes.take_header(attribute, &raw, &mut scope);
            }
            Some(_) => {
                header_fault(
                    &mut scope,
                    name.as_str(),
                    "is not an attribute name: lower-case letters and digits",
                );
            }
            None => header_fault(&mut scope, name.as_str(), "is not percent-encoded UTF-8"),
        }
    }
    let data = if text.trim_ascii().is_empty() {
        "{}".to_owned()
    } else {
        match json::value(text) {
            Ok(item) => {
                scope.take_flaws(&item);
                object(item.raw)
            }
            Err(halt) => {
                scope.halted(halted(text, &halt));
                return None;
            }
        }
    };
    attributes.finish(data, &mut scope, "header ce-")
}

impl Attributes {
    /// Takes an attribute from a header; its faults name the header, as the body has no place for them.
    fn take_header(&mut self, attribute: &str, raw: &str, scope: &mut Scope<'_>) {
        let mut faults = EventFaults::default();
        let mut inner = Scope::new(None, &mut faults);
        self.take(attribute, raw, &mut inner, "");
        for fault in faults.listed() {
            let detail = format!("header {PREFIX}{attribute}: {}", fault.detail);
            scope.halted(EventFault {
                index: None,
                pointer: Pointer::default(),
                reason: fault.reason,
                detail,
            });
        }
    }
}

fn header_fault(scope: &mut Scope<'_>, name: &str, what: &str) {
    scope.fault(
        "",
        FaultReason::InvalidValue,
        format!("header {} {what}", quote(name)),
    );
}

/// `data` as an object.
fn object(raw: &str) -> String {
    match json::kind(raw) {
        Kind::Object => raw.to_owned(),
        Kind::Null => "{}".to_owned(),
        _ => ["{\"value\":", raw, "}"].concat(),
    }
}

/// Decodes a header value as the HTTP binding §3.1.3.2 says: optional double quotes with backslash escapes, then
/// percent-encoded UTF-8. `None` when an escape is cut off or the bytes are not UTF-8.
fn decode(value: &HeaderValue) -> Option<String> {
    let trimmed = value.as_bytes().trim_ascii();
    let unquoted = match trimmed
        .strip_prefix(b"\"")
        .and_then(|inner| inner.strip_suffix(b"\""))
    {
        Some(inner) => Cow::Owned(unescape(inner)),
        None => Cow::Borrowed(trimmed),
    };
    let mut bytes = Vec::with_capacity(unquoted.len());
    let mut rest = unquoted.iter();
    while let Some(byte) = rest.next() {
        if *byte == b'%' {
            let (high, low) = (rest.next()?, rest.next()?);
            let (high, low) = (char::from(*high).to_digit(16)?, char::from(*low).to_digit(16)?);
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(*byte);
        }
    }
    String::from_utf8(bytes).ok()
}

fn unescape(quoted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(quoted.len());
    let mut rest = quoted.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\\' => bytes.extend(rest.next()),
            _ => bytes.push(*byte),
        }
    }
    bytes
}

#[cfg(test)]
mod tests;
