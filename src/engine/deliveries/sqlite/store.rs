//! [`Store`]: the file of the delivery log, written and trimmed. Reading is in `query`.
//!
//! Records lie in one tree ordered by destination and number. A number is the time of writing in milliseconds and a
//! count, so that a span of time is a range of numbers; it only grows: [`Eras`] tell what that means when the clock is
//! put back. A second, small tree finds the records of one
//! event; a third one those that are no success, which people look for.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _};

use super::eras::{Eras, Followed};
use super::words::{Word, Words};
use crate::domain::delivery_log::{Record, Timings, are_shared};
use crate::domain::id::Uid;
use crate::engine::queue::sqlite::IdColumn;

/// Records removed at once.
pub(super) const STEP: i64 = 2_000;

/// The format this version writes.
const VERSION: i64 = 1;
/// `PRL1`, in `application_id`.
const APPLICATION: i64 = 0x5052_4c31;
/// Kibibytes of cache.
const CACHE: i64 = 8 * 1024;
/// What is removed of the span of time that the file covers, at least, when it is too large.
const SLICES: i64 = 32;

const TABLES: &str = "
    CREATE TABLE words(number INTEGER PRIMARY KEY, text TEXT NOT NULL);
    CREATE TABLE lanes(number INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE);
    CREATE TABLE attempts(lane INTEGER NOT NULL, number INTEGER NOT NULL, seq INTEGER NOT NULL, id NOT NULL,
        kind NOT NULL, attempt INTEGER NOT NULL, state INTEGER NOT NULL, status INTEGER, reason NOT NULL,
        began INTEGER NOT NULL, timings BLOB NOT NULL, headers NOT NULL, message TEXT, excerpt TEXT, next INTEGER,
        replayed INTEGER NOT NULL, PRIMARY KEY(lane, number)) WITHOUT ROWID;
    CREATE INDEX by_event ON attempts(lane, seq);
    CREATE INDEX failures ON attempts(lane, number) WHERE state > 0;
";

/// What went wrong with the file, by what has to be done.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{what}")]
pub(super) struct Fault {
    what: String,
    /// The file is of no use any more.
    pub(super) begin_anew: bool,
    /// The volume is full.
    pub(super) is_full: bool,
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        let code = error.sqlite_error_code();
        let is_full = code == Some(ErrorCode::DiskFull);
        // Whatever else fails says nothing against what is stored.
        let damaged = matches!(code, Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase));
        Self {
            what: error.to_string(),
            begin_anew: is_full || damaged,
            is_full,
        }
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self {
            what: error.to_string(),
            begin_anew: false,
            is_full: false,
        }
    }
}

/// What trimming did.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trimmed {
    /// Records removed.
    pub(super) removed: u64,
    /// Bytes in use.
    pub(super) bytes: u64,
    /// There is more to remove.
    pub(super) more: bool,
}

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) connection: Connection,
    pub(super) words: Words,
    pub(super) lanes: HashMap<Uid, i64>,
    pub(super) eras: Eras,
    last: i64,
}

