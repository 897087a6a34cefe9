//! [`MemoryQueue`]: the [`Queue`] in memory, for tests of what uses a queue.
//!
//! Keeps the whole contract except that nothing survives the process. Bounds: the quota per project. Ids and keys are kept
//! for 24 hours of event time. [`MemoryQueue::fail`] makes every call fail, as a full disk would.

mod handing;
mod health;
mod seen;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;

use self::seen::Seen;
use super::asked::{
    Cancelled, HandedOver, Open, REPLAY_STEP, Replay, Replayed, Retained, STEP_BYTES, WAITING_STEP, Waiting,
    Waits,
};
use super::{
    Claim, Completion, Depth, Enqueued, ID_WINDOW, Lease, Leased, NewEvent, Outlook, Queue, QueueError,
    QueueState, Reach, Release, Settlement, Stored,
};
use crate::domain::event::Event;
use crate::domain::health::Health;
use crate::domain::id::{EventId, Uid};

/// Due time in milliseconds since 1970, and position of the event.
type Key = (i64, u64);

#[derive(Debug)]
struct Delivery {
    event: Arc<Event>,
    bytes: usize,
    attempts: u32,
    claim: Option<u64>,
    note: Option<Box<[u8]>>,
    /// When it began to wait, in milliseconds since 1970.
    age: i64,
    replayed: bool,
}

#[derive(Debug, Default)]
struct Lane {
    deliveries: BTreeMap<Key, Delivery>,
    health: Option<Health>,
}

#[derive(Debug, Default)]
struct Inner {
    lanes: HashMap<Uid, Lane>,
    ids: HashMap<(Uid, EventId), Timestamp>,
    pending: HashMap<Uid, u64>,
    /// Every event with its lanes; none is ever removed.
    events: BTreeMap<u64, (Arc<Event>, Arc<[Uid]>)>,
    seen: Seen,
    last_seq: u64,
    last_token: u64,
    fault: Option<QueueError>,
    closed: bool,
}

/// The queue in memory.
#[derive(Clone, Debug)]
pub struct MemoryQueue {
    inner: Arc<Mutex<Inner>>,
    project_limit: u64,
}

impl Lane {
    fn keep_health(&mut self, health: Health) {
        if self
            .health
            .as_ref()
            .is_none_or(|stored| stored.revision <= health.revision)
        {
            self.health = Some(health);
        }
    }
}

impl Default for MemoryQueue {
    fn default() -> Self {
        Self::new(1_000_000)
    }
}

impl Inner {
    fn check(&self) -> Result<(), QueueError> {
        if self.closed {
            return Err(QueueError::Closed);
        }
        self.fault.clone().map_or(Ok(()), Err)
    }

    fn is_duplicate(&self, event: &Event) -> bool {
        let key = (event.project.uid.clone(), event.id.clone());
        let used = self.ids.get(&key);
        used.is_some_and(|used| {
            event
                .accepted
                .as_nanosecond()
                .saturating_sub(used.as_nanosecond())
                < i128::from(ID_WINDOW)
        })
    }

    /// Refuses a call that would exceed a project's quota.
    fn check_quota(&self, events: &[NewEvent], limit: u64) -> Result<(), QueueError> {
        let mut wanted: HashMap<&Uid, HashMap<&EventId, usize>> = HashMap::new();
        for new in events.iter().filter(|new| !self.is_duplicate(&new.event)) {
            let ids = wanted.entry(&new.event.project.uid).or_default();
            ids.entry(&new.event.id).or_insert(new.lanes.len());
        }
        for (project, ids) in wanted {
            let pending = self.pending.get(project).copied().unwrap_or(0);
            let fresh = u64::try_from(ids.values().sum::<usize>()).unwrap_or(u64::MAX);
            if pending.saturating_add(fresh) > limit {
                return Err(QueueError::ProjectFull { pending, limit });
            }
        }
        Ok(())
    }

    fn release(&mut self, lane: &Uid, key: Key, token: u64) {
        let delivery = self
            .lanes
            .get_mut(lane)
            .and_then(|lane| lane.deliveries.get_mut(&key));
        if let Some(delivery) = delivery.filter(|delivery| delivery.claim == Some(token)) {
            delivery.claim = None;
        }
    }

    fn finished(&mut self, project: &Uid, count: u64) {
        if let Some(pending) = self.pending.get_mut(project) {
            *pending = pending.saturating_sub(count);
        }
    }

