//! What a queue in a file knows after it was closed, killed or interrupted.

use std::sync::Arc;
use std::time::Duration;

use postrider::domain::health::Health;
use postrider::engine::queue::sqlite::SqliteQueue;
use postrider::engine::queue::{Enqueued, HealthStore, Queue};
use tokio::task::JoinHandle;

use super::file::QueueFile;
use super::{at, drain, event, healthy, ids, lane, names, pending, publish, put_off, put_off_noting, take};
use crate::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_a_clean_restart() {
    let (file, queue) = QueueFile::filled(200, 20).await;
    let failed = take(&*queue, 1_000, 50).await;
    put_off(&*queue, failed, 5_000).await;
    let health = Health {
        exhausted: 4,
        ..Health::default()
    };
    queue.save_health(vec![(lane("b"), health)]).await.unwrap();
    queue.close().await;

    let queue = file.reopen().await;
    assert_eq!(queue.state(), healthy());
    let depth = queue.depth(&lane("a"));
    assert_eq!(
        (depth.pending, depth.oldest, depth.next_due),
        (200, Some(at(0).as_millisecond()), Some(at(50).as_millisecond()))
    );
    assert_eq!(queue.load_health().await.unwrap()[0].1.exhausted, 4);
    assert_eq!(
        publish(&*queue, event("event-00003", 9, &["a"])).await,
        Ok(Enqueued::Duplicate)
    );
    assert_eq!(drain(&*queue, "a", at(1_000)).await, names(200)[50..]);
    let late = take(&*queue, 5_000, 100).await;
    assert_eq!(ids(&late), names(200)[..50], "what failed comes at its time");
    assert!(
        late.iter().all(|lease| lease.attempts == 1),
        "attempts stay counted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_lane_got_survives_a_kill_with_its_note() {
    let (file, queue) = QueueFile::filled(3, 20).await;
    let leases = take(&*queue, 1_000, 2).await;
    for lease in &leases {
        queue
            .hand_over(lease, &lane("b"), (*b"why").into(), at(2_000))
            .await
            .unwrap();
    }
    let killed = file.killed();
    drop(leases);
    queue.close().await;
    let queue = killed.open().await;
    assert_eq!(pending(&*queue), 3, "what was given up is given up again");
    let got = queue.lease(&lane("b"), at(2_000), 9).await.unwrap().leases;
    assert_eq!(ids(&got), names(2));
    for lease in &got {
        assert_eq!((lease.attempts, lease.replayed), (0, Some(at(2_000))));
        assert_eq!(queue.note(lease).await.unwrap().as_deref(), Some(&b"why"[..]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_health_stays_older_after_a_restart() {
    let file = QueueFile::new();
    let save = async |revision| {
        let queue = file.reopen().await;
        let health = Health {
            revision,
            ..Health::default()
        };
        queue.save_health(vec![(lane("a"), health)]).await.unwrap();
        let stored = queue.load_health().await.unwrap().remove(0).1.revision;
        queue.close().await;
        stored
    };
    assert_eq!((save(7).await, save(6).await, save(8).await), (7, 7, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_nothing_acknowledged() {
    let (file, queue) = QueueFile::filled(300, 200).await;
    let leased = take(&*queue, 1_000, 100).await;
    let killed = file.killed();
    drop(leased);
    let again = killed.open().await;
    assert_eq!(again.state(), healthy());
    assert_eq!(drain(&*again, "a", at(1_000)).await, names(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_note_survives_a_kill() {
    let (file, queue) = QueueFile::filled(1, 20).await;
    let lease = take(&*queue, 0, 1).await.remove(0);
    put_off_noting(&*queue, lease, 5, Some(b"half")).await;
    let killed = file.killed();
    let again = killed.open().await;
    let lease = take(&*again, 5, 1).await.remove(0);
    assert_eq!(again.note(&lease).await.unwrap().as_deref(), Some(&b"half"[..]));
}

/// Begins to drop lane `a` and comes back in the midst of it.
async fn dropping(queue: &Arc<SqliteQueue>) -> JoinHandle<u64> {
    let dropping = Arc::clone(queue);
    let task = tokio::spawn(async move { dropping.drop_lane(&lane("a")).await.unwrap() });
    until(|| pending(&**queue) == 0).await;
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_lane_goes_on_after_a_restart() {
    let (file, queue) = QueueFile::filled(30_000, 1).await;
    let task = dropping(&queue).await;
    let killed = file.killed();
    task.await.unwrap();
    let left = || -> u64 {
        let count = "SELECT count(*) FROM deliveries";
        let count: i64 = killed.sql().query_row(count, [], |row| row.get(0)).unwrap();
        count.cast_unsigned()
    };
    let undone = left();
    let again = killed.open().await;
    assert!(again.lanes().is_empty(), "nothing of the lane can be seen");
    until(|| left() == 0).await;
    until(|| killed.metrics.dropped_late.get() == undone).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_number_of_a_dropped_lane_is_not_given_again() {
    let (file, queue) = QueueFile::filled(50, 20).await;
    queue.drop_lane(&lane("a")).await.unwrap();
    queue.close().await;
    let queue = file.reopen().await;
    publish(&*queue, event("new", 0, &["b"])).await.unwrap();
    let numbers = |uid: &str| -> Vec<i64> {
        let sql = file.sql();
        let mut numbers = sql.prepare("SELECT number FROM lanes WHERE uid = ?1").unwrap();
        let found = numbers.query_map([uid], |row| row.get(0)).unwrap();
        found.map(Result::unwrap).collect()
    };
    assert_ne!(numbers("a"), numbers("b"), "old events still name the first");
    assert_eq!(drain(&*queue, "b", at(1_000)).await, ["new"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_lane_that_is_interrupted_counts_all_of_it() {
    let (file, queue) = QueueFile::filled(30_000, 1).await;
    let task = dropping(&queue).await;
    // Somebody holds the file for so long that the queue gives up and opens it again.
    let other = file.sql();
    other.busy_timeout(Duration::from_secs(10)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    until(|| queue.state().unavailable.is_some() || task.is_finished()).await;
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(task.await.unwrap(), 30_000);
}
