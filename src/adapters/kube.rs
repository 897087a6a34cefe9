//! Controllers: watch, dereference, validate, publish to the directory, update status.
//!
//! One watch per kind, one of the Secrets' metadata, and one of the ConfigMaps' when somebody refers to one. An
//! object's way: the watch puts it into the directory (it parks its events from then on) → its Secrets are made or read
//! → `domain` validates → the directory has it in force → `domain` computes the status → it is applied if it differs.
//! Reconciling is the only writer of status; whatever else changes (a Secret, a project, health) only triggers it.
//!
//! What this needs from the API server: `get`, `list`, `watch` of `eventprojects` and `eventdestinations`, `patch` of
//! their `status`; `get`, `list`, `watch`, `create`, `patch` of Secrets; for destinations that refer to one `get`,
//! `list`, `watch` of ConfigMaps; `create`, `patch` of `events.k8s.io` Events; and for projects with notifications
//! `create`, `update`, `delete` of `eventdestinations`.
//! Without it, deliveries go on with what is known.
//!
//! Two log targets deserve a filter: `kube_client` logs whole response bodies at `warn` when they do not decode, and
//! every refused request at `debug`.

pub mod access;
mod children;
mod config_maps;
mod context;
mod dead_letters;
mod depth;
mod destination;
mod error;
mod metrics;
mod notices;
mod observed;
mod ownership;
mod project;
mod references;
mod replays;
mod secrets;
mod signing;
mod status;
mod trigger;
mod watch;

use std::collections::HashSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use kube::api::PartialObjectMeta;
use kube::runtime::controller::{Action, Config, Controller, Error as ControllerError};
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::{Api, Client, Resource};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::context::Shared;
pub use self::context::{Context, Random};
pub use self::depth::client;
use self::destination::DestinationSink;
use self::error::Error as ReconcileError;
pub use self::metrics::KubeMetrics;
use self::observed::{Observed, Watched};
use self::project::{Initial, ProjectSink};
pub use self::project::{TOKEN_KEY, token_secret_name};
use crate::adapters::installation::{Changes, LOOK_AGAIN};
use crate::api::v1alpha1::{EventDestination, EventProject};
use crate::domain::destination::Holder;

/// Counters of one object's status are written at most once per interval.
pub const COUNTER_INTERVAL: Duration = Duration::from_secs(30);
/// Reconciles of one kind at the same time.
const CONCURRENCY: u16 = 16;
/// Last statuses written at the same time when the process stops.
const LAST_WRITES: usize = 16;

