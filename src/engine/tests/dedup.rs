//! Destinations that are sent no two events that are the same.

use serde_json::json;

use super::fixture::*;
use crate::domain::id::EventId;
use crate::engine::history::{History as _, ReplayedOne};
use crate::engine::publish::Receipt;

impl Fixture {
    /// Publishes events for users; how many deliveries each made.
    async fn deliveries(&self, event_type: &str, users: &[Option<&str>]) -> Vec<usize> {
        let events = users.iter().map(|user| match user {
            Some(user) => json!({"type": event_type, "user": {"id": user}}),
            None => json!({"type": event_type}),
        });
        let receipts = self.try_publish_all(&events.collect()).await.unwrap();
        receipts
            .iter()
            .map(|receipt: &Receipt| receipt.deliveries)
            .collect()
    }

    fn suppressed(&self, name: &str) -> u64 {
        self.view(name).health.suppressed
    }
}

fn per_user(window: &str) -> serde_json::Value {
    json!({"dedup": {"key": "$.event.user.id", "window": window}})
}

#[tokio::test(start_paused = true)]
async fn the_same_event_is_sent_once_in_its_window() {
    let fixture = Fixture::new();
    fixture.receiver("a", &per_user("10m"), Script::Status(200));
    fixture.destination("b", 1, &json!({"events": ["a"]}));
    fixture.pass(1).await;
    let (u, v) = (Some("u"), Some("v"));
    assert_eq!(fixture.deliveries("a", &[u, u, v, u]).await, [2, 1, 2, 1]);
    fixture.pass(599).await;
    assert_eq!(fixture.deliveries("a", &[u]).await, [1]);
    assert_eq!((fixture.sent("a"), fixture.suppressed("a")), (2, 3));
    fixture.pass(1).await;
    assert_eq!(
        fixture.deliveries("a", &[u]).await,
        [2],
        "what was left out lengthens no window"
    );
    fixture.pass(1).await;
    assert_eq!((fixture.sent("a"), fixture.sent("b")), (3, 6));
    assert_eq!((fixture.suppressed("a"), fixture.suppressed("b")), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn an_event_without_the_key_is_always_sent() {
    let fixture = Fixture::new();
    fixture.receiver("a", &per_user("10m"), Script::Status(200));
    fixture.pass(1).await;
    assert_eq!(fixture.deliveries("a", &[None, None, None]).await, [1, 1, 1]);
    fixture.pass(1).await;
    assert_eq!((fixture.sent("a"), fixture.suppressed("a")), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_filter_keeps_away_opens_no_window() {
    let fixture = Fixture::new();
    let mut spec = json!({"filter": "event.data.n > 1", "delivery": per_user("10m")});
    fixture.destination("a", 1, &spec);
    spec["events"] = json!(["a"]);
    spec["filter"] = json!("event.data.n > 2");
    fixture.destination("b", 1, &spec);
    fixture.pass(1).await;
    let events = (1..=4).map(|n| json!({"type": "a", "user": {"id": "u"}, "data": {"n": n}}));
    let receipts = fixture.try_publish_all(&events.collect()).await.unwrap();
    let deliveries: Vec<_> = receipts.iter().map(|receipt| receipt.deliveries).collect();
    assert_eq!(deliveries, [0, 1, 1, 0]);
    fixture.pass(1).await;
    assert_eq!((fixture.sent("a"), fixture.sent("b")), (1, 1));
    assert_eq!((fixture.suppressed("a"), fixture.suppressed("b")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn what_waits_while_suspended_is_told_apart_too() {
    let fixture = Fixture::new();
    fixture.destination("a", 1, &json!({"suspend": true, "delivery": per_user("10m")}));
    fixture.pass(1).await;
    let u = Some("u");
    assert_eq!(fixture.deliveries("a", &[u, u, u]).await, [1, 0, 0]);
    fixture.destination("a", 2, &json!({"delivery": per_user("10m")}));
    fixture.pass(1).await;
    assert_eq!((fixture.sent("a"), fixture.suppressed("a")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn another_window_or_key_holds_from_the_next_event_on() {
    let fixture = Fixture::new();
    fixture.receiver("a", &per_user("10m"), Script::Status(200));
    let u = Some("u");
    assert_eq!(fixture.deliveries("a", &[u]).await, [1]);
    fixture.pass(60).await;
    fixture.destination("a", 2, &json!({"delivery": per_user("1m")}));
    assert_eq!(fixture.deliveries("a", &[u, u]).await, [1, 0]);
    let key = json!({"dedup": {"key": "{{ $.event.user.id }}", "window": "1m"}});
    fixture.destination("a", 3, &json!({"delivery": key}));
    assert_eq!(
        fixture.deliveries("a", &[u, u]).await,
        [1, 0],
        "another key begins anew"
    );
    fixture.destination("a", 4, &json!({}));
    assert_eq!(fixture.deliveries("a", &[u, u]).await, [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_longer_window_holds_for_what_is_seen_from_then_on() {
    let fixture = Fixture::new();
    fixture.receiver("a", &per_user("2s"), Script::Status(200));
    let u = Some("u");
    assert_eq!(fixture.deliveries("a", &[u]).await, [1]);
    fixture.pass(4).await;
    fixture.destination("a", 2, &json!({"delivery": per_user("24h")}));
    fixture.pass(2).await;
    assert_eq!(fixture.deliveries("a", &[u, u]).await, [1, 0]);
    fixture.pass(3600).await;
    assert_eq!(fixture.deliveries("a", &[u]).await, [0]);
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_made_anew_has_seen_nothing() {
    let fixture = Fixture::new();
    fixture.receiver("a", &per_user("10m"), Script::Status(200));
    let u = Some("u");
    assert_eq!(fixture.deliveries("a", &[u, u]).await, [1, 0]);
    fixture.directory.remove_destination(&identity("a", 1).uid);
    fixture.pass(1).await;
    fixture.destination("new", 1, &json!({"events": ["a"], "delivery": per_user("10m")}));
    assert_eq!(fixture.deliveries("a", &[u, u]).await, [1, 0]);
}

#[tokio::test(start_paused = true)]
async fn a_replay_is_never_left_out() {
    let fixture = Fixture::new();
    fixture.receiver("a", &per_user("10m"), Script::Status(200));
    fixture.pass(1).await;
    fixture.publish_for("a", "e1", "u").await;
    fixture.publish_for("a", "e2", "u").await;
    fixture.pass(1).await;
    assert_eq!(fixture.ids("a").len(), 1);
    let uid = identity("a", 1).uid;
    let mut replayed = Vec::new();
    for id in ["e1", "e2"] {
        let id = EventId::parse(id).unwrap();
        replayed.push(fixture.engine.replay_one(&uid, &id).await.unwrap());
    }
    let never_there = ReplayedOne::Unknown;
    assert_eq!(replayed, [ReplayedOne::Made, never_there]);
    fixture.pass(1).await;
    assert_eq!((fixture.sent("a"), fixture.suppressed("a")), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_large_event_is_told_apart_beside_other_work() {
    let fixture = Fixture::new();
    fixture.receiver(
        "a",
        &json!({"dedup": {"key": "$.event.data.text", "window": "10m"}}),
        Script::Status(200),
    );
    fixture.pass(1).await;
    for size in [40_000, 40_000, 50_000] {
        fixture.try_publish_sized("a", size).await.unwrap();
    }
    fixture.pass(1).await;
    assert_eq!((fixture.sent("a"), fixture.suppressed("a")), (2, 1));
}
