//! [`ParseError`]: why a publish request is refused, precise enough to be mended at once.
//!
//! Owns the faults of a request and their bounds: [`MAX_LISTED`] faults are listed, all are counted, and every bad
//! index of a batch is named. Text from the request appears cut to a bounded length. How a fault is shown over HTTP
//! (RFC 9457) is left to the adapter.

use std::fmt;

use serde::{Serialize, Serializer};
use strum::{AsRefStr, IntoStaticStr};

/// Most faults that are listed; the rest are counted.
pub const MAX_LISTED: usize = 16;
/// Longest JSON pointer that is shown; a longer one ends at an ancestor.
const MAX_POINTER: usize = 512;
/// Most characters of a quoted piece of the request.
const MAX_QUOTE: usize = 64;

/// Why a publish request is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The body, or an event in it, is not acceptable: 400.
    #[error(transparent)]
    Invalid(#[from] EventFaults),
    /// The content type is none that events come in: 415.
    #[error("{0}")]
    UnsupportedMediaType(String),
}

/// The HTTP class of a [`ParseError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseClass {
    /// 400.
    BadRequest,
    /// 415.
    UnsupportedMediaType,
}

impl ParseError {
    /// The class.
    #[must_use]
    pub const fn class(&self) -> ParseClass {
        match self {
            Self::Invalid(_) => ParseClass::BadRequest,
            Self::UnsupportedMediaType(_) => ParseClass::UnsupportedMediaType,
        }
    }
}

/// One thing wrong with a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EventFault {
    /// Position of the event in a batch; `None` when the request is one event, or the fault is the body's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub index: Option<usize>,
    /// Where in the body (RFC 6901); empty for the body itself and for what comes in headers.
    pub pointer: Pointer,
    /// What kind, in one word.
    pub reason: FaultReason,
    /// What is wrong and what to do; lower case, no full stop.
    pub detail: String,
}

/// What kind of fault, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, AsRefStr, IntoStaticStr, Serialize)]
pub enum FaultReason {
    /// The body is not JSON (RFC 8259).
    Malformed,
    /// The body, or a header, is not UTF-8.
    InvalidUtf8,
    /// There is no event in the body.
    Empty,
    /// More than [`super::parse::MAX_EVENTS`] events.
    TooManyEvents,
    /// Nested too deep.
    TooDeep,
    /// An object has two members of one name.
    DuplicateKey,
    /// A NUL byte or `\u0000`.
    NulCharacter,
    /// Half of a surrogate pair.
    LoneSurrogate,
    /// A number out of range.
    NumberRange,
    /// A member that no event has.
    UnknownMember,
    /// A required member is missing.
    MissingMember,
    /// A value of the wrong JSON type.
    WrongType,
    /// A value that breaks its field's rule.
    InvalidValue,
    /// A text that is too long.
    TooLong,
    /// A member of `data` that would overwrite a common field of the type's payload.
    OverwritesField,
    /// A type that begins with `postrider.`: those events are Postrider's own.
    ReservedType,
    /// The event breaks the schema of its type, or lacks a member that the type needs.
    BreaksSchema,
}

/// A JSON pointer (RFC 6901) of bounded length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    /// Wraps a pointer that is known to be well-formed.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// The pointer as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn prepend_name(&mut self, name: &str) {
        let mut segment = String::with_capacity(name.len().min(MAX_POINTER) + 1);
        segment.push('/');
        for character in name.chars() {
            match character {
                '~' => segment.push_str("~0"),
                '/' => segment.push_str("~1"),
                _ => segment.push(character),
            }
            if segment.len() > MAX_POINTER {
                self.0.clear();
                return;
            }
        }
        self.prepend(&segment);
    }

    pub(crate) fn prepend_index(&mut self, index: usize) {
        self.prepend(&format!("/{index}"));
    }

    /// Puts a well-formed pointer before this one.
    pub(crate) fn prepend_path(&mut self, path: &str) {
        self.prepend(path);
    }

    fn prepend(&mut self, segment: &str) {
        self.0.insert_str(0, segment);
        while self.0.len() > MAX_POINTER {
            let end = self.0.rfind('/').unwrap_or(0);
            self.0.truncate(end);
        }
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Pointer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Everything wrong with one request.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct EventFaults {
    listed: Vec<EventFault>,
    total: usize,
    indices: Vec<usize>,
}

impl EventFaults {
    /// The first faults, at most [`MAX_LISTED`], in the order of the body.
    #[must_use]
    pub fn listed(&self) -> &[EventFault] {
        &self.listed
    }

    /// How many faults there are in all.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.total
    }

    /// Every bad index of a batch, ascending.
    #[must_use]
    pub fn indices(&self) -> &[usize] {
        &self.indices
    }

    pub(crate) fn of(fault: EventFault) -> Self {
        let mut faults = Self::default();
        faults.push(fault);
        faults
    }

    pub(crate) fn push(&mut self, fault: EventFault) {
        self.count(fault.index, 1);
        if self.listed.len() < MAX_LISTED {
            self.listed.push(fault);
        }
    }

    /// Counts faults that are not listed.
    pub(crate) fn count(&mut self, index: Option<usize>, faults: usize) {
        self.total += faults;
        if let Some(index) = index
            && self.indices.last() != Some(&index)
        {
            self.indices.push(index);
        }
    }
}

impl fmt::Display for EventFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, fault) in self.listed.iter().enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            let place = if fault.pointer.as_str().is_empty() {
                "request"
            } else {
                fault.pointer.as_str()
            };
            write!(f, "{separator}{place}: {}", fault.detail)?;
        }
        if self.total > self.listed.len() {
            write!(f, "; and {} more", self.total - self.listed.len())?;
        }
        Ok(())
    }
}

/// A piece of the request for a message: cut to a bounded length, control characters escaped.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted: String = text
        .chars()
        .take(MAX_QUOTE)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(MAX_QUOTE).is_some() {
        quoted.push('…');
    }
    quoted
}
