//! E-mail destinations on a real control plane.

use serde_json::{Value, json};

use crate::mail::server::{Make, Server, header};
use crate::support::{Stage, condition};

fn secret(name: &str, data: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data})
}

fn email(name: &str, email: &Value) -> Value {
    json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination", "metadata": {"name": name},
        "spec": {"events": ["*"], "email": email, "delivery": {"retry": {"schedule": ["100ms"], "maxAttempts": 50}}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_becomes_a_mail_once_for_each_recipient() {
    let stage = Stage::set("mail").await;
    let settings = json!({
        "greylist": ["late@x.example"], "fail": {"rcpt:gone@x.example": "550 5.1.1 no such user"},
    });
    let mut server = Server::start(Make::Python, &settings);
    let password = [("username", "u"), ("password", "hunter2")];
    stage.apply(&secret(
        "smtp",
        &[server.plain(), vec![("from", "Acme <events@acme.example>")]].concat(),
    ));
    let to = json!({"to": ["a@x.example", "late@x.example", "gone@x.example"], "smtpRef": {"name": "smtp"}});
    stage.apply(&email("mails", &to));
    stage.wait_ready("ed", "mails");
    assert_eq!(
        stage.get("ed", "mails")["status"]["endpoint"],
        format!("smtp://localhost:{}", server.port)
    );
    let id = stage
        .publish("workflow_failure", &json!({"error": "rate limit"}))
        .await;
    let is_settled = |ed: &Value| ed["status"]["delivery"]["exhausted"] == 1;
    let object = stage.until("ed", "mails", "it is settled", is_settled).await;
    let (first, second) = (server.mail(), server.mail());
    assert_eq!(
        (&first["to"], &second["to"]),
        (&json!(["a@x.example"]), &json!(["late@x.example"]))
    );
    assert_eq!(header(&first, "Message-ID"), header(&second, "Message-ID"));
    assert_eq!(header(&first, "X-Postrider-Event-Id"), id);
    assert_eq!(server.count(), 2, "nobody got it twice");
    let last = &object["status"]["delivery"]["lastFailure"];
    assert_eq!(
        (&last["reason"], &last["statusCode"]),
        (&json!("PartlyRefused"), &json!(550)),
        "{last}"
    );
    // A password that is wanted nowhere: its reason is told, and it is in no log line and no status.
    let from = vec![("from", "a@acme.example")];
    stage.apply(&secret(
        "wanted-nowhere",
        &[server.plain(), password.to_vec(), from].concat(),
    ));
    let to = json!({"to": ["a@x.example"], "smtpRef": {"name": "wanted-nowhere"}});
    stage.apply(&email("locked-out", &to));
    stage.wait_ready("ed", "locked-out");
    stage.publish("x", &json!({})).await;
    let has_failed = |ed: &Value| ed["status"]["delivery"]["lastFailure"]["reason"] == "AuthenticationFailed";
    let object = stage.until("ed", "locked-out", "it is refused", has_failed).await;
    assert!(!object.to_string().contains("hunter2"));
    // Mails have no keys, and who asks for new ones is told so.
    let namespace = stage.namespace.name();
    let request = "postrider.dev/rotate-secret=a";
    stage
        .cluster
        .kubectl(&["annotate", "-n", namespace, "ed/mails", request])
        .ok();
    let is_answered = |ed: &Value| ed["status"]["lastHandledRotateSecret"] == "a";
    let object = stage
        .until("ed", "mails", "the request is answered", is_answered)
        .await;
    assert_eq!(object["status"]["lastRotation"]["reason"], "NotGenerated");
    assert!(!stage.operator().log().contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_without_a_server_uses_the_installations_and_follows_it() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::set_with("mail", &["--smtp-dir", folder.path().to_str().unwrap()]).await;
    stage.apply(&email("mails", &json!({"to": ["a@x.example"]})));
    let is_stalled = |ed: &Value| condition(ed, "Stalled")["status"] == "True";
    let object = stage
        .until("ed", "mails", "it says what is missing", is_stalled)
        .await;
    let message = condition(&object, "Ready")["message"].as_str().unwrap();
    assert!(
        message.starts_with("spec.email.smtpRef: Postrider was installed without an SMTP server"),
        "{message}"
    );
    stage.publish("x", &json!({})).await;
    let mut server = Server::start(Make::Node, &json!({}));
    for (key, value) in [
        ("port", &*server.port),
        ("security", "None"),
        ("from", "a@x.example"),
        ("host", "localhost"),
    ] {
        std::fs::write(folder.path().join(key), value).unwrap();
    }
    stage.wait_ready("ed", "mails");
    assert_eq!(server.mail()["from"], "a@x.example", "what was parked is sent");
}
