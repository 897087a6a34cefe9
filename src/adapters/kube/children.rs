//! The `EventDestination`s that a project's `spec.notifications` stands for: makes, mends and removes them.
//!
//! A child is controlled by its project: an owner reference with the project's uid, so that it goes with it. An object
//! of the same name that is not ours is a fault and is never touched. New children are made before old ones are
//! removed, and while the notifications are faulty nothing is changed. A child that somebody edited is put back, and
//! an Event says so; what people may set on it are labels and annotations, among them `postrider.dev/suspend`.
//!
//! What is there is read from the watch, so that a project whose children are right costs no request. The watch may
//! lag behind: before a write the object is read, and written only as it was read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference};
use kube::api::{DeleteParams, DynamicObject, ObjectMeta, PostParams, Preconditions};
use kube::core::ApiResource;
use kube::runtime::reflector::Store;
use kube::{Api, Resource as _, ResourceExt as _};
use parking_lot::Mutex;
use serde::Deserialize as _;
use tokio::time::timeout;

use super::context::Shared;
use super::error::Error;
use super::observed::Observed;
use super::trigger::object_ref;
use crate::api::conditions::RECONCILING;
use crate::api::v1alpha1::{
    EventDestination, EventDestinationSpec, EventProject, EventProjectSpec, EventProjectStatus,
};
use crate::api::{FIELD_MANAGER, NOTIFICATION_LABEL, SUSPEND_ANNOTATION};
use crate::domain::fault::Faults;
use crate::domain::id::{ObjectKey, Uid};
use crate::domain::notifications::{Child, expand};
use crate::domain::status::Notice;
use crate::engine::directory::Kind;

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Reason of the Event about a child that was put back.
const PUT_BACK: &str = "PutBack";
/// Where faults of the notifications are.
pub(super) const PATH: &str = "spec.notifications";
/// Children of one project that are written at the same time.
const CONCURRENCY: usize = 8;
/// Tries to write a child that somebody else writes, too.
const TRIES: usize = 3;
/// Longest wait for the list of destinations after a start.
const PATIENCE: Duration = Duration::from_secs(5);

/// How a project's children are.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// Names of those that are there, sorted.
    pub(super) names: Vec<String>,
    pub(super) faults: Faults,
    /// Something is in the way and will go by itself.
    pub(super) waiting: Option<String>,
    /// The first request that failed. No further child was made then, and those that are wanted no more were removed.
    pub(super) error: Option<Error>,
}

impl Children {
    /// As they are known to be; nothing was done about them.
    pub(super) fn unchanged(names: Vec<String>) -> Self {
        Self {
            names,
            ..Self::default()
        }
    }
}

/// What was last seen of each child, to notice what matters to its project. Bounded by the destinations there are.
#[derive(Default)]
pub(super) struct Seen(Mutex<Known>);

#[derive(Default)]
struct Known {
    children: HashMap<Uid, (ObjectKey, Mark)>,
    /// Names that a project would like to use, with the project.
    taken: HashMap<ObjectKey, ObjectKey>,
}

/// What a project cares about.
#[derive(Clone, PartialEq, Eq)]
struct Mark {
    generation: i64,
    suspended: bool,
    labels: [Option<String>; 2],
}

impl Seen {
    /// Takes note of a destination; triggers its project when something differs.
    pub(super) fn seen(
        &self,
        shared: &Shared,
        key: &ObjectKey,
        uid: &Uid,
        object: &Observed<EventDestination>,
    ) {
        let now = project_of(&object.metadata).map(|owner| {
            let label = |name| object.labels().get(name).cloned();
            let mark = Mark {
                generation: object.generation(),
                suspended: is_suspended(&object.metadata),
                labels: [label(MANAGED_BY), label(NOTIFICATION_LABEL)],
            };
            (ObjectKey::new(&key.namespace, &owner.name), mark)
        });
        let before = {
            let children = &mut self.0.lock().children;
            match now.clone() {
                Some(now) => children.insert(uid.clone(), now),
                None => children.remove(uid),
            }
        };
        if now != before {
            let projects: HashSet<_> = [now, before].into_iter().flatten().map(|(key, _)| key).collect();
            for project in projects {
                shared.trigger(Kind::Project, project);
            }
        }
    }

