//! What lanes have seen, by the keys of events.

use std::collections::HashMap;

use crate::domain::id::Uid;
use crate::domain::policy::dedup::LONGEST_WINDOW;
use crate::engine::queue::keys::LaneKey;

/// When each key was last stored and until when it counts, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Seen(HashMap<Uid, HashMap<u128, (i64, i64)>>);

impl Seen {
    /// Places of the lanes that have seen an event's key; the others remember it.
    pub(super) fn left_out(&mut self, lanes: &[Uid], keys: &[LaneKey], accepted: i64) -> Vec<usize> {
        let longest = i64::try_from(LONGEST_WINDOW.as_millis()).unwrap_or(i64::MAX);
        let mut left_out = Vec::new();
        for LaneKey { lane: at, mark } in keys {
            let Some(lane) = lanes.get(*at) else { continue };
            let seen = self.0.entry(lane.clone()).or_default();
            if seen
                .get(&mark.key)
                .is_some_and(|(at, until)| mark.against(*at, *until).is_within(*at, accepted))
            {
                left_out.push(*at);
                continue;
            }
            seen.retain(|_, (at, _)| at.saturating_add(longest) > accepted);
            seen.insert(mark.key, (accepted, accepted.saturating_add(mark.window)));
        }
        left_out
    }

    /// Forgets what a lane has seen.
    pub(super) fn forget(&mut self, lane: &Uid) {
        self.0.remove(lane);
    }
}
