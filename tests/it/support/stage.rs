//! A stage for tests of the whole way: a namespace, a project with its token, a receiver and the operator.

use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::{Cluster, Operator, Receiver, Settings, TempNamespace, eventually};

/// Name of the stage's project.
pub(crate) const PROJECT: &str = "acme";

/// Everything a test of the whole way needs.
pub(crate) struct Stage {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: TempNamespace,
    pub(crate) receiver: Receiver,
    operator: Option<Operator>,
    token: String,
}

impl Stage {
    /// Sets the stage with a ready project.
    pub(crate) async fn set(prefix: &str) -> Self {
        Self::set_with(prefix, &[]).await
    }

    /// The same with further flags for the operator.
    pub(crate) async fn set_with(prefix: &str, flags: &[&str]) -> Self {
        Self::on(Cluster::shared(), prefix, flags).await
    }

    /// The same on a control plane of the caller's choice.
    pub(crate) async fn on(cluster: &'static Cluster, prefix: &str, flags: &[&str]) -> Self {
        let namespace = TempNamespace::new(cluster, prefix).await;
        let operator = Operator::start_with(cluster, namespace.name(), flags).await;
        let receiver = Receiver::start().await;
        let mut stage = Self {
            cluster,
            namespace,
            receiver,
            operator: Some(operator),
            token: String::new(),
        };
        stage.apply(&json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "EventProject",
            "metadata": {"name": PROJECT}, "spec": {"displayName": "Acme"},
        }));
        stage.wait_ready("eproj", PROJECT);
        stage.token = stage.secret("acme-publish-token", "token").await;
        stage
    }

    /// The running operator.
    pub(crate) fn operator(&self) -> &Operator {
        self.operator.as_ref().expect("the operator runs")
    }

    /// Takes the operator away, to kill or stop it.
    pub(crate) fn take_operator(&mut self) -> Operator {
        self.operator.take().expect("the operator runs")
    }

    /// Starts an operator that was killed or stopped on its old data.
    pub(crate) async fn start_again(&mut self, settings: Settings) {
        self.operator = Some(Operator::launch(settings).await);
    }

    /// Applies an object in the stage's namespace.
    #[track_caller]
    pub(crate) fn apply(&self, object: &Value) {
        self.cluster
            .kubectl_with(&["apply", "-n", self.namespace.name()], &object.to_string())
            .ok();
    }

    /// Applies a destination for every event at a path of the receiver, and waits until it is ready.
    #[track_caller]
    pub(crate) fn destination(&self, name: &str, path: &str, more: &Value) {
        self.apply_destination(name, path, more);
        self.wait_ready("ed", name);
    }

    /// Applies a destination without waiting; `more` is merged into its spec, member by member.
    #[track_caller]
    pub(crate) fn apply_destination(&self, name: &str, path: &str, more: &Value) {
        let mut spec = json!({"events": ["*"], "webhook": {"url": self.receiver.url(path)}});
        merge(&mut spec, more);
        self.apply(&json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination",
            "metadata": {"name": name}, "spec": spec,
        }));
    }

    /// Waits with `kubectl wait` until an object is `Ready`.
    #[track_caller]
    pub(crate) fn wait_ready(&self, kind: &str, name: &str) {
        self.wait(kind, name, "condition=Ready");
    }

    /// Waits with `kubectl wait --for=…`.
    #[track_caller]
    pub(crate) fn wait(&self, kind: &str, name: &str, what: &str) {
        let (what, object) = (format!("--for={what}"), format!("{kind}/{name}"));
        self.cluster
            .kubectl(&[
                "wait",
                "-n",
                self.namespace.name(),
                "--timeout=20s",
                &what,
                &object,
            ])
            .ok();
    }

    /// A value of a Secret, waited for.
    pub(crate) async fn secret(&self, name: &str, key: &str) -> String {
        let api = self.namespace.api::<Secret>();
        eventually(&format!("Secret {name}"), Duration::from_secs(10), || async {
            let secret = api.get(name).await.map_err(|error| error.to_string())?;
            let value = secret
                .data
                .and_then(|mut data| data.remove(key))
                .ok_or("it has no such key".to_owned())?;
            String::from_utf8(value.0).map_err(|error| error.to_string())
        })
        .await
    }

    /// Publishes an event of a type with data; returns its id.
    #[track_caller]
    pub(crate) fn publish(&self, event_type: &str, data: &Value) -> impl Future<Output = String> {
        let body = json!({"type": event_type, "data": data});
        async move {
            let (status, answer) = self.operator().publish(PROJECT, &self.token, &body).await;
            assert_eq!(status, 202, "{answer}");
            answer["events"][0]["id"]
                .as_str()
                .expect("an accepted event has an id")
                .to_owned()
        }
    }

    /// Publishes any body; returns status and answer.
    pub(crate) async fn publish_raw(&self, body: &Value) -> (u16, Value) {
        self.operator().publish(PROJECT, &self.token, body).await
    }

    /// An object's JSON.
    #[track_caller]
    pub(crate) fn get(&self, kind: &str, name: &str) -> Value {
        let text = self
            .cluster
            .kubectl(&["get", "-n", self.namespace.name(), kind, name, "-o", "json"])
            .ok();
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// Waits until an object's JSON is as wanted; returns it.
    #[track_caller]
    pub(crate) fn until<'a>(
        &'a self,
        kind: &'a str,
        name: &'a str,
        what: &'a str,
        wanted: impl Fn(&Value) -> bool + 'a,
    ) -> impl Future<Output = Value> + 'a {
        eventually(what, Duration::from_secs(40), move || {
            let object = self.get(kind, name);
            std::future::ready(if wanted(&object) {
                Ok(object)
            } else {
                Err(format!("{:#}", object["status"]))
            })
        })
    }
}

/// A condition of an object; null when it has none of that type.
pub(crate) fn condition<'a>(object: &'a Value, condition: &str) -> &'a Value {
    let conditions = object["status"]["conditions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    conditions
        .iter()
        .find(|found| found["type"] == condition)
        .unwrap_or(&Value::Null)
}

fn merge(into: &mut Value, more: &Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more.clone(),
    }
}
