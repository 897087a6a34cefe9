//! Watches: every change of an object is in the directory before anybody reconciles it.
//!
//! A new object, or a new generation of one, becomes an entry that parks its events at once: there is no moment in
//! which an event misses its destination or goes out with an old configuration. Removed objects leave the directory
//! here, too, because no controller calls anybody for an object that is gone; a relist compares the living.
//! A change that reconciling cannot care about (our own status writes) ends here.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::{ObjectRef, store::Writer};
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::context::Shared;
use super::observed::{Observed, Watched};
use super::references::{Referrer, Seen};
use super::trigger::object_ref;
use crate::domain::destination::Holder;
use crate::domain::id::{ObjectKey, Uid};
use crate::engine::directory::Kind;

/// A watch that was well for longer than this begins with the shortest wait again.
const WELL: Duration = Duration::from_secs(15);

/// Waits between tries of a watch: doubled from 100 ms to 5 s. A lost API server costs little, and is missed soon.
#[derive(Debug, Default)]
struct Patience {
    tries: u32,
    last: Option<Instant>,
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.last.is_none_or(|last| now.duration_since(last) > WELL) {
            self.tries = 0;
        }
        self.last = Some(now);
        let wait = Duration::from_millis(100 << self.tries.min(6)).min(Duration::from_secs(5));
        self.tries = self.tries.saturating_add(1);
        Some(wait)
    }
}

impl Backoff for Patience {
    /// Does nothing: the beginning of a list counts as a success before it has failed.
    fn reset(&mut self) {}
}

/// Takes note of what a watch says.
pub(super) trait Sink<K: Watched>: Send + Sync {
    /// An object is there; it may be unchanged.
    fn seen(&self, key: &ObjectKey, uid: &Uid, object: &Observed<K>);

    /// An object is gone.
    fn gone(&self, key: &ObjectKey, uid: &Uid);

    /// Every object there is has been seen, and of every other it was said that it is gone.
    fn listed(&self, uids: HashSet<Uid>);
}

/// Follows every object of a kind; yields those to reconcile.
pub(super) fn follow<K>(
    api: Api<Observed<K>>,
    writer: Writer<Observed<K>>,
    sink: Arc<dyn Sink<K>>,
    shared: Arc<Shared>,
) -> impl Stream<Item = ObjectRef<Observed<K>>>
where
    K: Watched + Clone + std::fmt::Debug,
{
    let mut intake = Intake {
        sink,
        shared,
        known: HashMap::new(),
        pending: Vec::new(),
        listed: HashSet::new(),
        complaint: Complaint::default(),
    };
    watcher(api, watcher::Config::default())
        .backoff(Patience::default())
        .reflect(writer)
        .flat_map(move |event| futures::stream::iter(intake.take(event)))
}

struct Intake<K: Watched> {
    sink: Arc<dyn Sink<K>>,
    shared: Arc<Shared>,
    /// What reconciling cares about, of each object.
    known: HashMap<Uid, (ObjectKey, u64)>,
    /// To reconcile once the list is complete: before, the store does not have them.
    pending: Vec<ObjectRef<Observed<K>>>,
    listed: HashSet<Uid>,
    complaint: Complaint,
}

impl<K: Watched> Intake<K> {
    fn take(&mut self, event: Result<Event<Observed<K>>, watcher::Error>) -> Vec<ObjectRef<Observed<K>>> {
        self.complaint.settle(K::KIND.as_str(), &event);
        match event {
            Ok(Event::Apply(object)) => self.apply(&object).into_iter().collect(),
            Ok(Event::Init) => {
                self.listed.clear();
                self.pending.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                self.listed.extend(object.uid());
                let changed = self.apply(&object);
                self.pending.extend(changed);
                Vec::new()
            }
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut self.listed);
                self.known.retain(|uid, (key, _)| {
                    let lives = listed.contains(uid);
                    if !lives {
                        self.sink.gone(key, uid);
                    }
                    lives
                });
                self.sink.listed(listed);
                std::mem::take(&mut self.pending)
            }
            Ok(Event::Delete(object)) => {
                if let (Some(key), Some(uid)) = (object.key(), object.uid()) {
                    self.known.remove(&uid);
                    self.sink.gone(&key, &uid);
                }
                Vec::new()
            }
            Err(error) => {
                self.shared.context.metrics.watch_failed(K::KIND.as_str());
                self.complaint.make(K::KIND.as_str(), &error);
                Vec::new()
            }
        }
    }

    fn apply(&mut self, object: &Observed<K>) -> Option<ObjectRef<Observed<K>>> {
        let (key, uid) = (object.key()?, object.uid()?);
        self.sink.seen(&key, &uid, object);
        let mut hasher = DefaultHasher::new();
        object.generation().hash(&mut hasher);
        object.is_ending().hash(&mut hasher);
        object.enable_request().hash(&mut hasher);
        object.test_request().hash(&mut hasher);
        object.rotate_request().hash(&mut hasher);
        object.replay_request().hash(&mut hasher);
        object.reconcile_requests().hash(&mut hasher);
        let print = hasher.finish();
        let trigger = object_ref(&key);
        let before = self.known.insert(uid, (key, print));
        before
            .is_none_or(|(_, before)| before != print)
            .then_some(trigger)
    }
}

