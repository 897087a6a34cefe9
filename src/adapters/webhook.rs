//! [`HttpTransport`]: sends webhooks over HTTP/1.1 and HTTP/2, behind the egress guard.
//!
//! Owns the connection pool, TLS, name lookup ([`guard`]) and the reading of answers. The invariants:
//!
//! - No connection is opened to an address that the [`EgressPolicy`] refuses: literals are checked before each request
//!   and again before each connection, names by filtering what the lookup returned, so the checked address is the
//!   one that is dialled. Through a proxy that a destination names the same holds for the proxy's
//!   addresses, and for a receiver that is a literal; the installation's own proxy is taken as it is.
//! - One deadline covers a send from the name lookup to the last byte of the answer. When it passes, the connection
//!   is dropped; nothing of the attempt lives on.
//! - Memory per request is bounded whatever the receiver sends: see [`MAX_HEAD`], [`STREAM_WINDOW`] and
//!   [`MAX_REPLY_READ`].
//! - Redirects are answers like any other. Neither path nor query of a URL gets into a message.
//!
//! It is hyper-util's pooling client with a connector of ours, not reqwest: the limits on heads and windows and the
//! typed causes of errors are within reach, and a request costs a quarter less CPU.
//!
//! Leaves to others: what goes into a request (`domain::delivery`), what a status means (`domain::outcome`), when
//! to try again (`domain::retry`).

