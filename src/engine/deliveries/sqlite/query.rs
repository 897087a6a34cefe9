//! Reading the delivery log.
//!
//! A list walks the records of one destination in the order of their numbers, [`MAX_SCAN`] at most. A record counts when
//! no newer one is there for the same event.

use std::borrow::Cow;

use jiff::Timestamp;
use rusqlite::OptionalExtension as _;
use rusqlite::types::ValueRef;

use super::store::{Fault, Store, unpack};
use crate::domain::delivery_log::{Record, State};
use crate::domain::id::{EventId, Uid};
use crate::engine::deliveries::{MAX_ATTEMPTS, MAX_PAGE, MAX_SCAN, Page, Query, Which};
use crate::engine::queue::sqlite::{IdColumn, read_id};

const COLUMNS: &str = "number, seq, id, kind, state, attempt, status, reason, began, timings, headers, message, \
    excerpt, next, replayed";

/// Whether an event has a newer record than one.
///
/// Without a word about the index, SQLite would walk all records of the destination that are newer.
const NEWER: &str = "SELECT 1 FROM attempts INDEXED BY by_event
    WHERE lane = ?1 AND seq = ?2 AND number > ?3 AND id = ?4 LIMIT 1";

/// The records of an event, the newest first.
fn of_event() -> String {
    format!(
        "SELECT {COLUMNS} FROM attempts INDEXED BY by_event WHERE lane = ?1 AND seq = ?2 AND id = ?3
         ORDER BY number DESC LIMIT {MAX_ATTEMPTS}"
    )
}

impl Store {
    /// See [`DeliveryLog::list`](crate::engine::deliveries::DeliveryLog::list).
    pub(super) fn list(&self, uid: &Uid, query: &Query) -> Result<Page, Fault> {
        let mut page = Page::default();
        let Some(lane) = self.lanes.get(uid) else {
            return Ok(page);
        };
        let mut first = query.since.map_or(i64::MIN, |time| self.eras.at(time));
        let mut end = query.until.map_or(i64::MAX, |time| self.eras.at(time));
        if let Some(cursor) = query.cursor {
            if query.oldest_first {
                first = first.max(cursor.saturating_add(1));
            } else {
                end = end.min(cursor);
            }
        }
        let failures = query.state.is_some_and(|state| state != State::Delivered);
        let (index, only) = if failures {
            ("INDEXED BY failures", "AND state > 0")
        } else {
            ("", "")
        };
        let order = if query.oldest_first { "ASC" } else { "DESC" };
        let sql = format!(
            "SELECT {COLUMNS} FROM attempts {index} WHERE lane = ?1 AND number >= ?2 AND number < ?3 {only}
             ORDER BY number {order}"
        );
        let kind = query.event_type.as_deref().map(|kind| self.words.find(kind));
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query((lane, first, end))?;
        let limit = query.limit.min(MAX_PAGE);
        let mut looked = 0_usize;
        while let Some(row) = rows.next()? {
            if page.records.len() >= limit || looked >= MAX_SCAN {
                return Ok(page);
            }
            looked += 1;
            let number: i64 = row.get(0)?;
            page.next = Some(number);
            let state: u8 = row.get(4)?;
            if query.state.is_some_and(|wanted| wanted as u8 != state) {
                continue;
            }
            let stored = row.get_ref(3)?;
            let same_kind = kind.is_none_or(|kind| kind.is(stored) || self.is_text(query, stored));
            if !same_kind {
                continue;
            }
            looked += 1;
            if self.is_superseded(*lane, number, row)? {
                continue;
            }
            page.records.extend(self.record(uid, row)?);
        }
        page.next = None;
        Ok(page)
    }

    /// Whether a type that has a number by now was stored in full.
    fn is_text(&self, query: &Query, stored: ValueRef<'_>) -> bool {
        matches!(stored, ValueRef::Text(_)) && query.event_type.as_deref() == Some(self.words.text(stored))
    }

    fn is_superseded(
        &self,
        lane: i64,
        number: i64,
        row: &rusqlite::Row<'_>,
    ) -> Result<bool, rusqlite::Error> {
        let mut newer = self.connection.prepare_cached(NEWER)?;
        let id: rusqlite::types::Value = row.get(2)?;
        newer.exists((lane, row.get::<_, i64>(1)?, number, id))
    }

