//! The stage of the scenarios: it starts a system, drives a flow of events through it, and keeps what was found.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Options;
use crate::loader::{self, Load, Loaded};
use crate::machine;
use crate::process::{self, Helper};
use crate::product::Product;
use crate::receiver::Stats;
use crate::report::{self, Row, Series, Unit};
use crate::system::{self, Kind, Running, Setup};
use crate::wire::Latency;

/// Longest wait for deliveries after the last acknowledgement.
const DRAIN: Duration = Duration::from_secs(60);

/// Everything a scenario works with.
pub(crate) struct Stage {
    options: Options,
    data: tempfile::TempDir,
    receiver: Helper,
    address: SocketAddr,
    /// Where the receiver takes mails.
    pub(crate) post: SocketAddr,
    pub(crate) product: Option<Product>,
    /// Bytes that a delivered body of Postrider has more than the published one.
    envelope: usize,
    pub(crate) rows: Vec<Row>,
    /// Further tables, with their headings.
    pub(crate) tables: Vec<String>,
    notes: Vec<String>,
}

/// What one measurement of a flow of events found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flow {
    pub(crate) rate: f64,
    pub(crate) acknowledgement: Latency,
    pub(crate) end_to_end: Latency,
    /// Milliseconds of processor time for each delivery.
    pub(crate) cpu: f64,
    /// Bytes that a delivered body has more than the published one.
    envelope: usize,
}

/// Flows of each round.
#[derive(Default)]
pub(crate) struct Flows(pub(crate) Vec<Flow>);

impl Flows {
    pub(crate) fn series(&self, figure: impl Fn(&Flow) -> f64) -> Series {
        Series(self.0.iter().map(figure).collect())
    }
}

impl Stage {
    /// A stage with its receiver, and with the product where that is measured.
    pub(crate) fn new(options: &Options) -> Self {
        let receiver = Helper::start(&["receiver"]);
        let [address, post] = system::receiver_addresses(&receiver);
        Self {
            options: options.clone(),
            data: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo's folder for benchmarks"),
            receiver,
            address,
            post,
            product: options
                .system
                .is_none_or(|kind| kind == Kind::Postrider)
                .then(|| Product::new(options)),
            envelope: 190,
            rows: Vec::new(),
            tables: Vec::new(),
            notes: Vec::new(),
        }
    }

    pub(crate) fn sized(&self, full: u64, quick: u64) -> u64 {
        if self.options.quick { quick } else { full }
    }

    pub(crate) fn note(&mut self, note: &str) {
        eprintln!("  {note}");
        self.notes.push(note.to_owned());
    }

    fn measures(&self, kind: Kind) -> bool {
        self.options.system.is_none_or(|only| only == kind)
    }

    pub(crate) fn round_count(&self) -> usize {
        self.options
            .rounds
            .unwrap_or(if self.options.quick { 1 } else { 5 })
    }

    /// Measures both systems in turn, round by round.
    pub(crate) fn rounds(
        &mut self,
        setup: &Setup,
        mut measure: impl FnMut(&mut Self, &Running) -> Flow,
    ) -> [Flows; 2] {
        let mut flows = [Flows::default(), Flows::default()];
        self.apply(setup);
        for round in 1..=self.round_count() {
            for (kind, flows) in [Kind::Postrider, Kind::Bare].into_iter().zip(&mut flows) {
                if self.measures(kind) {
                    let running = self.start(kind, setup);
                    let flow = measure(self, &running);
                    eprintln!("  round {round}, {}: {}", kind.name(), flow.written());
                    // From Postrider's deliveries: the baseline's have the same length.
                    if kind == Kind::Postrider {
                        self.envelope = flow.envelope;
                    }
                    flows.0.push(flow);
                }
            }
        }
        flows
    }

    /// Measures Postrider alone, round by round.
    pub(crate) fn ours(
        &mut self,
        rounds: usize,
        setup: &Setup,
        mut measure: impl FnMut(&mut Self, &Running),
    ) {
        if !self.measures(Kind::Postrider) {
            return;
        }
        self.apply(setup);
        for _ in 0..rounds {
            let running = self.start(Kind::Postrider, setup);
            measure(self, &running);
        }
    }

    /// Where a scenario may put files of its own.
    pub(crate) fn folder(&self) -> &Path {
        self.data.path()
    }

    pub(crate) fn apply(&self, setup: &Setup) {
        if let Some(product) = &self.product {
            product.apply(setup, self.address);
        }
    }

    /// Starts a system and waits until an event of each type goes to everybody who wants it.
    fn start(&mut self, kind: Kind, setup: &Setup) -> Running {
        let data: PathBuf = self.data.path().to_owned();
        let running = match (kind, &mut self.product) {
            (Kind::Postrider, Some(product)) => product.start(setup, &data),
            _ => Running::bare(setup, self.address, self.envelope, &data),
        };
        self.reset();
        if kind == Kind::Postrider {
            let primed = self.prime(setup, &running);
            self.await_count("total", primed);
        }
        running
    }

