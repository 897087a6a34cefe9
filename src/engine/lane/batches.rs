//! Destinations that take several events in a request: what goes next is decided by [`Batch`], here it is leased and
//! started.
//!
//! What waits for others is not leased, so it can be cancelled, and a restart finds it as it was. The lane wakes when the
//! oldest has waited for long enough, when an event comes that completes a batch, and when something that failed is due.
//! Dead letters of others go in their turn by age, each in an attempt of its own: when the first that is chosen is one, it
//! goes alone, else those among the others are left for the next look. What is leased and does not go is given back at
//! once.
//!
//! The times of retries are known of the process's own attempts, [`MAX_RETRIES`] of them; what a restart finds waits
//! like any other, at most `maxWait` longer.

use std::sync::Arc;

use jiff::Timestamp;

use super::{Lane, Restraint, Step, Task, wait_because, wait_until};
use crate::domain::destination::Destination;
use crate::domain::policy::batch::{Batch, Candidate};
use crate::engine::Core;
use crate::engine::attempt;
use crate::engine::budget::{self, Asker};
use crate::engine::dead_letters;
use crate::engine::metrics::Bound;
use crate::engine::queue::{Completion, Lease, Outlook, Stored};

/// Most times of retries that a lane knows.
const MAX_RETRIES: usize = 10_000;

impl Lane {
    /// Notes when a delivery of a batch is made again.
    pub(crate) fn comes_again(&self, completion: Completion) {
        if let Completion::RetryAt(at) | Completion::PutOffUntil(at) = completion {
            self.with(|state| {
                state.retries.insert(at.as_millisecond());
                if state.retries.len() > MAX_RETRIES {
                    state.retries.pop_last();
                }
            });
        }
    }

    /// When the next of them is due.
    fn next_retry(&self) -> Option<Timestamp> {
        let first = self.with(|state| state.retries.first().copied());
        first.and_then(|first| Timestamp::from_millisecond(first).ok())
    }

    /// Forgets those that were due by then.
    fn retried(&self, now: Timestamp) {
        self.with(|state| state.retries = state.retries.split_off(&now.as_millisecond().saturating_add(1)));
    }
}

impl Task<'_> {
    /// Starts the next request, if there is one to start.
    pub(super) async fn fill_in_batches(
        &mut self,
        destination: &Arc<Destination>,
        batch: Batch,
        limit: u32,
        now: Timestamp,
        failing: bool,
    ) -> Step {
        let (core, lane) = (self.core, self.lane);
        if self.attempts.len() >= usize::try_from(limit).unwrap_or(usize::MAX) {
            return Step::Wait(None);
        }
        let Outlook { next_due, ready } = core.queue.outlook(&lane.uid, now, batch.max_events);
        let Some(oldest) = next_due.filter(|due| *due <= now) else {
            return wait_until(lane, next_due);
        };
        let (closes, retry) = (batch.closes(oldest), lane.next_retry());
        if ready < batch.max_events && closes > now && retry.is_none_or(|retry| retry > now) {
            let until = retry.map_or(closes, |retry| closes.min(retry));
            return wait_because(lane, Some(until), Restraint::Batch);
        }
        if let Err(until) = self.pacing.room(core, destination, 1) {
            return wait_because(lane, Some(until), Restraint::RateLimit);
        }
        let asker = if failing { Asker::Failing } else { self.asker() };
        let Some(place) = self.held.take().or_else(|| core.places.try_take(asker, 1)) else {
            return self.wait_for_turn(Bound::Requests, asker, 1).await;
        };
        // What failed together may be due behind fewer new ones than a request holds.
        let most = batch.max_events.saturating_mul(2).saturating_sub(1);
        let leased = match core.queue.lease(&lane.uid, now, most).await {
            Ok(leased) => leased,
            Err(error) => {
                core.complaints
                    .warn("the queue cannot be read", &error, &lane.uid);
                lane.pause(core.clock.now());
                return Step::Again;
            }
        };
        let candidates: Vec<_> = leased.leases.iter().map(candidate).collect();
        let choice = batch.choose(&candidates, now);
        if choice.now.is_empty() {
            lane.retried(now);
            let Some(closes) = choice.until else {
                return wait_until(lane, leased.next_due);
            };
            let until = lane.next_retry().map_or(closes, |retry| closes.min(retry));
            return wait_because(lane, Some(until), Restraint::Batch);
        }
        let chosen = leased.leases.into_iter().enumerate();
        let chosen: Vec<Lease> = chosen
            .filter(|(place, _)| choice.now.contains(place))
            .map(|(_, lease)| lease)
            .collect();
        let Some((chosen, is_letter)) = without_letters(core, lane, destination, chosen).await else {
            return Step::Again;
        };
        let bytes = chosen.iter().map(|lease| lease.bytes).sum();
        let units = budget::units(bytes);
        let Some(load) = self.take_units(asker, units) else {
            drop((place, chosen));
            return self.wait_for_room(asker, units).await;
        };
        let (core, lane, destination) = (Arc::clone(core), Arc::clone(lane), Arc::clone(destination));
        self.pacing.took(&core, &destination);
        let shares = (place, load);
        if !is_letter {
            self.attempts
                .spawn(attempt::batch::make(core, lane, destination, chosen, shares));
        } else if let Some(letter) = chosen.into_iter().next() {
            self.attempts
                .spawn(attempt::make(core, lane, destination, letter, shares, None));
        }
        Step::Again
    }
}

/// The first alone when it is a dead letter of another destination, and that it is one; else those that are none. The
/// others are given back. `None` when the store cannot be read: then the lane is paused.
async fn without_letters(
    core: &Core,
    lane: &Lane,
    destination: &Destination,
    chosen: Vec<Lease>,
) -> Option<(Vec<Lease>, bool)> {
    let mut others = Vec::with_capacity(chosen.len());
    for lease in chosen {
        let note = dead_letters::note(core, lane, destination, &lease).await?;
        match note.letter {
            None => others.push(lease),
            Some(_) if others.is_empty() => return Some((vec![lease], true)),
            Some(_) => {}
        }
    }
    Some((others, false))
}

/// What was tried before and put back to the place of its age, after a pause, is like what was not.
fn candidate(lease: &Lease) -> Candidate {
    let since = match &lease.stored {
        Stored::Event(event) => lease.replayed.unwrap_or(event.accepted),
        Stored::Corrupt { .. } => lease.due,
    };
    let is_moved = lease.due.as_millisecond() > since.as_millisecond();
    Candidate {
        due: lease.due,
        attempts: if is_moved { lease.attempts } else { 0 },
        bytes: lease.bytes,
    }
}
