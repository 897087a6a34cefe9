//! One attempt for several events: a request with all of them, and one outcome for each.
//!
//! What does not go into the request ends alone, as it would without batches: what the filter no longer lets through,
//! what is too old, damaged or cannot be rendered. What there is no room for is given back. Dead letters of others go
//! alone, each in an attempt of its own, because headers say whose they are: the lane leaves them out.
//!
//! For the receiver's health it is one attempt. Each event keeps its own number of attempts, its age and its place in the
//! delivery log, and is given up alone.

use std::sync::Arc;

use jiff::Timestamp;
use rand::RngExt as _;
use tokio::time::Instant;

use super::{Conclusion, judge, pass_on, report, settle, transmit};
use crate::domain::delivery::batch::{self, Place};
use crate::domain::destination::{Destination, Target};
use crate::domain::event::Event;
use crate::domain::health::{Health, Signal};
use crate::domain::outcome::Outcome;
use crate::domain::retry::{self, RetryDecision};
use crate::engine::Core;
use crate::engine::budget::Share;
use crate::engine::dead_letters;
use crate::engine::filters;
use crate::engine::lane::Lane;
use crate::engine::operations::{self, Told};
use crate::engine::queue::{Completion, Lease, Settlement, Stored};
use crate::engine::recording::{self, After, Noted};

/// Makes one attempt. Ends early, without an outcome, when the engine aborts.
pub(crate) async fn make(
    core: Arc<Core>,
    lane: Arc<Lane>,
    destination: Arc<Destination>,
    leases: Vec<Lease>,
    shares: (Share, Share),
) {
    tokio::select! {
        () = run(&core, &lane, &destination, leases) => {}
        () = core.aborting.cancelled() => {}
    }
    drop(shares);
}

/// An event that goes into the request.
struct Member {
    lease: Lease,
    event: Arc<Event>,
    number: u32,
}

/// What is leased, by what becomes of it.
#[derive(Default)]
struct Sorted {
    members: Vec<Member>,
    /// End without a request.
    alone: Vec<Lease>,
}

async fn run(core: &Arc<Core>, lane: &Lane, destination: &Destination, leases: Vec<Lease>) {
    let Target::Webhook(webhook) = &destination.target else {
        return;
    };
    let Sorted { members, alone } = sort(core, destination, leases).await;
    for lease in alone {
        super::run(core, lane, destination, lease, None).await;
    }
    if members.is_empty() {
        return;
    }
    let events: Vec<_> = members
        .iter()
        .map(|member| (&*member.event, member.number))
        .collect();
    // The log tells the time that the receiver is told.
    let began = core.clock.now();
    let (request, places) = batch::prepare(webhook, &destination.identity, &events, began);
    let mut taken = Vec::with_capacity(members.len());
    for (member, place) in members.into_iter().zip(places) {
        match place {
            Place::Taken => taken.push(member),
            // Dropping the lease gives it back.
            Place::Left => {}
            // Fails in the same way alone.
            Place::Faulty(_) => super::run(core, lane, destination, member.lease, None).await,
        }
    }
    let Some(request) = request else { return };
    let started = Instant::now();
    let mut noted = Noted::default();
    let outcome = transmit(core, lane, destination, webhook, &request, &mut noted).await;
    let sent = Sent {
        began,
        started,
        outcome,
        noted,
    };
    end(core, lane, destination, taken, sent).await;
}

/// Tells apart what goes into the request.
async fn sort(core: &Core, destination: &Destination, leases: Vec<Lease>) -> Sorted {
    let now = core.clock.now();
    let mut sorted = Sorted::default();
    for lease in leases {
        let Stored::Event(event) = &lease.stored else {
            sorted.alone.push(lease);
            continue;
        };
        let since = lease.replayed.unwrap_or(event.accepted);
        if retry::is_too_old(&destination.retry, since, now)
            || filters::refuses(core, destination, &lease.stored).await
        {
            sorted.alone.push(lease);
            continue;
        }
        sorted.members.push(Member {
            event: Arc::clone(event),
            number: lease.attempts.saturating_add(1),
            lease,
        });
    }
    sorted
}

/// A request that was made.
struct Sent {
    began: Timestamp,
    started: Instant,
    outcome: Outcome,
    noted: Noted,
}

