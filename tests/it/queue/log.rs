//! A damaged log, from which SQLite moves commits into the file later: it costs only what was in the damaged place.

use std::fs::OpenOptions;

use postrider::engine::queue::{Enqueued, Queue};

use super::file::{PAGE, QueueFile, flip, length, overwrite};
use super::{at, drain, event, finish, names, publish, sized, take};
use crate::support::until;

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
            // The sector that lists what is on a page costs the page.
            seen.len() >= 380,
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

/// What a kill or a power failure may leave of the frames that a commit added to the log `before`.
fn torn_commits(before: &[u8], after: &[u8]) -> Vec<Vec<u8>> {
    let place = |frame: usize| LOG_HEADER + frame * FRAME;
    let new = frames_of_the_round(before)..frames_of_the_round(after);
    assert!(new.len() > 2, "the commit has several frames: {new:?}");
    let mut torn = Vec::new();
    for frame in new {
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
async fn a_commit_that_was_torn_apart_is_not_let_in_and_counted() {
    let (file, queue) = QueueFile::filled(300, 200).await;
    start_the_log_over(&file);
    let first = take(&*queue, 1_000, 50).await;
    finish(&*queue, first).await;
    let before = std::fs::read(file.log()).unwrap();
    let acknowledged = file.killed();
    let more = (300..310).map(|n| sized("p", &format!("event-{n:05}"), n, &["a"], 2_000));
    queue.enqueue(more.collect()).await.unwrap();
    let after = std::fs::read(file.log()).unwrap();
    let commits = torn_commits(&before, &after);
    let mut counted = 0;
    for torn in &commits {
        let killed = acknowledged.killed();
        std::fs::write(killed.log(), torn).unwrap();
        let again = killed.open().await;
        assert_eq!(again.state().repaired, None);
        assert_eq!(drain(&*again, "a", at(1_000)).await, names(300)[50..]);
        counted += killed.metrics.torn_commits.get();
        again.close().await;
    }
    // Nothing at all may be left of one.
    assert!(
        counted + 2 >= commits.len() as u64,
        "{counted} of {}",
        commits.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mended_log_is_reported_and_counted() {
    let (file, _queue) = QueueFile::filled(400, 200).await;
    let killed = file.killed();
    flip(killed.log(), LOG_HEADER + FRAME + FRAME_HEADER + 100);
    let again = killed.open().await;
    let repaired = again.state().repaired.unwrap();
    assert!(repaired.starts_with("the log was damaged"), "{repaired}");
    assert_eq!(killed.metrics.mended_logs.get(), 1);
    assert_eq!(killed.moved_aside().len(), 1, "a copy is kept");
    again.close().await;
    assert_eq!(killed.reopen().await.state().repaired, None, "it is mended once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_without_room_to_be_mended_leaves_nothing_behind() {
    let volume = small_volume!("16m");
    let (file, queue) = QueueFile::filled(2_000, 200).await;
    let killed = file.killed();
    queue.close().await;
    let small = volume.file_with(|settings| settings.reserve_bytes = 0);
    std::fs::copy(killed.path(), small.path()).unwrap();
    std::fs::copy(killed.log(), small.log()).unwrap();
    flip(small.log(), LOG_HEADER + FRAME + FRAME_HEADER + 100);
    let filler = volume.fill_up();
    let queue = small.open().await;
    assert!(queue.state().unavailable.is_some(), "there is no room");
    assert_eq!(small.moved_aside(), [""; 0], "no part of a copy stays");
    filler.give_back();
    until(|| queue.state().unavailable.is_none()).await;
    assert_eq!(drain(&*queue, "a", at(10_000)).await, names(2_000));
    assert_eq!(small.metrics.mended_logs.get(), 1);
    queue.close().await;
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
