//! The loader: publishes events over a fixed number of kept-alive connections and measures acknowledgements.
//!
//! Closed loop: each connection publishes as soon as its last event is acknowledged; this finds the ceiling.
//! Paced: each connection has a timetable that does not wait for anybody, and latency counts from the planned
//! time, so a stall shows in every event it delays (no coordinated omission). Pacing uses a thread for each
//! connection, because a thread wakes up 20 times more precisely than a timer of the async runtime.
//!
//! The bearer token comes from the environment, so that it is in no list of processes.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wire::{self, Latency};

/// The variable that holds the bearer token.
pub(crate) const TOKEN: &str = "POSTRIDER_BENCH_TOKEN";

/// What to publish, and how.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Load {
    /// Where to publish.
    #[arg(long)]
    pub(crate) target: SocketAddr,
    /// Path of the request.
    #[arg(long)]
    pub(crate) path: String,
    /// Type of the events.
    #[arg(long, default_value = "bench.event")]
    pub(crate) event_type: String,
    /// Number of types: each event gets the next one, `TYPE.0000`, `TYPE.0001`, …; 0 for the type as it is.
    #[arg(long, default_value_t = 0)]
    pub(crate) types: u64,
    /// Number of keys: each event's `data.key` is the next one, `k0000`, `k0001`, …; 0 for no such member.
    #[arg(long, default_value_t = 0)]
    pub(crate) keys: u64,
    /// Events in all.
    #[arg(long)]
    pub(crate) count: u64,
    /// Events in each request.
    #[arg(long, default_value_t = 1)]
    pub(crate) batch: u64,
    /// Bytes of each event's `data`.
    #[arg(long, default_value_t = 200)]
    pub(crate) data_bytes: usize,
    /// Connections.
    #[arg(long, default_value_t = 64)]
    pub(crate) connections: u64,
    /// Requests per second; absent for a closed loop.
    #[arg(long)]
    pub(crate) rate: Option<f64>,
    /// Stops after so many seconds, even if events are left.
    #[arg(long, default_value_t = 30)]
    pub(crate) limit: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Loaded {
    /// Events that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Deliveries that the acknowledgements promise.
    pub(crate) deliveries: u64,
    /// Requests that were not acknowledged, by status code or error.
    pub(crate) refused: BTreeMap<String, u64>,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// From the request's (planned) sending to its answer.
    pub(crate) latency: Latency,
    #[serde(skip)]
    samples: Vec<u32>,
}

impl Load {
    /// A closed loop of one-event requests with 200-byte data.
    pub(crate) fn closed(target: SocketAddr, path: &str, count: u64) -> Self {
        Self {
            target,
            path: path.to_owned(),
            event_type: "bench.event".to_owned(),
            types: 0,
            keys: 0,
            count,
            batch: 1,
            data_bytes: 200,
            connections: 64,
            rate: None,
            limit: 30,
        }
    }

