//! The delivery API: what became of deliveries, replay and cancel, below
//! `/v1/namespaces/{namespace}/eventdestinations/{name}/deliveries`.
//!
//! Only callers with a Kubernetes token are known here, by the rights of [`Right`]; a project's own token publishes and
//! does nothing else. Whether a destination exists is told only to those who have the right. Every answer is bounded: a
//! list has pages, a replay says where the next request goes on.
//!
//! Leaves to others: what is known and done (`engine::history`), the form of an answer (`told`).

mod told;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::auth::authorize;
use super::problem::{Kind, Problem};
use super::publish::NAMESPACES;
use crate::api::names::{is_name, is_namespace};
use crate::domain::dead_letter;
use crate::domain::delivery_log::State;
use crate::domain::event::parse::is_event_type;
use crate::domain::id::{EventId, ObjectKey, Uid};
use crate::engine::deliveries::{LogError, MAX_PAGE, Query};
use crate::engine::history::{CancelledOne, History, HistoryError, ReplayedOne, Selection, event_of};
use crate::engine::publish::{Authorizer, Right};
use crate::engine::queue::QueueError;
use crate::engine::queue::asked::WAITING_STEP;

/// Deliveries in a page, unless asked otherwise.
const PAGE: usize = 50;
/// Most bytes of a request's body.
pub(super) const MAX_BODY: usize = 4096;

/// What a path below a destination names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    key: ObjectKey,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    List,
    One(EventId),
    Replay,
    ReplayOne(EventId),
    Cancel(EventId),
}

/// The segment behind the namespace.
const DESTINATIONS: &str = "eventdestinations";

impl Path {
    /// Whether a request is for this API, whatever else its path names.
    pub(super) fn is_below(path: &str) -> bool {
        let rest = path.strip_prefix(NAMESPACES);
        rest.and_then(|rest| rest.split('/').nth(1)) == Some(DESTINATIONS)
    }

    /// Reads a path behind `/v1/namespaces/`.
    pub(super) fn of(rest: &str) -> Option<Self> {
        let mut parts = rest.split('/');
        let (namespace, kind, name, last) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if kind != DESTINATIONS || !is_namespace(namespace) || !is_name(name) {
            return None;
        }
        let what = match (last, parts.next()) {
            ("deliveries", None) => What::List,
            ("deliveries:replay", None) => What::Replay,
            ("deliveries", Some(text)) => {
                let id = |text: &str| EventId::parse(&decoded(text)?);
                if let Some(text) = text.strip_suffix(":replay") {
                    What::ReplayOne(id(text)?)
                } else if let Some(text) = text.strip_suffix(":cancel") {
                    What::Cancel(id(text)?)
                } else {
                    What::One(id(text)?)
                }
            }
            _ => return None,
        };
        parts.next().is_none().then(|| Self {
            key: ObjectKey::new(namespace, name),
            what,
        })
    }
}

/// A path's segment without percent encoding; `None` when that is broken.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

/// The delivery API.
#[derive(Clone, Copy)]
pub(super) struct Deliveries<'a> {
    pub(super) history: &'a dyn History,
    pub(super) authorizer: &'a dyn Authorizer,
    pub(super) is_ready: bool,
}

/// What is needed beside the path.
pub(super) struct Asked<'a> {
    pub(super) method: &'a Method,
    pub(super) headers: &'a HeaderMap,
    pub(super) query: Option<&'a str>,
}

impl Path {
    /// Whether the request has a body that matters.
    pub(super) fn has_body(&self) -> bool {
        self.what == What::Replay
    }
}

