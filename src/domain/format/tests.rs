//! Every service, every built-in type, and an event that means harm.

mod cuts;
mod links;
mod telling;

use serde_json::{Value, json};

use super::*;
use crate::domain::catalogue;
use crate::domain::event::sample;
use crate::domain::gist::Gist;
use crate::domain::shape;

/// The service's format without options.
fn plain(name: &str) -> ReadyFormat {
    let service = FORMATS.iter().find(|service| service.name == name).unwrap();
    let key = Secret::new("k3y".to_owned());
    ReadyFormat::new(service, Options::default(), Some(&key))
}

fn body(format: &ReadyFormat, event: &Event) -> String {
    let rendered = format.render(event, &sample::identity());
    String::from_utf8(rendered.body.to_vec()).unwrap()
}

fn sent(name: &str, event: &Value) -> Value {
    serde_json::from_str(&body(&plain(name), &sample::event(event))).unwrap()
}

fn failure() -> Value {
    json!({
        "type": "run_failed", "message": "Run 99 failed", "user": {"id": "u-1"},
        "workflow": {"id": "w-1", "name": "Orders"},
        "error": {"message": "no answer"},
        "data": {"admin_link": "https://admin.example.com/runs/99", "run_id": 99},
    })
}

/// What an event may hold at worst, near the bound of a publish.
fn hostile() -> Value {
    let nasty = "<!channel> @everyone @channel <users/all> <script>alert(1)</script> [x](http://evil.example) *b* \u{1f600}";
    let mut deep = json!("end");
    for _ in 0..20 {
        deep = json!({"a": deep});
    }
    json!({
        "type": "x.failed", "message": format!("{nasty}{}", "&<>\"".repeat(3000)),
        "user": {"id": nasty, "metadata": {"n": null}},
        "workflow": {"id": nasty, "name": nasty.repeat(10)},
        "integration": {"name": nasty},
        "error": {"message": "<".repeat(100_000)},
        "data": {"text": "\u{1f600}".repeat(50_000), "deep": deep, "nothing": null, "many": vec![1; 50_000]},
    })
}

#[test]
fn every_format_of_the_api_is_in_the_table_once() {
    for service in &FORMATS {
        assert_eq!(
            FORMATS.iter().filter(|other| other.name == service.name).count(),
            1
        );
        assert_eq!(serde_json::to_value(service.format).unwrap(), json!(service.name));
        assert!(std::ptr::eq(of(service.format).unwrap(), service));
    }
    for own in ["Default", "Event", "Sync", "Flat", "Envelope", "CloudEvent"] {
        let format = serde_json::from_value(json!(own)).unwrap();
        assert!(of(format).is_none(), "{own}");
    }
}

#[test]
fn every_built_in_type_is_told_by_every_service() {
    for service in &FORMATS {
        for entry in catalogue::EVENT_TYPES {
            let event = sample::event(&entry.definition().example);
            let body = body(&plain(service.name), &event);
            let message = Gist::of(&event).headline.replace('_', "");
            let plain_body = body.replace(['\\', '_'], "");
            assert!(plain_body.contains(&message[..20]), "{}: {body}", service.name);
        }
    }
}

#[test]
fn no_service_is_sent_more_than_it_takes() {
    let fills = [
        "x",
        "\"",
        "\\",
        "\u{1}",
        "\u{1f600}",
        "\u{4e2d}",
        "<",
        "_",
        "@",
        "&",
    ]
    .map(|fill| {
        let short = fill.repeat(200);
        json!({
            "type": "run_failed", "message": fill.repeat(3900),
            "error": {"message": fill.repeat(150_000), "code": short},
            "user": {"id": short}, "workflow": {"id": short, "name": short}, "integration": {"name": short},
            "sync": {"id": short, "integration": short, "credentialId": short},
            "data": {
                "url": format!("https://x.example/{}", "a".repeat(1900)), "text": fill.repeat(700_000 / fill.len()),
                "run_id": short, "run_status": short, "tenant_id": short, "tenant_name": fill.repeat(300),
                "integration_id": 3, "integration_name": short,
            },
        })
    });
    for event in fills.iter().chain([&hostile()]) {
        let event = sample::event(event);
        for service in &FORMATS {
            let body = body(&plain(service.name), &event);
            let most = match service.name {
                "Datadog" | "NewRelic" | "Sentry" => 1_000_000,
                "PagerDuty" => 512_000,
                "GoogleChat" => 32_000,
                "MicrosoftTeams" => 14_336,
                "Mattermost" => 16_383,
                _ => 100_000,
            };
            if service.name == "Discord" {
                assert!(embed_length(&body) <= 6000, "{}", embed_length(&body));
            }
            let start: String = body.chars().take(100).collect();
            assert!(body.len() <= most, "{}: {} {start}", service.name, body.len());
            assert!(
                is_whole(service, &body, &event) || body.contains("[cut"),
                "{} says that it cut",
                service.name
            );
        }
    }
}

