//! The way to the operator's pod through the API server: no port is opened, and nothing but the kubeconfig is needed.
//!
//! A token goes to that pod, so nothing that a tenant can write leads to it. Labels of pods alone are no proof: the
//! namespace and the service account are those of the cluster role binding that the chart makes, or the user names the
//! namespace, whose pods are trusted. Several operators are an error that names them, never a guess, and a pod that is
//! not ready counts among them.

use std::collections::BTreeSet;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::io::DuplexStream;

use super::request;

/// What the chart puts on the operator's pods and on its cluster role binding, whatever it is called.
const SELECTOR: &str = "postrider.dev/component=operator";
/// What the chart calls the publish port, and its number when the pod does not say.
const PORT: (&str, u16) = ("http", 8080);
/// Most pods, and most cluster role bindings, that are looked at.
const MAX_OBJECTS: u32 = 100;

/// A port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) port: u16,
}

/// Where an operator runs, and as whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Home {
    namespace: String,
    account: String,
}

/// Looks for the operator's pod.
///
/// # Errors
/// When there is none, or more than one operator.
pub(super) async fn find(client: &Client, namespace: Option<&str>) -> anyhow::Result<Place> {
    let (namespace, account) = if let Some(namespace) = namespace {
        (namespace.to_owned(), None)
    } else {
        let home = home(client).await?;
        (home.namespace, Some(home.account))
    };
    let api = Api::<Pod>::namespaced(client.clone(), &namespace);
    let what = format!("list the pods of namespace {namespace:?}");
    let found = request(&what, api.list(&params())).await;
    let pods = found.context("the operator is not found; give its URL with --server")?;
    choose(&pods.items, &namespace, account.as_deref())
}

fn params() -> ListParams {
    ListParams::default().labels(SELECTOR).limit(MAX_OBJECTS)
}

/// The home of the cluster's one operator, by what only the cluster's administrators write.
async fn home(client: &Client) -> anyhow::Result<Home> {
    let api = Api::<ClusterRoleBinding>::all(client.clone());
    let found = request("list ClusterRoleBindings", api.list(&params())).await;
    let bindings = found.context(
        "it is not known where the operator runs; name its namespace with --operator-namespace, or its URL with \
         --server",
    )?;
    only(&bindings.items)
}

fn only(bindings: &[ClusterRoleBinding]) -> anyhow::Result<Home> {
    let subjects = bindings
        .iter()
        .flat_map(|binding| binding.subjects.iter().flatten());
    let homes: BTreeSet<_> = subjects
        .filter(|subject| subject.kind == "ServiceAccount")
        .filter_map(|subject| {
            Some(Home {
                namespace: subject.namespace.clone()?,
                account: subject.name.clone(),
            })
        })
        .collect();
    let mut rest = homes.iter();
    match (rest.next(), rest.next()) {
        (Some(home), None) => Ok(home.clone()),
        (None, _) => anyhow::bail!(
            "it is not known where the operator runs: no ClusterRoleBinding has the label {SELECTOR} and a service \
             account; name the namespace with --operator-namespace, or give a URL with --server"
        ),
        (Some(_), Some(_)) => {
            let names: Vec<_> = homes
                .iter()
                .map(|home| format!("{}/{}", home.namespace, home.account))
                .collect();
            anyhow::bail!(
                "there are {} operators, of the service accounts {}; choose with --operator-namespace, or give a URL \
                 with --server",
                names.len(),
                names.join(", ")
            )
        }
    }
}

