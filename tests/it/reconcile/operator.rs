//! The controllers in this process, against a real API server, with deliveries played by the test.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use parking_lot::Mutex;
use postrider::adapters::kube::{self as controllers, Context, KubeMetrics};
use postrider::domain::destination::{Destination, Identity};
use postrider::domain::egress::EgressPolicy;
use postrider::domain::id::Uid;
use postrider::domain::replay_request::ReplayRequest;
use postrider::domain::secret::Secret;
use postrider::domain::test_send::{TestRequest, TestResult};
use postrider::engine::clock::SystemClock;
use postrider::engine::directory::{Directory, Entry};
use postrider::engine::prover::{self, Asking, Prover};
use postrider::engine::replayer::{Replayer, Stand};
use postrider::engine::tester::Tester;
use postrider::engine::view::{Changes, DeliveryView, LaneView};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::{Cluster, CommandOutput, TempNamespace, eventually};

/// The bound for everything that must show.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// Deliveries as the test says they are.
#[derive(Default)]
pub(crate) struct Played {
    views: Mutex<HashMap<Uid, LaneView>>,
    changes: Changes,
    pub(crate) repaired: Mutex<Option<String>>,
}

impl DeliveryView for Played {
    fn view(&self, uid: &Uid) -> Option<LaneView> {
        Some(self.views.lock().get(uid).cloned().unwrap_or_default())
    }

    fn changes(&self) -> &Changes {
        &self.changes
    }

    fn store_repaired(&self) -> Option<String> {
        self.repaired.lock().clone()
    }
}

impl Replayer for Played {
    fn announce(&self, _: &Uid, _: &ReplayRequest) {}

    fn start(&self, _: &Uid, _: &str) {}

    fn stand(&self, _: &Uid, _: &str) -> Stand {
        Stand::Unknown
    }
}

impl Tester for Played {
    fn test(&self, _: &Arc<Destination>, _: &TestRequest) -> Option<TestResult> {
        None
    }
}

/// Receivers are not asked here.
impl Prover for Played {
    fn prove(&self, _: &Identity, _: &str, _: &mut dyn FnMut() -> Asking) -> prover::Stand {
        prover::Stand::Asking(None)
    }
}

impl Played {
    /// Changes a destination's deliveries; `told`: as a transition of health, which the engine announces.
    pub(crate) fn play(&self, uid: &Uid, told: bool, change: impl FnOnce(&mut LaneView)) {
        change(self.views.lock().entry(uid.clone()).or_default());
        if told {
            self.changes.push(uid.clone());
        }
    }
}

/// Running controllers of one namespace; stopped on drop.
pub(crate) struct Operator {
    pub(crate) directory: Arc<Directory>,
    pub(crate) played: Arc<Played>,
    pub(crate) metrics: KubeMetrics,
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), controllers::Error>>,
}

impl Operator {
    pub(crate) fn start(namespace: &TempNamespace) -> Self {
        Self::start_with(
            namespace.client(),
            Some(namespace.name()),
            Duration::from_secs(30),
        )
    }

    pub(crate) fn start_with(
        client: kube::Client,
        namespace: Option<&str>,
        counter_interval: Duration,
    ) -> Self {
        let directory = Arc::new(Directory::new());
        let played = Arc::new(Played::default());
        let metrics = KubeMetrics::default();
        let shutdown = CancellationToken::new();
        let context = Context {
            directory: Arc::clone(&directory),
            view: Arc::clone(&played) as Arc<dyn DeliveryView>,
            tester: Arc::clone(&played) as Arc<dyn Tester>,
            prover: Arc::clone(&played) as Arc<dyn Prover>,
            seal: Secret::new([7; 32]),
            replayer: Arc::clone(&played) as Arc<dyn Replayer>,
            public_url: url::Url::parse("https://events.example/").unwrap(),
            clock: Arc::new(SystemClock),
            random: controllers::system_random(),
            egress: EgressPolicy::default(),
            installation: Arc::default(),
            metrics: metrics.clone(),
            namespace: namespace.map(ToOwned::to_owned),
            counter_interval,
            instance: Some("test".to_owned()),
        };
        let task = tokio::spawn(controllers::run(client, context, shutdown.clone()));
        Self {
            directory,
            played,
            metrics,
            shutdown,
            task,
        }
    }

