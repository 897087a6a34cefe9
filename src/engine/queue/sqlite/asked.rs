//! What people ask of the queue: see [`asked`](crate::engine::queue::asked). Served by the writer, in bounded steps: how
//! many wait is bounded by the inbox, what one reads by number and by [`STEP_BYTES`]. A question whose asker has gone is
//! not looked into.
//!
//! An event's delivery is found without an index: it is due when it began to wait, which is when its event was accepted
//! or a replay made it, or stands in memory as moved.

mod handing;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};

pub(super) use self::handing::Handing;
use super::fault::StoreError;
use super::inbox::Reply;
use super::lanes::Key;
use super::rows::{FactsCache, IdColumn, nanoseconds, numbers, read_event};
use super::writer::{Phase, Writer};
use super::{notes, replays};
use crate::domain::event::Event;
use crate::domain::id::{EventId, Uid};
use crate::engine::queue::asked::{
    Cancelled, HandedOver, Open, REPLAY_STEP, Replay, Replayed, Retained, STEP_BYTES, Waiting, Waits,
};
use crate::engine::queue::{QueueError, Stored};

/// Events that one step looks at.
const LOOK: i64 = 4_096;
/// The same when each has to be read for its type.
const LOOK_INTO: i64 = 512;
/// How far around the place that its acceptance suggests an event is looked for.
const NEAR: [i64; 2] = [4_096, 65_536];
/// How far acceptance may be from the order of positions: publishers are stamped before they queue for the writer.
const DISORDER: i64 = 60 * 1_000_000_000;

/// A request.
#[derive(Debug)]
pub(super) enum Asked {
    /// Deliver again; the time is now, in milliseconds since 1970.
    Replay(Uid, Replay, i64, Reply<Replayed>),
    /// Make a delivery in another lane.
    HandOver(Handing, Reply<HandedOver>),
    /// Take out of the queue.
    Cancel(Uid, i64, Reply<Cancelled>),
    /// Find an event, perhaps at this position.
    Find(Uid, EventId, Option<i64>, Reply<Option<Retained>>),
    /// Tell what waits after this one.
    Waiting(Uid, Key, usize, Reply<Waits>),
}

impl Asked {
    /// Answers that it cannot be done.
    pub(super) fn refuse(self, error: QueueError) {
        match self {
            Self::Replay(.., reply) => drop(reply.send(Err(error))),
            Self::HandOver(_, reply) => drop(reply.send(Err(error))),
            Self::Cancel(.., reply) => drop(reply.send(Err(error))),
            Self::Find(.., reply) => drop(reply.send(Err(error))),
            Self::Waiting(.., reply) => drop(reply.send(Err(error))),
        }
    }
}

/// An event to be delivered again.
struct Candidate {
    seq: i64,
    project: i64,
    /// When it was accepted, in milliseconds since 1970.
    accepted: i64,
}

/// What a look at events found.
#[derive(Default)]
struct Found {
    candidates: Vec<Candidate>,
    gone: u64,
    elsewhere: u64,
    next: Option<u64>,
}

impl Writer {
    /// Does what was asked, and answers.
    pub(super) fn asked(&mut self, asked: Asked) {
        let failed = match asked {
            Asked::Replay(lane, what, now, reply) => {
                let done = self.replay(&lane, &what, now);
                answer(reply, done)
            }
            Asked::HandOver(handing, reply) => {
                let done = self.hand_over(&handing);
                answer(reply, done.map(Ok))
            }
            Asked::Cancel(lane, seq, reply) => {
                let done = self.cancel(&lane, seq);
                answer(reply, done.map(Ok))
            }
            Asked::Find(lane, id, hint, reply) if !reply.is_closed() => {
                let found = self.find(&lane, &id, hint);
                answer(reply, found.map(Ok))
            }
            Asked::Waiting(lane, after, limit, reply) if !reply.is_closed() => {
                let found = self.waiting(&lane, after, limit);
                answer(reply, found.map(Ok))
            }
            Asked::Find(..) | Asked::Waiting(..) => None,
        };
        if let Some(error) = failed {
            self.heal(error);
        }
    }

    fn connection(&self) -> Result<&Connection, StoreError> {
        match &self.phase {
            Phase::Up(store) => Ok(&store.connection),
            Phase::Down { error, .. } => Err(error.clone()),
        }
    }

    fn number(&self, lane: &Uid) -> Option<i64> {
        match &self.phase {
            Phase::Up(store) => store.lane_number(lane),
            Phase::Down { .. } => None,
        }
    }

