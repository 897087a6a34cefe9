//! Opening the file: the lock, the log's check, and what to do with a damaged file.
//!
//! Runs on the writer thread, at the start and after every fault that may heal. It decides between "leave it alone and
//! try again" and "move it aside and carry over what is intact"; see the table in [`sqlite`](super).

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use rusqlite::Connection;

use super::fault::StoreError;
use super::schema::{self, Contents};
use super::store::Store;
use super::{Shared, salvage, vanished, wal};

/// Most characters that tell of repairs.
const MAX_REPAIRS: usize = 3000;

/// An open file.
#[derive(Debug)]
pub(super) struct Opened {
    /// The writer's side.
    pub(super) store: Store,
    /// Lanes whose dropping was not finished.
    pub(super) dropped: Vec<i64>,
}

/// A path with something appended to its last part.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Makes what was renamed beside a file survive a power failure.
pub(super) fn sync_directory(path: &Path) -> Result<(), StoreError> {
    let directory = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(())
}

/// Takes the lock that keeps a second process out. Held until the file handle is dropped, by a crash, too.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    if let Some(directory) = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        std::fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(beside(path, ".lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

/// Opens the file, mending or replacing it when it is damaged.
pub(super) fn open(shared: &Shared) -> Result<Opened, StoreError> {
    let path = &shared.settings.path;
    schema::refuse_newer(path)?;
    let time = salvage::time(shared);
    salvage::resume(path, &time)?;
    vanished::restore(shared, &time)?;
    // A log that has content means that nobody closed the file.
    let unclean = std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let log = if unclean {
        wal::mend(path, &time)?
    } else {
        wal::Found::default()
    };
    if log.torn > 0 {
        shared.metrics.torn_commits.inc();
        tracing::warn!(
            queue.path = %path.display(), pages = log.torn,
            "the log ended within a commit, which was dropped; it was not acknowledged, unless the disk lost what it \
             had confirmed"
        );
    }
    shared.state.lock().check |= unclean;
    let Some(mended) = log.mended else {
        return open_or_replace(shared);
    };
    shared.metrics.mended_logs.inc();
    say(shared, &mended);
    // Frames that SQLite would have dropped were let in: make sure that they fit.
    let checked = try_open(shared).and_then(|(connection, contents)| {
        quick_check(&connection)?;
        Ok((connection, contents))
    });
    match checked {
        Ok((connection, contents)) => {
            shared.state.lock().check = false;
            Ok(finish(shared, connection, contents))
        }
        Err(StoreError::Damaged(what)) => replace(shared, &what),
        Err(error) => Err(error),
    }
}

fn open_or_replace(shared: &Shared) -> Result<Opened, StoreError> {
    match try_open(shared) {
        Ok((connection, contents)) => Ok(finish(shared, connection, contents)),
        Err(StoreError::Damaged(what)) => replace(shared, &what),
        Err(error) => Err(error),
    }
}

/// Moves the file aside and carries over what is intact. No connection to it may be open.
pub(super) fn replace(shared: &Shared, damage: &str) -> Result<Opened, StoreError> {
    let report = salvage::replace(shared, damage)?;
    say(shared, &report);
    shared.metrics.moved_aside.inc();
    let (connection, contents) = try_open(shared)?;
    Ok(finish(shared, connection, contents))
}

/// Looks through all pages and indexes.
pub(super) fn quick_check(connection: &Connection) -> Result<(), StoreError> {
    // The first does not look at the order of rows. Deliveries are read in their order, so that one out of it hides
    // those behind it.
    for check in ["PRAGMA quick_check(1)", "PRAGMA integrity_check(deliveries)"] {
        let found: String = connection.query_row(check, [], |row| row.get(0))?;
        if found != "ok" {
            return Err(StoreError::Damaged(found));
        }
    }
    Ok(())
}

/// Tells of a repair; the newest comes first.
pub(super) fn say(shared: &Shared, what: &str) {
    tracing::error!(queue.path = %shared.settings.path.display(), repair = what, "the queue's file was damaged");
    let repaired = &mut shared.state.lock().repaired;
    let mut told = match repaired.take() {
        Some(before) => format!("{what}; before that: {before}"),
        None => what.to_owned(),
    };
    if let Some((end, _)) = told.char_indices().nth(MAX_REPAIRS) {
        told.truncate(end);
    }
    *repaired = Some(told);
}

fn try_open(shared: &Shared) -> Result<(Connection, Contents), StoreError> {
    let connection = schema::open_writer(&shared.settings.path, shared.settings.max_bytes)?;
    let contents = schema::read_contents(&connection)?;
    Ok((connection, contents))
}

fn finish(shared: &Shared, connection: Connection, mut contents: Contents) -> Opened {
    let store = Store::new(connection, &contents);
    shared.lanes.lock().reload(std::mem::take(&mut contents.lanes));
    shared.suspect.store(false, Ordering::Release);
    shared.openings.fetch_add(1, Ordering::AcqRel);
    Opened {
        store,
        dropped: contents.dropped,
    }
}
