//! What every delivery log must do, and what a file may have to bear.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tempfile::TempDir;

use super::memory::MemoryLog;
use super::metrics::LogMetrics;
use super::sqlite::{Settings, SqliteLog};
use super::*;
use crate::domain::delivery_log::Timings;
use crate::domain::event::sample;
use crate::engine::clock::{Clock, SystemClock};

fn lane() -> Uid {
    Uid::new("lane")
}

fn record(seq: u64, attempt: u32, state: State) -> Record {
    Record {
        lane: lane(),
        event_id: EventId::parse(&format!("evt_{seq}")).unwrap(),
        event_type: if seq.is_multiple_of(2) { "even" } else { "odd" }.into(),
        seq,
        attempt,
        began: sample::at("2026-01-31T08:15:30Z"),
        state,
        status: (state != State::Dropped).then_some(200),
        reason: if state == State::Delivered {
            ""
        } else {
            "ServerError"
        }
        .into(),
        message: String::new(),
        timings: Timings {
            dns: None,
            connect: Some(Duration::ZERO),
            tls: Some(Duration::from_micros(17)),
            first_byte: Some(Duration::from_millis(3)),
            total: Duration::from_millis(5),
        },
        headers: "content-type: application/json\n".into(),
        excerpt: seq.is_multiple_of(3).then(|| "ok".to_owned()),
        next_attempt: (state == State::Retrying).then(|| sample::at("2026-01-31T08:16:30Z")),
        replayed: attempt > 5,
    }
}

fn query(limit: usize) -> Query {
    Query {
        limit,
        ..Query::default()
    }
}

fn settings(folder: &TempDir) -> Settings {
    Settings {
        pause: Duration::ZERO,
        ..Settings::new(folder.path().join("deliveries.db"))
    }
}

fn open(settings: &Settings) -> (Arc<SqliteLog>, LogMetrics) {
    let metrics = LogMetrics::default();
    let log = SqliteLog::start(settings.clone(), metrics.clone(), Arc::new(SystemClock));
    (Arc::new(log.unwrap()), metrics)
}

/// A clock that somebody sets.
struct SetClock(Mutex<Timestamp>);

impl SetClock {
    fn at(time: &str) -> Arc<Self> {
        Arc::new(Self(Mutex::new(sample::at(time))))
    }

    fn set(&self, time: &str) {
        *self.0.lock() = sample::at(time);
    }
}

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        *self.0.lock()
    }
}

fn open_with(settings: &Settings, clock: &Arc<SetClock>) -> SqliteLog {
    SqliteLog::start(settings.clone(), LogMetrics::default(), clock.clone()).unwrap()
}

fn seqs(page: &Page) -> Vec<u64> {
    page.records.iter().map(|record| record.seq).collect()
}

/// The memory's and a file's log, one after the other.
fn logs(folder: &TempDir) -> Vec<Arc<dyn DeliveryLog>> {
    vec![Arc::new(MemoryLog::default()), open(&settings(folder)).0]
}

#[tokio::test]
async fn a_question_sees_what_was_recorded_before_it() {
    let folder = TempDir::new().unwrap();
    for log in logs(&folder) {
        let all: Vec<Record> = (1..=9).map(|seq| record(seq, 1, State::Delivered)).collect();
        for one in &all {
            log.record(one.clone());
        }
        let mut page = log.list(&lane(), query(100)).await.unwrap();
        page.records.reverse();
        assert_eq!(page.records, all);
        assert_eq!(page.next, None);
        assert_eq!(
            log.list(&Uid::new("other"), query(9)).await.unwrap(),
            Page::default()
        );
        log.close().await;
    }
}

#[tokio::test]
async fn a_delivery_is_told_by_its_last_attempt() {
    let folder = TempDir::new().unwrap();
    for log in logs(&folder) {
        for (seq, attempt, state) in [
            (1, 1, State::Retrying),
            (2, 1, State::Retrying),
            (1, 2, State::Exhausted),
            (2, 2, State::Delivered),
            (3, 1, State::Retrying),
        ] {
            log.record(record(seq, attempt, state));
        }
        let stood = async |state| {
            let query = Query {
                state: Some(state),
                ..query(10)
            };
            seqs(&log.list(&lane(), query).await.unwrap())
        };
        assert_eq!(stood(State::Retrying).await, [3]);
        assert_eq!(stood(State::Exhausted).await, [1]);
        assert_eq!(stood(State::Delivered).await, [2]);
        let all = log.list(&lane(), query(10)).await.unwrap();
        assert_eq!(seqs(&all), [3, 2, 1]);
        let id = EventId::parse("evt_1").unwrap();
        for which in [Which::Id(id.clone()), Which::Position(1, id)] {
            let attempts = log.attempts(&lane(), which).await.unwrap();
            let numbers: Vec<u32> = attempts.iter().map(|record| record.attempt).collect();
            assert_eq!(numbers, [1, 2]);
        }
        log.close().await;
    }
}