    /// One step of a replay. The inner error refuses it for the project's quota.
    fn replay(
        &mut self,
        lane: &Uid,
        replay: &Replay,
        now: i64,
    ) -> Result<Result<Replayed, QueueError>, StoreError> {
        let Some(number) = self.number(lane) else {
            let gone = match replay {
                Replay::Events(events) => events.len() as u64,
                Replay::Accepted { .. } => 0,
            };
            return Ok(Ok(Replayed {
                gone,
                ..Replayed::default()
            }));
        };
        let found = look(self.connection()?, number, replay)?;
        let mut replayed = Replayed {
            gone: found.gone,
            elsewhere: found.elsewhere,
            next: found.next,
            ..Replayed::default()
        };
        let mut fresh = Vec::with_capacity(found.candidates.len());
        for candidate in found.candidates {
            if self
                .open(lane, number, candidate.seq, candidate.accepted)?
                .is_some()
            {
                replayed.open += 1;
            } else {
                fresh.push(candidate);
            }
        }
        if fresh.is_empty() {
            return Ok(Ok(replayed));
        }
        let limit = self.shared.settings.project_limit;
        let Phase::Up(store) = &mut self.phase else {
            return Ok(Ok(replayed));
        };
        // As a whole or not at all, like a call of a publisher.
        let mut wanted: HashMap<i64, u64> = HashMap::new();
        for candidate in &fresh {
            *wanted.entry(candidate.project).or_default() += 1;
        }
        for (project, wanted) in wanted {
            let pending = store.pending_of(project);
            if pending.saturating_add(wanted) > limit {
                return Ok(Err(QueueError::ProjectFull { pending, limit }));
            }
        }
        let key = |candidate: &Candidate| (now.max(candidate.accepted.saturating_add(1)), candidate.seq);
        store.transact(|writing| {
            for candidate in &fresh {
                let (at, seq) = key(candidate);
                writing.deliver_again(number, at, seq, candidate.project)?;
                replays::keep(writing.connection(), number, seq, at)?;
            }
            Ok(())
        })?;
        let mut lanes = self.shared.lanes.lock();
        for candidate in &fresh {
            lanes.add_cold(lane, number, key(candidate));
        }
        drop(lanes);
        replayed.made = fresh.len() as u64;
        let opened = fresh.iter().map(|candidate| candidate.seq);
        self.shared.replays.lock().opened(opened);
        Ok(Ok(replayed))
    }

    /// The key and the attempts of an event's delivery, while it waits or is under way.
    fn open(
        &self,
        lane: &Uid,
        number: i64,
        seq: i64,
        accepted: i64,
    ) -> Result<Option<(Key, u32)>, StoreError> {
        let connection = self.connection()?;
        let ages = ages(connection, number, seq, accepted)?;
        let moved = self.shared.lanes.lock().moved_to(lane, seq, &ages);
        for due in moved.into_iter().chain(ages) {
            let mut find = connection.prepare_cached(
                "SELECT max(attempts, 0) FROM deliveries WHERE lane = ?1 AND due = ?2 AND seq = ?3",
            )?;
            let attempts = find.query_row((number, due, seq), |row| row.get(0)).optional()?;
            if let Some(attempts) = attempts {
                return Ok(Some(((due, seq), attempts)));
            }
        }
        Ok(None)
    }

    fn cancel(&mut self, lane: &Uid, seq: i64) -> Result<Cancelled, StoreError> {
        let Some(number) = self.number(lane) else {
            return Ok(Cancelled::NotWaiting);
        };
        let Some((accepted, project)) = accepted_of(self.connection()?, seq)? else {
            return Ok(Cancelled::NotWaiting);
        };
        let Some((key, attempts)) = self.open(lane, number, seq, accepted)? else {
            return Ok(Cancelled::NotWaiting);
        };
        let ages = ages(self.connection()?, number, seq, accepted)?;
        if !self.shared.lanes.lock().begin_cancel(lane, key) {
            return Ok(Cancelled::InFlight);
        }
        let done = self.making_room(0, |store| {
            store.transact(|writing| {
                let there = writing.take_out(number, key, project)?;
                notes::forget(writing.connection(), number, seq)?;
                replays::forget(writing.connection(), number, seq)?;
                Ok(there)
            })
        });
        let gone = done.as_ref().is_ok_and(|(there, _)| *there);
        self.shared.lanes.lock().end_cancel(lane, key, &ages, gone);
        done.map(|_| Cancelled::Done { attempts })
    }

    fn find(&self, lane: &Uid, id: &EventId, hint: Option<i64>) -> Result<Option<Retained>, StoreError> {
        let Some(number) = self.number(lane) else {
            return Ok(None);
        };
        let connection = self.connection()?;
        let mut facts = FactsCache::default();
        let mut places: Vec<i64> = hint.into_iter().collect();
        places.extend(places_of(connection, id)?);
        for seq in places {
            let (Stored::Event(event), _) = read_event(connection, &mut facts, seq)? else {
                continue;
            };
            if event.id != *id {
                continue;
            }
            let open = self.open(lane, number, seq, event.accepted.as_millisecond())?;
            if open.is_none() && !went_to(connection, number, seq)? {
                continue;
            }
            let open = match open {
                Some((key, attempts)) => Some(self.describe(lane, number, key, attempts)?),
                None => None,
            };
            return Ok(Some(Retained {
                seq: seq.cast_unsigned(),
                event,
                open,
            }));
        }
        Ok(None)
    }

