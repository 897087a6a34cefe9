//! What the queue's threads owe each other: long work is broken off when the file is closed, and a thread that panics
//! ends the process.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, InterruptHandle};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::engine::queue::QueueError;

/// How long the writer waits for another thread before it breaks off what that one reads.
const PATIENCE: Duration = Duration::from_millis(20);

/// Statements that may take long, and who ended.
#[derive(Default)]
pub(super) struct Threads {
    /// The keeper's connection.
    keeper: Mutex<Option<InterruptHandle>>,
    /// The connections of a salvage.
    salvage: Mutex<Vec<InterruptHandle>>,
    /// A thread panicked.
    pub(super) broken: CancellationToken,
}

impl Threads {
    pub(super) fn keeper_opened(&self, connection: &Connection) {
        *self.keeper.lock() = Some(connection.get_interrupt_handle());
    }

    pub(super) fn salvage_opened(&self, connection: &Connection) {
        self.salvage.lock().push(connection.get_interrupt_handle());
    }

    pub(super) fn salvage_ended(&self) {
        self.salvage.lock().clear();
    }

    /// Breaks off what the keeper reads. It is begun anew later.
    pub(super) fn interrupt_keeper(&self) {
        if let Some(keeper) = &*self.keeper.lock() {
            keeper.interrupt();
        }
    }

    /// Breaks off everything that may take long. A salvage notices at its next step and leaves the damaged file alone.
    pub(super) fn interrupt(&self) {
        self.interrupt_keeper();
        for connection in &*self.salvage.lock() {
            connection.interrupt();
        }
    }
}

impl Shared {
    /// Closes the keeper's connection, whatever it is doing.
    pub(super) fn close_keeper(&self) {
        loop {
            if let Some(mut slot) = self.keeper_slot.try_lock_for(PATIENCE) {
                *slot = None;
                return;
            }
            self.threads.interrupt_keeper();
        }
    }

    /// Runs a thread's work. When it panics, every call fails from then on, and whoever waits for
    /// [`Threads::broken`] is told.
    pub(super) fn supervise(&self, name: &'static str, work: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(work)).is_ok() {
            return;
        }
        tracing::error!(thread = name, "a thread of the queue panicked");
        let why = format!("the queue's {name} panicked; the process must be started again");
        self.state.lock().down = Some(QueueError::Unavailable(why));
        self.inbox.close();
        self.threads.broken.cancel();
    }
}

#[cfg(test)]
mod tests {
    //! Endless work is broken off, and a panic is told.

    use std::sync::mpsc::channel;

    use super::*;
    use crate::engine::clock::SystemClock;
    use crate::engine::queue::Queue as _;
    use crate::engine::queue::metrics::QueueMetrics;
    use crate::engine::queue::sqlite::{Settings, SqliteQueue};

    const ENDLESS: &str =
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n";

    async fn queue(folder: &tempfile::TempDir) -> SqliteQueue {
        let settings = Settings {
            reserve_bytes: 0,
            ..Settings::new(folder.path().join("queue.db"))
        };
        let queue = SqliteQueue::open(
            settings,
            QueueMetrics::default(),
            std::sync::Arc::new(SystemClock),
        );
        queue.await.unwrap()
    }

    #[tokio::test]
    async fn closing_breaks_off_what_the_keeper_reads() {
        let folder = tempfile::tempdir().unwrap();
        let queue = queue(&folder).await;
        let shared = std::sync::Arc::clone(&queue.shared);
        let (said, told) = channel();
        let reading = std::thread::spawn(move || {
            let mut slot = shared.keeper_slot.lock();
            let connection = Connection::open_in_memory().unwrap();
            shared.threads.keeper_opened(&connection);
            said.send(()).unwrap();
            let read = connection.query_row(ENDLESS, [], |row| row.get::<_, i64>(0));
            *slot = None;
            read.unwrap_err().sqlite_error_code()
        });
        told.recv().unwrap();
        queue.close().await;
        let broken_off = reading.join().unwrap();
        assert_eq!(broken_off, Some(rusqlite::ErrorCode::OperationInterrupted));
    }

    #[tokio::test]
    async fn a_thread_that_panics_is_told_and_nothing_is_taken_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let queue = queue(&folder).await;
        let broken = queue.broken();
        queue.shared.supervise("reader", || panic!("as asked"));
        broken.await;
        let why = queue.state().unavailable.unwrap();
        assert!(why.contains("reader panicked"), "{why}");
        assert!(queue.enqueue(Vec::new()).await.is_err());
        queue.close().await;
    }
}
