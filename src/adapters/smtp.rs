//! [`SmtpMailer`]: sends mails over SMTP, behind the egress guard.
//!
//! lettre builds the messages ([`mime`]). The conversation ([`session`]) is our own: lettre's `AsyncSmtpConnection` has
//! its reader to itself, so that what a server says unasked, before TLS too, is read as the answer to the next command,
//! it reads a line without end without bound, and it logs every line that it says, passwords included. On top of it,
//! `AsyncSmtpTransport` gives a mail up when one recipient is refused, connects to any address, and bounds only the
//! unused connections of its pool. The invariants:
//!
//! - No connection is opened to an address that the [`EgressPolicy`] refuses: a name is looked up and its addresses are
//!   checked, and a checked address is the one that is dialled. TLS checks the name all the same.
//! - Nothing is said in plain text when the server's settings ask for TLS: a server without STARTTLS gets nothing.
//! - One deadline covers an attempt from the name lookup to the last reply. When it passes, the connection is dropped.
//! - At most [`MAX_CONNECTIONS`] connections to one server, whatever `maxInFlight` says; attempts beyond wait for
//!   one within their deadline. Of the servers that nobody uses at the moment, [`MAX_SERVERS`] keep connections.
//! - A reply is bounded ([`session::MAX_REPLY`]), counts only when it was asked for, and what is shown of it ([`shown`]) is
//!   visible ASCII without names of addresses, and without the password in any form in which the server was told it.
//! - What the server has taken is told as taken, even when the deadline passes later.
//!
//! Leaves to others: what is in a mail (`domain::email`), what becomes of the delivery (`domain::email::settled`).

mod classify;
mod connect;
mod metrics;
pub mod mime;
mod pool;
mod session;
mod shown;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rustls::ClientConfig;
use tokio::time::Instant;

pub use self::metrics::SmtpMetrics;

use self::classify::Progress;
use self::connect::Connector;
use self::pool::{Pool, Pools};
use self::session::{Session, SmtpError, Stage};
use crate::adapters::webhook::guard::Guard;
use crate::adapters::webhook::{Error, Lookup, TransportMetrics, Trust, trust};
use crate::domain::delivery_log::Timings;
use crate::domain::egress::EgressPolicy;
use crate::domain::email::settled::Fate;
use crate::domain::email::{Letter, Mail};
use crate::domain::outcome::{Failure, FailureReason};
use crate::engine::transport::Mailer;

/// Most connections to one server: what one user of a mail server may usually have.
pub const MAX_CONNECTIONS: usize = 10;
/// Most servers whose connections are kept although nobody uses them at the moment.
pub const MAX_SERVERS: usize = 128;
/// How long an unused connection is kept: as for webhooks, for how long a narrowed policy can be outlived.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// What a mailer needs to know.
#[derive(Clone)]
pub struct MailerSettings {
    /// Which addresses may be connected to.
    pub policy: EgressPolicy,
    /// Which certificates are trusted where the server's settings name no authority.
    pub trust: Trust,
    /// Looks up names.
    pub lookup: Lookup,
    /// Counts what the egress guard refuses.
    pub refusals: TransportMetrics,
    /// How long an unused connection is kept.
    pub idle: Duration,
}

/// Sends mails over SMTP.
pub struct SmtpMailer {
    connector: Connector,
    pools: Arc<Pools>,
    metrics: SmtpMetrics,
}

impl SmtpMailer {
    /// A mailer with its own connections.
    ///
    /// # Errors
    /// When the trusted certificates cannot be read.
    pub fn new(settings: MailerSettings) -> Result<Self, Error> {
        let metrics = SmtpMetrics::default();
        let tls: Arc<ClientConfig> = Arc::new(trust::plain_config(&settings.trust)?);
        let guard = Guard::new(Arc::new(settings.policy), settings.lookup);
        Ok(Self {
            connector: Connector::new(guard, tls, settings.refusals, metrics.clone()),
            pools: Arc::new(Pools::new(settings.idle, metrics.clone())),
            metrics,
        })
    }

    /// Counters and gauges of this mailer.
    pub const fn metrics(&self) -> &SmtpMetrics {
        &self.metrics
    }

    async fn say(&self, mail: &Mail, progress: &mut Progress) -> Result<(), SmtpError> {
        let pool = self.pools.of(&mail.server);
        let _slot = pool.slot(&self.metrics).await;
        let mut session = pool.take();
        let mut first = 0;
        for letter in &mail.letters {
            session = self.letter(mail, &pool, session, letter, first, progress).await?;
            first += letter.recipients.len();
        }
        if let Some(session) = session {
            self.pools.keep(&pool, session);
        }
        Ok(())
    }

