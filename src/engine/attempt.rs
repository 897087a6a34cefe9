//! One attempt: prepare, send, decide, settle. The way of a delivery from lease to durable outcome.

pub(super) mod batch;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::RngExt as _;
use tokio::time::Instant;

use super::Core;
use super::budget::Share;
use super::complaint::Sum;
use super::dead_letters::{self, Passed};
use super::filters;
use super::lane::{Lane, State as LaneState, Turn};
use super::operations::{self, Told};
use super::queue::{Completion, Lease, Settlement, Stored};
use super::recording::{self, After, Noted};
use crate::domain::dead_letter::{DeadLetter, Note};
use crate::domain::delivery::{self, Attempt, WebhookRequest};
use crate::domain::delivery_log::{self, RequestNotes, State};
use crate::domain::destination::{Destination, Target, Webhook};
use crate::domain::email::settled::Settled;
use crate::domain::email::{self, Email, settled};
use crate::domain::event::Event;
use crate::domain::health::{Health, Signal};
use crate::domain::outcome::{Failure, FailureReason, Outcome, Reply};
use crate::domain::policy::replies;
use crate::domain::retry::{self, RetryDecision};

/// Why a delivery is dropped that its destination's filter does not let through.
const FILTERED: &str = "Filtered";

/// Makes one attempt. Ends early, without an outcome, when the engine aborts.
pub(crate) async fn make(
    core: Arc<Core>,
    lane: Arc<Lane>,
    destination: Arc<Destination>,
    lease: Lease,
    shares: (Share, Share),
    mut turn: Option<Turn>,
) {
    tokio::select! {
        () = run(&core, &lane, &destination, lease, turn.as_mut()) => {}
        () = core.aborting.cancelled() => {}
    }
    drop(shares);
    drop(turn);
}

async fn run(
    core: &Arc<Core>,
    lane: &Lane,
    destination: &Destination,
    lease: Lease,
    turn: Option<&mut Turn>,
) {
    let Some(mut before) = dead_letters::note(core, lane, destination, &lease).await else {
        return;
    };
    if before.letter.is_none() && filters::refuses(core, destination, &lease.stored).await {
        return drop_filtered(core, lane, destination, lease, turn).await;
    }
    // The log tells the time that the receiver is told.
    let (began, started) = (core.clock.now(), Instant::now());
    let number = lease.attempts.saturating_add(1);
    let attempt = Attempt { number, now: began };
    let mut noted = Noted::default();
    let outcome = carry_out(
        core,
        lane,
        destination,
        &lease.stored,
        lease.replayed,
        attempt,
        (&mut before, &mut noted),
    )
    .await;
    let completion = decide(core, destination, &lease, &outcome);
    let letter = before.letter.as_ref();
    let ended = (&outcome, completion);
    let mut patience = dead_letters::PATIENCE;
    let (completion, storable) = pass_on(core, lane, destination, &lease, ended, letter, &mut patience).await;
    let mut result = conclude(core, lane, destination, &lease, &outcome, completion, began);
    report(
        core,
        lane,
        destination,
        &lease,
        number,
        &outcome,
        &result,
        started.elapsed(),
    );
    if let Some(told) = result.told.take() {
        operations::tell(core, &destination.identity, told).await;
    }
    if !storable {
        return;
    }
    if core.deliveries.is_on() {
        noted.timings.total = started.elapsed();
        let after = After {
            began,
            outcome: &outcome,
            completion,
        };
        recording::attempted(core, &lease, number, after, noted);
    }
    let is_mail = matches!(destination.target, Target::Email(_));
    let settlement = Settlement {
        lease,
        completion,
        health: result.health,
        note: if is_mail { before.to_bytes() } else { None },
    };
    if settle(core, lane, vec![settlement]).await
        && let Some(turn) = turn
    {
        turn.stored(completion);
    }
}

