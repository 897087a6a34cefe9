//! The controllers on a real API server and controller manager: what a user sees after `kubectl apply`.

mod delivering;
mod ending;
mod expired;
mod faults;
mod notifications;
mod operator;
mod scale;

use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use self::operator::{Operator, Playground, SOON, condition, ready, truth, uid};
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
    ground
        .kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "eproj/acme"])
        .ok();
    let project = ground.project("acme").await;
    let secret = ground.secret("acme-publish-token").await;
    let token = decoded(&secret, "token");
    assert!(token.starts_with("ptr_") && token.len() == 47, "{token}");
    assert_eq!(
        secret["metadata"]["ownerReferences"][0]["uid"],
        project["metadata"]["uid"]
    );
    assert_eq!(
        secret["metadata"]["labels"]["app.kubernetes.io/managed-by"],
        "postrider"
    );
    let status = &project["status"];
    let url = format!(
        "https://events.example/v1/namespaces/{}/projects/acme/events",
        ground.name()
    );
    assert_eq!(status["ingestURL"], url);
    assert_eq!(status["tokenSecretRef"]["name"], "acme-publish-token");
    assert_eq!(status["projectID"], project["metadata"]["uid"]);
    assert_eq!(status["observedGeneration"], 1);
    let key = postrider::domain::id::ObjectKey::new(ground.name(), "acme");
    let known = operator.directory.project(&key).unwrap();
    assert_eq!(known.token.known().unwrap().expose(), &token);
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_becomes_ready_with_a_generated_key() {
    let ground = Playground::new("ready").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&destination("hook", HOOK));
    ground
        .kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "ed/hook"])
        .ok();
    let object = ground.destination("hook").await;
    let secret = ground.secret("hook-signing").await;
    assert!(decoded(&secret, "secret").starts_with("whsec_"), "{secret}");
    assert_eq!(
        secret["metadata"]["ownerReferences"][0]["uid"],
        object["metadata"]["uid"]
    );
    assert_eq!(object["status"]["endpoint"], "https://hooks.example.com");
    assert_eq!(
        object["status"]["signingSecretRef"],
        serde_json::json!({"name": "hook-signing", "key": "secret"})
    );
    assert_eq!(truth(&object, "Delivering"), "Unknown");
    assert_eq!(condition(&object, "Delivering")["reason"], "NoAttempts");
    assert_eq!(condition(&object, "Stalled"), Value::Null);
    assert!(
        operator.entry(&uid(&object)).unwrap().ready().is_some(),
        "it is in force"
    );
    let columns = ground.kubectl(&["get", "ed"]).ok();
    let header: Vec<&str> = columns
        .lines()
        .next()
        .unwrap()
        .split("  ")
        .map(str::trim)
        .filter(|c| !c.is_empty())
        .collect();
    assert_eq!(
        header,
        ["NAME", "READY", "DELIVERING", "PENDING", "LAST SUCCESS", "AGE"]
    );
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wide_columns_show_endpoint_and_reason() {
    let ground = Playground::new("wide").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&destination("hook", HOOK));
    ground.await_destination("hook", "ready", ready).await;
    let wide = ground.kubectl(&["get", "ed", "-o", "wide"]).ok();
    for word in ["ENDPOINT", "REASON", "https://hooks.example.com ", "Succeeded"] {
        assert!(wide.contains(word), "{word}: {wide}");
    }
    assert!(!wide.contains("secret-path"), "{wide}");
    let both = ground.kubectl(&["get", "postrider"]).ok();
    assert!(both.contains("eventdestination.postrider.dev/hook"), "{both}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_an_object_goes_with_it() {
    let ground = Playground::new("gc").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&format!("{PROJECT}{}", destination("hook", HOOK)));
    let object = ground.await_destination("hook", "ready", ready).await;
    eventually("the token is there", SOON, async || {
        there(ground.secret("acme-publish-token").await)
    })
    .await;
    ground.kubectl(&["delete", "eproj/acme", "ed/hook"]).ok();
    eventually("the destination left the directory", SOON, async || {
        if operator.entry(&uid(&object)).is_none() {
            Ok(())
        } else {
            Err("it is there")
        }
    })
    .await;
    for secret in ["acme-publish-token", "hook-signing"] {
        eventually(
            "its Secret is collected",
            Duration::from_secs(30),
            async || match ground.secret(secret).await {
                Value::Null => Ok(()),
                _ => Err(secret),
            },
        )
        .await;
    }
    let key = postrider::domain::id::ObjectKey::new(ground.name(), "acme");
    assert!(operator.directory.project(&key).is_none(), "{key} is forgotten");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_generated_value_is_made_once_and_again_only_when_it_is_deleted() {
    let ground = Playground::new("token").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(PROJECT);
    let token = async || decoded(&ground.secret("acme-publish-token").await, "token");
    let first = eventually("a token", SOON, async || {
        Some(token().await).filter(|t| !t.is_empty()).ok_or("none")
    })
    .await;
    // A change of the spec, and a restart, leave it alone.
    ground.apply(&PROJECT.replace("displayName: Acme", "displayName: Changed"));
    eventually("the change is in force", SOON, async || {
        match ground.project("acme").await {
            object if object["status"]["observedGeneration"] == 2 => Ok(()),
            object => Err(object["status"].to_string()),
        }
    })
    .await;
    operator.stop().await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    assert_eq!(token().await, first);
    for deed in [
        &["delete", "secret/acme-publish-token"][..],
        &[
            "patch",
            "secret/acme-publish-token",
            "--type=json",
            "-p",
            "[{\"op\":\"remove\",\"path\":\"/data/token\"}]",
        ],
    ] {
        let before = token().await;
        ground.kubectl(deed).ok();
        eventually("a new token", SOON, async || {
            Some(token().await)
                .filter(|now| now.starts_with("ptr_") && *now != before)
                .ok_or("none")
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_project_without_a_spec_is_ready_under_its_own_name() {
    let ground = Playground::new("bare").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    let bare = "{apiVersion: postrider.dev/v1alpha1, kind: EventProject, metadata: {name: bare}}";
    ground.apply(bare);
    ground
        .kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "eproj/bare"])
        .ok();
    let key = postrider::domain::id::ObjectKey::new(ground.name(), "bare");
    assert_eq!(&*operator.directory.project(&key).unwrap().facts.name, "bare");
    ground.apply(bare);
    assert_eq!(ground.project("bare").await["metadata"]["generation"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_of_somebody_else_is_a_fault_and_stays_as_it_is() {
    let ground = Playground::new("foreign").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    ground
        .put_secret("acme-publish-token", "token", "somebody-elses-token")
        .await;
    ground
        .put_secret("hook-signing", "secret", "somebody-elses-key")
        .await;
    ground.apply(&format!("{PROJECT}{}", destination("hook", HOOK)));
    let object = ground
        .await_destination("hook", "the fault shows", |object| {
            truth(object, "Stalled") == "True"
        })
        .await;
    let fault = condition(&object, "Ready");
    assert_eq!(fault["reason"], "ReferenceMissing");
    assert_eq!(
        fault["message"],
        "spec.webhook.signing.secretRef: Secret \"hook-signing\" does not belong to this destination; delete it to \
         have one made, or name it here"
    );
    let project = eventually("the project's fault shows", SOON, async || {
        match ground.project("acme").await {
            object if truth(&object, "Stalled") == "True" => Ok(object),
            object => Err(object["status"].to_string()),
        }
    })
    .await;
    assert!(
        condition(&project, "Ready")["message"]
            .as_str()
            .unwrap()
            .contains("does not belong to this project")
    );
    assert_eq!(
        decoded(&ground.secret("acme-publish-token").await, "token"),
        "somebody-elses-token"
    );
    ground
        .kubectl(&["delete", "secret/acme-publish-token", "secret/hook-signing"])
        .ok();
    ground
        .kubectl(&[
            "wait",
            "--for=condition=Ready",
            "--timeout=5s",
            "eproj/acme",
            "ed/hook",
        ])
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_object_of_the_same_name_is_another_destination() {
    let ground = Playground::new("again").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&destination("hook", HOOK));
    let first = ground.await_destination("hook", "ready", ready).await;
    let key = decoded(&ground.secret("hook-signing").await, "secret");
    ground.kubectl(&["delete", "ed/hook"]).ok();
    ground.apply(&destination("hook", HOOK));
    let probe = async || match ground.destination("hook").await {
        object if ready(&object) => Ok(object),
        object => Err(object["status"].to_string()),
    };
    // The old Secret must be collected first.
    let second = eventually("ready again", Duration::from_secs(30), probe).await;
    assert_ne!(uid(&first), uid(&second));
    assert!(operator.entry(&uid(&first)).is_none(), "the first is forgotten");
    assert!(
        operator.entry(&uid(&second)).unwrap().ready().is_some(),
        "the second is in force"
    );
    assert_ne!(decoded(&ground.secret("hook-signing").await, "secret"), key);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_world_is_left_alone_for_a_minute() {
    let ground = Playground::new("idle").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    let broken = destination(
        "broken",
        "  webhook: {urlFrom: {secretKeyRef: {name: nobody, key: url}}}",
    );
    let suspended = destination("suspended", &format!("  suspend: true\n{HOOK}"));
    ground.apply(&format!(
        "{PROJECT}{}{broken}{suspended}",
        destination("hook", HOOK)
    ));
    ground.await_destination("hook", "ready", ready).await;
    ground.await_destination("suspended", "ready", ready).await;
    ground
        .await_destination("broken", "stalled", |object| truth(object, "Stalled") == "True")
        .await;
    ground
        .kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "eproj/acme"])
        .ok();
    let versions = async || {
        let mut versions = vec![ground.project("acme").await["metadata"]["resourceVersion"].clone()];
        for name in ["hook", "broken", "suspended"] {
            versions.push(ground.destination(name).await["metadata"]["resourceVersion"].clone());
        }
        versions
    };
    let before = (versions().await, operator.metrics.status_writes());
    // Twice the interval of counters: whatever is written again by itself is written by then.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((versions().await, operator.metrics.status_writes()), before);
    // Neither does a restart.
    operator.stop().await;
    let operator = Operator::start(&ground.namespace).synced().await;
    eventually("all are in force again", SOON, async || {
        let ready = operator
            .directory
            .destinations()
            .into_iter()
            .filter_map(|uid| operator.directory.destination(&uid));
        match ready.filter(|entry| entry.ready().is_some()).count() {
            2 => Ok(()),
            count => Err(count.to_string()),
        }
    })
    .await;
    operator.stop().await;
    assert_eq!(versions().await, before.0);
}

fn there(object: Value) -> Result<Value, &'static str> {
    if object.is_null() {
        Err("it is not there")
    } else {
        Ok(object)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repaired_store_shows_on_projects() {
    let ground = Playground::new("repaired").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    *operator.played.repaired.lock() = Some("the file was moved aside".to_owned());
    ground.apply(PROJECT);
    ground
        .kubectl(&[
            "wait",
            "--for=condition=StoreRepaired",
            "--timeout=5s",
            "eproj/acme",
        ])
        .ok();
    let object = ground.project("acme").await;
    assert_eq!(truth(&object, "Ready"), "True");
    let condition = condition(&object, "StoreRepaired");
    assert_eq!(condition["reason"], "FileDamaged");
    assert_eq!(condition["message"], "the file was moved aside");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_repaired_later_shows_without_being_asked() {
    let ground = Playground::new("late").await;
    let interval = Duration::from_millis(200);
    let operator = Operator::start_with(ground.namespace.client(), Some(ground.name()), interval)
        .synced()
        .await;
    ground.apply(PROJECT);
    ground
        .kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "eproj/acme"])
        .ok();
    for repair in ["the file was moved aside", "another one was moved aside"] {
        *operator.played.repaired.lock() = Some(repair.to_owned());
        eventually("the repair shows", SOON, async || {
            let object = ground.project("acme").await;
            let told = condition(&object, "StoreRepaired")["message"].clone();
            if told == repair { Ok(()) } else { Err(told) }
        })
        .await;
    }
    operator.stop().await;
}
