//! How lanes share what may be in flight.

use super::*;

/// The `delivery` of a destination that may have many requests in flight.
fn wide() -> serde_json::Value {
    json!({"maxInFlight": 64, "timeout": "60s"})
}

/// Takes each of four places for a minute.
async fn hang_on_every_place(fixture: &Fixture) {
    for name in ["x", "y", "z", "u"] {
        fixture.receiver(name, &json!({"maxInFlight": 1, "timeout": "60s"}), Script::Hang);
        fixture.publish(name, 1).await;
    }
    fixture.pass(1).await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_lane_keeps_to_its_share_while_another_flows() {
    let fixture = Fixture::with_places(32);
    let four = json!({"maxInFlight": 4, "timeout": "60s"});
    fixture.receiver("hangs", &four, Script::Hang);
    fixture.receiver("works", &four, Script::Take(Duration::from_millis(1), 200));
    fixture.publish("hangs", 700).await;
    fixture.publish("works", 100).await;
    fixture.pass(1).await;
    assert_eq!(fixture.sent("works"), 100);
    assert_eq!(fixture.most_in_flight("hangs"), 4);
    fixture.pass(600).await;
    assert_eq!(
        fixture.transport.in_flight.lock()["/hangs"].0,
        1,
        "after failures it is tried with one at a time"
    );
}

#[tokio::test(start_paused = true)]
async fn lanes_that_fail_share_half_of_the_places() {
    let fixture = Fixture::with_places(4);
    for index in 0..10 {
        let name = format!("hangs{index}");
        fixture.receiver(&name, &json!({"maxInFlight": 1, "timeout": "1s"}), Script::Hang);
        fixture.publish(&name, 50).await;
    }
    fixture.pass(20).await;
    fixture.destination("works", 1, &json!({}));
    for sent in 1..=5 {
        fixture.publish("works", 1).await;
        fixture.pass_time(Duration::from_millis(1)).await;
        assert_eq!(
            fixture.sent("works"),
            sent,
            "it never waits for a failing receiver's deadline"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn receivers_that_begin_to_hang_together_leave_a_place_for_the_others() {
    let fixture = Fixture::with_places(16);
    for index in 0..20 {
        let name = format!("hangs{index}");
        fixture.answer(&name, Script::Hang);
        fixture.destination(
            &name,
            1,
            &json!({"events": ["slow"], "delivery": {"timeout": "60s", "maxInFlight": 16}}),
        );
    }
    fixture.destination("works", 1, &json!({}));
    fixture.try_publish("works").await.unwrap();
    fixture.pass(1).await;
    let wide = json!({"maxInFlight": 1024, "timeout": "60s"});
    fixture.receiver("wide", &wide, Script::Hang);
    fixture.publish("wide", 100).await;
    fixture.pass(1).await;
    assert_eq!(fixture.most_in_flight("wide"), 4, "a third of the common places");
    fixture.publish("works", 1).await;
    fixture.pass(1).await;
    assert_eq!(fixture.sent("works"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_waits_for_a_place_hears_that_it_was_suspended() {
    let fixture = Fixture::with_places(4);
    hang_on_every_place(&fixture).await;
    fixture.destination("a", 1, &json!({}));
    fixture.publish("a", 1).await;
    fixture.pass(1).await;
    assert_eq!(fixture.sent("a"), 0, "every place is taken");
    fixture.destination("a", 2, &json!({"suspend": true}));
    fixture.pass(120).await;
    assert_eq!(fixture.sent("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lane_with_nothing_due_asks_for_no_place() {
    let fixture = Fixture::with_places(4);
    let later = json!({"retry": {"schedule": ["1h"]}});
    fixture.receiver("retries", &later, Script::Status(500));
    fixture.publish("retries", 1).await;
    fixture.pass(1).await;
    hang_on_every_place(&fixture).await;
    fixture.engine.core().wake(&identity("retries", 1).uid);
    fixture.pass(1).await;
    let waits = "in_flight_waits_total{";
    assert!(!metrics(&fixture).contains(waits), "{}", metrics(&fixture));
    fixture.publish("retries", 1).await;
    fixture.pass(1).await;
    let waited = "in_flight_waits_total{bound=\"requests\"} 1";
    assert!(metrics(&fixture).contains(waited), "{}", metrics(&fixture));
}

#[tokio::test(start_paused = true)]
async fn large_events_wait_for_room_while_small_ones_of_others_go() {
    let fixture = Fixture::with_places(256);
    for name in ["large", "also", "huge", "small"] {
        fixture.receiver(name, &wide(), Script::Take(Duration::from_secs(10), 200));
    }
    let mib = IN_FLIGHT_BYTES / 4;
    for _ in 0..20 {
        fixture.try_publish_sized("large", mib / 8).await.unwrap();
        fixture.try_publish_sized("also", mib / 8).await.unwrap();
    }
    fixture.pass(1).await;
    fixture.try_publish_sized("huge", 5 * mib).await.unwrap();
    fixture.publish("small", 20).await;
    fixture.pass(1).await;
    assert_eq!(fixture.most_in_flight("large"), 7, "a third of three quarters");
    assert_eq!(
        fixture.sent("huge"),
        1,
        "the first event of a lane does not wait for others"
    );
    let waited = "in_flight_waits_total{bound=\"bytes\"}";
    assert!(metrics(&fixture).contains(waited), "{}", metrics(&fixture));
    fixture.pass(60).await;
    assert_eq!(
        ["large", "also", "huge", "small"].map(|name| fixture.sent(name)),
        [20, 20, 1, 20]
    );
    assert_eq!(fixture.most_in_flight("large"), 7);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_published_to_while_it_waits_keeps_its_turn() {
    let fixture = Fixture::with_places(16);
    for number in 0..12 {
        let name = format!("slow{number}");
        let takes = Duration::from_secs(10 + number);
        fixture.receiver(&name, &wide(), Script::Take(takes, 200));
        fixture.publish(&name, 100).await;
    }
    fixture.receiver("busy", &wide(), Script::Take(Duration::from_secs(30), 200));
    for _ in 0..60 {
        fixture.publish("busy", 1).await;
        fixture.pass(1).await;
    }
    assert!(
        fixture.most_in_flight("busy") > 1,
        "a place of those that everybody shares"
    );
}
