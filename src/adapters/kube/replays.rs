//! Replays that the annotation `postrider.dev/replay` asks for: announced in the status, then started.

use super::context::Shared;
use super::observed::Observed;
use super::status;
use crate::api::v1alpha1::{EventDestination, EventDestinationStatus};
use crate::domain::id::Uid;
use crate::domain::replay_request::{ReplayOutcome, ReplayRequest, ReplayResult};
use crate::domain::test_send::echo;
use crate::engine::replayer::Stand;

/// What the status is to tell of a replay and does not tell yet.
pub(super) fn result(
    shared: &Shared,
    object: &Observed<EventDestination>,
    uid: &Uid,
    previous: Option<&EventDestinationStatus>,
) -> Option<ReplayResult> {
    let now = shared.context.clock.now();
    let replayer = &shared.context.replayer;
    let handled = previous.and_then(|status| status.last_handled_replay.as_deref());
    if let Some(asked) = object.replay_request()
        && handled != Some(echo(asked))
    {
        return Some(match ReplayRequest::parse(asked) {
            Ok(request) => {
                replayer.announce(uid, &request);
                ReplayResult::running(asked)
            }
            Err(fault) => ReplayResult::refused(asked, fault, now),
        });
    }
    let last = running(previous)?;
    match replayer.stand(uid, last) {
        Stand::Ended(result) => Some(result),
        Stand::Unknown => Some(ReplayResult::interrupted(last, now)),
        Stand::Announced | Stand::Running => None,
    }
}

/// Starts a replay that the status tells of.
pub(super) fn start(shared: &Shared, object: &Observed<EventDestination>, uid: &Uid) {
    let status = status::current(shared, object, uid);
    if let Some(asked) = running(status.as_deref()) {
        shared.context.replayer.start(uid, asked);
    }
}

/// The replay that runs, as the status tells it.
fn running(status: Option<&EventDestinationStatus>) -> Option<&str> {
    let last = status?.last_replay.as_ref()?;
    (last.outcome == ReplayOutcome::Running.as_str()).then_some(&*last.requested)
}
