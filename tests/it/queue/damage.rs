//! A damaged file, or one of another format: what can be read is delivered, what cannot is kept for people.

use std::cell::RefCell;
use std::time::Duration;

use postrider::engine::queue::{Completion, Enqueued, HealthStore, Queue, QueueError, Stored};

use super::file::{PAGE, QueueFile, flip, length, overwrite};
use super::{at, drain, event, fill, finish, ids, lane, names, pending, publish, settle_all, take};
use crate::support::{eventually, until};

/// What a page holds once it is damaged.
const GARBAGE: [u8; PAGE] = [0xa5; PAGE];

/// Every place of a text: old copies may be left in the free parts of pages.
fn find(bytes: &[u8], text: &str) -> Vec<usize> {
    let places = bytes
        .windows(text.len())
        .enumerate()
        .filter(|(_, window)| *window == text.as_bytes());
    places.map(|(place, _)| place).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_payload_byte_is_handed_out_as_corrupt() {
    let (file, queue) = QueueFile::filled(50, 200).await;
    queue.close().await;
    let bytes = std::fs::read(file.path()).unwrap();
    for place in find(&bytes, "event-00007 xxx") {
        flip(file.path(), place + 30);
    }
    let queue = file.reopen().await;
    let leases = take(&*queue, 1_000, 100).await;
    assert_eq!(leases.len(), 50, "the damaged one is among them");
    for (number, lease) in leases.iter().enumerate() {
        match &lease.stored {
            Stored::Event(event) => assert_eq!(event.id.as_str(), format!("event-{number:05}")),
            Stored::Corrupt { id } => assert_eq!((number, id.as_ref().unwrap().as_str()), (7, "event-00007")),
        }
    }
    assert_eq!(file.metrics.damaged.get(), 1);
    finish(&*queue, leases).await;
    assert_eq!(pending(&*queue), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbage_file_is_moved_aside() {
    for garbage in [
        vec![b'x'; 100],
        vec![0xa5; 50_000],
        b"SQLite format 3\0 but not really".to_vec(),
    ] {
        let file = QueueFile::new();
        std::fs::write(file.path(), &garbage).unwrap();
        let queue = file.open().await;
        let state = queue.state();
        assert_eq!(state.unavailable, None, "there is a new file");
        let told = state.repaired.unwrap();
        assert!(told.contains("moved aside"), "{told}");
        assert_eq!(file.metrics.moved_aside.get(), 1);
        assert_eq!(
            publish(&*queue, event("1", 0, &["a"])).await,
            Ok(Enqueued::Accepted)
        );
        queue.close().await;
        let kept = file.moved_aside();
        assert_eq!(kept.len(), 1, "{kept:?}");
        let kept = file.path().with_file_name(&kept[0]);
        assert_eq!(std::fs::read(kept).unwrap(), garbage, "it is kept as it was");
    }
}

/// Delivers, over repairs, until nothing waits and the queue works; returns what was handed out.
pub(super) async fn drain_over_repairs(queue: &dyn Queue, page: u64) -> Vec<String> {
    let what = format!("all is delivered that was not on page {page}");
    let seen = RefCell::new(Vec::new());
    eventually(&what, Duration::from_secs(20), async || {
        while let Ok(leased) = queue.lease(&lane("a"), at(10_000), 100).await
            && !leased.leases.is_empty()
        {
            seen.borrow_mut().extend(ids(&leased.leases));
            settle_all(queue, leased.leases, Completion::Finished).await.ok();
        }
        let (state, waiting) = (queue.state(), pending(queue));
        if waiting == 0 && state.unavailable.is_none() {
            Ok(())
        } else {
            Err(format!("{state:?}, {waiting} wait"))
        }
    })
    .await;
    seen.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn any_corrupt_page_costs_only_itself() {
    let (file, queue) = QueueFile::filled(300, 300).await;
    let first = take(&*queue, 10_000, 100).await;
    finish(&*queue, first).await;
    queue.close().await;
    for page in 0..length(file.path()) / PAGE as u64 {
        let copy = file.copied();
        overwrite(copy.path(), page * PAGE as u64, &GARBAGE);
        let queue = copy.open().await;
        let seen = drain_over_repairs(&*queue, page).await;
        let missed = names(300)[100..]
            .iter()
            .filter(|name| !seen.contains(name))
            .count();
        assert!(
            missed <= 14,
            "page {page}: {missed} events missing, {} handed out, {:?}",
            seen.len(),
            queue.state()
        );
        // The page may be one that only writing reads.
        if publish(&*queue, event("new", 0, &["a"])).await.is_err() {
            until(|| queue.state().unavailable.is_none()).await;
            let repaired = publish(&*queue, event("new", 0, &["a"])).await;
            assert!(repaired.is_ok(), "page {page}: {repaired:?}");
        }
        queue.close().await;
    }
}

/// Damages the page in which settlements find their lane's deliveries; the queue notices when it writes there.
fn damage_while_open(file: &QueueFile) {
    let connection = file.sql();
    // What the queue has in its caches is old then.
    connection
        .execute("INSERT INTO meta VALUES('other', 1)", [])
        .unwrap();
    let number = |query: &str| -> i64 { connection.query_row(query, [], |row| row.get(0)).unwrap() };
    let checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)";
    assert_eq!(number(checkpoint), 0, "nobody is in the way of {checkpoint}");
    let page = number("SELECT rootpage FROM sqlite_schema WHERE name = 'deliveries'");
    drop(connection);
    overwrite(file.path(), (page.cast_unsigned() - 1) * PAGE as u64, &GARBAGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_meets_damage_is_stored_after_the_repair() {
    let (file, queue) = QueueFile::filled(300, 100).await;
    let leases = take(&*queue, 1_000, 20).await;
    let seen = ids(&leases);
    damage_while_open(&file);
    finish(&*queue, leases).await;
    until(|| queue.state().unavailable.is_none()).await;
    let left = drain(&*queue, "a", at(1_000)).await;
    assert!(queue.state().repaired.is_some(), "the damage was met");
    assert_eq!(pending(&*queue), 0);
    let mut all = [seen, left].concat();
    all.sort();
    all.dedup();
    assert_eq!(all, names(300), "nothing is lost");
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_without_room_for_what_is_intact_waits_for_room() {
    let volume = small_volume!("16m");
    let file = volume.file_with(|settings| settings.reserve_bytes = 0);
    let queue = file.open().await;
    fill(&*queue, 300, 10_000).await;
    queue.close().await;
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'deliveries'";
    let page: i64 = file.sql().query_row(root, [], |row| row.get(0)).unwrap();
    let place = (page.cast_unsigned() - 1) * PAGE as u64;
    overwrite(file.path(), place, &GARBAGE);
    // Enough to look at the file, not to copy it.
    let filler = volume.fill_up_but(1 << 20);
    let queue = file.open().await;
    let why = queue.state().unavailable.unwrap();
    for word in ["is damaged", "no room", "MiB free"] {
        assert!(why.contains(word), "{why}");
    }
    assert!(!file.beside(".salvage").exists(), "no part of a copy stays");
    filler.give_back();
    until(|| queue.state().unavailable.is_none()).await;
    let mut seen = drain(&*queue, "a", at(10_000)).await;
    seen.sort();
    seen.dedup();
    assert!(seen.len() >= 290, "{} of 300", seen.len());
    queue.close().await;
}

/// Each inner page of the deliveries' tree: where it is, and where in it the numbers of its children are.
fn inner_pages(bytes: &[u8], root: usize) -> (usize, Vec<usize>) {
    let page = (root - 1) * PAGE;
    assert_eq!(bytes[page], 0x02, "the tree has more than one level");
    let cells = usize::from(u16::from_be_bytes([bytes[page + 3], bytes[page + 4]]));
    let places = (0..cells).map(|cell| {
        let at = page + 12 + 2 * cell;
        page + usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]))
    });
    (page, places.collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pointer_that_leads_to_another_leaf_loses_nothing_and_ends() {
    let (file, queue) = QueueFile::filled(3_000, 20).await;
    queue.close().await;
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'deliveries'";
    let root: i64 = file.sql().query_row(root, [], |row| row.get(0)).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let (_, children) = inner_pages(&bytes, usize::try_from(root).unwrap());
    assert!(children.len() > 4, "{}", children.len());
    for (damaged, other) in [(1, 3), (3, 1), (2, 2 + 1)] {
        let copy = file.copied();
        let child: [u8; 4] = bytes[children[other]..][..4].try_into().unwrap();
        overwrite(copy.path(), children[damaged] as u64, &child);
        let queue = copy.open().await;
        let mut seen = drain_over_repairs(&*queue, 0).await;
        let sent = seen.len();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 3_000, "nothing is lost: {:?}", queue.state());
        assert!(sent < 6_000, "{sent} deliveries of 3000");
        assert!(queue.state().repaired.is_some(), "the damage is told");
        queue.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_says_another_lane_hides_no_other() {
    let (file, queue) = QueueFile::filled(3_000, 20).await;
    queue.close().await;
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'deliveries'";
    let root: i64 = file.sql().query_row(root, [], |row| row.get(0)).unwrap();
    let bytes = std::fs::read(file.path()).unwrap();
    let (_, children) = inner_pages(&bytes, usize::try_from(root).unwrap());
    let leaf = u32::from_be_bytes(bytes[children[2]..][..4].try_into().unwrap());
    let leaf = (leaf as usize - 1) * PAGE;
    // The tenth cell: length, length of the header, then the type of the column `lane`.
    let cell = leaf + usize::from(u16::from_be_bytes([bytes[leaf + 8 + 20], bytes[leaf + 8 + 21]]));
    let copy = file.copied();
    assert_eq!(bytes[cell + 2], 9, "lane 1 is a type of its own");
    overwrite(copy.path(), (cell + 2) as u64, &[8]);
    let queue = copy.open().await;
    let mut seen = drain_over_repairs(&*queue, 0).await;
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3_000, "nothing is lost: {:?}", queue.state());
    queue.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_of_a_newer_file_is_left_alone() {
    let (file, queue) = QueueFile::filled(100, 200).await;
    queue.close().await;
    file.sql().execute_batch("PRAGMA user_version = 99").unwrap();
    let later = file.copied();
    // What a newer version may have in its log looks damaged to us.
    let log = vec![0x37; 50_000];
    std::fs::write(later.log(), &log).unwrap();
    let queue = later.open().await;
    let why = queue.state().unavailable.unwrap();
    assert!(why.contains("newer version"), "{why}");
    assert_eq!(std::fs::read(later.log()).unwrap(), log);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_file_is_left_alone_until_it_is_gone() {
    let file = QueueFile::new();
    file.sql()
        .execute_batch("CREATE TABLE future(x); PRAGMA user_version = 99")
        .unwrap();
    let before = std::fs::read(file.path()).unwrap();
    let queue = file.open().await;
    let why = queue.state().unavailable.unwrap();
    assert!(
        why.contains("format 99") && why.contains("newer version"),
        "{why}"
    );
    let refusals = [
        publish(&*queue, event("1", 0, &["a"])).await.map(drop),
        queue.drop_lane(&lane("a")).await.map(drop),
        queue.load_health().await.map(drop),
    ];
    for refused in refusals {
        assert!(matches!(refused, Err(QueueError::Unavailable(_))), "{refused:?}");
    }
    assert_eq!(
        std::fs::read(file.path()).unwrap(),
        before,
        "not a byte is changed"
    );
    std::fs::remove_file(file.path()).unwrap();
    until(|| queue.state().unavailable.is_none()).await;
    assert_eq!(
        publish(&*queue, event("1", 0, &["a"])).await,
        Ok(Enqueued::Accepted)
    );
}
