//! [`Template`]: any JSON value whose strings may hold `{{ … }}` placeholders.
//!
//! ```text
//! placeholder = "{{" head { "|" filter } "}}"
//! head        = path | string
//! path        = [ "$." ] root { "." name | "[" index "]" | "[" string "]" }
//! root        = "event" | "project" | "destination" | "delivery"
//! filter      = "default" "(" JSON value or 'text' ")" | "json"
//! name        = one or more letters, digits, "_", "-"
//! string      = a JSON string, or text between single quotes without escapes
//! ```
//!
//! * A placeholder that is the whole string becomes the value itself, with its type; one among other text becomes
//!   text: strings as they are, numbers, booleans and `null` as JSON, objects and arrays only through `| json`.
//! * A path that leads nowhere is an error that no retry mends, unless `| default(…)` follows. `default` also stands
//!   in for `null`. `json` makes text of any value. To write `{{` itself: `{{ "{{" }}`.
//! * Member names are literal; `{{` in one is a fault.
//! * The template is one string: when it is JSON text of an object or array, its strings are treated as above; when
//!   it is one placeholder, the body is that value as JSON; else the body is text and the content type `text/plain`.
//!   White space around it does not count.
//!
//! `$.event` alone is the `Event` format, byte for byte. Its members, and beside them `id`, `sync`, `error`,
//! `cloudEvent`, `environment` and `account`, are reached by name: `$.event.message`, `$.event.data.rows[0]`.
//! `project` has `id` and `name`, `destination` has `id` and `name`, `delivery` has `id`, `attempt` and
//! `publishedAt`. Misspelt names of these are faults when the template is parsed, not when an event comes.
//!
//! [`Template::parse`] compiles to a flat list of steps, so rendering neither recurses nor loops: one step for each
//! placeholder, output at most [`MAX_OUTPUT`]. Numbers inside `data` pass through 64-bit integers and floats here;
//! only the formats, `$.event` alone and [`key`]s keep longer ones digit by digit.

pub mod field;
mod grammar;
pub mod key;
mod path;

use std::borrow::Cow;

use serde_json::{Value, json};

use self::key::Exact;
use self::path::{Path, Root};
use super::delivery::Attempt;
use super::destination::Identity;
use super::event::Event;
use super::id;
use super::shape::write::{Json, escape};
use super::shape::{self, Place, RenderError, Rendered};

/// Longest template, as compact JSON.
pub const MAX_SOURCE: usize = 64 * 1024;
/// Deepest nesting of a template.
pub const MAX_DEPTH: usize = 32;
/// Most placeholders of a template.
pub const MAX_PLACEHOLDERS: usize = 1000;
/// Most segments of a path.
pub const MAX_SEGMENTS: usize = 32;
/// Most filters of a placeholder.
pub const MAX_FILTERS: usize = 8;
/// Longest body.
pub const MAX_OUTPUT: usize = 1024 * 1024;
/// Most faults that parsing reports.
const MAX_FAULTS: usize = 32;

/// A parsed template.
#[derive(Clone, Debug, PartialEq)]
pub struct Template {
    steps: Box<[Step]>,
    is_text: bool,
}

/// One thing wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplateFault {
    /// Where in the template (RFC 6901); empty for the root.
    pub pointer: String,
    /// What is wrong and what to do, with the position inside the string; lower case, no full stop.
    pub message: String,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    /// Goes out as it is.
    Literal(Box<str>),
    /// Becomes a JSON value.
    Typed(Placeholder),
    /// Becomes text: inside a JSON string, or of a text body.
    Text(Placeholder),
}

#[derive(Clone, Debug, PartialEq)]
struct Placeholder {
    pointer: Box<str>,
    head: Head,
    filters: Box<[Filter]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Head {
    Path(Path),
    Literal(Box<str>),
}

#[derive(Clone, Debug, PartialEq)]
enum Filter {
    Default(Value),
    Json,
}

impl Template {
    /// Compiles a template.
    ///
    /// # Errors
    /// Every fault, each with its place; at most 32.
    pub fn parse(source: &Value) -> Result<Self, Vec<TemplateFault>> {
        let mut compiler = Compiler::default();
        if let Some(message) = oversized(source) {
            return Err(vec![TemplateFault {
                pointer: String::new(),
                message,
            }]);
        }
        let is_text = match source {
            Value::String(text) => compiler.root_string(text),
            tree => {
                compiler.value(tree);
                false
            }
        };
        compiler.flush();
        if compiler.faults.is_empty() {
            Ok(Self {
                steps: compiler.steps.into(),
                is_text,
            })
        } else {
            Err(compiler.faults)
        }
    }

