//! Keys that change while events are under way.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::support::{Received, Stage, eventually};

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// Whether a receiver that knows only this `whsec_` key takes the request.
fn accepts(key: &str, received: &Received) -> bool {
    let key = STANDARD.decode(&key[6..]).unwrap();
    let start = format!(
        "{}.{}.",
        received.header("webhook-id"),
        received.header("webhook-timestamp")
    );
    let expected = STANDARD.encode(hmac(&key, &[start.as_bytes(), &received.body].concat()));
    let mut signatures = received.header("webhook-signature").split(' ');
    signatures.any(|one| one.strip_prefix("v1,") == Some(expected.as_str()))
}

fn annotate(stage: &Stage, what: &str) {
    let annotation = format!("postrider.dev/rotate-secret={what}");
    stage
        .cluster
        .kubectl(&[
            "annotate",
            "-n",
            stage.namespace.name(),
            "--overwrite",
            "ed/hook",
            &annotation,
        ])
        .ok();
}

/// Asks for new keys and waits for the answer.
async fn rotated(stage: &Stage, token: &str) -> Value {
    annotate(stage, token);
    let ed = stage
        .until("ed", "hook", "the request is answered", |ed| {
            ed["status"]["lastHandledRotateSecret"] == token
        })
        .await;
    ed["status"]["lastRotation"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_receiver_sees_a_bad_signature_while_keys_rotate_under_load() {
    let stage = Stage::set("rotation").await;
    let policy = json!({"delivery": {"timeout": "1s"}, "webhook": {"signing": {"previousSecretTTL": "1h"}}});
    stage.destination("hook", "/hook", &policy);
    let old = stage.secret("hook-signing", "secret").await;
    let count = || stage.receiver.received("/hook").len();
    // How many requests had come when the new key could first be read.
    let watched = async {
        eventually("the new key can be read", Duration::from_secs(30), || async {
            let now = stage.secret("hook-signing", "secret").await;
            if now == old {
                Err("not yet")
            } else {
                Ok((now, count()))
            }
        })
        .await
    };
    let load = async {
        loop {
            stage.publish("x", &json!({})).await;
        }
    };
    annotate(&stage, "one");
    let (new, before) = tokio::select! {
        found = watched => found,
        () = load => unreachable!("the load goes on"),
    };
    for _ in 0..50 {
        stage.publish("x", &json!({})).await;
    }
    let all = stage.receiver.wait_for("/hook", before + 50).await;
    assert!(before > 0, "events were under way");
    assert!(
        all.iter().all(|one| accepts(&old, one)),
        "who knows the old key only"
    );
    assert!(
        all[before..].iter().all(|one| accepts(&new, one)),
        "who knows the new key only"
    );
    let ed = stage
        .until("ed", "hook", "it is told", |ed| {
            ed["status"]["lastHandledRotateSecret"] == "one"
        })
        .await;
    assert_eq!(ed["status"]["lastRotation"]["outcome"], "Rotated");
    assert!(
        ed["status"]["signatures"][0]["previousSecretUntil"].is_string(),
        "{}",
        ed["status"]
    );
    assert!(!ed.to_string().contains(&old) && !ed.to_string().contains(&new));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_secret_signs_with_both_keys_across_a_restart_until_the_time_is_over() {
    let mut stage = Stage::set("rotation").await;
    let key = |byte: u8| format!("whsec_{}", STANDARD.encode([byte; 32]));
    let put = |stage: &Stage, value: &str| {
        stage.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine"}, "stringData": {"key": value},
        }));
    };
    put(&stage, &key(1));
    let signing = |ttl: &str| json!({"webhook": {"signing": {"secretRef": {"name": "mine", "key": "key"}, "previousSecretTTL": ttl}}});
    stage.destination("hook", "/hook", &signing("1h"));
    // Written while no operator runs: only what is kept in a Secret can tell the key before.
    let settings = stage.take_operator().kill();
    put(&stage, &key(2));
    stage.start_again(settings).await;
    let next = async |stage: &Stage| {
        let id = stage.publish("x", &json!({})).await;
        eventually("it arrives", Duration::from_secs(20), || async {
            let all = stage.receiver.received("/hook");
            let found = all.into_iter().find(|one| one.header("webhook-id") == id);
            found.ok_or("not yet")
        })
        .await
    };
    let both = next(&stage).await;
    assert!(
        accepts(&key(1), &both) && accepts(&key(2), &both),
        "{:?}",
        both.headers
    );
    let settings = stage.take_operator().kill();
    stage.start_again(settings).await;
    let both = next(&stage).await;
    assert!(
        accepts(&key(1), &both) && accepts(&key(2), &both),
        "it survives a restart"
    );
    // The time ends by itself, without any change of an object after this one.
    stage.destination("hook", "/hook", &signing("1s"));
    eventually("the old key signs no longer", Duration::from_secs(20), || async {
        let one = next(&stage).await;
        assert!(accepts(&key(2), &one));
        if accepts(&key(1), &one) {
            Err("it does")
        } else {
            Ok(())
        }
    })
    .await;
    let kept = stage.secret("hook-rotated", "rotation").await;
    assert!(
        !kept.contains(&STANDARD.encode(key(1))),
        "the old key is not kept longer than it counts"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_room_for_one_signature_the_previous_key_signs_to_its_end() {
    let stage = Stage::set("rotation").await;
    let signing = |ttl: &str| {
        json!({
            "delivery": {"timeout": "1s"},
            "webhook": {"signing": {"scheme": "GitHub", "previousSecretTTL": ttl}},
        })
    };
    stage.destination("hook", "/hook", &signing("1h"));
    let old = stage.secret("hook-signing", "secret").await;
    assert_eq!(rotated(&stage, "t").await["outcome"], "Rotated");
    let new = stage.secret("hook-signing", "secret").await;
    assert_ne!(old, new);
    let signed = |key: &str, one: &Received| {
        one.header("x-hub-signature-256")
            == format!("sha256={}", hex::encode(hmac(key.as_bytes(), &one.body)))
    };
    stage.publish("x", &json!({})).await;
    assert!(signed(&old, &stage.receiver.wait_for("/hook", 1).await[0]));
    stage.destination("hook", "/hook", &signing("0s"));
    eventually("the new key signs", Duration::from_secs(20), || async {
        stage.publish("x", &json!({})).await;
        let all = stage.receiver.wait_for("/hook", 2).await;
        if all.last().is_some_and(|one| signed(&new, one)) {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await;
    // With no time for the one before, the newest key signs alone from then on.
    assert_eq!(rotated(&stage, "u").await["outcome"], "Rotated");
    let newest = stage.secret("hook-signing", "secret").await;
    assert_ne!(newest, new);
    let id = stage.publish("x", &json!({})).await;
    let last = eventually("it arrives", Duration::from_secs(20), || async {
        let all = stage.receiver.received("/hook");
        let found = all.into_iter().find(|one| one.header("webhook-id") == id);
        found.ok_or("not yet")
    })
    .await;
    assert!(signed(&newest, &last), "{:?}", last.headers);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_back_signs_on_where_there_is_room_for_one_signature() {
    let stage = Stage::set("rotation").await;
    let put = |value: &str| {
        stage.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine"}, "stringData": {"key": value},
        }));
    };
    put("one");
    let signing = json!({"webhook": {"signing": {
        "scheme": "GitHub", "secretRef": {"name": "mine", "key": "key"}, "previousSecretTTL": "1h",
    }}});
    stage.destination("hook", "/hook", &signing);
    let signs = async |count: usize| {
        stage.publish("x", &json!({})).await;
        let all = stage.receiver.wait_for("/hook", count).await;
        let last = all.last().unwrap();
        let expected = format!("sha256={}", hex::encode(hmac(b"one", &last.body)));
        assert_eq!(last.header("x-hub-signature-256"), expected);
    };
    signs(1).await;
    let until = |ed: &Value| ed["status"]["signatures"][0]["previousSecretUntil"].is_string();
    put("two");
    stage.until("ed", "hook", "the edit is noticed", until).await;
    signs(2).await;
    put("one");
    stage
        .until("ed", "hook", "there is no previous key any more", |ed| !until(ed))
        .await;
    signs(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_rotated_while_previous_keys_cannot_be_kept() {
    let stage = Stage::set("rotation").await;
    for (name, key) in [("mine", "key"), ("hook-rotated", "other")] {
        stage.apply(&json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: "secret"},
        }));
    }
    let own = json!({"name": "own", "scheme": "GitHub", "secretRef": {"name": "mine", "key": "key"}, "previousSecretTTL": "1h"});
    let signing = json!({"delivery": {"timeout": "1s"}, "webhook": {"signing": {"also": [own]}}});
    stage.apply_destination("hook", "/hook", &signing);
    assert_eq!(rotated(&stage, "a").await["reason"], "NotReady");
    let ed = stage.get("ed", "hook");
    assert!(
        ed["status"].to_string().contains("hook-rotated"),
        "{}",
        ed["status"]
    );
    let generated = stage.get("secret", "hook-signing");
    assert!(generated["data"]["secret"].is_string(), "there is a key");
    assert!(generated["data"]["rotation"].is_null(), "no rotation has begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_be_met_is_answered_and_one_is_handled_once() {
    let stage = Stage::set("rotation").await;
    stage.destination("hook", "/hook", &json!({"delivery": {"timeout": "1s"}}));
    let empty = rotated(&stage, "").await;
    assert_eq!(
        (&empty["outcome"], &empty["reason"]),
        (&json!("NotRotated"), &json!("InvalidRequest"))
    );
    assert_eq!(rotated(&stage, "a").await["reason"], "Rotated");
    let key = stage.secret("hook-signing", "secret").await;
    stage
        .cluster
        .kubectl(&[
            "annotate",
            "-n",
            stage.namespace.name(),
            "--overwrite",
            "ed/hook",
            "postrider.dev/reconcile=1",
        ])
        .ok();
    stage
        .until("ed", "hook", "it is looked at again", |ed| {
            ed["status"]["lastHandledReconcileAt"] == "1"
        })
        .await;
    assert_eq!(stage.secret("hook-signing", "secret").await, key, "handled once");
    stage.destination(
        "hook",
        "/hook",
        &json!({"webhook": {"signing": {"scheme": "None"}}}),
    );
    let none = rotated(&stage, "b").await;
    assert_eq!(none["reason"], "NotGenerated");
    assert_eq!(none["message"], "nothing is signed; there is no key to change");
}
