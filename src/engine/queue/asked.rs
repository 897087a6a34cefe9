//! What people ask of a queue beyond its own work: to deliver again, to cancel, to show what waits.

use std::sync::Arc;

use jiff::Timestamp;

use super::Stored;
use crate::domain::event::Event;
use crate::domain::id::EventId;

/// Most events that one call of [`Queue::replay`](super::Queue::replay) makes deliveries of.
pub const REPLAY_STEP: usize = 500;
/// Most deliveries that one call of [`Queue::waiting`](super::Queue::waiting) tells.
pub const WAITING_STEP: usize = 100;
/// Bytes of events after which a call reads no further one, and ends early.
pub const STEP_BYTES: usize = 4 << 20;

/// Which retained events are delivered again. Only those that went to the lane when they were accepted.
#[derive(Clone, Debug)]
pub enum Replay {
    /// These, each by its position and its id; of more than [`REPLAY_STEP`] the rest is left for another call. Another
    /// event at the position, as after an older file was put back, counts as gone.
    Events(Vec<(u64, EventId)>),
    /// Those accepted within a span.
    Accepted {
        /// From then on.
        since: Timestamp,
        /// But before then.
        until: Timestamp,
        /// Of this type only.
        event_type: Option<Arc<str>>,
        /// Where an earlier step ended; 0 at first.
        from: u64,
    },
}

/// What one step of a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Deliveries that were made.
    pub made: u64,
    /// Events whose delivery waits or is under way anyway.
    pub open: u64,
    /// Events that retention has removed.
    pub gone: u64,
    /// Stored events that did not go to this lane when they were accepted, such as dead letters of others.
    pub elsewhere: u64,
    /// Where the next step goes on: a position, or for [`Replay::Events`] a place in the list. `None` at the end.
    pub next: Option<u64>,
}

/// What became of a delivery that another lane is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandedOver {
    /// It waits there.
    Made,
    /// One of the event waited there: it has the note now, before what attempts left, is due now, and counts anew.
    Joined,
    /// One waits there that another handing over has made; it stays as it is.
    Open,
    /// One is under way there, and nothing was done: what comes of it is not known yet.
    InFlight,
    /// The event is not stored any more.
    Gone,
}

/// What became of a delivery that was to be cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It left the queue, after so many attempts.
    Done {
        /// Attempts made.
        attempts: u32,
    },
    /// An attempt is under way: nothing was done.
    InFlight,
    /// It does not wait: it ended, or never was.
    NotWaiting,
}

/// A delivery that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    /// When it is due.
    pub due: Timestamp,
    /// Attempts made.
    pub attempts: u32,
    /// An attempt is under way.
    pub in_flight: bool,
    /// It was made by a replay.
    pub replayed: bool,
}

/// An event that is still stored, as one lane sees it.
#[derive(Clone, Debug)]
pub struct Retained {
    /// Its position.
    pub seq: u64,
    /// The event.
    pub event: Arc<Event>,
    /// Its delivery, while it waits.
    pub open: Option<Open>,
}

/// A delivery that waits, and its event.
#[derive(Clone, Debug)]
pub struct Waiting {
    /// Its place in the lane: where another call goes on.
    pub place: (i64, u64),
    /// The event.
    pub stored: Stored,
    /// The delivery.
    pub open: Open,
}

/// Some deliveries that wait.
#[derive(Clone, Debug, Default)]
pub struct Waits {
    /// In the order in which they are due.
    pub found: Vec<Waiting>,
    /// There may be more after the last one.
    pub more: bool,
}

impl Waiting {
    /// Id of the event, when it can be read.
    #[must_use]
    pub fn event_id(&self) -> Option<&EventId> {
        match &self.stored {
            Stored::Event(event) => Some(&event.id),
            Stored::Corrupt { id } => id.as_ref(),
        }
    }
}