    /// Compiles a template whose result is text whatever it looks like, such as a subject.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse_text(source: &str) -> Result<Self, Vec<TemplateFault>> {
        let mut compiler = Compiler::default();
        if source.len() > MAX_SOURCE {
            compiler.fault(format!(
                "the template is longer than {MAX_SOURCE} bytes; shorten it"
            ));
        } else {
            let pieces = compiler.pieces("", source);
            compiler.plain(pieces);
        }
        compiler.flush();
        if compiler.faults.is_empty() {
            Ok(Self {
                steps: compiler.steps.into(),
                is_text: true,
            })
        } else {
            Err(compiler.faults)
        }
    }

    /// Renders an event into text; `write` puts the value of each placeholder where it belongs, escaped or not.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_text(
        &self,
        event: &Event,
        destination: &Identity,
        attempt: Attempt,
        write: impl Fn(&str, &mut String),
    ) -> Result<String, RenderError> {
        let context = Context {
            event,
            destination,
            attempt,
            exact: None,
        };
        let (mut out, mut value) = (String::new(), String::new());
        for step in &self.steps {
            match step {
                Step::Literal(text) => out.push_str(text),
                Step::Typed(placeholder) | Step::Text(placeholder) => {
                    value.clear();
                    context.text(placeholder, false, &mut value)?;
                    write(&value, &mut out);
                }
            }
            if out.len() > MAX_OUTPUT {
                return Err(RenderError::TooLarge(MAX_OUTPUT));
            }
        }
        Ok(out)
    }

    /// The same template, for messages about events: it does not stand in the spec, but there.
    #[must_use]
    pub fn held_by(mut self, holder: &str) -> Self {
        for step in &mut self.steps {
            if let Step::Typed(placeholder) | Step::Text(placeholder) = step {
                placeholder.pointer = format!("{holder}{}", placeholder.pointer).into();
            }
        }
        self
    }

    /// Whether the body is text, not JSON.
    #[must_use]
    pub const fn is_text(&self) -> bool {
        self.is_text
    }

    /// Renders an event.
    ///
    /// # Errors
    /// When a path without a default leads nowhere, an object or array stands inside text, or the body grows over
    /// [`MAX_OUTPUT`].
    pub fn render(
        &self,
        event: &Event,
        destination: &Identity,
        attempt: Attempt,
    ) -> Result<Rendered, RenderError> {
        let context = Context {
            event,
            destination,
            attempt,
            exact: None,
        };
        let mut out = String::with_capacity(1024);
        for step in &self.steps {
            match step {
                Step::Literal(text) => out.push_str(text),
                Step::Typed(placeholder) => context.typed(placeholder, &mut out)?,
                Step::Text(placeholder) => context.text(placeholder, !self.is_text, &mut out)?,
            }
            if out.len() > MAX_OUTPUT {
                return Err(RenderError::TooLarge(MAX_OUTPUT));
            }
        }
        let content_type = if self.is_text { shape::TEXT } else { shape::JSON };
        Ok(Rendered {
            content_type,
            body: out.into(),
        })
    }
}

/// Turns a tree into steps.
#[derive(Default)]
struct Compiler {
    steps: Vec<Step>,
    literal: String,
    /// Place of the value at hand.
    pointer: String,
    placeholders: usize,
    faults: Vec<TemplateFault>,
}

impl Compiler {
    /// Compiles a template that is one string; tells whether the body is text.
    fn root_string(&mut self, whole: &str) -> bool {
        let (cut, text) = whole.split_at(whole.len() - whole.trim_start().len());
        let text = text.trim_end();
        if text.starts_with(['{', '['])
            && let Ok(tree @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text)
        {
            if depth(&tree) > MAX_DEPTH {
                self.fault(format!(
                    "the template nests deeper than {MAX_DEPTH} objects and arrays; make it flatter"
                ));
            } else {
                self.value(&tree);
            }
            return false;
        }
        let pieces = self.pieces(cut, text);
        if let [grammar::Piece::Placeholder(_)] = pieces.as_slice() {
            self.string(pieces);
            return false;
        }
        self.plain(pieces);
        true
    }

