//! [`Schema`]: a compiled JSON Schema (draft 2020-12), and what is wrong with a value.
//!
//! Owns the bounds that make a stranger's schema harmless, all of them checked before it is compiled:
//!
//! - size, depth, number of subschemas, number of patterns;
//! - a `$ref` stays within the document, so nothing is ever fetched, and never leads back to itself, so that the work
//!   for one value is at most [`MAX_STEPS`] subschemas, however they refer to each other;
//! - patterns are matched in linear time: what needs backtracking does not compile;
//! - where `unevaluated…` looks into `allOf` and its like, these are gone through once more: on at most
//!   [`MAX_UNEVALUATED`] levels, because each doubles the work.
//!
//! What is left is the size of a value times that of its schema. Over [`MAX_CHECKS`] a value is not looked at, and is
//! wrong. To tell what is wrong costs more than to find that something is, so it is done for less.
//!
//! `format` is an annotation, as the draft has it, and is not checked.

use std::fmt;

use jsonschema::{Draft, PatternOptions, Validator};
use serde_json::{Map, Value};

use super::event::refusal::quote;

/// Most bytes of a schema, written as compact JSON.
pub const MAX_SCHEMA: usize = 32 * 1024;
/// Most levels of objects and arrays in a schema.
pub const MAX_SCHEMA_DEPTH: usize = 32;
/// Most subschemas that one value can meet, every `$ref` written out.
pub const MAX_STEPS: usize = 1024;
/// Most patterns of a schema.
pub const MAX_PATTERNS: usize = 16;
/// Longest list of a value that a schema with `uniqueItems` looks at: comparing all with all may be what it takes.
pub const MAX_UNIQUE: usize = 1024;
/// Most levels on which `unevaluatedProperties` and `unevaluatedItems` look into other schemas.
pub const MAX_UNEVALUATED: usize = 3;
/// Most checks of one value: its parts, two bytes each at least, times the weight of the schema.
pub const MAX_CHECKS: usize = 128 * 1024 * 1024;
/// Most checks of a value of which more than the first violation is looked for, and any when there are choices.
const TELLING: usize = 128 * 1024;
/// Entries of an `enum` that are as much work as one subschema.
const ENUM_PART: usize = 8;
/// Subschemas that are as much work as one pattern is for a short text.
const PATTERN_WEIGHT: usize = 32;
/// Subschemas that are as much work as a `multipleOf` with decimals.
const DECIMALS_WEIGHT: usize = 64;
/// Most bytes that a compiled pattern takes.
const PATTERN_BYTES: usize = 64 * 1024;
/// Subschemas that are as much work as one pattern.
const PATTERN_WORK: usize = 512;
/// Most violations of one value that are told.
const TOLD: usize = 8;
/// Longest value, in bytes of JSON, for which more than the first violation is looked for.
const THOROUGH: usize = 64 * 1024;
/// Most characters of a violation's text.
const MAX_TEXT: usize = 256;
/// The dialect.
const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

/// Keywords whose value is a schema.
const ONE: [&str; 11] = [
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
/// Keywords whose value is a list of schemas.
const LIST: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// Keywords whose value is an object of schemas.
const NAMED: [&str; 4] = [
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
];
/// Keywords that apply to the same value again, or, as `contains`, to each of its elements again.
const IN_PLACE: [&str; 11] = [
    "$ref",
    "allOf",
    "anyOf",
    "contains",
    "dependencies",
    "dependentSchemas",
    "else",
    "if",
    "not",
    "oneOf",
    "then",
];
/// Keywords about what no other keyword looked at.
const UNEVALUATED: [&str; 2] = ["unevaluatedItems", "unevaluatedProperties"];
/// Objects of schemas that apply only where they are referred to.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];
/// Keywords that would make a reference lead elsewhere than its text says.
const REFUSED: [&str; 6] = [
    "$anchor",
    "$dynamicAnchor",
    "$dynamicRef",
    "$recursiveAnchor",
    "$recursiveRef",
    "$vocabulary",
];

/// A compiled schema.
pub struct Schema {
    validator: Validator,
    steps: usize,
    patterns: usize,
    /// The work for each part of a value, in subschemas.
    weight: usize,
    /// `uniqueItems` stands somewhere.
    is_unique: bool,
    /// `anyOf` or `oneOf` stands somewhere.
    has_choices: bool,
}

/// What is wrong with a schema, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaFault {
    /// JSON pointer (RFC 6901) into the schema.
    pub pointer: String,
    /// What is wrong and what to do; lower case, no full stop.
    pub message: String,
}