mod classify;
mod connect;
pub(super) mod guard;
mod metrics;
pub(super) mod phases;
mod pools;
mod proxy;
mod token;
pub(super) mod trust;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{AUTHORIZATION, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

pub use guard::{Lookup, system_lookup};
pub use metrics::TransportMetrics;
pub use trust::Trust;

use self::classify::Progress;
use self::connect::{Answered, Connector, Route};
use self::guard::Guard;
use self::phases::Phases;
use self::pools::Pools;
use self::proxy::Way;
use self::token::{Token, Tokens};
use crate::domain::delivery::WebhookRequest;
use crate::domain::delivery_log::Timings;
use crate::domain::egress::EgressPolicy;
use crate::domain::oauth2::{self, AccessToken, ClientCredentials};
use crate::domain::outcome::{self, Failure, FailureReason, MAX_REPLY_KEPT, MAX_REPLY_READ, Reply};
use crate::domain::request::Passage;
use crate::engine::clock::{Clock as _, SystemClock};
use crate::engine::transport::Transport;

/// Most bytes of an answer's head over HTTP/1.1 (a longer one is a `ProtocolError`). Also the most that is read
/// ahead of a body, so it bounds what a connection holds.
pub const MAX_HEAD: usize = 32 * 1024;
/// Most headers of an answer over HTTP/1.1.
pub const MAX_HEADERS: usize = 128;
/// Bytes that a receiver may send ahead of our reading, for one request over HTTP/2: one more than are read at all.
pub const STREAM_WINDOW: u32 = 64 * 1024 + 1;
/// The same for all requests of one HTTP/2 connection.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// How long an unused connection is kept. An address is checked when it is connected to, so this is also for how long
/// a changed name or a narrowed policy can be outlived; and most receivers close idle connections after 60 s, so that
/// ours are closed by us and not under a request.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Which part of an attempt's deadline the refresh of a token that still lives may take.
const REFRESH_SHARE: u32 = 3;
/// But no more than this.
const MAX_REFRESH: Duration = Duration::from_secs(5);
/// How often a request is sent again at once because the receiver closed its kept connection while the request was on
/// its way: so common that it must not count as a failed attempt. A receiver that did read the request knows the
/// repeated one by its id. More than one, because the next connection in the pool may be just as stale.
const MAX_REPEATS: usize = 3;
/// A `Retry-After` longer than this is neither a number nor a date.
const MAX_RETRY_AFTER: usize = 64;

/// What a transport needs to know.
#[derive(Clone)]
pub struct TransportSettings {
    /// Which addresses may be connected to.
    pub policy: EgressPolicy,
    /// Which addresses a proxy may have.
    pub proxies: EgressPolicy,
    /// `User-Agent` of requests that carry none.
    pub user_agent: String,
    /// Which certificates are trusted.
    pub trust: Trust,
    /// Looks up names.
    pub lookup: Lookup,
    /// Most unused connections that are kept for one scheme, host and port. With fewer than requests are in flight at once,
    /// connections to a busy host are closed and opened again all the time.
    pub max_idle_per_host: usize,
}

impl Default for TransportSettings {
    fn default() -> Self {
        Self {
            policy: EgressPolicy::default(),
            proxies: EgressPolicy::default(),
            user_agent: concat!("Postrider/", env!("CARGO_PKG_VERSION")).to_owned(),
            trust: Trust::System,
            lookup: system_lookup(),
            max_idle_per_host: 1024,
        }
    }
}

/// Why a transport could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The user agent is not a header value.
    #[error("the user agent must be visible ASCII")]
    UserAgent(#[source] http::header::InvalidHeaderValue),
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR` is set, or a system bundle is there, but no certificate could be read.
    #[error("no trusted certificate could be read; correct or unset SSL_CERT_FILE and SSL_CERT_DIR")]
    Certificates(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The TLS library refuses its settings.
    #[error("TLS could not be set up")]
    Tls(#[source] rustls::Error),
}

/// Sends requests over HTTP.
pub struct HttpTransport {
    client: Client<Connector, Payload>,
    pools: Pools,
    policy: Arc<EgressPolicy>,
    user_agent: HeaderValue,
    tokens: Tokens,
    metrics: TransportMetrics,
}

impl HttpTransport {
    /// A transport with its own connection pool.
    ///
    /// # Errors
    /// When the settings are unusable.
    pub fn new(settings: TransportSettings) -> Result<Self, Error> {
        let metrics = TransportMetrics::default();
        let policy = Arc::new(settings.policy);
        let proxies = Guard::new(Arc::new(settings.proxies), settings.lookup.clone());
        let unguarded = Guard::new(Arc::new(EgressPolicy::unguarded()), settings.lookup.clone());
        let guard = Guard::new(policy.clone(), settings.lookup);
        let roots = Arc::new(trust::roots(&settings.trust)?);
        let tls = trust::client_config(&roots)?;
        let connector = Connector::new(guard.clone(), tls, Route::default(), metrics.clone());
        let client = client(connector, settings.max_idle_per_host);
        let pools = Pools::new(
            guard,
            proxies,
            unguarded,
            roots,
            settings.max_idle_per_host,
            metrics.clone(),
        );
        let user_agent = HeaderValue::from_str(&settings.user_agent).map_err(Error::UserAgent)?;
        Ok(Self {
            client,
            pools,
            policy,
            user_agent,
            tokens: Tokens::new(metrics.clone()),
            metrics,
        })
    }

    /// Counters and gauges of this transport.
    pub const fn metrics(&self) -> &TransportMetrics {
        &self.metrics
    }

    async fn exchange(&self, request: &WebhookRequest, progress: &mut Progress) -> Result<Reply, Failure> {
        Phases::begin();
        let url = request.endpoint.expose();
        self.policy.check_literal(url).map_err(|refusal| {
            self.metrics.refused_literal();
            Failure::new(FailureReason::EgressRefused, refusal.to_string())
        })?;
        let uri = Uri::try_from(url.as_str()).map_err(|_| {
            Failure::new(
                FailureReason::ProtocolError,
                "the URL holds characters that HTTP does not allow",
            )
        })?;
        let passage = request.passage.as_deref();
        let proxy = passage.and_then(|passage| passage.proxy.as_ref());
        let for_proxy = proxy
            .and_then(|proxy| proxy.authorization.as_ref())
            .filter(|_| url.scheme() == "http");

        let pool = match &request.passage {
            None => None,
            Some(passage) => self.pools.of(passage).map_err(|error| {
                Failure::new(
                    FailureReason::TlsError,
                    format!("TLS could not be set up: {error}"),
                )
            })?,
        };
        let client = pool.as_ref().unwrap_or(&self.client);
        progress.way = proxy.map(|_| Way::new(url.scheme() == "https"));
        let made = || {
            let mut made = Request::new(Payload {
                bytes: Some(request.body.clone()),
                sent: progress.sent.clone(),
            });
            *made.method_mut() = request.method.clone();
            *made.uri_mut() = uri.clone();
            let headers = made.headers_mut();
            *headers = request.headers.clone();
            if let Some(value) = for_proxy {
                headers.insert(PROXY_AUTHORIZATION, value.clone());
            }
            headers
                .entry(USER_AGENT)
                .or_insert_with(|| self.user_agent.clone());
            made
        };
        let attempt = async || match &progress.way {
            None => client.request(made()).await,
            Some(way) => {
                progress.sent.store(false, Ordering::Relaxed);
                way.watch(client.request(made())).await
            }
        };
        let mut answer = attempt().await;
        for _ in 0..MAX_REPEATS {
            if !answer.as_ref().is_err_and(classify::is_stale) {
                break;
            }
            answer = attempt().await;
        }
        let (head, body) = answer
            .map_err(|error| self.failed(&error, progress))?
            .into_parts();
        if let Some(connection) = head.extensions.get::<Answered>() {
            connection.set();
        }
        // Inside a tunnel it is the receiver's answer.
        if head.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED
            && proxy.is_some()
            && url.scheme() == "http"
        {
            return Err(classify::proxy_status(407));
        }
        progress.status = Some(head.status.as_u16());
        progress.head = Some(Instant::now());
        let excerpt = self.read(body, progress).await?;
        Ok(Reply {
            status: head.status.as_u16(),
            retry_after: retry_after(&head.headers),
            excerpt,
            headers: (request.method == Method::OPTIONS).then(|| Box::new(head.headers)),
        })
    }

    /// Sends with a token when the destination has credentials for one, else as it is.
    async fn authorized_or_plain(
        &self,
        request: &WebhookRequest,
        deadline: Duration,
        progress: &mut Progress,
    ) -> Result<Reply, Failure> {
        let passage = request.passage.as_deref();
        match passage.filter(|passage| passage.credentials.is_some()) {
            None => self.exchange(request, progress).await,
            // Boxed, so that the plain way does not carry the room that this one takes.
            Some(passage) => Box::pin(self.authorized(request, passage, deadline, progress)).await,
        }
    }

    /// Sends with a token, and once more with a new one when the receiver does not accept it, unless it has lately refused
    /// a new one, too. A `401` that counts as delivered is taken as it is.
    async fn authorized(
        &self,
        request: &WebhookRequest,
        passage: &Passage,
        deadline: Duration,
        progress: &mut Progress,
    ) -> Result<Reply, Failure> {
        let Some(credentials) = &passage.credentials else {
            return self.exchange(request, progress).await;
        };
        let patience = (deadline / REFRESH_SHARE).min(MAX_REFRESH);
        let mut stale: Option<Token> = None;
        loop {
            progress.awaits_token = true;
            let token = self
                .tokens
                .get(credentials, stale.as_ref(), patience, || self.fetch(credentials))
                .await?;
            *progress = Progress::default();
            let mut request = request.clone();
            request.headers.insert(AUTHORIZATION, token.authorization.clone());
            let reply = self.exchange(&request, progress).await?;
            let refused = reply.status == 401 && !passage.takes_401;
            if (200..300).contains(&reply.status) {
                token.accepted();
            }
            if !refused || !token.is_worth_another(stale.is_some()) {
                return Ok(token::without(reply, &token));
            }
            stale = Some(token);
        }
    }

    async fn fetch(&self, credentials: &ClientCredentials) -> Result<AccessToken, Failure> {
        let (request, mut progress) = (credentials.request(), Progress::default());
        // With phases of its own: those of the attempt are the receiver's.
        let reply = Phases::new()
            .observe(self.exchange(&request, &mut progress))
            .await
            .map_err(|failure| oauth2::unreachable(&failure))?;
        let wait = reply.retry_after.as_deref();
        let wait = wait.and_then(|text| outcome::retry_after(text, SystemClock.now()));
        oauth2::read(&reply, wait)
    }

    fn failed(&self, error: &(dyn std::error::Error + 'static), progress: &Progress) -> Failure {
        let failure = classify::failure(error, progress);
        if failure.reason == FailureReason::EgressRefused {
            self.metrics.refused_name();
        }
        failure
    }

    /// Reads a body up to the cap. When it is over, the connection is dropped with `body`.
    async fn read(&self, mut body: Incoming, progress: &Progress) -> Result<Bytes, Failure> {
        let limit = u64::try_from(MAX_REPLY_READ).unwrap_or(u64::MAX);
        if body.size_hint().lower() > limit {
            return Err(self.too_large(progress));
        }
        // Copied, because the frames are windows into the connection's read buffer and would keep all of it alive.
        let mut kept = Vec::new();
        let mut read = 0_usize;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| classify::failure(&error, progress))?;
            let Some(data) = frame.data_ref() else { continue };
            read = read.saturating_add(data.len());
            if read > MAX_REPLY_READ {
                return Err(self.too_large(progress));
            }
            let room = MAX_REPLY_KEPT.saturating_sub(kept.len());
            kept.extend_from_slice(data.get(..room).unwrap_or(data));
        }
        Ok(Bytes::from(kept))
    }

    fn too_large(&self, progress: &Progress) -> Failure {
        self.metrics.truncated();
        let message = format!(
            "the answer's body is over {} KiB; answer with a short one or none",
            MAX_REPLY_READ / 1024
        );
        progress.fail(FailureReason::ResponseTooLarge, message)
    }
}

#[async_trait]
impl Transport for HttpTransport {
    async fn send(&self, request: &WebhookRequest, deadline: Duration) -> Result<Reply, Failure> {
        let mut progress = Progress::default();
        let exchange = self.authorized_or_plain(request, deadline, &mut progress);
        match tokio::time::timeout(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(progress.timed_out(deadline)),
        }
    }

    async fn send_timed(
        &self,
        request: &WebhookRequest,
        deadline: Duration,
    ) -> (Result<Reply, Failure>, Timings) {
        let (began, phases) = (Instant::now(), Phases::new());
        let mut progress = Progress::default();
        let exchange = phases.observe(self.authorized_or_plain(request, deadline, &mut progress));
        let result = match tokio::time::timeout(deadline, exchange).await {
            Ok(result) => result,
            Err(_) => Err(progress.timed_out(deadline)),
        };
        (result, phases.timings(progress.head, began.elapsed()))
    }
}

/// A pooling client; every one of them has a connector with the guard.
fn client(connector: Connector, max_idle: usize) -> Client<Connector, Payload> {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that makes clients, and their connector has the guard"
    )]
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(max_idle)
        .http1_max_buf_size(MAX_HEAD)
        .http1_max_headers(MAX_HEADERS)
        .http2_max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        // A dead HTTP/1.1 connection goes with the request that found out. A dead HTTP/2 connection would take
        // every request to that host with it until the kernel gives up, so it has to prove that it is alive.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .http2_keep_alive_timeout(Duration::from_secs(5))
        .build(connector)
}

fn retry_after(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?;
    (text.len() <= MAX_RETRY_AFTER).then(|| text.to_owned())
}

/// A request's body in one piece, which notes when it was taken: then there was a connection to write it to.
struct Payload {
    bytes: Option<Bytes>,
    sent: Arc<AtomicBool>,
}

impl hyper::body::Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        self.sent.store(true, Ordering::Relaxed);
        std::task::Poll::Ready(self.bytes.take().map(|bytes| Ok(hyper::body::Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        let left = self.bytes.as_ref().map_or(0, Bytes::len);
        hyper::body::SizeHint::with_exact(u64::try_from(left).unwrap_or(u64::MAX))
    }
}
