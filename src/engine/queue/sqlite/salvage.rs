//! Replacing a damaged file by a new one with every row that can still be read.
//!
//! Order of the steps, so that a crash between any two loses nothing; the directory is synced after each, so that a
//! power failure finds the same order:
//!
//! 1. `<path>.salvage` is filled from the damaged file, which is not written to.
//! 2. It is renamed to `<path>.salvaged`: it is complete. Found at a start beside `<path>`, it is removed and made
//!    again.
//! 3. `<path>`, then its `-wal` and `-shm`, are renamed to `<path>.damaged-<time>…`.
//! 4. `<path>.salvaged` is renamed to `<path>`. Found at a start without `<path>`, steps 3 and 4 are finished.
//!
//! A file whose first page is unreadable is read with the first page of a new file: the tables of a format are always
//! made in the same order, so they begin at the same pages.
//!
//! Rows keep their numbers, so claims stay good. Deliveries whose page is lost are made again from the lanes in the
//! events of that time: rather twice than never.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use rusqlite::config::DbConfig;
use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row};

use super::Shared;
use super::fault::StoreError;
use super::opening::{beside, sync_directory};
use super::rows::{FactsCache, decode, numbers, read_event};
use super::{raw, scan, schema, wal};
use crate::engine::queue::{QueueError, Stored};

/// Bytes of an event's row beside its body, about; only the progress shown to people depends on it.
const ROW: usize = 64;

/// Most deliveries whose lane is damaged that are looked up again by their event.
const MAX_NAMELESS: usize = 65_536;

const SIDES: [&str; 2] = ["-wal", "-shm"];

/// What was carried over.
#[derive(Debug, Default)]
struct Carried {
    events: u64,
    damaged: u64,
    deliveries: u64,
    remade: u64,
    nameless: u64,
}

/// Replaces the damaged file; says what was done. No connection to it may be open.
pub(super) fn replace(shared: &Shared, damage: &str) -> Result<String, StoreError> {
    let path = &shared.settings.path;
    let fresh = beside(path, ".salvage");
    remove(&fresh)?;
    shared.state.lock().down = Some(QueueError::Unavailable(
        "the queue's file was damaged; what is intact is being carried over to a new one".to_owned(),
    ));
    let size = |suffix| std::fs::metadata(beside(path, suffix)).map_or(0, |file| file.len());
    let total = size("").saturating_add(size("-wal"));
    shared.salvage.begin(total);
    let carried = fill(shared, &fresh);
    shared.salvage.begin(0);
    shared.threads.salvage_ended();
    let carried = match carried {
        Err(StoreError::Full) => {
            remove(&fresh)?;
            return Err(StoreError::Stranded {
                damage: damage.to_owned(),
                mib: total.div_ceil(1 << 20),
            });
        }
        carried => carried?,
    };
    // What is broken off by a stop looks like damage: it must not pass for all there is.
    advance(shared, 0)?;
    File::open(&fresh)?.sync_all()?;
    std::fs::rename(&fresh, beside(path, ".salvaged"))?;
    sync_directory(path)?;
    let aside = move_aside(path, &time(shared))?;
    let Carried {
        events,
        damaged,
        deliveries,
        remade,
        nameless,
    } = carried;
    Ok(format!(
        "the file was damaged ({damage}) and was moved aside to {}; carried over: {events} events, of which {damaged} \
         are damaged, and {deliveries} deliveries, of which {remade} were made again; {nameless} deliveries had no \
         destination any more",
        aside.display()
    ))
}

/// Fills the new file.
fn fill(shared: &Shared, fresh: &Path) -> Result<Carried, StoreError> {
    let new = schema::open_writer(fresh, u64::MAX)?;
    shared.threads.salvage_opened(&new);
    // A crash starts over, so there is no need for a log as large as the file, and one sync at the end is enough.
    new.query_row("PRAGMA journal_mode=MEMORY", [], |_| Ok(()))?;
    new.pragma_update(None, "synchronous", "off")?;
    carry(shared, fresh, &new)
}