/// Why the controllers ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part of them ended unasked.
    #[error("the {0} ended unasked")]
    Ended(&'static str),
    /// A part of them panicked.
    #[error("a controller panicked")]
    Panicked(#[source] tokio::task::JoinError),
}

/// Randomness of the operating system's quality.
#[must_use]
pub fn system_random() -> Random {
    Arc::new(|bytes| rand::fill(bytes))
}

/// Fills the directory and writes statuses until `shutdown`; then writes the last numbers and returns.
///
/// # Errors
/// When a part ends unasked. A missing API server or missing CRDs are waited for, without an end.
pub async fn run(client: Client, context: Context, shutdown: CancellationToken) -> Result<(), Error> {
    let (notices, writer) = notices::notices(
        client.clone(),
        context.instance.clone(),
        Arc::clone(&context.clock),
        context.metrics.clone(),
    );
    let namespace = context.namespace.clone();
    let shared = Arc::new(Shared::new(client.clone(), context, notices));
    let (projects, project_writer) = store::<Observed<EventProject>>();
    let (destinations, destination_writer) = store::<Observed<EventDestination>>();
    let initial = Arc::<Initial>::default();
    let mut tasks = JoinSet::new();

    let sink = Arc::new(ProjectSink {
        shared: Arc::clone(&shared),
        initial: Arc::clone(&initial),
    });
    let followed = watch::follow(
        api(&client, namespace.as_deref()),
        project_writer,
        sink,
        Arc::clone(&shared),
    );
    let triggers = futures::stream::select(followed, trigger::stream(&shared.project_triggers));
    let children = destinations.clone();
    let work =
        move |object, shared| project::reconcile(object, shared, Arc::clone(&initial), children.clone());
    let task = control(
        projects.clone(),
        triggers,
        work,
        Arc::clone(&shared),
        shutdown.clone(),
    );
    tasks.spawn(named("project controller", task));

    let sink = Arc::new(DestinationSink {
        shared: Arc::clone(&shared),
    });
    let followed = watch::follow(
        api(&client, namespace.as_deref()),
        destination_writer,
        sink,
        Arc::clone(&shared),
    );
    let triggers = futures::stream::select(followed, trigger::stream(&shared.destination_triggers));
    let known = projects.clone();
    let work = move |object, shared| destination::reconcile(object, shared, known.clone());
    let task = control(
        destinations.clone(),
        triggers,
        work,
        Arc::clone(&shared),
        shutdown.clone(),
    );
    tasks.spawn(named("destination controller", task));

    let secrets: Api<PartialObjectMeta<k8s_openapi::api::core::v1::Secret>> =
        api(&client, namespace.as_deref());
    let follow = watch::follow_values(secrets, Holder::Secret, Arc::clone(&shared), shutdown.clone());
    tasks.spawn(named("watch of Secrets", follow));
    let follow = watch::follow_config_maps(
        api(&client, namespace.as_deref()),
        Arc::clone(&shared),
        shutdown.clone(),
    );
    tasks.spawn(named("watch of ConfigMaps", follow));
    tasks.spawn(named("writer of Kubernetes Events", writer.run(shutdown.clone())));
    let follow = follow_installation(Arc::clone(&shared), destinations.clone(), shutdown.clone());
    tasks.spawn(named("watch of the installation's settings", follow));
    let follow = follow_deliveries(
        Arc::clone(&shared),
        projects,
        destinations.clone(),
        shutdown.clone(),
    );
    tasks.spawn(named("watch of deliveries", follow));

    while let Some(ended) = tasks.join_next().await {
        let name = ended.map_err(Error::Panicked)?;
        if !shutdown.is_cancelled() {
            return Err(Error::Ended(name));
        }
    }
    let moved = destinations
        .state()
        .into_iter()
        .filter(|object| destination::has_moved(object, &shared));
    let last = futures::stream::iter(moved);
    last.for_each_concurrent(LAST_WRITES, async |object| {
        destination::write_last(&object, &shared).await;
    })
    .await;
    Ok(())
}

async fn named(name: &'static str, work: impl Future<Output = ()>) -> &'static str {
    work.await;
    name
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Reconciles what a stream names, until `shutdown`.
async fn control<K, F>(
    reader: Store<Observed<K>>,
    triggers: impl Stream<Item = ObjectRef<Observed<K>>> + Send + 'static,
    work: impl Fn(Arc<Observed<K>>, Arc<Shared>) -> F + Send + 'static,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) where
    K: Watched + Clone + Debug,
    F: Future<Output = Result<Action, ReconcileError>> + Send + 'static,
{
    let after_error = |object: Arc<Observed<K>>, error: &ReconcileError, shared: Arc<Shared>| {
        project::after_error(&object, error, &shared)
    };
    // Every trigger, the watch's too, comes by `reconcile_on`: the watch has its own order of things to keep.
    let results = Controller::for_stream(futures::stream::pending(), reader)
        .reconcile_on(triggers)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .graceful_shutdown_on(async move { shutdown.cancelled().await })
        .run(work, after_error, shared);
    results
        .for_each(async |result| match result {
            Ok(_)
            | Err(
                ControllerError::ObjectNotFound(_)
                | ControllerError::ReconcilerFailed(ReconcileError::NamespaceEnding, _),
            ) => {}
            Err(ControllerError::ReconcilerFailed(error, object)) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string);
                tracing::warn!(
                    kind = K::KIND.as_str(),
                    object.name = object.name,
                    object.namespace = object.namespace,
                    reason = error.reason(),
                    %error,
                    cause,
                    "reconcile failed; will try again"
                );
            }
            Err(error) => tracing::error!(kind = K::KIND.as_str(), %error, "controller failed"),
        })
        .await;
}

/// Follows the files that describe the installation's SMTP server, and those with the login for its proxy.
async fn follow_installation(
    shared: Arc<Shared>,
    destinations: Store<Observed<EventDestination>>,
    shutdown: CancellationToken,
) {
    loop {
        let wait = async {
            if shared.context.installation.is_watched() {
                tokio::time::sleep(LOOK_AGAIN).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = wait => {}
            () = shutdown.cancelled() => return,
        }
        let installation = Arc::clone(&shared.context.installation);
        let read = tokio::task::spawn_blocking(move || installation.refresh());
        let changes: Changes = read.await.unwrap_or_default();
        if changes.any() {
            tracing::info!(
                smtp = changes.smtp,
                proxy = changes.proxy,
                "the installation's settings have changed"
            );
            for object in destinations.state() {
                destination::installation_changed(&object, changes, &shared);
            }
        }
    }
}

/// Follows health and counters: a transition triggers a reconcile at once, other numbers, and a store that was
/// repaired, at most once per interval.
async fn follow_deliveries(
    shared: Arc<Shared>,
    projects: Store<Observed<EventProject>>,
    destinations: Store<Observed<EventDestination>>,
    shutdown: CancellationToken,
) {
    let mut sweep = tokio::time::interval(shared.context.counter_interval.max(Duration::from_millis(100)));
    sweep.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut repaired = None;
    loop {
        tokio::select! {
            changed = shared.context.view.changes().next() => {
                for uid in changed {
                    if let Some(entry) = shared.directory().destination(&uid) {
                        shared.destination_triggers.push(entry.identity.key.clone());
                    }
                }
            }
            _ = sweep.tick() => {
                for object in destinations.state() {
                    if destination::has_moved(&object, &shared) && let Some(key) = object.key() {
                        shared.destination_triggers.push(key);
                    }
                }
                forget_the_gone(&shared, &projects, &destinations);
            }
            () = shutdown.cancelled() => return,
        }
        // The store may also be opened, and mended, while this runs.
        let now = shared.context.view.store_repaired();
        if now != repaired {
            repaired = now;
            for key in projects.state().iter().filter_map(|object| object.key()) {
                shared.project_triggers.push(key);
            }
        }
    }
}

/// A reconcile that was under way when its object went may have left something behind.
fn forget_the_gone(
    shared: &Shared,
    projects: &Store<Observed<EventProject>>,
    destinations: &Store<Observed<EventDestination>>,
) {
    let (projects, destinations) = (projects.state(), destinations.state());
    let uids = projects.iter().filter_map(|object| object.uid());
    let living: HashSet<_> = uids
        .chain(destinations.iter().filter_map(|object| object.uid()))
        .collect();
    shared.forget_others(|uid| living.contains(uid));
    let keys_of_projects: HashSet<_> = projects.iter().filter_map(|object| object.key()).collect();
    shared
        .children
        .retain(|uid| living.contains(uid), |key| keys_of_projects.contains(key));
    let keys = |kind, key| references::Referrer { kind, key };
    let projects = projects
        .iter()
        .filter_map(|object| Some(keys(EventProject::KIND, object.key()?)));
    let destinations = destinations
        .iter()
        .filter_map(|object| Some(keys(EventDestination::KIND, object.key()?)));
    let living: HashSet<_> = projects.chain(destinations).collect();
    shared.references.retain(|referrer| living.contains(referrer));
}
