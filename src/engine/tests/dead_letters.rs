//! Dead letters: what one destination gives up reaches another, once, with the reason, over faults.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::fixture::*;
use super::mail::later;
use crate::domain::delivery_log;
use crate::domain::email::settled::Fate;
use crate::engine::deliveries::Query;
use crate::engine::history::History as _;
use crate::engine::queue::QueueError;
use crate::engine::queue::memory::MemoryQueue;

/// Gives up after so many attempts, for the others.
fn giving_up(attempts: u32, to: &str) -> Value {
    json!({"retry": {"schedule": ["1s"], "maxAttempts": attempts}, "deadLetter": {"name": to}})
}

impl Fixture {
    /// Path, origin and reason of the dead letters that were sent.
    fn dead_letters(&self) -> Vec<[String; 3]> {
        self.transport.dead_letters.lock().clone()
    }
}

fn letter(to: &str, from: &str, reason: &str) -> [String; 3] {
    [format!("/{to}"), from.to_owned(), reason.to_owned()]
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_goes_to_another_whatever_that_one_asks_for() {
    let fixture = Fixture::new();
    fixture.receiver("a", &giving_up(3, "dead"), Script::Status(500));
    fixture.destination("dead", 1, &json!({"filter": "event.type == 'other'"}));
    fixture.publish_for("a", "e1", "u").await;
    fixture.pass(60).await;
    assert_eq!(
        (fixture.sent("a"), fixture.ids("dead")),
        (3, vec!["e1".to_owned()])
    );
    assert_eq!(fixture.dead_letters(), [letter("dead", "a", "ServerError")]);
    let view = fixture.view("a");
    assert_eq!((view.health.exhausted, view.depth.pending), (1, 0));
    assert_eq!(fixture.view("dead").health.delivered, 1);
    // What it asks for itself is no dead letter.
    fixture.destination("dead", 2, &json!({}));
    fixture.publish("dead", 1).await;
    fixture.pass(1).await;
    assert_eq!((fixture.sent("dead"), fixture.dead_letters().len()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_that_is_tried_again_still_says_why_it_is_there() {
    let fixture = Fixture::new();
    fixture.receiver("a", &giving_up(1, "dead"), Script::Status(404));
    fixture.receiver("dead", &giving_up(3, "a"), Script::Status(503));
    fixture.publish("a", 1).await;
    fixture.pass(600).await;
    let expected = vec![letter("dead", "a", "ClientError"); 3];
    assert_eq!(fixture.dead_letters(), expected);
    assert_eq!(fixture.sent("a"), 1, "it does not come back");
    assert_eq!(fixture.view("dead").health.exhausted, 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_delivered_or_dropped_is_no_dead_letter() {
    let fixture = Fixture::new();
    fixture.receiver("a", &giving_up(5, "dead"), Script::Flaky);
    fixture.destination("dead", 1, &json!({}));
    fixture.publish("a", 20).await;
    fixture.pass(600).await;
    assert_eq!(
        (fixture.view("a").health.delivered, fixture.sent("dead")),
        (20, 0)
    );
    fixture.answer("a", Script::Status(500));
    fixture.publish("a", 1).await;
    fixture.pass_time(Duration::from_millis(1)).await;
    let spec = json!({"delivery": giving_up(5, "dead"), "filter": "false"});
    fixture.destination("a", 2, &spec);
    fixture.pass(600).await;
    assert_eq!((fixture.view("a").depth.pending, fixture.sent("dead")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_given_up_while_the_other_destination_is_missing() {
    let fixture = Fixture::new();
    fixture.receiver("a", &giving_up(1, "dead"), Script::Status(404));
    fixture.publish("a", 3).await;
    fixture.pass(90).await;
    let view = fixture.view("a");
    assert_eq!((view.depth.pending, fixture.sent("a")), (3, 6));
    assert_eq!(view.health.exhausted, 0, "it stays");
    fixture.destination("dead", 1, &json!({}));
    fixture.pass(90).await;
    let view = fixture.view("a");
    assert_eq!((view.depth.pending, fixture.sent("dead")), (0, 3));
    assert_eq!(view.health.exhausted, 3);
}

#[tokio::test(start_paused = true)]
async fn of_a_batch_nothing_is_given_up_while_the_other_destination_is_missing() {
    let fixture = Fixture::new();
    let mut policy = giving_up(1, "dead");
    policy["batch"] = json!({"maxEvents": 3, "maxWait": "10s"});
    fixture.receiver("a", &policy, Script::Status(404));
    fixture.publish("a", 3).await;
    fixture.pass(30).await;
    let view = fixture.view("a");
    assert_eq!((view.depth.pending, view.health.exhausted), (3, 0));
    fixture.destination("dead", 1, &json!({}));
    fixture.pass(180).await;
    let view = fixture.view("a");
    assert_eq!((view.depth.pending, view.health.exhausted), (0, 3));
    assert_eq!(fixture.sent("dead"), 3);
}

/// Asks for what `a` asks for.
fn asking_too(filter: &str, schedule: &str) -> Value {
    json!({"events": ["a"], "filter": filter, "delivery": {"retry": {"schedule": [schedule]}}})
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_other_destination_anyway_counts_as_a_dead_letter_from_then_on() {
    let fixture = Fixture::new();
    fixture.receiver("a", &giving_up(2, "dead"), Script::Status(500));
    fixture.answer("dead", Script::Status(503));
    fixture.destination("dead", 1, &asking_too("true", "10m"));
    fixture.publish_for("a", "e1", "u").await;
    fixture.pass(60).await;
    fixture.answer("dead", Script::Status(200));
    fixture.destination("dead", 2, &asking_too("false", "10m"));
    fixture.pass(3600).await;
    let view = fixture.view("dead");
    assert_eq!((view.health.delivered, view.depth.pending), (1, 0));
    let last = fixture.dead_letters().pop();
    assert_eq!(last, Some(letter("dead", "a", "ServerError")));
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_the_other_destination_becomes_a_dead_letter_when_it_fails() {
    let fixture = Fixture::new();
    fixture.receiver("a", &giving_up(1, "dead"), Script::Status(404));
    fixture.answer("dead", Script::Take(Duration::from_secs(4), 503));
    fixture.destination("dead", 1, &asking_too("true", "10m"));
    fixture.publish_for("a", "e1", "u").await;
    fixture.pass(1).await;
    fixture.answer("dead", Script::Status(200));
    fixture.destination("dead", 2, &asking_too("false", "10m"));
    fixture.pass(3600).await;
    let view = fixture.view("dead");
    assert_eq!((view.health.delivered, view.depth.pending), (1, 0));
    assert_eq!(fixture.dead_letters(), [letter("dead", "a", "ClientError")]);
    assert_eq!(fixture.sent("a"), 1, "the receiver is not asked again");
}

#[tokio::test(start_paused = true)]
async fn two_that_give_up_for_each_other_at_once_both_come_to_an_end() {
    let fixture = Fixture::new();
    let slow = Script::Take(Duration::from_secs(2), 404);
    fixture.receiver("a", &giving_up(1, "b"), slow);
    fixture.answer("b", slow);
    fixture.destination("b", 1, &json!({"events": ["a"], "delivery": giving_up(1, "a")}));
    fixture.publish_for("a", "e1", "u").await;
    fixture.pass(3600).await;
    let pending = ["a", "b"].map(|name| fixture.view(name).depth.pending);
    assert_eq!(pending, [0, 0]);
    assert!(!fixture.dead_letters().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_loses_no_dead_letter() {
    let queue = MemoryQueue::default();
    let fixture = Fixture::with_queue(Arc::new(queue.clone()), 8);
    let slow = Script::Take(Duration::from_secs(2), 404);
    fixture.receiver("a", &giving_up(1, "dead"), slow);
    fixture.destination("dead", 1, &json!({}));
    fixture.publish("a", 1).await;
    fixture.pass(1).await;
    queue.fail(Some(QueueError::DiskFull));
    fixture.pass(60).await;
    assert_eq!((fixture.sent("a"), fixture.sent("dead")), (1, 0));
    queue.fail(None);
    fixture.pass(60).await;
    assert_eq!((fixture.view("a").depth.pending, fixture.sent("dead")), (0, 1));
    assert_eq!(fixture.sent("a"), 1, "the receiver is not asked again");
}

#[tokio::test(start_paused = true)]
async fn a_mail_says_in_its_headers_whose_dead_letter_it_is_and_goes_to_each_once() {
    let fixture = Fixture::new();
    fixture.receiver("a", &giving_up(1, "mails"), Script::Status(404));
    fixture.email("mails", false);
    fixture.script(vec![Fate::Taken, later(), Fate::Taken]);
    fixture.publish("a", 1).await;
    fixture.pass(60).await;
    assert_eq!(fixture.mailed(), ["a", "b", "c", "b"]);
    let told = fixture.mailer.dead_letters.lock().clone();
    assert_eq!(told, ["a", "ClientError", "a", "ClientError"]);
    let mails = identity("mails", 1).uid;
    let page = fixture
        .engine
        .tried(
            &mails,
            Query {
                limit: 1,
                ..Query::default()
            },
        )
        .await
        .unwrap();
    let headers = delivery_log::headers(&page.records[0], None);
    let from = ("x-postrider-dead-letter-from".to_owned(), "a".to_owned());
    assert!(headers.contains(&from), "{headers:?}");
}

#[tokio::test(start_paused = true)]
async fn operational_events_are_not_sent_on() {
    let fixture = Fixture::new();
    fixture.receiver("a", &json!({"retry": {"maxAttempts": 1}}), Script::Status(410));
    fixture.answer("watch", Script::Status(404));
    let watch = json!({"events": ["postrider.*"], "delivery": giving_up(1, "dead")});
    fixture.destination("watch", 1, &watch);
    fixture.destination("dead", 1, &json!({}));
    fixture.publish("a", 1).await;
    fixture.pass(60).await;
    assert!(fixture.sent("watch") > 0);
    assert_eq!(fixture.sent("dead"), 0);
}
