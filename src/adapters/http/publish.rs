//! The publish API: `POST /v1/namespaces/{namespace}/projects/{project}/events`, and its description.
//!
//! Owns the routes and the way of one request: authenticate, read, parse, publish, answer. Invariants: nothing of a
//! body is read before its sender is known; 202 is answered only after the [`Publisher`] says that the events are
//! durable; every answer's status is in `openapi.json`.
//!
//! There is no task per request: a client that goes away drops the handler at whatever it waits for, and the
//! [`Publisher`] owes that what reached the queue is finished all the same.
//!
//! Leaves to others: what a body means (`domain::event::parse`), what becomes of events (`engine::publish`).

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::auth::authenticate;
use super::body::{Budget, Share, read};
use super::connection::Handle;
use super::deliveries::{self, Asked, Deliveries};
use super::limits::{HttpSettings, Limit};
use super::metrics::{self, HttpMetrics};
use super::parsing::{Parsed, Parsers};
use super::problem::{Fault, Kind, Problem};
use super::server;
use crate::api::names::{is_name, is_namespace};
use crate::api::v1alpha1::event_project::Validation;
use crate::domain::event::refusal::{EventFault, EventFaults, ParseError};
use crate::domain::id::ObjectKey;
use crate::domain::project::Project;
use crate::engine::clock::Clock;
use crate::engine::history::History;
use crate::engine::publish::{Authorizer, PublishError, Publisher, Receipt};
use crate::engine::queue::QueueError;

/// What every path of an object begins with.
pub(super) const NAMESPACES: &str = "/v1/namespaces/";

/// The OpenAPI document of the publish API.
pub const OPENAPI: &str = include_str!("openapi.json");

/// nginx's word for a client that went away before its answer.
const CLIENT_CLOSED: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::REQUEST_TIMEOUT,
};

/// What the publish API works with.
#[derive(Clone)]
pub struct PublishState {
    /// Takes the events.
    pub publisher: Arc<dyn Publisher>,
    /// Knows Kubernetes callers.
    pub authorizer: Arc<dyn Authorizer>,
    /// Knows what became of deliveries.
    pub history: Arc<dyn History>,
    /// Says what time it is.
    pub clock: Arc<dyn Clock>,
    /// The servers' metrics.
    pub metrics: HttpMetrics,
}

/// The server of the publish API.
#[derive(Debug)]
pub struct PublishServer;

impl PublishServer {
    /// Serves a listener until `shutdown`, then finishes what runs within the grace period.
    pub async fn serve(
        listener: TcpListener,
        state: PublishState,
        settings: HttpSettings,
        shutdown: CancellationToken,
    ) {
        let metrics = state.metrics.clone();
        let budget = Budget::new(settings.body_bytes_in_flight, metrics.clone());
        let api = Api(Arc::new(Inner {
            state,
            settings: settings.clone(),
            budget,
            parsers: Parsers::default(),
        }));
        server::serve("publish", listener, api, settings, metrics, shutdown).await;
    }
}

#[derive(Clone)]
struct Api(Arc<Inner>);

struct Inner {
    state: PublishState,
    settings: HttpSettings,
    budget: Arc<Budget>,
    parsers: Parsers,
}

/// What a path names.
enum Route<'a> {
    Events { namespace: &'a str, project: &'a str },
    Deliveries(deliveries::Path),
    OpenApi,
    Nothing,
}

impl<'a> Route<'a> {
    fn of(path: &'a str) -> Self {
        if path == "/openapi.json" {
            return Self::OpenApi;
        }
        let Some(rest) = path.strip_prefix(NAMESPACES) else {
            return Self::Nothing;
        };
        if let Some(path) = deliveries::Path::of(rest) {
            return Self::Deliveries(path);
        }
        let mut parts = rest.split('/');
        let (Some(namespace), Some("projects"), Some(project), Some("events"), None) = (
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
            parts.next(),
        ) else {
            return Self::Nothing;
        };
        // Other names cannot exist, so nothing is told by saying so; and nothing odd reaches the API server.
        if is_namespace(namespace) && is_name(project) {
            Self::Events { namespace, project }
        } else {
            Self::Nothing
        }
    }
}

impl Handle for Api {
    async fn handle(&self, request: Request<Incoming>) -> Response<Bytes> {
        let mut count = Count {
            metrics: &self.0.state.metrics,
            api: if deliveries::Path::is_below(request.uri().path()) {
                metrics::Api::Deliveries
            } else {
                metrics::Api::Publish
            },
            started: Instant::now(),
            status: CLIENT_CLOSED,
        };
        let response = match self.0.answer(request).await {
            Ok(response) => response,
            Err(problem) => problem.response(),
        };
        count.status = response.status();
        response
    }
}

/// Counts a request when it ends, however it does.
struct Count<'a> {
    metrics: &'a HttpMetrics,
    api: metrics::Api,
    started: Instant,
    status: StatusCode,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.metrics
            .answered(self.api, self.status, self.started.elapsed());
    }
}

