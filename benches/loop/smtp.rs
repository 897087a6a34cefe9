//! As much SMTP as is needed: the sink that takes mails, and the bare client that Postrider is compared with.
//!
//! The bare client says the same message over and over, over as many connections as Postrider has, and waits for each
//! answer as Postrider does: sender, recipient, `DATA`, content. It renders nothing and stores nothing.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::wire;

/// What ends a message.
const END: &[u8] = b"\r\n.\r\n";

/// The bare client.
#[derive(clap::Args)]
pub(crate) struct Mailer {
    /// The server.
    #[arg(long)]
    server: SocketAddr,
    /// The file of the message, as it is said on the wire, without the dot at its end.
    #[arg(long)]
    message: PathBuf,
    /// Mails in all.
    #[arg(long)]
    count: u64,
    /// Connections.
    #[arg(long)]
    connections: usize,
}

/// What came of it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Mailed {
    /// Mails that the server took.
    pub(crate) taken: u64,
    /// Why a connection ended early, for each that did.
    pub(crate) faults: Vec<String>,
}

impl Mailer {
    /// Sends, and prints what came of it as JSON.
    pub(crate) fn run(&self) {
        let message = std::fs::read(&self.message).expect("the message can be read");
        let message: Arc<[u8]> = [&message, END].concat().into();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let left = Arc::new(AtomicU64::new(self.count));
        let mut mailed = Mailed::default();
        runtime.block_on(async {
            let mut connections = tokio::task::JoinSet::new();
            for _ in 0..self.connections {
                connections.spawn(send(self.server, Arc::clone(&message), Arc::clone(&left)));
            }
            for (taken, end) in connections.join_all().await {
                mailed.taken += taken;
                mailed.faults.extend(end.err().map(|error| error.to_string()));
            }
        });
        println!("{}", serde_json::to_string(&mailed).expect("plain values"));
    }
}

/// Sends over one connection until no mail is left.
async fn send(server: SocketAddr, message: Arc<[u8]>, left: Arc<AtomicU64>) -> (u64, io::Result<()>) {
    let mut taken = 0;
    let end = async {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            buffer: Vec::with_capacity(1024),
        };
        client.answer(b'2').await?;
        client.say(b"EHLO bare.example\r\n", b'2').await?;
        let take = |left: u64| left.checked_sub(1);
        while left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
        {
            client
                .say(b"MAIL FROM:<postrider@example.com> BODY=8BITMIME\r\n", b'2')
                .await?;
            client.say(b"RCPT TO:<ops@example.com>\r\n", b'2').await?;
            client.say(b"DATA\r\n", b'3').await?;
            client.say(&message, b'2').await?;
            taken += 1;
        }
        client.say(b"QUIT\r\n", b'2').await
    };
    let end = end.await;
    (taken, end)
}

struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    async fn say(&mut self, bytes: &[u8], wanted: u8) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.answer(wanted).await
    }

    /// Reads an answer, which must begin with that digit.
    async fn answer(&mut self, wanted: u8) -> io::Result<()> {
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let last = self.buffer.strip_suffix(b"\r\n").map(|lines| {
                let start = lines
                    .iter()
                    .rposition(|&byte| byte == b'\n')
                    .map_or(0, |at| at + 1);
                &lines[start..]
            });
            // A hyphen after the code: more lines follow.
            if let Some(line) = last.filter(|line| line.get(3) != Some(&b'-')) {
                let text = || String::from_utf8_lossy(line).into_owned();
                return if line.first() == Some(&wanted) {
                    Ok(())
                } else {
                    Err(io::Error::other(text()))
                };
            }
        }
    }
}

/// The sink's side of one connection: takes whatever is said, and hands over each mail.
pub(crate) async fn serve(stream: TcpStream, mut taken: impl FnMut(&[u8])) -> Result<(), String> {
    match converse(stream, &mut taken).await {
        Ok(Some(line)) => Err(format!("the sink does not know {line:?}")),
        // A reset connection is how a killed system says goodbye.
        Ok(None) | Err(_) => Ok(()),
    }
}

/// Ends with the line that was not understood, if any.
async fn converse(mut stream: TcpStream, taken: &mut impl FnMut(&[u8])) -> io::Result<Option<String>> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 sink ESMTP\r\n").await?;
    let mut buffer = Vec::with_capacity(64 * 1024);
    let mut in_content = false;
    loop {
        let end: &[u8] = if in_content { END } else { b"\r\n" };
        let Some(at) = wire::find(&buffer, end) else {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(None);
            }
            continue;
        };
        let answer: &[u8] = if in_content {
            taken(&buffer[..at]);
            in_content = false;
            b"250 taken\r\n"
        } else {
            match buffer[..at].get(..4).unwrap_or_default() {
                b"EHLO" => b"250-sink\r\n250-8BITMIME\r\n250 SMTPUTF8\r\n",
                b"MAIL" | b"RCPT" | b"RSET" | b"NOOP" => b"250 ok\r\n",
                b"DATA" => {
                    in_content = true;
                    b"354 go on\r\n"
                }
                b"QUIT" => {
                    stream.write_all(b"221 bye\r\n").await?;
                    return Ok(None);
                }
                _ => return Ok(Some(String::from_utf8_lossy(&buffer[..at]).into_owned())),
            }
        };
        buffer.drain(..at + end.len());
        stream.write_all(answer).await?;
    }
}
