//! What the chart renders: each set of values makes manifests that the API server accepts, a wrong value is refused.

use super::{CHART, rendered};
use crate::support::{Cluster, TempNamespace, repository_file};

/// Values that turn on what the defaults leave out.
const EVERYTHING: &str = r#"{
    "image": {"repository": "registry.example/postrider", "digest": "sha256:0000000000000000000000000000000000000000000000000000000000000000"},
    "imagePullSecrets": ["registry"],
    "publicURL": "https://events.acme.example",
    "egress": {"allow": ["10.96.0.0/12", "fd00:10:96::/112"], "proxies": ["10.1.0.0/16"], "proxy": {"url": "http://proxy.example:3128", "secretName": "proxy"}},
    "smtp": {"secretName": "smtp"},
    "limits": {"maxBodyBytes": 2097152, "queueMaxBytes": 107374182400, "retentionBytes": 0, "deduplicationIds": 20000000, "deliveryLogRetention": "24h", "deliveryLogMaxBytes": 1073741824},
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
    assert!(!generated.is_empty(), "crds/ is empty");
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
fn the_operator_is_labelled_for_the_plugin_whatever_it_is_called() {
    let cluster = Cluster::shared();
    let label = |text: &str| text.matches("postrider.dev/component: operator\n").count();
    for values in ["crds.enabled=true", "nameOverride=courier", "watchNamespace=acme"] {
        let render = |file: &str| rendered(cluster, "chart-label", &["-s", file, "--set", values]);
        let binding = render("templates/rbac.yaml");
        let binding = binding
            .split("\n---\n")
            .find(|text| text.contains("kind: ClusterRoleBinding\n"));
        let statefulset = render("templates/statefulset.yaml");
        let (_, pods) = statefulset.split_once("  template:\n").unwrap();
        assert_eq!((label(binding.unwrap()), label(pods)), (1, 1), "{values}");
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
        ("egress.proxy.secretName=proxy", "egress.proxy.url is needed"),
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
