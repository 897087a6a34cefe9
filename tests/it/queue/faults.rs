//! A file of SQLite, and what can go wrong with it. Real files, really damaged.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::domain::health::Health;
use postrider::engine::queue::metrics::QueueMetrics;
use postrider::engine::queue::sqlite::Settings;
use postrider::engine::queue::{Completion, Enqueued, HealthStore, Queue, QueueError, QueueState, Stored};

use super::full::SmallDisk;
use super::{at, drain, event, ids, lane, open, open_with, reopen, settings, settle_all, sized};

async fn fill(queue: &dyn Queue, count: i64, size: usize) {
    for first in (0..count).step_by(50) {
        let batch =
            (first..count.min(first + 50)).map(|n| sized("p", &format!("event-{n:05}"), n, &["a"], size));
        queue.enqueue(batch.collect()).await.unwrap();
    }
}

fn names(count: i64) -> Vec<String> {
    (0..count).map(|number| format!("event-{number:05}")).collect()
}

/// The file as a process that was killed leaves it: a copy of all its parts while it is in use.
fn killed(settings: &Settings) -> (tempfile::TempDir, Settings) {
    let directory = tempfile::tempdir().unwrap();
    let copy = super::settings(directory.path());
    for suffix in ["", "-wal"] {
        std::fs::copy(beside(&settings.path, suffix), beside(&copy.path, suffix)).unwrap();
    }
    let copy = Settings {
        path: copy.path,
        ..settings.clone()
    };
    (directory, copy)
}

pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

fn aside(settings: &Settings) -> Vec<String> {
    let files = std::fs::read_dir(settings.path.parent().unwrap())
        .unwrap()
        .flatten();
    files
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains("damaged"))
        .collect()
}

/// Every place of a text: old copies may be left in the free parts of pages.
fn find(bytes: &[u8], text: &str) -> Vec<usize> {
    let places = bytes
        .windows(text.len())
        .enumerate()
        .filter(|(_, window)| *window == text.as_bytes());
    places.map(|(place, _)| place).collect()
}

fn flip(path: &Path, at: usize) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    byte[0] ^= 0x20;
    file.write_all_at(&byte, at as u64).unwrap();
}

