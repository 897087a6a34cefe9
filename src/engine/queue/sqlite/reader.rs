//! The reader thread: reads deliveries back for lanes whose window in memory ran out.
//!
//! One refill per lane at a time ([`Lanes`](super::lanes::Lanes) sees to that), so what waits for the reader is
//! bounded by the number of lanes. Keys and events are read in one read transaction. The connection's lock is held
//! from the first read to the merge, so a file is never replaced in between.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::Shared;
use super::fault::StoreError;
use super::inbox::Op;
use super::lanes::{Found, Hot, Key};
use super::replays;
use super::rows::{FactsCache, accepted_millis, read_event};
use super::schema;
use crate::domain::id::Uid;
use crate::engine::queue::Stored;

/// A lane that needs deliveries.
#[derive(Debug)]
pub(super) struct Refill {
    /// The lane.
    pub(super) lane: Uid,
    /// Its number.
    pub(super) number: i64,
    /// Deliveries due then or before.
    pub(super) now: i64,
}

/// The connection, when open, and what belongs to its file.
#[derive(Debug, Default)]
pub(super) struct Slot {
    connection: Option<rusqlite::Connection>,
    facts: FactsCache,
}

impl Slot {
    /// Closes the connection, and forgets what it read.
    pub(super) fn close(&mut self) {
        *self = Self::default();
    }
}

/// Serves refills until nobody can ask for any.
pub(super) fn run(shared: &Arc<Shared>, asked: &Receiver<Refill>) {
    while let Ok(refill) = asked.recv() {
        let mut slot = shared.reader_slot.lock();
        if let Err(error) = read(shared, &mut slot, &refill) {
            slot.close();
            drop(slot);
            let told = error.to_queue_error();
            tracing::warn!(error = %error, destination.uid = %refill.lane, "deliveries could not be read back");
            shared
                .lanes
                .lock()
                .refill_failed(&refill.lane, refill.number, &told);
            if let StoreError::Damaged(what) = error {
                shared.inbox.push(Op::Damaged(what)).ok();
            }
        }
    }
}

fn read(shared: &Shared, slot: &mut Slot, refill: &Refill) -> Result<(), StoreError> {
    let Refill { lane, number, now } = refill;
    let Some(room) = shared.lanes.lock().refill_from(lane, *number) else {
        shared.lanes.lock().refilled(lane, *number, Vec::new(), None);
        return Ok(());
    };
    if let Some(error) = shared.down() {
        return Err(StoreError::Down(error.to_string()));
    }
    let Slot { connection, facts } = slot;
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(schema::open_reader(&shared.settings.path)?),
    };
    let transaction = connection.transaction()?;
    let mut horizon: Option<Key> = None;
    let mut found: Vec<Found> = Vec::new();
    {
        let mut statement = transaction.prepare_cached(
            "SELECT due, seq, max(attempts, 0), project FROM deliveries WHERE lane = ?1 AND (due, seq) >= (?2, ?3)
             ORDER BY due, seq LIMIT ?4",
        )?;
        let most = i64::try_from(room.deliveries.saturating_add(1)).unwrap_or(i64::MAX);
        let mut rows = statement.query((number, room.from.0, room.from.1, most))?;
        while let Some(row) = rows.next()? {
            let key: Key = (row.get(0)?, row.get(1)?);
            if key.0 > *now || found.len() >= room.deliveries {
                horizon = Some(key);
                break;
            }
            found.push(Found {
                key,
                attempts: row.get(2)?,
                project: row.get(3)?,
                event: None,
            });
        }
    }
    shared.lanes.lock().unknown(lane, *number, &mut found);
    let replays = replays::any(&transaction, *number)?;
    let mut read = Vec::with_capacity(found.len());
    let mut bytes = 0_usize;
    for Found {
        key,
        attempts,
        project,
        event,
    } in found
    {
        if bytes > room.bytes {
            horizon = Some(key);
            break;
        }
        let (stored, cost) = if let Some(event) = event {
            event
        } else {
            let (stored, cost) = read_event(&transaction, facts, key.1)?;
            if matches!(stored, Stored::Corrupt { .. }) {
                shared.metrics.damaged.inc();
                tracing::error!(event.seq = key.1, destination.uid = %lane, "a stored event is damaged");
            }
            bytes = bytes.saturating_add(cost);
            shared.metrics.read_back.inc();
            (stored, cost)
        };
        let accepted = match &stored {
            Stored::Event(event) => event.accepted.as_millisecond().min(key.0),
            Stored::Corrupt { .. } => accepted_millis(&transaction, *number, key)?,
        };
        let made = if replays {
            replays::made(&transaction, *number, key.1)?
        } else {
            None
        };
        let accepted = made.map_or(accepted, |made| made.min(key.0));
        read.push((
            key,
            Hot {
                stored,
                attempts,
                project,
                accepted,
                cost,
            },
        ));
    }
    transaction.commit()?;
    shared.lanes.lock().refilled(lane, *number, read, horizon);
    Ok(())
}
