//! What the delivery log costs: microseconds for each attempt, and how long a page takes of a destination that has all
//! of the records, beside a plain scan of the same file in the same run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postrider::domain::delivery_log::{Record, State, Timings};
use postrider::domain::id::{EventId, Uid};
use postrider::engine::clock::{Clock, SystemClock};
use postrider::engine::deliveries::metrics::LogMetrics;
use postrider::engine::deliveries::sqlite::{Settings, SqliteLog};
use postrider::engine::deliveries::{DeliveryLog, Query};

/// Records that are handed over before the log is asked, so that none is dropped.
const BATCH: u64 = 10_000;

fn record(seq: u64) -> Record {
    let failed = seq.is_multiple_of(1_000);
    Record {
        lane: Uid::new("613b038f-0000-4000-8000-000000000002"),
        event_id: EventId::from_uuid(uuid::Uuid::now_v7()),
        event_type: if seq.is_multiple_of(97) {
            "rare"
        } else {
            "record_created"
        }
        .into(),
        seq,
        attempt: 1,
        began: SystemClock.now(),
        state: if failed {
            State::Exhausted
        } else {
            State::Delivered
        },
        status: Some(if failed { 500 } else { 200 }),
        reason: if failed { "ServerError" } else { "" }.into(),
        message: String::new(),
        timings: Timings {
            first_byte: Some(Duration::from_millis(3)),
            total: Duration::from_millis(4),
            ..Timings::default()
        },
        headers: "content-type: application/json\nuser-agent: Postrider\nwebhook-id: \u{1}\n"
            .repeat(4)
            .into(),
        excerpt: Some("ok".to_owned()),
        next_attempt: None,
        replayed: false,
    }
}

async fn page(log: &SqliteLog, query: Query) -> (f64, usize) {
    let mut times = Vec::new();
    let mut found = 0;
    for _ in 0..9 {
        let started = Instant::now();
        let page = log.list(&record(0).lane, query.clone()).await.unwrap();
        times.push(started.elapsed().as_secs_f64() * 1e3);
        found = page.records.len();
    }
    (crate::median(&mut times), found)
}

/// Prints what the log costs.
pub(crate) async fn run(records: u64) {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        max_bytes: u64::MAX,
        waiting: usize::MAX,
        ..Settings::new(folder.path().join("deliveries.db"))
    };
    let log = SqliteLog::start(settings.clone(), LogMetrics::default(), Arc::new(SystemClock)).unwrap();
    let first = Query {
        limit: 1,
        ..Query::default()
    };
    let (mut handing, mut whole) = (Duration::ZERO, Duration::ZERO);
    for batch in 0..records / BATCH {
        let made: Vec<Record> = (0..BATCH).map(|number| record(batch * BATCH + number)).collect();
        let started = Instant::now();
        for one in made {
            log.record(one);
        }
        handing += started.elapsed();
        log.list(&record(0).lane, first.clone()).await.unwrap();
        whole += started.elapsed();
    }
    let each = |time: Duration| time.as_secs_f64() * 1e6 / records as f64;
    println!(
        "record: {:.2} µs for the caller, {:.2} µs in all",
        each(handing),
        each(whole)
    );
    let middle = SystemClock.now() - whole / 2;
    for (name, query) in [
        ("newest", Query::default()),
        (
            "given up",
            Query {
                state: Some(State::Exhausted),
                ..Query::default()
            },
        ),
        (
            "rare type",
            Query {
                event_type: Some("rare".into()),
                ..Query::default()
            },
        ),
        (
            "before a time",
            Query {
                until: Some(middle),
                ..Query::default()
            },
        ),
        (
            "never",
            Query {
                event_type: Some("never".into()),
                ..Query::default()
            },
        ),
    ] {
        let (milliseconds, found) = page(&log, Query { limit: 50, ..query }).await;
        println!("{name}: {milliseconds:.2} ms for {found} of {records}");
    }
    let (paged, _) = page(
        &log,
        Query {
            state: Some(State::Exhausted),
            limit: 50,
            ..Query::default()
        },
    )
    .await;
    log.close().await;
    let file = rusqlite::Connection::open(&settings.path).unwrap();
    let started = Instant::now();
    let sql = "SELECT * FROM attempts NOT INDEXED WHERE +state = 2 ORDER BY began DESC, number DESC LIMIT 50";
    let mut statement = file.prepare(sql).unwrap();
    let found = statement.query_map([], |_| Ok(())).unwrap().count();
    let plain = started.elapsed().as_secs_f64() * 1e3;
    println!(
        "plain scan: {plain:.2} ms for {found}; the log's page takes {:.4} of it",
        paged / plain
    );
}
