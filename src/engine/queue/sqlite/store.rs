//! [`Store`]: the writer's connection, the names it has interned, and one group's statements.
//!
//! A [`Group`] collects what a transaction will mean for memory; it is applied only after the commit.
//! On a rollback [`Store::undo`] forgets the names that the transaction had made.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{CachedStatement, Connection, OptionalExtension};

use super::fault::StoreError;
use super::keys::Keys;
use super::lanes::{ClaimRow, Hot, Key, Settled};
use super::names::{Fresh, Names};
use super::rows::{IdColumn, Row, finish, put_number};
use super::schema::{self, Contents};
use super::{Settings, notes, replays};
use crate::domain::health::Health;
use crate::domain::id::Uid;
use crate::engine::queue::keys::{stored, without};
use crate::engine::queue::{Completion, Enqueued, ID_WINDOW, QueueError, Stored};

/// Attempts of a delivery that was put off before its first: not 0, so that a start knows that it was moved.
const UNTRIED: i64 = -1;

/// Bytes that settlements and retention may use beyond the file's limit.
pub(super) const HEADROOM: u64 = 1 << 20;

/// The writer's side of a file.
#[derive(Debug)]
pub(super) struct Store {
    /// The only connection that writes.
    pub(super) connection: Connection,
    names: Names,
    keys: Keys,
    /// Deliveries per project.
    pending: HashMap<i64, u64>,
    last_seq: i64,
}

/// What a transaction means for memory.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Deliveries that were written.
    pub(super) added: Vec<(Uid, i64, Key, Hot)>,
    /// Claims that end, and what became of the delivery.
    pub(super) settled: Vec<(Uid, i64, u64, Settled)>,
    /// Lanes whose health was written.
    pub(super) healths: Vec<(Uid, i64)>,
    /// Keys that were forgotten early, or not remembered.
    pub(super) keys_forgotten: u64,
    /// Changes of the projects' counts.
    pending: HashMap<i64, i64>,
}

/// A settlement prepared for the writer.
#[derive(Debug)]
pub(super) struct Settle {
    /// The lane.
    pub(super) lane: Uid,
    /// Its delivery.
    pub(super) row: ClaimRow,
    /// The claim.
    pub(super) token: u64,
    /// What becomes of it.
    pub(super) completion: Completion,
    /// Health to store.
    pub(super) health: Option<Box<Health>>,
    /// Note to store.
    pub(super) note: Option<Box<[u8]>>,
}

/// One group's statements.
pub(super) struct Statements<'a> {
    connection: &'a Connection,
    event: CachedStatement<'a>,
    id: CachedStatement<'a>,
    delivery: CachedStatement<'a>,
    finish: CachedStatement<'a>,
}

impl<'a> Statements<'a> {
    fn new(connection: &'a Connection) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            connection,
            event: connection.prepare_cached(
                "INSERT INTO events(seq, project, facts, id, accepted, sum, lanes, body)
                 VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?,
            id: connection.prepare_cached(
                "INSERT INTO ids(project, id, accepted) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
            )?,
            delivery: connection.prepare_cached(
                "INSERT INTO deliveries(lane, due, seq, attempts, project) VALUES(?1, ?2, ?3, ?4, ?5)",
            )?,
            finish: connection
                .prepare_cached("DELETE FROM deliveries WHERE lane = ?1 AND due = ?2 AND seq = ?3")?,
        })
    }
}

impl Store {
    /// Takes over a connection and what was read from it.
    pub(super) fn new(connection: Connection, contents: &Contents) -> Self {
        let names = Names {
            lanes: contents
                .lanes
                .iter()
                .map(|(uid, row)| (uid.clone(), row.number))
                .collect(),
            projects: contents.projects.clone(),
            last_lane: contents.last_lane,
            last_facts: contents.last_facts,
            ..Names::default()
        };
        Self {
            connection,
            names,
            keys: Keys::default(),
            pending: contents.pending.clone(),
            last_seq: contents.last_seq,
        }
    }

    /// Position of the newest event.
    pub(super) const fn last_seq(&self) -> i64 {
        self.last_seq
    }

    /// Number of a lane, if it has one.
    pub(super) fn lane_number(&self, uid: &Uid) -> Option<i64> {
        self.names.lanes.get(uid).copied()
    }

    /// Forgets a lane's number; the next use makes a new one.
    pub(super) fn forget_lane(&mut self, uid: &Uid) {
        if let Some(number) = self.names.lanes.remove(uid) {
            self.names.revisions.remove(&number);
        }
    }