/// Removes a file with what SQLite has beside it.
pub(super) fn remove(path: &Path) -> std::io::Result<()> {
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

impl Store {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path) -> Result<Self, Fault> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        connection.set_prepared_statement_cache_capacity(32);
        let number = |connection: &Connection, name: &str| {
            connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
        };
        let (version, application) = (
            number(&connection, "user_version")?,
            number(&connection, "application_id")?,
        );
        let fresh = version == 0 && application == 0;
        if !fresh && (version, application) != (VERSION, APPLICATION) {
            return Err(Fault {
                what: format!("the file has format {version}, this version writes format {VERSION}"),
                begin_anew: true,
                is_full: false,
            });
        }
        connection.query_row("PRAGMA journal_mode=WAL", [], |row| row.get::<_, String>(0))?;
        connection.pragma_update(None, "synchronous", "off")?;
        connection.pragma_update(None, "cache_size", -CACHE)?;
        connection.pragma_update(None, "mmap_size", 0)?;
        connection.pragma_update(None, "temp_store", "memory")?;
        if fresh {
            let transaction = connection.transaction()?;
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        let words = Words::read(&connection)?;
        let mut lanes = HashMap::new();
        {
            let mut statement = connection.prepare("SELECT uid, number FROM lanes")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                lanes.insert(Uid::new(&row.get::<_, String>(0)?), row.get(1)?);
            }
        }
        let eras = Eras::read(&connection)?;
        let mut store = Self {
            connection,
            words,
            lanes,
            eras,
            last: 0,
        };
        for lane in store.lanes.values().copied().collect::<Vec<_>>() {
            store.last = store.last.max(store.edge(lane, "max")?.unwrap_or(0));
        }
        Ok(store)
    }

    /// The first or last number of a lane.
    fn edge(&self, lane: i64, which: &str) -> Result<Option<i64>, rusqlite::Error> {
        let sql = format!("SELECT {which}(number) FROM attempts WHERE lane = ?1");
        self.connection
            .prepare_cached(&sql)?
            .query_row([lane], |row| row.get(0))
    }

    /// Takes note of where the clock is, which may have been put back.
    pub(super) fn follow(&mut self, now: Timestamp) -> Result<(), Fault> {
        let followed = self.eras.follow(now, self.last);
        match followed {
            Followed::Same => return Ok(()),
            Followed::Begun(behind) => tracing::warn!(
                seconds = behind.as_secs(),
                "the clock was put back: the delivery log goes on by the time it tells now"
            ),
            Followed::Ended => {
                tracing::info!("the clock is back where it was: the delivery log goes on as before");
            }
            Followed::UsedUp => {
                return Err(Fault {
                    what: "the clock was so far ahead that no numbers are left".to_owned(),
                    begin_anew: true,
                    is_full: false,
                });
            }
        }
        Ok(self.eras.save(&mut self.connection)?)
    }

    /// Writes records in one transaction.
    pub(super) fn write(&mut self, records: &[Record], now: Timestamp) -> Result<(), Fault> {
        self.follow(now)?;
        // On an error the file is closed, so nothing in memory has to be taken back.
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.last = self.last.max(self.eras.next(now));
        {
            let mut insert = self.connection.prepare_cached(
                "INSERT INTO attempts(lane, number, seq, id, kind, attempt, state, status, reason, began, timings,
                 headers, message, excerpt, next, replayed)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            )?;
            for record in records {
                let lane = lane(&mut self.lanes, &self.connection, &record.lane)?;
                let kind = self.words.intern(&self.connection, &record.event_type)?;
                let reason = self.words.intern(&self.connection, &record.reason)?;
                let headers = if are_shared(&record.headers) {
                    self.words
                        .intern_shared(&self.connection, lane, &record.headers)?
                } else {
                    Word::Text(&record.headers)
                };
                self.last = self.last.saturating_add(1);
                insert.execute(rusqlite::params![
                    lane,
                    self.last,
                    record.seq.cast_signed(),
                    IdColumn::new(&record.event_id),
                    kind,
                    record.attempt,
                    record.state as u8,
                    record.status,
                    reason,
                    record.began.as_millisecond(),
                    pack(&record.timings),
                    headers,
                    (!record.message.is_empty()).then_some(&record.message),
                    record.excerpt.as_deref(),
                    record.next_attempt.map(Timestamp::as_millisecond),
                    record.replayed,
                ])?;
            }
        }
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> Result<u64, rusqlite::Error> {
        let number = |name: &str| -> Result<i64, rusqlite::Error> {
            self.connection.pragma_query_value(None, name, |row| row.get(0))
        };
        let pages = number("page_count")?.saturating_sub(number("freelist_count")?);
        let size = number("page_size")?;
        Ok(pages.cast_unsigned().saturating_mul(size.cast_unsigned()))
    }

    /// Removes some records of before `oldest`, or the oldest of a file that is too large.
    pub(super) fn trim(&mut self, oldest: Option<Timestamp>, max_bytes: u64) -> Result<Trimmed, Fault> {
        let mut trimmed = Trimmed {
            bytes: self.used()?,
            ..Trimmed::default()
        };
        let mut cutoff = oldest.map_or(i64::MIN, |oldest| self.eras.at(oldest));
        if trimmed.bytes > max_bytes {
            let mut first = self.last;
            for lane in self.lanes.values() {
                first = first.min(self.edge(*lane, "min")?.unwrap_or(self.last));
            }
            let slice = (self.last.saturating_sub(first) / SLICES).max(1);
            cutoff = cutoff.max(first.saturating_add(slice));
        }
        let lanes: Vec<(Uid, i64)> = self
            .lanes
            .iter()
            .map(|(uid, lane)| (uid.clone(), *lane))
            .collect();
        let mut left = STEP;
        for (uid, lane) in lanes {
            let removed = {
                let mut remove = self.connection.prepare_cached(
                    "DELETE FROM attempts WHERE lane = ?1 AND number IN
                     (SELECT number FROM attempts WHERE lane = ?1 AND number < ?2 ORDER BY number LIMIT ?3)",
                )?;
                remove.execute((lane, cutoff, left))?
            };
            trimmed.removed = trimmed.removed.saturating_add(removed as u64);
            left = left.saturating_sub(i64::try_from(removed).unwrap_or(i64::MAX));
            if left <= 0 {
                trimmed.more = true;
                return Ok(trimmed);
            }
            if removed > 0 && self.edge(lane, "min")?.is_none() {
                let mut forget = self
                    .connection
                    .prepare_cached("DELETE FROM lanes WHERE number = ?1")?;
                forget.execute([lane])?;
                drop(forget);
                self.lanes.remove(&uid);
                self.words.forget(lane);
            }
        }
        trimmed.more = trimmed.bytes > max_bytes && trimmed.removed > 0;
        Ok(trimmed)
    }
}

