//! [`Session`]: the client's side of one SMTP connection (RFC 5321), after greeting, TLS and authentication.
//!
//! What is said is never logged: a password is part of it.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use zeroize::Zeroizing;

use super::metrics::OpenConnection;
use super::shown::shown;
use crate::adapters::webhook::guard::LookupError;
use crate::domain::egress::Refusal;
use crate::domain::email::{Letter, Mailbox};
use crate::domain::smtp::Credentials;

/// Most bytes of one reply, all its lines together.
pub(super) const MAX_REPLY: usize = 16 * 1024;
/// Bytes read at once.
const READ: usize = 4096;

/// What was being said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waiting for a free connection.
    #[default]
    Waiting,
    /// Name lookup and TCP.
    Connect,
    /// The server speaks first.
    Greeting,
    /// EHLO.
    Hello,
    /// STARTTLS, or the TLS handshake.
    Tls,
    /// AUTH.
    Authentication,
    /// MAIL FROM.
    Sender,
    /// RCPT TO.
    Recipient,
    /// DATA.
    Data,
    /// The mail itself, and the dot at its end.
    Content,
    /// After the last word about a letter.
    Done,
}

/// Why the conversation went no further.
#[derive(Debug, thiserror::Error)]
pub(super) enum SmtpError {
    /// The server's host is an address that is refused.
    #[error("the address is refused")]
    Refused(Refusal),
    /// The name gave no address.
    #[error("the name lookup failed")]
    Lookup(#[source] LookupError),
    /// TCP.
    #[error("connecting failed")]
    Connect(#[source] io::Error),
    /// The TLS handshake.
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    /// The private authority in the settings is no certificate.
    #[error("the private authority cannot be used")]
    Authority(#[source] rustls::Error),
    /// The server has no STARTTLS.
    #[error("the server does not offer STARTTLS")]
    NoStartTls,
    /// The server went on in plain text after it had agreed to TLS.
    #[error("the server sent plain text after STARTTLS")]
    Injected,
    /// The server offers no mechanism of ours.
    #[error("the server offers neither AUTH PLAIN nor AUTH LOGIN")]
    NoMechanism,
    /// The mail is over the size that the server announced.
    #[error("the mail is over the server's limit")]
    TooLarge {
        /// Bytes of the mail.
        size: usize,
        /// Bytes that the server takes.
        limit: usize,
    },
    /// An address needs SMTPUTF8.
    #[error("the server has no SMTPUTF8")]
    NoUtf8,
    /// An answer that is no agreement.
    #[error("the server answered {code}")]
    Answer {
        /// What was said before.
        stage: Stage,
        /// Code of the answer.
        code: u16,
        /// What of its text can be shown.
        text: String,
    },
    /// The connection ended.
    #[error("the connection ended")]
    Closed(Stage),
    /// The connection broke.
    #[error("the connection broke")]
    Io(Stage, #[source] io::Error),
    /// What the server said is not SMTP.
    #[error("the answer is not SMTP")]
    Garbage(Stage),
    /// The server said something before it was asked.
    #[error("the server spoke unasked")]
    Unasked(Stage),
}

impl SmtpError {
    /// Whether nothing more can be said on this connection.
    pub(super) const fn is_fatal(&self) -> bool {
        match self {
            Self::Answer { code, .. } => *code == 421,
            Self::TooLarge { .. } | Self::NoUtf8 => false,
            _ => true,
        }
    }

    /// Whether the server may agree to the same later.
    pub(super) const fn is_not_now(&self) -> bool {
        matches!(self, Self::Answer { code: 400..500, .. })
    }

    /// Whether a kept connection on which a letter cannot be begun so has outlived its time: another may do better.
    pub(super) const fn is_stale(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Io(..) | Self::Unasked(_)) || self.is_not_now()
    }
}

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// An answer: its code, and its lines without it.
#[derive(Debug)]
struct Answer {
    code: u16,
    lines: Vec<String>,
}

/// What the server said it can do.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is an extension of its own")]
struct Features {
    start_tls: bool,
    utf8: bool,
    plain: bool,
    login: bool,
    size: Option<usize>,
}

/// Lines in both directions.
struct Wire<S> {
    stream: S,
    read: Vec<u8>,
    features: Features,
    /// What the server is told in confidence, now or on another connection.
    credentials: Option<Credentials>,
}

impl<S: Stream> Wire<S> {
    const fn new(stream: S, credentials: Option<Credentials>) -> Self {
        Self {
            stream,
            credentials,
            read: Vec::new(),
            features: Features {
                start_tls: false,
                utf8: false,
                plain: false,
                login: false,
                size: None,
            },
        }
    }

    async fn write(&mut self, stage: Stage, mut bytes: &[u8]) -> Result<(), SmtpError> {
        self.expect_silence(stage).await?;
        let stream = &mut self.stream;
        while !bytes.is_empty() {
            let written = poll_fn(|cx| Pin::new(&mut *stream).poll_write(cx, bytes)).await;
            match written.map_err(|error| SmtpError::Io(stage, error))? {
                0 => return Err(SmtpError::Closed(stage)),
                count => bytes = bytes.get(count..).unwrap_or_default(),
            }
        }
        poll_fn(|cx| Pin::new(&mut *stream).poll_flush(cx))
            .await
            .map_err(|error| SmtpError::Io(stage, error))
    }

    /// Makes sure that the server has said no more than it was asked: the rest would be taken for the answer to what
    /// is said next, such as that it has the mail.
    async fn expect_silence(&mut self, stage: Stage) -> Result<(), SmtpError> {
        if self.read.is_empty() {
            let looked = poll_fn(|cx| Poll::Ready(self.poll_fill(cx, stage))).await;
            match looked {
                Poll::Pending => return Ok(()),
                Poll::Ready(read) => read?,
            }
        }
        match self.answer(stage).await {
            // A goodbye.
            Ok(answer) if answer.code == 421 => Err(self.refusal(&answer, stage)),
            Ok(_) | Err(SmtpError::Garbage(_)) => Err(SmtpError::Unasked(stage)),
            Err(error) => Err(error),
        }
    }

    /// Reads what is there.
    fn poll_fill(&mut self, cx: &mut Context<'_>, stage: Stage) -> Poll<Result<(), SmtpError>> {
        let mut bytes = [0; READ];
        let mut buffer = ReadBuf::new(&mut bytes);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
        Poll::Ready(match read {
            Err(error) => Err(SmtpError::Io(stage, error)),
            Ok(()) if buffer.filled().is_empty() => Err(SmtpError::Closed(stage)),
            Ok(()) => {
                self.read.extend_from_slice(buffer.filled());
                Ok(())
            }
        })
    }

    /// Reads until a whole line is there; takes it.
    async fn line(&mut self, stage: Stage, budget: &mut usize) -> Result<Vec<u8>, SmtpError> {
        let mut looked = 0;
        loop {
            let end = self.read.iter().skip(looked).position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let mut line: Vec<u8> = self.read.drain(..=looked + end).collect();
                *budget = budget.checked_sub(line.len()).ok_or(SmtpError::Garbage(stage))?;
                line.truncate(line.trim_ascii_end().len());
                return Ok(line);
            }
            looked = self.read.len();
            if looked > *budget {
                return Err(SmtpError::Garbage(stage));
            }
            poll_fn(|cx| self.poll_fill(cx, stage)).await?;
        }
    }

    async fn answer(&mut self, stage: Stage) -> Result<Answer, SmtpError> {
        let mut budget = MAX_REPLY;
        let mut lines = Vec::new();
        loop {
            let line = self.line(stage, &mut budget).await?;
            let code = line.get(..3).and_then(|code| std::str::from_utf8(code).ok());
            let code = code
                .and_then(|code| code.parse::<u16>().ok())
                .filter(|code| (200..600).contains(code));
            let code = code.ok_or(SmtpError::Garbage(stage))?;
            let text = line.get(4..).unwrap_or_default();
            lines.push(String::from_utf8_lossy(text).into_owned());
            match line.get(3) {
                Some(b'-') => {}
                Some(b' ') | None => return Ok(Answer { code, lines }),
                Some(_) => return Err(SmtpError::Garbage(stage)),
            }
        }
    }

    /// Reads an answer that must be among the wanted hundreds.
    async fn expect(&mut self, stage: Stage, wanted: u16) -> Result<Answer, SmtpError> {
        let answer = self.answer(stage).await?;
        if answer.code / 100 == wanted {
            return Ok(answer);
        }
        if answer.code < 400 {
            return Err(SmtpError::Garbage(stage));
        }
        Err(self.refusal(&answer, stage))
    }

    async fn command(&mut self, stage: Stage, line: &str, wanted: u16) -> Result<Answer, SmtpError> {
        self.write(stage, [line, "\r\n"].concat().as_bytes()).await?;
        self.expect(stage, wanted).await
    }

    async fn hello(&mut self, name: &str) -> Result<(), SmtpError> {
        let answer = self.command(Stage::Hello, &format!("EHLO {name}"), 2).await?;
        let mut features = Features::default();
        for line in answer.lines.iter().skip(1) {
            let mut words = line.split_ascii_whitespace().map(str::to_ascii_uppercase);
            let Some(keyword) = words.next() else { continue };
            match keyword.as_str() {
                "STARTTLS" => features.start_tls = true,
                "SMTPUTF8" => features.utf8 = true,
                "SIZE" => {
                    let size = words.next().and_then(|size| size.parse().ok());
                    features.size = size.filter(|size| *size > 0);
                }
                "AUTH" => {
                    for mechanism in words {
                        features.plain |= mechanism == "PLAIN";
                        features.login |= mechanism == "LOGIN";
                    }
                }
                _ => {}
            }
        }
        self.features = features;
        Ok(())
    }

    async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), SmtpError> {
        const STAGE: Stage = Stage::Authentication;
        let (user, password) = (
            credentials.username.as_str(),
            credentials.password.expose().as_str(),
        );
        let encode = |bytes: &[u8]| Zeroizing::new(STANDARD.encode(bytes));
        let line = |parts: &[&str]| Zeroizing::new(parts.concat());
        if self.features.plain {
            let token = line(&["\0", user, "\0", password]);
            let command = line(&["AUTH PLAIN ", &encode(token.as_bytes()), "\r\n"]);
            self.write(STAGE, command.as_bytes()).await?;
        } else if self.features.login {
            self.command(STAGE, "AUTH LOGIN", 3).await?;
            self.command(STAGE, &encode(user.as_bytes()), 3).await?;
            let password = line(&[&encode(password.as_bytes()), "\r\n"]);
            self.write(STAGE, password.as_bytes()).await?;
        } else {
            return Err(SmtpError::NoMechanism);
        }
        self.expect(STAGE, 2).await.map(drop)
    }

    fn refusal(&self, answer: &Answer, stage: Stage) -> SmtpError {
        // After a password, the code alone: what is left of a repeated one could be anything.
        let text = match stage {
            Stage::Authentication => String::new(),
            _ => shown(&answer.lines, self.credentials.as_ref()),
        };
        SmtpError::Answer {
            stage,
            code: answer.code,
            text,
        }
    }
}

/// The beginning of a conversation, before TLS.
pub(super) struct Opening<S>(Wire<S>);

impl<S: Stream> Opening<S> {
    /// Waits for the server's greeting. The credentials, if there are any, are those of [`Opening::sign_in`].
    pub(super) async fn greet(stream: S, credentials: Option<&Credentials>) -> Result<Self, SmtpError> {
        let mut wire = Wire::new(stream, credentials.cloned());
        wire.expect(Stage::Greeting, 2).await?;
        Ok(Self(wire))
    }