    fn describe(&self, lane: &Uid, number: i64, key: Key, attempts: u32) -> Result<Open, StoreError> {
        let replayed = replays::made(self.connection()?, number, key.1)?;
        Ok(Open {
            due: Timestamp::from_millisecond(key.0).unwrap_or_default(),
            attempts,
            in_flight: self.shared.lanes.lock().is_claimed(lane, key.1),
            replayed: replayed.is_some_and(|at| at <= key.0),
        })
    }

    fn waiting(&self, lane: &Uid, after: Key, limit: usize) -> Result<Waits, StoreError> {
        let mut waits = Waits::default();
        let Some(number) = self.number(lane) else {
            return Ok(waits);
        };
        let connection = self.connection()?;
        let mut facts = FactsCache::default();
        let mut statement = connection.prepare_cached(
            "SELECT due, seq, max(attempts, 0) FROM deliveries WHERE lane = ?1 AND (due, seq) > (?2, ?3)
             ORDER BY due, seq LIMIT ?4",
        )?;
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query((number, after.0, after.1, most))?;
        let mut read = 0;
        while let Some(row) = rows.next()? {
            let key: Key = (row.get(0)?, row.get(1)?);
            let (stored, bytes) = read_event(connection, &mut facts, key.1)?;
            read += bytes;
            waits.found.push(Waiting {
                place: (key.0, key.1.cast_unsigned()),
                stored,
                open: self.describe(lane, number, key, row.get(2)?)?,
            });
            waits.more = waits.found.len() >= limit || read >= STEP_BYTES;
            if waits.more {
                break;
            }
        }
        Ok(waits)
    }
}

fn answer<T>(reply: Reply<T>, done: Result<Result<T, QueueError>, StoreError>) -> Option<StoreError> {
    match done {
        Ok(answer) => {
            reply.send(answer).ok();
            None
        }
        Err(error) => {
            reply.send(Err(error.to_queue_error())).ok();
            Some(error)
        }
    }
}

/// When an event's delivery may have begun to wait, in milliseconds since 1970.
fn ages(connection: &Connection, lane: i64, seq: i64, accepted: i64) -> Result<Vec<i64>, rusqlite::Error> {
    let made = replays::made(connection, lane, seq)?;
    Ok(made.into_iter().chain([accepted]).collect())
}

