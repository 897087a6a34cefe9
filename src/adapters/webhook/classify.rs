//! Turns errors below HTTP into [`Failure`]s.
//!
//! An error is read by the types in its chain of causes, never by its text (but for [`unnamed`]): hyper-util's error
//! wraps hyper's or our connector's, those wrap I/O errors, and an I/O error may itself wrap one of rustls. The first
//! cause that says something definite decides. Messages say what happened and what to do; they never hold the URL,
//! because none of these errors does.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Extensions;
use hyper_util::client::legacy as client;
use rustls::{AlertDescription, CertificateError};

use super::connect::{Answered, ConnectError};
use super::guard::LookupError;
use super::proxy::{ProxyError, Way};
use crate::domain::egress::Refusal;
use crate::domain::outcome::{Failure, FailureReason};

/// How far an attempt got.
#[derive(Default)]
pub(super) struct Progress {
    /// The request's body was taken, so there is a connection.
    pub(super) sent: Arc<AtomicBool>,
    /// The way through a proxy, when there is one.
    pub(super) way: Option<Way>,
    /// The answer's head is here.
    pub(super) status: Option<u16>,
    /// The request waits for its token.
    pub(super) awaits_token: bool,
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
        if self.awaits_token {
            let message =
                format!("no token within {deadline:?}; check tokenURL and whether its server answers");
            return self.fail(FailureReason::TokenRequestFailed, message);
        }
        let message = if let Some(status) = self.status {
            format!(
                "the receiver answered {status}, but its body did not end within {deadline:?}; answer with a short one"
            )
        } else if self.sent.load(Ordering::Relaxed) {
            if self.way.as_ref().is_some_and(|way| !way.tunnels) {
                let message = format!(
                    "no answer through the proxy within {deadline:?}; check that the proxy reaches the receiver; answer \
                     first and work afterwards, or raise the destination's timeout"
                );
                return self.fail(FailureReason::Timeout, message);
            }
            format!(
                "no answer within {deadline:?}; answer first and work afterwards, or raise the destination's timeout"
            )
        } else if let Some(way) = &self.way {
            if !way.is_open() {
                let message = format!(
                    "the proxy did not answer within {deadline:?}; check the proxy, its host and port"
                );
                return self.fail(FailureReason::ProxyFailed, message);
            }
            format!("no connection through the proxy within {deadline:?}; check the receiver's host and port")
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
        ConnectError::Proxy(error) => Some(proxy(error)),
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

fn proxy(error: &ProxyError) -> Verdict {
    let failed = |what: &str| (FailureReason::ProxyFailed, what.to_owned());
    match error {
        ProxyError::Refused(refusal) => forbidden(refusal),
        ProxyError::Status(status) => {
            let failure = proxy_status(*status);
            (failure.reason, failure.message)
        }
        ProxyError::Closed => failed(
            "the proxy closed the connection without an answer; it may not reach the receiver, or be no proxy",
        ),
        ProxyError::Garbled => failed("the host does not answer as a proxy; check proxy.url"),
        ProxyError::Tls(error) => {
            let (_, message) = handshake(error);
            failed(&format!("of the proxy: {message}"))
        }
        ProxyError::Unreached(error) => causes(error.as_ref())
            .find_map(|cause| match cause.downcast_ref::<LookupError>()? {
                LookupError::Refused(refusal) => Some(forbidden(refusal)),
                error => Some(failed(&format!("the proxy's host: {error}; check proxy.url"))),
            })
            .unwrap_or_else(|| failed("the proxy is not reached; check its host, port and firewall")),
    }
}

/// A proxy whose address is refused. Unlike a receiver's, it does not give events up: the proxy is not what they are for.
fn forbidden(refusal: &Refusal) -> Verdict {
    let why = match refusal {
        Refusal::Address { block, .. } | Refusal::Inner { block, .. } => block.kind.noun().to_owned(),
        other => other.to_string(),
    };
    (
        FailureReason::ProxyRefused,
        format!("the proxy may not be used, its address is {why}; allow its range with --allow-proxy"),
    )
}

/// What a proxy means that answers with a status of its own.
pub(super) fn proxy_status(status: u16) -> Failure {
    let (reason, what) = match status {
        407 => (
            FailureReason::ProxyRefused,
            "it wants another user name or password; check proxy.authFrom",
        ),
        500..=599 => (FailureReason::ProxyFailed, "it does not reach the receiver"),
        _ => (
            FailureReason::ProxyRefused,
            "it does not let us through to this receiver",
        ),
    };
    Failure::new(reason, format!("the proxy answered {status}: {what}"))
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
                "the receiver's certificate is from an authority that is not trusted; send the whole chain, or name \
                 its authority in tls.caFrom or SSL_CERT_FILE"
                    .to_owned()
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the receiver's certificate is for another host name; check the URL and tls.serverName".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the receiver's certificate has expired".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the receiver's certificate is not valid yet; check both clocks".to_owned()
            }
            CertificateError::Revoked => "the receiver's certificate is revoked".to_owned(),
            CertificateError::Other(other) => unnamed(other),
            other => format!("the receiver's certificate is not accepted: {other}"),
        },
        rustls::Error::InvalidMessage(_) => "the port does not speak TLS; use http:// or the TLS port".to_owned(),
        rustls::Error::AlertReceived(alert) => refused_by(*alert),
        rustls::Error::PeerIncompatible(_) => "the receiver speaks no TLS version or cipher of ours; it needs TLS 1.2".to_owned(),
        other => format!("TLS failed: {other}"),
    };
    (FailureReason::TlsError, message)
}

/// A fault of a certificate for which rustls has no word of its own. The library below it, whose words these are, is
/// not ours to name a type of, so here the word itself is read.
fn unnamed(error: &rustls::OtherError) -> String {
    match error.to_string().as_str() {
        "CaUsedAsEndEntity" => {
            "the receiver's certificate is an authority's own (CA:TRUE), as a self-signed one often \
             is; have the receiver show one for its host name with CA:FALSE"
                .to_owned()
        }
        other => format!("the receiver's certificate is not accepted: {other}"),
    }
}

/// What a receiver means that ends TLS with an alert.
fn refused_by(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired => {
            "the receiver asks for a client certificate; set tls.clientCertificateFrom".to_owned()
        }
        A::BadCertificate
        | A::UnsupportedCertificate
        | A::CertificateRevoked
        | A::CertificateExpired
        | A::CertificateUnknown
        | A::UnknownCA
        | A::AccessDenied
        | A::DecryptError => format!(
            "the receiver does not accept our client certificate ({alert:?}); check tls.clientCertificateFrom, and \
             that the receiver trusts its authority"
        ),
        A::HandshakeFailure => {
            "the receiver refused TLS: HandshakeFailure; it may ask for a client certificate, or \
            for a version or cipher that we do not have"
                .to_owned()
        }
        A::UnrecognisedName => {
            "the receiver does not know the host's name; check the URL and tls.serverName".to_owned()
        }
        other => format!("the receiver refused TLS: {other:?}"),
    }
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
