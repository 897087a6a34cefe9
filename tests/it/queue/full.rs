//! A volume or a file without room. Real volumes, really full.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use postrider::domain::health::Health;
use postrider::engine::queue::metrics::QueueMetrics;
use postrider::engine::queue::sqlite::Settings;
use postrider::engine::queue::{
    Completion, Enqueued, HealthStore, Queue, QueueError, QueueState, Reach, Settlement,
};

use super::faults::{beside, until};
use super::{at, drain, event, lane, open, open_with, reopen, settings, settle_all, sized};

/// A small file system of its own.
pub(super) struct SmallDisk(pub(super) tempfile::TempDir);

impl SmallDisk {
    /// Mounts one. Who may not mount runs the whole test again in a name space of its own, where everybody may, and
    /// gets `None` once it passed there; where that is forbidden, too, the test fails.
    pub(super) fn new(size: &str, test: &str) -> Option<Self> {
        const INSIDE: &str = "POSTRIDER_TEST_MAY_MOUNT";
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory.path());
        let mounted = mount.output().expect("mount is there; see tools/setup.sh");
        if mounted.status.success() {
            return Some(Self(directory));
        }
        let why = String::from_utf8_lossy(&mounted.stderr);
        assert!(std::env::var_os(INSIDE).is_none(), "mount fails: {why}");
        let inside = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(INSIDE, "1")
            .output()
            .expect("unshare is there; see tools/setup.sh");
        let said = String::from_utf8_lossy(&inside.stdout);
        assert!(
            inside.status.success() && said.contains("1 passed"),
            "this test needs a machine where it may mount a file system, as root or in a user name space\n\
             mount: {why}\nin a name space: {said}{}",
            String::from_utf8_lossy(&inside.stderr)
        );
        None
    }

    pub(super) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(
            Command::new("mount")
                .args(["-o", &options])
                .arg(self.0.path())
                .status()
                .unwrap()
                .success()
        );
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

/// Somebody else's file, which takes whatever room the volume has.
pub(super) struct Filler {
    path: PathBuf,
    file: File,
    length: u64,
}

impl Filler {
    pub(super) fn on(disk: &SmallDisk) -> Self {
        let path = disk.0.path().join("other");
        let file = File::create(&path).unwrap();
        let mut filler = Self {
            path,
            file,
            length: 0,
        };
        filler.take_all();
        filler
    }

    fn take_all(&mut self) {
        while self.file.write_all_at(&[7; 4096], self.length).is_ok() {
            self.length += 4096;
        }
    }

    pub(super) fn give_back(self) {
        std::fs::remove_file(&self.path).unwrap();
    }
}

/// A queue's settings on a small volume, with a reserve.
pub(super) fn on(disk: &SmallDisk) -> Settings {
    Settings {
        // More than these tests write into the log, by which the file may have to grow.
        reserve_bytes: 12 << 20,
        reserve_pause: Duration::from_millis(50),
        retention_interval: Duration::from_millis(10),
        ..settings(disk.0.path())
    }
}

pub(super) async fn reserved(settings: &Settings) {
    let path = beside(&settings.path, ".reserve");
    until(|| std::fs::metadata(&path).is_ok_and(|file| file.len() == settings.reserve_bytes)).await;
}

