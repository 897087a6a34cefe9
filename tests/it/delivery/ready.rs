//! Ready formats of services: the example of each on a real control plane, with the receiver in the service's place.

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::formats::judge_of;
use crate::support::{Manner, PROJECT, Stage, condition, repository_file};

/// Folder of a service's example, what its Secret's URL is in the test (a key stays as it is), the path at which
/// requests arrive, and a header that they have.
const EXAMPLES: [(&str, &str, &str, &str, &str); 12] = [
    ("Slack", "slack", "/slack", "", ""),
    (
        "Datadog",
        "datadog",
        "/datadog",
        "dd-api-key",
        "0123456789abcdef0123456789abcdef",
    ),
    (
        "NewRelic",
        "new-relic",
        "/new-relic",
        "api-key",
        "0123456789abcdef0123456789abcdef0123NRAL",
    ),
    (
        "Sentry",
        "sentry",
        "/api/42/envelope/",
        "content-type",
        "application/x-sentry-envelope",
    ),
    ("Discord", "discord", "/discord", "", ""),
    ("MicrosoftTeams", "microsoft-teams", "/microsoft-teams", "", ""),
    ("GoogleChat", "google-chat", "/google-chat", "", ""),
    ("PagerDuty", "pagerduty", "/pagerduty", "", ""),
    (
        "Opsgenie",
        "opsgenie",
        "/opsgenie",
        "authorization",
        "GenieKey 00000000-0000-0000-0000-000000000000",
    ),
    ("Mattermost", "mattermost", "/mattermost", "", ""),
    ("Telegram", "telegram", "/telegram", "", ""),
    (
        "Alertmanager",
        "alertmanager",
        "/alertmanager/api/v2/alerts",
        "",
        "",
    ),
];

