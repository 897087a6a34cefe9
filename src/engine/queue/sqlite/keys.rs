//! [`Keys`]: which keys lanes have seen, in the table of that name.
//!
//! A key is written with its event and asked for in the same transaction, so two publishers are one after the other.
//! Its row says when it was stored and until when it counts: by both it is told whether the next event with it is within
//! the window, by the latter it is removed. With every [`SWEEP_EVERY`]th new key some that have ended go: of its own lane and, in turn,
//! of another one.
//!
//! Bounds: [`Settings::max_lane_keys`](super::Settings::max_lane_keys) and
//! [`Settings::max_keys`](super::Settings::max_keys). At a bound a lane forgets its oldest key, or does not remember the
//! new one: rather an event twice than never. In memory there is one number for each lane that has keys; they are
//! counted when the first key of the process is stored.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _};

use super::Settings;
use crate::domain::policy::dedup::{LONGEST_WINDOW, Mark};

/// How many new keys there are between two looks for old ones.
const SWEEP_EVERY: u32 = 64;
/// Most keys that one look at a lane removes; more than come meanwhile.
const SWEPT: i64 = 256;

/// How many keys there are.
#[derive(Debug, Default)]
pub(super) struct Keys {
    is_counted: bool,
    /// By number of the lane, as committed.
    counts: BTreeMap<i64, i64>,
    total: i64,
    /// What the open transaction changes.
    changes: BTreeMap<i64, i64>,
    /// Keys that the open transaction forgot early, or did not remember.
    forgotten: u64,
    since_sweep: u32,
    /// The lane whose old keys were removed last in turn.
    turn: i64,
}

