//! Deliveries made in another lane than the event went to: as a replay makes them, with a note.

use super::accepted_of;
use crate::domain::id::Uid;
use crate::engine::queue::Lease;
use crate::engine::queue::asked::HandedOver;
use crate::engine::queue::sqlite::fault::StoreError;
use crate::engine::queue::sqlite::writer::Writer;
use crate::engine::queue::sqlite::{notes, replays};

/// Bytes that the rows of a delivery take beside its note.
const ROWS: u64 = 256;

/// A delivery to be made.
#[derive(Debug)]
pub(in crate::engine::queue::sqlite) struct Handing {
    to: Uid,
    seq: i64,
    note: Box<[u8]>,
    now: i64,
}

impl Handing {
    /// Of a leased delivery's event, in that lane, at a time in milliseconds since 1970.
    pub(in crate::engine::queue::sqlite) fn new(lease: &Lease, to: &Uid, note: Box<[u8]>, now: i64) -> Self {
        Self {
            to: to.clone(),
            seq: lease.claim.seq.cast_signed(),
            note,
            now,
        }
    }
}

impl Writer {
    /// Makes the delivery. It may use the reserve, as settlements may: one of the same event is about to leave.
    pub(super) fn hand_over(&mut self, handing: &Handing) -> Result<HandedOver, StoreError> {
        let Handing { to, seq, note, now } = handing;
        let Some((accepted, project)) = accepted_of(self.connection()?, *seq)? else {
            return Ok(HandedOver::Gone);
        };
        if let Some(number) = self.number(to)
            && self.open(to, number, *seq, accepted)?.is_some()
        {
            return Ok(HandedOver::Open);
        }
        let at = (*now).max(accepted.saturating_add(1));
        let bytes = ROWS.saturating_add(note.len() as u64);
        let (number, _) = self.making_room(bytes, |store| {
            store.transact(|writing| {
                let number = writing.lane(to)?;
                writing.deliver_again(number, at, *seq, project)?;
                replays::keep(writing.connection(), number, *seq, at)?;
                notes::keep(writing.connection(), number, *seq, note)?;
                Ok(number)
            })
        })?;
        self.shared.lanes.lock().add_cold(to, number, (at, *seq));
        self.shared.replays.lock().opened(std::iter::once(*seq));
        Ok(HandedOver::Made)
    }
}
