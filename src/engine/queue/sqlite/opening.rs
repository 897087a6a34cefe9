//! Opening the file: the lock, the log's check, and what to do with a damaged file.
//!
//! Runs on the writer thread, at the start and after every fault that may heal. It decides between "leave it alone and
//! try again" and "move it aside and carry over what is intact"; see the table in [`sqlite`](super).

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::fault::StoreError;
use super::schema::{self, Contents};
use super::store::Store;
use super::{Shared, salvage, wal};

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
    let time = salvage::time(shared);
    salvage::resume(path, &time)?;
    // A log that has content means that nobody closed the file.
    let unclean = std::fs::metadata(beside(path, "-wal")).is_ok_and(|log| log.len() > 0);
    let mended = if unclean { wal::mend(path, &time)? } else { None };
    let Some(mended) = mended else {
        shared.state.lock().check |= unclean;
        return open_or_replace(shared);
    };
    // Frames that SQLite would have dropped were let in: make sure that they fit.
    let checked = try_open(shared).and_then(|(connection, contents)| {
        quick_check(&connection)?;
        Ok((connection, contents))
    });
    match checked {
        Ok((connection, contents)) => {
            say(shared, Some(&mended));
            Ok(finish(shared, connection, contents))
        }
        Err(StoreError::Damaged(what)) => {
            say(shared, Some(&mended));
            replace(shared, &what)
        }
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
    say(shared, Some(&report));
    shared.metrics.moved_aside.inc();
    let (connection, contents) = try_open(shared)?;
    Ok(finish(shared, connection, contents))
}

/// Looks through all pages and indexes.
pub(super) fn quick_check(connection: &Connection) -> Result<(), StoreError> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" {
        Ok(())
    } else {
        Err(StoreError::Damaged(found))
    }
}

fn say(shared: &Shared, what: Option<&str>) {
    let Some(what) = what else { return };
    tracing::error!(queue.path = %shared.settings.path.display(), repair = what, "the queue's file was damaged");
    let repaired = &mut shared.state.lock().repaired;
    *repaired = Some(match repaired.take() {
        Some(before) => format!("{before}; {what}"),
        None => what.to_owned(),
    });
}

fn try_open(shared: &Shared) -> Result<(Connection, Contents), StoreError> {
    let connection = schema::open_writer(&shared.settings.path, shared.settings.max_bytes)?;
    let contents = schema::read_contents(&connection)?;
    Ok((connection, contents))
}

fn finish(shared: &Shared, connection: Connection, mut contents: Contents) -> Opened {
    let store = Store::new(connection, &contents);
    shared.lanes.lock().reload(std::mem::take(&mut contents.lanes));
    Opened {
        store,
        dropped: contents.dropped,
    }
}