/// The last failure of a watch that was logged: an outage is one line, not one for each try.
#[derive(Default)]
struct Complaint(Option<String>);

impl Complaint {
    fn make(&mut self, kind: &'static str, error: &watcher::Error) {
        let text = brief(error);
        if self.0.as_ref() == Some(&text) {
            tracing::debug!(kind, error = text, "watch failed again");
        } else {
            tracing::warn!(kind, error = text, "watch failed; will try again until it works");
            self.0 = Some(text);
        }
    }

    /// `Init` says only that a list is about to be tried.
    fn settle<T>(&mut self, kind: &'static str, event: &Result<Event<T>, watcher::Error>) {
        if !matches!(event, Ok(Event::Init) | Err(_)) && self.0.take().is_some() {
            tracing::info!(kind, "watch works again");
        }
    }
}

/// kube's errors repeat their causes in their own text, and may hold a whole response: one line, cut.
fn brief(error: &watcher::Error) -> String {
    let mut text = error.to_string().replace('\n', " ");
    if let Some((end, _)) = text.char_indices().nth(300) {
        text.truncate(end);
    }
    text
}

/// Follows the metadata of every ConfigMap, from the moment on in which somebody refers to one.
pub(super) async fn follow_config_maps(
    api: Api<PartialObjectMeta<ConfigMap>>,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) {
    tokio::select! {
        () = shared.references.config_maps_wanted() => {}
        () = shutdown.cancelled() => return,
    }
    follow_values(api, Holder::ConfigMap, shared, shutdown).await;
}

/// Follows the metadata of every Secret or ConfigMap; nothing of it is kept.
pub(super) async fn follow_values<K>(
    api: Api<PartialObjectMeta<K>>,
    holder: Holder,
    shared: Arc<Shared>,
    shutdown: CancellationToken,
) where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + Send + 'static,
{
    let events = watcher(api, watcher::Config::default()).backoff(Patience::default());
    let mut events = std::pin::pin!(events);
    let mut complaint = Complaint::default();
    loop {
        let event = tokio::select! {
            event = events.next() => event,
            () = shutdown.cancelled() => None,
        };
        let Some(event) = event else { return };
        complaint.settle(holder.as_str(), &event);
        let stale = match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                let version = Seen::of(object.metadata.resource_version.as_deref());
                key_of(&object.metadata)
                    .map(|key| shared.references.changed(holder, &key, &version))
                    .unwrap_or_default()
            }
            Ok(Event::Delete(object)) => key_of(&object.metadata)
                .map(|key| shared.references.changed(holder, &key, &Seen::Missing))
                .unwrap_or_default(),
            Ok(Event::Init) => {
                shared.references.relist(holder);
                Vec::new()
            }
            Ok(Event::InitDone) => shared.references.relisted(holder),
            Err(error) => {
                shared.context.metrics.watch_failed(holder.as_str());
                complaint.make(holder.as_str(), &error);
                Vec::new()
            }
        };
        for Referrer { kind, key } in stale {
            shared.trigger(kind, key);
        }
    }
}

fn key_of(metadata: &ObjectMeta) -> Option<ObjectKey> {
    Some(ObjectKey::new(
        metadata.namespace.as_deref()?,
        metadata.name.as_deref()?,
    ))
}

/// Triggers the destinations that name a project.
pub(super) fn wake_referring(shared: &Shared, project: &ObjectKey) {
    for key in shared.directory().referring_to(project) {
        shared.trigger(Kind::Destination, key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_in_a_row_is_tried_less_often_though_each_list_begins_well() {
        let mut patience = Patience::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            let wait = patience.next().unwrap();
            tokio::time::advance(wait).await;
            patience.reset();
            waits.push(wait.as_millis());
        }
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        tokio::time::advance(WELL * 2).await;
        assert_eq!(patience.next(), Some(Duration::from_millis(100)));
    }
}
