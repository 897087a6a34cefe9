//! Operational events: what Postrider itself tells of a destination's health, as events that other destinations get.
//!
//! Owns the prefix of their types, which nobody else may publish; when one is due ([`notice`]); and what it says
//! ([`event`]). A row of failures is told when it passes a threshold of the auto-disable rule, once for each, then the
//! end of it. The rule has two parts, a count and a span; it is fulfilled as far as the lesser of the two.
//!
//! An attempt to deliver an operational event never causes one, except that the destination works again, which can
//! only follow on another: so two destinations that watch each other do not keep each other busy. Who is told, and
//! storing the event, is left to the engine.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::destination::Identity;
use super::event::{Content, Event};
use super::health::{DisablePolicy, DisableReason, Health};
use super::id::EventId;
use super::project::ProjectFacts;
use super::retry;

/// What the types of all operational events begin with.
pub const PREFIX: &str = "postrider.";
/// How far the auto-disable rule must be fulfilled for the next event of failing, in percent. The last is told only of
/// a destination that is never disabled.
pub const THRESHOLDS: [u8; 4] = [50, 70, 90, 100];
/// Least time between two events about given-up deliveries of one destination.
pub const EXHAUSTED_INTERVAL: Duration = Duration::from_secs(60);

/// Whether a type is one of Postrider's own events.
#[must_use]
pub fn is_operational(event_type: &str) -> bool {
    event_type.starts_with(PREFIX)
}

/// Something to tell of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It passed a threshold.
    Failing {
        /// The threshold.
        percent: u8,
    },
    /// It was disabled.
    Disabled(DisableReason),
    /// It works again.
    Recovered {
        /// When its failures were first told.
        since: Timestamp,
    },
    /// Deliveries were given up.
    Exhausted {
        /// How many since this was last told.
        count: u64,
    },
}

impl Notice {
    /// The type of the event that tells it.
    #[must_use]
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Failing { .. } => "postrider.destination.failing",
            Self::Disabled(_) => "postrider.destination.disabled",
            Self::Recovered { .. } => "postrider.destination.recovered",
            Self::Exhausted { .. } => "postrider.destination.exhausted",
        }
    }
}

/// What an attempt was, for what is told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The receiver took what it could.
    pub works: bool,
    /// The failure counts against the receiver.
    pub counts: bool,
    /// What was sent is an operational event itself.
    pub is_operational: bool,
}

/// Decides what is to be told after an attempt was recorded in `health`, and takes note of it there. Asked for every
/// attempt, so that what is not told of one is of a later one.
pub fn notice(health: &mut Health, policy: &DisablePolicy, ended: Ended, now: Timestamp) -> Option<Notice> {
    if ended.works {
        let is_well = !health.is_failing() && health.disabled.is_none();
        let since = is_well.then(|| health.alarmed.take()).flatten()?;
        return Some(Notice::Recovered { since });
    }
    if ended.is_operational || !ended.counts {
        return None;
    }
    let (reached, notice) = if let Some(disabled) = &health.disabled {
        (100, Notice::Disabled(disabled.reason))
    } else {
        let percent = reached(progress(policy, health, now))?;
        (percent, Notice::Failing { percent })
    };
    if health.announced >= reached {
        return None;
    }
    health.announced = reached;
    health.alarmed.get_or_insert(now);
    Some(notice)
}

/// How far the auto-disable rule is fulfilled, in percent: its count or its span, whichever is less. The numbers count
/// also while the rule is switched off.
#[must_use]
pub fn progress(policy: &DisablePolicy, health: &Health, now: Timestamp) -> u8 {
    let part = |done: u128, all: u128| done.saturating_mul(100).checked_div(all).unwrap_or(100).min(100);
    let count = part(
        health.consecutive_failures.into(),
        policy.consecutive_failures.into(),
    );
    let lasted = health
        .failing_since
        .and_then(|since| Duration::try_from(now.duration_since(since)).ok())
        .unwrap_or_default();
    let span = part(lasted.as_millis(), policy.minimum_duration.as_millis());
    u8::try_from(count.min(span)).unwrap_or(100)
}

