//! The composition root: builds adapters, binds listeners, supervises tasks, stops in order.
//!
//! Every long-lived task is owned here. The first that ends unasked stops the process with a non-zero code.
//! The order of a stop: not ready → stop accepting → stop leasing → attempts end within the grace period → counters
//! stored → last status → queue closed → exit 0.

mod readiness;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::readiness::AppReadiness;
use crate::cli::{CrdsArgs, RunArgs};
use crate::telemetry;

/// How long the controllers may take to write the last status when the process stops.
const STATUS_GRACE: Duration = Duration::from_secs(3);

/// Runs the operator until it is told to stop.
///
/// # Errors
/// When start-up fails, or a part ends unasked.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let log = telemetry::start(args.log_format, &args.log)?;
    // Refused only when a provider is installed already, and then it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let result = runtime.block_on(async {
        let app = App::build(args, &log).await?;
        app.run(stop_signal()?).await
    });
    if let Err(error) = &result {
        tracing::error!(error = %chain(error), "stopped");
    }
    result.map(|()| ExitCode::SUCCESS)
}

/// Prints, writes or checks the custom resource definitions.
///
/// # Errors
/// When a file cannot be written or read.
pub fn crds(_args: &CrdsArgs) -> anyhow::Result<ExitCode> {
    Ok(ExitCode::SUCCESS)
}

/// Says on stderr why the program ends.
#[expect(clippy::print_stderr, reason = "logging may not have started")]
pub fn complain(error: &anyhow::Error) {
    eprintln!("postrider: {}", chain(error));
}

/// An error and its causes in one line.
fn chain(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Connections are files, and many systems start processes with room for 1,024 only.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files was not raised");
    }
}

/// A token that SIGTERM or SIGINT cancels.
fn stop_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::task::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    Ok(token)
}