    /// Forgets what the receiver got.
    pub(crate) fn reset(&mut self) {
        self.receiver.ask("reset");
    }

    /// The last mail that the receiver got, as it was said on the wire.
    pub(crate) fn last_mail(&mut self) -> String {
        serde_json::from_str(&self.receiver.ask("mail")).expect("a string")
    }

    /// Publishes until an event of each type goes to everybody who wants it; answers how many deliveries that makes.
    fn prime(&mut self, setup: &Setup, running: &Running) -> u64 {
        let started = Instant::now();
        let mut types: Vec<&str> = setup
            .destinations
            .iter()
            .map(|destination| destination.events.as_str())
            .collect();
        types.sort_unstable();
        types.dedup();
        // A hanging receiver must not have anything before its time; it becomes ready with its neighbour.
        types.retain(|name| !name.starts_with("hang"));
        let mut load = Load::closed(running.target, &running.path, types.len() as u64);
        load.connections = 4;
        if types.len() > 1 {
            load.types = types.len() as u64;
        }
        let expected = setup
            .destinations
            .iter()
            .filter(|destination| types.contains(&destination.events.as_str()));
        let expected = expected.count() as u64;
        let suspended = setup.destinations.iter().any(|destination| destination.suspend);
        let mut primed = 0;
        loop {
            let loaded = load_quietly(running, &load);
            primed += if suspended { 0 } else { loaded.deliveries };
            if loaded.deliveries >= expected {
                return primed;
            }
            if started.elapsed() > Duration::from_secs(30) {
                let project = setup.project;
                self.note(&format!(
                    "{project}: {} of {expected} destinations take events",
                    loaded.deliveries
                ));
                return primed;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Warms up, then measures.
    pub(crate) fn flow(&mut self, running: &Running, group: &str, load: &Load) -> Flow {
        self.warm_up(running, group, load);
        self.flow_without_warm_up(running, group, load)
    }

    /// A tenth of a load, at least 1,000 events, until all of it is delivered.
    pub(crate) fn warm_up(&mut self, running: &Running, group: &str, load: &Load) {
        let mut warm_up = load.clone();
        warm_up.count = (load.count / 10).max(1000).min(load.count);
        warm_up.rate = None;
        self.reset();
        let loaded = self.load(running, &warm_up);
        self.drain(group, loaded.deliveries);
    }

    pub(crate) fn flow_without_warm_up(&mut self, running: &Running, group: &str, load: &Load) -> Flow {
        self.reset();
        let before = process::cpu(running.pid);
        let loaded = self.load(running, load);
        let arrived = self.drain(group, loaded.deliveries);
        let cpu = process::cpu(running.pid).saturating_sub(before);
        let stats = self.stats(group);
        let published = load.data_bytes + load.event_type.len() + r#"{"type":"","data":}"#.len();
        Flow {
            rate: stats.count as f64 / stats.seconds.max(1e-9),
            acknowledgement: loaded.latency,
            end_to_end: stats.latency,
            cpu: cpu.as_secs_f64() * 1000.0 / (arrived as f64).max(1.0),
            envelope: (stats.body_bytes as usize).saturating_sub(published),
        }
    }

    /// Publishes and does something else meanwhile; deliveries per second until either is done, and what the other
    /// work found.
    pub(crate) fn during<T: Send>(
        &mut self,
        running: &Running,
        group: &str,
        load: &Load,
        work: impl FnOnce() -> T + Send,
    ) -> (f64, T) {
        self.reset();
        let (arguments, token) = (load.arguments(), running.token.as_str());
        let (rate, loaded, found) = std::thread::scope(|scope| {
            let start = Instant::now();
            let loading = scope.spawn(move || process::run_to_end(&arguments, (loader::TOKEN, token)));
            let working = scope.spawn(work);
            while !loading.is_finished() && !working.is_finished() {
                std::thread::sleep(Duration::from_millis(10));
            }
            let rate = self.count(&format!("count {group}")) as f64 / start.elapsed().as_secs_f64();
            let loaded: Loaded = loading.join().expect("the loader ends");
            (rate, loaded, working.join().expect("the other work ends"))
        });
        self.note_refused(running, &loaded);
        self.drain(group, loaded.deliveries);
        (rate, found)
    }

    /// Publishes; says what was refused.
    pub(crate) fn load(&mut self, running: &Running, load: &Load) -> Loaded {
        let loaded = load_quietly(running, load);
        self.note_refused(running, &loaded);
        loaded
    }

    fn note_refused(&mut self, running: &Running, loaded: &Loaded) {
        if !loaded.refused.is_empty() {
            self.note(&format!(
                "{}: requests not acknowledged: {:?}",
                running.path, loaded.refused
            ));
        }
    }

    /// Waits until a group has so many requests or time is up, which is noted; returns how many it has.
    pub(crate) fn drain(&mut self, group: &str, wanted: u64) -> u64 {
        let arrived = self.await_count(&format!("count {group}"), wanted);
        if arrived < wanted {
            self.note(&format!(
                "{group}: {arrived} of {wanted} deliveries arrived in time"
            ));
        }
        arrived
    }

    fn await_count(&mut self, question: &str, wanted: u64) -> u64 {
        let start = Instant::now();
        loop {
            let count = self.count(question);
            if count >= wanted || start.elapsed() > DRAIN {
                return count;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn count(&mut self, question: &str) -> u64 {
        self.receiver.ask(question).parse().expect("a number")
    }

    pub(crate) fn stats(&mut self, group: &str) -> Stats {
        serde_json::from_str(&self.receiver.ask(&format!("stats {group}"))).expect("statistics")
    }

    pub(crate) fn latency_rows(&mut self, what: &str, ours: &Flows, bare: &Flows) {
        let row = |figure: &str, of: fn(&Flow) -> f64| {
            Row::new(
                &format!("{what}: {figure}"),
                &ours.series(of),
                &bare.series(of),
                &Unit::MS,
            )
        };
        let rows = [
            row("acknowledgement p50", |flow| flow.acknowledgement.p50),
            row("acknowledgement p99", |flow| flow.acknowledgement.p99),
            row("end to end p50", |flow| flow.end_to_end.p50),
            row("end to end p99", |flow| flow.end_to_end.p99),
        ];
        self.rows.extend(rows);
    }

    /// The page: machine, command, table, how to read it.
    pub(crate) fn document(&self) -> String {
        let arguments: Vec<String> = std::env::args()
            .skip(1)
            .filter(|argument| argument != "--bench")
            .collect();
        let dashes = if arguments.is_empty() { "" } else { " -- " };
        let mut notes = String::new();
        if !self.notes.is_empty() {
            notes = format!("\nNot as it should be:\n\n- {}\n", self.notes.join("\n- "));
        }
        let envelope = self.envelope;
        format!(
            "# Benchmarks\n\n\
             Written by `cargo bench --bench loop{dashes}{}`.\n\
             Load generator, receiver and system share this machine:\n\n{}\n{}{}{notes}\n{}",
            arguments.join(" "),
            machine::describe(self.data.path()),
            report::table(&self.rows),
            self.tables.concat(),
            EXPLANATION.replace("ENVELOPE", &envelope.to_string()),
        )
    }
}

fn load_quietly(running: &Running, load: &Load) -> Loaded {
    process::run_to_end(&load.arguments(), (loader::TOKEN, &running.token))
}

/// How to read the table.
const EXPLANATION: &str = "\
## How it is measured

- Everything runs on loopback. A figure is the median of the rounds, its range in parentheses; in each round both \
systems are measured one after the other, each started anew, and a ratio is the median of the rounds' ratios.
- *bare* is HTTP in (hyper) → append and `fdatasync` for all events that wait (at most 512 at once) → 202 → HTTP out \
(hyper) over kept-alive connections. No authentication, parsing, matching, signature, retry or record of the \
outcome. Its delivered bodies are ENVELOPE bytes longer than the published ones, as Postrider's are.
- Postrider is the release binary with a Standard Webhooks signature on each delivery, its log in JSON, configured \
through a real API server. Both acknowledge only what is synced to disk.
- Closed loop: 64 connections that publish one event at a time, 200 bytes of `data`; at most 64 requests in flight to \
a single destination, 16 to each of several. A rate is what the receiver got, divided by the time from the first \
arrival to the last.
- Paced: latency counts from the planned time of sending, so a stall shows in every event it delays.
- CPU is user and system time of all threads of the system, load generator and receiver not included.
- Memory is `VmRSS`. Queued events belong to a suspended destination.
- *of plain*, *of unordered*, *of before*: the ratio is to Postrider itself in the same process and round, where the \
two take turns.
- Mails: events are published a hundred at a time; mails go to a sink without TLS and authentication, over at most 10 \
connections. The bare SMTP client says the last of these mails again and again over 10 connections, and does nothing \
else. A rate is from the first mail that the sink has to the last.
- Replay: from the first request to `POST …/deliveries:replay` until the receiver has all events once more.
- Rotation: the annotation is written to a thousand destinations, and the API server shares the machine, too. New keys \
are published only after the destinations' timeout, here 2 s.
- Delivery log: all attempts are of one destination; the time is that of a whole request to the read API, the token's \
check included. In parentheses behind a question: items in the answer. *bare* is a scan of the same file by SQLite.
- Body formats: one thread, nothing but the rendering; the events are the examples of all built-in types.
";

impl Flow {
    pub(crate) fn written(&self) -> String {
        let Self {
            rate,
            acknowledgement,
            end_to_end,
            cpu,
            envelope: _,
        } = self;
        format!(
            "{rate:.0}/s, acknowledgement p50 {:.2} p99 {:.2} ms, end to end p50 {:.2} p99 {:.2} ms, CPU {cpu:.4} ms",
            acknowledgement.p50, acknowledgement.p99, end_to_end.p50, end_to_end.p99
        )
    }
}
