//! [`Reserve`]: room on the volume that is kept for the moment when there is none.
//!
//! Storing what became of a delivery makes room, but needs a little of it first: the log grows before the file can
//! shrink. So `<path>.reserve` holds [`Settings::reserve_bytes`](super::Settings::reserve_bytes) of real blocks. The
//! writer removes it when the volume is full; the keeper makes it again when the volume says that there is room for
//! twice as much, and looks now and then whether somebody removed it. Where blocks cannot be allocated without writing,
//! it writes twice as many random bytes, since not every quota is told and some file systems compress. After an attempt
//! that failed although the volume had said yes, the pause doubles, up to [`LONGEST`] times the first one.
//!
//! The keeper holds the lock while it writes; whoever needs the room says so first and then waits for one chunk at
//! most. A crash leaves `<path>.reserve.new`, which the next attempt removes.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::opening::beside;
use crate::engine::queue::metrics::QueueMetrics;

/// Bytes written and synced between two looks at whether somebody needs the room.
const CHUNK: usize = 4 << 20;

/// The longest pause between two attempts, in first pauses.
const LONGEST: u32 = 64;

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
    /// The last attempts failed although the volume had said that there is room: this many times the pause passes
    /// before the next one. 0 when the volume had said no, which is worth asking again whenever there may be more.
    wait: u32,
}

/// How an attempt ended.
enum Made {
    /// It is there.
    Whole,
    /// The volume says that it has not enough room: nothing was written.
    NoRoom,
    /// The room was needed meanwhile.
    Stopped,
}

impl Reserve {
    /// The reserve of the queue in that file; nothing is touched yet. Of 0 bytes: none.
    pub(super) fn new(queue: &Path, bytes: u64, pause: Duration) -> Self {
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
            state.next = Some(Instant::now() + self.pause * state.wait.max(1));
        }
        gave
    }

    /// The volume was given room: it is worth asking at once.
    pub(super) fn try_soon(&self) {
        let mut state = self.state.lock();
        if state.wait == 0 {
            state.next = None;
        }
    }

    /// Makes it when it is not there and there is room.
    pub(super) fn keep(&self, metrics: &QueueMetrics) {
        let mut state = self.state.lock();
        if self.bytes == 0 || state.next.is_some_and(|next| next > Instant::now()) {
            return;
        }
        if state.held && !self.is_there() {
            state.held = false;
            self.missing.store(true, Ordering::Release);
            metrics.reserve.set(0);
            metrics.reserve_given_up.inc();
            tracing::error!(
                path = %self.path.display(), bytes = self.bytes,
                "somebody removed the queue's reserve; it is made anew when the volume has room for it"
            );
        }
        let made = self.make();
        state.wait = match &made {
            Ok(Made::Whole | Made::NoRoom) => 0,
            Ok(Made::Stopped) | Err(_) => state.wait.saturating_mul(2).clamp(1, LONGEST),
        };
        state.next = Some(Instant::now() + self.pause * state.wait.max(1));
        match made {
            Ok(Made::Whole) => {
                state.held = true;
                metrics.reserve.set(i64::try_from(self.bytes).unwrap_or(i64::MAX));
                if self.missing.swap(false, Ordering::AcqRel) {
                    tracing::info!(
                        path = %self.path.display(), bytes = self.bytes,
                        "the volume has room again; the queue's reserve was made anew"
                    );
                }
            }
            Ok(Made::Stopped) => state.stopped = true,
            Ok(Made::NoRoom) => self.complain(&ErrorKind::StorageFull.into()),
            Err(error) => self.complain(&error),
        }
    }

    fn complain(&self, error: &std::io::Error) {
        let full = matches!(
            error.kind(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge
        );
        if !self.missing.load(Ordering::Acquire) {
            tracing::warn!(
                path = %self.path.display(), bytes = self.bytes, %error,
                "the queue's reserve cannot be made; the volume needs twice its size of free room"
            );
        }
        if full {
            self.missing.store(true, Ordering::Release);
        }
    }

    /// Makes the file.
    fn make(&self) -> std::io::Result<Made> {
        if self.is_there() {
            return Ok(Made::Whole);
        }
        let fresh = self.path.with_added_extension("new");
        std::fs::remove_file(&fresh).or_else(|error| {
            if error.kind() == ErrorKind::NotFound {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        if self.free()? < self.bytes.saturating_mul(2) {
            return Ok(Made::NoRoom);
        }
        let made = self.fill(&fresh);
        if !matches!(made, Ok(Made::Whole)) {
            std::fs::remove_file(&fresh).ok();
            return made;
        }
        std::fs::rename(&fresh, &self.path)?;
        Ok(Made::Whole)
    }

    fn is_there(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|found| found.len() == self.bytes)
    }

    /// Bytes that the volume says are free for this process.
    fn free(&self) -> std::io::Result<u64> {
        let directory = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let volume = rustix::fs::statvfs(directory.unwrap_or(Path::new(".")))?;
        Ok(volume.f_bavail.saturating_mul(volume.f_frsize))
    }

    fn fill(&self, fresh: &Path) -> std::io::Result<Made> {
        let mut file = File::create(fresh)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => {
                file.sync_all()?;
                return Ok(Made::Whole);
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        let mut left = self.bytes.saturating_mul(2);
        let mut chunk = vec![0; CHUNK];
        while left > 0 {
            if self.needed.load(Ordering::Acquire) {
                return Ok(Made::Stopped);
            }
            rand::fill(&mut chunk[..]);
            let length = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            file.write_all(chunk.get(..length).unwrap_or_default())?;
            file.sync_data()?;
            left -= length as u64;
        }
        file.set_len(self.bytes)?;
        file.sync_all()?;
        Ok(Made::Whole)
    }
}
