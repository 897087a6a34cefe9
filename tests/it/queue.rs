//! The queue's contract: one suite for every back-end, a model, and the faults of a file.

mod conformance;
mod engine;
mod faults;
mod formats;
mod full;
mod model;

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use postrider::domain::event::{Content, Event};
use postrider::domain::id::{EventId, Uid};
use postrider::domain::project::ProjectFacts;
use postrider::engine::clock::Clock;
use postrider::engine::queue::metrics::QueueMetrics;
use postrider::engine::queue::sqlite::{Settings, SqliteQueue};
use postrider::engine::queue::{Completion, Lease, NewEvent, Queue, QueueError, Settlement, Stored};

/// A time that events of tests are accepted at, in milliseconds since 1970.
const START: i64 = 1_700_000_000_000;

/// A clock that stands at one minute after the start.
struct Later;

impl Clock for Later {
    fn now(&self) -> Timestamp {
        at(60_000)
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(START + millis).unwrap()
}

fn lane(name: &str) -> Uid {
    Uid::new(name)
}

fn facts(project: &str) -> Arc<ProjectFacts> {
    Arc::new(ProjectFacts {
        uid: Uid::new(project),
        id: project.into(),
        name: "Acme".into(),
        environment: None,
        account_id: None,
        account_name: None,
    })
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
    NewEvent {
        event: Arc::new(event),
        lanes: lanes.iter().map(|name| lane(name)).collect(),
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

/// Leases and finishes until nothing is due; returns the ids in order.
async fn drain(queue: &dyn Queue, name: &str, now: Timestamp) -> Vec<String> {
    let mut seen = Vec::new();
    loop {
        let leased = queue.lease(&lane(name), now, 100).await.unwrap();
        if leased.leases.is_empty() {
            return seen;
        }
        seen.extend(ids(&leased.leases));
        settle_all(queue, leased.leases, Completion::Finished)
            .await
            .unwrap();
    }
}

fn settings(directory: &Path) -> Settings {
    let mut settings = Settings::new(directory.join("queue.db"));
    settings.reserve_bytes = 0;
    settings.reopen = std::time::Duration::from_millis(20);
    settings.settle_patience = std::time::Duration::from_millis(300);
    settings
}

async fn open(settings: &Settings) -> SqliteQueue {
    open_with(settings, &QueueMetrics::default()).await
}

/// Opens a file that was closed before. A program that another test starts meanwhile holds a copy of the closed file's
/// lock for a moment, so the first try may find it taken.
async fn reopen(settings: &Settings) -> SqliteQueue {
    let queue = open(settings).await;
    faults::until(|| queue.state().unavailable.is_none()).await;
    queue
}

async fn open_with(settings: &Settings, metrics: &QueueMetrics) -> SqliteQueue {
    SqliteQueue::open(settings.clone(), metrics.clone(), Arc::new(Later))
        .await
        .unwrap()
}
