//! Turns what the server said, or did not say, into [`Failure`]s and [`Fate`]s.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;
use std::time::Duration;

use rustls::CertificateError;

use super::session::{SmtpError, Stage};
use crate::adapters::webhook::guard::LookupError;
use crate::domain::delivery_log::Timings;
use crate::domain::egress::Refusal;
use crate::domain::email::Letter;
use crate::domain::email::settled::Fate;
use crate::domain::outcome::{Failure, FailureReason as Reason};

/// How far an attempt got.
pub(super) struct Progress {
    pub(super) stage: Stage,
    /// Of the connection that was opened last, if any was.
    pub(super) timings: Timings,
    fates: Vec<Option<Fate>>,
}

impl Progress {
    pub(super) fn new(recipients: usize) -> Self {
        Self {
            stage: Stage::default(),
            timings: Timings::default(),
            fates: vec![None; recipients],
        }
    }

    pub(super) fn settle(&mut self, index: usize, fate: Fate) {
        if let Some(slot) = self.fates.get_mut(index) {
            *slot = Some(fate);
        }
    }

    pub(super) fn settle_all(&mut self, first: usize, letter: &Letter, fate: &Fate) {
        for index in 0..letter.recipients.len() {
            self.settle(first + index, fate.clone());
        }
    }

    /// What became of each; `rest` for those of whom nothing is known.
    pub(super) fn fates(self, rest: &Failure) -> Vec<Fate> {
        let rest = || {
            if rest.reason.is_terminal() {
                Fate::Refused(rest.clone())
            } else {
                Fate::Open(rest.clone())
            }
        };
        self.fates
            .into_iter()
            .map(|fate| fate.unwrap_or_else(rest))
            .collect()
    }

    /// The failure of an attempt whose deadline passed.
    pub(super) fn timed_out(&self, deadline: Duration) -> Failure {
        let message = match self.stage {
            Stage::Waiting => format!(
                "no connection became free within {deadline:?}; the SMTP server takes mails more slowly than they come"
            ),
            Stage::Connect => format!("no connection within {deadline:?}; check host, port and firewall"),
            stage => format!(
                "the SMTP server did not answer {} within {deadline:?}; raise the destination's timeout if it is slow",
                what(stage)
            ),
        };
        Failure::new(Reason::Timeout, message)
    }
}

/// What we had said.
const fn what(stage: Stage) -> &'static str {
    match stage {
        Stage::Waiting | Stage::Connect | Stage::Greeting => "the connection with its greeting",
        Stage::Hello => "EHLO",
        Stage::Tls => "the TLS handshake",
        Stage::Authentication => "AUTH",
        Stage::Sender => "MAIL FROM",
        Stage::Recipient => "RCPT TO",
        Stage::Data => "DATA",
        Stage::Content => "the mail",
        Stage::Done => "RSET",
    }
}

/// What an answer about a letter means for those it was about.
pub(super) fn fate(error: &SmtpError) -> Fate {
    let failure = failure(error);
    if failure.reason.is_terminal() {
        Fate::Refused(failure)
    } else {
        Fate::Open(failure)
    }
}

/// The failure that an error means.
pub(super) fn failure(error: &SmtpError) -> Failure {
    let (reason, message) = match error {
        SmtpError::Refused(refusal) => (Reason::EgressRefused, refusal.to_string()),
        SmtpError::Lookup(error) => lookup(error),
        SmtpError::Connect(error) => connect(error),
        SmtpError::Handshake(error) => handshake(error),
        SmtpError::Authority(error) => (
            Reason::TlsError,
            format!("key \"ca\" of the SMTP server's Secret holds a certificate that cannot be used: {error}"),
        ),
        SmtpError::NoStartTls => (
            Reason::TlsError,
            "the SMTP server does not offer STARTTLS, and nothing is sent in plain text; check the port, or set \
             security to TLS (port 465)"
                .to_owned(),
        ),
        SmtpError::Injected => (
            Reason::TlsError,
            "the SMTP server sent more before the TLS handshake; somebody may be in between".to_owned(),
        ),
        SmtpError::NoMechanism => (
            Reason::AuthenticationFailed,
            "the SMTP server offers neither AUTH PLAIN nor AUTH LOGIN here; check port and security, or remove \
             username and password"
                .to_owned(),
        ),
        SmtpError::TooLarge { size, limit } => (
            Reason::MessageRefused,
            format!("the mail has {size} bytes and the SMTP server takes {limit}; send less of the event"),
        ),
        SmtpError::NoUtf8 => (
            Reason::MessageRefused,
            "an address has letters outside ASCII and the SMTP server has no SMTPUTF8; use another address or \
             server, or perRecipient so that it keeps no one else's mail"
                .to_owned(),
        ),
        SmtpError::Closed(stage) => (
            Reason::ConnectionReset,
            format!("the SMTP server closed the connection instead of answering {}", what(*stage)),
        ),
        SmtpError::Io(stage, error) => (
            if error.kind() == ErrorKind::TimedOut {
                Reason::Timeout
            } else {
                Reason::ConnectionReset
            },
            format!("the connection to the SMTP server broke at {}", what(*stage)),
        ),
        SmtpError::Garbage(stage) => (
            Reason::ProtocolError,
            format!("the answer to {} is not SMTP; check host, port and security", what(*stage)),
        ),
        SmtpError::Unasked(stage) => (
            Reason::ProtocolError,
            format!(
                "the SMTP server spoke before {}, unasked; check host and port, and what stands in between",
                what(*stage)
            ),
        ),
        SmtpError::Answer { stage, code, text } => return answer(*stage, *code, text),
    };
    Failure::new(reason, message)
}

