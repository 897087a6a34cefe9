//! Delivering again, cancelling, and showing what waits.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use postrider::domain::id::EventId;
use postrider::engine::queue::asked::{Cancelled, REPLAY_STEP, Replay, Replayed};
use postrider::engine::queue::{Completion, Queue, QueueError, Settlement};

use crate::queue::conformance::{enqueue_numbered, numbered};
use crate::queue::{at, drain, event, ids, lane, settle_all, sized, take};

conformance!(
    delivered_events_are_delivered_again,
    another_event_at_the_position_is_not_delivered,
    a_replay_counts_attempts_and_age_anew,
    an_event_never_has_two_open_deliveries,
    a_replay_goes_on_where_a_step_ended,
    only_what_went_to_the_lane_is_replayed,
    a_replay_keeps_the_quota,
    a_waiting_delivery_is_cancelled_once,
    a_delivery_under_way_is_not_cancelled,
    an_event_is_found_by_its_id,
    what_waits_is_shown_in_order,
    what_was_put_off_untried_is_shown_and_cancelled_as_any_other,
    large_events_end_a_step_early,
);

fn accepted(since: i64, until: i64) -> Replay {
    Replay::Accepted {
        since: at(since),
        until: at(until),
        event_type: None,
        from: 0,
    }
}

fn id(text: &str) -> EventId {
    EventId::parse(text).unwrap()
}

async fn seq(queue: &dyn Queue, text: &str) -> u64 {
    queue
        .find(&lane("a"), &id(text), None)
        .await
        .unwrap()
        .unwrap()
        .seq
}

async fn retry(queue: &dyn Queue, now: i64, due: i64) {
    for lease in take(queue, now, 1).await {
        let settlement = Settlement {
            lease,
            completion: Completion::RetryAt(at(due)),
            health: None,
            note: None,
        };
        queue.settle(vec![settlement]).await.unwrap();
    }
}

async fn delivered_events_are_delivered_again(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..20).await;
    assert_eq!(drain(&*queue, "a", at(1_000)).await, numbered(0..20));
    let done = queue
        .replay(&lane("a"), accepted(5, 10), at(2_000))
        .await
        .unwrap();
    assert_eq!((done.made, done.open, done.gone, done.next), (5, 0, 0, None));
    assert_eq!(queue.depth(&lane("a")).pending, 5);
    assert_eq!(drain(&*queue, "a", at(2_000)).await, numbered(5..10));
    assert_eq!(queue.depth(&lane("a")).pending, 0);
    let some = vec![
        (seq(&*queue, "e3").await, id("e3")),
        (seq(&*queue, "e1").await, id("e1")),
        (999_999, id("e2")),
    ];
    let done = queue
        .replay(&lane("a"), Replay::Events(some), at(3_000))
        .await
        .unwrap();
    assert_eq!((done.made, done.gone), (2, 1));
    assert_eq!(drain(&*queue, "a", at(3_000)).await, ["e1", "e3"]);
}

async fn another_event_at_the_position_is_not_delivered(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..3).await;
    drain(&*queue, "a", at(1_000)).await;
    let place = seq(&*queue, "e1").await;
    let uuid = id("0197f0b2-7c1e-7a3e-9d5c-0c1d2e3f4a5b");
    let some = vec![(place, id("e2")), (place, uuid), (place, id("e1"))];
    let done = queue
        .replay(&lane("a"), Replay::Events(some), at(2_000))
        .await
        .unwrap();
    assert_eq!((done.made, done.open, done.gone), (1, 0, 2));
    assert_eq!(drain(&*queue, "a", at(2_000)).await, ["e1"]);
}

async fn a_replay_counts_attempts_and_age_anew(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..1).await;
    retry(&*queue, 0, 50).await;
    drain(&*queue, "a", at(100)).await;
    queue.replay(&lane("a"), accepted(0, 9), at(2_000)).await.unwrap();
    let leases = take(&*queue, 2_000, 9).await;
    assert_eq!(leases[0].attempts, 0);
    assert_eq!(leases[0].replayed, Some(at(2_000)));
    drop(leases);
    retry(&*queue, 2_000, 2_500).await;
    let leases = take(&*queue, 2_500, 9).await;
    assert_eq!((leases[0].attempts, leases[0].replayed), (1, Some(at(2_000))));
    assert_eq!(queue.depth(&lane("a")).oldest, Some(at(2_000).as_millisecond()));
}

