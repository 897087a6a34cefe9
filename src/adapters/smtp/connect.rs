//! Opens connections: guarded lookup, TCP, TLS at once or after STARTTLS, authentication.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use lettre::transport::smtp::extension::ClientId;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::classify::{self, Progress};
use super::metrics::{OpenConnection, SmtpMetrics};
use super::pool::Pool;
use super::session::{Opening, Session, SmtpError, Stage, Stream};
use crate::adapters::webhook::TransportMetrics;
use crate::adapters::webhook::guard::{Guard, LookupError};
use crate::api::v1alpha1::email::SmtpSecurity;
use crate::domain::outcome::Failure;
use crate::domain::smtp::SmtpServer;

/// How long TCP may take over all addresses of a name; each gets its share.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Opens connections to SMTP servers.
pub(super) struct Connector {
    guard: Guard,
    tls: Arc<ClientConfig>,
    refusals: TransportMetrics,
    metrics: SmtpMetrics,
    /// This host's full name, if it has one. A pod has none: its name says nothing to a mail server.
    name: Option<String>,
}

impl Connector {
    pub(super) fn new(
        guard: Guard,
        tls: Arc<ClientConfig>,
        refusals: TransportMetrics,
        metrics: SmtpMetrics,
    ) -> Self {
        let name = match ClientId::default() {
            ClientId::Domain(name) if is_full_name(&name) => Some(name),
            _ => None,
        };
        Self {
            guard,
            tls,
            refusals,
            metrics,
            name,
        }
    }

    /// Opens a connection on which mails can be sent.
    pub(super) async fn open(
        &self,
        server: &SmtpServer,
        pool: &Pool,
        progress: &mut Progress,
    ) -> Result<Session, SmtpError> {
        progress.stage = Stage::Connect;
        let began = Instant::now();
        let addresses = self.addresses(server).await?;
        progress.timings.dns = server.address.is_none().then(|| began.elapsed());
        let began = Instant::now();
        let stream = dial(&addresses).await?;
        progress.timings.connect = Some(began.elapsed());
        // Each command waits for its answer, so waiting for more to send only costs time.
        stream.set_nodelay(true).map_err(SmtpError::Connect)?;
        let open = self.metrics.open();
        let name = match &self.name {
            Some(name) => name.clone(),
            None => literal(stream.local_addr().map_err(SmtpError::Connect)?.ip()),
        };
        let credentials = server.credentials.as_ref();
        match server.security {
            SmtpSecurity::Tls => {
                progress.stage = Stage::Tls;
                let stream = self.encrypt(server, pool, stream, progress).await?;
                progress.stage = Stage::Greeting;
                let opening = Opening::greet(stream, credentials).await?;
                introduce(opening, &name, open, progress).await
            }
            SmtpSecurity::StartTls => {
                progress.stage = Stage::Greeting;
                let mut opening = Opening::greet(stream, credentials).await?;
                progress.stage = Stage::Hello;
                opening.hello(&name).await?;
                progress.stage = Stage::Tls;
                let stream = opening.start_tls().await?;
                let stream = self
                    .encrypt(server, pool, stream, progress)
                    .await
                    .map_err(after_start_tls)?;
                introduce(Opening::again(stream, credentials), &name, open, progress).await
            }
            SmtpSecurity::None => {
                progress.stage = Stage::Greeting;
                let opening = Opening::greet(stream, credentials).await?;
                introduce(opening, &name, open, progress).await
            }
        }
    }

    async fn addresses(&self, server: &SmtpServer) -> Result<Vec<SocketAddr>, SmtpError> {
        if let Some(address) = server.address {
            self.guard.check(address).map_err(SmtpError::Refused)?;
            return Ok(vec![SocketAddr::new(address, server.port)]);
        }
        let mut addresses = self
            .guard
            .addresses(&server.host)
            .await
            .map_err(SmtpError::Lookup)?;
        for address in &mut addresses {
            address.set_port(server.port);
        }
        Ok(addresses)
    }

