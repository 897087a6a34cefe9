//! [`SqliteQueue`]: the [`Queue`] in one `SQLite` file.
//!
//! # The file
//!
//! `<path>` with SQLite's `-wal` and `-shm` beside it, `<path>.lock`, which the process that uses the file holds, and
//! `<path>.reserve`, room for a full volume (see `reserve`).
//! Format 1 (`user_version`); `application_id` is `PRQ1`. Times of acceptance are nanoseconds, due times milliseconds
//! since 1970.
//!
//! | Table | Holds |
//! |---|---|
//! | `events(seq, project, facts, id, accepted, sum, lanes, body)` | every event until retention removes it; `seq` grows with acceptance and is never used twice. `body` is `Content::to_stored`, `sum` a checksum over the row (see `rows`), `id` 16 bytes when it is a UUID, `lanes` the numbers of the lanes it went to, so that lost deliveries can be made again |
//! | `deliveries(lane, due, seq, attempts, project)` | what waits, in the order in which it is handed out. Finishing a delivery deletes its row |
//! | `ids(project, id, accepted)` | ids in use, for 24 hours |
//! | `old_ids(seq, project, id, accepted)` | ids whose event retention has removed already; says what to remove from `ids`, and when |
//! | `lanes(number, uid, dropped)`, `projects(number, uid)`, `facts(number, json)` | names, so that rows stay small. New facts of a project get a new row: an event keeps those it was accepted with |
//! | `health(lane, json)` | `Health` of destinations |
//! | `notes(lane, seq, note)` | what attempts left for later ones of the same delivery |
//! | `replays(lane, seq, at)` | when a delivery was made that a replay or another lane has made |
//! | `keys(lane, key, at, until)` | which [keys](super::NewEvent::keys) lanes have seen, and when, in milliseconds (see `keys`) |
//! | `meta(name, value)` | `seq`: highest position given before anything was trimmed |
//!
//! Within a format, tables are only added. A file that has no `notes`, `replays` or `keys` yet gets the table when it is opened;
//! the version before can go on with a file that has it, and goes by what it knows: e-mails are nothing it sends.
//!
//! # Who does what
//!
//! One writer thread owns the only connection that writes. It takes whatever waits in a bounded inbox, writes it in
//! one transaction (WAL, `synchronous=FULL`), and then answers. A reader thread reads deliveries back that did not fit
//! into memory; a keeper thread plans retention, and checks the file after an unclean stop.
//!
//! Crash between any two lines: before the commit nothing of the group is there and nobody was answered; after it
//! everything is. Claims are in memory and vanish, so what was in flight is delivered again.
//!
//! # Faults
//!
//! | Fault | What happens |
//! |---|---|
//! | volume full | the reserve is given up, delivered events are removed, the group is written again; see `room` |
//! | file at its limit | delivered events are removed, the group is written again; when that fails, its settlements are written alone and its enqueues fail with `FileFull` |
//! | I/O error, read-only, not there | `Unavailable`; opened again every second until it heals |
//! | damaged file | moved aside as `<path>.damaged-<time>`; every intact row is carried over to a new file |
//! | damaged log | one wrong byte per page is put right, more is let in when a whole commit follows, a copy is kept, and the file is checked |
//! | removed or replaced while in use | written anew from what is still open |
//! | missing beside its log | made again from the log |
//! | damaged event | its delivery is handed out as `Corrupt` |
//! | newer format, other process | `Unavailable`; nothing is touched; opened again every second until it heals |
//!
//! A settlement that cannot be written is retried for [`Settings::settle_patience`]; then its lease is given back. For
//! want of room it is retried for as long as it takes, and nothing is leased meanwhile.

mod asked;
mod checksum;
mod complaint;
mod dropping;
mod fault;
mod healths;
mod inbox;
mod keeper;
mod keys;
mod lanes;
mod names;
mod notes;
mod opening;
mod pace;
mod pool;
mod progress;
mod raw;
mod reader;
mod replays;
mod reserve;
mod rewind;
mod room;
mod rows;
mod salvage;
mod scan;
mod schema;
mod settings;
mod store;
mod threads;
mod vanished;
mod wal;
mod writer;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::asked::{Asked, Handing};
use self::inbox::{Inbox, Op, Settling};
use self::lanes::{Grant, Lanes, Limits};
use self::progress::Progress;
use self::reserve::Reserve;
use self::rows::Row;
pub(in crate::engine) use self::rows::{IdColumn, read_id};
pub use self::settings::Settings;
use self::store::Settle;
use self::threads::Threads;
use super::asked::{Cancelled, HandedOver, Replay, Replayed, Retained, WAITING_STEP, Waits};
use super::metrics::QueueMetrics;
use super::{
    Claim, Depth, Enqueued, Lease, Leased, NewEvent, Outlook, Queue, QueueError, QueueState, Reach, Release,
    Settlement,
};
use crate::domain::id::{EventId, Uid};
use crate::domain::retry;
use crate::engine::clock::Clock;