    /// Goes on after the TLS handshake; nothing that was said before it counts.
    pub(super) fn again(stream: S, credentials: Option<&Credentials>) -> Self {
        Self(Wire::new(stream, credentials.cloned()))
    }

    /// Introduces us.
    pub(super) async fn hello(&mut self, name: &str) -> Result<(), SmtpError> {
        self.0.hello(name).await
    }

    /// Asks for TLS; the handshake follows.
    pub(super) async fn start_tls(mut self) -> Result<S, SmtpError> {
        if !self.0.features.start_tls {
            return Err(SmtpError::NoStartTls);
        }
        self.0.command(Stage::Tls, "STARTTLS", 2).await?;
        // What came before the handshake was not protected, so it must not be read as if it were.
        if self.0.read.is_empty() {
            Ok(self.0.stream)
        } else {
            Err(SmtpError::Injected)
        }
    }

    /// Says who we are, if there are credentials.
    pub(super) async fn sign_in(mut self, open: OpenConnection) -> Result<Session, SmtpError>
    where
        S: 'static,
    {
        if let Some(credentials) = self.0.credentials.clone() {
            self.0.authenticate(&credentials).await?;
        }
        let Wire {
            stream,
            read,
            features,
            credentials,
        } = self.0;
        Ok(Session {
            wire: Wire {
                stream: Box::new(stream),
                read,
                features,
                credentials,
            },
            since: Instant::now(),
            _open: open,
        })
    }
}

/// A connection on which mails can be sent.
pub(super) struct Session {
    wire: Wire<Box<dyn Stream>>,
    since: Instant,
    _open: OpenConnection,
}

impl Session {
    /// Begins a letter.
    pub(super) async fn begin(&mut self, letter: &Letter, size: usize) -> Result<(), SmtpError> {
        if let Some(limit) = self.wire.features.size.filter(|limit| size > *limit) {
            return Err(SmtpError::TooLarge { size, limit });
        }
        let mut line = format!("MAIL FROM:<{}>", letter.from.address());
        if self.wire.features.size.is_some() {
            let _ = write!(line, " SIZE={size}");
        }
        if letter.is_international() {
            if !self.wire.features.utf8 {
                return Err(SmtpError::NoUtf8);
            }
            line.push_str(" SMTPUTF8 BODY=8BITMIME");
        }
        self.wire.command(Stage::Sender, &line, 2).await.map(drop)
    }

