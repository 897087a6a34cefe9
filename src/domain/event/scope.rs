//! [`Scope`]: reads the values of one event and collects what is wrong with them.
//!
//! Owns the rules that canonical events and CloudEvents share: types, ids, times, names. Every method that reads a
//! value notes a fault and answers `None` when the value breaks its rule, so callers go on to the next member.

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::json::{self, Item, Kind, Member};
use super::refusal::{EventFault, EventFaults, FaultReason, Pointer, quote};
use crate::domain::catalogue;
use crate::domain::id::{EventId, MAX_EVENT_ID};

/// Most characters of an event type.
pub const MAX_TYPE: usize = 128;
/// Most bytes of an id or a name in `user`, `integration`, `workflow` and `sync`.
pub const MAX_NAME: usize = 1024;

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
    pub(super) fn object<'a>(
        &mut self,
        pointer: &str,
        raw: &'a str,
        known: &[&str],
    ) -> Option<Vec<Member<'a>>> {
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

    pub(super) fn unknown(&mut self, parent: &str, name: &str, known: &[&str]) {
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
    pub(super) fn name(&mut self, pointer: &str, raw: &str) -> Option<String> {
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

    pub(super) fn timestamp(&mut self, pointer: &str, raw: &str) -> Option<Timestamp> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339_and_nothing_else() {
        for (text, milliseconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2024-10-22t20:40:42.607z", 1_729_629_642_607),
            ("2024-10-22 20:40:42.6079999+00:00", 1_729_629_642_607),
            ("2024-10-22T20:40:42.607-00:00", 1_729_629_642_607),
            ("2016-12-31T23:59:60Z", 1_483_228_799_000),
        ] {
            assert_eq!(
                rfc3339(text).map(Timestamp::as_millisecond),
                Some(milliseconds),
                "{text}"
            );
        }
        for text in [
            "",
            "2024-10-22",
            "2024-10-22T20:40:42",
            "20241022T204042Z",
            "2024-10-22T20:40Z",
            "2024-13-01T00:00:00Z",
            "2024-02-30T00:00:00Z",
            "2024-10-22T25:00:00Z",
            "2024-10-22T20:40:42.Z",
            "2024-10-22T20:40:42+0200",
            "2024-10-22T20:40:42Z[UTC]",
            "2024-10-22T20:40:42.607+02:00[Europe/Berlin]",
            "+002024-10-22T20:40:42Z",
            "1969-12-31T23:59:59.999Z",
            "10000-01-01T00:00:00Z",
            "２024-10-22T20:40:42Z",
            "2024-10-22T20:40:42 Z",
        ] {
            assert_eq!(rfc3339(text), None, "{text}");
        }
    }
}
