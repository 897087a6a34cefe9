//! [`Reserve`]: room on the volume that is kept for the moment when there is none.
//!
//! Storing what became of a delivery makes room, but needs a little of it first: the log grows before the file can
//! shrink. So `<path>.reserve` holds [`Settings::reserve_bytes`](super::Settings::reserve_bytes) of real blocks. The
//! writer removes it when the volume is full; the keeper makes it again when there is room for twice as much, which it
//! finds out by writing that, since quotas are not seen otherwise. The bytes are random, so that file systems that
//! compress store them, too.
//!
//! The keeper holds the lock while it writes; whoever needs the room says so first and then waits for one chunk at
//! most. A crash leaves `<path>.reserve.new`, which the next attempt writes over.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::opening::beside;
use crate::engine::queue::metrics::QueueMetrics;

/// Bytes written between two looks at whether somebody needs the room.
const CHUNK: usize = 256 << 10;

/// The reserve of one queue.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    bytes: u64,
    pause: Duration,
    /// There is no room for it.
    missing: AtomicBool,
    /// The room is needed elsewhere: stop writing.
    needed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    held: bool,
    /// Making it was stopped, which freed what was written.
    stopped: bool,
    /// Not tried again before then.
    next: Option<Instant>,
}

impl Reserve {
    /// The reserve of the queue in that file; nothing is touched yet. Of 0 bytes: none.
    pub(super) fn new(queue: &std::path::Path, bytes: u64, pause: Duration) -> Self {
        Self {
            path: beside(queue, ".reserve"),
            bytes,
            pause,
            missing: AtomicBool::new(false),
            needed: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// Its size.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether there is no room for it: what the volume has left is for settlements and retention alone.
    pub(super) fn is_missing(&self) -> bool {
        self.missing.load(Ordering::Acquire)
    }

    /// Gives its room to the volume; answers whether there was any to give.
    pub(super) fn give_up(&self, metrics: &QueueMetrics) -> bool {
        if self.bytes == 0 {
            return false;
        }
        self.needed.store(true, Ordering::Release);
        let mut state = self.state.lock();
        self.needed.store(false, Ordering::Release);
        state.held = false;
        self.missing.store(true, Ordering::Release);
        metrics.reserve.set(0);
        let given = std::fs::remove_file(&self.path).is_ok();
        if given {
            metrics.reserve_given_up.inc();
            tracing::error!(
                path = %self.path.display(), bytes = self.bytes, reason = "DiskFull",
                "the volume is full; the queue's reserve was given up, so that results can be stored"
            );
        }
        let gave = given || std::mem::take(&mut state.stopped);
        if gave {
            state.next = Some(Instant::now() + self.pause);
        }
        gave
    }

    /// The volume was given room: it is worth trying at once.
    pub(super) fn try_soon(&self) {
        self.state.lock().next = None;
    }

    /// Makes it when it is not there and there is room.
    pub(super) fn keep(&self, metrics: &QueueMetrics) {
        let mut state = self.state.lock();
        if self.bytes == 0 || state.held || state.next.is_some_and(|next| next > Instant::now()) {
            return;
        }
        state.next = Some(Instant::now() + self.pause);
        match self.make() {
            Ok(true) => {
                state.held = true;
                metrics.reserve.set(i64::try_from(self.bytes).unwrap_or(i64::MAX));
                if self.missing.swap(false, Ordering::AcqRel) {
                    tracing::info!(
                        path = %self.path.display(), bytes = self.bytes,
                        "the volume has room again; the queue's reserve was made anew"
                    );
                }
            }
            Ok(false) => state.stopped = true,
            Err(error) => {
                let full = matches!(
                    error.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
                );
                if !self.missing.load(Ordering::Acquire) {
                    tracing::warn!(
                        path = %self.path.display(), bytes = self.bytes, error = %error,
                        "the queue's reserve cannot be made; the volume needs twice its size of free room"
                    );
                }
                if full {
                    self.missing.store(true, Ordering::Release);
                }
            }
        }
    }

    /// Makes the file; `false` when the room was needed meanwhile.
    fn make(&self) -> std::io::Result<bool> {
        if std::fs::metadata(&self.path).is_ok_and(|found| found.len() == self.bytes) {
            return Ok(true);
        }
        let fresh = self.path.with_added_extension("new");
        let made = self.fill(&fresh);
        if !matches!(made, Ok(true)) {
            std::fs::remove_file(&fresh).ok();
            return made;
        }
        std::fs::rename(&fresh, &self.path)?;
        Ok(true)
    }

    fn fill(&self, fresh: &std::path::Path) -> std::io::Result<bool> {
        let mut file = File::create(fresh)?;
        let mut left = self.bytes.saturating_mul(2);
        let mut chunk = vec![0; CHUNK];
        while left > 0 {
            if self.needed.load(Ordering::Acquire) {
                return Ok(false);
            }
            rand::fill(&mut chunk[..]);
            let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            file.write_all(chunk.get(..length).unwrap_or_default())?;
            file.sync_data()?;
            left -= length as u64;
        }
        file.set_len(self.bytes)?;
        file.sync_all()?;
        Ok(true)
    }
}
