//! The engine with a queue in memory, a scripted transport and tokio's paused time.

mod batches;
mod budget;
mod clock;
mod dead_letters;
mod dedup;
mod filters;
mod fixture;
mod history;
mod mail;
mod many;
mod operations;
mod order;
mod policy;
mod tester;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde_json::json;

use super::*;
use crate::domain::health::DisableReason;
use crate::domain::outcome::FailureReason;
use crate::engine::clock::SystemClock;
use crate::engine::publish::{PublishError, Publisher};
use crate::engine::queue::memory::MemoryQueue;
use crate::engine::queue::metrics::QueueMetrics;
use crate::engine::queue::{HealthStore as _, QueueError};

use fixture::*;

#[tokio::test(start_paused = true)]
async fn a_published_event_is_sent_once() {
    let fixture = Fixture::new();
    fixture.destination("a", 1, &json!({}));
    fixture.publish("a", 1).await;
    fixture.pass(3600).await;
    assert_eq!(fixture.sent("a"), 1);
    assert_eq!(fixture.view("a").health.delivered, 1);
    assert_eq!(fixture.view("a").depth.pending, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_accepted_before_every_destination_is_known() {
    let fixture = Fixture::new();
    let directory = Arc::new(Directory::new());
    let (engine, _runner) = Engine::new(Parts {
        deliveries: Arc::new(deliveries::NoLog),
        directory,
        queue: Arc::new(MemoryQueue::default()),
        transport: Arc::clone(&fixture.transport) as Arc<dyn Transport>,
        mailer: Arc::clone(&fixture.mailer) as Arc<dyn Mailer>,
        clock: Arc::new(TestClock::new()),
        metrics: EngineMetrics::default(),
        max_in_flight: 2,
        max_in_flight_bytes: 64 << 20,
        watched_namespace: None,
    });
    let result = engine.publish(Arc::clone(&fixture.project), Vec::new()).await;
    assert_eq!(result, Err(PublishError::Starting));
}

#[tokio::test(start_paused = true)]
async fn the_schedule_is_kept_and_ends() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Status(500));
    let retry = json!({"delivery": {"retry": {"schedule": ["10s", "100s"]}}});
    fixture.destination("a", 1, &retry);
    fixture.publish("a", 1).await;
    fixture.pass(1).await;
    assert_eq!(fixture.sent("a"), 1);
    fixture.pass(13).await;
    assert_eq!(fixture.sent("a"), 2);
    fixture.pass(60).await;
    assert_eq!(fixture.sent("a"), 2);
    fixture.pass(100).await;
    assert_eq!(fixture.sent("a"), 3);
    fixture.pass(100_000).await;
    assert_eq!(fixture.sent("a"), 3);
    let view = fixture.view("a");
    assert_eq!((view.health.exhausted, view.depth.pending), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_ready_or_suspended_is_parked_without_spending_attempts() {
    let fixture = Fixture::new();
    fixture.not_ready("a");
    fixture.destination("b", 1, &json!({"suspend": true}));
    fixture.publish("a", 3).await;
    fixture.publish("b", 2).await;
    fixture.pass(100_000).await;
    assert_eq!((fixture.sent("a"), fixture.sent("b")), (0, 0));
    assert_eq!((fixture.view("a").parked, fixture.view("b").parked), (3, 2));
    fixture.destination("a", 2, &json!({}));
    fixture.destination("b", 2, &json!({}));
    fixture.pass(1).await;
    assert_eq!((fixture.sent("a"), fixture.sent("b")), (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_disabled_lane_is_probed_and_drained_at_a_ramped_rate() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Status(500));
    let policy = json!({
        "delivery": {"maxInFlight": 8, "retry": {"schedule": ["1s"], "maxAttempts": 100}},
        "autoDisable": {"consecutiveFailures": 5, "minimumDuration": "0s", "probeInterval": "15m"},
    });
    fixture.destination("a", 1, &policy);
    fixture.publish("a", 100).await;
    fixture.pass(60).await;
    let disabled = fixture.view("a").health.disabled.unwrap();
    assert_eq!(disabled.reason, DisableReason::AutoDisabled);
    let attempts = fixture.sent("a");
    assert!(attempts <= 5 + 8, "{attempts} attempts before it was disabled");
    fixture.pass(10 * 60).await;
    assert_eq!(fixture.sent("a"), attempts);
    fixture.answer("a", Script::Take(Duration::from_millis(100), 200));
    fixture.pass(6 * 60).await;
    let view = fixture.view("a");
    assert_eq!(
        (view.health.delivered, view.depth.pending, view.health.disabled),
        (100, 0, None)
    );
}

#[tokio::test(start_paused = true)]
async fn an_event_over_its_age_is_given_up_unsent() {
    let fixture = Fixture::new();
    let policy = json!({"suspend": true, "delivery": {"maxAge": "60s"}});
    fixture.destination("a", 1, &policy);
    fixture.publish("a", 1).await;
    fixture.pass(61).await;
    fixture.destination("a", 2, &json!({"delivery": {"maxAge": "60s"}}));
    fixture.pass(1).await;
    let view = fixture.view("a");
    assert_eq!((fixture.sent("a"), view.health.exhausted), (0, 1));
    assert_eq!(view.health.last_failure.unwrap().reason, FailureReason::TooOld);
    assert_eq!(view.health.consecutive_failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_removed_destination_takes_its_work_along() {
    let fixture = Fixture::new();
    fixture.destination("a", 1, &json!({"suspend": true}));
    fixture.publish("a", 7).await;
    fixture.directory.remove_destination(&identity("a", 1).uid);
    fixture.pass(1).await;
    assert_eq!(
        fixture.engine.core().queue.depth(&identity("a", 1).uid).pending,
        0
    );
    let line = "deliveries_total{outcome=\"dropped\",reason=\"DestinationDeleted\"} 7";
    assert!(metrics(&fixture).contains(line), "{}", metrics(&fixture));
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_attempts_and_then_lets_their_leases_lapse() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Take(Duration::from_secs(2), 200));
    fixture.destination("a", 1, &json!({}));
    fixture.receiver("b", &json!({"timeout": "60s"}), Script::Hang);
    fixture.publish("a", 1).await;
    fixture.publish("b", 1).await;
    fixture.pass(1).await;
    let engine = fixture.engine.clone();
    fixture.stop().await;
    let queue = &engine.core().queue;
    assert_eq!(
        queue.depth(&identity("a", 1).uid).pending,
        0,
        "its attempt ended within the grace period"
    );
    let now = engine.core().clock.now();
    let leased = queue.lease(&identity("b", 1).uid, now, 9).await.unwrap();
    assert_eq!(
        (leased.leases.len(), leased.leases[0].attempts),
        (1, 0),
        "our shutdown is no outcome"
    );
}

#[tokio::test]
async fn a_publisher_that_hangs_up_leaves_nothing_asleep() {
    let folder = tempfile::tempdir().unwrap();
    let settings = queue::sqlite::Settings::new(folder.path().join("queue.db"));
    let queue = queue::sqlite::SqliteQueue::open(settings, QueueMetrics::default(), Arc::new(SystemClock));
    let fixture = Fixture::with_queue(Arc::new(queue.await.unwrap()), 8);
    fixture.destination("a", 1, &json!({}));
    // The write takes a thread of its own, which may by chance be done before we look.
    let mut published = 1;
    while futures::poll!(Box::pin(fixture.try_publish("a"))).is_ready() {
        published += 1;
    }
    let sent = async {
        while fixture.sent("a") < published {
            // A poll, in real time: the file has threads of its own.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), sent)
        .await
        .expect("what was handed to the queue is sent");
}

#[tokio::test(start_paused = true)]
async fn a_destination_seen_before_the_stored_health_was_read_is_still_disabled() {
    let fixture = Fixture::new();
    let uid = identity("a", 1).uid;
    let disabled = Health {
        generation: 1,
        disabled: Some(crate::domain::health::Disabled {
            since: Timestamp::UNIX_EPOCH,
            reason: DisableReason::AutoDisabled,
            next_probe: None,
        }),
        ..Health::default()
    };
    // No runner task has had a turn yet: the test has not awaited anything.
    fixture.destination("a", 1, &json!({}));
    fixture
        .engine
        .core()
        .queue
        .save_health(vec![(uid.clone(), disabled)])
        .await
        .unwrap();
    fixture.publish("a", 1).await;
    fixture.pass(60).await;
    assert_eq!(fixture.sent("a"), 0);
    assert!(fixture.view("a").health.disabled.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_an_older_configuration_says_nothing_of_the_newer_one() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Take(Duration::from_secs(5), 410));
    fixture.destination("a", 1, &json!({"delivery": {"timeout": "10s"}}));
    fixture.publish("a", 1).await;
    fixture.pass(1).await;
    fixture.destination("a", 2, &json!({"delivery": {"timeout": "11s"}}));
    fixture.pass(10).await;
    let view = fixture.view("a");
    assert_eq!(
        (view.health.disabled, view.health.consecutive_failures),
        (None, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_probe_takes_the_oldest_delivery_however_far_away_its_retry_is() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Status(500));
    let policy = json!({
        "delivery": {"retry": {"schedule": ["24h"]}},
        "autoDisable": {"consecutiveFailures": 1, "minimumDuration": "0s", "probeInterval": "15m"},
    });
    fixture.destination("a", 1, &policy);
    fixture.publish("a", 1).await;
    fixture.pass(1).await;
    fixture.publish("a", 1).await;
    fixture.answer("a", Script::Status(200));
    fixture.pass(16 * 60).await;
    assert_eq!(fixture.view("a").health.delivered, 2);
    assert_eq!(order(&fixture, "a"), [0, 0, 1], "the younger one waits for it");
}

/// What the engine counts, as it is scraped.
fn metrics(fixture: &Fixture) -> String {
    let mut text = String::new();
    let mut registry = Registry::default();
    fixture.engine.core().metrics.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    text
}

/// The order of what was sent to a destination, as the numbers in which its events were first seen there.
fn order(fixture: &Fixture, name: &str) -> Vec<usize> {
    let path = format!("/{name}");
    let mut seen: Vec<String> = Vec::new();
    let sent = fixture.transport.sent.lock();
    let ids = sent.iter().filter(|(sent, _)| *sent == path).map(|(_, id)| id);
    ids.map(|id| {
        seen.iter().position(|other| other == id).unwrap_or_else(|| {
            seen.push(id.clone());
            seen.len() - 1
        })
    })
    .collect()
}

#[tokio::test(start_paused = true)]
async fn a_resumed_lane_sends_what_is_due_in_order_of_age() {
    let fixture = Fixture::new();
    let spec = |suspend: bool| json!({"suspend": suspend, "delivery": {"maxInFlight": 1, "retry": {"schedule": ["10s", "10s"]}}});
    fixture.answer("a", Script::Status(500));
    fixture.destination("a", 1, &spec(false));
    fixture.publish("a", 2).await;
    fixture.pass(1).await;
    fixture.destination("a", 2, &spec(true));
    fixture.publish("a", 2).await;
    fixture.pass(60).await;
    assert_eq!(order(&fixture, "a"), [0, 1]);
    fixture.answer("a", Script::Status(200));
    fixture.destination("a", 3, &spec(false));
    fixture.pass(1).await;
    assert_eq!(
        order(&fixture, "a"),
        [0, 1, 0, 1, 2, 3],
        "younger events, never tried, do not come before retries that are due"
    );
}

#[tokio::test(start_paused = true)]
async fn age_counts_from_acceptance_through_retries_and_suspension() {
    let fixture = Fixture::new();
    let age = || {
        let totals = lanes::totals(fixture.engine.core());
        (totals.oldest_age, totals.oldest_unparked_age)
    };
    assert_eq!(age(), (0, 0));
    fixture.answer("a", Script::Status(500));
    fixture.destination("a", 1, &json!({"delivery": {"retry": {"schedule": ["100s"]}}}));
    fixture.publish("a", 1).await;
    fixture.pass(50).await;
    assert_eq!(age(), (50, 50), "its retry is far away");
    fixture.destination("b", 1, &json!({"suspend": true}));
    fixture.publish("b", 1).await;
    fixture.pass(1000).await;
    assert_eq!(age(), (1000, 0), "only the parked one still waits");
}

#[tokio::test(start_paused = true)]
async fn work_of_a_namespace_that_is_no_longer_watched_is_kept_until_no_max_age_allows_it() {
    const DAY: u64 = 24 * 3600;
    let queue = Arc::new(MemoryQueue::default());
    let pending = |name: &str| queue.depth(&identity(name, 1).uid).pending;
    let first = Fixture::with_queue(queue.clone(), 8);
    first.answer("b", Script::Status(500));
    first.destination("a", 1, &json!({"suspend": true}));
    first.destination("b", 1, &json!({}));
    first.publish("a", 3).await;
    first.publish("b", 1).await;
    first.pass(60).await;
    first.stop().await;

    let narrow = Fixture::watching(queue.clone(), 8, Some("elsewhere"));
    narrow.pass(20 * DAY).await;
    let totals = lanes::totals(narrow.engine.core());
    assert_eq!((totals.parked, totals.unwatched), (4, 4));
    narrow.pass(9 * DAY).await;
    assert_eq!((pending("a"), pending("b")), (3, 1));
    narrow.pass(2 * DAY).await;
    assert_eq!((pending("a"), pending("b")), (0, 0));
    let line = "deliveries_total{outcome=\"dropped\",reason=\"NamespaceNotWatched\"} 4";
    assert!(metrics(&narrow).contains(line), "{}", metrics(&narrow));
}

/// What an engine leaves that had events for suspended destinations.
async fn queue_with_parked(events: &[(&str, usize)]) -> Arc<MemoryQueue> {
    let queue = Arc::new(MemoryQueue::default());
    let earlier = Fixture::with_queue(queue.clone(), 8);
    for (name, count) in events {
        earlier.destination(name, 1, &json!({"suspend": true}));
        earlier.publish(name, *count).await;
    }
    earlier.pass(60).await;
    earlier.stop().await;
    queue
}

#[tokio::test(start_paused = true)]
async fn what_is_absent_from_a_watched_namespace_is_dropped() {
    for (watched, left) in [(Some("elsewhere"), 3), (Some("ns"), 0), (None, 0)] {
        let queue = queue_with_parked(&[("a", 3)]).await;
        let fixture = Fixture::watching(queue.clone(), 8, watched);
        fixture.pass(60).await;
        let pending = queue.depth(&identity("a", 1).uid).pending;
        assert_eq!(pending, left, "{watched:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn work_of_an_unknown_namespace_is_kept_unless_its_destination_was_seen_to_go() {
    let queue = queue_with_parked(&[("a", 1), ("b", 1)]).await;
    // As an older version stored it.
    let old = Health {
        revision: 1000,
        ..Health::default()
    };
    let unknown = ["a", "b"].map(|name| (identity(name, 1).uid, old.clone()));
    queue.save_health(unknown.to_vec()).await.unwrap();
    let fixture = Fixture::watching(queue.clone(), 8, Some("ns"));
    fixture.directory.remove_destination(&identity("b", 1).uid);
    fixture.pass(60).await;
    let pending = ["a", "b"].map(|name| queue.depth(&identity(name, 1).uid).pending);
    assert_eq!(pending, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_while_the_process_was_down_is_dropped_as_soon_as_that_is_known() {
    let queue = queue_with_parked(&[("a", 3)]).await;
    let fixture = Fixture::unsynced(queue.clone());
    // Past the sweep that comes with the start.
    fixture.pass(5).await;
    assert_eq!(queue.depth(&identity("a", 1).uid).pending, 3);
    fixture.sync();
    fixture.pass(1).await;
    assert_eq!(queue.depth(&identity("a", 1).uid).pending, 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_panics_is_made_again_after_a_pause() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Panic);
    fixture.destination("a", 1, &json!({}));
    fixture.publish("a", 1).await;
    fixture.pass(10).await;
    let sent = fixture.sent("a");
    assert!((2..=11).contains(&sent), "{sent} attempts in ten seconds");
    let line = format!("attempts_broken_total {sent}");
    assert!(metrics(&fixture).contains(&line), "{}", metrics(&fixture));
    fixture.answer("a", Script::Status(200));
    fixture.pass(2).await;
    let view = fixture.view("a");
    assert_eq!((view.health.delivered, view.depth.pending), (1, 0));
    assert_eq!(
        view.health.last_failure, None,
        "our fault says nothing of the receiver"
    );
}

#[tokio::test(start_paused = true)]
async fn counters_that_could_not_be_stored_are_stored_later() {
    let fixture = Fixture::new();
    fixture.destination("a", 1, &json!({}));
    fixture.publish("a", 1).await;
    fixture.pass(1).await;
    let core = fixture.engine.core();
    core.queue.close().await;
    save_counters(core).await;
    let lanes = core.running_lanes();
    assert!(lanes.iter().any(|lane| lane.take_activity().is_some()));
}

/// Counts warnings and errors.
#[derive(Clone, Default)]
struct Loud(Arc<std::sync::atomic::AtomicUsize>);

impl tracing::Subscriber for Loud {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_every_lane_is_a_few_lines_in_the_log() {
    let loud = Loud::default();
    let _logging = tracing::subscriber::set_default(loud.clone());
    let queue = Arc::new(MemoryQueue::default());
    let fixture = Fixture::with_queue(queue.clone(), 64);
    for lane in 0..100 {
        let name = format!("lane{lane}");
        fixture.destination(&name, 1, &json!({"suspend": true}));
        fixture.publish(&name, 1).await;
    }
    fixture.pass(1).await;
    queue.fail(Some(QueueError::DiskFull));
    for lane in 0..100 {
        fixture.destination(&format!("lane{lane}"), 2, &json!({}));
    }
    fixture.pass(50).await;
    let lines = loud.0.load(std::sync::atomic::Ordering::Relaxed);
    assert!((1..=8).contains(&lines), "{lines} lines");
}
