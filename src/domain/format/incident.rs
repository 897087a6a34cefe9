//! Alerts for those on call: PagerDuty, Opsgenie, Alertmanager.
//!
//! Events of one type about the same thing join one alert, see [`Gist::subject`](crate::domain::gist::Gist::subject).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Options;
use super::digest::{Digest, Level, Unit, cut, cut_by};
use crate::domain::gist::Role;

/// What an alert says it comes from.
const CLIENT: &str = "Postrider";
/// Most bytes of the event within an alert of PagerDuty, which has at most 512 KB.
const MAX_DETAILS: usize = 200 * 1024;
/// Most characters of all of Opsgenie's details.
const MAX_OPSGENIE_DETAILS: usize = 8000;

/// A key of at most so many bytes that is the same for the same subject.
fn key(subject: &str, most: usize) -> String {
    if subject.len() <= most {
        subject.to_owned()
    } else {
        uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, subject.as_bytes()).to_string()
    }
}

/// Events API v2: a summary has 1,024 characters, a key 255.
pub(super) fn pager_duty(digest: &Digest<'_>, options: &Options, routing_key: &str) -> Value {
    let severity = match digest.level {
        Level::Critical => "critical",
        Level::Error => "error",
        Level::Warning => "warning",
        Level::Info => "info",
    };
    let tags = options.tags.iter();
    let mut details: Map<String, Value> = tags
        .map(|(name, value)| (name.to_string(), json!(value)))
        .collect();
    if let Some(error) = &digest.error {
        details.insert("error".to_owned(), json!(cut(error, 4000)));
    }
    details.insert("event".to_owned(), digest.event_within(MAX_DETAILS));
    let mut body = json!({
        "routing_key": routing_key,
        "event_action": "trigger",
        "dedup_key": key(&digest.subject, 255),
        "client": CLIENT,
        "payload": {
            "summary": cut(&digest.message, 1024),
            "source": options.service.as_deref().or_else(|| digest.fact("Project")).unwrap_or(CLIENT),
            "severity": severity,
            "timestamp": digest.time.to_string(),
            "class": digest.event_type,
            "custom_details": details,
        },
    });
    if let (Some(link), Some(members)) = (&digest.link, body.as_object_mut()) {
        members.insert("links".to_owned(), json!([{"href": link, "text": "Open"}]));
    }
    body
}

/// Alert API v2: a message has 130 characters, an alias 512, a description 15,000, 20 tags of 50, all details 8,000.
pub(super) fn opsgenie(digest: &Digest<'_>, options: &Options) -> Value {
    let priority = match digest.level {
        Level::Critical => "P1",
        Level::Error => "P2",
        Level::Warning => "P3",
        Level::Info => "P5",
    };
    let mut description = cut(&digest.message, 5000);
    if let Some(error) = &digest.error {
        description.push_str("\nError: ");
        description.push_str(&cut(error, 5000));
    }
    if let Some(link) = &digest.link {
        description.push('\n');
        description.push_str(link);
    }
    let mut details: BTreeMap<String, String> = BTreeMap::new();
    let mut used = 0;
    let tags = options
        .tags
        .iter()
        .map(|(name, value)| (&**name, value.to_string()));
    let facts = digest
        .facts
        .iter()
        .map(|fact| (fact.label, cut(&fact.shown(), 300)));
    let ids = [
        ("eventId", digest.id.to_owned()),
        ("eventType", digest.event_type.to_owned()),
    ];
    for (name, value) in ids.into_iter().chain(facts).chain(tags) {
        used += name.encode_utf16().count() + value.encode_utf16().count();
        if used > MAX_OPSGENIE_DETAILS {
            break;
        }
        // The first of two with one name is the more important one.
        details.entry(name.to_owned()).or_insert(value);
    }
    let own = options.tags.iter().map(|(name, value)| format!("{name}:{value}"));
    let tags: Vec<String> = std::iter::once(digest.event_type.to_owned())
        .chain(own)
        .map(|tag| cut(&tag, 50))
        .take(20)
        .collect();
    json!({
        "message": cut(&format!("{}: {}", digest.event_type, digest.message), 130),
        "alias": key(&digest.subject, 512),
        "description": description,
        "details": details,
        "tags": tags,
        "entity": cut(digest.fact("Workflow").or_else(|| digest.fact("Integration")).unwrap_or(digest.project_id), 512),
        "source": cut(options.service.as_deref().unwrap_or(CLIENT), 100),
        "priority": priority,
    })
}

/// API v2: labels, which tell what the alert is about, name it, annotations tell it. An alert resolves by itself after Alertmanager's
/// `resolve_timeout`.
pub(super) fn alertmanager(digest: &Digest<'_>, options: &Options) -> Value {
    let severity = match digest.level {
        Level::Critical | Level::Error => "critical",
        Level::Warning => "warning",
        Level::Info => "info",
    };
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    for fact in digest.facts.iter().filter(|fact| fact.role != Role::Detail) {
        let value = || cut_by(Unit::Bytes, fact.name(), 500);
        labels
            .entry(fact.label.to_ascii_lowercase())
            .or_insert_with(value);
    }
    for (name, value) in &options.tags {
        labels.insert(label_name(name), value.to_string());
    }
    if let Some(service) = &options.service {
        labels.insert("service".to_owned(), service.to_string());
    }
    // Names alone may be those of two things.
    labels.insert("subject".to_owned(), key(&digest.subject, 500));
    labels.insert("alertname".to_owned(), digest.event_type.to_owned());
    labels.insert("severity".to_owned(), severity.to_owned());
    let mut annotations = BTreeMap::from([("summary", cut(&digest.message, 4000))]);
    if let Some(error) = &digest.error {
        annotations.insert("description", cut(error, 4000));
    }
    let mut alert = json!({
        "labels": labels,
        "annotations": annotations,
        // An alert that starts after it ends is refused, and it ends soon after it came.
        "startsAt": digest.time.min(digest.accepted).to_string(),
    });
    if let (Some(link), Some(members)) = (&digest.link, alert.as_object_mut()) {
        members.insert("generatorURL".to_owned(), json!(link));
    }
    json!([alert])
}

/// A label's name has letters, digits and `_` and does not begin with a digit.
fn label_name(name: &str) -> String {
    let mut label: String = name
        .chars()
        .map(|char| if char.is_ascii_alphanumeric() { char } else { '_' })
        .collect();
    if label.starts_with(|char: char| char.is_ascii_digit()) {
        label.insert(0, '_');
    }
    label
}
