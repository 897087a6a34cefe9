//! Servers that refuse, hang, break off or are not what they should be.

use serde_json::json;

use super::script::{answers, scripted};
use super::server::{BOTH, Identity, Make, Server};
use super::*;

#[tokio::test]
async fn a_refused_recipient_costs_the_others_nothing() {
    for make in BOTH {
        for per_recipient in [false, true] {
            let settings = json!({
                "fail": {"rcpt:gone@x.example": "550 5.1.1 no such user"}, "greylist": ["grey@x.example"],
            });
            let mut server = Server::start(make, &settings);
            let spec = json!({
                "to": ["gone@x.example", "grey@x.example", "a@x.example"], "perRecipient": per_recipient,
            });
            let email = email(&spec, &server.plain());
            let (mailer, mail) = (mailer(), some_mail(&email));
            let got = send(&mailer, &mail, LONG).await;
            let kinds: Vec<_> = got.iter().map(|(word, _)| word.as_str()).collect();
            assert_eq!(
                kinds,
                ["Refused RecipientRefused", "Open TryLater", "Taken"],
                "{make:?}"
            );
            assert!(
                got[0]
                    .1
                    .starts_with("spec.email.to[0]: the SMTP server answered RCPT TO with 550 "),
                "{got:?}"
            );
            assert_eq!(server.mail()["to"], json!(["a@x.example"]));
            assert_eq!(words(&mailer, &mail).await[1], "Taken", "greylisting is over");
            assert_eq!(mailer.metrics().opened(), 1, "one connection did it all");
        }
    }
}

#[tokio::test]
async fn what_the_server_says_of_a_whole_mail_is_told_by_reason() {
    for make in BOTH {
        for (fail, expected) in [
            (json!({"mail": "550 5.7.1 you may not"}), "Refused MessageRefused"),
            (json!({"mail": "451 4.3.0 not now"}), "Open TryLater"),
            (json!({"data": "554 5.6.0 spam"}), "Refused MessageRefused"),
            (json!({"data": "452 4.2.2 full"}), "Open TryLater"),
        ] {
            let server = Server::start(make, &json!({"fail": fail}));
            let got = words(&mailer(), &some_mail(&email(&json!({}), &server.plain()))).await;
            assert_eq!(got, [expected], "{make:?} {fail}");
        }
        let server = Server::start(make, &json!({"size": 1000}));
        let got = send(&mailer(), &some_mail(&email(&json!({}), &server.plain())), LONG).await;
        assert_eq!(got[0].0, "Refused MessageRefused");
        assert!(got[0].1.contains("takes 1000"), "{got:?}");
    }
}

#[tokio::test]
async fn a_server_that_hangs_costs_the_deadline_and_the_message_says_where() {
    for make in BOTH {
        for (hang, said) in [
            ("mail", "MAIL FROM"),
            ("rcpt", "RCPT TO"),
            ("content", "the mail"),
        ] {
            let server = Server::start(make, &json!({"hang": hang}));
            let mailer = mailer();
            let got = send(&mailer, &some_mail(&email(&json!({}), &server.plain())), SHORT).await;
            assert_eq!(got[0].0, "Open Timeout", "{make:?} {hang}");
            assert!(
                got[0].1.contains(&format!("did not answer {said} within")),
                "{got:?}"
            );
            assert_eq!(
                mailer.metrics().open_connections(),
                0,
                "the connection is dropped"
            );
        }
    }
    let server = Server::start(Make::Python, &json!({"hang": "ehlo"}));
    let got = send(&mailer(), &some_mail(&email(&json!({}), &server.plain())), SHORT).await;
    assert!(
        got[0].1.contains("the connection with its greeting") || got[0].1.contains("EHLO"),
        "{got:?}"
    );
}

#[tokio::test]
async fn every_stage_has_the_deadline() {
    const HELLO: &str = "220 x\r\n250 x\r\n";
    for (security, said, expected) in [
        ("None", String::new(), "the connection with its greeting"),
        ("None", "220 x\r\n".to_owned(), "EHLO"),
        (
            "StartTLS",
            "220 x\r\n250-x\r\n250 STARTTLS\r\n".to_owned(),
            "the TLS handshake",
        ),
        (
            "StartTLS",
            "220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n".to_owned(),
            "the TLS handshake",
        ),
        ("TLS", String::new(), "the TLS handshake"),
        (
            "None",
            "220 x\r\n250-x\r\n250 AUTH LOGIN PLAIN\r\n".to_owned(),
            "AUTH",
        ),
        (
            "None",
            "220 x\r\n250-x\r\n250 AUTH LOGIN\r\n334 VXNlcm5hbWU6\r\n".to_owned(),
            "AUTH",
        ),
        ("None", format!("{HELLO}250 x\r\n250 x\r\n"), "DATA"),
        ("None", format!("{HELLO}250 x\r\n250 x\r\n354 x\r\n"), "the mail"),
        ("None", format!("{HELLO}250 x\r\n550 x\r\n"), ""),
    ] {
        let (port, task) = scripted(vec![answers(&said)]).await;
        let mut secret = vec![("host", "localhost"), ("port", &*port), ("security", security)];
        if said.contains("AUTH") {
            secret.extend([("username", "u"), ("password", "p")]);
        }
        let mailer = mailer();
        let got = send(&mailer, &some_mail(&email(&json!({}), &secret)), SHORT).await;
        if expected.is_empty() {
            assert_eq!(
                got[0].0, "Refused RecipientRefused",
                "what was said before the deadline holds"
            );
        } else {
            assert_eq!(got[0].0, "Open Timeout", "{said}");
            assert!(
                got[0].1.contains(&format!("did not answer {expected} within")),
                "{said}: {got:?}"
            );
        }
        assert_eq!(
            mailer.metrics().open_connections(),
            0,
            "the connection is dropped"
        );
        task.abort();
    }
}

