//! A volume or a file without room. Real volumes, really full.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use postrider::domain::health::Health;
use postrider::engine::queue::{Completion, Enqueued, HealthStore, Queue, QueueError, Reach, Settlement};
use tokio::task::JoinHandle;

use super::file::{QueueFile, length};
use super::{
    at, drain, event, fill, healthy, lane, names, pending, publish, put_off, settle_all, sized, take,
};
use crate::support::until;

/// Publishes until it is refused; returns the ids taken, and the refusal.
async fn publish_until_refused(queue: &dyn Queue, name: &str, size: usize) -> (Vec<String>, QueueError) {
    let mut taken = Vec::new();
    loop {
        let id = format!("{name}{}", taken.len());
        match publish(queue, sized("p", &id, 500, &["a"], size)).await {
            Ok(_) => taken.push(id),
            Err(error) => return (taken, error),
        }
    }
}

/// Publishes so many large events with the round in their names.
async fn publish_round(queue: &dyn Queue, round: i32, count: i64) {
    let batch = (0..count).map(|n| sized("p", &format!("r{round}-{n}"), n, &["a"], 10_000));
    queue.enqueue(batch.collect()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_refuses_events_delivers_and_takes_events_again() {
    let volume = small_volume!("40m");
    let file = volume.file();
    let metrics = &file.metrics;
    let queue = file.open().await;
    file.reserved().await;
    assert_eq!(metrics.reserve.get(), 12 << 20);
    let filler = volume.fill_up();
    let (taken, refused) = publish_until_refused(&*queue, "x", 3_000).await;
    assert_eq!(refused, QueueError::DiskFull);
    assert_eq!(queue.state().unavailable.unwrap(), "the queue's disk is full");
    assert!(metrics.refused_disk.get() > 0, "the refusal is counted");
    assert_eq!((metrics.reserve_given_up.get(), metrics.reserve.get()), (1, 0));
    assert_eq!(drain(&*queue, "a", at(1_000)).await, taken);
    assert_eq!(metrics.failed_settlements.get(), 0);
    // What was delivered makes room inside the file.
    until(|| metrics.trimmed.get() > 0).await;
    assert_eq!(
        publish(&*queue, event("inside", 500, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
    filler.give_back();
    file.reserved().await;
    assert_eq!(
        publish(&*queue, event("after", 600, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
    assert_eq!(drain(&*queue, "a", at(1_000)).await, ["inside", "after"]);
    assert_eq!(queue.state(), healthy());
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_refuses_events_and_recovers_by_delivering() {
    let file = QueueFile::with(|settings| {
        settings.max_bytes = 1 << 20;
        settings.retention_bytes = 0;
        settings.retention_interval = Duration::from_millis(10);
    });
    let queue = file.open().await;
    let (taken, refused) = publish_until_refused(&*queue, "e", 2_000).await;
    assert_eq!(refused, QueueError::FileFull);
    assert!(taken.len() > 200, "{} taken", taken.len());
    let why = queue.state().unavailable.unwrap();
    assert!(why.contains("--queue-max-bytes"), "{why}");
    assert!(file.metrics.refused_disk.get() >= 1, "the refusal is counted");
    assert!(length(file.path()) <= 1 << 20, "{} bytes", length(file.path()));
    assert_eq!(drain(&*queue, "a", at(100_000)).await, taken);
    until(|| file.metrics.trimmed.get() >= taken.len() as u64).await;
    assert_eq!(
        publish(&*queue, event("new", 0, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
    assert_eq!(queue.state().unavailable, None);
    assert_eq!(
        publish(&*queue, event("e1", 1, &["a"])).await,
        Ok(Enqueued::Duplicate)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn results_wait_for_room_when_others_take_the_reserve_too() {
    let volume = small_volume!("40m");
    let file = volume.file_with(|settings| {
        settings.reserve_bytes = 0;
        settings.settle_patience = Duration::from_millis(1);
    });
    let metrics = &file.metrics;
    let queue = file.open().await;
    fill(&*queue, 200, 2_000).await;
    let first = take(&*queue, 1_000, 10).await;
    let filler = volume.fill_up();
    let settling = Arc::clone(&queue);
    let settled = tokio::spawn(async move { settle_all(&*settling, first, Completion::Finished).await });
    // The log cannot be moved into the file, which would grow, and cannot grow either.
    until(|| metrics.unsettled.get() == 10).await;
    until(|| queue.state().unavailable.is_some()).await;
    let again = queue.lease(&lane("a"), at(1_000), 10).await.unwrap();
    assert!(again.leases.is_empty(), "nothing is leased while results wait");
    assert!(again.next_due.is_some(), "and it is asked for again");
    let refused = publish(&*queue, event("no", 0, &["a"])).await;
    assert_eq!(refused, Err(QueueError::DiskFull));
    assert_eq!(metrics.failed_settlements.get(), 0);
    filler.give_back();
    settled.await.unwrap().unwrap();
    until(|| metrics.unsettled.get() == 0).await;
    assert_eq!(drain(&*queue, "a", at(1_000)).await, names(200)[10..]);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_opens_and_delivers_on_a_full_volume() {
    let volume = small_volume!("40m");
    let file = volume.file();
    let queue = file.open().await;
    file.reserved().await;
    fill(&*queue, 500, 1_000).await;
    queue.close().await;
    drop(queue);
    let filler = volume.fill_up();
    let queue = file.reopen().await;
    assert_eq!(drain(&*queue, "a", at(1_000)).await, names(500));
    filler.give_back();
    file.reserved().await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_smaller_than_retention_never_refuses_what_is_delivered() {
    let volume = small_volume!("80m");
    let file = volume.file();
    let queue = file.open().await;
    file.reserved().await;
    let mut seen = HashMap::new();
    for round in 0..120 {
        publish_round(&*queue, round, 100).await;
        for id in drain(&*queue, "a", at(10_000)).await {
            *seen.entry(id).or_insert(0) += 1;
        }
    }
    assert_eq!((seen.len(), seen.values().max()), (12_000, Some(&1)));
    assert!(file.metrics.trimmed.get() > 0, "delivered events made room");
    let log = length(file.log());
    assert!(log < 20 << 20, "the log has {log} bytes");
    file.reserved().await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_removes_delivered_events_before_it_refuses() {
    let file = QueueFile::with(|settings| {
        settings.max_bytes = 2 << 20;
        // Nobody but the writer makes room.
        settings.retention_interval = Duration::from_secs(3600);
    });
    let queue = file.open().await;
    for round in 0..20 {
        publish_round(&*queue, round, 40).await;
        assert_eq!(drain(&*queue, "a", at(10_000)).await.len(), 40);
    }
    let trimmed = file.metrics.trimmed.get();
    assert!(trimmed > 300, "{trimmed} trimmed");
    assert_eq!(file.metrics.failed_groups.get(), 0);
    let (_, refused) = publish_until_refused(&*queue, "x", 10_000).await;
    assert_eq!(refused, QueueError::FileFull);
    assert!(refused.to_string().contains("--queue-max-bytes"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_lane_takes_up_its_retries_on_a_full_volume() {
    const HOUR: i64 = 3_600_000;
    let volume = small_volume!("40m");
    let file = volume.file();
    let queue = file.open().await;
    fill(&*queue, 200, 500).await;
    let failed = take(&*queue, 1_000, 200).await;
    put_off(&*queue, failed, HOUR).await;
    file.reserved().await;
    let _filler = volume.fill_up();
    let rewound = queue.rewind(&lane("a"), Reach::DueBy(at(HOUR))).await;
    assert_eq!(rewound, Ok(200));
    assert_eq!(file.metrics.reserve_given_up.get(), 1);
    assert_eq!(drain(&*queue, "a", at(1_000)).await, names(200));
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_not_tried_where_the_volume_says_that_it_has_no_room() {
    let volume = small_volume!("20m");
    let file = volume.file();
    // What an attempt writes goes where there is room, and can be seen.
    let seen = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(seen.path(), file.beside(".reserve.new")).unwrap();
    let queue = file.open().await;
    // The keeper looks after the reserve before it measures the file.
    until(|| file.metrics.bytes.get() > 0).await;
    assert_eq!(length(seen.path()), 0, "nothing was written");
    assert_eq!(file.metrics.reserve.get(), 0);
    publish(&*queue, event("x", 0, &["a"])).await.unwrap();
    queue.close().await;
}

/// Leases one delivery, and says that it was made, with a health of so many bytes, about.
fn finish_one(queue: &Arc<impl Queue + 'static>, bytes: usize) -> JoinHandle<Result<(), QueueError>> {
    let queue = Arc::clone(queue);
    let health = Health {
        handled_enable: Some("x".repeat(bytes)),
        ..Health::default()
    };
    tokio::spawn(async move {
        let leases = take(&*queue, 0, 1).await;
        let settlements = leases.into_iter().map(|lease| Settlement {
            lease,
            completion: Completion::Finished,
            health: Some(Box::new(health.clone())),
            note: None,
        });
        queue.settle(settlements.collect()).await
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_larger_than_the_cache_is_held_up_by_the_volume_not_by_the_file() {
    let volume = small_volume!("120m");
    let file = volume.file();
    let queue = file.open().await;
    publish(&*queue, event("x", 0, &["a"])).await.unwrap();
    file.reserved().await;
    let filler = volume.fill_up();
    let settled = finish_one(&queue, 20 << 20);
    until(|| file.metrics.reserve_given_up.get() == 1).await;
    until(|| file.metrics.unsettled.get() == 1).await;
    let refused = publish(&*queue, event("no", 0, &["a"])).await;
    assert_eq!(refused, Err(QueueError::DiskFull));
    filler.give_back();
    until(|| settled.is_finished()).await;
    assert_eq!(settled.await.unwrap(), Ok(()));
    assert_eq!(pending(&*queue), 0);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_wait_for_room_in_the_file_do_not_blame_the_volume() {
    let file = QueueFile::with(|settings| settings.max_bytes = 2 << 20);
    let queue = file.open().await;
    publish(&*queue, event("x", 0, &["a"])).await.unwrap();
    // More than the file and what results may use beyond.
    let settled = finish_one(&queue, 4 << 20);
    until(|| file.metrics.unsettled.get() == 1).await;
    let refused = publish(&*queue, event("no", 0, &["a"])).await;
    assert_eq!(refused, Err(QueueError::FileFull));
    let why = queue.state().unavailable.unwrap();
    assert!(why.contains("--queue-max-bytes"), "{why}");
    queue.close().await;
    assert_eq!(settled.await.unwrap(), Err(QueueError::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_stored_on_a_full_volume() {
    let volume = small_volume!("40m");
    let file = volume.file();
    let queue = file.open().await;
    fill(&*queue, 50, 20).await;
    file.reserved().await;
    let _filler = volume.fill_up();
    let health = Health {
        delivered: 7,
        ..Health::default()
    };
    assert_eq!(queue.save_health(vec![(lane("a"), health)]).await, Ok(()));
    assert_eq!(file.metrics.reserve_given_up.get(), 1);
    assert_eq!(queue.load_health().await.unwrap()[0].1.delivered, 7);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_the_reserve_does_not_let_the_file_grow_into_its_room() {
    let volume = small_volume!("48m");
    let file = volume.file();
    let queue = file.open().await;
    file.reserved().await;
    let (mut taken, refused) = publish_until_refused(&*queue, "x", 20_000).await;
    assert_eq!(refused, QueueError::DiskFull);
    queue.close().await;
    let queue = file.open().await;
    let (more, refused) = publish_until_refused(&*queue, "y", 20_000).await;
    assert_eq!(refused, QueueError::DiskFull);
    taken.extend(more);
    assert_eq!(drain(&*queue, "a", at(1_000)).await, taken);
    assert_eq!(file.metrics.unsettled.get(), 0);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_that_somebody_removed_is_made_anew() {
    let file = QueueFile::with(|settings| {
        settings.reserve_bytes = 1 << 20;
        settings.reserve_pause = Duration::from_millis(50);
        settings.retention_interval = Duration::from_millis(20);
    });
    let queue = file.open().await;
    assert_eq!(
        file.metrics.reserve.get(),
        1 << 20,
        "it is there once the queue is open"
    );
    std::fs::remove_file(file.beside(".reserve")).unwrap();
    until(|| file.metrics.reserve_given_up.get() == 1).await;
    file.reserved().await;
    queue.close().await;
}