/// When an event was accepted, in milliseconds since 1970, and its project's number.
fn accepted_of(connection: &Connection, seq: i64) -> Result<Option<(i64, i64)>, rusqlite::Error> {
    let mut find =
        connection.prepare_cached("SELECT accepted / 1000000, project FROM events WHERE seq = ?1")?;
    find.query_row([seq], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()
}

/// Whether the event at a position has that id. Positions are given again when an older file was put back.
fn is_at(connection: &Connection, seq: i64, id: &EventId) -> Result<bool, rusqlite::Error> {
    let mut find = connection.prepare_cached("SELECT 1 FROM events WHERE seq = ?1 AND id = ?2")?;
    find.exists((seq, IdColumn::new(id)))
}

/// Whether an event is stored that went to a lane.
fn went_to(connection: &Connection, lane: i64, seq: i64) -> Result<bool, rusqlite::Error> {
    let mut find = connection.prepare_cached("SELECT lanes FROM events WHERE seq = ?1")?;
    let lanes: Option<Vec<u8>> = find.query_row([seq], |row| row.get(0)).optional()?;
    Ok(lanes.is_some_and(|lanes| numbers(&lanes).contains(&lane)))
}

/// Positions at which an event of that id may be.
fn places_of(connection: &Connection, id: &EventId) -> Result<Vec<i64>, rusqlite::Error> {
    let column = IdColumn::new(id);
    let mut used = connection
        .prepare_cached("SELECT accepted FROM projects JOIN ids ON project = number WHERE id = ?1")?;
    let times: Vec<i64> = used
        .query_map([&column], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let mut places = Vec::new();
    for accepted in times {
        let Some(near) = position(connection, accepted)? else {
            continue;
        };
        for reach in NEAR {
            let mut look = connection.prepare_cached(
                "SELECT seq FROM events WHERE seq >= ?1 AND seq < ?2 AND accepted = ?3 AND id = ?4 LIMIT 1",
            )?;
            let (first, end) = (near.saturating_sub(reach), near.saturating_add(reach));
            let found = look
                .query_row((first, end, accepted, &column), |row| row.get(0))
                .optional()?;
            if let Some(seq) = found {
                places.push(seq);
                break;
            }
        }
    }
    Ok(places)
}

/// The position from which on events may have been accepted since then.
fn first_since(connection: &Connection, since: i64) -> Result<Option<i64>, rusqlite::Error> {
    position(connection, since.saturating_sub(DISORDER))
}

/// The position of the first event that was accepted at that time or after, as far as they are in order.
fn position(connection: &Connection, wanted: i64) -> Result<Option<i64>, rusqlite::Error> {
    let edge = |which: &str| {
        let sql = format!("SELECT {which}(seq) FROM events");
        connection
            .prepare_cached(&sql)?
            .query_row([], |row| row.get::<_, Option<i64>>(0))
    };
    let (Some(mut low), Some(last)) = (edge("min")?, edge("max")?) else {
        return Ok(None);
    };
    let mut high = last.saturating_add(1);
    let mut next =
        connection.prepare_cached("SELECT seq, accepted FROM events WHERE seq >= ?1 ORDER BY seq LIMIT 1")?;
    while low < high {
        let middle = low + (high - low) / 2;
        let found: Option<(i64, i64)> = next
            .query_row([middle], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        match found {
            Some((seq, accepted)) if accepted < wanted => low = seq.saturating_add(1),
            _ => high = middle,
        }
    }
    Ok(Some(low))
}

/// The events that a step of a replay is about.
fn look(connection: &Connection, lane: i64, replay: &Replay) -> Result<Found, StoreError> {
    match replay {
        Replay::Events(events) => look_at(connection, lane, events),
        Replay::Accepted {
            since,
            until,
            event_type,
            from,
        } => {
            let span = (nanoseconds(*since), nanoseconds(*until));
            look_through(connection, lane, span, event_type.as_deref(), *from)
        }
    }
}

fn look_at(connection: &Connection, lane: i64, events: &[(u64, EventId)]) -> Result<Found, StoreError> {
    let mut found = Found::default();
    for (position, id) in events.iter().take(REPLAY_STEP) {
        let seq = position.cast_signed();
        match accepted_of(connection, seq)? {
            Some((accepted, project)) if is_at(connection, seq, id)? => {
                if went_to(connection, lane, seq)? {
                    found.candidates.push(Candidate {
                        seq,
                        project,
                        accepted,
                    });
                } else {
                    found.elsewhere += 1;
                }
            }
            _ => found.gone += 1,
        }
    }
    // One event may be named twice.
    found.candidates.sort_unstable_by_key(|candidate| candidate.seq);
    found.candidates.dedup_by_key(|candidate| candidate.seq);
    found.next = (events.len() > REPLAY_STEP).then_some(REPLAY_STEP as u64);
    Ok(found)
}

fn look_through(
    connection: &Connection,
    lane: i64,
    (since, until): (i64, i64),
    event_type: Option<&str>,
    from: u64,
) -> Result<Found, StoreError> {
    let mut found = Found::default();
    let from = match from {
        0 => first_since(connection, since)?.unwrap_or(0),
        from => from.cast_signed(),
    };
    let mut facts = FactsCache::default();
    let mut statement = connection.prepare_cached(
        "SELECT seq, accepted, project, lanes FROM events WHERE seq >= ?1 ORDER BY seq LIMIT ?2",
    )?;
    let most = event_type.map_or(LOOK, |_| LOOK_INTO);
    let mut rows = statement.query((from, most))?;
    let (mut looked, mut read) = (0, 0);
    while let Some(row) = rows.next()? {
        looked += 1;
        let (seq, accepted): (i64, i64) = (row.get(0)?, row.get(1)?);
        if accepted > until.saturating_add(DISORDER) {
            return Ok(found);
        }
        let lanes: Vec<u8> = row.get(3)?;
        if accepted >= since && accepted < until && numbers(&lanes).contains(&lane) {
            let wanted = match event_type {
                None => true,
                Some(wanted) => {
                    let (stored, bytes) = read_event(connection, &mut facts, seq)?;
                    read += bytes;
                    matches!(&stored, Stored::Event(event) if is_of(event, wanted))
                }
            };
            if wanted {
                found.candidates.push(Candidate {
                    seq,
                    project: row.get(2)?,
                    accepted: accepted / 1_000_000,
                });
            }
        }
        if looked >= most || read >= STEP_BYTES || found.candidates.len() >= REPLAY_STEP {
            found.next = Some(seq.saturating_add(1).cast_unsigned());
            return Ok(found);
        }
    }
    Ok(found)
}

fn is_of(event: &Arc<Event>, wanted: &str) -> bool {
    &*event.content.event_type == wanted
}
