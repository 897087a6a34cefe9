//! [`Phases`]: how long a request waited for the connection that it opened, and when it began.
//!
//! The client's pool calls the connector without saying for which request. It does so within the request's own task, so
//! the request leaves its [`Phases`] there for the connector to find. A connection that is opened for another request,
//! or in advance, finds none.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::futures::TaskLocalFuture;
use tokio::time::Instant;

use crate::domain::delivery_log::Timings;

tokio::task_local! {
    static OBSERVED: Arc<Phases>;
}

/// Microseconds of each phase of the last request, one more than that; 0 while it did not end.
#[derive(Debug)]
pub(super) struct Phases {
    made: Instant,
    /// From when they were made until the request began.
    began: AtomicU64,
    dns: AtomicU64,
    connect: AtomicU64,
    tls: AtomicU64,
}

impl Phases {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            made: Instant::now(),
            began: AtomicU64::new(0),
            dns: AtomicU64::new(0),
            connect: AtomicU64::new(0),
            tls: AtomicU64::new(0),
        })
    }

    /// A request begins: what one before it took no longer counts.
    pub(super) fn begin() {
        let begin = |phases: &Arc<Self>| {
            for phase in [&phases.dns, &phases.connect, &phases.tls] {
                phase.store(0, Ordering::Relaxed);
            }
            set(&phases.began, phases.made.elapsed());
        };
        // One that nobody observes has none.
        let _ = OBSERVED.try_with(begin);
    }

    /// Runs a request whose connection, if it opens one, is observed.
    pub(super) fn observe<F: Future>(self: &Arc<Self>, request: F) -> TaskLocalFuture<Arc<Self>, F> {
        OBSERVED.scope(Arc::clone(self), request)
    }

    /// Those of the request whose task this is.
    pub(super) fn current() -> Option<Arc<Self>> {
        OBSERVED.try_with(Arc::clone).ok()
    }

    /// The name was looked up.
    pub(super) fn looked_up(&self, since: Instant) {
        set(&self.dns, since.elapsed());
    }

    /// The connection was opened, name lookup included; through a proxy, the proxy has agreed.
    pub(super) fn connected(&self, since: Instant) {
        let lookup = get(&self.dns).unwrap_or_default();
        set(&self.connect, since.elapsed().saturating_sub(lookup));
    }

    /// TLS was agreed on.
    pub(super) fn secured(&self, since: Instant) {
        set(&self.tls, since.elapsed());
    }

    /// What the last request took whose answer's head came at `head`, if it did; all of it took `total`.
    pub(super) fn timings(&self, head: Option<Instant>, total: Duration) -> Timings {
        let (dns, connect, tls) = (get(&self.dns), get(&self.connect), get(&self.tls));
        let before: Duration = [get(&self.began), dns, connect, tls].into_iter().flatten().sum();
        let first_byte = |head: Instant| head.saturating_duration_since(self.made).saturating_sub(before);
        Timings {
            dns,
            connect,
            tls,
            first_byte: head.map(first_byte),
            total,
        }
    }
}

fn set(phase: &AtomicU64, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX - 1);
    phase.store(micros.saturating_add(1), Ordering::Relaxed);
}

fn get(phase: &AtomicU64) -> Option<Duration> {
    let micros = phase.load(Ordering::Relaxed).checked_sub(1)?;
    Some(Duration::from_micros(micros))
}
