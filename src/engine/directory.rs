//! [`Directory`]: projects and destinations as configured, for readers that must not wait.
//!
//! The watches write, publishing and the lanes read. Maps are updated in place behind a short lock, so one change
//! among thousands costs as little as one among ten, and readers take an `Arc` away. Which destinations an event
//! type goes to is remembered per project and type until a subscription changes.
//!
//! A removed uid never comes back: a reconcile that was under way when its object went cannot resurrect it. An
//! older generation never replaces a newer one.
//!
//! What happens to the queue when a destination goes is the [`DirectoryListener`]'s business.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::RwLock;

use crate::domain::destination::{Destination, Identity, Subscription};
use crate::domain::filter::Filter;
use crate::domain::id::{ObjectKey, Uid};
use crate::domain::policy::dedup::Dedup;
use crate::domain::project::Project;

/// Most remembered matches; when there are more, all are forgotten and computed anew.
const MAX_MATCHES: usize = 4096;
/// Most remembered uids of removed objects: far more than reconciles can be under way at once.
const MAX_REMOVED: usize = 8192;

/// A destination as the directory knows it.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Which object it is.
    pub identity: Identity,
    /// Which events it wants; known even while the rest is faulty.
    pub subscription: Subscription,
    /// Whether its configuration is in force.
    pub state: EntryState,
    /// Token of the newest request to re-enable it.
    pub enable_request: Option<String>,
}

/// Whether a destination's configuration is in force.
#[derive(Clone, Debug)]
pub enum EntryState {
    /// It is.
    Ready(Arc<Destination>),
    /// It has faults or was not looked at yet: events wait.
    NotReady,
}

impl Entry {
    /// The validated destination, while its configuration is in force.
    #[must_use]
    pub const fn ready(&self) -> Option<&Arc<Destination>> {
        match &self.state {
            EntryState::Ready(destination) => Some(destination),
            EntryState::NotReady => None,
        }
    }
}

/// Where the events of a project and type go.
#[derive(Debug, Default)]
pub struct Route {
    /// uids of the destinations, in a stable order.
    pub lanes: Arc<[Uid]>,
    /// The filter of each lane; empty when none has one.
    pub filters: Box<[Option<Arc<Filter>>]>,
    /// Which events are the same for each lane; empty when none asks that.
    pub dedups: Box<[Option<LaneDedup>]>,
}

/// Which events are the same for a lane.
#[derive(Clone, Debug)]
pub struct LaneDedup {
    /// What is asked for.
    pub dedup: Arc<Dedup>,
    /// The destination, which keys may name.
    pub destination: Identity,
}

impl Route {
    /// The route to these destinations.
    fn to<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>) -> Self {
        let (mut lanes, mut filters, mut dedups) = (Vec::new(), Vec::new(), Vec::new());
        for Entry {
            identity,
            subscription,
            ..
        } in entries.map(AsRef::as_ref)
        {
            lanes.push(identity.uid.clone());
            filters.push(subscription.filter.clone());
            dedups.push(subscription.dedup.as_ref().map(|dedup| LaneDedup {
                dedup: Arc::clone(dedup),
                destination: identity.clone(),
            }));
        }
        let has_filter = filters.iter().any(Option::is_some);
        let has_dedup = dedups.iter().any(Option::is_some);
        Self {
            lanes: lanes.into(),
            filters: if has_filter {
                filters.into()
            } else {
                Box::default()
            },
            dedups: if has_dedup { dedups.into() } else { Box::default() },
        }
    }

    /// Whether every event goes to every lane.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.filters.is_empty() && self.dedups.is_empty()
    }
}

/// The kinds that must be known before the directory is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `EventProject`.
    Project,
    /// `EventDestination`.
    Destination,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Project, Self::Destination];

    /// The kind as manifests write it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Project => "EventProject",
            Self::Destination => "EventDestination",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Project => 1,
            Self::Destination => 2,
        }
    }
}

/// Hears of changes, after they are visible in the directory. Must not block.
pub trait DirectoryListener: Send + Sync {
    /// A destination is new or differs; what it is now stands in the directory.
    fn destination_changed(&self, uid: &Uid);

    /// A destination is gone for good. Called once for each.
    fn destination_removed(&self, uid: &Uid);

    /// Every object that existed at start has been looked at: what is not here now is gone. Called once.
    fn synced(&self);
}

/// Projects and destinations as configured.
#[derive(Default)]
pub struct Directory {
    objects: RwLock<Objects>,
    matches: RwLock<Matches>,
    /// Grows whenever a remembered match may be wrong; written under the lock of `objects`.
    version: AtomicU64,
    synced: AtomicU8,
    listener: RwLock<Option<Weak<dyn DirectoryListener>>>,
}