impl Deliveries<'_> {
    /// Whether the caller may ask, and about what. Nothing of a body is read before.
    pub(super) async fn admit(&self, path: &Path, asked: &Asked<'_>) -> Result<Uid, Problem> {
        let (right, method, allow) = match &path.what {
            What::List => (Right::ListDeliveries, Method::GET, "GET"),
            What::One(_) => (Right::GetDelivery, Method::GET, "GET"),
            What::Replay | What::ReplayOne(_) => (Right::Replay, Method::POST, "POST"),
            What::Cancel(_) => (Right::Cancel, Method::POST, "POST"),
        };
        if *asked.method != method {
            return Err(Problem::method(allow));
        }
        if !self.is_ready {
            return Err(Problem::new(Kind::Unavailable, "the operator is starting").retry_after(1));
        }
        authorize(asked.headers, &path.key, right, self.authorizer).await?;
        let entry = self.history.destination(&path.key);
        let none = || Problem::new(Kind::NoDestination, "no destination of this name exists");
        Ok(entry.ok_or_else(none)?.identity.uid.clone())
    }

    /// Answers a caller who may ask.
    pub(super) async fn answer(
        &self,
        path: &Path,
        uid: &Uid,
        query: Option<&str>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Response<Bytes>, Problem> {
        match &path.what {
            What::List => self.list(uid, query.unwrap_or_default()).await,
            What::One(id) => self.one(uid, id).await,
            What::Replay => self.replay(uid, body, now).await,
            What::ReplayOne(id) => self.replay_one(uid, id).await,
            What::Cancel(id) => self.cancel(uid, id).await,
        }
    }

    async fn list(&self, uid: &Uid, query: &str) -> Result<Response<Bytes>, Problem> {
        let wanted = Wanted::of(query)?;
        if wanted.waiting {
            return self.waiting(uid, &wanted).await;
        }
        let page = self
            .history
            .tried(uid, wanted.query)
            .await
            .map_err(|error| told_of(&error))?;
        let items: Vec<_> = page.records.iter().map(told::item).collect();
        let next = page.next.map(|number| format!("t{number}"));
        ok(&List { items, next })
    }

    async fn waiting(&self, uid: &Uid, wanted: &Wanted) -> Result<Response<Bytes>, Problem> {
        let limit = wanted.query.limit.min(WAITING_STEP);
        let waits = self.history.waiting(uid, wanted.after, limit).await;
        let waits = waits.map_err(|error| told_of(&error))?;
        let next = waits.found.last().filter(|_| waits.more);
        let next = next.map(|last| format!("w{}.{}", last.place.0, last.place.1));
        let is_wanted = |event: Option<&crate::domain::event::Event>| {
            let query = &wanted.query;
            event.is_none_or(|event| {
                query
                    .event_type
                    .as_ref()
                    .is_none_or(|kind| *kind == event.content.event_type)
                    && query.since.is_none_or(|since| event.accepted >= since)
                    && query.until.is_none_or(|until| event.accepted < until)
            })
        };
        let items = waits.found.iter().filter(|waiting| is_wanted(event_of(waiting)));
        let items = items.filter_map(told::waiting).collect();
        ok(&List { items, next })
    }

    async fn one(&self, uid: &Uid, id: &EventId) -> Result<Response<Bytes>, Problem> {
        let shown = self
            .history
            .show(uid, id)
            .await
            .map_err(|error| told_of(&error))?;
        let shown = shown.ok_or_else(unknown)?;
        ok(&told::shown(uid, id, &shown))
    }

    async fn replay_one(&self, uid: &Uid, id: &EventId) -> Result<Response<Bytes>, Problem> {
        let done = self.history.replay_one(uid, id).await;
        match done.map_err(|error| told_of(&error))? {
            ReplayedOne::Made => accepted(&json!({"id": id.as_str(), "replayed": 1})),
            ReplayedOne::Open => Err(Problem::new(
                Kind::Conflict,
                "its delivery waits or is under way, so it is not delivered once more",
            )),
            ReplayedOne::Gone => Err(Problem::new(
                Kind::EventGone,
                "the event is no longer stored; see --retention-bytes, and publish it again under a new id",
            )),
            ReplayedOne::DeadLetter => Err(Problem::new(Kind::Conflict, dead_letter::NOT_REPLAYED)),
            ReplayedOne::Unknown => Err(unknown()),
        }
    }

    async fn cancel(&self, uid: &Uid, id: &EventId) -> Result<Response<Bytes>, Problem> {
        let done = self.history.cancel(uid, id).await;
        match done.map_err(|error| told_of(&error))? {
            CancelledOne::Done => ok(&json!({"id": id.as_str(), "cancelled": true})),
            CancelledOne::InFlight => Err(Problem::new(
                Kind::Conflict,
                "an attempt is under way; ask again when it has ended, if it is tried again then",
            )
            .retry_after(5)),
            CancelledOne::NotWaiting => Err(Problem::new(
                Kind::Conflict,
                "its delivery does not wait: it has ended; see its attempts",
            )),
            CancelledOne::Unknown => Err(unknown()),
        }
    }

    async fn replay(&self, uid: &Uid, body: &[u8], now: Timestamp) -> Result<Response<Bytes>, Problem> {
        let (selection, from) = ReplayBody::read(body, now)?;
        let done = self.history.replay(uid, &selection, from).await;
        let done = done.map_err(|error| told_of(&error))?;
        // The end stays where the first request found it: what fails again meanwhile is not replayed once more.
        let failed_only = selection.failed_only;
        let place = done.next.map(|at| ReplayPlace { failed_only, at });
        let cursor = place.map(|place| place.cursor(selection.until));
        accepted(&json!({
            "replayed": done.made,
            "alreadyWaiting": done.open,
            "noLongerStored": done.gone,
            "deadLetters": done.dead_letters,
            "next": cursor,
        }))
    }
}

