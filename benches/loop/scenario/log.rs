//! Questions to the delivery log of a destination with a million attempts, asked by the delivery API.
//!
//! The log is written by the library, over a day of its own clock, and handed to a Postrider that starts. So the figures
//! have everything in them that a person waits for: HTTP, the check of the token, the log, the answer's JSON.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use postrider::domain::delivery_log::{Record, State, Timings};
use postrider::domain::id::{EventId, Uid};
use postrider::engine::clock::Clock;
use postrider::engine::deliveries::metrics::LogMetrics;
use postrider::engine::deliveries::sqlite::{Settings, SqliteLog};
use postrider::engine::deliveries::{DeliveryLog as _, Query};
use serde_json::Value;

use super::CONNECTIONS;
use crate::product::{self, Answer};
use crate::report::{Row, Series, Unit};
use crate::stage::Stage;
use crate::system::Setup;

/// Parts that the log is written in; it is asked after each, so that not all wait in memory.
const PARTS: u64 = 100;
/// Milliseconds that the log spans.
const SPAN: i64 = 24 * 3600 * 1000;
/// Times that each question is asked.
const TIMES: usize = 21;

/// The time that the log is written at.
struct Told(AtomicI64);

impl Clock for Told {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.0.load(Ordering::Relaxed)).expect("a time of today")
    }
}

/// Every kind of question, first and deep pages.
pub(super) fn log(stage: &mut Stage) {
    let setup = Setup::uniform("log", 1, CONNECTIONS);
    let destination = &setup.destinations[0];
    stage.apply(&setup);
    let Some(product) = &mut stage.product else {
        return;
    };
    let (uid, token) = (Uid::new(&product.uid(destination)), product.oncall());
    let attempts = stage.sized(1_000_000, 50_000);
    let path = stage.folder().join("deliveries.db");
    let end = Timestamp::now().as_millisecond();
    let written = write(&path, &uid, attempts, end - SPAN);
    let plain = scan(&path);
    if let Some(product) = &mut stage.product {
        product.delivery_log = Some(path);
    }
    let all = Unit::COUNT.write(attempts as f64);
    stage.rows.push(Row::alone(
        "Delivery log: written, for each attempt",
        &Series(vec![written]),
        &Unit::US,
    ));
    stage.ours(1, &setup, |stage, running| {
        let ask = |below: &str| product::ask(running, &token, destination, "GET", below, "");
        let mut questions = questions(end, &ask);
        for _ in 0..TIMES {
            for question in &mut questions {
                question.ask(&ask);
            }
        }
        for (index, question) in questions.into_iter().enumerate() {
            let Question { name, found, .. } = question;
            if let Some(fault) = question.fault {
                stage.note(&format!("log, {name}: {fault}"));
            }
            let what = if index == 0 {
                format!("Delivery log of {all} attempts: {name} ({found})")
            } else {
                format!("… {name} ({found})")
            };
            // Only one of the questions is what the plain scan answers.
            let none = Series::default();
            let bare = if name == GIVEN_UP { &plain } else { &none };
            let fast = question.times.median().map(|time| time <= 50.0);
            stage
                .rows
                .push(Row::new(&what, &question.times, bare, &Unit::MS).bar("≤ 50 ms", fast));
        }
    });
}

/// The question that is compared with a plain scan.
const GIVEN_UP: &str = "given up";

/// A question, and how long its answers took.
struct Question {
    name: &'static str,
    /// What follows `deliveries` in its path.
    below: String,
    /// Items that an answer must have at least.
    least: usize,
    found: usize,
    times: Series,
    fault: Option<String>,
}

impl Question {
    fn ask(&mut self, ask: &impl Fn(&str) -> Answer) {
        let Answer { status, body, took } = ask(&self.below);
        self.times.0.push(took.as_secs_f64() * 1e3);
        let items = body["items"].as_array().or(body["attempts"].as_array());
        self.found = items.map_or(0, Vec::len);
        if status != "200" || self.found < self.least {
            self.fault = Some(format!("answered {status} with {} items", self.found));
        }
    }
}

