//! [`Digest`]: an event as services for people and machines want it told, and the shortening of texts.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use crate::domain::destination::Identity;
use crate::domain::event::Event;
use crate::domain::gist::{Data, Fact, Gist};
use crate::domain::id;
use crate::domain::pattern::TypePattern;
use crate::domain::shape;

use super::shrink::shrink;

/// Longest link that is taken over.
const MAX_LINK: usize = 2000;
/// What shortened text ends with.
const CUT: &str = "… [cut]";

/// How bad an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Somebody must act now.
    Critical,
    /// Something failed.
    Error,
    /// Something may fail.
    Warning,
    /// Good to know.
    Info,
}

/// An event as it is told.
pub struct Digest<'a> {
    /// Its type.
    pub event_type: &'a str,
    /// One sentence.
    pub message: Cow<'a, str>,
    /// How bad it is.
    pub level: Level,
    /// When it happened.
    pub time: Timestamp,
    /// Id of the event.
    pub id: &'a str,
    /// Id of the delivery, the same on every attempt.
    pub delivery: uuid::Uuid,
    /// Id of the project.
    pub project_id: &'a str,
    /// What it is about, the most important first; at most 14.
    pub facts: Vec<Fact>,
    /// Id of the user.
    pub user: Option<&'a str>,
    /// Environment of the project.
    pub environment: Option<&'a str>,
    /// The error's own message.
    pub error: Option<String>,
    /// Where to look, an `http` or `https` URL.
    pub link: Option<String>,
    /// The thing that keeps failing, see [`Gist::subject`].
    pub subject: String,
    /// When the event was accepted.
    pub accepted: Timestamp,
    event: &'a Event,
}

impl<'a> Digest<'a> {
    pub(super) fn of(
        event: &'a Event,
        destination: &Identity,
        severity: &[(Vec<TypePattern>, Level)],
    ) -> Self {
        let content = &event.content;
        let event_type = &*content.event_type;
        let gist = Gist::of(event);
        Self {
            event_type,
            level: level_of(event_type, severity),
            time: Timestamp::from_millisecond(content.timestamp).unwrap_or(event.accepted),
            accepted: event.accepted,
            id: event.id.as_str(),
            delivery: id::delivery_id(&event.id, &event.project.uid, &destination.uid),
            project_id: &event.project.id,
            user: content.user.as_ref().map(|user| user.id.as_str()),
            environment: event.project.environment.as_deref(),
            link: link(&gist.data),
            subject: gist.subject(event),
            message: gist.headline,
            error: gist.error,
            facts: gist.facts,
            event,
        }
    }

    /// The whole event, as templates see it, in at most so many bytes of JSON, see [`shrink`].
    pub(super) fn event_within(&self, most: usize) -> Value {
        let whole: Value = serde_json::from_str(&shape::event_view(self.event)).unwrap_or_default();
        shrink(&whole, most)
    }

    /// The name of what is meant by a fact of that label.
    pub(super) fn fact(&self, label: &str) -> Option<&str> {
        let found = self.facts.iter().find(|fact| fact.label == label);
        found.map(Fact::name)
    }
}

fn level_of(event_type: &str, severity: &[(Vec<TypePattern>, Level)]) -> Level {
    let chosen = severity
        .iter()
        .find(|(patterns, _)| patterns.iter().any(|pattern| pattern.matches(event_type)));
    if let Some((_, level)) = chosen {
        return *level;
    }
    let lower = event_type.to_ascii_lowercase();
    if lower.contains("fail") || lower.contains("error") || lower.contains("exhausted") {
        Level::Error
    } else if ["cancel", "archived", "disabled", "expired"]
        .iter()
        .any(|word| lower.contains(word))
    {
        Level::Warning
    } else {
        Level::Info
    }
}

/// The first link that events of the catalogue carry.
fn link(data: &Data<'_>) -> Option<String> {
    ["executionUrl", "admin_link", "url"]
        .into_iter()
        .find_map(|name| {
            let url = url::Url::parse(data.value(name)?.as_str()?).ok()?;
            let fits = matches!(url.scheme(), "http" | "https") && url.as_str().len() <= MAX_LINK;
            // A user name in front of the host can pass for the host.
            let is_plain = url.username().is_empty() && url.password().is_none();
            (fits && is_plain).then(|| url.into())
        })
}

/// What a service counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// UTF-16 units; never fewer than characters, so also for services that do not say what they count.
    Utf16,
    /// Bytes of UTF-8.
    Bytes,
    /// Bytes of the text within JSON.
    Json,
}

impl Unit {
    pub(super) const fn of(self, char: char) -> usize {
        match self {
            Self::Utf16 => char.len_utf16(),
            Self::Bytes => char.len_utf8(),
            Self::Json => match char {
                '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
                '\0'..='\u{1f}' => 6,
                _ => char.len_utf8(),
            },
        }
    }
}

/// At most so many UTF-16 units; shortened text says so.
pub(super) fn cut(text: &str, most: usize) -> String {
    cut_by(Unit::Utf16, text, most)
}

/// The same in another unit.
pub(super) fn cut_by(unit: Unit, text: &str, most: usize) -> String {
    escape_within(unit, text, most, |_| None)
}

/// Escapes and shortens so that what is escaped is within the bound, and no escape is cut in two.
pub(super) fn escape_within(
    unit: Unit,
    text: &str,
    most: usize,
    escape: impl Fn(char) -> Option<&'static str>,
) -> String {
    let size = |text: &str| text.chars().map(|char| unit.of(char)).sum::<usize>();
    let room = most.saturating_sub(size(CUT));
    let mut out = String::new();
    let mut used = 0;
    // As much as is sure to have room for the ending beside it.
    let mut sure = 0;
    for char in text.chars() {
        let escaped = escape(char);
        used += escaped.map_or_else(|| unit.of(char), size);
        if used > most {
            out.truncate(sure);
            if room > 0 {
                out.push_str(CUT);
            }
            return out;
        }
        match escaped {
            Some(escaped) => out.push_str(escaped),
            None => out.push(char),
        }
        if used <= room || room == 0 {
            sure = out.len();
        }
    }
    out
}
