//! [`Pools`]: for each server, its connections: at most so many in use, and those that wait for the next mail.
//!
//! Servers are told apart by everything their settings say, the password included, so a changed Secret never meets a
//! connection that an older one has opened. Servers in use are bounded by the attempts under way; of the others the
//! one that was used longest ago makes room. Unused connections are closed by a task that runs while there are any.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::ClientConfig;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::metrics::SmtpMetrics;
use super::session::Session;
use super::{MAX_CONNECTIONS, MAX_SERVERS};
use crate::domain::smtp::{Fingerprint, SmtpServer};

/// The connections of one server.
pub(super) struct Pool {
    slots: Arc<Semaphore>,
    idle: Mutex<Vec<Session>>,
    longest: Duration,
    /// Settings of TLS, where the server's settings name an authority.
    pub(super) tls: OnceLock<Arc<ClientConfig>>,
}

impl Pool {
    fn new(longest: Duration) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            idle: Mutex::default(),
            longest,
            tls: OnceLock::new(),
        }
    }

    /// Waits until one connection more may be in use.
    pub(super) async fn slot(&self, metrics: &SmtpMetrics) -> Option<OwnedSemaphorePermit> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Some(slot);
        }
        metrics.waited();
        // Never closed, so there is always a slot in the end.
        Arc::clone(&self.slots).acquire_owned().await.ok()
    }

    /// The unused connection that was used last.
    pub(super) fn take(&self) -> Option<Session> {
        let mut idle = self.idle.lock();
        while let Some(session) = idle.pop() {
            if session.since().elapsed() < self.longest {
                return Some(session);
            }
        }
        None
    }

    /// Closes what was unused for too long; whether anything is left.
    fn sweep(&self) -> bool {
        let mut idle = self.idle.lock();
        let longest = self.longest;
        let old: Vec<_> = idle
            .extract_if(.., |session| session.since().elapsed() >= longest)
            .collect();
        let left = !idle.is_empty();
        drop(idle);
        old.into_iter().for_each(Session::bid_farewell);
        left
    }
}

#[derive(Default)]
struct Known {
    /// Each with the number of the request that asked for it last.
    pools: HashMap<Fingerprint, (Arc<Pool>, u64)>,
    requests: u64,
    /// A task closes what is unused for too long.
    sweeping: bool,
}

/// The connections of all servers.
pub(super) struct Pools {
    known: Mutex<Known>,
    longest: Duration,
    metrics: SmtpMetrics,
}

impl Pools {
    pub(super) fn new(longest: Duration, metrics: SmtpMetrics) -> Self {
        Self {
            known: Mutex::default(),
            longest,
            metrics,
        }
    }

    /// The connections of a server.
    pub(super) fn of(&self, server: &SmtpServer) -> Arc<Pool> {
        let mut known = self.known.lock();
        known.requests += 1;
        let request = known.requests;
        if let Some((pool, used)) = known.pools.get_mut(&server.fingerprint) {
            *used = request;
            return Arc::clone(pool);
        }
        let mut evicted = None;
        if known.pools.len() >= MAX_SERVERS {
            let unused = known
                .pools
                .iter()
                .filter(|(_, (pool, _))| Arc::strong_count(pool) == 1);
            let oldest = unused.min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key);
            // When all are in use there are more for a while, bounded by the attempts under way.
            evicted = oldest.and_then(|key| known.pools.remove(&key));
        }
        let pool = Arc::new(Pool::new(self.longest));
        known
            .pools
            .insert(server.fingerprint, (Arc::clone(&pool), request));
        drop(known);
        if let Some((pool, _)) = evicted {
            self.metrics.evicted();
            std::mem::take(&mut *pool.idle.lock())
                .into_iter()
                .for_each(Session::bid_farewell);
        }
        pool
    }

    /// Keeps a connection for the next mail.
    pub(super) fn keep(self: &Arc<Self>, pool: &Arc<Pool>, mut session: Session) {
        session.rest();
        pool.idle.lock().push(session);
        let mut known = self.known.lock();
        if !std::mem::replace(&mut known.sweeping, true) {
            drop(known);
            let pools = Arc::downgrade(self);
            let wait = self.longest / 2;
            #[expect(
                clippy::disallowed_methods,
                reason = "ends by itself, and nothing depends on it: connections that are too old are not used"
            )]
            tokio::spawn(async move {
                loop {
                    tokio::time::sleep(wait).await;
                    let Some(pools) = pools.upgrade() else { return };
                    if !pools.sweep() {
                        return;
                    }
                }
            });
        }
    }

    /// Closes what was unused for too long, and forgets servers without a connection; whether a connection is left.
    fn sweep(&self) -> bool {
        let mut known = self.known.lock();
        let mut left = false;
        known.pools.retain(|_, (pool, _)| {
            let has_idle = pool.sweep();
            left |= has_idle;
            has_idle || Arc::strong_count(pool) > 1
        });
        known.sweeping = left;
        left
    }
}
