//! One connection: hyper between an observed socket and a watch that ends what waits too long.
//!
//! hyper bounds bytes and counts but knows little of time, so this module does: [`Watch`] keeps what a connection is
//! doing, the socket ([`Observed`]) and the requests ([`Running`]) report to it, and [`run`] polls hyper and one
//! timer. The rules:
//!
//! - A header has `header_timeout` from its first byte, the first one from connecting; then the client reads 408.
//! - Between requests a connection has `idle_timeout`, which bytes that are no request do not extend on HTTP/2.
//! - An answer that is not read for `write_timeout` ends the connection, be it that the socket is full or that an
//!   HTTP/2 client opens no window.
//! - While a request runs, its handler has the deadlines.
//!
//! A close that the client did not ask for lingers: what still arrives is read and dropped for a moment, since a
//! close with unread bytes is a reset, and a reset can overtake the answer that says why.
//!
//! Leaves to others: accepting, counting and stopping connections (`server`).

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::limits::{HttpSettings, Limit};
use super::metrics::HttpMetrics;
use super::problem::{Kind, Problem};

/// Longest lingering after a close, and in a stopping server.
const LINGER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_millis(250));
/// Most bytes read while lingering.
const LINGER_BYTES: usize = 4 * 1024 * 1024;
/// What a connection that was asked to end may still take.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// First byte of a TLS record that holds a `ClientHello`.
const TLS_HANDSHAKE: u8 = 0x16;

/// Answers requests.
pub(super) trait Handle: Clone + Send + Sync + 'static {
    /// Answers one request. The future is dropped when the client goes away.
    fn handle(&self, request: Request<Incoming>) -> impl Future<Output = Response<Bytes>> + Send;
}

/// What a connection speaks, as far as its first bytes say.
mod protocol {
    pub(super) const UNKNOWN: u8 = 0;
    pub(super) const HTTP1: u8 = 1;
    pub(super) const HTTP2: u8 = 2;
    pub(super) const TLS: u8 = 3;
}

/// What a connection waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    Header,
    Request,
    Write,
    /// A request runs; look again then.
    Handler,
}

/// What a connection is doing. Times are milliseconds since it was accepted, plus one; zero is "not now".
struct Watch {
    accepted: Instant,
    protocol: AtomicU8,
    running: AtomicU32,
    served: AtomicBool,
    quiet_since: AtomicU64,
    header_since: AtomicU64,
    blocked_since: AtomicU64,
    /// Answers that hyper cannot hand over. Only HTTP/2 has them: a stream without a window blocks no socket.
    answers: Mutex<Answers>,
    /// Set once: the socket reports an error from now on.
    expired: AtomicBool,
    client_closed: AtomicBool,
    /// The socket, once hyper let go of it.
    socket: Mutex<Option<TcpStream>>,
}

/// Since when answers wait, in the order in which they were given.
#[derive(Default)]
struct Answers {
    given: u64,
    waiting: BTreeMap<u64, u64>,
}

impl Watch {
    fn new() -> Self {
        Self {
            accepted: Instant::now(),
            protocol: AtomicU8::new(protocol::UNKNOWN),
            running: AtomicU32::new(0),
            served: AtomicBool::new(false),
            quiet_since: AtomicU64::new(1),
            header_since: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            answers: Mutex::default(),
            expired: AtomicBool::new(false),
            client_closed: AtomicBool::new(false),
            socket: Mutex::new(None),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.accepted.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }

    fn instant(&self, at: u64) -> Instant {
        self.accepted + Duration::from_millis(at)
    }

    fn is(&self, protocol: u8) -> bool {
        self.protocol.load(Ordering::Relaxed) == protocol
    }

    fn is_running(&self) -> bool {
        self.running.load(Ordering::Acquire) > 0
    }

    /// What is waited for, and until when.
    fn wait(&self, settings: &HttpSettings) -> (Wait, u64) {
        let after = |since: u64, limit: Duration| {
            since.saturating_add(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX))
        };
        let blocked = Some(self.blocked_since.load(Ordering::Relaxed)).filter(|since| *since > 0);
        let answer = self.answers.lock().waiting.values().next().copied();
        let header = self.header_since.load(Ordering::Relaxed);
        if let Some(unread) = blocked.into_iter().chain(answer).min() {
            (Wait::Write, after(unread, settings.write_timeout))
        } else if self.is_running() {
            (Wait::Handler, after(self.now(), settings.header_timeout))
        } else if !self.served.load(Ordering::Relaxed) {
            (Wait::Header, after(1, settings.header_timeout))
        } else if header > 0 {
            (Wait::Header, after(header, settings.header_timeout))
        } else {
            (
                Wait::Request,
                after(self.quiet_since.load(Ordering::Relaxed), settings.idle_timeout),
            )
        }
    }