/// Sends the event, unless that is of no use. Of a mail, notes who has it.
async fn carry_out(
    core: &Core,
    lane: &Lane,
    destination: &Destination,
    stored: &Stored,
    replayed: Option<Timestamp>,
    attempt: Attempt,
    (before, noted): (&mut Note, &mut Noted),
) -> Outcome {
    let Stored::Event(event) = stored else {
        return Outcome::Failed(Failure::new(
            FailureReason::EventCorrupt,
            "the stored event is damaged and cannot be sent",
        ));
    };
    let since = replayed.unwrap_or(event.accepted);
    if retry::is_too_old(&destination.retry, since, attempt.now) {
        return Outcome::Failed(Failure::new(
            FailureReason::TooOld,
            "the event is over the destination's maxAge",
        ));
    }
    let Note { letter, settled } = before;
    let attempt = (attempt, letter.as_ref());
    match &destination.target {
        Target::Webhook(webhook) => send(core, lane, destination, webhook, event, attempt, noted).await,
        Target::Email(email) => mail(core, destination, email, event, attempt, (settled, noted)).await,
    }
}

/// Sends on what is given up: what becomes of the delivery then, and whether that can be stored.
async fn pass_on(
    core: &Arc<Core>,
    lane: &Lane,
    destination: &Destination,
    lease: &Lease,
    (outcome, completion): (&Outcome, Completion),
    letter: Option<&DeadLetter>,
    patience: &mut u32,
) -> (Completion, bool) {
    let (Outcome::Failed(failure), Completion::Finished) = (outcome, completion) else {
        return (completion, true);
    };
    match dead_letters::pass_on(core, lane, destination, lease, failure, letter, patience).await {
        Passed::On => (completion, true),
        Passed::Kept(until) => (Completion::PutOffUntil(until), true),
        Passed::Unstored => (completion, false),
    }
}

/// Stores what became of deliveries; whether it is. If not, the lane is paused.
async fn settle(core: &Core, lane: &Lane, settlements: Vec<Settlement>) -> bool {
    let settled = core.queue.settle(settlements).await;
    if let Err(error) = &settled {
        let (what, now) = ("attempts' outcomes were not stored", Instant::now());
        if let Some(Sum { lanes, times }) = core.complaints.note(what, error.reason(), &lane.uid, now) {
            tracing::error!(
                reason = error.reason(), %error, destination.uid = %lane.uid, lanes, times,
                "attempts' outcomes were not stored; they will be made again; said once a minute for all lanes"
            );
        }
        lane.pause(core.clock.now());
    }
    settled.is_ok()
}

/// Lets go of a delivery that the destination's filter, as it is now, does not let through.
async fn drop_filtered(
    core: &Core,
    lane: &Lane,
    destination: &Destination,
    lease: Lease,
    turn: Option<&mut Turn>,
) {
    if let Stored::Event(event) = &lease.stored {
        tracing::info!(
            destination.namespace = %destination.identity.key.namespace,
            destination.name = %destination.identity.key.name,
            event.id = event.id.as_str(),
            event.r#type = &*event.content.event_type,
            outcome = "dropped",
            reason = FILTERED,
            "delivery dropped"
        );
    }
    if core.deliveries.is_on() {
        recording::dropped(
            core,
            &lease,
            State::Dropped,
            FILTERED,
            "the destination's filter does not match",
        );
    }
    let settlement = Settlement {
        lease,
        completion: Completion::Finished,
        health: None,
        note: None,
    };
    match core.queue.settle(vec![settlement]).await {
        Ok(()) => {
            core.metrics.dropped(1, FILTERED);
            if let Some(turn) = turn {
                turn.stored(Completion::Finished);
            }
        }
        Err(error) => {
            tracing::error!(
                reason = error.reason(), %error, destination.uid = %lane.uid,
                "a delivery was not dropped; it will be looked at again"
            );
            lane.pause(core.clock.now());
        }
    }
}

