//! A file that is removed, replaced or cut while it is in use, or that is missing beside its log.
//!
//! SQLite goes on writing into a file that has no name any more, and discards a log whose file is missing: both would
//! lose what was acknowledged without a word. The keeper compares what is at the path with what was there when it first
//! looked; the writer, which still has the old file open, writes it anew at the path. A log beside no file is made
//! into one.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

use super::Shared;
use super::fault::StoreError;
use super::opening::{beside, say, sync_directory};
use super::schema::PAGE;
use super::writer::{Phase, Writer};
use super::{salvage, wal};

/// Device and inode of a file and of its log; `None`: there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    file: Option<(u64, u64)>,
    log: Option<(u64, u64)>,
}

impl Identity {
    /// What is at a path now.
    pub(super) fn of(path: &Path) -> Self {
        let of = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        Self {
            file: of(path),
            log: of(&beside(path, "-wal")),
        }
    }

    /// Whether it is the same now. A log may come, but not go.
    pub(super) fn is_still(&self, now: Self) -> bool {
        self.file == now.file && (self.log.is_none() || self.log == now.log)
    }
}

impl Writer {
    /// The file that was opened is not at its path any more, or its log is not: writes all of it anew, and opens what is
    /// at the path.
    pub(super) fn rescue(&mut self, opened: Identity) {
        let Phase::Up(store) = &self.phase else { return };
        let path = self.shared.settings.path.clone();
        let rescued = match Identity::of(&path).file {
            None => copy_anew(&store.connection, &path).map(|()| "all of it was written anew".to_owned()),
            Some(file) if opened.file == Some(file) => store
                .checkpoint()
                .map(|_| "all of it was written anew".to_owned()),
            // Somebody put another file there, which is left alone.
            Some(_) => {
                let aside = beside(&path, &format!(".displaced-{}", salvage::time(&self.shared)));
                copy_anew(&store.connection, &aside).map(|()| {
                    let aside = aside.display();
                    format!("what it held is in {aside} now, and the file at its place is used from now on")
                })
            }
        };
        let done = rescued.unwrap_or_else(|error| format!("it could not be written anew: {error}"));
        let what = format!("the queue's file or its log was removed or replaced while it was in use; {done}");
        say(&self.shared, &what);
        // The lock went with the file.
        self.release_lock();
        self.fall_until(StoreError::Down(what), Instant::now());
    }
}

fn copy_anew(connection: &rusqlite::Connection, path: &Path) -> Result<(), StoreError> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let copy = beside(path, ".rescued");
    std::fs::remove_file(&copy).ok();
    connection.execute("VACUUM INTO ?1", [copy.to_string_lossy()])?;
    std::fs::File::open(&copy)?.sync_all()?;
    for side in ["-wal", "-shm"] {
        std::fs::remove_file(beside(path, side)).ok();
    }
    std::fs::rename(&copy, path)?;
    sync_directory(path)
}

/// Makes a file of a log that has none beside it, or one without a page.
pub(super) fn restore(shared: &Shared, time: &str) -> Result<(), StoreError> {
    let path = &shared.settings.path;
    let missing = std::fs::metadata(path).map_or(true, |file| file.len() < PAGE as u64);
    let log = beside(path, "-wal");
    if !missing || !log.exists() {
        return Ok(());
    }
    let file = beside(path, ".restored");
    let Some(pages) = wal::replay(&log, &file)? else {
        return Ok(());
    };
    std::fs::rename(&file, path)?;
    sync_directory(path)?;
    let aside = beside(path, &format!(".damaged-{time}-wal"));
    std::fs::rename(&log, &aside)?;
    sync_directory(path)?;
    shared.state.lock().check = true;
    let what = format!(
        "the queue's file was missing beside its log; {pages} pages of it were made again from the log, which is {} now",
        aside.display()
    );
    say(shared, &what);
    Ok(())
}
