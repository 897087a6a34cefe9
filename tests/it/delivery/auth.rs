//! Who requests say they are from, judged by a token endpoint and a receiver that are not ours.

use serde_json::{Value, json};

use crate::support::{Program, Stage, condition};

fn secret(stage: &Stage, name: &str, values: &Value) {
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values,
    }));
}

fn from(name: &str, key: &str) -> Value {
    json!({"secretKeyRef": {"name": name, "key": key}})
}

#[tokio::test(flavor = "multi_thread")]
async fn user_and_password_or_a_token_arrive_and_follow_their_secret() {
    let stage = Stage::set("auth").await;
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "login"},
        "type": "kubernetes.io/basic-auth", "stringData": {"username": "me", "password": "hunter2"},
    }));
    secret(&stage, "token", &json!({"token": "tok-1\n"}));
    for (name, auth) in [
        ("whole", json!({"basic": {"secretRef": {"name": "login"}}})),
        (
            "parts",
            json!({"basic": {"username": "you", "passwordFrom": from("login", "password")}}),
        ),
        ("bearer", json!({"bearer": from("token", "token")})),
    ] {
        stage.destination(name, &format!("/{name}"), &json!({"webhook": {"auth": auth}}));
    }
    stage.publish("x", &json!({})).await;
    for (name, value) in [
        ("whole", "Basic bWU6aHVudGVyMg=="),
        ("parts", "Basic eW91Omh1bnRlcjI="),
        ("bearer", "Bearer tok-1"),
    ] {
        let request = stage.receiver.wait_for(&format!("/{name}"), 1).await.remove(0);
        assert_eq!(request.header("authorization"), value, "{name}");
    }
    secret(&stage, "token", &json!({"token": "tok-2"}));
    crate::support::eventually(
        "the new token is used",
        std::time::Duration::from_secs(5),
        || async {
            stage.publish("x", &json!({})).await;
            let received = stage.receiver.received("/bearer");
            let is_new = |value: &str| value == "Bearer tok-2";
            received
                .iter()
                .any(|request| is_new(request.header("authorization")))
                .then_some(())
                .ok_or("not yet")
        },
    )
    .await;
    stage
        .cluster
        .kubectl(&["delete", "-n", stage.namespace.name(), "secret", "login"])
        .ok();
    let ed = stage
        .until("ed", "whole", "the missing Secret shows", |ed| {
            condition(ed, "Ready")["status"] == "False"
        })
        .await;
    let message = condition(&ed, "Ready")["message"].as_str().unwrap();
    assert!(
        message.contains("spec.webhook.auth.basic.secretRef") && message.contains("\"login\""),
        "{message}"
    );
}

/// An endpoint for tokens and a receiver that takes no others, and the destination's `auth`.
fn partner(stage: &Stage, style: &str) -> (Program, Value) {
    let settings = json!({
        "client": "me & you", "secret": "s3cr+t", "style": style, "life": 3600, "scope": "events:write more",
        "audience": "https://receiver.example",
    });
    let partner = Program::node("oauth2.mjs", &settings);
    secret(stage, "client", &json!({"secret": "s3cr+t"}));
    let auth = json!({"oauth2ClientCredentials": {
        "tokenURL": partner.fact("token"), "clientID": "me & you", "clientSecretFrom": from("client", "secret"),
        "scopes": ["events:write", "more"], "audience": "https://receiver.example", "authStyle": style,
    }});
    (partner, auth)
}

