//! The egress guard at the resolver: names are looked up here and nowhere else.
//!
//! Of what a name resolves to, only the allowed addresses are handed on, so a name with a public and a private address
//! is reached on the public one, and a name that changes its answer between a check and a connection gains nothing:
//! the addresses that were checked are the ones that are dialled. Answers are not cached; requests that wait for the
//! same name at the same moment share one lookup.
//!
//! A lookup blocks a thread and cannot be cancelled, so at most [`MAX_LOOKUPS`] run at once. Literals never come here;
//! the connector passes them to [`Guard::check`].

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use std::{io, vec};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared, WeakShared};
use hyper_util::client::legacy::connect::dns::Name;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::phases::Phases;
use crate::domain::egress::{EgressPolicy, Refusal};

/// Most lookups that run at once.
const MAX_LOOKUPS: usize = 32;
/// Most addresses of one name that are tried.
const MAX_ADDRESSES: usize = 16;
/// How long a lookup may take, waiting for its turn included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Looks up the addresses of a host name. It may block: it is called on a thread of its own.
pub type Lookup = Arc<dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync>;

/// The system's resolver, with its search domains: in a cluster, `receiver.namespace` is a name.
#[must_use]
pub fn system_lookup() -> Lookup {
    Arc::new(|host| Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
}

/// Why a name gave no address.
#[derive(Clone, Debug, thiserror::Error)]
pub(in crate::adapters) enum LookupError {
    /// All addresses are refused.
    #[error("all addresses of the name are refused")]
    Refused(Refusal),
    /// There is no such name, or it has no address.
    #[error("the name does not resolve: {0}")]
    Unknown(Arc<io::Error>),
    /// The resolver did not answer.
    #[error("the name lookup took over {} s", LOOKUP_TIMEOUT.as_secs())]
    TimedOut,
}

type Answer = Result<Arc<[IpAddr]>, Arc<io::Error>>;
type Running = BoxFuture<'static, Answer>;

/// Looks up names and lets allowed addresses through; clones share everything.
#[derive(Clone)]
pub(in crate::adapters) struct Guard(Arc<Inner>);

struct Inner {
    policy: Arc<EgressPolicy>,
    lookup: Lookup,
    turns: Arc<Semaphore>,
    running: Mutex<HashMap<Box<str>, WeakShared<Running>>>,
}

impl Guard {
    pub(in crate::adapters) fn new(policy: Arc<EgressPolicy>, lookup: Lookup) -> Self {
        let turns = Arc::new(Semaphore::new(MAX_LOOKUPS));
        Self(Arc::new(Inner {
            policy,
            lookup,
            turns,
            running: Mutex::default(),
        }))
    }

    /// Checks an address that no lookup stands behind.
    pub(in crate::adapters) fn check(&self, address: IpAddr) -> Result<(), Refusal> {
        self.0.policy.check(address)
    }

    async fn resolve(self, name: Name) -> Result<vec::IntoIter<SocketAddr>, LookupError> {
        self.addresses(name.as_str()).await.map(Vec::into_iter)
    }

    /// The allowed addresses of a name, with port 0; at least one.
    pub(in crate::adapters) async fn addresses(&self, host: &str) -> Result<Vec<SocketAddr>, LookupError> {
        let answer = tokio::time::timeout(LOOKUP_TIMEOUT, self.0.shared(host));
        let found = answer
            .await
            .map_err(|_| LookupError::TimedOut)?
            .map_err(LookupError::Unknown)?;
        let mut refusal = None;
        let mut allowed = Vec::with_capacity(found.len().min(MAX_ADDRESSES));
        for address in found.iter() {
            match self.0.policy.check(*address) {
                Ok(()) if allowed.len() < MAX_ADDRESSES => allowed.push(SocketAddr::new(*address, 0)),
                Ok(()) => break,
                Err(why) => refusal = refusal.or(Some(why)),
            }
        }
        match refusal {
            Some(why) if allowed.is_empty() => Err(LookupError::Refused(why)),
            None if allowed.is_empty() => Err(LookupError::Unknown(Arc::new(io::Error::other(
                "it has no address",
            )))),
            _ => Ok(allowed),
        }
    }
}

impl Inner {
    /// The lookup of a name that is already under way, or a new one.
    fn shared(self: &Arc<Self>, host: &str) -> Shared<Running> {
        let mut running = self.running.lock();
        if let Some(lookup) = running.get(host).and_then(WeakShared::upgrade)
            && lookup.peek().is_none()
        {
            return lookup;
        }
        running.retain(|_, lookup| lookup.upgrade().is_some_and(|lookup| lookup.peek().is_none()));
        let lookup = self.clone().run(host.into()).boxed().shared();
        if let Some(weak) = lookup.downgrade() {
            running.insert(host.into(), weak);
        }
        lookup
    }

    async fn run(self: Arc<Self>, host: Box<str>) -> Answer {
        let turn = self
            .turns
            .clone()
            .acquire_owned()
            .await
            .map_err(|error| Arc::new(io::Error::other(error)))?;
        let lookup = self.lookup.clone();
        let blocking = tokio::task::spawn_blocking(move || {
            let answer = lookup(&host);
            // Held by the thread, not by who waits for it: the wait may end long before the thread does.
            drop(turn);
            answer
        });
        match blocking.await {
            Ok(answer) => answer.map(Into::into).map_err(Arc::new),
            Err(error) => Err(Arc::new(io::Error::other(error))),
        }
    }
}

impl tower_service::Service<Name> for Guard {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = LookupError;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let (guard, phases) = (self.clone(), Phases::current());
        async move {
            let began = Instant::now();
            let found = guard.resolve(name).await;
            if let Some(phases) = phases {
                phases.looked_up(began);
            }
            found
        }
        .boxed()
    }
}
