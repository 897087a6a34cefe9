//! Links that a service would refuse.

use serde_json::{Value, json};

use super::sent;

fn telegram(url: &str, fill: &str) -> Value {
    let event = json!({
        "type": "run_failed", "message": fill.repeat(3900), "error": {"message": fill.repeat(3000), "code": fill.repeat(200)},
        "user": {"id": "u".repeat(200)}, "workflow": {"id": "w".repeat(200), "name": fill.repeat(200)},
        "integration": {"id": "i".repeat(200), "name": fill.repeat(200)},
        "sync": {"id": "s".repeat(200), "integration": fill.repeat(200), "credentialId": "c".repeat(200)},
        "data": {
            "url": url, "run_id": "r".repeat(200), "run_status": fill.repeat(200), "tenant_id": "t".repeat(200),
            "integration_id": fill.repeat(200),
        },
    });
    sent("Telegram", &event)
}

/// The text as it is counted.
fn plain(text: &str) -> String {
    [
        ("<b>", ""),
        ("</b>", ""),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&amp;", "&"),
    ]
    .into_iter()
    .fold(text.to_owned(), |text, (markup, shown)| {
        text.replace(markup, shown)
    })
}

#[test]
fn telegram_gets_a_button_only_for_hosts_that_it_takes() {
    for url in ["https://admin.example.com/runs/99", "http://a.b:8080/"] {
        let body = telegram(url, "x");
        assert_eq!(body["reply_markup"]["inline_keyboard"][0][0]["url"], url);
        assert!(!body["text"].as_str().unwrap().contains(url), "{url}");
    }
    for (url, shown) in [
        ("http://localhost:3000/runs/99", "http://localhost:3000/runs/99"),
        ("http://localhost./runs", "http://localhost./runs"),
        (
            "https://grafana/d/1?a=1&b=<2>",
            "https://grafana/d/1?a=1&b=%3C2%3E",
        ),
        ("http://10.0.0.7/x", "http://10.0.0.7/x"),
        ("http://[::1]:80/x", "http://[::1]/x"),
        ("http://grafana/@everyone", "http://grafana/%40everyone"),
    ] {
        let body = telegram(url, "x");
        assert_eq!(body.get("reply_markup"), None, "{url}");
        let text = body["text"].as_str().unwrap();
        assert!(plain(text).ends_with(&format!("\nOpen: {shown}")), "{text}");
        assert!(!text.contains("&b") || text.contains("&amp;b"), "{text}");
    }
}

#[test]
fn telegram_takes_the_text_however_long_all_of_it_is() {
    let long = format!("http://grafana/{}", "a".repeat(1900));
    for fill in ["x", "<", "\u{1f600}", "@", "\u{4e2d}"] {
        for url in ["https://x.example/", &long] {
            let body = telegram(url, fill);
            let count = plain(body["text"].as_str().unwrap()).encode_utf16().count();
            assert!(count <= 4096, "{fill}: {count}");
        }
    }
    let short = json!({"type": "x", "message": "m", "data": {"url": long}});
    let text = plain(sent("Telegram", &short)["text"].as_str().unwrap());
    assert!(text.ends_with(&format!("Open: {long}")), "{text}");
}

#[test]
fn a_link_with_a_user_name_that_could_pass_for_a_host_is_no_link() {
    for format in ["Slack", "MicrosoftTeams", "Discord", "Telegram"] {
        for (url, is_link) in [
            ("https://good.example/x", true),
            ("https://u:p@good.example@evil.example/x", false),
            ("https://good.example@evil.example/x", false),
        ] {
            let event = json!({"type": "run_failed", "data": {"run_id": 1, "url": url}});
            let body = sent(format, &event).to_string();
            assert_eq!(body.contains("good.example"), is_link, "{format}: {url}");
        }
    }
}