    fn saw(&self, bytes: &[u8], matched: &mut usize) {
        if self.is(protocol::UNKNOWN) {
            for byte in bytes {
                if PREFACE.get(*matched) != Some(byte) {
                    let tls = *matched == 0 && *byte == TLS_HANDSHAKE;
                    self.protocol.store(
                        if tls { protocol::TLS } else { protocol::HTTP1 },
                        Ordering::Relaxed,
                    );
                    break;
                }
                *matched += 1;
                if *matched == PREFACE.len() {
                    self.protocol.store(protocol::HTTP2, Ordering::Relaxed);
                    break;
                }
            }
        }
        // Between requests of HTTP/2 there are pings and window updates, which start nothing.
        if !self.is(protocol::HTTP2)
            && self.header_since.load(Ordering::Relaxed) == 0
            && self.served.load(Ordering::Relaxed)
            && !self.is_running()
        {
            self.header_since.store(self.now(), Ordering::Relaxed);
        }
    }
}

/// A request that runs, until its answer is handed over.
struct Running {
    watch: Arc<Watch>,
    /// Its place among the answers that wait.
    answer: Option<u64>,
}

impl Running {
    fn begin(watch: &Arc<Watch>) -> Self {
        watch.running.fetch_add(1, Ordering::AcqRel);
        watch.served.store(true, Ordering::Relaxed);
        watch.header_since.store(0, Ordering::Relaxed);
        Self {
            watch: Arc::clone(watch),
            answer: None,
        }
    }

