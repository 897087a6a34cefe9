//! The status of each kind as a function of spec, faults, health, previous status and now.
//!
//! `Ready` says that the configuration is in force, `Delivering` that events arrive. `Reconciling` and `Stalled` are
//! abnormal-true: they are there only while they are true, as kstatus wants it. A condition keeps its
//! `lastTransitionTime` until its status flips, so an unchanged world computes an unchanged status.
//!
//! How often a status may be written is decided here, too ([`pace`]), and so is what people are told ([`notices`]).
//! Writing is the adapter's business.

mod destination;
mod project;

use std::time::Duration;

use jiff::Timestamp;

pub use self::destination::{
    Configuration, Delivery, DestinationFacts, change, destination, unanswered_rotation, unanswered_test,
};
pub use self::project::{ProjectState, ProjectSummary, project};
use crate::api::conditions::{Condition, DELIVERING, READY, STALLED, STORE_REPAIRED, Time, reason};

/// Most characters of a condition's message.
const MAX_MESSAGE: usize = 4096;
/// Least time between two writes of one status of which only `Delivering` flipped: a receiver that fails every other
/// request must not become a stream of writes.
pub const FLIP_INTERVAL: Duration = Duration::from_secs(1);

/// Truth of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Collects the conditions of one status.
struct Conditions<'a> {
    previous: &'a [Condition],
    generation: i64,
    now: Timestamp,
    next: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    const fn new(previous: &'a [Condition], generation: i64, now: Timestamp) -> Self {
        Self {
            previous,
            generation,
            now,
            next: Vec::new(),
        }
    }

    fn set(&mut self, kind: &str, status: Truth, reason: &str, message: impl Into<String>) {
        let mut message = message.into();
        if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
            message.truncate(end);
        }
        let unflipped = find(self.previous, kind).filter(|previous| previous.status == status.as_str());
        self.next.push(Condition {
            type_: kind.to_owned(),
            status: status.as_str().to_owned(),
            reason: reason.to_owned(),
            message,
            observed_generation: Some(self.generation),
            last_transition_time: unflipped.map_or_else(
                || seconds(self.now),
                |previous| previous.last_transition_time.clone(),
            ),
        });
    }

    /// Takes a condition over as it was, if it was there.
    fn keep(&mut self, kind: &str) -> bool {
        let kept = find(self.previous, kind).cloned();
        let found = kept.is_some();
        self.next.extend(kept);
        found
    }
}

fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Kubernetes' times have whole seconds; a finer one would differ from what is read back.
#[must_use]
pub fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

/// How much two statuses differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// Not at all.
    Nothing,
    /// In numbers, times and texts that move with every delivery.
    Counters,
    /// Whether events arrive.
    Delivering,
    /// What is configured, whether it is in force, or what was asked for.
    Configuration,
}

/// What to do about a computed status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// There is nothing to write.
    Nothing,
    /// Write it.
    Now,
    /// Not yet: look again after this.
    After(Duration),
}

/// Decides when to write a status that was last written `since` ago (`None`: not by this process). Counters are
/// written at most once per `counters`.
#[must_use]
pub fn pace(change: Change, since: Option<Duration>, counters: Duration) -> Pace {
    let spacing = match change {
        Change::Nothing => return Pace::Nothing,
        Change::Configuration => Duration::ZERO,
        Change::Delivering => FLIP_INTERVAL.min(counters),
        Change::Counters => counters,
    };
    match since.map(|since| spacing.saturating_sub(since)) {
        None | Some(Duration::ZERO) => Pace::Now,
        Some(rest) => Pace::After(rest),
    }
}

/// Something that people should hear of, once, as a Kubernetes Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// A person may have to act.
    pub warning: bool,
    /// The word, as in the condition.
    pub reason: String,
    /// The text, as in the condition.
    pub message: String,
}

fn resumed() -> Notice {
    Notice {
        warning: false,
        reason: reason::RESUMED.to_owned(),
        message: "events are sent again".to_owned(),
    }
}

/// What happened between two statuses of one object: at most one notice for its configuration, one for its
/// deliveries and one for the store.
#[must_use]
pub fn notices(previous: &[Condition], next: &[Condition]) -> Vec<Notice> {
    let configuration = moved(previous, next, READY).map(|ready| {
        // While a person must act, the reason is `Stalled`'s.
        let told = find(next, STALLED).unwrap_or(ready);
        notice(told, ready.status != Truth::True.as_str())
    });
    let before = find(previous, DELIVERING).filter(|before| before.status == Truth::False.as_str());
    let delivery =
        moved(previous, next, DELIVERING).and_then(|delivering| match (delivering.status.as_str(), before) {
            ("True", Some(before)) if is_failure(&before.reason) => Some(Notice {
                reason: reason::RECOVERED.to_owned(),
                ..notice(delivering, false)
            }),
            // No receiver had failed. That the configuration is in force again is told already.
            ("True", Some(_)) => configuration.is_none().then(resumed),
            ("Unknown", Some(before)) if before.reason == reason::SUSPENDED => {
                configuration.is_none().then(resumed)
            }
            ("True", None) => Some(notice(delivering, false)),
            ("False", _) if delivering.reason == reason::SUSPENDED => Some(notice(delivering, false)),
            ("False", _) => Some(notice(delivering, true)),
            _ => None,
        });
    // A destination that is not in force delivers nothing: one notice is enough.
    let delivery = delivery.filter(|delivery| {
        configuration
            .as_ref()
            .is_none_or(|told| told.reason != delivery.reason)
    });
    let repair = moved(previous, next, STORE_REPAIRED).map(|repaired| notice(repaired, true));
    configuration.into_iter().chain(delivery).chain(repair).collect()
}

fn notice(condition: &Condition, warning: bool) -> Notice {
    Notice {
        warning,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
    }
}

/// The condition, when its status or its reason differs; for `Delivering`, another failure's reason is no move.
fn moved<'a>(previous: &[Condition], next: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    let condition = find(next, kind)?;
    let same = find(previous, kind).is_some_and(|before| {
        before.status == condition.status && essence(&before.reason) == essence(&condition.reason)
    });
    (!same).then_some(condition)
}

/// Whether a reason of `Delivering` says that attempts failed, and not only that none is made.
fn is_failure(reason: &str) -> bool {
    reason == reason::AUTO_DISABLED || reason.parse::<crate::domain::outcome::FailureReason>().is_ok()
}

/// All reasons of failed attempts count as one: a receiver may answer each attempt differently.
fn essence(reason: &str) -> &str {
    let failed = reason.parse::<crate::domain::outcome::FailureReason>();
    // `Gone` is also the reason of a disable.
    if failed.is_ok_and(|failed| failed != crate::domain::outcome::FailureReason::Gone) {
        ""
    } else {
        reason
    }
}

#[cfg(test)]
mod tests;
