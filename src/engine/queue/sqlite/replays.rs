//! Replays: when deliveries were made that were not made with their event, in the table of that name.
//!
//! A row goes with its delivery. One that stays behind, because a version that knows no replays finished the delivery,
//! says nothing: what waits is told by the deliveries alone.
//!
//! [`Recent`] keeps retention from removing an event between the keeper's look at what is open and the writer's
//! removing it.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _};

use super::keeper::Trim;

/// Most events remembered; beyond, older plans of the keeper are void.
const MOST: usize = 65_536;

/// Notes when a delivery was made.
pub(super) fn keep(connection: &Connection, lane: i64, seq: i64, at: i64) -> Result<(), rusqlite::Error> {
    let mut statement =
        connection.prepare_cached("INSERT OR REPLACE INTO replays(lane, seq, at) VALUES(?1, ?2, ?3)")?;
    statement.execute((lane, seq, at))?;
    Ok(())
}

/// When a delivery was made by a replay, in milliseconds since 1970.
pub(super) fn made(connection: &Connection, lane: i64, seq: i64) -> Result<Option<i64>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT at FROM replays WHERE lane = ?1 AND seq = ?2")?;
    statement.query_row((lane, seq), |row| row.get(0)).optional()
}

/// Whether a lane has any.
pub(super) fn any(connection: &Connection, lane: i64) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached("SELECT 1 FROM replays WHERE lane = ?1 LIMIT 1")?
        .exists([lane])
}

/// Removes the row of a delivery, if it has one.
pub(super) fn forget(connection: &Connection, lane: i64, seq: i64) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached("DELETE FROM replays WHERE lane = ?1 AND seq = ?2")?;
    statement.execute((lane, seq))?;
    Ok(())
}

/// Removes some rows of a lane that is dropped.
pub(super) fn forget_some(connection: &Connection, lane: i64, limit: i64) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM replays WHERE lane = ?1 AND seq IN
         (SELECT seq FROM replays WHERE lane = ?1 ORDER BY seq LIMIT ?2)",
    )?;
    statement.execute((lane, limit))?;
    Ok(())
}

/// The events that replays have opened lately.
#[derive(Debug, Default)]
pub(super) struct Recent {
    events: HashMap<i64, u64>,
    epoch: u64,
    /// Plans from before are void.
    floor: u64,
}

impl Recent {
    /// To be read before a plan is made.
    pub(super) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Events were opened.
    pub(super) fn opened(&mut self, events: impl Iterator<Item = i64>) {
        self.epoch += 1;
        if self.events.len() > MOST {
            self.events.clear();
            self.floor = self.epoch;
        }
        let epoch = self.epoch;
        self.events.extend(events.map(|seq| (seq, epoch)));
    }

    /// Takes out of a plan what was opened since it was made; answers whether there was any.
    pub(super) fn spare(&mut self, trim: &mut Trim) -> bool {
        let before = trim.events.len();
        let planned = trim.planned;
        if planned < self.floor {
            trim.events.clear();
        }
        self.events.retain(|_, epoch| *epoch > planned);
        trim.events.retain(|seq| !self.events.contains_key(seq));
        trim.events.len() < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trim(planned: u64, events: &[i64]) -> Trim {
        Trim {
            events: events.to_vec(),
            planned,
            ..Trim::default()
        }
    }

    #[test]
    fn what_was_opened_after_a_plan_is_spared() {
        let mut recent = Recent::default();
        let mut old = trim(recent.epoch(), &[1, 2, 3]);
        recent.opened([2].into_iter());
        assert!(recent.spare(&mut old));
        assert_eq!(old.events, [1, 3]);
        let mut new = trim(recent.epoch(), &[2]);
        assert!(!recent.spare(&mut new));
        assert_eq!(new.events, [2]);
    }

    #[test]
    fn a_plan_is_void_when_too_much_was_opened_since() {
        let mut recent = Recent::default();
        let mut old = trim(recent.epoch(), &[-1]);
        recent.opened(0..70_000);
        recent.opened([70_000].into_iter());
        assert!(recent.spare(&mut old));
        assert_eq!(old.events, [0_i64; 0]);
    }
}
