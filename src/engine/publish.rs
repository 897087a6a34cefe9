//! Accepting events: match, store, wake the lanes. What a publisher is answered is decided here.
//!
//! Two ports face the server that takes publishers' requests: [`Publisher`] and [`Authorizer`]. Neither knows HTTP.

use std::sync::Arc;

use async_trait::async_trait;

use super::queue::QueueError;
pub use crate::domain::event::Draft;
use crate::domain::id::{EventId, ObjectKey};
use crate::domain::project::Project;
use crate::domain::secret::Secret;

/// What a publisher learns of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Its id.
    pub id: EventId,
    /// The id was used before; nothing new is sent.
    pub duplicate: bool,
    /// Deliveries that were stored for it now.
    pub deliveries: usize,
}

/// Why nothing was accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The project is gone.
    #[error("the project does not exist")]
    NoProject,
    /// The store refused.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// The process is stopping.
    #[error("the server is stopping")]
    Stopping,
}

/// Takes events.
#[async_trait]
pub trait Publisher: Send + Sync {
    /// The project of that name, when there is one that events can be published to. From memory.
    fn project(&self, key: &ObjectKey) -> Option<Arc<Project>>;

    /// Accepts events, all or none; answers in the same order, after they are durable.
    ///
    /// A caller drops the future when its client goes away, at any moment. The implementation owes that nothing is
    /// left half done: events not yet handed to the queue are as if never published, and for events handed to it
    /// the write *and* waking the lanes afterwards happen all the same. The queue's own thread does both, so no
    /// task per request is needed.
    ///
    /// # Errors
    /// See [`PublishError`]; then nothing is accepted.
    async fn publish(&self, project: Arc<Project>, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PublishError>;
}

/// Says whether the bearer of a Kubernetes token may publish.
#[async_trait]
pub trait Authorizer: Send + Sync {
    /// Whether the bearer may `create` the `events` of the project of that name, which need not exist.
    async fn may_publish(&self, token: &Secret<String>, key: &ObjectKey) -> Access;
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
