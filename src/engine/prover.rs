//! [`Prover`]: asks receivers whether they want the events, beside the queue.
//!
//! What came of it is kept for each destination until its proof is asked for in another way (another URL, manner,
//! generation, or a request to reconcile) or the destination goes. A failed try is repeated after a wait that doubles;
//! whoever looks at the destination then starts it. At most [`MAX_QUESTIONS`] are asked at once, of which a namespace has
//! [`MAX_OF_NAMESPACE`]; further ones wait in the order in which they came. An answer takes [`MAX_ANSWER`] at most.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Engine;
use crate::domain::destination::Identity;
use crate::domain::id::Uid;
use crate::domain::ownership::{self, Question, Unproved};

/// Most questions at once.
pub const MAX_QUESTIONS: usize = 16;
/// Most of them to receivers of one namespace, so that those that hang do not keep others from being asked.
pub const MAX_OF_NAMESPACE: usize = 4;
/// Longest wait for an answer, whatever the destination allows its events.
pub const MAX_ANSWER: Duration = Duration::from_secs(5);

/// Asks receivers whether they want the events.
pub trait Prover: Send + Sync {
    /// How the proof stands; asks when it is time to. `about` differs when anything differs that a proof depends on. The
    /// end of asking is told as a change of the destination, see [`super::view::DeliveryView::changes`].
    fn prove(&self, identity: &Identity, about: &str, asking: &mut dyn FnMut() -> Asking) -> Stand;
}

/// A question, and how long the answer may take.
pub struct Asking {
    /// The question.
    pub question: Question,
    /// Deadline of the answer; [`MAX_ANSWER`] at most is granted.
    pub timeout: Duration,
}

/// How a proof stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stand {
    /// It was given, for so many requests in a minute.
    Proved(Option<u32>),
    /// It is being asked for; `Some`: again.
    Asking(Option<Unproved>),
    /// It was not given; it is time to ask again after that wait.
    Unproved(Unproved, Duration),
}

/// The proofs asked for: at most one for each destination.
pub(crate) struct Proofs {
    turns: Semaphore,
    /// The turns of each namespace, as long as somebody has or wants one.
    of_namespaces: Mutex<HashMap<Box<str>, Weak<Semaphore>>>,
    slots: Mutex<HashMap<Uid, Slot>>,
}

struct Slot {
    about: Box<str>,
    tries: u32,
    state: State,
}

enum State {
    Asking(Option<Unproved>),
    Proved(Option<u32>),
    Unproved(Unproved, Instant),
}

impl Default for Proofs {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(MAX_QUESTIONS),
            of_namespaces: Mutex::default(),
            slots: Mutex::default(),
        }
    }
}

impl Proofs {
    pub(crate) fn forget(&self, uid: &Uid) {
        self.slots.lock().remove(uid);
    }

    #[cfg(test)]
    pub(crate) fn asked(&self) -> usize {
        self.slots.lock().len()
    }

    /// The turns of a namespace.
    fn of_namespace(&self, namespace: &str) -> Arc<Semaphore> {
        let mut turns = self.of_namespaces.lock();
        if let Some(known) = turns.get(namespace).and_then(Weak::upgrade) {
            return known;
        }
        turns.retain(|_, turns| turns.strong_count() > 0);
        let fresh = Arc::new(Semaphore::new(MAX_OF_NAMESPACE));
        turns.insert(namespace.into(), Arc::downgrade(&fresh));
        fresh
    }

    /// Takes note of an answer, unless the proof depends on something else by now, or the destination is gone.
    fn answered(&self, uid: &Uid, about: &str, answer: Result<Option<u32>, Unproved>) {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(uid).filter(|slot| *slot.about == *about) {
            slot.state = match answer {
                Ok(rate) => State::Proved(rate),
                Err(unproved) => {
                    let wait = ownership::wait(slot.tries, &unproved);
                    State::Unproved(unproved, Instant::now() + wait)
                }
            };
        }
    }

    /// How the proof stands; `None`: it is to be asked for, and from now on that is under way.
    fn stand(&self, uid: &Uid, about: &str) -> Result<Stand, Option<Unproved>> {
        let mut slots = self.slots.lock();
        let Some(slot) = slots.get_mut(uid).filter(|slot| *slot.about == *about) else {
            let slot = Slot {
                about: about.into(),
                tries: 1,
                state: State::Asking(None),
            };
            slots.insert(uid.clone(), slot);
            return Err(None);
        };
        match &slot.state {
            State::Proved(rate) => Ok(Stand::Proved(*rate)),
            State::Asking(last) => Ok(Stand::Asking(last.clone())),
            State::Unproved(unproved, due) => {
                let unproved = unproved.clone();
                let left = due.saturating_duration_since(Instant::now());
                if !left.is_zero() {
                    return Ok(Stand::Unproved(unproved, left));
                }
                slot.tries = slot.tries.saturating_add(1);
                slot.state = State::Asking(Some(unproved.clone()));
                Err(Some(unproved))
            }
        }
    }
}

impl Prover for Engine {
    fn prove(&self, identity: &Identity, about: &str, asking: &mut dyn FnMut() -> Asking) -> Stand {
        let core = self.core();
        if core.stopping.is_cancelled() {
            return Stand::Asking(None);
        }
        let last = match core.proofs.stand(&identity.uid, about) {
            Ok(stand) => return stand,
            Err(last) => last,
        };
        let Asking { question, timeout } = asking();
        let (core, identity, about) = (Arc::clone(core), identity.clone(), about.to_owned());
        let tasks = core.tasks.clone();
        tasks.spawn(async move {
            let asked = async {
                let of_namespace = core.proofs.of_namespace(&identity.key.namespace);
                // Neither is ever closed. The namespace's first: who waits for that keeps no other from being asked.
                let _own = of_namespace.acquire().await.ok();
                let _turn = core.proofs.turns.acquire().await.ok();
                let answer = core
                    .transport
                    .send(&question.request, timeout.min(MAX_ANSWER))
                    .await;
                question.judge(answer, core.clock.now())
            };
            let answer = tokio::select! {
                answer = asked => answer,
                () = core.stopping.cancelled() => return,
            };
            let (outcome, detail) = match &answer {
                Ok(_) => ("Proved", None),
                Err(unproved) => (unproved.reason(), Some(&*unproved.message)),
            };
            tracing::info!(
                destination.namespace = %identity.key.namespace,
                destination.name = %identity.key.name,
                outcome,
                detail,
                "ownership proof asked for"
            );
            core.metrics.proved(outcome);
            core.proofs.answered(&identity.uid, &about, answer);
            core.changes.push(identity.uid);
        });
        Stand::Asking(last)
    }
}
