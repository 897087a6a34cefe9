//! [`MemoryQueue`]: the [`Queue`] in memory, for tests of what uses a queue.
//!
//! Keeps the whole contract except that nothing survives the process. Bounds: the quota per project. Ids are kept
//! for 24 hours of event time. [`MemoryQueue::fail`] makes every call fail, as a full disk would.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;

use super::{
    Claim, Completion, Depth, Enqueued, HealthStore, ID_WINDOW, Lease, Leased, NewEvent, Outlook, Queue,
    QueueError, QueueState, Reach, Release, Settlement, Stored,
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
        let due = due.max(delivery.event.accepted);
        let again = Delivery {
            attempts,
            claim: None,
            note: note.or(delivery.note),
            ..delivery
        };
        lane.deliveries.insert((due.as_millisecond(), key.1), again);
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
        for NewEvent { event, lanes } in events {
            if inner.is_duplicate(&event) {
                answers.push(Enqueued::Duplicate);
                continue;
            }
            let project = event.project.uid.clone();
            inner
                .ids
                .insert((project.clone(), event.id.clone()), event.accepted);
            inner.last_seq += 1;
            let key = (event.accepted.as_millisecond(), inner.last_seq);
            let bytes = event.content.to_stored().map_or(0, |stored| stored.len());
            for uid in lanes.iter() {
                let delivery = Delivery {
                    event: Arc::clone(&event),
                    bytes,
                    attempts: 0,
                    claim: None,
                    note: None,
                };
                inner
                    .lanes
                    .entry(uid.clone())
                    .or_default()
                    .deliveries
                    .insert(key, delivery);
                *inner.pending.entry(project.clone()).or_default() += 1;
            }
            answers.push(Enqueued::Accepted);
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
        let mut moves: Vec<(Key, Key)> = free
            .map(|(key, held)| (*key, (held.event.accepted.as_millisecond(), key.1)))
            .collect();
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

    async fn drop_lane(&self, lane: &Uid) -> Result<u64, QueueError> {
        let mut inner = self.inner.lock();
        inner.check()?;
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
        let accepted = lane
            .deliveries
            .values()
            .map(|held| held.event.accepted.as_millisecond());
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

#[async_trait]
impl HealthStore for MemoryQueue {
    async fn load_health(&self) -> Result<Vec<(Uid, Health)>, QueueError> {
        let inner = self.inner.lock();
        inner.check()?;
        let stored = inner
            .lanes
            .iter()
            .filter_map(|(uid, lane)| Some((uid.clone(), lane.health.clone()?)));
        Ok(stored.collect())
    }

    async fn save_health(&self, healths: Vec<(Uid, Health)>) -> Result<(), QueueError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        for (uid, health) in healths {
            inner.lanes.entry(uid).or_default().keep_health(health);
        }
        Ok(())
    }
}