    fn settle(&mut self, settlement: Settlement) {
        let Settlement {
            mut lease,
            completion,
            health,
            note,
        } = settlement;
        lease.claim.release = None;
        let key = (lease.due.as_millisecond(), lease.claim.seq);
        let Some(lane) = self.lanes.get_mut(&lease.lane) else {
            return;
        };
        if lane
            .deliveries
            .get(&key)
            .is_none_or(|delivery| delivery.claim != Some(lease.claim.token))
        {
            return;
        }
        let Some(delivery) = lane.deliveries.remove(&key) else {
            return;
        };
        if let Some(health) = health {
            lane.keep_health(*health);
        }
        let (due, attempts) = match completion {
            Completion::Finished => return self.finished(&delivery.event.project.uid, 1),
            Completion::RetryAt(due) => (due, delivery.attempts.saturating_add(1)),
            Completion::PutOffUntil(due) => (due, delivery.attempts),
        };
        let due = due.max(Timestamp::from_millisecond(delivery.age).unwrap_or_default());
        let again = Delivery {
            attempts,
            claim: None,
            note: note.or(delivery.note),
            ..delivery
        };
        lane.deliveries.insert((due.as_millisecond(), key.1), again);
    }
}

impl Delivery {
    fn describe(&self, key: Key) -> Open {
        Open {
            due: Timestamp::from_millisecond(key.0).unwrap_or_default(),
            attempts: self.attempts,
            in_flight: self.claim.is_some(),
            replayed: self.replayed,
        }
    }
}

impl Inner {
    fn replay(&mut self, uid: &Uid, replay: &Replay, now: i64, limit: u64) -> Result<Replayed, QueueError> {
        let mut replayed = Replayed::default();
        let mut wanted: Vec<u64> = match replay {
            Replay::Events(events) => {
                replayed.next = (events.len() > REPLAY_STEP).then_some(REPLAY_STEP as u64);
                let asked = events.iter().take(REPLAY_STEP);
                let (there, gone): (Vec<_>, Vec<_>) = asked
                    .partition(|(seq, id)| self.events.get(seq).is_some_and(|(event, _)| event.id == *id));
                replayed.gone = gone.len() as u64;
                there.iter().map(|(seq, _)| *seq).collect()
            }
            Replay::Accepted {
                since,
                until,
                event_type,
                from,
            } => {
                let of_type = |event: &Event| {
                    event_type
                        .as_ref()
                        .is_none_or(|kind| *kind == event.content.event_type)
                };
                let found = self.events.range(*from..).filter(|(_, (event, lanes))| {
                    event.accepted >= *since
                        && event.accepted < *until
                        && lanes.contains(uid)
                        && of_type(event)
                });
                let mut found: Vec<u64> = found.map(|(seq, _)| *seq).take(REPLAY_STEP + 1).collect();
                replayed.next = found.get(REPLAY_STEP).copied();
                found.truncate(REPLAY_STEP);
                found
            }
        };
        wanted.sort_unstable();
        wanted.dedup();
        let mut fresh = Vec::new();
        for seq in wanted {
            let stored = self.events.get(&seq).filter(|(_, lanes)| lanes.contains(uid));
            let Some((event, _)) = stored else {
                replayed.elsewhere += 1;
                continue;
            };
            let lane = self.lanes.get(uid);
            if lane.is_some_and(|lane| lane.deliveries.keys().any(|key| key.1 == seq)) {
                replayed.open += 1;
            } else {
                fresh.push((seq, Arc::clone(event)));
            }
        }
        for (_, event) in &fresh {
            let project = &event.project.uid;
            let more = fresh
                .iter()
                .filter(|(_, other)| other.project.uid == *project)
                .count();
            let pending = self.pending.get(project).copied().unwrap_or(0);
            if pending.saturating_add(more as u64) > limit {
                return Err(QueueError::ProjectFull { pending, limit });
            }
        }
        for (seq, event) in fresh {
            let at = now.max(event.accepted.as_millisecond().saturating_add(1));
            *self.pending.entry(event.project.uid.clone()).or_default() += 1;
            let delivery = Delivery {
                bytes: event.content.to_stored().map_or(0, |stored| stored.len()),
                event,
                attempts: 0,
                claim: None,
                note: None,
                age: at,
                replayed: true,
            };
            let lane = self.lanes.entry(uid.clone()).or_default();
            lane.deliveries.insert((at, seq), delivery);
            replayed.made += 1;
        }
        Ok(replayed)
    }
}

impl MemoryQueue {
    /// An empty queue with a quota per project.
    #[must_use]
    pub fn new(project_limit: u64) -> Self {
        Self {
            inner: Arc::default(),
            project_limit,
        }
    }

