//! [`SqliteLog`]: the [`DeliveryLog`] in an `SQLite` file of its own.
//!
//! One thread owns the file. Those who record only put records into a bounded list in memory; the thread takes all of
//! them at once, some twenty times a second, and writes them in one transaction. Nothing is synced: after `kill -9` at
//! most what waited is missing, after a power cut the file may be damaged, and is begun anew. A question is answered on
//! the same thread, after what was recorded before it.
//!
//! | Fault | What happens |
//! |---|---|
//! | too many records wait | new ones are dropped and counted |
//! | damaged, of another format, volume full | the file is removed and begun anew: a log is worth less than room for the queue |
//! | cannot be opened, read or written | records are dropped and counted; tried again after [`PAUSE`] |
//! | the thread panics | the log is off until the process ends, and says so |
//!
//! Bounds: [`Settings`]. Records go by age, and the oldest when the file is too large, [`store::STEP`] at a time between
//! other work.

mod eras;
mod query;
mod steady;
mod store;
mod words;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use self::steady::Steady;
use self::store::{Fault, Store};
use super::metrics::LogMetrics;
use super::{DeliveryLog, LogError, Page, Query, Which};
use crate::domain::delivery_log::Record;
use crate::domain::id::Uid;
use crate::domain::retry::before;
use crate::engine::clock::Clock;

/// How long records gather before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// For how long a file that cannot be used is left alone.
const PAUSE: Duration = Duration::from_secs(30);
/// How often age and size are looked at.
const TIDY: Duration = Duration::from_secs(1);
/// For how long the clock must have run without a jump before records go by their age; no longer than the retention.
/// One that is wrong for a moment, also when the process starts, would empty the log at once.
const STEADY: Duration = Duration::from_secs(300);
/// Steps of removing between other work.
const STEPS: usize = 16;
/// Questions that may wait; more are told that the log is unavailable.
const QUESTIONS: usize = 256;

/// Bounds and places.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// Records that are older are removed.
    pub retention: Duration,
    /// Room that records may take; beyond, the oldest are removed.
    pub max_bytes: u64,
    /// Records that may wait to be written; more are dropped.
    pub waiting: usize,
    /// Bytes that they may take, about; more are dropped.
    pub waiting_bytes: usize,
    /// For how long a file that cannot be used is left alone.
    pub pause: Duration,
}

impl Settings {
    /// The defaults, for a file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            retention: Duration::from_secs(72 * 3600),
            max_bytes: 256 << 20,
            waiting: 16_384,
            waiting_bytes: 16 << 20,
            pause: PAUSE,
        }
    }
}

type Reply<T> = oneshot::Sender<Result<T, LogError>>;

enum Question {
    List(Uid, Query, Reply<Page>),
    Attempts(Uid, Which, Reply<Vec<Record>>),
}

#[derive(Default)]
struct Waiting {
    records: Vec<Record>,
    /// Bytes of the records, about.
    bytes: usize,
    questions: Vec<Question>,
    /// The thread sleeps until it is rung.
    idle: bool,
    closed: bool,
}

struct Shared {
    settings: Settings,
    metrics: LogMetrics,
    clock: Arc<dyn Clock>,
    waiting: Mutex<Waiting>,
    bell: Condvar,
}

/// The log in one `SQLite` file. Dropping it ends its thread, too, but does not wait for that.
pub struct SqliteLog {
    shared: Arc<Shared>,
    ended: Mutex<Option<oneshot::Receiver<()>>>,
}

/// Removes the file of a log that is no longer kept; nothing when there is none.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove(path: &std::path::Path) -> std::io::Result<()> {
    store::remove(path)
}

impl SqliteLog {
    /// Starts the thread, which opens the file.
    ///
    /// # Errors
    /// When the process cannot start a thread.
    pub fn start(settings: Settings, metrics: LogMetrics, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            settings,
            metrics,
            clock,
            waiting: Mutex::default(),
            bell: Condvar::new(),
        });
        let (end, ended) = oneshot::channel();
        let of_thread = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("delivery-log".to_owned())
            .spawn(move || {
                let worker = Worker::new(&of_thread);
                let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| worker.run()));
                if ran.is_err() {
                    tracing::error!(
                        "the delivery log's thread panicked: the log is off until the process ends"
                    );
                    of_thread.metrics.paused.set(1);
                }
                let left = {
                    let mut waiting = of_thread.waiting.lock();
                    waiting.closed = true;
                    waiting.questions.clear();
                    std::mem::take(&mut waiting.records)
                };
                of_thread.metrics.unwritten(left.len() as u64);
                end.send(()).ok();
            })?;
        Ok(Self {
            shared,
            ended: Mutex::new(Some(ended)),
        })
    }

    async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> Question) -> Result<T, LogError> {
        let (reply, answer) = oneshot::channel();
        {
            let mut waiting = self.shared.waiting.lock();
            if waiting.closed {
                return Err(LogError::Unavailable("it is closed".to_owned()));
            }
            if waiting.questions.len() >= QUESTIONS {
                return Err(LogError::Unavailable("too many questions wait".to_owned()));
            }
            waiting.questions.push(make(reply));
        }
        self.shared.bell.notify_one();
        let closed = |_| LogError::Unavailable("it was closed".to_owned());
        answer.await.map_err(closed)?
    }
}

