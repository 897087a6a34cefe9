//! The scenarios: what is measured, how often, and what was asked for.
//!
//! Each measurement starts its system anew, publishes until an event reaches every destination it should, warms up
//! until all of that is delivered, resets the receiver and only then counts. Every wait has an end; what did not
//! arrive by then is reported beside the table and fails the bar.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Options;
use crate::loader::{self, Load, Loaded};
use crate::machine;
use crate::process::{self, Helper};
use crate::product::Product;
use crate::receiver::Stats;
use crate::report::{self, Row, Series, Unit};
use crate::system::{self, Destination, Kind, Running, Setup};
use crate::wire::Latency;

/// A scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Name {
    /// Closed loop, one destination.
    Closed,
    /// Closed loop, ten destinations.
    Fanout,
    /// 500 events per second.
    Paced,
    /// A neighbour hangs.
    Hang,
    /// 20 kB of data.
    Large,
    /// Idle, and with a million queued events.
    Memory,
    /// 1,000 destinations, 10 events each.
    Many,
}

/// Measures and adds its rows to the stage's.
type Scenario = fn(&mut Stage);

/// Connections of the closed loops, and requests in flight to a single destination.
const CONNECTIONS: usize = 64;
/// Requests in flight to each of ten destinations.
const FANOUT_IN_FLIGHT: usize = 16;
/// Events per second of the paced scenarios.
const PACE: f64 = 500.0;
/// Longest wait for deliveries after the last acknowledgement.
const DRAIN: Duration = Duration::from_secs(60);