    /// Makes every call fail, or work again. Leases of a settlement that fails are given back.
    pub fn fail(&self, fault: Option<QueueError>) {
        self.inner.lock().fault = fault;
    }
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn enqueue(&self, events: Vec<NewEvent>) -> Result<Vec<Enqueued>, QueueError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        inner.check_quota(&events, self.project_limit)?;
        let mut answers = Vec::with_capacity(events.len());
        for NewEvent { event, lanes, keys } in events {
            if inner.is_duplicate(&event) {
                answers.push(Enqueued::Duplicate);
                continue;
            }
            let project = event.project.uid.clone();
            inner
                .ids
                .insert((project.clone(), event.id.clone()), event.accepted);
            let left_out = inner
                .seen
                .left_out(&lanes, &keys, event.accepted.as_millisecond());
            let lanes = super::keys::without(&lanes, &left_out);
            inner.last_seq += 1;
            let key = (event.accepted.as_millisecond(), inner.last_seq);
            let bytes = event.content.to_stored().map_or(0, |stored| stored.len());
            inner
                .events
                .insert(key.1, (Arc::clone(&event), Arc::clone(&lanes)));
            for uid in lanes.iter() {
                let delivery = Delivery {
                    event: Arc::clone(&event),
                    bytes,
                    attempts: 0,
                    claim: None,
                    note: None,
                    age: key.0,
                    replayed: false,
                };
                inner
                    .lanes
                    .entry(uid.clone())
                    .or_default()
                    .deliveries
                    .insert(key, delivery);
                *inner.pending.entry(project.clone()).or_default() += 1;
            }
            answers.push(super::keys::stored(left_out));
        }
        Ok(answers)
    }

    async fn lease(&self, lane: &Uid, now: Timestamp, limit: usize) -> Result<Leased, QueueError> {
        let mut leased = Leased::default();
        let mut guard = self.inner.lock();
        guard.check()?;
        let Inner {
            lanes, last_token, ..
        } = &mut *guard;
        let Some(held) = lanes.get_mut(lane) else {
            return Ok(leased);
        };
        for (key, delivery) in held
            .deliveries
            .iter_mut()
            .filter(|(_, delivery)| delivery.claim.is_none())
        {
            if leased.leases.len() >= limit || key.0 > now.as_millisecond() {
                leased.next_due = Timestamp::from_millisecond(key.0).ok();
                break;
            }
            *last_token += 1;
            let (token, key) = (*last_token, *key);
            delivery.claim = Some(token);
            let (inner, uid) = (Arc::clone(&self.inner), lane.clone());
            let release = Release(Box::new(move || inner.lock().release(&uid, key, token)));
            leased.leases.push(Lease {
                stored: Stored::Event(Arc::clone(&delivery.event)),
                attempts: delivery.attempts,
                lane: lane.clone(),
                due: Timestamp::from_millisecond(key.0).unwrap_or_default(),
                replayed: delivery
                    .replayed
                    .then(|| Timestamp::from_millisecond(delivery.age).unwrap_or_default()),
                bytes: delivery.bytes,
                claim: Claim {
                    seq: key.1,
                    token,
                    release: Some(release),
                },
            });
        }
        drop(guard);
        leased.leases.sort_unstable_by_key(|lease| lease.claim.seq);
        Ok(leased)
    }

    async fn rewind(&self, lane: &Uid, reach: Reach) -> Result<u64, QueueError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        let Some(lane) = inner.lanes.get_mut(lane) else {
            return Ok(0);
        };
        let free = lane.deliveries.iter().filter(|(_, held)| held.claim.is_none());
        let mut moves: Vec<(Key, Key)> = free.map(|(key, held)| (*key, (held.age, key.1))).collect();
        match reach {
            Reach::DueBy(now) => moves.retain(|(key, _)| key.0 <= now.as_millisecond()),
            Reach::Oldest => {
                moves = moves
                    .into_iter()
                    .min_by_key(|(_, age)| *age)
                    .into_iter()
                    .collect();
            }
        }
        moves.retain(|(key, age)| key != age);
        for (key, age) in &moves {
            if let Some(held) = lane.deliveries.remove(key) {
                lane.deliveries.insert(*age, held);
            }
        }
        Ok(moves.len() as u64)
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), QueueError> {
        // A failed check must not hold the lock while the leases drop: they take it to give themselves back.
        let checked = self.inner.lock().check();
        checked?;
        let mut inner = self.inner.lock();
        for settlement in settlements {
            inner.settle(settlement);
        }
        Ok(())
    }

    async fn note(&self, lease: &Lease) -> Result<Option<Box<[u8]>>, QueueError> {
        let inner = self.inner.lock();
        inner.check()?;
        let key = (lease.due.as_millisecond(), lease.claim.seq);
        let held = inner.lanes.get(&lease.lane);
        let delivery = held.and_then(|lane| lane.deliveries.get(&key));
        Ok(delivery.and_then(|delivery| delivery.note.clone()))
    }

    async fn replay(&self, lane: &Uid, replay: Replay, now: Timestamp) -> Result<Replayed, QueueError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        inner.replay(lane, &replay, now.as_millisecond(), self.project_limit)
    }

    async fn hand_over(
        &self,
        lease: &Lease,
        to: &Uid,
        note: Box<[u8]>,
        now: Timestamp,
    ) -> Result<HandedOver, QueueError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        Ok(inner.hand_over(lease.claim.seq, to, note, now.as_millisecond()))
    }

    async fn cancel(&self, lane: &Uid, seq: u64) -> Result<Cancelled, QueueError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        let held = inner.lanes.get_mut(lane);
        let Some(held) = held else {
            return Ok(Cancelled::NotWaiting);
        };
        let Some(key) = held.deliveries.keys().find(|key| key.1 == seq).copied() else {
            return Ok(Cancelled::NotWaiting);
        };
        if held.deliveries.get(&key).is_some_and(|held| held.claim.is_some()) {
            return Ok(Cancelled::InFlight);
        }
        let Some(delivery) = held.deliveries.remove(&key) else {
            return Ok(Cancelled::NotWaiting);
        };
        inner.finished(&delivery.event.project.uid, 1);
        Ok(Cancelled::Done {
            attempts: delivery.attempts,
        })
    }

    async fn find(
        &self,
        lane: &Uid,
        id: &EventId,
        _hint: Option<u64>,
    ) -> Result<Option<Retained>, QueueError> {
        let inner = self.inner.lock();
        inner.check()?;
        let held = inner.lanes.get(lane);
        let open = |seq| held.and_then(|held| held.deliveries.iter().find(|(key, _)| key.1 == seq));
        let found = inner
            .events
            .iter()
            .find(|(seq, (event, lanes))| event.id == *id && (lanes.contains(lane) || open(**seq).is_some()));
        Ok(found.map(|(seq, (event, _))| Retained {
            seq: *seq,
            event: Arc::clone(event),
            open: open(*seq).map(|(key, delivery)| delivery.describe(*key)),
        }))
    }

    async fn waiting(
        &self,
        lane: &Uid,
        after: Option<(i64, u64)>,
        limit: usize,
    ) -> Result<Waits, QueueError> {
        let inner = self.inner.lock();
        inner.check()?;
        let held = inner.lanes.get(lane).map(|lane| lane.deliveries.iter());
        let waiting = held
            .into_iter()
            .flatten()
            .filter(|(key, _)| after.is_none_or(|after| **key > after));
        let (mut waits, mut read) = (Waits::default(), 0);
        for (key, delivery) in waiting {
            waits.more = waits.found.len() >= limit.min(WAITING_STEP) || read >= STEP_BYTES;
            if waits.more {
                break;
            }
            read += delivery.bytes;
            waits.found.push(Waiting {
                place: *key,
                stored: Stored::Event(Arc::clone(&delivery.event)),
                open: delivery.describe(*key),
            });
        }
        Ok(waits)
    }

    async fn drop_lane(&self, lane: &Uid) -> Result<u64, QueueError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        inner.seen.forget(lane);
        let Some(dropped) = inner.lanes.remove(lane) else {
            return Ok(0);
        };
        for delivery in dropped.deliveries.values() {
            inner.finished(&delivery.event.project.uid, 1);
        }
        Ok(dropped.deliveries.len() as u64)
    }

    fn lanes(&self) -> Vec<Uid> {
        let inner = self.inner.lock();
        let held = inner
            .lanes
            .iter()
            .filter(|(_, lane)| !lane.deliveries.is_empty() || lane.health.is_some());
        held.map(|(uid, _)| uid.clone()).collect()
    }

    fn outlook(&self, lane: &Uid, now: Timestamp, most: usize) -> Outlook {
        let inner = self.inner.lock();
        let Some(lane) = inner.lanes.get(lane) else {
            return Outlook::default();
        };
        let free = lane.deliveries.iter().filter(|(_, held)| held.claim.is_none());
        let mut free = free.map(|(key, _)| key.0).peekable();
        Outlook {
            next_due: free.peek().and_then(|due| Timestamp::from_millisecond(*due).ok()),
            ready: free
                .take(most)
                .take_while(|due| *due <= now.as_millisecond())
                .count(),
        }
    }

    fn depth(&self, lane: &Uid) -> Depth {
        let inner = self.inner.lock();
        let Some(lane) = inner.lanes.get(lane) else {
            return Depth::default();
        };
        let accepted = lane.deliveries.values().map(|held| held.age);
        let mut free = lane.deliveries.iter().filter(|(_, held)| held.claim.is_none());
        Depth {
            pending: lane.deliveries.len() as u64,
            oldest: accepted.min(),
            next_due: free.next().map(|(key, _)| key.0),
        }
    }

    fn state(&self) -> QueueState {
        let unavailable = self.inner.lock().check().err().map(|error| error.to_string());
        QueueState {
            unavailable,
            known: true,
            repaired: None,
        }
    }

    async fn close(&self) {
        self.inner.lock().closed = true;
    }
}
