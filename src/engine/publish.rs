//! Accepting events: match, store, wake the lanes. What a publisher is answered is decided here.

use super::queue::QueueError;
pub use crate::domain::event::Draft;
use crate::domain::id::EventId;

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