/// The pod to ask: one that is ready, of the one operator that the namespace has. With an account, only pods that run
/// as it count.
fn choose(pods: &[Pod], namespace: &str, account: Option<&str>) -> anyhow::Result<Place> {
    let runs_as = |pod: &&Pod| {
        let own = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.service_account_name.as_deref());
        account.is_none() || own == account
    };
    let instance = |pod: &Pod| {
        let labels = pod.metadata.labels.as_ref();
        let instance = labels.and_then(|labels| labels.get("app.kubernetes.io/instance"));
        instance.cloned().unwrap_or_default()
    };
    let pods: Vec<&Pod> = pods.iter().filter(runs_as).collect();
    let operators: BTreeSet<_> = pods.iter().map(|pod| instance(pod)).collect();
    if operators.len() > 1 {
        let names: Vec<_> = operators.iter().map(String::as_str).collect();
        anyhow::bail!(
            "there are {} operators in namespace {namespace:?}: {}; give a URL with --server",
            names.len(),
            names.join(", ")
        );
    }
    let whose = account.map_or_else(String::new, |account| format!(" of service account {account:?}"));
    let none = || {
        anyhow::anyhow!(
            "no pod{whose} with the label {SELECTOR} is ready in namespace {namespace:?}; give the operator's URL \
             with --server"
        )
    };
    let pod = pods.iter().find(|pod| is_ready(pod)).ok_or_else(none)?;
    Ok(Place {
        namespace: namespace.to_owned(),
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

    fn pod(account: &str, instance: &str, name: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"namespace": "system", "name": name,
                "labels": {"app.kubernetes.io/instance": instance}},
            "spec": {"serviceAccountName": account, "containers": [{"name": "postrider", "ports": [
                {"name": "admin", "containerPort": 9090}, {"name": "http", "containerPort": 8081}]}]},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
        .unwrap()
    }

    fn binding(subjects: &[(&str, &str)]) -> ClusterRoleBinding {
        let subject = |(namespace, name): &(&str, &str)| json!({"kind": "ServiceAccount", "namespace": namespace, "name": name});
        serde_json::from_value(json!({
            "metadata": {"name": "x"}, "roleRef": {"apiGroup": "g", "kind": "ClusterRole", "name": "x"},
            "subjects": subjects.iter().map(subject).collect::<Vec<_>>(),
        }))
        .unwrap()
    }

    #[test]
    fn the_pod_that_is_ready_is_asked() {
        let pods = [
            pod("one", "one", "one-0", "False"),
            pod("one", "one", "one-1", "True"),
        ];
        for account in [None, Some("one")] {
            let place = choose(&pods, "system", account).unwrap();
            assert_eq!(
                (place.namespace.as_str(), place.pod.as_str(), place.port),
                ("system", "one-1", 8081)
            );
        }
        let error = choose(&pods[..1], "system", None).unwrap_err();
        assert!(error.to_string().contains("--server"), "{error}");
    }

    #[test]
    fn a_pod_that_is_not_ready_counts_when_operators_are_told_apart() {
        let pods = [
            pod("one", "one", "one-0", "False"),
            pod("two", "two", "two-0", "True"),
        ];
        let error = choose(&pods, "system", None).unwrap_err().to_string();
        assert!(
            error.contains("one, two") && error.contains("--server"),
            "{error}"
        );
    }

    #[test]
    fn a_pod_of_another_service_account_is_never_asked() {
        let pods = [
            pod("one", "one", "one-0", "False"),
            pod("default", "one", "mine", "True"),
        ];
        let error = choose(&pods, "system", Some("one")).unwrap_err().to_string();
        assert!(error.contains("\"one\"") && error.contains("is ready"), "{error}");
    }

    #[test]
    fn where_the_operator_runs_is_known_by_one_binding_or_not_at_all() {
        let home = only(&[
            binding(&[("system", "postrider")]),
            binding(&[("system", "postrider")]),
        ])
        .unwrap();
        assert_eq!(
            (home.namespace.as_str(), home.account.as_str()),
            ("system", "postrider")
        );
        let several = [binding(&[("a", "one")]), binding(&[("b", "two")])];
        for (bindings, words) in [(&several[..], "a/one, b/two"), (&[], "no ClusterRoleBinding")] {
            let error = only(bindings).unwrap_err().to_string();
            assert!(
                error.contains(words) && error.contains("--operator-namespace"),
                "{error}"
            );
        }
    }
}
