//! [`StoreError`]: what went wrong with the file, by what has to be done about it.

use rusqlite::ErrorCode;

use crate::engine::queue::QueueError;

/// What went wrong with the file.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// No room on the volume. The file is fine; finishing deliveries makes room in it.
    #[error("the queue's disk is full")]
    Full,
    /// No room within the file's own limit. The file is fine; finishing deliveries makes room.
    #[error("the queue's file has reached its size limit, --queue-max-bytes")]
    Limit,
    /// The content is damaged. The file is moved aside, and what is intact is carried over.
    #[error("the queue's file is damaged: {0}")]
    Damaged(String),
    /// The file is damaged, and there is no room to carry over what is intact. It stays as it is.
    #[error(
        "the queue's file is damaged ({damage}), and the volume has no room to carry over what is intact: make up to \
         {mib} MiB free, for example by moving old …damaged-… files away"
    )]
    Stranded {
        /// What is damaged.
        damage: String,
        /// Room that is needed at most.
        mib: u64,
    },
    /// A newer version wrote the file. It stays as it is.
    #[error(
        "the queue's file has format {found}, this version writes format {known}: run the newer version again, or \
         move the file away to start with an empty queue"
    )]
    Newer {
        /// Its format.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// Another process has it.
    #[error("the queue's file is in use by another process: stop that one, or give each its own directory")]
    Locked,
    /// Everything that may heal: read-only, I/O errors, missing directories.
    #[error("{0}")]
    Down(String),
}

impl StoreError {
    /// Whether there is no room, whatever for.
    pub(super) const fn is_full(&self) -> bool {
        matches!(self, Self::Full | Self::Limit)
    }

    /// Whether more room on the volume would help.
    pub(super) const fn lacks_room(&self) -> bool {
        matches!(self, Self::Full | Self::Limit | Self::Stranded { .. })
    }

    /// What a caller is told.
    pub(super) fn to_queue_error(&self) -> QueueError {
        match self {
            Self::Full => QueueError::DiskFull,
            Self::Limit => QueueError::FileFull,
            other => QueueError::Unavailable(other.to_string()),
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        // The index of the log is a file, too: 32 KiB are added to it now and then.
        let extended = error.sqlite_error().map(|error| error.extended_code);
        match code {
            Some(ErrorCode::DiskFull) => Self::Full,
            _ if extended == Some(rusqlite::ffi::SQLITE_IOERR_SHMSIZE) => Self::Full,
            // `None` is not SQLite's own error: a column holds what was never written there.
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) | None => {
                Self::Damaged(error.to_string())
            }
            Some(ErrorCode::ReadOnly) => Self::Down(format!("the queue's file is read-only: {error}")),
            Some(ErrorCode::CannotOpen) => Self::Down(format!(
                "the queue's file cannot be opened: {error}; is the volume mounted and writable?"
            )),
            Some(ErrorCode::SystemIoFailure) => Self::Down(format!("the queue's disk fails: {error}")),
            Some(_) => Self::Down(format!("the queue's file cannot be used: {error}")),
        }
    }
}

impl From<std::io::Error> for StoreError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::StorageFull {
            return Self::Full;
        }
        Self::Down(format!("the queue's directory cannot be used: {error}"))
    }
}
