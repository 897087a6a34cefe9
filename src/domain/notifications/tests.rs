//! Who becomes a child, under which name, and what is refused.

use serde_json::{Value, json};

use super::*;
use crate::domain::destination::{Destination, Identity, References};
use crate::domain::id::{ObjectKey, Uid};

fn try_expand(project: &str, spec: &Value) -> Result<Vec<Child>, Faults> {
    let spec: Notifications = serde_json::from_value(spec.clone()).unwrap();
    expand(project, &spec, &EgressPolicy::default())
}

fn children(spec: &Value) -> Vec<Child> {
    try_expand("acme", spec).unwrap()
}

/// Role, events and recipients or URL of each.
fn told(spec: &Value) -> Vec<String> {
    let each = children(spec).into_iter().map(|child| {
        let email = child.spec.email.map(|email| email.to.join("+"));
        let url = child.spec.webhook.and_then(|webhook| webhook.url);
        let whom = email.or(url).unwrap_or_default();
        format!("{} {} {whom}", child.role.as_str(), child.spec.events.join("+"))
    });
    each.collect()
}

fn faults(spec: &Value) -> Vec<String> {
    let faults = try_expand("acme", spec).unwrap_err();
    faults
        .iter()
        .map(|fault| format!("{}: {}", fault.path, fault.message))
        .collect()
}

fn all() -> Value {
    json!({
        "ownerEmail": "dev@acme.example",
        "primaryContact": ["ops@acme.example", "Boss <boss@acme.example>"],
        "webhook": {"url": "https://hooks.acme.example/in?token=t"},
        "events": [
            {"type": "run_failed", "sendWebhook": true, "emailSubscribers": ["a@x.example", "b@x.example"]},
            {"type": "tenant_created", "sendWebhook": true, "emailSubscribers": "b@x.example, c@x.example,"},
            {"type": "tenant_archived"},
        ],
    })
}

#[test]
fn each_setting_becomes_a_destination() {
    assert_eq!(
        told(&all()),
        [
            "owner workflow_failure dev@acme.example",
            "primary-contact * ops@acme.example+Boss <boss@acme.example>",
            "webhook run_failed+tenant_created https://hooks.acme.example/in?token=t",
            "subscriber run_failed a@x.example",
            "subscriber run_failed b@x.example",
            "subscriber tenant_created b@x.example",
            "subscriber tenant_created c@x.example",
        ]
    );
    assert!(children(&json!({})).is_empty());
}

#[test]
fn the_shared_url_is_sent_flat_once_and_unsigned() {
    let webhook = &children(&all())[2];
    let spec = serde_json::to_value(&webhook.spec).unwrap();
    assert_eq!(webhook.name, "acme-webhook");
    assert_eq!(spec["webhook"]["payload"], json!({"format": "Flat"}));
    assert_eq!(spec["webhook"]["signing"], json!({"scheme": "None"}));
    assert_eq!(spec["delivery"], json!({"retry": {"maxAttempts": 1}}));
    assert_eq!(spec["projectRef"], json!({"name": "acme"}));
}

#[test]
fn every_child_is_a_sound_destination() {
    for child in children(&all()) {
        if child.spec.email.is_some() {
            continue; // it needs an SMTP server
        }
        let identity = Identity {
            key: ObjectKey::new("ns", &child.name),
            uid: Uid::new("u"),
            generation: 1,
        };
        Destination::try_from_spec(
            identity,
            &child.spec,
            &References::new(),
            &EgressPolicy::default(),
        )
        .unwrap();
    }
}

#[test]
fn a_change_of_one_entry_touches_no_other_child() {
    let before = children(&all());
    let mut spec = all();
    spec["events"][0]["emailSubscribers"] = json!(["b@x.example", "new@x.example"]);
    let after = children(&spec);
    let gone: Vec<_> = before.iter().filter(|child| !after.contains(child)).collect();
    let made: Vec<_> = after.iter().filter(|child| !before.contains(child)).collect();
    assert_eq!((gone.len(), made.len()), (1, 1));
    assert_eq!(gone[0].spec.email.as_ref().unwrap().to, ["a@x.example"]);
    assert_eq!(made[0].spec.email.as_ref().unwrap().to, ["new@x.example"]);
}

#[test]
fn nobody_is_told_of_one_event_twice() {
    let spec = json!({
        "ownerEmail": "ops@acme.example",
        "primaryContact": ["Ops <ops@ACME.example>"],
        "events": [{"type": "x", "emailSubscribers": "ops@acme.example, a@x.example, a@X.example"}],
    });
    assert_eq!(
        told(&spec),
        [
            "primary-contact * Ops <ops@ACME.example>",
            "subscriber x a@x.example"
        ]
    );
    let owner = json!({
        "ownerEmail": "dev@acme.example",
        "events": [
            {"type": "workflow_failure", "emailSubscribers": "dev@acme.example, a@x.example"},
            {"type": "x", "emailSubscribers": "dev@acme.example"},
        ],
    });
    assert_eq!(
        told(&owner),
        [
            "owner workflow_failure dev@acme.example",
            "subscriber workflow_failure a@x.example",
            "subscriber x dev@acme.example",
        ]
    );
}

