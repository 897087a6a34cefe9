//! Keys by which lanes tell events that are the same.

use std::sync::Arc;

use super::Enqueued;
use crate::domain::id::Uid;
use crate::domain::policy::dedup::Mark;

/// The key of an event for one of its lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneKey {
    /// Place of the lane among the event's.
    pub lane: usize,
    /// Key and window.
    pub mark: Mark,
}

/// The lanes but for those at some places.
pub(super) fn without(lanes: &Arc<[Uid]>, left_out: &[usize]) -> Arc<[Uid]> {
    if left_out.is_empty() {
        return Arc::clone(lanes);
    }
    let kept = lanes.iter().enumerate().filter(|(at, _)| !left_out.contains(at));
    kept.map(|(_, lane)| lane.clone()).collect()
}

/// What is answered for an event that was stored without deliveries to the lanes at some places.
pub(super) fn stored(left_out: Vec<usize>) -> Enqueued {
    if left_out.is_empty() {
        Enqueued::Accepted
    } else {
        Enqueued::Suppressed(left_out.into())
    }
}
