//! The Helm chart: the API server accepts what it renders, and its roles allow what is needed and nothing else.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use postrider::api::v1alpha1::{EventDestination, EventProject};
use serde_json::{Value, json};

use crate::support::{
    Cluster, Operator, Settings, TempNamespace, await_condition, eventually, repository_file,
};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/postrider");
const SOON: Duration = Duration::from_secs(30);

/// Values that turn on what the defaults leave out.
const EVERYTHING: &str = r#"{
    "image": {"repository": "registry.example/postrider", "digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000"},
    "imagePullSecrets": ["registry"],
    "publicURL": "https://events.acme.example",
    "egress": {"allow": ["10.96.0.0/12", "fd00:10:96::/112"]},
    "smtp": {"secretName": "smtp"},
    "limits": {"maxBodyBytes": 2097152, "queueMaxBytes": 107374182400, "retentionBytes": 0, "deduplicationIds": 20000000},
    "log": {"format": "text", "filter": "info,postrider::engine=debug"},
    "gracePeriodSeconds": 60,
    "persistence": {"size": "200Gi", "storageClassName": "fast", "accessMode": "ReadWriteOncePod", "annotations": {"a": "b"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "service": {"type": "LoadBalancer", "port": 80, "annotations": {"a": "b"}},
    "metrics": {"service": {"port": 9100, "annotations": {"a": "b"}}},
    "networkPolicy": {
        "enabled": true,
        "publishers": [{"namespaceSelector": {}}],
        "metricsReaders": [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
    },
    "podAnnotations": {"a": "b"}, "podLabels": {"a": "b"}, "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "system-cluster-critical",
    "extraArgs": ["--log=debug"],
    "extraEnv": [{"name": "SSL_CERT_FILE", "value": "/ca/ca.crt"}],
    "extraVolumes": [{"name": "ca", "configMap": {"name": "ca"}}],
    "extraVolumeMounts": [{"name": "ca", "mountPath": "/ca"}]
}"#;

/// `helm template` for a release of the namespace's name, with more arguments.
fn rendered(cluster: &Cluster, namespace: &str, more: &[&str]) -> String {
    let mut args = vec![
        "template",
        namespace,
        CHART,
        "--namespace",
        namespace,
        "--kube-version",
        "1.34.0",
    ];
    args.extend(more);
    cluster.helm(&args).ok()
}

fn documents(manifests: &str, kind: &str) -> usize {
    let line = format!("kind: {kind}");
    manifests.lines().filter(|other| **other == line).count()
}

#[test]
fn lint_has_nothing_to_say() {
    Cluster::shared().helm(&["lint", "--strict", CHART]).ok();
}

#[test]
fn chart_and_binary_have_one_version() {
    let chart = std::fs::read_to_string(repository_file("charts/postrider/Chart.yaml")).unwrap();
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        chart.contains(&format!("\nversion: {version}\n")),
        "Chart.yaml: version is not {version}"
    );
    assert!(
        chart.contains(&format!("\nappVersion: \"{version}\"\n")),
        "Chart.yaml: appVersion is not {version}"
    );
}

#[test]
fn chart_carries_the_generated_definitions() {
    let read = |folder: &str| -> Vec<(String, String)> {
        let mut files: Vec<_> = std::fs::read_dir(repository_file(folder))
            .unwrap_or_else(|error| panic!("{folder}: {error}"))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
            .map(|path| {
                let name = path.file_name().unwrap().to_string_lossy().into_owned();
                (name, std::fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let (generated, carried) = (read("crds"), read("charts/postrider/files/crds"));
    assert!(!generated.is_empty());
    assert!(generated == carried, "they differ; run: make crds");

    // As text they are equal; the template adds metadata and must not lose a rule or a bound on the way.
    let cluster = Cluster::shared();
    let text = rendered(cluster, "chart-crds", &["-s", "templates/crds.yaml"]);
    assert_eq!(documents(&text, "CustomResourceDefinition"), generated.len());
    let keep = |text: &str| text.matches("helm.sh/resource-policy: keep").count();
    assert_eq!(keep(&text), generated.len());
    assert_eq!(
        keep(&rendered(cluster, "chart-crds", &["--set", "crds.keep=false"])),
        0
    );
    for (name, file) in &generated {
        let spec = &file[file.find("\nspec:\n").unwrap()..];
        assert!(
            text.contains(spec.trim_end()),
            "{name} is rendered with another spec"
        );
    }
}

#[tokio::test]
async fn api_server_accepts_each_set_of_values() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "chart-values").await;
    let name = namespace.name();
    let watch = format!("watchNamespace={name}");
    let everything = cluster.folder().join("chart-everything.json");
    std::fs::write(&everything, EVERYTHING).unwrap();
    let everything = everything.to_str().unwrap();
    for (values, kinds) in [
        (
            vec![],
            vec![
                ("CustomResourceDefinition", 2),
                ("ClusterRole", 4),
                ("Role", 0),
                ("NetworkPolicy", 0),
            ],
        ),
        (
            vec!["-f", everything],
            vec![("NetworkPolicy", 1), ("Service", 2), ("ClusterRoleBinding", 1)],
        ),
        (
            vec!["--set", &watch],
            vec![("ClusterRole", 4), ("Role", 1), ("RoleBinding", 1)],
        ),
        (
            vec!["--set", "crds.enabled=false"],
            vec![("CustomResourceDefinition", 0)],
        ),
        (
            vec!["--set", "persistence.enabled=false,networkPolicy.enabled=true"],
            vec![("StatefulSet", 1), ("NetworkPolicy", 1)],
        ),
        (
            vec![
                "--set",
                "rbac.create=false,rbac.userRoles=false,serviceAccount.create=false,serviceAccount.name=mine",
            ],
            vec![
                ("ClusterRole", 0),
                ("ClusterRoleBinding", 0),
                ("ServiceAccount", 0),
            ],
        ),
        (
            vec!["--set", "fullnameOverride=short,image.tag=v9"],
            vec![("StatefulSet", 1)],
        ),
    ] {
        let manifests = rendered(cluster, name, &values);
        for (kind, count) in kinds {
            assert_eq!(documents(&manifests, kind), count, "{kind} with {values:?}");
        }
        cluster
            .kubectl_with(
                &["apply", "--server-side", "--force-conflicts", "--dry-run=server"],
                &manifests,
            )
            .ok();
    }
}

#[test]
fn monitors_are_rendered_on_request() {
    // Their kinds belong to the Prometheus operator; a control plane alone does not know them.
    let cluster = Cluster::shared();
    let text = rendered(
        cluster,
        "chart-monitor",
        &[
            "--set",
            "metrics.serviceMonitor.enabled=true,metrics.podMonitor.enabled=true,metrics.podMonitor.labels.a=b",
        ],
    );
    assert_eq!(
        (documents(&text, "ServiceMonitor"), documents(&text, "PodMonitor")),
        (1, 1)
    );
    let text = rendered(cluster, "chart-monitor", &[]);
    assert_eq!(
        (documents(&text, "ServiceMonitor"), documents(&text, "PodMonitor")),
        (0, 0)
    );
}

#[test]
fn misspelt_and_malformed_values_are_refused() {
    let cluster = Cluster::shared();
    for (value, says) in [
        ("egres.allow={10.0.0.0/8}", "'egres' not allowed"),
        ("limits.maxBodySize=1", "'maxBodySize' not allowed"),
        ("metrics.podMonitor.enable=true", "'enable' not allowed"),
        ("rbac.notification=true", "'notification' not allowed"),
        ("egress.allow={10.0.0.1}", "/egress/allow/0"),
        ("publicURL=events.acme.example", "/publicURL"),
        ("log.format=xml", "/log/format"),
        ("persistence.accessMode=ReadWriteMany", "/persistence/accessMode"),
        ("gracePeriodSeconds=25s", "/gracePeriodSeconds"),
        ("image.digest=latest", "/image/digest"),
        ("serviceAccount.create=false", "serviceAccount.name is needed"),
    ] {
        let args = [
            "template",
            "refused",
            CHART,
            "--kube-version",
            "1.34.0",
            "--set",
            value,
        ];
        let said = cluster.helm(&args).refused();
        assert!(said.contains(says), "{value}: {said}");
    }
}

/// What a service account may do in a namespace, as `group/resource: verb`, beyond what everybody may.
async fn rights(
    cluster: &Cluster,
    account_namespace: &str,
    account: &str,
    namespace: &str,
) -> BTreeSet<String> {
    let mut config = cluster.config().await;
    config.auth_info.impersonate = Some(format!("system:serviceaccount:{account_namespace}:{account}"));
    config.auth_info.impersonate_groups = Some(vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{account_namespace}"),
        "system:authenticated".to_owned(),
    ]);
    let client = kube::Client::try_from(config).unwrap();
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec {
            namespace: Some(namespace.to_owned()),
        },
        ..SelfSubjectRulesReview::default()
    };
    let review = Api::<SelfSubjectRulesReview>::all(client)
        .create(&PostParams::default(), &review)
        .await
        .unwrap();
    let mut rights = BTreeSet::new();
    for rule in review.status.unwrap().resource_rules {
        let names = rule.resource_names.unwrap_or_default();
        for group in rule.api_groups.unwrap_or_default() {
            for resource in rule.resources.as_deref().unwrap_or_default() {
                if resource.starts_with("selfsubject") {
                    continue;
                }
                for verb in &rule.verbs {
                    let only = if names.is_empty() {
                        String::new()
                    } else {
                        format!(" {names:?}")
                    };
                    rights.insert(format!("{group}/{resource}: {verb}{only}"));
                }
            }
        }
    }
    rights
}

const IN_THE_CLUSTER: &[&str] = &[
    "authentication.k8s.io/tokenreviews: create",
    "authorization.k8s.io/subjectaccessreviews: create",
];

const IN_A_WATCHED_NAMESPACE: &[&str] = &[
    "/secrets: create",
    "/secrets: get",
    "/secrets: list",
    "/secrets: patch",
    "/secrets: watch",
    "events.k8s.io/events: create",
    "events.k8s.io/events: patch",
    "postrider.dev/eventdestinations/status: patch",
    "postrider.dev/eventdestinations/status: update",
    "postrider.dev/eventdestinations: get",
    "postrider.dev/eventdestinations: list",
    "postrider.dev/eventdestinations: watch",
    "postrider.dev/eventprojects/status: patch",
    "postrider.dev/eventprojects/status: update",
    "postrider.dev/eventprojects: get",
    "postrider.dev/eventprojects: list",
    "postrider.dev/eventprojects: watch",
];

/// What `rbac.notifications` adds.
const FOR_NOTIFICATIONS: &[&str] = &[
    "postrider.dev/eventdestinations: create",
    "postrider.dev/eventdestinations: delete",
    "postrider.dev/eventdestinations: update",
];

fn set(parts: &[&[&str]]) -> BTreeSet<String> {
    parts
        .iter()
        .flat_map(|part| part.iter().map(|right| (*right).to_owned()))
        .collect()
}

/// `kubectl auth can-i` as a person asks it; `resource` may name a subresource: `pods/exec`.
fn can_i(cluster: &Cluster, user: &str, verb: &str, resource: &str, namespace: &str) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let (user, subresource) = (format!("--as={user}"), format!("--subresource={subresource}"));
    let answer = cluster.kubectl(&[
        "auth",
        "can-i",
        verb,
        resource,
        &subresource,
        &user,
        "-n",
        namespace,
    ]);
    match answer.stdout.trim() {
        "yes" => true,
        "no" => false,
        _ => panic!("{verb} {resource}: {}{}", answer.stdout, answer.stderr),
    }
}

