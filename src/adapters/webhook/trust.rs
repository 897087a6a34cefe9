//! Which certificates receivers are checked against.
//!
//! An image `FROM scratch` has no certificates, so Mozilla's set is compiled in (static data, no heap). Whoever has a
//! bundle, by `SSL_CERT_FILE`, `SSL_CERT_DIR` or the system's usual place, gets exactly that bundle instead: a company
//! that intercepts TLS or removes an authority wants its own set and no other.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

use super::Error;

/// Where trusted certificates come from.
#[derive(Clone, Debug, Default)]
pub enum Trust {
    /// `SSL_CERT_FILE` and `SSL_CERT_DIR`, else the system's bundle, else Mozilla's compiled-in set.
    #[default]
    System,
    /// These authorities and no others.
    Only(Vec<CertificateDer<'static>>),
}

/// The protocols that are offered to receivers.
pub(super) fn protocols() -> Vec<Vec<u8>> {
    vec![b"h2".to_vec(), b"http/1.1".to_vec()]
}

/// Settings of TLS towards receivers that ask for nothing special.
pub(super) fn client_config(roots: &Arc<RootCertStore>) -> Result<Arc<ClientConfig>, Error> {
    let mut config = builder()?
        .with_root_certificates(Arc::clone(roots))
        .with_no_client_auth();
    config.alpn_protocols = protocols();
    Ok(Arc::new(config))
}

/// The same for what is not HTTP.
pub(in crate::adapters) fn plain_config(trust: &Trust) -> Result<ClientConfig, Error> {
    Ok(builder()?
        .with_root_certificates(roots(trust)?)
        .with_no_client_auth())
}

/// What all settings have in common.
pub(super) fn builder() -> Result<ConfigBuilder<ClientConfig, WantsVerifier>, Error> {
    // Named, not the process default: the transport must not depend on who installed one first.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(Error::Tls)
}

pub(super) fn roots(trust: &Trust) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::Only(certificates) => {
            for certificate in certificates {
                store.add(certificate.clone()).map_err(Error::Tls)?;
            }
        }
        Trust::System => {
            let found = rustls_native_certs::load_native_certs();
            // Bundles in use hold a few certificates that no library of today parses; they are skipped.
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                // A bundle that was named but is unreadable must not silently turn into trust in other authorities.
                if let Some(error) = found.errors.into_iter().next() {
                    return Err(Error::Certificates(Box::new(error)));
                }
                store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
        }
    }
    Ok(store)
}
