//! Rows as they are stored: ids, checksums, and an event read back.
//!
//! A row's checksum is a CRC-32 over the project's uid, the id, the acceptance time, the body, the position, the
//! number of the facts and the lanes, so a flipped bit in any of them, and a row at the wrong place, is found.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension};
use uuid::Uuid;

use super::fault::StoreError;
use super::replays;
use crate::domain::event::{Content, Event};
use crate::domain::id::{EventId, Uid};
use crate::domain::project::ProjectFacts;
use crate::engine::queue::keys::LaneKey;
use crate::engine::queue::{NewEvent, Stored};

/// Most facts the reader remembers; beyond, it starts over.
const MAX_FACTS: usize = 4096;

/// An id as stored: 16 bytes when it is a UUID in its usual form, else text.
#[derive(Clone, Debug)]
pub(in crate::engine) enum IdColumn<'a> {
    /// A UUID.
    Uuid(Uuid),
    /// Anything else.
    Text(&'a str),
}

impl<'a> IdColumn<'a> {
    /// The stored form of an id.
    pub(in crate::engine) fn new(id: &'a EventId) -> Self {
        let text = id.as_str();
        if text.len() == uuid::fmt::Hyphenated::LENGTH
            && let Ok(uuid) = Uuid::try_parse(text)
            && *uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == *text
        {
            return Self::Uuid(uuid);
        }
        Self::Text(text)
    }
}

impl ToSql for IdColumn<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Uuid(uuid) => ValueRef::Blob(uuid.as_bytes()),
            Self::Text(text) => ValueRef::Text(text.as_bytes()),
        }))
    }
}

/// Reads an id; `None` when it cannot be one.
pub(in crate::engine) fn read_id(value: ValueRef<'_>) -> Option<EventId> {
    match value {
        ValueRef::Blob(bytes) => Uuid::from_slice(bytes).ok().map(EventId::from_uuid),
        ValueRef::Text(text) => std::str::from_utf8(text).ok().and_then(EventId::parse),
        _ => None,
    }
}

/// An event prepared for the writer, by the caller's task.
#[derive(Debug)]
pub(super) struct Row {
    /// The event.
    pub(super) event: Arc<Event>,
    /// Its lanes.
    pub(super) lanes: Arc<[Uid]>,
    /// Its keys for some of them.
    pub(super) keys: Box<[LaneKey]>,
    /// Its stored form.
    pub(super) body: Vec<u8>,
    /// Checksum up to position and facts, which the writer adds.
    pub(super) sum: crc32fast::Hasher,
    /// Acceptance time in nanoseconds since 1970.
    pub(super) accepted: i64,
}

impl Row {
    /// Prepares an event.
    pub(super) fn new(new: NewEvent) -> Result<Self, serde_json::Error> {
        let NewEvent { event, lanes, keys } = new;
        let body = event.content.to_stored()?;
        let accepted = nanoseconds(event.accepted);
        let sum = checksum(&event.project.uid, event.id.as_str(), accepted, &body);
        Ok(Self {
            event,
            lanes,
            keys,
            body,
            sum,
            accepted,
        })
    }

    /// Bytes that the event is charged with in memory: its text, and what surrounds it.
    pub(super) fn cost(&self) -> usize {
        self.body.len() + 512
    }
}

fn checksum(project: &Uid, id: &str, accepted: i64, body: &[u8]) -> crc32fast::Hasher {
    let mut sum = crc32fast::Hasher::new();
    sum.update(project.as_str().as_bytes());
    sum.update(&[0]);
    sum.update(id.as_bytes());
    sum.update(&[0]);
    sum.update(&accepted.to_le_bytes());
    sum.update(body);
    sum
}

/// Finishes a checksum.
pub(super) fn finish(mut sum: crc32fast::Hasher, seq: i64, facts: i64, lanes: &[u8]) -> u32 {
    let mut tail = [0; 16];
    let (first, second) = tail.split_at_mut(8);
    first.copy_from_slice(&seq.to_le_bytes());
    second.copy_from_slice(&facts.to_le_bytes());
    sum.update(&tail);
    sum.update(lanes);
    sum.finalize()
}

/// Appends a number, seven bits per byte, the lowest first; the last byte has no high bit.
pub(super) fn put_number(bytes: &mut Vec<u8>, number: i64) {
    let mut rest = number.cast_unsigned();
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap_or_default() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap_or_default());
}

