//! When a failed delivery comes back, and what a rewind brings forward.

use std::sync::Arc;

use postrider::engine::queue::{Completion, Depth, Queue, Reach};

use crate::queue::conformance::{enqueue_numbered, numbered};
use crate::queue::{
    at, drain, event, finish, ids, lane, pending, publish, put_off, put_off_noting, settle_all, take,
};

conformance!(
    a_retry_counts_an_attempt_and_waits,
    a_retry_is_not_due_before_its_acceptance,
    what_is_put_off_waits_without_an_attempt_and_goes_back_to_its_place,
    retries_and_new_events_keep_their_order,
    age_counts_from_acceptance_whatever_was_tried,
    a_rewound_lane_is_leased_by_age,
    a_rewind_leaves_what_is_leased_or_not_due,
    a_rewind_of_the_oldest_moves_no_other,
    a_rewind_survives_growth_and_draining,
    a_note_stays_with_its_delivery_until_it_is_finished,
);

async fn a_note_stays_with_its_delivery_until_it_is_finished(queue: Arc<dyn Queue>) {
    let lease = async |name: &str, now| {
        let mut leases = queue.lease(&lane(name), at(now), 1).await.unwrap().leases;
        leases.remove(0)
    };
    let retry = async |lease, due, note: Option<&[u8]>| put_off_noting(&*queue, lease, due, note).await;
    publish(&*queue, event("1", 0, &["a", "b"])).await.unwrap();
    let first = lease("a", 0).await;
    assert_eq!(queue.note(&first).await.unwrap(), None);
    retry(first, 10, Some(b"one")).await;
    let second = lease("a", 10).await;
    assert_eq!(queue.note(&second).await.unwrap().as_deref(), Some(&b"one"[..]));
    retry(second, 20, None).await;
    queue.rewind(&lane("a"), Reach::Oldest).await.unwrap();
    let third = lease("a", 20).await;
    assert_eq!(queue.note(&third).await.unwrap().as_deref(), Some(&b"one"[..]));
    retry(third, 30, Some(b"two")).await;
    let other = lease("b", 0).await;
    assert_eq!(
        queue.note(&other).await.unwrap(),
        None,
        "another lane has its own"
    );
    retry(other, 10, Some(b"b")).await;
    let fourth = lease("a", 30).await;
    assert_eq!(queue.note(&fourth).await.unwrap().as_deref(), Some(&b"two"[..]));
    finish(&*queue, vec![fourth]).await;
    queue.drop_lane(&lane("b")).await.unwrap();
    publish(&*queue, event("2", 0, &["b"])).await.unwrap();
    let again = lease("b", 0).await;
    assert_eq!(queue.note(&again).await.unwrap(), None);
}

async fn what_is_put_off_waits_without_an_attempt_and_goes_back_to_its_place(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..3).await;
    let mut first = queue.lease(&lane("a"), at(10), 3).await.unwrap().leases;
    let youngest = first.split_off(1);
    put_off(&*queue, first, 1_000).await;
    settle_all(&*queue, youngest, Completion::PutOffUntil(at(1_000)))
        .await
        .unwrap();
    assert_eq!(take(&*queue, 999, 3).await.len(), 0, "before its time");
    let leased = queue.lease(&lane("a"), at(1_000), 3).await.unwrap().leases;
    assert_eq!(ids(&leased), numbered(0..3));
    let attempts: Vec<_> = leased.iter().map(|lease| lease.attempts).collect();
    assert_eq!(attempts, [1, 0, 0]);
    settle_all(&*queue, leased, Completion::PutOffUntil(at(9_000)))
        .await
        .unwrap();
    assert_eq!(
        queue.rewind(&lane("a"), Reach::DueBy(at(9_000))).await.unwrap(),
        3
    );
    let leased = queue.lease(&lane("a"), at(10), 3).await.unwrap().leases;
    assert_eq!(leased.len(), 3);
    finish(&*queue, leased).await;
}

async fn a_retry_counts_an_attempt_and_waits(queue: Arc<dyn Queue>) {
    publish(&*queue, event("1", 0, &["a"])).await.unwrap();
    for attempt in 0..5 {
        let due = i64::from(attempt) * 1_000;
        assert_eq!(take(&*queue, due - 1, 1).await.len(), 0, "before its time");
        let leased = queue.lease(&lane("a"), at(due), 1).await.unwrap();
        assert_eq!(leased.leases[0].attempts, attempt);
        put_off(&*queue, leased.leases, due + 1_000).await;
        assert_eq!(pending(&*queue), 1);
    }
}

async fn a_retry_is_not_due_before_its_acceptance(queue: Arc<dyn Queue>) {
    publish(&*queue, event("1", 100, &["a"])).await.unwrap();
    let leased = queue.lease(&lane("a"), at(100), 1).await.unwrap();
    put_off(&*queue, leased.leases, -500).await;
    let early = queue.lease(&lane("a"), at(99), 1).await.unwrap();
    assert_eq!(early.leases.len(), 0, "before its acceptance");
    assert_eq!(early.next_due, Some(at(100)));
    assert_eq!(take(&*queue, 100, 1).await[0].attempts, 1);
}

