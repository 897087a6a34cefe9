//! The delivery API: who may ask, what is answered, and that the OpenAPI document says so.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use postrider::domain::delivery_log::{Record, State, Timings};
use postrider::domain::destination::{Identity, Subscription};
use postrider::domain::id::{EventId, ObjectKey, Uid};
use postrider::engine::deliveries::{Page, Query};
use postrider::engine::directory::{Entry, EntryState};
use postrider::engine::history::{
    CancelledOne, History, HistoryError, Progress, ReplayedOne, Selection, Shown,
};
use postrider::engine::queue::asked::Waits;

use super::described::check_described;
use super::{Server, only, settings};

/// One destination, `team/hook`, whose events are named for what is to be answered.
pub(super) struct Nothing;

fn record() -> Record {
    Record {
        lane: Uid::new("u"),
        event_id: EventId::parse("e/1").unwrap(),
        event_type: "sync.failed".into(),
        seq: 1,
        attempt: 2,
        began: Timestamp::UNIX_EPOCH,
        state: State::Retrying,
        status: Some(503),
        reason: "Unavailable".into(),
        message: "the receiver answered 503".to_owned(),
        timings: Timings::default(),
        headers: "content-type: application/json\n".into(),
        excerpt: Some("try later".to_owned()),
        next_attempt: Some(Timestamp::UNIX_EPOCH),
        replayed: false,
    }
}

#[async_trait]
impl History for Nothing {
    fn destination(&self, key: &ObjectKey) -> Option<Arc<Entry>> {
        (*key.name == *"hook").then(|| {
            Arc::new(Entry {
                identity: Identity {
                    key: key.clone(),
                    uid: Uid::new("u"),
                    generation: 1,
                },
                subscription: Subscription::lenient(None, std::iter::empty()),
                state: EntryState::NotReady,
                enable_request: None,
            })
        })
    }

    async fn tried(&self, _: &Uid, query: Query) -> Result<Page, HistoryError> {
        Ok(Page {
            records: vec![record()],
            next: query.cursor.is_none().then_some(7),
        })
    }

    async fn waiting(&self, _: &Uid, _: Option<(i64, u64)>, _: usize) -> Result<Waits, HistoryError> {
        Ok(Waits::default())
    }

    async fn show(&self, _: &Uid, id: &EventId) -> Result<Option<Shown>, HistoryError> {
        Ok((id.as_str() == "e/1").then(|| Shown {
            attempts: vec![record()],
            event: None,
            open: None,
        }))
    }

    async fn replay_one(&self, _: &Uid, id: &EventId) -> Result<ReplayedOne, HistoryError> {
        Ok(match id.as_str() {
            "e/1" => ReplayedOne::Made,
            "open" => ReplayedOne::Open,
            "gone" => ReplayedOne::Gone,
            "dead" => ReplayedOne::DeadLetter,
            _ => ReplayedOne::Unknown,
        })
    }

    async fn replay(&self, _: &Uid, _: &Selection, from: Option<i64>) -> Result<Progress, HistoryError> {
        Ok(Progress {
            made: 3,
            open: 2,
            gone: 1,
            dead_letters: 1,
            next: from.is_none().then_some(9),
        })
    }

    async fn cancel(&self, _: &Uid, id: &EventId) -> Result<CancelledOne, HistoryError> {
        Ok(match id.as_str() {
            "e/1" => CancelledOne::Done,
            "open" => CancelledOne::InFlight,
            "gone" => CancelledOne::NotWaiting,
            _ => CancelledOne::Unknown,
        })
    }
}

const BASE: &str = "/v1/namespaces/team/eventdestinations/hook/deliveries";
const ALLOWED: &str = "eyJh.allowed.c2ln";

async fn ask(server: &Server, method: &str, path: &str, token: &str, body: &str) -> super::Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = server.connect().await;
    tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes())
        .await
        .unwrap();
    only(super::Answer::all(&mut stream).await)
}

#[tokio::test]
async fn each_answer_is_as_the_document_says() {
    let server = Server::start(settings()).await;
    let replay = r#"{"since": "2026-01-01T00:00:00Z"}"#;
    for (method, below, body, status) in [
        ("GET", "", "", 200),
        ("GET", "?state=Waiting", "", 200),
        (
            "GET",
            "?state=Exhausted&type=a.b&since=2026-01-01T00:00:00Z&limit=5&cursor=t9",
            "",
            200,
        ),
        ("GET", "?state=Nothing", "", 400),
        ("GET", "/e%2F1", "", 200),
        ("GET", "/other", "", 404),
        ("POST", "/e%2F1:replay", "", 202),
        ("POST", "/open:replay", "", 409),
        ("POST", "/gone:replay", "", 410),
        ("POST", "/dead:replay", "", 409),
        ("POST", "/other:replay", "", 404),
        ("POST", "/e%2F1:cancel", "", 200),
        ("POST", "/open:cancel", "", 409),
        ("POST", "/gone:cancel", "", 409),
        ("POST", ":replay", replay, 202),
        ("POST", ":replay", "[]", 400),
        ("DELETE", "/e%2F1", "", 405),
        ("GET", ":replay", "", 405),
    ] {
        let answer = ask(&server, method, &format!("{BASE}{below}"), ALLOWED, body).await;
        assert_eq!(answer.status, status, "{method} {below}: {}", answer.json());
        if status != 405 {
            check_described(method, below, status, &answer.json());
        }
    }
}

#[tokio::test]
async fn only_those_who_may_learn_whether_a_destination_exists() {
    let server = Server::start(settings()).await;
    let other = BASE.replace("hook", "other");
    for (token, path, status) in [
        (ALLOWED, BASE, 200),
        (ALLOWED, &other, 404),
        ("eyJh.denied.c2ln", BASE, 403),
        ("eyJh.denied.c2ln", &other, 403),
        ("eyJh.nobody.c2ln", BASE, 401),
        ("eyJh.down.c2ln", BASE, 503),
        (super::TOKEN, BASE, 401),
    ] {
        let answer = ask(&server, "GET", path, token, "").await;
        assert_eq!(answer.status, status, "{token} {path}");
    }
}

#[tokio::test]
async fn requests_to_this_api_are_not_counted_as_publish_requests() {
    let server = Server::start(settings()).await;
    for path in [BASE, "/v1/namespaces/team/eventdestinations/hook/nothing"] {
        ask(&server, "GET", path, ALLOWED, "").await;
    }
    for status in [200, 404] {
        let told = format!("postrider_delivery_api_requests_total{{status=\"{status}\"}}");
        let ingest = format!("postrider_ingest_requests_total{{status=\"{status}\"}}");
        assert_eq!((server.metric(&told), server.metric(&ingest)), (1, 0), "{status}");
    }
    assert_eq!(server.metric("postrider_delivery_api_duration_seconds_count"), 2);
    assert_eq!(server.metric("postrider_ingest_duration_seconds_count"), 0);
}