#[tokio::test]
async fn pages_follow_each_other_in_both_directions() {
    let folder = TempDir::new().unwrap();
    for log in logs(&folder) {
        for seq in 1..=25 {
            log.record(record(seq, 1, State::Delivered));
        }
        for oldest_first in [false, true] {
            let mut found = Vec::new();
            let mut cursor = None;
            loop {
                let query = Query {
                    cursor,
                    oldest_first,
                    ..query(10)
                };
                let page = log.list(&lane(), query).await.unwrap();
                found.extend(seqs(&page));
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            if !oldest_first {
                found.reverse();
            }
            assert_eq!(found, (1..=25).collect::<Vec<_>>());
        }
        let query = Query {
            event_type: Some("even".into()),
            ..query(100)
        };
        let even = log.list(&lane(), query).await.unwrap();
        assert_eq!(even.records.len(), 12);
        log.close().await;
    }
}

#[tokio::test]
async fn a_file_keeps_what_it_has_over_a_restart() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    let (log, _) = open(&settings);
    log.record(record(1, 1, State::Delivered));
    log.close().await;
    let (log, _) = open(&settings);
    log.record(record(2, 1, State::Delivered));
    assert_eq!(seqs(&log.list(&lane(), query(9)).await.unwrap()), [2, 1]);
    let since = Query {
        since: Some(Timestamp::MAX),
        ..query(9)
    };
    assert_eq!(log.list(&lane(), since).await.unwrap(), Page::default());
}

#[tokio::test]
async fn after_a_clock_ran_ahead_everything_is_found_by_the_right_time() {
    for restarts in [false, true] {
        let folder = TempDir::new().unwrap();
        let settings = settings(&folder);
        let clock = SetClock::at("2026-01-31T08:00:00Z");
        let mut log = open_with(&settings, &clock);
        log.record(record(1, 1, State::Exhausted));
        log.list(&lane(), query(1)).await.unwrap();
        clock.set("2026-02-01T08:01:00Z");
        log.record(record(2, 1, State::Exhausted));
        log.list(&lane(), query(1)).await.unwrap();
        clock.set("2026-01-31T08:02:00Z");
        if restarts {
            log.close().await;
            log = open_with(&settings, &clock);
        }
        let failed = async |since: Option<&str>, until: &str| {
            let query = Query {
                state: Some(State::Exhausted),
                since: since.map(sample::at),
                until: Some(sample::at(until)),
                ..query(9)
            };
            seqs(&log.list(&lane(), query).await.unwrap())
        };
        assert_eq!(failed(None, "2026-01-31T08:02:00Z").await, [2, 1], "{restarts}");
        log.record(record(3, 1, State::Exhausted));
        log.list(&lane(), query(1)).await.unwrap();
        clock.set("2026-01-31T08:03:00Z");
        log.record(record(2, 2, State::Exhausted));
        let until_now = failed(None, "2026-01-31T08:03:01Z").await;
        assert_eq!(until_now, [2, 3, 1], "{restarts}");
        let lately = failed(Some("2026-01-31T08:02:30Z"), "2026-01-31T08:04:00Z").await;
        assert_eq!(lately, [2], "{restarts}");
        let before = failed(None, "2026-01-31T08:01:00Z").await;
        assert_eq!(before, [1], "{restarts}");
        log.close().await;
    }
}

#[tokio::test]
async fn a_clock_that_is_ahead_for_a_moment_empties_no_log() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    let clock = SetClock::at("2026-01-31T08:00:00Z");
    let log = open_with(&settings, &clock);
    log.record(record(1, 1, State::Delivered));
    log.close().await;
    clock.set("2036-01-31T08:00:00Z");
    let log = open_with(&settings, &clock);
    // The second question comes after what the thread does once it is open.
    for _ in 0..2 {
        assert_eq!(seqs(&log.list(&lane(), query(9)).await.unwrap()), [1]);
    }
    log.close().await;
}

