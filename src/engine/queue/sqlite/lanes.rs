//! [`Lanes`]: what the process knows of each lane without asking the disk.
//!
//! Owns, per lane, the number of deliveries, the claims, a *window*: the next deliveries with their events, and the
//! ages of deliveries that a retry has moved. The disk holds everything; the window is a prefix of it that can always
//! be thrown away.
//!
//! Invariants, with keys `(due, seq)` in the order of the deliveries table:
//!
//! - Every delivery of the lane below `horizon` is in the window or claimed. Without a horizon, every delivery is.
//! - Only window entries below the horizon are handed out, so order holds although newer entries may be there
//!   already.
//! - The horizon is the key of a delivery that is on disk and not claimed, so its due time is exact.
//! - While a refill reads the disk, keys that are left to the disk are remembered (`missed`), and so are keys that
//!   leave it (`gone`); the refill's result is corrected by both.
//! - A delivery is due when it was accepted, or stands in `moved`. So the oldest is the first of either kind.
//!
//! Bounds: [`Limits`]. A window over its bound gives its latest entries back to the disk. An event that several lanes
//! wait for is held, and charged, once. A refill may go over the bytes by [`LEAST_REFILL`] or one event, so that every
//! lane gets on. What is claimed is bounded by the callers' in-flight limits. `moved` takes some 40
//! bytes for each delivery that was tried and waits again.
//!
//! Writing and reading the disk is left to the writer and the reader.

mod asked;
mod moved;

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use tokio::sync::oneshot;

pub(super) use self::moved::Moved;
use super::pool::Pool;
use crate::domain::id::Uid;
use crate::engine::queue::{Depth, Outlook, QueueError, Stored};

/// Due time in milliseconds since 1970, and position of the event.
pub(super) type Key = (i64, i64);

/// Bytes a refill may read although the windows are full.
const LEAST_REFILL: usize = 64 << 10;
/// Most bytes a refill reads, unless a single event is larger.
const MOST_REFILL: usize = 4 << 20;

/// How much the windows hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Deliveries per lane.
    pub(super) per_lane: usize,
    /// Bytes over all lanes.
    pub(super) bytes: usize,
}

/// A delivery in memory.
#[derive(Clone, Debug)]
pub(super) struct Hot {
    /// Its event.
    pub(super) stored: Stored,
    /// Attempts made.
    pub(super) attempts: u32,
    /// Number of its project.
    pub(super) project: i64,
    /// When it was accepted, or made by a replay, in milliseconds since 1970; never after it is due.
    pub(super) accepted: i64,
    /// Bytes it is charged with.
    pub(super) cost: usize,
}

/// A delivery that was handed out.
#[derive(Debug)]
struct Claimed {
    key: Key,
    hot: Hot,
    token: u64,
    /// Its settlement is with the writer.
    settling: bool,
}

/// What a settlement did to its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// It left the queue.
    Finished,
    /// It has a new key.
    Moved(Key),
    /// It was not there any more: a repair could not carry it over, or its lane was dropped.
    Missing,
}

/// A delivery being handed out.
#[derive(Debug)]
pub(super) struct Grant {
    /// Its key.
    pub(super) key: Key,
    /// When it was made, if by a replay, in milliseconds since 1970.
    pub(super) replayed: Option<i64>,
    /// Its event.
    pub(super) stored: Stored,
    /// Attempts made.
    pub(super) attempts: u32,
    /// Bytes it is charged with.
    pub(super) cost: usize,
    /// Token of the claim.
    pub(super) token: u64,
}

/// What a lease got, and what it still has to do.
#[derive(Debug, Default)]
pub(super) struct Granted {
    /// When the next unclaimed delivery is due.
    pub(super) next_due: Option<i64>,
    /// The disk has due deliveries and a read of them must be asked for: number of the lane.
    pub(super) refill: Option<i64>,
    /// Ends when the read that is under way is over. Only when more was wanted.
    pub(super) wait: Option<oneshot::Receiver<Result<(), QueueError>>>,
}

