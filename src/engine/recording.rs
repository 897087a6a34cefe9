//! Records for the delivery log, made of what is known when an attempt has ended.

use jiff::Timestamp;

use super::Core;
use super::queue::{Completion, Lease, Stored};
use crate::domain::delivery_log::{Record, State, Timings};
use crate::domain::id::EventId;
use crate::domain::outcome::Outcome;

/// What was noted while an attempt was made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noted {
    pub(crate) headers: String,
    pub(crate) excerpt: Option<String>,
    pub(crate) timings: Timings,
}

/// How an attempt ended.
#[derive(Clone, Copy)]
pub(crate) struct After<'a> {
    pub(crate) began: Timestamp,
    pub(crate) outcome: &'a Outcome,
    pub(crate) completion: Completion,
}

/// Records an attempt.
pub(crate) fn attempted(core: &Core, lease: &Lease, number: u32, after: After<'_>, noted: Noted) {
    let Some(mut record) = bare(lease, after.began) else {
        return;
    };
    record.attempt = number;
    record.timings = noted.timings;
    record.headers = noted.headers;
    record.excerpt = noted.excerpt;
    match (after.outcome, after.completion) {
        (Outcome::Delivered { status }, _) => record.status = Some(*status),
        (Outcome::Failed(failure), completion) => {
            record.status = failure.status;
            record.reason = failure.reason.as_str().into();
            record.message.clone_from(&failure.message);
            record.state = State::Exhausted;
            if let Completion::RetryAt(at) | Completion::PutOffUntil(at) = completion {
                (record.state, record.next_attempt) = (State::Retrying, Some(at));
            }
        }
    }
    core.deliveries.record(record);
}

/// Records that a delivery was let go of without an attempt.
pub(crate) fn dropped(core: &Core, lease: &Lease, state: State, reason: &'static str, message: &str) {
    let Some(mut record) = bare(lease, core.clock.now()) else {
        return;
    };
    record.attempt = lease.attempts;
    record.state = state;
    record.reason = reason.into();
    message.clone_into(&mut record.message);
    core.deliveries.record(record);
}

/// What is known of a delivery; `None` when not even its id is.
fn bare(lease: &Lease, began: Timestamp) -> Option<Record> {
    let (event_id, event_type): (EventId, _) = match &lease.stored {
        Stored::Event(event) => (event.id.clone(), event.content.event_type.clone()),
        Stored::Corrupt { id } => (id.clone()?, "".into()),
    };
    Some(Record {
        lane: lease.lane.clone(),
        event_id,
        event_type,
        seq: lease.claim.seq,
        attempt: 0,
        began,
        state: State::Delivered,
        status: None,
        reason: "".into(),
        message: String::new(),
        timings: Timings::default(),
        headers: String::new(),
        excerpt: None,
        next_attempt: None,
        replayed: lease.replayed.is_some(),
    })
}
