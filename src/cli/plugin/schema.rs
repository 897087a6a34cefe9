//! What the resource definitions say about an object's form: the same schema that the API server has.
//!
//! Finds every unknown field, wrong type, missing member and exceeded bound at once, where serde would stop at the
//! first. CEL rules are left to the API server; most of what they say is a fault of `domain`, too.

use serde_json::{Map, Value};

use crate::api::manifest;
use crate::domain::fault::Faults;

/// Members of every object, which the definitions do not repeat.
const COMMON: [&str; 4] = ["apiVersion", "kind", "metadata", "status"];

/// The schemas of our kinds.
pub(super) struct Schemas(Vec<Value>);

impl Schemas {
    /// The schemas of this version.
    ///
    /// # Errors
    /// When a definition cannot be written as JSON, which would be a bug.
    pub(super) fn new() -> Result<Self, serde_json::Error> {
        let manifests = manifest::crds()?;
        Ok(Self(
            manifests
                .into_iter()
                .map(|manifest| manifest.definition)
                .collect(),
        ))
    }

    /// Everything wrong with the form of an object; status is left out, because applying it has no effect.
    pub(super) fn check(&self, kind: &str, object: &Value) -> Faults {
        let mut faults = Faults::default();
        let definition = self.0.iter().find(|definition| {
            definition
                .pointer("/spec/names/kind")
                .is_some_and(|name| name == kind)
        });
        let schema = definition
            .and_then(|definition| definition.pointer("/spec/versions/0/schema/openAPIV3Schema"))
            .and_then(Value::as_object);
        let (Some(schema), Value::Object(object)) = (schema, object) else {
            return faults;
        };
        let object = object
            .iter()
            .filter(|(name, _)| !COMMON.contains(&name.as_str()))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        check_object(schema, &object, "", &mut faults);
        faults
    }
}

fn check(schema: &Map<String, Value>, value: &Value, path: &str, faults: &mut Faults) {
    if schema.contains_key("x-kubernetes-preserve-unknown-fields") {
        return;
    }
    if schema.contains_key("x-kubernetes-int-or-string") {
        if !value.is_i64() && !value.is_string() {
            faults.invalid(
                path,
                format!("must be an integer or a string, is {}", kind_of(value)),
            );
        }
        return;
    }
    match (
        schema.get("type").and_then(Value::as_str).unwrap_or_default(),
        value,
    ) {
        ("object", Value::Object(object)) => check_object(schema, object, path, faults),
        ("array", Value::Array(items)) => {
            check_size(
                schema,
                ["minItems", "maxItems"],
                "entries",
                items.len(),
                path,
                faults,
            );
            if let Some(Value::Object(each)) = schema.get("items") {
                for (index, item) in items.iter().enumerate() {
                    check(each, item, &format!("{path}[{index}]"), faults);
                }
            }
        }
        ("string", Value::String(text)) => check_string(schema, text, path, faults),
        ("integer" | "number", Value::Number(number)) => {
            if schema.get("type").is_some_and(|kind| kind == "integer") && !number.is_i64() {
                faults.invalid(path, "must be a whole number");
            } else if let Some(number) = number.as_f64() {
                check_range(schema, number, path, faults);
            }
        }
        ("boolean", Value::Bool(_)) | ("", _) => {}
        (expected, value) => {
            let article = if matches!(expected, "object" | "array" | "integer") {
                "an"
            } else {
                "a"
            };
            faults.invalid(
                path,
                format!("must be {article} {expected}, is {}", kind_of(value)),
            );
        }
    }
}

fn check_object(schema: &Map<String, Value>, object: &Map<String, Value>, path: &str, faults: &mut Faults) {
    let none = Map::new();
    let properties = schema
        .get("properties")
        .and_then(Value::as_object)
        .unwrap_or(&none);
    let further = schema.get("additionalProperties").and_then(Value::as_object);
    for name in schema
        .get("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        if let Some(name) = name.as_str()
            && !object.contains_key(name)
        {
            faults.invalid(join(path, name), "is missing");
        }
    }
    for (name, value) in object {
        let path = join(path, name);
        if let Some(schema) = properties.get(name).and_then(Value::as_object).or(further) {
            check(schema, value, &path, faults);
        } else {
            let known: Vec<_> = properties.keys().map(String::as_str).collect();
            faults.invalid(
                path,
                format!("there is no such field; known here: {}", known.join(", ")),
            );
        }
    }
    check_size(
        schema,
        ["minProperties", "maxProperties"],
        "fields",
        object.len(),
        path,
        faults,
    );
}

