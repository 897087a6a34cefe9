//! What was acknowledged survives `kill -9`.
//!
//! The real binary is killed at random moments while several connections publish and two destinations take
//! deliveries, and is started again on the same data. The receiver keeps a ledger: what came where, in which life of
//! the process, with which id and with which bytes. From it follow the promises: nothing acknowledged is lost, what
//! comes twice was in flight at a kill and has the same id, no event reaches one destination and not the other, and
//! deliveries go on soon after a start.
//!
//! `POSTRIDER_CRASH_ROUNDS` sets the number of kills (25), `POSTRIDER_CRASH_SEED` repeats a run's moments.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{Operator, Stage, eventually, http_client};

/// Where the two destinations send to.
const PATHS: [&str; 2] = ["/one", "/two"];
/// A path whose requests are not booked.
const PROBE: &str = "/probe";
/// Most requests at once to each of them; what was in flight at a kill is at most this for each.
const IN_FLIGHT: usize = 8;
/// Connections that publish.
const PUBLISHERS: usize = 6;
/// Events that each of them publishes in one life of the process: a stall must not pile up a backlog of minutes.
const MOST_PUBLISHED: usize = 60;
/// A wait that takes this long is a hang, not slowness.
const HANG: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let rounds: usize = setting("POSTRIDER_CRASH_ROUNDS").unwrap_or(25);
    let seed = setting("POSTRIDER_CRASH_SEED").unwrap_or_else(rand::random);
    eprintln!("crash: POSTRIDER_CRASH_SEED={seed} POSTRIDER_CRASH_ROUNDS={rounds}");
    let start = Instant::now();
    let mut dice = Dice(seed);

    let mut stage = Stage::set("crash").await;
    let ledger = Arc::new(Ledger::default());
    let receiver = serve(Arc::clone(&ledger)).await;
    for path in PATHS {
        let url = format!("http://{receiver}{path}");
        let more = json!({
            "webhook": {"url": url},
            // An attempt that a kill of the operator spoils is not the receiver's failure, but should one be counted,
            // the test must not wait for hours.
            "delivery": {"maxInFlight": IN_FLIGHT, "retry": {"schedule": ["200ms"], "maxAttempts": 100}},
        });
        stage.destination(path.trim_matches('/'), path, &more);
    }
    let publishing = Arc::new(Publishing {
        client: http_client(),
        token: stage.secret("acme-publish-token", "token").await,
        next: AtomicU64::new(0),
        acknowledged: Mutex::default(),
        refused: Mutex::default(),
    });

    let mut settings = stage.take_operator().kill();
    let mut resumed = Vec::new();
    for round in 1..=rounds {
        ledger.begin_life(receiver, round).await;
        let pending = ledger.missing(&publishing.acknowledged.lock());
        let started = Instant::now();
        let operator = Operator::spawn(settings);
        if dice.below(5) == 0 {
            // It is killed while it starts, wherever it is by then.
            tokio::time::sleep(Duration::from_millis(dice.below(400))).await;
            settings = operator.kill();
            continue;
        }
        operator.wait_ready().await;
        let stop = Arc::new(AtomicBool::new(false));
        let mut publishers = JoinSet::new();
        for _ in 0..PUBLISHERS {
            let url = operator.publish_url("acme");
            publishers.spawn(Arc::clone(&publishing).publish(url, Arc::clone(&stop)));
        }
        if !pending.is_empty() {
            let first = eventually("deliveries go on after a start", HANG, || async {
                ledger.first_arrival(&pending).ok_or_else(|| {
                    let (arrived, dues) = (ledger.arrivals.lock().len(), pending.len());
                    format!(
                        "round {round}: none of {dues}, {arrived} in all\n{}",
                        end_of(&operator.log())
                    )
                })
            });
            resumed.push(first.await.saturating_duration_since(started));
        }
        // It is killed under load, wherever it is by then.
        tokio::time::sleep(Duration::from_millis(20 + dice.below(500))).await;
        settings = operator.kill();
        stop.store(true, Ordering::Relaxed);
        publishers.join_all().await;
    }

    ledger.begin_life(receiver, rounds + 1).await;
    ledger.quick.store(true, Ordering::SeqCst);
    let acknowledged = publishing.acknowledged.lock().clone();
    let operator = Operator::launch(settings).await;
    let deadline = Instant::now() + Duration::from_secs(60);
    while !ledger.missing(&acknowledged).is_empty() && Instant::now() < deadline {
        // A poll; what is missing at its deadline is told below, with all that is known about it.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What was delivered and settled must not come again, so whatever comes has a moment to come.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let lost = ledger.missing(&acknowledged);
    let duplicates = ledger.duplicates.lock().clone();
    resumed.sort_unstable();
    eprintln!(
        "crash: {rounds} rounds, {} acknowledged, {} lost, {} duplicates (at most {} of one kill, bound {}), \
         resumed after {} ms (median) to {} ms (longest of {}), refused {:?}, {:.1} s",
        acknowledged.len(),
        lost.len(),
        duplicates.values().sum::<usize>(),
        duplicates.values().max().unwrap_or(&0),
        IN_FLIGHT * PATHS.len(),
        resumed.get(resumed.len() / 2).map_or(0, Duration::as_millis),
        resumed.last().map_or(0, Duration::as_millis),
        resumed.len(),
        publishing.refused.lock(),
        start.elapsed().as_secs_f64(),
    );
    let log = end_of(&operator.log());
    assert!(lost.is_empty(), "lost: {lost:?}\n{log}");
    assert_eq!(*ledger.faults.lock(), Vec::<String>::new(), "{log}");
    assert!(
        duplicates.values().all(|&count| count <= IN_FLIGHT * PATHS.len()),
        "{duplicates:?}"
    );
    assert!(
        acknowledged.len() > rounds,
        "hardly anything was published: {:?}\n{log}",
        publishing.refused.lock()
    );
}

