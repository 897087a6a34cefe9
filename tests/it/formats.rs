//! Ready formats: bodies that the services' own libraries accept.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use postrider::domain::catalogue;
use postrider::domain::destination::Identity;
use postrider::domain::event::Event;
use postrider::domain::event::parse::parse;
use postrider::domain::format::{FORMATS, Level, Options, ReadyFormat, Service};
use postrider::domain::id::{EventId, ObjectKey, Uid};
use postrider::domain::pattern::TypePattern;
use postrider::domain::project::ProjectFacts;
use postrider::domain::secret::Secret;
use serde_json::{Value, json};

use crate::support::{Judge, repository_file};

/// Whose library judges a service's body: `docs/payloads.md` has the same table with their names.
pub(crate) fn judge_of(service: &str) -> Judge {
    match service {
        "Discord" | "MicrosoftTeams" | "Mattermost" => Judge::Node,
        "PagerDuty" | "Alertmanager" => Judge::Go,
        _ => Judge::Python,
    }
}

fn event(body: &Value) -> Event {
    event_of("Acme", body)
}

fn event_of(project: &str, body: &Value) -> Event {
    let headers =
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let draft = parse(body.to_string().as_bytes(), &headers)
        .unwrap_or_else(|refusal| panic!("{refusal:?}"))
        .remove(0);
    let accepted = "2026-01-31T08:15:30.123Z".parse().unwrap();
    let mut content = draft.content;
    content.timestamp = draft.timestamp.unwrap_or(accepted).as_millisecond();
    let project = ProjectFacts {
        uid: Uid::new("0b1f3a44-0000-4000-8000-000000000001"),
        id: "p-1".into(),
        name: project.into(),
        environment: Some("production".into()),
        account_id: None,
        account_name: Some("Acme Inc".into()),
    };
    Event::new(
        EventId::parse("evt_1").unwrap(),
        accepted,
        content,
        Arc::new(project),
    )
}

fn identity() -> Identity {
    Identity {
        key: ObjectKey::new("shop", "ops"),
        uid: Uid::new("9d2c7b58-0000-4000-8000-000000000002"),
        generation: 1,
    }
}

/// What people set at most.
fn every_option() -> Options {
    let tags = (0..16).map(|number| {
        let name = format!("9 team-{number}").into_boxed_str();
        (name, "<!channel>, \"x\"\n".repeat(8).into_boxed_str())
    });
    Options {
        channel: Some("ops".into()),
        username: Some("Postrider".into()),
        service: Some("s".repeat(128).into()),
        tags: tags.collect(),
        severity: vec![(vec![TypePattern::parse("*").unwrap()], Level::Critical)],
        chat: Some("-100123".into()),
    }
}

fn formats(service: &'static Service) -> [ReadyFormat; 2] {
    let key = Secret::new("0123456789abcdef0123456789abcdef".to_owned());
    let chat = Options {
        chat: Some("@ops".into()),
        ..Options::default()
    };
    [chat, every_option()].map(|options| ReadyFormat::new(service, options, Some(&key)))
}

/// Events that are hard to tell: long, deep, empty, and full of what services read as markup or mentions.
fn hostile() -> Vec<Value> {
    let nasty = "<!channel> <@U1> @everyone @channel <users/all> <script>alert(1)</script> <b>x [x](http://evil.example) *b* \
                 _i_ ~s~ `c` || # h {{x}} \u{202e}\u{200d}\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467} \" \\ ' & &amp; \u{1f600}";
    let mut deep = json!("end");
    for level in 0..50 {
        deep = if level % 2 == 0 {
            json!({"a": deep})
        } else {
            json!([deep])
        };
    }
    let many: serde_json::Map<String, Value> = (0..2000)
        .map(|number| (format!("member {number} {nasty}"), json!(number)))
        .collect();
    vec![
        json!({
            "type": "x.failed", "message": format!("{nasty}{}", "&<>\"".repeat(3000)),
            "user": {"id": nasty, "metadata": {"n": null}},
            "workflow": {"id": nasty, "name": nasty},
            "integration": {"name": nasty, "type": nasty},
            "error": {"message": "<".repeat(200_000)},
            "data": {"text": "\u{1f600}".repeat(50_000), "deep": deep, "nothing": null, "many": vec![1; 50_000]},
        }),
        json!({
            "type": "t".repeat(128), "message": "\u{1f600}".repeat(4000), "error": {"message": "_".repeat(200_000)},
            "user": {"id": "&".repeat(255)},
            "data": {"url": format!("https://example.com/{}", "a".repeat(1900)), "many": many},
        }),
        json!({"type": "a", "message": "\n \t\n", "error": {"message": " "}, "data": {"url": "javascript:alert(1)"}}),
        json!({"type": "a", "timestamp": 1, "error": null, "data": {"error": {"message": null}, "": "", "n": 1e300}}),
        json!({
            "type": "a", "message": "\u{1}".repeat(16_000), "error": {"message": "\u{1b}[31m".repeat(40_000)},
            "workflow": {"id": "\u{7}".repeat(255), "name": "\"".repeat(255)}, "user": {"id": "\\".repeat(255)},
            "data": {"text": vec!["\u{1}\"\\"; 20_000]},
        }),
        json!({"type": "a", "message": "\r\n.\r\n", "data": {"text": "\\".repeat(900_000)}}),
    ]
}

