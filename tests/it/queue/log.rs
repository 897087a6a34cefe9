//! A damaged log, from which SQLite moves commits into the file later: it costs only what was in the damaged place.

use std::fs::OpenOptions;

use postrider::engine::queue::{Enqueued, Queue};

use super::file::{PAGE, QueueFile, flip, length, overwrite};
use super::{at, drain, event, finish, names, publish, sized, take};

/// Bytes of the log's header, of a frame's header and of a frame.
const LOG_HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const FRAME: usize = FRAME_HEADER + PAGE;

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_the_log_loses_nothing_else() {
    let (file, _queue) = QueueFile::filled(400, 200).await;
    let log = std::fs::read(file.log()).unwrap().len();
    let last_frame = log - FRAME;
    let anywhere = (0..40).map(|part| part * (log / 40) + part * 37);
    let headers = (0..LOG_HEADER + FRAME_HEADER).chain(last_frame..last_frame + FRAME_HEADER);
    for at_byte in anywhere.chain(headers).chain([log - 1]) {
        let killed = file.killed();
        flip(killed.log(), at_byte);
        let again = killed.open().await;
        let state = again.state();
        assert_eq!(state.unavailable, None, "byte {at_byte}");
        let seen = drain(&*again, "a", at(10_000)).await;
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

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_sector_of_the_log_costs_only_what_was_in_it() {
    let (file, _queue) = QueueFile::filled(400, 200).await;
    let log = length(file.log());
    for at_byte in (0..20).map(|part| (part * (log / 24)).next_multiple_of(512)) {
        let killed = file.killed();
        overwrite(killed.log(), at_byte, &[0; 512]);
        let again = killed.open().await;
        let mut seen = drain(&*again, "a", at(10_000)).await;
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
fn start_the_log_over(file: &QueueFile) {
    let restart = "PRAGMA wal_checkpoint(RESTART)";
    let busy: i64 = file.sql().query_row(restart, [], |row| row.get(0)).unwrap();
    assert_eq!(busy, 0, "nobody is in the way of {restart}");
}

/// The frames of this round of the log.
fn frames_of_the_round(log: &[u8]) -> usize {
    let frames = log[LOG_HEADER..].chunks_exact(FRAME);
    frames.take_while(|frame| frame[8..16] == log[16..24]).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_a_kill_tore_apart_is_not_let_in() {
    let (file, queue) = QueueFile::filled(300, 200).await;
    start_the_log_over(&file);
    let first = take(&*queue, 1_000, 50).await;
    finish(&*queue, first).await;
    let before = std::fs::read(file.log()).unwrap();
    let killed = file.killed();
    let unacknowledged = sized("p", "unacknowledged", 400, &["a"], 200);
    publish(&*queue, unacknowledged).await.unwrap();
    let after = std::fs::read(file.log()).unwrap();
    let frames = frames_of_the_round(&after);
    assert!(
        frames > frames_of_the_round(&before) + 1,
        "the last commit has more than one frame"
    );
    // SQLite writes a frame in two parts: its header, then the page. A kill between them leaves the page of an older
    // round behind the header of a commit.
    let torn = LOG_HEADER + (frames - 1) * FRAME + FRAME_HEADER;
    let written = [&after[..torn], &before[torn..]].concat();
    assert_ne!(
        written[torn..][..PAGE],
        after[torn..][..PAGE],
        "an older page is behind the header"
    );
    std::fs::write(killed.log(), &written).unwrap();
    let again = killed.open().await;
    assert_eq!(again.state().repaired, None);
    assert_eq!(drain(&*again, "a", at(1_000)).await, names(300)[50..]);
    assert_eq!(killed.moved_aside(), [""; 0], "nothing was damaged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_log_keeps_the_commits_before() {
    let (file, _queue) = QueueFile::filled(400, 200).await;
    let log = length(file.log());
    for part in [0, 10, 32, 33, 1_000, 5_000, log / 3, log / 2 + 11, log - 1] {
        let killed = file.killed();
        let cut = OpenOptions::new().write(true).open(killed.log()).unwrap();
        cut.set_len(part).unwrap();
        let again = killed.open().await;
        assert_eq!(again.state().unavailable, None, "cut at {part}");
        let seen = drain(&*again, "a", at(10_000)).await;
        assert_eq!(seen.len() % 50, 0, "whole commits only");
        assert_eq!(seen, names(i64::try_from(seen.len()).unwrap()));
        assert_eq!(
            publish(&*again, event("x", 0, &["a"])).await,
            Ok(Enqueued::Accepted)
        );
        again.close().await;
    }
}
