//! What the engine's tests share: a clock that follows tokio's time, scripted receivers, an engine over them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::api::v1alpha1::EventDestinationSpec;
use crate::domain::delivery::WebhookRequest;
use crate::domain::destination::{Destination, Identity, References, Subscription};
use crate::domain::egress::EgressPolicy;
use crate::domain::email::Mail;
use crate::domain::email::settled::Fate;
use crate::domain::event::{parse, sample};
use crate::domain::id::ObjectKey;
use crate::domain::outcome::{Failure, FailureReason, Reply};
use crate::domain::project::{Project, Token};
use crate::domain::retry;
use crate::engine::directory::{DirectoryListener, Entry, EntryState, Kind};
use crate::engine::publish::{PublishError, Publisher, Receipt};
use crate::engine::queue::memory::MemoryQueue;
use crate::engine::view::{DeliveryView, LaneView};
use crate::engine::*;

/// A clock that follows tokio's time, so paused tests move both; besides, it jumps when it is told to.
pub(super) struct TestClock {
    start: tokio::time::Instant,
    /// Seconds that it is off, and how often it was asked.
    off: AtomicI64,
    asked: AtomicUsize,
    /// Milliseconds that it goes on whenever it is asked.
    pub(super) tick: AtomicI64,
}

impl TestClock {
    pub(super) fn new() -> Self {
        Self {
            start: tokio::time::Instant::now(),
            off: AtomicI64::new(0),
            asked: AtomicUsize::new(0),
            tick: AtomicI64::new(0),
        }
    }

    /// Jumps by so many seconds.
    pub(super) fn jump(&self, seconds: i64) {
        self.off.fetch_add(seconds, Ordering::Relaxed);
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed);
        let start: Timestamp = "2026-01-31T08:00:00Z".parse().unwrap();
        let off = jiff::SignedDuration::from_secs(self.off.load(Ordering::Relaxed));
        let ticks = self.tick.load(Ordering::Relaxed) * i64::try_from(asked).unwrap();
        let off = off + jiff::SignedDuration::from_millis(ticks);
        retry::after(start + off, self.start.elapsed())
    }
}

/// Bytes of events in flight.
pub(super) const IN_FLIGHT_BYTES: usize = 4 << 20;