/// The highest threshold that is reached.
fn reached(progress: u8) -> Option<u8> {
    THRESHOLDS
        .into_iter()
        .rev()
        .find(|threshold| *threshold <= progress)
}

/// Deliveries given up that were not told yet.
#[must_use]
pub const fn untold(health: &Health) -> u64 {
    match health.exhausted_told {
        Some(told) => health.exhausted.saturating_sub(told),
        None => 0,
    }
}

/// Takes note of a delivery that was given up and counted; an operational event that was given up is told of nobody.
pub const fn given_up(health: &mut Health, is_operational: bool) {
    let told = match health.exhausted_told {
        Some(told) => told,
        None => health.exhausted.saturating_sub(1),
    };
    health.exhausted_told = Some(if is_operational {
        told.saturating_add(1)
    } else {
        told
    });
}

/// What is to be told of given-up deliveries, and takes note that it is.
pub const fn exhausted(health: &mut Health) -> Option<Notice> {
    let count = untold(health);
    health.exhausted_told = Some(health.exhausted);
    if count > 0 {
        Some(Notice::Exhausted { count })
    } else {
        None
    }
}

/// The event that tells a notice. The same notice makes the same id, so one that is told again after a crash is a
/// duplicate.
#[must_use]
pub fn event(
    notice: Notice,
    about: &Identity,
    health: &Health,
    project: Arc<ProjectFacts>,
    now: Timestamp,
) -> Event {
    let failing_since = health.failing_since.unwrap_or(now);
    let mut data = Map::new();
    data.insert("destination".into(), json!(&*about.key.name));
    data.insert("destinationId".into(), json!(about.uid.as_str()));
    data.insert("namespace".into(), json!(&*about.key.namespace));
    let mark = match notice {
        Notice::Failing { percent } => {
            data.insert("percent".into(), json!(percent));
            format!("failing-{percent}-{failing_since}")
        }
        Notice::Disabled(reason) => {
            data.insert("disabledReason".into(), json!(reason.as_str()));
            format!("disabled-{failing_since}")
        }
        Notice::Recovered { since } => {
            data.insert("since".into(), json!(second(since)));
            format!("recovered-{since}")
        }
        Notice::Exhausted { count } => {
            data.insert("count".into(), json!(count));
            data.insert("total".into(), json!(health.exhausted));
            format!("exhausted-{}", health.exhausted)
        }
    };
    if let (Some(last), false) = (&health.last_failure, matches!(notice, Notice::Recovered { .. })) {
        data.insert("reason".into(), json!(last.reason.as_str()));
        if let Some(status) = last.status {
            data.insert("statusCode".into(), json!(status));
        }
        data.insert("error".into(), json!(last.message));
    }
    if matches!(notice, Notice::Failing { .. } | Notice::Disabled(_)) {
        data.insert("failures".into(), json!(health.consecutive_failures));
        data.insert("failingSince".into(), json!(second(failing_since)));
    }
    let space = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, about.uid.as_str().as_bytes());
    let id = EventId::from_uuid(uuid::Uuid::new_v5(&space, mark.as_bytes()));
    let content = Content {
        event_type: notice.event_type().into(),
        timestamp: now.as_millisecond(),
        message: None,
        user: None,
        integration: None,
        workflow: None,
        sync: None,
        error: None,
        data: raw(data),
        cloud_event: None,
    };
    Event::new(id, now, content, project)
}

/// Numbers and texts always serialise.
fn raw(data: Map<String, Value>) -> Box<RawValue> {
    RawValue::from_string(Value::Object(data).to_string()).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

/// A time without its fractions.
fn second(time: Timestamp) -> String {
    retry::after(
        Timestamp::UNIX_EPOCH,
        Duration::from_secs(time.as_second().unsigned_abs()),
    )
    .to_string()
}

#[cfg(test)]
mod tests;
