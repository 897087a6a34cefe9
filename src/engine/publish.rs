//! Accepting events: match, store, wake the lanes. What a publisher is answered is decided here.
//!
//! Nothing is accepted before the directory is complete, because an event that meets a destination not yet known
//! would be lost for it. The durable write and the waking happen in a task of their own, so a publisher that hangs
//! up cannot leave stored deliveries asleep.

use std::sync::Arc;

use jiff::Timestamp;

use super::queue::{Enqueued, NewEvent, QueueError};
use super::{Core, Engine};
use crate::domain::event::{Content, Event};
use crate::domain::id::EventId;
use crate::domain::project::Project;

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
    /// The operator does not know every destination yet.
    #[error("the operator is starting")]
    Starting,
    /// The process is stopping.
    #[error("the server is stopping")]
    Stopping,
}

impl Engine {
    /// Accepts events of one project, all or none. Returns after they and their deliveries are durable.
    ///
    /// # Errors
    /// See [`PublishError`]; then nothing was accepted.
    pub async fn publish(&self, project: &Project, drafts: Vec<Draft>) -> Result<Vec<Receipt>, PublishError> {
        let core = self.core();
        if core.stopping.is_cancelled() {
            return Err(PublishError::Stopping);
        }
        if !core.directory.synced() {
            return Err(PublishError::Starting);
        }
        let events: Vec<NewEvent> = drafts.into_iter().map(|draft| accept(core, project, draft)).collect();
        let stored = core.tasks.spawn(store(Arc::clone(core), events));
        stored.await.map_err(|_| PublishError::Stopping)?
    }
}

fn accept(core: &Core, project: &Project, draft: Draft) -> NewEvent {
    let Draft { id, timestamp, mut content } = draft;
    let accepted = core.clock.now();
    content.timestamp = timestamp.unwrap_or(accepted).as_millisecond();
    let id = id.unwrap_or_else(|| EventId::from_uuid(uuid_v7(accepted)));
    let lanes = core.directory.matching(&project.key, &content.event_type);
    NewEvent { event: Arc::new(Event::new(id, accepted, content, Arc::clone(&project.facts))), lanes }
}

fn uuid_v7(now: Timestamp) -> uuid::Uuid {
    let millis = u64::try_from(now.as_millisecond()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid()
}

async fn store(core: Arc<Core>, events: Vec<NewEvent>) -> Result<Vec<Receipt>, PublishError> {
    let summaries: Vec<_> = events.iter().map(|new| (new.event.id.clone(), Arc::clone(&new.lanes))).collect();
    let outcomes = core.queue.enqueue(events).await?;
    let mut receipts = Vec::with_capacity(summaries.len());
    for ((id, lanes), outcome) in summaries.into_iter().zip(outcomes) {
        let duplicate = outcome == Enqueued::Duplicate;
        let deliveries = if duplicate { 0 } else { lanes.len() };
        if !duplicate {
            lanes.iter().for_each(|lane| core.wake(lane));
            core.metrics.unmatched(u64::from(lanes.is_empty()));
        }
        receipts.push(Receipt { id, duplicate, deliveries });
    }
    Ok(receipts)
}
