//! [`TypeRules`]: what the events of a project must look like, and what becomes of one that does not.
//!
//! Owns the joining of the built-in types with a project's own `spec.eventTypes`. Schemas are compiled once, when the
//! project is looked at. A type without a schema, and one that nobody declared, is never wrong. While a type of the
//! project is faulty its events are taken unchecked: a slip in a manifest must not cost events.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::Value;

use super::catalogue;
use super::event::refusal::{EventFault, EventFaults, FaultReason, Pointer};
use super::event::{Content, Draft};
use super::event::{json, parse::is_event_type};
use super::fault::{Faults, field_path};
use super::operation::{PREFIX, is_operational};
use super::schema::Schema;
use crate::api::v1alpha1::EventProjectSpec;
use crate::api::v1alpha1::event_project::{CloudEventsSubject, EventTypeSpec, Validation};

/// Most event types of a project.
pub const MAX_TYPES: usize = 64;
/// Most bytes of all event types of a project, written as compact JSON.
pub const MAX_TYPES_SIZE: usize = 256 * 1024;
/// Most patterns in all schemas of a project.
pub const MAX_TYPES_PATTERNS: usize = 64;
/// Most bytes of an example.
pub const MAX_EXAMPLE: usize = 16 * 1024;
/// Most objects and arrays of an example that are in each other.
const MAX_EXAMPLE_DEPTH: usize = 32;

/// What one type asks of its events.
#[derive(Debug)]
struct Rule {
    needs: Vec<String>,
    schema: Schema,
}

/// The rules of the built-in types.
static BUILT_IN: LazyLock<HashMap<&'static str, Rule>> = LazyLock::new(|| {
    let rule = |entry: &catalogue::EventType| {
        let definition = entry.definition();
        // Compiled in: a test compiles each.
        let schema = Schema::compile(&definition.schema).ok()?;
        let needs = definition.needs;
        Some((entry.name, Rule { needs, schema }))
    };
    catalogue::EVENT_TYPES.iter().filter_map(rule).collect()
});

/// What the events of a project must look like.
#[derive(Debug, Default)]
pub struct TypeRules {
    /// What becomes of an event that breaks a rule.
    pub validation: Validation,
    /// How CloudEvents are read.
    pub subject: CloudEventsSubject,
    types: Vec<EventTypeSpec>,
    own: HashMap<Box<str>, Rule>,
    has_faults: bool,
    /// The most work for each byte of an event.
    most: usize,
}

impl TypeRules {
    /// Compiles a project's types. What is faulty is left out, so that the rest is in force.
    #[must_use]
    pub fn compile(types: &[EventTypeSpec], validation: Validation) -> (Self, Faults) {
        let mut faults = Faults::default();
        let mut rules = Self {
            validation,
            types: types.to_vec(),
            ..Self::default()
        };
        if types.len() > MAX_TYPES {
            faults.invalid(
                "spec.eventTypes",
                format!("at most {MAX_TYPES} event types are allowed"),
            );
            rules.has_faults = true;
            return (rules, faults);
        }
        if serde_json::to_string(types).map_or(usize::MAX, |text| text.len()) > MAX_TYPES_SIZE {
            faults.invalid(
                "spec.eventTypes",
                format!("over {MAX_TYPES_SIZE} bytes in all; shorten schemas or examples"),
            );
            rules.has_faults = true;
            return (rules, faults);
        }
        let mut patterns = 0;
        for (index, spec) in types.iter().enumerate() {
            let path = format!("spec.eventTypes[{index}]");
            let before = faults.iter().count();
            check_name(types, index, &path, &mut faults);
            let schema = compile(spec, &path, &mut faults);
            if faults.iter().count() > before {
                continue;
            }
            if let Some(schema) = schema {
                if patterns + schema.patterns() > MAX_TYPES_PATTERNS {
                    let message = format!("the schemas have over {MAX_TYPES_PATTERNS} patterns in all");
                    faults.invalid(format!("{path}.schema"), message);
                    continue;
                }
                patterns += schema.patterns();
                let needs = Vec::new();
                rules
                    .own
                    .insert(spec.name.as_str().into(), Rule { needs, schema });
            }
        }
        rules.has_faults = !faults.is_empty();
        rules.most = rules
            .own
            .values()
            .map(|rule| rule.schema.work())
            .max()
            .unwrap_or_default();
        (rules, faults)
    }

    /// Whether these are the rules of that spec.
    #[must_use]
    pub fn is_of(&self, spec: &EventProjectSpec) -> bool {
        self.validation == spec.validation.unwrap_or_default()
            && self.subject == spec.cloud_events_subject.unwrap_or_default()
            && self.types == spec.event_types
    }

    /// Whether every type is in force.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        !self.has_faults
    }

    /// What the project says about its types.
    #[must_use]
    pub fn types(&self) -> &[EventTypeSpec] {
        &self.types
    }

    /// A measure of the work that checking a body of that many bytes can be; 0 when nothing is checked.
    #[must_use]
    pub fn work(&self, length: usize) -> usize {
        match self.validation {
            Validation::Off => 0,
            Validation::Warn | Validation::Enforce => length.saturating_mul(self.most.max(BUILT_IN_WORK)),
        }
    }

    fn rule(&self, event_type: &str) -> Option<&Rule> {
        self.own.get(event_type).or_else(|| BUILT_IN.get(event_type))
    }

    /// What is wrong with the events of a request; empty when nothing is, or nothing is asked.
    #[must_use]
    pub fn check(&self, drafts: &[Draft], places: Places) -> EventFaults {
        let mut faults = EventFaults::default();
        if self.validation == Validation::Off {
            return faults;
        }
        for (index, draft) in drafts.iter().enumerate() {
            let Some(rule) = self.rule(&draft.content.event_type) else {
                continue;
            };
            let index = places.is_batch.then_some(index);
            rule.check(&draft.content, index, places, &mut faults);
        }
        faults
    }
}