#[tokio::test]
async fn a_disconnect_after_the_mail_leaves_it_open() {
    for make in BOTH {
        let server = Server::start(make, &json!({"drop": "content"}));
        let got = send(&mailer(), &some_mail(&email(&json!({}), &server.plain())), LONG).await;
        assert_eq!(got[0].0, "Open ConnectionReset", "{make:?} {got:?}");
    }
}

#[tokio::test]
async fn a_wrong_password_and_a_missing_one_have_their_reason_and_stay_unsaid() {
    let identity = Identity::new();
    for make in BOTH {
        let settings =
            json!({"tls": "starttls", "require_auth": true, "auth": {"user": "u", "password": "right"}});
        let server = Server::start_with(make, &settings, Some(&identity));
        let base = [
            ("host", "localhost"),
            ("port", &*server.port),
            ("ca", &*identity.authority),
        ];
        let wrong = [&base[..], &[("username", "u"), ("password", "hunter2")]].concat();
        let got = send(&mailer(), &some_mail(&email(&json!({}), &wrong)), LONG).await;
        assert_eq!(got[0].0, "Open AuthenticationFailed", "{make:?} {got:?}");
        assert!(
            got[0].1.contains("535") && !got[0].1.contains("hunter2"),
            "{got:?}"
        );
        let got = send(&mailer(), &some_mail(&email(&json!({}), &base)), LONG).await;
        assert_eq!(got[0].0, "Open AuthenticationFailed", "{make:?} {got:?}");
    }
    let server = Server::start(Make::Node, &json!({}));
    let secret = [server.plain(), vec![("username", "u"), ("password", "p")]].concat();
    let got = send(&mailer(), &some_mail(&email(&json!({}), &secret)), LONG).await;
    assert_eq!(got[0].0, "Open AuthenticationFailed");
    assert!(got[0].1.contains("neither AUTH PLAIN nor AUTH LOGIN"), "{got:?}");
}

#[tokio::test]
async fn tls_that_cannot_be_trusted_sends_nothing() {
    let (identity, other) = (Identity::new(), Identity::new());
    for make in BOTH {
        for (tls, security) in [("starttls", "StartTLS"), ("implicit", "TLS")] {
            let mut server = Server::start_with(make, &json!({"tls": tls}), Some(&identity));
            for (host, ca, expected) in [
                ("localhost", &other.authority, "not trusted"),
                ("127.0.0.1", &identity.authority, "another host name"),
            ] {
                let secret = [
                    ("host", host),
                    ("port", &*server.port),
                    ("security", security),
                    ("ca", &**ca),
                ];
                let got = send(&mailer(), &some_mail(&email(&json!({}), &secret)), LONG).await;
                assert_eq!(got[0].0, "Open TlsError", "{got:?}");
                assert!(got[0].1.contains(expected), "{got:?}");
            }
            assert_eq!(server.count(), 0);
        }
        let mut server = Server::start(make, &json!({}));
        let port = server.port.clone();
        for (security, expected) in [
            ("StartTLS", "does not offer STARTTLS"),
            ("TLS", "does not speak TLS"),
        ] {
            let secret = [("host", "localhost"), ("port", &*port), ("security", security)];
            let got = send(&mailer(), &some_mail(&email(&json!({}), &secret)), LONG).await;
            assert_eq!(got[0].0, "Open TlsError");
            assert!(got[0].1.contains(expected), "{got:?}");
        }
        assert_eq!(server.count(), 0);
    }
}

#[tokio::test]
async fn the_egress_guard_holds_for_names_and_addresses() {
    for host in ["127.0.0.1", "localhost"] {
        let server = [("host", host), ("port", "2525"), ("security", "None")];
        let mailer = mailer_with(EgressPolicy::default());
        let got = send(&mailer, &some_mail(&email(&json!({}), &server)), LONG).await;
        assert_eq!(got[0].0, "Refused EgressRefused", "{got:?}");
        assert_eq!(mailer.metrics().opened(), 0);
    }
}

#[tokio::test]
async fn what_is_not_smtp_is_told_so_and_read_within_bounds() {
    for (greeting, expected) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "Open ProtocolError"),
        (vec![b'2'; 1 << 20], "Open ProtocolError"),
        (
            [b"220-x\r\n".repeat(10_000), b"220 x\r\n".to_vec()].concat(),
            "Open ProtocolError",
        ),
        (b"\xff\xfe\r\n".to_vec(), "Open ProtocolError"),
        (b"554 5.3.2 go away\r\n".to_vec(), "Open Unavailable"),
        (b"421 4.3.2 busy\r\n".to_vec(), "Open Unavailable"),
    ] {
        let (port, task) = scripted(vec![vec![greeting.clone()]]).await;
        let secret = [("host", "localhost"), ("port", &*port), ("security", "StartTLS")];
        let got = send(&mailer(), &some_mail(&email(&json!({}), &secret)), LONG).await;
        assert_eq!(
            got[0].0,
            expected,
            "{:?}: {got:?}",
            String::from_utf8_lossy(&greeting[..20.min(greeting.len())])
        );
        task.abort();
    }
    let (port, task) = scripted(vec![Vec::new()]).await;
    let secret = [("host", "localhost"), ("port", &*port), ("security", "None")];
    let got = send(&mailer(), &some_mail(&email(&json!({}), &secret)), SHORT).await;
    assert_eq!(got[0].0, "Open Timeout", "{got:?}");
    task.abort();
    let got = send(&mailer(), &some_mail(&email(&json!({}), &secret)), LONG).await;
    assert!(got[0].0.starts_with("Open "), "{got:?}");
}
