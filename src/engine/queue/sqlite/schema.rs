//! Opening the file: flags, pragmas, tables, version; and reading what the process keeps in memory.
//!
//! The format is described in [`sqlite`](super). Moving damaged files aside is left to `salvage`.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::fault::StoreError;
use super::lanes::LaneRow;
use super::rows::accepted_millis;
use super::wal::FRAME;
use super::writer::GROUP_BYTES;
use crate::domain::id::Uid;

/// The format this version writes, in `user_version`.
pub(super) const VERSION: i64 = 1;

/// `PRQ1`, in `application_id`.
const APPLICATION: i64 = 0x5052_5131;

/// Bytes of a page. 4096 is what file systems write at once.
pub(super) const PAGE_BYTES: u32 = 4096;
/// The same, to index with.
pub(super) const PAGE: usize = PAGE_BYTES as usize;

/// Pages of log from which on SQLite copies it back into the file, in a commit. A thread of its own that did this would
/// spare commits the wait; the bars are met without.
const CHECKPOINT: u32 = 2000;

/// Bytes that the log takes, and by which copying it back can make the file grow: as above, and one group. Only a reader
/// that looks for long at an old state of the file, as the check after an unclean stop does, lets it grow further.
pub(super) const LOG_BYTES: u64 = CHECKPOINT as u64 * FRAME as u64 + GROUP_BYTES as u64;

/// The tables. The indexes of names are there to have every name twice: names are few, and all rows depend on them.
pub(super) const TABLES: &str = "
    CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE projects(number INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE);
    CREATE TABLE facts(number INTEGER PRIMARY KEY, json TEXT NOT NULL);
    CREATE INDEX facts_json ON facts(json);
    CREATE TABLE lanes(number INTEGER PRIMARY KEY, uid TEXT NOT NULL, dropped INTEGER NOT NULL);
    CREATE INDEX lanes_uid ON lanes(uid, dropped);
    CREATE TABLE health(lane INTEGER PRIMARY KEY, json TEXT NOT NULL);
    CREATE TABLE events(seq INTEGER PRIMARY KEY, project INTEGER NOT NULL, facts INTEGER NOT NULL, id NOT NULL,
        accepted INTEGER NOT NULL, sum INTEGER NOT NULL, lanes BLOB NOT NULL, body BLOB NOT NULL);
    CREATE TABLE ids(project INTEGER NOT NULL, id NOT NULL, accepted INTEGER NOT NULL,
        PRIMARY KEY(project, id)) WITHOUT ROWID;
    CREATE TABLE old_ids(seq INTEGER PRIMARY KEY, project INTEGER NOT NULL, id NOT NULL, accepted INTEGER NOT NULL);
    CREATE TABLE deliveries(lane INTEGER NOT NULL, due INTEGER NOT NULL, seq INTEGER NOT NULL,
        attempts INTEGER NOT NULL, project INTEGER NOT NULL, PRIMARY KEY(lane, due, seq)) WITHOUT ROWID;
";

/// What attempts left for later ones, in every file of the format: one of a version before notes gets the table when it
/// is opened. That version can go on with the file. A note whose delivery it finishes stays behind until the lane goes;
/// it is never asked for, because positions are never used twice.
pub(super) const NOTES: &str = "
    CREATE TABLE IF NOT EXISTS notes(lane INTEGER NOT NULL, seq INTEGER NOT NULL, note BLOB NOT NULL,
        PRIMARY KEY(lane, seq)) WITHOUT ROWID;
";

/// When deliveries were made that a replay has made, in every file of the format, as [`NOTES`] are. The version before goes
/// on with such deliveries as if they were old: their age counts from their event's acceptance.
pub(super) const REPLAYS: &str = "
    CREATE TABLE IF NOT EXISTS replays(lane INTEGER NOT NULL, seq INTEGER NOT NULL, at INTEGER NOT NULL,
        PRIMARY KEY(lane, seq)) WITHOUT ROWID;
";

/// Which keys lanes have seen, in every file of the format, as [`NOTES`] are. The version before leaves out nothing and
/// lets the rows be; those that have ended meanwhile count for nothing.
pub(super) const KEYS: &str = "
    CREATE TABLE IF NOT EXISTS keys(lane INTEGER NOT NULL, key BLOB NOT NULL, at INTEGER NOT NULL,
        until INTEGER NOT NULL, PRIMARY KEY(lane, key)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS keys_until ON keys(lane, until);
";

/// Kibibytes of cache of the writer: the rightmost pages of every tree, and much of the ids.
const WRITER_CACHE: i64 = 12 * 1024;

/// Kibibytes of cache of a reader.
const READER_CACHE: i64 = 2 * 1024;

/// Refuses a file that a newer version wrote before anything is done to it or its log: its number is in the first page
/// since the first checkpoint.
pub(super) fn refuse_newer(path: &Path) -> Result<(), StoreError> {
    let mut header = [0; 72];
    let Ok(file) = File::open(path) else { return Ok(()) };
    if file.read_exact_at(&mut header, 0).is_err() {
        return Ok(());
    }
    let number = |at: usize| {
        let bytes = header.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        i64::from(u32::from_be_bytes(bytes.unwrap_or_default()))
    };
    let (found, application) = (number(60), number(68));
    if application == APPLICATION && found > VERSION {
        let known = VERSION;
        return Err(StoreError::Newer { found, known });
    }
    Ok(())
}

/// Opens the file for the writer; makes the tables in a new one.
pub(super) fn open_writer(path: &Path, max_bytes: u64) -> Result<Connection, StoreError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.set_prepared_statement_cache_capacity(48);
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version > VERSION {
        return Err(StoreError::Newer {
            found: version,
            known: VERSION,
        });
    }
    if version == 0 {
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if tables > 0 {
            return Err(StoreError::Damaged(
                "it is a database, but not a queue".to_owned(),
            ));
        }
        connection.pragma_update(None, "page_size", PAGE_BYTES)?;
        connection.pragma_update(None, "auto_vacuum", "incremental")?;
    }
    let mode: String = connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(StoreError::Down(format!(
            "the queue's file cannot use a write-ahead log (mode {mode})"
        )));
    }
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)?;
    // A log that one large commit or a long look at the file has grown is cut back to this when it begins anew.
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES.cast_signed())?;
    if version == 0 {
        let transaction = connection.transaction()?;
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.commit()?;
    }
    connection.execute_batch(NOTES)?;
    connection.execute_batch(REPLAYS)?;
    connection.execute_batch(KEYS)?;
    limit(&connection, max_bytes)?;
    Ok(connection)
}

