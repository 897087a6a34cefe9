//! What every back-end keeps.

use std::sync::Arc;

use postrider::domain::health::Health;
use postrider::engine::queue::memory::MemoryQueue;
use postrider::engine::queue::{
    Claim, Completion, Depth, Enqueued, Lease, Queue, QueueError, Reach, Settlement,
};

use super::{at, drain, event, event_of, ids, lane, settings, settle_all};

/// A queue with a quota of 1,000 deliveries per project, small windows, and what it needs to live.
struct Subject {
    queue: Arc<dyn Queue>,
    _directory: Option<tempfile::TempDir>,
}

fn memory() -> Subject {
    Subject {
        queue: Arc::new(MemoryQueue::new(1_000)),
        _directory: None,
    }
}

async fn sqlite(window: usize) -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    settings.project_limit = 1_000;
    settings.window_deliveries = window;
    Subject {
        queue: Arc::new(super::open(&settings).await),
        _directory: Some(directory),
    }
}

macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(super::memory().queue).await; })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                let subject = super::sqlite(1024).await;
                super::$name(Arc::clone(&subject.queue)).await;
                subject.queue.close().await;
            })*
            use std::sync::Arc;
        }
        mod sqlite_from_disk {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                let subject = super::sqlite(8).await;
                super::$name(Arc::clone(&subject.queue)).await;
                subject.queue.close().await;
            })*
            use std::sync::Arc;
        }
    };
}

conformance!(
    stored_events_are_leased_in_order,
    oldest_due_first_and_oldest_event_first_in_a_batch,
    a_leased_delivery_is_not_leased_again,
    a_dropped_lease_is_available_again,
    a_retry_counts_an_attempt_and_waits,
    a_retry_is_not_due_before_its_acceptance,
    age_counts_from_acceptance_whatever_was_tried,
    a_rewound_lane_is_leased_by_age,
    a_rewind_leaves_what_is_leased_or_not_due,
    a_rewind_of_the_oldest_moves_no_other,
    a_rewind_survives_growth_and_draining,
    an_id_is_a_duplicate_within_its_window,
    ids_are_separate_per_project,
    an_event_without_lanes_is_remembered,
    every_lane_gets_its_own_delivery,
    a_batch_over_the_quota_is_refused_whole,
    duplicates_do_not_count_towards_the_quota,
    a_dropped_lane_is_empty_and_usable_again,
    a_lease_outlives_its_dropped_lane,
    a_lane_dropped_and_reused_ignores_old_leases,
    depth_counts_leased_deliveries,
    a_lease_that_is_settled_twice_counts_once,
    next_due_is_the_next_unclaimed_delivery,
    health_survives_settlement_and_drop,
    an_older_health_never_replaces_a_newer_one,
    a_note_stays_with_its_delivery_until_it_is_finished,
    a_long_lane_is_drained_in_order_while_it_grows,
    retries_and_new_events_keep_their_order,
    a_closed_queue_refuses,
    concurrent_workers_deliver_each_once,
);

async fn stored_events_are_leased_in_order(queue: Arc<dyn Queue>) {
    for number in 0..100 {
        let answer = queue
            .enqueue(vec![event(&format!("e{number}"), number, &["a"])])
            .await
            .unwrap();
        assert_eq!(answer, [Enqueued::Accepted]);
    }
    assert!(
        queue
            .lease(&lane("a"), at(-1), 10)
            .await
            .unwrap()
            .leases
            .is_empty()
    );
    let seen = drain(&*queue, "a", at(1_000)).await;
    let expected: Vec<String> = (0..100).map(|number| format!("e{number}")).collect();
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
    assert!(queue.lease(&lane("a"), at(0), 9).await.unwrap().leases.is_empty());
}

async fn a_dropped_lease_is_available_again(queue: Arc<dyn Queue>) {
    queue.enqueue(vec![event("1", 0, &["a"])]).await.unwrap();
    for _ in 0..3 {
        let leased = queue.lease(&lane("a"), at(0), 1).await.unwrap();
        assert_eq!(ids(&leased.leases), ["1"]);
        assert_eq!(leased.leases[0].attempts, 0);
        assert_eq!(leased.leases[0].due, at(0));
    }
}

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

