//! In which order deliveries are leased, and that each is leased once at a time.

use std::sync::Arc;

use postrider::engine::queue::{Claim, Completion, Depth, Enqueued, Lease, Queue, QueueError, Settlement};

use crate::queue::conformance::numbered;
use crate::queue::{at, drain, event, finish, ids, lane, pending, publish, take};

conformance!(
    stored_events_are_leased_in_order,
    oldest_due_first_and_oldest_event_first_in_a_batch,
    a_leased_delivery_is_not_leased_again,
    a_dropped_lease_is_available_again,
    a_lease_that_is_settled_twice_counts_once,
    next_due_is_the_next_unclaimed_delivery,
    a_long_lane_is_drained_in_order_while_it_grows,
    a_closed_queue_refuses,
    concurrent_workers_deliver_each_once,
);

async fn stored_events_are_leased_in_order(queue: Arc<dyn Queue>) {
    for number in 0..100 {
        let answer = publish(&*queue, event(&format!("e{number}"), number, &["a"])).await;
        assert_eq!(answer, Ok(Enqueued::Accepted));
    }
    assert_eq!(ids(&take(&*queue, -1, 10).await), [""; 0], "nothing is due");
    let seen = drain(&*queue, "a", at(1_000)).await;
    let expected = numbered(0..100);
    assert_eq!(seen, expected);
    assert_eq!(queue.depth(&lane("a")), Depth::default());
}

async fn oldest_due_first_and_oldest_event_first_in_a_batch(queue: Arc<dyn Queue>) {
    let batch = vec![
        event("late", 50, &["a"]),
        event("early", 10, &["a"]),
        event("middle", 30, &["a"]),
    ];
    queue.enqueue(batch).await.unwrap();
    let two = queue.lease(&lane("a"), at(100), 2).await.unwrap();
    assert_eq!(ids(&two.leases), ["early", "middle"]);
    let last = queue.lease(&lane("a"), at(100), 2).await.unwrap();
    assert_eq!(ids(&last.leases), ["late"]);
    drop((two, last));
    let all = queue.lease(&lane("a"), at(100), 5).await.unwrap();
    assert_eq!(
        ids(&all.leases),
        ["late", "early", "middle"],
        "those handed out together go by acceptance"
    );
}

async fn a_leased_delivery_is_not_leased_again(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("1", 0, &["a"]), event("2", 0, &["a"])])
        .await
        .unwrap();
    let first = queue.lease(&lane("a"), at(0), 1).await.unwrap();
    let second = queue.lease(&lane("a"), at(0), 9).await.unwrap();
    assert_eq!(
        (ids(&first.leases), ids(&second.leases)),
        (vec!["1".to_owned()], vec!["2".to_owned()])
    );
    assert_eq!(ids(&take(&*queue, 0, 9).await), [""; 0], "all is leased");
}

async fn a_dropped_lease_is_available_again(queue: Arc<dyn Queue>) {
    publish(&*queue, event("1", 0, &["a"])).await.unwrap();
    for _ in 0..3 {
        let leased = queue.lease(&lane("a"), at(0), 1).await.unwrap();
        assert_eq!(ids(&leased.leases), ["1"]);
        assert_eq!(leased.leases[0].attempts, 0);
        assert_eq!(leased.leases[0].due, at(0));
    }
}

