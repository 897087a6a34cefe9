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