/// Sets the file's size limit; a file that is already larger can still shrink.
pub(super) fn limit(connection: &Connection, max_bytes: u64) -> Result<(), StoreError> {
    let pages = (max_bytes / PAGE as u64).clamp(32, 0xffff_fffe);
    connection.query_row(&format!("PRAGMA max_page_count={pages}"), [], |row| {
        row.get::<_, i64>(0)
    })?;
    Ok(())
}

/// Opens the file for reading beside the writer.
pub(super) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(2))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.pragma_update(None, "cache_size", -READER_CACHE)?;
    connection.pragma_update(None, "mmap_size", 0)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

/// What the process keeps in memory of a file.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// Lanes and what they hold.
    pub(super) lanes: Vec<(Uid, LaneRow)>,
    /// Lanes whose dropping was not finished.
    pub(super) dropped: Vec<i64>,
    /// Deliveries per project number.
    pub(super) pending: HashMap<i64, u64>,
    /// Number per project uid.
    pub(super) projects: HashMap<Uid, i64>,
    /// Highest number of a lane.
    pub(super) last_lane: i64,
    /// Highest number of facts.
    pub(super) last_facts: i64,
    /// Highest position of an event.
    pub(super) last_seq: i64,
}

/// Reads what the process keeps in memory. One pass over the deliveries; of the events, those that were tried before.
pub(super) fn read_contents(connection: &Connection) -> Result<Contents, StoreError> {
    let mut contents = Contents::default();
    let mut rows: HashMap<i64, LaneRow> = HashMap::new();
    {
        let mut statement =
            connection.prepare("SELECT lane, due, seq, project, attempts <> 0 FROM deliveries")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let (number, due, seq, project): (i64, i64, i64, i64) =
                (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            let lane = rows.entry(number).or_insert(LaneRow {
                number,
                pending: 0,
                first: Some((due, seq)),
                moved: BTreeMap::new(),
                has_health: false,
            });
            lane.pending += 1;
            if row.get(4)? {
                let accepted = accepted_millis(connection, number, (due, seq))?;
                if accepted != due {
                    lane.moved.insert((accepted, seq), due);
                }
            }
            *contents.pending.entry(project).or_default() += 1;
        }
    }
    let mut statement = connection.prepare(
        "SELECT number, uid, dropped, EXISTS(SELECT 1 FROM health WHERE lane = number) FROM lanes",
    )?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        let number: i64 = row.get(0)?;
        contents.last_lane = contents.last_lane.max(number);
        let held = rows.remove(&number);
        if row.get::<_, bool>(2)? {
            contents.dropped.push(number);
            continue;
        }
        let uid: String = row.get(1)?;
        let held = held.unwrap_or(LaneRow {
            number,
            pending: 0,
            first: None,
            moved: BTreeMap::new(),
            has_health: false,
        });
        contents.lanes.push((
            Uid::new(&uid),
            LaneRow {
                has_health: row.get(3)?,
                ..held
            },
        ));
    }
    if let Some(number) = rows.keys().next() {
        return Err(StoreError::Damaged(format!(
            "deliveries belong to lane {number}, which has no name"
        )));
    }
    let mut statement = connection.prepare("SELECT number, uid FROM projects")?;
    let mut found = statement.query([])?;
    while let Some(row) = found.next()? {
        contents
            .projects
            .insert(Uid::new(&row.get::<_, String>(1)?), row.get(0)?);
    }
    let max = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
    contents.last_facts = max("SELECT max(number) FROM facts")?.unwrap_or(0);
    let seqs = [
        max("SELECT max(seq) FROM events")?,
        max("SELECT max(seq) FROM old_ids")?,
        meta(connection, "seq")?,
    ];
    contents.last_seq = seqs.into_iter().flatten().max().unwrap_or(0);
    Ok(contents)
}

/// A number of the `meta` table.
pub(super) fn meta(connection: &Connection, name: &str) -> Result<Option<i64>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?;
    let mut rows = statement.query([name])?;
    rows.next()?.map(|row| row.get(0)).transpose()
}

/// Stores a number in the `meta` table.
pub(super) fn set_meta(connection: &Connection, name: &str, value: i64) -> Result<(), rusqlite::Error> {
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO meta(name, value) VALUES(?1, ?2)")?;
    statement.execute((name, value))?;
    Ok(())
}
