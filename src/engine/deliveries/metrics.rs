//! [`LogMetrics`]: what the delivery log counts about itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Lost {
    reason: &'static str,
}

/// What the delivery log counts about itself. Clones share the numbers.
#[derive(Clone, Debug, Default)]
pub struct LogMetrics {
    /// Records written.
    pub written: Counter,
    lost: Family<Lost, Counter>,
    /// Records removed by age or size.
    pub removed: Counter,
    /// How often the file was begun anew.
    pub restarts: Counter,
    /// Bytes that records take in the file.
    pub bytes: Gauge,
    /// 1 while nothing can be written.
    pub paused: Gauge,
}

impl LogMetrics {
    /// Adds everything to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "delivery_log_records",
            "Attempts written to the delivery log",
            self.written.clone(),
        );
        registry.register(
            "delivery_log_lost_records",
            "Attempts that are missing from the delivery log: it was written too slowly (Full) or not at all (Paused)",
            self.lost.clone(),
        );
        registry.register(
            "delivery_log_removed_records",
            "Attempts that were removed from the delivery log by age or size",
            self.removed.clone(),
        );
        registry.register(
            "delivery_log_restarts",
            "How often the delivery log's file was begun anew because it was damaged or the volume was full",
            self.restarts.clone(),
        );
        registry.register(
            "delivery_log_used_bytes",
            "Room that attempts take in the delivery log's file",
            self.bytes.clone(),
        );
        registry.register(
            "delivery_log_paused",
            "1 while the delivery log cannot be written",
            self.paused.clone(),
        );
    }

    /// Records were dropped because too many waited.
    pub(super) fn full(&self, count: u64) {
        self.lose("Full", count);
    }

    /// Records were dropped because the file cannot be written.
    pub(super) fn unwritten(&self, count: u64) {
        self.lose("Paused", count);
    }

    /// Records dropped so far, for whatever reason.
    #[must_use]
    pub fn lost(&self) -> u64 {
        ["Full", "Paused"]
            .into_iter()
            .map(|reason| self.lost.get_or_create(&Lost { reason }).get())
            .sum()
    }

    fn lose(&self, reason: &'static str, count: u64) {
        self.lost.get_or_create(&Lost { reason }).inc_by(count);
    }
}
