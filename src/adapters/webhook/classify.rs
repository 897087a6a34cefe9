//! Turns errors below HTTP into [`Failure`]s.
//!
//! An error is read by the types in its chain of causes, never by its text: hyper-util's error wraps hyper's or our
//! connector's, those wrap I/O errors, and an I/O error may itself wrap one of rustls. The first cause that says
//! something definite decides. Messages say what happened and what to do; they never hold the URL, because none of
//! these errors does.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Extensions;
use hyper_util::client::legacy as client;
use rustls::CertificateError;

use super::connect::{Answered, ConnectError};
use super::guard::LookupError;
use crate::domain::egress::Refusal;
use crate::domain::outcome::{Failure, FailureReason};

/// How far an attempt got.
#[derive(Default)]
pub(super) struct Progress {
    /// The request's body was taken, so there is a connection.
    pub(super) sent: Arc<AtomicBool>,
    /// The answer's head is here.
    pub(super) status: Option<u16>,
    /// When that was.
    pub(super) head: Option<tokio::time::Instant>,
}

impl Progress {
    pub(super) fn fail(&self, reason: FailureReason, message: impl Into<String>) -> Failure {
        Failure {
            status: self.status,
            ..Failure::new(reason, message)
        }
    }

    /// The failure of an attempt whose deadline passed.
    pub(super) fn timed_out(&self, deadline: Duration) -> Failure {
        let message = if let Some(status) = self.status {
            format!(
                "the receiver answered {status}, but its body did not end within {deadline:?}; answer with a short one"
            )
        } else if self.sent.load(Ordering::Relaxed) {
            format!(
                "no answer within {deadline:?}; answer first and work afterwards, or raise the destination's timeout"
            )
        } else {
            format!("no connection within {deadline:?}; check host, port and firewall")
        };
        self.fail(FailureReason::Timeout, message)
    }
}

/// The failure that an error of the client means.
pub(super) fn failure(error: &(dyn Error + 'static), progress: &Progress) -> Failure {
    let (reason, message) = causes(error).find_map(verdict).unwrap_or_else(|| {
        (
            FailureReason::ConnectionFailed,
            format!("the request failed: {}", last(error)),
        )
    });
    progress.fail(reason, message)
}

/// Whether a request failed because its connection, which had answered before, was closed or is being closed.
pub(super) fn is_stale(error: &client::Error) -> bool {
    let mut facts = Extensions::new();
    if let Some(connection) = error.connect_info() {
        connection.get_extras(&mut facts);
    }
    facts.get::<Answered>().is_some_and(Answered::get)
        && causes(error)
            .find_map(verdict)
            .is_some_and(|(reason, _)| reason == FailureReason::ConnectionReset)
}

type Verdict = (FailureReason, String);

fn verdict(cause: &(dyn Error + 'static)) -> Option<Verdict> {
    if let Some(error) = cause.downcast_ref::<ConnectError>() {
        return connect(error);
    }
    if let Some(error) = cause.downcast_ref::<LookupError>() {
        return Some(lookup(error));
    }
    if let Some(error) = cause.downcast_ref::<rustls::Error>() {
        return Some(tls(error));
    }
    if let Some(error) = cause.downcast_ref::<hyper::Error>() {
        return http(error);
    }
    if let Some(error) = cause.downcast_ref::<h2::Error>() {
        return http2(error);
    }
    cause.downcast_ref::<io::Error>().and_then(broken)
}

fn connect(error: &ConnectError) -> Option<Verdict> {
    match error {
        ConnectError::Refused(refusal) => Some((FailureReason::EgressRefused, refusal.to_string())),
        ConnectError::TimedOut => Some((FailureReason::Timeout, "connecting took too long".to_owned())),
        ConnectError::Tls(error) => Some(handshake(error)),
        // Lookup errors and those of the system are further down.
        ConnectError::Tcp(error) => causes(error.as_ref()).find_map(|cause| {
            if let Some(error) = cause.downcast_ref::<LookupError>() {
                return Some(lookup(error));
            }
            let error = cause.downcast_ref::<io::Error>()?;
            Some(match error.kind() {
                ErrorKind::ConnectionRefused => (
                    FailureReason::ConnectionRefused,
                    "nothing listens on the host's port; check host and port".to_owned(),
                ),
                ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted => (
                    FailureReason::ConnectionReset,
                    "the connection was reset while it was opened".to_owned(),
                ),
                ErrorKind::TimedOut => (
                    FailureReason::Timeout,
                    "the host does not answer; check host, port and firewall".to_owned(),
                ),
                _ => (
                    FailureReason::ConnectionFailed,
                    format!("connecting failed: {error}"),
                ),
            })
        }),
    }
}

fn lookup(error: &LookupError) -> Verdict {
    match error {
        // Which address it was stays unsaid: the author of a URL may not be entitled to know our network.
        LookupError::Refused(Refusal::Address { block, .. } | Refusal::Inner { block, .. }) => (
            FailureReason::EgressRefused,
            format!(
                "the host's name resolves to {}; {}",
                block.kind.noun(),
                block.remedy()
            ),
        ),
        LookupError::Refused(refusal) => (FailureReason::EgressRefused, refusal.to_string()),
        LookupError::Unknown(_) => (FailureReason::DnsError, format!("{error}; check the host's name")),
        LookupError::TimedOut => (
            FailureReason::DnsError,
            format!("{error}; check the cluster's DNS"),
        ),
    }
}

fn handshake(error: &io::Error) -> Verdict {
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>()) {
        return tls(error);
    }
    match error.kind() {
        ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => (
            FailureReason::ConnectionReset,
            "the receiver reset the connection during the TLS handshake".to_owned(),
        ),
        ErrorKind::UnexpectedEof => (
            FailureReason::TlsError,
            "the receiver closed the connection during the TLS handshake".to_owned(),
        ),
        ErrorKind::InvalidInput => (
            FailureReason::TlsError,
            "the host is not a name that TLS can check".to_owned(),
        ),
        _ => (
            FailureReason::TlsError,
            format!("the TLS handshake failed: {error}"),
        ),
    }
}

fn tls(error: &rustls::Error) -> Verdict {
    let message = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer => {
                "the receiver's certificate is from an authority that is not trusted; send the whole chain, or trust \
                 its authority with SSL_CERT_FILE"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the receiver's certificate is for another host name".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the receiver's certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the receiver's certificate is not valid yet; check both clocks".to_owned()
            }
            CertificateError::Revoked => "the receiver's certificate is revoked".to_owned(),
            other => format!("the receiver's certificate is not accepted: {other}"),
        },
        rustls::Error::InvalidMessage(_) => "the port does not speak TLS; use http:// or the TLS port".to_owned(),
        rustls::Error::AlertReceived(alert) => format!("the receiver refused TLS: {alert:?}"),
        rustls::Error::PeerIncompatible(_) => "the receiver speaks no TLS version or cipher of ours; it needs TLS 1.2".to_owned(),
        other => format!("TLS failed: {other}"),
    };
    (FailureReason::TlsError, message)
}

