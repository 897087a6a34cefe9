//! [`Pools`]: a connection pool for each way of connecting that is not the plain one.
//!
//! A pool belongs to a fingerprint of authorities, client certificate, key, expected name and proxy, so a connection that was
//! made with one identity never carries the request of another, and a renewed certificate opens new connections at once;
//! the old ones are closed when they have been idle for [`IDLE_TIMEOUT`](super::IDLE_TIMEOUT). A pool that nobody has
//! used for [`FORGOTTEN`] goes, and of more than [`MAX_POOLS`] the least recently used one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::client::legacy::Client;
use parking_lot::Mutex;
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::Instant;

use super::connect::{Connector, Route};
use super::guard::Guard;
use super::metrics::TransportMetrics;
use super::proxy::Dialer;
use super::{Error, Payload, trust};
use crate::domain::request::{Fingerprint, Passage};
use crate::domain::tls::Tls;

/// Most pools beside the plain one.
const MAX_POOLS: usize = 1024;
/// After which time without use a pool goes.
const FORGOTTEN: Duration = Duration::from_secs(120);

/// Makes and keeps pools.
pub(super) struct Pools {
    kept: Mutex<HashMap<Fingerprint, Kept>>,
    guard: Guard,
    proxies: Guard,
    /// For the proxy that Postrider was installed with.
    unguarded: Guard,
    roots: Arc<RootCertStore>,
    max_idle: usize,
    metrics: TransportMetrics,
}

struct Kept {
    client: Client<Connector, Payload>,
    used: Instant,
}

impl Pools {
    pub(super) fn new(
        guard: Guard,
        proxies: Guard,
        unguarded: Guard,
        roots: Arc<RootCertStore>,
        max_idle: usize,
        metrics: TransportMetrics,
    ) -> Self {
        Self {
            kept: Mutex::default(),
            guard,
            proxies,
            unguarded,
            roots,
            max_idle,
            metrics,
        }
    }

    /// The pool of a way of connecting; `None` when it is the plain one.
    pub(super) fn of(&self, passage: &Passage) -> Result<Option<Client<Connector, Payload>>, Error> {
        let Some(key) = passage.pool() else {
            return Ok(None);
        };
        let now = Instant::now();
        let mut kept = self.kept.lock();
        if let Some(found) = kept.get_mut(&key) {
            found.used = now;
            return Ok(Some(found.client.clone()));
        }
        kept.retain(|_, pool| now.saturating_duration_since(pool.used) < FORGOTTEN);
        if kept.len() >= MAX_POOLS
            && let Some(oldest) = kept.iter().min_by_key(|(_, pool)| pool.used).map(|(key, _)| *key)
        {
            kept.remove(&oldest);
            self.metrics.pool_displaced();
        }
        let client = self.made(passage)?;
        kept.insert(
            key,
            Kept {
                client: client.clone(),
                used: now,
            },
        );
        Ok(Some(client))
    }

    fn made(&self, passage: &Passage) -> Result<Client<Connector, Payload>, Error> {
        let tls = passage.tls.as_ref();
        let config = config(tls, &self.roots)?;
        let dialer = match &passage.proxy {
            Some(proxy) => {
                let plain = trust::builder()?
                    .with_root_certificates(Arc::clone(&self.roots))
                    .with_no_client_auth();
                let guard = if proxy.is_of_installation {
                    &self.unguarded
                } else {
                    &self.proxies
                };
                Some(Dialer::new(proxy.clone(), guard.clone(), Arc::new(plain)))
            }
            None => None,
        };
        let route = Route {
            server_name: tls.and_then(|tls| tls.server_name.clone()),
            dialer: dialer.map(Arc::new),
        };
        let connector = Connector::new(self.guard.clone(), config, route, self.metrics.clone());
        Ok(super::client(connector, self.max_idle))
    }
}

fn config(tls: Option<&Tls>, installation: &Arc<RootCertStore>) -> Result<Arc<ClientConfig>, Error> {
    let mut roots = Arc::clone(installation);
    if let Some(tls) = tls.filter(|tls| !tls.authorities.is_empty()) {
        let mut store = if tls.installation_too {
            RootCertStore::clone(installation)
        } else {
            RootCertStore::empty()
        };
        for authority in &tls.authorities {
            store.add(authority.clone()).map_err(Error::Tls)?;
        }
        roots = Arc::new(store);
    }
    let builder = trust::builder()?.with_root_certificates(roots);
    let mut config = match tls.and_then(|tls| tls.client.as_ref()) {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(pair)))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = trust::protocols();
    Ok(Arc::new(config))
}
