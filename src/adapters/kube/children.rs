//! The `EventDestination`s that a project's `spec.notifications` stands for: makes, mends and removes them.
//!
//! A child belongs to its project by an owner reference with the project's uid, so that it goes with it. An object of
//! the same name that is not ours is a fault and is never touched. New children are made before old ones are removed,
//! and while the notifications are faulty nothing is changed. A child that somebody edited is put back, and an Event
//! says so; what people may set on it are labels and annotations, among them `postrider.dev/suspend`.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::runtime::reflector::Store;
use kube::{Api, Resource as _, ResourceExt as _};
use parking_lot::Mutex;

use super::context::Shared;
use super::error::Error;
use super::observed::Observed;
use super::trigger::object_ref;
use crate::api::v1alpha1::{EventDestination, EventDestinationSpec, EventProject, EventProjectSpec};
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
const PATH: &str = "spec.notifications";

/// How a project's children are.
#[derive(Debug, Default)]
pub(super) struct Children {
    /// Names of those that are there, sorted.
    pub(super) names: Vec<String>,
    pub(super) faults: Faults,
    /// An object of a deleted project is in the way and will go by itself.
    pub(super) waiting: Option<String>,
}

/// What was last seen of each child, to notice what matters to its project.
#[derive(Default)]
pub(super) struct Seen(Mutex<HashMap<Uid, (ObjectKey, Mark)>>);

#[derive(Clone, PartialEq, Eq)]
struct Mark {
    generation: i64,
    suspended: bool,
    ours: bool,
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
        let Some(owner) = project_of(&object.metadata) else {
            return;
        };
        let project = ObjectKey::new(&key.namespace, &owner.name);
        let mark = Mark {
            generation: object.generation(),
            suspended: is_suspended(&object.metadata),
            ours: is_labelled(&object.metadata),
        };
        let before = self.0.lock().insert(uid.clone(), (project.clone(), mark.clone()));
        if before.is_none_or(|(_, before)| before != mark) {
            shared.trigger(Kind::Project, project);
        }
    }

    /// A destination is gone; a child among them is made again.
    pub(super) fn gone(&self, shared: &Shared, uid: &Uid) {
        if let Some((project, _)) = self.0.lock().remove(uid) {
            shared.trigger(Kind::Project, project);
        }
    }

    pub(super) fn retain(&self, kept: impl Fn(&Uid) -> bool) {
        self.0.lock().retain(|uid, _| kept(uid));
    }
}

/// The project that owns an object.
fn project_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.iter().flatten();
    let kind = EventProject::kind(&());
    owners.into_iter().find(|owner| owner.kind == kind)
}

fn is_suspended(metadata: &ObjectMeta) -> bool {
    let annotations = metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(SUSPEND_ANNOTATION))
        .map(String::as_str)
        == Some("true")
}

fn is_labelled(metadata: &ObjectMeta) -> bool {
    metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(NOTIFICATION_LABEL))
}

/// Makes the children what the spec says.
pub(super) async fn converge(
    shared: &Shared,
    project: &Observed<EventProject>,
    key: &ObjectKey,
    uid: &Uid,
    spec: &EventProjectSpec,
    known: &Store<Observed<EventDestination>>,
) -> Result<Children, Error> {
    let all = known.state();
    let mut own: HashMap<String, &Observed<EventDestination>> = all
        .iter()
        .filter(|object| {
            object.namespace().as_deref() == Some(&*key.namespace) && belongs(&object.metadata, uid)
        })
        .map(|object| (object.name_any(), &**object))
        .collect();
    let notifications = spec.notifications.clone().unwrap_or_default();
    let wanted = match expand(&key.name, &notifications, &shared.context.egress) {
        Ok(wanted) => wanted,
        Err(faults) => {
            let mut names: Vec<String> = own.into_keys().collect();
            names.sort_unstable();
            return Ok(Children {
                names,
                faults,
                waiting: None,
            });
        }
    };
    let work = Work {
        shared,
        project,
        key,
        uid,
        api: Api::namespaced(shared.client.clone(), &key.namespace),
    };
    let mut children = Children::default();
    for child in &wanted {
        let there = match own.remove(&child.name) {
            Some(object) => work.mend(child, object).await?,
            None => work.make(child, known).await?,
        };
        match there {
            There::Ours => children.names.push(child.name.clone()),
            There::Foreign => children.faults.missing(
                PATH,
                format!(
                    "EventDestination {:?} exists and does not belong to this project; delete it, or rename it by \
                     making it anew under another name",
                    child.name
                ),
            ),
            There::Leftover => {
                let message = format!(
                    "EventDestination {:?} of a deleted project of the same name is being removed",
                    child.name
                );
                children.waiting = Some(message);
            }
        }
    }
    for object in own.into_values() {
        work.remove(object).await?;
    }
    children.names.sort_unstable();
    Ok(children)
}

