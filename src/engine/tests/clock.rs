//! Clocks that jump, as virtual machines and careless administrators make them.

use super::*;

/// A day, in seconds.
const DAY: i64 = 24 * 3600;

/// How often the time may be asked for in ten minutes: a few times a second by what looks at it regularly, once a
/// minute by each lane, and a few times an attempt.
const ASKED: usize = 20_000;

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_back_and_forth_loses_nothing_and_keeps_nobody_busy() {
    let fixture = Fixture::new();
    fixture.destination("well", 1, &json!({}));
    let patient = json!({"retry": {"schedule": ["2m"], "maxAttempts": 100}});
    fixture.receiver("down", &patient, Script::Status(500));
    fixture.receiver("busy", &patient, Script::Status(429));
    fixture.receiver("hangs", &patient, Script::Hang);
    fixture.destination("suspended", 1, &json!({"suspend": true}));
    let failing = ["down", "busy", "hangs"];
    for name in failing {
        fixture.publish(name, 5).await;
    }
    fixture.publish("suspended", 5).await;
    fixture.pass(5).await;
    let mut published = 0;
    for jump in [-DAY, DAY, 1, -1, -3600, 3600, -400 * DAY, 400 * DAY, -60, 60] {
        fixture.clock.jump(jump);
        let asked = fixture.clock.asked();
        fixture.publish("well", 3).await;
        published += 3;
        fixture.pass(1).await;
        assert_eq!(fixture.sent("well"), published, "after a jump of {jump} s");
        fixture.pass(599).await;
        let asked = fixture.clock.asked() - asked;
        assert!(
            asked < ASKED,
            "the time was asked for {asked} times after a jump of {jump} s"
        );
    }
    for name in failing {
        let view = fixture.view(name);
        assert_eq!((view.depth.pending, view.health.exhausted), (5, 0), "{name}");
        fixture.answer(name, Script::Status(200));
    }
    fixture.destination("suspended", 2, &json!({}));
    // More than the longest rest and the time between two probes.
    fixture.pass(3600).await;
    for name in failing.iter().chain(&["suspended"]) {
        let view = fixture.view(name);
        assert_eq!((view.depth.pending, view.health.delivered), (0, 5), "{name}");
    }
    assert_eq!(fixture.sent("well"), published, "nothing is sent twice");
    assert_eq!(fixture.sent("suspended"), 5);
}

#[tokio::test(start_paused = true)]
async fn after_a_clock_was_put_right_a_failing_store_costs_a_moment_only() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Panic);
    fixture.destination("a", 1, &json!({}));
    fixture.publish("a", 1).await;
    fixture.pass_time(Duration::from_millis(500)).await;
    assert_eq!(fixture.sent("a"), 1, "the lane rests for a second");
    fixture.clock.jump(-400 * DAY);
    fixture.answer("a", Script::Status(200));
    fixture.publish("a", 1).await;
    fixture.pass(120).await;
    assert_eq!(fixture.view("a").health.delivered, 1, "what is new goes");
    fixture.clock.jump(400 * DAY);
    fixture.pass(120).await;
    assert_eq!(fixture.view("a").health.delivered, 2);
}

#[tokio::test(start_paused = true)]
async fn a_rest_and_a_probe_of_a_clock_that_was_ahead_end_when_it_was_put_right() {
    let fixture = Fixture::new();
    let patient = json!({"retry": {"schedule": ["1h"], "maxAttempts": 100}});
    fixture.receiver("resting", &patient, Script::Status(429));
    fixture.answer("disabled", Script::Status(500));
    let strict = json!({
        "autoDisable": {"consecutiveFailures": 1, "minimumDuration": "0s", "probeInterval": "15m"},
        "delivery": patient,
    });
    fixture.destination("disabled", 1, &strict);
    fixture.clock.jump(400 * DAY);
    for name in ["resting", "disabled"] {
        fixture.publish(name, 1).await;
    }
    fixture.pass_time(Duration::from_millis(500)).await;
    fixture.clock.jump(-400 * DAY);
    for name in ["resting", "disabled"] {
        assert!(fixture.view(name).health.is_failing(), "{name}");
        fixture.answer(name, Script::Status(200));
        fixture.publish(name, 1).await;
    }
    fixture.pass(120).await;
    for name in ["resting", "disabled"] {
        let health = fixture.view(name).health;
        assert!(
            health.delivered > 0 && health.disabled.is_none(),
            "{name}: {health:?}"
        );
    }
    // What was planned for a time that is far away is kept until then.
    fixture.clock.jump(400 * DAY);
    fixture.pass(7200).await;
    for name in ["resting", "disabled"] {
        let view = fixture.view(name);
        assert_eq!((view.depth.pending, view.health.delivered), (0, 2), "{name}");
    }
}