fn lane(lanes: &mut HashMap<Uid, i64>, connection: &Connection, uid: &Uid) -> Result<i64, rusqlite::Error> {
    if let Some(number) = lanes.get(uid) {
        return Ok(*number);
    }
    let mut find = connection.prepare_cached("SELECT number FROM lanes WHERE uid = ?1")?;
    let known = find.query_row([uid.as_str()], |row| row.get(0)).optional()?;
    let number = match known {
        Some(number) => number,
        None => connection
            .prepare_cached("INSERT INTO lanes(uid) VALUES(?1)")?
            .insert([uid.as_str()])?,
    };
    lanes.insert(uid.clone(), number);
    Ok(number)
}

/// Microseconds of each part, one more than that; 0 for a part that was not needed.
fn pack(timings: &Timings) -> [u8; 20] {
    let micros = |part: Duration| u32::try_from(part.as_micros()).unwrap_or(u32::MAX - 1);
    let optional = |part: Option<Duration>| part.map_or(0, |part| micros(part).saturating_add(1));
    let parts = [
        optional(timings.dns),
        optional(timings.connect),
        optional(timings.tls),
        optional(timings.first_byte),
        micros(timings.total),
    ];
    let mut packed = [0; 20];
    for (place, part) in packed.chunks_exact_mut(4).zip(parts) {
        place.copy_from_slice(&part.to_le_bytes());
    }
    packed
}