    /// Names a recipient.
    pub(super) async fn recipient(&mut self, mailbox: &Mailbox) -> Result<(), SmtpError> {
        let line = format!("RCPT TO:<{}>", mailbox.address());
        self.wire.command(Stage::Recipient, &line, 2).await.map(drop)
    }

    /// Asks to send the letter itself.
    pub(super) async fn data(&mut self) -> Result<(), SmtpError> {
        self.wire.command(Stage::Data, "DATA", 3).await.map(drop)
    }

    /// Sends the letter itself.
    pub(super) async fn content(&mut self, bytes: &[u8]) -> Result<(), SmtpError> {
        let written = self.wire.write(Stage::Content, &transparent(bytes)).await;
        let Err(broken @ SmtpError::Io(..)) = written else {
            written?;
            return self.wire.expect(Stage::Content, 2).await.map(drop);
        };
        // A server that reads no further, because it is too much, may have said so.
        match self.wire.expect(Stage::Content, 2).await {
            Err(refusal @ SmtpError::Answer { .. }) => Err(refusal),
            _ => Err(broken),
        }
    }

    /// Forgets a letter that was begun.
    pub(super) async fn reset(&mut self) -> Result<(), SmtpError> {
        self.wire.command(Stage::Done, "RSET", 2).await.map(drop)
    }

