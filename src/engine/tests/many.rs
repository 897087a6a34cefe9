//! Ten thousand destinations, of which a thousand are broken.

use super::*;

const ALL: usize = 10_000;
/// Every tenth is broken, in one of four ways.
const BROKEN: usize = 10;
const EVENTS: usize = 3;

/// How the destination of a number is broken, if it is.
fn script(number: usize) -> Option<Script> {
    number.is_multiple_of(BROKEN).then(|| match number / BROKEN % 4 {
        0 => Script::Hang,
        1 => Script::Status(500),
        2 => Script::Status(429),
        _ => Script::Take(Duration::from_secs(5), 503),
    })
}

#[tokio::test(start_paused = true)]
async fn a_thousand_broken_destinations_among_ten_thousand_disturb_no_other_and_lose_nothing() {
    // As many places as there are by default: more than receivers that hang.
    let fixture = Fixture::with_places(1024);
    let name = |number: usize| format!("d{number}");
    // The same schedule for all, and no auto-disable, whose probes would take their time.
    let spec = json!({
        "events": ["x"], "autoDisable": {"enabled": false},
        "delivery": {"timeout": "10s", "retry": {"schedule": ["60s"], "maxAttempts": 100}},
    });
    for number in 0..ALL {
        if let Some(script) = script(number) {
            fixture.answer(&name(number), script);
        }
        fixture.destination(&name(number), 1, &spec);
    }
    for _ in 0..EVENTS {
        fixture.publish("x", 1).await;
    }
    // Before the first of those that hang has come to its deadline.
    fixture.pass(9).await;
    let counts = |broken: bool| {
        let numbers = (0..ALL).filter(move |number| script(*number).is_some() == broken);
        numbers.map(|number| (number, fixture.view(&name(number))))
    };
    for (number, view) in counts(false) {
        assert_eq!(
            (view.health.delivered, view.depth.pending),
            (EVENTS as u64, 0),
            "{number}"
        );
    }
    for (number, view) in counts(true) {
        assert_eq!(
            (view.health.delivered, view.depth.pending),
            (0, EVENTS as u64),
            "{number}"
        );
    }

    // They all fail for a while; whoever works gets the next event at once nevertheless.
    fixture.pass(300).await;
    fixture.publish("x", 1).await;
    fixture.pass(1).await;
    for (number, view) in counts(false) {
        assert_eq!(
            (view.health.delivered, view.depth.pending),
            (EVENTS as u64 + 1, 0),
            "{number}"
        );
    }
    for (number, view) in counts(true) {
        assert!(view.health.is_failing(), "{number}");
        assert_eq!(
            (view.depth.pending, view.health.exhausted),
            (EVENTS as u64 + 1, 0),
            "{number}"
        );
    }

    // All are mended, and everything arrives.
    fixture.transport.scripts.lock().clear();
    fixture.pass(3600).await;
    for (number, view) in counts(true) {
        assert_eq!(
            (view.health.delivered, view.depth.pending),
            (EVENTS as u64 + 1, 0),
            "{number}"
        );
    }
}
