//! What became of deliveries, and acting on them: by the API with Kubernetes tokens, and by annotation.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Manner, Stage, eventually, http_client};

/// A service account of the stage's namespace with these rights; its token.
fn account(stage: &Stage, name: &str, rules: &Value) -> String {
    let group = "rbac.authorization.k8s.io";
    let namespace = stage.namespace.name();
    stage.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}));
    stage.apply(&json!({
        "apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": name}, "rules": rules,
    }));
    stage.apply(&json!({
        "apiVersion": format!("{group}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
    }));
    let token = stage
        .cluster
        .kubectl(&["create", "token", name, "-n", namespace])
        .ok();
    token.trim().to_owned()
}

fn rule(verbs: &[&str], resources: &[&str]) -> Value {
    json!({"apiGroups": ["postrider.dev"], "resources": resources, "verbs": verbs})
}

/// Asks the delivery API of a destination.
async fn ask(
    stage: &Stage,
    token: &str,
    method: &str,
    destination: &str,
    below: &str,
    body: &Value,
) -> (u16, Value) {
    let publish = stage.operator().publish_url("x");
    let base = publish.split("/projects/").next().unwrap();
    let url = format!("{base}/eventdestinations/{destination}/deliveries{below}");
    let request = http_client()
        .request(method.parse().unwrap(), url)
        .bearer_auth(token)
        .body(if body.is_null() {
            String::new()
        } else {
            body.to_string()
        });
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (
        status,
        serde_json::from_str(&answer.text().await.unwrap()).unwrap_or_default(),
    )
}

/// Waits until the list has so many items.
async fn listed(stage: &Stage, token: &str, query: &str, count: usize) -> Vec<Value> {
    let found = eventually("the list is complete", Duration::from_secs(20), async || {
        let (status, list) = ask(stage, token, "GET", "hook", query, &Value::Null).await;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        if status == 200 && items.len() == count {
            Ok(items)
        } else {
            Err(format!("{status}: {list}"))
        }
    });
    found.await
}

fn everything() -> Value {
    json!([
        rule(&["get", "list"], &["eventdestinations/deliveries"]),
        rule(
            &["create"],
            &["eventdestinations/replay", "eventdestinations/cancel"]
        ),
    ])
}

