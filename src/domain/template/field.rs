//! Templates of single fields of a request: the value of a header, and path and query of a URL.
//!
//! What an event brings never leaves its place: in a URL it is percent-encoded, so it can neither end a segment or a
//! parameter nor change the host; in a header a control character becomes a space. Scheme, host and port of a URL
//! are literal, so that the egress guard, the pool of connections and the status know them before an event comes.

use http::HeaderValue;
use url::{Position, Url};

use super::{Placeholder, Step, Template, TemplateFault};
use crate::domain::delivery::Attempt;
use crate::domain::destination::Identity;
use crate::domain::event::Event;
use crate::domain::shape::RenderError;

/// Most bytes of a header's rendered value.
pub const MAX_HEADER: usize = 4096;
/// Most bytes of a rendered URL.
pub const MAX_URL: usize = 8192;

/// What stands for a placeholder while the rest of a URL is checked: part of any path or query as it is.
const MARK: &str = "postrider-placeholder-";
/// What ends it.
const END: char = '~';
/// What is said of a placeholder that is elsewhere.
const ELSEWHERE: &str = "placeholders may stand in path and query only, so that the host is known beforehand";

/// Why a field cannot be made of an event. Terminal: no retry mends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// A placeholder met an event it cannot render.
    #[error("{}", told(.field, .error))]
    Render {
        /// Path of the field.
        field: Box<str>,
        /// What went wrong.
        error: RenderError,
    },
    /// The value would be over its bound.
    #[error("{field}: the value would be over {most} bytes; send less of the event")]
    TooLong {
        /// Path of the field.
        field: Box<str>,
        /// The bound.
        most: usize,
    },
    /// A segment of the path would be `.` or `..`, which leads elsewhere.
    #[error(
        "{field}: a segment of the path would be \".\" or \"..\", which leads elsewhere; put other text beside it"
    )]
    DotSegment {
        /// Path of the field.
        field: Box<str>,
    },
}

/// What a template of a field could not do.
#[must_use]
pub fn told(field: &str, error: &RenderError) -> String {
    match error {
        RenderError::NoValue { path, .. } => {
            format!("{field}: the event has no {path}; publish it or add `| default(…)`")
        }
        RenderError::NotText { path, kind, .. } => {
            format!("{field}: {path} is {kind} and cannot stand inside text; add `| json`")
        }
        other => format!("{field}: {other}"),
    }
}

/// Whether a text has a placeholder, or the beginning of one.
#[must_use]
pub fn has_placeholder(text: &str) -> bool {
    text.contains("{{")
}

/// A template and the field it stands in.
#[derive(Clone, Debug, PartialEq)]
pub struct FieldTemplate {
    template: Template,
    field: Box<str>,
}

impl FieldTemplate {
    fn text(
        &self,
        event: &Event,
        destination: &Identity,
        attempt: Attempt,
        write: impl Fn(&str, &mut String),
    ) -> Result<String, FieldError> {
        self.template
            .render_text(event, destination, attempt, write)
            .map_err(|error| FieldError::Render {
                field: self.field.clone(),
                error,
            })
    }

    fn bounded(&self, text: String, most: usize) -> Result<String, FieldError> {
        if text.len() > most {
            let field = self.field.clone();
            return Err(FieldError::TooLong { field, most });
        }
        Ok(text)
    }
}

/// The value of a header.
#[derive(Clone, Debug, PartialEq)]
pub struct HeaderTemplate(FieldTemplate);

impl HeaderTemplate {
    /// Compiles the value of the header at `field`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(field: &str, value: &str) -> Result<Self, Vec<TemplateFault>> {
        Template::parse_text(value).map(|template| {
            Self(FieldTemplate {
                template,
                field: field.into(),
            })
        })
    }

    /// Renders the value: control characters become spaces, and what is not ASCII is percent-encoded as UTF-8, as
    /// CloudEvents does in headers ([HTTP binding §3.1.3.2]).
    ///
    /// # Errors
    /// When a path leads nowhere, or the value grows over [`MAX_HEADER`].
    ///
    /// [HTTP binding §3.1.3.2]: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md#3132-http-header-values
    pub fn render(
        &self,
        event: &Event,
        destination: &Identity,
        attempt: Attempt,
    ) -> Result<HeaderValue, FieldError> {
        let text = self.0.text(event, destination, attempt, |value, out| {
            for character in value.chars() {
                match character {
                    ' '..='~' => out.push(character),
                    character if character.is_ascii() => out.push(' '),
                    character => percent(character.encode_utf8(&mut [0; 4]).as_bytes(), out),
                }
            }
        })?;
        let text = self.0.bounded(text, MAX_HEADER)?;
        // The literal parts were checked when the destination was, and the rest is visible ASCII, so this holds.
        HeaderValue::from_str(text.trim_matches(' ')).map_err(|_| FieldError::TooLong {
            field: self.0.field.clone(),
            most: MAX_HEADER,
        })
    }
}

