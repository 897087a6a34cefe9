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

/// Every status the publish API answers with.
const STATUSES: [u16; 14] = [
    200, 202, 400, 401, 403, 404, 405, 408, 413, 415, 429, 431, 500, 503,
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

#[derive(Debug)]
struct Inner {
    requests: Family<StatusLabel, Counter>,
    by_status: [(u16, Counter); STATUSES.len()],
    events: Family<OutcomeLabel, Counter>,
    accepted: Counter,
    duplicate: Counter,
    refused: Counter,
    schema: Family<ValidationLabel, Counter>,
    latency: Histogram,
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
        let requests = Family::<StatusLabel, Counter>::default();
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
            by_status: STATUSES.map(|status| (status, requests.get_or_create_owned(&StatusLabel { status }))),
            accepted: outcome("accepted"),
            duplicate: outcome("duplicate"),
            refused: outcome("refused"),
            schema,
            latency: Histogram::new(BUCKETS),
            connections: Family::default(),
            held: Gauge::default(),
            requests,
            events,
            limits,
        }))
    }

    /// Adds everything to a registry.
    pub fn register(&self, registry: &mut Registry) {
        let Inner {
            requests,
            events,
            latency,
            connections,
            limits,
            held,
            schema,
            ..
        } = &*self.0;
        registry.register(
            "ingest_requests",
            "Requests to the publish API, by status of the answer",
            requests.clone(),
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
            "Time from a request's header to its answer",
            latency.clone(),
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

    /// Counts an answer of the publish API.
    pub(super) fn answered(&self, status: StatusCode, took: Duration) {
        let status = status.as_u16();
        match self.0.by_status.iter().find(|(known, _)| *known == status) {
            Some((_, counter)) => counter.inc(),
            None => self.0.requests.get_or_create(&StatusLabel { status }).inc(),
        };
        self.0.latency.observe(took.as_secs_f64());
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
