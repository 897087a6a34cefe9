//! What a mailer counts.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges of a mailer; clones share their values.
#[derive(Clone, Debug, Default)]
pub struct SmtpMetrics {
    connections: Gauge,
    opened: Counter,
    waits: Counter,
    evictions: Counter,
}

impl SmtpMetrics {
    /// Adds everything to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "smtp_connections",
            "Open connections to SMTP servers",
            self.connections.clone(),
        );
        registry.register(
            "smtp_connections_opened",
            "Connections to SMTP servers that were opened",
            self.opened.clone(),
        );
        registry.register(
            "smtp_connection_waits",
            "Attempts that had to wait because their SMTP server had as many connections as one may have",
            self.waits.clone(),
        );
        registry.register(
            "smtp_server_evictions",
            "SMTP servers whose unused connections were closed to make room for another server's",
            self.evictions.clone(),
        );
    }

    /// Connections open now.
    pub fn open_connections(&self) -> i64 {
        self.connections.get()
    }

    /// Connections opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.get()
    }

    /// Attempts that had to wait for a connection.
    pub fn waits(&self) -> u64 {
        self.waits.get()
    }

    /// Servers that had to make room.
    pub fn evictions(&self) -> u64 {
        self.evictions.get()
    }

    pub(super) fn waited(&self) {
        self.waits.inc();
    }

    pub(super) fn evicted(&self) {
        self.evictions.inc();
    }

    pub(super) fn open(&self) -> OpenConnection {
        self.connections.inc();
        self.opened.inc();
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