/// Applies the chart's accounts and roles; the API server's authorizer sees them a moment later.
fn grant(cluster: &Cluster, namespace: &str, more: &[&str]) {
    let mut args = vec!["-s", "templates/serviceaccount.yaml", "-s", "templates/rbac.yaml"];
    args.extend(more);
    cluster
        .kubectl_with(&["apply", "--server-side"], &rendered(cluster, namespace, &args))
        .ok();
}

#[tokio::test]
async fn operator_may_do_what_it_needs_and_nothing_else() {
    let cluster = Cluster::shared();
    let (home, other) = (
        TempNamespace::new(cluster, "chart-rbac").await,
        TempNamespace::new(cluster, "chart-rbac").await,
    );
    let account = format!("{}-postrider", home.name());
    grant(cluster, home.name(), &[]);
    let wanted = set(&[IN_THE_CLUSTER, IN_A_WATCHED_NAMESPACE, FOR_NOTIFICATIONS]);
    eventually("the roles are in force", SOON, async || {
        let rights = rights(cluster, home.name(), &account, other.name()).await;
        if rights == wanted {
            Ok(())
        } else {
            Err(format!("{rights:#?}"))
        }
    })
    .await;

    // The same question as people ask it.
    let identity = format!("system:serviceaccount:{}:{account}", home.name());
    for (verb, resource, allowed) in [
        ("create", "secrets", true),
        ("patch", "eventdestinations.postrider.dev/status", true),
        ("create", "tokenreviews.authentication.k8s.io", true),
        ("delete", "secrets", false),
        ("update", "secrets", false),
        ("create", "eventdestinations.postrider.dev", true),
        ("update", "eventdestinations.postrider.dev", true),
        ("delete", "eventdestinations.postrider.dev", true),
        ("patch", "eventdestinations.postrider.dev", false),
        ("deletecollection", "eventdestinations.postrider.dev", false),
        ("create", "eventprojects.postrider.dev", false),
        ("update", "eventprojects.postrider.dev", false),
        ("delete", "eventprojects.postrider.dev", false),
        ("get", "pods", false),
        ("create", "pods/exec", false),
        ("impersonate", "users", false),
        ("escalate", "clusterroles.rbac.authorization.k8s.io", false),
        ("get", "customresourcedefinitions.apiextensions.k8s.io", false),
    ] {
        let answer = can_i(cluster, &identity, verb, resource, other.name());
        assert_eq!(answer, allowed, "{verb} {resource}");
    }
    cluster
        .kubectl(&["delete", "clusterrole,clusterrolebinding", &account])
        .ok();
}

