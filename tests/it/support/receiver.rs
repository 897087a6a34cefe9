//! A receiver of webhooks on loopback that a test can make answer, hang or fail at will.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// One request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether the receiver answered 2xx.
    pub(crate) accepted: bool,
}

impl Received {
    /// A header as text; empty when it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// How a path is answered.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    Status(u16),
    StatusWith(u16, &'static str, String),
    /// 200 with a body of its own.
    Says(&'static str),
    Hang,
}

/// A receiver; it stops when it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    received: Mutex<Vec<Received>>,
    manners: Mutex<HashMap<String, Manner>>,
}

impl Receiver {
    /// Listens on a free port; every path answers 200 until told otherwise.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(State::default());
        let task = tokio::spawn(serve(listener, Arc::clone(&state)));
        Self { address, state, task }
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Sets how a path is answered from now on.
    pub(crate) fn answer(&self, path: &str, manner: Manner) {
        self.state.manners.lock().insert(path.to_owned(), manner);
    }

    /// Every request to a path so far.
    pub(crate) fn received(&self, path: &str) -> Vec<Received> {
        self.state
            .received
            .lock()
            .iter()
            .filter(|request| request.path == path)
            .cloned()
            .collect()
    }

    /// Every request that was answered 2xx, whatever its path.
    pub(crate) fn accepted(&self) -> Vec<Received> {
        let received = self.state.received.lock();
        received
            .iter()
            .filter(|request| request.accepted)
            .cloned()
            .collect()
    }

    /// Waits until a path has received so many requests; returns all of them.
    #[track_caller]
    pub(crate) fn wait_for(&self, path: &str, count: usize) -> impl Future<Output = Vec<Received>> {
        let what = format!("{count} requests to {path}");
        async move {
            super::eventually(&what, Duration::from_secs(20), || async {
                let received = self.received(path);
                if received.len() >= count {
                    Ok(received)
                } else {
                    Err(format!("{} so far", received.len()))
                }
            })
            .await
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            let service = service_fn(|request| answer(Arc::clone(&state), request));
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            // A client that hangs up is not the receiver's business.
            drop(server.serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let path = head.uri.path().to_owned();
    let manner = state
        .manners
        .lock()
        .get(&path)
        .cloned()
        .unwrap_or(Manner::Status(200));
    let (status, header, text) = match manner {
        Manner::Status(status) => (status, None, "ok"),
        Manner::StatusWith(status, name, value) => (status, Some((name, value)), "ok"),
        Manner::Says(text) => (200, None, text),
        Manner::Hang => (0, None, ""),
    };
    let accepted = (200..300).contains(&status);
    state.received.lock().push(Received {
        method: head.method.to_string(),
        path,
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
        accepted,
    });
    if status == 0 {
        std::future::pending::<()>().await;
    }
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).expect("tests answer with real codes");
    if let Some((name, value)) = header {
        response
            .headers_mut()
            .insert(name, value.parse().expect("tests answer with real headers"));
    }
    Ok(response)
}