    /// Waits until everything that existed at start was looked at.
    pub(crate) async fn synced(self) -> Self {
        eventually("the directory is synced", Duration::from_secs(20), async || {
            if self.directory.synced() {
                Ok(())
            } else {
                Err(format!("{:?}", self.directory.unsynced().collect::<Vec<_>>()))
            }
        })
        .await;
        self
    }

    /// What the operator counts, as Prometheus reads it.
    pub(crate) fn metrics_text(&self) -> String {
        let mut registry = Registry::default();
        self.metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    pub(crate) fn entry(&self, uid: &str) -> Option<Arc<Entry>> {
        self.directory.destination(&Uid::new(uid))
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), &mut self.task).await;
        ended
            .expect("the controllers stop")
            .expect("no panic")
            .expect("no error");
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.shutdown.cancel();
        self.task.abort();
    }
}

/// A namespace with what tests do in it.
pub(crate) struct Playground {
    pub(crate) cluster: &'static Cluster,
    pub(crate) namespace: TempNamespace,
}

impl Playground {
    pub(crate) async fn new(prefix: &str) -> Self {
        let cluster = Cluster::shared();
        Self {
            cluster,
            namespace: TempNamespace::new(cluster, prefix).await,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.namespace.name()
    }

    /// `kubectl apply` of YAML documents into the namespace.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) {
        self.cluster
            .kubectl_with(&["apply", "-n", self.name()], yaml)
            .ok();
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> CommandOutput {
        let mut all = vec!["-n", self.name()];
        all.extend(args);
        self.cluster.kubectl(&all)
    }

    /// An object as JSON; null when there is none. `kind` is a plural with its group.
    pub(crate) async fn get(&self, path: &str, name: &str) -> Value {
        let uri = format!("{path}/namespaces/{}/{name}", self.name());
        let request = http::Request::get(uri).body(Vec::new()).unwrap();
        match self.namespace.client().request::<Value>(request).await {
            Ok(value) => value,
            Err(kube::Error::Api(status)) if status.is_not_found() => Value::Null,
            Err(error) => panic!("{name}: {error}"),
        }
    }

    pub(crate) async fn destination(&self, name: &str) -> Value {
        self.get(
            "/apis/postrider.dev/v1alpha1",
            &format!("eventdestinations/{name}"),
        )
        .await
    }

    pub(crate) async fn project(&self, name: &str) -> Value {
        self.get("/apis/postrider.dev/v1alpha1", &format!("eventprojects/{name}"))
            .await
    }

    pub(crate) async fn secret(&self, name: &str) -> Value {
        self.get("/api/v1", &format!("secrets/{name}")).await
    }

    /// Sets a key of a Secret, made if need be.
    pub(crate) async fn put_secret(&self, name: &str, key: &str, value: &str) {
        let secrets = self.namespace.api::<k8s_openapi::api::core::v1::Secret>();
        let secret = serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {key: value},
        });
        secrets
            .patch(name, &PatchParams::apply("test").force(), &Patch::Apply(secret))
            .await
            .unwrap();
    }

    /// Waits until a destination's JSON satisfies a test.
    #[track_caller]
    pub(crate) fn await_destination<'a>(
        &'a self,
        name: &'a str,
        what: &'a str,
        right: impl Fn(&Value) -> bool + 'a,
    ) -> impl Future<Output = Value> + 'a {
        let (what, name) = (what.to_owned(), name.to_owned());
        async move {
            let probe = || async {
                let object = self.destination(&name).await;
                if right(&object) {
                    Ok(object)
                } else {
                    Err(format!("{:#}", object["status"]))
                }
            };
            eventually(&what, SOON, probe).await
        }
    }
}

/// A condition of an object's JSON; null when it is not there.
pub(crate) fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object["status"]["conditions"].as_array();
    conditions
        .and_then(|all| all.iter().find(|one| one["type"] == kind))
        .cloned()
        .unwrap_or_default()
}

/// `True`, `False`, `Unknown`, or nothing.
pub(crate) fn truth(object: &Value, kind: &str) -> String {
    condition(object, kind)["status"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

pub(crate) fn ready(object: &Value) -> bool {
    truth(object, "Ready") == "True"
        && object["status"]["observedGeneration"] == object["metadata"]["generation"]
}

pub(crate) fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap().to_owned()
}