/// Whether an object belongs to the project of that uid.
fn belongs(metadata: &ObjectMeta, project: &Uid) -> bool {
    project_of(metadata).is_some_and(|owner| owner.uid == project.as_str())
}

/// Whose a name is.
enum There {
    Ours,
    Foreign,
    Leftover,
}

struct Work<'a> {
    shared: &'a Shared,
    project: &'a Observed<EventProject>,
    key: &'a ObjectKey,
    uid: &'a Uid,
    api: Api<EventDestination>,
}

impl Work<'_> {
    async fn make(&self, child: &Child, known: &Store<Observed<EventDestination>>) -> Result<There, Error> {
        let name = ObjectKey::new(&self.key.namespace, &child.name);
        if let Some(object) = known.get(&object_ref(&name)) {
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
                // Gone again: the watch will say so, and this is tried anew.
                Ok(found.map_or(There::Leftover, |found| self.whose(&found.metadata)))
            }
            Err(error) => Err(Error::request(format!(
                "create EventDestination {:?}",
                child.name
            ))(error)),
        }
    }

    fn whose(&self, metadata: &ObjectMeta) -> There {
        match project_of(metadata) {
            Some(owner) if owner.uid == self.uid.as_str() => There::Ours,
            Some(owner) if owner.name == *self.key.name => There::Leftover,
            _ => There::Foreign,
        }
    }

    /// Writes what differs. The whole spec is replaced: what somebody else set in it goes.
    async fn mend(&self, child: &Child, object: &Observed<EventDestination>) -> Result<There, Error> {
        if object.metadata.deletion_timestamp.is_some() {
            return Ok(There::Leftover);
        }
        let wanted = EventDestinationSpec {
            suspend: is_suspended(&object.metadata),
            ..child.spec.clone()
        };
        let labels = labels(child);
        let has_labels = labels
            .iter()
            .all(|(name, value)| object.labels().get(name) == Some(value));
        let differs = object.spec.as_ref().ok() != Some(&wanted);
        if !differs && has_labels {
            return Ok(There::Ours);
        }
        let action = || format!("update EventDestination {:?}", child.name);
        let fresh = self.api.get_metadata_opt(&child.name).await;
        let Some(fresh) = fresh.map_err(Error::request(action()))? else {
            return Ok(There::Leftover);
        };
        if fresh.metadata.uid != object.metadata.uid {
            return Ok(self.whose(&fresh.metadata));
        }
        let mut metadata = fresh.metadata;
        let suspend = is_suspended(&metadata);
        metadata.labels.get_or_insert_default().extend(labels);
        metadata.managed_fields = None;
        let written = EventDestination {
            metadata,
            spec: EventDestinationSpec { suspend, ..wanted },
            status: None,
        };
        match self.api.replace(&child.name, &params(), &written).await {
            Ok(_) => {}
            // Somebody writes at the same time: the watch will show what, and this is looked at anew.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => {
                return Ok(There::Ours);
            }
            Err(error) => return Err(Error::request(action())(error)),
        }
        if differs && self.was_settled() && suspend == object.spec.as_ref().is_ok_and(|spec| spec.suspend) {
            let notice = Notice {
                warning: true,
                reason: PUT_BACK.to_owned(),
                message: format!(
                    "somebody changed the spec; it is put back, because {PATH} of EventProject {:?} decides it",
                    &*self.key.name
                ),
            };
            self.shared.notices.tell(vec![notice], &object.reference());
        }
        Ok(There::Ours)
    }

    /// Whether the children were what this generation of the project says: then a difference is somebody's edit.
    fn was_settled(&self) -> bool {
        let status = self.project.status.as_ref();
        status.and_then(|status| status.observed_generation) == Some(self.project.generation())
    }

    async fn remove(&self, object: &Observed<EventDestination>) -> Result<(), Error> {
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
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(error) => Err(Error::request(format!("delete EventDestination {name:?}"))(error)),
        }
    }
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