    /// A destination is gone: a child among them is made again, and what waited for its name goes on.
    pub(super) fn gone(&self, shared: &Shared, key: &ObjectKey, uid: &Uid) {
        let projects = {
            let known = &mut *self.0.lock();
            let owner = known.children.remove(uid).map(|(project, _)| project);
            [owner, known.taken.remove(key)]
        };
        for project in projects.into_iter().flatten() {
            shared.trigger(Kind::Project, project);
        }
    }

    /// All destinations are known: has the projects looked at that could not tell which of them are theirs.
    pub(super) fn listed(&self, shared: &Shared) {
        let projects: HashSet<_> = self
            .0
            .lock()
            .children
            .values()
            .map(|(key, _)| key.clone())
            .collect();
        for project in projects {
            shared.trigger(Kind::Project, project);
        }
    }

    pub(super) fn retain(&self, kept: impl Fn(&Uid) -> bool, is_project: impl Fn(&ObjectKey) -> bool) {
        let known = &mut *self.0.lock();
        known.children.retain(|uid, _| kept(uid));
        known.taken.retain(|_, project| is_project(project));
    }

    /// From now on the project is triggered when an object of that name goes.
    fn want(&self, name: ObjectKey, project: &ObjectKey) {
        self.0.lock().taken.insert(name, project.clone());
    }

    fn want_no_more(&self, name: &ObjectKey) {
        self.0.lock().taken.remove(name);
    }
}

/// The project that controls an object.
fn project_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.iter().flatten();
    let (group, kind) = (EventProject::group(&()), EventProject::kind(&()));
    owners.into_iter().find(|owner| {
        let of_group = owner
            .api_version
            .split_once('/')
            .is_some_and(|(its, _)| its == group);
        owner.controller == Some(true) && owner.kind == kind && of_group
    })
}

fn is_suspended(metadata: &ObjectMeta) -> bool {
    let annotations = metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(SUSPEND_ANNOTATION))
        .map(String::as_str)
        == Some("true")
}

/// Makes the children what the spec says.
pub(super) async fn converge(
    shared: &Shared,
    project: &Observed<EventProject>,
    key: &ObjectKey,
    uid: &Uid,
    spec: &EventProjectSpec,
    known: &Store<Observed<EventDestination>>,
) -> Children {
    let status = super::status::current(shared, project, uid);
    let notifications = spec.notifications.clone().unwrap_or_default();
    let wanted = expand(&key.name, &notifications, &shared.context.egress);
    let told = || {
        status
            .iter()
            .flat_map(|status| status.notifications.iter().cloned())
    };
    if !shared.destinations_are_listed() {
        let nothing = wanted.as_ref().is_ok_and(Vec::is_empty) && told().next().is_none();
        if nothing {
            return Children::default(); // should there be children after all, the list triggers their project
        }
        if timeout(PATIENCE, shared.wait_for_destinations()).await.is_err() {
            return Children {
                names: told().collect(),
                waiting: Some("the EventDestinations cannot be listed yet".to_owned()),
                ..Children::default()
            };
        }
    }
    let all = known.state();
    let of_namespace = |object: &Observed<_>| object.metadata.namespace.as_deref() == Some(&*key.namespace);
    let mut own: HashMap<String, Arc<Observed<EventDestination>>> = all
        .into_iter()
        .filter(|object| {
            of_namespace(object)
                && project_of(&object.metadata).is_some_and(|owner| owner.uid == uid.as_str())
        })
        .map(|object| (object.name_any(), object))
        .collect();
    let mut children = Children::default();
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(faults) => {
            children.faults = faults;
            children.names = own.into_keys().collect();
            children.names.sort_unstable();
            return children;
        }
    };
    let work = Work {
        shared,
        project,
        key,
        uid,
        api: Api::namespaced(shared.client.clone(), &key.namespace),
        was_settled: was_settled(project, status.as_deref()),
    };
    let each = wanted
        .into_iter()
        .map(|child| (own.remove(&child.name), child))
        .collect::<Vec<_>>();
    let there = each.iter().filter(|(object, _)| object.is_some());
    let mut names: BTreeSet<String> = there.map(|(_, child)| child.name.clone()).collect();
    let works = each.into_iter().map(async |(object, child)| {
        let there = match object {
            Some(object) => work.mend(&child, &object).await,
            None => work.make(&child, known).await,
        };
        (child.name, there)
    });
    let mut results = std::pin::pin!(futures::stream::iter(works).buffered(CONCURRENCY));
    while let Some((name, there)) = results.next().await {
        if !matches!(there, Ok(There::Ours) | Err(_)) {
            names.remove(&name);
        }
        match there {
            Ok(There::Ours) => {
                names.insert(name);
            }
            Ok(There::Foreign) => children.faults.missing(
                PATH,
                format!(
                    "EventDestination {name:?} exists and does not belong to this project; delete it, or rename it \
                     by making it anew under another name"
                ),
            ),
            Ok(There::Leftover) => {
                let message = format!(
                    "EventDestination {name:?} of a deleted project of the same name is being removed"
                );
                children.waiting = Some(message);
            }
            Ok(There::Going) => {
                let message = format!("EventDestination {name:?} is being deleted; it will be made anew");
                children.waiting = Some(message);
            }
            Err(error) => {
                children.error = Some(error);
                break;
            }
        }
    }
    // Also after an error: whoever is wanted no more must not be told any more.
    let removals = own.into_values().map(async |object| work.remove(&object).await);
    let mut results = std::pin::pin!(futures::stream::iter(removals).buffer_unordered(CONCURRENCY));
    while let Some(removed) = results.next().await {
        if let Err(error) = removed {
            children.error.get_or_insert(error);
        }
    }
    children.names = names.into_iter().collect();
    children
}

