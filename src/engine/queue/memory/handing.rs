//! Deliveries made in another lane than the event went to.

use std::sync::Arc;

use super::{Delivery, Inner};
use crate::domain::dead_letter;
use crate::domain::id::Uid;
use crate::engine::queue::asked::HandedOver;

impl Inner {
    /// Makes a delivery of the event at a position in a lane.
    pub(super) fn hand_over(&mut self, seq: u64, to: &Uid, note: Box<[u8]>, now: i64) -> HandedOver {
        let Some((event, _)) = self.events.get(&seq) else {
            return HandedOver::Gone;
        };
        let event = Arc::clone(event);
        let lane = self.lanes.entry(to.clone()).or_default();
        let (mut note, mut handed) = (note, HandedOver::Made);
        if let Some((key, there)) = lane.deliveries.iter().find(|(key, _)| key.1 == seq) {
            if there.claim.is_some() {
                return HandedOver::InFlight;
            }
            let Some(joined) = dead_letter::join(&note, there.note.as_deref()) else {
                return HandedOver::Open;
            };
            (note, handed) = (joined, HandedOver::Joined);
            let key = *key;
            lane.deliveries.remove(&key);
        } else {
            *self.pending.entry(event.project.uid.clone()).or_default() += 1;
        }
        let at = now.max(event.accepted.as_millisecond().saturating_add(1));
        let delivery = Delivery {
            bytes: event.content.to_stored().map_or(0, |stored| stored.len()),
            event,
            attempts: 0,
            claim: None,
            note: Some(note),
            age: at,
            replayed: true,
        };
        lane.deliveries.insert((at, seq), delivery);
        handed
    }
}