#[test]
fn names_are_readable_and_differ() {
    let names: Vec<String> = children(&all()).into_iter().map(|child| child.name).collect();
    assert_eq!(names[..3], ["acme-owner", "acme-primary-contact", "acme-webhook"]);
    assert!(
        names[3].starts_with("acme-run-failed-") && names[3].len() == 26,
        "{}",
        names[3]
    );
    for (index, name) in names.iter().enumerate() {
        assert!(!names[..index].contains(name), "{name}");
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        );
    }
    let of = |event_type: &str| {
        children(&json!({"events": [{"type": event_type, "emailSubscribers": ["a@x.example"]}]}))
    };
    assert_ne!(
        of("a.b")[0].name,
        of("a_b")[0].name,
        "what a name cannot hold still counts"
    );
    assert!(of("__")[0].name.starts_with("acme-"));
}

#[test]
fn a_long_project_name_leaves_room() {
    let project = "p".repeat(239);
    let spec = json!({"ownerEmail": "a@x.example", "primaryContact": ["b@x.example"],
        "events": [{"type": "t".repeat(128), "emailSubscribers": ["c@x.example"]}]});
    let one = try_expand(&project, &spec).unwrap();
    let other = try_expand(&format!("{}q", "p".repeat(238)), &spec).unwrap();
    for (one, other) in one.iter().zip(&other) {
        assert!(one.name.len() <= 245, "{}", one.name.len());
        assert_ne!(one.name, other.name);
    }
}

#[test]
fn every_fault_is_told_with_its_path() {
    let spec = json!({
        "ownerEmail": "dev",
        "primaryContact": ["ops@acme.example", "x y@z"],
        "events": [
            {"type": "a b", "emailSubscribers": ["ok@x.example", "no"]},
            {"type": "x", "sendWebhook": true, "emailSubscribers": "a@x.example, b"},
            {"type": "x"},
        ],
    });
    let faults = faults(&spec);
    let paths: Vec<&str> = faults
        .iter()
        .map(|fault| fault.split(": ").next().unwrap())
        .collect();
    assert_eq!(
        paths,
        [
            "spec.notifications.primaryContact[1]",
            "spec.notifications.ownerEmail",
            "spec.notifications.events[1].sendWebhook",
            "spec.notifications.events[0].type",
            "spec.notifications.events[0].emailSubscribers[1]",
            "spec.notifications.events[1].emailSubscribers",
            "spec.notifications.events[2].type",
        ]
    );
    for (webhook, path) in [
        (
            json!({"url": "https://127.0.0.1/"}),
            "spec.notifications.webhook.url",
        ),
        (json!({"url": "nonsense"}), "spec.notifications.webhook.url"),
        (json!({}), "spec.notifications.webhook"),
    ] {
        assert!(self::faults(&json!({"webhook": webhook}))[0].starts_with(path));
    }
}

#[test]
fn a_child_reads_as_it_was_written() {
    for child in children(&all()) {
        let written = serde_json::to_value(&child.spec).unwrap();
        let read: EventDestinationSpec = serde_json::from_value(written).unwrap();
        assert_eq!(read, child.spec, "else it would be written again and again");
    }
}

#[test]
fn what_a_destination_would_refuse_is_a_fault_of_the_project() {
    let long = format!(
        "{} <{}@{}.example>",
        "n".repeat(128),
        "l".repeat(64),
        "d.".repeat(62)
    );
    for (address, message) in [
        (long.as_str(), "over 320 characters"),
        ("A <a@x.example >", "remove the spaces"),
    ] {
        let spec = json!({"events": [{"type": "x", "emailSubscribers": [address]}]});
        let fault = &faults(&spec)[0];
        let path = "spec.notifications.events[0].emailSubscribers[0]: ";
        assert!(fault.starts_with(path) && fault.contains(message), "{fault}");
    }
    assert_eq!(
        told(&json!({"ownerEmail": " A <a@x.example> "})),
        ["owner workflow_failure A <a@x.example>"]
    );
}

#[test]
fn subscribers_of_another_form_are_a_fault() {
    for other in [json!(5), json!({"a": "a@x.example"}), json!(["a@x.example", 5])] {
        let spec = json!({"events": [{"type": "x", "emailSubscribers": other}]});
        let told = "spec.notifications.events[0].emailSubscribers: use a list of addresses, or one text with commas \
                    between them";
        assert_eq!(faults(&spec), [told]);
    }
}

#[test]
fn subscribers_are_bounded() {
    let addresses = |count: usize| (0..count).map(|n| format!("a{n}@x.example")).collect::<Vec<_>>();
    let spec = |count| json!({"events": [{"type": "x", "emailSubscribers": addresses(count)}]});
    assert_eq!(children(&spec(MAX_SUBSCRIBERS)).len(), MAX_SUBSCRIBERS);
    assert!(faults(&spec(MAX_SUBSCRIBERS + 1))[0].contains("at most 256"));
    // However many there are, they are only counted.
    assert!(faults(&spec(100_000))[0].contains("100000 subscribers in all, at most 256"));
}
