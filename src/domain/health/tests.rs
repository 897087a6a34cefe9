//! The rules of auto-disable, rest and recovery.

use proptest::prelude::*;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + seconds).unwrap()
}

fn failed(reason: FailureReason) -> Outcome {
    Outcome::Failed(Failure::new(reason, "x"))
}

fn policy(failures: u32, seconds: u64) -> DisablePolicy {
    DisablePolicy {
        consecutive_failures: failures,
        minimum_duration: Duration::from_secs(seconds),
        ..DisablePolicy::default()
    }
}

const DELIVERED: Outcome = Outcome::Delivered { status: 200 };

#[test]
fn disabling_needs_the_count_and_the_span() {
    let mut health = Health::default();
    let policy = policy(3, 60);
    let mut record =
        |seconds| health.record(&policy, &failed(FailureReason::Timeout), at(seconds), at(seconds));
    assert_eq!(record(0), Some(Signal::Failing));
    assert_eq!(
        [record(1), record(2), record(3)],
        [None; 3],
        "the count is reached, the span is not"
    );
    assert_eq!(record(60), Some(Signal::Disabled(DisableReason::AutoDisabled)));
    assert_eq!(health.disabled.unwrap().next_probe, Some(at(60 + 900)));
}

#[test]
fn a_success_starts_the_count_and_the_span_anew() {
    let mut health = Health::default();
    let policy = policy(2, 10);
    health.record(&policy, &failed(FailureReason::ServerError), at(0), at(0));
    assert_eq!(
        health.record(&policy, &DELIVERED, at(20), at(20)),
        Some(Signal::Recovered)
    );
    assert_eq!(
        health.record(&policy, &failed(FailureReason::ServerError), at(21), at(21)),
        Some(Signal::Failing)
    );
    assert_eq!(
        health.record(&policy, &failed(FailureReason::ServerError), at(22), at(22)),
        None
    );
    assert_eq!(
        health.record(&policy, &DELIVERED, at(23), at(23)),
        Some(Signal::Recovered)
    );
    assert_eq!(health.record(&policy, &DELIVERED, at(24), at(24)), None);
    assert_eq!(health.delivered, 3);
}

#[test]
fn gone_disables_at_once_and_is_never_probed() {
    let mut health = Health::default();
    let off = DisablePolicy {
        enabled: false,
        ..policy(100, 100)
    };
    assert_eq!(
        health.record(&off, &failed(FailureReason::Gone), at(0), at(0)),
        Some(Signal::Disabled(DisableReason::Gone))
    );
    assert_eq!(health.disabled.unwrap().next_probe, None);
}

#[test]
fn our_own_faults_do_not_count_against_the_receiver() {
    let mut health = Health::default();
    for reason in [
        FailureReason::TemplateFault,
        FailureReason::EgressRefused,
        FailureReason::TooOld,
    ] {
        assert_eq!(health.record(&policy(1, 0), &failed(reason), at(0), at(0)), None);
    }
    assert!(!health.is_failing());
    assert_eq!(health.last_failure.unwrap().reason, FailureReason::TooOld);
}

#[test]
fn a_proxys_failures_show_until_an_attempt_gets_through_and_never_disable() {
    let (mut health, policy) = (Health::default(), policy(1, 0));
    let refused = failed(FailureReason::ProxyRefused);
    assert_eq!(
        health.record(&policy, &refused, at(0), at(0)),
        Some(Signal::Failing)
    );
    assert_eq!(health.record(&policy, &refused, at(9), at(9)), None);
    assert!(health.is_failing() && health.disabled.is_none());
    assert_eq!(
        (health.fails_since(), health.consecutive_failures),
        (Some(at(0)), 0)
    );
    let again: Health = serde_json::from_str(&serde_json::to_string(&health).unwrap()).unwrap();
    assert_eq!(again, health, "it survives a restart");
    assert_eq!(
        health.record(&policy, &DELIVERED, at(10), at(11)),
        Some(Signal::Recovered)
    );
    assert!(!health.is_failing());
    health.record(&policy, &refused, at(12), at(12));
    health.observe(7, Some("again"));
    assert!(
        !health.is_failing(),
        "who asks for another try is not told of the last"
    );
}

#[test]
fn a_probe_that_the_proxy_stops_moves_the_next_one() {
    let (mut health, policy) = (Health::default(), policy(1, 0));
    health.record(&policy, &failed(FailureReason::Timeout), at(0), at(0));
    let stopped = failed(FailureReason::ProxyFailed);
    assert_eq!(health.record(&policy, &stopped, at(900), at(900)), None);
    assert_eq!(health.disabled.unwrap().next_probe, Some(at(1800)));
}

#[test]
fn a_failed_probe_moves_the_next_one_and_a_good_one_recovers() {
    let mut health = Health::default();
    let policy = policy(1, 0);
    health.record(&policy, &failed(FailureReason::Timeout), at(0), at(0));
    assert_eq!(
        health.record(&policy, &failed(FailureReason::Timeout), at(900), at(900)),
        None
    );
    assert_eq!(health.disabled.as_ref().unwrap().next_probe, Some(at(1800)));
    assert_eq!(health.disabled.as_ref().unwrap().since, at(0));
    assert_eq!(
        health.record(&policy, &DELIVERED, at(1800), at(1800)),
        Some(Signal::Recovered)
    );
    assert_eq!(health.disabled, None);
}