async fn an_id_is_a_duplicate_within_its_window(queue: Arc<dyn Queue>) {
    const DAY: i64 = 24 * 3600 * 1000;
    let twice = queue
        .enqueue(vec![
            event("1", 0, &["a"]),
            event("1", 0, &["a"]),
            event("2", 0, &["a"]),
        ])
        .await;
    assert_eq!(
        twice.unwrap(),
        [Enqueued::Accepted, Enqueued::Duplicate, Enqueued::Accepted]
    );
    assert_eq!(drain(&*queue, "a", at(0)).await, ["1", "2"]);
    let uuid = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (millis, expected) in [
        (0, Enqueued::Accepted),
        (DAY - 1, Enqueued::Duplicate),
        (DAY, Enqueued::Accepted),
    ] {
        let answer = queue.enqueue(vec![event(uuid, millis, &["a"])]).await.unwrap();
        assert_eq!(answer, [expected], "after {millis} ms");
    }
    let upper = uuid.to_uppercase();
    assert_eq!(
        queue.enqueue(vec![event(&upper, 0, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    assert_eq!(
        queue.enqueue(vec![event(uuid, DAY + 1, &["a"])]).await.unwrap(),
        [Enqueued::Duplicate]
    );
    assert_eq!(drain(&*queue, "a", at(2 * DAY)).await.len(), 3);
}

async fn ids_are_separate_per_project(queue: Arc<dyn Queue>) {
    for project in ["p", "q"] {
        let answer = queue
            .enqueue(vec![event_of(project, "1", 0, &["a"])])
            .await
            .unwrap();
        assert_eq!(answer, [Enqueued::Accepted]);
    }
}

async fn an_event_without_lanes_is_remembered(queue: Arc<dyn Queue>) {
    assert_eq!(
        queue.enqueue(vec![event("1", 0, &[])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    assert_eq!(
        queue.enqueue(vec![event("1", 0, &["a"])]).await.unwrap(),
        [Enqueued::Duplicate]
    );
    assert!(queue.lanes().is_empty());
    assert!(queue.enqueue(vec![]).await.unwrap().is_empty());
}

async fn every_lane_gets_its_own_delivery(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("1", 0, &["a", "b"]), event("2", 0, &["b"])])
        .await
        .unwrap();
    assert_eq!(drain(&*queue, "b", at(0)).await, ["1", "2"]);
    assert_eq!(queue.lanes(), [lane("a")]);
    assert_eq!(drain(&*queue, "a", at(0)).await, ["1"]);
    assert!(
        queue
            .lease(&lane("unknown"), at(0), 1)
            .await
            .unwrap()
            .leases
            .is_empty()
    );
}

async fn a_batch_over_the_quota_is_refused_whole(queue: Arc<dyn Queue>) {
    let names: Vec<String> = (0..999).map(|number| format!("e{number}")).collect();
    queue
        .enqueue(names.iter().map(|name| event(name, 0, &["a"])).collect())
        .await
        .unwrap();
    let refused = queue
        .enqueue(vec![event("x", 0, &["a"]), event("y", 0, &["a"])])
        .await;
    assert_eq!(
        refused,
        Err(QueueError::ProjectFull {
            pending: 999,
            limit: 1_000
        })
    );
    assert_eq!(
        queue.enqueue(vec![event_of("q", "x", 0, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    assert_eq!(
        queue.enqueue(vec![event("x", 0, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    assert!(matches!(
        queue.enqueue(vec![event("y", 0, &["a"])]).await,
        Err(QueueError::ProjectFull { .. })
    ));
    let leased = queue.lease(&lane("a"), at(0), 1).await.unwrap();
    settle_all(&*queue, leased.leases, Completion::Finished)
        .await
        .unwrap();
    assert_eq!(
        queue.enqueue(vec![event("y", 0, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
}

async fn duplicates_do_not_count_towards_the_quota(queue: Arc<dyn Queue>) {
    let names: Vec<String> = (0..1_000).map(|number| format!("e{number}")).collect();
    queue
        .enqueue(names.iter().map(|name| event(name, 0, &["a"])).collect())
        .await
        .unwrap();
    let again = queue
        .enqueue(vec![event("e1", 0, &["a"]), event("e2", 0, &["a", "b"])])
        .await;
    assert_eq!(again.unwrap(), [Enqueued::Duplicate, Enqueued::Duplicate]);
}

async fn a_dropped_lane_is_empty_and_usable_again(queue: Arc<dyn Queue>) {
    let names: Vec<String> = (0..900).map(|number| format!("e{number}")).collect();
    queue
        .enqueue(names.iter().map(|name| event(name, 0, &["a"])).collect())
        .await
        .unwrap();
    queue
        .save_health(vec![(
            lane("a"),
            Health {
                delivered: 3,
                ..Health::default()
            },
        )])
        .await
        .unwrap();
    assert_eq!(queue.drop_lane(&lane("a")).await.unwrap(), 900);
    assert_eq!(queue.drop_lane(&lane("a")).await.unwrap(), 0);
    assert!(queue.lanes().is_empty());
    assert!(queue.load_health().await.unwrap().is_empty());
    // The quota has room again, and the ids are still known.
    let again = queue
        .enqueue(
            names
                .iter()
                .map(|name| event(&format!("{name}x"), 0, &["a"]))
                .collect(),
        )
        .await;
    assert!(again.is_ok());
    assert_eq!(
        queue.enqueue(vec![event("e1", 0, &["a"])]).await.unwrap(),
        [Enqueued::Duplicate]
    );
    assert_eq!(drain(&*queue, "a", at(0)).await.len(), 900);
}

async fn a_lease_outlives_its_dropped_lane(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("1", 0, &["a"]), event("2", 0, &["a"])])
        .await
        .unwrap();
    let mut leases = queue.lease(&lane("a"), at(0), 2).await.unwrap().leases;
    assert_eq!(queue.drop_lane(&lane("a")).await.unwrap(), 2);
    drop(leases.pop());
    settle_all(&*queue, leases, Completion::RetryAt(at(1)))
        .await
        .unwrap();
    assert!(queue.lease(&lane("a"), at(9), 9).await.unwrap().leases.is_empty());
    assert_eq!(queue.depth(&lane("a")), Depth::default());
}

async fn a_lane_dropped_and_reused_ignores_old_leases(queue: Arc<dyn Queue>) {
    queue.enqueue(vec![event("1", 0, &["a"])]).await.unwrap();
    let old = queue.lease(&lane("a"), at(0), 1).await.unwrap().leases;
    queue.drop_lane(&lane("a")).await.unwrap();
    queue.enqueue(vec![event("2", 0, &["a"])]).await.unwrap();
    let health = Some(Box::new(Health {
        delivered: 9,
        ..Health::default()
    }));
    let settlements = old.into_iter().map(|lease| Settlement {
        lease,
        completion: Completion::Finished,
        health: health.clone(),
        note: None,
    });
    queue.settle(settlements.collect()).await.unwrap();
    assert!(queue.load_health().await.unwrap().is_empty());
    assert_eq!(drain(&*queue, "a", at(0)).await, ["2"]);
}

async fn depth_counts_leased_deliveries(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("1", 5, &["a"]), event("2", 9, &["a"])])
        .await
        .unwrap();
    let oldest = |millis| Some(at(millis).as_millisecond());
    let leased = queue.lease(&lane("a"), at(5), 9).await.unwrap();
    assert_eq!(leased.next_due, Some(at(9)));
    assert_eq!(
        queue.depth(&lane("a")),
        Depth {
            pending: 2,
            oldest: oldest(5),
            next_due: oldest(9),
        }
    );
    settle_all(&*queue, leased.leases, Completion::Finished)
        .await
        .unwrap();
    assert_eq!(
        queue.depth(&lane("a")),
        Depth {
            pending: 1,
            oldest: oldest(9),
            next_due: oldest(9),
        }
    );
}

async fn a_lease_that_is_settled_twice_counts_once(queue: Arc<dyn Queue>) {
    for (due, completion) in [(0, Completion::Finished), (0, Completion::RetryAt(at(0)))] {
        let batch = (0..3).map(|number| event(&format!("{completion:?}{number}"), due, &["a"]));
        queue.enqueue(batch.collect()).await.unwrap();
        let lease = queue.lease(&lane("a"), at(0), 1).await.unwrap().leases.remove(0);
        let twin = Lease {
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
        assert_eq!(queue.depth(&lane("a")).pending, left);
        assert_eq!(drain(&*queue, "a", at(0)).await.len() as u64, left);
        assert_eq!(queue.depth(&lane("a")), Depth::default());
    }
}

async fn next_due_is_the_next_unclaimed_delivery(queue: Arc<dyn Queue>) {
    let names: Vec<String> = (0..50).map(|number| format!("e{number}")).collect();
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

async fn health_survives_settlement_and_drop(queue: Arc<dyn Queue>) {
    queue
        .enqueue(vec![event("1", 0, &["a"]), event("2", 0, &["b"])])
        .await
        .unwrap();
    let leased = queue.lease(&lane("a"), at(0), 1).await.unwrap();
    let health = Health {
        consecutive_failures: 7,
        generation: 2,
        ..Health::default()
    };
    let settlements = leased.leases.into_iter().map(|lease| Settlement {
        lease,
        completion: Completion::Finished,
        health: Some(Box::new(health.clone())),
        note: None,
    });
    queue.settle(settlements.collect()).await.unwrap();
    assert_eq!(queue.load_health().await.unwrap(), [(lane("a"), health)]);
    queue
        .save_health(vec![(lane("c"), Health::default())])
        .await
        .unwrap();
    let mut names = queue.lanes();
    names.sort();
    assert_eq!(names, [lane("a"), lane("b"), lane("c")]);
    queue.drop_lane(&lane("a")).await.unwrap();
    assert_eq!(
        queue.load_health().await.unwrap(),
        [(lane("c"), Health::default())]
    );
}

async fn a_note_stays_with_its_delivery_until_it_is_finished(queue: Arc<dyn Queue>) {
    let lease = async |name: &str, now| {
        let mut leases = queue.lease(&lane(name), at(now), 1).await.unwrap().leases;
        leases.remove(0)
    };
    let retry = async |lease, due, note: Option<&[u8]>| {
        let settlement = Settlement {
            lease,
            completion: Completion::RetryAt(at(due)),
            health: None,
            note: note.map(Into::into),
        };
        queue.settle(vec![settlement]).await.unwrap();
    };
    queue.enqueue(vec![event("1", 0, &["a", "b"])]).await.unwrap();
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
    settle_all(&*queue, vec![fourth], Completion::Finished)
        .await
        .unwrap();
    queue.drop_lane(&lane("b")).await.unwrap();
    queue.enqueue(vec![event("2", 0, &["b"])]).await.unwrap();
    let again = lease("b", 0).await;
    assert_eq!(queue.note(&again).await.unwrap(), None);
}

async fn an_older_health_never_replaces_a_newer_one(queue: Arc<dyn Queue>) {
    let health = |revision, exhausted| Health {
        revision,
        exhausted,
        ..Health::default()
    };
    let settled = |lease, health| {
        let settlement = Settlement {
            lease,
            completion: Completion::Finished,
            health: Some(Box::new(health)),
            note: None,
        };
        queue.settle(vec![settlement])
    };
    let stored = async || queue.load_health().await.unwrap().remove(0).1.exhausted;
    queue
        .enqueue(vec![event("1", 0, &["a"]), event("2", 0, &["a"])])
        .await
        .unwrap();
    let mut leases = queue.lease(&lane("a"), at(0), 2).await.unwrap().leases;
    settled(leases.remove(0), health(7, 70)).await.unwrap();
    settled(leases.remove(0), health(6, 60)).await.unwrap();
    assert_eq!((stored().await, queue.depth(&lane("a")).pending), (70, 0));
    queue.save_health(vec![(lane("a"), health(5, 50))]).await.unwrap();
    assert_eq!(stored().await, 70);
    queue.save_health(vec![(lane("a"), health(8, 80))]).await.unwrap();
    assert_eq!(stored().await, 80);
    queue.drop_lane(&lane("a")).await.unwrap();
    queue.save_health(vec![(lane("a"), health(1, 10))]).await.unwrap();
    assert_eq!(stored().await, 10, "a lane that is made later starts anew");
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
        settle_all(&*queue, leased.leases, Completion::Finished)
            .await
            .unwrap();
    }
    let expected: Vec<String> = (0..written).map(|number| format!("e{number}")).collect();
    assert_eq!(seen, expected);
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

async fn a_closed_queue_refuses(queue: Arc<dyn Queue>) {
    queue.enqueue(vec![event("1", 0, &["a"])]).await.unwrap();
    queue.close().await;
    queue.close().await;
    assert_eq!(
        queue.enqueue(vec![event("2", 0, &["a"])]).await,
        Err(QueueError::Closed)
    );
    assert_eq!(
        queue.lease(&lane("a"), at(0), 1).await.err(),
        Some(QueueError::Closed)
    );
    assert!(queue.state().unavailable.is_some());
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
                let mut leases = queue.lease(&lane("a"), at(1_000), 3).await.unwrap().leases;
                if number % 7 == 0 {
                    drop(leases.pop());
                }
                seen.extend(ids(&leases));
                settle_all(&*queue, leases, Completion::Finished).await.unwrap();
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
