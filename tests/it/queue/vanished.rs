//! A file that somebody removes, replaces or cuts, while it is in use or not.

use std::fs::OpenOptions;
use std::time::Duration;

use postrider::engine::queue::Queue;

use super::damage::drain_over_repairs;
use super::file::QueueFile;
use super::{at, drain, event, fill, names, publish};
use crate::support::until;

/// A file that is looked at often.
fn watched() -> QueueFile {
    QueueFile::with(|settings| settings.retention_interval = Duration::from_millis(10))
}

/// Waits until the keeper has looked at the open file at least once more.
async fn looked_at(file: &QueueFile) {
    file.metrics.bytes.set(0);
    until(|| file.metrics.bytes.get() > 0).await;
    file.metrics.bytes.set(0);
    until(|| file.metrics.bytes.get() > 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_removed_while_in_use_is_written_anew() {
    for parts in [
        &["", "-wal", "-shm", ".lock"][..],
        &["-wal"],
        &[""],
        &["", "-wal"],
    ] {
        let file = watched();
        let queue = file.open().await;
        fill(&*queue, 200, 200).await;
        looked_at(&file).await;
        for part in parts {
            std::fs::remove_file(file.beside(part)).unwrap();
        }
        until(|| queue.state().repaired.is_some()).await;
        until(|| queue.state().unavailable.is_none()).await;
        let repaired = queue.state().repaired.unwrap();
        assert!(repaired.contains("written anew"), "{parts:?}: {repaired}");
        publish(&*queue, event("event-00200", 200, &["a"])).await.unwrap();
        let killed = file.killed();
        let again = killed.open().await;
        assert_eq!(drain(&*again, "a", at(1_000)).await, names(201), "{parts:?}");
        again.close().await;
        queue.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_another_takes_the_place_of_is_kept_aside() {
    let (other, others) = QueueFile::filled(10, 200).await;
    others.close().await;
    let file = watched();
    let queue = file.open().await;
    fill(&*queue, 200, 200).await;
    looked_at(&file).await;
    for side in ["-wal", "-shm"] {
        std::fs::remove_file(file.beside(side)).unwrap();
    }
    let new = file.beside(".new");
    std::fs::copy(other.path(), &new).unwrap();
    std::fs::rename(&new, file.path()).unwrap();
    until(|| queue.state().repaired.is_some()).await;
    until(|| queue.state().unavailable.is_none()).await;
    let repaired = queue.state().repaired.unwrap();
    assert!(repaired.contains(".displaced-"), "{repaired}");
    let files = std::fs::read_dir(file.path().parent().unwrap())
        .unwrap()
        .flatten();
    let aside = files
        .map(|file| file.path())
        .find(|path| path.display().to_string().contains(".displaced-"))
        .expect("what was displaced is kept");
    let kept = QueueFile::new();
    std::fs::copy(aside, kept.path()).unwrap();
    assert_eq!(drain(&*kept.open().await, "a", at(1_000)).await, names(200));
    assert_eq!(
        drain(&*queue, "a", at(1_000)).await,
        names(10),
        "the other file is used"
    );
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_cut_while_in_use_is_told() {
    let file = watched();
    let queue = file.open().await;
    fill(&*queue, 200, 200).await;
    OpenOptions::new()
        .write(true)
        .open(file.log())
        .unwrap()
        .set_len(0)
        .unwrap();
    // The queue notices with what it writes next.
    publish(&*queue, event("new", 300, &["a"])).await.ok();
    let seen = drain_over_repairs(&*queue, 0).await;
    let told = queue.state().repaired;
    assert!(
        seen.len() >= 200 || told.is_some(),
        "{} are left and nothing is told",
        seen.len()
    );
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_its_file_is_made_into_one() {
    let (file, _queue) = QueueFile::filled(300, 200).await;
    for keep in [None, Some(0), Some(1_000)] {
        let killed = file.killed();
        match keep {
            None => std::fs::remove_file(killed.path()).unwrap(),
            Some(length) => OpenOptions::new()
                .write(true)
                .open(killed.path())
                .unwrap()
                .set_len(length)
                .unwrap(),
        }
        let again = killed.open().await;
        let repaired = again.state().repaired.unwrap_or_default();
        assert!(
            repaired.contains("made again from the log"),
            "{keep:?}: {repaired}"
        );
        assert_eq!(drain(&*again, "a", at(1_000)).await, names(300), "{keep:?}");
        again.close().await;
    }
}
