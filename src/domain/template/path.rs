//! [`Path`]: the way from a root to a value, checked against the names that are known beforehand.

use std::fmt;

use serde_json::Value;

/// What a path starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Event,
    Project,
    Destination,
    Delivery,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Name(Box<str>),
    Index(usize),
}

/// A way to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    pub(super) root: Root,
    pub(super) segments: Box<[Segment]>,
}

const PAIR: &[&str] = &["id", "name"];
const DELIVERY: &[&str] = &["id", "attempt", "publishedAt"];
const EVENT: &[&str] = &[
    "type",
    "timestamp",
    "timestampISO",
    "message",
    "user",
    "project",
    "integration",
    "workflow",
    "data",
    "id",
    "sync",
    "error",
    "cloudEvent",
    "environment",
    "account",
];

impl Root {
    pub(super) fn parse(name: &str) -> Option<Self> {
        match name {
            "event" => Some(Self::Event),
            "project" => Some(Self::Project),
            "destination" => Some(Self::Destination),
            "delivery" => Some(Self::Delivery),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Project => "project",
            Self::Destination => "destination",
            Self::Delivery => "delivery",
        }
    }
}

impl Path {
    /// Whether the path is `$.event` itself.
    pub(super) fn is_whole_event(&self) -> bool {
        self.root == Root::Event && self.segments.is_empty()
    }

    /// Finds a segment that can never lead to a value; the message says which are known.
    pub(super) fn misspelt(&self) -> Option<String> {
        let mut known = match self.root {
            Root::Event => EVENT,
            Root::Project | Root::Destination => PAIR,
            Root::Delivery => DELIVERY,
        };
        let mut parent = String::from(self.root.name());
        for segment in &self.segments {
            match segment {
                Segment::Name(name) if known.contains(&&**name) => {
                    known = match (parent.as_str(), &**name) {
                        ("event", name) => members_of(name)?,
                        ("event.user", "metadata") => return None,
                        _ => &[],
                    };
                    parent = format!("{parent}.{name}");
                }
                segment if known.is_empty() => {
                    return Some(format!("{parent} has no members; remove `{}`", shown(segment)));
                }
                segment => {
                    return Some(format!(
                        "{parent} has no member `{}`; known are {}",
                        shown(segment),
                        known.join(", ")
                    ));
                }
            }
        }
        None
    }

    /// Follows the path.
    pub(super) fn walk<'v>(&self, from: &'v Value) -> Option<&'v Value> {
        self.segments
            .iter()
            .try_fold(from, |value, segment| match segment {
                Segment::Name(name) => value.as_object()?.get(&**name),
                Segment::Index(index) => value.as_array()?.get(*index),
            })
    }

    /// Follows the path and takes what is there.
    pub(super) fn take(&self, from: Value) -> Option<Value> {
        self.walk(&from).cloned()
    }
}

/// Members of a member of `event`; `None` when they are the producer's.
fn members_of(name: &str) -> Option<&'static [&'static str]> {
    match name {
        "data" | "error" | "cloudEvent" => None,
        "project" | "workflow" | "account" => Some(PAIR),
        "user" => Some(&["id", "metadata"]),
        "integration" => Some(&["id", "type", "name"]),
        "sync" => Some(&["id", "integration", "credentialId"]),
        _ => Some(&[]),
    }
}

fn shown(segment: &Segment) -> String {
    match segment {
        Segment::Name(name) => name.to_string(),
        Segment::Index(index) => format!("[{index}]"),
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "$.{}", self.root.name())?;
        for segment in &self.segments {
            match segment {
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Name(name) if is_plain(name) => write!(f, ".{name}")?,
                Segment::Name(name) => write!(f, "[{}]", Value::String(name.to_string()))?,
            }
        }
        Ok(())
    }
}

/// Whether a name can stand after a dot.
pub(super) fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_name_character)
}

pub(super) fn is_name_character(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '-')
}
