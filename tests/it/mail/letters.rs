//! What arrives: connection, envelope, headers and parts.

use serde_json::json;

use super::server::{BOTH, Identity, Make, Server, header};
use super::*;

#[tokio::test]
async fn a_mail_arrives_over_every_kind_of_connection_and_authentication() {
    let identity = Identity::new();
    for make in BOTH {
        for (tls, security) in [("starttls", "StartTLS"), ("implicit", "TLS"), ("none", "None")] {
            for mechanism in ["PLAIN", "LOGIN"] {
                if make == Make::Python && tls == "none" {
                    continue; // aiosmtpd takes no password in plain text
                }
                let settings = json!({
                    "tls": tls, "require_auth": true,
                    "auth": {"user": "jürgen", "password": "pass wörd", "mechanism": mechanism},
                });
                let mut server = Server::start_with(make, &settings, Some(&identity));
                let secret = [
                    ("host", "localhost"),
                    ("port", &*server.port),
                    ("security", security),
                    ("username", "jürgen"),
                    ("password", "pass wörd"),
                    ("ca", &*identity.authority),
                ];
                let mail = some_mail(&email(&json!({}), &secret));
                let got = send(&mailer(), &mail, LONG).await;
                assert_eq!(got[0].0, "Taken", "{make:?} {tls} {mechanism}: {got:?}");
                let mail = server.mail();
                assert_eq!(mail["tls"], tls != "none", "{mail}");
                assert_eq!(mail["user"], "jürgen", "{mail}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_connection_cost_is_told_once_and_not_of_a_kept_one() {
    let identity = Identity::new();
    let server = Server::start_with(Make::Python, &json!({"tls": "starttls"}), Some(&identity));
    let secret = [
        ("host", "localhost"),
        ("port", &*server.port),
        ("security", "StartTLS"),
        ("ca", &*identity.authority),
    ];
    let (mail, mailer) = (some_mail(&email(&json!({}), &secret)), mailer());
    for is_new in [true, false] {
        let (_, timings) = mailer.mail_timed(&mail, LONG).await;
        let parts = [timings.dns, timings.connect, timings.tls];
        assert_eq!(parts.map(|part| part.is_some()), [is_new; 3]);
        let sum: Duration = parts.into_iter().flatten().sum();
        assert!(timings.total > sum, "{timings:?}");
    }
}

#[tokio::test]
async fn envelope_headers_and_parts_are_read_as_they_were_meant() {
    for make in BOTH {
        let mut server = Server::start(make, &json!({}));
        let spec = json!({
            "to": ["Ops, Team <ops@x.example>", "b@bücher.example"],
            "cc": ["Zoë \"Z\" <z@x.example>"],
            "replyTo": ["help@x.example"],
        });
        let email = email(&spec, &server.plain());
        let body = json!({
            "id": "evt-7", "type": "workflow_failure", "message": "Überlauf – 漏れ 🚨 .",
            "user": {"id": "u1"}, "data": {"error": "..\n.\nlines", "long": "x".repeat(3000)},
        });
        let sent = mail_of(&email, &body);
        assert_eq!(words(&mailer(), &sent).await, ["Taken", "Taken", "Taken"]);
        let mail = server.mail();
        let letter = &sent.letters[0];
        assert_eq!(mail["defects"], json!([]), "{mail}");
        assert_eq!(mail["from"], "sender@x.example");
        // smtp-server shows domain names as people write them.
        let to = mail["to"].to_string().replace("bücher", "xn--bcher-kva");
        assert_eq!(to, r#"["ops@x.example","b@xn--bcher-kva.example","z@x.example"]"#);
        for (name, value) in [
            ("Subject", &*letter.subject),
            ("From", "Postrider <sender@x.example>"),
            ("To", "\"Ops, Team\" <ops@x.example>, b@xn--bcher-kva.example"),
            ("Cc", "\"Zoë \\\"Z\\\"\" <z@x.example>"),
            ("Reply-To", "help@x.example"),
            ("Message-ID", &*letter.message_id),
            ("Date", "Sat, 31 Jan 2026 08:15:30 +0000"),
            ("Auto-Submitted", "auto-generated"),
            ("X-Postrider-Event-Type", "workflow_failure"),
            ("X-Postrider-Event-Id", "evt-7"),
            ("List-Id", "<ops.shop.x.example>"),
        ] {
            assert_eq!(header(&mail, name), value, "{make:?} {name}");
        }
        let lines = |text: &str| text.trim_end().replace("\r\n", "\n");
        let parts = &mail["parts"];
        assert_eq!(
            lines(parts["text/plain"].as_str().unwrap()),
            lines(letter.text.as_deref().unwrap())
        );
        assert_eq!(
            lines(parts["text/html"].as_str().unwrap()),
            lines(letter.html.as_deref().unwrap())
        );
        assert!(
            mail["longest"].as_u64().unwrap() <= 998 && mail["ascii"] == json!(true),
            "{mail}"
        );
    }
}

#[tokio::test]
async fn nothing_of_an_event_becomes_a_header_or_a_command() {
    let hostile = "x\r\nBcc: evil@x.example\r\n\r\n<script>\r\n.\r\nMAIL FROM:<evil@x.example>\r\n";
    for make in BOTH {
        let mut server = Server::start(make, &json!({}));
        let spec = json!({"subject": "{{ $.event.message }}", "text": "{{ $.event.message }}", "html": "<p>{{ $.event.message }}</p>"});
        let email = email(&spec, &server.plain());
        let body = json!({"type": "t", "message": hostile, "data": {}});
        assert_eq!(words(&mailer(), &mail_of(&email, &body)).await, ["Taken"]);
        let mail = server.mail();
        assert_eq!(mail["to"], json!(["a@x.example"]));
        assert_eq!(mail["defects"], json!([]), "{mail}");
        let names: Vec<_> = mail["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|header| header[0].clone())
            .collect();
        assert!(!names.contains(&json!("Bcc")), "{names:?}");
        assert_eq!(
            header(&mail, "Subject"),
            "x Bcc: evil@x.example <script> . MAIL FROM:<evil@x.example>"
        );
        let text = mail["parts"]["text/plain"]
            .as_str()
            .unwrap()
            .replace("\r\n", "\n");
        assert!(
            text.contains("Bcc: evil@x.example") && text.contains("\n.\n"),
            "{text:?}"
        );
        assert!(
            mail["parts"]["text/html"]
                .as_str()
                .unwrap()
                .contains("&lt;script&gt;")
        );
        assert_eq!(server.count(), 1);
    }
}

#[tokio::test]
async fn an_address_outside_ascii_needs_a_server_that_knows_it() {
    let mut server = Server::start(Make::Python, &json!({"smtputf8": true}));
    let spec = json!({"to": ["jürgen@x.example"]});
    assert_eq!(
        words(&mailer(), &some_mail(&email(&spec, &server.plain()))).await,
        ["Taken"]
    );
    let mail = server.mail();
    assert_eq!(mail["to"], json!(["jürgen@x.example"]));
    assert!(
        mail["options"].as_array().unwrap().contains(&json!("SMTPUTF8")),
        "{mail}"
    );
    let server = Server::start(Make::Python, &json!({"smtputf8": false}));
    let spec = json!({"to": ["jürgen@x.example", "a@x.example"], "perRecipient": true});
    let got = words(&mailer(), &some_mail(&email(&spec, &server.plain()))).await;
    assert_eq!(got, ["Refused MessageRefused", "Taken"]);
}

#[tokio::test]
async fn whatever_may_stand_in_a_mail_arrives_as_it_was() {
    let names = [
        "é \" , ; <x> ".repeat(10),
        "漢".repeat(128),
        "x".repeat(128),
        "a b ".repeat(32),
        "\\ \"q\" \\".to_owned(),
        "=?utf-8?q?x?=".to_owned(),
        "🚨".repeat(128),
    ];
    let to: Vec<_> = (0..50)
        .map(|number| {
            let name = names[number % names.len()]
                .replace('\\', "\\\\")
                .replace('"', "\\\"");
            format!("\"{}\" <r{number}@{}.example>", name.trim(), "d".repeat(50))
        })
        .collect();
    let long = "y".repeat(10_000);
    let text = format!(
        "From me\n.\n..\n \n\ttab at the end\t\nspace at the end \n=3D =\n\u{2028}\u{7f}\u{1b}[31m\n{long}\n漢字🚨é\n--\n--=_x\nend"
    );
    for make in BOTH {
        for subject in [
            "🚨".repeat(199),
            "x".repeat(199),
            format!("{} é", "x y ".repeat(48)),
            // Would be read as a line break and more.
            "=?utf-8?q?=0D=0ABcc:_evil@x.example?=".to_owned(),
            format!("漢 =?utf-8?q?=0A?= {}", "é".repeat(150)),
            "a  b".to_owned(),
        ] {
            let mut server = Server::start(make, &json!({}));
            let email = email(
                &json!({"to": to, "subject": "{{ $.event.data.subject }}", "text": "{{ $.event.data.text }}"}),
                &server.plain(),
            );
            let sent = mail_of(
                &email,
                &json!({"id": "=?utf-8?q?=0A?=", "type": "t", "data": {"subject": subject, "text": text}}),
            );
            assert_eq!(words(&mailer(), &sent).await, ["Taken"; 50]);
            let mail = server.mail();
            assert_eq!(mail["defects"], json!([]), "{make:?} {subject}");
            assert_eq!(header(&mail, "Subject"), &*sent.letters[0].subject, "{make:?}");
            assert_eq!(header(&mail, "X-Postrider-Event-Id"), "=?utf-8?q?=0A?=");
            // Python sees a space more between two encoded words of a name.
            let dense = |text: &str| text.split_whitespace().collect::<String>();
            let to = mail["addresses"].as_array().unwrap();
            for (got, meant) in to.iter().zip(&sent.letters[0].to) {
                let name = dense(got[0].as_str().unwrap());
                assert_eq!(name, dense(meant.name().unwrap()), "{make:?}");
                assert_eq!(got[1], meant.address());
            }
            assert_eq!(to.len(), 50);
            let got = mail["parts"]["text/plain"]
                .as_str()
                .unwrap()
                .replace("\r\n", "\n");
            assert_eq!(got.trim_end_matches('\n'), text, "{make:?}");
            assert!(
                mail["longest"].as_u64().unwrap() <= 998 && mail["ascii"] == json!(true),
                "{mail}"
            );
        }
    }
}