impl Drop for SqliteLog {
    fn drop(&mut self) {
        self.shared.waiting.lock().closed = true;
        self.shared.bell.notify_one();
    }
}

#[async_trait]
impl DeliveryLog for SqliteLog {
    fn is_on(&self) -> bool {
        true
    }

    fn record(&self, record: Record) {
        let shared = &self.shared;
        let bytes = record.size();
        let mut waiting = shared.waiting.lock();
        let settings = &shared.settings;
        if waiting.closed
            || waiting.records.len() >= settings.waiting
            || waiting.bytes.saturating_add(bytes) > settings.waiting_bytes
        {
            drop(waiting);
            return shared.metrics.full(1);
        }
        waiting.bytes += bytes;
        waiting.records.push(record);
        let ring = std::mem::take(&mut waiting.idle);
        drop(waiting);
        if ring {
            shared.bell.notify_one();
        }
    }

    async fn list(&self, lane: &Uid, query: Query) -> Result<Page, LogError> {
        self.ask(|reply| Question::List(lane.clone(), query, reply)).await
    }

    async fn attempts(&self, lane: &Uid, which: Which) -> Result<Vec<Record>, LogError> {
        self.ask(|reply| Question::Attempts(lane.clone(), which, reply))
            .await
    }

    async fn close(&self) {
        self.shared.waiting.lock().closed = true;
        self.shared.bell.notify_one();
        let ended = self.ended.lock().take();
        if let Some(ended) = ended {
            ended.await.ok();
        }
    }
}

enum Phase {
    Open(Box<Store>),
    Paused { why: String, until: Instant },
}