/// Datadog takes so much that it may get all of an event.
fn is_whole(service: &Service, body: &str, event: &Event) -> bool {
    let all = || serde_json::from_str::<Value>(&shape::event_view(event)).unwrap();
    let told = || serde_json::from_str::<Value>(body).unwrap()[0]["event"].take();
    service.name == "Datadog" && told() == all()
}

/// What Discord counts.
fn embed_length(body: &str) -> usize {
    let body: Value = serde_json::from_str(body).unwrap();
    let embed = &body["embeds"][0];
    let mut texts = Vec::new();
    strings(&embed["title"], &mut texts);
    strings(&embed["description"], &mut texts);
    strings(&embed["fields"], &mut texts);
    texts.iter().map(|text| text.encode_utf16().count()).sum()
}

#[test]
fn an_alert_does_not_start_in_the_future_and_tags_hide_nothing() {
    let mut event = failure();
    event["timestamp"] = json!(4_000_000_000_000_i64);
    assert_eq!(sent("Alertmanager", &event)[0]["startsAt"], sample::ACCEPTED);
    let options = Options {
        tags: BTreeMap::from([("event".into(), "x".into()), ("env".into(), "blue".into())]),
        ..Options::default()
    };
    let rendered = |format| {
        let format = ReadyFormat::new(of(format).unwrap(), options.clone(), None);
        body(&format, &sample::event(&failure()))
    };
    let alert: Value = serde_json::from_str(&rendered(PayloadFormat::PagerDuty)).unwrap();
    let details = &alert["payload"]["custom_details"];
    assert_eq!(
        (&details["event"]["type"], &details["env"]),
        (&json!("run_failed"), &json!("blue"))
    );
    let envelope = rendered(PayloadFormat::Sentry);
    let event: Value = serde_json::from_str(envelope.lines().last().unwrap()).unwrap();
    assert_eq!(event["tags"]["env"], "blue");
    assert_eq!(event["environment"], "production");
}

#[test]
fn replies_are_read_in_the_way_of_the_service() {
    for service in &FORMATS {
        let expected = match service.name {
            "Slack" => Reading::Slack,
            "Telegram" => Reading::Telegram,
            "MicrosoftTeams" => Reading::MicrosoftTeams,
            _ => Reading::Status,
        };
        assert_eq!(service.reading, expected, "{}", service.name);
    }
}

#[test]
fn the_event_mentions_nobody_and_makes_no_markup() {
    for (name, forbidden) in [
        ("Slack", &["<!", "<@", "<http"][..]),
        ("Mattermost", &["@channel", "@everyone", "<!", "[x]("]),
        ("Telegram", &["<script", "<!", "@everyone", "@channel"]),
        ("GoogleChat", &["<script", "<users"]),
        ("Discord", &["[x](", " *b* "]),
    ] {
        let body = sent(name, &hostile());
        let mut texts = Vec::new();
        strings(&body, &mut texts);
        for word in forbidden {
            // A header is plain text in which nothing is read.
            let found = texts.iter().find(|text| text.contains(word));
            assert_eq!(found, None, "{name}");
        }
    }
    assert_eq!(
        sent("Discord", &hostile())["allowed_mentions"],
        json!({"parse": []})
    );
}

fn strings<'a>(value: &'a Value, out: &mut Vec<&'a str>) {
    match value {
        Value::String(text) => out.push(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, out)),
        Value::Object(members) => members.values().for_each(|member| strings(member, out)),
        _ => {}
    }
}