async fn mail(
    core: &Core,
    destination: &Destination,
    email: &Email,
    event: &Event,
    (attempt, letter): (Attempt, Option<&DeadLetter>),
    (settled, noted): (&mut Settled, &mut Noted),
) -> Outcome {
    let mut mail = match email::prepare(email, &destination.identity, event, attempt, settled) {
        Ok(mail) => mail,
        Err(error) => return Outcome::Failed(Failure::new(FailureReason::TemplateFault, error.to_string())),
    };
    if let Some(letter) = letter {
        letter.mark_mail(&mut mail);
    }
    let fates = if mail.letters.is_empty() {
        Vec::new()
    } else {
        let (fates, timings) = core.mailer.mail_timed(&mail, destination.timeout).await;
        noted.timings = timings;
        if core.deliveries.is_on() {
            noted.headers = delivery_log::mail_headers(&mail);
        }
        fates
    };
    settled::conclude(&email.recipients(), mail.recipients().zip(fates), settled)
}

async fn send(
    core: &Core,
    lane: &Lane,
    destination: &Destination,
    webhook: &Webhook,
    event: &Event,
    (attempt, letter): (Attempt, Option<&DeadLetter>),
    noted: &mut Noted,
) -> Outcome {
    let mut request = match delivery::prepare(webhook, &destination.identity, event, attempt) {
        Ok(request) => request,
        Err(error) => return Outcome::Failed(Failure::new(FailureReason::TemplateFault, error.to_string())),
    };
    if let Some(letter) = letter {
        letter.mark(&mut request.headers);
    }
    transmit(core, lane, destination, webhook, &request, noted).await
}

async fn transmit(
    core: &Core,
    lane: &Lane,
    destination: &Destination,
    webhook: &Webhook,
    request: &WebhookRequest,
    noted: &mut Noted,
) -> Outcome {
    if !core.deliveries.is_on() {
        let sent = core.transport.send(request, destination.timeout).await;
        return read(core, destination, webhook, sent);
    }
    let (sent, timings) = core.transport.send_timed(request, destination.timeout).await;
    let written = RequestNotes::of(request, webhook.payload.body_secret());
    noted.timings = timings;
    noted.excerpt = sent
        .as_ref()
        .ok()
        .and_then(|reply| written.excerpt(&reply.excerpt));
    noted.headers = lane.with(|state| {
        let headers = written.headers(state.headers.as_ref());
        Arc::clone(state.headers.insert(headers))
    });
    read(core, destination, webhook, sent)
}

fn read(core: &Core, destination: &Destination, webhook: &Webhook, sent: Result<Reply, Failure>) -> Outcome {
    match sent {
        Ok(reply) => replies::read(
            destination.policy.success.as_ref(),
            &reply,
            webhook.payload.reading(),
            core.clock.now(),
        ),
        Err(failure) => Outcome::Failed(failure),
    }
}

/// What an attempt leads to.
struct Conclusion {
    /// Set when it must survive a crash.
    health: Option<Box<Health>>,
    signal: Option<Signal>,
    exhausted: bool,
    /// What others are to be told.
    told: Option<Box<Told>>,
}

/// What becomes of the delivery by the destination's schedule.
fn decide(core: &Core, destination: &Destination, lease: &Lease, outcome: &Outcome) -> Completion {
    let (Outcome::Failed(failure), Stored::Event(event)) = (outcome, &lease.stored) else {
        return Completion::Finished;
    };
    let decision = retry::decide(
        &destination.retry,
        failure,
        lease.attempts.saturating_add(1),
        lease.replayed.unwrap_or(event.accepted),
        core.clock.now(),
        rand::rng().random(),
    );
    match decision {
        RetryDecision::RetryAt(at) => Completion::RetryAt(at),
        RetryDecision::Exhausted => Completion::Finished,
    }
}

