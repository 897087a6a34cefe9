//! [`HttpMetrics`]: what the HTTP servers count.
//!
//! Owns the names and the closed sets of their labels. Invariant: counting on the way of a publish touches atomics
//! and one short lock (the histogram's) and never looks a label up; statuses are resolved once, at start.
//!
//! Leaves to others: serving the numbers (`admin`).

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use strum::IntoEnumIterator;

use super::limits::Limit;

/// Every status that requests to publish, and to no route, are answered with.
const STATUSES: [u16; 14] = [
    200, 202, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 503,
];

/// Every status the delivery API answers with.
const DELIVERY_STATUSES: [u16; 15] = [
    200, 202, 400, 401, 403, 404, 405, 408, 409, 410, 413, 429, 431, 500, 503,
];

/// Upper bounds of the latency buckets, in seconds.
const BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ValidationLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabel {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabel {
    server: &'static str,
}

/// What the HTTP servers count. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct HttpMetrics(Arc<Inner>);

/// Which API a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Api {
    /// Publishing, the description, and paths that name nothing.
    Publish,
    /// What became of deliveries.
    Deliveries,
}

/// What one API answered, and how fast.
#[derive(Debug)]
struct Answers {
    requests: Family<StatusLabel, Counter>,
    by_status: Vec<(u16, Counter)>,
    latency: Histogram,
}

impl Answers {
    fn new(statuses: &[u16]) -> Self {
        let requests = Family::<StatusLabel, Counter>::default();
        let counter = |status| requests.get_or_create_owned(&StatusLabel { status });
        Self {
            by_status: statuses
                .iter()
                .map(|status| (*status, counter(*status)))
                .collect(),
            latency: Histogram::new(BUCKETS),
            requests,
        }
    }

    fn count(&self, status: u16, took: Duration) {
        match self.by_status.iter().find(|(known, _)| *known == status) {
            Some((_, counter)) => counter.inc(),
            None => self.requests.get_or_create(&StatusLabel { status }).inc(),
        };
        self.latency.observe(took.as_secs_f64());
    }
}

#[derive(Debug)]
struct Inner {
    publish: Answers,
    deliveries: Answers,
    events: Family<OutcomeLabel, Counter>,
    accepted: Counter,
    duplicate: Counter,
    refused: Counter,
    schema: Family<ValidationLabel, Counter>,
    connections: Family<ServerLabel, Gauge>,
    limits: Family<LimitLabel, Counter>,
    held: Gauge<u64, AtomicU64>,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpMetrics {
    /// Metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let events = Family::<OutcomeLabel, Counter>::default();
        let limits = Family::<LimitLabel, Counter>::default();
        for limit in Limit::iter() {
            drop(limits.get_or_create(&LimitLabel { limit: limit.into() }));
        }
        let schema = Family::<ValidationLabel, Counter>::default();
        for outcome in ["accepted", "refused"] {
            drop(schema.get_or_create(&ValidationLabel { outcome }));
        }
        let outcome = |outcome| events.get_or_create_owned(&OutcomeLabel { outcome });
        Self(Arc::new(Inner {
            publish: Answers::new(&STATUSES),
            deliveries: Answers::new(&DELIVERY_STATUSES),
            accepted: outcome("accepted"),
            duplicate: outcome("duplicate"),
            refused: outcome("refused"),
            schema,
            connections: Family::default(),
            held: Gauge::default(),
            events,
            limits,
        }))
    }

    /// Adds everything to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let Inner {
            publish,
            deliveries,
            events,
            connections,
            limits,
            held,
            schema,
            ..
        } = &*self.0;
        registry.register(
            "ingest_requests",
            "Requests to the publish API, by status of the answer",
            publish.requests.clone(),
        );
        registry.register(
            "ingest_events",
            "Published events, by what became of them",
            events.clone(),
        );
        registry.register(
            "ingest_schema_violations",
            "Published events that break the schema of their type, by what became of them",
            schema.clone(),
        );
        registry.register(
            "ingest_duration_seconds",
            "Time from a request's header to its answer, of the publish API",
            publish.latency.clone(),
        );
        registry.register(
            "delivery_api_requests",
            "Requests to the delivery API, by status of the answer",
            deliveries.requests.clone(),
        );
        registry.register(
            "delivery_api_duration_seconds",
            "Time from a request's header to its answer, of the delivery API",
            deliveries.latency.clone(),
        );
        registry.register(
            "ingest_body_bytes",
            "Bytes of memory held for request bodies now",
            held.clone(),
        );
        registry.register(
            "http_connections",
            "Open connections, by server",
            connections.clone(),
        );
        registry.register(
            "limit_hits",
            "Bounds of the HTTP servers that were hit",
            limits.clone(),
        );
    }

    /// Counts an answer.
    pub(super) fn answered(&self, api: Api, status: StatusCode, took: Duration) {
        let answers = match api {
            Api::Publish => &self.0.publish,
            Api::Deliveries => &self.0.deliveries,
        };
        answers.count(status.as_u16(), took);
    }

    /// Counts the events of one request that were answered 202.
    pub(super) fn took(&self, accepted: u64, duplicate: u64) {
        if accepted > 0 {
            self.0.accepted.inc_by(accepted);
        }
        if duplicate > 0 {
            self.0.duplicate.inc_by(duplicate);
        }
    }

    /// Counts events that were read and not accepted.
    pub(super) fn refused(&self, events: u64) {
        self.0.refused.inc_by(events);
    }

    /// Counts events that break the schemas of their types.
    pub(super) fn broke_schema(&self, is_refused: bool, events: u64) {
        let outcome = if is_refused { "refused" } else { "accepted" };
        self.0
            .schema
            .get_or_create(&ValidationLabel { outcome })
            .inc_by(events);
    }

    /// Counts a bound that was hit.
    pub(super) fn hit(&self, limit: Limit) {
        self.0
            .limits
            .get_or_create(&LimitLabel { limit: limit.into() })
            .inc();
    }

    /// The gauge of a server's open connections.
    pub(super) fn connections(&self, server: &'static str) -> Gauge {
        self.0.connections.get_or_create_owned(&ServerLabel { server })
    }

    /// The gauge of bytes held for bodies.
    pub(super) fn held(&self) -> &Gauge<u64, AtomicU64> {
        &self.0.held
    }
}