#[test]
fn slack_gets_blocks_within_its_bounds() {
    let body = sent("Slack", &failure());
    assert_eq!(body["text"], "run_failed: Run 99 failed");
    assert_eq!(body["blocks"][0]["text"]["text"], "run_failed");
    assert_eq!(body["blocks"][2]["text"]["text"], "*Error:* no answer");
    let button = &body["blocks"][4]["elements"][0];
    assert_eq!(button["url"], "https://admin.example.com/runs/99");
    let long = sent("Slack", &hostile());
    for block in long["blocks"].as_array().unwrap() {
        let length = block["text"]["text"]
            .as_str()
            .map_or(0, |text| text.chars().count());
        assert!(length <= 3000, "{length}");
    }
}

#[test]
fn telegram_counts_utf16_units() {
    let text = sent("Telegram", &hostile())["text"].as_str().unwrap().to_owned();
    let shown = text
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"");
    assert!(
        shown.encode_utf16().count() <= 4096,
        "{}",
        shown.encode_utf16().count()
    );
}

#[test]
fn alerts_about_the_same_thing_have_the_same_key() {
    let key = |event: &Value| sent("PagerDuty", event)["dedup_key"].clone();
    let mut other = failure();
    other["message"] = json!("Run 100 failed");
    assert_eq!(key(&failure()), key(&other));
    other["workflow"]["id"] = json!("w-2");
    assert_ne!(key(&failure()), key(&other));
    assert!(key(&hostile()).as_str().unwrap().len() <= 255);
    assert_eq!(sent("PagerDuty", &failure())["routing_key"], "k3y");
}

#[test]
fn opsgenie_is_told_in_short() {
    let alert = sent("Opsgenie", &hostile());
    let length = |name: &str| alert[name].as_str().unwrap().chars().count();
    assert!(length("message") <= 130 && length("alias") <= 512 && length("description") <= 15_000);
    assert!(length("entity") <= 512 && length("source") <= 100);
    let details = alert["details"].as_object().unwrap();
    let sum: usize = details
        .iter()
        .map(|(name, value)| name.len() + value.as_str().unwrap().len())
        .sum();
    assert!(sum <= 8000, "{sum}");
}

#[test]
fn sentrys_item_has_the_length_that_it_says_and_a_retry_the_same_id() {
    for event in [failure(), hostile()] {
        let text = body(&plain("Sentry"), &sample::event(&event));
        let mut lines = text.lines();
        let head: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let item: Value = serde_json::from_str(lines.next().unwrap()).unwrap();
        let payload = lines.next().unwrap();
        assert_eq!(item["length"], payload.len());
        let payload: Value = serde_json::from_str(payload).unwrap();
        assert_eq!(payload["event_id"], head["event_id"]);
        assert_eq!(payload["event_id"].as_str().unwrap().len(), 32);
        assert_eq!(lines.next(), None);
    }
    let event = sample::event(&failure());
    assert_eq!(body(&plain("Sentry"), &event), body(&plain("Sentry"), &event));
}

#[test]
fn levels_follow_the_type_and_the_rules() {
    let datadog = of(PayloadFormat::Datadog).unwrap();
    let status = |severity, event_type: &str| {
        let options = Options {
            severity,
            ..Options::default()
        };
        let format = ReadyFormat::new(datadog, options, None);
        let event = sample::event(&json!({"type": event_type, "message": "m"}));
        let logs: Value = serde_json::from_str(&body(&format, &event)).unwrap();
        logs[0]["status"].as_str().unwrap().to_owned()
    };
    for (event_type, expected) in [
        ("run_failed", "error"),
        ("sync_errored", "error"),
        ("workflowExecution.canceled", "warn"),
        ("sync_complete", "info"),
    ] {
        assert_eq!(status(Vec::new(), event_type), expected, "{event_type}");
    }
    let rule = vec![(vec![TypePattern::parse("run_*").unwrap()], Level::Critical)];
    assert_eq!(status(rule.clone(), "run_failed"), "critical");
    assert_eq!(status(rule, "sync_complete"), "info");
}