/// What is wrong with a value, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer (RFC 6901) into the value.
    pub pointer: String,
    /// What is wrong; never the value itself.
    pub message: String,
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema")
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

impl Schema {
    /// Checks the bounds and compiles.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn compile(schema: &Value) -> Result<Self, SchemaFault> {
        let root = schema
            .as_object()
            .ok_or_else(|| fault("", "a schema is a JSON object"))?;
        let seen = look_over(schema)?;
        let patterns = seen.patterns;
        if schema.to_string().len() > MAX_SCHEMA {
            return Err(fault("", format!("the schema is over {MAX_SCHEMA} bytes")));
        }
        if root
            .get("$schema")
            .is_some_and(|dialect| dialect.as_str().map(|text| text.trim_end_matches('#')) != Some(DIALECT))
        {
            return Err(fault(
                "/$schema",
                format!("only {DIALECT} is known; leave it out"),
            ));
        }
        let mut survey = Survey {
            root: schema,
            steps: 0,
            weight: 0,
            level: 0,
            unevaluated: 0,
            looks: false,
            open: Vec::new(),
        };
        survey.definitions(schema, "")?;
        (survey.steps, survey.weight) = (0, 0);
        survey.apply(schema, "")?;
        let (steps, weight) = (survey.steps, survey.weight);
        if patterns > MAX_PATTERNS {
            return Err(fault(
                "",
                format!("the schema has {patterns} patterns; at most {MAX_PATTERNS} are allowed"),
            ));
        }
        let patterns_linear = PatternOptions::regex()
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_BYTES);
        let validator = jsonschema::options()
            .offline()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(false)
            .with_pattern_options(patterns_linear)
            .build(schema)
            .map_err(|error| fault(error.instance_path().as_str(), compile_message(&error)))?;
        Ok(Self {
            validator,
            steps,
            patterns,
            weight: steps.saturating_add(weight),
            is_unique: seen.is_unique,
            has_choices: seen.has_choices,
        })
    }

    /// A measure of the work for each byte of a value: the subschemas it can meet, and much more for patterns.
    #[must_use]
    pub const fn work(&self) -> usize {
        self.weight + self.patterns * PATTERN_WORK
    }

    /// Patterns of the schema.
    #[must_use]
    pub const fn patterns(&self) -> usize {
        self.patterns
    }

    /// What is wrong with a value whose JSON is `length` bytes long: the first few violations, one when it is long.
    #[must_use]
    pub fn violations(&self, value: &Value, length: usize) -> Vec<Violation> {
        let whole = |message| {
            let pointer = String::new();
            vec![Violation { pointer, message }]
        };
        let checks = (length / 2 + 1).saturating_mul(self.weight);
        if checks > MAX_CHECKS {
            return whole(format!(
                "a value of {length} bytes is too long to be checked by so large a schema"
            ));
        }
        if self.is_unique && longest_list(value) > MAX_UNIQUE {
            return whole(format!(
                "a list of over {MAX_UNIQUE} elements cannot be checked for `uniqueItems`"
            ));
        }
        if self.validator.is_valid(value) {
            return Vec::new();
        }
        let told = |error: &jsonschema::ValidationError<'_>| Violation {
            pointer: error.instance_path().as_str().to_owned(),
            message: cut(&error.masked().to_string()),
        };
        if length <= THOROUGH && checks <= TELLING {
            let errors = self.validator.iter_errors(value).take(TOLD);
            errors.map(|error| told(&error)).collect()
        } else if self.has_choices && checks > TELLING {
            whole(
                "the value breaks its schema; it is too long, and has too many choices, to say where"
                    .to_owned(),
            )
        } else {
            self.validator.validate(value).err().iter().map(told).collect()
        }
    }
}