/// What the threads and the callers share.
struct Shared {
    settings: Settings,
    metrics: QueueMetrics,
    clock: Arc<dyn Clock>,
    lanes: Mutex<Lanes>,
    state: Mutex<State>,
    inbox: Inbox,
    salvage: Progress,
    reader_slot: Mutex<reader::Slot>,
    keeper_slot: Mutex<Option<rusqlite::Connection>>,
    reserve: Reserve,
    /// What replays have opened lately.
    replays: Mutex<replays::Recent>,
    threads: Threads,
    /// Settlements wait for room: nothing is leased.
    stuck: AtomicBool,
    /// How often a file was opened.
    openings: AtomicU64,
    /// The file contradicts itself: nothing is leased until it was looked through.
    suspect: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    /// Why every call fails now.
    down: Option<QueueError>,
    /// When there was no room, and what for; a write since then clears it.
    full: Option<(Instant, QueueError)>,
    /// The file was opened once, so memory knows what it holds.
    known: bool,
    repaired: Option<String>,
    /// The keeper is to look through the file.
    check: bool,
    closed: bool,
}

/// For how long a full disk is reported when nobody tries to write.
const FULL_FOR: Duration = Duration::from_secs(5);

/// How often long work is broken off while the queue is being closed.
const INTERRUPT_EVERY: Duration = Duration::from_millis(200);

/// When a lane asks again while settlements wait for room.
const STUCK_PAUSE: Duration = Duration::from_secs(1);

impl Shared {
    /// Why every call fails now.
    fn down(&self) -> Option<QueueError> {
        let state = self.state.lock();
        if state.closed {
            Some(QueueError::Closed)
        } else {
            state.down.clone()
        }
    }
}

/// The queue in one `SQLite` file. Dropping it closes the file, too, but does not wait for that.
pub struct SqliteQueue {
    shared: Arc<Shared>,
    refills: SyncSender<reader::Refill>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
    closing: tokio::sync::Mutex<()>,
    /// Dropped when the queue is, which ends the keeper.
    keeper: Mutex<Option<SyncSender<()>>>,
}

impl std::fmt::Debug for SqliteQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteQueue")
            .field("path", &self.shared.settings.path)
            .finish_non_exhaustive()
    }
}

