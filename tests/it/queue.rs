//! The queue's contract: one suite for every back-end, a model, and the faults of a file and of its volume.

#[macro_use]
mod volume;

mod conformance;
mod damage;
mod engine;
mod faults;
mod file;
mod formats;
mod full;
mod keys;
mod log;
mod model;
mod restart;
mod vanished;

use std::sync::Arc;

use jiff::Timestamp;
use postrider::domain::event::{Content, Event};
use postrider::domain::id::{EventId, Uid};
use postrider::domain::policy::dedup::Mark;
use postrider::domain::project::ProjectFacts;
use postrider::engine::queue::keys::LaneKey;
use postrider::engine::queue::{
    Completion, Enqueued, Lease, NewEvent, Queue, QueueError, QueueState, Settlement, Stored,
};

use crate::support::bare_project;

/// A time that events of tests are accepted at, in milliseconds since 1970.
const START: i64 = 1_700_000_000_000;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(START + millis).unwrap()
}

fn lane(name: &str) -> Uid {
    Uid::new(name)
}

fn facts(project: &str) -> Arc<ProjectFacts> {
    bare_project(project, "Acme")
}

fn content(data: &str) -> Content {
    serde_json::from_str(&format!(
        r#"{{"type":"record_created","timestamp":1,"data":{{"text":"{data}"}}}}"#
    ))
    .unwrap()
}

/// An event of project `p`.
fn event(id: &str, millis: i64, lanes: &[&str]) -> NewEvent {
    event_of("p", id, millis, lanes)
}

fn event_of(project: &str, id: &str, millis: i64, lanes: &[&str]) -> NewEvent {
    sized(project, id, millis, lanes, 20)
}

fn sized(project: &str, id: &str, millis: i64, lanes: &[&str], size: usize) -> NewEvent {
    let content = content(&format!("{id} {}", "x".repeat(size)));
    let event = Event::new(EventId::parse(id).unwrap(), at(millis), content, facts(project));
    NewEvent::new(Arc::new(event), lanes.iter().map(|name| lane(name)).collect())
}

/// An event with a key that counts for so many milliseconds in each of its lanes.
fn keyed(id: &str, millis: i64, lanes: &[&str], key: u128, window: i64) -> NewEvent {
    let mark = Mark { key, window };
    NewEvent {
        keys: (0..lanes.len()).map(|lane| LaneKey { lane, mark }).collect(),
        ..event(id, millis, lanes)
    }
}

/// Publishes one event.
async fn publish(queue: &dyn Queue, event: NewEvent) -> Result<Enqueued, QueueError> {
    queue
        .enqueue(vec![event])
        .await
        .map(|mut answers| answers.remove(0))
}

/// Publishes so many events of a size to lane `a`, one each millisecond, in commits of 50; they are called [`names`].
async fn fill(queue: &dyn Queue, count: i64, size: usize) {
    for first in (0..count).step_by(50) {
        let batch =
            (first..count.min(first + 50)).map(|n| sized("p", &format!("event-{n:05}"), n, &["a"], size));
        queue.enqueue(batch.collect()).await.unwrap();
    }
}

fn names(count: i64) -> Vec<String> {
    (0..count).map(|number| format!("event-{number:05}")).collect()
}

/// Leases so many deliveries of lane `a` at most.
async fn take(queue: &dyn Queue, now: i64, count: usize) -> Vec<Lease> {
    queue.lease(&lane("a"), at(now), count).await.unwrap().leases
}

/// How many deliveries of lane `a` wait.
fn pending(queue: &dyn Queue) -> u64 {
    queue.depth(&lane("a")).pending
}

fn healthy() -> QueueState {
    QueueState {
        known: true,
        ..QueueState::default()
    }
}

fn ids(leases: &[Lease]) -> Vec<String> {
    leases.iter().map(id).collect()
}

fn id(lease: &Lease) -> String {
    match &lease.stored {
        Stored::Event(event) => event.id.to_string(),
        Stored::Corrupt { .. } => "corrupt".to_owned(),
    }
}

async fn settle_all(queue: &dyn Queue, leases: Vec<Lease>, completion: Completion) -> Result<(), QueueError> {
    let settlements = leases.into_iter().map(|lease| Settlement {
        lease,
        completion,
        health: None,
        note: None,
    });
    queue.settle(settlements.collect()).await
}

/// Says that a delivery failed and is due again at a time, and notes something for then.
async fn put_off_noting(queue: &dyn Queue, lease: Lease, until: i64, note: Option<&[u8]>) {
    let settlement = Settlement {
        lease,
        completion: Completion::RetryAt(at(until)),
        health: None,
        note: note.map(Into::into),
    };
    queue.settle(vec![settlement]).await.unwrap();
}

/// Says that the deliveries were made.
async fn finish(queue: &dyn Queue, leases: Vec<Lease>) {
    settle_all(queue, leases, Completion::Finished).await.unwrap();
}

/// Says that the deliveries failed and are due again at a time.
async fn put_off(queue: &dyn Queue, leases: Vec<Lease>, until: i64) {
    settle_all(queue, leases, Completion::RetryAt(at(until)))
        .await
        .unwrap();
}

/// Leases and finishes until nothing is due; returns the ids in order.
async fn drain(queue: &dyn Queue, name: &str, now: Timestamp) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let leased = queue.lease(&lane(name), now, 100).await.unwrap();
        if leased.leases.is_empty() {
            return seen;
        }
        seen.extend(ids(&leased.leases));
        finish(queue, leased.leases).await;
    }
}
