//! Deliveries that people add, look at or take out.

use super::{Hot, Key, Lane, Lanes};
use crate::domain::id::Uid;
use crate::engine::queue::Stored;

impl Hot {
    /// When a replay made it, which is always after its event was accepted.
    pub(super) fn replayed(&self) -> Option<i64> {
        let Stored::Event(event) = &self.stored else {
            return None;
        };
        (self.accepted > event.accepted.as_millisecond()).then_some(self.accepted)
    }
}

impl Lanes {
    /// A delivery was written of an event that is on disk: it is left there until it is due.
    pub(in crate::engine::queue::sqlite) fn add_cold(&mut self, uid: &Uid, number: i64, key: Key) {
        let lane = self.by_uid.entry(uid.clone()).or_insert_with(|| Lane {
            number,
            ..Lane::default()
        });
        lane.spill(key);
        lane.pending = lane.pending.saturating_add(1);
    }

    /// When a moved delivery is due that began to wait at one of these times.
    pub(in crate::engine::queue::sqlite) fn moved_to(
        &self,
        uid: &Uid,
        seq: i64,
        ages: &[i64],
    ) -> Option<i64> {
        let lane = self.by_uid.get(uid)?;
        ages.iter().find_map(|age| lane.moved.get(&(*age, seq)).copied())
    }

    /// Whether a delivery is handed out.
    pub(in crate::engine::queue::sqlite) fn is_claimed(&self, uid: &Uid, seq: i64) -> bool {
        self.by_uid
            .get(uid)
            .is_some_and(|lane| lane.claims.contains_key(&seq))
    }

    /// Takes a delivery out of memory that is about to leave the disk; [`Lanes::end_cancel`] must follow, and until then
    /// nothing of the lane is read from the disk. `false`, and nothing done, when it is handed out.
    pub(in crate::engine::queue::sqlite) fn begin_cancel(&mut self, uid: &Uid, key: Key) -> bool {
        let Some(lane) = self.by_uid.get_mut(uid) else {
            return false;
        };
        if lane.claims.contains_key(&key.1) {
            return false;
        }
        if lane.window.remove(&key).is_some() {
            self.pool.release(key.1);
        }
        if let Some(refill) = &mut lane.refill {
            refill.gone.insert(key);
        }
        lane.rewinding = true;
        true
    }

    /// The delivery has left the disk, or, when not `done`, has not.
    pub(in crate::engine::queue::sqlite) fn end_cancel(
        &mut self,
        uid: &Uid,
        key: Key,
        ages: &[i64],
        done: bool,
    ) {
        let Some(lane) = self.by_uid.get_mut(uid) else {
            return;
        };
        lane.rewinding = false;
        if done {
            lane.pending = lane.pending.saturating_sub(1);
            for age in ages {
                lane.moved.remove(&(*age, key.1));
            }
        } else {
            lane.spill(key);
            if let Some(refill) = &mut lane.refill {
                refill.gone.remove(&key);
            }
        }
        if lane.refill.is_none() {
            for waiter in std::mem::take(&mut lane.waiters) {
                waiter.send(Ok(())).ok();
            }
        }
    }
}
