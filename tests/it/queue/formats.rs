//! Files that earlier versions have left.

use postrider::engine::queue::Queue;

use super::file::{PAGE, QueueFile, overwrite};
use super::{at, drain, fill, ids, names, pending, put_off_noting, take};

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

/// Fills a queue and leaves its file as the version before notes would have: the first delivery was tried once.
async fn leave_by_the_version_before_notes(file: &QueueFile) {
    let queue = file.open().await;
    fill(&*queue, 200, 1_000).await;
    retry_first(&*queue, 0, 300, None).await;
    queue.close().await;
    drop(queue);
    let newer = file.beside(".newer");
    std::fs::rename(file.path(), &newer).unwrap();
    let sql = file.sql();
    sql.execute_batch(BEFORE_NOTES).unwrap();
    sql.execute("ATTACH ?1 AS newer", [newer.to_str().unwrap()])
        .unwrap();
    for table in TABLES {
        sql.execute_batch(&format!("INSERT INTO main.{table} SELECT * FROM newer.{table}"))
            .unwrap();
    }
    drop(sql);
    std::fs::remove_file(newer).unwrap();
}

async fn retry_first(queue: &dyn Queue, now: i64, due: i64, note: Option<&[u8]>) {
    let lease = take(queue, now, 1).await.remove(0);
    put_off_noting(queue, lease, due, note).await;
}

fn has_notes(file: &QueueFile) -> bool {
    let count = "SELECT count(*) FROM sqlite_schema WHERE name = 'notes'";
    let count: i64 = file.sql().query_row(count, [], |row| row.get(0)).unwrap();
    count == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_before_notes_keeps_what_it_holds_and_takes_notes() {
    let file = QueueFile::new();
    leave_by_the_version_before_notes(&file).await;
    assert!(!has_notes(&file), "as the version before notes left it");
    let queue = file.reopen().await;
    assert_eq!(pending(&*queue), 200);
    retry_first(&*queue, 300, 400, Some(b"half")).await;
    queue.close().await;
    drop(queue);
    assert!(has_notes(&file), "the table is made");
    let queue = file.reopen().await;
    let leases = take(&*queue, 400, 200).await;
    let mut noted = Vec::new();
    for lease in &leases {
        noted.extend(queue.note(lease).await.unwrap());
    }
    assert_eq!(noted, [Box::from(&b"half"[..])]);
    let mut all = ids(&leases);
    all.sort();
    assert_eq!(all, names(200));
    drop(leases);
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_before_notes_is_opened_on_a_full_volume() {
    let volume = small_volume!("40m");
    let file = volume.file();
    let queue = file.open().await;
    file.reserved().await;
    queue.close().await;
    drop(queue);
    std::fs::remove_file(file.path()).unwrap();
    leave_by_the_version_before_notes(&file).await;
    let filler = volume.fill_up();
    let queue = file.reopen().await;
    let mut all = drain(&*queue, "a", at(1_000)).await;
    all.sort();
    assert_eq!(all, names(200));
    filler.give_back();
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_from_before_notes_whose_first_page_is_lost_is_carried_over_without_notes() {
    let file = QueueFile::new();
    leave_by_the_version_before_notes(&file).await;
    // The tables are found again by the first page of a newer file, which has one more of them.
    overwrite(file.path(), 0, &[0xa5; PAGE]);
    let queue = file.open().await;
    assert!(queue.state().repaired.is_some(), "the damage is told");
    let leases = take(&*queue, 1_000, 200).await;
    for lease in &leases {
        assert_eq!(queue.note(lease).await.unwrap(), None);
    }
    let mut all = ids(&leases);
    all.sort();
    assert_eq!(all, names(200));
    drop(leases);
    queue.close().await;
    drop(queue);
    let notes: i64 = file
        .sql()
        .query_row("SELECT count(*) FROM notes", [], |row| row.get(0))
        .unwrap();
    assert_eq!(notes, 0);
}
