//! Faults: every one is listed, heals by itself when its cause goes, and harms nobody else.

use std::time::{Duration, Instant};

use postrider::domain::destination::Target;
use postrider::domain::id::ObjectKey;
use serde_json::{Value, json};

use super::operator::{Operator, Playground, SOON, condition, ready, truth, uid};
use super::{HOOK, PROJECT, destination};
use crate::support::{Cluster, TempNamespace, eventually, repository_file};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_listed_and_heals_when_its_cause_goes() {
    let ground = Playground::new("faults").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    let start = Instant::now();
    ground.apply(&destination(
        "hook",
        "  projectRef: {name: acme}
  webhook:
    urlFrom: {secretKeyRef: {name: place, key: url}}
    headers:
    - {name: X-Api-Key, valueFrom: {secretKeyRef: {name: keys, key: api}}}
    signing: {secretRef: {name: keys, key: signing}}",
    ));
    let object = ground
        .await_destination("hook", "stalled", |object| truth(object, "Stalled") == "True")
        .await;
    assert!(start.elapsed() < SOON, "it took {:?}", start.elapsed());
    let fault = condition(&object, "Ready");
    let message = fault["message"].as_str().unwrap();
    for path in [
        "spec.projectRef.name: EventProject \"acme\" does not exist",
        "spec.webhook.urlFrom: Secret \"place\" does not exist",
        "spec.webhook.headers[0].valueFrom: Secret \"keys\" does not exist",
        "spec.webhook.signing.secretRef: Secret \"keys\" does not exist",
    ] {
        assert!(message.contains(path), "{path}: {message}");
    }
    assert_eq!(
        (&fault["status"], &fault["reason"]),
        (&json!("False"), &json!("ReferenceMissing"))
    );
    assert_eq!(condition(&object, "Stalled")["message"], fault["message"]);
    let entry = operator.entry(&uid(&object)).unwrap();
    assert!(
        entry.ready().is_none() && entry.subscription.matches("acme", "any"),
        "it parks its events"
    );

    ground
        .put_secret("place", "url", "ftp://nowhere.example/secret")
        .await;
    ground.put_secret("keys", "api", "abc").await;
    let object = ground
        .await_destination("hook", "one Secret lacks a key, the other is no URL", |object| {
            let message = condition(object, "Ready")["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            message.contains("has no key \"signing\"") && message.contains("scheme must be http or https")
        })
        .await;
    assert_eq!(condition(&object, "Ready")["reason"], "InvalidSpec");
    assert!(!object["status"].to_string().contains("nowhere"), "{object}");

    ground
        .put_secret("place", "url", "https://somewhere.example/secret")
        .await;
    ground
        .put_secret("keys", "signing", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .await;
    ground.apply(PROJECT);
    let object = ground.await_destination("hook", "ready", ready).await;
    assert_eq!(condition(&object, "Stalled"), Value::Null);
    assert_eq!(object["status"]["endpoint"], "https://somewhere.example");

    ground.kubectl(&["delete", "eproj/acme"]).ok();
    ground
        .await_destination("hook", "the project is missed", |object| {
            truth(object, "Ready") == "False"
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoilt_generated_secret_is_named_and_made_anew_when_deleted() {
    let ground = Playground::new("spoilt").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&format!("{PROJECT}{}", destination("hook", HOOK)));
    ground.await_destination("hook", "ready", ready).await;
    let spoil = |name: &str, key: &str| {
        let patch = json!({"stringData": {key: "oops"}}).to_string();
        ground
            .kubectl(&["patch", "secret", name, "--type=merge", "-p", &patch])
            .ok();
    };
    spoil("hook-signing", "secret");
    spoil("acme-publish-token", "token");
    let object = ground
        .await_destination("hook", "the fault shows", |object| {
            truth(object, "Stalled") == "True"
        })
        .await;
    assert_eq!(
        condition(&object, "Ready")["message"],
        "status.signingSecretRef: Secret \"hook-signing\" key \"secret\": the signing key must start with whsec_, \
         followed by base64; delete the Secret to have a new one made, and give the receiver the new key"
    );
    let project = eventually("the project's fault shows", SOON, async || {
        match ground.project("acme").await {
            object if truth(&object, "Stalled") == "True" => Ok(object),
            object => Err(object["status"].to_string()),
        }
    })
    .await;
    assert_eq!(
        condition(&project, "Ready")["message"],
        "status.tokenSecretRef: Secret \"acme-publish-token\" key \"token\": a token is 16 to 512 visible ASCII \
         characters; delete the Secret to have a new one made, and give publishers the new token"
    );
    assert_eq!(condition(&project, "Ready")["reason"], "InvalidSpec");
    assert!(!format!("{object}{project}").contains("oops"));
    ground
        .kubectl(&["delete", "secret/hook-signing", "secret/acme-publish-token"])
        .ok();
    ground.await_destination("hook", "ready again", ready).await;
    ground
        .kubectl(&["wait", "--for=condition=Ready", "--timeout=5s", "eproj/acme"])
        .ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_fault_of_the_same_kind_is_told_in_its_own_words() {
    let ground = Playground::new("words").await;
    let _operator = Operator::start(&ground.namespace).synced().await;
    let waiting_for = |name: &str| {
        destination(
            "hook",
            &format!("  webhook: {{urlFrom: {{secretKeyRef: {{name: {name}, key: url}}}}}}"),
        )
    };
    for name in ["one", "two", "one"] {
        ground.apply(&waiting_for(name));
        ground
            .await_destination("hook", "the fault shows", |object| {
                truth(object, "Stalled") == "True" && condition(object, "Ready").to_string().contains(name)
            })
            .await;
        ground.put_secret(name, "url", "https://hooks.example.com").await;
        ground.await_destination("hook", "healed", ready).await;
        ground.kubectl(&["delete", "secret", name]).ok();
        ground
            .await_destination("hook", "missed again", |object| {
                truth(object, "Stalled") == "True"
            })
            .await;
    }
    let expected = ["\"one\" does not exist", "\"two\" does not exist"];
    eventually("both are told", SOON, async || {
        let query = "jsonpath={range .items[*]}{.reason} {.series.count} {.note}{\"\\n\"}{end}";
        let told = ground.kubectl(&["get", "events.events.k8s.io", "-o", query]).ok();
        let lines: Vec<&str> = told
            .lines()
            .filter(|line| line.starts_with("ReferenceMissing"))
            .collect();
        let right = expected
            .iter()
            .all(|part| lines.iter().filter(|line| line.contains(part)).count() == 1);
        let counted = lines
            .iter()
            .any(|line| line.starts_with("ReferenceMissing 3 ") && line.contains("one"));
        if right && counted { Ok(()) } else { Err(told) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_secret_is_in_force_within_seconds() {
    let ground = Playground::new("secret").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground
        .put_secret("place", "url", "https://one.example/path")
        .await;
    ground.apply(&destination(
        "hook",
        "  webhook: {urlFrom: {secretKeyRef: {name: place, key: url}}}",
    ));
    let object = ground.await_destination("hook", "ready", ready).await;
    let uid = uid(&object);
    let writes = operator.metrics.status_writes();
    let start = Instant::now();
    ground
        .put_secret("place", "url", "https://one.example/other")
        .await;
    eventually("the other path is in force", SOON, async || {
        let entry = operator.entry(&uid).unwrap();
        let url = entry.ready().and_then(|destination| match &destination.target {
            Target::Webhook(webhook) => Some(webhook.endpoint.expose().to_string()),
            Target::Email(_) => None,
        });
        if url.as_deref() == Some("https://one.example/other") {
            Ok(())
        } else {
            Err(format!("{url:?}"))
        }
    })
    .await;
    eprintln!("a changed Secret was in force after {:?}", start.elapsed());
    assert_eq!(
        operator.metrics.status_writes(),
        writes,
        "nothing that is shown has changed"
    );
    ground.kubectl(&["delete", "secret/place"]).ok();
    ground
        .await_destination("hook", "the Secret is missed", |object| {
            truth(object, "Stalled") == "True"
        })
        .await;
    assert!(
        operator.entry(&uid).unwrap().ready().is_none(),
        "it is not in force"
    );
}

/// The definitions of a later version, which lets through what this one does not know.
fn relaxed_definition(file: &str) -> String {
    let yaml = std::fs::read_to_string(repository_file(file)).unwrap();
    let mut definition: Value = serde_saphyr::from_str(&yaml).unwrap();
    let schema = "/spec/versions/0/schema/openAPIV3Schema";
    let spec = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    definition.pointer_mut(&format!("{schema}/properties")).unwrap()["spec"] = spec;
    // Rules over the whole object look into the spec.
    let root = definition.pointer_mut(schema).unwrap();
    root.as_object_mut().unwrap().remove("x-kubernetes-validations");
    definition.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_object_that_does_not_decode_harms_no_other_and_an_outage_stops_nothing() {
    let cluster: &'static Cluster = Box::leak(Box::new(Cluster::private_without_crds()));
    for file in ["crds/eventprojects.yaml", "crds/eventdestinations.yaml"] {
        cluster
            .kubectl_with(&["apply", "--server-side"], &relaxed_definition(file))
            .ok();
    }
    let crds = [
        "crd/eventprojects.postrider.dev",
        "crd/eventdestinations.postrider.dev",
    ];
    cluster
        .kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=20s",
            crds[0],
            crds[1],
        ])
        .ok();
    let ground = Playground {
        cluster,
        namespace: TempNamespace::new(cluster, "undecodable").await,
    };
    let bad = destination("bad", &format!("  delivery: {{maxInFlight: many}}\n{HOOK}"));
    let odd = PROJECT.replace("acme", "odd").replace("Acme", "[not, text]");
    ground.apply(&format!("{PROJECT}---{odd}{}{bad}", destination("before", HOOK)));
    let operator = Operator::start_with(ground.namespace.client(), None, Duration::from_secs(30))
        .synced()
        .await;
    let odd = ObjectKey::new(ground.namespace.name(), "odd");
    assert!(operator.directory.is_unusable(&odd), "its publishers come again");
    ground.apply(&destination("after", HOOK));
    ground.await_destination("before", "ready", ready).await;
    ground.await_destination("after", "ready", ready).await;
    let object = ground
        .await_destination("bad", "reported", |object| truth(object, "Stalled") == "True")
        .await;
    let fault = condition(&object, "Ready");
    assert_eq!(fault["reason"], "Undecodable");
    let message = "spec.delivery.maxInFlight: invalid type: string \"many\", expected i32";
    assert_eq!(fault["message"], message);
    let entry = operator.entry(&uid(&object)).unwrap();
    assert!(
        entry.ready().is_none() && entry.subscription.matches("acme", "any"),
        "it parks its events"
    );
    ground
        .kubectl(&[
            "patch",
            "ed/bad",
            "--type=merge",
            "-p",
            r#"{"spec":{"delivery":{"maxInFlight":5}}}"#,
        ])
        .ok();
    ground.await_destination("bad", "ready when mended", ready).await;

    // What its subscription was counts until the spec decodes again, so that no event goes to nobody.
    for events in ["5", "[5]", r#"["other", 5]"#] {
        let patch = format!(r#"{{"spec":{{"events":{events}}}}}"#);
        ground
            .kubectl(&["patch", "ed/bad", "--type=merge", "-p", &patch])
            .ok();
        ground
            .await_destination("bad", "undecodable in its newest generation", |object| {
                truth(object, "Stalled") == "True"
                    && object["status"]["observedGeneration"] == object["metadata"]["generation"]
            })
            .await;
        let entry = operator.entry(&uid(&object)).unwrap();
        assert!(
            entry.ready().is_none() && entry.subscription.matches("acme", "any"),
            "it parks its events with {events}: {entry:?}"
        );
    }
    let mended = r#"{"spec":{"events":["one"]}}"#;
    ground
        .kubectl(&["patch", "ed/bad", "--type=merge", "-p", mended])
        .ok();
    ground.await_destination("bad", "ready when mended", ready).await;
    let entry = operator.entry(&uid(&object)).unwrap();
    assert!(!entry.subscription.matches("acme", "any") && entry.subscription.matches("acme", "one"));

    // Without an API server everything stays in force; what changed meanwhile is noticed afterwards.
    cluster.stop("kube-apiserver");
    for kind in ["EventDestination", "EventProject", "Secret"] {
        eventually("each watch has met the outage", SOON, async || {
            let text = operator.metrics_text();
            if text.contains(&format!("watch_errors_total{{kind=\"{kind}\"}}")) {
                Ok(())
            } else {
                Err(text)
            }
        })
        .await;
    }
    assert!(
        operator.entry(&uid(&object)).unwrap().ready().is_some(),
        "it stays in force"
    );
    cluster.start_again("kube-apiserver");
    ground.apply(&destination("late", HOOK));
    ground.kubectl(&["delete", "ed/before"]).ok();
    let probe = async || match ground.destination("late").await {
        object if ready(&object) => Ok(()),
        object => Err(object["status"].to_string()),
    };
    eventually(
        "an object made after the outage is ready",
        Duration::from_secs(15),
        probe,
    )
    .await;
    eventually(
        "what was deleted is gone",
        Duration::from_secs(15),
        async || match operator.directory.destinations().len() {
            3 => Ok(()),
            count => Err(format!("{count} destinations")),
        },
    )
    .await;
    operator.stop().await;
}
