//! `examples/monitoring` does what its README says, from the test send to the auto-disable.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{json_file, manifests, secret, wait_until_ready};
use crate::mail::server::{Make, Server, header};
use crate::support::{Cluster, Manner, Operator, Receiver, TempNamespace, eventually, repository_file};

const NAME: &str = "monitoring";

/// The example on its way, with receivers on loopback instead of those it names.
struct Monitoring {
    cluster: &'static Cluster,
    namespace: TempNamespace,
    operator: Operator,
    receiver: Receiver,
}

impl Monitoring {
    fn kubectl(&self, args: &[&str]) -> String {
        let all = [&["-n", self.namespace.name()][..], args].concat();
        self.cluster.kubectl(&all).ok()
    }

    fn patch(&self, destination: &str, spec: &Value) {
        let patch = json!({"spec": spec}).to_string();
        self.kubectl(&["patch", "ed", destination, "--type=merge", "-p", &patch]);
    }

    async fn publish(&self, events: &Value) {
        let token = secret(&self.namespace, "monitoring-publish-token", "token").await;
        let (status, answer) = self.operator.publish(NAME, &token, events).await;
        assert_eq!(status, 202, "{answer}");
    }

    /// Waits until a destination's JSON at a pointer is so.
    async fn until(&self, destination: &str, pointer: &str, wanted: Value) -> Value {
        let what = format!("{destination}: {pointer} is {wanted}");
        eventually(&what, std::time::Duration::from_secs(40), async || {
            let text = self.kubectl(&["get", "ed", destination, "-o", "json"]);
            let object: Value = serde_json::from_str(&text).unwrap();
            match object.pointer(pointer) {
                Some(found) if *found == wanted => Ok(object),
                found => Err(format!("{found:?}")),
            }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn monitoring_tells_whom_and_what_its_readme_says() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "examples-monitoring").await;
    let operator = Operator::start(cluster, namespace.name()).await;
    let receiver = Receiver::start().await;
    let mut server = Server::start(Make::Python, &json!({}));
    let example = Monitoring {
        cluster,
        namespace,
        operator,
        receiver,
    };
    let text = manifests(&repository_file("examples/monitoring"));
    let moved = text.replace("http://127.0.0.1:8095/", &example.receiver.url("/"));
    assert!(moved != text, "the webhooks have port 8095");
    let mut smtp = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "smtp"},
        "stringData": {"from": "Acme events <postrider@example.com>"},
    });
    for (key, value) in server.plain() {
        smtp["stringData"][key] = json!(value);
    }
    let without_smtp: Vec<_> = moved
        .split("---\n")
        .filter(|one| !one.contains("name: smtp\nstringData"))
        .collect();
    cluster
        .kubectl_with(&["apply", "-n", example.namespace.name()], &smtp.to_string())
        .ok();
    cluster
        .kubectl_with(
            &["apply", "-n", example.namespace.name()],
            &without_smtp.join("---\n"),
        )
        .ok();
    wait_until_ready(cluster, example.namespace.name());
    let is_owner = "jsonpath={.status.notifications[0]}";
    let owner = example.kubectl(&["get", "eproj", NAME, "-o", is_owner]);
    example.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "--timeout=20s",
        &format!("ed/{owner}"),
    ]);

    // A test before it counts.
    example.kubectl(&[
        "annotate",
        "ed/monitoring-new",
        "postrider.dev/test=workflow_failure@1",
    ]);
    let object = example
        .until("monitoring-new", "/status/lastTest/outcome", json!("Delivered"))
        .await;
    assert_eq!(
        object["status"]["delivery"]["delivered"], 0,
        "a test counts nowhere"
    );
    let tests = example.receiver.wait_for("/new", 1).await;
    assert_eq!(tests[0].header("x-postrider-test"), "true");

    example
        .publish(&json_file("examples/monitoring/events.json"))
        .await;
    let mut mails = BTreeMap::<String, Vec<String>>::new();
    for _ in 0..4 {
        let mail = server.mail();
        let to = mail["to"][0].as_str().unwrap().to_owned();
        mails
            .entry(to)
            .or_default()
            .push(header(&mail, "Subject").to_owned());
    }
    let count = |address: &str| mails.get(address).map_or(0, Vec::len);
    assert_eq!(
        (
            count("owner@example.com"),
            count("ops@example.com"),
            count("support@example.com")
        ),
        (1, 2, 1),
        "{mails:?}"
    );
    assert_eq!(
        mails["support@example.com"],
        ["user-7 must log in to slack again"]
    );

    let incident = example.receiver.wait_for("/incidents", 1).await.remove(0);
    assert_eq!(
        incident.json(),
        json!({
            "title": "Workflow “Import contacts“ failed for User user-7", "workflow": "Import contacts",
            "error": "rate limit", "user": "user-7", "when": 1_729_629_642_607_u64,
        })
    );
    assert_eq!(
        (incident.header("x-api-key"), incident.header("x-project")),
        ("replace-me", "Acme")
    );
    let mut archived: Vec<_> = example
        .receiver
        .wait_for("/archive", 2)
        .await
        .iter()
        .map(|request| request.json()["type"].clone())
        .collect();
    archived.sort_by_key(ToString::to_string);
    assert_eq!(
        archived,
        ["credentials_failure", "workflow_failure"],
        "the whole events"
    );

    // What waited comes when it is started.
    example
        .until("monitoring-new", "/status/delivery/parked", json!(1))
        .await;
    assert_eq!(example.receiver.received("/new").len(), 1, "it is paused");
    example.patch("monitoring-new", &json!({"suspend": false}));
    let started = example.receiver.wait_for("/new", 2).await;
    assert_eq!(started[1].json()["data"]["error"], "rate limit");
    example.kubectl(&["delete", "ed/monitoring-new"]);

    // Five failures in a row.
    example.receiver.answer("/incidents", Manner::Status(500));
    let quick = json!({"delivery": {"retry": {"schedule": ["50ms"], "maxAttempts": 100}}});
    example.patch("monitoring-incidents", &quick);
    example
        .until("monitoring-incidents", "/status/observedGeneration", json!(2))
        .await;
    let mut failure = json_file("examples/monitoring/events.json")[0].clone();
    failure["id"] = json!("failure-2");
    example.publish(&failure).await;
    let object = example
        .until(
            "monitoring-incidents",
            "/status/delivery/state",
            json!("Disabled"),
        )
        .await;
    assert_eq!(object["status"]["delivery"]["pending"], 1, "nothing is lost");
    example.receiver.answer("/incidents", Manner::Status(200));
    example.kubectl(&["annotate", "ed/monitoring-incidents", "postrider.dev/enable=1"]);
    example
        .until("monitoring-incidents", "/status/delivery/delivered", json!(2))
        .await;
    assert_eq!(
        example.receiver.received("/new").len(),
        2,
        "what was deleted gets nothing"
    );
}
