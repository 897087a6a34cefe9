//! The benchmark: events from a load generator through a system to a receiver, all on loopback.
//!
//! Two systems take turns. One is Postrider, the release binary, configured through a real Kubernetes API server.
//! The other is the bare baseline: what a program that only does the unavoidable reaches on the same machine.
//! Both get the same loader, receiver, bytes and connection counts, so their ratio means more than either figure.
//! What a setting costs is measured beside Postrider without it, in the same rounds; what a body takes to render, in
//! this process.
//!
//! `cargo bench --bench loop` runs all of it; `cargo bench --bench loop -- --help` shows how to run a part.
//! The loader, the receiver and the baselines are this same program, started again with a subcommand.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::exit,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark reads clocks, prints, and reports a broken set-up by panicking"
)]

mod bare;
#[allow(dead_code, reason = "the tests' harness, of which a benchmark needs a part")]
#[path = "../../tests/it/support/controlplane.rs"]
mod controlplane;
mod loader;
mod machine;
mod process;
mod product;
mod receiver;
mod report;
mod scenario;
mod smtp;
mod stage;
mod system;
mod wire;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// The allocator of the product, so that the baseline has no handicap.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures Postrider beside a bare baseline.
#[derive(Parser)]
#[command(name = "loop", arg_required_else_help = false)]
struct Cli {
    /// What cargo says to a benchmark; without it nothing runs, so that `cargo test --all-targets` stays quick.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    part: Option<Part>,
}

/// What to run, and where the result goes.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// One short round: shows that everything works; its figures mean little.
    #[arg(long)]
    quick: bool,
    /// Runs only these scenarios; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<scenario::Name>,
    /// Runs only one of the two systems.
    #[arg(long, value_enum)]
    system: Option<system::Kind>,
    /// Rounds of each scenario, each one Postrider and then the baseline. Default: 5, or 1 with `--quick`.
    #[arg(long)]
    rounds: Option<usize>,
    /// Writes the table to `docs/benchmarks.md`, too.
    #[arg(long)]
    write: bool,
    /// One more argument for `postrider run`; may be given several times.
    #[arg(long, allow_hyphen_values = true)]
    postrider_arg: Vec<String>,
    /// The binary to measure. Default: the one cargo built beside this benchmark.
    #[arg(long)]
    postrider: Option<PathBuf>,
    /// Keeps Postrider's log of each measurement in this folder.
    #[arg(long)]
    keep_logs: Option<PathBuf>,
}

/// The parts that run as processes of their own.
#[derive(Subcommand)]
enum Part {
    /// Answers 200 and counts.
    Receiver,
    /// Publishes events and measures acknowledgements.
    Loader(loader::Load),
    /// The baseline.
    Bare(bare::Bare),
    /// The baseline of mails.
    Mailer(smtp::Mailer),
}

fn main() {
    let cli = Cli::parse();
    match cli.part {
        Some(Part::Receiver) => receiver::run(),
        Some(Part::Loader(load)) => load.run(),
        Some(Part::Bare(bare)) => bare.run(),
        Some(Part::Mailer(mailer)) => mailer.run(),
        None if cli.bench => scenario::run(&cli.options),
        None => println!("nothing measured; run it with `cargo bench --bench loop`"),
    }
}

/// A file of the repository; the harness of the tests asks its parent for it.
fn repository_file(path: &str) -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
