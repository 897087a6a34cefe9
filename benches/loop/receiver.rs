//! The receiver: answers 200 with two bytes and counts what came.
//!
//! The first segment of the path is the group that a request is counted in. It also says how to behave: `hang…`
//! never answers, `delay-50` answers after 50 ms, any other answers at once. End-to-end latency is the time of
//! arrival minus `data.sent`, the nanoseconds since 1970 that the loader put into the event.
//!
//! Mails are taken on another port and counted in the group `mail`.
//!
//! The parent speaks through standard input, a line for a line: `reset`, `count GROUP`, `total`, `stats GROUP`, and
//! `mail` for the last one. Its end is ours.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::process;
use crate::smtp;
use crate::wire::{self, Latency};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 2\r\n\r\nok";

/// What came for one group of paths.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stats {
    /// Requests.
    pub(crate) count: u64,
    /// Mean length of a body.
    pub(crate) body_bytes: f64,
    /// Mean length of start line and headers.
    pub(crate) head_bytes: f64,
    /// Seconds from the first arrival to the last.
    pub(crate) seconds: f64,
    /// From the event's sending to its arrival.
    pub(crate) latency: Latency,
    /// Different paths.
    pub(crate) paths: usize,
    /// Requests of the path that got the fewest.
    pub(crate) fewest: u64,
    /// Requests of the path that got the most.
    pub(crate) most: u64,
    /// Connections since the last reset, of all groups.
    pub(crate) connections: u64,
}

#[derive(Default)]
struct Books {
    groups: HashMap<String, Group>,
    connections: u64,
    mail: Vec<u8>,
}

#[derive(Default)]
struct Group {
    count: u64,
    head: u64,
    body: u64,
    first: u64,
    last: u64,
    samples: Vec<u32>,
    paths: HashMap<String, u64>,
}

impl Books {
    fn record(&mut self, path: &str, group: &str, head: usize, body: &[u8]) {
        let now = wire::epoch_ns();
        if !self.groups.contains_key(group) {
            self.groups.insert(group.to_owned(), Group::default());
        }
        let Some(group) = self.groups.get_mut(group) else {
            return;
        };
        if group.count == 0 {
            group.first = now;
        }
        group.last = now;
        group.count += 1;
        group.head += head as u64;
        group.body += body.len() as u64;
        if let Some(sent) = wire::number_after(body, b"\"sent\":") {
            group.samples.push(wire::sample(now.saturating_sub(sent)));
        }
        match group.paths.get_mut(path) {
            Some(count) => *count += 1,
            None => drop(group.paths.insert(path.to_owned(), 1)),
        }
    }

    fn stats(&mut self, group: &str) -> Stats {
        let Some(group) = self.groups.get_mut(group) else {
            return Stats::default();
        };
        let count = group.count.max(1) as f64;
        Stats {
            count: group.count,
            body_bytes: group.body as f64 / count,
            head_bytes: group.head as f64 / count,
            seconds: group.last.saturating_sub(group.first) as f64 / 1e9,
            latency: Latency::of(&mut group.samples),
            paths: group.paths.len(),
            fewest: group.paths.values().copied().min().unwrap_or(0),
            most: group.paths.values().copied().max().unwrap_or(0),
            connections: self.connections,
        }
    }

    fn answer(&mut self, line: &str) -> String {
        match line.split_once(' ') {
            Some(("count", group)) => self.groups.get(group).map_or(0, |group| group.count).to_string(),
            Some(("stats", group)) => serde_json::to_string(&self.stats(group)).expect("plain numbers"),
            _ if line == "total" => self
                .groups
                .values()
                .map(|group| group.count)
                .sum::<u64>()
                .to_string(),
            _ if line == "mail" => {
                serde_json::to_string(&String::from_utf8_lossy(&self.mail)).expect("a string")
            }
            _ if line == "reset" => {
                let mail = std::mem::take(&mut self.mail);
                *self = Self {
                    mail,
                    ..Self::default()
                };
                "ok".to_owned()
            }
            _ => format!("unknown: {line}"),
        }
    }
}

/// Serves until standard input ends.
pub(crate) fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let (listener, port) = listen().await;
        let (sink, mail_port) = listen().await;
        let books = Arc::new(Mutex::new(Books::default()));
        let control = Arc::clone(&books);
        process::answer_lines(&format!("{port} {mail_port}"), move |line| {
            lock(&control).answer(line)
        });
        tokio::spawn(take_mails(sink, Arc::clone(&books)));
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            lock(&books).connections += 1;
            let books = Arc::clone(&books);
            tokio::spawn(async move {
                if let Err(problem) = serve(stream, &books).await {
                    eprintln!("receiver: {problem}");
                }
            });
        }
    });
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .expect("a loopback port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

async fn take_mails(listener: TcpListener, books: Arc<Mutex<Books>>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let books = Arc::clone(&books);
        lock(&books).connections += 1;
        tokio::spawn(async move {
            let taken = |mail: &[u8]| {
                let mut books = lock(&books);
                books.record("/mail", "mail", 0, mail);
                books.mail.clear();
                books.mail.extend_from_slice(mail);
            };
            if let Err(problem) = smtp::serve(stream, taken).await {
                eprintln!("receiver: {problem}");
            }
        });
    }
}

fn lock(books: &Mutex<Books>) -> std::sync::MutexGuard<'_, Books> {
    books.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut stream: TcpStream, books: &Mutex<Books>) -> Result<(), String> {
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    loop {
        // A reset connection is how a killed system says goodbye.
        let Ok(length) = stream.read_buf(&mut buffer).await else {
            return Ok(());
        };
        if length == 0 {
            return Ok(());
        }
        while let Some(frame) = wire::frame(&buffer)?.filter(|frame| frame.length() <= buffer.len()) {
            let path = wire::second_word(&buffer);
            let group = path.split('/').nth(1).unwrap_or_default();
            lock(books).record(path, group, frame.head, &buffer[frame.head..frame.length()]);
            if group.starts_with("hang") {
                std::future::pending::<()>().await;
            }
            if let Some(delay) = group.strip_prefix("delay-").and_then(|delay| delay.parse().ok()) {
                tokio::time::sleep(Duration::from_millis(delay)).await;
            }
            if stream.write_all(ANSWER).await.is_err() {
                return Ok(());
            }
            buffer.drain(..frame.length());
        }
    }
}
