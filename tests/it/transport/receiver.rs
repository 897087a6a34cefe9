//! A receiver that is a raw socket and does what its test says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

/// A listener with one task for each connection; all end when it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    notes: Mutex<mpsc::Receiver<String>>,
    _tasks: JoinSet<()>,
}

/// What a connection's task tells its test.
#[derive(Clone)]
pub(crate) struct Log {
    notes: mpsc::Sender<String>,
    /// 1 for the first connection.
    pub(crate) number: usize,
}

impl Log {
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.notes.try_send(text.into()).expect("room for a note");
    }
}

impl Receiver {
    pub(crate) async fn start<H, F>(handler: H) -> Self
    where
        H: Fn(TcpStream, Log) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Self::on("127.0.0.1:0", handler).await
    }

    pub(crate) async fn on<H, F>(address: &str, handler: H) -> Self
    where
        H: Fn(TcpStream, Log) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (sender, notes) = mpsc::channel(1024);
        let mut tasks = JoinSet::new();
        let counter = accepted.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                connections.spawn(handler(
                    stream,
                    Log {
                        notes: sender.clone(),
                        number,
                    },
                ));
            }
        });
        Self {
            address,
            accepted,
            notes: Mutex::new(notes),
            _tasks: tasks,
        }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections there have been.
    pub(crate) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The next note.
    pub(crate) async fn noted(&self) -> String {
        let next = async { self.notes.lock().await.recv().await };
        tokio::time::timeout(Duration::from_secs(10), next)
            .await
            .expect("a note in time")
            .expect("a note")
    }
}

/// Reads one request with a `Content-Length`; empty when the sender closes instead.
pub(crate) async fn request<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let head = head.to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().expect("a length")) {
                return text;
            }
        }
        match stream.read_buf(&mut bytes).await {
            Ok(1..) => {}
            _ => return String::new(),
        }
    }
}

/// Writes; a sender that has gone away is fine.
pub(crate) async fn answer<S: AsyncWrite + Unpin>(stream: &mut S, text: &str) {
    if stream.write_all(text.as_bytes()).await.is_ok() {
        stream.flush().await.ok();
    }
}

/// Writes until the sender goes away or `limit` bytes are out; says how many were.
pub(crate) async fn flood<S: AsyncWrite + Unpin>(stream: &mut S, piece: &[u8], limit: usize) -> usize {
    let mut written = 0;
    while written < limit {
        match stream.write(&piece[written % piece.len()..]).await {
            Ok(count) => written += count,
            Err(_) => break,
        }
    }
    written
}

/// Waits until the sender has closed the connection.
pub(crate) async fn closed<S: AsyncRead + Unpin>(stream: &mut S) {
    let mut bytes = [0; 1024];
    while matches!(stream.read(&mut bytes).await, Ok(1..)) {}
}
