//! [`Filter`]: a condition over an event, in CEL.
//!
//! Owns the language that `spec.filter` takes: CEL without what could be made to take long. A filter is judged when
//! it is applied, by its text and its parsed form, because evaluation itself has no bounds:
//!
//! - at most [`MAX_FILTER`] bytes, which is also what keeps the recursive parser within its stack, [`MAX_DEPTH`]
//!   levels and [`MAX_NODES`] nodes;
//! - `all`, `exists` and `exists_one` go over a list once, never within each other, and over at most
//!   [`MAX_ELEMENTS`] elements; `map` and `filter` would build lists;
//! - `matches` takes a text that stands in the filter, whose compiled size is bounded, never one out of the event;
//! - lists hold constants, so nothing copies the event.
//!
//! An event matches only when the condition is `true`. A missing member, a wrong type or a bound that is hit is no
//! match, and says which with [`NoMatch`]. Numbers of the event are signed, so that `event.data.n + 1` is a number.

mod bounds;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, ExecutionError, Program};
use serde_json::{Value, json};
use strum::{EnumIter, IntoStaticStr};

use self::bounds::Bounds;
use super::event::Event;
use super::shape;

/// Most bytes of a filter.
pub const MAX_FILTER: usize = 1024;
/// Most levels of a parsed filter.
pub const MAX_DEPTH: usize = 64;
/// Most nodes of a parsed filter.
pub const MAX_NODES: usize = 512;
/// Most elements that `all`, `exists` and `exists_one` go over.
pub const MAX_ELEMENTS: usize = 1024;
/// The variables of a filter.
pub const VARIABLES: [&str; 3] = ["event", "project", "user"];

static LIBRARY: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A condition over an event.
pub struct Filter {
    source: Box<str>,
    program: Program,
    has_loop: bool,
    is_slow: bool,
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Filter({:?})", self.source)
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Filter {}

/// Why an event does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, IntoStaticStr)]
pub enum NoMatch {
    /// The condition is false.
    False,
    /// The event lacks a member that the condition reads; `has(…)` asks first.
    MissingKey,
    /// The condition is no truth value.
    NotBoolean,
    /// A list is too long to go over.
    TooManyElements,
    /// Types do not fit, a number overflows, or the like.
    Failed,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong, where, and what to do.
    pub fn parse(source: &str) -> Result<Self, String> {
        if source.trim().is_empty() {
            return Err("the filter is empty; leave it out to have every event of the types".to_owned());
        }
        if source.len() > MAX_FILTER {
            return Err(format!("the filter is over {MAX_FILTER} bytes"));
        }
        bounds::check_text(source)?;
        let program = catch_unwind(AssertUnwindSafe(|| Program::compile(source)))
            .map_err(|_| "this is not CEL".to_owned())?
            .map_err(|errors| bounds::parse_message(source, &errors))?;
        let mut bounds = Bounds::new(source, program.source_info());
        bounds.check(program.expression())?;
        let (has_loop, patterns) = (bounds.has_loop, bounds.patterns);
        for pattern in &patterns {
            check_pattern(pattern)?;
        }
        let is_slow = has_loop || !patterns.is_empty();
        Ok(Self {
            source: source.into(),
            program,
            has_loop,
            is_slow,
        })
    }

    /// The text.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether evaluating can take longer than reading a few members does.
    #[must_use]
    pub const fn is_slow(&self) -> bool {
        self.is_slow
    }

    /// Whether an event matches.
    ///
    /// # Errors
    /// Why it does not.
    pub fn matches(&self, facts: &Facts) -> Result<(), NoMatch> {
        if self.has_loop && facts.longest > MAX_ELEMENTS {
            return Err(NoMatch::TooManyElements);
        }
        let result = catch_unwind(AssertUnwindSafe(|| self.program.execute(&facts.context)));
        match result.map_err(|_| NoMatch::Failed)? {
            Ok(cel::Value::Bool(true)) => Ok(()),
            Ok(cel::Value::Bool(false)) => Err(NoMatch::False),
            Ok(_) => Err(NoMatch::NotBoolean),
            Err(ExecutionError::NoSuchKey(_)) => Err(NoMatch::MissingKey),
            Err(_) => Err(NoMatch::Failed),
        }
    }
}

/// Whether the regular expression compiles: only an evaluation tells.
fn check_pattern(pattern: &str) -> Result<(), String> {
    let mut context = Context::with_env(Arc::clone(&LIBRARY));
    context.add_variable_from_value("p", pattern.to_owned());
    let compiles = Program::compile("''.matches(p)").is_ok_and(|program| program.execute(&context).is_ok());
    if compiles {
        Ok(())
    } else {
        let shown = super::event::refusal::quote(pattern);
        Err(format!(
            "the pattern {shown:?} of `matches` is no regular expression; there is no look-around"
        ))
    }
}

/// An event as filters see it; made once and shared by all of them.
pub struct Facts {
    context: Context<'static, 'static>,
    /// Elements of the longest list or object.
    longest: usize,
}

impl Facts {
    /// What filters see of an event: `event` as templates see it, and its `project` and `user` by themselves. An
    /// event without a user has one with empty `metadata` alone.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let view: Value = serde_json::from_str(&shape::event_view(event)).unwrap_or_default();
        let part = |name, otherwise| view.get(name).cloned().unwrap_or(otherwise);
        let (project, user) = (part("project", json!({})), part("user", json!({"metadata": {}})));
        let mut longest = 0;
        let mut context = Context::with_env(Arc::clone(&LIBRARY));
        for (name, value) in VARIABLES.into_iter().zip([view, project, user]) {
            context.add_variable_from_value(name, cel_value(value, &mut longest));
        }
        Self { context, longest }
    }
}

/// A JSON value, whose depth was bounded when it was parsed, with signed numbers.
fn cel_value(value: Value, longest: &mut usize) -> cel::Value {
    match value {
        Value::Null => cel::Value::Null,
        Value::Bool(truth) => cel::Value::Bool(truth),
        Value::Number(number) => number.as_i64().map_or_else(
            || cel::Value::Float(number.as_f64().unwrap_or(f64::MAX)),
            cel::Value::Int,
        ),
        Value::String(text) => cel::Value::String(Arc::new(text)),
        Value::Array(items) => {
            *longest = items.len().max(*longest);
            let items: Vec<_> = items.into_iter().map(|item| cel_value(item, longest)).collect();
            cel::Value::List(Arc::new(items))
        }
        Value::Object(members) => {
            *longest = members.len().max(*longest);
            let members = members
                .into_iter()
                .map(|(name, member)| (name, cel_value(member, longest)));
            cel::Value::from(members.collect::<HashMap<String, cel::Value>>())
        }
    }
}

#[cfg(test)]
mod tests;