impl SqliteQueue {
    /// [`SqliteQueue::start`], and waits for the first try.
    ///
    /// # Errors
    /// When the process cannot start threads.
    pub async fn open(
        settings: Settings,
        metrics: QueueMetrics,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<Self> {
        let (queue, tried) = Self::start(settings, metrics, clock)?;
        tried.await;
        Ok(queue)
    }

    /// Begins to open the file, or to make it; the future ends when the first try is over. Until then, and when it
    /// failed, the queue is there but unavailable, says why in [`Queue::state`], and tries again until it heals.
    ///
    /// # Errors
    /// When the process cannot start threads.
    pub fn start(
        settings: Settings,
        metrics: QueueMetrics,
        clock: Arc<dyn Clock>,
    ) -> std::io::Result<(Self, impl Future<Output = ()> + Send + use<>)> {
        let limits = Limits {
            per_lane: settings.window_deliveries.max(8),
            bytes: settings.window_bytes,
        };
        let shared = Arc::new(Shared {
            inbox: Inbox::new(settings.inbox, settings.inbox_bytes),
            lanes: Mutex::new(Lanes::new(limits)),
            state: Mutex::new(State {
                down: Some(QueueError::Unavailable(
                    "the queue's file is being opened".to_owned(),
                )),
                ..State::default()
            }),
            salvage: Progress::default(),
            reader_slot: Mutex::default(),
            keeper_slot: Mutex::default(),
            reserve: Reserve::new(&settings.path, settings.reserve_bytes, settings.reserve_pause),
            replays: Mutex::default(),
            threads: Threads::default(),
            stuck: AtomicBool::new(false),
            openings: AtomicU64::new(0),
            suspect: AtomicBool::new(false),
            settings,
            metrics,
            clock,
        });
        // Bounded by one refill per lane; the channel itself only has to be large enough that a burst of lanes is not
        // held up.
        let (refills, asked) = sync_channel(65_536);
        let (keeper, stop) = sync_channel(1);
        let (opened, first) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = |name: &str| std::thread::Builder::new().name(format!("queue-{name}"));
        let for_reader = Arc::clone(&shared);
        thread("reader").spawn(move || {
            for_reader.supervise("reader", || reader::run(&for_reader, &asked));
        })?;
        let for_keeper = Arc::clone(&shared);
        thread("keeper").spawn(move || {
            for_keeper.supervise("keeper", || keeper::run(&for_keeper, &stop));
        })?;
        let for_writer = Arc::clone(&shared);
        thread("writer").spawn(move || {
            for_writer.supervise("writer", || writer::run(&for_writer, opened));
            end.send(()).ok();
        })?;
        let queue = Self {
            shared,
            refills,
            ended: Mutex::new(Some(ended)),
            closing: tokio::sync::Mutex::new(()),
            keeper: Mutex::new(Some(keeper)),
        };
        Ok((queue, async { drop(first.await) }))
    }

    /// Ends when a thread of the queue panicked. From then on every call fails.
    pub fn broken(&self) -> impl Future<Output = ()> + Send + use<> {
        self.shared.threads.broken.clone().cancelled_owned()
    }

    fn check(&self) -> Result<(), QueueError> {
        self.shared.down().map_or(Ok(()), Err)
    }

    async fn ask<T>(&self, make: impl FnOnce(inbox::Reply<T>) -> Op) -> Result<T, QueueError> {
        let (reply, answer) = oneshot::channel();
        self.shared.inbox.offer(make(reply), &self.shared.metrics)?;
        answer.await.unwrap_or(Err(QueueError::Closed))
    }

    fn lease_of(&self, lane: &Uid, grant: Grant) -> Lease {
        let Grant {
            key: (due, seq),
            replayed,
            stored,
            attempts,
            cost,
            token,
        } = grant;
        let (shared, uid) = (Arc::clone(&self.shared), lane.clone());
        let release = Release(Box::new(move || shared.lanes.lock().release(&uid, seq, token)));
        Lease {
            stored,
            attempts,
            lane: lane.clone(),
            due: Timestamp::from_millisecond(due).unwrap_or_default(),
            replayed: replayed.and_then(|at| Timestamp::from_millisecond(at).ok()),
            bytes: cost,
            claim: Claim {
                seq: seq.cast_unsigned(),
                token,
                release: Some(release),
            },
        }
    }
}

impl Drop for SqliteQueue {
    fn drop(&mut self) {
        self.shared.inbox.close();
    }
}

#[async_trait]
impl Queue for SqliteQueue {
    async fn enqueue(&self, events: Vec<NewEvent>) -> Result<Vec<Enqueued>, QueueError> {
        self.check()?;
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let rows = events.into_iter().map(Row::new).collect::<Result<Vec<_>, _>>();
        let rows = rows.map_err(|error| QueueError::Unavailable(error.to_string()))?;
        self.ask(|reply| Op::Enqueue(rows, reply)).await
    }

    async fn lease(&self, lane: &Uid, now: Timestamp, limit: usize) -> Result<Leased, QueueError> {
        self.check()?;
        let mut leased = Leased::default();
        if self.shared.stuck.load(Ordering::Acquire) || self.shared.suspect.load(Ordering::Acquire) {
            // What would become of more attempts could not be stored either.
            leased.next_due = Some(retry::after(self.shared.clock.now(), STUCK_PAUSE));
            return Ok(leased);
        }
        let now = now.as_millisecond();
        let mut grants = Vec::new();
        loop {
            let wanted = limit.saturating_sub(leased.leases.len());
            let granted = self.shared.lanes.lock().lease(lane, now, wanted, &mut grants);
            leased
                .leases
                .extend(grants.drain(..).map(|grant| self.lease_of(lane, grant)));
            leased.next_due = granted
                .next_due
                .and_then(|due| Timestamp::from_millisecond(due).ok());
            if let Some(number) = granted.refill {
                let asked = self.refills.try_send(reader::Refill {
                    lane: lane.clone(),
                    number,
                    now,
                });
                if asked.is_err() {
                    self.shared
                        .lanes
                        .lock()
                        .refill_failed(lane, number, &QueueError::Overloaded);
                }
            }
            let Some(wait) = granted.wait else { break };
            if let Ok(Err(error)) = wait.await {
                if leased.leases.is_empty() {
                    return Err(error);
                }
                break;
            }
        }
        leased.leases.sort_unstable_by_key(|lease| lease.claim.seq);
        Ok(leased)
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), QueueError> {
        if settlements.is_empty() {
            return Ok(());
        }
        let mut settles = Vec::with_capacity(settlements.len());
        {
            let mut lanes = self.shared.lanes.lock();
            for settlement in settlements {
                let Settlement {
                    mut lease,
                    completion,
                    health,
                    note,
                } = settlement;
                lease.claim.release = None;
                let (seq, token) = (lease.claim.seq.cast_signed(), lease.claim.token);
                if let Some(row) = lanes.begin_to_settle(&lease.lane, seq, token) {
                    settles.push(Settle {
                        lane: lease.lane.clone(),
                        row,
                        token,
                        completion,
                        health,
                        note,
                    });
                }
            }
        }
        if settles.is_empty() {
            return Ok(());
        }
        self.ask(|reply| Op::Settle(Settling::new(settles, reply))).await
    }