fn conclude(
    core: &Core,
    lane: &Lane,
    destination: &Destination,
    lease: &Lease,
    outcome: &Outcome,
    completion: Completion,
    began: Timestamp,
) -> Conclusion {
    let now = core.clock.now();
    let failed = matches!(outcome, Outcome::Failed(_));
    let exhausted = failed && completion == Completion::Finished;
    let (signal, health, told) = lane.with(|state| {
        let (is_current, signal) = judge(state, destination, outcome, began, now);
        if exhausted {
            state.health.record_exhausted();
        }
        let told = operations::note(
            state,
            destination,
            &lease.stored,
            outcome,
            is_current,
            exhausted,
            now,
        );
        state.active = true;
        let first_success = state.health.delivered == 1 && !failed;
        let lasting = failed || signal.is_some() || first_success;
        let lasting = lasting || told.is_some();
        (signal, lasting.then(|| Box::new(state.health.clone())), told)
    });
    if health.is_some() && (signal.is_some() || exhausted || !failed) {
        core.changes.push(lane.uid.clone());
    }
    Conclusion {
        health,
        signal,
        exhausted,
        told,
    }
}

/// What one request says of the receiver; whether it was made with the present configuration, and what people should
/// hear of.
fn judge(
    state: &mut LaneState,
    destination: &Destination,
    outcome: &Outcome,
    began: Timestamp,
    now: Timestamp,
) -> (bool, Option<Signal>) {
    let is_current = destination.identity.generation == state.health.generation;
    let signal = if is_current {
        state.health.record(&destination.disable, outcome, began, now)
    } else {
        state.health.record_outdated(outcome);
        None
    };
    match outcome {
        _ if !is_current => {}
        Outcome::Delivered { .. } => state.window.grow(),
        Outcome::Failed(failure) if failure.reason.shows_that_receiver_works() => state.window.grow(),
        Outcome::Failed(failure) if failure.reason.counts_against_receiver() => {
            state.window.shrink(destination.max_in_flight);
        }
        Outcome::Failed(_) => {}
    }
    (is_current, signal)
}

/// Logs and counts the attempt when it ends, whether or not its result can be stored: it was made.
#[expect(
    clippy::too_many_arguments,
    reason = "one wide line needs everything that is known"
)]
fn report(
    core: &Core,
    lane: &Lane,
    destination: &Destination,
    lease: &Lease,
    number: u32,
    outcome: &Outcome,
    result: &Conclusion,
    elapsed: Duration,
) {
    let (word, reason, status, message) = match outcome {
        Outcome::Delivered { status } => ("delivered", "", Some(*status), ""),
        Outcome::Failed(failure) => {
            let word = if result.exhausted { "exhausted" } else { "failed" };
            (
                word,
                failure.reason.as_str(),
                failure.status,
                failure.message.as_str(),
            )
        }
    };
    let unsent = matches!(outcome, Outcome::Failed(failure) if failure.reason.precedes_request());
    core.metrics.attempted(word, reason, (!unsent).then_some(elapsed));
    let (event_id, event_type) = match &lease.stored {
        Stored::Event(event) => (event.id.as_str(), &*event.content.event_type),
        Stored::Corrupt { id } => (id.as_ref().map_or("", |id| id.as_str()), ""),
    };
    tracing::info!(
        destination.namespace = &*destination.identity.key.namespace,
        destination.name = &*destination.identity.key.name,
        event.id = event_id,
        event.r#type = event_type,
        attempt.number = number,
        outcome = word,
        reason,
        status,
        duration_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
        detail = (!message.is_empty()).then_some(message),
        "delivery attempted"
    );
    if let Some(signal) = result.signal {
        core.metrics.signalled(signal);
        tracing::info!(
            destination.namespace = %destination.identity.key.namespace,
            destination.name = %destination.identity.key.name,
            destination.uid = %lane.uid,
            signal = ?signal,
            "delivery health changed"
        );
    }
}
