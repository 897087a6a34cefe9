//! What keys need of templates: an expression without braces, and numbers as they were written.
//!
//! A key tells events apart, so two numbers that a receiver is sent as different ones must not be one. Where a value holds
//! a number that is no 64-bit integer, the event is read once more with such numbers as text, each behind [`MARK`].

use std::borrow::Cow;
use std::cell::OnceCell;

use serde_json::Value;

use super::path::{Path, Root};
use super::{Context, Filter, MAX_OUTPUT, Step, Template, grammar};
use crate::domain::delivery::Attempt;
use crate::domain::destination::Identity;
use crate::domain::event::Event;
use crate::domain::shape::{self, RenderError};

/// Stands before the digits of a number; no event's text has it.
const MARK: char = '\0';
/// The same in JSON.
const MARK_JSON: &str = "\\u0000";

/// What a key says of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct KeyText {
    /// The text.
    pub text: String,
    /// A placeholder of it is null.
    pub has_null: bool,
}

impl Template {
    /// Compiles an expression that stands without braces, such as `$.event.user.id`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse_bare(source: &str) -> Result<Self, String> {
        let placeholder = grammar::bare(source)?;
        Ok(Self {
            steps: [Step::Text(placeholder)].into(),
            is_text: true,
        })
    }

    /// Renders what an event is told apart by.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_key(
        &self,
        event: &Event,
        destination: &Identity,
        attempt: Attempt,
    ) -> Result<KeyText, RenderError> {
        let context = Context {
            event,
            destination,
            attempt,
            exact: Some(Exact::default()),
        };
        let (mut text, mut value) = (String::new(), String::new());
        let mut has_null = false;
        for step in &self.steps {
            match step {
                Step::Literal(literal) => text.push_str(literal),
                Step::Typed(placeholder) | Step::Text(placeholder) => {
                    value.clear();
                    context.text(placeholder, false, &mut value)?;
                    // Text that reads "null" is a value like any other.
                    has_null |= value == "null"
                        && (placeholder.filters.contains(&Filter::Json)
                            || context.evaluate(placeholder)?.is_null());
                    text.push_str(value.strip_prefix(MARK).unwrap_or(&value));
                }
            }
            if text.len() > MAX_OUTPUT {
                return Err(RenderError::TooLarge(MAX_OUTPUT));
            }
        }
        Ok(KeyText { text, has_null })
    }
}

/// `$.event` with numbers as they were written; made when a value has need of it.
#[derive(Debug, Default)]
pub(super) struct Exact(OnceCell<Value>);

impl Exact {
    /// What a path leads to, given the same with numbers as templates see them.
    pub(super) fn of<'v>(&self, event: &Event, path: &Path, value: Cow<'v, Value>) -> Option<Cow<'v, Value>> {
        if path.root != Root::Event || !has_float(&value) {
            return Some(value);
        }
        if path.is_whole_event() {
            return Some(Cow::Owned(read(&shape::whole_event(event))));
        }
        let view = self.0.get_or_init(|| read(&shape::event_view(event)));
        path.take(view).map(Cow::Owned)
    }
}

fn read(json: &str) -> Value {
    serde_json::from_str(&marked(json)).unwrap_or_default()
}

/// Recurses as deep as events are nested, which is bounded.
fn has_float(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.is_f64(),
        Value::Array(items) => items.iter().any(has_float),
        Value::Object(members) => members.values().any(has_float),
        _ => false,
    }
}

/// Valid JSON with each number that is no 64-bit integer as marked text.
fn marked(json: &str) -> String {
    let mut out = String::with_capacity(json.len() + 64);
    let mut rest = json;
    while let Some(at) = rest.find(|c: char| matches!(c, '"' | '-' | '0'..='9')) {
        let (before, token) = rest.split_at(at);
        out.push_str(before);
        let is_text = token.starts_with('"');
        let end = if is_text {
            end_of_text(token)
        } else {
            token
                .find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'))
                .unwrap_or(token.len())
        };
        let (token, after) = token.split_at(end);
        if is_text || is_exact(token) {
            out.push_str(token);
        } else {
            out.push('"');
            out.push_str(MARK_JSON);
            out.push_str(token);
            out.push('"');
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Where a string ends that a text begins with.
fn end_of_text(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Whether a number is read as it was written.
fn is_exact(number: &str) -> bool {
    number != "-0" && (number.parse::<u64>().is_ok() || number.parse::<i64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_integers_of_64_bits_become_text() {
        let json = r#"{"a-1":[1,-2,1.50,1e3],"\"9.5":18446744073709551615,"b":18446744073709551616,"c":"-0","d":-0}"#;
        let expected = r#"{"a-1":[1,-2,"\u00001.50","\u00001e3"],"\"9.5":18446744073709551615,"b":"\u000018446744073709551616","c":"-0","d":"\u0000-0"}"#;
        assert_eq!(marked(json), expected);
    }
}
