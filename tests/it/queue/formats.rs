//! Files that earlier versions have left.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use postrider::engine::queue::sqlite::Settings;
use postrider::engine::queue::{Completion, Queue, Settlement};

use super::faults::beside;
use super::full::{Filler, SmallDisk, on, reserved};
use super::{at, drain, ids, lane, open, reopen, settings, sized};

/// Format 1 as it was before notes.
const BEFORE_NOTES: &str = "
    PRAGMA page_size = 4096;
    PRAGMA auto_vacuum = incremental;
    PRAGMA journal_mode = WAL;
    CREATE TABLE meta(name TEXT PRIMARY KEY, value) WITHOUT ROWID;
    CREATE TABLE projects(number INTEGER PRIMARY KEY, uid TEXT NOT NULL UNIQUE);
    CREATE TABLE facts(number INTEGER PRIMARY KEY, json TEXT NOT NULL);
    CREATE INDEX facts_json ON facts(json);
    CREATE TABLE lanes(number INTEGER PRIMARY KEY, uid TEXT NOT NULL, dropped INTEGER NOT NULL);
    CREATE INDEX lanes_uid ON lanes(uid, dropped);
    CREATE TABLE health(lane INTEGER PRIMARY KEY, json TEXT NOT NULL);
    CREATE TABLE events(seq INTEGER PRIMARY KEY, project INTEGER NOT NULL, facts INTEGER NOT NULL, id NOT NULL,
        accepted INTEGER NOT NULL, sum INTEGER NOT NULL, lanes BLOB NOT NULL, body BLOB NOT NULL);
    CREATE TABLE ids(project INTEGER NOT NULL, id NOT NULL, accepted INTEGER NOT NULL,
        PRIMARY KEY(project, id)) WITHOUT ROWID;
    CREATE TABLE old_ids(seq INTEGER PRIMARY KEY, project INTEGER NOT NULL, id NOT NULL, accepted INTEGER NOT NULL);
    CREATE TABLE deliveries(lane INTEGER NOT NULL, due INTEGER NOT NULL, seq INTEGER NOT NULL,
        attempts INTEGER NOT NULL, project INTEGER NOT NULL, PRIMARY KEY(lane, due, seq)) WITHOUT ROWID;
    PRAGMA application_id = 0x50525131;
    PRAGMA user_version = 1;
";

const TABLES: [&str; 9] = [
    "meta",
    "projects",
    "facts",
    "lanes",
    "health",
    "events",
    "ids",
    "old_ids",
    "deliveries",
];

fn names(count: i64) -> Vec<String> {
    (0..count).map(|number| format!("e{number:03}")).collect()
}

/// Fills a queue and leaves its file as the version before notes would have: the first delivery was tried once.
async fn leave_by_the_version_before_notes(settings: &Settings) {
    let queue = open(settings).await;
    let batch = (0..200).map(|number| sized("p", &format!("e{number:03}"), number, &["a"], 1_000));
    queue.enqueue(batch.collect()).await.unwrap();
    retry_first(&queue, 0, 300, None).await;
    queue.close().await;
    drop(queue);
    let newer = beside(&settings.path, ".newer");
    std::fs::rename(&settings.path, &newer).unwrap();
    let file = rusqlite::Connection::open(&settings.path).unwrap();
    file.execute_batch(BEFORE_NOTES).unwrap();
    file.execute("ATTACH ?1 AS newer", [newer.to_str().unwrap()])
        .unwrap();
    for table in TABLES {
        file.execute_batch(&format!("INSERT INTO main.{table} SELECT * FROM newer.{table}"))
            .unwrap();
    }
    drop(file);
    std::fs::remove_file(newer).unwrap();
}

async fn retry_first(queue: &dyn Queue, now: i64, due: i64, note: Option<&[u8]>) {
    let lease = queue
        .lease(&lane("a"), at(now), 1)
        .await
        .unwrap()
        .leases
        .remove(0);
    let settlement = Settlement {
        lease,
        completion: Completion::RetryAt(at(due)),
        health: None,
        note: note.map(Into::into),
    };
    queue.settle(vec![settlement]).await.unwrap();
}

fn has_notes(path: &Path) -> bool {
    let file = rusqlite::Connection::open(path).unwrap();
    let count: i64 = file
        .query_row(
            "SELECT count(*) FROM sqlite_schema WHERE name = 'notes'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    count == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_before_notes_keeps_what_it_holds_and_takes_notes() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    leave_by_the_version_before_notes(&settings).await;
    assert!(!has_notes(&settings.path));
    let queue = reopen(&settings).await;
    assert_eq!(queue.depth(&lane("a")).pending, 200);
    retry_first(&queue, 300, 400, Some(b"half")).await;
    queue.close().await;
    drop(queue);
    assert!(has_notes(&settings.path));
    let queue = reopen(&settings).await;
    let leased = queue.lease(&lane("a"), at(400), 200).await.unwrap();
    let mut noted = Vec::new();
    for lease in &leased.leases {
        noted.extend(queue.note(lease).await.unwrap());
    }
    assert_eq!(noted, [Box::from(&b"half"[..])]);
    let mut all = ids(&leased.leases);
    all.sort();
    assert_eq!(all, names(200));
    drop(leased);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_before_notes_is_opened_on_a_full_volume() {
    let test = "queue::formats::a_file_from_before_notes_is_opened_on_a_full_volume";
    let Some(disk) = SmallDisk::new("40m", test) else {
        return;
    };
    let settings = on(&disk);
    let queue = open(&settings).await;
    reserved(&settings).await;
    queue.close().await;
    drop(queue);
    std::fs::remove_file(&settings.path).unwrap();
    leave_by_the_version_before_notes(&settings).await;
    let filler = Filler::on(&disk);
    let queue = reopen(&settings).await;
    let mut all = drain(&queue, "a", at(1_000)).await;
    all.sort();
    assert_eq!(all, names(200));
    filler.give_back();
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_before_notes_whose_first_page_is_lost_is_carried_over_without_notes() {
    let directory = tempfile::tempdir().unwrap();
    let settings = settings(directory.path());
    leave_by_the_version_before_notes(&settings).await;
    // The tables are found again by the first page of a newer file, which has one more of them.
    let file = OpenOptions::new().write(true).open(&settings.path).unwrap();
    file.write_all_at(&[0xa5; 4096], 0).unwrap();
    let queue = open(&settings).await;
    assert!(queue.state().repaired.is_some());
    let leased = queue.lease(&lane("a"), at(1_000), 200).await.unwrap();
    for lease in &leased.leases {
        assert_eq!(queue.note(lease).await.unwrap(), None);
    }
    let mut all = ids(&leased.leases);
    all.sort();
    assert_eq!(all, names(200));
    drop(leased);
    queue.close().await;
    drop(queue);
    let file = rusqlite::Connection::open(&settings.path).unwrap();
    let notes: i64 = file
        .query_row("SELECT count(*) FROM notes", [], |row| row.get(0))
        .unwrap();
    assert_eq!(notes, 0);
}
