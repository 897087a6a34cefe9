//! [`QueueMetrics`]: what a queue counts about itself.
//!
//! Names are complete (`postrider_queue_…`), so they belong into a registry without a prefix. No labels: one process
//! has one queue.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What a queue counts about itself. Clones share the numbers.
#[derive(Clone, Debug)]
pub struct QueueMetrics {
    /// Seconds from the first statement of a group to its fsync.
    pub commit: Histogram,
    /// Calls that shared a commit.
    pub group: Histogram,
    /// Events handed out as corrupt.
    pub damaged: Counter,
    /// Ids forgotten before their 24 hours were over, because there were too many.
    pub ids_evicted: Counter,
    /// Keys that lanes forgot early, or did not remember, because there were too many.
    pub keys_forgotten: Counter,
    /// Events refused because the disk or the file was full.
    pub refused_disk: Counter,
    /// Events refused because their project's quota was reached.
    pub refused_project: Counter,
    /// Calls refused because the inbox was full.
    pub refused_inbox: Counter,
    /// Questions, replays and cancellations refused because too many waited.
    pub refused_asked: Counter,
    /// Groups that failed and were rolled back.
    pub failed_groups: Counter,
    /// Settlements given up after retries; their leases were given back.
    pub failed_settlements: Counter,
    /// Files found damaged and moved aside.
    pub moved_aside: Counter,
    /// Damaged logs that were mended.
    pub mended_logs: Counter,
    /// Commits at the end of a log that were not whole.
    pub torn_commits: Counter,
    /// Deliveries of deleted destinations that were dropped after a restart.
    pub dropped_late: Counter,
    /// Events read back from disk because a lane had outgrown its window in memory.
    pub read_back: Counter,
    /// Events that retention removed.
    pub trimmed: Counter,
    /// How often the reserve was given up because the volume was full.
    pub reserve_given_up: Counter,
    /// Bytes of the reserve that are held.
    pub reserve: Gauge,
    /// Settlements that wait until they can be written.
    pub unsettled: Gauge,
    /// Size of the database file, without its log.
    pub bytes: Gauge,
    /// Of it, bytes that are free for reuse.
    pub free_bytes: Gauge,
    /// Bytes of events in the lanes' windows in memory.
    pub window_bytes: Gauge<u64, AtomicU64>,
}

impl Default for QueueMetrics {
    fn default() -> Self {
        Self {
            commit: Histogram::new(exponential_buckets(0.0001, 2.0, 16)),
            group: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            damaged: Counter::default(),
            ids_evicted: Counter::default(),
            keys_forgotten: Counter::default(),
            refused_disk: Counter::default(),
            refused_project: Counter::default(),
            refused_inbox: Counter::default(),
            refused_asked: Counter::default(),
            failed_groups: Counter::default(),
            failed_settlements: Counter::default(),
            moved_aside: Counter::default(),
            mended_logs: Counter::default(),
            torn_commits: Counter::default(),
            dropped_late: Counter::default(),
            read_back: Counter::default(),
            trimmed: Counter::default(),
            reserve_given_up: Counter::default(),
            reserve: Gauge::default(),
            unsettled: Gauge::default(),
            bytes: Gauge::default(),
            free_bytes: Gauge::default(),
            window_bytes: Gauge::default(),
        }
    }
}

impl QueueMetrics {
    /// Puts every number into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let counters = [
            (
                "damaged_events",
                "Events whose stored bytes were damaged",
                &self.damaged,
            ),
            (
                "dedup_evictions",
                "Ids forgotten before 24 hours were over",
                &self.ids_evicted,
            ),
            (
                "keys_forgotten",
                "Keys of spec.delivery.dedup forgotten early, or not remembered, because there were too many",
                &self.keys_forgotten,
            ),
            (
                "refused_disk_full",
                "Events refused because the disk was full",
                &self.refused_disk,
            ),
            (
                "refused_project_full",
                "Events refused by a project's quota",
                &self.refused_project,
            ),
            (
                "refused_inbox_full",
                "Calls refused because too many waited",
                &self.refused_inbox,
            ),
            (
                "refused_questions",
                "Questions, replays and cancellations refused because too many waited",
                &self.refused_asked,
            ),
            ("failed_groups", "Group commits rolled back", &self.failed_groups),
            (
                "failed_settlements",
                "Settlements given up; delivered again",
                &self.failed_settlements,
            ),
            ("moved_aside", "Damaged files moved aside", &self.moved_aside),
            ("mended_logs", "Damaged logs that were mended", &self.mended_logs),
            (
                "torn_commits",
                "Unfinished commits dropped from the end of a log",
                &self.torn_commits,
            ),
            (
                "dropped_late",
                "Deliveries of deleted destinations dropped after a restart",
                &self.dropped_late,
            ),
            ("read_back", "Events read back from disk", &self.read_back),
            ("trimmed_events", "Events removed by retention", &self.trimmed),
            (
                "reserve_given_up",
                "Times the reserve was given up because the volume was full",
                &self.reserve_given_up,
            ),
        ];
        for (name, help, counter) in counters {
            registry.register(format!("queue_{name}"), help, counter.clone());
        }
        let commit = self.commit.clone();
        registry.register_with_unit("queue_commit", "Time of a group commit", Unit::Seconds, commit);
        registry.register("queue_group_operations", "Calls per commit", self.group.clone());
        registry.register(
            "queue_database_bytes",
            "Size of the database file",
            self.bytes.clone(),
        );
        registry.register(
            "queue_free_bytes",
            "Free bytes in the file",
            self.free_bytes.clone(),
        );
        registry.register(
            "queue_reserve_bytes",
            "Bytes held in reserve for a full volume",
            self.reserve.clone(),
        );
        registry.register(
            "queue_unsettled",
            "Results that wait until they can be stored",
            self.unsettled.clone(),
        );
        registry.register(
            "queue_window_bytes",
            "Bytes held in memory",
            self.window_bytes.clone(),
        );
    }
}