/// Reads what [`pack`] made.
pub(super) fn unpack(packed: &[u8]) -> Timings {
    let mut parts = packed.chunks_exact(4).map(|part| {
        let bytes: [u8; 4] = part.try_into().unwrap_or_default();
        u32::from_le_bytes(bytes)
    });
    let mut next = || parts.next().unwrap_or_default();
    let optional = |part: u32| {
        let micros = part.checked_sub(1)?;
        Some(Duration::from_micros(micros.into()))
    };
    Timings {
        dns: optional(next()),
        connect: optional(next()),
        tls: optional(next()),
        first_byte: optional(next()),
        total: Duration::from_micros(next().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery_log::State;
    use crate::domain::id::EventId;

    #[test]
    fn a_file_is_begun_anew_for_damage_but_not_for_a_statement_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deliveries.db");
        let store = Store::open(&path).unwrap();
        let rename = "ALTER TABLE lanes RENAME TO elsewhere";
        store.connection.execute_batch(rename).unwrap();
        drop(store);
        let fault = Store::open(&path).map(drop).unwrap_err();
        assert!(!fault.begin_anew && !fault.is_full, "{fault}");
        let none = Fault::from(rusqlite::Error::QueryReturnedNoRows);
        assert!(!none.begin_anew, "{none}");
        std::fs::write(&path, vec![0x55; 8192]).unwrap();
        let fault = Store::open(&path).map(drop).unwrap_err();
        assert!(fault.begin_anew, "{fault}");
    }

    fn record(lane: &str, seq: u64, headers: &str) -> Record {
        Record {
            lane: Uid::new(lane),
            event_id: EventId::parse(&format!("e{seq}")).unwrap(),
            event_type: "a".into(),
            seq,
            attempt: 1,
            began: Timestamp::UNIX_EPOCH,
            state: State::Delivered,
            status: Some(200),
            reason: "".into(),
            message: String::new(),
            timings: Timings::default(),
            headers: headers.into(),
            excerpt: None,
            next_attempt: None,
            replayed: false,
        }
    }

    #[test]
    fn a_destination_whose_headers_differ_with_each_event_leaves_others_room_for_theirs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deliveries.db");
        let mut store = Store::open(&path).unwrap();
        let various = (0..20_000).map(|seq| record("various", seq, &format!("x-user: {}\n", seq / 2)));
        let various: Vec<_> = various.collect();
        store.write(&various, Timestamp::UNIX_EPOCH).unwrap();
        store
            .write(&[record("plain", 1, "x-a: b\n")], Timestamp::UNIX_EPOCH)
            .unwrap();
        let number = |sql: &str| -> i64 { store.connection.query_row(sql, [], |row| row.get(0)).unwrap() };
        let words = number("SELECT count(*) FROM words");
        assert!(words < 200, "{words}");
        let shared = "SELECT count(*) FROM attempts JOIN lanes ON lane = lanes.number
            WHERE uid = 'plain' AND typeof(headers) = 'integer'";
        assert_eq!(number(shared), 1);
    }

    #[test]
    fn a_number_that_is_far_ahead_does_not_hide_those_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deliveries.db");
        let mut store = Store::open(&path).unwrap();
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let later = |span: Duration| now.checked_add(span).unwrap();
        let day = Duration::from_secs(24 * 3600);
        for (seq, ahead) in [(1, Duration::ZERO), (2, day), (3, Duration::from_secs(60))] {
            store
                .write(&[record("a", seq, "x-a: b\n")], later(ahead))
                .unwrap();
        }
        let found = |store: &Store, until: Timestamp| {
            let query = crate::engine::deliveries::Query {
                until: Some(until),
                limit: 9,
                ..Default::default()
            };
            let page = store.list(&Uid::new("a"), &query).unwrap();
            page.records.iter().map(|record| record.seq).collect::<Vec<_>>()
        };
        let soon = later(Duration::from_secs(61));
        assert_eq!(found(&store, soon), [3, 2, 1]);
        drop(store);
        let store = Store::open(&path).unwrap();
        assert_eq!(found(&store, soon), [3, 2, 1], "after a restart");
    }

    #[test]
    fn what_was_written_while_the_clock_was_ahead_leaves_with_the_records_of_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&folder.path().join("deliveries.db")).unwrap();
        let at = |second: i64| Timestamp::from_second(1_769_860_800 + second).unwrap();
        for (seq, second) in [(1, 0), (2, 24 * 3600), (3, 60), (4, 120)] {
            store.write(&[record("a", seq, "x-a: b\n")], at(second)).unwrap();
        }
        let mut trim = |oldest| store.trim(oldest, u64::MAX).unwrap().removed;
        assert_eq!(trim(None), 0, "nothing by age");
        assert_eq!(trim(Some(at(30))), 1);
        assert_eq!(trim(Some(at(90))), 2);
        assert_eq!(trim(Some(at(150))), 1);
    }

    #[test]
    fn texts_of_which_nothing_is_left_make_room_when_the_file_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deliveries.db");
        let mut store = Store::open(&path).unwrap();
        let kept = record("plain", 1, "x-a: b\n");
        store
            .write(std::slice::from_ref(&kept), Timestamp::UNIX_EPOCH)
            .unwrap();
        let fill = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)
            INSERT INTO words(text) SELECT 'unused ' || i FROM n";
        store.connection.execute_batch(fill).unwrap();
        drop(store);
        let store = Store::open(&path).unwrap();
        let words: i64 = store
            .connection
            .query_row("SELECT count(*) FROM words", [], |row| row.get(0))
            .unwrap();
        assert_eq!(words, 3, "type, reason and headers of the record");
        assert!(matches!(store.words.find("x-a: b\n"), Word::Number(_)));
    }
}
