//! What a transport counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Fetched {
    outcome: &'static str,
}

/// Counters and gauges of a transport; clones share their values.
#[derive(Clone, Debug)]
pub struct TransportMetrics {
    refusals: Family<Refused, Counter>,
    literal: Counter,
    resolved: Counter,
    truncated: Counter,
    connections: Gauge,
    tokens: Family<Fetched, Counter>,
    displaced: Counter,
    pools: Counter,
}

impl Default for TransportMetrics {
    fn default() -> Self {
        let refusals = Family::<Refused, Counter>::default();
        let of = |kind| refusals.get_or_create(&Refused { kind }).clone();
        let (literal, resolved) = (of("literal"), of("resolved"));
        Self {
            refusals,
            literal,
            resolved,
            truncated: Counter::default(),
            connections: Gauge::default(),
            tokens: Family::default(),
            displaced: Counter::default(),
            pools: Counter::default(),
        }
    }
}

impl TransportMetrics {
    /// Adds everything to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "egress_refusals",
            "Requests refused by the egress guard: the URL's literal address, or all addresses its name resolved to",
            self.refusals.clone(),
        );
        registry.register(
            "responses_truncated",
            "Answers given up because their body was too large",
            self.truncated.clone(),
        );
        registry.register(
            "receiver_connections",
            "Open connections to receivers",
            self.connections.clone(),
        );
        registry.register(
            "oauth_token_requests",
            "Requests for OAuth 2.0 tokens, by whether a token came back",
            self.tokens.clone(),
        );
        registry.register(
            "oauth_tokens_displaced",
            "OAuth 2.0 tokens forgotten because 10000 newer ones are kept",
            self.displaced.clone(),
        );
        registry.register(
            "connection_pools_displaced",
            "Pools of connections with an identity of their own that made room for another's",
            self.pools.clone(),
        );
    }

    /// Requests refused because of a literal address.
    pub fn literal_refusals(&self) -> u64 {
        self.literal.get()
    }

    /// Requests refused because of what a name resolved to.
    pub fn resolved_refusals(&self) -> u64 {
        self.resolved.get()
    }

    /// Answers that were too large.
    pub fn truncations(&self) -> u64 {
        self.truncated.get()
    }

    /// Connections open now.
    pub fn open_connections(&self) -> i64 {
        self.connections.get()
    }

    /// Tokens forgotten because of newer ones.
    pub fn displaced_tokens(&self) -> u64 {
        self.displaced.get()
    }

    pub(super) fn token_fetched(&self, got: bool) {
        let outcome = if got { "fetched" } else { "failed" };
        self.tokens.get_or_create(&Fetched { outcome }).inc();
    }

    pub(super) fn pool_displaced(&self) {
        self.pools.inc();
    }

    pub(super) fn token_displaced(&self) {
        self.displaced.inc();
    }

    pub(in crate::adapters) fn refused_literal(&self) {
        self.literal.inc();
    }

    pub(in crate::adapters) fn refused_name(&self) {
        self.resolved.inc();
    }

    pub(super) fn truncated(&self) {
        self.truncated.inc();
    }

    pub(super) fn opened(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }
}

/// One open connection, counted until it is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
