//! Keys in a file: over a kill, in an older file, and at their bounds.

use std::time::Duration;

use postrider::engine::queue::{Enqueued, Queue, QueueError};

use super::damage::drain_over_repairs;
use super::file::{PAGE, QueueFile, overwrite};
use super::{at, drain, event, fill, keyed, lane, publish, sized};

fn stored(file: &QueueFile) -> i64 {
    let count = "SELECT count(*) FROM keys";
    file.sql().query_row(count, [], |row| row.get(0)).unwrap()
}

/// Publishes an event with a key of its own to a lane, whose window is a second; whether it was the first.
async fn first(queue: &dyn Queue, name: &str, millis: i64, key: u128) -> bool {
    let new = keyed(&format!("{name}-{key}-{millis}"), millis, &[name], key, 1_000);
    publish(queue, new).await.unwrap() == Enqueued::Accepted
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_remembers_the_keys_of_what_it_acknowledged() {
    let file = QueueFile::new();
    let queue = file.open().await;
    for key in 0..300 {
        assert!(first(&*queue, "a", 0, key).await);
    }
    let killed = file.killed();
    let after = killed.open().await;
    for key in 0..300 {
        assert!(!first(&*after, "a", 999, key).await, "{key}");
    }
    assert!(first(&*after, "b", 999, 1).await);
    assert_eq!(drain(&*after, "a", at(1_000)).await.len(), 300);
    after.close().await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_stored_leaves_no_key() {
    let file = QueueFile::with(|settings| {
        settings.max_bytes = 1 << 20;
        settings.retention_bytes = 0;
        settings.retention_interval = Duration::from_millis(10);
    });
    let queue = file.open().await;
    let mut large = keyed("large", 0, &["a"], 1, 1_000);
    large.event = sized("p", "large", 0, &["a"], 2 << 20).event;
    // The one before it in the batch has its key already when the file turns out to be too small.
    let batch = vec![keyed("small", 0, &["a"], 2, 1_000), large];
    assert_eq!(queue.enqueue(batch).await, Err(QueueError::FileFull));
    for key in [1, 2] {
        assert!(first(&*queue, "a", 1, key).await, "{key}");
        assert!(!first(&*queue, "a", 2, key).await, "{key}");
    }
    queue.close().await;
    drop(queue);
    assert_eq!(stored(&file), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_before_keys_takes_them() {
    let file = QueueFile::new();
    let queue = file.open().await;
    publish(&*queue, event("old", 0, &["a"])).await.unwrap();
    queue.close().await;
    drop(queue);
    file.sql().execute_batch("DROP TABLE keys").unwrap();
    let queue = file.reopen().await;
    assert!(first(&*queue, "a", 0, 1).await);
    assert!(!first(&*queue, "a", 1, 1).await);
    assert_eq!(drain(&*queue, "a", at(10)).await, ["old", "a-1-0"]);
    queue.close().await;
    drop(queue);
    assert_eq!(stored(&file), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_mended_remembers_keys_by_their_own_place_or_by_the_usual_one() {
    // One page of events, which the mended file lacks; and the first page, which says where everything is.
    for page in [None, Some(0)] {
        let file = QueueFile::new();
        let queue = file.open().await;
        fill(&*queue, 200, 1_000).await;
        for key in 0..300 {
            assert!(first(&*queue, "a", 0, key).await);
        }
        queue.close().await;
        drop(queue);
        let bytes = std::fs::read(file.path()).unwrap();
        let events = bytes.windows(13).position(|text| text == b"event-00100 x");
        let page = page.unwrap_or_else(|| events.unwrap() / PAGE);
        overwrite(file.path(), (page * PAGE) as u64, &[0xa5; PAGE]);
        let queue = file.open().await;
        drain_over_repairs(&*queue, page as u64).await;
        for key in 0..300 {
            assert!(!first(&*queue, "a", 999, key).await, "{key}");
        }
        assert!(queue.state().repaired.is_some(), "the damage is told");
        assert!(first(&*queue, "a", 1_000, 1).await);
        queue.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_at_its_bound_forgets_its_oldest_key() {
    let file = QueueFile::with(|settings| settings.max_lane_keys = 100);
    let queue = file.open().await;
    for key in 0..150 {
        assert!(first(&*queue, "a", i64::try_from(key).unwrap(), key).await);
    }
    assert_eq!(file.metrics.keys_forgotten.get(), 50);
    assert!(!first(&*queue, "a", 200, 50).await, "the newest are there");
    assert!(first(&*queue, "a", 200, 49).await, "rather twice than never");
    assert!(first(&*queue, "b", 200, 1).await, "no other lane is affected");
    queue.close().await;
    drop(queue);
    assert_eq!(stored(&file), 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn at_the_bound_of_all_a_lane_without_keys_remembers_none() {
    let file = QueueFile::with(|settings| settings.max_keys = 100);
    let queue = file.open().await;
    for key in 0..100 {
        assert!(first(&*queue, "a", 0, key).await);
    }
    for millis in 0..2 {
        assert!(first(&*queue, "b", millis, 1).await, "rather twice than never");
    }
    assert_eq!(file.metrics.keys_forgotten.get(), 2);
    // What has ended makes room for every lane.
    assert!(first(&*queue, "b", 1_000, 1).await);
    assert!(!first(&*queue, "b", 1_001, 1).await);
    queue.close().await;
    drop(queue);
    assert_eq!(stored(&file), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_have_ended_are_removed_after_a_restart_too() {
    let file = QueueFile::new();
    let queue = file.open().await;
    for key in 0..200 {
        assert!(first(&*queue, "a", 0, key).await && first(&*queue, "c", 0, key).await);
    }
    queue.close().await;
    drop(queue);
    assert_eq!(stored(&file), 400);
    let queue = file.reopen().await;
    for key in 0..200 {
        assert!(first(&*queue, "b", 5_000, key).await);
    }
    queue.close().await;
    drop(queue);
    assert_eq!(stored(&file), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_a_clock_that_was_far_ahead_are_removed() {
    let file = QueueFile::new();
    let queue = file.open().await;
    for key in 0..50 {
        assert!(first(&*queue, "a", 1_000_000_000, key).await);
    }
    for key in 100..164 {
        assert!(first(&*queue, "a", 5_000, key).await);
    }
    queue.close().await;
    drop(queue);
    assert_eq!(stored(&file), 64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lane_that_is_dropped_leaves_no_key() {
    let file = QueueFile::new();
    let queue = file.open().await;
    let batch = (0..900).map(|key| keyed(&format!("{key}"), 0, &["a"], key, 1_000));
    queue.enqueue(batch.collect()).await.unwrap();
    assert!(first(&*queue, "b", 0, 1).await);
    assert_eq!(queue.drop_lane(&lane("a")).await.unwrap(), 900);
    assert!(first(&*queue, "a", 1, 1).await);
    queue.close().await;
    drop(queue);
    assert_eq!(stored(&file), 2);
}
