//! Accepting events: match, store, wake the lanes. What a publisher is answered is decided here.

use jiff::Timestamp;

use super::queue::QueueError;
use crate::domain::event::Content;
use crate::domain::id::EventId;

/// An event as parsed from a request, before it is accepted.
#[derive(Debug)]
pub struct Draft {
    /// The producer's id; `None`: one is made.
    pub id: Option<EventId>,
    /// When it happened; `None`: time of acceptance. (`content.timestamp` is ignored then.)
    pub timestamp: Option<Timestamp>,
    /// What the producer said.
    pub content: Content,
}

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
