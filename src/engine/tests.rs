//! The engine with a queue in memory, a scripted transport and tokio's paused time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::task::JoinHandle;

use super::*;
use crate::api::v1alpha1::EventDestinationSpec;
use crate::domain::delivery::WebhookRequest;
use crate::domain::destination::{Destination, Identity, References, Subscription};
use crate::domain::egress::EgressPolicy;
use crate::domain::event::parse;
use crate::domain::health::DisableReason;
use crate::domain::id::ObjectKey;
use crate::domain::outcome::{Failure, FailureReason, Reply};
use crate::domain::project::{Project, ProjectFacts, Token};
use crate::domain::retry;
use crate::engine::clock::SystemClock;
use crate::engine::directory::{DirectoryListener, Entry, EntryState, Kind};
use crate::engine::publish::{PublishError, Publisher};
use crate::engine::queue::memory::MemoryQueue;
use crate::engine::queue::metrics::QueueMetrics;
use crate::engine::view::{DeliveryView, LaneView};

/// A clock that follows tokio's time, so paused tests move both.
struct TestClock {
    start: tokio::time::Instant,
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        retry::after("2026-01-31T08:00:00Z".parse().unwrap(), self.start.elapsed())
    }
}

/// What a scripted receiver does.
#[derive(Clone, Copy)]
enum Script {
    Status(u16),
    Hang,
    Take(Duration),
}

#[derive(Default)]
struct ScriptedTransport {
    scripts: Mutex<HashMap<String, Script>>,
    sent: Mutex<Vec<(String, String)>>,
    in_flight: Mutex<HashMap<String, (usize, usize)>>,
}

#[async_trait]
impl Transport for ScriptedTransport {
    async fn send(&self, request: WebhookRequest, deadline: Duration) -> Result<Reply, Failure> {
        let path = request.endpoint.expose().path().to_owned();
        let id = request.headers["webhook-id"].to_str().unwrap().to_owned();
        self.sent.lock().push((path.clone(), id));
        {
            let mut in_flight = self.in_flight.lock();
            let (now, most) = in_flight.entry(path.clone()).or_default();
            *now += 1;
            *most = (*most).max(*now);
        }
        let script = self
            .scripts
            .lock()
            .get(&path)
            .copied()
            .unwrap_or(Script::Status(200));
        let work = async {
            match script {
                Script::Status(status) => status,
                Script::Hang => std::future::pending().await,
                Script::Take(time) => {
                    tokio::time::sleep(time).await;
                    200
                }
            }
        };
        let result = tokio::time::timeout(deadline, work).await;
        self.in_flight.lock().get_mut(&path).unwrap().0 -= 1;
        match result {
            Ok(status) => Ok(Reply {
                status,
                ..Reply::default()
            }),
            Err(_) => Err(Failure::new(FailureReason::Timeout, "the deadline passed")),
        }
    }
}

struct Fixture {
    engine: Engine,
    directory: Arc<Directory>,
    transport: Arc<ScriptedTransport>,
    project: Arc<Project>,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), EngineError>>,
    _listener: Arc<dyn DirectoryListener>,
}

impl Fixture {
    fn new() -> Self {
        Self::with_places(64)
    }

    fn with_places(max_in_flight: usize) -> Self {
        Self::with_queue(Arc::new(MemoryQueue::default()), max_in_flight)
    }

    fn with_queue(queue: Arc<dyn Queue>, max_in_flight: usize) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TestClock {
            start: tokio::time::Instant::now(),
        });
        let directory = Arc::new(Directory::new());
        let transport = Arc::new(ScriptedTransport::default());
        let (engine, runner) = Engine::new(Parts {
            directory: Arc::clone(&directory),
            queue,
            transport: Arc::clone(&transport) as Arc<dyn Transport>,
            clock,
            metrics: EngineMetrics::default(),
            max_in_flight,
        });
        let listener: Arc<dyn DirectoryListener> = Arc::new(engine.clone());
        directory.set_listener(Arc::downgrade(&listener));
        let facts = ProjectFacts {
            uid: Uid::new("project-uid"),
            id: "p".into(),
            name: "P".into(),
            environment: None,
            account_id: None,
            account_name: None,
        };
        let project = Arc::new(Project {
            key: ObjectKey::new("ns", "p"),
            facts: Arc::new(facts),
            token: Token::Unknown,
        });
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(runner.run(shutdown.clone(), Duration::from_secs(5)));
        Kind::ALL.into_iter().for_each(|kind| directory.mark_synced(kind));
        Self {
            engine,
            directory,
            transport,
            project,
            shutdown,
            running,
            _listener: listener,
        }
    }

    /// Puts a destination at `/name`; `more` is merged over its spec.
    fn destination(&self, name: &str, generation: i64, more: &serde_json::Value) {
        let mut spec = json!({
            "events": [name],
            "webhook": {"url": format!("https://example.com/{name}"), "signing": {"scheme": "None"}},
        });
        spec.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let spec: EventDestinationSpec = serde_json::from_value(spec).unwrap();
        let identity = identity(name, generation);
        let subscription = Subscription::of(&spec);
        let destination = Destination::try_from_spec(
            identity.clone(),
            &spec,
            &References::new(),
            &EgressPolicy::default(),
        )
        .unwrap();
        let state = EntryState::Ready(Arc::new(destination));
        self.directory.put_destination(Entry {
            identity,
            subscription,
            state,
            enable_request: None,
        });
    }

    fn not_ready(&self, name: &str) {
        let subscription = Subscription::lenient(None, std::iter::once(name));
        let identity = identity(name, 1);
        let entry = Entry {
            identity,
            subscription,
            state: EntryState::NotReady,
            enable_request: None,
        };
        self.directory.put_destination(entry);
    }

    fn answer(&self, name: &str, script: Script) {
        self.transport.scripts.lock().insert(format!("/{name}"), script);
    }

    async fn publish(&self, event_type: &str, count: usize) {
        for _ in 0..count {
            self.try_publish(event_type).await.unwrap();
        }
    }

    async fn try_publish(&self, event_type: &str) -> Result<(), PublishError> {
        let body = json!({"type": event_type}).to_string();
        let headers = http::HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        )]);
        let drafts = parse::parse(body.as_bytes(), &headers).unwrap();
        self.engine
            .publish(Arc::clone(&self.project), drafts)
            .await
            .map(drop)
    }

    fn sent(&self, name: &str) -> usize {
        let path = format!("/{name}");
        self.transport
            .sent
            .lock()
            .iter()
            .filter(|(sent, _)| *sent == path)
            .count()
    }

    fn most_in_flight(&self, name: &str) -> usize {
        self.transport
            .in_flight
            .lock()
            .get(&format!("/{name}"))
            .map_or(0, |(_, most)| *most)
    }

    fn view(&self, name: &str) -> LaneView {
        self.engine.view(&identity(name, 1).uid).unwrap_or_default()
    }

    /// Lets so much of the paused time pass; everything that is due by then happens.
    async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