    fn plain(&mut self, pieces: Vec<grammar::Piece<'_>>) {
        for piece in pieces {
            match piece {
                grammar::Piece::Text(text) => self.literal.push_str(text),
                grammar::Piece::Placeholder(placeholder) => {
                    self.flush();
                    self.steps.push(Step::Text(placeholder));
                }
            }
        }
    }

    /// Recurses at most [`MAX_DEPTH`] deep, which `oversized` has made sure of.
    fn value(&mut self, value: &Value) {
        let length = self.pointer.len();
        match value {
            Value::String(text) => {
                let pieces = self.pieces("", text);
                self.string(pieces);
            }
            Value::Array(items) => {
                self.literal.push('[');
                for (index, item) in items.iter().enumerate() {
                    if index > 0 {
                        self.literal.push(',');
                    }
                    self.pointer.push('/');
                    self.pointer.push_str(&index.to_string());
                    self.value(item);
                    self.pointer.truncate(length);
                }
                self.literal.push(']');
            }
            Value::Object(members) => {
                self.literal.push('{');
                for (index, (name, member)) in members.iter().enumerate() {
                    if index > 0 {
                        self.literal.push(',');
                    }
                    self.pointer.push('/');
                    self.pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
                    if name.contains("{{") {
                        self.fault(
                            "this member name holds a placeholder, but names are literal; placeholders stand in values only".to_owned(),
                        );
                    }
                    self.quoted(name);
                    self.literal.push(':');
                    self.value(member);
                    self.pointer.truncate(length);
                }
                self.literal.push('}');
            }
            scalar => self.literal.push_str(&scalar.to_string()),
        }
    }

    fn string(&mut self, pieces: Vec<grammar::Piece<'_>>) {
        if let [grammar::Piece::Placeholder(_)] = pieces.as_slice() {
            self.flush();
            self.steps
                .extend(pieces.into_iter().filter_map(|piece| match piece {
                    grammar::Piece::Placeholder(placeholder) => Some(Step::Typed(placeholder)),
                    grammar::Piece::Text(_) => None,
                }));
            return;
        }
        self.literal.push('"');
        for piece in pieces {
            match piece {
                grammar::Piece::Text(text) => escape(text, &mut self.literal),
                grammar::Piece::Placeholder(placeholder) => {
                    self.flush();
                    self.steps.push(Step::Text(placeholder));
                }
            }
        }
        self.literal.push('"');
    }

    /// The pieces of a string; none after a fault in it.
    fn pieces<'a>(&mut self, cut: &str, text: &'a str) -> Vec<grammar::Piece<'a>> {
        match grammar::pieces(cut, text, &self.pointer, MAX_PLACEHOLDERS - self.placeholders) {
            Ok(pieces) => {
                let placeholders = pieces
                    .iter()
                    .filter(|piece| matches!(piece, grammar::Piece::Placeholder(_)));
                self.placeholders += placeholders.count();
                pieces
            }
            Err(message) => {
                self.fault(message);
                Vec::new()
            }
        }
    }

    fn quoted(&mut self, text: &str) {
        self.literal.push('"');
        escape(text, &mut self.literal);
        self.literal.push('"');
    }

    fn flush(&mut self) {
        if !self.literal.is_empty() {
            self.steps
                .push(Step::Literal(std::mem::take(&mut self.literal).into()));
        }
    }

    fn fault(&mut self, message: String) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(TemplateFault {
                pointer: self.pointer.clone(),
                message,
            });
        }
    }
}

fn oversized(source: &Value) -> Option<String> {
    if depth(source) > MAX_DEPTH {
        return Some(format!(
            "the template nests deeper than {MAX_DEPTH} objects and arrays; make it flatter"
        ));
    }
    let length = match source {
        Value::String(text) => text.len(),
        tree => tree.to_string().len(),
    };
    (length > MAX_SOURCE)
        .then(|| format!("the template is longer than {MAX_SOURCE} bytes as JSON; shorten it"))
}

/// Nesting of a value; counting ends one past [`MAX_DEPTH`].
fn depth(value: &Value) -> usize {
    fn below(value: &Value, budget: usize) -> usize {
        if budget == 0 {
            return 0;
        }
        let deepest = match value {
            Value::Array(items) => items.iter().map(|item| below(item, budget - 1)).max(),
            Value::Object(members) => members.values().map(|member| below(member, budget - 1)).max(),
            _ => return 0,
        };
        1 + deepest.unwrap_or(0)
    }
    below(value, MAX_DEPTH + 1)
}

