//! What is taken, what is a duplicate, and what is over the quota.

use std::sync::Arc;

use postrider::engine::queue::{Enqueued, Queue, QueueError};

use crate::queue::conformance::numbered;
use crate::queue::{at, drain, event, event_of, finish, publish, take};

conformance!(
    an_id_is_a_duplicate_within_its_window,
    ids_are_separate_per_project,
    an_event_without_lanes_is_remembered,
    a_batch_over_the_quota_is_refused_whole,
    duplicates_do_not_count_towards_the_quota,
);

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
        let answer = publish(&*queue, event(uuid, millis, &["a"])).await.unwrap();
        assert_eq!(answer, expected, "after {millis} ms");
    }
    let upper = uuid.to_uppercase();
    assert_eq!(
        publish(&*queue, event(&upper, 0, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
    assert_eq!(
        publish(&*queue, event(uuid, DAY + 1, &["a"])).await,
        Ok(Enqueued::Duplicate)
    );
    assert_eq!(drain(&*queue, "a", at(2 * DAY)).await.len(), 3);
}

async fn ids_are_separate_per_project(queue: Arc<dyn Queue>) {
    for project in ["p", "q"] {
        let answer = publish(&*queue, event_of(project, "1", 0, &["a"])).await.unwrap();
        assert_eq!(answer, Enqueued::Accepted);
    }
}

async fn an_event_without_lanes_is_remembered(queue: Arc<dyn Queue>) {
    assert_eq!(publish(&*queue, event("1", 0, &[])).await, Ok(Enqueued::Accepted));
    assert_eq!(
        publish(&*queue, event("1", 0, &["a"])).await,
        Ok(Enqueued::Duplicate)
    );
    assert_eq!(queue.lanes(), [], "there is no lane without a delivery");
    assert_eq!(queue.enqueue(vec![]).await, Ok(vec![]));
}

async fn a_batch_over_the_quota_is_refused_whole(queue: Arc<dyn Queue>) {
    let names = numbered(0..999);
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
        publish(&*queue, event_of("q", "x", 0, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
    assert_eq!(
        publish(&*queue, event("x", 0, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
    assert!(matches!(
        publish(&*queue, event("y", 0, &["a"])).await,
        Err(QueueError::ProjectFull { .. })
    ));
    let first = take(&*queue, 0, 1).await;
    finish(&*queue, first).await;
    assert_eq!(
        publish(&*queue, event("y", 0, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
}

async fn duplicates_do_not_count_towards_the_quota(queue: Arc<dyn Queue>) {
    let names = numbered(0..1_000);
    queue
        .enqueue(names.iter().map(|name| event(name, 0, &["a"])).collect())
        .await
        .unwrap();
    let again = queue
        .enqueue(vec![event("e1", 0, &["a"]), event("e2", 0, &["a", "b"])])
        .await;
    assert_eq!(again.unwrap(), [Enqueued::Duplicate, Enqueued::Duplicate]);
}
