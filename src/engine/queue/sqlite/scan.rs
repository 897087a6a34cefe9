//! Reading tables of a damaged file: around pages that cannot be read.
//!
//! An error of the damaged file ends a scan, an error of the new file ends the salvage. Probing is bounded by
//! [`PROBES`] statements per table.

use rusqlite::types::Value;
use rusqlite::{Connection, Params, Row, ToSql};

use super::fault::StoreError;

/// Most statements spent on finding readable rows between unreadable ones.
const PROBES: usize = 500_000;

/// Most statements spent on one lane's deliveries.
const LANE_PROBES: usize = 4096;

/// Reads rows until the end or an error; whether it was the end.
pub(super) fn rows(
    old: &Connection,
    sql: &str,
    parameters: impl Params,
    mut each: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<bool, StoreError> {
    rows_while(old, sql, parameters, |row| each(row).map(|()| true))
}

/// Reads rows until the end, an error, or until `each` does not go on; whether it was the end.
fn rows_while(
    old: &Connection,
    sql: &str,
    parameters: impl Params,
    mut each: impl FnMut(&Row<'_>) -> Result<bool, StoreError>,
) -> Result<bool, StoreError> {
    let Ok(mut statement) = old.prepare_cached(sql) else {
        return Ok(false);
    };
    let Ok(mut rows) = statement.query(parameters) else {
        return Ok(false);
    };
    loop {
        match rows.next() {
            Ok(Some(row)) => match each(row) {
                // Damaged: a value that cannot be what it should be, in this row only.
                Ok(true) | Err(StoreError::Damaged(_)) => {}
                Ok(false) => return Ok(false),
                Err(error) => return Err(error),
            },
            Ok(None) => return Ok(true),
            Err(_) => return Ok(false),
        }
    }
}

/// The same for rows that come in the order of a key. One that is out of order ends the scan: a damaged tree leads to
/// some of its leaves twice, and to others not at all.
pub(super) fn ordered<K: Ord>(
    old: &Connection,
    sql: &str,
    parameters: impl Params,
    key: impl Fn(&Row<'_>) -> Result<K, rusqlite::Error>,
    mut each: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<bool, StoreError> {
    let mut last: Option<K> = None;
    rows_while(old, sql, parameters, |row| {
        let key = key(row)?;
        if last.as_ref().is_some_and(|last| *last >= key) {
            return Ok(false);
        }
        last = Some(key);
        each(row).map(|()| true)
    })
}

/// Writes a row's columns as they are.
pub(super) fn insert(new: &Connection, sql: &str, row: &Row<'_>) -> Result<(), StoreError> {
    let columns = row.as_ref().column_count();
    let mut values: Vec<Value> = Vec::with_capacity(columns);
    for column in 0..columns {
        values.push(row.get(column)?);
    }
    let parameters: Vec<&dyn ToSql> = values.iter().map(|value| value as &dyn ToSql).collect();
    match new.prepare_cached(sql)?.execute(&*parameters) {
        Ok(_) => Ok(()),
        // A damaged row that the new table cannot hold.
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Reads a table by its rowid: `sql` takes a first and an end position, and `position` reads the row's. Whether all could
/// be read.
pub(super) fn range(
    old: &Connection,
    table: &str,
    sql: &str,
    position: impl Fn(&Row<'_>) -> Result<i64, rusqlite::Error> + Copy,
    mut each: impl FnMut(&Row<'_>) -> Result<(), StoreError>,
) -> Result<bool, StoreError> {
    let max = old.query_row(&format!("SELECT max(seq) FROM {table}"), [], |row| {
        row.get::<_, Option<i64>>(0)
    });
    let mut waiting = vec![(i64::MIN, i64::MAX)];
    let mut probes = 0;
    let mut ends = None;
    let mut all = true;
    while let Some((from, end)) = waiting.pop() {
        probes += 1;
        if from >= end || probes > PROBES {
            continue;
        }
        let mut next = from;
        let whole = ordered(old, sql, [from, end], position, |row| {
            next = position(row)?.saturating_add(1);
            each(row)
        })?;
        if whole {
            continue;
        }
        all = false;
        let bound = *ends.get_or_insert_with(|| end_of(old, max.as_ref().ok().copied().flatten(), next));
        let end = end.min(bound);
        let next = next.max(0);
        if end.saturating_sub(next) <= 1 {
            continue;
        }
        let middle = next + (end - next) / 2;
        waiting.push((middle, end));
        waiting.push((next, middle));
    }
    Ok(all)
}

/// Behind the last position that there may be.
fn end_of(old: &Connection, max: Option<i64>, seen: i64) -> i64 {
    if let Some(max) = max {
        return max.saturating_add(1);
    }
    let pages: i64 = old
        .pragma_query_value(None, "page_count", |row| row.get(0))
        .unwrap_or(0);
    seen.max(0).saturating_add(pages.saturating_mul(64))
}

/// Probes the span between two due times, the largest unread parts first.
pub(super) fn between(
    first: i64,
    last: i64,
    mut read: impl FnMut(i64, i64) -> Result<bool, StoreError>,
) -> Result<(), StoreError> {
    // A millennium around 1970: halving from there takes forty steps.
    let bound = 31_556_952_000_000;
    let mut waiting = std::collections::VecDeque::from([(first.max(-bound), last.min(bound))]);
    for _ in 0..LANE_PROBES {
        let Some((from, end)) = waiting.pop_front() else {
            return Ok(());
        };
        if !read(from, end)? && end.saturating_sub(from) > 1 {
            let middle = from + (end - from) / 2;
            waiting.push_back((from, middle));
            waiting.push_back((middle, end));
        }
    }
    Ok(())
}
