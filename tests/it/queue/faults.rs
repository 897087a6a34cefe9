//! What stops a queue from working for a while: others, a volume or a disk that fails, and bounds that are reached.

use std::sync::Arc;
use std::time::Duration;

use postrider::engine::queue::{Enqueued, Queue, QueueError};

use super::file::{QueueFile, length};
use super::{at, drain, event, fill, finish, lane, names, publish, sized, take};
use crate::support::until;

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_stays_out_until_the_first_is_gone() {
    let file = QueueFile::new();
    let (first, second) = (file.open().await, file.open().await);
    let why = second.state().unavailable.unwrap();
    assert!(why.contains("another process"), "{why}");
    publish(&*first, event("1", 0, &["a"])).await.unwrap();
    first.close().await;
    until(|| second.state().unavailable.is_none()).await;
    assert_eq!(drain(&*second, "a", at(0)).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_volume_makes_the_queue_unavailable_until_it_heals() {
    let volume = small_volume!("20m");
    let file = volume.file_with(|settings| settings.reserve_bytes = 0);
    let queue = file.open().await;
    fill(&*queue, 20, 20).await;
    queue.close().await;
    drop(queue);
    volume.remount("ro");
    let queue = file.open().await;
    let refused = publish(&*queue, event("x", 0, &["a"])).await.unwrap_err();
    assert!(
        matches!(&refused, QueueError::Unavailable(why) if why.contains("ead-only")),
        "{refused}"
    );
    assert!(
        queue.lease(&lane("a"), at(0), 1).await.is_err(),
        "nothing is leased"
    );
    assert!(queue.state().unavailable.is_some(), "readiness tells");
    volume.remount("rw");
    until(|| queue.state().unavailable.is_none()).await;
    assert_eq!(
        publish(&*queue, event("x", 500, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
    assert_eq!(drain(&*queue, "a", at(1_000)).await.len(), 21);
    assert_eq!(file.moved_aside(), [""; 0], "nothing was damaged");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_bounds_the_file_and_keeps_what_waits() {
    let file = QueueFile::with(|settings| {
        settings.retention_bytes = 2 << 20;
        settings.retention_interval = Duration::from_millis(20);
        settings.max_ids = 3_000;
        settings.window_deliveries = 64;
    });
    let queue = file.open().await;
    let waiting = (0..200).map(|n| sized("p", &format!("w{n}"), n, &["slow"], 1_000));
    queue.enqueue(waiting.collect()).await.unwrap();
    for round in 0..100 {
        let batch = (0..100).map(|n| sized("p", &format!("r{round}-{n}"), n, &["a"], 1_000));
        queue.enqueue(batch.collect()).await.unwrap();
        drain(&*queue, "a", at(10_000)).await;
    }
    let metrics = &file.metrics;
    until(|| metrics.bytes.get() > 0 && metrics.bytes.get() < 7 << 20).await;
    assert!(metrics.trimmed.get() > 5_000, "{} trimmed", metrics.trimmed.get());
    assert!(metrics.ids_evicted.get() > 0, "the oldest ids are forgotten");
    assert_eq!(
        publish(&*queue, event("r99-99", 99, &["a"])).await,
        Ok(Enqueued::Duplicate)
    );
    assert_eq!(
        publish(&*queue, event("r1-1", 1, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
    let expected: Vec<String> = (0..200).map(|number| format!("w{number}")).collect();
    assert_eq!(drain(&*queue, "slow", at(10_000)).await, expected);
}

/// Runs the whole test again in a process that is not killed for writing more than it may, and answers whether this is
/// that process.
fn may_hit_its_limit(test: &str) -> bool {
    const INSIDE: &str = "POSTRIDER_TEST_MAY_HIT_ITS_LIMIT";
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let inside = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", test])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&inside.stdout);
    assert!(
        inside.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&inside.stderr)
    );
    false
}

/// The size from which on writing to any file of the process fails, with another error than that of a full volume.
fn writes_fail_from(bytes: Option<u64>) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = Rlimit {
        current: bytes,
        maximum: None,
    };
    setrlimit(Resource::Fsize, limit).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_to_write_loses_nothing_and_heals() {
    if !may_hit_its_limit(this_test!()) {
        return;
    }
    let file = QueueFile::with(|settings| settings.settle_patience = Duration::from_secs(3600));
    let queue = file.open().await;
    fill(&*queue, 200, 2_000).await;
    let leases = take(&*queue, 1_000, 20).await;
    writes_fail_from(Some(length(file.log())));
    let refused = publish(&*queue, event("no", 0, &["a"])).await.unwrap_err();
    assert!(
        matches!(&refused, QueueError::Unavailable(why) if why.contains("the queue's disk fails")),
        "{refused}"
    );
    let settling = Arc::clone(&queue);
    let settled = tokio::spawn(async move { finish(&*settling, leases).await });
    writes_fail_from(None);
    settled.await.unwrap();
    until(|| queue.state().unavailable.is_none()).await;
    assert_eq!(drain(&*queue, "a", at(1_000)).await, names(200)[20..]);
    assert_eq!(
        publish(&*queue, event("no", 500, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
    assert!(file.metrics.failed_groups.get() > 0, "the failure is counted");
    assert_eq!(file.metrics.failed_settlements.get(), 0);
    assert_eq!(file.moved_aside(), [""; 0], "nothing was damaged");
    queue.close().await;
}