/// Everything a scenario works with.
struct Stage {
    options: Options,
    data: tempfile::TempDir,
    receiver: Helper,
    address: SocketAddr,
    product: Option<Product>,
    /// Bytes that a delivered body of Postrider has more than the published one.
    envelope: usize,
    /// Deliveries that the priming of the running system caused.
    primed: u64,
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// What one measurement of a flow of events found.
#[derive(Clone, Debug, Default)]
struct Flow {
    rate: f64,
    acknowledgement: Latency,
    end_to_end: Latency,
    /// Milliseconds of processor time for each delivery.
    cpu: f64,
}

/// Flows of each round.
#[derive(Default)]
struct Flows(Vec<Flow>);

impl Flows {
    fn series(&self, figure: impl Fn(&Flow) -> f64) -> Series {
        Series(self.0.iter().map(figure).collect())
    }
}

/// Runs what the options ask for, prints the table and writes it if asked.
pub(crate) fn run(options: &Options) {
    let start = Instant::now();
    let receiver = Helper::start(&["receiver"]);
    let address = system::receiver_address(&receiver);
    let mut stage = Stage {
        options: options.clone(),
        data: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("cargo's folder for benchmarks"),
        receiver,
        address,
        product: options
            .system
            .is_none_or(|kind| kind == Kind::Postrider)
            .then(|| Product::new(options)),
        envelope: 190,
        primed: 0,
        rows: Vec::new(),
        notes: Vec::new(),
    };
    let wanted = |name| options.only.is_empty() || options.only.contains(&name);
    let scenarios: [(Name, Scenario); 7] = [
        (Name::Closed, closed),
        (Name::Fanout, fan_out),
        (Name::Paced, paced),
        (Name::Hang, hang),
        (Name::Large, large),
        (Name::Memory, memory),
        (Name::Many, many),
    ];
    for (name, scenario) in scenarios {
        if wanted(name) {
            eprintln!("{name:?}: {:.0} s since the start", start.elapsed().as_secs_f64());
            scenario(&mut stage);
            if let Some(product) = &stage.product {
                product.remove_all();
            }
        }
    }
    let text = stage.document();
    println!("{text}");
    if options.write {
        let path = crate::repository_file("docs/benchmarks.md");
        std::fs::create_dir_all(path.parent().expect("in docs/")).expect("docs/ can be made");
        std::fs::write(&path, text).expect("docs/benchmarks.md can be written");
    }
}

/// Closed loop, one destination; processor time for each delivery.
fn closed(stage: &mut Stage) {
    let setup = Setup::uniform("closed", 1, CONNECTIONS);
    let count = stage.sized(150_000, 30_000);
    let [ours, bare] = stage.rounds(&setup, |stage, running| {
        let load = Load::closed(running.target, &running.path, count);
        stage.flow(running, "closed", &load)
    });
    let rate = ours.series(|flow| flow.rate);
    let share = rate.ratio(&bare.series(|flow| flow.rate));
    stage.rows.push(
        Row::new(
            "Closed loop, 1 destination: deliveries",
            &rate,
            &bare.series(|flow| flow.rate),
            &Unit::RATE,
        )
        .bar("≥ 20,000/s", rate.median().map(|rate| rate >= 20_000.0))
        .bar("≥ 60 % of bare", share.map(|share| share >= 0.60)),
    );
    stage.latency_rows("Closed loop, 1 destination", &ours, &bare);
    let cpu = ours.series(|flow| flow.cpu);
    stage.rows.push(
        Row::new(
            "CPU per delivery, closed loop",
            &cpu,
            &bare.series(|flow| flow.cpu),
            &Unit::CPU,
        )
        .bar("≤ 0.07 ms", cpu.median().map(|cpu| cpu <= 0.07)),
    );
}

/// Closed loop, each event to ten destinations.
fn fan_out(stage: &mut Stage) {
    let setup = Setup::uniform("fanout", 10, FANOUT_IN_FLIGHT);
    let count = stage.sized(30_000, 4_000);
    let [ours, bare] = stage.rounds(&setup, |stage, running| {
        let load = Load::closed(running.target, &running.path, count);
        stage.flow(running, "fanout", &load)
    });
    let rate = ours.series(|flow| flow.rate);
    let share = rate.ratio(&bare.series(|flow| flow.rate));
    stage.rows.push(
        Row::new(
            "Fan-out 1 → 10: deliveries",
            &rate,
            &bare.series(|flow| flow.rate),
            &Unit::RATE,
        )
        .bar("≥ 35,000/s", rate.median().map(|rate| rate >= 35_000.0))
        .bar("≥ 70 % of bare", share.map(|share| share >= 0.70)),
    );
    let (ours, bare) = (ours.series(|flow| flow.cpu), bare.series(|flow| flow.cpu));
    stage
        .rows
        .push(Row::new("CPU per delivery, fan-out", &ours, &bare, &Unit::CPU));
}

/// 500 events per second: latency of acknowledgement and delivery.
fn paced(stage: &mut Stage) {
    let setup = Setup::uniform("paced", 1, CONNECTIONS);
    let count = stage.sized(5_000, 1_500);
    let [ours, bare] = stage.rounds(&setup, |stage, running| {
        let mut load = Load::closed(running.target, &running.path, count);
        load.rate = Some(PACE);
        stage.flow(running, "paced", &load)
    });
    let row = |what: &str, figure: fn(&Flow) -> f64| {
        Row::new(
            &format!("Paced 500/s: {what}"),
            &ours.series(figure),
            &bare.series(figure),
            &Unit::MS,
        )
    };
    let acknowledged = ours.series(|flow| flow.acknowledgement.p99).median();
    let arrived = ours.series(|flow| flow.end_to_end.p99).median();
    let rows = [
        row("acknowledgement p50", |flow| flow.acknowledgement.p50),
        row("acknowledgement p99", |flow| flow.acknowledgement.p99)
            .bar("≤ 2 ms", acknowledged.map(|p99| p99 <= 2.0)),
        row("end to end p50", |flow| flow.end_to_end.p50),
        row("end to end p99", |flow| flow.end_to_end.p99).bar("≤ 3 ms", arrived.map(|p99| p99 <= 3.0)),
    ];
    stage.rows.extend(rows);
}

/// A paced destination, first alone, then beside one that hangs on 700 events.
fn hang(stage: &mut Stage) {
    /// Events that wait for the receiver that never answers.
    const QUEUED: u64 = 700;
    let destination = |path: &str, events: &str| Destination {
        name: path.trim_matches('/').replace('/', "-"),
        path: path.to_owned(),
        events: events.to_owned(),
        in_flight: CONNECTIONS,
        suspend: false,
    };
    let destinations = vec![
        destination("/neighbour/0", "bench.event"),
        destination("/hang/0", "hang.event"),
    ];
    let setup = Setup {
        project: "hang",
        destinations,
    };
    let count = stage.sized(5_000, 1_500);
    let (mut without, mut with) = (Flows::default(), Flows::default());
    stage.ours(stage.round_count(), &setup, |stage, running| {
        let mut load = Load::closed(running.target, &running.path, count);
        load.rate = Some(PACE);
        without.0.push(stage.flow(running, "neighbour", &load));
        let mut hanging = Load::closed(running.target, &running.path, QUEUED);
        "hang.event".clone_into(&mut hanging.event_type);
        let queued = stage.load(running, &hanging);
        if queued.deliveries < QUEUED {
            stage.note(&format!(
                "hang: only {} of {QUEUED} events were queued",
                queued.deliveries
            ));
        }
        with.0
            .push(stage.flow_without_warm_up(running, "neighbour", &load));
    });
    let (alone, beside) = (
        without.series(|flow| flow.end_to_end.p99),
        with.series(|flow| flow.end_to_end.p99),
    );
    let ratio = beside.ratio(&alone);
    let row = Row::new(
        "End to end p99 at 500/s alone",
        &alone,
        &Series::default(),
        &Unit::MS,
    );
    stage.rows.push(row);
    let mut row = Row::new(
        "… with 700 events queued to a hanging neighbour",
        &beside,
        &Series::default(),
        &Unit::MS,
    )
    .bar("≤ 2× alone", ratio.map(|ratio| ratio <= 2.0));
    row.ratio = ratio.map_or_else(
        || "–".to_owned(),
        |ratio| format!("{} alone", Unit::TIMES.write(ratio)),
    );
    stage.rows.push(row);
}

/// Closed loop with 20 kB of data.
fn large(stage: &mut Stage) {
    let setup = Setup::uniform("large", 1, CONNECTIONS);
    let count = stage.sized(20_000, 4_000);
    let [ours, bare] = stage.rounds(&setup, |stage, running| {
        let mut load = Load::closed(running.target, &running.path, count);
        load.data_bytes = 20_000;
        stage.flow(running, "large", &load)
    });
    let (rate, baseline) = (ours.series(|flow| flow.rate), bare.series(|flow| flow.rate));
    stage.rows.push(
        Row::new(
            "Closed loop, 20 kB events: deliveries",
            &rate,
            &baseline,
            &Unit::RATE,
        )
        .bar("≥ 60 % of bare", rate.ratio(&baseline).map(|share| share >= 0.60)),
    );
}

/// Resident memory: idle, and with many events queued for a suspended destination.
fn memory(stage: &mut Stage) {
    let mut setup = Setup::uniform("memory", 1, CONNECTIONS);
    setup
        .destinations
        .iter_mut()
        .for_each(|destination| destination.suspend = true);
    let queued = stage.sized(1_000_000, 50_000);
    let (mut idle, mut full, mut peak) = (Series::default(), Series::default(), Series::default());
    stage.ours(1, &setup, |stage, running| {
        std::thread::sleep(Duration::from_secs(3));
        idle.0.push(process::resident(running.pid).0);
        let mut load = Load::closed(running.target, &running.path, queued);
        (load.batch, load.connections, load.limit) = (100, 8, 180);
        let loaded = stage.load(running, &load);
        if loaded.deliveries < queued {
            stage.note(&format!(
                "memory: only {} of {queued} events were queued",
                loaded.deliveries
            ));
        }
        std::thread::sleep(Duration::from_secs(3));
        let (now, highest) = process::resident(running.pid);
        full.0.push(now);
        peak.0.push(highest);
    });
    let none = Series::default();
    let all = Unit::COUNT.write(queued as f64);
    stage.rows.push(
        Row::new("Memory, idle", &idle, &none, &Unit::MB)
            .bar("≤ 25 MB", idle.median().map(|size| size <= 25.0)),
    );
    stage.rows.push(
        Row::new(&format!("Memory, {all} queued events"), &full, &none, &Unit::MB)
            .bar("≤ 200 MB", full.median().map(|size| size <= 200.0)),
    );
    stage.rows.push(Row::new(
        "… highest while they were published",
        &peak,
        &none,
        &Unit::MB,
    ));
}

/// 1,000 destinations, 10 events for each.
fn many(stage: &mut Stage) {
    const DESTINATIONS: usize = 1000;
    const EVENTS: u64 = 10;
    let mut setup = Setup::uniform("many", DESTINATIONS, FANOUT_IN_FLIGHT);
    for (index, destination) in setup.destinations.iter_mut().enumerate() {
        destination.events = format!("bench.event.{index:04}");
    }
    let (mut flows, mut complete) = (Flows::default(), true);
    stage.ours(stage.round_count(), &setup, |stage, running| {
        let mut load = Load::closed(running.target, &running.path, EVENTS * DESTINATIONS as u64);
        load.types = DESTINATIONS as u64;
        flows.0.push(stage.flow(running, "many", &load));
        let stats = stage.stats("many");
        complete &= stats.paths == DESTINATIONS && stats.fewest == EVENTS && stats.most == EVENTS;
        if !complete {
            let Stats {
                paths, fewest, most, ..
            } = stats;
            stage.note(&format!(
                "many: {paths} destinations were reached, with {fewest} to {most} events each"
            ));
        }
    });
    let p99 = flows.series(|flow| flow.end_to_end.p99);
    let met = p99.median().map(|_| complete);
    let none = Series::default();
    stage.rows.push(
        Row::new(
            "1,000 destinations × 10 events: end to end p99",
            &p99,
            &none,
            &Unit::MS,
        )
        .bar("all delivered", met),
    );
    stage.rows.push(Row::new(
        "… deliveries",
        &flows.series(|flow| flow.rate),
        &none,
        &Unit::RATE,
    ));
}

impl Stage {
    fn sized(&self, full: u64, quick: u64) -> u64 {
        if self.options.quick { quick } else { full }
    }

