//! Operational events at work: what `domain` decides to tell of a destination is stored for those who ask for it.
//!
//! An event is stored before the outcome that causes it, under an id that the same outcome would give it again: a
//! crash between the two tells it once. While the store takes nothing, events wait in memory, at most
//! [`MAX_WAITING`]; then the oldest is dropped and counted, and a crash loses those that wait. Given-up deliveries are
//! summed up, and the sum is in the stored health.
//!
//! The event is in the name of the project whose event was under way.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::Core;
use super::filters::{self, Accepted};
use super::lane::State;
use super::publish::{self, PublishError};
use super::queue::{QueueError, Stored};
use crate::domain::destination::{Destination, Identity};
use crate::domain::event::Event;
use crate::domain::health::Health;
use crate::domain::operation::{self, EXHAUSTED_INTERVAL, Ended, Notice};
use crate::domain::outcome::Outcome;
use crate::domain::project::ProjectFacts;
use crate::domain::retry;

/// Most events that wait for the store.
const MAX_WAITING: usize = 1024;

/// What was lately told of a destination.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    /// No more is told of given-up deliveries before then.
    quiet_until: Option<Timestamp>,
    /// Project of the last delivery that was given up.
    project: Option<Arc<ProjectFacts>>,
}

/// What others are to be told.
#[derive(Debug)]
pub(crate) struct Told {
    notices: Vec<Notice>,
    health: Health,
    project: Option<Arc<ProjectFacts>>,
}

/// Events that the store did not take yet.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    waiting: Mutex<VecDeque<(Identity, Notice, Arc<Event>)>>,
}

/// Notes the end of an attempt, which stands in the health already; answers with what is to be told.
pub(crate) fn note(
    state: &mut State,
    destination: &Destination,
    stored: &Stored,
    outcome: &Outcome,
    is_current: bool,
    exhausted: bool,
    now: Timestamp,
) -> Option<Box<Told>> {
    // The usual end costs a few comparisons.
    if matches!(outcome, Outcome::Delivered { .. }) && state.health.alarmed.is_none() {
        return None;
    }
    let (is_operational, project) = match stored {
        Stored::Event(event) => (
            operation::is_operational(&event.content.event_type),
            Some(Arc::clone(&event.project)),
        ),
        Stored::Corrupt { .. } => (false, None),
    };
    let ended = match outcome {
        Outcome::Delivered { .. } => Ended {
            works: true,
            counts: false,
            is_operational,
        },
        Outcome::Failed(failure) => Ended {
            works: failure.reason.shows_that_receiver_works(),
            counts: failure.reason.counts_against_receiver(),
            is_operational,
        },
    };
    let mut notices = Vec::new();
    if is_current {
        notices.extend(operation::notice(
            &mut state.health,
            &destination.disable,
            ended,
            now,
        ));
    }
    if exhausted {
        operation::given_up(&mut state.health, is_operational);
        state.telling.project.clone_from(&project);
        notices.extend(state.telling.exhausted(&mut state.health, now));
    }
    if notices.is_empty() {
        return None;
    }
    let health = state.health.clone();
    Some(Box::new(Told {
        notices,
        health,
        project,
    }))
}

impl Telling {
    /// What is to be told of given-up deliveries now.
    fn exhausted(&mut self, health: &mut Health, now: Timestamp) -> Option<Notice> {
        if operation::untold(health) == 0 || self.quiet_until.is_some_and(|until| now < until) {
            return None;
        }
        self.quiet_until = Some(retry::after(now, EXHAUSTED_INTERVAL));
        operation::exhausted(health)
    }
}

/// Stores events for those who ask for them.
pub(crate) async fn tell(core: &Arc<Core>, about: &Identity, told: Box<Told>) {
    let subscription = || Some(core.directory.destination(&about.uid)?.subscription.clone());
    let project = told.project.or_else(|| {
        let project = core
            .directory
            .project_of(&about.key.namespace, &subscription()?)?;
        Some(Arc::clone(&project.facts))
    });
    let Some(project) = project else { return };
    for notice in told.notices {
        let now = core.clock.now();
        let event = operation::event(notice, about, &told.health, Arc::clone(&project), now);
        store(core, about, notice, Arc::new(event)).await;
    }
}

async fn store(core: &Arc<Core>, about: &Identity, notice: Notice, event: Arc<Event>) {
    let route = core.directory.watchers(about, notice.event_type());
    if route.lanes.is_empty() {
        return;
    }
    let accepted = Accepted {
        event: Arc::clone(&event),
        route: Arc::new(route),
    };
    let Some(mut events) = filters::narrow(core, vec![accepted]).await else {
        return;
    };
    events.retain(|event| !event.lanes.is_empty());
    if events.is_empty() {
        return;
    }
    match publish::store(Arc::clone(core), events).await {
        Ok(_) => core.metrics.told(notice.event_type(), "stored"),
        Err(PublishError::Queue(QueueError::Closed)) => {}
        Err(error) => {
            if let PublishError::Queue(error) = &error {
                let what = "events about destinations' health were not stored; they are kept and tried again";
                core.complaints.warn(what, error, &about.uid);
            }
            core.operations.keep(core, (about.clone(), notice, event));
        }
    }
}

impl Operations {
    fn keep(&self, core: &Core, one: (Identity, Notice, Arc<Event>)) {
        let mut waiting = self.waiting.lock();
        waiting.push_back(one);
        let dropped = (waiting.len() > MAX_WAITING)
            .then(|| waiting.pop_front())
            .flatten();
        drop(waiting);
        if let Some((_, notice, _)) = dropped {
            core.metrics.told(notice.event_type(), "dropped");
        }
    }
}

/// Tells what waits for the store, and sums of given-up deliveries that are due.
pub(crate) async fn sweep(core: &Arc<Core>) {
    let waiting = std::mem::take(&mut *core.operations.waiting.lock());
    for (about, notice, event) in waiting {
        store(core, &about, notice, event).await;
    }
    let now = core.clock.now();
    for lane in core.running_lanes() {
        let told = lane.with(|state| {
            let notice = state.telling.exhausted(&mut state.health, now)?;
            state.active = true;
            Some(Told {
                notices: vec![notice],
                health: state.health.clone(),
                project: state.telling.project.clone(),
            })
        });
        if let Some(told) = told
            && let Some(entry) = core.directory.destination(&lane.uid)
        {
            tell(core, &entry.identity, Box::new(told)).await;
        }
    }
}
