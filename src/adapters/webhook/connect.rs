//! Opens connections: guarded lookup, TCP (IPv4 and IPv6 raced), TLS with the protocol agreed by ALPN.
//!
//! A connection that has lost the race against one that became free is finished in the background and pooled, without
//! any request's deadline over it; [`CONNECT_TIMEOUT`] bounds it.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use http::Uri;
use http::uri::Scheme;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use super::guard::Guard;
use super::metrics::{OpenConnection, TransportMetrics};
use super::phases::Phases;
use super::proxy::{Dialer, Duplex, ProxyError};
use crate::domain::egress::Refusal;

/// How long connecting and TLS may take together: as long as the longest deadline of a destination.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(60);
/// How long TCP may take over all addresses of a name; each gets its share, so a dead first one leaves time for others.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The host is an address that is refused.
    #[error("the address is refused")]
    Refused(Refusal),
    /// Lookup or TCP failed.
    #[error("connecting failed")]
    Tcp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// TLS failed.
    #[error("the TLS handshake failed")]
    Tls(#[source] io::Error),
    /// There is no way through the proxy.
    #[error("no way through the proxy")]
    Proxy(#[source] ProxyError),
    /// It took too long.
    #[error("connecting took too long")]
    TimedOut,
}

/// What a connection's way has that the plain one has not.
#[derive(Clone, Default)]
pub(super) struct Route {
    /// The name that certificates must have, when it is not the URL's host.
    pub(super) server_name: Option<ServerName<'static>>,
    /// The way through a proxy.
    pub(super) dialer: Option<Arc<Dialer>>,
}

/// Opens connections to receivers. The client clones it twice for each request, so it is one pointer.
#[derive(Clone)]
pub(super) struct Connector(Arc<Parts>);

struct Parts {
    guard: Guard,
    tcp: HttpConnector<Guard>,
    tls: TlsConnector,
    route: Route,
    metrics: TransportMetrics,
}

impl Connector {
    pub(super) fn new(guard: Guard, tls: Arc<ClientConfig>, route: Route, metrics: TransportMetrics) -> Self {
        let tcp = tcp(guard.clone());
        Self(Arc::new(Parts {
            guard,
            tcp,
            tls: tls.into(),
            route,
            metrics,
        }))
    }

    async fn connect(self, uri: Uri, phases: Option<Arc<Phases>>) -> Result<Stream, ConnectError> {
        let Parts {
            guard,
            tcp,
            tls,
            route,
            metrics,
        } = &*self.0;
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']');
        // The URL was checked before it got here; this is against a reading of it by `Uri` that differs from `Url`'s.
        if let Ok(address) = host.parse::<IpAddr>() {
            guard.check(address).map_err(ConnectError::Refused)?;
        }
        let name = secure.then(|| match &route.server_name {
            Some(name) => Ok(name.clone()),
            None => ServerName::try_from(host.to_owned()),
        });
        let began = Instant::now();
        if let Some(dialer) = &route.dialer {
            let port = uri.port_u16().unwrap_or(443);
            let target = name
                .as_ref()
                .map(|_| format!("{}:{port}", uri.host().unwrap_or_default()));
            let stream = dialer.dial(target.as_deref()).await?;
            let connected = Instant::now();
            if let Some(phases) = &phases {
                phases.connected(began);
            }
            let stream = proxied(stream, name, tls, metrics.opened()).await?;
            if let Some(phases) = phases.filter(|_| secure) {
                phases.secured(connected);
            }
            return Ok(stream);
        }
        let tcp = tcp
            .clone()
            .call(uri)
            .await
            .map_err(|error| ConnectError::Tcp(error.into()))?;
        let connected = Instant::now();
        if let Some(phases) = &phases {
            phases.connected(began);
        }
        let open = metrics.opened();
        let Some(name) = name else {
            return Ok(Stream {
                io: Io::Plain(tcp),
                _open: open,
            });
        };
        let name =
            name.map_err(|error| ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let tls = tls
            .connect(name, tcp.into_inner())
            .await
            .map_err(ConnectError::Tls)?;
        if let Some(phases) = &phases {
            phases.secured(connected);
        }
        Ok(Stream {
            io: Io::Tls(Box::new(TokioIo::new(tls))),
            _open: open,
        })
    }
}

/// Opens TCP connections to addresses that a guard lets through.
pub(super) fn tcp(guard: Guard) -> HttpConnector<Guard> {
    let mut tcp = HttpConnector::new_with_resolver(guard);
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(TCP_TIMEOUT));
    tcp
}

/// A connection through a proxy: with TLS inside its tunnel, or as it is for requests that the proxy passes on.
async fn proxied(
    stream: Box<dyn Duplex>,
    name: Option<Result<ServerName<'static>, InvalidDnsNameError>>,
    tls: &TlsConnector,
    open: OpenConnection,
) -> Result<Stream, ConnectError> {
    let Some(name) = name else {
        return Ok(Stream {
            io: Io::Proxied {
                io: TokioIo::new(stream),
                tunnel: None,
            },
            _open: open,
        });
    };
    let name = name.map_err(|error| ConnectError::Tls(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let tls = tls.connect(name, stream).await.map_err(ConnectError::Tls)?;
    let http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Stream {
        io: Io::Proxied {
            io: TokioIo::new(Box::new(tls)),
            tunnel: Some(Tunnel { http2 }),
        },
        _open: open,
    })
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Stream, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = tokio::time::timeout(CONNECT_TIMEOUT, self.clone().connect(uri, Phases::current()));
        connecting
            .map(|result| result.unwrap_or(Err(ConnectError::TimedOut)))
            .boxed()
    }
}

/// Whether a connection has brought an answer before; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Answered(Arc<AtomicBool>);

impl Answered {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// An open connection.
pub(super) struct Stream {
    io: Io,
    _open: OpenConnection,
}

enum Io {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
    Proxied {
        io: TokioIo<Box<dyn Duplex>>,
        /// `None`: the proxy reads the requests and passes them on.
        tunnel: Option<Tunnel>,
    },
}

/// A way to the receiver that the proxy does not look into.
struct Tunnel {
    http2: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(Answered::default());
        match &self.io {
            Io::Tls(tls) if tls.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                connected.negotiated_h2()
            }
            Io::Proxied { tunnel: None, .. } => connected.proxy(true),
            Io::Proxied {
                tunnel: Some(Tunnel { http2: true }),
                ..
            } => connected.negotiated_h2(),
            Io::Tls(_) | Io::Plain(_) | Io::Proxied { .. } => connected,
        }
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_read(cx, buf),
            Io::Proxied { io, .. } => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Io::Tls(io) => Pin::new(io).poll_write(cx, buf),
            Io::Proxied { io, .. } => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_flush(cx),
            Io::Tls(io) => Pin::new(io).poll_flush(cx),
            Io::Proxied { io, .. } => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Io::Tls(io) => Pin::new(io).poll_shutdown(cx),
            Io::Proxied { io, .. } => Pin::new(io).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
            Io::Proxied { io, .. } => io.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Io::Proxied { io, .. } => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }
}
