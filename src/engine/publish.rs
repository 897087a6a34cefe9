//! Accepting events: match, store, wake the lanes. What a publisher is answered is decided here.
//!
//! Nothing is accepted before the directory is complete, because an event that meets a destination not yet known
//! would be lost for it. When a publisher hangs up, the durable write and the waking go on in a task of their own, so
//! stored deliveries cannot be left asleep.
//!
//! Two ports face the server that takes publishers' requests: [`Publisher`] and [`Authorizer`]. Neither knows HTTP.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::filters::{self, Accepted};
use super::queue::{Enqueued, NewEvent, QueueError};
use super::{Core, Engine};
pub use crate::domain::event::Draft;
use crate::domain::event::Event;
use crate::domain::id::{EventId, ObjectKey};
use crate::domain::project::Project;
use crate::domain::secret::Secret;

/// A destination had the same event before.
const SUPPRESSED: &str = "Suppressed";

/// What a publisher learns of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its id.
    pub id: EventId,
    /// The id was used before; nothing new is sent.
    pub duplicate: bool,
    /// Deliveries that were stored for it now; none for destinations that had the same event before.
    pub deliveries: usize,
}

/// Why nothing was accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The store refused.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The operator does not know every destination yet.
    #[error("the operator is starting")]
    Starting,
    /// The process is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// Takes events.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// Whether every project and destination is known; before that nothing is accepted.
    fn is_ready(&self) -> bool;

    /// The project of that name, when there is one that events can be published to. From memory.
    fn project(&self, key: &ObjectKey) -> Option<Arc<Project>>;

    /// Whether a project of that name exists that nothing can be published to yet, because it was never understood.
    /// From memory.
    fn is_unusable(&self, key: &ObjectKey) -> bool;

    /// Accepts events, all or none; answers in the same order, after they are durable.
    ///
    /// A caller drops the future when its client goes away, at any moment. The implementation owes that nothing is
    /// left half done: events not yet handed to the queue are as if never published, and for events handed to it
    /// the write *and* waking the lanes afterwards happen all the same.
    ///
    /// # Errors
    /// See [`PublishError`]; then nothing is accepted.
    async fn publish(&self, project: Arc<Project>, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PublishError>;
}

/// Says what the bearer of a Kubernetes token may do.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Whether the bearer has a right to the object of that name, which need not exist.
    async fn may(&self, token: &Secret<String>, key: &ObjectKey, right: Right) -> Access;

    /// Whether the bearer may publish to the project of that name.
    async fn may_publish(&self, token: &Secret<String>, key: &ObjectKey) -> Access {
        self.may(token, key, Right::Publish).await
    }
}

/// What a Kubernetes caller may be allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// Publish to a project.
    Publish,
    /// See the list of a destination's deliveries.
    ListDeliveries,
    /// See one of them with its attempts.
    GetDelivery,
    /// Have events delivered again.
    Replay,
    /// Cancel deliveries.
    Cancel,
}

impl Right {
    /// Verb, resource and subresource, as Kubernetes RBAC has them.
    #[must_use]
    pub const fn attributes(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Publish => ("create", "eventprojects", "events"),
            Self::ListDeliveries => ("list", "eventdestinations", "deliveries"),
            Self::GetDelivery => ("get", "eventdestinations", "deliveries"),
            Self::Replay => ("create", "eventdestinations", "replay"),
            Self::Cancel => ("create", "eventdestinations", "cancel"),
        }
    }
}

/// What an [`Authorizer`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The caller is known and may.
    Allowed,
    /// The caller is known and may not.
    Denied,
    /// The token is nobody's.
    Unauthenticated,
    /// Nobody could say in time.
    Unavailable,
}

#[async_trait]
impl Publisher for Engine {
    fn is_ready(&self) -> bool {
        self.core().directory.synced()
    }

    fn project(&self, key: &ObjectKey) -> Option<Arc<Project>> {
        self.core().directory.project(key)
    }

    fn is_unusable(&self, key: &ObjectKey) -> bool {
        self.core().directory.is_unusable(key)
    }

    async fn publish(&self, project: Arc<Project>, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PublishError> {
        let core = self.core();
        if core.stopping.is_cancelled() {
            return Err(PublishError::Stopping);
        }
        if !self.is_ready() {
            return Err(PublishError::Starting);
        }
        let accepted: Vec<Accepted> = drafts
            .into_iter()
            .map(|draft| accept(core, &project, draft))
            .collect();
        let events = filters::narrow(core, accepted)
            .await
            .ok_or(PublishError::Stopping)?;
        Finished::new(&core.tasks, store(Arc::clone(core), events)).await
    }
}

/// Work that, once begun, is finished also when nobody waits for it any more.
pub(super) struct Finished<'a, T: 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    tasks: &'a TaskTracker,
}

impl<'a, T: 'static> Finished<'a, T> {
    /// Goes on among these tasks when it is dropped.
    pub(super) fn new(tasks: &'a TaskTracker, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self {
            work: Some(Box::pin(work)),
            tasks,
        }
    }
}

impl<T: 'static> Future for Finished<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let polled = work.as_mut().poll(context);
        if polled.is_ready() {
            self.work = None;
        }
        polled
    }
}

impl<T: 'static> Drop for Finished<'_, T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take()
            && let Ok(runtime) = Handle::try_current()
        {
            self.tasks.spawn_on(async move { drop(work.await) }, &runtime);
        }
    }
}

fn accept(core: &Core, project: &Project, draft: Draft) -> Accepted {
    let Draft {
        id,
        timestamp,
        mut content,
    } = draft;
    let accepted = core.clock.now();
    content.timestamp = timestamp.unwrap_or(accepted).as_millisecond();
    let id = id.unwrap_or_else(|| EventId::from_uuid(uuid_v7(accepted)));
    let route = core.directory.route(&project.key, &content.event_type);
    Accepted {
        event: Arc::new(Event::new(id, accepted, content, Arc::clone(&project.facts))),
        route,
    }
}

fn uuid_v7(now: Timestamp) -> uuid::Uuid {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

pub(super) async fn store(core: Arc<Core>, events: Vec<NewEvent>) -> Result<Vec<Receipt>, PublishError> {
    let summaries: Vec<_> = events
        .iter()
        .map(|new| (new.event.id.clone(), Arc::clone(&new.lanes)))
        .collect();
    let outcomes = core.queue.enqueue(events).await?;
    let mut receipts = Vec::with_capacity(summaries.len());
    for ((id, lanes), outcome) in summaries.into_iter().zip(outcomes) {
        let deliveries = match &outcome {
            Enqueued::Duplicate => 0,
            Enqueued::Accepted => {
                lanes.iter().for_each(|lane| core.wake(lane));
                core.metrics.unmatched(u64::from(lanes.is_empty()));
                lanes.len()
            }
            Enqueued::Suppressed(left_out) => {
                for (at, lane) in lanes.iter().enumerate() {
                    if left_out.contains(&at) {
                        core.suppressed(lane);
                    } else {
                        core.wake(lane);
                    }
                }
                core.metrics.deduplicated(left_out.len() as u64, SUPPRESSED);
                lanes.len().saturating_sub(left_out.len())
            }
        };
        receipts.push(Receipt {
            id,
            duplicate: outcome == Enqueued::Duplicate,
            deliveries,
        });
    }
    Ok(receipts)
}
