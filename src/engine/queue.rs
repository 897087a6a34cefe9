//! [`Queue`]: the durable store of events and deliveries, and the contract every back-end keeps.
//!
//! The contract, checked by one conformance suite over all back-ends:
//!
//! - [`Queue::enqueue`] returns only after every event of the batch and all its deliveries are in one durable write;
//!   on an error none of them is, or will ever be delivered.
//! - An id that its project used within the last 24 h is a duplicate: nothing is written for it.
//! - A delivery that is leased is not leased again until its lease is settled or dropped. Leases live in memory: a
//!   crash only redelivers.
//! - [`Queue::lease`] hands out due deliveries of a lane, oldest due time first; among those handed out together,
//!   oldest event first. A retry moves the due time, so it comes behind younger events; [`Queue::rewind`] puts
//!   deliveries back to the place that their age gives them.
//! - [`Queue::settle`] returns only after what it says is durable.
//! - A delivery whose stored event is damaged is handed out as [`Stored::Corrupt`], never silently dropped.
//! - An event has at most one delivery that waits or is under way in a lane, however often it is replayed.
//! - A lane that an event has a [key](NewEvent::keys) for gets no delivery when an event with that key was stored for it
//!   within the key's window; else the key is stored in the same write. For such a lane the event counts as one that never
//!   went there. Replays and what is handed over neither ask for keys nor store any. A back-end may forget keys early,
//!   never keep them longer.
//! - A note that [`Queue::settle`] stored with a retry is what [`Queue::note`] answers until another replaces it or the
//!   delivery leaves the queue.
//!
//! Lanes are named by the destination's uid. The queue knows nothing of destinations beyond that.

pub mod asked;
pub mod keys;
pub mod memory;
pub mod metrics;
pub mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use self::asked::{Cancelled, HandedOver, Replay, Replayed, Retained, Waits};
use self::keys::LaneKey;
use crate::domain::event::Event;
use crate::domain::health::Health;
use crate::domain::id::{EventId, Uid};

/// For how long an id is remembered, in nanoseconds.
pub(crate) const ID_WINDOW: i64 = 24 * 3600 * 1_000_000_000;

/// An event and the lanes that get it.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// The event.
    pub event: Arc<Event>,
    /// uids of the destinations; no duplicates.
    pub lanes: Arc<[Uid]>,
    /// Keys for lanes that want no two of the same within a time.
    pub keys: Box<[LaneKey]>,
}

impl NewEvent {
    /// An event for every one of the lanes.
    #[must_use]
    pub fn new(event: Arc<Event>, lanes: Arc<[Uid]>) -> Self {
        Self {
            event,
            lanes,
            keys: Box::default(),
        }
    }
}

/// What became of an enqueued event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enqueued {
    /// Stored, with its deliveries.
    Accepted,
    /// Stored, without deliveries to the lanes at these places of [`NewEvent::lanes`]: they had one with the same key.
    Suppressed(Box<[usize]>),
    /// The id was used within the window; nothing was written.
    Duplicate,
}

/// A delivery handed out for one attempt. Dropping it without settling makes it available again.
#[must_use = "an unsettled lease is delivered again"]
#[derive(Debug)]
pub struct Lease {
    /// What to deliver.
    pub stored: Stored,
    /// Attempts made before this one.
    pub attempts: u32,
    /// uid of the destination.
    pub lane: Uid,
    /// When it was due.
    pub due: Timestamp,
    /// When it was made, if by a replay: its age and its attempts count from then.
    pub replayed: Option<Timestamp>,
    /// Bytes of its event, about.
    pub bytes: usize,
    /// Back-end's own key; gives the claim back when dropped.
    pub claim: Claim,
}

/// The event of a lease.
#[derive(Clone, Debug)]
pub enum Stored {
    /// Intact.
    Event(Arc<Event>),
    /// The stored bytes do not match their checksum, or are gone.
    Corrupt {
        /// Id, when it can still be read.
        id: Option<EventId>,
    },
}

/// A back-end's key of a leased delivery.
#[derive(Debug)]
pub struct Claim {
    /// Position of the event in the store; grows with acceptance.
    pub seq: u64,
    /// Tells this claim from every other of the process.
    pub token: u64,
    /// Called once when the claim ends without being settled.
    pub release: Option<Release>,
}

