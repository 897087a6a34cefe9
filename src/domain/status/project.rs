//! The status of an `EventProject`.

use jiff::Timestamp;

use super::{Change, Conditions, Truth};
use crate::api::conditions::{READY, RECONCILING, STALLED, STORE_REPAIRED, reason};
use crate::api::v1alpha1::{EventProjectStatus, LocalReference};
use crate::domain::fault::Faults;

/// What is known of a project.
#[derive(Clone, Copy, Debug)]
pub struct ProjectSummary<'a> {
    /// Generation of the spec.
    pub generation: i64,
    /// Whether events can be published.
    pub state: ProjectState<'a>,
    /// Where to POST events.
    pub ingest_url: &'a str,
    /// `project.id` of its events.
    pub project_id: Option<&'a str>,
    /// Name of the Secret with the publish token.
    pub token_secret: &'a str,
    /// Names of the destinations that its notifications stand for.
    pub notifications: &'a [String],
    /// Token of the newest reconcile request.
    pub reconcile_request: Option<&'a str>,
    /// What was done to a damaged store, which may have cost events of any project.
    pub store_repaired: Option<&'a str>,
    /// The status as it is.
    pub previous: Option<&'a EventProjectStatus>,
    /// Now.
    pub now: Timestamp,
}

/// Whether events can be published to a project.
#[derive(Clone, Copy, Debug)]
pub enum ProjectState<'a> {
    /// They can.
    Open,
    /// Something is wrong with the spec or the token Secret.
    Faulty(&'a Faults),
    /// The object does not decode.
    Undecodable(&'a str),
    /// Something must happen first, and will.
    Waiting(&'a str),
}

/// Computes the status and how much it differs from the previous one.
#[must_use]
pub fn project(summary: &ProjectSummary<'_>) -> (EventProjectStatus, Change) {
    let previous = summary.previous.map_or(&[][..], |status| &status.conditions);
    let mut conditions = Conditions::new(previous, summary.generation, summary.now);
    match summary.state {
        ProjectState::Open => {
            conditions.set(READY, Truth::True, reason::SUCCEEDED, "events can be published");
        }
        ProjectState::Faulty(faults) => {
            let message = faults.to_string();
            conditions.set(READY, Truth::False, faults.reason(), message.as_str());
            conditions.set(STALLED, Truth::True, faults.reason(), message);
        }
        ProjectState::Undecodable(error) => {
            conditions.set(READY, Truth::False, reason::UNDECODABLE, error);
            conditions.set(STALLED, Truth::True, reason::UNDECODABLE, error);
        }
        ProjectState::Waiting(message) => {
            conditions.set(READY, Truth::False, reason::PROGRESSING, message);
            conditions.set(RECONCILING, Truth::True, reason::PROGRESSING, message);
        }
    }
    if let Some(repair) = summary.store_repaired {
        conditions.set(STORE_REPAIRED, Truth::True, reason::FILE_DAMAGED, repair);
    }
    let next = EventProjectStatus {
        observed_generation: Some(summary.generation),
        conditions: conditions.next,
        ingest_url: Some(summary.ingest_url.to_owned()),
        project_id: summary.project_id.map(ToOwned::to_owned),
        token_secret_ref: Some(LocalReference {
            name: summary.token_secret.to_owned(),
        }),
        notifications: summary.notifications.to_vec(),
        last_handled_reconcile_at: summary.reconcile_request.map(ToOwned::to_owned),
    };
    let change = if summary.previous == Some(&next) {
        Change::Nothing
    } else {
        Change::Configuration
    };
    (next, change)
}