    /// The arguments that make a process do this.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec!["loader".to_owned()];
        let mut add = |name: &str, value: String| arguments.extend([format!("--{name}"), value]);
        add("target", self.target.to_string());
        add("path", self.path.clone());
        add("event-type", self.event_type.clone());
        add("types", self.types.to_string());
        add("keys", self.keys.to_string());
        add("count", self.count.to_string());
        add("batch", self.batch.to_string());
        add("data-bytes", self.data_bytes.to_string());
        add("connections", self.connections.to_string());
        add("limit", self.limit.to_string());
        if let Some(rate) = self.rate {
            add("rate", rate.to_string());
        }
        arguments
    }

    /// Publishes and prints what came of it as JSON.
    pub(crate) fn run(&self) {
        let token = std::env::var(TOKEN).unwrap_or_default();
        let start = Instant::now();
        let mut loaded = if self.rate.is_some() {
            self.paced(&token)
        } else {
            self.closed_loop(&token)
        };
        loaded.seconds = start.elapsed().as_secs_f64();
        loaded.latency = Latency::of(&mut loaded.samples);
        println!("{}", serde_json::to_string(&loaded).expect("plain numbers"));
    }

    fn closed_loop(&self, token: &str) -> Loaded {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let local = tokio::task::LocalSet::new();
        let (next, loaded) = (Rc::new(RefCell::new(0)), Rc::new(RefCell::new(Loaded::default())));
        local.block_on(&runtime, async {
            let deadline = Instant::now() + Duration::from_secs(self.limit);
            let connections = (0..self.connections).map(|_| {
                let connection = Closed {
                    request: Request::new(self, token),
                    load: self.clone(),
                    next: Rc::clone(&next),
                    loaded: Rc::clone(&loaded),
                    deadline,
                };
                tokio::task::spawn_local(connection.run())
            });
            let all = futures::future::join_all(connections.collect::<Vec<_>>());
            // An answer that never comes must not hold the benchmark.
            let patience = Duration::from_secs(self.limit + 10);
            if tokio::time::timeout(patience, all).await.is_err() {
                loaded.borrow_mut().refuse("no answer");
            }
        });
        loaded.take()
    }

    fn paced(&self, token: &str) -> Loaded {
        let rate = self.rate.unwrap_or(1.0);
        let (start, start_ns) = (
            Instant::now() + Duration::from_millis(50),
            wire::epoch_ns() + 50_000_000,
        );
        let parts: Vec<Loaded> = std::thread::scope(|scope| {
            let threads = (0..self.connections).map(|connection| {
                scope.spawn(move || {
                    let mut paced = Paced {
                        request: Request::new(self, token),
                        load: self,
                        stream: None,
                    };
                    let mut loaded = Loaded::default();
                    for index in (connection..self.count).step_by(self.connections as usize) {
                        let planned = Duration::from_secs_f64(index as f64 / rate);
                        if planned > Duration::from_secs(self.limit) {
                            break;
                        }
                        std::thread::sleep((start + planned).saturating_duration_since(Instant::now()));
                        let sent = start_ns + planned.as_nanos() as u64;
                        paced.publish(index, sent, &mut loaded);
                    }
                    loaded
                })
            });
            let threads: Vec<_> = threads.collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("a loader thread"))
                .collect()
        });
        let mut all = Loaded::default();
        for part in parts {
            all.acknowledged += part.acknowledged;
            all.deliveries += part.deliveries;
            all.samples.extend(part.samples);
            for (reason, count) in part.refused {
                *all.refused.entry(reason).or_default() += count;
            }
        }
        all
    }
}

impl Loaded {
    fn refuse(&mut self, reason: &str) {
        *self.refused.entry(reason.to_owned()).or_default() += 1;
    }

    fn record(&mut self, events: u64, sent: u64, answer: &[u8]) {
        let status = wire::second_word(answer);
        if status == "202" {
            self.acknowledged += events;
            self.deliveries += promised(answer);
            self.samples
                .push(wire::sample(wire::epoch_ns().saturating_sub(sent)));
        } else {
            self.refuse(status);
        }
    }
}

/// The sum of all `"deliveries"` of an answer.
fn promised(mut answer: &[u8]) -> u64 {
    const KEY: &[u8] = b"\"deliveries\":";
    let mut sum = 0;
    while let Some(at) = wire::find(answer, KEY) {
        sum += wire::number_after(&answer[at..], KEY).unwrap_or(0);
        answer = &answer[at + KEY.len()..];
    }
    sum
}

/// Makes the bytes of requests; all of one load have the same length.
struct Request {
    head: Vec<u8>,
    padding: String,
    bytes: Vec<u8>,
    body: String,
}

