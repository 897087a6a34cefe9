//! The engine's metrics. Labels are words of closed lists; nothing here grows with events or destinations.

use std::sync::Weak;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Core;
use crate::domain::filter::NoMatch;
use crate::domain::health::{DisableReason, Signal};
use crate::domain::test_send::TestOutcome;

/// Upper bounds of attempt durations, in seconds.
const SECONDS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0,
];

/// Labels of [`EngineMetrics::deliveries`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeliveryLabels {
    outcome: &'static str,
    reason: &'static str,
}

/// Labels of [`EngineMetrics::signals`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SignalLabels {
    signal: &'static str,
}

/// Labels of [`EngineMetrics::waits`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WaitLabels {
    bound: &'static str,
}

/// Labels of [`EngineMetrics::filtered`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FilteredLabels {
    reason: &'static str,
}

/// Labels of [`EngineMetrics::dedup`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DedupLabels {
    outcome: &'static str,
}

/// Labels of [`EngineMetrics::tests`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TestLabels {
    outcome: &'static str,
}

/// Labels of [`EngineMetrics::operational`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationalLabels {
    r#type: &'static str,
    outcome: &'static str,
}

/// Labels of [`EngineMetrics::dead_letters`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DeadLetterLabels {
    outcome: &'static str,
}

/// Labels of [`EngineMetrics::policy_waits`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PolicyLabels {
    reason: &'static str,
}

/// A bound over all lanes that makes one wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Requests in flight.
    Requests,
    /// Bytes of events in flight.
    Bytes,
}

/// The engine's counters and histograms.
#[derive(Clone, Debug)]
pub struct EngineMetrics {
    deliveries: Family<DeliveryLabels, Counter>,
    duration: Histogram,
    signals: Family<SignalLabels, Counter>,
    waits: Family<WaitLabels, Counter>,
    policy_waits: Family<PolicyLabels, Counter>,
    dead_letters: Family<DeadLetterLabels, Counter>,
    unmatched: Counter,
    filtered: Family<FilteredLabels, Counter>,
    dedup: Family<DedupLabels, Counter>,
    broken: Counter,
    operational: Family<OperationalLabels, Counter>,
    tests: Family<TestLabels, Counter>,
    replayed: Counter,
}

impl Default for EngineMetrics {
    fn default() -> Self {
        Self {
            deliveries: Family::default(),
            duration: Histogram::new(SECONDS),
            signals: Family::default(),
            waits: Family::default(),
            policy_waits: Family::default(),
            dead_letters: Family::default(),
            unmatched: Counter::default(),
            filtered: Family::default(),
            dedup: Family::default(),
            broken: Counter::default(),
            operational: Family::default(),
            tests: Family::default(),
            replayed: Counter::default(),
        }
    }
}