#[test]
fn a_new_generation_or_request_re_enables_once() {
    let mut health = Health::default();
    assert!(health.observe(1, None), "first sight is stored");
    health.record(&policy(1, 0), &failed(FailureReason::Timeout), at(0), at(0));
    assert!(!health.observe(1, None));
    assert!(health.disabled.is_some());
    assert!(health.observe(1, Some("please")));
    assert_eq!(
        (health.disabled.as_ref(), health.handled_enable.as_deref()),
        (None, Some("please"))
    );
    health.record(&policy(1, 0), &failed(FailureReason::Timeout), at(1), at(1));
    assert!(!health.observe(1, Some("please")), "a token is handled once");
    assert!(health.disabled.is_some());
    assert!(health.observe(2, Some("please")));
    assert_eq!(health.disabled, None);
}

#[test]
fn a_receiver_that_asks_for_rest_gets_it() {
    let mut health = Health::default();
    let policy = policy(100, 0);
    health.record(&policy, &failed(FailureReason::Unavailable), at(0), at(0));
    assert_eq!(health.resting_until, Some(at(1)));
    health.record(&policy, &failed(FailureReason::Unavailable), at(1), at(1));
    assert_eq!(health.resting_until, Some(at(3)));
    let mut asks = Failure::new(FailureReason::TooManyRequests, "x");
    asks.retry_after = Some(Duration::from_secs(120));
    health.record(&policy, &Outcome::Failed(asks), at(3), at(3));
    assert_eq!(health.resting_until, Some(at(123)));
    health.record(&policy, &DELIVERED, at(123), at(123));
    assert_eq!(health.resting_until, None);
}

proptest! {
    #[test]
    fn disabled_only_after_the_count_and_the_span_without_a_success(
        steps in prop::collection::vec((0..600_i64, prop::bool::weighted(0.9)), 1..200),
        count in 1..20_u32,
        span in 0..3_600_u64,
    ) {
        let policy = policy(count, span);
        let mut health = Health::default();
        let (mut now, mut row, mut since) = (0, 0_u32, 0);
        for (wait, fails) in steps {
            now += wait;
            let outcome = if fails { failed(FailureReason::Timeout) } else { DELIVERED };
            if fails {
                if row == 0 { since = now; }
                row += 1;
            } else {
                row = 0;
            }
            let was = health.disabled.is_some();
            health.record(&policy, &outcome, at(now), at(now));
            let due = row >= count && now - since >= i64::try_from(span).unwrap();
            prop_assert_eq!(health.disabled.is_some(), (was && fails) || due);
            prop_assert_eq!(health.consecutive_failures, u64::from(row));
        }
    }
}

#[test]
fn many_attempts_asked_for_rest_at_once_are_one_rest() {
    let mut health = Health::default();
    let policy = policy(100, 3600);
    for _ in 0..16 {
        let mut failure = Failure::new(FailureReason::TooManyRequests, "x");
        failure.retry_after = Some(Duration::from_secs(2));
        health.record(&policy, &Outcome::Failed(failure), at(0), at(1));
    }
    assert_eq!(health.resting_until, Some(at(3)));
    health.record(&policy, &failed(FailureReason::Unavailable), at(1), at(2));
    assert_eq!(health.resting_until, Some(at(3)), "a rest is never shortened");
}

#[test]
fn a_success_that_was_under_way_when_the_receiver_was_disabled_changes_nothing() {
    for (reason, kind) in [
        (FailureReason::Gone, DisableReason::Gone),
        (FailureReason::Timeout, DisableReason::AutoDisabled),
    ] {
        let mut health = Health::default();
        health.record(&policy(1, 0), &failed(reason), at(0), at(1));
        assert_eq!(health.record(&policy(1, 0), &DELIVERED, at(0), at(2)), None);
        assert_eq!(health.disabled.map(|disabled| disabled.reason), Some(kind));
        assert_eq!(health.delivered, 1);
    }
}

#[test]
fn every_change_is_newer_than_the_state_before() {
    let (policy, mut health, mut last) = (policy(2, 0), Health::default(), 0);
    let delivered = Outcome::Delivered { status: 200 };
    let changes: [&dyn Fn(&mut Health); 5] = [
        &|health| {
            health.record(&policy, &delivered, at(0), at(1));
        },
        &|health| {
            health.record(&policy, &failed(FailureReason::Timeout), at(0), at(1));
        },
        &|health| health.record_outdated(&delivered),
        &|health| health.record_exhausted(),
        &|health| assert!(health.observe(2, Some("again"))),
    ];
    for change in changes {
        change(&mut health);
        assert!(health.revision > last);
        last = health.revision;
    }
    assert!(!health.observe(2, Some("again")));
    assert_eq!(health.revision, last);
}
