//! Dead letters at work: what a destination gives up is made a delivery of another one's lane.
//!
//! The delivery in the other lane is durable before the one that was given up leaves its own: a crash between the two
//! makes the last attempt again, and perhaps a second dead letter; nothing is lost. When the other destination does not
//! exist, the delivery stays where it is and is tried again later. When the store takes nothing, the attempt waits for it
//! with its place, as one waits whose result cannot be stored.
//!
//! An event has one delivery at a time in a lane. When the event waits in the other lane already, because the other
//! destination asked for it or a third one gave it up, that delivery stands for both, which is counted: it is a dead
//! letter from then on. While it is under way there, nobody knows whether it will have been delivered or dropped: that is
//! waited for, [`PATIENCE`] long, and then the delivery stays where it is and is tried again later. The wait is bounded
//! because two destinations may wait for each other.
//!
//! Not sent on are dead letters themselves, operational events, which would tell of destinations for ever, and events
//! that are damaged.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::Core;
use super::lane::Lane;
use super::queue::asked::HandedOver;
use super::queue::{Lease, QueueError, Stored};
use crate::domain::dead_letter::{DeadLetter, Note};
use crate::domain::destination::{Destination, Target};
use crate::domain::id::ObjectKey;
use crate::domain::operation;
use crate::domain::outcome::Failure;
use crate::domain::retry;

/// How long a delivery stays whose dead letters have nowhere to go now.
const MISSING_PAUSE: Duration = Duration::from_secs(60);
/// How long to wait for a store that took nothing, and between two looks at what is under way.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// How often it is asked whether what is under way in the other lane has come to an end, once a second.
pub(crate) const PATIENCE: u32 = 10;

/// What became of a delivery that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It may leave its lane.
    On,
    /// It stays, and is tried again then.
    Kept(Timestamp),
    /// The store was closed meanwhile: it stays.
    Unstored,
}

/// What is noted with a delivery. Only replays and dead letters, and mails that were tried before, are looked up.
/// `None` when the store cannot be read: then the lane is paused.
pub(crate) async fn note(core: &Core, lane: &Lane, destination: &Destination, lease: &Lease) -> Option<Note> {
    let is_mail = matches!(destination.target, Target::Email(_));
    if lease.replayed.is_none() && (lease.attempts == 0 || !is_mail) {
        return Some(Note::default());
    }
    match core.queue.note(lease).await {
        Ok(note) => Some(note.map_or_else(Note::default, |note| Note::parse(&note))),
        Err(error) => {
            tracing::warn!(
                reason = error.reason(), %error, destination.uid = %lane.uid,
                "what is noted with a delivery could not be read; the attempt will be made later"
            );
            lane.pause(core.clock.now());
            None
        }
    }
}

/// Sends on what a destination gave up, when it names another for that. `patience` is counted down while something is
/// under way there.
pub(crate) async fn pass_on(
    core: &Arc<Core>,
    lane: &Lane,
    destination: &Destination,
    lease: &Lease,
    failure: &Failure,
    letter: Option<&DeadLetter>,
    patience: &mut u32,
) -> Passed {
    let (Some(name), Stored::Event(event)) = (&destination.policy.dead_letter, &lease.stored) else {
        return Passed::On;
    };
    if letter.is_some() || operation::is_operational(&event.content.event_type) {
        core.metrics.dead_letter("ended");
        return Passed::On;
    }
    let letter = DeadLetter {
        from: (&*destination.identity.key.name).into(),
        reason: failure.reason.as_str().into(),
    };
    let note = Note {
        letter: Some(letter),
        ..Note::default()
    };
    let note = note.to_bytes().unwrap_or_default();
    let key = ObjectKey::new(&destination.identity.key.namespace, name);
    loop {
        let now = core.clock.now();
        let Some(target) = core.directory.destination_named(&key) else {
            core.metrics.dead_letter("kept");
            tracing::warn!(
                destination.namespace = %key.namespace, destination.uid = %lane.uid, dead_letter.name = %name,
                "a delivery is not given up, because the destination of dead letters does not exist"
            );
            return Passed::Kept(retry::after(now, MISSING_PAUSE));
        };
        let to = &target.identity.uid;
        match core.queue.hand_over(lease, to, note.clone(), now).await {
            Ok(HandedOver::InFlight) if *patience > 0 => *patience -= 1,
            Ok(HandedOver::InFlight) => {
                core.metrics.dead_letter("kept");
                tracing::info!(
                    destination.namespace = %key.namespace, destination.uid = %lane.uid, dead_letter.name = %name,
                    event.id = event.id.as_str(),
                    "a delivery is not given up yet, because the event is under way at the destination of dead letters"
                );
                return Passed::Kept(retry::after(now, MISSING_PAUSE));
            }
            Ok(handed) => {
                if handed == HandedOver::Joined
                    && let Some(lane) = core.running_lane(to)
                {
                    // It waits behind others now.
                    lane.cancelled(lease.claim.seq);
                }
                core.metrics.dead_letter(match handed {
                    HandedOver::Made => "sent",
                    HandedOver::Joined | HandedOver::Open => "joined",
                    HandedOver::Gone | HandedOver::InFlight => "ended",
                });
                core.wake(to);
                tracing::info!(
                    destination.namespace = %key.namespace, destination.uid = %lane.uid, dead_letter.name = %name,
                    event.id = event.id.as_str(), reason = failure.reason.as_str(), outcome = ?handed,
                    "delivery sent on as a dead letter"
                );
                return Passed::On;
            }
            Err(QueueError::Closed) => return Passed::Unstored,
            Err(error) => core
                .complaints
                .warn("dead letters were not stored", &error, &lane.uid),
        }
        // Like a result that cannot be stored: the receiver is not asked again meanwhile.
        tokio::time::sleep(STORE_PAUSE).await;
    }
}
