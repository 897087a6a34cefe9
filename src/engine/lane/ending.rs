//! Lanes whose destination is not to be seen: gone, or in a namespace that is not watched.

use jiff::Timestamp;

use super::{STORE_PAUSE, Step, Task, wait_until};
use crate::domain::retry::{self, LONGEST_MAX_AGE};
use crate::engine::queue::{Completion, QueueError, Reach, Settlement};

/// Aged deliveries dropped in one write.
const DROPPED_AT_ONCE: usize = 256;
/// Why deliveries of an unseen destination are kept.
const NOT_WATCHED: &str = "NamespaceNotWatched";

impl Task<'_> {
    /// Keeps the work of a destination whose namespace is not watched, but nothing that is too old for any destination.
    pub(super) async fn keep(&mut self) -> Step {
        let (core, lane) = (self.core, self.lane);
        let pending = core.queue.depth(&lane.uid).pending;
        if pending > 0 && !std::mem::replace(&mut self.unwatched, true) {
            let namespace = lane.with(|state| state.health.namespace.clone());
            tracing::warn!(
                destination.uid = %lane.uid,
                destination.namespace = namespace.as_deref().unwrap_or("unknown"),
                deliveries = pending,
                reason = NOT_WATCHED,
                "deliveries are kept for a destination whose namespace is not watched"
            );
        }
        let now = core.clock.now();
        let oldest = core.queue.depth(&lane.uid).oldest;
        let oldest = oldest.and_then(|oldest| Timestamp::from_millisecond(oldest).ok());
        let Some(oldest) = oldest else {
            return wait_until(lane, None);
        };
        let end = retry::after(oldest, LONGEST_MAX_AGE);
        if end > now {
            lane.with(|state| state.next_attempt = None);
            return Step::Wait(Some(end));
        }
        match self.drop_aged(now).await {
            // The store hands nothing out now.
            Ok(0) => Step::Wait(Some(retry::after(now, STORE_PAUSE))),
            Ok(dropped) => {
                core.metrics.dropped(dropped, NOT_WATCHED);
                tracing::info!(
                    destination.uid = %lane.uid, deliveries = dropped, reason = NOT_WATCHED,
                    "deliveries over the longest maxAge dropped"
                );
                Step::Again
            }
            Err(error) => {
                core.complaints
                    .warn("old deliveries were not dropped", &error, &lane.uid);
                Step::Wait(Some(retry::after(now, STORE_PAUSE)))
            }
        }
    }

    /// Drops some of the deliveries that are over the longest `maxAge`.
    async fn drop_aged(&self, now: Timestamp) -> Result<u64, QueueError> {
        let (queue, uid) = (&self.core.queue, &self.lane.uid);
        // From then on each is due when it was accepted.
        queue.rewind(uid, Reach::DueBy(Timestamp::MAX)).await?;
        let leased = queue.lease(uid, now, DROPPED_AT_ONCE).await?;
        let aged = leased
            .leases
            .into_iter()
            .filter(|lease| retry::after(lease.due, LONGEST_MAX_AGE) <= now);
        let settlements: Vec<_> = aged
            .map(|lease| Settlement {
                lease,
                completion: Completion::Finished,
                health: None,
                note: None,
            })
            .collect();
        let count = settlements.len() as u64;
        queue.settle(settlements).await?;
        Ok(count)
    }

    /// Drops the work of a destination that is gone.
    pub(super) async fn discard(&self) -> Step {
        let (core, lane) = (self.core, self.lane);
        match core.queue.drop_lane(&lane.uid).await {
            Ok(dropped) => {
                core.metrics.dropped(dropped, "DestinationDeleted");
                if dropped > 0 {
                    tracing::info!(
                        destination.uid = %lane.uid, deliveries = dropped, reason = "DestinationDeleted",
                        "deliveries dropped"
                    );
                }
                Step::Gone
            }
            Err(error) => {
                core.complaints.warn("a lane was not dropped", &error, &lane.uid);
                Step::Wait(Some(retry::after(core.clock.now(), STORE_PAUSE)))
            }
        }
    }
}
