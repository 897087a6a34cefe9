//! When a failed delivery comes back, and what a rewind brings forward.

use std::sync::Arc;

use postrider::engine::queue::{Completion, Depth, Queue, Reach};

use crate::queue::{at, drain, event, ids, lane, settle_all};

conformance!(
    a_retry_counts_an_attempt_and_waits,
    a_retry_is_not_due_before_its_acceptance,
    retries_and_new_events_keep_their_order,
    age_counts_from_acceptance_whatever_was_tried,
    a_rewound_lane_is_leased_by_age,
    a_rewind_leaves_what_is_leased_or_not_due,
    a_rewind_of_the_oldest_moves_no_other,
    a_rewind_survives_growth_and_draining,
);

async fn a_retry_counts_an_attempt_and_waits(queue: Arc<dyn Queue>) {
    queue.enqueue(vec![event("1", 0, &["a"])]).await.unwrap();
    for attempt in 0..5 {
        let due = i64::from(attempt) * 1_000;
        assert!(
            queue
                .lease(&lane("a"), at(due - 1), 1)
                .await
                .unwrap()
                .leases
                .is_empty()
        );
        let leased = queue.lease(&lane("a"), at(due), 1).await.unwrap();
        assert_eq!(leased.leases[0].attempts, attempt);
        settle_all(&*queue, leased.leases, Completion::RetryAt(at(due + 1_000)))
            .await
            .unwrap();
        assert_eq!(queue.depth(&lane("a")).pending, 1);
    }
}

async fn a_retry_is_not_due_before_its_acceptance(queue: Arc<dyn Queue>) {
    queue.enqueue(vec![event("1", 100, &["a"])]).await.unwrap();
    let leased = queue.lease(&lane("a"), at(100), 1).await.unwrap();
    settle_all(&*queue, leased.leases, Completion::RetryAt(at(-500)))
        .await
        .unwrap();
    let early = queue.lease(&lane("a"), at(99), 1).await.unwrap();
    assert!(early.leases.is_empty());
    assert_eq!(early.next_due, Some(at(100)));
    assert_eq!(
        queue.lease(&lane("a"), at(100), 1).await.unwrap().leases[0].attempts,
        1
    );
}

async fn retries_and_new_events_keep_their_order(queue: Arc<dyn Queue>) {
    let batch = |from: i64| {
        (from..from + 40)
            .map(|number| event(&format!("e{number}"), number, &["a"]))
            .collect()
    };
    queue.enqueue(batch(0)).await.unwrap();
    let leased = queue.lease(&lane("a"), at(39), 40).await.unwrap();
    settle_all(&*queue, leased.leases, Completion::RetryAt(at(60)))
        .await
        .unwrap();
    queue.enqueue(batch(40)).await.unwrap();
    let mut expected: Vec<String> = (40..60).map(|number| format!("e{number}")).collect();
    expected.extend((0..40).map(|number| format!("e{number}")));
    expected.extend((60..80).map(|number| format!("e{number}")));
    let mut seen = Vec::new();
    while seen.len() < expected.len() {
        let leased = queue.lease(&lane("a"), at(1_000), 1).await.unwrap();
        seen.extend(ids(&leased.leases));
        settle_all(&*queue, leased.leases, Completion::Finished)
            .await
            .unwrap();
    }
    assert_eq!(seen, expected);
}

/// Fails the first `count` deliveries that are due at `now`; they are due again at `again`.
async fn fail(queue: &dyn Queue, now: i64, count: usize, again: i64) {
    let leased = queue.lease(&lane("a"), at(now), count).await.unwrap();
    assert_eq!(leased.leases.len(), count);
    settle_all(queue, leased.leases, Completion::RetryAt(at(again)))
        .await
        .unwrap();
}

fn numbered(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|number| format!("e{number}")).collect()
}

async fn enqueue_numbered(queue: &dyn Queue, range: std::ops::Range<i64>) {
    let batch = range.map(|number| event(&format!("e{number}"), number, &["a"]));
    queue.enqueue(batch.collect()).await.unwrap();
}

async fn age_counts_from_acceptance_whatever_was_tried(queue: Arc<dyn Queue>) {
    let oldest = || queue.depth(&lane("a")).oldest;
    let since = |millis| Some(at(millis).as_millisecond());
    enqueue_numbered(&*queue, 0..40).await;
    fail(&*queue, 9, 10, 5_000).await;
    assert_eq!(oldest(), since(0));
    fail(&*queue, 5_000, 35, 9_000).await;
    assert_eq!(oldest(), since(0), "a second retry changes nothing");
    let mut first = queue.lease(&lane("a"), at(9_000), 40).await.unwrap().leases;
    assert_eq!(oldest(), since(0), "what is leased counts");
    let rest = first.split_off(7);
    settle_all(&*queue, first, Completion::Finished).await.unwrap();
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
        settle_all(&*queue, leased.leases, Completion::Finished)
            .await
            .unwrap();
    }
    assert_eq!(seen.iter().sum::<u32>(), 20, "attempts stay counted");
    assert_eq!(queue.depth(&lane("a")), Depth::default());
    assert_eq!(queue.rewind(&lane("unknown"), reach).await, Ok(0));
}

async fn a_rewind_leaves_what_is_leased_or_not_due(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..6).await;
    fail(&*queue, 1, 2, 50).await;
    fail(&*queue, 3, 2, 500).await;
    let held = queue.lease(&lane("a"), at(50), 3).await.unwrap().leases;
    assert_eq!(ids(&held), ["e0", "e4", "e5"], "the oldest due times");
    assert_eq!(queue.rewind(&lane("a"), Reach::DueBy(at(60))).await, Ok(1));
    assert_eq!(queue.depth(&lane("a")).next_due, Some(at(1).as_millisecond()));
    settle_all(&*queue, held, Completion::Finished).await.unwrap();
    assert_eq!(drain(&*queue, "a", at(60)).await, ["e1"]);
    assert_eq!(drain(&*queue, "a", at(500)).await, ["e2", "e3"]);
}

async fn a_rewind_of_the_oldest_moves_no_other(queue: Arc<dyn Queue>) {
    enqueue_numbered(&*queue, 0..30).await;
    fail(&*queue, 1, 2, 90_000).await;
    assert_eq!(queue.rewind(&lane("a"), Reach::Oldest).await, Ok(1));
    let oldest = queue.lease(&lane("a"), at(10), 1).await.unwrap();
    assert_eq!(ids(&oldest.leases), ["e0"]);
    settle_all(&*queue, oldest.leases, Completion::Finished)
        .await
        .unwrap();
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