/// What a scripted receiver does.
#[derive(Clone, Copy)]
pub(super) enum Script {
    Status(u16),
    Hang,
    /// Takes a while before it answers.
    Take(Duration, u16),
    Panic,
    /// Fails an id up to twice, which depends on the id, and then takes it.
    Flaky,
    /// Fails ids that begin so.
    FailIds(&'static str),
}

#[derive(Default)]
pub(super) struct ScriptedTransport {
    pub(super) scripts: Mutex<HashMap<String, Script>>,
    pub(super) sent: Mutex<Vec<(String, String)>>,
    pub(super) in_flight: Mutex<HashMap<String, (usize, usize)>>,
    /// Path, origin and reason of each dead letter that was sent.
    pub(super) dead_letters: Mutex<Vec<[String; 3]>>,
    /// The `webhook-timestamp` of each request.
    pub(super) timestamps: Mutex<Vec<String>>,
    /// Path, id and events of each batch that was sent.
    pub(super) batches: Mutex<Vec<(String, String, Vec<serde_json::Value>)>>,
}

#[async_trait]
impl Transport for ScriptedTransport {
    async fn send(&self, request: &WebhookRequest, deadline: Duration) -> Result<Reply, Failure> {
        let path = request.endpoint.expose().path().to_owned();
        let id = request.headers["webhook-id"].to_str().unwrap().to_owned();
        self.sent.lock().push((path.clone(), id.clone()));
        let timestamp = request.headers.get("webhook-timestamp");
        let timestamp = timestamp.map(|value| value.to_str().unwrap().to_owned());
        self.timestamps.lock().extend(timestamp);
        if let Some(from) = request.headers.get("x-postrider-dead-letter-from") {
            let texts = [from, &request.headers["x-postrider-dead-letter-reason"]];
            let [from, reason] = texts.map(|value| value.to_str().unwrap().to_owned());
            self.dead_letters.lock().push([path.clone(), from, reason]);
        }
        if request.headers.contains_key(crate::domain::delivery::batch::SIZE) {
            let events = serde_json::from_slice(&request.body).unwrap();
            self.batches.lock().push((path.clone(), id.clone(), events));
        }
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
                Script::Flaky => {
                    let times = id.bytes().map(usize::from).sum::<usize>() % 3;
                    let sent = self.sent.lock().iter().filter(|(_, sent)| *sent == id).count();
                    if sent <= times { 500 } else { 200 }
                }
                Script::FailIds(prefix) => {
                    if id.starts_with(prefix) {
                        500
                    } else {
                        200
                    }
                }
                Script::Hang => std::future::pending().await,
                Script::Panic => panic!("as asked"),
                Script::Take(time, status) => {
                    // What the receiver was told to take of the paused time.
                    tokio::time::sleep(time).await;
                    status
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

/// A mail server that takes what its script says, recipient by recipient; by default everything.
#[derive(Default)]
pub(super) struct ScriptedMailer {
    pub(super) fates: Mutex<Vec<Fate>>,
    /// Message-ID and address of each letter and recipient that was said.
    pub(super) sent: Mutex<Vec<(String, String)>>,
    /// What letters said of the destination that gave their event up.
    pub(super) dead_letters: Mutex<Vec<String>>,
}

#[async_trait]
impl Mailer for ScriptedMailer {
    async fn mail(&self, mail: &Mail, _: Duration) -> Vec<Fate> {
        let mut script = self.fates.lock();
        let mut fates = Vec::new();
        for letter in &mail.letters {
            let of_dead = letter
                .headers
                .iter()
                .filter(|(name, _)| name.contains("Dead-Letter"));
            let mut told = self.dead_letters.lock();
            told.extend(of_dead.map(|(_, value)| value.clone()));
            drop(told);
            for recipient in &letter.recipients {
                let said = (letter.message_id.clone(), recipient.mailbox.address());
                self.sent.lock().push(said);
                fates.push(if script.is_empty() {
                    Fate::Taken
                } else {
                    script.remove(0)
                });
            }
        }
        fates
    }
}

pub(super) struct Fixture {
    pub(super) clock: Arc<TestClock>,
    pub(super) mailer: Arc<ScriptedMailer>,
    pub(super) engine: Engine,
    pub(super) directory: Arc<Directory>,
    pub(super) transport: Arc<ScriptedTransport>,
    pub(super) project: Arc<Project>,
    pub(super) shutdown: CancellationToken,
    pub(super) running: JoinHandle<Result<(), EngineError>>,
    _listener: Arc<dyn DirectoryListener>,
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with_places(64)
    }

    pub(super) fn with_places(max_in_flight: usize) -> Self {
        Self::with_queue(Arc::new(MemoryQueue::default()), max_in_flight)
    }

    pub(super) fn with_queue(queue: Arc<dyn Queue>, max_in_flight: usize) -> Self {
        Self::watching(queue, max_in_flight, None)
    }

    /// An engine whose directory is not complete yet.
    pub(super) fn unsynced(queue: Arc<dyn Queue>) -> Self {
        Self::start(queue, 8, None, false)
    }

    /// An engine that sees the destinations of one namespace only.
    pub(super) fn watching(queue: Arc<dyn Queue>, max_in_flight: usize, watched: Option<&str>) -> Self {
        Self::start(queue, max_in_flight, watched, true)
    }

    fn start(queue: Arc<dyn Queue>, max_in_flight: usize, watched: Option<&str>, synced: bool) -> Self {
        let clock = Arc::new(TestClock::new());
        let directory = Arc::new(Directory::new());
        let transport = Arc::new(ScriptedTransport::default());
        let mailer = Arc::new(ScriptedMailer::default());
        let (engine, runner) = Engine::new(Parts {
            deliveries: Arc::new(deliveries::memory::MemoryLog::default()),
            directory: Arc::clone(&directory),
            queue,
            transport: Arc::clone(&transport) as Arc<dyn Transport>,
            mailer: Arc::clone(&mailer) as Arc<dyn Mailer>,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            metrics: EngineMetrics::default(),
            max_in_flight,
            max_in_flight_bytes: IN_FLIGHT_BYTES,
            watched_namespace: watched.map(ToOwned::to_owned),
        });
        let listener: Arc<dyn DirectoryListener> = Arc::new(engine.clone());
        directory.set_listener(Arc::downgrade(&listener));
        let project = Arc::new(Project {
            types: Arc::default(),
            key: ObjectKey::new("ns", "p"),
            facts: Arc::new(sample::bare_project("project-uid", "P")),
            token: Token::Unknown,
        });
        let shutdown = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
        let running = tokio::spawn(runner.run(shutdown.clone(), Duration::from_secs(5)));
        let fixture = Self {
            clock,
            engine,
            directory,
            transport,
            mailer,
            project,
            shutdown,
            running,
            _listener: listener,
        };
        if synced {
            fixture.sync();
        }
        fixture
    }

    /// Says that every object was looked at.
    pub(super) fn sync(&self) {
        for kind in Kind::ALL {
            self.directory.mark_synced(kind);
        }
    }

    /// Puts a destination at `/name`; `more` is merged over its spec.
    pub(super) fn destination(&self, name: &str, generation: i64, more: &serde_json::Value) {
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

    pub(super) fn not_ready(&self, name: &str) {
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

    pub(super) fn answer(&self, name: &str, script: Script) {
        self.transport.scripts.lock().insert(format!("/{name}"), script);
    }

    /// Puts a destination at `/name` with its `delivery`, and says what its receiver does.
    pub(super) fn receiver(&self, name: &str, delivery: &serde_json::Value, script: Script) {
        self.answer(name, script);
        self.destination(name, 1, &json!({"delivery": delivery}));
    }

    pub(super) async fn publish(&self, event_type: &str, count: usize) {
        for _ in 0..count {
            self.try_publish(event_type).await.unwrap();
        }
    }

    pub(super) async fn try_publish(&self, event_type: &str) -> Result<(), PublishError> {
        self.try_publish_sized(event_type, 0).await
    }

    /// Publishes an event with so many bytes of data.
    pub(super) async fn try_publish_sized(&self, event_type: &str, size: usize) -> Result<(), PublishError> {
        let body = json!({"type": event_type, "data": {"text": "x".repeat(size)}}).to_string();
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

    /// Publishes a batch.
    pub(super) async fn try_publish_all(
        &self,
        events: &Vec<serde_json::Value>,
    ) -> Result<Vec<Receipt>, PublishError> {
        let headers = http::HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        )]);
        let drafts = parse::parse(json!(events).to_string().as_bytes(), &headers).unwrap();
        self.engine.publish(Arc::clone(&self.project), drafts).await
    }

    /// Publishes an event with an id and a user.
    pub(super) async fn publish_for(&self, event_type: &str, id: &str, user: &str) {
        let body = json!({"type": event_type, "id": id, "user": {"id": user}}).to_string();
        let headers = http::HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        )]);
        let drafts = parse::parse(body.as_bytes(), &headers).unwrap();
        let published = self.engine.publish(Arc::clone(&self.project), drafts).await;
        published.unwrap();
    }

