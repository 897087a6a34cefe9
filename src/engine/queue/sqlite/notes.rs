//! Notes: what an attempt left for later ones, in the table of that name.
//!
//! Few deliveries have one, so none are kept in memory. A note goes when its delivery leaves the queue.

use rusqlite::{Connection, OptionalExtension as _};

use super::fault::StoreError;
use super::store::Store;
use crate::domain::id::Uid;

/// Stores a note in place of an older one.
pub(super) fn keep(connection: &Connection, lane: i64, seq: i64, note: &[u8]) -> Result<(), rusqlite::Error> {
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO notes(lane, seq, note) VALUES(?1, ?2, ?3)")?;
    statement.execute((lane, seq, note))?;
    Ok(())
}

/// Removes the note of a delivery, if it has one.
pub(super) fn forget(connection: &Connection, lane: i64, seq: i64) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached("DELETE FROM notes WHERE lane = ?1 AND seq = ?2")?;
    statement.execute((lane, seq))?;
    Ok(())
}

/// Removes the notes of the first deliveries of a lane; before these are removed, or in the end what may be left.
pub(super) fn forget_some(connection: &Connection, lane: i64, limit: i64) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM notes WHERE lane = ?1 AND seq IN
         (SELECT seq FROM deliveries WHERE lane = ?1 ORDER BY due, seq LIMIT ?2)",
    )?;
    statement.execute((lane, limit))?;
    Ok(())
}

/// The note of a lane's delivery.
pub(super) fn read(store: &Store, lane: &Uid, seq: i64) -> Result<Option<Box<[u8]>>, StoreError> {
    let Some(number) = store.lane_number(lane) else {
        return Ok(None);
    };
    let mut statement = store
        .connection
        .prepare_cached("SELECT note FROM notes WHERE lane = ?1 AND seq = ?2")?;
    let note = statement
        .query_row((number, seq), |row| row.get::<_, Vec<u8>>(0))
        .optional()?;
    Ok(note.map(Into::into))
}