/// What a person is told of a request that failed.
pub(super) fn told(error: &Error) -> Option<String> {
    let message = error.told()?;
    Some(if error.is_missing_right() {
        format!("{message}; install Postrider with rbac.notifications=true, or remove {PATH}")
    } else {
        message
    })
}

/// Whether the children were what this generation of the project says: then a difference is somebody's edit.
fn was_settled(project: &Observed<EventProject>, status: Option<&EventProjectStatus>) -> bool {
    status.is_some_and(|status| {
        status.observed_generation == Some(project.generation())
            && status.conditions.iter().all(|one| one.type_ != RECONCILING)
    })
}

/// Whose a name is.
enum There {
    Ours,
    Foreign,
    /// Of a deleted project of the same name.
    Leftover,
    /// Ours, and being deleted or just gone.
    Going,
}

struct Work<'a> {
    shared: &'a Shared,
    project: &'a Observed<EventProject>,
    key: &'a ObjectKey,
    uid: &'a Uid,
    api: Api<EventDestination>,
    was_settled: bool,
}

impl Work<'_> {
    async fn make(&self, child: &Child, known: &Store<Observed<EventDestination>>) -> Result<There, Error> {
        let name = ObjectKey::new(&self.key.namespace, &child.name);
        // Before looking: what goes in between is not missed.
        self.shared.children.want(name.clone(), self.key);
        let there = self.try_make(child, &name, known).await?;
        if matches!(there, There::Ours) {
            self.shared.children.want_no_more(&name);
        }
        Ok(there)
    }

    async fn try_make(
        &self,
        child: &Child,
        name: &ObjectKey,
        known: &Store<Observed<EventDestination>>,
    ) -> Result<There, Error> {
        if let Some(object) = known.get(&object_ref(name)) {
            return Ok(self.whose(&object.metadata));
        }
        let mut object = EventDestination::new(&child.name, child.spec.clone());
        object.metadata.labels = Some(labels(child));
        object.metadata.owner_references = Some(vec![self.project.owner_reference()]);
        match self.api.create(&params(), &object).await {
            Ok(_) => Ok(There::Ours),
            Err(kube::Error::Api(status)) if status.is_already_exists() => {
                let found = self.api.get_metadata_opt(&child.name).await;
                let found =
                    found.map_err(Error::request(format!("read EventDestination {:?}", child.name)))?;
                Ok(found.map_or(There::Going, |found| self.whose(&found.metadata)))
            }
            Err(error) => Err(Error::request(format!(
                "create EventDestination {:?}",
                child.name
            ))(error)),
        }
    }

    fn whose(&self, metadata: &ObjectMeta) -> There {
        match project_of(metadata) {
            Some(owner) if owner.uid != self.uid.as_str() && owner.name == *self.key.name => There::Leftover,
            Some(owner) if owner.uid != self.uid.as_str() => There::Foreign,
            Some(_) if metadata.deletion_timestamp.is_some() => There::Going,
            Some(_) => There::Ours,
            None => There::Foreign,
        }
    }

    /// Writes what differs. The whole spec is replaced: what somebody else set in it goes.
    async fn mend(&self, child: &Child, object: &Observed<EventDestination>) -> Result<There, Error> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(There::Going);
        }
        if is_right(child, &object.metadata, object.spec.as_ref().ok()) {
            return Ok(There::Ours);
        }
        let action = || format!("update EventDestination {:?}", child.name);
        let kind = ApiResource::erase::<EventDestination>(&());
        let untyped =
            Api::<DynamicObject>::namespaced_with(self.shared.client.clone(), &self.key.namespace, &kind);
        let mut tries = 0;
        loop {
            let fresh = untyped.get_opt(&child.name).await;
            let Some(fresh) = fresh.map_err(Error::request(action()))? else {
                return Ok(There::Going);
            };
            match self.whose(&fresh.metadata) {
                There::Ours => {}
                other => return Ok(other),
            }
            let spec = fresh
                .data
                .get("spec")
                .and_then(|spec| EventDestinationSpec::deserialize(spec).ok());
            if is_right(child, &fresh.metadata, spec.as_ref()) {
                return Ok(There::Ours);
            }
            let wanted = wanted(child, &fresh.metadata);
            let managed = fresh.metadata.managed_fields.as_deref().unwrap_or_default();
            let is_edited = is_edited(&wanted, spec.as_ref(), managed);
            let mut metadata = fresh.metadata;
            metadata.labels.get_or_insert_default().extend(labels(child));
            metadata.managed_fields = None;
            let written = EventDestination {
                metadata,
                spec: wanted,
                status: None,
            };
            tries += 1;
            match self.api.replace(&child.name, &params(), &written).await {
                Ok(now) => {
                    // What a policy of the cluster changes on the way cannot be put back.
                    if is_edited && self.was_settled && now.spec == written.spec {
                        self.tell(object);
                    }
                    return Ok(There::Ours);
                }
                // Somebody writes at the same time, such as its status.
                Err(kube::Error::Api(status)) if status.is_conflict() && tries < TRIES => {}
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(There::Going),
                Err(error) => return Err(Error::request(action())(error)),
            }
        }
    }

    fn tell(&self, object: &Observed<EventDestination>) {
        let notice = Notice {
            warning: true,
            reason: PUT_BACK.to_owned(),
            message: format!(
                "somebody changed the spec; it is put back, because {PATH} of EventProject {:?} decides it; to \
                 pause this destination, annotate it with {SUSPEND_ANNOTATION}=true",
                &*self.key.name
            ),
        };
        self.shared.notices.tell(vec![notice], &object.reference());
    }

    async fn remove(&self, object: &Observed<EventDestination>) -> Result<(), Error> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(());
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.metadata.uid.clone(),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let name = object.name_any();
        match self.api.delete(&name, &params).await {
            Ok(_) => Ok(()),
            // Gone, or another object has the name.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => Err(Error::request(format!("delete EventDestination {name:?}"))(error)),
        }
    }
}

