//! What filters let through, when they are asked, and that long work waits for nobody.

use serde_json::json;

use super::fixture::*;

/// Over what is looked at where it is.
const LARGE: usize = 20 * 1024;

#[tokio::test(start_paused = true)]
async fn only_what_a_filter_lets_through_is_stored() {
    let fixture = Fixture::new();
    fixture.destination("a", 1, &json!({"filter": "size(event.data.text) > 10"}));
    fixture.destination(
        "slow",
        1,
        &json!({"events": ["a"], "filter": "event.data.text.matches('^x{20}$')"}),
    );
    for size in [5, 20, LARGE] {
        fixture.try_publish_sized("a", size).await.unwrap();
    }
    fixture.pass(60).await;
    assert_eq!((fixture.sent("a"), fixture.sent("slow")), (2, 1));
    assert_eq!(fixture.view("a").depth.pending, 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_decided_by_the_filter_as_it_is_now() {
    let fixture = Fixture::new();
    fixture.destination("a", 1, &json!({"suspend": true}));
    for size in [5, 20, 5, LARGE] {
        fixture.try_publish_sized("a", size).await.unwrap();
    }
    fixture.pass(60).await;
    assert_eq!(fixture.view("a").depth.pending, 4);
    fixture.destination("a", 2, &json!({"filter": "size(event.data.text) > 10"}));
    fixture.pass(60).await;
    assert_eq!(fixture.sent("a"), 2);
    let view = fixture.view("a");
    assert_eq!((view.depth.pending, view.health.delivered), (0, 2));
}

#[tokio::test(start_paused = true)]
async fn a_wider_filter_does_not_bring_back_what_was_kept_away() {
    let fixture = Fixture::new();
    fixture.destination("a", 1, &json!({"filter": "size(event.data.text) > 10"}));
    fixture.try_publish_sized("a", 5).await.unwrap();
    fixture.destination("a", 2, &json!({}));
    fixture.try_publish_sized("a", 5).await.unwrap();
    fixture.pass(60).await;
    assert_eq!((fixture.sent("a"), fixture.view("a").depth.pending), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_is_not_ready_keeps_what_it_may_want() {
    let fixture = Fixture::new();
    fixture.not_ready("a");
    fixture.try_publish_sized("a", 5).await.unwrap();
    fixture.pass(60).await;
    assert_eq!(fixture.view("a").depth.pending, 1);
    fixture.destination("a", 1, &json!({"filter": "size(event.data.text) > 10"}));
    fixture.pass(60).await;
    assert_eq!((fixture.sent("a"), fixture.view("a").depth.pending), (0, 0));
}
