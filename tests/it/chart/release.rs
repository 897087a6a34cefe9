//! A release at work: the operator with the rights of the chart, and a release from its install to its end.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Namespace, PersistentVolumeClaim, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams};
use postrider::api::v1alpha1::{EventDestination, EventProject};
use serde_json::{Value, json};

use super::rights::Granted;
use super::{CHART, SOON};
use crate::support::{Cluster, Operator, Settings, TempNamespace, await_condition, eventually};

/// A kubeconfig that knows a token and nothing else.
fn kubeconfig(cluster: &Cluster, namespace: &str, token: &str) -> PathBuf {
    let view = cluster
        .kubectl(&["config", "view", "--raw", "--minify", "--flatten", "-o", "json"])
        .ok();
    let mut config: Value = serde_json::from_str(&view).unwrap();
    config["users"][0]["user"] = json!({"token": token});
    let path = cluster.folder().join(format!("{namespace}.kubeconfig"));
    std::fs::write(&path, config.to_string()).unwrap();
    path
}

/// A token of a service account, as its pods have one.
fn token(cluster: &Cluster, namespace: &str, account: &str) -> String {
    cluster
        .kubectl(&["create", "token", account, "-n", namespace])
        .ok()
        .trim()
        .to_owned()
}

#[tokio::test]
async fn operator_works_with_the_rights_of_the_chart() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "chart-rights").await;
    let name = namespace.name();
    let watch = format!("watchNamespace={name}");
    let granted = Granted::apply(
        cluster,
        name,
        &["-s", "templates/user-roles.yaml", "--set", &watch],
    );
    let account = &granted.account;
    let settings = Settings {
        kubeconfig: kubeconfig(cluster, name, &token(cluster, name, account)),
        namespace: name.to_owned(),
        data_dir: cluster.folder().join("operators").join(name),
        flags: Vec::new(),
    };
    let operator = Operator::launch(settings).await;

    // Generated Secrets, references, status …
    let manifests = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "postrider.dev/v1alpha1", "kind": "EventProject", "metadata": {"name": "shop"}, "spec": {}},
        {"apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination", "metadata": {"name": "hook"},
         "spec": {"events": ["*"], "webhook": {"url": "http://127.0.0.1:9/"}}}
    ]}"#;
    cluster.kubectl_with(&["apply", "-n", name], manifests).ok();
    await_condition(&namespace.api::<EventProject>(), "shop", "Ready", "True", SOON).await;
    await_condition(
        &namespace.api::<EventDestination>(),
        "hook",
        "Ready",
        "True",
        SOON,
    )
    .await;

    // … destinations for notifications: made, paused and removed …
    let notify = |on: bool| {
        let project = json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "EventProject", "metadata": {"name": "shop"},
            "spec": {"notifications": {
                "webhook": {"url": "https://hooks.example.com/in"},
                "events": [{"type": "x", "sendWebhook": on}],
            }},
        });
        cluster
            .kubectl_with(&["apply", "-n", name], &project.to_string())
            .ok();
    };
    notify(true);
    let destinations = namespace.api::<EventDestination>();
    await_condition(&destinations, "shop-webhook", "Ready", "True", SOON).await;
    let pause = [
        "annotate",
        "-n",
        name,
        "ed/shop-webhook",
        "postrider.dev/suspend=true",
    ];
    cluster.kubectl(&pause).ok();
    eventually("it is paused", SOON, async || {
        match destinations.get("shop-webhook").await {
            Ok(webhook) if webhook.spec.suspend => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    notify(false);
    eventually("it is removed", SOON, async || {
        match destinations.get_opt("shop-webhook").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    // … publishers with an account of their own …
    cluster
        .kubectl(&["create", "serviceaccount", "till", "-n", name])
        .ok();
    let publish = async || {
        let token = token(cluster, name, "till");
        operator
            .publish("shop", &token, &json!({"type": "order.placed"}))
            .await
    };
    let (status, problem) = publish().await;
    assert_eq!(status, 403, "{problem}");
    let role = format!("--clusterrole={account}-publisher");
    let binding = [
        "create",
        "rolebinding",
        "till",
        &role,
        &format!("--serviceaccount={name}:till"),
        "-n",
        name,
    ];
    cluster.kubectl(&binding).ok();
    eventually("the account may publish", SOON, async || {
        let (status, answer) = publish().await;
        if status == 202 {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;

    // … and Kubernetes Events about what changed: nothing listens on the port.
    await_condition(
        &namespace.api::<EventDestination>(),
        "hook",
        "Delivering",
        "False",
        SOON,
    )
    .await;
    eventually("a Kubernetes Event tells", SOON, async || {
        let told = cluster.kubectl(&["get", "events", "-n", name, "-o", "json"]).ok();
        if told.contains("ConnectionRefused") {
            Ok(())
        } else {
            Err(told)
        }
    })
    .await;
    assert!(!operator.log().contains("is forbidden"), "{}", operator.log());
}

#[tokio::test]
async fn release_is_installed_upgraded_and_removed() {
    let cluster = Cluster::private_without_crds();
    let namespace = TempNamespace::new(&cluster, "chart-release").await;
    // A pod that breaks the restricted standard would not be made in a namespace that enforces it.
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    Api::<Namespace>::all(namespace.client())
        .patch(namespace.name(), &PatchParams::default(), &Patch::Merge(labels))
        .await
        .unwrap();

    let notes = cluster
        .helm(&["install", "postrider", CHART, "-n", namespace.name()])
        .ok();
    assert!(notes.contains("http://postrider."), "{notes}");
    let pod = eventually("the pod is made", SOON, async || {
        namespace.api::<Pod>().get("postrider-0").await
    })
    .await;
    let spec = serde_json::to_value(pod.spec.unwrap()).unwrap();
    assert_eq!(
        spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"],
        true
    );
    assert_eq!(spec["terminationGracePeriodSeconds"], 45);
    let args: Vec<_> = spec["containers"][0]["args"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    assert_eq!(args[0], "run");
    assert!(args.contains(&format!("--public-url=http://postrider.{}.svc:8080", namespace.name()).as_str()));

    let allow = "egress.allow={10.96.0.0/12,192.168.0.0/16},limits.queueMaxBytes=21474836480";
    cluster
        .helm(&[
            "upgrade",
            "postrider",
            CHART,
            "-n",
            namespace.name(),
            "--set",
            allow,
        ])
        .ok();
    let set = cluster
        .kubectl(&[
            "get",
            "statefulset",
            "postrider",
            "-n",
            namespace.name(),
            "-o",
            "json",
        ])
        .ok();
    assert!(
        set.contains("--allow-egress=192.168.0.0/16") && set.contains("--queue-max-bytes=21474836480"),
        "{set}"
    );

    cluster
        .helm(&["uninstall", "postrider", "-n", namespace.name()])
        .ok();
    let kept = cluster.kubectl(&["get", "crd", "-o", "name"]).ok();
    assert!(
        kept.contains("eventdestinations.postrider.dev") && kept.contains("eventprojects.postrider.dev"),
        "{kept}"
    );
    let claims = namespace
        .api::<PersistentVolumeClaim>()
        .list(&ListParams::default())
        .await
        .unwrap();
    assert_eq!(claims.items.len(), 1, "the queue's volume outlives the release");

    // What was kept is taken over by the next release of that name.
    cluster
        .helm(&["install", "postrider", CHART, "-n", namespace.name()])
        .ok();
}
