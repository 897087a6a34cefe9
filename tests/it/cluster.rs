//! The harness itself: a control plane that starts, does what production does, and can be killed.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};

use crate::support::{Cluster, TempNamespace, eventually};

const SOON: Duration = Duration::from_secs(30);

fn config_map(name: &str, owner: Option<&ConfigMap>) -> ConfigMap {
    let owner_references = owner.map(|owner| {
        vec![OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ConfigMap".to_owned(),
            name: owner.metadata.name.clone().unwrap(),
            uid: owner.metadata.uid.clone().unwrap(),
            ..OwnerReference::default()
        }]
    });
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            owner_references,
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([("key".to_owned(), "value".to_owned())])),
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn an_owned_object_goes_with_its_owner() {
    let namespace = TempNamespace::new(Cluster::shared(), "cluster-gc").await;
    let maps = namespace.api::<ConfigMap>();
    let owner = maps
        .create(&PostParams::default(), &config_map("owner", None))
        .await
        .unwrap();
    maps.create(&PostParams::default(), &config_map("child", Some(&owner)))
        .await
        .unwrap();
    maps.delete("owner", &DeleteParams::default()).await.unwrap();
    eventually("the child is collected", SOON, async || {
        match maps.get_opt("child").await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_namespace_goes_when_its_test_is_done() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "cluster-ns").await;
    let name = namespace.name().to_owned();
    drop(namespace);
    let namespaces = Api::<Namespace>::all(cluster.client().await);
    eventually("the namespace is gone", SOON, async || {
        match namespaces.get_opt(&name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn kubectl_and_helm_speak_to_the_same_cluster() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "cluster-tools").await;
    let manifest = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "made-by-kubectl"}}"#;
    cluster
        .kubectl_with(&["apply", "-n", namespace.name()], manifest)
        .ok();
    assert!(
        namespace
            .api::<ConfigMap>()
            .get_opt("made-by-kubectl")
            .await
            .unwrap()
            .is_some()
    );
    let missing = cluster
        .kubectl(&["get", "configmap", "nobody", "-n", namespace.name()])
        .refused();
    assert!(missing.contains("NotFound"), "{missing}");
    assert_eq!(cluster.helm(&["list", "-q", "-n", namespace.name()]).ok(), "");
}

#[tokio::test]
async fn a_private_control_plane_survives_the_kill_of_its_api_server() {
    let cluster = Cluster::private();
    let namespace = TempNamespace::new(&cluster, "cluster-kill").await;
    let maps = namespace.api::<ConfigMap>();
    maps.create(&PostParams::default(), &config_map("kept", None))
        .await
        .unwrap();
    cluster.stop("kube-apiserver");
    assert!(maps.get_opt("kept").await.is_err());
    cluster.start_again("kube-apiserver");
    eventually("the object is still there", SOON, async || maps.get("kept").await).await;
}

#[test]
fn a_control_plane_leaves_nothing_behind() {
    let cluster = Cluster::private_without_crds();
    let folder = cluster.folder().to_owned();
    assert!(folder.join("kubeconfig").exists());
    let server = cluster.server().strip_prefix("https://").unwrap().to_owned();
    std::net::TcpStream::connect(&server).expect("the API server listens");
    drop(cluster);
    assert!(!folder.exists(), "{} is left", folder.display());
    std::net::TcpStream::connect(&server).expect_err("the API server is gone");
}

#[tokio::test]
async fn waiting_ends_with_the_last_answer() {
    let waiting = tokio::spawn(async {
        eventually("the impossible", Duration::from_millis(50), async || {
            Err::<(), _>("still not")
        })
        .await;
    });
    let panic = waiting.await.expect_err("it panics").into_panic();
    let message = panic.downcast_ref::<String>().unwrap();
    assert!(
        message.contains("tests/it/cluster.rs") && message.contains("still not"),
        "{message}"
    );
}