    /// Deliveries left the queue by another way than a settlement.
    pub(super) fn subtract(&mut self, project: i64, count: u64) {
        if let Some(pending) = self.pending.get_mut(&project) {
            *pending = pending.saturating_sub(count);
        }
    }

    /// Deliveries of a project that wait.
    pub(super) fn pending_of(&self, project: i64) -> u64 {
        self.pending.get(&project).copied().unwrap_or(0)
    }

    /// Runs one transaction over `work`. On an error nothing of it is, or will be, in the file.
    pub(super) fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T, StoreError>,
    ) -> Result<(T, Group), StoreError> {
        let Self {
            connection,
            names,
            keys,
            pending,
            last_seq,
        } = self;
        let before = *last_seq;
        let mut group = Group::default();
        let done = {
            let mut begin = connection.prepare_cached("BEGIN IMMEDIATE")?;
            begin.execute([])?;
            let work = (|| {
                let statements = Statements::new(connection)?;
                let mut writing = Writing {
                    statements,
                    names,
                    keys,
                    pending,
                    last_seq,
                    group: &mut group,
                };
                work(&mut writing)
            })();
            // SQLite has one word for both: the file's limit is met by a statement, the volume's by the log at the end.
            let work = work.map_err(|error| match error {
                StoreError::Full => StoreError::Limit,
                error => error,
            });
            work.and_then(|value| {
                connection.prepare_cached("COMMIT")?.execute([])?;
                Ok(value)
            })
        };
        match done {
            Ok(value) => {
                names.fresh.clear();
                group.keys_forgotten = keys.commit();
                for (project, change) in &group.pending {
                    let pending = pending.entry(*project).or_default();
                    *pending = pending.saturating_add_signed(*change);
                }
                Ok((value, group))
            }
            Err(error) => {
                *last_seq = before;
                self.undo();
                Err(error)
            }
        }
    }

    /// Lets `work` use a little more than the file's limit: what makes room must not fail for want of it.
    pub(super) fn with_headroom<T>(
        &mut self,
        max_bytes: u64,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        schema::limit(&self.connection, max_bytes.saturating_add(HEADROOM))?;
        let done = work(self);
        // What was committed stays committed; the limit is set anew with the next write of this kind, or opening.
        if let Err(error) = schema::limit(&self.connection, max_bytes) {
            tracing::warn!(%error, "the file's size limit was not set");
        }
        done
    }

    /// Moves the log into the file, so that the next commit writes it from its beginning. Waits for readers, whose
    /// looks are short or broken off; answers whether none was in the way any more.
    pub(super) fn checkpoint(&self) -> Result<bool, StoreError> {
        let mut statement = self.connection.prepare_cached("PRAGMA wal_checkpoint(RESTART)")?;
        let (busy, log, moved): (i64, i64, i64) =
            statement.query_row([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok(busy == 0 && log == moved)
    }

    fn undo(&mut self) {
        // SQLite has already rolled back after some errors; then this one says so, which is fine.
        self.connection.execute_batch("ROLLBACK").ok();
        self.keys.undo();
        self.names.recent = None;
        self.names.revisions.clear();
        for fresh in std::mem::take(&mut self.names.fresh) {
            match fresh {
                Fresh::Lane(uid) => drop(self.names.lanes.remove(&uid)),
                Fresh::Project(uid) => drop(self.names.projects.remove(&uid)),
                Fresh::Facts(facts) => drop(self.names.facts.remove(&facts)),
            }
        }
    }
}

/// An open transaction.
pub(super) struct Writing<'a> {
    statements: Statements<'a>,
    names: &'a mut Names,
    keys: &'a mut Keys,
    pending: &'a HashMap<i64, u64>,
    last_seq: &'a mut i64,
    group: &'a mut Group,
}

impl<'a> Writing<'a> {
    /// The connection, for statements of its user.
    pub(super) const fn connection(&self) -> &'a Connection {
        self.statements.connection
    }
}

