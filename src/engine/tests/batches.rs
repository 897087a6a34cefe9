//! Destinations that take several events in a request.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::fixture::*;
use crate::domain::id::EventId;
use crate::engine::history::{CancelledOne, History as _};
use crate::engine::queue::Queue;
use crate::engine::queue::memory::MemoryQueue;

/// At most three events, which wait for 10 s.
fn threes(more: &Value) -> Value {
    let mut delivery = json!({"batch": {"maxEvents": 3, "maxWait": "10s"}, "retry": {"schedule": ["60s"]}});
    let members = delivery.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    delivery
}

impl Fixture {
    /// The users of each batch that a receiver was sent.
    fn batches(&self, name: &str) -> Vec<String> {
        let path = format!("/{name}");
        let batches = self.transport.batches.lock();
        let own = batches.iter().filter(|(sent, ..)| *sent == path);
        own.map(|(_, _, events)| {
            let users = events.iter().map(|event| event["user"]["id"].as_str().unwrap());
            users.collect::<Vec<_>>().join(" ")
        })
        .collect()
    }

    /// Publishes an event for each user, called like the user.
    async fn publish_users(&self, event_type: &str, users: &[&str]) {
        for user in users {
            self.publish_for(event_type, user, user).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_go_when_there_are_enough_or_the_oldest_has_waited() {
    let fixture = Fixture::new();
    fixture.receiver("a", &threes(&json!({})), Script::Status(200));
    fixture
        .publish_users("a", &["1", "2", "3", "4", "5", "6", "7"])
        .await;
    fixture.pass_time(Duration::from_millis(1)).await;
    assert_eq!(fixture.batches("a"), ["1 2 3", "4 5 6"]);
    let view = fixture.view("a");
    assert_eq!((view.waiting_for, view.depth.pending), (Some("Batch"), 1));
    assert!(view.next_attempt.is_some());
    fixture.pass(9).await;
    fixture.publish_users("a", &["8"]).await;
    fixture.pass_time(Duration::from_millis(900)).await;
    assert_eq!(fixture.batches("a").len(), 2);
    fixture.pass(1).await;
    assert_eq!(fixture.batches("a")[2..], ["7 8"]);
    fixture.pass(60).await;
    let view = fixture.view("a");
    assert_eq!(
        (view.health.delivered, view.depth.pending, view.waiting_for),
        (8, 0, None)
    );
}

#[tokio::test(start_paused = true)]
async fn what_failed_together_goes_together_again_under_the_same_id() {
    let fixture = Fixture::new();
    fixture.receiver("a", &threes(&json!({})), Script::Status(500));
    fixture.publish_users("a", &["1", "2"]).await;
    fixture.pass(11).await;
    let health = fixture.view("a").health;
    assert_eq!(
        (health.consecutive_failures, health.exhausted),
        (1, 0),
        "one request, one failure"
    );
    fixture.answer("a", Script::Status(200));
    fixture.pass(34).await;
    // Waits for others while the time of the first ones comes.
    fixture.publish_users("a", &["3"]).await;
    fixture.pass(5).await;
    fixture.publish_users("a", &["4"]).await;
    fixture.pass(60).await;
    let batches = fixture.batches("a");
    assert_eq!(
        batches.iter().filter(|users| *users == "1 2").count(),
        2,
        "{batches:?}"
    );
    assert_eq!(batches.len(), 3, "{batches:?}");
    let ids = fixture.ids("a");
    let again = batches.iter().skip(1).position(|users| users == "1 2").unwrap() + 1;
    assert_eq!(ids[0], ids[again]);
    assert_eq!(fixture.view("a").health.delivered, 4);
}

#[tokio::test(start_paused = true)]
async fn after_a_pause_what_failed_goes_by_age_with_the_others() {
    let fixture = Fixture::new();
    let spec = |suspend: bool| json!({"suspend": suspend, "delivery": threes(&json!({}))});
    fixture.answer("a", Script::Status(500));
    fixture.destination("a", 1, &spec(false));
    fixture.publish_users("a", &["1", "2"]).await;
    fixture.pass(11).await;
    fixture.destination("a", 2, &spec(true));
    fixture.publish_users("a", &["3", "4"]).await;
    fixture.pass(100).await;
    assert_eq!(fixture.batches("a"), ["1 2"]);
    fixture.answer("a", Script::Status(200));
    fixture.destination("a", 3, &spec(false));
    fixture.pass(1).await;
    assert_eq!(fixture.batches("a")[1..], ["1 2 3", "4"]);
}

#[tokio::test(start_paused = true)]
async fn each_event_is_given_up_alone() {
    let fixture = Fixture::new();
    let once = json!({"retry": {"maxAttempts": 1}, "deadLetter": {"name": "dead"}});
    fixture.receiver("a", &threes(&once), Script::Status(500));
    fixture.receiver("dead", &threes(&json!({})), Script::Status(200));
    fixture.pass(1).await;
    fixture.publish_users("a", &["1", "2", "3"]).await;
    fixture.pass(60).await;
    let health = fixture.view("a").health;
    assert_eq!((health.consecutive_failures, health.exhausted), (1, 3));
    assert_eq!(fixture.batches("a"), ["1 2 3"]);
    let mut letters = fixture.batches("dead");
    letters.sort();
    assert_eq!(letters, ["1", "2", "3"], "headers say whose each is");
    let told = fixture.transport.dead_letters.lock().clone();
    assert_eq!(told.len(), 3);
    assert!(
        told.iter()
            .all(|[_, from, reason]| from == "a" && reason == "ServerError")
    );
}

/// `a` gives up at once what then goes to `dead`.
fn with_dead_letters(fixture: &Fixture, dead: &Value, script: Script) {
    let once = json!({"retry": {"maxAttempts": 1}, "deadLetter": {"name": "dead"}});
    fixture.receiver("a", &once, Script::Status(500));
    fixture.receiver("dead", dead, script);
}

#[tokio::test(start_paused = true)]
async fn dead_letters_have_their_turn_among_events_that_come_all_the_time() {
    let fixture = Fixture::new();
    let slow = Script::Take(Duration::from_secs(1), 200);
    with_dead_letters(
        &fixture,
        &threes(&json!({"maxInFlight": 1, "maxAge": "12s"})),
        slow,
    );
    fixture.pass(1).await;
    fixture.publish_users("a", &["l1", "l2", "l3"]).await;
    for second in 0..12 {
        for n in 0..3 {
            let user = format!("{second}-{n}");
            fixture.publish_users("dead", &[&user]).await;
        }
        fixture.pass(1).await;
    }
    fixture.pass(60).await;
    let health = fixture.view("dead").health;
    assert_eq!((health.delivered, health.exhausted), (39, 0));
    assert_eq!(fixture.transport.dead_letters.lock().len(), 3);
    let batches = fixture.batches("dead");
    assert!(
        batches
            .iter()
            .all(|users| !users.contains(' ') || !users.contains('l')),
        "{batches:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn dead_letters_go_beside_each_other() {
    let fixture = Fixture::new();
    let slow = Script::Take(Duration::from_secs(5), 200);
    with_dead_letters(&fixture, &threes(&json!({"maxInFlight": 4})), slow);
    fixture.pass(1).await;
    fixture
        .publish_users("a", &["1", "2", "3", "4", "5", "6", "7", "8"])
        .await;
    fixture.pass(3).await;
    assert_eq!((fixture.sent("dead"), fixture.most_in_flight("dead")), (4, 4));
    let depth = fixture.view("dead").depth;
    assert!(depth.next_due.is_some(), "what waits is not held: {depth:?}");
    fixture.pass(30).await;
    assert_eq!((fixture.sent("dead"), fixture.most_in_flight("dead")), (8, 4));
    assert_eq!(fixture.view("dead").health.delivered, 8);
}

#[tokio::test(start_paused = true)]
async fn one_event_that_waits_can_be_cancelled() {
    let fixture = Fixture::new();
    fixture.receiver("a", &threes(&json!({})), Script::Status(200));
    fixture.publish_users("a", &["1", "2"]).await;
    fixture.pass(1).await;
    let uid = identity("a", 1).uid;
    let id = EventId::parse("1").unwrap();
    let cancelled = fixture.engine.cancel(&uid, &id).await.unwrap();
    assert!(matches!(cancelled, CancelledOne::Done), "{cancelled:?}");
    fixture.pass(60).await;
    assert_eq!(fixture.batches("a"), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_go_costs_no_other_its_place() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Status(200));
    let spec = json!({
        "suspend": true,
        "webhook": {
            "url": "https://example.com/a", "signing": {"scheme": "None"},
            "payload": {"template": {"user": {"id": "{{ $.event.user.id }}"}}},
        },
        "delivery": threes(&json!({"maxAge": "60s", "batch": {"maxEvents": 5, "maxWait": "10s"}})),
    });
    fixture.destination("a", 1, &spec);
    fixture.publish_users("a", &["old"]).await;
    fixture.pass(50).await;
    fixture.publish("a", 1).await;
    fixture.publish_users("a", &["1", "2"]).await;
    fixture.pass(11).await;
    let mut resumed = spec.clone();
    resumed["suspend"] = json!(false);
    fixture.destination("a", 2, &resumed);
    fixture.pass(60).await;
    assert_eq!(fixture.batches("a"), ["1 2"]);
    let health = fixture.view("a").health;
    assert_eq!((health.delivered, health.exhausted), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn a_request_counts_once_towards_rate_and_requests_in_flight() {
    let fixture = Fixture::new();
    let policy = threes(&json!({"maxInFlight": 2, "rateLimit": {"events": 1, "per": "10s", "burst": 4}}));
    fixture.receiver("a", &policy, Script::Take(Duration::from_secs(5), 200));
    let users: Vec<String> = (0..15).map(|n| n.to_string()).collect();
    fixture
        .publish_users("a", &users.iter().map(String::as_str).collect::<Vec<_>>())
        .await;
    fixture.pass(1).await;
    assert_eq!((fixture.sent("a"), fixture.most_in_flight("a")), (2, 2));
    fixture.pass(8).await;
    assert_eq!((fixture.sent("a"), fixture.most_in_flight("a")), (4, 2));
    fixture.pass(120).await;
    assert_eq!((fixture.sent("a"), fixture.view("a").health.delivered), (5, 15));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_sent_after_a_restart() {
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::default());
    let fixture = Fixture::with_queue(Arc::clone(&queue), 64);
    fixture.receiver("a", &threes(&json!({})), Script::Status(500));
    fixture.publish_users("a", &["1", "2", "3", "4"]).await;
    fixture.pass(1).await;
    assert_eq!(fixture.batches("a"), ["1 2 3"]);
    fixture.stop().await;
    let fixture = Fixture::with_queue(queue, 64);
    fixture.receiver("a", &threes(&json!({})), Script::Status(200));
    fixture.pass(200).await;
    let mut batches = fixture.batches("a");
    batches.sort();
    assert_eq!(batches, ["1 2 3", "4"]);
    assert_eq!(fixture.view("a").depth.pending, 0);
}

#[tokio::test(start_paused = true)]
async fn a_disabled_destination_is_probed_with_an_array_of_one() {
    let fixture = Fixture::new();
    let spec = |probe: &str| {
        json!({
            "delivery": threes(&json!({})),
            "autoDisable": {"consecutiveFailures": 1, "minimumDuration": "0s", "probeInterval": probe},
        })
    };
    fixture.answer("a", Script::Status(500));
    fixture.destination("a", 1, &spec("30s"));
    fixture.publish_users("a", &["1", "2", "3"]).await;
    fixture.pass(1).await;
    assert!(fixture.view("a").health.disabled.is_some());
    fixture.answer("a", Script::Status(200));
    fixture.pass(200).await;
    let batches = fixture.batches("a");
    assert_eq!(batches[..2], ["1 2 3", "1"]);
    assert_eq!(
        (
            fixture.view("a").health.delivered,
            fixture.view("a").depth.pending
        ),
        (3, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_thousand_events_over_a_flaky_receiver_are_all_delivered() {
    let fixture = Fixture::new();
    let policy =
        json!({"batch": {"maxEvents": 7, "maxWait": "2s"}, "retry": {"schedule": ["1s"], "maxAttempts": 20}});
    fixture.answer("a", Script::Flaky);
    fixture.destination(
        "a",
        1,
        &json!({"delivery": policy, "autoDisable": {"enabled": false}}),
    );
    for n in 0..1000 {
        let user = n.to_string();
        fixture.publish_users("a", &[&user]).await;
        if n % 50 == 0 {
            fixture.pass(1).await;
        }
    }
    fixture.pass(600).await;
    let view = fixture.view("a");
    assert_eq!((view.health.delivered, view.depth.pending), (1000, 0));
    let batches = fixture.batches("a");
    assert!(batches.iter().all(|users| users.split(' ').count() <= 7));
}