fn identity(name: &str, generation: i64) -> Identity {
    Identity {
        key: ObjectKey::new("ns", name),
        uid: Uid::new(&format!("uid-{name}")),
        generation,
    }
}

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
        directory,
        queue: Arc::new(MemoryQueue::default()),
        transport: Arc::clone(&fixture.transport) as Arc<dyn Transport>,
        clock: Arc::new(TestClock {
            start: tokio::time::Instant::now(),
        }),
        metrics: EngineMetrics::default(),
        max_in_flight: 2,
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
async fn a_hanging_lane_keeps_to_its_share_while_another_flows() {
    let fixture = Fixture::with_places(8);
    fixture.answer("hangs", Script::Hang);
    fixture.answer("works", Script::Take(Duration::from_millis(1)));
    fixture.destination(
        "hangs",
        1,
        &json!({"delivery": {"maxInFlight": 4, "timeout": "60s"}}),
    );
    fixture.destination("works", 1, &json!({"delivery": {"maxInFlight": 4}}));
    fixture.publish("hangs", 700).await;
    fixture.publish("works", 100).await;
    fixture.pass(1).await;
    assert_eq!(fixture.sent("works"), 100);
    assert_eq!(fixture.most_in_flight("hangs"), 4);
    fixture.pass(600).await;
    assert_eq!(
        fixture.transport.in_flight.lock()["/hangs"].0,
        1,
        "after failures it is tried with one at a time"
    );
}

#[tokio::test(start_paused = true)]
async fn lanes_that_fail_share_half_of_the_places() {
    let fixture = Fixture::with_places(4);
    for index in 0..10 {
        let name = format!("hangs{index}");
        fixture.answer(&name, Script::Hang);
        fixture.destination(
            &name,
            1,
            &json!({"delivery": {"timeout": "1s", "maxInFlight": 1}}),
        );
        fixture.publish(&name, 50).await;
    }
    fixture.pass(20).await;
    fixture.destination("works", 1, &json!({}));
    for _ in 0..5 {
        fixture.publish("works", 1).await;
        let before = fixture.sent("works");
        fixture.pass(0).await;
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(
            fixture.sent("works") >= before,
            "it never waits for a failing receiver's deadline"
        );
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(fixture.sent("works"), 5);
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
    fixture.answer("a", Script::Take(Duration::from_millis(100)));
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
    let mut text = String::new();
    let mut registry = Registry::default();
    fixture.engine.core().metrics.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(
        text.contains("deliveries_total{outcome=\"dropped\",reason=\"DestinationDeleted\"} 7"),
        "{text}"
    );
}

#[tokio::test(start_paused = true)]
async fn stopping_waits_for_attempts_and_then_lets_their_leases_lapse() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Take(Duration::from_secs(2)));
    fixture.answer("b", Script::Hang);
    fixture.destination("a", 1, &json!({}));
    fixture.destination("b", 1, &json!({"delivery": {"timeout": "60s"}}));
    fixture.publish("a", 1).await;
    fixture.publish("b", 1).await;
    fixture.pass(1).await;
    fixture.shutdown.cancel();
    fixture.running.await.unwrap().unwrap();
    let queue = &fixture.engine.core().queue;
    assert_eq!(
        queue.depth(&identity("a", 1).uid).pending,
        0,
        "its attempt ended within the grace period"
    );
    let now = fixture.engine.core().clock.now();
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
    let mut publishing = Box::pin(fixture.try_publish("a"));
    assert!(
        futures::poll!(&mut publishing).is_pending(),
        "the write takes a thread of its own"
    );
    drop(publishing);
    let sent = async {
        while fixture.sent("a") == 0 {
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
