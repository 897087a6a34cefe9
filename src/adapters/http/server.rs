//! The base of both servers: accept, bound, serve, stop.
//!
//! Owns the accept loop and hyper's settings. Invariants: at most `connections` are served; every connection's task
//! is owned by the loop, so dropping the server's future ends them all; after a stop nothing is accepted, what runs
//! has the grace period, and then everything is closed.
//!
//! Leaves to others: the life of one connection (`connection`), answers (`publish`, `admin`).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::connection::{Handle, Shared, linger, run};
use super::limits::{HttpSettings, Limit};
use super::metrics::HttpMetrics;
use super::problem::{Kind, Problem};

/// Connections over the bound that are told so at a time; more are just closed.
const REFUSALS: usize = 64;
/// Pause after the system could not hand out a connection, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often an HTTP/2 client is asked whether it is still there.
const H2_PING: Duration = Duration::from_secs(20);

/// Serves connections until `shutdown`, then those that run to their end.
pub(super) async fn serve<H: Handle>(
    name: &'static str,
    listener: TcpListener,
    handler: H,
    settings: HttpSettings,
    metrics: HttpMetrics,
    shutdown: CancellationToken,
) {
    let shared = Shared {
        builder: Arc::new(builder(&settings)),
        settings: Arc::new(settings),
        metrics,
        shutdown: shutdown.clone(),
    };
    let open = shared.metrics.connections(name);
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = tasks.join_next() => report(name, ended),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => admit(stream, &mut tasks, &handler, &shared, &open),
                Err(error) => pause(name, &error).await,
            },
        }
    }
    drop(listener);
    let finish = async {
        while let Some(ended) = tasks.join_next().await {
            report(name, ended);
        }
    };
    if timeout(shared.settings.grace, finish).await.is_err() {
        shared.metrics.hit(Limit::Grace);
        tracing::warn!(
            server.name = name,
            connections = tasks.len(),
            "connections cut at the end of the grace period"
        );
        tasks.shutdown().await;
    }
}

fn builder(settings: &HttpSettings) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .max_headers(settings.header_count)
        .max_buf_size(settings.header_bytes.max(8 * 1024))
        .writev(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(H2_PING)
        .keep_alive_timeout(H2_PING)
        .max_concurrent_streams(settings.h2_streams)
        .max_pending_accept_reset_streams(settings.h2_pending_resets)
        .max_header_list_size(u32::try_from(settings.header_bytes).unwrap_or(u32::MAX))
        .initial_stream_window_size(settings.h2_stream_window)
        .initial_connection_window_size(settings.h2_connection_window);
    builder
}

fn admit<H: Handle>(stream: TcpStream, tasks: &mut JoinSet<()>, handler: &H, shared: &Shared, open: &Gauge) {
    let refused = tasks.len() >= shared.settings.connections;
    if refused {
        shared.metrics.hit(Limit::Connections);
        if tasks.len() < shared.settings.connections + REFUSALS {
            let shutdown = shared.shutdown.clone();
            tasks.spawn(async move { refuse(stream, &shutdown).await });
        }
        return;
    }
    // Answers are single writes; waiting to join them only delays them. A socket that is gone says so later.
    drop(stream.set_nodelay(true));
    let counted = Counted::new(open.clone());
    let connection = run(stream, handler.clone(), shared.clone());
    tasks.spawn(async move {
        connection.await;
        drop(counted);
    });
}

async fn refuse(stream: TcpStream, shutdown: &CancellationToken) {
    let problem = Problem::new(Kind::Unavailable, "too many connections are open").retry_after(1);
    // A client that cannot be told sees the close.
    drop(stream.try_write(&problem.raw()));
    linger(stream, shutdown).await;
}

/// A connection in the gauge.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn report(name: &'static str, ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(server.name = name, "a connection's task panicked");
    }
}

async fn pause(name: &'static str, error: &io::Error) {
    if matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    ) {
        return;
    }
    tracing::warn!(server.name = name, %error, "no connection can be accepted");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}