/// As much work as any built-in type makes for each byte, or more; a test compares.
const BUILT_IN_WORK: usize = 32;

impl Rule {
    fn check(&self, content: &Content, index: Option<usize>, places: Places, faults: &mut EventFaults) {
        let mut push = |pointer: String, detail: String| {
            let event = index.map(|index| format!("/{index}")).unwrap_or_default();
            let mut pointer = Pointer::new(&pointer);
            pointer.prepend_path(&event);
            faults.push(EventFault {
                index,
                pointer,
                reason: FaultReason::BreaksSchema,
                detail,
            });
        };
        for need in &self.needs {
            if !need.split('|').any(|path| has(content, path)) {
                let detail = format!(
                    "an event of type {} needs {}",
                    content.event_type,
                    need.replace('|', " or ")
                );
                push(String::new(), detail);
            }
        }
        let raw = content.data.get();
        let Ok(data) = serde_json::from_str::<Value>(raw) else {
            return;
        };
        for violation in self.schema.violations(&data, raw.len()) {
            let pointer = if places.is_data {
                violation.pointer
            } else {
                format!("/data{}", violation.pointer)
            };
            push(pointer, violation.message);
        }
    }
}

/// Whether an event has a member.
fn has(content: &Content, path: &str) -> bool {
    let (root, rest) = path.split_once('.').unwrap_or((path, ""));
    let (user, integration, sync) = (&content.user, &content.integration, &content.sync);
    match (root, rest) {
        ("user", _) => user.is_some(),
        ("workflow", _) => content.workflow.is_some(),
        ("integration", "id") => integration.as_ref().is_some_and(|it| it.id.is_some()),
        ("integration", "type") => integration.as_ref().is_some_and(|it| it.kind.is_some()),
        ("integration", _) => integration.as_ref().is_some_and(|it| it.name.is_some()),
        ("sync", "integration") => sync.as_ref().is_some_and(|it| it.integration.is_some()),
        ("sync", _) => sync.is_some(),
        ("error", rest) => content
            .error
            .as_ref()
            .is_some_and(|error| has_raw(error.get(), rest)),
        ("data", rest) => has_raw(content.data.get(), rest),
        _ => false,
    }
}

fn has_raw(raw: &str, path: &str) -> bool {
    if path.is_empty() {
        return true;
    }
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    let members = json::members(raw);
    let found = members.iter().find(|member| member.name == name);
    found.is_some_and(|member| json::kind(member.value) != json::Kind::Null && has_raw(member.value, rest))
}

/// Where the events of a request stand in its body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// The body is an array of events.
    pub is_batch: bool,
    /// The body is the event's `data`, as in the binary mode of CloudEvents.
    pub is_data: bool,
}

fn check_name(types: &[EventTypeSpec], index: usize, path: &str, faults: &mut Faults) {
    let Some(spec) = types.get(index) else { return };
    let path = format!("{path}.name");
    if !is_event_type(&spec.name) {
        faults.invalid(
            path,
            "use letters, digits, \"_\", \".\" and \"-\", at most 128 characters",
        );
    } else if is_operational(&spec.name) {
        faults.invalid(
            path,
            format!("names that begin with {PREFIX:?} are Postrider's own; choose another name"),
        );
    } else if catalogue::find(&spec.name).is_some() {
        faults.invalid(
            path,
            format!("{:?} is a built-in type; choose another name", spec.name),
        );
    } else if types.iter().take(index).any(|other| other.name == spec.name) {
        faults.invalid(
            path,
            format!("{:?} is declared above; remove one of them", spec.name),
        );
    }
}

fn compile(spec: &EventTypeSpec, path: &str, faults: &mut Faults) -> Option<Schema> {
    let schema = spec.schema.as_ref().map(Schema::compile);
    if let Some(Err(fault)) = &schema {
        faults.invalid(
            format!("{path}.schema{}", field_path(&fault.pointer)),
            fault.message.as_str(),
        );
    }
    let schema = schema.and_then(Result::ok);
    if let Some(example) = &spec.example {
        let path = format!("{path}.example");
        let length = example.to_string().len();
        if !example.is_object() {
            faults.invalid(path, "an example is an object: the `data` of an event");
        } else if length > MAX_EXAMPLE {
            faults.invalid(path, format!("the example is over {MAX_EXAMPLE} bytes"));
        } else if nests_deeper(example, MAX_EXAMPLE_DEPTH) {
            let message =
                format!("the example nests over {MAX_EXAMPLE_DEPTH} objects and arrays; make it flatter");
            faults.invalid(path, message);
        } else {
            for violation in schema
                .iter()
                .flat_map(|schema| schema.violations(example, length))
            {
                let path = format!("{path}{}", field_path(&violation.pointer));
                faults.invalid(
                    path,
                    format!("the example breaks its schema: {}", violation.message),
                );
            }
        }
    }
    schema
}

fn nests_deeper(value: &Value, depth: usize) -> bool {
    let deeper = |value: &Value| nests_deeper(value, depth.saturating_sub(1));
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(deeper),
        Value::Object(members) => depth == 0 || members.values().any(deeper),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