struct Worker<'a> {
    shared: &'a Shared,
    phase: Phase,
    tidied: Instant,
    steady: Steady,
    /// There was more to remove than one step.
    untidy: bool,
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared) -> Self {
        let now = Instant::now();
        Self {
            shared,
            phase: Phase::Paused {
                why: "it is not open yet".to_owned(),
                until: now,
            },
            tidied: now,
            steady: Steady::new(now),
            untidy: true,
        }
    }

    fn run(mut self) {
        self.open();
        loop {
            let (records, questions, closed) = self.take();
            self.reopen();
            self.write(&records);
            for question in questions {
                self.answer(question);
            }
            self.tidy();
            if closed {
                return;
            }
        }
    }

    /// Waits for records, lets them gather, and takes what there is. Questions are not kept waiting.
    fn take(&self) -> (Vec<Record>, Vec<Question>, bool) {
        let mut waiting = self.shared.waiting.lock();
        let deadline = Instant::now() + if self.untidy { Duration::ZERO } else { TIDY };
        while waiting.records.is_empty() && waiting.questions.is_empty() && !waiting.closed {
            waiting.idle = true;
            if self.shared.bell.wait_until(&mut waiting, deadline).timed_out() {
                break;
            }
        }
        waiting.idle = false;
        let deadline = Instant::now() + GATHER;
        while !waiting.records.is_empty() && waiting.questions.is_empty() && !waiting.closed {
            if self.shared.bell.wait_until(&mut waiting, deadline).timed_out() {
                break;
            }
        }
        waiting.bytes = 0;
        (
            std::mem::take(&mut waiting.records),
            std::mem::take(&mut waiting.questions),
            waiting.closed,
        )
    }

    fn open(&mut self) {
        let opened = Store::open(&self.shared.settings.path).or_else(|fault| {
            if !fault.begin_anew {
                return Err(fault);
            }
            self.begin_anew(&fault)
        });
        match opened {
            Ok(store) => {
                self.shared.metrics.paused.set(0);
                self.phase = Phase::Open(Box::new(store));
            }
            Err(fault) => self.pause(&fault),
        }
    }

    fn begin_anew(&self, fault: &Fault) -> Result<Store, Fault> {
        let path = &self.shared.settings.path;
        tracing::warn!(
            log.path = %path.display(), error = %fault,
            "the delivery log's file is removed and begun anew; deliveries are not affected"
        );
        self.shared.metrics.restarts.inc();
        store::remove(path)?;
        Store::open(path)
    }

    fn pause(&mut self, fault: &Fault) {
        tracing::warn!(
            log.path = %self.shared.settings.path.display(), error = %fault,
            "the delivery log cannot be used; it is tried again; deliveries are not affected"
        );
        self.shared.metrics.paused.set(1);
        self.phase = Phase::Paused {
            why: fault.to_string(),
            until: Instant::now() + self.shared.settings.pause,
        };
    }

    fn reopen(&mut self) {
        if matches!(&self.phase, Phase::Paused { until, .. } if *until <= Instant::now()) {
            self.open();
        }
    }

    /// Does what a fault asks for; the file is closed before.
    fn fail(&mut self, fault: &Fault) {
        let closed = Phase::Paused {
            why: fault.to_string(),
            until: Instant::now(),
        };
        drop(std::mem::replace(&mut self.phase, closed));
        if !fault.begin_anew {
            return self.pause(fault);
        }
        match self.begin_anew(fault) {
            // Its room is for others first.
            Ok(_) if fault.is_full => self.pause(fault),
            Ok(store) => self.phase = Phase::Open(Box::new(store)),
            Err(again) => self.pause(&again),
        }
    }

    fn write(&mut self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        let count = records.len() as u64;
        let now = self.shared.clock.now();
        let done = match &mut self.phase {
            Phase::Open(store) => store.write(records, now),
            Phase::Paused { .. } => return self.shared.metrics.unwritten(count),
        };
        match done {
            Ok(()) => drop(self.shared.metrics.written.inc_by(count)),
            Err(fault) => {
                self.shared.metrics.unwritten(count);
                self.fail(&fault);
            }
        }
    }

    fn answer(&mut self, question: Question) {
        let store = match &mut self.phase {
            Phase::Open(store) => store,
            Phase::Paused { why, .. } => {
                let error = LogError::Unavailable(why.clone());
                match question {
                    Question::List(.., reply) => drop(reply.send(Err(error))),
                    Question::Attempts(.., reply) => drop(reply.send(Err(error))),
                }
                return;
            }
        };
        let told = |fault: &Fault| LogError::Unavailable(fault.to_string());
        let failed = match question {
            Question::List(lane, query, reply) => {
                // The clock may have been put back since the last record.
                let followed = store.follow(self.shared.clock.now());
                let answer = followed.and_then(|()| store.list(&lane, &query));
                let failed = answer.as_ref().err().cloned();
                reply.send(answer.map_err(|fault| told(&fault))).ok();
                failed
            }
            Question::Attempts(lane, which, reply) => {
                let answer = store.attempts(&lane, &which);
                let failed = answer.as_ref().err().cloned();
                reply.send(answer.map_err(|fault| told(&fault))).ok();
                failed
            }
        };
        if let Some(fault) = failed {
            self.fail(&fault);
        }
    }

    fn tidy(&mut self) {
        let now = Instant::now();
        let Phase::Open(store) = &mut self.phase else {
            self.untidy = false;
            return;
        };
        let settings = &self.shared.settings;
        let is_large = store.used().is_ok_and(|bytes| bytes > settings.max_bytes);
        if !self.untidy && !is_large && now.duration_since(self.tidied) < TIDY {
            return;
        }
        self.tidied = now;
        let clock = self.shared.clock.now();
        let steady = self.steady.look(now, clock) >= STEADY.min(settings.retention);
        let oldest = steady.then(|| before(clock, settings.retention));
        // More than can be written meanwhile, and then other work again.
        for _ in 0..STEPS {
            match store.trim(oldest, settings.max_bytes) {
                Ok(trimmed) => {
                    self.shared.metrics.removed.inc_by(trimmed.removed);
                    let bytes = i64::try_from(trimmed.bytes).unwrap_or(i64::MAX);
                    self.shared.metrics.bytes.set(bytes);
                    self.untidy = trimmed.more;
                }
                Err(fault) => {
                    self.untidy = false;
                    return self.fail(&fault);
                }
            }
            if !self.untidy {
                return;
            }
        }
    }
}
