//! The way to the operator's pod through the API server: no port is opened, and nothing but the kubeconfig is needed.
//!
//! The pod is found by the labels that the chart sets. Several operators are an error that names them, never a guess.

use std::collections::BTreeSet;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::io::DuplexStream;

use super::request;

/// What the chart calls the operator's pods.
const SELECTOR: &str = "app.kubernetes.io/name=postrider";
/// What the chart calls the publish port, and its number when the pod does not say.
const PORT: (&str, u16) = ("http", 8080);
/// Most pods that are looked at.
const MAX_PODS: u32 = 100;

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) port: u16,
}

/// Looks for the operator's pod.
///
/// # Errors
/// When there is none, or more than one operator.
pub(super) async fn find(client: &Client, namespace: Option<&str>) -> anyhow::Result<Place> {
    let api: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let params = ListParams::default().labels(SELECTOR).limit(MAX_PODS);
    let place = match namespace {
        Some(namespace) => format!("namespace {namespace:?}"),
        None => "all namespaces".to_owned(),
    };
    let found = request(&format!("list the pods of {place}"), api.list(&params)).await;
    let pods = found.context(
        "the operator is not found; name its namespace with --operator-namespace, or its URL with --server",
    )?;
    choose(&pods.items, &place)
}

/// The pod to ask: one that is ready.
fn choose(pods: &[Pod], place: &str) -> anyhow::Result<Place> {
    let ready: Vec<&Pod> = pods.iter().filter(|pod| is_ready(pod)).collect();
    let operator = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        let instance = labels.and_then(|labels| labels.get("app.kubernetes.io/instance"));
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        (namespace, instance.cloned().unwrap_or_default())
    };
    let operators: BTreeSet<_> = ready.iter().map(|pod| operator(pod)).collect();
    if operators.len() > 1 {
        let names: Vec<_> = operators
            .iter()
            .map(|(namespace, name)| format!("{namespace}/{name}"))
            .collect();
        anyhow::bail!(
            "there are {} operators: {}; choose with --operator-namespace, or give a URL with --server",
            names.len(),
            names.join(", ")
        );
    }
    let none = || {
        anyhow::anyhow!(
            "no pod with the label {SELECTOR} is ready in {place}; give the operator's URL with --server, or its \
             namespace with --operator-namespace"
        )
    };
    let pod = ready.first().ok_or_else(none)?;
    let (namespace, _) = operator(pod);
    Ok(Place {
        namespace,
        pod: pod.metadata.name.clone().ok_or_else(none)?,
        port: port(pod),
    })
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    ready && pod.metadata.deletion_timestamp.is_none()
}

fn port(pod: &Pod) -> u16 {
    let (name, number) = PORT;
    let containers = pod
        .spec
        .as_ref()
        .map(|spec| spec.containers.as_slice())
        .unwrap_or_default();
    containers
        .iter()
        .flat_map(|container| container.ports.iter().flatten())
        .find(|port| port.name.as_deref() == Some(name))
        .and_then(|port| u16::try_from(port.container_port).ok())
        .unwrap_or(number)
}

/// What the pod says when it refuses the port; nothing while it does not.
pub(super) type Refusal = BoxFuture<'static, Option<String>>;

/// A stream to a port of a pod.
///
/// # Errors
/// When the API server refuses it.
pub(super) async fn stream(client: &Client, place: &Place) -> anyhow::Result<(DuplexStream, Refusal)> {
    let api = Api::<Pod>::namespaced(client.clone(), &place.namespace);
    let what = format!(
        "forward a port of pod {:?} in namespace {:?}",
        place.pod, place.namespace
    );
    let forwarder = request(&what, api.portforward(&place.pod, &[place.port])).await;
    let mut forwarder =
        forwarder.context("there is no way to it through the API server; --server URL does without")?;
    let stream = forwarder.take_stream(place.port);
    let stream = stream.ok_or_else(|| anyhow::anyhow!("cannot {what}: there is no stream"))?;
    let refusal = forwarder.take_error(place.port);
    let refusal = async move {
        match refusal {
            Some(refusal) => refusal.await,
            None => None,
        }
    };
    Ok((stream, refusal.boxed()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(namespace: &str, instance: &str, name: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": namespace, "name": name,
                "labels": {"app.kubernetes.io/instance": instance}},
            "spec": {"containers": [{"name": "postrider", "ports": [
                {"name": "admin", "containerPort": 9090}, {"name": "http", "containerPort": 8081}]}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    #[test]
    fn the_pod_that_is_ready_is_asked_and_several_operators_are_named() {
        let pods = [
            pod("a", "one", "one-0", "False"),
            pod("b", "two", "two-0", "True"),
        ];
        let place = choose(&pods, "all namespaces").unwrap();
        assert_eq!(
            (place.namespace.as_str(), place.pod.as_str(), place.port),
            ("b", "two-0", 8081)
        );
        let pods = [pod("a", "one", "one-0", "True"), pod("b", "two", "two-0", "True")];
        let error = choose(&pods, "all namespaces").unwrap_err().to_string();
        assert!(
            error.contains("a/one, b/two") && error.contains("--operator-namespace"),
            "{error}"
        );
        let error = choose(&[pod("a", "one", "one-0", "False")], "all namespaces").unwrap_err();
        assert!(error.to_string().contains("--server"), "{error}");
    }
}