impl Inner {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Bytes>, Problem> {
        if request.headers().len() > self.settings.header_count {
            self.state.metrics.hit(Limit::Header);
            let detail = format!("send at most {} header fields", self.settings.header_count);
            return Err(Problem::new(Kind::HeaderTooLarge, detail));
        }
        match Route::of(request.uri().path()) {
            Route::Events { namespace, project } => {
                if *request.method() != Method::POST {
                    return Err(Problem::method("POST"));
                }
                let key = ObjectKey::new(namespace, project);
                self.events(key, request).await
            }
            Route::Deliveries(path) => self.deliveries(&path, request).await,
            Route::OpenApi => {
                if !matches!(*request.method(), Method::GET | Method::HEAD) {
                    return Err(Problem::method("GET, HEAD"));
                }
                Ok(json(StatusCode::OK, Bytes::from_static(OPENAPI.as_bytes())))
            }
            Route::Nothing => Err(Problem::new(
                Kind::NoRoute,
                "events are published to /v1/namespaces/{namespace}/projects/{project}/events; what became of them is \
                 below /v1/namespaces/{namespace}/eventdestinations/{name}/deliveries; see /openapi.json",
            )),
        }
    }

    /// What can be refused without reading the body.
    async fn admit(&self, headers: &HeaderMap, key: &ObjectKey) -> Result<Arc<Project>, Problem> {
        let state = &self.state;
        if !state.publisher.is_ready() {
            // Projects that are not known yet would look like wrong tokens.
            return Err(refused(&PublishError::Starting));
        }
        let project = authenticate(headers, key, &*state.publisher, &*state.authorizer).await?;
        if headers
            .get(CONTENT_ENCODING)
            .is_some_and(|encoding| encoding != "identity")
        {
            let detail = "send the body without a content encoding";
            return Err(Problem::new(Kind::UnsupportedMediaType, detail));
        }
        Ok(project)
    }

    async fn deliveries(
        &self,
        path: &deliveries::Path,
        request: Request<Incoming>,
    ) -> Result<Response<Bytes>, Problem> {
        let (head, body) = request.into_parts();
        let state = &self.state;
        let unread = !body.is_end_stream();
        let api = Deliveries {
            history: &*state.history,
            authorizer: &*state.authorizer,
            is_ready: state.publisher.is_ready(),
        };
        let asked = Asked {
            method: &head.method,
            headers: &head.headers,
            query: head.uri.query(),
        };
        let answer = async {
            let uid = api.admit(path, &asked).await?;
            let (body, _share) = if path.has_body() {
                let settings = HttpSettings {
                    body_bytes: self.settings.body_bytes.min(deliveries::MAX_BODY),
                    ..self.settings.clone()
                };
                read(&head.headers, body, &settings, &self.budget).await?
            } else {
                (Bytes::new(), Share::empty(&self.budget))
            };
            let now = state.clock.now();
            let answer = api.answer(path, &uid, asked.query, &body, now);
            let Ok(answer) = timeout(self.settings.answer_timeout, answer).await else {
                state.metrics.hit(Limit::AnswerTimeout);
                let detail = "there was no answer in time; ask again";
                return Err(Problem::new(Kind::NoAnswer, detail).retry_after(5));
            };
            answer
        };
        match answer.await {
            Err(problem) if unread && head.version <= Version::HTTP_11 => Ok(last(&problem)),
            answer => answer,
        }
    }

    async fn events(&self, key: ObjectKey, request: Request<Incoming>) -> Result<Response<Bytes>, Problem> {
        let (head, body) = request.into_parts();
        let state = &self.state;
        // A body that stays unread is in the way of the next request, so the answer must say that none is possible.
        let unread = !body.is_end_stream();
        let project = match self.admit(&head.headers, &key).await {
            Ok(project) => project,
            Err(problem) if unread && head.version <= Version::HTTP_11 => return Ok(last(&problem)),
            Err(problem) => return Err(problem),
        };
        let (body, share) = match read(&head.headers, body, &self.settings, &self.budget).await {
            Ok(read) => read,
            Err(problem) if unread && head.version <= Version::HTTP_11 => return Ok(last(&problem)),
            Err(problem) => return Err(problem),
        };
        let rules = Arc::clone(&project.types);
        let validation = rules.validation;
        let parsing = self.parsers.parse(body, head.headers, rules, share);
        let Ok(parsed) = timeout(self.settings.answer_timeout, parsing).await else {
            state.metrics.hit(Limit::AnswerTimeout);
            let detail = "more is published than can be read; nothing was accepted";
            return Err(Problem::new(Kind::Unavailable, detail).retry_after(5));
        };
        let Parsed {
            drafts,
            violations,
            share,
        } = parsed.ok_or_else(|| refused(&PublishError::Stopping))?;
        let drafts = drafts.map_err(|error| self.unreadable(&error))?;
        if violations.total() > 0 {
            let is_refused = validation == Validation::Enforce;
            state.metrics.broke_schema(is_refused, bad_events(&violations));
            if is_refused {
                return Err(self.unreadable(&violations.into()));
            }
        }
        let events = u64::try_from(drafts.len()).unwrap_or(u64::MAX);
        let answer = timeout(
            self.settings.answer_timeout,
            state.publisher.publish(project, drafts),
        )
        .await;
        drop(share);
        let receipts = match answer {
            Ok(Ok(receipts)) => receipts,
            Ok(Err(error)) => {
                state.metrics.refused(events);
                return Err(refused(&error));
            }
            Err(_elapsed) => {
                state.metrics.refused(events);
                state.metrics.hit(Limit::AnswerTimeout);
                let detail =
                    "it is not known whether the events were accepted; send them again with the same ids";
                return Err(Problem::new(Kind::NoAnswer, detail).retry_after(5));
            }
        };
        let duplicates = receipts.iter().filter(|receipt| receipt.duplicate).count();
        let duplicates = u64::try_from(duplicates).unwrap_or(u64::MAX);
        state.metrics.took(events.saturating_sub(duplicates), duplicates);
        Ok(json(StatusCode::ACCEPTED, accepted(&receipts, &violations)))
    }

