//! [`KubeAuthorizer`]: who a Kubernetes token belongs to, and whether its bearer may publish.
//!
//! Owns the two reviews (`TokenReview`, then `SubjectAccessReview`: `create` on `eventprojects/events` with the
//! project's name) and a memory of their results. Invariants: a token is kept only as a digest together with the
//! name it was used for; a yes is believed for 10 s and a no for 2 s, in two stores of 1,024 each, so that made-up
//! tokens cannot push good ones out; at most 16 questions are asked at a time, one for each digest, and a caller
//! waits at most 5 s for an answer; when it is not known, nobody is let in. A digest that had a yes within the last
//! 10 min asks in lines and a waiting room of its own, 4 more at a time, where callers with made-up tokens cannot
//! get in its way.
//!
//! Leaves to others: what a token looks like, and the project's own token (`http::auth`).

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::api::PostParams;
use kube::{Api, Client};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, timeout_at};

use crate::domain::id::ObjectKey;
use crate::domain::secret::Secret;
use crate::engine::publish::{Access, Authorizer};

/// Results remembered, of each kind.
const REMEMBERED: usize = 1_024;
/// How long a yes is believed.
const YES: Duration = Duration::from_secs(10);
/// How long it is known of a token that there was a yes for it, after that is believed no more.
const KNOWN: Duration = Duration::from_mins(10);
/// How long a no is believed.
const NO: Duration = Duration::from_secs(2);
/// Longest wait for an answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Questions asked at a time.
const LINES: usize = 16;
/// Questions asked at a time beside those, for tokens that had a yes.
const RENEWALS: usize = 4;
/// Callers that wait for an answer in each room; more are told at once that there is none.
const WAITING: usize = 512;

/// A token together with the project it is used for.
type Fingerprint = [u8; 32];

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

/// Asks an API server.
#[async_trait]
trait Reviewer: Send + Sync {
    async fn review(&self, token: &Secret<String>, key: &ObjectKey) -> Access;
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
        self.lines.iter().cycle().nth(place)
    }
}

impl KubeAuthorizer {
    /// An authorizer that asks through `client`.
    #[must_use]
    pub fn new(client: Client, metrics: AccessMetrics) -> Self {
        Self::over(Box::new(ApiServer(client)), metrics)
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
        key: &ObjectKey,
        fingerprint: Fingerprint,
    ) -> Access {
        let waiting = Waiting::join(&room.waiting);
        let Some(line) = room.line(&fingerprint).filter(|_| waiting.others < WAITING) else {
            return Access::Unavailable;
        };
        let until = Instant::now() + DEADLINE;
        timeout_at(until, self.ask(line, token, key, fingerprint, until))
            .await
            .unwrap_or(Access::Unavailable)
    }

    async fn ask(
        &self,
        line: &tokio::sync::Mutex<()>,
        token: &Secret<String>,
        key: &ObjectKey,
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
        let access = self.reviewer.review(token, key).await;
        let evicted = self.memory.lock().keep(fingerprint, access, Instant::now());
        self.metrics.evictions.inc_by(evicted);
        access
    }
}

#[async_trait]
impl Authorizer for KubeAuthorizer {
    async fn may_publish(&self, token: &Secret<String>, key: &ObjectKey) -> Access {
        let fingerprint = fingerprint(token, key);
        if let Some(access) = self.remembered(&fingerprint) {
            self.metrics.count("remembered");
            return access;
        }
        let known = self.memory.lock().knows(&fingerprint, Instant::now());
        let access = if known {
            self.wait(&self.renewals, token, key, fingerprint).await
        } else {
            self.wait(&self.strangers, token, key, fingerprint).await
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

/// Digest of token and key. The parts of a key cannot hold a NUL, nor can a token from a header.
fn fingerprint(token: &Secret<String>, key: &ObjectKey) -> Fingerprint {
    let mut digest = Sha256::new();
    for part in [
        key.namespace.as_bytes(),
        key.name.as_bytes(),
        token.expose().as_bytes(),
    ] {
        digest.update(part);
        digest.update([0]);
    }
    digest.finalize().into()
}

/// Results that are still believed, and who had a yes.
struct Memory {
    yes: Store,
    no: Store,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            yes: Store::kept(KNOWN),
            no: Store::kept(Duration::ZERO),
        }
    }
}

/// Results of one kind, all believed for equally long, so the oldest is always the first.
struct Store {
    /// How long a result stays after it is believed no more.
    after: Duration,
    results: HashMap<Fingerprint, (Access, Instant)>,
    order: VecDeque<(Fingerprint, Instant)>,
}

impl Memory {
    fn recall(&self, fingerprint: &Fingerprint, now: Instant) -> Option<Access> {
        let find = |store: &Store| {
            store
                .results
                .get(fingerprint)
                .copied()
                .filter(|(_, end)| *end > now)
        };
        find(&self.yes)
            .or_else(|| find(&self.no))
            .map(|(access, _)| access)
    }

