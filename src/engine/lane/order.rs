//! Ordered destinations: of each key one delivery at a time, in the order of acceptance.
//!
//! What goes next is decided by [`Queues`]; here it is leased, started and put off. The deliveries that are looked ahead
//! at stay leased meanwhile. When a lane begins, or its order is another, everything is asked for by age anew: a
//! restart keeps the order, and tries what had failed at once. Where deliveries cannot be put in order, on a full
//! volume, an ordered lane waits rather than send them in another.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Lane, Restraint, Step, Task, wait_because, wait_until};
use crate::domain::destination::Destination;
use crate::domain::policy::order::{KEYLESS, Order, Queues, Verdict};
use crate::engine::attempt;
use crate::engine::budget::{self, Asker};
use crate::engine::metrics::Bound;
use crate::engine::queue::{Completion, Lease, Outlook, Reach, Settlement, Stored};

/// Most deliveries leased at once.
const LEASED_AT_ONCE: usize = 64;

/// How an attempt ended, for those behind it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// Without a result: it is made again.
    Broken,
    /// It is done with.
    Done,
    /// It is made again then.
    Failed(Timestamp),
}

/// The turn of one delivery of a key; when it is dropped the lane learns how it ended.
#[derive(Debug)]
pub(crate) struct Turn {
    lane: Arc<Lane>,
    key: u128,
    end: End,
}

impl Turn {
    /// Notes that a result was stored.
    pub(crate) const fn stored(&mut self, completion: Completion) {
        self.end = match completion {
            Completion::Finished => End::Done,
            Completion::RetryAt(until) | Completion::PutOffUntil(until) => End::Failed(until),
        };
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (key, end) = (self.key, self.end);
        self.lane.with(|state| state.ended.push((key, end)));
    }
}

impl Lane {
    /// Notes that a waiting delivery was cancelled, which others may wait for. Wake the lane afterwards.
    pub(crate) fn cancelled(&self, position: u64) {
        self.with(|state| state.cancelled.push(position));
    }
}

/// What an ordered lane holds.
#[derive(Debug)]
pub(super) struct InOrder {
    order: Order,
    queues: Queues<Lease>,
    /// Keys were opened, and what is due by then is not in order of age yet.
    unsorted: Option<Timestamp>,
    is_full: bool,
}

impl InOrder {
    fn offer(&mut self, destination: &Destination, lease: Lease) -> Option<(Lease, Timestamp)> {
        let key = match (&self.order.key, &lease.stored) {
            (Some(key), Stored::Event(event)) => key.of(event, &destination.identity).unwrap_or(KEYLESS),
            _ => KEYLESS,
        };
        match self.queues.offer(key, lease.claim.seq, lease.bytes, lease) {
            Verdict::Kept => None,
            Verdict::PutOff(lease, until) => Some((lease, until)),
        }
    }

    fn put_back(&mut self, key: u128, lease: Lease) {
        self.queues.put_back(key, lease.claim.seq, lease.bytes, lease);
    }
}