pub(super) async fn until(what: impl Fn() -> bool) {
    let limit = Instant::now() + Duration::from_secs(10);
    while !what() {
        assert!(Instant::now() < limit, "it took too long");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_survives_a_clean_restart() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = open(&settings).await;
    fill(&queue, 200, 20).await;
    let leased = queue.lease(&lane("a"), at(1_000), 50).await.unwrap();
    settle_all(&queue, leased.leases, Completion::RetryAt(at(5_000)))
        .await
        .unwrap();
    queue
        .save_health(vec![(
            lane("b"),
            Health {
                exhausted: 4,
                ..Health::default()
            },
        )])
        .await
        .unwrap();
    queue.close().await;

    let queue = reopen(&settings).await;
    assert_eq!(
        queue.state(),
        QueueState {
            known: true,
            ..QueueState::default()
        }
    );
    assert_eq!(queue.depth(&lane("a")).pending, 200);
    let depth = queue.depth(&lane("a"));
    assert_eq!(
        (depth.oldest, depth.next_due),
        (Some(at(0).as_millisecond()), Some(at(50).as_millisecond()))
    );
    assert_eq!(queue.load_health().await.unwrap()[0].1.exhausted, 4);
    assert_eq!(
        queue
            .enqueue(vec![event("event-00003", 9, &["a"])])
            .await
            .unwrap(),
        [Enqueued::Duplicate]
    );
    assert_eq!(drain(&queue, "a", at(1_000)).await, names(200)[50..]);
    let late = queue.lease(&lane("a"), at(5_000), 100).await.unwrap();
    assert_eq!(ids(&late.leases), names(200)[..50]);
    assert!(late.leases.iter().all(|lease| lease.attempts == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_health_stays_older_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let save = async |revision| {
        let queue = reopen(&settings).await;
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
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = open(&settings).await;
    fill(&queue, 300, 200).await;
    let leased = queue.lease(&lane("a"), at(1_000), 100).await.unwrap();
    let (_keep, copy) = killed(&settings);
    drop(leased);
    let again = open(&copy).await;
    assert_eq!(
        again.state(),
        QueueState {
            known: true,
            ..QueueState::default()
        }
    );
    assert_eq!(drain(&again, "a", at(1_000)).await, names(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_lane_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = Arc::new(open(&settings).await);
    fill(&*queue, 30_000, 1).await;
    let dropping = Arc::clone(&queue);
    let task = tokio::spawn(async move { dropping.drop_lane(&lane("a")).await });
    until(|| queue.depth(&lane("a")).pending == 0).await;
    let (_keep, copy) = killed(&settings);
    task.await.unwrap().unwrap();
    let again = open(&copy).await;
    assert!(again.lanes().is_empty());
    until(|| left(&copy) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_lane_that_is_interrupted_counts_all_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = Arc::new(open(&settings).await);
    fill(&*queue, 30_000, 1).await;
    let dropping = Arc::clone(&queue);
    let task = tokio::spawn(async move { dropping.drop_lane(&lane("a")).await });
    until(|| queue.depth(&lane("a")).pending == 0).await;
    // Somebody holds the file for so long that the queue gives up and opens it again.
    let other = rusqlite::Connection::open(&settings.path).unwrap();
    other.busy_timeout(Duration::from_secs(10)).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    until(|| queue.state().unavailable.is_some() || task.is_finished()).await;
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(task.await.unwrap(), Ok(30_000));
}

fn left(settings: &Settings) -> i64 {
    let connection = rusqlite::Connection::open(&settings.path).unwrap();
    connection
        .query_row("SELECT count(*) FROM deliveries", [], |row| row.get(0))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_refuses_events_and_recovers_by_delivering() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    settings.max_bytes = 1 << 20;
    settings.retention_bytes = 0;
    settings.retention_interval = Duration::from_millis(10);
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    let mut accepted = 0;
    let refused = loop {
        let id = format!("e{accepted}");
        match queue
            .enqueue(vec![sized("p", &id, accepted, &["a"], 2_000)])
            .await
        {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, QueueError::FileFull);
    assert!(accepted > 200, "{accepted}");
    assert!(queue.state().unavailable.unwrap().contains("--queue-max-bytes"));
    assert!(metrics.refused_disk.get() >= 1);
    let file = std::fs::metadata(&settings.path).unwrap().len();
    assert!(file <= 1 << 20, "{file}");
    let expected: Vec<String> = (0..accepted).map(|number| format!("e{number}")).collect();
    assert_eq!(drain(&queue, "a", at(100_000)).await, expected);
    until(|| metrics.trimmed.get() >= u64::try_from(accepted).unwrap()).await;
    assert_eq!(
        queue.enqueue(vec![event("new", 0, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    assert_eq!(queue.state().unavailable, None);
    assert_eq!(
        queue.enqueue(vec![event("e1", 1, &["a"])]).await.unwrap(),
        [Enqueued::Duplicate]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_volume_makes_the_queue_unavailable_until_it_heals() {
    let test = "queue::faults::a_read_only_volume_makes_the_queue_unavailable_until_it_heals";
    let Some(disk) = SmallDisk::new("20m", test) else {
        return;
    };
    let settings = settings(disk.0.path());
    let queue = open(&settings).await;
    fill(&queue, 20, 20).await;
    queue.close().await;
    drop(queue);
    disk.remount("ro");
    let queue = open(&settings).await;
    let refused = queue.enqueue(vec![event("x", 0, &["a"])]).await.unwrap_err();
    assert!(
        matches!(&refused, QueueError::Unavailable(why) if why.contains("ead-only")),
        "{refused}"
    );
    assert!(queue.lease(&lane("a"), at(0), 1).await.is_err());
    assert!(queue.state().unavailable.is_some());
    disk.remount("rw");
    until(|| queue.state().unavailable.is_none()).await;
    assert_eq!(
        queue.enqueue(vec![event("x", 500, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    assert_eq!(drain(&queue, "a", at(1_000)).await.len(), 21);
    assert!(aside(&settings).is_empty());
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_payload_byte_is_handed_out_as_corrupt() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = open(&settings).await;
    fill(&queue, 50, 200).await;
    queue.close().await;
    let bytes = std::fs::read(&settings.path).unwrap();
    for place in find(&bytes, "event-00007 xxx") {
        flip(&settings.path, place + 30);
    }
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    let leased = queue.lease(&lane("a"), at(1_000), 100).await.unwrap();
    assert_eq!(leased.leases.len(), 50);
    for (number, lease) in leased.leases.iter().enumerate() {
        match &lease.stored {
            Stored::Event(event) => assert_eq!(event.id.as_str(), format!("event-{number:05}")),
            Stored::Corrupt { id } => assert_eq!((number, id.as_ref().unwrap().as_str()), (7, "event-00007")),
        }
    }
    assert_eq!(metrics.damaged.get(), 1);
    settle_all(&queue, leased.leases, Completion::Finished)
        .await
        .unwrap();
    assert_eq!(queue.depth(&lane("a")).pending, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_log_loses_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = open(&settings).await;
    fill(&queue, 400, 200).await;
    let log = std::fs::read(beside(&settings.path, "-wal")).unwrap().len();
    let last_frame = log - FRAME;
    let anywhere = (0..40).map(|part| part * (log / 40) + part * 37);
    let headers = (0..LOG_HEADER + FRAME_HEADER).chain(last_frame..last_frame + FRAME_HEADER);
    for at_byte in anywhere.chain(headers).chain([log - 1]) {
        let (_keep, copy) = killed(&settings);
        flip(&beside(&copy.path, "-wal"), at_byte);
        let again = open(&copy).await;
        let state = again.state();
        assert_eq!(state.unavailable, None, "byte {at_byte}");
        let seen = drain(&again, "a", at(10_000)).await;
        // Where in a frame the last byte of a word changed is not always known: it may be in an event, or in the page's
        // number, which costs the page.
        let number = at_byte > LOG_HEADER && (at_byte - LOG_HEADER) % FRAME == 3;
        if number {
            assert!(seen.len() >= 380, "byte {at_byte}, {state:?}");
            continue;
        }
        let corrupt = seen.iter().filter(|id| *id == "corrupt").count();
        assert!(
            corrupt <= usize::from(at_byte % 4 == 3),
            "byte {at_byte}, {state:?}"
        );
        let good = names(400).iter().filter(|id| seen.contains(id)).count();
        assert_eq!(
            (seen.len(), good + corrupt),
            (400, 400),
            "byte {at_byte}, {state:?}"
        );
        again.close().await;
    }
}

/// Bytes of the log's header, of a frame's header and of a frame.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const FRAME: usize = FRAME_HEADER + 4096;

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_sector_of_the_log_costs_only_what_was_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = open(&settings).await;
    fill(&queue, 400, 200).await;
    let log = std::fs::metadata(beside(&settings.path, "-wal")).unwrap().len();
    for at_byte in (0..20).map(|part| (part * (log / 24)).next_multiple_of(512)) {
        let (_keep, copy) = killed(&settings);
        let file = OpenOptions::new().write(true).open(beside(&copy.path, "-wal"));
        file.unwrap().write_all_at(&[0; 512], at_byte).unwrap();
        let again = open(&copy).await;
        let mut seen = drain(&again, "a", at(10_000)).await;
        seen.retain(|id| id != "corrupt");
        seen.sort();
        seen.dedup();
        let state = again.state();
        assert_eq!(state.unavailable, None, "byte {at_byte}");
        assert!(
            seen.len() >= 395,
            "byte {at_byte}: {} of 400, {state:?}",
            seen.len()
        );
        again.close().await;
    }
}

/// Makes SQLite write its log from the beginning again, over the frames that are there.
fn start_the_log_over(settings: &Settings) {
    let connection = rusqlite::Connection::open(&settings.path).unwrap();
    let restart = "PRAGMA wal_checkpoint(RESTART)";
    let busy: i64 = connection.query_row(restart, [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0);
}

/// The frames of this round of the log.
fn frames_of_the_round(log: &[u8]) -> usize {
    let frames = log[LOG_HEADER..].chunks_exact(FRAME);
    frames.take_while(|frame| frame[8..16] == log[16..24]).count()
}

/// What a kill or a power failure may leave of the frames that a commit added to the log `before`.
fn torn_commits(before: &[u8], after: &[u8]) -> Vec<Vec<u8>> {
    let place = |frame: usize| LOG_HEADER + frame * FRAME;
    let new = frames_of_the_round(before)..frames_of_the_round(after);
    assert!(new.len() > 2, "{new:?}");
    let mut torn = Vec::new();
    for frame in new.clone() {
        // SQLite writes a frame in two parts: its header, then the page; a kill comes before either, or between them.
        for written in [place(frame), place(frame) + FRAME_HEADER] {
            torn.push([&after[..written], &before[written..]].concat());
        }
        // A power failure may lose any of what was not synced.
        let mut lost = after.to_vec();
        lost[place(frame)..place(frame + 1)].copy_from_slice(&before[place(frame)..place(frame + 1)]);
        torn.push(lost.clone());
        lost[place(frame)..][..FRAME_HEADER].copy_from_slice(&after[place(frame)..][..FRAME_HEADER]);
        torn.push(lost);
    }
    torn
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_was_torn_apart_is_not_let_in() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = open(&settings).await;
    fill(&queue, 300, 200).await;
    start_the_log_over(&settings);
    let leased = queue.lease(&lane("a"), at(1_000), 50).await.unwrap();
    settle_all(&queue, leased.leases, Completion::Finished)
        .await
        .unwrap();
    let log = beside(&settings.path, "-wal");
    let before = std::fs::read(&log).unwrap();
    let (_keep, acknowledged) = killed(&settings);
    let more = (300..310).map(|n| sized("p", &format!("event-{n:05}"), n, &["a"], 2_000));
    queue.enqueue(more.collect()).await.unwrap();
    let after = std::fs::read(&log).unwrap();
    for torn in torn_commits(&before, &after) {
        let (_keep, copy) = killed(&acknowledged);
        std::fs::write(beside(&copy.path, "-wal"), torn).unwrap();
        let again = open(&copy).await;
        assert_eq!(again.state().repaired, None);
        assert_eq!(drain(&again, "a", at(1_000)).await, names(300)[50..]);
        again.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_log_keeps_the_commits_before() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = open(&settings).await;
    fill(&queue, 400, 200).await;
    let length = std::fs::metadata(beside(&settings.path, "-wal")).unwrap().len();
    for part in [
        0,
        10,
        32,
        33,
        1_000,
        5_000,
        length / 3,
        length / 2 + 11,
        length - 1,
    ] {
        let (_keep, copy) = killed(&settings);
        OpenOptions::new()
            .write(true)
            .open(beside(&copy.path, "-wal"))
            .unwrap()
            .set_len(part)
            .unwrap();
        let again = open(&copy).await;
        assert_eq!(again.state().unavailable, None, "cut at {part}");
        let seen = drain(&again, "a", at(10_000)).await;
        assert_eq!(seen.len() % 50, 0, "whole commits only");
        assert_eq!(seen, names(i64::try_from(seen.len()).unwrap()));
        assert_eq!(
            again.enqueue(vec![event("x", 0, &["a"])]).await.unwrap(),
            [Enqueued::Accepted]
        );
        again.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbage_file_is_moved_aside() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    for garbage in [
        vec![b'x'; 100],
        vec![0xa5; 50_000],
        b"SQLite format 3\0 but not really".to_vec(),
    ] {
        std::fs::write(&settings.path, &garbage).unwrap();
        let metrics = QueueMetrics::default();
        let queue = open_with(&settings, &metrics).await;
        let state = queue.state();
        assert_eq!(state.unavailable, None);
        assert!(state.repaired.unwrap().contains("moved aside"));
        assert_eq!(metrics.moved_aside.get(), 1);
        assert_eq!(
            queue.enqueue(vec![event("1", 0, &["a"])]).await.unwrap(),
            [Enqueued::Accepted]
        );
        queue.close().await;
        let kept = aside(&settings);
        assert_eq!(kept.len(), 1, "{kept:?}");
        let kept = directory.path().join(&kept[0]);
        assert_eq!(std::fs::read(&kept).unwrap(), garbage);
        std::fs::remove_file(kept).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_corrupt_page_costs_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = open(&settings).await;
    fill(&queue, 300, 300).await;
    let leased = queue.lease(&lane("a"), at(10_000), 100).await.unwrap();
    settle_all(&queue, leased.leases, Completion::Finished)
        .await
        .unwrap();
    queue.close().await;
    let length = std::fs::metadata(&settings.path).unwrap().len();
    for page in 0..length / 4096 {
        let directory = tempfile::tempdir().unwrap();
        let copy = super::settings(directory.path());
        std::fs::copy(&settings.path, &copy.path).unwrap();
        let file = OpenOptions::new().write(true).open(&copy.path).unwrap();
        file.write_all_at(&[0xa5; 4096], page * 4096).unwrap();
        let queue = open(&copy).await;
        let mut good = Vec::new();
        let mut all = 0;
        let limit = Instant::now() + Duration::from_secs(20);
        while queue.depth(&lane("a")).pending > 0 || queue.state().unavailable.is_some() {
            assert!(
                Instant::now() < limit,
                "page {page}: {:?} {:?}",
                queue.state(),
                queue.depth(&lane("a"))
            );
            let Ok(leased) = queue.lease(&lane("a"), at(10_000), 100).await else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                continue;
            };
            all += leased.leases.len();
            good.extend(ids(&leased.leases).into_iter().filter(|id| id != "corrupt"));
            settle_all(&queue, leased.leases, Completion::Finished).await.ok();
        }
        good.sort();
        good.dedup();
        let missed = names(300)[100..]
            .iter()
            .filter(|name| !good.contains(name))
            .count();
        assert!(
            missed <= 14,
            "page {page}: {missed} events missing, {all} handed out, {:?}",
            queue.state()
        );
        // The page may be one that only writing reads.
        if queue.enqueue(vec![event("new", 0, &["a"])]).await.is_err() {
            until(|| queue.state().unavailable.is_none()).await;
            assert!(
                queue.enqueue(vec![event("new", 0, &["a"])]).await.is_ok(),
                "page {page}"
            );
        }
        queue.close().await;
    }
}

/// Damages the page in which settlements find their lane's deliveries; the queue notices when it writes there.
fn damage_while_open(settings: &Settings) {
    let connection = rusqlite::Connection::open(&settings.path).unwrap();
    // What the queue has in its caches is old then.
    connection
        .execute("INSERT INTO meta VALUES('other', 1)", [])
        .unwrap();
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    let busy: i64 = connection.query_row(checkpoint, [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0);
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'deliveries'";
    let page: i64 = connection.query_row(root, [], |row| row.get(0)).unwrap();
    drop(connection);
    let file = OpenOptions::new().write(true).open(&settings.path).unwrap();
    file.write_all_at(&[0xa5; 4096], (page.cast_unsigned() - 1) * 4096)
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_meets_damage_is_stored_after_the_repair() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let queue = open(&settings).await;
    fill(&queue, 300, 100).await;
    let leased = queue.lease(&lane("a"), at(1_000), 20).await.unwrap();
    let seen = ids(&leased.leases);
    damage_while_open(&settings);
    settle_all(&queue, leased.leases, Completion::Finished)
        .await
        .unwrap();
    until(|| queue.state().unavailable.is_none()).await;
    let left = drain(&queue, "a", at(1_000)).await;
    assert!(queue.state().repaired.is_some());
    assert_eq!(queue.depth(&lane("a")).pending, 0);
    let mut all = [seen, left].concat();
    all.sort();
    all.dedup();
    assert_eq!(all, names(300), "nothing is lost");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_file_is_left_alone_until_it_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let newer = rusqlite::Connection::open(&settings.path).unwrap();
    newer
        .execute_batch("CREATE TABLE future(x); PRAGMA user_version = 99")
        .unwrap();
    drop(newer);
    let before = std::fs::read(&settings.path).unwrap();
    let queue = open(&settings).await;
    let why = queue.state().unavailable.unwrap();
    assert!(
        why.contains("format 99") && why.contains("newer version"),
        "{why}"
    );
    assert!(matches!(
        queue.enqueue(vec![event("1", 0, &["a"])]).await,
        Err(QueueError::Unavailable(_))
    ));
    assert!(matches!(
        queue.drop_lane(&lane("a")).await,
        Err(QueueError::Unavailable(_))
    ));
    assert!(matches!(
        queue.load_health().await,
        Err(QueueError::Unavailable(_))
    ));
    assert_eq!(std::fs::read(&settings.path).unwrap(), before);
    std::fs::remove_file(&settings.path).unwrap();
    until(|| queue.state().unavailable.is_none()).await;
    assert_eq!(
        queue.enqueue(vec![event("1", 0, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_stays_out_until_the_first_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    let first = open(&settings).await;
    let second = open(&settings).await;
    assert!(second.state().unavailable.unwrap().contains("another process"));
    first.enqueue(vec![event("1", 0, &["a"])]).await.unwrap();
    first.close().await;
    until(|| second.state().unavailable.is_none()).await;
    assert_eq!(drain(&second, "a", at(0)).await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_bounds_the_file_and_keeps_what_waits() {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    settings.retention_bytes = 2 << 20;
    settings.retention_interval = Duration::from_millis(20);
    settings.max_ids = 3_000;
    settings.window_deliveries = 64;
    let metrics = QueueMetrics::default();
    let queue = open_with(&settings, &metrics).await;
    let waiting: Vec<_> = (0..200)
        .map(|n| sized("p", &format!("w{n}"), n, &["slow"], 1_000))
        .collect();
    queue.enqueue(waiting).await.unwrap();
    for round in 0..100 {
        let batch = (0..100).map(|n| sized("p", &format!("r{round}-{n}"), n, &["a"], 1_000));
        queue.enqueue(batch.collect()).await.unwrap();
        drain(&queue, "a", at(10_000)).await;
    }
    until(|| metrics.bytes.get() > 0 && metrics.bytes.get() < 7 << 20).await;
    assert!(metrics.trimmed.get() > 5_000);
    assert!(metrics.ids_evicted.get() > 0);
    assert_eq!(
        queue.enqueue(vec![event("r99-99", 99, &["a"])]).await.unwrap(),
        [Enqueued::Duplicate]
    );
    assert_eq!(
        queue.enqueue(vec![event("r1-1", 1, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    let expected: Vec<String> = (0..200).map(|number| format!("w{number}")).collect();
    assert_eq!(drain(&queue, "slow", at(10_000)).await, expected);
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
    if !may_hit_its_limit("queue::faults::a_disk_that_fails_to_write_loses_nothing_and_heals") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings {
        settle_patience: Duration::from_secs(3600),
        ..settings(directory.path())
    };
    let metrics = QueueMetrics::default();
    let queue = Arc::new(open_with(&settings, &metrics).await);
    fill(&*queue, 200, 2_000).await;
    let leased = queue.lease(&lane("a"), at(1_000), 20).await.unwrap();
    let log = std::fs::metadata(beside(&settings.path, "-wal")).unwrap().len();
    writes_fail_from(Some(log));
    let refused = queue.enqueue(vec![event("no", 0, &["a"])]).await.unwrap_err();
    assert!(
        matches!(&refused, QueueError::Unavailable(why) if why.contains("the queue's disk fails")),
        "{refused}"
    );
    let settling = Arc::clone(&queue);
    let settled =
        tokio::spawn(async move { settle_all(&*settling, leased.leases, Completion::Finished).await });
    writes_fail_from(None);
    settled.await.unwrap().unwrap();
    until(|| queue.state().unavailable.is_none()).await;
    assert_eq!(drain(&*queue, "a", at(1_000)).await, names(200)[20..]);
    assert_eq!(
        queue.enqueue(vec![event("no", 500, &["a"])]).await.unwrap(),
        [Enqueued::Accepted]
    );
    assert!(metrics.failed_groups.get() > 0);
    assert_eq!(metrics.failed_settlements.get(), 0);
    assert!(aside(&settings).is_empty());
    queue.close().await;
}