/// Reads what [`put_number`] wrote.
pub(super) fn numbers(bytes: &[u8]) -> Vec<i64> {
    let mut found = Vec::new();
    let (mut number, mut shift) = (0_u64, 0_u32);
    for byte in bytes {
        number |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or_default();
        shift += 7;
        if byte & 0x80 == 0 {
            found.push(number.cast_signed());
            (number, shift) = (0, 0);
        }
    }
    found
}

/// Nanoseconds since 1970; the years 1677 to 2262.
pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX)
}

/// Facts by number, read when needed.
#[derive(Debug, Default)]
pub(super) struct FactsCache(HashMap<i64, Option<Arc<ProjectFacts>>>);

impl FactsCache {
    /// The facts of a number; `None` when they are gone or damaged.
    pub(super) fn get(
        &mut self,
        connection: &Connection,
        number: i64,
    ) -> Result<Option<Arc<ProjectFacts>>, rusqlite::Error> {
        if let Some(facts) = self.0.get(&number) {
            return Ok(facts.clone());
        }
        let mut statement = connection.prepare_cached("SELECT json FROM facts WHERE number = ?1")?;
        let json: Option<String> = statement.query_row([number], |row| row.get(0)).optional()?;
        let facts = json
            .and_then(|json| serde_json::from_str(&json).ok())
            .map(Arc::new);
        if self.0.len() >= MAX_FACTS {
            self.0.clear();
        }
        self.0.insert(number, facts.clone());
        Ok(facts)
    }
}

/// When the event of a delivery was accepted, or a replay made the delivery, in milliseconds since 1970; when that cannot
/// be read, or is after it is due, when it is due.
pub(super) fn accepted_millis(
    connection: &Connection,
    lane: i64,
    (due, seq): (i64, i64),
) -> Result<i64, rusqlite::Error> {
    if let Some(made) = replays::made(connection, lane, seq)? {
        return Ok(made.min(due));
    }
    let mut statement = connection.prepare_cached("SELECT accepted FROM events WHERE seq = ?1")?;
    let mut rows = statement.query([seq])?;
    let Some(row) = rows.next()? else {
        return Ok(due);
    };
    Ok(match row.get_ref(0)? {
        ValueRef::Integer(nanoseconds) => (nanoseconds / 1_000_000).min(due),
        _ => due,
    })
}

/// What is stored at a position, and the bytes it costs in memory.
pub(super) fn read_event(
    connection: &Connection,
    facts: &mut FactsCache,
    seq: i64,
) -> Result<(Stored, usize), StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT facts, id, accepted, sum, lanes, body FROM events WHERE seq = ?1")?;
    let mut rows = statement.query([seq])?;
    let Some(row) = rows.next()? else {
        return Ok((Stored::Corrupt { id: None }, 512));
    };
    let id = read_id(row.get_ref(1)?);
    let stored = match decode(connection, facts, seq, row)? {
        Some(event) => Stored::Event(Arc::new(event)),
        None => Stored::Corrupt { id },
    };
    let length = row
        .get_ref(5)?
        .as_bytes_or_null()
        .ok()
        .flatten()
        .map_or(0, <[u8]>::len);
    Ok((stored, length + 512))
}

/// The event of a row `facts, id, accepted, sum, lanes, body`; `None` when it is damaged.
pub(super) fn decode(
    connection: &Connection,
    facts: &mut FactsCache,
    seq: i64,
    row: &rusqlite::Row<'_>,
) -> Result<Option<Event>, rusqlite::Error> {
    let (ValueRef::Integer(number), ValueRef::Integer(accepted), ValueRef::Integer(sum)) =
        (row.get_ref(0)?, row.get_ref(2)?, row.get_ref(3)?)
    else {
        return Ok(None);
    };
    let (ValueRef::Blob(lanes), ValueRef::Blob(body)) = (row.get_ref(4)?, row.get_ref(5)?) else {
        return Ok(None);
    };
    let Some(id) = read_id(row.get_ref(1)?) else {
        return Ok(None);
    };
    let Some(project) = facts.get(connection, number)? else {
        return Ok(None);
    };
    let found = finish(
        checksum(&project.uid, id.as_str(), accepted, body),
        seq,
        number,
        lanes,
    );
    if i64::from(found) != sum {
        return Ok(None);
    }
    let Ok(content) = Content::from_stored(body) else {
        return Ok(None);
    };
    let Ok(accepted) = Timestamp::from_nanosecond(accepted.into()) else {
        return Ok(None);
    };
    Ok(Some(Event::new(id, accepted, content, project)))
}