fn questions(end: i64, ask: &impl Fn(&str) -> Answer) -> Vec<Question> {
    let time = |back: i64| {
        Timestamp::from_millisecond(end - back)
            .expect("a time of today")
            .to_string()
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let second = text(&ask("").body["next"]);
    let old = ask(&format!("?until={}", time(SPAN - SPAN / 20))).body;
    let (deep, one) = (text(&old["next"]), text(&old["items"][0]["id"]));
    let (middle, later) = (time(SPAN / 2), time(SPAN / 2 - SPAN / 20));
    let question = |name, below: &str, least| Question {
        name,
        below: below.to_owned(),
        least,
        found: 0,
        times: Series::default(),
        fault: None,
    };
    vec![
        question("the newest", "", 50),
        question("500 of the newest", "?limit=500", 500),
        question("second page", &format!("?cursor={second}"), 50),
        question("deep page", &format!("?cursor={deep}"), 50),
        question(GIVEN_UP, "?state=Exhausted", 5),
        question("tried again meanwhile", "?state=Retrying", 0),
        question("a rare type", "?type=rare", 50),
        question("a type that never was", "?type=never", 0),
        question("a span of time", &format!("?since={middle}&until={later}"), 50),
        question(
            "given up, of a rare type, since a time",
            &format!("?state=Exhausted&type=rare&since={middle}"),
            0,
        ),
        question("all attempts of an old event", &format!("/{one}"), 1),
    ]
}

/// Writes the log; microseconds for each attempt, of the caller and the log's thread together.
fn write(path: &Path, lane: &Uid, attempts: u64, start: i64) -> f64 {
    let clock = Arc::new(Told(AtomicI64::new(start)));
    let settings = Settings {
        max_bytes: u64::MAX,
        waiting: usize::MAX,
        waiting_bytes: usize::MAX,
        ..Settings::new(path)
    };
    let told: Arc<dyn Clock> = Arc::<Told>::clone(&clock);
    let log = SqliteLog::start(settings, LogMetrics::default(), told).expect("a thread");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let one = Query {
        limit: 1,
        ..Query::default()
    };
    let mut took = Duration::ZERO;
    runtime.block_on(async {
        let size = attempts / PARTS;
        for part in 0..PARTS {
            let passed = SPAN * part.cast_signed() / PARTS.cast_signed();
            clock.0.store(start + passed, Ordering::Relaxed);
            let made: Vec<Record> = (part * size..(part + 1) * size)
                .map(|number| record(lane, number, clock.now()))
                .collect();
            let started = Instant::now();
            for record in made {
                log.record(record);
            }
            // Answered after what was recorded before.
            log.list(lane, one.clone()).await.expect("the log can be read");
            took += started.elapsed();
        }
        log.close().await;
    });
    took.as_secs_f64() * 1e6 / attempts as f64
}

/// Of a thousand attempts one gives up; of a hundred two belong to one event, which is delivered at the second.
fn record(lane: &Uid, number: u64, began: Timestamp) -> Record {
    let (state, seq) = match number % 100 {
        0 if number.is_multiple_of(1000) => (State::Exhausted, number),
        1 => (State::Retrying, number),
        2 => (State::Delivered, number - 1),
        _ => (State::Delivered, number),
    };
    let failed = state != State::Delivered;
    let rare = seq.is_multiple_of(97);
    Record {
        lane: lane.clone(),
        event_id: id(seq, began),
        event_type: if rare { "rare" } else { "record_created" }.into(),
        seq,
        attempt: if number == seq { 1 } else { 2 },
        began,
        state,
        status: Some(if failed { 500 } else { 200 }),
        reason: if failed { "ServerError" } else { "" }.into(),
        message: if failed { "the receiver answered 500" } else { "" }.to_owned(),
        timings: Timings {
            first_byte: Some(Duration::from_millis(3)),
            total: Duration::from_millis(4),
            ..Timings::default()
        },
        headers: "content-type: application/json\nuser-agent: Postrider\nwebhook-id: \u{1}\n\
            webhook-timestamp: \u{1}\nwebhook-signature: [redacted]\n"
            .into(),
        excerpt: Some("ok".to_owned()),
        next_attempt: None,
        replayed: false,
    }
}

/// The id of an event that was accepted then.
fn id(seq: u64, accepted: Timestamp) -> EventId {
    let mut rest = [0; 10];
    rest[2..].copy_from_slice(&seq.to_be_bytes());
    let millis = accepted.as_millisecond().cast_unsigned();
    EventId::from_uuid(uuid::Builder::from_unix_timestamp_millis(millis, &rest).into_uuid())
}

/// Milliseconds that the same question takes as a scan of the whole file, for comparison.
fn scan(path: &Path) -> Series {
    let file = rusqlite::Connection::open(path).expect("the log was written");
    let mut statement = file
        .prepare(
            "SELECT * FROM attempts NOT INDEXED WHERE +state = 2 ORDER BY began DESC, number DESC LIMIT 50",
        )
        .expect("the log has this table");
    let times = (0..TIMES).map(|_| {
        let started = Instant::now();
        let rows = statement.query_map([], |_| Ok(())).expect("it can be read");
        assert!(rows.count() > 0, "the log has attempts that gave up");
        started.elapsed().as_secs_f64() * 1e3
    });
    Series(times.collect())
}
