//! The engine over a file of SQLite on a volume that is full.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use postrider::domain::delivery::WebhookRequest;
use postrider::domain::destination::{Destination, Identity, References, Subscription};
use postrider::domain::egress::EgressPolicy;
use postrider::domain::email::Mail;
use postrider::domain::email::settled::Fate;
use postrider::domain::event::parse;
use postrider::domain::id::{ObjectKey, Uid};
use postrider::domain::outcome::{Failure, Reply};
use postrider::domain::project::{Project, Token};
use postrider::engine::clock::SystemClock;
use postrider::engine::deliveries::NoLog;
use postrider::engine::directory::{Directory, DirectoryListener, Entry, EntryState, Kind};
use postrider::engine::metrics::EngineMetrics;
use postrider::engine::publish::{PublishError, Publisher};
use postrider::engine::queue::metrics::QueueMetrics;
use postrider::engine::queue::sqlite::SqliteQueue;
use postrider::engine::queue::{Queue, QueueError};
use postrider::engine::transport::{Mailer, Transport};
use postrider::engine::{Engine, EngineError, Parts};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::facts;
use super::file::QueueFile;
use crate::support::until;

/// A receiver that takes everything, once it may.
struct Receiver {
    open: Semaphore,
    asked: AtomicUsize,
    sent: Mutex<HashMap<String, u32>>,
}

impl Receiver {
    fn sent(&self) -> usize {
        self.sent.lock().values().map(|count| *count as usize).sum()
    }
}

#[async_trait]
impl Transport for Receiver {
    async fn send(&self, request: &WebhookRequest, _deadline: Duration) -> Result<Reply, Failure> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        drop(self.open.acquire().await.unwrap());
        let id = request.headers["webhook-id"].to_str().unwrap().to_owned();
        *self.sent.lock().entry(id).or_insert(0) += 1;
        Ok(Reply {
            status: 200,
            ..Reply::default()
        })
    }
}

#[async_trait]
impl Mailer for Receiver {
    async fn mail(&self, _: &Mail, _: Duration) -> Vec<Fate> {
        panic!("no destination here is an e-mail")
    }
}

struct Running {
    engine: Engine,
    receiver: Arc<Receiver>,
    queue: Arc<SqliteQueue>,
    metrics: QueueMetrics,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), EngineError>>,
    _listener: Arc<dyn DirectoryListener>,
}

impl Running {
    /// An engine with one destination, whose receiver is closed at first.
    async fn start(file: &QueueFile) -> Self {
        let metrics = file.metrics.clone();
        let queue = SqliteQueue::open(file.settings.clone(), metrics.clone(), Arc::new(SystemClock));
        let queue = Arc::new(queue.await.unwrap());
        let directory = Arc::new(Directory::new());
        let receiver = Arc::new(Receiver {
            open: Semaphore::new(0),
            asked: AtomicUsize::new(0),
            sent: Mutex::default(),
        });
        let (engine, runner) = Engine::new(Parts {
            deliveries: Arc::new(NoLog),
            directory: Arc::clone(&directory),
            queue: Arc::clone(&queue) as Arc<dyn Queue>,
            transport: Arc::clone(&receiver) as Arc<dyn Transport>,
            mailer: Arc::clone(&receiver) as Arc<dyn Mailer>,
            clock: Arc::new(SystemClock),
            metrics: EngineMetrics::default(),
            max_in_flight: 64,
            max_in_flight_bytes: 64 << 20,
            watched_namespace: None,
        });
        let listener: Arc<dyn DirectoryListener> = Arc::new(engine.clone());
        directory.set_listener(Arc::downgrade(&listener));
        let shutdown = CancellationToken::new();
        let task = tokio::spawn(runner.run(shutdown.clone(), Duration::from_secs(5)));
        directory.put_destination(destination());
        for kind in Kind::ALL {
            directory.mark_synced(kind);
        }
        Self {
            engine,
            receiver,
            queue,
            metrics,
            shutdown,
            task,
            _listener: listener,
        }
    }

    async fn publish(&self, id: &str) -> Result<(), PublishError> {
        let body = json!({"id": id, "type": "a", "data": {"text": "x".repeat(3_000)}}).to_string();
        let headers = http::HeaderMap::from_iter([(
            http::header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json"),
        )]);
        let project = Arc::new(Project {
            types: Arc::default(),
            key: ObjectKey::new("ns", "p"),
            facts: facts("p"),
            token: Token::Unknown,
        });
        let drafts = parse::parse(body.as_bytes(), &headers).unwrap();
        self.engine.publish(project, drafts).await.map(drop)
    }

    /// Publishes until it is refused; returns how many were taken.
    async fn publish_until_full(&self) -> usize {
        for number in 0.. {
            if let Err(error) = self.publish(&format!("e{number}")).await {
                assert_eq!(error, PublishError::Queue(QueueError::DiskFull));
                return number;
            }
        }
        unreachable!()
    }

    async fn all_delivered_once(&self, count: usize) {
        until(|| self.queue.depth(&identity().uid).pending == 0).await;
        let sent = self.receiver.sent.lock();
        assert_eq!((sent.len(), sent.values().max()), (count, Some(&1)));
    }

    async fn stop(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
        self.queue.close().await;
    }
}

fn identity() -> Identity {
    Identity {
        key: ObjectKey::new("ns", "a"),
        uid: Uid::new("uid-a"),
        generation: 1,
    }
}

fn destination() -> Entry {
    let spec = json!({
        "events": ["a"],
        "webhook": {"url": "https://example.com/a", "signing": {"scheme": "None"}},
    });
    let spec = serde_json::from_value(spec).unwrap();
    let made =
        Destination::try_from_spec(identity(), &spec, &References::new(), &EgressPolicy::default()).unwrap();
    Entry {
        identity: identity(),
        subscription: Subscription::of(&spec),
        state: EntryState::Ready(Arc::new(made)),
        enable_request: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_accepted_is_delivered_once_on_a_full_volume() {
    let volume = small_volume!("40m");
    let file = volume.file();
    let running = Running::start(&file).await;
    file.reserved().await;
    let filler = volume.fill_up();
    let taken = running.publish_until_full().await;
    assert!(taken > 0, "the reserve has room for events");
    running.receiver.open.add_permits(64);
    running.all_delivered_once(taken).await;
    assert_eq!(running.metrics.failed_settlements.get(), 0);
    filler.give_back();
    file.reserved().await;
    running.publish("after").await.unwrap();
    running.all_delivered_once(taken + 1).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_twice_while_results_cannot_be_stored() {
    let volume = small_volume!("40m");
    let file = volume.file_with(|settings| {
        settings.reserve_bytes = 0;
        settings.settle_patience = Duration::ZERO;
    });
    let running = Running::start(&file).await;
    for number in 0..100 {
        running.publish(&format!("e{number}")).await.unwrap();
    }
    // As many as one destination may have at once.
    until(|| running.receiver.asked.load(Ordering::Relaxed) == 16).await;
    let filler = volume.fill_up();
    running.receiver.open.add_permits(64);
    until(|| running.metrics.unsettled.get() == 16).await;
    let refused = running.publish("no").await;
    assert_eq!(refused, Err(PublishError::Queue(QueueError::DiskFull)));
    assert_eq!(running.receiver.sent(), 16);
    filler.give_back();
    running.all_delivered_once(100).await;
    assert_eq!(running.metrics.failed_settlements.get(), 0);
    running.publish("after").await.unwrap();
    running.all_delivered_once(101).await;
    running.stop().await;
}