/// What a settlement needs to know of a claim.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClaimRow {
    /// Number of the lane.
    pub(super) lane: i64,
    /// Key of the delivery.
    pub(super) key: Key,
    /// Number of the project.
    pub(super) project: i64,
    /// Attempts made.
    pub(super) attempts: u32,
    /// When it was accepted, in milliseconds since 1970.
    pub(super) accepted: i64,
    /// A replay made it.
    pub(super) replayed: bool,
}

/// Where a refill reads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// From this key on.
    pub(super) from: Key,
    /// Most deliveries.
    pub(super) deliveries: usize,
    /// Most bytes of events, unless a single one is larger.
    pub(super) bytes: usize,
}

/// A delivery that a refill found on disk.
#[derive(Debug)]
pub(super) struct Found {
    /// Its key.
    pub(super) key: Key,
    /// Attempts made.
    pub(super) attempts: u32,
    /// Number of its project.
    pub(super) project: i64,
    /// Its event and what that costs, when another lane has it in memory.
    pub(super) event: Option<(Stored, usize)>,
}

#[derive(Debug, Default)]
struct Refill {
    missed: Option<Key>,
    gone: HashSet<Key>,
}

#[derive(Debug, Default)]
struct Lane {
    number: i64,
    pending: u64,
    window: BTreeMap<Key, Hot>,
    horizon: Option<Key>,
    claims: HashMap<i64, Claimed>,
    /// Deliveries that are due later than they were accepted: acceptance and position, and when they are due.
    moved: BTreeMap<Key, i64>,
    has_health: bool,
    refill: Option<Refill>,
    /// Keys are changing on disk; nobody reads them until that is over.
    rewinding: bool,
    waiters: Vec<oneshot::Sender<Result<(), QueueError>>>,
    last_used: u64,
    /// When it was refilled, in uses.
    last_refill: u64,
}

/// All lanes.
#[derive(Debug)]
pub(super) struct Lanes {
    by_uid: HashMap<Uid, Lane>,
    limits: Limits,
    pool: Pool,
    uses: u64,
    tokens: u64,
    /// Claims up to this one were made before the file was opened: it may hold their deliveries otherwise by now.
    excused: u64,
}

impl Lane {
    /// Leaves a delivery to the disk.
    fn spill(&mut self, key: Key) {
        self.horizon = Some(self.horizon.map_or(key, |horizon| horizon.min(key)));
        if let Some(refill) = &mut self.refill {
            refill.missed = Some(refill.missed.map_or(key, |missed| missed.min(key)));
        }
    }

    fn insert(&mut self, key: Key, hot: Hot, pool: &mut Pool) {
        pool.acquire(key.1, &hot.stored, hot.cost);
        if self.window.insert(key, hot).is_some() {
            pool.release(key.1);
        }
    }

    /// Takes the last entry out of the window and leaves it to the disk.
    fn shrink(&mut self, pool: &mut Pool) {
        if let Some((key, _)) = self.window.pop_last() {
            pool.release(key.1);
            self.spill(key);
        }
    }

    /// Puts a delivery that is on disk into the window, or leaves it to the disk.
    fn place(&mut self, key: Key, hot: Hot, limits: Limits, pool: &mut Pool) {
        if self.window.contains_key(&key) || self.claims.get(&key.1).is_some_and(|claim| claim.key == key) {
            return;
        }
        let known = self.window.len().saturating_add(self.claims.len());
        let cold = usize::try_from(self.pending)
            .unwrap_or(usize::MAX)
            .saturating_sub(known);
        let below = self.horizon.is_none_or(|horizon| key < horizon);
        if below
            && self.window.len() >= limits.per_lane
            && self.window.last_key_value().is_some_and(|(k, _)| *k > key)
        {
            self.shrink(pool);
        }
        let bytes = pool.bytes().saturating_add(pool.price(key.1, hot.cost));
        let fits = self.window.len() < limits.per_lane && bytes <= limits.bytes;
        if fits && (below || cold <= limits.per_lane) {
            self.insert(key, hot, pool);
        } else {
            self.spill(key);
        }
    }