fn http(error: &hyper::Error) -> Option<Verdict> {
    let (reason, message) = if error.is_incomplete_message() {
        (
            FailureReason::ConnectionReset,
            "the receiver closed the connection before the end of its answer",
        )
    } else if error.is_parse_too_large() {
        (
            FailureReason::ProtocolError,
            "the answer's headers are too many or too long",
        )
    } else if error.is_parse() {
        (
            FailureReason::ProtocolError,
            "the answer is not HTTP; check scheme and port",
        )
    } else if error.is_user() {
        (
            FailureReason::ProtocolError,
            "the request cannot be sent over HTTP",
        )
    } else if causes(error).skip(1).any(|cause| verdict(cause).is_some()) {
        return None; // what lies below says more
    } else if error.is_canceled() || error.is_closed() {
        (
            FailureReason::ConnectionReset,
            "the receiver closed the connection",
        )
    } else {
        return Some((
            FailureReason::ProtocolError,
            format!("HTTP/2 failed: {}", last(error)),
        ));
    };
    Some((reason, message.to_owned()))
}

fn http2(error: &h2::Error) -> Option<Verdict> {
    if let Some(error) = error.get_io() {
        return broken(error);
    }
    // A server that is about to close a connection refuses what came too late; the request was not worked on.
    let closing = error.is_remote()
        && (error.reason() == Some(h2::Reason::REFUSED_STREAM)
            || error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR));
    closing.then(|| {
        (
            FailureReason::ConnectionReset,
            "the receiver is closing its connections".to_owned(),
        )
    })
}

/// What an I/O error on an open connection means.
fn broken(error: &io::Error) -> Option<Verdict> {
    // What it wraps is looked at next.
    if error
        .get_ref()
        .is_some_and(<dyn Error + Send + Sync>::is::<rustls::Error>)
    {
        return None;
    }
    Some(match error.kind() {
        ErrorKind::UnexpectedEof => (
            FailureReason::ConnectionReset,
            "the receiver closed the connection before the end of its answer".to_owned(),
        ),
        // hyper's readers of chunked bodies.
        ErrorKind::InvalidData | ErrorKind::InvalidInput => (
            FailureReason::ProtocolError,
            "the answer's body is not valid HTTP".to_owned(),
        ),
        ErrorKind::TimedOut => (
            FailureReason::Timeout,
            "the receiver's host stopped answering".to_owned(),
        ),
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => (
            FailureReason::ConnectionReset,
            "the receiver reset the connection before the end of its answer".to_owned(),
        ),
        _ => (
            FailureReason::ConnectionFailed,
            format!("the connection failed: {error}"),
        ),
    })
}

/// An error and its causes, outermost first. An I/O error's `source` skips what it wraps, so that is taken first.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        wrapped
            .map(|inner| inner as &(dyn Error + 'static))
            .or_else(|| error.source())
    })
}

fn last<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    causes(error).last().unwrap_or(error)
}