    /// The ids that a receiver was sent, in order.
    pub(super) fn ids(&self, name: &str) -> Vec<String> {
        let path = format!("/{name}");
        let sent = self.transport.sent.lock();
        let own = sent.iter().filter(|(sent, _)| *sent == path);
        own.map(|(_, id)| id.clone()).collect()
    }

    pub(super) fn sent(&self, name: &str) -> usize {
        let path = format!("/{name}");
        self.transport
            .sent
            .lock()
            .iter()
            .filter(|(sent, _)| *sent == path)
            .count()
    }

    pub(super) fn most_in_flight(&self, name: &str) -> usize {
        self.transport
            .in_flight
            .lock()
            .get(&format!("/{name}"))
            .map_or(0, |(_, most)| *most)
    }

    pub(super) fn view(&self, name: &str) -> LaneView {
        self.engine.view(&identity(name, 1).uid).unwrap_or_default()
    }

    /// Lets so much of the paused time pass; everything that is due by then happens.
    pub(super) async fn pass(&self, seconds: u64) {
        self.pass_time(Duration::from_secs(seconds)).await;
    }

    pub(super) async fn pass_time(&self, time: Duration) {
        // It takes no time: the clock is paused, and moves when nothing else can.
        tokio::time::sleep(time).await;
    }

    /// Stops the engine, as the end of the process does.
    pub(super) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }
}

pub(super) fn identity(name: &str, generation: i64) -> Identity {
    Identity {
        key: ObjectKey::new("ns", name),
        uid: Uid::new(&format!("uid-{name}")),
        generation,
    }
}
