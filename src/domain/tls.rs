//! [`Tls`]: which authorities a destination trusts, which certificate it shows, and which name it expects.
//!
//! What cannot work is found here, when a spec is read, and not at a handshake: a bundle that does not parse, a key that
//! does not belong to its certificate. Whether a certificate has expired is left to the receiver, whose clock decides.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};

use super::request::Fingerprint;

/// Most certificates of a bundle and of a chain.
pub const MAX_CERTIFICATES: usize = 64;

/// What a destination asks of TLS.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authorities that are trusted; none means those of the installation.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Those of the installation are trusted too.
    pub installation_too: bool,
    /// Certificate and key that are shown to a receiver that asks.
    pub client: Option<Arc<CertifiedKey>>,
    /// The name that the receiver's certificate must have, when it is not the URL's host.
    pub server_name: Option<ServerName<'static>>,
    /// Differs when anything else differs, the key too: connections are shared only where it is the same.
    pub fingerprint: Fingerprint,
}

/// What a [`Tls`] is made of, as PEM.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// Bundle of authorities.
    pub bundle: Option<&'a [u8]>,
    /// Chain of certificates, the client's own first, and its key.
    pub client: Option<(&'a [u8], &'a [u8])>,
    /// Expected name.
    pub server_name: Option<&'a str>,
}

/// Which part is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The bundle of authorities.
    Bundle,
    /// The client's chain of certificates.
    Chain,
    /// The client's key.
    Key,
    /// The expected name.
    ServerName,
}

impl Tls {
    /// Reads the parts.
    ///
    /// # Errors
    /// Everything that is wrong, without anything of a key.
    pub fn read(parts: Parts<'_>) -> Result<Self, Vec<(Part, String)>> {
        let mut faults = Vec::new();
        let mut keep = |result: Result<_, (Part, String)>| result.map_err(|fault| faults.push(fault)).ok();
        let authorities = parts.bundle.map(authorities).transpose();
        let authorities = authorities.map(Option::unwrap_or_default);
        let authorities = authorities.map(Found::Authorities);
        let client = parts.client.map(|(chain, key)| client(chain, key)).transpose();
        let client = client.map(Found::Client);
        let name = parts.server_name.map(server_name).transpose().map(Found::Name);
        let found = (keep(authorities), keep(client), keep(name));
        let (
            Some(Found::Authorities(authorities)),
            Some(Found::Client(client)),
            Some(Found::Name(server_name)),
        ) = found
        else {
            return Err(faults);
        };
        let (chain, key) = parts.client.unwrap_or_default();
        let bundle = parts.bundle.unwrap_or_default();
        let name = parts.server_name.unwrap_or_default().as_bytes();
        Ok(Self {
            authorities,
            installation_too: false,
            client,
            server_name,
            fingerprint: Fingerprint::of([bundle, chain, key, name]),
        })
    }

    /// The same for another host of the same people, such as their token endpoint: it may have a certificate of a public
    /// authority, and has its own name.
    #[must_use]
    pub fn for_other_host(&self) -> Self {
        Self {
            installation_too: true,
            server_name: None,
            fingerprint: self.fingerprint.and(b"another host"),
            ..self.clone()
        }
    }
}

enum Found {
    Authorities(Vec<CertificateDer<'static>>),
    Client(Option<Arc<CertifiedKey>>),
    Name(Option<ServerName<'static>>),
}

fn authorities(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, (Part, String)> {
    let found = certificates(pem).map_err(|message| (Part::Bundle, message))?;
    let mut store = RootCertStore::empty();
    for (index, certificate) in found.iter().enumerate() {
        if store.add(certificate.clone()).is_err() {
            let number = index.saturating_add(1);
            let message = format!("certificate {number} of the bundle cannot be read; replace or remove it");
            return Err((Part::Bundle, message));
        }
    }
    Ok(found)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem)
        .take(MAX_CERTIFICATES + 1)
        .collect();
    match found {
        Ok(found) if (1..=MAX_CERTIFICATES).contains(&found.len()) => Ok(found),
        _ => Err(format!(
            "this must be 1 to {MAX_CERTIFICATES} certificates in PEM, each from -----BEGIN CERTIFICATE----- to -----END CERTIFICATE-----"
        )),
    }
}

fn client(chain: &[u8], key: &[u8]) -> Result<Arc<CertifiedKey>, (Part, String)> {
    let chain = certificates(chain).map_err(|message| (Part::Chain, message))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
        let message = "this must be a private key in PEM, not encrypted".to_owned();
        (Part::Key, message)
    })?;
    let provider = rustls::crypto::ring::default_provider();
    match CertifiedKey::from_der(chain, key, &provider) {
        Ok(pair) => Ok(Arc::new(pair)),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Err((
            Part::Key,
            "the key does not belong to the certificate; replace both together".to_owned(),
        )),
        Err(rustls::Error::InvalidCertificate(_)) => Err((
            Part::Chain,
            "the first certificate cannot be read; replace it".to_owned(),
        )),
        Err(_) => Err((
            Part::Key,
            "this kind of key is not supported; use ECDSA (P-256, P-384), Ed25519 or RSA from 2048 bits"
                .to_owned(),
        )),
    }
}

fn server_name(name: &str) -> Result<ServerName<'static>, (Part, String)> {
    ServerName::try_from(name.to_owned()).map_err(|_| {
        let message = "this is neither a host name nor an IP address".to_owned();
        (Part::ServerName, message)
    })
}

#[cfg(test)]
mod tests;
