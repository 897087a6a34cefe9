//! What became of deliveries, replays and cancellations.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::fixture::*;
use crate::domain::delivery_log::State;
use crate::domain::event::sample;
use crate::domain::id::{EventId, Uid};
use crate::domain::project::{Project, Token};
use crate::domain::replay_request::{ReplayOutcome, ReplayRequest};
use crate::engine::clock::SystemClock;
use crate::engine::deliveries::Query;
use crate::engine::history::{CancelledOne, History as _, ReplayedOne, Selection};
use crate::engine::queue::memory::MemoryQueue;
use crate::engine::queue::metrics::QueueMetrics;
use crate::engine::queue::sqlite::{Settings, SqliteQueue};
use crate::engine::replayer::{Replayer as _, Stand};

fn uid() -> Uid {
    identity("a", 1).uid
}

/// Two attempts, ten seconds apart.
fn twice() -> serde_json::Value {
    json!({"retry": {"schedule": ["10s"], "maxAttempts": 2, "maxAge": "1h"}})
}

fn failed() -> Selection {
    Selection {
        since: Timestamp::UNIX_EPOCH,
        until: Timestamp::MAX,
        failed_only: true,
        event_type: None,
    }
}

impl Fixture {
    async fn states(&self) -> Vec<(State, u32, bool)> {
        let query = Query {
            limit: 100,
            ..Query::default()
        };
        let page = self.engine.tried(&uid(), query).await.unwrap();
        let told = page.records.iter();
        told.map(|record| (record.state, record.attempt, record.replayed))
            .collect()
    }