    /// Says one letter, on the connection given or a new one; gives the connection back.
    async fn letter(
        &self,
        mail: &Mail,
        pool: &Arc<Pool>,
        mut kept: Option<Session>,
        letter: &Letter,
        first: usize,
        progress: &mut Progress,
    ) -> Result<Option<Session>, SmtpError> {
        let bytes = match mime::format(letter) {
            Ok(bytes) => bytes,
            Err(error) => {
                let failure = Failure::new(FailureReason::TemplateFault, error.to_string());
                progress.settle_all(first, letter, &Fate::Refused(failure));
                return Ok(kept);
            }
        };
        loop {
            let was_kept = kept.is_some();
            let mut session = match kept.take() {
                Some(session) => session,
                None => self.connector.open(&mail.server, pool, progress).await?,
            };
            progress.stage = Stage::Sender;
            match session.begin(letter, bytes.len()).await {
                Ok(()) => {
                    Self::tell(&mut session, letter, &bytes, first, progress).await?;
                    return Ok(Some(session));
                }
                // Closed while nobody used it: nothing was said of this letter, so another one is taken. One that was
                // opened just now is the last try.
                Err(error) if was_kept && error.is_stale() => kept = pool.take(),
                // Not now, and so not for the letters that follow: they are of the same sender.
                Err(error) if error.is_fatal() || error.is_not_now() => return Err(error),
                Err(error) => {
                    progress.settle_all(first, letter, &classify::fate(&error));
                    session.reset().await?;
                    return Ok(Some(session));
                }
            }
        }
    }

    /// Names the recipients of a letter and sends it to those that the server takes.
    async fn tell(
        session: &mut Session,
        letter: &Letter,
        bytes: &[u8],
        first: usize,
        progress: &mut Progress,
    ) -> Result<(), SmtpError> {
        let mut taken = Vec::with_capacity(letter.recipients.len());
        for (index, recipient) in letter.recipients.iter().enumerate() {
            progress.stage = Stage::Recipient;
            match session.recipient(&recipient.mailbox).await {
                Ok(()) => taken.push(first + index),
                Err(error) if error.is_fatal() => return Err(error),
                Err(error) => progress.settle(first + index, classify::fate(&error).of(&recipient.field)),
            }
        }
        if taken.is_empty() {
            return session.reset().await;
        }
        progress.stage = Stage::Data;
        let sent = match session.data().await {
            Ok(()) => {
                progress.stage = Stage::Content;
                session.content(bytes).await
            }
            Err(error) => Err(error),
        };
        let fate = match sent {
            Ok(()) => Fate::Taken,
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => classify::fate(&error),
        };
        for index in taken {
            progress.settle(index, fate.clone());
        }
        progress.stage = Stage::Done;
        if fate == Fate::Taken {
            Ok(())
        } else {
            session.reset().await
        }
    }
}

/// Tells which recipient a refusal is about.
trait Of {
    fn of(self, field: &str) -> Self;
}

impl Of for Fate {
    fn of(self, field: &str) -> Self {
        let named = |failure: Failure| Failure {
            message: Failure::new(failure.reason, format!("{field}: {}", failure.message)).message,
            ..failure
        };
        match self {
            Self::Taken => Self::Taken,
            Self::Refused(failure) => Self::Refused(named(failure)),
            Self::Open(failure) => Self::Open(named(failure)),
        }
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    async fn mail(&self, mail: &Mail, deadline: Duration) -> Vec<Fate> {
        self.mail_timed(mail, deadline).await.0
    }

    async fn mail_timed(&self, mail: &Mail, deadline: Duration) -> (Vec<Fate>, Timings) {
        let began = Instant::now();
        let mut progress = Progress::new(mail.recipients().count());
        let rest = match tokio::time::timeout(deadline, self.say(mail, &mut progress)).await {
            Ok(Ok(())) => Failure::new(
                FailureReason::ProtocolError,
                "the server said nothing of this recipient",
            ),
            Ok(Err(error)) => self.connector.failure(&error),
            Err(_) => progress.timed_out(deadline),
        };
        let timings = Timings {
            total: began.elapsed(),
            ..progress.timings
        };
        (progress.fates(&rest), timings)
    }
}
