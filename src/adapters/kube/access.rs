//! [`KubeAuthorizer`]: who a Kubernetes token belongs to, and whether its bearer may do what is asked.
//!
//! Owns the two reviews (`TokenReview`, then `SubjectAccessReview` on the subresource that [`Right`] names, with the
//! object's name) and a memory of their results. Invariants: a token is kept only as a digest together with the
//! name and right it was used for; a yes is believed for 10 s and a no for 2 s, in two stores of 1,024 each, so that made-up
//! tokens cannot push good ones out; at most 16 questions are asked at a time, one for each digest, and a caller
//! waits at most 5 s for an answer; when it is not known, nobody is let in. A digest that had a yes within the last
//! 10 min asks in lines and a waiting room of its own, 4 more at a time, where callers with made-up tokens cannot
//! get in its way.
//!
//! Leaves to others: what a token looks like, and the project's own token (`http::auth`).

mod memory;
mod review;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kube::Client;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::{Instant, timeout_at};

use self::memory::{Fingerprint, Memory, fingerprint};
use self::review::{ApiServer, Reviewer};
use crate::domain::id::ObjectKey;
use crate::domain::secret::Secret;
use crate::engine::publish::{Access, Authorizer, Right};

/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Questions asked at a time.
const LINES: usize = 16;
/// Questions asked at a time beside those, for tokens that had a yes.
const RENEWALS: usize = 4;
/// Callers that wait for an answer in each room; more are told at once that there is none.
const WAITING: usize = 512;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// What checking Kubernetes tokens counts. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct AccessMetrics {
    checks: Family<ResultLabel, Counter>,
    evictions: Counter,
}

impl AccessMetrics {
    /// Adds everything to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "access_checks",
            "Checks of Kubernetes tokens, by where the result came from (remembered) or what it was",
            self.checks.clone(),
        );
        registry.register(
            "access_evictions",
            "Results of token checks that made room for newer ones before their time",
            self.evictions.clone(),
        );
    }

    fn count(&self, result: &'static str) {
        self.checks.get_or_create(&ResultLabel { result }).inc();
    }
}

/// [`Authorizer`] over the API server.
pub struct KubeAuthorizer {
    reviewer: Box<dyn Reviewer>,
    metrics: AccessMetrics,
    memory: Mutex<Memory>,
    /// For tokens that nothing good is known of.
    strangers: Room<LINES>,
    /// For tokens that had a yes, which only their bearers have.
    renewals: Room<RENEWALS>,
}

/// Lines in which callers wait to ask, and how many do.
struct Room<const LINES: usize> {
    /// A fingerprint always takes the same line, so one question is asked for all who wait with it.
    lines: [tokio::sync::Mutex<()>; LINES],
    waiting: AtomicUsize,
}

impl<const LINES: usize> Default for Room<LINES> {
    fn default() -> Self {
        Self {
            lines: std::array::from_fn(|_| tokio::sync::Mutex::new(())),
            waiting: AtomicUsize::new(0),
        }
    }
}

impl<const LINES: usize> Room<LINES> {
    fn line(&self, fingerprint: &Fingerprint) -> Option<&tokio::sync::Mutex<()>> {
        let place = usize::from(fingerprint.first().copied().unwrap_or_default());
        self.lines.get(place % LINES)
    }
}

impl KubeAuthorizer {
    /// An authorizer that asks through `client`.
    #[must_use]
    pub fn new(client: Client, metrics: AccessMetrics) -> Self {
        Self::over(Box::new(ApiServer::new(client)), metrics)
    }

    fn over(reviewer: Box<dyn Reviewer>, metrics: AccessMetrics) -> Self {
        Self {
            reviewer,
            metrics,
            memory: Mutex::default(),
            strangers: Room::default(),
            renewals: Room::default(),
        }
    }

    fn remembered(&self, fingerprint: &Fingerprint) -> Option<Access> {
        self.memory.lock().recall(fingerprint, Instant::now())
    }

    /// Waits in a room, then asks.
    async fn wait<const LINES: usize>(
        &self,
        room: &Room<LINES>,
        token: &Secret<String>,
        what: (&ObjectKey, Right),
        fingerprint: Fingerprint,
    ) -> Access {
        let waiting = Waiting::join(&room.waiting);
        let Some(line) = room.line(&fingerprint).filter(|_| waiting.others < WAITING) else {
            return Access::Unavailable;
        };
        let until = Instant::now() + DEADLINE;
        timeout_at(until, self.ask(line, token, what, fingerprint, until))
            .await
            .unwrap_or(Access::Unavailable)
    }

    async fn ask(
        &self,
        line: &tokio::sync::Mutex<()>,
        token: &Secret<String>,
        (key, right): (&ObjectKey, Right),
        fingerprint: Fingerprint,
        until: Instant,
    ) -> Access {
        let _turn = line.lock().await;
        if let Some(access) = self.remembered(&fingerprint) {
            return access;
        }
        // Nobody would hear the answer: all who gave up at once would otherwise ask at once.
        if Instant::now() >= until {
            return Access::Unavailable;
        }
        let access = self.reviewer.review(token, key, right).await;
        let evicted = self.memory.lock().keep(fingerprint, access, Instant::now());
        self.metrics.evictions.inc_by(evicted);
        access
    }
}

#[async_trait]
impl Authorizer for KubeAuthorizer {
    async fn may(&self, token: &Secret<String>, key: &ObjectKey, right: Right) -> Access {
        let fingerprint = fingerprint(token, key, right);
        if let Some(access) = self.remembered(&fingerprint) {
            self.metrics.count("remembered");
            return access;
        }
        let known = self.memory.lock().knows(&fingerprint, Instant::now());
        let access = if known {
            self.wait(&self.renewals, token, (key, right), fingerprint).await
        } else {
            self.wait(&self.strangers, token, (key, right), fingerprint).await
        };
        self.metrics.count(match access {
            Access::Allowed => "allowed",
            Access::Denied => "denied",
            Access::Unauthenticated => "unauthenticated",
            Access::Unavailable => "unavailable",
        });
        access
    }
}

/// A caller that waits.
struct Waiting<'a> {
    count: &'a AtomicUsize,
    others: usize,
}

impl<'a> Waiting<'a> {
    fn join(count: &'a AtomicUsize) -> Self {
        Self {
            count,
            others: count.fetch_add(1, Ordering::Relaxed),
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
