//! Log output: one line for each record, JSON or text, written by a thread of its own.
//!
//! A terminal or pipe that does not read must not stop deliveries, so lines beyond a bounded buffer are dropped and
//! counted ([`LogMetrics`]).

use std::io::{BufWriter, IsTerminal as _, Write};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;

use crate::cli::LogFormat;

/// Lines that may wait for the writer.
const BUFFERED_LINES: usize = 16_384;
/// Bytes that are written at once when lines come fast.
const WRITE_BUFFER: usize = 64 * 1024;
/// How long lines gather after some were written. Without it every line wakes the writer and is a system call of its
/// own: a twentieth of a delivery.
const GATHER: Duration = Duration::from_millis(10);
/// kube's client logs whole response bodies when they do not decode, which may hold inline values, and every refused
/// connection without saying what for. The controllers say both in their own words.
const ALWAYS: &str = "kube_client=off";

/// Writes what waits when it is dropped.
pub struct LogGuard {
    _writer: WorkerGuard,
    dropped: ErrorCounter,
}

impl LogGuard {
    /// The metric of lines that were dropped because the output did not keep up.
    #[must_use]
    pub fn metrics(&self) -> LogMetrics {
        LogMetrics(self.dropped.clone())
    }
}

/// Rests after each flush, while the next lines gather in front of it. The writer's thread flushes when none waits.
struct Gathering<W>(W);

impl<W: Write> Write for Gathering<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()?;
        #[expect(clippy::disallowed_methods, reason = "it is the writer's own thread")]
        std::thread::sleep(GATHER);
        Ok(())
    }
}

/// Counts dropped lines.
#[derive(Debug)]
pub struct LogMetrics(ErrorCounter);

impl Collector for LogMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let count = ConstCounter::new(u64::try_from(self.0.dropped_lines()).unwrap_or(u64::MAX));
        let help = "Log lines dropped because the output did not keep up";
        count.encode(encoder.encode_descriptor("log_lines_dropped", help, None, MetricType::Counter)?)
    }
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("the log filter {filter:?} is not valid")]
    Filter {
        /// What was given.
        filter: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something else has taken the log.
    #[error("logging was started twice")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Starts logging to stdout.
///
/// # Errors
/// When the filter is not valid, or logging was started before.
pub fn start(format: LogFormat, filter: &str) -> Result<LogGuard, TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let filter =
        EnvFilter::try_new(format!("{filter},{ALWAYS}")).map_err(|source| TelemetryError::Filter {
            filter: filter.to_owned(),
            source,
        })?;
    let (writer, guard) = NonBlockingBuilder::default()
        .buffered_lines_limit(BUFFERED_LINES)
        .lossy(true)
        .finish(Gathering(BufWriter::with_capacity(
            WRITE_BUFFER,
            std::io::stdout(),
        )));
    let dropped = writer.error_counter();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_target(true)
            .finish()
            .try_init(),
        LogFormat::Text => builder
            .with_ansi(std::io::stdout().is_terminal())
            .with_target(false)
            .finish()
            .try_init(),
    }
    .map_err(TelemetryError::Twice)?;
    Ok(LogGuard {
        _writer: guard,
        dropped,
    })
}