async fn an_event_never_has_two_open_deliveries(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..4).await;
    retry(&*queue, 0, 500).await;
    let under_way = queue.lease(&lane("a"), at(1), 1).await.unwrap();
    assert_eq!(ids(&under_way.leases), ["e1"]);
    let done = queue.replay(&lane("a"), accepted(0, 9), at(600)).await.unwrap();
    assert_eq!((done.made, done.open), (0, 4));
    drop(under_way);
    assert_eq!(drain(&*queue, "a", at(1_000)).await.len(), 4);
    for expected in [4, 0] {
        let done = queue.replay(&lane("a"), accepted(0, 9), at(2_000)).await.unwrap();
        assert_eq!((done.made, done.open), (expected, 4 - expected));
    }
    retry(&*queue, 2_000, 2_700).await;
    let done = queue.replay(&lane("a"), accepted(0, 9), at(2_100)).await.unwrap();
    assert_eq!((done.made, done.open), (0, 4));
    assert_eq!(drain(&*queue, "a", at(3_000)).await.len(), 4);
}

async fn a_replay_goes_on_where_a_step_ended(queue: Arc<dyn Queue>) {
    let many = i64::try_from(REPLAY_STEP).unwrap() + 100;
    enqueue_numbered(&*queue, 0..many).await;
    drain(&*queue, "a", at(10_000)).await;
    let (mut from, mut made) = (0, 0);
    loop {
        let replay = Replay::Accepted {
            since: at(0),
            until: at(many),
            event_type: None,
            from,
        };
        let step = queue.replay(&lane("a"), replay, at(20_000)).await.unwrap();
        made += step.made;
        match step.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(made, many.cast_unsigned());
    assert_eq!(drain(&*queue, "a", at(20_000)).await, numbered(0..many));
}

async fn only_what_went_to_the_lane_is_replayed(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("both", 0, &["a", "b"]), event("other", 1, &["b"])])
        .await
        .unwrap();
    drain(&*queue, "a", at(10)).await;
    drain(&*queue, "b", at(10)).await;
    let done = queue.replay(&lane("a"), accepted(0, 9), at(20)).await.unwrap();
    assert_eq!(done.made, 1);
    let none = queue
        .replay(&lane("nobody"), accepted(0, 9), at(20))
        .await
        .unwrap();
    assert_eq!(none, Replayed::default());
    assert_eq!(drain(&*queue, "a", at(20)).await, ["both"]);
    assert_eq!(drain(&*queue, "b", at(20)).await, [""; 0]);
}

async fn a_replay_keeps_the_quota(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..100).await;
    drain(&*queue, "a", at(1_000)).await;
    enqueue_numbered(&*queue, 1_000..1_950).await;
    let refused = queue.replay(&lane("a"), accepted(0, 100), at(3_000)).await;
    assert!(
        matches!(
            refused,
            Err(QueueError::ProjectFull {
                pending: 950,
                limit: 1_000
            })
        ),
        "{refused:?}"
    );
    assert_eq!(queue.depth(&lane("a")).pending, 950);
    let done = queue
        .replay(&lane("a"), accepted(0, 50), at(3_000))
        .await
        .unwrap();
    assert_eq!(done.made, 50);
}

async fn a_waiting_delivery_is_cancelled_once(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..30).await;
    retry(&*queue, 0, 500).await;
    for (name, attempts) in [("e0", 1), ("e1", 0), ("e29", 0)] {
        let place = seq(&*queue, name).await;
        let cancelled = queue.cancel(&lane("a"), place).await.unwrap();
        assert_eq!(cancelled, Cancelled::Done { attempts }, "{name}");
        let again = queue.cancel(&lane("a"), place).await.unwrap();
        assert_eq!(again, Cancelled::NotWaiting, "{name}");
    }
    assert_eq!(queue.depth(&lane("a")).pending, 27);
    assert_eq!(
        queue.cancel(&lane("a"), 999_999).await.unwrap(),
        Cancelled::NotWaiting
    );
    assert_eq!(drain(&*queue, "a", at(1_000)).await, numbered(2..29));
    assert_eq!(queue.depth(&lane("a")).pending, 0);
}