#[test]
fn the_url_and_headers_follow_from_a_key_and_a_site() {
    let key = Secret::new("k3y".to_owned());
    let connect = |name: &str, url: Option<&str>, site: Option<&str>| {
        let service = FORMATS.iter().find(|service| service.name == name).unwrap();
        service.connect(url, Some(&key), site).map(|made| {
            let header = made.headers.first().map(|(name, value)| {
                assert!(value.is_sensitive());
                format!("{name}: {}", value.to_str().unwrap())
            });
            (made.url, header.unwrap_or_default())
        })
    };
    let agent = env!("CARGO_PKG_VERSION");
    let auth =
        format!("x-sentry-auth: Sentry sentry_version=7, sentry_client=postrider/{agent}, sentry_key=abc");
    for (name, url, site, expected, header) in [
        (
            "Datadog",
            None,
            None,
            "https://http-intake.logs.datadoghq.com/api/v2/logs",
            "dd-api-key: k3y",
        ),
        (
            "Datadog",
            None,
            Some("us5.datadoghq.com"),
            "https://http-intake.logs.us5.datadoghq.com/api/v2/logs",
            "dd-api-key: k3y",
        ),
        (
            "Datadog",
            None,
            Some("datadoghq.eu"),
            "https://http-intake.logs.datadoghq.eu/api/v2/logs",
            "dd-api-key: k3y",
        ),
        (
            "Datadog",
            Some("http://proxy.example/logs"),
            None,
            "http://proxy.example/logs",
            "dd-api-key: k3y",
        ),
        (
            "NewRelic",
            None,
            Some("EU"),
            "https://log-api.eu.newrelic.com/log/v1",
            "api-key: k3y",
        ),
        (
            "PagerDuty",
            None,
            None,
            "https://events.pagerduty.com/v2/enqueue",
            "",
        ),
        (
            "Opsgenie",
            None,
            Some("eu"),
            "https://api.eu.opsgenie.com/v2/alerts",
            "authorization: GenieKey k3y",
        ),
        (
            "Telegram",
            None,
            None,
            "https://api.telegram.org/botk3y/sendMessage",
            "",
        ),
        (
            "Alertmanager",
            Some("http://am:9093"),
            None,
            "http://am:9093/api/v2/alerts",
            "",
        ),
        (
            "Alertmanager",
            Some("http://am/x/api/v2/alerts/"),
            None,
            "http://am/x/api/v2/alerts",
            "",
        ),
        (
            "Sentry",
            Some("https://abc@o1.ingest.sentry.io/42"),
            None,
            "https://o1.ingest.sentry.io/api/42/envelope/",
            &auth,
        ),
        (
            "Sentry",
            Some("http://abc:old@sentry.local:9000/pre/42"),
            None,
            "http://sentry.local:9000/pre/api/42/envelope/",
            &auth,
        ),
        (
            "Slack",
            Some("https://hooks.slack.com/services/T/B/X"),
            None,
            "https://hooks.slack.com/services/T/B/X",
            "",
        ),
    ] {
        assert_eq!(
            connect(name, url, site),
            Ok((expected.to_owned(), header.to_owned())),
            "{name}"
        );
    }
    for (name, url, site, part) in [
        ("Datadog", None, Some("evil.example"), Part::Site),
        ("Datadog", None, Some("evil.example/datadoghq.com"), Part::Site),
        ("Datadog", None, Some("xdatadoghq.com"), Part::Site),
        ("NewRelic", None, Some("MARS"), Part::Site),
        ("Sentry", Some("https://o1.ingest.sentry.io/42"), None, Part::Url),
        ("Sentry", Some("https://abc@o1.ingest.sentry.io"), None, Part::Url),
        ("Sentry", Some("nonsense"), None, Part::Url),
        ("Slack", None, None, Part::Url),
    ] {
        let fault = connect(name, url, site).unwrap_err();
        assert_eq!(fault.part, part, "{name} {url:?}: {}", fault.message);
    }
    let bad = Secret::new("12/../x".to_owned());
    let telegram = of(PayloadFormat::Telegram).unwrap();
    assert_eq!(
        telegram.connect(None, Some(&bad), None).err().unwrap().part,
        Part::Key
    );
}

#[test]
fn a_key_never_shows_itself() {
    let text = format!("{:?}", plain("PagerDuty"));
    assert!(!text.contains("k3y"), "{text}");
}
