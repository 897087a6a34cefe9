//! A namespace for one test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock, PoisonError};

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};

use super::Cluster;

/// A namespace that nobody else uses; deleted in the background when dropped.
pub(crate) struct TempNamespace {
    name: String,
    client: kube::Client,
    config: kube::Config,
}

impl TempNamespace {
    /// Makes `PREFIX-N` in the control plane; the prefix says whose test it is.
    pub(crate) async fn new(cluster: &Cluster, prefix: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("{prefix}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let config = cluster.config().await;
        let client = kube::Client::try_from(config.clone()).expect("the harness's settings are complete");
        let namespace = Namespace {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap_or_else(|error| panic!("namespace {name}: {error}"));
        Self { name, client, config }
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A client of this test's runtime with all rights.
    pub(crate) fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// The objects of a kind in this namespace.
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }
}

impl Drop for TempNamespace {
    fn drop(&mut self) {
        // The test's runtime may be ending, so another one deletes. Nobody waits for it: the control plane's end
        // removes everything anyway, this only keeps the objects of finished tests from those that still run.
        static REAPER: OnceLock<Mutex<Sender<(kube::Config, String)>>> = OnceLock::new();
        let reaper = REAPER.get_or_init(|| {
            let (sender, names) = channel::<(kube::Config, String)>();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.expect("a runtime for deletions");
                for (config, name) in names {
                    runtime.block_on(delete(config, &name));
                }
            });
            Mutex::new(sender)
        });
        let message = (self.config.clone(), std::mem::take(&mut self.name));
        drop(
            reaper
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .send(message),
        );
    }
}

async fn delete(config: kube::Config, name: &str) {
    // A private control plane may already be gone.
    let Ok(client) = kube::Client::try_from(config) else {
        return;
    };
    let namespaces = Api::<Namespace>::all(client);
    drop(namespaces.delete(name, &DeleteParams::background()).await);
}
