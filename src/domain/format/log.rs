//! Logs and errors for machines: Datadog, New Relic, Sentry.
//!
//! The whole event goes along, as far as the service takes it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::digest::{Digest, Level, Unit, cut, cut_by};
use super::{MAX_BODY, Options};

/// What logs say they come from.
const SOURCE: &str = "postrider";
/// Most bytes of a message.
const MAX_MESSAGE: usize = 64 * 1024;
/// Most attributes of a log of New Relic, beside those that all have and the note of what was left out.
const MAX_ATTRIBUTES: usize = 200;

fn environment_and_tags(digest: &Digest<'_>, options: &Options) -> BTreeMap<String, String> {
    let mut tags = BTreeMap::from([
        ("event_type".to_owned(), digest.event_type.to_owned()),
        ("project".to_owned(), digest.project_id.to_owned()),
    ]);
    if let Some(environment) = digest.environment {
        tags.insert("env".to_owned(), environment.to_owned());
    }
    let own = options
        .tags
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_string()));
    tags.extend(own);
    tags
}

/// One log of the API v2: at most 1 MB. What would end a tag is replaced in tags.
pub(super) fn datadog(digest: &Digest<'_>, options: &Options) -> Value {
    let status = match digest.level {
        Level::Critical => "critical",
        Level::Error => "error",
        Level::Warning => "warn",
        Level::Info => "info",
    };
    let tags: Vec<String> = environment_and_tags(digest, options)
        .iter()
        .map(|(name, value)| cut(&format!("{name}:{}", value.replace([',', '\n'], "_")), 200))
        .collect();
    json!([{
        "ddsource": SOURCE,
        "ddtags": tags.join(","),
        "hostname": SOURCE,
        "service": options.service.as_deref().unwrap_or(digest.project_id),
        "status": status,
        "timestamp": digest.time.as_millisecond(),
        "message": cut_by(Unit::Json, &digest.message, MAX_MESSAGE),
        "event": digest.event_within(MAX_BODY - 2 * MAX_MESSAGE),
    }])
}

/// Attributes of a New Relic log: at most 255, a value of at most 4,094 characters, nested names joined by dots. Those
/// that have no room, or a name that another one has, are counted.
struct Attributes {
    kept: Map<String, Value>,
    lost: usize,
}

impl Attributes {
    fn add(&mut self, value: &Value, name: &str) {
        let value = match value {
            Value::Object(members) if !members.is_empty() => {
                for (member, value) in members {
                    self.add(value, &format!("{name}.{member}"));
                }
                return;
            }
            Value::String(text) => json!(cut(text, 4000)),
            // There is no null, and what is left out would look as if it had not been published.
            Value::Null | Value::Array(_) | Value::Object(_) => json!(cut(&value.to_string(), 4000)),
            Value::Bool(_) | Value::Number(_) => value.clone(),
        };
        let name = cut(name, 255);
        if self.kept.len() < MAX_ATTRIBUTES && !self.kept.contains_key(&name) {
            self.kept.insert(name, value);
        } else {
            self.lost += 1;
        }
    }

    /// All that were kept, and how many were not.
    fn told(mut self) -> Map<String, Value> {
        if self.lost > 0 {
            let note = json!(format!("{} more", self.lost));
            self.kept.insert("[cut]".to_owned(), note);
        }
        self.kept
    }
}

/// The detailed form of the Log API: at most 1 MB. Nested JSON can double in size as text, and names repeat those of
/// their parents, so a third is for the event.
pub(super) fn new_relic(digest: &Digest<'_>, options: &Options) -> Value {
    let level = match digest.level {
        Level::Critical => "CRITICAL",
        Level::Error => "ERROR",
        Level::Warning => "WARN",
        Level::Info => "INFO",
    };
    let mut common: BTreeMap<String, String> = environment_and_tags(digest, options);
    common.insert("logtype".to_owned(), SOURCE.to_owned());
    if let Some(service) = &options.service {
        common.insert("service.name".to_owned(), service.to_string());
    }
    let mut attributes = Attributes {
        kept: Map::from_iter([("level".to_owned(), json!(level))]),
        lost: 0,
    };
    attributes.add(&digest.event_within(MAX_BODY / 3), "event");
    json!([{
        "common": {"attributes": common},
        "logs": [{
            "timestamp": digest.time.as_millisecond(),
            "message": cut_by(Unit::Json, &digest.message, 32 * 1024),
            "attributes": attributes.told(),
        }],
    }])
}

/// An envelope with one event: at most 1 MB. A message has 8,192 characters, a tag's value 200. The id is the
/// delivery's, so that a retry is the same event.
pub(super) fn sentry(digest: &Digest<'_>, options: &Options) -> String {
    let level = match digest.level {
        Level::Critical => "fatal",
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
    };
    let tags: BTreeMap<String, String> = environment_and_tags(digest, options)
        .into_iter()
        .filter(|(name, _)| name != "env" || options.tags.contains_key("env"))
        .map(|(name, value)| (cut(&name, 32), cut(&value.replace('\n', " "), 200)))
        .collect();
    let mut extra = json!({"event": digest.event_within(400 * 1024)});
    if let (Some(link), Some(members)) = (&digest.link, extra.as_object_mut()) {
        members.insert("link".to_owned(), json!(link));
    }
    let id = digest.delivery.simple().to_string();
    let mut event = json!({
        "event_id": id,
        "timestamp": digest.time.to_string(),
        "platform": "other",
        "level": level,
        "logger": options.service.as_deref().unwrap_or(SOURCE),
        "message": {"formatted": cut(&digest.message, 8000)},
        "tags": tags,
        "extra": extra,
        "fingerprint": [digest.event_type, digest.subject],
    });
    if let Some(members) = event.as_object_mut() {
        if let Some(user) = digest.user {
            members.insert("user".to_owned(), json!({"id": cut(user, 128)}));
        }
        if let Some(environment) = digest.environment {
            members.insert("environment".to_owned(), json!(cut(environment, 64)));
        }
    }
    let item = event.to_string();
    let head = json!({"event_id": id});
    let kind = json!({"type": "event", "length": item.len(), "content_type": "application/json"});
    format!("{head}\n{kind}\n{item}\n")
}