    /// Whether there was a yes lately, and no other answer since.
    fn knows(&self, fingerprint: &Fingerprint, now: Instant) -> bool {
        let yes = self.yes.results.get(fingerprint);
        yes.is_some_and(|(_, end)| *end + KNOWN > now)
    }

    /// Remembers a result; answers how many had to go before their time.
    fn keep(&mut self, fingerprint: Fingerprint, access: Access, now: Instant) -> u64 {
        match access {
            Access::Allowed => {
                self.no.results.remove(&fingerprint);
                self.yes.keep(fingerprint, access, now, now + YES)
            }
            Access::Denied | Access::Unauthenticated => {
                self.yes.results.remove(&fingerprint);
                self.no.keep(fingerprint, access, now, now + NO)
            }
            Access::Unavailable => 0,
        }
    }
}

impl Store {
    fn kept(after: Duration) -> Self {
        Self {
            after,
            results: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    fn keep(&mut self, fingerprint: Fingerprint, access: Access, now: Instant, end: Instant) -> u64 {
        self.results.insert(fingerprint, (access, end));
        self.order.push_back((fingerprint, end));
        let mut evicted = 0;
        while let Some((oldest, oldest_end)) = self.order.front().copied() {
            let over = self.order.len() > REMEMBERED;
            if !over && oldest_end + self.after > now {
                break;
            }
            self.order.pop_front();
            // A result that was renewed stays: its newer place in the order has another end.
            if self
                .results
                .get(&oldest)
                .is_some_and(|(_, end)| *end == oldest_end)
            {
                self.results.remove(&oldest);
                evicted += u64::from(oldest_end > now);
            }
        }
        evicted
    }
}

struct ApiServer(Client);

#[async_trait]
impl Reviewer for ApiServer {
    async fn review(&self, token: &Secret<String>, key: &ObjectKey) -> Access {
        match self.ask(token, key).await {
            Ok(access) => access,
            Err(error) => {
                tracing::warn!(
                    project.namespace = %key.namespace,
                    project.name = %key.name,
                    %error,
                    "a caller's token cannot be checked"
                );
                Access::Unavailable
            }
        }
    }
}

impl ApiServer {
    async fn ask(&self, token: &Secret<String>, key: &ObjectKey) -> Result<Access, kube::Error> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.expose().clone()),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let review = Api::all(self.0.clone())
            .create(&PostParams::default(), &review)
            .await?;
        let status = review.status.unwrap_or_default();
        let user = match status.user {
            Some(user) if status.authenticated == Some(true) => user,
            _ => return Ok(Access::Unauthenticated),
        };
        let review = SubjectAccessReview {
            spec: question(user, key),
            ..SubjectAccessReview::default()
        };
        let review = Api::all(self.0.clone())
            .create(&PostParams::default(), &review)
            .await?;
        let allowed = review
            .status
            .is_some_and(|status| status.allowed && status.denied != Some(true));
        Ok(if allowed { Access::Allowed } else { Access::Denied })
    }
}

/// May this user create the project's events?
fn question(user: UserInfo, key: &ObjectKey) -> SubjectAccessReviewSpec {
    SubjectAccessReviewSpec {
        resource_attributes: Some(ResourceAttributes {
            group: Some(crate::api::GROUP.to_owned()),
            version: Some("*".to_owned()),
            resource: Some("eventprojects".to_owned()),
            subresource: Some("events".to_owned()),
            verb: Some("create".to_owned()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            ..ResourceAttributes::default()
        }),
        user: user.username,
        uid: user.uid,
        groups: user.groups,
        extra: user.extra,
        ..SubjectAccessReviewSpec::default()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Answers with what the token says, after a while.
    #[derive(Default)]
    struct Scripted {
        asked: Arc<AtomicUsize>,
        at_once: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
        takes: Duration,
    }

    struct Ended<'a>(&'a AtomicUsize);

    impl Drop for Ended<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[async_trait]
    impl Reviewer for Scripted {
        async fn review(&self, token: &Secret<String>, _key: &ObjectKey) -> Access {
            self.asked.fetch_add(1, Ordering::SeqCst);
            let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            // Also when the question is dropped.
            let _ended = Ended(&self.at_once);
            tokio::time::sleep(self.takes).await;
            match token.expose().split('-').next() {
                Some("good") => Access::Allowed,
                Some("denied") => Access::Denied,
                Some("down") => Access::Unavailable,
                _ => Access::Unauthenticated,
            }
        }
    }

    fn authorizer(takes: Duration) -> (KubeAuthorizer, Arc<AtomicUsize>, Arc<AtomicUsize>) {
        let scripted = Scripted {
            takes,
            ..Scripted::default()
        };
        let (asked, most) = (Arc::clone(&scripted.asked), Arc::clone(&scripted.most));
        (
            KubeAuthorizer::over(Box::new(scripted), AccessMetrics::default()),
            asked,
            most,
        )
    }

    fn token(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_is_remembered_for_its_time_and_its_project_only() {
        let (authorizer, asked, _) = authorizer(Duration::ZERO);
        let key = ObjectKey::new("a", "b");
        let cases = [
            ("good", Access::Allowed, YES),
            ("denied", Access::Denied, NO),
            ("bad", Access::Unauthenticated, NO),
            ("down", Access::Unavailable, Duration::ZERO),
        ];
        for (text, access, believed) in cases {
            asked.store(0, Ordering::SeqCst);
            assert_eq!(authorizer.may_publish(&token(text), &key).await, access);
            if believed > Duration::ZERO {
                tokio::time::advance(believed.saturating_sub(Duration::from_millis(50))).await;
                assert_eq!(authorizer.may_publish(&token(text), &key).await, access);
                assert_eq!(asked.load(Ordering::SeqCst), 1, "{text}");
            }
            tokio::time::advance(Duration::from_millis(60)).await;
            assert_eq!(authorizer.may_publish(&token(text), &key).await, access);
            assert_eq!(asked.load(Ordering::SeqCst), 2, "{text}");
        }
        assert_eq!(
            authorizer
                .may_publish(&token("good"), &ObjectKey::new("a", "c"))
                .await,
            Access::Allowed
        );
        assert_eq!(asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn one_question_is_asked_for_all_who_wait_with_one_token() {
        let (authorizer, asked, _) = authorizer(Duration::from_millis(100));
        let key = ObjectKey::new("a", "b");
        let good = token("good");
        let all = futures::future::join_all((0..100).map(|_| authorizer.may_publish(&good, &key))).await;
        assert!(all.iter().all(|access| *access == Access::Allowed));
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn many_questions_wait_in_bounded_lines_and_not_for_ever() {
        let (authorizer, asked, most) = authorizer(Duration::from_secs(1));
        let key = ObjectKey::new("a", "b");
        let tokens: Vec<_> = (0..WAITING + 10)
            .map(|number| token(&format!("good-{number}")))
            .collect();
        let started = Instant::now();
        let all =
            futures::future::join_all(tokens.iter().map(|token| authorizer.may_publish(token, &key))).await;
        assert!(started.elapsed() <= DEADLINE + Duration::from_millis(10));
        assert!(most.load(Ordering::SeqCst) <= LINES);
        assert!(
            asked.load(Ordering::SeqCst) <= LINES * 5,
            "no question is asked for nobody"
        );
        assert!(all.contains(&Access::Allowed));
        let unavailable = all
            .iter()
            .filter(|access| **access == Access::Unavailable)
            .count();
        assert!(unavailable >= 10, "{unavailable}");
        assert_eq!(authorizer.strangers.waiting.load(Ordering::SeqCst), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_token_is_renewed_however_many_made_up_ones_wait() {
        let (authorizer, asked, most) = authorizer(Duration::from_secs(1));
        let key = ObjectKey::new("a", "b");
        let good = token("good");
        assert_eq!(authorizer.may_publish(&good, &key).await, Access::Allowed);
        tokio::time::advance(YES + Duration::from_secs(1)).await;
        assert_eq!(authorizer.remembered(&fingerprint(&good, &key)), None);
        asked.store(0, Ordering::SeqCst);
        let made_up: Vec<_> = (0..2 * WAITING)
            .map(|number| token(&format!("bad-{number}")))
            .collect();
        let flood =
            futures::future::join_all(made_up.iter().map(|token| authorizer.may_publish(token, &key)));
        let renewed = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let started = Instant::now();
            assert_eq!(authorizer.may_publish(&good, &key).await, Access::Allowed);
            assert!(started.elapsed() <= Duration::from_millis(1_100));
        };
        futures::future::join(flood, renewed).await;
        assert!(most.load(Ordering::SeqCst) <= LINES + RENEWALS);
        assert_eq!(authorizer.renewals.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_yes_is_known_for_a_while_unless_there_is_a_no() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let good = fingerprint(&token("good"), &ObjectKey::new("a", "b"));
        assert!(!memory.knows(&good, now));
        memory.keep(good, Access::Allowed, now);
        let lapsed = now + YES;
        assert_eq!(memory.recall(&good, lapsed), None);
        assert!(memory.knows(&good, lapsed));
        assert!(!memory.knows(&good, lapsed + KNOWN));
        memory.keep(good, Access::Unavailable, lapsed);
        assert!(memory.knows(&good, lapsed));
        memory.keep(good, Access::Denied, lapsed);
        assert!(!memory.knows(&good, lapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn made_up_tokens_do_not_push_good_ones_out() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let of = |text: &str| fingerprint(&token(text), &ObjectKey::new("a", "b"));
        memory.keep(of("good"), Access::Allowed, now);
        let evicted: u64 = (0..3 * REMEMBERED)
            .map(|number| memory.keep(of(&number.to_string()), Access::Unauthenticated, now))
            .sum();
        assert_eq!(evicted, 2 * REMEMBERED as u64);
        assert_eq!(memory.no.results.len(), REMEMBERED);
        assert_eq!(memory.recall(&of("good"), now), Some(Access::Allowed));
        memory.keep(of("another"), Access::Allowed, now + YES + KNOWN);
        assert_eq!(memory.yes.order.len(), 1, "what is past its time goes");
    }
}