/// Makes a destination and publishes so many events that arrive.
async fn deliver(stage: &Stage, name: &str, count: u64) {
    let before = stage.get("ed", name)["status"]["delivery"]["delivered"]
        .as_u64()
        .unwrap_or_default();
    let events: Vec<_> = (0..count)
        .map(|n| json!({"type": "x", "data": {"n": n}}))
        .collect();
    let (status, answer) = stage.publish_raw(&json!(events)).await;
    assert_eq!(status, 202, "{answer}");
    stage
        .until("ed", name, "everything is delivered", |ed| {
            ed["status"]["delivery"]["delivered"] == before + count
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_deliveries_at_once_need_one_token_and_a_refused_one_is_replaced_within_the_attempt() {
    for style in ["Basic", "Body"] {
        let stage = Stage::set("oauth2").await;
        let (mut partner, auth) = partner(&stage, style);
        let more = json!({
            "webhook": {"url": partner.fact("hook"), "auth": auth},
            "delivery": {"maxInFlight": 100, "retry": {"maxAttempts": 1}},
        });
        stage.destination("hook", "/", &more);
        deliver(&stage, "hook", 100).await;
        let counts = partner.ask("counts");
        assert_eq!(
            counts,
            json!({"tokens": 1, "refused": 0, "accepted": 100, "rejected": 0}),
            "{style}"
        );
        partner.tell("expire");
        deliver(&stage, "hook", 20).await;
        let counts = partner.ask("counts");
        assert_eq!(
            (&counts["tokens"], &counts["accepted"]),
            (&json!(2), &json!(120)),
            "{style}: {counts}"
        );
        assert_ne!(counts["rejected"], 0, "{style}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_that_counts_as_delivered_is_not_sent_again_with_a_new_token() {
    let stage = Stage::set("oauth2").await;
    let (mut partner, auth) = partner(&stage, "Basic");
    let more = json!({
        "webhook": {"url": partner.fact("hook"), "auth": auth},
        "delivery": {"maxInFlight": 1, "success": ["2xx", "401"]},
    });
    stage.destination("hook", "/", &more);
    deliver(&stage, "hook", 1).await;
    partner.tell("expire");
    deliver(&stage, "hook", 1).await;
    assert_eq!(
        partner.ask("counts"),
        json!({"tokens": 1, "refused": 0, "accepted": 1, "rejected": 1})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_client_shows_in_status_and_a_mended_secret_sends_what_waited() {
    let stage = Stage::set("oauth2").await;
    let (mut partner, auth) = partner(&stage, "Basic");
    partner.tell("secret another");
    let more = json!({
        "webhook": {"url": partner.fact("hook"), "auth": auth},
        "delivery": {"retry": {"schedule": ["200ms"], "maxAttempts": 100}},
    });
    stage.destination("hook", "/", &more);
    stage.publish("x", &json!({})).await;
    let ed = stage
        .until("ed", "hook", "the refusal shows", |ed| {
            ed["status"]["delivery"]["lastFailure"]["reason"] == "TokenRefused"
        })
        .await;
    assert_eq!(condition(&ed, "Delivering")["reason"], "TokenRefused");
    let status = ed["status"].to_string();
    assert!(status.contains("401 invalid_client; check clientID"), "{status}");
    assert!(!status.contains("s3cr"), "{status}");
    secret(&stage, "client", &json!({"secret": "another"}));
    let ed = stage
        .until("ed", "hook", "it is delivered", |ed| {
            ed["status"]["delivery"]["delivered"] == 1
        })
        .await;
    assert_eq!(ed["status"]["delivery"]["exhausted"], 0);
    assert_eq!(partner.ask("counts")["accepted"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_receiver_repeats_gets_into_no_status_and_no_log() {
    let stage = Stage::set("oauth2").await;
    let (partner, mut auth) = partner(&stage, "Basic");
    auth["oauth2ClientCredentials"]["scopes"] = json!(["wrong"]);
    stage.destination(
        "hook",
        "/",
        &json!({"webhook": {"url": partner.fact("hook"), "auth": auth}}),
    );
    stage
        .cluster
        .kubectl(&[
            "annotate",
            "-n",
            stage.namespace.name(),
            "ed/hook",
            "postrider.dev/test=x",
        ])
        .ok();
    let ed = stage
        .until("ed", "hook", "the test's result shows", |ed| {
            ed["status"]["lastTest"]["statusCode"] == 401
        })
        .await;
    let reply = ed["status"]["lastTest"]["reply"].as_str().unwrap();
    assert_eq!(reply, "(the receiver repeats the token)");
    assert!(!ed["status"].to_string().contains("eyJ"), "{}", ed["status"]);
}
