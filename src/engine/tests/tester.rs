//! Test sends: beside the queue, whatever the destination's state.

use std::time::Duration;

use serde_json::json;

use super::fixture::*;
use crate::domain::test_send::{TestOutcome, TestRequest, TestResult};
use crate::engine::tester::{MAX_TESTS, Tester as _};

impl Fixture {
    /// Asks for a test of a destination, which wants events of its own name.
    fn test(&self, name: &str, asked: &str) -> Option<TestResult> {
        let entry = self.directory.destination(&identity(name, 1).uid).unwrap();
        let request = TestRequest::parse(asked).unwrap();
        self.engine.test(entry.ready().unwrap(), &request)
    }

    fn with_project() -> Self {
        let fixture = Self::new();
        fixture.directory.put_project((*fixture.project).clone());
        fixture
    }
}

#[tokio::test(start_paused = true)]
async fn a_test_is_sent_once_and_its_result_is_kept() {
    let fixture = Fixture::with_project();
    fixture.destination("a", 1, &json!({}));
    assert_eq!(fixture.test("a", "1"), None);
    assert_eq!(fixture.test("a", "1"), None, "it is under way");
    fixture.pass(1).await;
    let result = fixture.test("a", "1").unwrap();
    assert_eq!(
        (result.outcome, result.status),
        (TestOutcome::Delivered, Some(200))
    );
    assert_eq!(fixture.test("a", "1"), Some(result));
    assert_eq!(fixture.sent("a"), 1);
    assert_eq!(fixture.test("a", "2"), None);
    fixture.pass(1).await;
    assert_eq!(fixture.sent("a"), 2);
    assert_eq!(fixture.view("a").health.delivered, 0, "a test is no delivery");
}

#[tokio::test(start_paused = true)]
async fn a_suspended_destination_is_tested_and_a_failure_does_not_count() {
    let fixture = Fixture::with_project();
    fixture.answer("a", Script::Status(500));
    fixture.destination("a", 1, &json!({"suspend": true}));
    fixture.test("a", "1");
    fixture.pass(1).await;
    let result = fixture.test("a", "1").unwrap();
    assert_eq!(
        (result.outcome, &*result.reason),
        (TestOutcome::Failed, "ServerError")
    );
    fixture.pass(3600).await;
    assert_eq!(fixture.sent("a"), 1, "it is not tried again");
    assert_eq!(fixture.view("a").health.consecutive_failures, 0);
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_hangs_ends_its_test_at_the_deadline() {
    let fixture = Fixture::with_project();
    fixture.answer("a", Script::Hang);
    fixture.destination("a", 1, &json!({"delivery": {"timeout": "3s"}}));
    fixture.test("a", "1");
    fixture.pass(4).await;
    let result = fixture.test("a", "1").unwrap();
    assert_eq!(
        (&*result.reason, result.latency),
        ("Timeout", Some(Duration::from_secs(3)))
    );
}

#[tokio::test(start_paused = true)]
async fn so_many_tests_run_at_once_and_the_others_wait() {
    let fixture = Fixture::with_project();
    for number in 0..=MAX_TESTS {
        let name = number.to_string();
        fixture.answer(&name, Script::Take(Duration::from_secs(5), 200));
        fixture.destination(&name, 1, &json!({}));
        fixture.test(&name, "1");
    }
    let sent = || {
        (0..=MAX_TESTS)
            .map(|number| fixture.sent(&number.to_string()))
            .sum::<usize>()
    };
    fixture.pass(1).await;
    assert_eq!(sent(), MAX_TESTS);
    fixture.pass(10).await;
    assert_eq!(sent(), MAX_TESTS + 1);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_answered() {
    let fixture = Fixture::new();
    fixture.destination("a", 1, &json!({}));
    fixture.test("a", "1");
    fixture.pass(1).await;
    assert_eq!(fixture.test("a", "1").unwrap().reason, "NoProject");
    fixture.directory.put_project((*fixture.project).clone());
    fixture.test("a", "run_failed@1");
    fixture.pass(1).await;
    let result = fixture.test("a", "run_failed@1").unwrap();
    assert_eq!(
        (result.outcome, &*result.reason),
        (TestOutcome::NotSent, "InvalidRequest")
    );
    assert_eq!(fixture.sent("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_test() {
    let fixture = Fixture::with_project();
    fixture.answer("a", Script::Hang);
    fixture.destination("a", 1, &json!({}));
    fixture.test("a", "1");
    fixture.pass(1).await;
    fixture.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(1), fixture.running)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_test_of_a_mail_goes_to_everybody_once() {
    let fixture = Fixture::with_project();
    fixture.email("mails", true);
    fixture.test("mails", "1");
    fixture.pass(1).await;
    let result = fixture.test("mails", "1").unwrap();
    assert_eq!(
        (result.outcome, result.status),
        (TestOutcome::Delivered, Some(250))
    );
    let mut said: Vec<_> = fixture
        .mailer
        .sent
        .lock()
        .iter()
        .map(|(_, to)| to.clone())
        .collect();
    said.sort();
    assert_eq!(said, ["a@x.example", "b@x.example", "c@x.example"]);
}
