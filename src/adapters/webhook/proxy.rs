//! The way through an HTTP proxy: connecting to it, and the tunnel that `CONNECT` opens (RFC 9110 §9.3.6).
//!
//! The proxy's addresses go through a guard of their own. Nothing is sent to the receiver before the proxy has agreed,
//! and what a proxy says never gets into a message, only its status.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tower_service::Service as _;

use super::connect::ConnectError;
use super::guard::Guard;
use crate::domain::egress::Refusal;
use crate::domain::proxy::Proxy;

/// Most bytes of a proxy's answer to `CONNECT`.
const MAX_ANSWER: usize = 8 * 1024;

tokio::task_local! {
    /// As with the phases: the pool calls the connector within the request's own task.
    static WAY: Way;
}

/// How far a request got on its way through a proxy.
#[derive(Clone, Default)]
pub(super) struct Way {
    agreed: Arc<AtomicBool>,
    /// The proxy opens a tunnel, and does not pass the request on itself.
    pub(super) tunnels: bool,
}

impl Way {
    pub(super) fn new(tunnels: bool) -> Self {
        let agreed = Arc::default();
        Self { agreed, tunnels }
    }

    /// Whether the proxy is reached and has agreed to what it was asked.
    pub(super) fn is_open(&self) -> bool {
        self.agreed.load(Ordering::Relaxed)
    }

    /// Runs a request, from the start of its way.
    pub(super) async fn watch<F: Future>(&self, request: F) -> F::Output {
        self.agreed.store(false, Ordering::Relaxed);
        WAY.scope(self.clone(), request).await
    }
}

/// A connection in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Why there is no way through the proxy.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProxyError {
    /// The proxy's address is refused.
    #[error("the proxy's address is refused")]
    Refused(Refusal),
    /// The proxy is not reached.
    #[error("the proxy is not reached")]
    Unreached(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// TLS to the proxy failed.
    #[error("TLS to the proxy failed")]
    Tls(#[source] io::Error),
    /// The proxy says no.
    #[error("the proxy answered {0}")]
    Status(u16),
    /// The proxy closes before it has answered.
    #[error("the proxy closed the connection")]
    Closed,
    /// The proxy says what is not HTTP, or too much.
    #[error("the proxy does not answer as a proxy does")]
    Garbled,
}

/// Connects to proxies.
pub(super) struct Dialer {
    pub(super) proxy: Proxy,
    guard: Guard,
    tcp: HttpConnector<Guard>,
    tls: TlsConnector,
}

impl Dialer {
    /// `guard` checks the proxy's addresses, `tls` is for the way to a proxy that has it.
    pub(super) fn new(proxy: Proxy, guard: Guard, tls: Arc<ClientConfig>) -> Self {
        let tcp = super::connect::tcp(guard.clone());
        Self {
            proxy,
            guard,
            tcp,
            tls: tls.into(),
        }
    }

    /// A connection to the proxy; through it to `host:port` when a tunnel is wanted.
    pub(super) async fn dial(&self, tunnel: Option<&str>) -> Result<Box<dyn Duplex>, ConnectError> {
        let mut stream = self.reach().await.map_err(ConnectError::Proxy)?;
        if let Some(target) = tunnel {
            self.open(&mut stream, target)
                .await
                .map_err(ConnectError::Proxy)?;
        }
        // A connection that is opened for no request in particular finds none.
        let _ = WAY.try_with(|way| way.agreed.store(true, Ordering::Relaxed));
        Ok(stream)
    }

    async fn reach(&self) -> Result<Box<dyn Duplex>, ProxyError> {
        let Proxy { host, port, .. } = &self.proxy;
        let name = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = name.parse::<IpAddr>() {
            self.guard.check(address).map_err(ProxyError::Refused)?;
        }
        let uri = Uri::try_from(format!("http://{host}:{port}/"));
        let uri = uri.map_err(|error| ProxyError::Unreached(error.into()))?;
        let tcp = self.tcp.clone().call(uri).await;
        let tcp = tcp.map_err(|error| ProxyError::Unreached(error.into()))?;
        let tcp = TokioIo::into_inner(tcp);
        if !self.proxy.secure {
            return Ok(Box::new(tcp));
        }
        let invalid = |error| ProxyError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error));
        let name = ServerName::try_from(name.to_owned()).map_err(invalid)?;
        let tls = self.tls.connect(name, tcp).await.map_err(ProxyError::Tls)?;
        Ok(Box::new(tls))
    }

    async fn open(&self, stream: &mut Box<dyn Duplex>, target: &str) -> Result<(), ProxyError> {
        let broken = |_: io::Error| ProxyError::Closed;
        let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
        if let Some(value) = &self.proxy.authorization {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(value.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        // Byte by byte, so that nothing of what comes after the head is taken from TLS.
        let mut head = Vec::with_capacity(256);
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= MAX_ANSWER {
                return Err(ProxyError::Garbled);
            }
            head.push(stream.read_u8().await.map_err(broken)?);
        }
        match status(&head) {
            Some(200..=299) => Ok(()),
            Some(status) => Err(ProxyError::Status(status)),
            None => Err(ProxyError::Garbled),
        }
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    let text = std::str::from_utf8(line).ok()?;
    text.parse().ok().filter(|status| (100..600).contains(status))
}