    fn unreadable(&self, error: &ParseError) -> Problem {
        match error {
            ParseError::UnsupportedMediaType(detail) => {
                Problem::new(Kind::UnsupportedMediaType, detail.as_str())
            }
            ParseError::Invalid(faults) => {
                self.state.metrics.refused(bad_events(faults));
                let detail = match faults.total() {
                    1 => "1 fault; nothing was accepted".to_owned(),
                    total => format!("{total} faults; nothing was accepted"),
                };
                let mut problem = Problem::new(Kind::InvalidEvent, detail);
                problem.fault_count = faults.total();
                problem.indices = faults.indices().to_vec();
                problem.faults = listed(faults);
                problem
            }
        }
    }
}

/// How many events have faults.
fn bad_events(faults: &EventFaults) -> u64 {
    u64::try_from(faults.indices().len().max(1)).unwrap_or(u64::MAX)
}

fn listed(faults: &EventFaults) -> Vec<Fault> {
    let fault = |fault: &EventFault| Fault {
        index: fault.index,
        pointer: fault.pointer.as_str().to_owned(),
        reason: fault.reason.into(),
        detail: fault.detail.clone(),
    };
    faults.listed().iter().map(fault).collect()
}

/// An answer after which the connection cannot go on, since the rest of the body is in the way.
fn last(problem: &Problem) -> Response<Bytes> {
    let mut response = problem.response();
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// What a publisher is told when its events were not accepted.
fn refused(error: &PublishError) -> Problem {
    let unavailable = |detail: &str, seconds| Problem::new(Kind::Unavailable, detail).retry_after(seconds);
    match error {
        PublishError::Starting => unavailable("the operator is starting", 1),
        PublishError::Stopping => unavailable("the server is stopping", 2),
        PublishError::Queue(QueueError::ProjectFull { pending, limit }) => {
            let detail = format!("{pending} of {limit} deliveries wait; nothing was accepted");
            Problem::new(Kind::QueueFull, detail).retry_after(5)
        }
        PublishError::Queue(error @ (QueueError::DiskFull | QueueError::FileFull)) => {
            unavailable(&error.to_string(), 30)
        }
        PublishError::Queue(QueueError::Unavailable(_)) => unavailable("the queue cannot be written", 5),
        PublishError::Queue(QueueError::Overloaded) => unavailable("more is published than can be stored", 1),
        PublishError::Queue(QueueError::Closed) => unavailable("the queue is closed", 2),
    }
}

/// The body of 202.
fn accepted(receipts: &[Receipt], violations: &EventFaults) -> Bytes {
    let mut body = Vec::with_capacity(16 + receipts.len() * 96);
    body.extend_from_slice(b"{\"events\":[");
    for (index, receipt) in receipts.iter().enumerate() {
        body.extend_from_slice(if index == 0 { b"{\"id\":\"" } else { b",{\"id\":\"" });
        // Ids are visible ASCII: only two of those characters mean something in a JSON string.
        for byte in receipt.id.as_str().bytes() {
            if matches!(byte, b'"' | b'\\') {
                body.push(b'\\');
            }
            body.push(byte);
        }
        let rest = write!(
            body,
            "\",\"duplicate\":{},\"deliveries\":{}}}",
            receipt.duplicate, receipt.deliveries
        );
        debug_assert!(rest.is_ok(), "a vector takes every byte");
    }
    body.push(b']');
    if violations.total() > 0 {
        body.extend_from_slice(b",\"warnings\":");
        // Strings and numbers always serialise.
        body.extend(serde_json::to_vec(&listed(violations)).unwrap_or_else(|_| b"[]".to_vec()));
        let rest = write!(body, ",\"warningCount\":{}", violations.total());
        debug_assert!(rest.is_ok(), "a vector takes every byte");
    }
    body.push(b'}');
    body.into()
}

pub(super) fn json(status: StatusCode, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if status == StatusCode::ACCEPTED {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    response
}
