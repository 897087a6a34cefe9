//! The publish API and the administration server, over real sockets.
//!
//! [`Server`] runs them with short deadlines over an in-test publisher, whose answer to an event depends on its type.
//! Hostile clients write raw bytes; while they do, a good client must be served as ever.

mod api;
mod described;
mod hostile;
mod multiplexed;
mod stop;
mod told;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use postrider::adapters::http::{
    AdminServer, AdminState, HttpMetrics, HttpSettings, PublishServer, PublishState, Readiness,
};
use postrider::domain::id::{EventId, ObjectKey};
use postrider::domain::project::{Project, Token};
use postrider::domain::secret::Secret;
use postrider::engine::clock::SystemClock;
use postrider::engine::publish::{Access, Authorizer, Draft, PublishError, Publisher, Receipt, Right};
use postrider::engine::queue::QueueError;
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{bare_project, eventually};

pub(crate) const TOKEN: &str = "pr_5up3rs3cr3t";
pub(crate) const EVENTS: &str = "/v1/namespaces/team/projects/acme/events";
/// Longest a good client may wait while others misbehave.
const UNHARMED: Duration = Duration::from_secs(2);
/// Longest any exchange of a test may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Limits with deadlines a test can wait for.
pub(crate) fn settings() -> HttpSettings {
    HttpSettings {
        header_timeout: Duration::from_millis(300),
        body_timeout: Duration::from_millis(300),
        write_timeout: Duration::from_millis(500),
        answer_timeout: Duration::from_millis(800),
        idle_timeout: Duration::from_millis(700),
        grace: Duration::from_secs(2),
        body_bytes: 64 * 1024,
        ..HttpSettings::default()
    }
}

/// What a publisher's client sees of the engine.
pub(crate) struct Stub {
    project: Arc<Project>,
    pub(crate) ready: AtomicBool,
    seen: Mutex<HashSet<String>>,
    /// Events of type `slow` wait for one of these.
    pub(crate) gate: Semaphore,
    /// Events of type `slow` that wait.
    pub(crate) waiting: AtomicUsize,
}

#[async_trait]
impl Publisher for Stub {
    fn is_unusable(&self, _: &ObjectKey) -> bool {
        false
    }

    fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    fn project(&self, key: &ObjectKey) -> Option<Arc<Project>> {
        (*key == self.project.key).then(|| Arc::clone(&self.project))
    }

    async fn publish(
        &self,
        _project: Arc<Project>,
        drafts: Vec<Draft>,
    ) -> Result<Vec<Receipt>, PublishError> {
        let mut receipts = Vec::new();
        for (index, draft) in drafts.into_iter().enumerate() {
            match &*draft.content.event_type {
                "full" => return Err(QueueError::ProjectFull { pending: 7, limit: 7 }.into()),
                "disk" => return Err(QueueError::DiskFull.into()),
                "broken" => return Err(QueueError::Unavailable("/var/lib/secret/path".to_owned()).into()),
                "overload" => return Err(QueueError::Overloaded.into()),
                "closed" => return Err(QueueError::Closed.into()),
                "stopping" => return Err(PublishError::Stopping),
                "panic" => panic!("as asked"),
                "slow" => {
                    self.waiting.fetch_add(1, Ordering::SeqCst);
                    self.gate.acquire().await.unwrap().forget();
                    self.waiting.fetch_sub(1, Ordering::SeqCst);
                }
                _ => {}
            }
            let id = draft
                .id
                .unwrap_or_else(|| EventId::parse(&format!("made-{index}")).unwrap());
            let duplicate = !self.seen.lock().insert(id.as_str().to_owned());
            receipts.push(Receipt {
                id,
                duplicate,
                deliveries: usize::from(!duplicate),
            });
        }
        Ok(receipts)
    }
}

/// Knows Kubernetes tokens by their second part.
struct Reviews;

#[async_trait]
impl Authorizer for Reviews {
    async fn may(&self, token: &Secret<String>, key: &ObjectKey, _: Right) -> Access {
        match token.expose().split('.').nth(1) {
            Some("allowed") => Access::Allowed,
            Some("team") if &*key.namespace == "team" => Access::Allowed,
            Some("team" | "denied") => Access::Denied,
            Some("down") => Access::Unavailable,
            _ => Access::Unauthenticated,
        }
    }
}