/// Elements of the longest list in a value, whose depth was bounded when it was parsed.
fn longest_list(value: &Value) -> usize {
    match value {
        Value::Array(items) => items
            .iter()
            .map(longest_list)
            .max()
            .unwrap_or_default()
            .max(items.len()),
        Value::Object(members) => members.values().map(longest_list).max().unwrap_or_default(),
        _ => 0,
    }
}

fn fault(pointer: &str, message: impl Into<String>) -> SchemaFault {
    SchemaFault {
        pointer: pointer.to_owned(),
        message: message.into(),
    }
}

fn cut(text: &str) -> String {
    let plain = |character: char| if character.is_control() { ' ' } else { character };
    let mut cut: String = text.chars().take(MAX_TEXT).map(plain).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        cut.push('…');
    }
    cut
}

fn compile_message(error: &jsonschema::ValidationError<'_>) -> String {
    let text = cut(&error.to_string());
    if matches!(error.kind().keyword(), "format" | "pattern" | "patternProperties") {
        return format!("{text}; patterns have no look-around and no back-references");
    }
    text
}

/// What stands somewhere in a schema, whether it is in force there or not.
#[derive(Default)]
struct Seen {
    patterns: usize,
    is_unique: bool,
    has_choices: bool,
}

/// Checks the depth, and looks for what is worth knowing.
fn look_over(schema: &Value) -> Result<Seen, SchemaFault> {
    let mut seen = Seen::default();
    let mut open = vec![(schema, 1)];
    while let Some((value, depth)) = open.pop() {
        let children: Vec<&Value> = match value {
            Value::Object(members) => {
                let named = members.get("patternProperties").and_then(Value::as_object);
                seen.patterns += usize::from(members.get("pattern").is_some_and(Value::is_string));
                seen.patterns += named.map_or(0, Map::len);
                seen.is_unique |= members.get("uniqueItems") == Some(&Value::Bool(true));
                seen.has_choices |= members.contains_key("anyOf") || members.contains_key("oneOf");
                members.values().collect()
            }
            Value::Array(items) => items.iter().collect(),
            _ => continue,
        };
        if depth > MAX_SCHEMA_DEPTH {
            return Err(fault(
                "",
                format!("the schema nests over {MAX_SCHEMA_DEPTH} objects and arrays"),
            ));
        }
        open.extend(children.into_iter().map(|child| (child, depth + 1)));
    }
    Ok(seen)
}

/// What the keywords of one subschema weigh beside itself.
fn weight(members: &Map<String, Value>) -> usize {
    let of = |keyword: &str, weight: &dyn Fn(&Value) -> usize| members.get(keyword).map_or(0, weight);
    of("enum", &|list| list.as_array().map_or(0, Vec::len) / ENUM_PART)
        + of("pattern", &|_| PATTERN_WEIGHT)
        + of("patternProperties", &|named| {
            named.as_object().map_or(0, Map::len) * PATTERN_WEIGHT
        })
        + of("multipleOf", &|number| {
            usize::from(!number.is_u64()) * DECIMALS_WEIGHT
        })
}

/// Walks a schema with every `$ref` written out.
struct Survey<'a> {
    root: &'a Value,
    steps: usize,
    /// What they weigh beside that.
    weight: usize,
    /// Subschemas that are open.
    level: usize,
    /// Of these, those whose keywords about what is left over look into schemas that are open, too.
    unevaluated: usize,
    /// The open one has such keywords, and looks into none yet.
    looks: bool,
    /// Targets of the references that are open, to find those that lead back.
    open: Vec<&'a str>,
}

impl<'a> Survey<'a> {
    /// Walks what applies only where it is referred to, so that its faults show at their own place.
    fn definitions(&mut self, schema: &'a Value, pointer: &str) -> Result<(), SchemaFault> {
        let Some(members) = schema.as_object() else {
            return Ok(());
        };
        for keyword in DEFINITIONS {
            for (name, inner) in members
                .get(keyword)
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
            {
                let pointer = format!("{pointer}/{keyword}/{}", escape(name));
                self.steps = 0;
                self.apply(inner, &pointer)?;
                self.definitions(inner, &pointer)?;
            }
        }
        Ok(())
    }

