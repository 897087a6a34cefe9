//! [`Tokens`]: the OAuth 2.0 tokens that requests carry, each fetched once and kept until shortly before it expires.
//!
//! A token is kept under the fingerprint of everything it was asked with, the destination's uid and the client's secret
//! included: what a changed Secret asks for is never answered with an old token. Whoever needs a token while it is being
//! fetched waits for that one request, each within its own deadline. A refusal is kept for [`REFUSAL_KEPT`], so that a
//! burst of deliveries does not become a burst of token requests. A receiver that refuses a new token, too, costs no
//! further one for [`IN_VAIN_KEPT`], unless it accepts one meanwhile. At most [`MAX_KEPT`] are kept; the least recently
//! used one goes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::metrics::TransportMetrics;
use crate::domain::confidential;
use crate::domain::oauth2::{self, AccessToken, ClientCredentials};
use crate::domain::outcome::{Failure, Reply};
use crate::domain::request::Fingerprint;

/// Most tokens that are kept.
const MAX_KEPT: usize = 10_000;
/// For how long a refusal answers everybody.
const REFUSAL_KEPT: Duration = Duration::from_secs(1);

/// For how long it is remembered that a receiver has refused a token that was fetched because it had refused another.
const IN_VAIN_KEPT: Duration = Duration::from_secs(30);

/// When the receiver has refused a new token, too; all tokens of a client share it.
type InVain = Arc<Mutex<Option<Instant>>>;

/// A token that was got.
#[derive(Clone, Debug)]
pub(super) struct Token {
    /// Value of `Authorization`, marked sensitive.
    pub(super) authorization: HeaderValue,
    /// Tells it from the ones before it.
    number: u64,
    fetched: Instant,
    fresh_for: Duration,
    lifetime: Duration,
    in_vain: InVain,
}

impl Token {
    /// Whether another one is worth being fetched now that the receiver has refused this one. `is_second`: it was sent
    /// because the receiver had refused one before it.
    pub(super) fn is_worth_another(&self, is_second: bool) -> bool {
        let mut in_vain = self.in_vain.lock();
        if is_second {
            *in_vain = Some(Instant::now());
        }
        in_vain.is_none_or(|at| at.elapsed() >= IN_VAIN_KEPT)
    }

    /// The receiver has accepted it.
    pub(super) fn accepted(&self) {
        *self.in_vain.lock() = None;
    }
}

/// Keeps tokens.
pub(super) struct Tokens {
    kept: Mutex<HashMap<Fingerprint, Arc<Slot>>>,
    metrics: TransportMetrics,
}

#[derive(Default)]
struct Slot {
    /// Locked while a token is being fetched.
    state: tokio::sync::Mutex<State>,
    used: Mutex<Option<Instant>>,
    in_vain: InVain,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    refusal: Option<(Instant, Failure)>,
    fetched: u64,
}

impl Tokens {
    pub(super) fn new(metrics: TransportMetrics) -> Self {
        Self {
            kept: Mutex::default(),
            metrics,
        }
    }

    /// The token of a client: the one that is kept, or the one that `fetch` gets. `refused` is one that the receiver has
    /// refused; it is not handed out again. While a token still lives, getting another takes no longer than `patience`.
    pub(super) async fn get<F>(
        &self,
        client: &ClientCredentials,
        refused: Option<&Token>,
        patience: Duration,
        fetch: impl FnOnce() -> F,
    ) -> Result<Token, Failure>
    where
        F: Future<Output = Result<AccessToken, Failure>>,
    {
        let asked = Instant::now();
        let slot = self.slot(client.fingerprint(), asked);
        let mut state = slot.state.lock().await;
        if let Some(refused) = refused
            && state
                .token
                .as_ref()
                .is_some_and(|token| token.number == refused.number)
        {
            state.token = None;
        }
        let now = Instant::now();
        let age = |token: &Token| now.saturating_duration_since(token.fetched);
        if let Some(token) = state.token.as_ref().filter(|token| age(token) < token.fresh_for) {
            return Ok(token.clone());
        }
        let usable = state.token.clone().filter(|token| age(token) < token.lifetime);
        if let Some((at, refusal)) = &state.refusal
            && (*at >= asked || now.saturating_duration_since(*at) < REFUSAL_KEPT)
        {
            return usable.ok_or_else(|| refusal.clone());
        }
        let fetched = match usable {
            // The rest of the deadline is for the request that it is for.
            Some(_) => tokio::time::timeout(patience, fetch())
                .await
                .unwrap_or_else(|_| Err(oauth2::late_refresh())),
            None => fetch().await,
        };
        match fetched {
            Ok(token) => {
                self.metrics.token_fetched(true);
                state.fetched = state.fetched.saturating_add(1);
                let token = Token {
                    number: state.fetched,
                    fetched: now,
                    fresh_for: token.fresh_for(),
                    lifetime: token.lifetime,
                    authorization: token.authorization,
                    in_vain: Arc::clone(&slot.in_vain),
                };
                state.token = Some(token.clone());
                state.refusal = None;
                Ok(token)
            }
            Err(failure) => {
                self.metrics.token_fetched(false);
                state.refusal = Some((Instant::now(), failure.clone()));
                usable.ok_or(failure)
            }
        }
    }

