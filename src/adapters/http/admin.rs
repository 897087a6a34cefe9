//! The administration server: `/healthz`, `/readyz`, `/metrics`.
//!
//! Owns these routes. Invariants: `/healthz` asks nothing of anybody, so only a process that hangs fails it;
//! `/readyz` names what is missing, one line each, or says `ok` first and then what else is worth knowing.
//!
//! Leaves to others: what readiness takes ([`Readiness`]), and what is counted (the registry's owners).

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connection::Handle;
use super::limits::HttpSettings;
use super::metrics::HttpMetrics;
use super::problem::{Kind, Problem};
use super::server;

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Says whether the process can do its work.
pub trait Readiness: Send + Sync {
    /// What is missing, each in a few words on one line; nothing when ready. From memory.
    fn missing(&self) -> Vec<String>;

    /// What a person should know although the process is ready, each on one line. From memory.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

impl<F: Fn() -> Vec<String> + Send + Sync> Readiness for F {
    fn missing(&self) -> Vec<String> {
        self()
    }
}

/// What the administration server shows.
#[derive(Clone)]
pub struct AdminState {
    /// Whether the process is ready.
    pub readiness: Arc<dyn Readiness>,
    /// Every metric of the process.
    pub registry: Arc<Registry>,
    /// The servers' own metrics.
    pub metrics: HttpMetrics,
}

/// The administration server.
#[derive(Debug)]
pub struct AdminServer;

impl AdminServer {
    /// Serves a listener until `shutdown`, then finishes what runs within the grace period.
    pub async fn serve(
        listener: TcpListener,
        state: AdminState,
        settings: HttpSettings,
        shutdown: CancellationToken,
    ) {
        let metrics = state.metrics.clone();
        server::serve(
            "admin",
            listener,
            Admin(Arc::new(state)),
            settings,
            metrics,
            shutdown,
        )
        .await;
    }
}

#[derive(Clone)]
struct Admin(Arc<AdminState>);

impl Handle for Admin {
    async fn handle(&self, request: Request<Incoming>) -> Response<Bytes> {
        let path = request.uri().path();
        if !matches!(path, "/healthz" | "/readyz" | "/metrics") {
            return Problem::new(Kind::NoRoute, "see /healthz, /readyz and /metrics").response();
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Problem::method("GET, HEAD").response();
        }
        match path {
            "/healthz" => text(StatusCode::OK, TEXT, "ok\n".into()),
            "/readyz" => self.ready(),
            _ => self.metrics(),
        }
    }
}

impl Admin {
    fn ready(&self) -> Response<Bytes> {
        let missing = self.0.readiness.missing();
        if missing.is_empty() {
            let notes = self.0.readiness.notes().into_iter();
            let lines: String = notes
                .flat_map(|note| ["note: ".to_owned(), note, "\n".to_owned()])
                .collect();
            return text(StatusCode::OK, TEXT, format!("ok\n{lines}"));
        }
        let mut lines = missing.join("\n");
        lines.push('\n');
        text(StatusCode::SERVICE_UNAVAILABLE, TEXT, lines)
    }

    fn metrics(&self) -> Response<Bytes> {
        let mut body = String::new();
        match encode(&mut body, &self.0.registry) {
            Ok(()) => text(StatusCode::OK, OPEN_METRICS, body),
            Err(_) => Problem::new(Kind::Internal, "the metrics cannot be written").response(),
        }
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
