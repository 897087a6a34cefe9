//! The baseline: what any durable relay of this kind must do, and nothing else.
//!
//! HTTP in (hyper) → append to a file and `fdatasync`, for as many events at once as wait (at most 512) → 202 →
//! HTTP out (hyper) over kept-alive connections. No authentication, no JSON, no matching, no signature, no retry,
//! no record of the outcome. Its requests have the headers and the length that Postrider's have.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};

use crate::process;

/// Most events in one `fdatasync`.
const GROUP: usize = 512;

/// The baseline.
#[derive(clap::Args)]
pub(crate) struct Bare {
    /// The receiver.
    #[arg(long)]
    receiver: SocketAddr,
    /// Path at the receiver; one destination for each.
    #[arg(long)]
    path: Vec<String>,
    /// Connections to each destination, and so the most requests at once.
    #[arg(long)]
    in_flight: usize,
    /// Bytes that a delivered body has more than a published one.
    #[arg(long)]
    envelope: usize,
    /// The file that events are appended to.
    #[arg(long)]
    log: PathBuf,
}

struct Accepted {
    body: Bytes,
    durable: oneshot::Sender<()>,
}

/// The waiting deliveries of one destination.
struct Lane {
    path: String,
    waiting: Mutex<VecDeque<(u64, Bytes)>>,
    ready: Semaphore,
}

impl Bare {
    /// Serves until standard input ends.
    pub(crate) fn run(self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(self.serve());
    }

    async fn serve(self) {
        let file = File::create(&self.log).expect("the log can be made");
        let lanes: Vec<Arc<Lane>> = self
            .path
            .iter()
            .map(|path| Arc::new(Lane::new(path.clone())))
            .collect();
        for lane in &lanes {
            for _ in 0..self.in_flight {
                tokio::spawn(deliver(self.receiver, Arc::clone(lane)));
            }
        }
        let (accepted, waiting) = mpsc::channel();
        let (envelope, deliveries) = ("x".repeat(self.envelope), lanes.len());
        std::thread::spawn(move || write(file, &waiting, &lanes, envelope.as_bytes()));

        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        process::answer_lines(&address.to_string(), |_| "ok".to_owned());
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a TCP socket");
            let accepted = accepted.clone();
            let service =
                hyper::service::service_fn(move |request| accept(request, accepted.clone(), deliveries));
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
            );
        }
    }
}

impl Lane {
    fn new(path: String) -> Self {
        Self {
            path,
            waiting: Mutex::default(),
            ready: Semaphore::new(0),
        }
    }
}

async fn accept(
    request: Request<Incoming>,
    accepted: mpsc::Sender<Accepted>,
    deliveries: usize,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let (durable, done) = oneshot::channel();
    let stored = accepted.send(Accepted { body, durable }).is_ok() && done.await.is_ok();
    let mut response = Response::new(Full::from(format!(
        "{{\"events\":[{{\"id\":\"0193e7a0-0000-7000-8000-000000000000\",\"duplicate\":false,\
         \"deliveries\":{deliveries}}}]}}"
    )));
    *response.status_mut() = if stored {
        StatusCode::ACCEPTED
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    response
        .headers_mut()
        .insert("content-type", http::HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The writer: everything that waits becomes one append and one `fdatasync`, then is answered and handed on.
fn write(mut file: File, waiting: &mpsc::Receiver<Accepted>, lanes: &[Arc<Lane>], envelope: &[u8]) {
    let mut number = 0;
    let mut buffer = Vec::new();
    while let Ok(first) = waiting.recv() {
        let group: Vec<Accepted> = std::iter::once(first)
            .chain(waiting.try_iter().take(GROUP - 1))
            .collect();
        buffer.clear();
        for event in &group {
            buffer.extend_from_slice(&(event.body.len() as u64).to_le_bytes());
            buffer.extend_from_slice(&event.body);
        }
        file.write_all(&buffer)
            .and_then(|()| file.sync_data())
            .expect("the log can be written");
        let events = group.into_iter().map(|event| {
            // A publisher that has gone does not unmake its event.
            event.durable.send(()).ok();
            number += 1;
            (number, Bytes::from([&event.body, envelope].concat()))
        });
        let events: Vec<(u64, Bytes)> = events.collect();
        for lane in lanes {
            lane.waiting.lock().extend(events.iter().cloned());
            lane.ready.add_permits(events.len());
        }
    }
}

/// One connection to a destination.
async fn deliver(receiver: SocketAddr, lane: Arc<Lane>) {
    static FAILED: AtomicU64 = AtomicU64::new(0);
    loop {
        if let Err(error) = deliver_over_one_connection(receiver, &lane).await {
            if FAILED.fetch_add(1, Ordering::Relaxed) == 0 {
                eprintln!("bare: a delivery failed: {error}");
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }
}

async fn deliver_over_one_connection(
    receiver: SocketAddr,
    lane: &Lane,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(receiver).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let host = receiver.to_string();
    loop {
        lane.ready.acquire().await?.forget();
        let Some((number, body)) = lane.waiting.lock().pop_front() else {
            continue;
        };
        let request = Request::post(lane.path.as_str())
            .header("host", host.as_str())
            .header("user-agent", "bare/0.1.0")
            .header("content-type", "application/json")
            .header("webhook-id", format!("0193e7a0-0000-7000-8000-{number:012}"))
            .header("webhook-timestamp", "1764000000")
            .header(
                "webhook-signature",
                "v1,MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
            )
            .body(Full::new(body))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        response.into_body().collect().await?;
    }
}
