//! Servers that say more than they were asked, or nothing good on a connection that was kept.

use serde_json::json;

use super::script::{Script, answers, scripted};
use super::*;

const HELLO: &str = "220 x\r\n250 x\r\n";
const MAIL: &str = "250 sender\r\n250 recipient\r\n354 go\r\n250 taken\r\n";

/// A script whose last answer has something more right behind it.
fn with_more(said: &str, more: &str) -> Script {
    let mut script = answers(said);
    script.last_mut().unwrap().extend_from_slice(more.as_bytes());
    script.extend(answers(&"250 later\r\n".repeat(4)));
    script
}

fn plain(port: &str) -> Mail {
    let secret = [("host", "localhost"), ("port", port), ("security", "None")];
    some_mail(&email(&json!({}), &secret))
}

#[tokio::test]
async fn what_was_not_asked_is_never_taken_for_an_answer() {
    for (said, more, expected) in [
        ("220 x\r\n", "250 x\r\n", "Open ProtocolError"),
        ("220 x\r\n250 x\r\n", "550 no\r\n", "Open ProtocolError"),
        ("220 x\r\n250 x\r\n250 s\r\n", "250 r\r\n", "Open ProtocolError"),
        (
            "220 x\r\n250 x\r\n250 s\r\n250 r\r\n",
            "550 r\r\n",
            "Open ProtocolError",
        ),
        (
            "220 x\r\n250 x\r\n250 s\r\n250 r\r\n354 go\r\n",
            "250 taken\r\n",
            "Open ProtocolError",
        ),
        ("220 x\r\n250 x\r\n250 s\r\n", "421 bye\r\n", "Open Unavailable"),
    ] {
        let (port, task) = scripted(vec![with_more(said, more)]).await;
        let got = send(&mailer(), &plain(&port), LONG).await;
        assert_eq!(got[0].0, expected, "{said:?} {more:?}: {got:?}");
        task.abort();
    }
}

#[tokio::test]
async fn what_is_said_before_the_handshake_is_not_read_after_it() {
    let agreed = "220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n";
    for script in [
        with_more(agreed, "250 injected\r\n"),
        // In place of the handshake.
        answers(&[agreed, "250 injected\r\n"].concat()),
    ] {
        let (port, task) = scripted(vec![script]).await;
        let secret = [("host", "localhost"), ("port", &*port), ("security", "StartTLS")];
        let got = send(&mailer(), &some_mail(&email(&json!({}), &secret)), LONG).await;
        assert_eq!(got[0].0, "Open TlsError", "{got:?}");
        assert!(got[0].1.contains("somebody may be in between"), "{got:?}");
        task.abort();
    }
}

#[tokio::test]
async fn a_kept_connection_that_takes_no_more_costs_no_attempt() {
    for last in [
        with_more(&[HELLO, MAIL].concat(), "250 more\r\n"),
        with_more(&[HELLO, MAIL].concat(), "421 4.4.2 idle for too long\r\n"),
        answers(&[HELLO, MAIL, "421 4.7.0 that was the last one\r\n"].concat()),
        answers(&[HELLO, MAIL, "452 4.5.3 too many mails on this connection\r\n"].concat()),
    ] {
        let (port, task) = scripted(vec![last, answers(&[HELLO, MAIL, MAIL].concat())]).await;
        let (mailer, mail) = (mailer(), plain(&port));
        for opened in [1, 2, 2] {
            assert_eq!(words(&mailer, &mail).await, ["Taken"]);
            assert_eq!(mailer.metrics().opened(), opened);
        }
        assert_eq!(mailer.metrics().open_connections(), 1);
        task.abort();
    }
}

#[tokio::test]
async fn a_server_that_takes_no_more_mails_now_is_not_asked_for_each() {
    let first = answers(&[HELLO, MAIL, "450 4.7.1 slow down\r\n"].concat());
    let then = answers(&[HELLO, "450 4.7.1 slow down\r\n", "250 x\r\n", MAIL].concat());
    let (port, task) = scripted(vec![first, then]).await;
    let secret = [("host", "localhost"), ("port", &*port), ("security", "None")];
    let spec = json!({"to": ["a@x.example", "b@x.example", "c@x.example"], "perRecipient": true});
    let mailer = mailer();
    assert_eq!(
        words(&mailer, &some_mail(&email(&spec, &secret))).await,
        ["Taken", "Open TryLater", "Open TryLater"]
    );
    assert_eq!(
        (mailer.metrics().opened(), mailer.metrics().open_connections()),
        (2, 0)
    );
    task.abort();
}

#[tokio::test]
async fn an_address_that_the_server_repeats_stays_unsaid() {
    let refusal = "550 5.1.1 <a@x.example>: Recipient address rejected\r\n";
    let script = answers(&[HELLO, "250 sender\r\n", refusal, "250 x\r\n"].concat());
    let (port, task) = scripted(vec![script]).await;
    let got = send(&mailer(), &plain(&port), LONG).await;
    assert_eq!(
        got[0].1,
        "spec.email.to[0]: the SMTP server answered RCPT TO with 550 5.1.1 <***@x.example>: Recipient address rejected"
    );
    task.abort();
}
