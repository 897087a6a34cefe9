//! Who asks, who waits, and what is remembered of the answers.

use std::sync::Arc;

use super::memory::{NO, YES};
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
    async fn review(&self, token: &Secret<String>, _key: &ObjectKey, _right: Right) -> Access {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        // Also when the question is dropped.
        let _ended = Ended(&self.at_once);
        // What the API server takes of the paused time.
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
    let all = futures::future::join_all(tokens.iter().map(|token| authorizer.may_publish(token, &key))).await;
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
    assert_eq!(
        authorizer.remembered(&fingerprint(&good, &key, Right::Publish)),
        None
    );
    asked.store(0, Ordering::SeqCst);
    let made_up: Vec<_> = (0..2 * WAITING)
        .map(|number| token(&format!("bad-{number}")))
        .collect();
    let flood = futures::future::join_all(made_up.iter().map(|token| authorizer.may_publish(token, &key)));
    let renewed = async {
        // The flood is there first, and its first questions are under way.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let started = Instant::now();
        assert_eq!(authorizer.may_publish(&good, &key).await, Access::Allowed);
        assert!(started.elapsed() <= Duration::from_millis(1_100));
    };
    futures::future::join(flood, renewed).await;
    assert!(most.load(Ordering::SeqCst) <= LINES + RENEWALS);
    assert_eq!(authorizer.renewals.waiting.load(Ordering::SeqCst), 0);
}
