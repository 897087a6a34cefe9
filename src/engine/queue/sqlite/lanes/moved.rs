//! Deliveries that a retry has moved behind younger ones, and how memory forgets that when they are put back.
//!
//! Which deliveries are put back is decided here; doing it on disk is left to `rewind`.

use super::{Key, Lane, Lanes};
use crate::domain::id::Uid;
use crate::engine::queue::Reach;

/// Most moved deliveries that one step of a rewind looks at, because it holds the lock.
const SCAN: usize = 65_536;

/// A delivery to be put back to the place of its age.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine::queue::sqlite) struct Moved {
    /// When it was accepted, and its position.
    pub(in crate::engine::queue::sqlite) age: Key,
    /// When it is due, on disk.
    pub(in crate::engine::queue::sqlite) due: i64,
}

impl Moved {
    const fn new((age, due): (&Key, &i64)) -> Self {
        Self { age: *age, due: *due }
    }
}

/// One step of a rewind.
#[derive(Debug, Default)]
pub(in crate::engine::queue::sqlite) struct Rewinding {
    /// Number of the lane.
    pub(in crate::engine::queue::sqlite) number: i64,
    /// What to put back.
    pub(in crate::engine::queue::sqlite) rows: Vec<Moved>,
    /// Where the next step begins.
    pub(in crate::engine::queue::sqlite) next: Option<Key>,
}

impl Lane {
    /// The moved deliveries to put back: at most `most` of the first [`SCAN`] behind `from`; and where to go on.
    fn to_rewind(&self, reach: Reach, from: Key, most: usize) -> (Vec<Moved>, Option<Key>) {
        let free = |key: &Key| !self.claims.contains_key(&key.1);
        let Reach::DueBy(now) = reach else {
            let first = self.window.first_key_value().map(|(key, _)| *key);
            let next = [first, self.horizon].into_iter().flatten().min();
            let oldest = self.moved.iter().find(|(key, _)| free(key));
            let oldest = oldest.filter(|(key, _)| next.is_some_and(|next| **key < next));
            return (oldest.map(Moved::new).into_iter().collect(), None);
        };
        let now = now.as_millisecond();
        let mut found = Vec::new();
        for (looked, (key, due)) in self.moved.range(from..).enumerate() {
            if looked >= SCAN || found.len() >= most {
                return (found, Some(*key));
            }
            if *due <= now && free(key) {
                found.push(Moved::new((key, due)));
            }
        }
        (found, None)
    }
}

impl Lanes {
    /// Whether a retry has moved anything of a lane.
    pub(in crate::engine::queue::sqlite) fn has_moved(&self, uid: &Uid) -> bool {
        self.by_uid.get(uid).is_some_and(|lane| !lane.moved.is_empty())
    }

    /// Takes some moved deliveries out of memory, to be put back on disk; [`Lanes::end_rewind`] must follow. Until then
    /// nothing of the lane is read from the disk.
    pub(in crate::engine::queue::sqlite) fn begin_rewind(
        &mut self,
        uid: &Uid,
        reach: Reach,
        from: Key,
        most: usize,
    ) -> Rewinding {
        let Some(lane) = self.by_uid.get_mut(uid) else {
            return Rewinding::default();
        };
        let (rows, next) = lane.to_rewind(reach, from, most);
        for Moved { age, due } in &rows {
            let key = (*due, age.1);
            lane.moved.remove(age);
            if lane.window.remove(&key).is_some() {
                self.pool.release(key.1);
            }
            if let Some(refill) = &mut lane.refill {
                refill.gone.insert(key);
            }
            lane.spill(*age);
        }
        lane.rewinding = true;
        Rewinding {
            number: lane.number,
            rows,
            next,
        }
    }

    /// The keys on disk are as they will stay: changed, or when `failed` as they were.
    pub(in crate::engine::queue::sqlite) fn end_rewind(
        &mut self,
        uid: &Uid,
        rewinding: &Rewinding,
        failed: bool,
    ) {
        let Some(lane) = self
            .by_uid
            .get_mut(uid)
            .filter(|lane| lane.number == rewinding.number)
        else {
            return;
        };
        lane.rewinding = false;
        if failed {
            let rows = rewinding.rows.iter();
            lane.moved.extend(rows.map(|Moved { age, due }| (*age, *due)));
        }
        if lane.refill.is_none() {
            for waiter in std::mem::take(&mut lane.waiters) {
                waiter.send(Ok(())).ok();
            }
        }
    }
}