    async fn first_id(&self) -> EventId {
        let query = Query {
            limit: 1,
            oldest_first: true,
            ..Query::default()
        };
        let page = self.engine.tried(&uid(), query).await.unwrap();
        page.records[0].event_id.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_recorded() {
    let fixture = Fixture::new();
    fixture.receiver("a", &twice(), Script::Status(500));
    fixture.publish("a", 1).await;
    fixture.pass(1).await;
    assert_eq!(fixture.states().await, [(State::Retrying, 1, false)]);
    fixture.pass(60).await;
    assert_eq!(fixture.states().await, [(State::Exhausted, 2, false)]);
    let shown = fixture
        .engine
        .show(&uid(), &fixture.first_id().await)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(shown.attempts.len(), 2);
    assert_eq!(shown.attempts[0].status, Some(500));
    assert!(shown.attempts[0].next_attempt.is_some());
    assert!(shown.open.is_none() && shown.event.is_some());
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_delivered_again_however_old_it_is() {
    let fixture = Fixture::new();
    fixture.receiver("a", &twice(), Script::Status(500));
    fixture.publish("a", 2).await;
    fixture.pass(60).await;
    fixture.answer("a", Script::Status(200));
    fixture.publish("a", 1).await;
    fixture.pass(20_000).await;
    let done = fixture.engine.replay(&uid(), &failed(), None).await.unwrap();
    assert_eq!((done.made, done.next), (2, None));
    fixture.pass(1).await;
    assert_eq!(fixture.sent("a"), 7);
    let delivered = (State::Delivered, 1, true);
    assert_eq!(
        fixture.states().await,
        [delivered, delivered, (State::Delivered, 1, false)]
    );
    assert_eq!(fixture.view("a").health.delivered, 3);
    let none = fixture.engine.replay(&uid(), &failed(), None).await.unwrap();
    assert_eq!(none.made, 0, "it was delivered since");
    let id = fixture.first_id().await;
    let again = fixture.engine.replay_one(&uid(), &id).await.unwrap();
    assert_eq!(again, ReplayedOne::Made);
    fixture.pass(1).await;
    assert_eq!(fixture.sent("a"), 8);
    let unknown = EventId::parse("nobody").unwrap();
    let unknown = fixture.engine.replay_one(&uid(), &unknown).await.unwrap();
    assert_eq!(unknown, ReplayedOne::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_delivery_is_cancelled_and_said_so() {
    let fixture = Fixture::new();
    fixture.receiver("a", &twice(), Script::Status(500));
    fixture.publish("a", 1).await;
    fixture.pass(1).await;
    let id = fixture.first_id().await;
    let cancelled = fixture.engine.cancel(&uid(), &id).await.unwrap();
    assert_eq!(cancelled, CancelledOne::Done);
    fixture.pass(1_000).await;
    assert_eq!(fixture.sent("a"), 1);
    assert_eq!(fixture.states().await, [(State::Cancelled, 1, false)]);
    let again = fixture.engine.cancel(&uid(), &id).await.unwrap();
    assert_eq!(again, CancelledOne::NotWaiting);
}

#[tokio::test(start_paused = true)]
async fn an_asked_replay_runs_only_when_it_was_announced_and_started() {
    let fixture = Fixture::new();
    fixture.receiver("a", &twice(), Script::Status(500));
    fixture.publish("a", 1).await;
    fixture.pass(60).await;
    fixture.answer("a", Script::Status(200));
    let request = ReplayRequest::parse("failed token=1").unwrap();
    let asked = &*request.asked;
    let engine = &fixture.engine;
    engine.start(&uid(), asked);
    assert_eq!(engine.stand(&uid(), asked), Stand::Unknown);
    engine.announce(&uid(), &request);
    assert_eq!(engine.stand(&uid(), asked), Stand::Announced);
    for _ in 0..2 {
        engine.start(&uid(), asked);
        assert_eq!(engine.stand(&uid(), asked), Stand::Running);
    }
    fixture.pass(1).await;
    let Stand::Ended(result) = engine.stand(&uid(), asked) else {
        panic!("it ended");
    };
    assert_eq!(result.outcome, ReplayOutcome::Done);
    assert_eq!(result.counts.unwrap().made, 1);
    engine.announce(&uid(), &request);
    assert!(matches!(engine.stand(&uid(), asked), Stand::Ended(_)));
    assert_eq!(fixture.sent("a"), 3);
}

#[tokio::test(start_paused = true)]
async fn replays_of_full_projects_are_in_nobodys_way_and_give_way_to_newer_ones() {
    let mut fixture = Fixture::with_queue(Arc::new(MemoryQueue::new(1)), 8);
    let request = ReplayRequest::parse("since=2020-01-01T00:00:00Z token=1").unwrap();
    for name in ["a", "b", "c"] {
        fixture.receiver(name, &json!({}), Script::Status(200));
        if name == "c" {
            let other = Project {
                types: Arc::default(),
                key: fixture.project.key.clone(),
                facts: Arc::new(sample::bare_project("other-uid", "O")),
                token: Token::Unknown,
            };
            fixture.project = Arc::new(other);
        }
        fixture.publish(name, 1).await;
        fixture.pass(1).await;
    }
    let full = Arc::new(Project {
        types: Arc::default(),
        key: fixture.project.key.clone(),
        facts: Arc::new(sample::bare_project("project-uid", "P")),
        token: Token::Unknown,
    });
    fixture.project = full;
    fixture.destination("asleep", 1, &json!({"suspend": true}));
    fixture.publish("asleep", 1).await;
    let of = |name: &str| identity(name, 1).uid;
    for name in ["a", "b", "c"] {
        fixture.engine.announce(&of(name), &request);
        fixture.engine.start(&of(name), &request.asked);
        fixture.pass(1).await;
    }
    let stand = |name: &str, asked: &str| fixture.engine.stand(&of(name), asked);
    assert_eq!(stand("a", &request.asked), Stand::Running);
    assert_eq!(stand("b", &request.asked), Stand::Running);
    assert_eq!(fixture.sent("c"), 2);
    let newer = ReplayRequest::parse("id=evt_1 token=2").unwrap();
    fixture.engine.announce(&of("a"), &newer);
    let Stand::Ended(older) = stand("a", &request.asked) else {
        panic!("it ended");
    };
    assert_eq!(older.outcome, ReplayOutcome::Stopped);
    assert!(older.message.contains("newer"), "{}", older.message);
    fixture.pass(600).await;
    assert_eq!(
        stand("a", &newer.asked),
        Stand::Announced,
        "it is not started yet"
    );
    assert_eq!(fixture.sent("a"), 1);
}

/// An engine over a file, whose writes take a thread of their own.
async fn over_a_file(folder: &tempfile::TempDir) -> Fixture {
    let settings = Settings::new(folder.path().join("queue.db"));
    let queue = SqliteQueue::open(settings, QueueMetrics::default(), Arc::new(SystemClock));
    Fixture::with_queue(Arc::new(queue.await.unwrap()), 8)
}

/// Waits in real time, much less long than a lane sleeps.
async fn until(what: &str, is_so: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is_so().await {
            // A poll, in real time: the file has threads of its own.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    waited.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn a_replay_whose_caller_went_away_is_sent_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = over_a_file(&folder).await;
    fixture.receiver("a", &twice(), Script::Status(200));
    fixture.publish("a", 1).await;
    until("it is sent", async || fixture.states().await.len() == 1).await;
    let id = fixture.first_id().await;
    let everything = Selection {
        failed_only: false,
        ..failed()
    };
    for (one, sent) in [(false, 2), (true, 3)] {
        let settled = async || fixture.states().await.len() == 1 && fixture.view("a").depth.pending == 0;
        until("nothing waits", settled).await;
        // The write takes a thread of its own, which may by chance be done before we look: the caller is gone anyway.
        if one {
            drop(futures::poll!(Box::pin(fixture.engine.replay_one(&uid(), &id))));
        } else {
            let uid = uid();
            let replay = fixture.engine.replay(&uid, &everything, None);
            drop(futures::poll!(Box::pin(replay)));
        }
        until("it is sent again", async || fixture.sent("a") == sent).await;
    }
    let mut told = String::new();
    let mut registry = prometheus_client::registry::Registry::default();
    fixture.engine.core().metrics.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut told, &registry).unwrap();
    let counted = told
        .lines()
        .find(|line| line.contains("replayed") && line.ends_with(" 2"));
    assert!(counted.is_some(), "{told}");
}

#[tokio::test]
async fn a_cancellation_whose_caller_went_away_is_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = over_a_file(&folder).await;
    let later = json!({"retry": {"schedule": ["1h"], "maxAttempts": 2, "maxAge": "3h"}});
    fixture.receiver("a", &later, Script::Status(500));
    fixture.publish("a", 1).await;
    let waits = async || fixture.states().await == [(State::Retrying, 1, false)];
    until("it waits", waits).await;
    let id = fixture.first_id().await;
    // The attempt is recorded before it is settled.
    let is_free = async || {
        fixture
            .engine
            .show(&uid(), &id)
            .await
            .unwrap()
            .unwrap()
            .open
            .is_some_and(|open| !open.in_flight)
    };
    until("no attempt is under way", is_free).await;
    drop(futures::poll!(Box::pin(fixture.engine.cancel(&uid(), &id))));
    let cancelled = async || fixture.states().await == [(State::Cancelled, 1, false)];
    until("it is cancelled", cancelled).await;
}

#[tokio::test(start_paused = true)]
async fn the_time_that_the_log_tells_is_the_one_that_the_receiver_was_told() {
    let fixture = Fixture::new();
    fixture
        .clock
        .tick
        .store(1_000, std::sync::atomic::Ordering::Relaxed);
    fixture.destination("a", 1, &json!({}));
    fixture.destination(
        "b",
        1,
        &json!({"events": ["a"], "delivery": {"batch": {"maxEvents": 2, "maxWait": "1s"}}}),
    );
    fixture.publish("a", 1).await;
    fixture.pass(10).await;
    fixture.clock.tick.store(0, std::sync::atomic::Ordering::Relaxed);
    let mut logged = Vec::new();
    for name in ["a", "b"] {
        let query = Query {
            limit: 1,
            ..Query::default()
        };
        let page = fixture.engine.tried(&identity(name, 1).uid, query).await.unwrap();
        logged.push(page.records[0].began.as_second().to_string());
    }
    logged.sort();
    let mut told = fixture.transport.timestamps.lock().clone();
    told.sort();
    assert_eq!(told, logged);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_found_and_cancelled_while_it_waits_and_replayed_where_it_was_given_up() {
    let fixture = Fixture::new();
    let policy = json!({"retry": {"maxAttempts": 1}, "deadLetter": {"name": "dead"}});
    fixture.receiver("a", &policy, Script::Status(404));
    fixture.receiver("dead", &twice(), Script::Status(503));
    for id in ["e1", "e2"] {
        fixture.publish_for("a", id, "u").await;
    }
    fixture.pass(1).await;
    let dead = identity("dead", 1).uid;
    let [first, second] = ["e1", "e2"].map(|id| EventId::parse(id).unwrap());
    let shown = fixture.engine.show(&dead, &first).await.unwrap().unwrap();
    assert!(shown.event.is_some() && shown.open.is_some_and(|open| open.attempts == 1));
    let replayed = async |id| fixture.engine.replay_one(&dead, id).await.unwrap();
    assert_eq!(replayed(&first).await, ReplayedOne::Open);
    let cancelled = fixture.engine.cancel(&dead, &first).await.unwrap();
    assert_eq!(cancelled, CancelledOne::Done);
    fixture.pass(60).await;
    assert_eq!(fixture.view("dead").depth.pending, 0);
    assert_eq!(replayed(&second).await, ReplayedOne::DeadLetter);
    let progress = fixture.engine.replay(&dead, &failed(), None).await.unwrap();
    assert_eq!((progress.made, progress.gone, progress.dead_letters), (0, 0, 1));
}