/// Gives a claim back.
pub struct Release(pub Box<dyn FnOnce() + Send + Sync>);

impl std::fmt::Debug for Release {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Release")
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(Release(release)) = self.release.take() {
            release();
        }
    }
}

/// Deliveries of one lane that are due, and when to ask again.
#[derive(Debug, Default)]
pub struct Leased {
    /// At most as many as were asked for.
    pub leases: Vec<Lease>,
    /// When the next unleased delivery of the lane is due; may be in the past when `leases` is full.
    pub next_due: Option<Timestamp>,
}

/// What becomes of a leased delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Done, well or badly: the delivery leaves the queue.
    Finished,
    /// Try again then, but not before its acceptance; one attempt more is counted.
    RetryAt(Timestamp),
    /// Not tried: ask again then, but not before its acceptance; no attempt is counted.
    PutOffUntil(Timestamp),
}

/// Which deliveries [`Queue::rewind`] puts back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Those that are due by then.
    DueBy(Timestamp),
    /// The oldest one, however far away its next attempt is.
    Oldest,
}

/// A lease, its completion, and the health that goes into the same write.
#[derive(Debug)]
pub struct Settlement {
    /// The lease.
    pub lease: Lease,
    /// What becomes of it.
    pub completion: Completion,
    /// The lane's health, when it changed in a way that must survive a crash. Attempts overlap, so an older state may
    /// come later: it never replaces a newer one, by [`Health::revision`].
    pub health: Option<Box<Health>>,
    /// With a retry: what later attempts must know, such as who has a mail already. `None` leaves the note as it is.
    pub note: Option<Box<[u8]>>,
}

/// How much waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Deliveries in the queue, leased ones included.
    pub pending: u64,
    /// When the oldest was accepted, in milliseconds since 1970; `None` when nothing waits. Told by what is there, not by
    /// the count.
    pub oldest: Option<i64>,
    /// When the next unleased one is due, in milliseconds since 1970; `None` when all are leased.
    pub next_due: Option<i64>,
}

/// What a lease would find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// When the next unleased delivery is due; `None` when all are leased.
    pub next_due: Option<Timestamp>,
    /// Deliveries that are due and at hand, counted up to what was asked for. Others may be due and have to be read.
    pub ready: usize,
}

/// Whether the store can take writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Why the store takes no writes now; `None` when it does.
    pub unavailable: Option<String>,
    /// What is stored was read: depths are what they are.
    pub known: bool,
    /// What start-up had to do to a damaged file; stays until the process ends.
    pub repaired: Option<String>,
}

/// Why a call failed. Every one is the store's fault: nothing was accepted, nothing is lost.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueueError {
    /// The project has as many deliveries waiting as it may have.
    #[error("the project's queue is full ({pending} of {limit} deliveries wait)")]
    ProjectFull {
        /// Deliveries that wait.
        pending: u64,
        /// The quota.
        limit: u64,
    },
    /// The volume has no room.
    #[error("the queue's disk is full")]
    DiskFull,
    /// The store's own size limit is reached.
    #[error("the queue's file has reached its size limit, --queue-max-bytes")]
    FileFull,
    /// The store cannot be read or written.
    #[error("the queue is unavailable: {0}")]
    Unavailable(String),
    /// More callers wait than the store's bounded inbox holds.
    #[error("the queue is overloaded")]
    Overloaded,
    /// The store was closed.
    #[error("the queue is closed")]
    Closed,
}

impl QueueError {
    /// The word for metrics and logs.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::ProjectFull { .. } => "ProjectQueueFull",
            Self::DiskFull | Self::FileFull => "DiskFull",
            Self::Unavailable(_) => "QueueUnavailable",
            Self::Overloaded => "QueueOverloaded",
            Self::Closed => "QueueClosed",
        }
    }
}

/// The durable store of events and deliveries.
#[async_trait]
pub trait Queue: HealthStore {
    /// Stores events and their deliveries, all or none; answers in the same order.
    ///
    /// # Errors
    /// See [`QueueError`]; then nothing of the batch is stored.
    async fn enqueue(&self, events: Vec<NewEvent>) -> Result<Vec<Enqueued>, QueueError>;