    fn slot(&self, key: Fingerprint, now: Instant) -> Arc<Slot> {
        let mut kept = self.kept.lock();
        let slot = if let Some(slot) = kept.get(&key) {
            Arc::clone(slot)
        } else {
            if kept.len() >= MAX_KEPT {
                let oldest = kept.iter().min_by_key(|(_, slot)| *slot.used.lock());
                if let Some(oldest) = oldest.map(|(key, _)| *key) {
                    kept.remove(&oldest);
                    self.metrics.token_displaced();
                }
            }
            let slot = Arc::<Slot>::default();
            kept.insert(key, Arc::clone(&slot));
            slot
        };
        *slot.used.lock() = Some(now);
        slot
    }
}

/// A reply without the token, which a receiver may repeat in any form: what is kept of it may be shown.
pub(super) fn without(mut reply: Reply, token: &Token) -> Reply {
    let secret = token.authorization.to_str().unwrap_or_default();
    let secret = secret.strip_prefix("Bearer ").unwrap_or(secret);
    if secret.is_empty() || reply.excerpt.len() < secret.len() {
        return reply;
    }
    let text = String::from_utf8_lossy(&reply.excerpt);
    if matches!(
        confidential::masked(&text, &[secret.to_owned()], ""),
        Cow::Owned(_)
    ) {
        reply.excerpt = Bytes::from_static(b"(the receiver repeats the token)");
    }
    reply
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;

    use super::*;
    use crate::domain::destination::Endpoint;
    use crate::domain::egress::EgressPolicy;
    use crate::domain::id::Uid;
    use crate::domain::oauth2::Client;
    use crate::domain::outcome::FailureReason;
    use crate::domain::request::Passage;
    use crate::domain::secret::Secret;

    fn client(secret: &str, owner: &str) -> ClientCredentials {
        let client = Client {
            endpoint: Endpoint::parse("https://login.example.com/token", &EgressPolicy::default()).unwrap(),
            id: "id",
            secret: &Secret::new(secret.to_owned()),
            in_body: false,
            parameters: Vec::new(),
            passage: Passage::default(),
        };
        ClientCredentials::new(&client, &Uid::new(owner))
    }

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A token endpoint that numbers its tokens; each lives 100 s.
    #[derive(Default)]
    struct Server(AtomicUsize);

    impl Server {
        async fn fetch(&self) -> Result<AccessToken, Failure> {
            // The clock is paused: what matters is that others come meanwhile.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let number = self.0.fetch_add(1, Ordering::Relaxed) + 1;
            Ok(AccessToken {
                authorization: HeaderValue::from_str(&format!("Bearer {number}")).unwrap(),
                lifetime: Duration::from_secs(100),
            })
        }

        fn asked(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    async fn refuse() -> Result<AccessToken, Failure> {
        Err(Failure::new(FailureReason::TokenRefused, "no"))
    }

    fn tokens() -> Tokens {
        Tokens::new(TransportMetrics::default())
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_at_once_make_one_request_and_all_get_its_token() {
        let (tokens, server, client) = (tokens(), Server::default(), client("s", "a"));
        let all = (0..100).map(|_| tokens.get(&client, None, PATIENCE, || server.fetch()));
        for token in join_all(all).await {
            assert_eq!(token.unwrap().authorization, "Bearer 1");
        }
        assert_eq!(server.asked(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_is_fetched_anew_before_it_expires() {
        let (tokens, server, client) = (tokens(), Server::default(), client("s", "a"));
        let get = async || {
            tokens
                .get(&client, None, PATIENCE, || server.fetch())
                .await
                .unwrap()
        };
        get().await;
        tokio::time::advance(Duration::from_secs(70)).await;
        assert_eq!(get().await.authorization, "Bearer 1");
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(get().await.authorization, "Bearer 2");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_still_lives_outlasts_a_failed_refresh() {
        let (tokens, server, client) = (tokens(), Server::default(), client("s", "a"));
        tokens
            .get(&client, None, PATIENCE, || server.fetch())
            .await
            .unwrap();
        tokio::time::advance(Duration::from_secs(80)).await;
        assert_eq!(
            tokens
                .get(&client, None, PATIENCE, refuse)
                .await
                .unwrap()
                .authorization,
            "Bearer 1"
        );
        tokio::time::advance(Duration::from_secs(30)).await;
        tokens.get(&client, None, PATIENCE, refuse).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_still_lives_is_used_when_the_endpoint_hangs() {
        let (tokens, server, client) = (tokens(), Server::default(), client("s", "a"));
        tokens
            .get(&client, None, PATIENCE, || server.fetch())
            .await
            .unwrap();
        tokio::time::advance(Duration::from_secs(80)).await;
        let all = (0..3).map(|_| tokens.get(&client, None, PATIENCE, std::future::pending));
        let all = tokio::time::timeout(PATIENCE * 2, join_all(all)).await;
        for token in all.expect("none waits for longer than it may") {
            assert_eq!(token.unwrap().authorization, "Bearer 1");
        }
        tokio::time::advance(Duration::from_secs(30)).await;
        let long = tokens.get(&client, None, PATIENCE, std::future::pending);
        let none = tokio::time::timeout(PATIENCE * 2, long).await;
        assert!(none.is_err(), "without a token there is nothing but to wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_refused_is_replaced_once_for_all_who_had_it() {
        let (tokens, server, client) = (tokens(), Server::default(), client("s", "a"));
        let first = tokens
            .get(&client, None, PATIENCE, || server.fetch())
            .await
            .unwrap();
        let all = (0..10).map(|_| tokens.get(&client, Some(&first), PATIENCE, || server.fetch()));
        for token in join_all(all).await {
            assert_eq!(token.unwrap().authorization, "Bearer 2");
        }
        assert_eq!(server.asked(), 2);
    }

    /// An attempt at a receiver that accepts tokens or none; as it is made by the transport.
    async fn attempt(tokens: &Tokens, server: &Server, client: &ClientCredentials, accepts: bool) {
        let mut stale = None;
        loop {
            let token = tokens.get(client, stale.as_ref(), PATIENCE, || server.fetch());
            let token = token.await.unwrap();
            if accepts {
                return token.accepted();
            }
            if !token.is_worth_another(stale.is_some()) {
                return;
            }
            stale = Some(token);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_refuses_new_tokens_costs_one_in_half_a_minute() {
        let (tokens, server, client) = (tokens(), Server::default(), client("s", "a"));
        for asked in [2, 3, 4] {
            for _ in 0..50 {
                attempt(&tokens, &server, &client, false).await;
            }
            assert_eq!(server.asked(), asked);
            tokio::time::advance(IN_VAIN_KEPT).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_is_accepted_and_a_changed_secret_end_the_wait_for_another() {
        let (tokens, server) = (tokens(), Server::default());
        let (old, new) = (client("s", "a"), client("t", "a"));
        attempt(&tokens, &server, &old, false).await;
        attempt(&tokens, &server, &new, false).await;
        assert_eq!(server.asked(), 4, "both are tried twice");
        attempt(&tokens, &server, &old, true).await;
        attempt(&tokens, &server, &old, false).await;
        assert_eq!(server.asked(), 5, "it may have been revoked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_secret_and_another_destination_never_get_the_old_token() {
        let (tokens, server) = (tokens(), Server::default());
        for (client, number) in [
            (client("s", "a"), 1),
            (client("t", "a"), 2),
            (client("s", "b"), 3),
        ] {
            let token = tokens
                .get(&client, None, PATIENCE, || server.fetch())
                .await
                .unwrap();
            assert_eq!(token.authorization, format!("Bearer {number}").as_str());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_answers_everybody_for_a_moment_and_no_longer() {
        let (tokens, server, client) = (tokens(), Server::default(), client("s", "a"));
        tokens.get(&client, None, PATIENCE, refuse).await.unwrap_err();
        tokens
            .get(&client, None, PATIENCE, || server.fetch())
            .await
            .unwrap_err();
        tokio::time::advance(REFUSAL_KEPT).await;
        tokens
            .get(&client, None, PATIENCE, || server.fetch())
            .await
            .unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_leaves_the_request_to_the_next() {
        let (tokens, server, client) = (tokens(), Server::default(), client("s", "a"));
        let short = tokio::time::timeout(
            Duration::from_millis(10),
            tokens.get(&client, None, PATIENCE, || server.fetch()),
        );
        let long = tokens.get(&client, None, PATIENCE, || server.fetch());
        let (short, long) = tokio::join!(short, long);
        assert!(short.is_err());
        assert_eq!(long.unwrap().authorization, "Bearer 1");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_and_the_least_used_goes() {
        let (tokens, server) = (tokens(), Server::default());
        for number in 0..=MAX_KEPT {
            tokens
                .get(&client("s", &number.to_string()), None, PATIENCE, || {
                    server.fetch()
                })
                .await
                .unwrap();
        }
        assert_eq!(tokens.kept.lock().len(), MAX_KEPT);
        assert!(!tokens.kept.lock().contains_key(&client("s", "0").fingerprint()));
        assert_eq!(tokens.metrics.displaced_tokens(), 1);
    }

    #[test]
    fn a_reply_that_repeats_the_token_in_any_form_is_not_kept() {
        let token = Token {
            authorization: HeaderValue::from_static("Bearer t0ken/x+y="),
            number: 1,
            fetched: Instant::now(),
            fresh_for: Duration::ZERO,
            lifetime: Duration::ZERO,
            in_vain: InVain::default(),
        };
        for (body, is_kept) in [
            ("ok", true),
            ("a t0ken/x-y= of another", true),
            ("not t0ken/x+y=", false),
            (r#"{"not": "t0ken\/x+y="}"#, false),
            ("not t0ken%2Fx%2By%3D", false),
            ("<b>t0ken&#x2F;x&#43;y&#61;</b>", false),
        ] {
            let reply = Reply {
                excerpt: Bytes::from_static(body.as_bytes()),
                ..Reply::default()
            };
            assert_eq!(without(reply, &token).excerpt == body, is_kept, "{body}");
        }
    }
}
