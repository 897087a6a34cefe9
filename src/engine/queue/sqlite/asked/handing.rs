//! Deliveries made in another lane than the event went to: as a replay makes them, with a note.
//!
//! One of the event that waits in that lane becomes it, in one transaction: whatever the lane's destination would have
//! made of the one that waited, it is a dead letter now.

use super::{accepted_of, ages};
use crate::domain::dead_letter;
use crate::domain::id::Uid;
use crate::engine::queue::Lease;
use crate::engine::queue::asked::HandedOver;
use crate::engine::queue::sqlite::fault::StoreError;
use crate::engine::queue::sqlite::lanes::Key;
use crate::engine::queue::sqlite::writer::{Phase, Writer};
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
            && let Some((key, _)) = self.open(to, number, *seq, accepted)?
        {
            return self.join(handing, number, key, (accepted, project));
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

    /// Makes the delivery of one that waits there: it is taken out and made anew at once.
    fn join(
        &mut self,
        handing: &Handing,
        number: i64,
        key: Key,
        (accepted, project): (i64, i64),
    ) -> Result<HandedOver, StoreError> {
        let Handing { to, seq, note, now } = handing;
        if self.shared.lanes.lock().is_claimed(to, *seq) {
            return Ok(HandedOver::InFlight);
        }
        let had = match &self.phase {
            Phase::Up(store) => notes::read(store, to, *seq)?,
            Phase::Down { error, .. } => return Err(error.clone()),
        };
        let Some(note) = dead_letter::join(note, had.as_deref()) else {
            return Ok(HandedOver::Open);
        };
        let ages = ages(self.connection()?, number, *seq, accepted)?;
        if !self.shared.lanes.lock().begin_cancel(to, key) {
            return Ok(HandedOver::InFlight);
        }
        let at = (*now).max(accepted.saturating_add(1));
        let bytes = ROWS.saturating_add(note.len() as u64);
        let done = self.making_room(bytes, |store| {
            store.transact(|writing| {
                let there = writing.take_out(number, key, project)?;
                writing.deliver_again(number, at, *seq, project)?;
                replays::keep(writing.connection(), number, *seq, at)?;
                notes::keep(writing.connection(), number, *seq, &note)?;
                Ok(there)
            })
        });
        let gone = done.as_ref().is_ok_and(|(there, _)| *there);
        let mut lanes = self.shared.lanes.lock();
        lanes.end_cancel(to, key, &ages, gone);
        if done.is_ok() {
            lanes.add_cold(to, number, (at, *seq));
        }
        drop(lanes);
        self.shared.replays.lock().opened(std::iter::once(*seq));
        done.map(|_| HandedOver::Joined)
    }
}