impl Keys {
    /// Whether an event is the first of a lane with its key; then the key is remembered.
    pub(super) fn is_first(
        &mut self,
        connection: &Connection,
        lane: i64,
        mark: Mark,
        accepted: i64,
        settings: &Settings,
    ) -> Result<bool, rusqlite::Error> {
        let key = mark.key.to_be_bytes();
        let mut known =
            connection.prepare_cached("SELECT at, until FROM keys WHERE lane = ?1 AND key = ?2")?;
        let before: Option<(i64, i64)> = known
            .query_row((lane, key), |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        if before.is_some_and(|(at, until)| mark.against(at, until).is_within(at, accepted)) {
            return Ok(false);
        }
        if before.is_none() {
            self.count(connection)?;
            if !self.make_room(connection, lane, accepted, settings)? {
                self.forgotten += 1;
                return Ok(true);
            }
            self.change(lane, 1);
        }
        let until = accepted.saturating_add(mark.window);
        let mut keep = connection
            .prepare_cached("INSERT OR REPLACE INTO keys(lane, key, at, until) VALUES(?1, ?2, ?3, ?4)")?;
        keep.execute((lane, key, accepted, until))?;
        Ok(true)
    }

    /// Removes some keys of a lane that is dropped; how many.
    pub(super) fn forget_some(
        &mut self,
        connection: &Connection,
        lane: i64,
        limit: i64,
    ) -> Result<usize, rusqlite::Error> {
        let mut statement = connection.prepare_cached(
            "DELETE FROM keys WHERE lane = ?1 AND key IN (SELECT key FROM keys WHERE lane = ?1 LIMIT ?2)",
        )?;
        let gone = statement.execute((lane, limit))?;
        self.removed(lane, gone);
        Ok(gone)
    }

    /// The open transaction is in the file; how many keys it forgot early.
    pub(super) fn commit(&mut self) -> u64 {
        for (lane, change) in std::mem::take(&mut self.changes) {
            let count = self.counts.entry(lane).or_default();
            *count += change;
            self.total += change;
            if *count <= 0 {
                self.counts.remove(&lane);
            }
        }
        std::mem::take(&mut self.forgotten)
    }

    /// The open transaction is not in the file.
    pub(super) fn undo(&mut self) {
        self.changes.clear();
        self.forgotten = 0;
    }

    /// Counts what there is. Called before anything of it is changed.
    fn count(&mut self, connection: &Connection) -> Result<(), rusqlite::Error> {
        if self.is_counted {
            return Ok(());
        }
        let mut statement = connection.prepare("SELECT lane, count(*) FROM keys GROUP BY lane")?;
        let mut rows = statement.query([])?;
        self.counts.clear();
        self.total = 0;
        while let Some(row) = rows.next()? {
            let (lane, count): (i64, i64) = (row.get(0)?, row.get(1)?);
            self.counts.insert(lane, count);
            self.total += count;
        }
        self.is_counted = true;
        Ok(())
    }

    fn change(&mut self, lane: i64, change: i64) {
        *self.changes.entry(lane).or_default() += change;
    }

    fn removed(&mut self, lane: i64, count: usize) {
        if self.is_counted && count > 0 {
            self.change(lane, -i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    fn of(&self, lane: i64) -> i64 {
        let number = |numbers: &BTreeMap<i64, i64>| numbers.get(&lane).copied().unwrap_or(0);
        number(&self.counts) + number(&self.changes)
    }

    /// Whether a lane and all together have less than they may.
    fn has_room(&self, lane: i64, settings: &Settings) -> bool {
        let most = |bound: u64| i64::try_from(bound).unwrap_or(i64::MAX);
        let total = self.total + self.changes.values().sum::<i64>();
        self.of(lane) < most(settings.max_lane_keys) && total < most(settings.max_keys)
    }

    /// Makes room for a lane's new key; whether there is some.
    fn make_room(
        &mut self,
        connection: &Connection,
        lane: i64,
        now: i64,
        settings: &Settings,
    ) -> Result<bool, rusqlite::Error> {
        self.since_sweep += 1;
        if self.since_sweep >= SWEEP_EVERY || !self.has_room(lane, settings) {
            self.since_sweep = 0;
            self.sweep(connection, lane, now)?;
            let mut later = self.counts.range(self.turn.saturating_add(1)..);
            let other = later.next().or_else(|| self.counts.first_key_value());
            if let Some((other, _)) = other.filter(|(other, _)| **other != lane) {
                let other = *other;
                self.sweep(connection, other, now)?;
                self.turn = other;
            } else {
                self.turn = lane;
            }
        }
        if self.has_room(lane, settings) {
            return Ok(true);
        }
        let mut oldest = connection.prepare_cached(
            "DELETE FROM keys WHERE lane = ?1 AND key IN
             (SELECT key FROM keys WHERE lane = ?1 ORDER BY until LIMIT 1)",
        )?;
        let gone = oldest.execute([lane])?;
        self.removed(lane, gone);
        self.forgotten += gone as u64;
        Ok(gone > 0)
    }

    /// Removes some keys of a lane that do not count any more, and some that a clock has stored which was far ahead.
    fn sweep(&mut self, connection: &Connection, lane: i64, now: i64) -> Result<(), rusqlite::Error> {
        let reach = i64::try_from(LONGEST_WINDOW.as_millis().saturating_mul(2)).unwrap_or(i64::MAX);
        let mut ended = connection.prepare_cached(
            "DELETE FROM keys WHERE lane = ?1 AND key IN
             (SELECT key FROM keys WHERE lane = ?1 AND until <= ?2 ORDER BY until LIMIT ?3)",
        )?;
        let gone = ended.execute((lane, now, SWEPT))?;
        let mut astray = connection.prepare_cached(
            "DELETE FROM keys WHERE lane = ?1 AND key IN
             (SELECT key FROM keys WHERE lane = ?1 AND until > ?2 ORDER BY until DESC LIMIT ?3)",
        )?;
        let gone = gone + astray.execute((lane, now.saturating_add(reach), SWEPT))?;
        self.removed(lane, gone);
        Ok(())
    }
}