    /// See [`DeliveryLog::attempts`](crate::engine::deliveries::DeliveryLog::attempts).
    pub(super) fn attempts(&self, uid: &Uid, which: &Which) -> Result<Vec<Record>, Fault> {
        let Some(lane) = self.lanes.get(uid) else {
            return Ok(Vec::new());
        };
        let (seq, id) = match which {
            Which::Position(seq, id) => (Some(seq.cast_signed()), id),
            Which::Id(id) => (self.position(*lane, id)?, id),
        };
        let mut found = Vec::new();
        let Some(seq) = seq else {
            return Ok(found);
        };
        let mut statement = self.connection.prepare_cached(&of_event())?;
        let mut rows = statement.query((*lane, seq, IdColumn::new(id)))?;
        while let Some(row) = rows.next()? {
            found.extend(self.record(uid, row)?);
        }
        found.reverse();
        Ok(found)
    }

    /// The position of an event that is known by its id alone: among the newest records, then, when the id tells the time
    /// at which it was made, among those from then on.
    fn position(&self, lane: i64, id: &EventId) -> Result<Option<i64>, rusqlite::Error> {
        let column = IdColumn::new(id);
        let look = |first: i64, order: &str| {
            let sql = format!(
                "SELECT seq FROM (SELECT seq, id FROM attempts WHERE lane = ?1 AND number >= ?2
                 ORDER BY number {order} LIMIT ?3) WHERE id = ?4 LIMIT 1"
            );
            let mut statement = self.connection.prepare_cached(&sql)?;
            let most = i64::try_from(MAX_SCAN / 2).unwrap_or(i64::MAX);
            statement
                .query_row((lane, first, most, &column), |row| row.get(0))
                .optional()
        };
        let newest = look(i64::MIN, "DESC")?;
        let made = match &column {
            IdColumn::Uuid(uuid) => uuid.get_timestamp().and_then(millis),
            IdColumn::Text(_) => None,
        };
        match (newest, made) {
            (None, Some(made)) => look(self.eras.at(made), "ASC"),
            (newest, _) => Ok(newest),
        }
    }

    /// A record; `None` when it makes no sense.
    fn record(&self, uid: &Uid, row: &rusqlite::Row<'_>) -> Result<Option<Record>, rusqlite::Error> {
        let id: Option<EventId> = read_id(row.get_ref(2)?);
        let state = State::from_repr(row.get(4)?);
        let (Some(event_id), Some(state)) = (id, state) else {
            return Ok(None);
        };
        let time = |millis: i64| Timestamp::from_millisecond(millis).unwrap_or_default();
        let next: Option<i64> = row.get(13)?;
        Ok(Some(Record {
            lane: uid.clone(),
            event_id,
            event_type: self.words.text(row.get_ref(3)?).into(),
            seq: row.get::<_, i64>(1)?.cast_unsigned(),
            attempt: row.get(5)?,
            began: time(row.get(8)?),
            state,
            status: row.get(6)?,
            reason: Cow::Owned(self.words.text(row.get_ref(7)?).to_owned()),
            message: row.get::<_, Option<String>>(11)?.unwrap_or_default(),
            timings: unpack(row.get_ref(9)?.as_blob().unwrap_or_default()),
            headers: self.words.text(row.get_ref(10)?).into(),
            excerpt: row.get(12)?,
            next_attempt: next.map(time),
            replayed: row.get(14)?,
        }))
    }
}

fn millis(made: uuid::Timestamp) -> Option<Timestamp> {
    let (seconds, nanoseconds) = made.to_unix();
    Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanoseconds).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_event_are_found_without_walking_through_those_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("deliveries.db")).unwrap();
        for sql in [NEWER.to_owned(), of_event()] {
            let mut statement = store
                .connection
                .prepare(&format!("EXPLAIN QUERY PLAN {sql}"))
                .unwrap();
            let places = statement.parameter_count();
            let plan: String = statement
                .query_row(rusqlite::params_from_iter(vec![1; places]), |row| row.get(3))
                .unwrap();
            assert!(
                plan.contains("USING INDEX by_event (lane=? AND seq=?"),
                "{sql}: {plan}"
            );
        }
    }
}
