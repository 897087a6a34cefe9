//! When a destination's health is told, and that what is told follows its schema.

use super::*;
use crate::domain::event::sample;
use crate::domain::outcome::{Failure, FailureReason, Outcome};
use crate::domain::schema::Schema;

const FAILED: Ended = Ended {
    works: false,
    counts: true,
    is_operational: false,
};
const WORKED: Ended = Ended {
    works: true,
    counts: false,
    is_operational: false,
};

fn at(seconds: u64) -> Timestamp {
    retry::after(Timestamp::UNIX_EPOCH, Duration::from_secs(seconds))
}

fn policy(enabled: bool) -> DisablePolicy {
    DisablePolicy {
        enabled,
        consecutive_failures: 10,
        minimum_duration: Duration::from_secs(100),
        probe_interval: None,
    }
}

fn fail(health: &mut Health, policy: &DisablePolicy, ended: Ended, now: Timestamp) -> Option<Notice> {
    let outcome = Outcome::Failed(Failure::new(FailureReason::ServerError, "it broke"));
    health.record(policy, &outcome, now, now);
    notice(health, policy, ended, now)
}

fn work(health: &mut Health, policy: &DisablePolicy, ended: Ended, now: Timestamp) -> Option<Notice> {
    health.record(policy, &Outcome::Delivered { status: 200 }, now, now);
    notice(health, policy, ended, now)
}

#[test]
fn each_threshold_of_the_rule_is_told_once_and_then_the_end() {
    let (mut health, policy) = (Health::default(), policy(true));
    let told: Vec<_> = (0..12)
        .map(|n| fail(&mut health, &policy, FAILED, at(n * 12)))
        .collect();
    let failing = |percent| Some(Notice::Failing { percent });
    let disabled = Some(Notice::Disabled(DisableReason::AutoDisabled));
    // The span is at 0, 12, 24 … %, the count at 10, 20, 30 … %.
    assert_eq!(
        told,
        [
            None,
            None,
            None,
            None,
            None,
            failing(50),
            failing(70),
            None,
            failing(90),
            disabled,
            None,
            None
        ]
    );
    let since = at(60);
    assert_eq!(
        work(&mut health, &policy, WORKED, at(200)),
        Some(Notice::Recovered { since })
    );
    assert_eq!(work(&mut health, &policy, WORKED, at(201)), None);
}

#[test]
fn the_lesser_of_count_and_span_counts() {
    let (mut health, policy) = (Health::default(), policy(true));
    for _ in 0..50 {
        assert_eq!(fail(&mut health, &policy, FAILED, at(49)), None, "no span");
    }
    assert_eq!(
        fail(&mut health, &policy, FAILED, at(49 + 75)),
        Some(Notice::Failing { percent: 70 })
    );
    let mut health = Health::default();
    assert_eq!(fail(&mut health, &policy, FAILED, at(0)), None);
    assert_eq!(fail(&mut health, &policy, FAILED, at(5000)), None, "no count");
}

#[test]
fn a_single_failure_and_its_end_are_told_nobody() {
    let (mut health, policy) = (Health::default(), policy(true));
    assert_eq!(fail(&mut health, &policy, FAILED, at(0)), None);
    assert_eq!(work(&mut health, &policy, WORKED, at(1)), None);
}

#[test]
fn a_destination_that_is_never_disabled_is_told_of_at_100_percent() {
    let (mut health, policy) = (Health::default(), policy(false));
    let told: Vec<_> = (0..12)
        .filter_map(|n| fail(&mut health, &policy, FAILED, at(n * 20)))
        .collect();
    let percents = THRESHOLDS.map(|percent| Notice::Failing { percent });
    assert_eq!(told, percents);
}

#[test]
fn failures_with_operational_events_are_told_nobody_and_do_not_hide_others() {
    let (mut health, policy) = (Health::default(), policy(true));
    let operational = Ended {
        is_operational: true,
        ..FAILED
    };
    for n in 0..30 {
        assert_eq!(fail(&mut health, &policy, operational, at(n * 20)), None);
    }
    assert!(health.disabled.is_some());
    let told = fail(&mut health, &policy, FAILED, at(700));
    assert_eq!(told, Some(Notice::Disabled(DisableReason::AutoDisabled)));
}

#[test]
fn a_recovery_is_told_also_after_a_person_has_forgiven_the_failures() {
    let (mut health, policy) = (Health::default(), policy(true));
    health.observe(1, None);
    for n in 0..12 {
        fail(&mut health, &policy, FAILED, at(n * 20));
    }
    health.observe(2, None);
    assert_eq!(health.announced, 0, "the next row is told anew");
    let told = work(&mut health, &policy, WORKED, at(500));
    assert!(matches!(told, Some(Notice::Recovered { .. })), "{told:?}");
}

#[test]
fn given_up_deliveries_are_summed_up_and_operational_ones_left_out() {
    let mut health = Health {
        exhausted: 7,
        ..Health::default()
    };
    assert_eq!(untold(&health), 0, "what was before is no news");
    for is_operational in [false, true, false] {
        health.record_exhausted();
        given_up(&mut health, is_operational);
    }
    assert_eq!(untold(&health), 2);
    assert_eq!(exhausted(&mut health), Some(Notice::Exhausted { count: 2 }));
    assert_eq!(exhausted(&mut health), None);
}

#[test]
fn what_is_told_follows_its_schema_and_the_same_notice_has_the_same_id() {
    let mut health = Health::default();
    fail(&mut health, &policy(true), FAILED, at(10));
    health.record_exhausted();
    for notice in [
        Notice::Failing { percent: 50 },
        Notice::Disabled(DisableReason::Gone),
        Notice::Recovered { since: at(5) },
        Notice::Exhausted { count: 1 },
    ] {
        let make = |now| {
            event(
                notice,
                &sample::identity(),
                &health,
                Arc::new(sample::project()),
                now,
            )
        };
        let told = make(at(20));
        let entry = crate::domain::catalogue::find(notice.event_type()).unwrap();
        let data: Value = serde_json::from_str(told.content.data.get()).unwrap();
        let schema = Schema::compile(&entry.definition().schema).unwrap();
        assert_eq!(schema.violations(&data, 1000).len(), 0, "{data}");
        assert!(crate::domain::catalogue::message(&told).contains("ops"), "{data}");
        assert_eq!(told.id, make(at(21)).id);
    }
}
