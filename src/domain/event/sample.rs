//! Events, projects and destinations for tests, made the way real ones are.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use serde_json::Value;

use super::parse::parse;
use super::refusal::ParseError;
use super::{Draft, Event};
use crate::domain::delivery::Attempt;
use crate::domain::destination::Identity;
use crate::domain::id::{EventId, ObjectKey, Uid};
use crate::domain::project::{AccountId, ProjectFacts};

pub(crate) const ACCEPTED: &str = "2026-01-31T08:15:30.123Z";

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn headers(content_type: &'static str) -> HeaderMap {
    HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))])
}

/// A project named as in the reference examples, with an account.
pub(crate) fn project() -> ProjectFacts {
    ProjectFacts {
        uid: Uid::new("0b1f3a44-0000-4000-8000-000000000001"),
        id: "613b038f-e9bf-49ec-bc58-ba8d620754c7".into(),
        name: "Test Project Name".into(),
        environment: Some("production".into()),
        account_id: Some(AccountId::Number(42)),
        account_name: Some("Acme Inc".into()),
    }
}

/// The facts of a project whose manifest states nothing but its name.
pub(crate) fn bare_project(uid: &str, name: &str) -> ProjectFacts {
    ProjectFacts {
        uid: Uid::new(uid),
        id: uid.into(),
        name: name.into(),
        environment: None,
        account_id: None,
        account_name: None,
    }
}

pub(crate) fn drafts(body: &str) -> Result<Vec<Draft>, ParseError> {
    parse(body.as_bytes(), &headers("application/json"))
}

/// The event of a canonical body, accepted at [`ACCEPTED`] under the id `evt_1` unless it has one.
pub(crate) fn event_of(body: &str, project: ProjectFacts) -> Event {
    let draft = drafts(body).unwrap().remove(0);
    accepted(draft, project)
}

pub(crate) fn accepted(draft: Draft, project: ProjectFacts) -> Event {
    let mut content = draft.content;
    if draft.timestamp.is_none() {
        content.timestamp = at(ACCEPTED).as_millisecond();
    }
    let id = draft.id.unwrap_or_else(|| EventId::parse("evt_1").unwrap());
    Event::new(id, at(ACCEPTED), content, Arc::new(project))
}

pub(crate) fn event(body: &Value) -> Event {
    event_of(&body.to_string(), project())
}

pub(crate) fn identity() -> Identity {
    Identity {
        key: ObjectKey::new("shop", "ops"),
        uid: Uid::new("9d2c7b58-0000-4000-8000-000000000002"),
        generation: 1,
    }
}

pub(crate) fn attempt() -> Attempt {
    Attempt {
        number: 1,
        now: at("2026-01-31T08:15:31Z"),
    }
}