    fn note(&mut self, note: &str) {
        eprintln!("  {note}");
        self.notes.push(note.to_owned());
    }

    fn measures(&self, kind: Kind) -> bool {
        self.options.system.is_none_or(|only| only == kind)
    }

    fn round_count(&self) -> usize {
        self.options
            .rounds
            .unwrap_or(if self.options.quick { 1 } else { 5 })
    }

    /// Measures both systems in turn, round by round.
    fn rounds(&mut self, setup: &Setup, mut measure: impl FnMut(&mut Self, &Running) -> Flow) -> [Flows; 2] {
        let mut flows = [Flows::default(), Flows::default()];
        self.apply(setup);
        for round in 1..=self.round_count() {
            for (kind, flows) in [Kind::Postrider, Kind::Bare].into_iter().zip(&mut flows) {
                if self.measures(kind) {
                    let running = self.start(kind, setup);
                    let flow = measure(self, &running);
                    eprintln!("  round {round}, {}: {}", kind.name(), flow.written());
                    flows.0.push(flow);
                }
            }
        }
        flows
    }

    /// Measures Postrider alone, round by round.
    fn ours(&mut self, rounds: usize, setup: &Setup, mut measure: impl FnMut(&mut Self, &Running)) {
        if !self.measures(Kind::Postrider) {
            return;
        }
        self.apply(setup);
        for _ in 0..rounds {
            let running = self.start(Kind::Postrider, setup);
            measure(self, &running);
        }
    }