impl EngineMetrics {
    /// Registers everything under the prefix of `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "deliveries",
            "Attempts by outcome and reason",
            self.deliveries.clone(),
        );
        registry.register(
            "attempt_duration_seconds",
            "Time from start to end of an attempt",
            self.duration.clone(),
        );
        registry.register(
            "health_signals",
            "Changes of destinations' health",
            self.signals.clone(),
        );
        registry.register(
            "in_flight_waits",
            "Times a destination had to wait because as much is in flight as may be",
            self.waits.clone(),
        );
        registry.register(
            "policy_waits",
            "Times that due deliveries of a destination had to wait by its own policy, by reason",
            self.policy_waits.clone(),
        );
        registry.register(
            "dead_letters",
            "Given-up deliveries whose destination names another for them, by what became of them",
            self.dead_letters.clone(),
        );
        registry.register(
            "attempts_broken",
            "Attempts that panicked and are made again",
            self.broken.clone(),
        );
        registry.register(
            "events_unmatched",
            "Accepted events that no destination wants",
            self.unmatched.clone(),
        );
        registry.register(
            "events_filtered",
            "Times that a destination's filter did not let an event through, by reason",
            self.filtered.clone(),
        );
        registry.register(
            "events_deduplicated",
            "Times that a destination was not sent an event that was the same as another, or could not tell",
            self.dedup.clone(),
        );
        registry.register(
            "operational_events",
            "Events about destinations' health, by type and by what became of them: stored or dropped",
            self.operational.clone(),
        );
        registry.register("test_sends", "Test sends by outcome", self.tests.clone());
        registry.register(
            "replayed_deliveries",
            "Deliveries made by replays",
            self.replayed.clone(),
        );
    }

    /// An attempt ended; without a time when nothing was sent.
    pub(crate) fn attempted(&self, outcome: &'static str, reason: &'static str, elapsed: Option<Duration>) {
        self.deliveries
            .get_or_create(&DeliveryLabels { outcome, reason })
            .inc();
        if let Some(elapsed) = elapsed {
            self.duration.observe(elapsed.as_secs_f64());
        }
    }

    /// Deliveries were made by a replay.
    pub(crate) fn replayed(&self, count: u64) {
        self.replayed.inc_by(count);
    }

    pub(crate) fn tested(&self, outcome: TestOutcome) {
        let outcome = outcome.as_str();
        self.tests.get_or_create(&TestLabels { outcome }).inc();
    }

    pub(crate) fn dropped(&self, count: u64, reason: &'static str) {
        let labels = DeliveryLabels {
            outcome: "dropped",
            reason,
        };
        self.deliveries.get_or_create(&labels).inc_by(count);
    }

    pub(crate) fn signalled(&self, signal: Signal) {
        let signal = match signal {
            Signal::Failing => "Failing",
            Signal::Recovered => "Recovered",
            Signal::Disabled(DisableReason::AutoDisabled) => "AutoDisabled",
            Signal::Disabled(DisableReason::Gone) => "Gone",
        };
        self.signals.get_or_create(&SignalLabels { signal }).inc();
    }

    pub(crate) fn waits(&self, bound: Bound) {
        let bound = match bound {
            Bound::Requests => "requests",
            Bound::Bytes => "bytes",
        };
        self.waits.get_or_create(&WaitLabels { bound }).inc();
    }

    /// Due deliveries begin to wait.
    pub(crate) fn policy_waits(&self, reason: &'static str) {
        self.policy_waits.get_or_create(&PolicyLabels { reason }).inc();
    }

    /// A delivery was given up that may go to another destination.
    pub(crate) fn dead_letter(&self, outcome: &'static str) {
        self.dead_letters
            .get_or_create(&DeadLetterLabels { outcome })
            .inc();
    }

    /// An event about a destination's health was stored, or dropped because too many waited for the store.
    pub(crate) fn told(&self, r#type: &'static str, outcome: &'static str) {
        self.operational
            .get_or_create(&OperationalLabels { r#type, outcome })
            .inc();
    }

    pub(crate) fn broken(&self) {
        self.broken.inc();
    }

    pub(crate) fn filtered(&self, why: NoMatch) {
        let labels = FilteredLabels { reason: why.into() };
        self.filtered.get_or_create(&labels).inc();
    }

    /// Destinations were not sent an event that is the same as another, or could not tell.
    pub(crate) fn deduplicated(&self, count: u64, outcome: &'static str) {
        if count > 0 {
            self.dedup.get_or_create(&DedupLabels { outcome }).inc_by(count);
        }
    }

    pub(crate) fn unmatched(&self, count: u64) {
        self.unmatched.inc_by(count);
    }
}

/// Gauges over all lanes, computed when they are read.
#[derive(Debug)]
pub struct LaneGauges {
    core: Weak<Core>,
}

impl LaneGauges {
    /// Gauges of an engine.
    #[must_use]
    pub fn new(engine: &super::Engine) -> Self {
        Self {
            core: std::sync::Arc::downgrade(engine.core()),
        }
    }
}

impl Collector for LaneGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(core) = self.core.upgrade() else {
            return Ok(());
        };
        // Zeros would say that nothing waits.
        if !core.queue.state().known {
            return Ok(());
        }
        let totals = super::lanes::totals(&core);
        let gauges = [
            (
                "pending",
                "Deliveries that wait, parked ones included",
                totals.pending,
            ),
            (
                "parked",
                "Deliveries that wait because their destination is suspended, disabled or not ready",
                totals.parked,
            ),
            (
                "unwatched",
                "Parked deliveries of destinations whose namespace is not watched",
                totals.unwatched,
            ),
            ("disabled", "Destinations that are disabled", totals.disabled),
            (
                "failing",
                "Destinations whose last attempt failed",
                totals.failing,
            ),
            (
                "oldest_pending_age_seconds",
                "Since when the event that waits the longest was accepted, parked ones included",
                totals.oldest_age,
            ),
            (
                "oldest_unparked_age_seconds",
                "Since when the event that waits the longest was accepted, parked ones left out",
                totals.oldest_unparked_age,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let encoder =
                encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?;
            gauge.encode(encoder)?;
        }
        Ok(())
    }
}
