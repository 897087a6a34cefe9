//! [`Tester`]: sends one example event on request, beside the queue.
//!
//! A test works while its destination is suspended or disabled, is not counted in its health or its metrics of
//! attempts, and takes none of the places of deliveries: it has [`MAX_TESTS`] of its own. The last result of each
//! destination is kept until the status that tells it was written and another test is asked for, or the destination
//! goes. A process that ends in between makes the test again: the event has the same id.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{Core, Engine};
use crate::domain::delivery::{self, PrepareError};
use crate::domain::delivery_log::RequestNotes;
use crate::domain::destination::{Destination, Target, Webhook};
use crate::domain::email::settled::{self, Settled};
use crate::domain::email::{self, Email};
use crate::domain::event::Event;
use crate::domain::id::Uid;
use crate::domain::outcome::{Failure, FailureReason, Outcome};
use crate::domain::policy::replies;
use crate::domain::test_send::{self, NO_PROJECT, TestRequest, TestResult};

/// Most tests at once; further ones wait.
pub const MAX_TESTS: usize = 8;

/// Makes test sends.
pub trait Tester: Send + Sync {
    /// The result of that test; starts it when it was not. `None` while it runs: its end is told as a change of the
    /// destination, see [`super::view::DeliveryView::changes`].
    fn test(&self, destination: &Arc<Destination>, request: &TestRequest) -> Option<TestResult>;
}

/// The tests under way and the last results: at most one for each destination.
pub(crate) struct Tests {
    turns: Semaphore,
    slots: Mutex<HashMap<Uid, Slot>>,
}

struct Slot {
    asked: Arc<str>,
    result: Option<TestResult>,
}

impl Default for Tests {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(MAX_TESTS),
            slots: Mutex::default(),
        }
    }
}

impl Tests {
    pub(crate) fn forget(&self, uid: &Uid) {
        self.slots.lock().remove(uid);
    }

    /// Takes note of a result, unless another test was asked for meanwhile, or the destination is gone.
    fn ended(&self, uid: &Uid, result: TestResult) {
        if let Some(slot) = self.slots.lock().get_mut(uid)
            && slot.asked == result.asked
        {
            slot.result = Some(result);
        }
    }
}

impl Tester for Engine {
    fn test(&self, destination: &Arc<Destination>, request: &TestRequest) -> Option<TestResult> {
        let core = self.core();
        let uid = &destination.identity.uid;
        if core.stopping.is_cancelled() {
            return None;
        }
        {
            let mut slots = core.tests.slots.lock();
            if let Some(slot) = slots.get(uid)
                && slot.asked == request.asked
            {
                return slot.result.clone();
            }
            let slot = Slot {
                asked: Arc::clone(&request.asked),
                result: None,
            };
            slots.insert(uid.clone(), slot);
        }
        let (core, destination, request) = (Arc::clone(core), Arc::clone(destination), request.clone());
        let uid = uid.clone();
        let tasks = core.tasks.clone();
        tasks.spawn(async move {
            let result = tokio::select! {
                result = make(&core, &destination, &request) => result,
                () = core.stopping.cancelled() => return,
            };
            tracing::info!(
                destination.namespace = %destination.identity.key.namespace,
                destination.name = %destination.identity.key.name,
                outcome = result.outcome.as_str(),
                reason = result.reason,
                status = result.status,
                detail = result.message,
                "test sent"
            );
            core.metrics.tested(result.outcome);
            core.tests.ended(&uid, result);
            core.changes.push(uid);
        });
        None
    }
}

async fn make(core: &Core, destination: &Destination, request: &TestRequest) -> TestResult {
    // Never closed.
    let _turn = core.tests.turns.acquire().await.ok();
    let now = core.clock.now();
    let identity = &destination.identity;
    let Some(project) = core
        .directory
        .project_of(&identity.key.namespace, &destination.subscription)
    else {
        let message = "there is no EventProject to take the event from; create one in this namespace";
        return TestResult::not_sent(&request.asked, NO_PROJECT, message, now);
    };
    let event = match test_send::event(request, &destination.subscription, &project, now) {
        Ok(event) => event,
        Err(message) => {
            return TestResult::not_sent(&request.asked, test_send::INVALID_REQUEST, message, now);
        }
    };
    let began = tokio::time::Instant::now();
    let (outcome, excerpt) = match &destination.target {
        Target::Webhook(webhook) => send(core, destination, webhook, &event).await,
        Target::Email(email) => (mail(core, destination, email, &event).await, None),
    };
    let event_type = &event.content.event_type;
    TestResult::of(
        request,
        event_type,
        &outcome,
        began.elapsed(),
        excerpt,
        core.clock.now(),
    )
}

fn unprepared(error: &PrepareError) -> Outcome {
    Outcome::Failed(Failure::new(FailureReason::TemplateFault, error.to_string()))
}

async fn send(
    core: &Core,
    destination: &Destination,
    webhook: &Webhook,
    event: &Event,
) -> (Outcome, Option<String>) {
    let now = core.clock.now();
    let request = match delivery::prepare_test(webhook, &destination.identity, event, now) {
        Ok(request) => request,
        Err(error) => return (unprepared(&error), None),
    };
    let written = RequestNotes::of(&request, webhook.payload.body_secret());
    match core.transport.send(&request, destination.timeout).await {
        Ok(reply) => (
            replies::read(
                destination.policy.success.as_ref(),
                &reply,
                webhook.payload.reading(),
                core.clock.now(),
            ),
            written.excerpt(&reply.excerpt),
        ),
        Err(failure) => (Outcome::Failed(failure), None),
    }
}

async fn mail(core: &Core, destination: &Destination, target: &Email, event: &Event) -> Outcome {
    let now = core.clock.now();
    let mail = match email::prepare_test(target, &destination.identity, event, now) {
        Ok(mail) => mail,
        Err(error) => return unprepared(&error),
    };
    let fates = core.mailer.mail(&mail, destination.timeout).await;
    let tried = mail.recipients().zip(fates);
    settled::conclude(&target.recipients(), tried, &mut Settled::default())
}