#[tokio::test]
async fn what_is_older_than_the_retention_goes() {
    let folder = TempDir::new().unwrap();
    let settings = Settings {
        retention: Duration::from_millis(1),
        ..settings(&folder)
    };
    let (log, metrics) = open(&settings);
    log.record(record(1, 1, State::Delivered));
    let gone = async {
        while metrics.removed.get() == 0 {
            log.list(&lane(), query(9)).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

fn garble(path: &Path) {
    let length = std::fs::metadata(path).unwrap().len();
    std::fs::write(path, vec![0x55; usize::try_from(length).unwrap()]).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_begun_anew() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    let (log, _) = open(&settings);
    log.record(record(1, 1, State::Delivered));
    log.close().await;
    garble(&settings.path);
    let (log, metrics) = open(&settings);
    log.record(record(2, 1, State::Delivered));
    assert_eq!(seqs(&log.list(&lane(), query(9)).await.unwrap()), [2]);
    assert_eq!(metrics.restarts.get(), 1);
}

#[tokio::test]
async fn a_file_of_another_format_is_begun_anew() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    let (log, _) = open(&settings);
    log.record(record(1, 1, State::Delivered));
    log.close().await;
    let mut file = std::fs::read(&settings.path).unwrap();
    // SQLite's `user_version`.
    file[60..64].copy_from_slice(&7_u32.to_be_bytes());
    std::fs::write(&settings.path, file).unwrap();
    let (log, metrics) = open(&settings);
    log.record(record(2, 1, State::Delivered));
    assert_eq!(seqs(&log.list(&lane(), query(9)).await.unwrap()), [2]);
    assert_eq!(metrics.restarts.get(), 1);
}

#[tokio::test]
async fn a_place_that_cannot_be_written_costs_records_and_heals() {
    let folder = TempDir::new().unwrap();
    let settings = settings(&folder);
    std::fs::create_dir(&settings.path).unwrap();
    let (log, metrics) = open(&settings);
    log.record(record(1, 1, State::Delivered));
    let answer = log.list(&lane(), query(9)).await;
    assert!(matches!(answer, Err(LogError::Unavailable(_))), "{answer:?}");
    assert_eq!(metrics.lost(), 1);
    std::fs::remove_dir(&settings.path).unwrap();
    log.record(record(2, 1, State::Delivered));
    assert_eq!(seqs(&log.list(&lane(), query(9)).await.unwrap()), [2]);
}

#[tokio::test]
async fn records_over_the_bound_are_dropped_and_counted() {
    let folder = TempDir::new().unwrap();
    for (waiting, waiting_bytes) in [(0, usize::MAX), (usize::MAX, 64)] {
        let settings = Settings {
            waiting,
            waiting_bytes,
            ..settings(&folder)
        };
        let (log, metrics) = open(&settings);
        log.record(record(1, 1, State::Delivered));
        assert_eq!(metrics.lost(), 1);
        log.close().await;
    }
}

#[tokio::test]
async fn the_room_of_written_records_is_free_again() {
    let folder = TempDir::new().unwrap();
    let settings = Settings {
        waiting_bytes: record(3, 1, State::Delivered).size(),
        ..settings(&folder)
    };
    let (log, metrics) = open(&settings);
    for seq in 1..=3 {
        log.record(record(seq, 1, State::Delivered));
        log.list(&lane(), query(1)).await.unwrap();
    }
    assert_eq!(metrics.lost(), 0);
    log.close().await;
}

#[tokio::test]
async fn the_oldest_records_go_when_the_file_is_too_large() {
    let folder = TempDir::new().unwrap();
    let settings = Settings {
        max_bytes: 1 << 20,
        ..settings(&folder)
    };
    let (log, metrics) = open(&settings);
    let mut seq = 0;
    // Until what is removed keeps up with what is written.
    while metrics.removed.get() < 5_000 {
        for _ in 0..1_000 {
            seq += 1;
            let mut record = record(seq, 1, State::Delivered);
            record.excerpt = Some("x".repeat(200));
            log.record(record);
        }
        log.list(&lane(), query(1)).await.unwrap();
    }
    let newest = log.list(&lane(), query(1)).await.unwrap();
    assert_eq!(seqs(&newest), [seq]);
    log.close().await;
    let size = std::fs::metadata(&settings.path).unwrap().len();
    assert!(size < 16 << 20, "{size}");
}

#[tokio::test]
async fn a_switched_off_log_says_so() {
    assert!(!NoLog.is_on());
    assert_eq!(NoLog.list(&lane(), query(1)).await, Err(LogError::Off));
}

#[tokio::test]
async fn an_id_alone_is_looked_for_in_a_bounded_part() {
    let folder = TempDir::new().unwrap();
    let (log, _) = open(&settings(&folder));
    let old = record(1, 1, State::Delivered);
    let made_here = Record {
        event_id: EventId::from_uuid(uuid::Uuid::now_v7()),
        ..record(2, 1, State::Delivered)
    };
    log.record(old.clone());
    log.record(made_here.clone());
    for first in (10..).step_by(1_000).take(MAX_SCAN / 1_000) {
        for seq in first..first + 1_000 {
            log.record(record(seq, 1, State::Delivered));
        }
        // So that they are written, and more may wait.
        log.list(&lane(), query(1)).await.unwrap();
    }
    let by_id = async |of: &Record| {
        log.attempts(&lane(), Which::Id(of.event_id.clone()))
            .await
            .unwrap()
    };
    assert!(by_id(&old).await.is_empty());
    assert_eq!(by_id(&made_here).await, [made_here]);
    let young = record(15_010, 1, State::Delivered);
    assert_eq!(by_id(&young).await, [young]);
}