/// Path and query of a URL.
#[derive(Clone, Debug, PartialEq)]
pub struct UrlTemplate(FieldTemplate);

/// The placeholders of a URL, taken out of it.
#[derive(Clone, Debug)]
pub struct TakenOut(Vec<Placeholder>);

/// Takes the placeholders out of a URL and leaves marks, so that the rest can be checked and changed as any URL.
///
/// # Errors
/// What is wrong with a placeholder.
pub fn take_out(url: &str) -> Result<(String, TakenOut), String> {
    if url.contains(MARK) {
        return Err(format!("the URL must not hold {MARK:?}"));
    }
    let template = Template::parse_text(url).map_err(|faults| {
        let messages: Vec<_> = faults.into_iter().map(|fault| fault.message).collect();
        messages.join("; ")
    })?;
    let (mut marked, mut placeholders) = (String::with_capacity(url.len()), Vec::new());
    for step in template.steps {
        match step {
            Step::Literal(text) => marked.push_str(&text),
            Step::Typed(placeholder) | Step::Text(placeholder) => {
                marked.push_str(MARK);
                marked.push_str(&placeholders.len().to_string());
                marked.push(END);
                placeholders.push(placeholder);
            }
        }
    }
    let authority = marked.find("//").map_or(0, |at| at + 2);
    let path = marked
        .get(authority..)
        .and_then(|rest| rest.find(['/', '?']))
        .map_or(marked.len(), |at| authority + at);
    if marked.find(MARK).is_some_and(|mark| mark < path) {
        return Err(ELSEWHERE.to_owned());
    }
    Ok((marked, TakenOut(placeholders)))
}

impl TakenOut {
    /// Puts the placeholders back where their marks are.
    ///
    /// # Errors
    /// When one is not in path or query.
    pub fn put_back(self, field: &str, url: &Url) -> Result<UrlTemplate, String> {
        // Some spellings, such as `http:///a`, make a host of what looks like a path.
        if url[..Position::BeforePath].contains(MARK) {
            return Err(ELSEWHERE.to_owned());
        }
        let text = url.as_str();
        let mut steps = Vec::with_capacity(2 * self.0.len() + 1);
        let mut rest = text;
        for (index, mut placeholder) in self.0.into_iter().enumerate() {
            let mark = format!("{MARK}{index}{END}");
            let (before, after) = rest.split_once(&mark).ok_or(ELSEWHERE)?;
            steps.push(Step::Literal(before.into()));
            placeholder.pointer = "".into();
            steps.push(Step::Text(placeholder));
            rest = after;
        }
        steps.push(Step::Literal(rest.into()));
        Ok(UrlTemplate(FieldTemplate {
            template: Template {
                steps: steps.into(),
                is_text: true,
            },
            field: field.into(),
        }))
    }
}

impl UrlTemplate {
    /// Renders the URL. What an event brings is percent-encoded but for unreserved characters (RFC 3986 §2.3).
    ///
    /// # Errors
    /// When a path leads nowhere, the URL grows over [`MAX_URL`], or a segment would be `.` or `..`.
    pub fn render(&self, event: &Event, destination: &Identity, attempt: Attempt) -> Result<Url, FieldError> {
        let text = self.0.text(event, destination, attempt, |value, out| {
            percent(value.as_bytes(), out);
        })?;
        let text = self.0.bounded(text, MAX_URL)?;
        let elsewhere = || FieldError::DotSegment {
            field: self.0.field.clone(),
        };
        let path = text.split(['?', '#']).next().unwrap_or_default();
        if path.split('/').any(is_dot_segment) {
            return Err(elsewhere());
        }
        Url::parse(&text).map_err(|_| elsewhere())
    }
}

/// Whether a segment is `.` or `..`, also where a dot is written `%2e` (WHATWG URL §4.3).
fn is_dot_segment(segment: &str) -> bool {
    let plain = segment.replace("%2e", ".").replace("%2E", ".");
    matches!(plain.as_str(), "." | "..")
}

/// Writes bytes, all but unreserved characters percent-encoded.
fn percent(bytes: &[u8], out: &mut String) {
    use std::fmt::Write as _;

    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests;