/// What went wrong in a log, and its last lines.
fn end_of(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let (before, end) = lines.split_at(lines.len().saturating_sub(20));
    let loud = |line: &&&str| line.contains("\"WARN\"") || line.contains("\"ERROR\"");
    let loud: Vec<&str> = before.iter().filter(loud).copied().take(100).collect();
    format!("{}\n…\n{}", loud.join("\n"), end.join("\n"))
}

fn setting<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().map(|value| {
        value
            .parse()
            .unwrap_or_else(|_| panic!("{name}={value} is no number"))
    })
}

/// Random numbers that a seed repeats (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The data of event number `n`: what arrives is compared with it, byte by byte.
fn data(n: u64) -> Value {
    let mut dice = Dice(n);
    let words = 4 + dice.below(40);
    let text: Vec<String> = (0..words).map(|_| format!("{:016x}", dice.next())).collect();
    json!({"n": n, "text": text.join(" ")})
}

/// What the publishers share.
struct Publishing {
    client: reqwest::Client,
    token: String,
    next: AtomicU64,
    /// Event number to the id that was answered.
    acknowledged: Mutex<BTreeMap<u64, String>>,
    /// Answers other than 202.
    refused: Mutex<BTreeMap<u16, usize>>,
}

impl Publishing {
    /// Publishes one event after the other until told to stop, or until it was enough.
    async fn publish(self: Arc<Self>, url: String, stop: Arc<AtomicBool>) {
        for _ in 0..MOST_PUBLISHED {
            if stop.load(Ordering::Relaxed) {
                return;
            }
            let n = self.next.fetch_add(1, Ordering::Relaxed);
            let body = json!({"type": "crash.event", "data": data(n)}).to_string();
            let request = self.client.post(&url).bearer_auth(&self.token);
            // Without an answer nobody knows whether the event was taken; both are right.
            if let Ok(response) = request
                .header("content-type", "application/json")
                .body(body)
                .send()
                .await
            {
                let status = response.status().as_u16();
                if status != 202 {
                    *self.refused.lock().entry(status).or_default() += 1;
                } else if let Ok(text) = response.text().await {
                    let answer: Value = serde_json::from_str(&text).expect("an answer is JSON");
                    let event = &answer["events"][0];
                    assert_eq!(event["deliveries"], PATHS.len(), "{answer}");
                    let id = event["id"].as_str().expect("an accepted event has an id");
                    self.acknowledged.lock().insert(n, id.to_owned());
                }
            }
            // The pace of a publisher, also while it is refused.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// What arrived.
#[derive(Default)]
struct Ledger {
    /// Which life of the process it is.
    life: AtomicUsize,
    /// Open connections.
    connections: AtomicUsize,
    /// Answer at once.
    quick: AtomicBool,
    /// By path and event number.
    arrivals: Mutex<HashMap<(usize, u64), Arrival>>,
    /// Second and further arrivals, by the life whose kill they were in flight at.
    duplicates: Mutex<BTreeMap<usize, usize>>,
    /// What must never happen.
    faults: Mutex<Vec<String>>,
}

struct Arrival {
    id: String,
    first: Instant,
    life: usize,
}

impl Ledger {
    /// Waits until everything that the last process sent is in the books, then counts for the next one.
    async fn begin_life(&self, receiver: SocketAddr, life: usize) {
        // Connections are accepted in order: once this one is answered, none of the dead process still waits.
        let probe = http_client()
            .get(format!("http://{receiver}{PROBE}"))
            .send()
            .await;
        drop(probe.expect("the receiver answers"));
        eventually("the killed process's connections end", HANG, || async {
            match self.connections.load(Ordering::SeqCst) {
                0 => Ok(()),
                open => Err(format!("{open} are open")),
            }
        })
        .await;
        self.life.store(life, Ordering::SeqCst);
    }

    /// Books a request; its body is complete.
    fn record(&self, path: &str, id: &str, body: &[u8]) {
        let fault = |what: &str| {
            let body = String::from_utf8_lossy(body);
            self.faults.lock().push(format!("{path} {id}: {what}: {body}"));
        };
        let Some(lane) = PATHS.iter().position(|known| *known == path) else {
            return fault("no such path");
        };
        let Ok(event) = serde_json::from_slice::<Value>(body) else {
            return fault("not JSON");
        };
        let Some(n) = event["data"]["n"].as_u64() else {
            return fault("no number");
        };
        if event["type"] != "crash.event" || event["data"] != data(n) {
            return fault("not what was published");
        }
        let life = self.life.load(Ordering::SeqCst);
        let mut arrivals = self.arrivals.lock();
        let Some(before) = arrivals.get_mut(&(lane, n)) else {
            arrivals.insert(
                (lane, n),
                Arrival {
                    id: id.to_owned(),
                    first: Instant::now(),
                    life,
                },
            );
            return;
        };
        if before.id != id {
            fault(&format!("came before with id {}", before.id));
        }
        if before.life == life {
            fault("came twice from one life of the process");
        }
        *self.duplicates.lock().entry(before.life).or_default() += 1;
        before.life = life;
    }

    /// What has not arrived: everything acknowledged must reach each destination under the id that was answered, and
    /// whatever reached one of them, acknowledged or not, must reach the other.
    fn missing(&self, acknowledged: &BTreeMap<u64, String>) -> Vec<(usize, u64)> {
        let arrivals = self.arrivals.lock();
        let mut due: Vec<u64> = acknowledged
            .keys()
            .copied()
            .chain(arrivals.keys().map(|(_, n)| *n))
            .collect();
        due.sort_unstable();
        due.dedup();
        let everywhere = due
            .into_iter()
            .flat_map(|n| (0..PATHS.len()).map(move |lane| (lane, n)));
        let arrived = |key: &(usize, u64)| {
            let Some(arrival) = arrivals.get(key) else {
                return false;
            };
            acknowledged.get(&key.1).is_none_or(|id| *id == arrival.id)
        };
        everywhere.filter(|key| !arrived(key)).collect()
    }

    /// When the first of these arrived.
    fn first_arrival(&self, wanted: &[(usize, u64)]) -> Option<Instant> {
        let arrivals = self.arrivals.lock();
        wanted
            .iter()
            .filter_map(|key| arrivals.get(key))
            .map(|arrival| arrival.first)
            .min()
    }
}

/// Starts the receiver: it books each request and answers 200 after 8 to 32 ms, so that something always
/// waits.
async fn serve(ledger: Arc<Ledger>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            ledger.connections.fetch_add(1, Ordering::SeqCst);
            let ledger = Arc::clone(&ledger);
            tokio::spawn(async move {
                let service = service_fn(|request| answer(&ledger, request));
                // A client that is killed hangs up; that is what this is about.
                drop(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await,
                );
                ledger.connections.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    address
}

async fn answer(ledger: &Ledger, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    // A request that was cut off did not arrive.
    if let Ok(body) = body.collect().await {
        let id = head
            .headers
            .get("webhook-id")
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default();
        let body = body.to_bytes();
        if head.uri.path() != PROBE {
            ledger.record(head.uri.path(), id, &body);
        }
        if !ledger.quick.load(Ordering::SeqCst) {
            // A receiver that takes its time has requests open when the kill comes.
            tokio::time::sleep(Duration::from_millis(8 + body.len() as u64 % 25)).await;
        }
    }
    Ok(Response::new(Full::new(Bytes::from_static(b"ok"))))
}

#[test]
fn the_ledger_sees_a_loss_a_change_and_an_event_that_came_too_often() {
    let body = |n: u64| json!({"type": "crash.event", "data": data(n)}).to_string();
    let ledger = Ledger::default();
    let acknowledged = BTreeMap::from([(1, "a".to_owned()), (2, "b".to_owned())]);
    ledger.record("/one", "a", body(1).as_bytes());
    ledger.record("/two", "a", body(1).as_bytes());
    ledger.record("/one", "x", body(2).as_bytes());
    ledger.record("/two", "c", body(3).as_bytes());
    // 2 came under another id and to one place only; 3 was not acknowledged, yet the other place lacks it.
    assert_eq!(ledger.missing(&acknowledged), [(0, 2), (1, 2), (0, 3)]);
    assert_eq!(*ledger.faults.lock(), [""; 0]);

    ledger.life.store(2, Ordering::SeqCst);
    ledger.record("/one", "a", body(1).as_bytes());
    assert_eq!(
        *ledger.duplicates.lock(),
        BTreeMap::from([(0, 1)]),
        "in flight when the first life ended"
    );
    assert_eq!(*ledger.faults.lock(), [""; 0]);

    ledger.record("/one", "a", body(1).as_bytes());
    ledger.record("/two", "other", body(1).as_bytes());
    ledger.record(
        "/two",
        "d",
        body(4).replace("crash.event", "crash.even!").as_bytes(),
    );
    ledger.record("/two", "e", &body(5).as_bytes()[..40]);
    let faults = ledger.faults.lock().join("\n");
    for fault in [
        "came twice from one life",
        "came before with id a",
        "not what was published",
        "not JSON",
    ] {
        assert!(faults.contains(fault), "{fault}: {faults}");
    }
}