#[tokio::test]
async fn operator_of_one_namespace_sees_no_other() {
    let cluster = Cluster::shared();
    let (home, watched) = (
        TempNamespace::new(cluster, "chart-one").await,
        TempNamespace::new(cluster, "chart-one").await,
    );
    let account = format!("{}-postrider", home.name());
    grant(
        cluster,
        home.name(),
        &[
            "--set",
            &format!("watchNamespace={},rbac.notifications=false", watched.name()),
        ],
    );
    for (namespace, wanted) in [
        (watched.name(), set(&[IN_THE_CLUSTER, IN_A_WATCHED_NAMESPACE])),
        (home.name(), set(&[IN_THE_CLUSTER])),
    ] {
        eventually("the roles are in force", SOON, async || {
            let rights = rights(cluster, home.name(), &account, namespace).await;
            if rights == wanted {
                Ok(())
            } else {
                Err(format!("{rights:#?}"))
            }
        })
        .await;
    }
    cluster
        .kubectl(&["delete", "clusterrole,clusterrolebinding", &account])
        .ok();
}

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
    let account = format!("{name}-postrider");
    grant(
        cluster,
        name,
        &[
            "-s",
            "templates/user-roles.yaml",
            "--set",
            &format!("watchNamespace={name}"),
        ],
    );
    let settings = Settings {
        kubeconfig: kubeconfig(cluster, name, &token(cluster, name, &account)),
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
    cluster
        .kubectl(&[
            "annotate",
            "-n",
            name,
            "ed/shop-webhook",
            "postrider.dev/suspend=true",
        ])
        .ok();
    eventually("it is paused", SOON, async || {
        let webhook = destinations.get("shop-webhook").await;
        match webhook {
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
    cluster
        .kubectl(&["delete", "clusterrole,clusterrolebinding", &account])
        .ok();
}

#[tokio::test]
async fn people_and_publishers_get_roles_of_their_own() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "chart-users").await;
    let name = namespace.name();
    let roles = rendered(cluster, name, &["-s", "templates/user-roles.yaml"]);
    cluster.kubectl_with(&["apply", "--server-side"], &roles).ok();
    let publisher = format!("--clusterrole={name}-postrider-publisher");
    for (binding, role, user) in [
        (
            "publisher",
            publisher.as_str(),
            format!("--serviceaccount={name}:shop"),
        ),
        ("viewer", "--clusterrole=view", format!("--user={name}-viewer")),
        ("editor", "--clusterrole=edit", format!("--user={name}-editor")),
    ] {
        cluster
            .kubectl(&["create", "rolebinding", binding, role, &user, "-n", name])
            .ok();
    }
    let shop = format!("system:serviceaccount:{name}:shop");
    let (viewer, editor) = (format!("{name}-viewer"), format!("{name}-editor"));
    for (user, verb, resource, namespace, allowed) in [
        (&shop, "create", "eventprojects.postrider.dev/events", name, true),
        (
            &shop,
            "create",
            "eventprojects.postrider.dev/events",
            "default",
            false,
        ),
        (&shop, "create", "eventprojects.postrider.dev", name, false),
        (&shop, "get", "eventprojects.postrider.dev", name, false),
        (&viewer, "list", "eventdestinations.postrider.dev", name, true),
        (&viewer, "create", "eventdestinations.postrider.dev", name, false),
        (
            &viewer,
            "create",
            "eventprojects.postrider.dev/events",
            name,
            false,
        ),
        (&editor, "create", "eventdestinations.postrider.dev", name, true),
        (&editor, "delete", "eventprojects.postrider.dev", name, true),
        (
            &editor,
            "patch",
            "eventdestinations.postrider.dev/status",
            name,
            false,
        ),
    ] {
        // Aggregation into view and edit is the controller manager's work and takes a moment.
        eventually(&format!("{user}: {verb} {resource}"), SOON, async || {
            let answer = can_i(cluster, user, verb, resource, namespace);
            if answer == allowed {
                Ok(())
            } else {
                Err(format!("can-i says {answer}"))
            }
        })
        .await;
    }
    cluster.kubectl_with(&["delete"], &roles).ok();
}

#[tokio::test]
async fn release_is_installed_upgraded_and_removed() {
    let cluster = Cluster::private_without_crds();
    let namespace = TempNamespace::new(&cluster, "chart-release").await;
    // A pod that breaks the restricted standard would not be made in a namespace that enforces it.
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}});
    Api::<k8s_openapi::api::core::v1::Namespace>::all(namespace.client())
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