fn check_string(schema: &Map<String, Value>, text: &str, path: &str, faults: &mut Faults) {
    let allowed = schema.get("enum").and_then(Value::as_array);
    if let Some(allowed) = allowed
        && !allowed.iter().any(|allowed| allowed == text)
    {
        let allowed: Vec<_> = allowed.iter().filter_map(Value::as_str).collect();
        faults.invalid(path, format!("must be one of {}", allowed.join(", ")));
        return;
    }
    let length = text.chars().count();
    check_size(
        schema,
        ["minLength", "maxLength"],
        "characters",
        length,
        path,
        faults,
    );
}

fn check_size(
    schema: &Map<String, Value>,
    [least, most]: [&str; 2],
    unit: &str,
    size: usize,
    path: &str,
    faults: &mut Faults,
) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_u64);
    let size = size as u64;
    if let Some(least) = bound(least).filter(|least| size < *least) {
        faults.invalid(path, format!("must have at least {least} {unit}"));
    }
    if let Some(most) = bound(most).filter(|most| size > *most) {
        faults.invalid(path, format!("must have at most {most} {unit}, has {size}"));
    }
}

fn check_range(schema: &Map<String, Value>, number: f64, path: &str, faults: &mut Faults) {
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    if let Some(least) = bound("minimum").filter(|least| number < *least) {
        faults.invalid(path, format!("must be at least {least}"));
    }
    if let Some(most) = bound("maximum").filter(|most| number > *most) {
        faults.invalid(path, format!("must be at most {most}"));
    }
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn join(path: &str, name: &str) -> String {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    match (path.is_empty(), plain && !name.is_empty()) {
        (true, true) => name.to_owned(),
        (false, true) => format!("{path}.{name}"),
        (_, false) => format!("{path}[{name:?}]"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn finds(kind: &str, spec: &Value, expected: &[&str]) {
        let faults = Schemas::new()
            .unwrap()
            .check(kind, &json!({"kind": kind, "metadata": {}, "spec": spec}));
        let found: Vec<_> = faults
            .iter()
            .map(|fault| format!("{}: {}", fault.path, fault.message))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn every_fault_of_the_form_is_found_with_its_path() {
        finds(
            "EventDestination",
            &json!({
                "events": ["*", 5],
                "suspend": "yes",
                "webhook": {
                    "URL": "https://a.example",
                    "headers": [{"value": null}],
                    "payload": {"format": "Evnt", "template": {"any": [{"thing": 1}]}},
                },
                "delivery": {"maxInFlight": 1.5, "retry": {"schedule": [], "max attempts": 1}},
            }),
            &[
                "spec.events[1]: must be a string, is a number",
                "spec.suspend: must be a boolean, is a string",
                "spec.webhook.URL: there is no such field; known here: auth, cloudEvents, compression, contentType, formatOptions, headers, method, ownershipProof, payload, proxy, signing, tls, url, urlFrom",
                "spec.webhook.headers[0].name: is missing",
                "spec.webhook.headers[0].value: must be a string, is null",
                "spec.webhook.payload.format: must be one of Default, Event, Sync, Flat, Envelope, CloudEvent, Slack, Datadog, NewRelic, Sentry, Discord, MicrosoftTeams, GoogleChat, PagerDuty, Opsgenie, Mattermost, Telegram, Alertmanager",
                "spec.webhook.payload: must have at most 1 fields, has 2",
                "spec.delivery.maxInFlight: must be a whole number",
                "spec.delivery.retry.schedule: must have at least 1 entries",
                "spec.delivery.retry[\"max attempts\"]: there is no such field; known here: giveUpOn, maxAttempts, retryOn, schedule",
            ],
        );
    }

    #[test]
    fn a_project_is_checked_too() {
        finds(
            "EventProject",
            &json!({"account": {"id": 5}, "displayName": "Acme"}),
            &[],
        );
        finds(
            "EventProject",
            &json!({"account": {"id": true}, "displayName": ""}),
            &[
                "spec.account.id: must be an integer or a string, is a boolean",
                "spec.displayName: must have at least 1 characters",
            ],
        );
    }
}