#[derive(Serialize)]
struct List {
    items: Vec<told::Item>,
    next: Option<String>,
}

/// What a list is to have.
#[derive(Debug, Default)]
struct Wanted {
    query: Query,
    waiting: bool,
    after: Option<(i64, u64)>,
}

impl Wanted {
    fn of(text: &str) -> Result<Self, Problem> {
        let mut wanted = Self::default();
        wanted.query.limit = PAGE;
        let mut cursor = None;
        for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
            match &*name {
                "state" if value == "Waiting" => wanted.waiting = true,
                "state" => {
                    let states = "Delivered, Retrying, Exhausted, Dropped, Cancelled or Waiting";
                    let state = value.parse::<State>();
                    wanted.query.state = Some(state.map_err(|_| bad("state", &format!("use {states}")))?);
                }
                "type" => wanted.query.event_type = Some(event_type("type", &value)?),
                "since" => wanted.query.since = Some(time("since", &value)?),
                "until" => wanted.query.until = Some(time("until", &value)?),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=MAX_PAGE).contains(limit));
                    wanted.query.limit =
                        limit.ok_or_else(|| bad("limit", &format!("use a number from 1 to {MAX_PAGE}")))?;
                }
                "cursor" => cursor = Some(value.into_owned()),
                _ => {
                    let detail =
                        "there is no query parameter other than state, type, since, until, limit and cursor";
                    return Err(Problem::new(Kind::MalformedRequest, detail));
                }
            }
        }
        if let Some(cursor) = cursor {
            let foreign = || bad("cursor", "use `next` of an earlier answer to the same question");
            if wanted.waiting {
                let place = cursor.strip_prefix('w').and_then(|rest| rest.split_once('.'));
                let (due, seq) = place.ok_or_else(foreign)?;
                let place = (due.parse().ok(), seq.parse().ok());
                let (Some(due), Some(seq)) = place else {
                    return Err(foreign());
                };
                wanted.after = Some((due, seq));
            } else {
                let number = cursor.strip_prefix('t').and_then(|rest| rest.parse().ok());
                wanted.query.cursor = Some(number.ok_or_else(foreign)?);
            }
        }
        Ok(wanted)
    }
}

/// The body of a replay.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReplayBody {
    since: String,
    until: Option<String>,
    #[serde(default)]
    failed_only: bool,
    #[serde(rename = "type")]
    event_type: Option<String>,
    cursor: Option<String>,
}