async fn end(core: &Arc<Core>, lane: &Lane, destination: &Destination, members: Vec<Member>, sent: Sent) {
    let Sent {
        began,
        started,
        outcome,
        mut noted,
    } = sent;
    let decided = decide(core, destination, &members, &outcome);
    let mut ends = Vec::with_capacity(members.len());
    let mut patience = dead_letters::PATIENCE;
    for (member, completion) in members.iter().zip(decided) {
        let ended = (&outcome, completion);
        ends.push(pass_on(core, lane, destination, &member.lease, ended, None, &mut patience).await);
    }
    let common = conclude(core, lane, destination, &members, &outcome, &ends, began);
    let mut signal = common.signal;
    let mut health = common.health;
    let mut settlements = Vec::with_capacity(members.len());
    noted.timings.total = started.elapsed();
    for (member, (completion, storable)) in members.into_iter().zip(ends) {
        let result = Conclusion {
            health: None,
            signal: signal.take(),
            exhausted: matches!(outcome, Outcome::Failed(_)) && completion == Completion::Finished,
            told: None,
        };
        let Member { lease, number, .. } = member;
        let elapsed = started.elapsed();
        report(
            core,
            lane,
            destination,
            &lease,
            number,
            &outcome,
            &result,
            elapsed,
        );
        if !storable {
            continue;
        }
        if core.deliveries.is_on() {
            let after = After {
                began,
                outcome: &outcome,
                completion,
            };
            recording::attempted(core, &lease, number, after, noted.clone());
        }
        settlements.push(Settlement {
            lease,
            completion,
            health: health.take(),
            note: None,
        });
    }
    for told in common.told {
        operations::tell(core, &destination.identity, Box::new(told)).await;
    }
    let completions: Vec<_> = settlements.iter().map(|one| one.completion).collect();
    if settle(core, lane, settlements).await {
        for completion in completions {
            lane.comes_again(completion);
        }
    }
}

/// What the request leads to beside the deliveries.
struct Common {
    health: Option<Box<Health>>,
    signal: Option<Signal>,
    told: Vec<Told>,
}

/// What becomes of each delivery by the destination's schedule.
fn decide(core: &Core, destination: &Destination, members: &[Member], outcome: &Outcome) -> Vec<Completion> {
    let now = core.clock.now();
    // One for all: what failed together is due together.
    let jitter = rand::rng().random();
    let decide = |member: &Member| {
        let Outcome::Failed(failure) = outcome else {
            return Completion::Finished;
        };
        let since = member.lease.replayed.unwrap_or(member.event.accepted);
        match retry::decide(&destination.retry, failure, member.number, since, now, jitter) {
            RetryDecision::RetryAt(at) => Completion::RetryAt(at),
            RetryDecision::Exhausted => Completion::Finished,
        }
    };
    members.iter().map(decide).collect()
}

fn conclude(
    core: &Core,
    lane: &Lane,
    destination: &Destination,
    members: &[Member],
    outcome: &Outcome,
    ends: &[(Completion, bool)],
    began: Timestamp,
) -> Common {
    let now = core.clock.now();
    let failed = matches!(outcome, Outcome::Failed(_));
    let is_given_up = |(completion, _): &(Completion, bool)| failed && *completion == Completion::Finished;
    let (signal, health, told) = lane.with(|state| {
        let (is_current, signal) = judge(state, destination, outcome, began, now);
        if !failed {
            state
                .health
                .record_further(members.len().saturating_sub(1) as u64);
        }
        let mut told = Vec::new();
        for (index, (member, end)) in members.iter().zip(ends).enumerate() {
            let exhausted = is_given_up(end);
            if exhausted {
                state.health.record_exhausted();
            }
            if exhausted || index == 0 {
                let note = operations::note(
                    state,
                    destination,
                    &member.lease.stored,
                    outcome,
                    is_current && index == 0,
                    exhausted,
                    now,
                );
                told.extend(note.map(|told| *told));
            }
        }
        state.active = true;
        let first_success = !failed && state.health.delivered == members.len() as u64;
        let lasting = failed || signal.is_some() || first_success || !told.is_empty();
        (signal, lasting.then(|| Box::new(state.health.clone())), told)
    });
    let is_news = signal.is_some() || !failed || ends.iter().any(is_given_up);
    if health.is_some() && is_news {
        core.changes.push(lane.uid.clone());
    }
    Common { health, signal, told }
}
