//! The `CustomResourceDefinition`s, as Kubernetes wants them.
//!
//! [`crds`] takes what the types' schemas say and makes it structural and plain: no `nullable` (an optional field is
//! left out, and `has()` of a rule must mean that it is set), no number formats that Kubernetes does not know, whole
//! numbers without a fraction, a `spec` that need not be written when everything in it is optional, and a `status`
//! that says of a new object that nobody looked at it yet. The result depends on nothing but the types, so the files
//! in `crds/` can be compared with it byte by byte. Writing it as YAML is the command line's business.

use kube::CustomResourceExt as _;
use serde_json::{Map, Number, Value, json};

use super::v1alpha1::{EventDestination, EventProject};

/// One `CustomResourceDefinition`.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Plural of the kind, which names its file.
    pub name: &'static str,
    /// The definition.
    pub definition: Value,
}

/// Every `CustomResourceDefinition`, in alphabetical order.
///
/// # Errors
/// When a definition cannot be represented as JSON, which would be a bug.
pub fn crds() -> Result<Vec<Manifest>, serde_json::Error> {
    let manifest = |name, definition| {
        serde_json::to_value(definition).map(|mut definition| {
            let versions = definition
                .pointer_mut("/spec/versions")
                .and_then(Value::as_array_mut);
            for version in versions.into_iter().flatten() {
                default_spec(version);
                default_status(version);
            }
            tidy(&mut definition);
            Manifest { name, definition }
        })
    };
    Ok(vec![
        manifest("eventdestinations", EventDestination::crd())?,
        manifest("eventprojects", EventProject::crd())?,
    ])
}

/// Makes a `spec` of which nothing is required an empty one when it is left out.
fn default_spec(version: &mut Value) {
    let schema = version.pointer_mut("/schema/openAPIV3Schema");
    let Some(schema) = schema.and_then(Value::as_object_mut) else {
        return;
    };
    let spec = schema
        .get_mut("properties")
        .and_then(|properties| properties.get_mut("spec"))
        .and_then(Value::as_object_mut);
    let Some(spec) = spec.filter(|spec| !spec.contains_key("required")) else {
        return;
    };
    spec.insert("default".to_owned(), Value::Object(Map::new()));
    if let Some(Value::Array(required)) = schema.get_mut("required") {
        required.retain(|name| name != "spec");
        if required.is_empty() {
            schema.remove("required");
        }
    }
}

/// Makes the status of an object that nobody looked at say so: what has no `observedGeneration` passes for done with
/// those who read a status as kstatus does, such as Flux, also while no operator runs.
fn default_status(version: &mut Value) {
    let status = version.pointer_mut("/schema/openAPIV3Schema/properties/status");
    if let Some(status) = status.and_then(Value::as_object_mut) {
        status.insert("default".to_owned(), json!({"observedGeneration": -1}));
    }
}

/// Kubernetes' own number formats; it warns of others, such as `uint32`.
const FORMATS: [&str; 2] = ["int32", "int64"];

/// Keys that come first; all others follow in alphabetical order.
const FIRST: [&str; 6] = ["apiVersion", "kind", "name", "metadata", "description", "type"];

fn tidy(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if is_schema(map) {
                map.remove("nullable");
                map.remove("title");
                if let Some(Value::String(text)) = map.get_mut("description") {
                    *text = unwrap(text);
                }
                let unknown =
                    |format: &Value| format.as_str().is_some_and(|format| !FORMATS.contains(&format));
                if is_number(map) && map.get("format").is_some_and(unknown) {
                    map.remove("format");
                }
            }
            map.values_mut().for_each(tidy);
            sort(map);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Number(number) => {
            if let Some(whole) = whole(number) {
                *number = whole;
            }
        }
        _ => {}
    }
}

fn is_schema(map: &Map<String, Value>) -> bool {
    let says = |key: &str, right: fn(&Value) -> bool| map.get(key).is_some_and(right);
    says("nullable", Value::is_boolean)
        || says("type", Value::is_string)
        || says("x-kubernetes-preserve-unknown-fields", Value::is_boolean)
}

/// A doc comment is wrapped for the source; `kubectl explain` wraps by itself. Blank lines stay.
fn unwrap(text: &str) -> String {
    text.split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn sort(map: &mut Map<String, Value>) {
    let mut members: Vec<(String, Value)> = std::mem::take(map).into_iter().collect();
    members.sort_by_cached_key(|(key, _)| {
        let place = FIRST.iter().position(|first| first == key).unwrap_or(FIRST.len());
        (place, key.clone())
    });
    map.extend(members);
}

fn is_number(map: &Map<String, Value>) -> bool {
    map.get("type")
        .is_some_and(|kind| kind == "integer" || kind == "number")
}

/// The number as an integer, when it is a float without a fraction.
fn whole(number: &Number) -> Option<Number> {
    let float = number.as_f64().filter(|_| number.is_f64())?;
    format!("{float:.0}")
        .parse::<i64>()
        .ok()
        .map(Number::from)
        .filter(|whole| whole.as_f64() == Some(float))
}