impl ReplayBody {
    fn read(body: &[u8], now: Timestamp) -> Result<(Selection, Option<i64>), Problem> {
        let read: Self = serde_json::from_slice(body).map_err(|error| {
            let detail = format!(
                "send a JSON object with `since` and, if wanted, `until`, `failedOnly`, `type` and `cursor`, and nothing \
                 else; yours is wrong at line {}, column {}",
                error.line(),
                error.column()
            );
            Problem::new(Kind::MalformedRequest, detail)
        })?;
        let since = time("since", &read.since)?;
        let mut until = match &read.until {
            Some(until) => time("until", until)?.min(now),
            None => now,
        };
        let event_type = read.event_type.as_deref();
        let event_type = event_type.map(event_type_of).transpose()?;
        let mut from = None;
        if let Some(cursor) = read.cursor {
            let (place, end) = ReplayPlace::read(&cursor, read.failed_only)?;
            (from, until) = (Some(place.at), end.min(now));
        }
        let selection = Selection {
            since,
            until,
            failed_only: read.failed_only,
            event_type,
        };
        Ok((selection, from))
    }
}

/// Where a replay goes on: a place among what was accepted, or among what failed, which count differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ReplayPlace {
    failed_only: bool,
    at: i64,
}

impl ReplayPlace {
    fn letter(self) -> char {
        if self.failed_only { 'f' } else { 'a' }
    }

    /// The cursor of the next request, with the end of the first one.
    fn cursor(self, until: Timestamp) -> String {
        format!("{}{}.{}", self.letter(), self.at, until.as_millisecond())
    }

    /// Reads a cursor of a replay of that kind, and the end that goes with it.
    fn read(cursor: &str, failed_only: bool) -> Result<(Self, Timestamp), Problem> {
        let foreign = || bad("cursor", "use `next` of an earlier answer to the same request");
        let parse = |place: Self| {
            let (at, until) = cursor.strip_prefix(place.letter())?.split_once('.')?;
            let until = Timestamp::from_millisecond(until.parse().ok()?).ok()?;
            let at = at.parse().ok().filter(|at| *at >= 0)?;
            Some((Self { at, ..place }, until))
        };
        let [own, other] = [failed_only, !failed_only].map(|failed_only| Self { failed_only, at: 0 });
        if let Some(read) = parse(own) {
            return Ok(read);
        }
        Err(match parse(other) {
            Some(_) if failed_only => bad("cursor", "it is of a replay without `failedOnly`; leave that out"),
            Some(_) => bad("cursor", "it is of a replay with `failedOnly`; send that, too"),
            None => foreign(),
        })
    }
}

fn event_type_of(text: &str) -> Result<Arc<str>, Problem> {
    event_type("type", text)
}

fn event_type(name: &str, text: &str) -> Result<Arc<str>, Problem> {
    if is_event_type(text) {
        Ok(text.into())
    } else {
        Err(bad(name, "use the type of an event, such as sync.failed"))
    }
}

fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    text.parse()
        .map_err(|_| bad(name, "use a time such as 2026-01-02T03:04:05Z"))
}

fn bad(name: &str, what: &str) -> Problem {
    Problem::new(Kind::MalformedRequest, format!("{name}: {what}"))
}

fn unknown() -> Problem {
    let detail =
        "nothing is known here of an event of this id: it was not sent to this destination, or too long ago";
    Problem::new(Kind::NoDelivery, detail)
}

fn told_of(error: &HistoryError) -> Problem {
    match error {
        HistoryError::Log(LogError::Off) => Problem::new(
            Kind::Conflict,
            "the delivery log is switched off: --delivery-log-retention is 0s",
        ),
        HistoryError::Log(LogError::Unavailable(_)) => {
            Problem::new(Kind::Unavailable, "the delivery log cannot be read now").retry_after(30)
        }
        HistoryError::Queue(QueueError::ProjectFull { pending, limit }) => {
            let detail = format!("{pending} of {limit} deliveries wait; go on when there are fewer");
            Problem::new(Kind::QueueFull, detail).retry_after(5)
        }
        HistoryError::Queue(error) => {
            let detail = match error {
                QueueError::Unavailable(_) => "the queue cannot be used now".to_owned(),
                error => error.to_string(),
            };
            Problem::new(Kind::Unavailable, detail).retry_after(5)
        }
    }
}