impl Writing<'_> {
    /// Writes events and their deliveries. The inner error refuses this call alone; it has written nothing then.
    pub(super) fn enqueue(
        &mut self,
        rows: &[Row],
        settings: &Settings,
    ) -> Result<Result<Vec<Enqueued>, QueueError>, StoreError> {
        if let Some(full) = self.over_quota(rows, settings.project_limit)? {
            return Ok(Err(full));
        }
        let mut answers = Vec::with_capacity(rows.len());
        for row in rows {
            answers.push(self.enqueue_one(row, settings)?);
        }
        Ok(Ok(answers))
    }

    fn enqueue_one(&mut self, row: &Row, settings: &Settings) -> Result<Enqueued, StoreError> {
        let event = &row.event;
        let (facts, project) = self.names.facts(self.statements.connection, &event.project)?;
        let id = IdColumn::new(&event.id);
        if self.statements.id.execute((project, &id, row.accepted))? == 0 {
            if self
                .used_at(project, &id)?
                .is_some_and(|used| row.accepted.saturating_sub(used) < ID_WINDOW)
            {
                return Ok(Enqueued::Duplicate);
            }
            let mut renew = self
                .statements
                .connection
                .prepare_cached("UPDATE ids SET accepted = ?3 WHERE project = ?1 AND id = ?2")?;
            renew.execute((project, &id, row.accepted))?;
        }
        let due = event.accepted.as_millisecond();
        let left_out = self.left_out(row, due, settings)?;
        let wanted = without(&row.lanes, &left_out);
        *self.last_seq += 1;
        let seq = *self.last_seq;
        let mut lanes = Vec::with_capacity(wanted.len().saturating_mul(2));
        for lane in wanted.iter() {
            let number = self.names.lane(self.statements.connection, lane)?;
            put_number(&mut lanes, number);
        }
        let sum = finish(row.sum.clone(), seq, facts, &lanes);
        self.statements
            .event
            .execute((seq, project, facts, &id, row.accepted, sum, &lanes, &row.body))?;
        let count = i64::try_from(wanted.len()).unwrap_or(i64::MAX);
        *self.group.pending.entry(project).or_default() += count;
        for lane in wanted.iter() {
            let number = self.names.lane(self.statements.connection, lane)?;
            self.statements.delivery.execute((number, due, seq, 0, project))?;
            let stored = Stored::Event(Arc::clone(event));
            let hot = Hot {
                stored,
                attempts: 0,
                project,
                accepted: due,
                cost: row.cost(),
            };
            self.group.added.push((lane.clone(), number, (due, seq), hot));
        }
        Ok(stored(left_out))
    }

    /// Places of the lanes that had an event with the same key; the others remember it.
    fn left_out(
        &mut self,
        row: &Row,
        accepted: i64,
        settings: &Settings,
    ) -> Result<Vec<usize>, rusqlite::Error> {
        let mut left_out = Vec::new();
        for key in &row.keys {
            let Some(lane) = row.lanes.get(key.lane) else {
                continue;
            };
            let connection = self.statements.connection;
            let lane = self.names.lane(connection, lane)?;
            if !self
                .keys
                .is_first(connection, lane, key.mark, accepted, settings)?
            {
                left_out.push(key.lane);
            }
        }
        Ok(left_out)
    }

    /// What is known of lanes' keys.
    pub(super) const fn keys(&mut self) -> &mut Keys {
        self.keys
    }

    fn used_at(&self, project: i64, id: &IdColumn<'_>) -> Result<Option<i64>, rusqlite::Error> {
        let mut statement = self
            .statements
            .connection
            .prepare_cached("SELECT accepted FROM ids WHERE project = ?1 AND id = ?2")?;
        statement.query_row((project, id), |row| row.get(0)).optional()
    }

    /// Whether a call would exceed a project's quota. Ids are looked up only when it is near.
    fn over_quota(&mut self, rows: &[Row], quota: u64) -> Result<Option<QueueError>, StoreError> {
        let mut wanted: HashMap<&Uid, Vec<&Row>> = HashMap::new();
        if let [row] = rows {
            wanted.insert(&row.event.project.uid, vec![row]);
        } else {
            for row in rows {
                wanted.entry(&row.event.project.uid).or_default().push(row);
            }
        }
        for (uid, rows) in wanted {
            let Some(project) = self.names.projects.get(uid).copied() else {
                let deliveries: usize = rows.iter().map(|row| row.lanes.len()).sum();
                let deliveries = u64::try_from(deliveries).unwrap_or(u64::MAX);
                if deliveries > quota {
                    return Ok(Some(QueueError::ProjectFull {
                        pending: 0,
                        limit: quota,
                    }));
                }
                continue;
            };
            let change = self.group.pending.get(&project).copied().unwrap_or(0);
            let pending = self
                .pending
                .get(&project)
                .copied()
                .unwrap_or(0)
                .saturating_add_signed(change);
            let deliveries: usize = rows.iter().map(|row| row.lanes.len()).sum();
            let room = usize::try_from(quota.saturating_sub(pending)).unwrap_or(usize::MAX);
            if deliveries <= room {
                continue;
            }
            let mut seen = std::collections::HashSet::new();
            let mut fresh = 0_usize;
            for row in rows {
                let id = IdColumn::new(&row.event.id);
                let used = self.used_at(project, &id)?;
                let old = used.is_some_and(|used| row.accepted.saturating_sub(used) < ID_WINDOW);
                if !old && seen.insert(&row.event.id) {
                    fresh += row.lanes.len();
                }
            }
            if fresh > room {
                return Ok(Some(QueueError::ProjectFull {
                    pending,
                    limit: quota,
                }));
            }
        }
        Ok(None)
    }

    /// The number of a lane.
    pub(super) fn lane(&mut self, uid: &Uid) -> Result<i64, rusqlite::Error> {
        self.names.lane(self.statements.connection, uid)
    }

    /// Writes another delivery of an event that is stored.
    pub(super) fn deliver_again(
        &mut self,
        lane: i64,
        due: i64,
        seq: i64,
        project: i64,
    ) -> Result<(), rusqlite::Error> {
        self.statements.delivery.execute((lane, due, seq, 0, project))?;
        *self.group.pending.entry(project).or_default() += 1;
        Ok(())
    }

    /// Removes a delivery; whether it was there.
    pub(super) fn take_out(
        &mut self,
        lane: i64,
        (due, seq): Key,
        project: i64,
    ) -> Result<bool, rusqlite::Error> {
        let there = self.statements.finish.execute((lane, due, seq))? > 0;
        if there {
            *self.group.pending.entry(project).or_default() -= 1;
        }
        Ok(there)
    }

    /// Writes what became of deliveries. One that is gone, because its lane was dropped, stays gone.
    pub(super) fn settle(&mut self, settles: &[Settle]) -> Result<(), StoreError> {
        for settle in settles {
            let ClaimRow {
                lane,
                key: (due, seq),
                project,
                attempts,
                accepted,
                replayed,
            } = settle.row;
            let found = self.statements.finish.execute((lane, due, seq))? > 0;
            let again = match settle.completion {
                Completion::Finished => None,
                Completion::RetryAt(time) => Some((time, i64::from(attempts.saturating_add(1)))),
                Completion::PutOffUntil(time) if attempts == 0 => Some((time, UNTRIED)),
                Completion::PutOffUntil(time) => Some((time, i64::from(attempts))),
            };
            let settled = match again {
                _ if !found => Settled::Missing,
                Some((time, attempts)) => {
                    let due = time.as_millisecond().max(accepted);
                    self.statements
                        .delivery
                        .execute((lane, due, seq, attempts, project))?;
                    Settled::Moved((due, seq))
                }
                None => {
                    *self.group.pending.entry(project).or_default() -= 1;
                    Settled::Finished
                }
            };
            if again.is_none() && replayed {
                replays::forget(self.statements.connection, lane, seq)?;
            }
            // First attempts, which are most, have left no note; what came from another lane begins with one.
            if again.is_none() && (attempts > 0 || replayed) {
                notes::forget(self.statements.connection, lane, seq)?;
            } else if found
                && again.is_some()
                && let Some(note) = &settle.note
            {
                notes::keep(self.statements.connection, lane, seq, note)?;
            }
            if let Some(health) = &settle.health
                && self.names.lanes.get(&settle.lane) == Some(&lane)
            {
                self.health_row(&settle.lane, lane, health)?;
            }
            self.group
                .settled
                .push((settle.lane.clone(), seq, settle.token, settled));
        }
        Ok(())
    }

    /// Stores the health of a lane.
    pub(super) fn health(&mut self, lane: &Uid, health: &Health) -> Result<(), StoreError> {
        let number = self.names.lane(self.statements.connection, lane)?;
        self.health_row(lane, number, health)
    }

    fn health_row(&mut self, lane: &Uid, number: i64, health: &Health) -> Result<(), StoreError> {
        self.group.healths.push((lane.clone(), number));
        if health.revision < self.names.revision(self.statements.connection, number)? {
            return Ok(());
        }
        self.names.revisions.insert(number, health.revision);
        let json = serde_json::to_string(health).map_err(|error| StoreError::Down(error.to_string()))?;
        let mut statement = self
            .statements
            .connection
            .prepare_cached("INSERT OR REPLACE INTO health(lane, json) VALUES(?1, ?2)")?;
        statement.execute((number, json))?;
        Ok(())
    }
}
