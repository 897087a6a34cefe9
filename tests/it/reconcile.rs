//! The controllers on a real API server and controller manager: what a user sees after `kubectl apply`.

mod operator;

use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::Value;

use self::operator::{Operator, Playground, SOON, condition, truth, uid};
use crate::support::eventually;

const PROJECT: &str = "
apiVersion: postrider.dev/v1alpha1
kind: EventProject
metadata: {name: acme}
spec: {displayName: Acme}
";

fn destination(name: &str, spec: &str) -> String {
    format!(
        "
---
apiVersion: postrider.dev/v1alpha1
kind: EventDestination
metadata: {{name: {name}}}
spec:
  events: [\"*\"]
{spec}
"
    )
}

const HOOK: &str = "  webhook: {url: 'https://hooks.example.com/in/secret-path'}";

fn decoded(secret: &Value, key: &str) -> String {
    let text = secret["data"][key].as_str().unwrap_or_default();
    String::from_utf8(base64::engine::general_purpose::STANDARD.decode(text).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_gets_a_token_and_a_url() {
    let ground = Playground::new("project").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(PROJECT);
    ground.kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "eproj/acme"]).ok();
    let project = ground.project("acme").await;
    let secret = ground.secret("acme-publish-token").await;
    let token = decoded(&secret, "token");
    assert!(token.starts_with("ptr_") && token.len() == 47, "{token}");
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], project["metadata"]["uid"]);
    assert_eq!(secret["metadata"]["labels"]["app.kubernetes.io/managed-by"], "postrider");
    let status = &project["status"];
    let url = format!("https://events.example/v1/namespaces/{}/projects/acme/events", ground.name());
    assert_eq!(status["ingestURL"], url);
    assert_eq!(status["tokenSecretRef"]["name"], "acme-publish-token");
    assert_eq!(status["projectID"], project["metadata"]["uid"]);
    assert_eq!(status["observedGeneration"], 1);
    let key = postrider::domain::id::ObjectKey::new(ground.name(), "acme");
    let known = operator.directory.project(&key).unwrap();
    assert_eq!(known.token.as_ref().unwrap().expose(), &token);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_becomes_ready_with_a_generated_key() {
    let ground = Playground::new("ready").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&destination("hook", HOOK));
    ground.kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "ed/hook"]).ok();
    let object = ground.destination("hook").await;
    let secret = ground.secret("hook-signing").await;
    assert!(decoded(&secret, "secret").starts_with("whsec_"), "{secret}");
    assert_eq!(secret["metadata"]["ownerReferences"][0]["uid"], object["metadata"]["uid"]);
    assert_eq!(object["status"]["endpoint"], "https://hooks.example.com");
    assert_eq!(object["status"]["signingSecretRef"], serde_json::json!({"name": "hook-signing", "key": "secret"}));
    assert_eq!(truth(&object, "Delivering"), "Unknown");
    assert_eq!(condition(&object, "Delivering")["reason"], "NoAttempts");
    assert_eq!(condition(&object, "Stalled"), Value::Null);
    assert!(operator.entry(&uid(&object)).unwrap().ready().is_some());
    let columns = ground.kubectl(&["get", "ed"]).ok();
    let header: Vec<&str> = columns.lines().next().unwrap().split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
    assert_eq!(header, ["NAME", "READY", "DELIVERING", "PENDING", "LAST SUCCESS", "AGE"]);
    operator.stop().await;
}