/// Readiness as the test says it is.
struct Lines {
    missing: Arc<Mutex<Vec<String>>>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Readiness for Lines {
    fn missing(&self) -> Vec<String> {
        self.missing.lock().clone()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.lock().clone()
    }
}

/// Both servers, until dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) stub: Arc<Stub>,
    pub(crate) missing: Arc<Mutex<Vec<String>>>,
    pub(crate) notes: Arc<Mutex<Vec<String>>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: Vec<JoinHandle<()>>,
    registry: Arc<Registry>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Server {
    pub(crate) async fn start(settings: HttpSettings) -> Self {
        let key = ObjectKey::new("team", "acme");
        let token = Token::Known(Secret::new(TOKEN.to_owned()));
        let stub = Arc::new(Stub {
            project: Arc::new(Project {
                types: Arc::default(),
                key,
                facts: bare_project("u", "acme"),
                token,
            }),
            ready: AtomicBool::new(true),
            seen: Mutex::default(),
            gate: Semaphore::new(0),
            waiting: AtomicUsize::new(0),
        });
        let metrics = HttpMetrics::new();
        let mut registry = Registry::with_prefix("postrider");
        metrics.register(&mut registry);
        let registry = Arc::new(registry);
        let missing = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::new(Mutex::new(Vec::new()));
        let shutdown = CancellationToken::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let admin_listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, admin) = (
            listener.local_addr().unwrap(),
            admin_listener.local_addr().unwrap(),
        );
        let state = PublishState {
            publisher: Arc::clone(&stub) as Arc<dyn Publisher>,
            authorizer: Arc::new(Reviews),
            history: Arc::new(told::Nothing),
            clock: Arc::new(SystemClock),
            metrics: metrics.clone(),
        };
        let lines = Arc::clone(&missing);
        let admin_state = AdminState {
            readiness: Arc::new(Lines {
                missing: lines,
                notes: Arc::clone(&notes),
            }),
            registry: Arc::clone(&registry),
            metrics,
        };
        let tasks = vec![
            tokio::spawn(PublishServer::serve(
                listener,
                state,
                settings.clone(),
                shutdown.clone(),
            )),
            tokio::spawn(AdminServer::serve(
                admin_listener,
                admin_state,
                settings,
                shutdown.clone(),
            )),
        ];
        Self {
            address,
            admin,
            stub,
            missing,
            notes,
            shutdown,
            tasks,
            registry,
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Writes bytes, then reads answers until the server closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> Vec<Answer> {
        let mut stream = self.connect().await;
        stream.write_all(bytes).await.unwrap();
        Answer::all(&mut stream).await
    }

    /// Publishes a body on a connection of its own.
    pub(crate) async fn publish(&self, body: &str) -> Answer {
        self.post(EVENTS, &[("authorization", &format!("Bearer {TOKEN}"))], body)
            .await
    }

    pub(crate) async fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let typed = headers.iter().any(|(name, _)| *name == "content-type");
        let mut head = format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
        if !typed {
            head += "content-type: application/json\r\n";
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        write!(head, "content-length: {}\r\n\r\n{body}", body.len()).unwrap();
        only(self.raw(head.as_bytes()).await)
    }

    /// The value of a sample in the metrics, zero when there is none.
    pub(crate) fn metric(&self, sample: &str) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Runs hostile clients while a good one publishes, which must go as well as ever.
    pub(crate) async fn unharmed<T>(&self, hostile: impl Future<Output = T>) -> T {
        let good = async {
            loop {
                let started = Instant::now();
                let answer = self.publish(r#"{"type":"good"}"#).await;
                assert_eq!(answer.status, 202, "{answer:?}");
                assert!(
                    started.elapsed() < UNHARMED,
                    "a good client waited {:?}",
                    started.elapsed()
                );
                // Its pace: a client that never rests would be hostile itself.
                sleep(Duration::from_millis(20)).await;
            }
        };
        let result = tokio::select! {
            result = timeout(PATIENCE, hostile) => result.expect("the hostile client ends"),
            () = good => unreachable!(),
        };
        assert_eq!(self.publish(r#"{"type":"good"}"#).await.status, 202);
        result
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        eventually(what, PATIENCE, async || {
            holds(self).then_some(()).ok_or("it does not hold")
        })
        .await;
    }

    /// Publishes an event whose answer waits for the stub's gate; comes back once it does.
    pub(crate) async fn publish_slowly(&self) -> TcpStream {
        let mut stream = self.connect().await;
        let body = r#"{"type":"slow"}"#;
        let request = head(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(request.as_bytes()).await.unwrap();
        self.until("the event waits", |server| {
            server.stub.waiting.load(Ordering::SeqCst) == 1
        })
        .await;
        stream
    }
}

/// An answer as read from a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// Every answer until the server closes the connection.
    pub(crate) async fn all(stream: &mut TcpStream) -> Vec<Self> {
        let mut bytes = Vec::new();
        // A reset after the answer loses nothing that was read.
        let ended = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
        assert!(
            ended.is_ok(),
            "the connection was not closed; read {:?}",
            String::from_utf8_lossy(&bytes)
        );
        let mut rest = &bytes[..];
        let mut answers = Vec::new();
        while let Some((answer, used)) = Self::parse(rest) {
            rest = &rest[used..];
            answers.push(answer);
        }
        assert!(
            rest.is_empty(),
            "not an answer: {:?}",
            String::from_utf8_lossy(rest)
        );
        answers
    }

    /// The next answer on a connection that stays open.
    pub(crate) async fn next(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        loop {
            if let Some((answer, used)) = Self::parse(&bytes) {
                assert_eq!(used, bytes.len(), "more than one answer");
                return answer;
            }
            let read = timeout(PATIENCE, stream.read_buf(&mut bytes))
                .await
                .expect("an answer in time")
                .unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(&bytes));
        }
    }

    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
        let head = std::str::from_utf8(&bytes[..end]).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        let body = String::from_utf8(bytes.get(end..end + length)?.to_vec()).unwrap();
        Some((Self { status, head, body }, end + length))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Checks that this is a well-formed problem document of that status and kind.
    pub(crate) fn is_problem(&self, status: u16, kind: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(
            problem["type"],
            format!("https://postrider.dev/problems/{kind}"),
            "{self:?}"
        );
        assert_eq!(problem["status"], status);
        assert!(!self.body.contains(TOKEN), "{self:?}");
        described::check_problem(&problem);
    }
}

/// The only answer.
pub(crate) fn only(mut answers: Vec<Answer>) -> Answer {
    assert_eq!(answers.len(), 1, "{answers:?}");
    answers.remove(0)
}

/// A request's head that authenticates, up to its own header fields.
pub(crate) fn head(fields: &str) -> String {
    format!(
        "POST {EVENTS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/json\r\n{fields}"
    )
}