/// What placeholders are resolved against.
struct Context<'a> {
    event: &'a Event,
    destination: &'a Identity,
    attempt: Attempt,
    /// `$.event` with numbers as they were written, which keys are made of.
    exact: Option<Exact>,
}

impl<'a> Context<'a> {
    fn typed(&self, placeholder: &Placeholder, out: &mut String) -> Result<(), RenderError> {
        if let Head::Path(path) = &placeholder.head
            && path.is_whole_event()
            && !placeholder.filters.contains(&Filter::Json)
        {
            out.push_str(&shape::whole_event(self.event));
            return Ok(());
        }
        match &*self.evaluate(placeholder)? {
            Value::String(text) => {
                out.push('"');
                escape(text, out);
                out.push('"');
            }
            value => out.push_str(&value.to_string()),
        }
        Ok(())
    }

    fn text(&self, placeholder: &Placeholder, quoted: bool, out: &mut String) -> Result<(), RenderError> {
        let value = self.evaluate(placeholder)?;
        let kind = match &*value {
            Value::String(text) if quoted => {
                escape(text, out);
                return Ok(());
            }
            Value::String(text) => {
                out.push_str(text);
                return Ok(());
            }
            Value::Object(_) => "an object",
            Value::Array(_) => "an array",
            scalar => {
                out.push_str(&scalar.to_string());
                return Ok(());
            }
        };
        Err(RenderError::NotText {
            pointer: placeholder.place(),
            path: placeholder.shown(),
            kind,
        })
    }

    fn evaluate<'p>(&'p self, placeholder: &'p Placeholder) -> Result<Cow<'p, Value>, RenderError> {
        let mut value = match &placeholder.head {
            Head::Literal(text) => Some(Cow::Owned(Value::String(text.to_string()))),
            Head::Path(path) => {
                let value = self.resolve(path);
                match (&self.exact, value) {
                    (Some(exact), Some(value)) => exact.of(self.event, path, value),
                    (_, value) => value,
                }
            }
        };
        for filter in &placeholder.filters {
            value = match (filter, value) {
                (Filter::Default(fallback), None) => Some(Cow::Borrowed(fallback)),
                (Filter::Default(fallback), Some(value)) if value.is_null() => Some(Cow::Borrowed(fallback)),
                (Filter::Default(_), value) | (Filter::Json, value @ None) => value,
                (Filter::Json, Some(value)) => Some(Cow::Owned(Value::String(value.to_string()))),
            };
        }
        value.ok_or_else(|| RenderError::NoValue {
            pointer: placeholder.place(),
            path: placeholder.shown(),
        })
    }

    fn resolve(&self, path: &Path) -> Option<Cow<'a, Value>> {
        if path.is_whole_event() {
            return serde_json::from_str(&shape::whole_event(self.event))
                .ok()
                .map(Cow::Owned);
        }
        match path.root {
            Root::Event => path.walk(self.event.template_view()).map(Cow::Borrowed),
            Root::Project => path
                .walk(self.event.template_view().get("project")?)
                .map(Cow::Borrowed),
            Root::Destination => path.take(&self.destination_view()).map(Cow::Owned),
            Root::Delivery => path.take(&self.delivery_view()).map(Cow::Owned),
        }
    }

    fn destination_view(&self) -> Value {
        json!({"name": &*self.destination.key.name, "id": self.destination.uid.as_str()})
    }

    fn delivery_view(&self) -> Value {
        let delivery = id::delivery_id(&self.event.id, &self.event.project.uid, &self.destination.uid);
        let mut published = Json::with_capacity(32);
        published.time(self.event.accepted);
        json!({
            "id": delivery.to_string(),
            "attempt": self.attempt.number,
            "publishedAt": published.finish().trim_matches('"'),
        })
    }
}

impl Placeholder {
    fn place(&self) -> Place {
        Place(self.pointer.clone())
    }

    fn shown(&self) -> String {
        match &self.head {
            Head::Path(path) => path.to_string(),
            Head::Literal(_) => "the text".to_owned(),
        }
    }
}

impl Event {
    /// The event as templates see it, made once.
    fn template_view(&self) -> &Value {
        self.view
            .get_or_init(|| serde_json::from_str(&shape::event_view(self)).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests;
