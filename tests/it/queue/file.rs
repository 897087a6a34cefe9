//! A queue's file: where it is, how it is opened, and what others may do to it.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use postrider::engine::clock::Clock;
use postrider::engine::queue::Queue;
use postrider::engine::queue::metrics::QueueMetrics;
use postrider::engine::queue::sqlite::{Settings, SqliteQueue};

use super::{at, fill};
use crate::support::until;

/// Bytes of a page.
pub(super) const PAGE: usize = 4096;

/// A clock that stands at one minute after the start.
struct Later;

impl Clock for Later {
    fn now(&self) -> Timestamp {
        at(60_000)
    }
}

/// The file of a queue, and what the queue counts.
pub(super) struct QueueFile {
    pub(super) settings: Settings,
    pub(super) metrics: QueueMetrics,
    /// The folder, unless somebody else keeps it.
    folder: Option<tempfile::TempDir>,
}

impl QueueFile {
    /// A file that is not there yet, in a folder of its own.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut file = Self::below(folder.path());
        file.folder = Some(folder);
        file
    }

    /// One that is opened with other settings.
    pub(super) fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut file = Self::new();
        change(&mut file.settings);
        file
    }

    /// One in somebody's folder: no reserve, and whatever is tried again is tried soon.
    pub(super) fn below(folder: &Path) -> Self {
        let mut settings = Settings::new(folder.join("queue.db"));
        settings.reserve_bytes = 0;
        settings.reopen = Duration::from_millis(20);
        settings.settle_patience = Duration::from_millis(300);
        Self {
            settings,
            metrics: QueueMetrics::default(),
            folder: None,
        }
    }

    /// One with so many events of a size, and the queue that holds it open.
    pub(super) async fn filled(count: i64, size: usize) -> (Self, Arc<SqliteQueue>) {
        let file = Self::new();
        let queue = file.open().await;
        fill(&*queue, count, size).await;
        (file, queue)
    }

    /// Opens the queue, or what there is of it; its state says which.
    pub(super) async fn open(&self) -> Arc<SqliteQueue> {
        let queue = SqliteQueue::open(self.settings.clone(), self.metrics.clone(), Arc::new(Later));
        Arc::new(queue.await.unwrap())
    }

    /// Opens a file that was closed before. A program that another test starts meanwhile holds a copy of the closed
    /// file's lock for a moment, so the first try may find it taken.
    pub(super) async fn reopen(&self) -> Arc<SqliteQueue> {
        let queue = self.open().await;
        until(|| queue.state().unavailable.is_none()).await;
        queue
    }

    /// The file as a process that was killed now leaves it: a copy of all its parts while it is in use.
    pub(super) fn killed(&self) -> Self {
        let copy = self.copied();
        std::fs::copy(self.log(), copy.log()).unwrap();
        copy
    }

    /// A copy of the file alone, to be opened with the same settings.
    pub(super) fn copied(&self) -> Self {
        let mut copy = Self::new();
        copy.settings = Settings {
            path: copy.settings.path,
            ..self.settings.clone()
        };
        std::fs::copy(self.path(), copy.path()).unwrap();
        copy
    }

    pub(super) fn path(&self) -> &Path {
        &self.settings.path
    }

    /// The log, from which SQLite moves commits into the file later.
    pub(super) fn log(&self) -> PathBuf {
        self.beside("-wal")
    }

    pub(super) fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.path().display()))
    }

    /// The names of the damaged files that were moved aside.
    pub(super) fn moved_aside(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.path().parent().unwrap());
        let names = files
            .unwrap()
            .flatten()
            .map(|file| file.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains("damaged")).collect()
    }

    /// Somebody else's way into the file.
    pub(super) fn sql(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path()).unwrap()
    }

    /// Waits until the reserve is whole.
    pub(super) async fn reserved(&self) {
        let path = self.beside(".reserve");
        until(|| std::fs::metadata(&path).is_ok_and(|file| file.len() == self.settings.reserve_bytes)).await;
    }
}

pub(super) fn length(path: impl AsRef<Path>) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// Writes over a part of a file.
pub(super) fn overwrite(path: impl AsRef<Path>, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, at).unwrap();
}

/// Changes one bit of a file.
pub(super) fn flip(path: impl AsRef<Path>, at: usize) {
    let byte = std::fs::read(&path).unwrap()[at];
    overwrite(path, at as u64, &[byte ^ 0x20]);
}
