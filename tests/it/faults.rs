//! What goes wrong around the operator, with the real binary: receivers, Secrets, the API server, other writers.
//!
//! Each fault shows by its reason in status, metrics and log, loses nothing that was accepted, and disturbs nobody else.

mod certificates;
mod cluster;
mod deep;
mod many;
mod receivers;
mod secrets;
mod writers;

use serde_json::{Value, json};

use crate::support::Stage;

/// Tries for as long as the test needs.
fn patient() -> Value {
    json!({"delivery": {"retry": {"schedule": ["1s"], "maxAttempts": 100}}})
}

/// The log's lines about an object.
fn lines(stage: &Stage, key: &str, name: &str) -> Vec<Value> {
    let log = stage.operator().log();
    let lines = log.lines().filter(|line| line.contains(name));
    lines
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|line| line[key] == name)
        .collect()
}

/// The attempts of a destination as the log tells them: one wide line for each.
fn attempts(stage: &Stage, name: &str) -> Vec<Value> {
    let mut lines = lines(stage, "destination.name", name);
    lines.retain(|line| !line["attempt.number"].is_null());
    for line in &lines {
        assert_eq!(line["message"], "delivery attempted", "{line}");
    }
    lines
}

/// Checks that the attempts of each event are told once each, in order, and that only the last one may have succeeded.
fn assert_each_attempt_is_told_once(attempts: &[Value], events: &[String]) {
    for event in events {
        let mut told = attempts.iter().filter(|line| line["event.id"] == **event);
        let numbers: Vec<_> = told
            .clone()
            .filter_map(|line| line["attempt.number"].as_u64())
            .collect();
        let expected: Vec<_> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "{event}");
        let last = told
            .next_back()
            .unwrap_or_else(|| panic!("{event} was never tried"));
        assert_eq!(last["outcome"], "delivered", "{event}");
        assert!(
            told.all(|line| line["outcome"] == "failed"),
            "{event} succeeded twice"
        );
    }
}