    /// Leases at most `limit` deliveries of a lane that are due at `now`.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn lease(&self, lane: &Uid, now: Timestamp, limit: usize) -> Result<Leased, QueueError>;

    /// Makes deliveries that retries have moved due since their acceptance, so that they are leased by age. Leased ones
    /// stay as they are. Returns how many were put back.
    ///
    /// # Errors
    /// When the store cannot be written; then some may have been put back.
    async fn rewind(&self, lane: &Uid, reach: Reach) -> Result<u64, QueueError>;

    /// Settles leases in one durable write. On an error the leases are given back, and delivered again. A lease counts
    /// once: settling it again does nothing.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), QueueError>;

    /// The note that an earlier attempt left; `None` when there is none. A look into the store: to be asked only when
    /// there was an earlier attempt, and by those who leave notes.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn note(&self, lease: &Lease) -> Result<Option<Box<[u8]>>, QueueError>;

    /// Makes new deliveries of stored events to a lane that they went to, due now, as one step of a replay. An event whose
    /// delivery waits or is under way gets no other one. Attempts and age count anew.
    ///
    /// # Errors
    /// When the store cannot be written, or the step does not fit into a project's quota: then nothing was made.
    async fn replay(&self, lane: &Uid, replay: Replay, now: Timestamp) -> Result<Replayed, QueueError>;

    /// Makes a new delivery of a leased delivery's event in another lane, due now, with a note, as a replay would; whether
    /// or not the event went there; when one waits there, that one becomes it. It counts towards the quota and is not
    /// refused for it: the leased one is about to leave. The lease stays as it is.
    ///
    /// # Errors
    /// When the store cannot be written; then nothing was made.
    async fn hand_over(
        &self,
        lease: &Lease,
        to: &Uid,
        note: Box<[u8]>,
        now: Timestamp,
    ) -> Result<HandedOver, QueueError>;

    /// Takes the delivery of the event at a position out of a lane, unless an attempt is under way.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn cancel(&self, lane: &Uid, seq: u64) -> Result<Cancelled, QueueError>;

    /// A stored event that went to a lane or waits there, by its id, for as long as ids are remembered; a `hint` at its position finds it
    /// as long as it is stored.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn find(&self, lane: &Uid, id: &EventId, hint: Option<u64>)
    -> Result<Option<Retained>, QueueError>;

    /// What waits in a lane, in the order in which it is due, after that place; at most `limit` and
    /// [`WAITING_STEP`](asked::WAITING_STEP), and less when events are large.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn waiting(&self, lane: &Uid, after: Option<(i64, u64)>, limit: usize)
    -> Result<Waits, QueueError>;

    /// Drops everything that waits in a lane, and its health, in bounded steps; returns how many deliveries.
    /// A lease that is out stays valid and settles to nothing.
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn drop_lane(&self, lane: &Uid) -> Result<u64, QueueError>;

    /// Lanes that hold deliveries or health.
    fn lanes(&self) -> Vec<Uid>;

    /// How much waits in a lane. From memory.
    fn depth(&self, lane: &Uid) -> Depth;

    /// What leasing at most `most` deliveries of a lane would find. From memory; asked before every lease.
    fn outlook(&self, lane: &Uid, now: Timestamp, most: usize) -> Outlook;

    /// Whether the store can take writes. From memory.
    fn state(&self) -> QueueState;

    /// Stops taking writes, finishes those it has, and closes the store. Idempotent.
    async fn close(&self);
}

/// The health of destinations, kept beside the queue so that a restart does not forgive a failing receiver.
#[async_trait]
pub trait HealthStore: Send + Sync {
    /// Everything stored, read once at start.
    ///
    /// # Errors
    /// When the store cannot be read.
    async fn load_health(&self) -> Result<Vec<(Uid, Health)>, QueueError>;

    /// Stores healths in one write. One that is older than what is stored is left out, by [`Health::revision`].
    ///
    /// # Errors
    /// When the store cannot be written.
    async fn save_health(&self, healths: Vec<(Uid, Health)>) -> Result<(), QueueError>;
}
