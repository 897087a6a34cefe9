//! The form in which deliveries are told.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::domain::dead_letter;
use crate::domain::delivery_log::{Record, State, Timings, headers};
use crate::domain::id::{EventId, Uid, delivery_id};
use crate::engine::history::{Shown, event_of};
use crate::engine::queue::asked::{Open, Waiting};

/// A delivery, or one of its attempts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Item {
    id: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    state: &'static str,
    attempt: u32,
    replay: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_letter_from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<Milliseconds>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_headers: Option<Vec<Header>>,
}

#[derive(Debug, Serialize)]
struct Header {
    name: String,
    value: String,
}

/// Durations of an attempt's parts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Milliseconds {
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte: Option<f64>,
    total: f64,
}

impl Milliseconds {
    fn of(timings: &Timings) -> Self {
        let milliseconds = |part: Duration| part.as_secs_f64() * 1000.0;
        Self {
            dns: timings.dns.map(milliseconds),
            connect: timings.connect.map(milliseconds),
            tls: timings.tls.map(milliseconds),
            first_byte: timings.first_byte.map(milliseconds),
            total: milliseconds(timings.total),
        }
    }
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// The destination that gave the event up, by the request's headers.
fn dead_letter_from(record: &Record) -> Option<String> {
    // Only deliveries that were not made with their event can be dead letters.
    let read = record.replayed.then(|| headers(record, None))?;
    let from = read
        .into_iter()
        .find(|(name, _)| *name == dead_letter::FROM.as_str());
    from.map(|(_, value)| value)
}

/// An attempt.
pub(super) fn item(record: &Record) -> Item {
    let sent = matches!(
        record.state,
        State::Delivered | State::Retrying | State::Exhausted
    );
    Item {
        id: record.event_id.as_str().to_owned(),
        event_type: some(&record.event_type),
        state: record.state.as_str(),
        attempt: record.attempt,
        replay: record.replayed,
        dead_letter_from: dead_letter_from(record),
        accepted: None,
        time: Some(record.began),
        milliseconds: sent.then(|| Milliseconds::of(&record.timings)),
        status_code: record.status,
        reason: some(&record.reason),
        message: some(&record.message),
        reply: record.excerpt.clone(),
        next_attempt_time: record.next_attempt,
        request_headers: None,
    }
}

/// An attempt with its request's headers, among which is the delivery's id, if known.
fn whole(record: &Record, delivery: Option<&str>) -> Item {
    let read = headers(record, delivery).into_iter();
    Item {
        request_headers: Some(read.map(|(name, value)| Header { name, value }).collect()),
        ..item(record)
    }
}

/// A delivery that waits; `None` when nothing of its event can be read.
pub(super) fn waiting(waiting: &Waiting) -> Option<Item> {
    let event = event_of(waiting);
    Some(Item {
        id: waiting.event_id()?.as_str().to_owned(),
        event_type: event.map(|event| event.content.event_type.to_string()),
        state: state_of(&waiting.open),
        attempt: waiting.open.attempts,
        replay: waiting.open.replayed,
        dead_letter_from: None,
        accepted: event.map(|event| event.accepted),
        time: None,
        milliseconds: None,
        status_code: None,
        reason: None,
        message: None,
        reply: None,
        next_attempt_time: Some(waiting.open.due),
        request_headers: None,
    })
}

fn state_of(open: &Open) -> &'static str {
    if open.in_flight { "InFlight" } else { "Waiting" }
}

/// One event with its attempts.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Told {
    id: String,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    accepted: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_time: Option<Timestamp>,
    stored: bool,
    attempts: Vec<Item>,
}

/// All that is known of one event.
pub(super) fn shown(uid: &Uid, id: &EventId, shown: &Shown) -> Told {
    let delivery = shown
        .event
        .as_ref()
        .map(|event| delivery_id(id, &event.project.uid, uid).hyphenated().to_string());
    let last = shown.attempts.last();
    let state = match (&shown.open, last) {
        (Some(open), _) => state_of(open),
        (None, Some(last)) => last.state.as_str(),
        (None, None) => "Ended",
    };
    let event_type = shown.event.as_ref().map(|event| &event.content.event_type);
    let event_type = event_type.or_else(|| last.map(|last| &last.event_type));
    Told {
        id: id.as_str().to_owned(),
        event_type: event_type.and_then(|text| some(text)),
        state,
        accepted: shown.event.as_ref().map(|event| event.accepted),
        next_attempt_time: shown.open.as_ref().map(|open| open.due),
        stored: shown.event.is_some(),
        attempts: shown
            .attempts
            .iter()
            .map(|record| whole(record, delivery.as_deref()))
            .collect(),
    }
}