    async fn encrypt(
        &self,
        server: &SmtpServer,
        pool: &Pool,
        stream: TcpStream,
        progress: &mut Progress,
    ) -> Result<TlsStream<TcpStream>, SmtpError> {
        let config = match pool.tls.get() {
            Some(config) => Arc::clone(config),
            None if server.authorities.is_empty() => Arc::clone(&self.tls),
            None => {
                let config = private(&self.tls, server)?;
                Arc::clone(pool.tls.get_or_init(|| config))
            }
        };
        let name = match server.address {
            Some(address) => ServerName::from(address),
            None => ServerName::try_from(server.host.to_string())
                .map_err(|error| SmtpError::Handshake(io::Error::new(io::ErrorKind::InvalidInput, error)))?,
        };
        let began = Instant::now();
        let stream = TlsConnector::from(config).connect(name, stream).await;
        progress.timings.tls = stream.is_ok().then(|| began.elapsed());
        stream.map_err(SmtpError::Handshake)
    }

    /// The failure that an error means for everybody who was not settled before it.
    pub(super) fn failure(&self, error: &SmtpError) -> Failure {
        match error {
            SmtpError::Refused(_) => self.refusals.refused_literal(),
            SmtpError::Lookup(LookupError::Refused(_)) => self.refusals.refused_name(),
            _ => {}
        }
        classify::failure(error)
    }
}

/// Says who we are, as a host and as a user.
async fn introduce<S: Stream + 'static>(
    mut opening: Opening<S>,
    name: &str,
    open: OpenConnection,
    progress: &mut Progress,
) -> Result<Session, SmtpError> {
    progress.stage = Stage::Hello;
    opening.hello(name).await?;
    progress.stage = Stage::Authentication;
    opening.sign_in(open).await
}

/// Whether a host's name can stand in EHLO: it has a domain.
fn is_full_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.contains('.') && name.split('.').all(is_label)
}

/// What stands in EHLO for a host without a full name (RFC 5321 §4.1.4): its address.
fn literal(address: IpAddr) -> String {
    let id = match address.to_canonical() {
        IpAddr::V4(address) => ClientId::Ipv4(address),
        IpAddr::V6(address) => ClientId::Ipv6(address),
    };
    id.to_string()
}

/// A server that has agreed to TLS and goes on in plain text.
fn after_start_tls(error: SmtpError) -> SmtpError {
    match &error {
        SmtpError::Handshake(io) if classify::is_no_tls(io) => SmtpError::Injected,
        _ => error,
    }
}

/// Settings of TLS that trust the server's own authorities and no others.
fn private(usual: &ClientConfig, server: &SmtpServer) -> Result<Arc<ClientConfig>, SmtpError> {
    let mut roots = RootCertStore::empty();
    for der in &server.authorities {
        roots
            .add(CertificateDer::from(der.to_vec()))
            .map_err(SmtpError::Authority)?;
    }
    let config = ClientConfig::builder_with_provider(Arc::clone(usual.crypto_provider()))
        .with_safe_default_protocol_versions()
        .map_err(SmtpError::Authority)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[expect(
    clippy::disallowed_methods,
    reason = "the addresses come from the egress guard"
)]
async fn dial(addresses: &[SocketAddr]) -> Result<TcpStream, SmtpError> {
    let share = TCP_TIMEOUT / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    let mut last = io::Error::from(io::ErrorKind::TimedOut);
    for address in addresses {
        match tokio::time::timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(SmtpError::Connect(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_introduces_itself_by_its_full_name_or_its_address() {
        assert!(is_full_name("mail-1.example.com"));
        for name in [
            "postrider-0",
            "localhost",
            "",
            "a..b",
            ".",
            "a.b\r\nMAIL",
            "ä.example",
        ] {
            assert!(!is_full_name(name), "{name:?}");
        }
        for (address, said) in [
            ("10.1.2.3", "[10.1.2.3]"),
            ("::ffff:10.1.2.3", "[10.1.2.3]"),
            ("fd00::1", "[IPv6:fd00::1]"),
        ] {
            assert_eq!(literal(address.parse().unwrap()), said);
        }
    }
}
