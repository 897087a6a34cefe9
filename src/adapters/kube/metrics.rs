//! What the controllers count. Labels are words of closed lists.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::engine::directory::Kind;

/// Upper bounds of reconcile durations, in seconds.
const SECONDS: [f64; 10] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    kind: &'static str,
    outcome: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// The controllers' counters and histograms. Clones count together.
#[derive(Clone, Debug)]
pub struct KubeMetrics {
    reconciles: Family<ReconcileLabels, Counter>,
    duration: Family<KindLabel, Histogram>,
    status_writes: Family<KindLabel, Counter>,
    watch_errors: Family<KindLabel, Counter>,
    events_dropped: Counter,
    signing_keys_dropped: Counter,
}

impl Default for KubeMetrics {
    fn default() -> Self {
        Self {
            reconciles: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(SECONDS)),
            status_writes: Family::default(),
            watch_errors: Family::default(),
            events_dropped: Counter::default(),
            signing_keys_dropped: Counter::default(),
        }
    }
}

impl KubeMetrics {
    /// Registers everything under the prefix of `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "reconciles",
            "Reconciles by kind, outcome and reason",
            self.reconciles.clone(),
        );
        registry.register(
            "reconcile_duration_seconds",
            "Time a reconcile takes",
            self.duration.clone(),
        );
        registry.register("status_writes", "Statuses written", self.status_writes.clone());
        registry.register(
            "watch_errors",
            "Errors of watches, each followed by another try",
            self.watch_errors.clone(),
        );
        registry.register(
            "kubernetes_events_dropped",
            "Kubernetes Events that were not written: too many at once or of one object, refused, or left at the stop",
            self.events_dropped.clone(),
        );
        registry.register(
            "signing_keys_dropped",
            "Previous signing keys that ended before their time: too many changes within previousSecretTTL",
            self.signing_keys_dropped.clone(),
        );
    }

    pub(super) fn reconciled(&self, kind: Kind, outcome: &'static str, reason: &'static str, took: Duration) {
        let kind = kind.as_str();
        self.reconciles
            .get_or_create(&ReconcileLabels {
                kind,
                outcome,
                reason,
            })
            .inc();
        self.duration
            .get_or_create(&KindLabel { kind })
            .observe(took.as_secs_f64());
    }

    pub(super) fn status_written(&self, kind: Kind) {
        self.status_writes
            .get_or_create(&KindLabel { kind: kind.as_str() })
            .inc();
    }

    /// `kind`: as manifests write it; also `Secret`.
    pub(super) fn watch_failed(&self, kind: &'static str) {
        self.watch_errors.get_or_create(&KindLabel { kind }).inc();
    }

    pub(super) fn events_dropped(&self, count: usize) {
        self.events_dropped.inc_by(count as u64);
    }

    pub(super) fn signing_keys_dropped(&self, count: usize) {
        self.signing_keys_dropped.inc_by(count as u64);
    }

    /// Statuses written so far, of every kind: for tests and support.
    #[must_use]
    pub fn status_writes(&self) -> u64 {
        Kind::ALL
            .iter()
            .map(|kind| {
                self.status_writes
                    .get_or_create(&KindLabel { kind: kind.as_str() })
                    .get()
            })
            .sum()
    }
}
