//! Dropping a lane: its name goes at once, its deliveries and keys in steps between other work.

use std::time::Instant;

use super::fault::StoreError;
use super::inbox::Reply;
use super::store::Store;
use super::writer::{Phase, SETTLE_AGAIN, Writer};
use super::{notes, replays};
use crate::domain::id::Uid;

/// Deliveries that dropping a lane removes per transaction.
const DROP_STEP: i64 = 4096;

impl Writer {
    /// Takes a lane's name away; its deliveries go in steps.
    pub(super) fn start_drop(&mut self, lane: &Uid, reply: Reply<u64>) {
        let Phase::Up(store) = &mut self.phase else { return };
        let Some(number) = store.lane_number(lane) else {
            reply.send(Ok(0)).ok();
            return;
        };
        let done = self.making_room(0, |store| {
            store.transact(|writing| {
                let connection = writing.connection();
                connection.execute("UPDATE lanes SET dropped = 1 WHERE number = ?1", [number])?;
                connection.execute("DELETE FROM health WHERE lane = ?1", [number])?;
                Ok(())
            })?;
            store.forget_lane(lane);
            Ok(())
        });
        match done {
            Ok(()) => {
                self.shared.lanes.lock().forget(lane);
                self.dropping.push((number, 0, Some(reply)));
            }
            Err(error) => {
                reply.send(Err(error.to_queue_error())).ok();
                self.heal(error);
            }
        }
    }

    /// Removes some deliveries of the first lane that is being dropped. What fails is tried again, so that the count
    /// is of all that were dropped.
    pub(super) fn drop_step(&mut self) {
        let Some((number, ..)) = self.dropping.first() else {
            return;
        };
        let number = *number;
        if matches!(self.phase, Phase::Down { .. }) || self.drop_next > Instant::now() {
            return;
        }
        match self.making_room(0, |store| drop_some(store, number)) {
            Ok(None) => {
                let (_, count, reply) = self.dropping.remove(0);
                match reply {
                    Some(reply) => drop(reply.send(Ok(count))),
                    None => drop(self.shared.metrics.dropped_late.inc_by(count)),
                }
            }
            Ok(Some(count)) => {
                if let Some((_, dropped, _)) = self.dropping.first_mut() {
                    *dropped += count;
                }
            }
            Err(error) => {
                self.drop_next = Instant::now() + SETTLE_AGAIN;
                self.heal(error);
            }
        }
    }
}

/// How many deliveries it removed; `None` when nothing of the lane was left.
fn drop_some(store: &mut Store, number: i64) -> Result<Option<u64>, StoreError> {
    let ((projects, dropped), _) = store.transact(|writing| {
        let connection = writing.connection();
        let mut projects: Vec<(i64, u64)> = Vec::new();
        {
            let mut step = connection.prepare_cached(
                "SELECT project, count(*) FROM (SELECT project FROM deliveries WHERE lane = ?1
                 ORDER BY due, seq LIMIT ?2) GROUP BY project",
            )?;
            let mut rows = step.query((number, DROP_STEP))?;
            while let Some(row) = rows.next()? {
                projects.push((row.get(0)?, row.get::<_, i64>(1)?.cast_unsigned()));
            }
        }
        notes::forget_some(connection, number, DROP_STEP)?;
        replays::forget_some(connection, number, DROP_STEP)?;
        let mut delete = connection.prepare_cached(
            "DELETE FROM deliveries WHERE lane = ?1 AND (due, seq) IN
             (SELECT due, seq FROM deliveries WHERE lane = ?1 ORDER BY due, seq LIMIT ?2)",
        )?;
        let total = delete.execute((number, DROP_STEP))?;
        let keys = writing.keys().forget_some(connection, number, DROP_STEP)?;
        let is_done = total == 0 && keys == 0;
        if is_done {
            // The last one stays, so that its number, which events still name, is not given again.
            connection.execute(
                "DELETE FROM lanes WHERE number = ?1 AND number < (SELECT max(number) FROM lanes)",
                [number],
            )?;
        }
        Ok((projects, (!is_done).then_some(total as u64)))
    })?;
    for (project, count) in projects {
        store.subtract(project, count);
    }
    Ok(dropped)
}