async fn a_lease_that_is_settled_twice_counts_once(queue: Arc<dyn Queue>) {
    for (due, completion) in [(0, Completion::Finished), (0, Completion::RetryAt(at(0)))] {
        let batch = (0..3).map(|number| event(&format!("{completion:?}{number}"), due, &["a"]));
        queue.enqueue(batch.collect()).await.unwrap();
        let lease = take(&*queue, 0, 1).await.remove(0);
        let twin = Lease {
            replayed: None,
            stored: lease.stored.clone(),
            attempts: lease.attempts,
            lane: lease.lane.clone(),
            due: lease.due,
            bytes: lease.bytes,
            claim: Claim {
                seq: lease.claim.seq,
                token: lease.claim.token,
                release: None,
            },
        };
        let settlement = |lease, completion| Settlement {
            lease,
            completion,
            health: None,
            note: None,
        };
        let (first, second) = (
            settlement(lease, completion),
            settlement(twin, Completion::Finished),
        );
        queue.settle(vec![first, second]).await.unwrap();
        let left = if completion == Completion::Finished { 2 } else { 3 };
        assert_eq!(pending(&*queue), left);
        assert_eq!(drain(&*queue, "a", at(0)).await.len() as u64, left);
        assert_eq!(queue.depth(&lane("a")), Depth::default());
    }
}

async fn next_due_is_the_next_unclaimed_delivery(queue: Arc<dyn Queue>) {
    let names = numbered(0..50);
    let batch = names
        .iter()
        .zip(0..)
        .map(|(name, number)| event(name, number * 10, &["a"]));
    queue.enqueue(batch.collect()).await.unwrap();
    let leased = queue.lease(&lane("a"), at(95), 100).await.unwrap();
    assert_eq!((leased.leases.len(), leased.next_due), (10, Some(at(100))));
    let more = queue.lease(&lane("a"), at(205), 5).await.unwrap();
    assert_eq!((more.leases.len(), more.next_due), (5, Some(at(150))));
    drop(leased);
    let none = queue.lease(&lane("a"), at(-1), 5).await.unwrap();
    assert_eq!(none.next_due, Some(at(0)));
    let rest = queue.lease(&lane("a"), at(10_000), 100).await.unwrap();
    assert_eq!((rest.leases.len(), rest.next_due), (45, None));
    drop(more);
}

async fn a_long_lane_is_drained_in_order_while_it_grows(queue: Arc<dyn Queue>) {
    let mut written = 0_i64;
    let mut seen = Vec::new();
    for round in 0..60 {
        let more = if round < 30 { 30 } else { 0 };
        let batch = (written..written + more).map(|number| event(&format!("e{number}"), number, &["a"]));
        queue.enqueue(batch.collect()).await.unwrap();
        written += more;
        let leased = queue.lease(&lane("a"), at(100_000), 20).await.unwrap();
        seen.extend(ids(&leased.leases));
        finish(&*queue, leased.leases).await;
    }
    let expected = numbered(0..written);
    assert_eq!(seen, expected);
}

async fn a_closed_queue_refuses(queue: Arc<dyn Queue>) {
    publish(&*queue, event("1", 0, &["a"])).await.unwrap();
    queue.close().await;
    queue.close().await;
    assert_eq!(
        publish(&*queue, event("2", 0, &["a"])).await,
        Err(QueueError::Closed)
    );
    assert_eq!(
        queue.lease(&lane("a"), at(0), 1).await.err(),
        Some(QueueError::Closed)
    );
    assert!(queue.state().unavailable.is_some(), "{:?}", queue.state());
}

async fn concurrent_workers_deliver_each_once(queue: Arc<dyn Queue>) {
    let mut tasks = tokio::task::JoinSet::new();
    for worker in 0..8 {
        let queue = Arc::clone(&queue);
        tasks.spawn(async move {
            let mut seen = Vec::new();
            for number in 0..100 {
                queue
                    .enqueue(vec![event(&format!("{worker}-{number}"), number, &["a"])])
                    .await
                    .unwrap();
                let mut leases = take(&*queue, 1_000, 3).await;
                if number % 7 == 0 {
                    drop(leases.pop());
                }
                seen.extend(ids(&leases));
                finish(&*queue, leases).await;
            }
            seen
        });
    }
    let mut seen: Vec<String> = tasks.join_all().await.concat();
    seen.extend(drain(&*queue, "a", at(1_000)).await);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 800);
    assert_eq!(queue.depth(&lane("a")), Depth::default());
}