    /// The handler is done; from now on it is the client that is waited for.
    fn answered(&mut self) {
        if self.watch.is(protocol::HTTP2) {
            let answers = &mut *self.watch.answers.lock();
            answers.given += 1;
            answers.waiting.insert(answers.given, self.watch.now());
            self.answer = Some(answers.given);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(answer) = self.answer {
            self.watch.answers.lock().waiting.remove(&answer);
        }
        self.watch.quiet_since.store(self.watch.now(), Ordering::Relaxed);
        self.watch.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A body that ends its request.
struct Answer {
    body: Full<Bytes>,
    _running: Running,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket that reports to a [`Watch`].
struct Observed {
    /// `None` only while being dropped.
    stream: Option<TcpStream>,
    watch: Arc<Watch>,
    metrics: HttpMetrics,
    /// Bytes of [`PREFACE`] that were read.
    matched: usize,
    told: bool,
}

impl Observed {
    /// The socket, unless its time is up.
    fn stream(&mut self) -> io::Result<&mut TcpStream> {
        if self.watch.expired.load(Ordering::Relaxed) {
            if !self.told {
                self.told = true;
                self.tell_timeout();
            }
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream
            .as_mut()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Says 408, when the client is in the middle of an HTTP/1 header and can read it.
    fn tell_timeout(&self) {
        let header = !self.watch.is_running() && self.watch.blocked_since.load(Ordering::Relaxed) == 0;
        if header && !self.watch.is(protocol::HTTP2) {
            let problem = Problem::new(Kind::RequestTimeout, "the request's header did not end in time");
            self.tell(&problem);
        }
    }

    /// Writes a last answer; true when the socket took all of it.
    fn tell(&self, problem: &Problem) -> bool {
        let raw = problem.raw();
        self.stream
            .as_ref()
            .and_then(|stream| stream.try_write(&raw).ok())
            == Some(raw.len())
    }

    /// hyper answers a header it cannot read with a bare status; this says what is wrong instead.
    fn explain(&self, bytes: &[u8]) -> bool {
        if self.watch.is_running() || !bytes.starts_with(b"HTTP/1.1 4") {
            return false;
        }
        let Some(head) = bytes
            .get(..bytes.len().min(512))
            .and_then(|head| std::str::from_utf8(head).ok())
        else {
            return false;
        };
        if !head.contains("\r\ncontent-length: 0\r\n") {
            return false;
        }
        let problem = match head
            .get(9..12)
            .and_then(|status| StatusCode::from_bytes(status.as_bytes()).ok())
        {
            Some(StatusCode::BAD_REQUEST) if self.watch.is(protocol::TLS) => {
                Problem::new(Kind::MalformedRequest, "this port speaks HTTP, not TLS")
            }
            Some(StatusCode::BAD_REQUEST) => Problem::new(
                Kind::MalformedRequest,
                "the request line or a header field is not HTTP",
            ),
            Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => {
                self.metrics.hit(Limit::Header);
                Problem::new(
                    Kind::HeaderTooLarge,
                    "send a shorter request line, or fewer or shorter header fields",
                )
            }
            Some(StatusCode::URI_TOO_LONG) => {
                self.metrics.hit(Limit::Header);
                Problem::new(Kind::UriTooLong, "send a shorter request target")
            }
            _ => return false,
        };
        self.tell(&problem)
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let blocked = &self.watch.blocked_since;
        if result.is_ready() {
            blocked.store(0, Ordering::Relaxed);
        } else if blocked.load(Ordering::Relaxed) == 0 {
            blocked.store(self.watch.now(), Ordering::Relaxed);
        }
        result
    }
}

impl AsyncRead for Observed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        ready!(Pin::new(this.stream()?).poll_read(cx, buf))?;
        match buf.filled().get(before..) {
            Some(bytes) if !bytes.is_empty() => this.watch.saw(bytes, &mut this.matched),
            _ => this.watch.client_closed.store(true, Ordering::Relaxed),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Observed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.explain(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = Pin::new(self.stream()?).poll_write(cx, bytes);
        self.wrote(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream()?).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream()?).poll_shutdown(cx)
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        *self.watch.socket.lock() = self.stream.take();
    }
}

/// What connections of one server share.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) builder: Arc<Builder<TokioExecutor>>,
    pub(super) settings: Arc<HttpSettings>,
    pub(super) metrics: HttpMetrics,
    pub(super) shutdown: CancellationToken,
}

/// Serves one connection to its end.
pub(super) async fn run<H: Handle>(stream: TcpStream, handler: H, shared: Shared) {
    let watch = Arc::new(Watch::new());
    let service = service_fn(|request| {
        let mut running = Running::begin(&watch);
        let handler = handler.clone();
        async move {
            let response = AssertUnwindSafe(handler.handle(request))
                .catch_unwind()
                .await
                .unwrap_or_else(|_| {
                    tracing::error!("a request's handler panicked");
                    Problem::new(Kind::Internal, "this is a fault of the server; its log says more")
                        .response()
                });
            running.answered();
            Ok::<_, std::convert::Infallible>(response.map(|body| Answer {
                body: Full::new(body),
                _running: running,
            }))
        }
    });
    let observed = Observed {
        stream: Some(stream),
        watch: Arc::clone(&watch),
        metrics: shared.metrics.clone(),
        matched: 0,
        told: false,
    };
    let quiet_end = {
        let connection = shared.builder.serve_connection(TokioIo::new(observed), service);
        let mut connection = pin!(connection);
        drive(&watch, &shared, |cx, end| {
            if end {
                connection.as_mut().graceful_shutdown();
            }
            connection.as_mut().poll(cx).map(drop)
        })
        .await
    };
    let socket = watch.socket.lock().take();
    if let Some(socket) = socket
        && !quiet_end
        && !watch.client_closed.load(Ordering::Relaxed)
    {
        linger(socket, &shared.shutdown).await;
    }
}

/// Polls hyper beside the deadlines; true when the connection was ended while nothing was going on.
/// `poll` with `true` asks hyper to end the connection after what runs.
async fn drive(
    watch: &Watch,
    shared: &Shared,
    mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<()>,
) -> bool {
    let settings = &*shared.settings;
    let mut stop = pin!(shared.shutdown.cancelled());
    let mut armed = watch.wait(settings).1;
    let mut timer = pin!(tokio::time::sleep_until(watch.instant(armed)));
    let mut stopping = false;
    let mut ending = false;
    let mut quiet = false;
    poll_fn(|cx| {
        if poll(cx, false).is_ready() {
            return Poll::Ready(quiet);
        }
        if !stopping && stop.as_mut().poll(cx).is_ready() {
            stopping = true;
            quiet = !watch.is_running();
            if poll(cx, true).is_ready() {
                return Poll::Ready(quiet);
            }
        }
        loop {
            let (wait, at) = if ending {
                (Wait::Write, armed)
            } else {
                watch.wait(settings)
            };
            if at < armed {
                armed = at;
                timer.as_mut().reset(watch.instant(armed));
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if ending {
                return Poll::Ready(quiet);
            }
            let now = watch.now();
            if at > now {
                armed = at;
                timer.as_mut().reset(watch.instant(armed));
                continue;
            }
            // Time is up. An idle connection is asked to end, the others are told by their socket.
            ending = true;
            armed = now + u64::try_from(LAST_WORDS.as_millis()).unwrap_or(1_000);
            timer.as_mut().reset(watch.instant(armed));
            quiet = wait == Wait::Request;
            match wait {
                Wait::Header => shared.metrics.hit(Limit::HeaderTimeout),
                Wait::Write => shared.metrics.hit(Limit::WriteTimeout),
                Wait::Request | Wait::Handler => {}
            }
            if !quiet {
                watch.expired.store(true, Ordering::Relaxed);
            }
            if poll(cx, quiet).is_ready() {
                return Poll::Ready(quiet);
            }
        }
    })
    .await
}

/// Reads and drops what still arrives, so that the close is no reset.
pub(super) async fn linger(mut socket: TcpStream, shutdown: &CancellationToken) {
    let longest = if shutdown.is_cancelled() {
        LINGER.1
    } else {
        LINGER.0
    };
    let drain = async {
        if poll_fn(|cx| Pin::new(&mut socket).poll_shutdown(cx))
            .await
            .is_err()
        {
            return;
        }
        let mut dropped = vec![0; 8 * 1024];
        let mut total = 0;
        while total < LINGER_BYTES && socket.readable().await.is_ok() {
            match socket.try_read(&mut dropped) {
                Ok(0) => break,
                Ok(read) => total += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    // The bound is the point; how it ends is not.
    drop(tokio::time::timeout(longest, drain).await);
}