/// Notes that so much more was carried over; an error when the process is stopping, because the rest may take longer
/// than it is given: the next start begins anew.
fn advance(shared: &Shared, bytes: usize) -> Result<(), StoreError> {
    shared.salvage.advance(bytes as u64);
    if shared.state.lock().closed {
        return Err(StoreError::Down(
            "it was closed while it was being salvaged".to_owned(),
        ));
    }
    Ok(())
}

/// Finishes or forgets what a crash interrupted.
pub(super) fn resume(path: &Path, time: &str) -> Result<(), StoreError> {
    remove(&beside(path, ".salvage"))?;
    remove(&beside(path, wal::MENDED))?;
    let complete = beside(path, ".salvaged");
    if !complete.exists() {
        return Ok(());
    }
    if path.exists() {
        return remove(&complete);
    }
    move_aside(path, time).map(drop)
}

/// The time as names of files carry it.
pub(super) fn time(shared: &Shared) -> String {
    shared.clock.now().strftime("%Y%m%dT%H%M%S.%3fZ").to_string()
}

fn move_aside(path: &Path, time: &str) -> Result<PathBuf, StoreError> {
    let aside = beside(path, &format!(".damaged-{time}"));
    for suffix in ["", "-wal", "-shm"] {
        let from = beside(path, suffix);
        if from.exists() {
            std::fs::rename(from, beside(&aside, suffix))?;
            // Before its log goes: a file that is found again without it would be read as older than it is.
            sync_directory(path)?;
        }
    }
    std::fs::rename(beside(path, ".salvaged"), path)?;
    sync_directory(path)?;
    Ok(aside)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    for suffix in [""].into_iter().chain(SIDES) {
        match std::fs::remove_file(beside(path, suffix)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

/// Opens a damaged file without changing it.
fn open_damaged(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.pragma_update(None, "query_only", true)?;
    let tables: i64 = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE name IN ('events', 'deliveries', 'lanes', 'ids')",
        [],
        |row| row.get(0),
    )?;
    if tables == 4 {
        Ok(connection)
    } else {
        Err(StoreError::Damaged("it has other tables".to_owned()))
    }
}

fn carry(shared: &Shared, fresh: &Path, new: &Connection) -> Result<Carried, StoreError> {
    let path = &shared.settings.path;
    if let Ok(old) = open_damaged(path) {
        return copy(shared, path, &old, new);
    }
    let graft = beside(path, ".graft");
    remove(&graft)?;
    let carried = match graft_first_page(path, fresh, &graft).and_then(|()| open_damaged(&graft)) {
        Ok(old) => copy(shared, &graft, &old, new),
        Err(StoreError::Full) => Err(StoreError::Full),
        Err(_) => Ok(Carried::default()),
    };
    remove(&graft)?;
    carried
}

/// Copies the damaged file and gives the copy the first page of a new one.
fn graft_first_page(path: &Path, fresh: &Path, graft: &Path) -> Result<(), StoreError> {
    let pages = std::fs::copy(path, graft)? / schema::PAGE as u64;
    if beside(path, "-wal").exists() {
        std::fs::copy(beside(path, "-wal"), beside(graft, "-wal"))?;
    }
    let mut page = std::fs::read(fresh)?;
    page.truncate(schema::PAGE);
    let pages = u32::try_from(pages).unwrap_or(u32::MAX).to_be_bytes();
    // Bytes 18 and 19 say that there is a log.
    if let Some(versions) = page.get_mut(18..20) {
        versions.fill(2);
    }
    for (at, value) in [(28, pages), (32, [0; 4]), (36, [0; 4])] {
        if let Some(place) = page.get_mut(at..at + 4) {
            place.copy_from_slice(&value);
        }
    }
    let mut file = File::options().write(true).open(graft)?;
    file.rewind()?;
    file.write_all(&page)?;
    Ok(())
}

/// Copies what can be read.
fn copy(shared: &Shared, path: &Path, old: &Connection, new: &Connection) -> Result<Carried, StoreError> {
    shared.threads.salvage_opened(old);
    new.execute_batch("BEGIN")?;
    let mut carried = Carried::default();
    copy_names(old, new)?;
    copy_events(shared, path, old, new, &mut carried)?;
    advance(shared, 0)?;
    copy_ids(old, new)?;
    advance(shared, 0)?;
    copy_deliveries(old, new, &mut carried)?;
    advance(shared, 0)?;
    new.execute_batch("COMMIT")?;
    Ok(carried)
}

fn copy_names(old: &Connection, new: &Connection) -> Result<(), StoreError> {
    let (projects, facts) = (
        "INSERT OR IGNORE INTO projects VALUES(?1, ?2)",
        "INSERT OR IGNORE INTO facts VALUES(?1, ?2)",
    );
    let lanes = "INSERT OR IGNORE INTO lanes VALUES(?1, ?2, ?3)";
    for (read, write) in [
        ("SELECT number, uid FROM projects NOT INDEXED", projects),
        ("SELECT number, json FROM facts NOT INDEXED", facts),
        ("SELECT number, uid, dropped FROM lanes NOT INDEXED", lanes),
        // The indexes say the same once more.
        ("SELECT number, uid FROM projects WHERE uid > ''", projects),
        (
            "SELECT number, json FROM facts INDEXED BY facts_json WHERE json > ''",
            facts,
        ),
        (
            "SELECT number, uid, dropped FROM lanes INDEXED BY lanes_uid WHERE uid > ''",
            lanes,
        ),
        (
            "SELECT lane, json FROM health",
            "INSERT OR IGNORE INTO health VALUES(?1, ?2)",
        ),
        // Where the first page was lost, the place of this table is a guess, and rows of another may stand there.
        (
            "SELECT lane, seq, note FROM notes WHERE typeof(seq) = 'integer' AND typeof(note) = 'blob'",
            "INSERT OR IGNORE INTO notes VALUES(?1, ?2, ?3)",
        ),
        (
            "SELECT lane, seq, at FROM replays WHERE typeof(seq) = 'integer' AND typeof(at) = 'integer'",
            "INSERT OR IGNORE INTO replays VALUES(?1, ?2, ?3)",
        ),
        (
            "SELECT lane, key, at, until FROM keys WHERE typeof(lane) = 'integer' AND typeof(key) = 'blob'
             AND typeof(at) = 'integer' AND typeof(until) = 'integer'",
            "INSERT OR IGNORE INTO keys VALUES(?1, ?2, ?3, ?4)",
        ),
        (
            "SELECT name, value FROM meta",
            "INSERT OR IGNORE INTO meta VALUES(?1, ?2)",
        ),
    ] {
        scan::rows(old, read, [], |row| scan::insert(new, write, row))?;
    }
    Ok(())
}

fn copy_events(
    shared: &Shared,
    path: &Path,
    old: &Connection,
    new: &Connection,
    carried: &mut Carried,
) -> Result<(), StoreError> {
    let mut facts = FactsCache::default();
    let read =
        "SELECT facts, id, accepted, sum, lanes, body, seq, project FROM events WHERE seq >= ?1 AND seq < ?2
         ORDER BY seq";
    let write = "INSERT OR IGNORE INTO events(facts, id, accepted, sum, lanes, body, seq, project)
         VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    let position = |row: &Row<'_>| row.get(6);
    let all = scan::range(old, "events", read, position, |row| {
        let seq: i64 = position(row)?;
        if !matches!(decode(new, &mut facts, seq, row), Ok(Some(_))) {
            carried.damaged += 1;
        }
        carried.events += 1;
        let body = row.get_ref(5)?.as_bytes_or_null().ok().flatten();
        advance(shared, body.map_or(0, <[u8]>::len).saturating_add(ROW))?;
        scan::insert(new, write, row)
    })?;
    if !all {
        find_events(shared, path, new, &mut facts, carried)?;
    }
    Ok(())
}

/// Takes the events that are on intact pages but cannot be reached.
fn find_events(
    shared: &Shared,
    path: &Path,
    new: &Connection,
    facts: &mut FactsCache,
    carried: &mut Carried,
) -> Result<(), StoreError> {
    let mut known = new.prepare("SELECT 1 FROM events WHERE seq = ?1")?;
    let mut insert = new.prepare(
        "INSERT INTO events(seq, project, facts, id, accepted, sum, lanes, body) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?;
    let mut remove = new.prepare("DELETE FROM events WHERE seq = ?1")?;
    raw::events(path, |seq, columns| {
        advance(shared, 0)?;
        if known.exists([seq])? {
            return Ok(());
        }
        let row = [Value::Integer(seq)].into_iter().chain(columns);
        match insert.execute(rusqlite::params_from_iter(row)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => return Ok(()),
            done => done?,
        };
        if matches!(read_event(new, facts, seq)?.0, Stored::Corrupt { .. }) {
            remove.execute([seq])?;
        } else {
            carried.events += 1;
        }
        Ok(())
    })
}

fn copy_ids(old: &Connection, new: &Connection) -> Result<(), StoreError> {
    let read = "SELECT seq, project, id, accepted FROM old_ids WHERE seq >= ?1 AND seq < ?2 ORDER BY seq";
    let write = "INSERT OR IGNORE INTO old_ids VALUES(?1, ?2, ?3, ?4)";
    scan::range(
        old,
        "old_ids",
        read,
        |row| row.get(0),
        |row| scan::insert(new, write, row),
    )?;
    let write = "INSERT INTO ids VALUES(?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET accepted = max(accepted, excluded.accepted)";
    for order in ["project, id", "project DESC, id DESC"] {
        let read = format!("SELECT project, id, accepted FROM ids ORDER BY {order}");
        if scan::rows(old, &read, [], |row| scan::insert(new, write, row))? {
            break;
        }
    }
    for table in ["events", "old_ids"] {
        new.execute_batch(&format!(
            "INSERT INTO ids SELECT project, id, accepted FROM {table} WHERE true ORDER BY seq
             ON CONFLICT DO UPDATE SET accepted = max(accepted, excluded.accepted)"
        ))?;
    }
    Ok(())
}

fn copy_deliveries(old: &Connection, new: &Connection, carried: &mut Carried) -> Result<(), StoreError> {
    let mut lanes: HashSet<i64> = HashSet::new();
    scan::rows(new, "SELECT number FROM lanes", [], |row| {
        lanes.insert(row.get(0)?);
        Ok(())
    })?;
    let write =
        "INSERT OR IGNORE INTO deliveries(lane, due, seq, attempts, project) VALUES(?1, ?2, ?3, ?4, ?5)";
    let read = "SELECT lane, due, seq, attempts, project FROM deliveries";
    let mut lost: Vec<(i64, i64, i64)> = Vec::new();
    for lane in &lanes {
        let (mut first, mut end) = (i64::MIN, i64::MAX);
        let mut order = Order::default();
        let forward = format!("{read} WHERE lane = ?1 ORDER BY due, seq");
        let whole = scan::rows(old, &forward, [*lane], |row| {
            first = row.get(1)?;
            order.pass((first, row.get(2)?));
            scan::insert(new, write, row)
        })?;
        lost.extend(order.gaps(new, *lane)?);
        if whole {
            continue;
        }
        let backward = format!("{read} WHERE lane = ?1 ORDER BY due DESC, seq DESC");
        scan::rows(old, &backward, [*lane], |row| {
            end = row.get(1)?;
            scan::insert(new, write, row)
        })?;
        let between = format!("{read} WHERE lane = ?1 AND due >= ?2 AND due < ?3 ORDER BY due, seq");
        scan::between(first, end, |from, to| {
            scan::rows(old, &between, [*lane, from, to], |row| {
                scan::insert(new, write, row)
            })
        })?;
        lost.push((*lane, first.min(end), end.max(first)));
    }
    // A row whose lane is damaged ends the look at its lane before its time, without an error: all rows once more.
    let mut nameless: Vec<i64> = Vec::new();
    let all = format!("{read} ORDER BY lane, due, seq");
    scan::rows(old, &all, [], |row| {
        if lanes.contains(&row.get(0)?) {
            return scan::insert(new, write, row);
        }
        carried.nameless += 1;
        if nameless.len() < MAX_NAMELESS {
            nameless.push(row.get(2)?);
        }
        Ok(())
    })?;
    carried.remade = remake(new, &lanes, &lost, &nameless)?;
    carried.deliveries = new
        .query_row("SELECT count(*) FROM deliveries", [], |row| row.get::<_, i64>(0))?
        .cast_unsigned();
    Ok(())
}

/// Where rows that should ascend do not. A damaged tree leads to some of its leaves twice, and to others not at all: the
/// rows of those belong before a step back, or before the step out of what was passed already.
#[derive(Default)]
struct Order {
    furthest: Option<(i64, i64)>,
    last: Option<(i64, i64)>,
    /// Due times of the first row after each step back.
    back: Vec<i64>,
    /// Due times around each step out.
    out: Vec<(i64, i64)>,
}

impl Order {
    fn pass(&mut self, key: (i64, i64)) {
        let before = self.last.replace(key);
        let furthest = *self.furthest.get_or_insert(key);
        if before.is_some_and(|before| key <= before) {
            self.back.push(key.0);
        }
        if key > furthest {
            if before.is_some_and(|before| before < furthest) {
                self.out.push((furthest.0, key.0));
            }
            self.furthest = Some(key);
        }
    }

    /// Lane, first and last due time of what may be lost, when all that was passed is in the new file.
    fn gaps(self, new: &Connection, lane: i64) -> Result<Vec<(i64, i64, i64)>, StoreError> {
        let mut gaps: Vec<_> = self.out.into_iter().map(|(from, to)| (lane, from, to)).collect();
        let mut before =
            new.prepare_cached("SELECT max(due) FROM deliveries WHERE lane = ?1 AND due < ?2")?;
        for to in self.back {
            let from: Option<i64> = before.query_row([lane, to], |row| row.get(0))?;
            gaps.push((lane, from.unwrap_or(i64::MIN), to));
        }
        Ok(gaps)
    }
}

/// Makes the deliveries again whose page is lost: those of events accepted in the lost span of their lane, and those of
/// events of which some delivery has lost its lane.
fn remake(
    new: &Connection,
    lanes: &HashSet<i64>,
    lost: &[(i64, i64, i64)],
    nameless: &[i64],
) -> Result<u64, StoreError> {
    if lost.is_empty() && nameless.is_empty() {
        return Ok(0);
    }
    let nameless: HashSet<i64> = nameless.iter().copied().collect();
    let mut remade = 0;
    let mut make = new.prepare("INSERT OR IGNORE INTO deliveries VALUES(?1, ?2, ?3, 0, ?4)")?;
    let mut events = new.prepare("SELECT seq, accepted, lanes, project FROM events ORDER BY seq")?;
    // One look at what is known, because the table has no index by event.
    let mut held: HashSet<(i64, i64)> = HashSet::new();
    scan::rows(new, "SELECT lane, seq FROM deliveries", [], |row| {
        held.insert((row.get(0)?, row.get(1)?));
        Ok(())
    })?;
    let mut rows = events.query([])?;
    while let Some(row) = rows.next()? {
        let (seq, accepted, project): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(3)?);
        let due = accepted / 1_000_000;
        let went: Vec<u8> = row.get(2)?;
        for lane in numbers(&went) {
            let in_gap = lost
                .iter()
                .any(|(other, first, last)| *other == lane && (*first..=*last).contains(&due));
            let wanted = in_gap || (nameless.contains(&seq) && lanes.contains(&lane));
            if wanted && !held.contains(&(lane, seq)) {
                remade += make.execute((lane, due, seq, project))? as u64;
            }
        }
    }
    Ok(remade)
}