    /// Notes that it is unused from now on.
    pub(super) fn rest(&mut self) {
        self.since = Instant::now();
    }

    /// Since when it is unused.
    pub(super) const fn since(&self) -> Instant {
        self.since
    }

    /// Says goodbye, without waiting for the answer; at once, or not at all.
    pub(super) fn bid_farewell(mut self) {
        let stream = &mut self.wire.stream;
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let _ = Pin::new(&mut *stream).poll_write(&mut cx, b"QUIT\r\n");
        let _ = Pin::new(&mut *stream).poll_flush(&mut cx);
    }
}

/// A mail as it goes over the wire: a dot at the beginning of a line is doubled (RFC 5321 §4.5.2), line ends are CRLF,
/// and a dot on its own line ends it. In one piece, so that it leaves in one write.
fn transparent(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 64 + 8);
    let mut last = b'\n';
    for &byte in bytes {
        // lettre writes CRLF only; a bare LF would be a way to smuggle an end past some servers.
        if byte == b'\n' && last != b'\r' {
            out.push(b'\r');
        }
        if last == b'\r' && byte != b'\n' {
            out.push(b'\n');
            last = b'\n';
        }
        if byte == b'.' && last == b'\n' {
            out.push(b'.');
        }
        out.push(byte);
        last = byte;
    }
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests;