impl Task<'_> {
    /// Starts as many attempts as the limit, the common places and the order allow.
    pub(super) async fn fill_in_order(
        &mut self,
        destination: &Arc<Destination>,
        order: &Order,
        limit: u32,
        now: Timestamp,
        failing: bool,
    ) -> Step {
        let (ended, cancelled) = self.lane.with(|state| {
            (
                std::mem::take(&mut state.ended),
                std::mem::take(&mut state.cancelled),
            )
        });
        let held = self.in_order.take().filter(|held| held.order == *order);
        let Some(mut held) = held else {
            if !self.attempts.is_empty() {
                return Step::Wait(None);
            }
            if !self.sort(Timestamp::MAX).await {
                return Step::Again;
            }
            self.in_order = Some(Box::new(InOrder {
                order: order.clone(),
                queues: Queues::default(),
                unsorted: None,
                is_full: false,
            }));
            return Step::Again;
        };
        let mut put_off = Vec::new();
        for (key, end) in ended {
            match end {
                End::Done => held.queues.done(key),
                End::Broken => drop(held.queues.give_up(key)),
                End::Failed(until) => {
                    let younger = held.queues.failed(key, until).into_iter();
                    put_off.extend(younger.map(|lease| (lease, until)));
                }
            }
        }
        let opened = cancelled
            .into_iter()
            .filter_map(|position| held.queues.cancelled(position))
            .max();
        let due = held.queues.open(now).then_some(now);
        held.unsorted = held.unsorted.max(opened).max(due);
        let is_sorted = self.put_off(put_off).await
            && match held.unsorted {
                Some(until) => self.sort(until.max(now)).await,
                None => true,
            };
        let step = if is_sorted {
            held.unsorted = None;
            self.start(&mut held, destination, limit, now, failing).await
        } else {
            Step::Again
        };
        self.in_order = Some(held);
        step
    }

    /// Has what is due by then leased by age; returns whether it will be. If not, the lane is paused.
    async fn sort(&self, now: Timestamp) -> bool {
        let Err(error) = self.core.queue.rewind(&self.lane.uid, Reach::DueBy(now)).await else {
            return true;
        };
        let what = "deliveries were not put in order of age";
        self.core.complaints.warn(what, &error, &self.lane.uid);
        self.lane.pause(self.core.clock.now());
        false
    }

    /// Puts deliveries off; returns whether they are. If not they are given back, and the lane is paused.
    async fn put_off(&self, deliveries: Vec<(Lease, Timestamp)>) -> bool {
        if deliveries.is_empty() {
            return true;
        }
        let settlements = deliveries.into_iter().map(|(lease, until)| Settlement {
            lease,
            completion: Completion::PutOffUntil(until),
            health: None,
            note: None,
        });
        let Err(error) = self.core.queue.settle(settlements.collect()).await else {
            return true;
        };
        let what = "deliveries were not put off";
        self.core.complaints.warn(what, &error, &self.lane.uid);
        self.lane.pause(self.core.clock.now());
        false
    }

    async fn start(
        &mut self,
        held: &mut InOrder,
        destination: &Arc<Destination>,
        limit: u32,
        now: Timestamp,
        failing: bool,
    ) -> Step {
        let (core, lane) = (self.core, self.lane);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        loop {
            if self.attempts.len() >= limit {
                return Step::Wait(held.queues.next_opening());
            }
            let Some((key, lease)) = held.queues.take_next() else {
                match self.fetch(held, destination, now).await {
                    Some(step) => return step,
                    None => continue,
                }
            };
            if let Err(until) = self.pacing.room(core, destination, 1) {
                held.put_back(key, lease);
                return wait_because(lane, Some(until), Restraint::RateLimit);
            }
            let asker = if failing { Asker::Failing } else { self.asker() };
            let Some(place) = self.held.take().or_else(|| core.places.try_take(asker, 1)) else {
                held.put_back(key, lease);
                return self.wait_for_turn(Bound::Requests, asker, 1).await;
            };
            let Some(load) = self.take_room(asker, &lease) else {
                let units = budget::units(lease.bytes);
                held.put_back(key, lease);
                drop(place);
                return self.wait_for_room(asker, units).await;
            };
            let turn = Turn {
                lane: Arc::clone(lane),
                key,
                end: End::Broken,
            };
            let attempt = attempt::make(
                Arc::clone(core),
                Arc::clone(lane),
                Arc::clone(destination),
                lease,
                (place, load),
                Some(turn),
            );
            self.attempts.spawn(attempt);
            self.pacing.took(core, destination);
        }
    }

    /// Leases more of what is due by `now`; `Some` when there is nothing to be had.
    async fn fetch(
        &mut self,
        held: &mut InOrder,
        destination: &Arc<Destination>,
        now: Timestamp,
    ) -> Option<Step> {
        let (core, lane) = (self.core, self.lane);
        let opening = held.queues.next_opening();
        let room = held.queues.room().min(LEASED_AT_ONCE);
        if room == 0 {
            if !std::mem::replace(&mut held.is_full, true) {
                core.metrics.policy_waits(Restraint::Order.as_str());
            }
            return Some(wait_because(lane, opening, Restraint::Order));
        }
        held.is_full = false;
        let Outlook { next_due, .. } = core.queue.outlook(&lane.uid, now, room);
        let idle = |next_due: Option<Timestamp>| {
            let until = [next_due, opening].into_iter().flatten().min();
            Some(wait_until(lane, until))
        };
        if next_due.is_none_or(|due| due > now) {
            return idle(next_due);
        }
        let leased = match core.queue.lease(&lane.uid, now, room).await {
            Ok(leased) => leased,
            Err(error) => {
                core.complaints
                    .warn("the queue cannot be read", &error, &lane.uid);
                lane.pause(core.clock.now());
                return Some(Step::Again);
            }
        };
        if leased.leases.is_empty() {
            return idle(leased.next_due);
        }
        let many = leased.leases.len();
        let offered = leased.leases.into_iter();
        let put_off: Vec<_> = offered
            .filter_map(|lease| held.offer(destination, lease))
            .collect();
        // Looks at the world again when nothing can start.
        let is_vain = put_off.len() == many;
        if self.put_off(put_off).await && !is_vain {
            None
        } else {
            Some(Step::Again)
        }
    }
}
