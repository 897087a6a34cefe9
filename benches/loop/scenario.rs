//! The scenarios: what is measured, how often, and what was asked for.
//!
//! Each measurement starts its system anew, publishes until an event reaches every destination it should, warms up
//! until all of that is delivered, resets the receiver and only then counts. Every wait has an end; what did not
//! arrive by then is reported beside the table and fails the bar.
//!
//! Here are those of plain deliveries; the modules have those of a setting, a target or an API each.

mod formats;
mod log;
mod mail;
mod replay;
mod rotation;
mod scale;
mod settings;

use std::time::{Duration, Instant};

use crate::Options;
use crate::loader::Load;
use crate::process;
use crate::receiver::Stats;
use crate::report::{Row, Series, Unit};
use crate::stage::{Flow, Flows, Stage};
use crate::system::{Destination, Setup};

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
    /// 1,000 destinations applied at once.
    Scale,
    /// Template, filter and HMAC, beside plain deliveries.
    Dressed,
    /// In order for each of 1,000 keys, beside unordered deliveries.
    Ordered,
    /// Mails, beside a bare SMTP client.
    Mail,
    /// 100,000 deliveries again.
    Replay,
    /// The keys of 1,000 destinations rotate under load.
    Rotation,
    /// Questions to a delivery log of 1,000,000 attempts.
    Log,
    /// Microseconds that each body format takes.
    Formats,
}

/// Measures and adds its rows to the stage's.
type Scenario = fn(&mut Stage);

/// Connections of the closed loops, and requests in flight to a single destination.
const CONNECTIONS: usize = 64;
/// Requests in flight to each of ten destinations.
const FANOUT_IN_FLIGHT: usize = 16;
/// Events per second of the paced scenarios.
const PACE: f64 = 500.0;

/// Runs what the options ask for, prints the table and writes it if asked.
pub(crate) fn run(options: &Options) {
    let start = Instant::now();
    let mut stage = Stage::new(options);
    let wanted = |name| options.only.is_empty() || options.only.contains(&name);
    let scenarios: [(Name, Scenario); 15] = [
        (Name::Closed, closed),
        (Name::Fanout, fan_out),
        (Name::Paced, paced),
        (Name::Hang, hang),
        (Name::Large, large),
        (Name::Memory, memory),
        (Name::Many, many),
        (Name::Scale, scale::scale),
        (Name::Dressed, settings::dressed),
        (Name::Ordered, settings::ordered),
        (Name::Mail, mail::mail),
        (Name::Replay, replay::replay),
        (Name::Rotation, rotation::rotation),
        (Name::Log, log::log),
        (Name::Formats, formats::formats),
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
    let destinations = vec![
        Destination::at("/neighbour/0", "bench.event", CONNECTIONS),
        Destination::at("/hang/0", "hang.event", CONNECTIONS),
    ];
    let setup = Setup::of("hang", destinations);
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
    let row = Row::alone("End to end p99 at 500/s alone", &alone, &Unit::MS);
    stage.rows.push(row);
    let mut row = Row::alone(
        "… with 700 events queued to a hanging neighbour",
        &beside,
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
    let all = Unit::COUNT.write(queued as f64);
    stage.rows.push(
        Row::alone("Memory, idle", &idle, &Unit::MB).bar("≤ 25 MB", idle.median().map(|size| size <= 25.0)),
    );
    stage.rows.push(
        Row::alone(&format!("Memory, {all} queued events"), &full, &Unit::MB)
            .bar("≤ 200 MB", full.median().map(|size| size <= 200.0)),
    );
    stage.rows.push(Row::alone(
        "… highest while they were published",
        &peak,
        &Unit::MB,
    ));
}

/// 1,000 destinations, 10 events for each.
fn many(stage: &mut Stage) {
    const DESTINATIONS: usize = 1000;
    const EVENTS: u64 = 10;
    let mut setup = Setup::uniform("many", DESTINATIONS, FANOUT_IN_FLIGHT);
    setup.divide();
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
    let what = "1,000 destinations × 10 events: end to end p99";
    stage
        .rows
        .push(Row::alone(what, &p99, &Unit::MS).bar("all delivered", met));
    let rate = flows.series(|flow| flow.rate);
    stage.rows.push(Row::alone("… deliveries", &rate, &Unit::RATE));
}