#[derive(Default)]
struct Objects {
    projects: HashMap<ObjectKey, Arc<Project>>,
    /// Projects that exist but were never understood: nothing can be published to them yet.
    unusable: HashMap<ObjectKey, Uid>,
    destinations: HashMap<Uid, Arc<Entry>>,
    /// uids of each namespace's destinations, ordered so that matching is deterministic.
    namespaces: HashMap<Arc<str>, BTreeSet<Uid>>,
    removed: Removed,
}

/// The newest removed uids.
#[derive(Default)]
struct Removed {
    set: HashSet<Uid>,
    order: VecDeque<Uid>,
}

#[derive(Default)]
struct Matches {
    version: u64,
    count: usize,
    by_project: HashMap<ObjectKey, HashMap<Box<str>, Arc<Route>>>,
}

impl Directory {
    /// An empty directory that is not synced.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Who hears of changes from now on. Held weakly, because the listener usually holds the directory.
    pub fn set_listener(&self, listener: Weak<dyn DirectoryListener>) {
        *self.listener.write() = Some(listener);
    }

    /// A project by namespace and name.
    #[must_use]
    pub fn project(&self, key: &ObjectKey) -> Option<Arc<Project>> {
        self.objects.read().projects.get(key).cloned()
    }

    /// The project that a subscription names, or the first of the namespace when it means every one.
    #[must_use]
    pub fn project_of(&self, namespace: &str, subscription: &Subscription) -> Option<Arc<Project>> {
        if let Some(name) = &subscription.project {
            return self.project(&ObjectKey::new(namespace, name));
        }
        let objects = self.objects.read();
        let projects = objects
            .projects
            .iter()
            .filter(|(key, _)| &*key.namespace == namespace);
        projects
            .min_by_key(|(key, _)| key.name.clone())
            .map(|(_, project)| Arc::clone(project))
    }

    /// Whether a project of that name exists that nothing can be published to yet.
    #[must_use]
    pub fn is_unusable(&self, key: &ObjectKey) -> bool {
        let objects = self.objects.read();
        objects.unusable.contains_key(key) && !objects.projects.contains_key(key)
    }

    /// A destination by uid.
    #[must_use]
    pub fn destination(&self, uid: &Uid) -> Option<Arc<Entry>> {
        self.objects.read().destinations.get(uid).cloned()
    }

    /// A destination by namespace and name.
    #[must_use]
    pub fn destination_named(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        let objects = self.objects.read();
        let uids = objects.namespaces.get(&key.namespace).into_iter().flatten();
        uids.filter_map(|uid| objects.destinations.get(uid))
            .find(|entry| entry.identity.key == *key)
            .cloned()
    }

    /// Whether a destination or project was seen to go, lately.
    #[must_use]
    pub fn was_removed(&self, uid: &Uid) -> bool {
        self.objects.read().removed.contains(uid)
    }

    /// uids of all destinations, in no order.
    #[must_use]
    pub fn destinations(&self) -> Vec<Uid> {
        self.objects.read().destinations.keys().cloned().collect()
    }

    /// The destinations of a namespace that name a project, whether or not it exists.
    #[must_use]
    pub fn referring_to(&self, project: &ObjectKey) -> Vec<ObjectKey> {
        let objects = self.objects.read();
        let uids = objects.namespaces.get(&project.namespace).into_iter().flatten();
        uids.filter_map(|uid| objects.destinations.get(uid))
            .filter(|entry| entry.subscription.project.as_deref() == Some(&*project.name))
            .map(|entry| entry.identity.key.clone())
            .collect()
    }

    /// uids of the destinations that want an event type of a project, filters apart, ready or not, in a stable order.
    #[must_use]
    pub fn matching(&self, project: &ObjectKey, event_type: &str) -> Arc<[Uid]> {
        Arc::clone(&self.route(project, event_type).lanes)
    }

    /// Where the events of a project and type go, and what each destination asks of them.
    #[must_use]
    pub fn route(&self, project: &ObjectKey, event_type: &str) -> Arc<Route> {
        if let Some(known) =
            self.matches
                .read()
                .get(self.version.load(Ordering::Acquire), project, event_type)
        {
            return known;
        }
        let (version, found) = {
            let objects = self.objects.read();
            (
                self.version.load(Ordering::Acquire),
                Arc::new(objects.route(project, event_type)),
            )
        };
        self.matches.write().put(version, project, event_type, &found);
        found
    }

    /// Whether every object that existed at start has been looked at.
    #[must_use]
    pub fn synced(&self) -> bool {
        self.unsynced().next().is_none()
    }

    /// The kinds that are not complete yet, for a readiness report.
    pub fn unsynced(&self) -> impl Iterator<Item = Kind> + use<> {
        let bits = self.synced.load(Ordering::Acquire);
        Kind::ALL.into_iter().filter(move |kind| bits & kind.bit() == 0)
    }