    fn apply(&mut self, schema: &'a Value, pointer: &str) -> Result<(), SchemaFault> {
        self.level += 1;
        let result = if self.level > MAX_SCHEMA_DEPTH {
            let message =
                format!("with every $ref written out, over {MAX_SCHEMA_DEPTH} subschemas are nested");
            Err(fault(pointer, message))
        } else {
            self.inside(schema, pointer)
        };
        self.level -= 1;
        result
    }

    fn inside(&mut self, schema: &'a Value, pointer: &str) -> Result<(), SchemaFault> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            let message = format!("the schema has over {MAX_STEPS} subschemas with every $ref written out");
            return Err(fault(pointer, message));
        }
        let Some(members) = schema.as_object() else {
            return Ok(());
        };
        Self::check_keywords(members, pointer)?;
        self.weight = self.weight.saturating_add(weight(members));
        let before = (self.unevaluated, self.looks);
        self.looks |= UNEVALUATED.iter().any(|keyword| members.contains_key(*keyword));
        let looks = self.looks;
        let result = members.iter().try_for_each(|(keyword, value)| {
            let pointer = format!("{pointer}/{}", escape(keyword));
            (self.unevaluated, self.looks) = (before.0, false);
            if IN_PLACE.contains(&keyword.as_str()) {
                self.unevaluated += usize::from(looks);
                if self.unevaluated > MAX_UNEVALUATED {
                    let message = format!(
                        "unevaluatedProperties and unevaluatedItems look into other schemas on over \
                         {MAX_UNEVALUATED} levels"
                    );
                    return Err(fault(&pointer, message));
                }
            }
            self.child(keyword, value, &pointer)
        });
        (self.unevaluated, self.looks) = before;
        result
    }

    fn child(&mut self, keyword: &str, value: &'a Value, pointer: &str) -> Result<(), SchemaFault> {
        match (keyword, value) {
            (name, inner) if ONE.contains(&name) => self.apply(inner, pointer)?,
            (name, Value::Array(list)) if LIST.contains(&name) => {
                for (index, inner) in list.iter().enumerate() {
                    self.apply(inner, &format!("{pointer}/{index}"))?;
                }
            }
            (name, Value::Object(named)) if NAMED.contains(&name) => {
                for (key, inner) in named {
                    self.apply(inner, &format!("{pointer}/{}", escape(key)))?;
                }
            }
            ("$ref", Value::String(target)) => self.follow(target, pointer)?,
            _ => {}
        }
        Ok(())
    }

    fn check_keywords(members: &Map<String, Value>, pointer: &str) -> Result<(), SchemaFault> {
        if let Some(name) = REFUSED.iter().find(|name| members.contains_key(**name)) {
            let message = format!("{name} is not supported; refer to #/$defs/… with $ref");
            return Err(fault(&format!("{pointer}/{name}"), message));
        }
        if members.contains_key("$id") && !pointer.is_empty() {
            return Err(fault(
                &format!("{pointer}/$id"),
                "only the schema itself may have an $id; leave it out",
            ));
        }
        Ok(())
    }

    fn follow(&mut self, target: &'a str, pointer: &str) -> Result<(), SchemaFault> {
        let Some(path) = target
            .strip_prefix('#')
            .filter(|path| path.is_empty() || path.starts_with('/'))
        else {
            let message = format!(
                "{} leads out of the schema, and nothing is ever fetched; put it under $defs and refer to \
                 #/$defs/…",
                quote(target)
            );
            return Err(fault(pointer, message));
        };
        if path.contains('%') {
            return Err(fault(pointer, "write the reference without percent signs"));
        }
        let Some(inner) = self.root.pointer(path) else {
            return Err(fault(pointer, format!("there is nothing at {}", quote(target))));
        };
        let is_inside = |open: &&str| *open == path;
        if path.is_empty() || self.open.iter().any(is_inside) || pointer.starts_with(&format!("{path}/")) {
            let message = format!("{} leads back to itself; a schema must end", quote(target));
            return Err(fault(pointer, message));
        }
        self.open.push(path);
        let result = self.apply(inner, path);
        self.open.pop();
        result
    }
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests;
