//! [`Settings`]: where the file is, and its bounds.

use std::path::PathBuf;
use std::time::Duration;

use super::schema::LOG_BYTES;
use super::writer::GROUP_BYTES;

/// Bounds and places.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The file.
    pub path: PathBuf,
    /// Largest size of the file; beyond, events are refused with `FileFull`.
    pub max_bytes: u64,
    /// Finished events are removed, the oldest first, while the file holds more than this.
    pub retention_bytes: u64,
    /// Room on the volume kept for results when it is full; 0 keeps none. See [`RESERVE`].
    pub reserve_bytes: u64,
    /// Least time between two attempts to make the reserve.
    pub reserve_pause: Duration,
    /// Finished events are removed when they are older than this.
    pub retention: Duration,
    /// Most ids remembered; beyond, the oldest are forgotten before 24 hours are over.
    pub max_ids: u64,
    /// Most keys remembered per lane that wants no two of the same; beyond, its oldest are forgotten early.
    pub max_lane_keys: u64,
    /// Most keys remembered in all; beyond, a lane forgets its oldest for a new one, and one that has none remembers none.
    pub max_keys: u64,
    /// Most deliveries that wait per project; beyond, its events are refused with `ProjectFull`.
    pub project_limit: u64,
    /// Bytes of waiting events kept in memory over all lanes.
    pub window_bytes: usize,
    /// Waiting deliveries kept in memory per lane.
    pub window_deliveries: usize,
    /// Most calls in one commit.
    pub group: usize,
    /// Most calls that wait for the writer; beyond, events are refused with `Overloaded`.
    pub inbox: usize,
    /// Most bytes of events that wait for the writer.
    pub inbox_bytes: usize,
    /// For how long a settlement that cannot be written is retried. One for which there is no room is retried until there
    /// is.
    pub settle_patience: Duration,
    /// How often an unavailable file is tried again.
    pub reopen: Duration,
    /// How often retention looks at the file.
    pub retention_interval: Duration,
}

/// Bytes of the reserve, unless set otherwise. Enough to copy the log back into a file that grows by all of it, so
/// that the log begins anew in its own place, and for a group of results on top.
const RESERVE: u64 = 32 << 20;
const _: () = assert!(RESERVE > LOG_BYTES + GROUP_BYTES as u64);

impl Settings {
    /// The defaults, for a file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            max_bytes: 10 << 30,
            retention_bytes: 1 << 30,
            reserve_bytes: RESERVE,
            reserve_pause: Duration::from_secs(30),
            retention: Duration::from_secs(24 * 3600),
            max_ids: 5_000_000,
            max_lane_keys: 100_000,
            max_keys: 1_000_000,
            project_limit: 1_000_000,
            window_bytes: 64 << 20,
            window_deliveries: 32_768,
            group: 512,
            inbox: 4096,
            inbox_bytes: 64 << 20,
            settle_patience: Duration::from_secs(3600),
            reopen: Duration::from_secs(1),
            retention_interval: Duration::from_secs(1),
        }
    }
}
