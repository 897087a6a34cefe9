//! Test sends: one example event, sent at once, whatever the destination's state, and what came of it.
//!
//! Owns the reading of what the annotation `postrider.dev/test` asks for, the choice of the event, and the wording of
//! the result. A test is no delivery: it is not queued, not tried again, and says nothing about the receiver's health.
//! Invariants: every value of the annotation is answered, a malformed one with what is wrong; the excerpt of a reply
//! is bounded and holds no value that the request carried from a Secret, nor parts of the URL that may be one.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::catalogue;
use super::confidential;
use super::destination::{Endpoint, Subscription};
use super::event::Event;
use super::event::parse::{is_event_type, parse};
use super::id::EventId;
use super::outcome::Outcome;
use super::project::Project;
use super::type_rules::TypeRules;

/// Most characters of the annotation that are read and echoed.
pub const MAX_ASKED: usize = 256;
/// Most characters of a reply's body that a result shows.
pub const MAX_EXCERPT: usize = 1024;
/// Shortest part of a URL or header that is looked for in a reply: shorter ones are no secrets.
const MIN_SECRET: usize = 6;
/// Shortest password that is looked for in a reply.
pub(super) const MIN_PASSWORD: usize = 4;
/// Stands for what must not be shown.
const REDACTED: &str = "[redacted]";

/// What the annotation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRequest {
    /// The whole value, which is handled once and echoed.
    pub asked: Arc<str>,
    /// The event type to send, when it names one.
    pub event_type: Option<Arc<str>>,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestResult {
    /// Value of the annotation that is answered, cut to [`MAX_ASKED`] characters.
    pub asked: Arc<str>,
    /// Type of the event that was sent.
    pub event_type: Option<Arc<str>>,
    /// How it ended.
    pub outcome: TestOutcome,
    /// One word, as in conditions and metrics.
    pub reason: String,
    /// HTTP status code of the answer, if there was one.
    pub status: Option<u16>,
    /// From the start of the request to the end of the answer; `None` when nothing was sent.
    pub latency: Option<Duration>,
    /// What happened and what to do.
    pub message: String,
    /// What the answer's body begins with.
    pub excerpt: Option<String>,
    /// When it ended.
    pub completed: Timestamp,
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TestOutcome {
    /// The receiver took it.
    Delivered,
    /// The receiver did not take it, or could not be reached.
    Failed,
    /// There was nothing to send, or it may not be sent.
    NotSent,
}

impl TestOutcome {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "Delivered",
            Self::Failed => "Failed",
            Self::NotSent => "NotSent",
        }
    }
}

/// Reason of a test that the annotation does not describe.
pub const INVALID_REQUEST: &str = "InvalidRequest";
/// Reason of a test of a destination whose configuration is not in force.
pub const NOT_READY: &str = "NotReady";
/// Reason of a test of a destination that has no project.
pub const NO_PROJECT: &str = "NoProject";

/// As much of the annotation as is echoed: what a result must be compared with.
#[must_use]
pub fn echo(asked: &str) -> &str {
    asked
        .char_indices()
        .nth(MAX_ASKED)
        .and_then(|(end, _)| asked.get(..end))
        .unwrap_or(asked)
}

impl TestRequest {
    /// Reads the annotation: `TOKEN`, or `TYPE@TOKEN` for the example of a type.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(asked: &str) -> Result<Self, String> {
        if echo(asked).len() < asked.len() {
            return Err(format!(
                "the annotation is over {MAX_ASKED} characters; a time will do"
            ));
        }
        let (event_type, token) = match asked.split_once('@') {
            Some((event_type, token)) => (Some(event_type), token),
            None => (None, asked),
        };
        if let Some(event_type) = event_type.filter(|event_type| !is_event_type(event_type)) {
            return Err(format!(
                "{event_type:?} is no event type; write TYPE@TOKEN, such as run_failed@1, or a token alone"
            ));
        }
        if token.trim().is_empty() {
            return Err("the token is empty; write TYPE@TOKEN, such as run_failed@1".to_owned());
        }
        Ok(Self {
            asked: asked.into(),
            event_type: event_type.map(Into::into),
        })
    }
}

/// An event to test with: the example of the type that is asked for, or of the first type that the destination wants.
/// What happens in it happens now. The same request always has the same id.
///
/// # Errors
/// What is wrong with the request, in words for the user.
pub fn event(
    request: &TestRequest,
    subscription: &Subscription,
    project: &Project,
    now: Timestamp,
) -> Result<Event, String> {
    let event_type = match &request.event_type {
        Some(asked) if subscription.wants(asked) => asked.to_string(),
        Some(asked) => {
            return Err(format!(
                "the destination does not want events of type {asked}; ask for a type that spec.events names"
            ));
        }
        None => first_type(subscription, &project.types).ok_or(
            "spec.events has no event type that is known; name one in the annotation, as TYPE@TOKEN",
        )?,
    };
    let body = example(&event_type, &project.types).to_string();
    let headers =
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let draft = parse(body.as_bytes(), &headers)
        .map_err(|error| format!("the example of type {event_type} is no event: {error}"))?
        .pop()
        .ok_or_else(|| format!("type {event_type} has no example"))?;
    let mut content = draft.content;
    content.timestamp = now.as_millisecond();
    let id = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, request.asked.as_bytes());
    Ok(Event::new(
        EventId::from_uuid(id),
        now,
        content,
        Arc::clone(&project.facts),
    ))
}