fn ok(body: &impl Serialize) -> Result<Response<Bytes>, Problem> {
    let body = serde_json::to_vec(body)
        .map_err(|_| Problem::new(Kind::Internal, "the answer could not be written"))?;
    let mut response = super::publish::json(StatusCode::OK, body.into());
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn accepted(body: &impl Serialize) -> Result<Response<Bytes>, Problem> {
    let mut response = ok(body)?;
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Option<What> {
        Path::of(text).map(|path| path.what)
    }

    #[test]
    fn paths_name_a_list_or_an_event_and_what_to_do() {
        let id = |text| EventId::parse(text).unwrap();
        for (text, expected) in [
            ("ns/eventdestinations/a/deliveries", Some(What::List)),
            ("ns/eventdestinations/a/deliveries:replay", Some(What::Replay)),
            ("ns/eventdestinations/a/deliveries/e1", Some(What::One(id("e1")))),
            (
                "ns/eventdestinations/a/deliveries/e:1%2F2:replay",
                Some(What::ReplayOne(id("e:1/2"))),
            ),
            (
                "ns/eventdestinations/a/deliveries/e1:cancel",
                Some(What::Cancel(id("e1"))),
            ),
            ("ns/eventdestinations/a/deliveries/", None),
            ("ns/eventdestinations/a/deliveries/e%2", None),
            ("ns/eventdestinations/a/deliveries/e%20f", None),
            ("ns/eventdestinations/a/deliveries/e1/x", None),
            ("ns/eventdestinations/a", None),
            ("ns/eventdestinations/A_/deliveries", None),
            ("ns/projects/a/deliveries", None),
        ] {
            assert_eq!(path(text), expected, "{text}");
        }
    }

    #[test]
    fn questions_that_make_no_sense_are_answered_with_what_to_write() {
        for (query, word) in [
            ("state=Done", "Delivered"),
            ("limit=0", "1 to 500"),
            ("limit=501", "1 to 500"),
            ("since=yesterday", "2026-"),
            ("cursor=w1.2", "next"),
            ("state=Waiting&cursor=t5", "next"),
            ("order=up", "no query parameter"),
            ("type=a%20b", "type of an event"),
        ] {
            let problem = Wanted::of(query).unwrap_err();
            assert!(problem.detail.contains(word), "{query}: {}", problem.detail);
        }
    }

    #[test]
    fn a_replay_goes_on_where_it_ended_with_the_same_end() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-31T09:00:00Z".parse().unwrap();
        let body = br#"{"since": "2026-01-30T00:00:00Z", "failedOnly": true}"#;
        let (first, from) = ReplayBody::read(body, now).unwrap();
        assert_eq!((first.until, from, first.failed_only), (now, None, true));
        let cursor = format!("f17.{}", now.as_millisecond());
        let body = json!({"since": "2026-01-30T00:00:00Z", "failedOnly": true, "cursor": cursor}).to_string();
        let (next, from) = ReplayBody::read(body.as_bytes(), later).unwrap();
        assert_eq!((next, from), (first, Some(17)));
        for bad in [
            "",
            "{}",
            r#"{"since": "x"}"#,
            r#"{"since": "2026-01-30T00:00:00Z", "all": true}"#,
        ] {
            assert!(ReplayBody::read(bad.as_bytes(), now).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_among_what_was_accepted_is_none_among_what_failed() {
        let now: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        for failed_only in [false, true] {
            let next = |place: &ReplayPlace| place.cursor(now);
            let (own, other) = (
                ReplayPlace { failed_only, at: 17 },
                ReplayPlace {
                    failed_only: !failed_only,
                    at: 17,
                },
            );
            let read = |cursor: &str| {
                let body =
                    json!({"since": "2026-01-30T00:00:00Z", "failedOnly": failed_only, "cursor": cursor});
                ReplayBody::read(body.to_string().as_bytes(), now)
            };
            assert_eq!(read(&next(&own)).unwrap().1, Some(17));
            for cursor in [&*next(&other), "t17", "w17.3", "17", "a-1.5", "f5"] {
                let problem = read(cursor).unwrap_err();
                assert!(problem.detail.contains("cursor: "), "{}", problem.detail);
            }
            let detail = read(&next(&other)).unwrap_err().detail;
            assert!(detail.contains("failedOnly"), "{detail}");
        }
    }
}