async fn a_delivery_under_way_is_not_cancelled(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..1).await;
    let place = seq(&*queue, "e0").await;
    let under_way = take(&*queue, 0, 1).await;
    assert_eq!(
        queue.cancel(&lane("a"), place).await.unwrap(),
        Cancelled::InFlight
    );
    drop(under_way);
    let cancelled = queue.cancel(&lane("a"), place).await.unwrap();
    assert_eq!(cancelled, Cancelled::Done { attempts: 0 });
}

async fn an_event_is_found_by_its_id(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..50).await;
    let find = async |name: &str, uid: &str| queue.find(&lane(uid), &id(name), None).await.unwrap();
    let found = find("e33", "a").await.unwrap();
    assert_eq!(found.event.id, id("e33"));
    let open = found.open.unwrap();
    assert_eq!((open.due, open.attempts, open.in_flight), (at(33), 0, false));
    assert!(find("e33", "b").await.is_none());
    assert!(find("nothing", "a").await.is_none());
    drain(&*queue, "a", at(100)).await;
    assert!(find("e33", "a").await.unwrap().open.is_none());
}

/// As a Fifo destination puts off what stands behind a failed delivery.
async fn what_was_put_off_untried_is_shown_and_cancelled_as_any_other(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..2).await;
    let leased = queue.lease(&lane("a"), at(10), 2).await.unwrap().leases;
    settle_all(&*queue, leased, Completion::PutOffUntil(at(5_000)))
        .await
        .unwrap();
    let waiting = queue.waiting(&lane("a"), None, 9).await.unwrap();
    let attempts: Vec<_> = waiting.found.iter().map(|one| one.open.attempts).collect();
    assert_eq!(attempts, [0, 0]);
    let found = queue.find(&lane("a"), &id("e1"), None).await.unwrap().unwrap();
    assert_eq!(found.open.unwrap().attempts, 0);
    let cancelled = queue.cancel(&lane("a"), waiting.found[0].place.1).await.unwrap();
    assert_eq!(cancelled, Cancelled::Done { attempts: 0 });
}

async fn what_waits_is_shown_in_order(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..150).await;
    retry(&*queue, 0, 500).await;
    let mut shown = Vec::new();
    let mut after = None;
    loop {
        let some = queue.waiting(&lane("a"), after, 40).await.unwrap();
        let Some(last) = some.found.last() else { break };
        after = Some(last.place);
        shown.extend(
            some.found
                .iter()
                .map(|one| one.event_id().unwrap().as_str().to_owned()),
        );
    }
    let mut expected = numbered(1..150);
    expected.push("e0".to_owned());
    assert_eq!(shown, expected);
    let first = queue.waiting(&lane("a"), None, 1).await.unwrap();
    let first = &first.found[0];
    assert_eq!((first.open.due, first.open.attempts), (at(1), 0));
    let far = Timestamp::MAX - Duration::from_secs(1);
    let none = queue
        .waiting(&lane("a"), Some((far.as_millisecond(), 0)), 9)
        .await
        .unwrap();
    assert!(none.found.is_empty() && !none.more);
}

async fn large_events_end_a_step_early(queue: Arc<dyn Queue>) {
    for number in 0..10 {
        let large = sized("p", &format!("e{number}"), number, &["a"], 1 << 20);
        queue.enqueue(vec![large]).await.unwrap();
    }
    let (mut shown, mut after) = (0, None);
    loop {
        let some = queue.waiting(&lane("a"), after, 100).await.unwrap();
        assert!(some.found.len() <= 4, "{}", some.found.len());
        shown += some.found.len();
        after = some.found.last().map(|last| last.place).or(after);
        if !some.more {
            break;
        }
    }
    assert_eq!(shown, 10);
    drain(&*queue, "a", at(1_000)).await;
    let (mut from, mut made) = (0, 0);
    loop {
        let replay = Replay::Accepted {
            since: at(0),
            until: at(1_000),
            event_type: Some("record_created".into()),
            from,
        };
        let step = queue.replay(&lane("a"), replay, at(2_000)).await.unwrap();
        made += step.made;
        match step.next {
            Some(next) => from = next,
            None => break,
        }
    }
    assert_eq!(made, 10);
}