    /// Due time of the next unclaimed delivery.
    fn next_due(&self) -> Option<i64> {
        let first = self.window.first_key_value().map(|(key, _)| key.0);
        let horizon = self.horizon.map(|horizon| horizon.0);
        match (first, horizon) {
            (Some(first), Some(horizon)) => Some(first.min(horizon)),
            (first, horizon) => first.or(horizon),
        }
    }
}

impl Lanes {
    /// No lanes.
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            by_uid: HashMap::new(),
            limits,
            pool: Pool::default(),
            uses: 0,
            tokens: 0,
            excused: 0,
        }
    }

    /// Bytes in all windows.
    pub(super) const fn bytes(&self) -> usize {
        self.pool.bytes()
    }

    /// Starts over with what a file holds. Claims of deliveries that may still be there stay.
    pub(super) fn reload(&mut self, found: Vec<(Uid, LaneRow)>) {
        self.excused = self.tokens;
        let mut old = std::mem::take(&mut self.by_uid);
        self.pool = Pool::default();
        for (uid, row) in found {
            let mut lane = Lane {
                number: row.number,
                pending: row.pending,
                horizon: row.first,
                moved: row.moved,
                has_health: row.has_health,
                ..Lane::default()
            };
            if let Some(before) = old.remove(&uid).filter(|before| before.number == row.number) {
                lane.claims = before.claims;
            }
            self.by_uid.insert(uid, lane);
        }
    }

    /// A delivery was written.
    pub(super) fn add(&mut self, uid: &Uid, number: i64, key: Key, hot: Hot) {
        let lane = match self.by_uid.get_mut(uid) {
            Some(lane) => lane,
            None => self.by_uid.entry(uid.clone()).or_insert_with(|| Lane {
                number,
                ..Lane::default()
            }),
        };
        lane.place(key, hot, self.limits, &mut self.pool);
        lane.pending = lane.pending.saturating_add(1);
    }

    /// Hands out due deliveries, into `grants` until it has `limit`.
    pub(super) fn lease(&mut self, uid: &Uid, now: i64, limit: usize, grants: &mut Vec<Grant>) -> Granted {
        let Some(lane) = self.by_uid.get_mut(uid) else {
            return Granted::default();
        };
        self.uses += 1;
        lane.last_used = self.uses;
        while grants.len() < limit {
            let Some(first) = lane.window.first_entry() else {
                break;
            };
            let key = *first.key();
            if key.0 > now || lane.horizon.is_some_and(|horizon| key >= horizon) {
                break;
            }
            let hot = first.remove();
            self.pool.release(key.1);
            self.tokens += 1;
            let token = self.tokens;
            grants.push(Grant {
                key,
                replayed: hot.replayed(),
                stored: hot.stored.clone(),
                attempts: hot.attempts,
                cost: hot.cost,
                token,
            });
            let claimed = Claimed {
                key,
                hot,
                token,
                settling: false,
            };
            lane.claims.insert(key.1, claimed);
        }
        let mut granted = Granted {
            next_due: lane.next_due(),
            ..Granted::default()
        };
        let due_on_disk = lane.horizon.is_some_and(|horizon| horizon.0 <= now);
        let low = lane.window.len() < self.limits.per_lane / 4;
        let short = grants.len() < limit;
        if due_on_disk && (short || low) {
            if lane.refill.is_none() && !lane.rewinding {
                lane.refill = Some(Refill::default());
                granted.refill = Some(lane.number);
            }
            if short {
                let (done, wait) = oneshot::channel();
                lane.waiters.push(done);
                granted.wait = Some(wait);
            }
        }
        granted
    }

    /// The row of a claim that is still valid and not being settled; now it is.
    pub(super) fn begin_to_settle(&mut self, uid: &Uid, seq: i64, token: u64) -> Option<ClaimRow> {
        let lane = self.by_uid.get_mut(uid)?;
        let claim = lane.claims.get_mut(&seq);
        let claim = claim.filter(|claim| claim.token == token && !claim.settling)?;
        claim.settling = true;
        let Claimed { key, hot, .. } = claim;
        Some(ClaimRow {
            lane: lane.number,
            key: *key,
            project: hot.project,
            attempts: hot.attempts,
            accepted: hot.accepted,
            replayed: hot.replayed().is_some(),
        })
    }

    /// A claim ended without being settled.
    pub(super) fn release(&mut self, uid: &Uid, seq: i64, token: u64) {
        let Some(lane) = self.by_uid.get_mut(uid) else {
            return;
        };
        if lane.claims.get(&seq).is_none_or(|claim| claim.token != token) {
            return;
        }
        let Some(claim) = lane.claims.remove(&seq) else {
            return;
        };
        lane.place(claim.key, claim.hot, self.limits, &mut self.pool);
    }

    /// A settlement was written. What was counted from the file without its delivery is not counted down for it.
    ///
    /// Answers whether the delivery is missing that was read from this very file: then the file is damaged.
    pub(super) fn settled(&mut self, uid: &Uid, seq: i64, token: u64, settled: Settled) -> bool {
        let Some(lane) = self.by_uid.get_mut(uid) else {
            return false;
        };
        if lane.claims.get(&seq).is_none_or(|claim| claim.token != token) {
            return false;
        }
        let Some(claim) = lane.claims.remove(&seq) else {
            return false;
        };
        if let Some(refill) = &mut lane.refill {
            refill.gone.insert(claim.key);
        }
        let age = (claim.hot.accepted, seq);
        if claim.key != age {
            lane.moved.remove(&age);
        }
        match settled {
            Settled::Moved(key) => {
                if key != age {
                    lane.moved.insert(age, key.0);
                }
                lane.spill(key);
            }
            Settled::Finished => lane.pending = lane.pending.saturating_sub(1),
            // A repair may have made it again, due when it was accepted, which was passed over while the claim stood.
            Settled::Missing => {
                if lane.pending > 0 {
                    lane.spill(age);
                }
                return token > self.excused;
            }
        }
        false
    }

    /// The lane's health is stored.
    pub(super) fn mark_health(&mut self, uid: &Uid, number: i64) {
        self.by_uid
            .entry(uid.clone())
            .or_insert_with(|| Lane {
                number,
                ..Lane::default()
            })
            .has_health = true;
    }

    /// Forgets a lane, claims included.
    pub(super) fn forget(&mut self, uid: &Uid) -> bool {
        let Some(lane) = self.by_uid.remove(uid) else {
            return false;
        };
        for key in lane.window.keys() {
            self.pool.release(key.1);
        }
        true
    }

    /// Where a refill reads. Makes room by emptying the windows of lanes that nobody has read from since the lane's
    /// last refill; the windows of busy lanes stay, because they would be read again at once.
    pub(super) fn refill_from(&mut self, uid: &Uid, number: i64) -> Option<Room> {
        let Self {
            by_uid, pool, limits, ..
        } = self;
        let lane = by_uid
            .get_mut(uid)
            .filter(|lane| lane.number == number && lane.refill.is_some())?;
        let from = lane.horizon?;
        let deliveries = limits.per_lane.saturating_sub(lane.window.len()).max(64);
        let since = std::mem::replace(&mut lane.last_refill, self.uses);
        while pool.bytes() > limits.bytes / 2 {
            let idle = by_uid
                .iter_mut()
                .filter(|(other, lane)| *other != uid && !lane.window.is_empty() && lane.last_used <= since);
            let Some((_, idle)) = idle.min_by_key(|(_, lane)| lane.last_used) else {
                break;
            };
            while !idle.window.is_empty() {
                idle.shrink(pool);
            }
        }
        let bytes = limits.bytes.saturating_sub(pool.bytes());
        Some(Room {
            from,
            deliveries,
            bytes: bytes.clamp(LEAST_REFILL, MOST_REFILL),
        })
    }

    /// Leaves of what a refill found the unknown, with the events that other lanes have in memory.
    pub(super) fn unknown(&self, uid: &Uid, number: i64, found: &mut Vec<Found>) {
        let Some(lane) = self.by_uid.get(uid).filter(|lane| lane.number == number) else {
            found.clear();
            return;
        };
        found
            .retain(|found| !lane.window.contains_key(&found.key) && !lane.claims.contains_key(&found.key.1));
        for found in found {
            found.event = self.pool.get(found.key.1);
        }
    }

    /// Ends a refill: everything below `horizon` was read and what was unknown of it is in `read`.
    pub(super) fn refilled(&mut self, uid: &Uid, number: i64, read: Vec<(Key, Hot)>, horizon: Option<Key>) {
        let limits = self.limits;
        let Some(lane) = self.by_uid.get_mut(uid).filter(|lane| lane.number == number) else {
            return;
        };
        let Some(refill) = lane.refill.take() else { return };
        for (key, hot) in read {
            if lane.claims.contains_key(&key.1)
                || refill.gone.contains(&key)
                || lane.window.contains_key(&key)
            {
                continue;
            }
            lane.insert(key, hot, &mut self.pool);
        }
        lane.horizon = match (horizon, refill.missed) {
            (Some(horizon), Some(missed)) => Some(horizon.min(missed)),
            (horizon, missed) => horizon.or(missed),
        };
        while lane.window.len() > limits.per_lane {
            lane.shrink(&mut self.pool);
        }
        let waiters = std::mem::take(&mut lane.waiters);
        for waiter in waiters {
            waiter.send(Ok(())).ok();
        }
    }

    /// Ends a refill that failed.
    pub(super) fn refill_failed(&mut self, uid: &Uid, number: i64, error: &QueueError) {
        let Some(lane) = self.by_uid.get_mut(uid).filter(|lane| lane.number == number) else {
            return;
        };
        lane.refill = None;
        for waiter in std::mem::take(&mut lane.waiters) {
            waiter.send(Err(error.clone())).ok();
        }
    }

    /// Lanes that hold something.
    pub(super) fn names(&self) -> Vec<Uid> {
        let held = self
            .by_uid
            .iter()
            .filter(|(_, lane)| lane.pending > 0 || lane.next_due().is_some() || lane.has_health);
        held.map(|(uid, _)| uid.clone()).collect()
    }

    /// What a lease would find.
    pub(super) fn outlook(&self, uid: &Uid, now: i64, most: usize) -> Outlook {
        let Some(lane) = self.by_uid.get(uid) else {
            return Outlook::default();
        };
        let due = |key: &Key| key.0 <= now && lane.horizon.is_none_or(|horizon| *key < horizon);
        Outlook {
            next_due: lane
                .next_due()
                .and_then(|due| Timestamp::from_millisecond(due).ok()),
            ready: lane.window.keys().take(most).take_while(|key| due(key)).count(),
        }
    }

    /// How much waits in a lane.
    pub(super) fn depth(&self, uid: &Uid) -> Depth {
        let Some(lane) = self.by_uid.get(uid) else {
            return Depth::default();
        };
        let next_due = lane.next_due();
        let claimed = lane.claims.values().map(|claim| claim.hot.accepted).min();
        let moved = lane.moved.first_key_value().map(|(age, _)| age.0);
        let oldest = [next_due, claimed, moved].into_iter().flatten().min();
        Depth {
            pending: lane.pending,
            oldest,
            next_due,
        }
    }
}

/// What a file says of a lane.
#[derive(Clone, Debug)]
pub(super) struct LaneRow {
    /// Its number.
    pub(super) number: i64,
    /// Deliveries.
    pub(super) pending: u64,
    /// The first one.
    pub(super) first: Option<Key>,
    /// Those that are due later than they were accepted: acceptance and position, and when they are due.
    pub(super) moved: BTreeMap<Key, i64>,
    /// Whether health is stored.
    pub(super) has_health: bool,
}