async fn retries_and_new_events_keep_their_order(queue: Arc<dyn Queue>) {
    let batch = |from: i64| {
        (from..from + 40)
            .map(|number| event(&format!("e{number}"), number, &["a"]))
            .collect()
    };
    queue.enqueue(batch(0)).await.unwrap();
    let leased = queue.lease(&lane("a"), at(39), 40).await.unwrap();
    put_off(&*queue, leased.leases, 60).await;
    queue.enqueue(batch(40)).await.unwrap();
    let mut expected = numbered(40..60);
    expected.extend(numbered(0..40));
    expected.extend(numbered(60..80));
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let leased = queue.lease(&lane("a"), at(1_000), 1).await.unwrap();
        seen.extend(ids(&leased.leases));
        finish(&*queue, leased.leases).await;
    }
    assert_eq!(seen, expected);
}

/// Fails the first `count` deliveries that are due at `now`; they are due again at `again`.
async fn fail(queue: &dyn Queue, now: i64, count: usize, again: i64) {
    let leased = queue.lease(&lane("a"), at(now), count).await.unwrap();
    assert_eq!(leased.leases.len(), count);
    put_off(queue, leased.leases, again).await;
}

async fn age_counts_from_acceptance_whatever_was_tried(queue: Arc<dyn Queue>) {
    let oldest = || queue.depth(&lane("a")).oldest;
    let since = |millis| Some(at(millis).as_millisecond());
    enqueue_numbered(&*queue, 0..40).await;
    fail(&*queue, 9, 10, 5_000).await;
    assert_eq!(oldest(), since(0));
    fail(&*queue, 5_000, 35, 9_000).await;
    assert_eq!(oldest(), since(0), "a second retry changes nothing");
    let mut first = take(&*queue, 9_000, 40).await;
    assert_eq!(oldest(), since(0), "what is leased counts");
    let rest = first.split_off(7);
    finish(&*queue, first).await;
    assert_eq!(oldest(), since(7));
    drop(rest);
    assert_eq!(oldest(), since(7));
    assert_eq!(drain(&*queue, "a", at(9_000)).await.len(), 33);
    assert_eq!(oldest(), None);
}

async fn a_rewound_lane_is_leased_by_age(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..40).await;
    fail(&*queue, 19, 20, 60).await;
    enqueue_numbered(&*queue, 40..80).await;
    let reach = Reach::DueBy(at(1_000));
    assert_eq!(queue.rewind(&lane("a"), reach).await, Ok(20));
    assert_eq!(queue.rewind(&lane("a"), reach).await, Ok(0));
    let mut seen = Vec::new();
    while seen.len() < 80 {
        let leased = queue.lease(&lane("a"), at(1_000), 3).await.unwrap();
        seen.extend(leased.leases.iter().map(|lease| lease.attempts));
        let names = ids(&leased.leases);
        let from = i64::try_from(seen.len() - names.len()).unwrap();
        assert_eq!(names, numbered(from..from + i64::try_from(names.len()).unwrap()));
        finish(&*queue, leased.leases).await;
    }
    assert_eq!(seen.iter().sum::<u32>(), 20, "attempts stay counted");
    assert_eq!(queue.depth(&lane("a")), Depth::default());
    assert_eq!(queue.rewind(&lane("unknown"), reach).await, Ok(0));
}

async fn a_rewind_leaves_what_is_leased_or_not_due(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..6).await;
    fail(&*queue, 1, 2, 50).await;
    fail(&*queue, 3, 2, 500).await;
    let held = take(&*queue, 50, 3).await;
    assert_eq!(ids(&held), ["e0", "e4", "e5"], "the oldest due times");
    assert_eq!(queue.rewind(&lane("a"), Reach::DueBy(at(60))).await, Ok(1));
    assert_eq!(queue.depth(&lane("a")).next_due, Some(at(1).as_millisecond()));
    finish(&*queue, held).await;
    assert_eq!(drain(&*queue, "a", at(60)).await, ["e1"]);
    assert_eq!(drain(&*queue, "a", at(500)).await, ["e2", "e3"]);
}

async fn a_rewind_of_the_oldest_moves_no_other(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..30).await;
    fail(&*queue, 1, 2, 90_000).await;
    assert_eq!(queue.rewind(&lane("a"), Reach::Oldest).await, Ok(1));
    let oldest = queue.lease(&lane("a"), at(10), 1).await.unwrap();
    assert_eq!(ids(&oldest.leases), ["e0"]);
    finish(&*queue, oldest.leases).await;
    assert_eq!(drain(&*queue, "a", at(100)).await, numbered(2..30));
    enqueue_numbered(&*queue, 30..31).await;
    assert_eq!(queue.rewind(&lane("a"), Reach::Oldest).await, Ok(1));
    assert_eq!(drain(&*queue, "a", at(100)).await, ["e1", "e30"]);
}

async fn a_rewind_survives_growth_and_draining(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..200).await;
    fail(&*queue, 1_000, 120, 2_000).await;
    let adding = {
        let queue = Arc::clone(&queue);
        async move {
            for number in 200..260 {
                enqueue_numbered(&*queue, number..number + 1).await;
            }
        }
    };
    let draining = async {
        queue.rewind(&lane("a"), Reach::DueBy(at(3_000))).await.unwrap();
        drain(&*queue, "a", at(3_000)).await
    };
    let ((), mut seen) = tokio::join!(adding, draining);
    seen.extend(drain(&*queue, "a", at(3_000)).await);
    assert_eq!(seen, numbered(0..260));
    assert_eq!(queue.depth(&lane("a")), Depth::default());
}