#[test]
fn what_every_service_is_sent_is_accepted_by_its_library() {
    let mut events: Vec<(String, Event)> = catalogue::EVENT_TYPES
        .iter()
        .map(|entry| (entry.name.to_owned(), event(&entry.definition().example)))
        .collect();
    let hard = hostile();
    events.extend(
        hard.iter()
            .enumerate()
            .map(|(index, body)| (format!("hostile {index}"), event_of("Acme <!here> @all", body))),
    );
    let mut refused = Vec::new();
    for judge in [Judge::Python, Judge::Node, Judge::Go] {
        let mut bodies = Vec::new();
        for service in FORMATS
            .iter()
            .filter(|service| judge_of(service.name) as u8 == judge as u8)
        {
            for format in formats(service) {
                for (name, event) in &events {
                    bodies.push((service.name, name, format.render(event, &identity()).body));
                }
            }
        }
        let requests: Vec<(&str, &[u8])> = bodies
            .iter()
            .map(|(service, _, body)| (*service, body.as_ref()))
            .collect();
        for ((service, name, _), verdict) in bodies.iter().zip(judge.judge(&requests)) {
            if let Err(fault) = verdict {
                refused.push(format!("{service}, {name}: {fault}"));
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
}

/// Changes to a right body after which the service would refuse it, as pointer and new value (`null` removes), or as
/// a piece of text and what takes its place.
fn spoilt() -> Vec<(&'static str, &'static str, Value)> {
    let long = |count: usize| json!("x".repeat(count));
    vec![
        ("Slack", "/blocks/0/text/text", long(151)),
        ("Slack", "/blocks/0/type", json!("heading")),
        ("Slack", "/blocks/1/txt", json!("x")),
        ("Slack", "/colour", json!("red")),
        ("Datadog", "/0/message", json!(1)),
        ("Datadog", "/0/message", Value::Null),
        ("Datadog", "/0/ddtags", json!(["a"])),
        ("NewRelic", "/0/logs/0/attributes/x", json!({"nested": 1})),
        ("NewRelic", "/0/logs/0/attributes/x", long(5000)),
        ("NewRelic", "/0/logs/0/text", json!("x")),
        ("Sentry", "\"level\":\"error\"", json!("\"level\":\"wrong\"")),
        (
            "Sentry",
            "\"platform\":\"other\"",
            json!("\"platform\":\"mars!\""),
        ),
        ("Sentry", "\"type\":\"event\"", json!("\"type\":\"evnt\"")),
        ("Discord", "/embeds/0/title", long(257)),
        ("Discord", "/embeds/0/fields/0/value", json!(7)),
        ("Discord", "/embeds/0/footr", json!("x")),
        ("Discord", "/allowed_mentions", Value::Null),
        (
            "MicrosoftTeams",
            "/attachments/0/content/body/0/type",
            json!("Rich"),
        ),
        (
            "MicrosoftTeams",
            "/attachments/0/content/body/0/inlines/0/size",
            json!("vast"),
        ),
        (
            "MicrosoftTeams",
            "/attachments/0/content/body/0/colour",
            json!("red"),
        ),
        (
            "MicrosoftTeams",
            "/attachments/0/content/body/1/inlines/0/text",
            long(30_000),
        ),
        ("GoogleChat", "/cardsV2/0/card/headers", json!({})),
        (
            "GoogleChat",
            "/cardsV2/0/card/sections/0/widgets/0/textParagraph/text",
            json!(1),
        ),
        ("GoogleChat", "/txt", json!("x")),
        ("PagerDuty", "/payload/severity", json!("worst")),
        ("PagerDuty", "/payload/sumary", json!("x")),
        ("PagerDuty", "/payload/timestamp", json!("today")),
        ("PagerDuty", "/routing_key", Value::Null),
        ("Opsgenie", "/priority", json!("P9")),
        ("Opsgenie", "/details/x", json!(1)),
        ("Opsgenie", "/summary", json!("x")),
        ("Mattermost", "/attachments/0/colour", json!("red")),
        ("Mattermost", "/attachments/0/fields/0/short", json!("yes")),
        ("Mattermost", "/txt", json!("x")),
        ("Telegram", "/text", json!("a < b")),
        ("Telegram", "/text", json!("<b>open")),
        (
            "Telegram",
            "/text",
            json!("<a href=\"http://evil.example\">x</a>"),
        ),
        ("Telegram", "/text", long(4097)),
        ("Telegram", "/reply_markup", json!({"inline": []})),
        ("Alertmanager", "/0/labels", Value::Null),
        ("Alertmanager", "/0/labels/not a label", json!("x")),
        ("Alertmanager", "/0/startsAt", json!("today")),
        ("Alertmanager", "/0/severity", json!("x")),
    ]
}

fn spoil(body: &str, place: &str, value: &Value) -> String {
    if !place.starts_with('/') {
        let changed = body.replacen(place, value.as_str().unwrap(), 1);
        assert_ne!(changed, body, "{place}");
        return changed;
    }
    let mut body: Value = serde_json::from_str(body).unwrap();
    let (parent, name) = place.rsplit_once('/').unwrap();
    let members = body
        .pointer_mut(parent)
        .and_then(Value::as_object_mut)
        .unwrap_or_else(|| panic!("{place}"));
    if value.is_null() {
        members.remove(name).unwrap();
    } else {
        members.insert(name.to_owned(), value.clone());
    }
    body.to_string()
}

#[test]
fn a_wrong_body_is_refused_by_each_library() {
    let example = event(&json!({
        "type": "run_failed", "message": "Run 99 failed", "user": {"id": "u-1"}, "error": {"message": "no answer"},
        "data": {"admin_link": "https://admin.example.com/runs/99"},
    }));
    let mut accepted = Vec::new();
    for service in &FORMATS {
        let [format, _] = formats(service);
        let body = format.render(&example, &identity()).body;
        let body = std::str::from_utf8(&body).unwrap();
        let mut cases = vec![("nothing", body.to_owned())];
        for (_, place, value) in spoilt().iter().filter(|(name, ..)| *name == service.name) {
            cases.push((place, spoil(body, place, value)));
        }
        assert!(cases.len() > 3, "{} has too few spoilt bodies", service.name);
        let requests: Vec<(&str, &[u8])> = cases
            .iter()
            .map(|(_, body)| (service.name, body.as_bytes()))
            .collect();
        for ((place, _), verdict) in cases.iter().zip(judge_of(service.name).judge(&requests)) {
            if verdict.is_err() == (*place == "nothing") {
                accepted.push(format!("{}, spoilt {place}: {verdict:?}", service.name));
            }
        }
    }
    assert!(accepted.is_empty(), "{accepted:#?}");
}

/// The event of the examples in `docs/payloads.md`.
fn documented() -> Event {
    event(&json!({
        "type": "run_failed", "message": "Run 99 of Orders failed", "user": {"id": "u-1"},
        "workflow": {"id": "w-1", "name": "Orders"}, "error": {"message": "no answer from <api>"},
        "data": {"run_id": 99, "admin_link": "https://admin.example.com/runs/99"},
    }))
}

#[test]
fn the_guide_shows_what_each_service_is_sent() {
    let guide = std::fs::read_to_string(repository_file("docs/payloads.md")).unwrap();
    let mut differing = Vec::new();
    for service in &FORMATS {
        let title = format!("\n### {}\n", service.name);
        let shown = guide.split_once(&title).map_or("", |(_, rest)| rest);
        let shown = shown.split("\n##").next().unwrap_or_default();
        let block = shown
            .split("```json\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next());
        let key = Secret::new("0123456789abcdef".to_owned());
        let options = Options {
            chat: Some("-1001234567890".into()),
            ..Options::default()
        };
        let body = ReadyFormat::new(service, options, Some(&key))
            .render(&documented(), &identity())
            .body;
        let text = std::str::from_utf8(&body).unwrap();
        // An envelope is three lines of JSON, of which the last is the event.
        let sent: Value = serde_json::from_str(text.trim().lines().last().unwrap()).unwrap();
        let found = block.and_then(|block| serde_json::from_str::<Value>(block).ok());
        if found.as_ref() != Some(&sent) {
            differing.push(format!("{title}{sent}"));
        }
        assert!(shown.contains(service.reference), "{} has no link", service.name);
    }
    assert!(
        differing.is_empty(),
        "docs/payloads.md shows something else than\n{}",
        differing.join("\n")
    );
}