    /// Says that every object of a kind that existed at start has been looked at. Stays so.
    pub fn mark_synced(&self, kind: Kind) {
        let before = self.synced.fetch_or(kind.bit(), Ordering::AcqRel);
        let complete = before | kind.bit() == Kind::ALL.into_iter().fold(0, |bits, kind| bits | kind.bit());
        if before & kind.bit() == 0
            && complete
            && let Some(listener) = self.listener()
        {
            listener.synced();
        }
    }

    /// Says that a project exists but cannot be understood, unless its uid was removed. What was known of it stays.
    pub fn put_unusable(&self, key: &ObjectKey, uid: &Uid) {
        let mut objects = self.objects.write();
        if !objects.removed.contains(uid) {
            objects.unusable.insert(key.clone(), uid.clone());
        }
    }

    /// Adds or replaces a project, unless its uid was removed.
    pub fn put_project(&self, project: Project) {
        let mut objects = self.objects.write();
        if !objects.removed.contains(&project.facts.uid) {
            objects.unusable.remove(&project.key);
            objects.projects.insert(project.key.clone(), Arc::new(project));
        }
    }

    /// Removes a project for good, unless its name now belongs to another uid.
    pub fn remove_project(&self, key: &ObjectKey, uid: &Uid) {
        let mut objects = self.objects.write();
        if objects
            .projects
            .get(key)
            .is_some_and(|project| project.facts.uid == *uid)
        {
            objects.projects.remove(key);
        }
        if objects.unusable.get(key) == Some(uid) {
            objects.unusable.remove(key);
        }
        objects.removed.remember(uid);
    }

    /// Adds or replaces a destination, unless its uid was removed or a newer generation is known.
    /// Returns whether it is in the directory now.
    pub fn put_destination(&self, entry: Entry) -> bool {
        let uid = entry.identity.uid.clone();
        {
            let mut objects = self.objects.write();
            if objects.removed.contains(&uid) {
                return false;
            }
            let previous = objects.destinations.get(&uid);
            if previous.is_some_and(|previous| previous.identity.generation > entry.identity.generation) {
                return false;
            }
            let routes_differ = previous.is_none_or(|previous| previous.subscription != entry.subscription);
            objects
                .namespaces
                .entry(entry.identity.key.namespace.clone())
                .or_default()
                .insert(uid.clone());
            objects.destinations.insert(uid.clone(), Arc::new(entry));
            if routes_differ {
                self.version.fetch_add(1, Ordering::AcqRel);
            }
        }
        if let Some(listener) = self.listener() {
            listener.destination_changed(&uid);
        }
        true
    }

    /// Removes a destination for good.
    pub fn remove_destination(&self, uid: &Uid) {
        let known = {
            let mut objects = self.objects.write();
            let known = objects.forget(uid);
            self.version.fetch_add(1, Ordering::AcqRel);
            known
        };
        if known && let Some(listener) = self.listener() {
            listener.destination_removed(uid);
        }
    }

    fn listener(&self) -> Option<Arc<dyn DirectoryListener>> {
        self.listener.read().as_ref().and_then(Weak::upgrade)
    }
}

impl Objects {
    fn route(&self, project: &ObjectKey, event_type: &str) -> Route {
        let uids = self.namespaces.get(&project.namespace).into_iter().flatten();
        let entries = uids.filter_map(|uid| self.destinations.get(uid));
        Route::to(entries.filter(|entry| entry.subscription.matches(&project.name, event_type)))
    }

    /// Returns whether the destination was known.
    fn forget(&mut self, uid: &Uid) -> bool {
        self.removed.remember(uid);
        let Some(entry) = self.destinations.remove(uid) else {
            return false;
        };
        let namespace = &entry.identity.key.namespace;
        if let Some(uids) = self.namespaces.get_mut(namespace) {
            uids.remove(uid);
            if uids.is_empty() {
                self.namespaces.remove(namespace);
            }
        }
        true
    }
}

impl Removed {
    fn contains(&self, uid: &Uid) -> bool {
        self.set.contains(uid)
    }

    fn remember(&mut self, uid: &Uid) {
        if !self.set.insert(uid.clone()) {
            return;
        }
        self.order.push_back(uid.clone());
        if self.order.len() > MAX_REMOVED
            && let Some(oldest) = self.order.pop_front()
        {
            self.set.remove(&oldest);
        }
    }
}

impl Matches {
    fn get(&self, version: u64, project: &ObjectKey, event_type: &str) -> Option<Arc<Route>> {
        if self.version != version {
            return None;
        }
        self.by_project.get(project)?.get(event_type).cloned()
    }

    fn put(&mut self, version: u64, project: &ObjectKey, event_type: &str, found: &Arc<Route>) {
        if version < self.version {
            return;
        }
        if version > self.version || self.count >= MAX_MATCHES {
            *self = Self {
                version,
                ..Self::default()
            };
        }
        let types = self.by_project.entry(project.clone()).or_default();
        if types.insert(event_type.into(), found.clone()).is_none() {
            self.count += 1;
        }
    }
}

mod watchers;

#[cfg(test)]
mod tests;