fn answer(stage: Stage, code: u16, text: &str) -> Failure {
    let reason = match (stage, code) {
        (_, 421) | (Stage::Greeting, _) => Reason::Unavailable,
        (Stage::Tls, _) => Reason::TlsError,
        (Stage::Authentication, 500..) | (_, 530 | 534 | 535 | 538) => Reason::AuthenticationFailed,
        // RFC 5321 §4.5.3.1.10: old servers say 552 for "too many recipients".
        (_, ..500) | (Stage::Recipient, 552) => Reason::TryLater,
        (Stage::Recipient, _) => Reason::RecipientRefused,
        (Stage::Sender | Stage::Data | Stage::Content, _) => Reason::MessageRefused,
        (Stage::Waiting | Stage::Connect | Stage::Hello | Stage::Done, _) => Reason::ProtocolError,
    };
    let hint = match reason {
        Reason::AuthenticationFailed if stage == Stage::Authentication => {
            "; check username and password in the SMTP server's Secret"
        }
        Reason::AuthenticationFailed => "; it wants username and password in the SMTP server's Secret",
        _ => "",
    };
    let space = if text.is_empty() { "" } else { " " };
    let message = format!(
        "the SMTP server answered {} with {code}{space}{text}{hint}",
        what(stage)
    );
    Failure {
        status: Some(code),
        ..Failure::new(reason, message)
    }
}

fn lookup(error: &LookupError) -> (Reason, String) {
    match error {
        // Which address it was stays unsaid, as for webhooks.
        LookupError::Refused(Refusal::Address { block, .. } | Refusal::Inner { block, .. }) => (
            Reason::EgressRefused,
            format!(
                "the SMTP server's name resolves to {}; {}",
                block.kind.noun(),
                block.remedy()
            ),
        ),
        LookupError::Refused(refusal) => (Reason::EgressRefused, refusal.to_string()),
        LookupError::Unknown(_) => (Reason::DnsError, format!("{error}; check the SMTP server's name")),
        LookupError::TimedOut => (Reason::DnsError, format!("{error}; check the cluster's DNS")),
    }
}

fn connect(error: &io::Error) -> (Reason, String) {
    match error.kind() {
        ErrorKind::ConnectionRefused => (
            Reason::ConnectionRefused,
            "nothing listens on the SMTP server's port; check host and port".to_owned(),
        ),
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => (
            Reason::ConnectionReset,
            "the connection was reset while it was opened".to_owned(),
        ),
        ErrorKind::TimedOut => (
            Reason::Timeout,
            "the SMTP server's host does not answer; check host, port and firewall".to_owned(),
        ),
        _ => (Reason::ConnectionFailed, format!("connecting failed: {error}")),
    }
}

/// What rustls says of a failed handshake.
fn tls(error: &io::Error) -> Option<&rustls::Error> {
    let mut causes = successors(Some(error as &(dyn Error + 'static)), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped
            .map(|inner| inner as &(dyn Error + 'static))
            .or_else(|| error.source())
    });
    causes.find_map(|cause| cause.downcast_ref::<rustls::Error>())
}

/// Whether the other side does not speak TLS at all.
pub(super) fn is_no_tls(error: &io::Error) -> bool {
    matches!(tls(error), Some(rustls::Error::InvalidMessage(_)))
}

fn handshake(error: &io::Error) -> (Reason, String) {
    let message = match tls(error) {
        Some(rustls::Error::InvalidCertificate(certificate)) => match certificate {
            CertificateError::UnknownIssuer => {
                "the SMTP server's certificate is from an authority that is not trusted; put its authority into key \
                 \"ca\" of the server's Secret"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the SMTP server's certificate is for another host name; use the name it is for as host".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the SMTP server's certificate has expired".to_owned()
            }
            other => format!("the SMTP server's certificate is not accepted: {other}"),
        },
        Some(rustls::Error::InvalidMessage(_)) => {
            "the port does not speak TLS from the first byte; set security to StartTLS, or use the TLS port (465)"
                .to_owned()
        }
        Some(rustls::Error::AlertReceived(alert)) => format!("the SMTP server refused TLS: {alert:?}"),
        Some(rustls::Error::PeerIncompatible(_)) => {
            "the SMTP server speaks no TLS version or cipher of ours; it needs TLS 1.2".to_owned()
        }
        Some(other) => format!("TLS failed: {other}"),
        None if error.kind() == ErrorKind::InvalidInput => "the host is not a name that TLS can check".to_owned(),
        None => "the SMTP server broke the connection off during the TLS handshake".to_owned(),
    };
    (Reason::TlsError, message)
}