    fn apply(&self, setup: &Setup) {
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
        self.receiver.ask("reset");
        self.primed = 0;
        if kind == Kind::Postrider {
            self.prime(setup, &running);
        }
        running
    }

    fn prime(&mut self, setup: &Setup, running: &Running) {
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
        loop {
            let loaded = load_quietly(running, &load);
            self.primed += loaded.deliveries;
            if loaded.deliveries >= expected {
                return;
            }
            if started.elapsed() > Duration::from_secs(30) {
                let project = setup.project;
                self.note(&format!(
                    "{project}: {} of {expected} destinations take events",
                    loaded.deliveries
                ));
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Warms up, then measures.
    fn flow(&mut self, running: &Running, group: &str, load: &Load) -> Flow {
        let mut warm_up = load.clone();
        warm_up.count = (load.count / 10).max(1000).min(load.count);
        warm_up.rate = None;
        let loaded = self.load(running, &warm_up);
        let primed = std::mem::take(&mut self.primed);
        self.drain(group, loaded.deliveries + primed);
        self.flow_without_warm_up(running, group, load)
    }

    fn flow_without_warm_up(&mut self, running: &Running, group: &str, load: &Load) -> Flow {
        self.receiver.ask("reset");
        let before = process::cpu(running.pid);
        let loaded = self.load(running, load);
        let arrived = self.drain(group, loaded.deliveries);
        let cpu = process::cpu(running.pid).saturating_sub(before);
        let stats = self.stats(group);
        if arrived < loaded.deliveries {
            self.note(&format!(
                "{group}: {arrived} of {} deliveries arrived in time",
                loaded.deliveries
            ));
        }
        self.learn_envelope(running, load, &stats);
        Flow {
            rate: stats.count as f64 / stats.seconds.max(1e-9),
            acknowledgement: loaded.latency,
            end_to_end: stats.latency,
            cpu: cpu.as_secs_f64() * 1000.0 / (arrived as f64).max(1.0),
        }
    }

    /// Publishes; says what was refused.
    fn load(&mut self, running: &Running, load: &Load) -> Loaded {
        let loaded = load_quietly(running, load);
        if !loaded.refused.is_empty() {
            self.note(&format!(
                "{}: requests not acknowledged: {:?}",
                running.path, loaded.refused
            ));
        }
        loaded
    }

    /// Waits until a group has so many requests or time is up; returns how many it has.
    fn drain(&mut self, group: &str, wanted: u64) -> u64 {
        let start = Instant::now();
        loop {
            let count: u64 = self
                .receiver
                .ask(&format!("count {group}"))
                .parse()
                .expect("a number");
            if count >= wanted || start.elapsed() > DRAIN {
                return count;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stats(&mut self, group: &str) -> Stats {
        serde_json::from_str(&self.receiver.ask(&format!("stats {group}"))).expect("statistics")
    }

    /// From Postrider's deliveries, how much longer the baseline's must be to have the same length.
    fn learn_envelope(&mut self, running: &Running, load: &Load, stats: &Stats) {
        if stats.count > 0 && load.data_bytes == 200 && running.kind == Kind::Postrider {
            let published = load.data_bytes + load.event_type.len() + r#"{"type":"","data":}"#.len();
            self.envelope = (stats.body_bytes as usize).saturating_sub(published);
        }
    }

    fn latency_rows(&mut self, what: &str, ours: &Flows, bare: &Flows) {
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
    fn document(&self) -> String {
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
             Load generator, receiver and system share this machine:\n\n{}\n{}{notes}\n{}",
            arguments.join(" "),
            machine::describe(self.data.path()),
            report::table(&self.rows),
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
";

impl Flow {
    fn written(&self) -> String {
        let Self {
            rate,
            acknowledgement,
            end_to_end,
            cpu,
        } = self;
        format!(
            "{rate:.0}/s, acknowledgement p50 {:.2} p99 {:.2} ms, end to end p50 {:.2} p99 {:.2} ms, CPU {cpu:.4} ms",
            acknowledgement.p50, acknowledgement.p99, end_to_end.p50, end_to_end.p99
        )
    }
}