impl Request {
    fn new(load: &Load, token: &str) -> Self {
        let key = if load.keys > 0 {
            r#""key":"k0000","#.len()
        } else {
            0
        };
        let empty = format!("{{\"sent\":{},\"pad\":\"\"}}", wire::epoch_ns()).len() + key;
        let padding = "0123456789abcdef"
            .chars()
            .cycle()
            .take(load.data_bytes.saturating_sub(empty))
            .collect();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n",
            load.path, load.target
        );
        Self {
            head: head.into_bytes(),
            padding,
            bytes: Vec::new(),
            body: String::new(),
        }
    }

    /// The request with the events `index` and following.
    fn bytes(&mut self, load: &Load, index: u64, sent: u64) -> &[u8] {
        use std::fmt::Write as _;

        self.body.clear();
        let events = load.batch.min(load.count - index);
        for event in index..index + events {
            self.body.push(if event > index { ',' } else { '[' });
            write!(self.body, "{{\"type\":\"{}", load.event_type).unwrap();
            if load.types > 0 {
                write!(self.body, ".{:04}", event % load.types).unwrap();
            }
            write!(self.body, "\",\"data\":{{\"sent\":{sent},").unwrap();
            if load.keys > 0 {
                write!(self.body, "\"key\":\"k{:04}\",", event % load.keys).unwrap();
            }
            write!(self.body, "\"pad\":\"{}\"}}}}", self.padding).unwrap();
        }
        self.body.push(']');
        let body = if load.batch == 1 {
            &self.body[1..self.body.len() - 1]
        } else {
            &self.body
        };
        self.bytes.clear();
        self.bytes.extend_from_slice(&self.head);
        write!(self.bytes, "content-length: {}\r\n\r\n", body.len()).unwrap();
        self.bytes.extend_from_slice(body.as_bytes());
        &self.bytes
    }
}

/// One connection of a closed loop.
struct Closed {
    load: Load,
    request: Request,
    next: Rc<RefCell<u64>>,
    loaded: Rc<RefCell<Loaded>>,
    deadline: Instant,
}

impl Closed {
    async fn run(mut self) {
        while let Err(error) = self.connected().await {
            self.loaded.borrow_mut().refuse(&error.kind().to_string());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Publishes over one connection: `Ok` when the work is done, `Err` when a new connection is needed.
    async fn connected(&mut self) -> io::Result<()> {
        if Instant::now() >= self.deadline {
            return Ok(());
        }
        let mut stream = tokio::net::TcpStream::connect(self.load.target).await?;
        stream.set_nodelay(true)?;
        let mut answer = Vec::with_capacity(16 * 1024);
        loop {
            let index = *self.next.borrow();
            if index >= self.load.count || Instant::now() >= self.deadline {
                return Ok(());
            }
            *self.next.borrow_mut() += self.load.batch;
            let sent = wire::epoch_ns();
            stream
                .write_all(self.request.bytes(&self.load, index, sent))
                .await?;
            answer.clear();
            while !complete(&answer)? {
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let accepted = wire::second_word(&answer) == "202";
            self.loaded.borrow_mut().record(self.load.batch, sent, &answer);
            if !accepted {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}

/// One connection of a paced load.
struct Paced<'a> {
    load: &'a Load,
    request: Request,
    stream: Option<std::net::TcpStream>,
}

impl Paced<'_> {
    fn publish(&mut self, index: u64, sent: u64, loaded: &mut Loaded) {
        match self.exchange(index, sent) {
            Ok(answer) => loaded.record(1, sent, &answer),
            Err(error) => {
                self.stream = None;
                loaded.refuse(&error.kind().to_string());
            }
        }
    }

    fn exchange(&mut self, index: u64, sent: u64) -> io::Result<Vec<u8>> {
        if self.stream.is_none() {
            let stream = std::net::TcpStream::connect(self.load.target)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            self.stream = Some(stream);
        }
        let Some(stream) = &mut self.stream else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        stream.write_all(self.request.bytes(self.load, index, sent))?;
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        while !complete(&answer)? {
            let length = stream.read(&mut part)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            answer.extend_from_slice(&part[..length]);
        }
        Ok(answer)
    }
}

fn complete(answer: &[u8]) -> io::Result<bool> {
    let frame = wire::frame(answer).map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))?;
    Ok(frame.is_some_and(|frame| frame.length() <= answer.len()))
}
