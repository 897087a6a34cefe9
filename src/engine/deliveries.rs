//! [`DeliveryLog`]: what became of every attempt, for people who ask.
//!
//! The log is beside the queue and never in its way: [`DeliveryLog::record`] neither waits nor fails. What the log cannot
//! take is dropped and counted. It is no source of truth: what is delivered again is decided by the queue.

pub mod memory;
pub mod metrics;
pub mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::domain::delivery_log::{Record, State};
use crate::domain::id::{EventId, Uid};

/// Most records looked at for one answer: a page may be short, or empty, and say where to go on.
pub const MAX_SCAN: usize = 20_000;
/// Most records in one answer.
pub const MAX_PAGE: usize = 500;
/// Most attempts of one event that are told.
pub const MAX_ATTEMPTS: usize = 200;

/// Which deliveries are asked for. Each is told by its last attempt.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Only those that stand so.
    pub state: Option<State>,
    /// Only events of this type.
    pub event_type: Option<Arc<str>>,
    /// Only last attempts that ended at or after.
    pub since: Option<Timestamp>,
    /// Only last attempts that ended before.
    pub until: Option<Timestamp>,
    /// Where an earlier answer ended.
    pub cursor: Option<i64>,
    /// Oldest first, else newest first.
    pub oldest_first: bool,
    /// At most so many, and at most [`MAX_PAGE`].
    pub limit: usize,
}

/// A part of the answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The last attempts of deliveries.
    pub records: Vec<Record>,
    /// Where to go on; `None` at the end.
    pub next: Option<i64>,
}

/// One event, by what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Which {
    /// By its position in the queue; the id guards against a queue that began anew.
    Position(u64, EventId),
    /// By its id alone, which takes a look at [`MAX_SCAN`] records of the destination: one that is long ago may not be found.
    Id(EventId),
}

/// Why a question was not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Nothing is kept: `--delivery-log-retention` is 0.
    #[error("the delivery log is switched off")]
    Off,
    /// The file cannot be used now.
    #[error("the delivery log is unavailable: {0}")]
    Unavailable(String),
}

/// Keeps what became of attempts.
#[async_trait]
pub trait DeliveryLog: Send + Sync {
    /// Whether anything is kept. Asked before a record is made.
    fn is_on(&self) -> bool;

    /// Keeps a record, soon. Never waits; what cannot be kept is dropped and counted.
    fn record(&self, record: Record);

    /// Deliveries of a destination. Sees what was recorded before the call. Looks at [`MAX_SCAN`] records at most.
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn list(&self, lane: &Uid, query: Query) -> Result<Page, LogError>;

    /// The last [`MAX_ATTEMPTS`] attempts of one event, oldest first; none when it is not known, see [`Which`].
    ///
    /// # Errors
    /// When the log cannot be read.
    async fn attempts(&self, lane: &Uid, which: Which) -> Result<Vec<Record>, LogError>;

    /// Writes what waits, and closes the log. Idempotent.
    async fn close(&self);
}

/// No log.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLog;

#[async_trait]
impl DeliveryLog for NoLog {
    fn is_on(&self) -> bool {
        false
    }

    fn record(&self, _: Record) {}

    async fn list(&self, _: &Uid, _: Query) -> Result<Page, LogError> {
        Err(LogError::Off)
    }

    async fn attempts(&self, _: &Uid, _: Which) -> Result<Vec<Record>, LogError> {
        Err(LogError::Off)
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests;