    async fn rewind(&self, lane: &Uid, reach: Reach) -> Result<u64, QueueError> {
        self.check()?;
        if !self.shared.lanes.lock().has_moved(lane) {
            return Ok(0);
        }
        let (mut count, mut from) = (0, Some(rewind::START));
        while let Some(start) = from {
            let rewind = rewind::Rewind::new(lane, reach, start);
            let step = self.ask(|reply| Op::Rewind(rewind, reply)).await?;
            count += step.count;
            from = step.next;
        }
        Ok(count)
    }

    async fn note(&self, lease: &Lease) -> Result<Option<Box<[u8]>>, QueueError> {
        self.check()?;
        let (lane, seq) = (lease.lane.clone(), lease.claim.seq.cast_signed());
        self.ask(|reply| Op::Note(lane, seq, reply)).await
    }

    async fn replay(&self, lane: &Uid, what: Replay, now: Timestamp) -> Result<Replayed, QueueError> {
        self.check()?;
        let now = now.as_millisecond();
        self.ask(|reply| Op::Asked(Asked::Replay(lane.clone(), what, now, reply)))
            .await
    }

    async fn hand_over(
        &self,
        lease: &Lease,
        to: &Uid,
        note: Box<[u8]>,
        now: Timestamp,
    ) -> Result<HandedOver, QueueError> {
        self.check()?;
        let handing = Handing::new(lease, to, note, now.as_millisecond());
        self.ask(|reply| Op::Asked(Asked::HandOver(handing, reply))).await
    }

    async fn cancel(&self, lane: &Uid, seq: u64) -> Result<Cancelled, QueueError> {
        self.check()?;
        self.ask(|reply| Op::Asked(Asked::Cancel(lane.clone(), seq.cast_signed(), reply)))
            .await
    }

    async fn find(
        &self,
        lane: &Uid,
        id: &EventId,
        hint: Option<u64>,
    ) -> Result<Option<Retained>, QueueError> {
        self.check()?;
        let hint = hint.map(u64::cast_signed);
        self.ask(|reply| Op::Asked(Asked::Find(lane.clone(), id.clone(), hint, reply)))
            .await
    }

    async fn waiting(
        &self,
        lane: &Uid,
        after: Option<(i64, u64)>,
        limit: usize,
    ) -> Result<Waits, QueueError> {
        self.check()?;
        let after = after.map_or(rewind::START, |(due, seq)| (due, seq.cast_signed()));
        let limit = limit.min(WAITING_STEP);
        self.ask(|reply| Op::Asked(Asked::Waiting(lane.clone(), after, limit, reply)))
            .await
    }

    async fn drop_lane(&self, lane: &Uid) -> Result<u64, QueueError> {
        self.check()?;
        self.ask(|reply| Op::Drop(lane.clone(), reply)).await
    }

    fn lanes(&self) -> Vec<Uid> {
        self.shared.lanes.lock().names()
    }

    fn depth(&self, lane: &Uid) -> Depth {
        self.shared.lanes.lock().depth(lane)
    }

    fn outlook(&self, lane: &Uid, now: Timestamp, most: usize) -> Outlook {
        self.shared.lanes.lock().outlook(lane, now.as_millisecond(), most)
    }

    fn state(&self) -> QueueState {
        let state = self.shared.state.lock();
        let full = state
            .full
            .as_ref()
            .filter(|(since, _)| since.elapsed() < FULL_FOR);
        let unavailable = match &state.down {
            Some(QueueError::Unavailable(why)) => Some(self.shared.salvage.describe(why)),
            Some(other) => Some(other.to_string()),
            None if state.closed => Some(QueueError::Closed.to_string()),
            None => full.map(|(_, error)| error.to_string()),
        };
        QueueState {
            unavailable,
            known: state.known,
            repaired: state.repaired.clone(),
        }
    }

    async fn close(&self) {
        self.shared.state.lock().closed = true;
        self.shared.inbox.close();
        drop(self.keeper.lock().take());
        let closing = self.closing.lock().await;
        let ended = self.ended.lock().take();
        if let Some(mut ended) = ended {
            // Again and again: what is broken off may be followed by more.
            while tokio::time::timeout(INTERRUPT_EVERY, &mut ended).await.is_err() {
                self.shared.threads.interrupt();
            }
        }
        drop(closing);
    }
}
