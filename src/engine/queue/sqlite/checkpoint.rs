//! The checkpointer thread: copies the log back into the file while the writer goes on, so that a commit rarely waits
//! for it.
//!
//! The writer's hook sees the log's length after each commit. From [`START`] pages on it asks for a checkpoint; the
//! thread copies what is there, and again what came meanwhile, at most [`PASSES`] times. Once all of it is copied the
//! next commit starts the log anew. A writer that never pauses is not caught up with this way, so it is then told to
//! copy the short rest itself. It also does so from [`LONGEST`] pages on, after what the thread is copying just then: so
//! the log has at most that many pages and one group. Only a reader that looks for long at an old state of the file,
//! as the check after an unclean stop does, lets it grow further; it is cut back to [`LOG_BYTES`] afterwards.
//!
//! Both kinds are *passive* (<https://sqlite.org/c3ref/wal_checkpoint_v2.html>): neither waits for readers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, MAIN_DB};

use super::Shared;
use super::fault::StoreError;
use super::inbox::Op;
use super::schema::{self, PAGE};
use super::store::Store;
use super::wal::FRAME;
use super::writer::GROUP_BYTES;

/// Pages of log from which on it is copied back.
const START: u32 = 1000;
/// Pages of log from which on the writer copies it back.
const LONGEST: u32 = 4000;
/// Bytes that the log takes, and by which copying it back can make the file grow: as above, and one group.
pub(super) const LOG_BYTES: u64 = LONGEST as u64 * (PAGE + FRAME as u64) + GROUP_BYTES as u64;
/// How often the thread copies before it leaves the rest to the writer.
const PASSES: usize = 3;
/// Requests are ignored for so long after a failure, such as a full disk.
const PAUSE: Duration = Duration::from_secs(1);

/// What writer and checkpointer share.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    /// The writer is to copy the rest at its next commit.
    finish: AtomicBool,
    slot: Mutex<Option<Connection>>,
}

impl Checkpoints {
    /// Closes the connection, after the checkpoint that is under way.
    pub(super) fn close(&self) {
        *self.slot.lock() = None;
    }
}

/// Asks for checkpoints whenever the writer's log is long.
pub(super) fn watch(
    store: &mut Store,
    shared: &Arc<Shared>,
    ask: &SyncSender<()>,
) -> Result<(), rusqlite::Error> {
    let (shared, ask) = (Arc::downgrade(shared), ask.clone());
    store.on_commit(move |log, pages| {
        let Some(shared) = shared.upgrade() else { return };
        let asked = shared.checkpoints.finish.swap(false, Ordering::Relaxed);
        if pages >= LONGEST || (asked && pages >= START) {
            // The thread may be at it; it holds the lock meanwhile, and a log of this length does not grow on.
            let turn = (pages >= LONGEST).then(|| shared.checkpoints.slot.lock());
            if let Err(error) = log.checkpoint()
                && !is_busy(&error)
            {
                shared.metrics.failed_checkpoints.inc();
            }
            drop(turn);
        } else if pages >= START {
            // One request is enough.
            ask.try_send(()).ok();
        }
    })
}

/// Serves requests until nobody can ask.
pub(super) fn run(shared: &Arc<Shared>, asked: &Receiver<()>) {
    let mut failed: Option<Instant> = None;
    while asked.recv().is_ok() {
        if failed.is_some_and(|failed| failed.elapsed() < PAUSE) {
            continue;
        }
        let mut slot = shared.checkpoints.slot.lock();
        // Asked under the lock: a file that is being replaced is down before `close` is called.
        if shared.down().is_some() {
            continue;
        }
        let done = copy(shared, &mut slot);
        if done.is_err() {
            *slot = None;
        }
        drop(slot);
        let again = std::mem::replace(&mut failed, done.is_err().then(Instant::now)).is_some();
        match done {
            Ok(complete) => shared.checkpoints.finish.store(!complete, Ordering::Relaxed),
            Err(StoreError::Damaged(what)) => drop(shared.inbox.push(Op::Damaged(what))),
            Err(error) if again => {
                shared.metrics.failed_checkpoints.inc();
                tracing::debug!(error = %error, "the queue's log could not be copied back again");
            }
            Err(error) => {
                shared.metrics.failed_checkpoints.inc();
                tracing::warn!(error = %error, "the queue's log could not be copied back; it is tried again");
            }
        }
    }
}

/// Copies the log back; whether all of it was.
fn copy(shared: &Shared, slot: &mut Option<Connection>) -> Result<bool, StoreError> {
    let connection = match slot {
        Some(connection) => connection,
        None => slot.insert(schema::open_reader(&shared.settings.path)?),
    };
    for _ in 0..PASSES {
        match connection.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE) {
            Ok((log, copied)) if log == copied => return Ok(true),
            Ok(_) => {}
            // The writer is at it.
            Err(error) if is_busy(&error) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy)
}
