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
//! What is left depends on the event: how often a filter goes over all of it is counted when the filter is read, and an
//! event for which that is over [`MAX_WORK`] bytes is not looked at.
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
/// Most bytes of the event that one evaluation may go over, each counted as often as it is gone over.
pub const MAX_WORK: usize = 32 * 1024 * 1024;
/// The variables of a filter.
pub const VARIABLES: [&str; 3] = ["event", "project", "user"];

static LIBRARY: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// A condition over an event.
pub struct Filter {
    source: Box<str>,
    program: Program,
    work: Work,
    has_loop: bool,
    is_slow: bool,
}

/// How often a filter may go over the whole event.
#[derive(Clone, Copy, Debug, Default)]
struct Work {
    once: usize,
    /// For each element of a list.
    each: usize,
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
    /// The event is too large for what the condition does with it.
    TooMuchWork,
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
        let (has_loop, work) = (bounds.has_loop, bounds.work());
        let is_slow = has_loop || bounds.patterns > 0;
        Ok(Self {
            source: source.into(),
            program,
            work,
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

    /// How often an evaluation may go over the whole event, loops apart.
    #[must_use]
    pub const fn passes(&self) -> usize {
        self.work.once
    }

    /// Whether an event matches.
    ///
    /// # Errors
    /// Why it does not.
    pub fn matches(&self, facts: &Facts) -> Result<(), NoMatch> {
        if self.has_loop && facts.longest > MAX_ELEMENTS {
            return Err(NoMatch::TooManyElements);
        }
        let passes = self
            .work
            .each
            .saturating_mul(facts.longest)
            .saturating_add(self.work.once);
        if passes.saturating_mul(facts.weight) > MAX_WORK {
            return Err(NoMatch::TooMuchWork);
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
fn is_pattern(pattern: &str) -> bool {
    let mut context = Context::with_env(Arc::clone(&LIBRARY));
    context.add_variable_from_value("p", pattern.to_owned());
    Program::compile("''.matches(p)").is_ok_and(|program| program.execute(&context).is_ok())
}

/// An event as filters see it; made once and shared by all of them.
pub struct Facts {
    context: Context<'static, 'static>,
    /// Elements of the longest list or object; 1 at least.
    longest: usize,
    /// Bytes of the event.
    weight: usize,
}

impl Facts {
    /// What filters see of an event: `event` as templates see it, and its `project` and `user` by themselves. An
    /// event without a user has one with empty `metadata` alone.
    #[must_use]
    pub fn of(event: &Event) -> Self {
        let text = shape::event_view(event);
        // What was accepted is JSON that a `Value` can hold.
        let view: Value = serde_json::from_str(&text).unwrap_or_default();
        let part = |name, otherwise| view.get(name).cloned().unwrap_or(otherwise);
        let (project, user) = (part("project", json!({})), part("user", json!({"metadata": {}})));
        let mut longest = 1;
        let mut context = Context::with_env(Arc::clone(&LIBRARY));
        for (name, value) in VARIABLES.into_iter().zip([view, project, user]) {
            context.add_variable_from_value(name, cel_value(value, &mut longest));
        }
        let weight = text.len();
        Self {
            context,
            longest,
            weight,
        }
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