/// The spec of a child that may be paused.
fn wanted(child: &Child, metadata: &ObjectMeta) -> EventDestinationSpec {
    EventDestinationSpec {
        suspend: is_suspended(metadata),
        ..child.spec.clone()
    }
}

fn is_right(child: &Child, metadata: &ObjectMeta, spec: Option<&EventDestinationSpec>) -> bool {
    let there = metadata.labels.as_ref();
    let has = |(name, value): (&String, &String)| there.and_then(|there| there.get(name)) == Some(value);
    labels(child).iter().all(has) && spec == Some(&wanted(child, metadata))
}

/// Whether a difference is somebody's edit of the spec, and not a child that is paused or resumed by its annotation.
fn is_edited(
    wanted: &EventDestinationSpec,
    spec: Option<&EventDestinationSpec>,
    managed: &[ManagedFieldsEntry],
) -> bool {
    let Some(spec) = spec else { return true };
    let resumed = EventDestinationSpec {
        suspend: wanted.suspend,
        ..spec.clone()
    };
    if resumed != *wanted {
        return true;
    }
    let sets_suspend = |entry: &ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref();
        fields.is_some_and(|fields| fields.0.pointer("/f:spec/f:suspend").is_some())
    };
    spec.suspend != wanted.suspend
        && managed
            .iter()
            .any(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER) && sets_suspend(entry))
}

fn labels(child: &Child) -> BTreeMap<String, String> {
    BTreeMap::from([
        (MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned()),
        (NOTIFICATION_LABEL.to_owned(), child.role.as_str().to_owned()),
    ])
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    }
}
