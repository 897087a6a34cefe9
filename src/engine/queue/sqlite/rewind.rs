//! Putting deliveries back to the place that their age gives them: [`Queue::rewind`](super::Queue::rewind).
//!
//! In steps of at most [`STEP`] deliveries, each one transaction, so that publishers wait for one step only. A crash
//! between two steps leaves the rest where its retries have put it.

use super::fault::StoreError;
use super::lanes::{Key, Moved};
use super::writer::Writer;
use crate::domain::id::Uid;
use crate::engine::queue::Reach;

/// Deliveries that one step puts back.
const STEP: usize = 4096;

/// Before every delivery.
pub(super) const START: Key = (i64::MIN, i64::MIN);

/// What one step is to do.
#[derive(Debug)]
pub(super) struct Rewind {
    /// The lane.
    pub(super) lane: Uid,
    /// Which deliveries.
    pub(super) reach: Reach,
    /// Where to begin: acceptance and position.
    pub(super) from: Key,
}

impl Rewind {
    pub(super) fn new(lane: &Uid, reach: Reach, from: Key) -> Self {
        let lane = lane.clone();
        Self { lane, reach, from }
    }
}

/// What one step did.
#[derive(Debug)]
pub(super) struct Step {
    /// How many deliveries were put back.
    pub(super) count: u64,
    /// Where the next step begins; `None` at the end.
    pub(super) next: Option<Key>,
}

impl Writer {
    /// Does one step. Memory is told first, and reads nothing of the lane until the disk is as it says.
    ///
    /// On a full volume the reserve is given up for it: what is put back is delivered next, and that makes room.
    pub(super) fn rewind(&mut self, rewind: &Rewind) -> Result<Step, StoreError> {
        let Rewind { lane, reach, from } = rewind;
        let rewinding = self.shared.lanes.lock().begin_rewind(lane, *reach, *from, STEP);
        let done = self.making_room(0, |store| {
            store.transact(|writing| {
                let mut put_back = writing.connection().prepare_cached(
                    "UPDATE OR IGNORE deliveries SET due = ?4 WHERE lane = ?1 AND due = ?2 AND seq = ?3",
                )?;
                for Moved { age, due } in &rewinding.rows {
                    put_back.execute((rewinding.number, due, age.1, age.0))?;
                }
                Ok(())
            })
        });
        self.shared
            .lanes
            .lock()
            .end_rewind(lane, &rewinding, done.is_err());
        done.map(|_| Step {
            count: rewinding.rows.len() as u64,
            next: rewinding.next,
        })
    }
}
