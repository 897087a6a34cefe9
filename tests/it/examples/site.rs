//! [`Site`]: where an example is applied as it is, but for the address of its receiver, and driven.

use std::time::Duration;

use serde_json::{Value, json};

use super::{manifests, secret, wait_until_ready};
use crate::mail::server::Server;
use crate::support::{Cluster, Operator, Receiver, TempNamespace, eventually, repository_file};

/// Where the examples say that receivers are.
const PLACES: [&str; 2] = ["http://127.0.0.1:8094", "https://hooks.example.com"];

/// The manifests of an example with replacements, each of which fits.
pub(super) fn changed(name: &str, changes: &[(&str, &str)]) -> String {
    let text = manifests(&repository_file(&format!("examples/{name}")));
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} has {from}");
        text.replace(from, to)
    })
}

/// A namespace with an operator and a receiver, for several examples.
pub(super) struct Site {
    pub(super) cluster: &'static Cluster,
    pub(super) namespace: TempNamespace,
    pub(super) operator: Operator,
    pub(super) receiver: Receiver,
}

impl Site {
    pub(super) async fn set(name: &str) -> Self {
        let cluster = Cluster::shared();
        let namespace = TempNamespace::new(cluster, &format!("examples-{name}")).await;
        let operator = Operator::start(cluster, namespace.name()).await;
        let receiver = Receiver::start().await;
        Self {
            cluster,
            namespace,
            operator,
            receiver,
        }
    }

    /// Applies an example whose receiver is below `/<name>` now, and waits until all is ready.
    pub(super) fn apply(&self, name: &str) {
        let text = manifests(&repository_file(&format!("examples/{name}")));
        let here = self.receiver.url(&format!("/{name}"));
        let moved = PLACES
            .iter()
            .fold(text.clone(), |text, place| text.replace(place, &here));
        assert!(moved != text, "{name}: the receiver is at one of {PLACES:?}");
        self.apply_text(&moved);
    }

    /// The same with other replacements, each of which must fit.
    pub(super) fn apply_with(&self, name: &str, changes: &[(&str, &str)]) {
        self.apply_text(&changed(name, changes));
    }

    /// The same without the manifests that contain `left_out`, such as a Secret that a test has made.
    pub(super) fn apply_without(&self, name: &str, left_out: &str, changes: &[(&str, &str)]) {
        let text = changed(name, changes);
        assert!(text.contains(left_out), "{name} has {left_out}");
        let kept: Vec<_> = text
            .split("\n---\n")
            .filter(|one| !one.contains(left_out))
            .collect();
        self.apply_text(&kept.join("\n---\n"));
    }

    fn apply_text(&self, text: &str) {
        self.make(text);
        wait_until_ready(self.cluster, self.namespace.name());
    }

    /// Applies a text of manifests as it is.
    pub(super) fn make(&self, text: &str) {
        self.cluster
            .kubectl_with(&["apply", "-n", self.namespace.name()], text)
            .ok();
    }

    /// Makes a Secret.
    pub(super) fn secret(&self, name: &str, kind: &str, values: &Value) {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "stringData": values,
        });
        self.make(&secret.to_string());
    }

    /// Makes the Secret of an SMTP server.
    pub(super) fn smtp(&self, name: &str, server: &Server) {
        let mut values = json!({"from": "Acme events <postrider@example.com>"});
        for (key, value) in server.plain() {
            values[key] = json!(value);
        }
        self.secret(name, "Opaque", &values);
    }

    pub(super) fn kubectl(&self, args: &[&str]) -> String {
        let all = [&["-n", self.namespace.name()][..], args].concat();
        self.cluster.kubectl(&all).ok()
    }

    pub(super) fn get(&self, destination: &str) -> Value {
        let text = self.kubectl(&["get", "ed", destination, "-o", "json"]);
        serde_json::from_str(&text).unwrap()
    }

    /// Changes a destination's spec, and waits until the change is in force.
    pub(super) async fn patch(&self, destination: &str, spec: &Value) {
        let patch = json!({"spec": spec}).to_string();
        self.kubectl(&["patch", "ed", destination, "--type=merge", "-p", &patch]);
        let is_seen = |ed: &Value| ed["status"]["observedGeneration"] == ed["metadata"]["generation"];
        self.until(destination, "the change is in force", is_seen).await;
    }

    /// Publishes to an example's project; returns the answer.
    pub(super) async fn publish(&self, project: &str, events: &Value) -> Value {
        let token = secret(&self.namespace, &format!("{project}-publish-token"), "token").await;
        let (status, answer) = self.operator.publish(project, &token, events).await;
        assert_eq!(status, 202, "{project}: {answer}");
        answer
    }

    /// Waits until a destination's JSON is as wanted.
    pub(super) async fn until(
        &self,
        destination: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let what = format!("{destination}: {what}");
        eventually(&what, Duration::from_secs(40), || {
            let object = self.get(destination);
            std::future::ready(if wanted(&object) {
                Ok(object)
            } else {
                Err(format!("{:#}", object["status"]))
            })
        })
        .await
    }

    /// Waits until a counter of a destination's deliveries is so.
    pub(super) async fn counts(&self, destination: &str, counter: &str, count: u64) -> Value {
        let what = format!("{counter} is {count}");
        let is_so = |ed: &Value| ed["status"]["delivery"][counter] == count;
        self.until(destination, &what, is_so).await
    }
}