/// The first type that the destination wants: a project's own before the built-in ones, in their order, for each
/// pattern; a pattern without `*` is itself a type.
fn first_type(subscription: &Subscription, types: &TypeRules) -> Option<String> {
    subscription.events.iter().find_map(|pattern| {
        let own = types.types().iter().map(|own| own.name.as_str());
        let known = own.chain(catalogue::EVENT_TYPES.iter().map(|entry| entry.name));
        let text = pattern.to_string();
        let literal = (!text.contains('*')).then_some(text);
        known
            .map(ToOwned::to_owned)
            .find(|name| pattern.asks_for(name))
            .or(literal)
    })
}

/// An event of a type as it would be published.
fn example(event_type: &str, types: &TypeRules) -> Value {
    let own = types.types().iter().find(|own| own.name == event_type);
    if own.is_none()
        && let Some(entry) = catalogue::find(event_type)
    {
        return entry.definition().example;
    }
    json!({
        "type": event_type,
        "message": format!("A test event of type {event_type}"),
        "data": own.and_then(|own| own.example.clone()).unwrap_or_else(|| json!({})),
    })
}

impl TestResult {
    /// A test that was not sent.
    #[must_use]
    pub fn not_sent(asked: &str, reason: &str, message: impl Into<String>, now: Timestamp) -> Self {
        Self {
            asked: echo(asked).into(),
            event_type: None,
            outcome: TestOutcome::NotSent,
            reason: reason.to_owned(),
            status: None,
            latency: None,
            message: message.into(),
            excerpt: None,
            completed: now,
        }
    }

    /// A test that was tried.
    #[must_use]
    pub fn of(
        request: &TestRequest,
        event_type: &Arc<str>,
        outcome: &Outcome,
        latency: Duration,
        excerpt: Option<String>,
        now: Timestamp,
    ) -> Self {
        let (ended, reason, status, message) = match outcome {
            Outcome::Delivered { status } => (
                TestOutcome::Delivered,
                TestOutcome::Delivered.as_str(),
                Some(*status),
                format!("the receiver answered {status}"),
            ),
            Outcome::Failed(failure) => {
                let ended = if failure.reason.precedes_request() {
                    TestOutcome::NotSent
                } else {
                    TestOutcome::Failed
                };
                (
                    ended,
                    failure.reason.as_str(),
                    failure.status,
                    failure.message.clone(),
                )
            }
        };
        Self {
            asked: Arc::clone(&request.asked),
            event_type: Some(Arc::clone(event_type)),
            outcome: ended,
            reason: reason.to_owned(),
            status,
            latency: (ended != TestOutcome::NotSent).then_some(latency),
            message,
            excerpt,
            completed: now,
        }
    }
}

/// The beginning of a reply, at most [`MAX_EXCERPT`] characters in one line, without the URL's path and query and
/// without these values of headers and bodies, in whatever form it repeats them.
#[must_use]
pub fn excerpt(body: &[u8], endpoint: &Endpoint, secrets: &[Cow<'_, str>]) -> Option<String> {
    let mut text = String::from_utf8_lossy(body);
    if body.len() >= MIN_PASSWORD {
        let masked = confidential::masked(&text, &values(endpoint, secrets), REDACTED);
        text = masked.into_owned().into();
    }
    if text.contains(char::is_control) {
        text = text.replace(char::is_control, " ").into();
    }
    let text = text.trim();
    let cut = text.char_indices().nth(MAX_EXCERPT);
    let shown = match cut.and_then(|(end, _)| text.get(..end)) {
        Some(beginning) => format!("{beginning}…"),
        None => text.to_owned(),
    };
    (!shown.is_empty()).then_some(shown)
}

/// What must not be shown.
fn values(endpoint: &Endpoint, secrets: &[Cow<'_, str>]) -> Vec<String> {
    let url = endpoint.expose();
    let parts = secrets.iter().flat_map(|secret| secret.split_whitespace());
    let segments = url.path_segments().into_iter().flatten();
    let queries: Vec<String> = url.query_pairs().map(|(_, value)| value.into_owned()).collect();
    let logins: Vec<String> = secrets.iter().filter_map(|secret| login(secret)).collect();
    let pairs = logins.iter().filter_map(|login| login.split_once(':'));
    let (users, passwords): (Vec<&str>, Vec<&str>) = pairs.unzip();
    let mut all: Vec<String> = parts
        .chain(secrets.iter().map(|secret| secret.trim()))
        .chain([url.path(), url.query().unwrap_or_default()])
        .chain(segments)
        .chain(users)
        .map(ToOwned::to_owned)
        .chain(queries)
        .chain(logins.iter().cloned())
        .filter(|value| value.len() >= MIN_SECRET)
        .chain(passwords.into_iter().map(ToOwned::to_owned))
        .filter(|value| value.len() >= MIN_PASSWORD)
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// User name and password of a `Basic …`, as its receiver reads them.
fn login(header: &str) -> Option<String> {
    let (scheme, encoded) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let bytes = STANDARD.decode(encoded.trim()).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests;