/// An example's objects, its requests led to the receiver.
fn example(stage: &Stage, folder: &str) -> Vec<Value> {
    let file = repository_file("examples").join(folder).join("destination.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let url = stage.receiver.url(&format!("/{folder}"));
    let documents = text.split("\n---\n");
    let mut objects: Vec<Value> = documents
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect();
    for object in &mut objects {
        if object["kind"] == "Secret" {
            let values = object["stringData"].as_object_mut().unwrap();
            if values.contains_key("url") {
                values.insert("url".to_owned(), json!(url));
            }
            if values.contains_key("dsn") {
                let host = stage.receiver.url("").replacen("http://", "http://abc123@", 1);
                values.insert("dsn".to_owned(), json!(format!("{host}/42")));
            }
        } else {
            object["spec"]["projectRef"]["name"] = json!(PROJECT);
            if object["spec"]["webhook"]["urlFrom"].is_null() {
                object["spec"]["webhook"]["url"] = json!(url);
            }
        }
    }
    objects
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_each_service_sends_what_the_service_takes() {
    let stage = Stage::set("ready").await;
    for (_, folder, ..) in EXAMPLES {
        for object in example(&stage, folder) {
            stage.apply(&object);
        }
        stage.wait_ready("ed", folder);
    }
    let event = json!({
        "type": "run_failed", "message": "Run 99 of Orders failed", "user": {"id": "u-1"},
        "workflow": {"id": "w-1", "name": "Orders"}, "error": {"message": "no answer"},
        "data": {"run_id": 99, "admin_link": "https://admin.example.com/runs/99"},
    });
    let (status, answer) = stage.publish_raw(&event).await;
    assert_eq!(status, 202, "{answer}");
    for (service, folder, path, header, value) in EXAMPLES {
        let request = stage.receiver.wait_for(path, 1).await.remove(0);
        if !header.is_empty() {
            assert_eq!(request.header(header), value, "{service}");
        }
        assert_eq!(request.header("webhook-signature"), "", "{service}");
        let verdict = judge_of(service).judge(&[(service, request.body.as_ref())]);
        assert_eq!(verdict, [Ok(())], "{service}");
        let object = stage
            .until("ed", folder, "the success shows", |ed| {
                ed["status"]["delivery"]["delivered"] == 1
            })
            .await;
        assert_eq!(object["status"]["endpoint"], stage.receiver.url(""), "{service}");
        assert_eq!(object["status"]["signingSecretRef"], Value::Null, "{service}");
        let status = object["status"].to_string();
        for secret in ["abc123", "0123456789abcdef", "00000000-0000", "XXXX"] {
            assert!(!status.contains(secret), "{service}: {status}");
        }
    }
    let secrets = stage.namespace.api::<Secret>();
    let names: Vec<String> = secrets
        .list(&kube::api::ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .filter_map(|secret| secret.metadata.name)
        .filter(|name| name.ends_with("-signing"))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_wrong_secret_is_a_fault_that_says_where() {
    let stage = Stage::set("ready").await;
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "there"},
        "stringData": {"dsn": "https://sentry.example/hunter2", "token": "bad/../hunter2", "key": "hunter2\u{7}"},
    }));
    let from = |name: &str, key: &str| json!({"secretKeyRef": {"name": name, "key": key}});
    let path = "spec.webhook.formatOptions.keyFrom";
    for (name, webhook, expected) in [
        (
            "none",
            json!({"payload": {"format": "Datadog"}, "formatOptions": {"keyFrom": from("absent", "key")}}),
            [
                path,
                "Secret \"absent\" does not exist; create it with key \"key\"",
            ],
        ),
        (
            "no-key",
            json!({"payload": {"format": "PagerDuty"}, "formatOptions": {"keyFrom": from("there", "other")}}),
            [path, "Secret \"there\" has no key \"other\"; add it"],
        ),
        (
            "bad-key",
            json!({"payload": {"format": "NewRelic"}, "formatOptions": {"keyFrom": from("there", "key")}}),
            [path, "Secret \"there\" key \"key\": a key is visible ASCII"],
        ),
        (
            "bad-token",
            json!({
                "payload": {"format": "Telegram"},
                "formatOptions": {"keyFrom": from("there", "token"), "chatID": "-1"},
            }),
            [path, "Secret \"there\" key \"token\": this is no bot token"],
        ),
        (
            "bad-dsn",
            json!({"urlFrom": from("there", "dsn"), "payload": {"format": "Sentry"}}),
            [
                "spec.webhook.urlFrom",
                "Secret \"there\" key \"dsn\": this is no DSN",
            ],
        ),
        (
            "bad-site",
            json!({
                "payload": {"format": "Datadog"},
                "formatOptions": {"keyFrom": from("there", "dsn"), "site": "datadoghq.com.evil.example"},
            }),
            [
                "spec.webhook.formatOptions.site",
                "Datadog has no such site; use one of datadoghq.com",
            ],
        ),
    ] {
        stage.apply(&json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination",
            "metadata": {"name": name}, "spec": {"events": ["*"], "webhook": webhook},
        }));
        let object = stage
            .until("ed", name, "the fault shows", |ed| {
                condition(ed, "Ready")["status"] == "False"
            })
            .await;
        let message = condition(&object, "Ready")["message"]
            .as_str()
            .unwrap()
            .to_owned();
        for part in expected {
            assert!(message.contains(part), "{name}: {message}");
        }
        assert!(!object["status"].to_string().contains("hunter2"), "{name}");
    }
    // It heals when the Secret comes.
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "absent"}, "stringData": {"key": "k3y"},
    }));
    stage.wait_ready("ed", "none");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_with_200_is_a_failure_that_is_tried_again() {
    let stage = Stage::set("ready").await;
    let retry = json!({"delivery": {"retry": {"schedule": ["100ms", "100ms"]}}});
    let mut spec = json!({"webhook": {"payload": {"format": "Slack"}}});
    spec["delivery"] = retry["delivery"].clone();
    stage
        .receiver
        .answer("/chat", Manner::Says("channel_is_archived"));
    stage.destination("chat", "/chat", &spec);
    stage.publish("run_failed", &json!({})).await;
    let object = stage
        .until("ed", "chat", "the refusal shows", |ed| {
            ed["status"]["delivery"]["lastFailure"]["reason"] == "Rejected"
        })
        .await;
    let failure = &object["status"]["delivery"]["lastFailure"];
    assert_eq!(failure["statusCode"], 200);
    let message = failure["message"].as_str().unwrap();
    assert!(message.contains("\"channel_is_archived\""), "{message}");
    assert!(stage.receiver.wait_for("/chat", 2).await.len() >= 2);
    stage
        .until("ed", "chat", "it is given up", |ed| {
            ed["status"]["delivery"]["exhausted"] == 1
        })
        .await;
    stage.receiver.answer("/chat", Manner::Says("ok"));
    stage.publish("run_failed", &json!({})).await;
    let object = stage
        .until("ed", "chat", "the success shows", |ed| {
            ed["status"]["delivery"]["delivered"] == 1
        })
        .await;
    assert_eq!(condition(&object, "Delivering")["status"], "True");
    // Logs and alerts are taken with 202.
    stage.receiver.answer("/logs", Manner::Status(202));
    stage.apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"key": "k3y"},
    }));
    let key = json!({"keyFrom": {"secretKeyRef": {"name": "key", "key": "key"}}});
    for format in ["NewRelic", "Datadog", "PagerDuty"] {
        let name = format.to_lowercase();
        let webhook = json!({"payload": {"format": format}, "formatOptions": key});
        stage.destination(&name, "/logs", &json!({"webhook": webhook}));
    }
    stage.publish("sync_complete", &json!({})).await;
    for name in ["newrelic", "datadog", "pagerduty"] {
        stage
            .until("ed", name, "202 is success", |ed| {
                ed["status"]["delivery"]["delivered"] == 1
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signing_secret_stays_for_the_way_back() {
    let stage = Stage::set("ready").await;
    stage.destination("hook", "/hook", &json!({}));
    let key = stage.secret("hook-signing", "secret").await;
    stage.apply_destination(
        "hook",
        "/hook",
        &json!({"webhook": {"payload": {"format": "Slack"}}}),
    );
    stage
        .until("ed", "hook", "nothing is signed", |ed| {
            ed["status"]["observedGeneration"] == 2 && ed["status"]["signingSecretRef"].is_null()
        })
        .await;
    stage.publish("a", &json!({})).await;
    let request = stage.receiver.wait_for("/hook", 1).await.remove(0);
    assert_eq!(request.header("webhook-signature"), "");
    assert_eq!(stage.secret("hook-signing", "secret").await, key);
    stage.apply_destination("hook", "/hook", &json!({}));
    stage.wait_ready("ed", "hook");
    stage
        .until("ed", "hook", "it is signed again", |ed| {
            ed["status"]["signingSecretRef"]["name"] == "hook-signing"
        })
        .await;
    assert_eq!(stage.secret("hook-signing", "secret").await, key);
}