fn once() -> Value {
    json!({"delivery": {"retry": {"maxAttempts": 1}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_seen_and_delivered_again_by_those_who_may() {
    let stage = Stage::set("deliveries").await;
    stage.receiver.answer("/hook", Manner::Status(500));
    stage.destination("hook", "/hook", &once());
    let viewer = account(
        &stage,
        "viewer",
        &json!([rule(&["get", "list"], &["eventdestinations/deliveries"])]),
    );
    let all = account(&stage, "all", &everything());
    let nobody = account(&stage, "nobody", &json!([rule(&["get"], &["eventdestinations"])]));
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(stage.publish("invoice.paid", &json!({"number": number})).await);
    }
    let failed = listed(&stage, &viewer, "?state=Exhausted", 3).await;
    assert_eq!(failed[0]["statusCode"], 500);
    assert_eq!(failed[0]["reason"], "ServerError");
    assert!(failed[0]["milliseconds"]["total"].is_number(), "{}", failed[0]);
    let none = ask(&stage, &viewer, "GET", "hook", "?state=Delivered", &Value::Null).await;
    assert_eq!(none.1["items"], json!([]));

    // Who may what.
    let one = format!("/{}", ids[0]);
    let again = format!("{one}:replay");
    for (token, method, destination, below, status) in [
        (&viewer, "GET", "hook", &one, 200),
        (&viewer, "POST", "hook", &again, 403),
        (&viewer, "GET", "other", &one, 404),
        (&nobody, "GET", "hook", &one, 403),
        (&nobody, "GET", "other", &one, 403),
        (&all, "POST", "other", &again, 404),
        (
            &"eyJhbGciOiJub25lIn0.e30.AAAA".to_owned(),
            "GET",
            "hook",
            &one,
            401,
        ),
    ] {
        let answer = ask(&stage, token, method, destination, below, &Value::Null).await;
        assert_eq!(answer.0, status, "{method} {destination}{below}: {}", answer.1);
    }
    let (_, shown) = ask(&stage, &viewer, "GET", "hook", &one, &Value::Null).await;
    let headers = shown["attempts"][0]["requestHeaders"].as_array().unwrap();
    let value = |name: &str| {
        headers
            .iter()
            .find(|header| header["name"] == name)
            .map(|header| &header["value"])
    };
    assert_eq!(value("webhook-id"), Some(&json!(ids[0])));
    assert_eq!(value("webhook-signature"), Some(&json!("[redacted]")));

    // One, then the rest of what failed.
    stage.receiver.answer("/hook", Manner::Status(200));
    let (status, answer) = ask(&stage, &all, "POST", "hook", &again, &Value::Null).await;
    assert_eq!(status, 202, "{answer}");
    let received = stage.receiver.wait_for("/hook", 4).await;
    assert_eq!(received[3].header("webhook-id"), ids[0]);
    assert_eq!(received[3].header("x-postrider-attempt"), "1");
    listed(&stage, &viewer, "?state=Exhausted", 2).await;
    let body = json!({"since": "2020-01-01T00:00:00Z", "failedOnly": true});
    let (status, answer) = ask(&stage, &all, "POST", "hook", ":replay", &body).await;
    assert_eq!(
        (status, &answer["replayed"], &answer["next"]),
        (202, &json!(2), &Value::Null),
        "{answer}"
    );
    stage.receiver.wait_for("/hook", 6).await;
    let delivered = listed(&stage, &viewer, "?state=Delivered", 3).await;
    assert!(
        delivered.iter().all(|item| item["replay"] == true),
        "{delivered:?}"
    );
    let body = json!({"since": "2020-01-01T00:00:00Z"});
    let (_, answer) = ask(&stage, &all, "POST", "hook", ":replay", &body).await;
    assert_eq!(answer["replayed"], 3);
    stage.receiver.wait_for("/hook", 9).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_seen_and_cancelled() {
    let stage = Stage::set("deliveries").await;
    stage.destination("hook", "/hook", &json!({"suspend": true}));
    let all = account(&stage, "all", &everything());
    let first = stage.publish("invoice.paid", &json!({})).await;
    let second = stage.publish("invoice.paid", &json!({})).await;
    let waiting = listed(&stage, &all, "?state=Waiting", 2).await;
    assert_eq!(
        (&waiting[0]["id"], &waiting[0]["attempt"]),
        (&json!(first), &json!(0))
    );
    let cancel = format!("/{first}:cancel");
    for status in [200, 409] {
        let answer = ask(&stage, &all, "POST", "hook", &cancel, &Value::Null).await;
        assert_eq!(answer.0, status, "{}", answer.1);
    }
    let unknown = ask(&stage, &all, "POST", "hook", "/evt_unknown:cancel", &Value::Null).await;
    assert_eq!(unknown.0, 404);
    let cancelled = listed(&stage, &all, "?state=Cancelled", 1).await;
    assert_eq!(cancelled[0]["id"], json!(first));
    stage.destination("hook", "/hook", &json!({}));
    let received = stage.receiver.wait_for("/hook", 1).await;
    assert_eq!(received[0].header("webhook-id"), second);
}

fn annotate(stage: &Stage, what: &str) {
    let annotation = format!("postrider.dev/replay={what}");
    let namespace = stage.namespace.name();
    stage
        .cluster
        .kubectl(&["annotate", "--overwrite", "-n", namespace, "ed/hook", &annotation])
        .ok();
}

/// Asks for a replay and waits for its end.
async fn replay(stage: &Stage, asked: &str) -> Value {
    annotate(stage, asked);
    let ed = stage
        .until("ed", "hook", "the replay is answered", |ed| {
            ed["status"]["lastHandledReplay"] == asked && ed["status"]["lastReplay"]["outcome"] != "Running"
        })
        .await;
    ed["status"]["lastReplay"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_annotation_replays_once_and_is_always_answered() {
    let mut stage = Stage::set("deliveries").await;
    stage.receiver.answer("/hook", Manner::Status(500));
    stage.destination("hook", "/hook", &once());
    let first = stage.publish("invoice.paid", &json!({})).await;
    stage
        .until("ed", "hook", "it is given up", |ed| {
            ed["status"]["delivery"]["exhausted"] == 1
        })
        .await;
    stage.receiver.answer("/hook", Manner::Status(200));
    stage.publish("invoice.paid", &json!({})).await;
    stage.receiver.wait_for("/hook", 2).await;

    let told = replay(&stage, "17").await;
    assert_eq!(told["outcome"], "Refused");
    assert!(told["message"].as_str().unwrap().contains("since="), "{told}");
    let told = replay(&stage, "failed token=1").await;
    assert_eq!(
        (&told["outcome"], &told["replayed"]),
        (&json!("Done"), &json!(1)),
        "{told}"
    );
    let received = stage.receiver.wait_for("/hook", 3).await;
    assert_eq!(received[2].header("webhook-id"), first);

    // A restart does not replay again.
    let settings = stage.take_operator().kill();
    stage.start_again(settings).await;
    let told = replay(&stage, &format!("id={first} token=2")).await;
    assert_eq!(
        (&told["outcome"], &told["replayed"]),
        (&json!("Done"), &json!(1)),
        "{told}"
    );
    let received = stage.receiver.wait_for("/hook", 4).await;
    assert_eq!(received[3].header("webhook-id"), first);
    let told = replay(&stage, "id=evt_unknown token=3").await;
    assert_eq!(told["outcome"], "Stopped");
    let told = replay(&stage, "since=2020-01-01T00:00:00Z token=4").await;
    assert_eq!(told["replayed"], 2);
    assert_eq!(stage.receiver.wait_for("/hook", 6).await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_used_is_in_nobodys_way() {
    let mut stage = Stage::set("deliveries").await;
    stage.destination("hook", "/hook", &json!({}));
    let all = account(&stage, "all", &everything());
    stage.publish("invoice.paid", &json!({})).await;
    stage.receiver.wait_for("/hook", 1).await;
    let settings = stage.take_operator().kill();
    let file = settings.data_dir.join("deliveries.db");
    for suffix in ["", "-wal", "-shm"] {
        std::fs::remove_file(settings.data_dir.join(format!("deliveries.db{suffix}"))).ok();
    }
    std::fs::create_dir(&file).unwrap();
    stage.start_again(settings).await;
    stage.publish("invoice.paid", &json!({})).await;
    stage.receiver.wait_for("/hook", 2).await;
    let answer = ask(&stage, &all, "GET", "hook", "", &Value::Null).await;
    assert_eq!(answer.0, 503, "{}", answer.1);
    assert!((stage.operator().metric("postrider_delivery_log_paused").await - 1.0).abs() < 0.5);

    // A damaged one is begun anew.
    let settings = stage.take_operator().kill();
    std::fs::remove_dir(&file).unwrap();
    std::fs::write(&file, vec![0x55; 8192]).unwrap();
    stage.start_again(settings).await;
    let id = stage.publish("invoice.paid", &json!({})).await;
    stage.receiver.wait_for("/hook", 3).await;
    let found = listed(&stage, &all, "", 1).await;
    assert_eq!(found[0]["id"], json!(id));
    assert!(
        (stage
            .operator()
            .metric("postrider_delivery_log_restarts_total")
            .await
            - 1.0)
            .abs()
            < 0.5
    );
}