/// Publishes until it is refused; returns the ids taken, and the refusal.
async fn publish_until_refused(queue: &dyn Queue, name: &str, size: usize) -> (Vec<String>, QueueError) {
    let mut taken = Vec::new();
    loop {
        let id = format!("{name}{}", taken.len());
        match queue.enqueue(vec![sized("p", &id, 500, &["a"], size)]).await {
            Ok(_) => taken.push(id),
            Err(error) => return (taken, error),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_volume_refuses_events_delivers_and_takes_events_again() {
    let test = "queue::full::a_full_volume_refuses_events_delivers_and_takes_events_again";
    let Some(disk) = SmallDisk::new("40m", test) else {
        return;
    };
    let settings = on(&disk);
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    reserved(&settings).await;
    assert_eq!(metrics.reserve.get(), 12 << 20);
    let filler = Filler::on(&disk);
    let (taken, refused) = publish_until_refused(&queue, "x", 3_000).await;
    assert_eq!(refused, QueueError::DiskFull);
    assert_eq!(queue.state().unavailable.unwrap(), "the queue's disk is full");
    assert!(metrics.refused_disk.get() > 0);
    assert_eq!((metrics.reserve_given_up.get(), metrics.reserve.get()), (1, 0));
    assert_eq!(drain(&queue, "a", at(1_000)).await, taken);
    assert_eq!(metrics.failed_settlements.get(), 0);
    // What was delivered makes room inside the file.
    until(|| metrics.trimmed.get() > 0).await;
    assert_eq!(
        queue.enqueue(vec![event("inside", 500, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    filler.give_back();
    reserved(&settings).await;
    assert_eq!(
        queue.enqueue(vec![event("after", 600, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    assert_eq!(drain(&queue, "a", at(1_000)).await, ["inside", "after"]);
    let healthy = QueueState {
        known: true,
        ..QueueState::default()
    };
    assert_eq!(queue.state(), healthy);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_wait_for_room_when_others_take_the_reserve_too() {
    let test = "queue::full::results_wait_for_room_when_others_take_the_reserve_too";
    let Some(disk) = SmallDisk::new("40m", test) else {
        return;
    };
    let settings = Settings {
        reserve_bytes: 0,
        settle_patience: Duration::from_millis(1),
        ..on(&disk)
    };
    let metrics = QueueMetrics::default();
    let queue = Arc::new(open_with(&settings, &metrics).await);
    let batch = (0..200).map(|number| sized("p", &format!("e{number:03}"), number, &["a"], 2_000));
    queue.enqueue(batch.collect()).await.unwrap();
    let first = queue.lease(&lane("a"), at(1_000), 10).await.unwrap();
    let filler = Filler::on(&disk);
    let settling = Arc::clone(&queue);
    let settled =
        tokio::spawn(async move { settle_all(&*settling, first.leases, Completion::Finished).await });
    // The log cannot be moved into the file, which would grow, and cannot grow either.
    until(|| metrics.unsettled.get() == 10).await;
    until(|| queue.state().unavailable.is_some()).await;
    let again = queue.lease(&lane("a"), at(1_000), 10).await.unwrap();
    assert!(again.leases.is_empty(), "nothing is leased while results wait");
    assert!(again.next_due.is_some(), "and it is asked for again");
    let refused = queue.enqueue(vec![event("no", 0, &["a"])]).await;
    assert_eq!(refused, Err(QueueError::DiskFull));
    assert_eq!(metrics.failed_settlements.get(), 0);
    filler.give_back();
    settled.await.unwrap().unwrap();
    until(|| metrics.unsettled.get() == 0).await;
    let expected: Vec<String> = (10..200).map(|number| format!("e{number:03}")).collect();
    assert_eq!(drain(&*queue, "a", at(1_000)).await, expected);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_opens_and_delivers_on_a_full_volume() {
    let test = "queue::full::a_queue_opens_and_delivers_on_a_full_volume";
    let Some(disk) = SmallDisk::new("40m", test) else {
        return;
    };
    let settings = on(&disk);
    let queue = open(&settings).await;
    reserved(&settings).await;
    let batch = (0..500).map(|number| sized("p", &format!("e{number}"), number, &["a"], 1_000));
    queue.enqueue(batch.collect()).await.unwrap();
    queue.close().await;
    drop(queue);
    let filler = Filler::on(&disk);
    let queue = reopen(&settings).await;
    let expected: Vec<String> = (0..500).map(|number| format!("e{number}")).collect();
    assert_eq!(drain(&queue, "a", at(1_000)).await, expected);
    filler.give_back();
    reserved(&settings).await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_smaller_than_retention_never_refuses_what_is_delivered() {
    let test = "queue::full::a_volume_smaller_than_retention_never_refuses_what_is_delivered";
    let Some(disk) = SmallDisk::new("80m", test) else {
        return;
    };
    let settings = on(&disk);
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    reserved(&settings).await;
    let mut seen = HashMap::new();
    for round in 0..120 {
        let batch = (0..100).map(|n| sized("p", &format!("r{round}-{n}"), n, &["a"], 10_000));
        queue.enqueue(batch.collect()).await.unwrap();
        for id in drain(&queue, "a", at(10_000)).await {
            *seen.entry(id).or_insert(0) += 1;
        }
    }
    assert_eq!((seen.len(), seen.values().max()), (12_000, Some(&1)));
    assert!(metrics.trimmed.get() > 0);
    let log = std::fs::metadata(beside(&settings.path, "-wal")).unwrap().len();
    assert!(log < 20 << 20, "the log has {log} bytes");
    reserved(&settings).await;
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_removes_delivered_events_before_it_refuses() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_bytes: 2 << 20,
        // Nobody but the writer makes room.
        retention_interval: Duration::from_secs(3600),
        ..settings(directory.path())
    };
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    for round in 0..20 {
        let batch = (0..40).map(|n| sized("p", &format!("r{round}-{n}"), n, &["a"], 10_000));
        queue.enqueue(batch.collect()).await.unwrap();
        assert_eq!(drain(&queue, "a", at(10_000)).await.len(), 40);
    }
    assert!(metrics.trimmed.get() > 300);
    assert_eq!(metrics.failed_groups.get(), 0);
    let (_, refused) = publish_until_refused(&queue, "x", 10_000).await;
    assert_eq!(refused, QueueError::FileFull);
    assert!(refused.to_string().contains("--queue-max-bytes"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_lane_takes_up_its_retries_on_a_full_volume() {
    let test = "queue::full::a_resumed_lane_takes_up_its_retries_on_a_full_volume";
    let Some(disk) = SmallDisk::new("40m", test) else {
        return;
    };
    let settings = on(&disk);
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    let batch = (0..200).map(|number| sized("p", &format!("e{number:03}"), number, &["a"], 500));
    queue.enqueue(batch.collect()).await.unwrap();
    let leased = queue.lease(&lane("a"), at(1_000), 200).await.unwrap();
    settle_all(&queue, leased.leases, Completion::RetryAt(at(3_600_000)))
        .await
        .unwrap();
    reserved(&settings).await;
    let _filler = Filler::on(&disk);
    assert_eq!(
        queue.rewind(&lane("a"), Reach::DueBy(at(3_600_000))).await,
        Ok(200)
    );
    assert_eq!(metrics.reserve_given_up.get(), 1);
    let expected: Vec<String> = (0..200).map(|number| format!("e{number:03}")).collect();
    assert_eq!(drain(&queue, "a", at(1_000)).await, expected);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reserve_is_not_tried_where_the_volume_says_that_it_has_no_room() {
    let test = "queue::full::the_reserve_is_not_tried_where_the_volume_says_that_it_has_no_room";
    let Some(disk) = SmallDisk::new("20m", test) else {
        return;
    };
    let settings = on(&disk);
    // What an attempt writes goes where there is room, and can be seen.
    let seen = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(seen.path(), beside(&settings.path, ".reserve.new")).unwrap();
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    // The keeper looks after the reserve before it measures the file.
    until(|| metrics.bytes.get() > 0).await;
    assert_eq!(std::fs::metadata(seen.path()).unwrap().len(), 0);
    assert_eq!(metrics.reserve.get(), 0);
    queue.enqueue(vec![event("x", 0, &["a"])]).await.unwrap();
    queue.close().await;
}

/// A health of so many bytes, about.
fn large_health(bytes: usize) -> Health {
    Health {
        handled_enable: Some("x".repeat(bytes)),
        ..Health::default()
    }
}

/// Leases one delivery, and says that it was made.
async fn finish_one(queue: &dyn Queue, health: Health) -> Result<(), QueueError> {
    let leased = queue.lease(&lane("a"), at(0), 1).await.unwrap();
    let settlements = leased.leases.into_iter().map(|lease| Settlement {
        lease,
        completion: Completion::Finished,
        health: Some(Box::new(health.clone())),
        note: None,
    });
    queue.settle(settlements.collect()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_larger_than_the_cache_is_held_up_by_the_volume_not_by_the_file() {
    let test = "queue::full::a_result_larger_than_the_cache_is_held_up_by_the_volume_not_by_the_file";
    let Some(disk) = SmallDisk::new("120m", test) else {
        return;
    };
    let settings = on(&disk);
    let metrics = QueueMetrics::default();
    let queue = Arc::new(open_with(&settings, &metrics).await);
    queue.enqueue(vec![event("x", 0, &["a"])]).await.unwrap();
    reserved(&settings).await;
    let filler = Filler::on(&disk);
    let settling = Arc::clone(&queue);
    let settled = tokio::spawn(async move { finish_one(&*settling, large_health(20 << 20)).await });
    until(|| metrics.reserve_given_up.get() == 1).await;
    until(|| metrics.unsettled.get() == 1).await;
    let refused = queue.enqueue(vec![event("no", 0, &["a"])]).await;
    assert_eq!(refused, Err(QueueError::DiskFull));
    filler.give_back();
    until(|| settled.is_finished()).await;
    assert_eq!(settled.await.unwrap(), Ok(()));
    assert_eq!(queue.depth(&lane("a")).pending, 0);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_wait_for_room_in_the_file_do_not_blame_the_volume() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_bytes: 2 << 20,
        ..settings(directory.path())
    };
    let metrics = QueueMetrics::default();
    let queue = Arc::new(open_with(&settings, &metrics).await);
    queue.enqueue(vec![event("x", 0, &["a"])]).await.unwrap();
    // More than the file and what results may use beyond.
    let settling = Arc::clone(&queue);
    let settled = tokio::spawn(async move { finish_one(&*settling, large_health(4 << 20)).await });
    until(|| metrics.unsettled.get() == 1).await;
    let refused = queue.enqueue(vec![event("no", 0, &["a"])]).await;
    assert_eq!(refused, Err(QueueError::FileFull));
    assert!(queue.state().unavailable.unwrap().contains("--queue-max-bytes"));
    queue.close().await;
    assert_eq!(settled.await.unwrap(), Err(QueueError::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_stored_on_a_full_volume() {
    let test = "queue::full::health_is_stored_on_a_full_volume";
    let Some(disk) = SmallDisk::new("40m", test) else {
        return;
    };
    let settings = on(&disk);
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    let batch = (0..50).map(|number| event(&format!("e{number}"), number, &["a"]));
    queue.enqueue(batch.collect()).await.unwrap();
    reserved(&settings).await;
    let _filler = Filler::on(&disk);
    let health = Health {
        delivered: 7,
        ..Health::default()
    };
    assert_eq!(queue.save_health(vec![(lane("a"), health)]).await, Ok(()));
    assert_eq!(metrics.reserve_given_up.get(), 1);
    assert_eq!(queue.load_health().await.unwrap()[0].1.delivered, 7);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_without_the_reserve_does_not_let_the_file_grow_into_its_room() {
    let test = "queue::full::a_restart_without_the_reserve_does_not_let_the_file_grow_into_its_room";
    let Some(disk) = SmallDisk::new("48m", test) else {
        return;
    };
    let settings = on(&disk);
    let queue = open(&settings).await;
    reserved(&settings).await;
    let (mut taken, refused) = publish_until_refused(&queue, "x", 20_000).await;
    assert_eq!(refused, QueueError::DiskFull);
    queue.close().await;
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    let (more, refused) = publish_until_refused(&queue, "y", 20_000).await;
    assert_eq!(refused, QueueError::DiskFull);
    taken.extend(more);
    assert_eq!(drain(&queue, "a", at(1_000)).await, taken);
    assert_eq!(metrics.unsettled.get(), 0);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_that_somebody_removed_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        reserve_bytes: 1 << 20,
        reserve_pause: Duration::from_millis(50),
        retention_interval: Duration::from_millis(20),
        ..Settings::new(folder.path().join("queue.db"))
    };
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    assert_eq!(
        metrics.reserve.get(),
        1 << 20,
        "it is there once the queue is open"
    );
    std::fs::remove_file(beside(&settings.path, ".reserve")).unwrap();
    until(|| metrics.reserve_given_up.get() == 1).await;
    reserved(&settings).await;
    queue.close().await;
}
