//! [`SmtpServer`]: an SMTP server as a Secret describes it.
//!
//! The Secret's keys are [`KEYS`]. What they say is checked here; what only a connection shows is the transport's.

use std::fmt;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use url::Host;

use super::egress::EgressPolicy;
use super::email::Mailbox;
use super::secret::Secret;
use crate::api::v1alpha1::email::SmtpSecurity;

/// The keys that are read, the required one first.
pub const KEYS: [&str; 8] = [
    "host",
    "port",
    "security",
    "username",
    "password",
    "from",
    "ca",
    "allowUnencrypted",
];

/// Most certificates in `ca`.
const MAX_AUTHORITIES: usize = 32;
/// Most bytes of `username` and of `password`: both have to fit into one line of SMTP, as base64.
const MAX_CREDENTIAL: usize = 4096;

/// An SMTP server and how to use it.
#[derive(Clone, Debug)]
pub struct SmtpServer {
    /// Name in ASCII, or address.
    pub host: Box<str>,
    /// The host, when it is an address.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
    /// How the connection is secured.
    pub security: SmtpSecurity,
    /// Who we are there.
    pub credentials: Option<Credentials>,
    /// Sender of mails whose destination names none.
    pub from: Option<Mailbox>,
    /// DER certificates of the only authorities that are trusted; empty: the usual ones.
    pub authorities: Vec<Box<[u8]>>,
    /// Differs when anything else differs, the password too.
    pub fingerprint: Fingerprint,
}

/// Stands for all that a Secret says of a server. Never shown: a short password could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fingerprint(…)")
    }
}

/// A user of an SMTP server.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Name.
    pub username: String,
    /// Password.
    pub password: Secret<String>,
}

/// One thing wrong with what describes a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerFault {
    /// The key.
    pub key: &'static str,
    /// What is wrong and what to do; never the value of `password`.
    pub message: String,
}

impl SmtpServer {
    /// Reads a server from the values of its keys.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn read<'a>(
        value: impl Fn(&str) -> Option<&'a [u8]>,
        egress: &EgressPolicy,
    ) -> Result<Self, Vec<ServerFault>> {
        let mut reader = Reader {
            value: &value,
            faults: Vec::new(),
        };
        let host = reader.host(egress);
        let allowed = reader.choice("allowUnencrypted", &[("true", true), ("false", false)]);
        let security = reader
            .choice(
                "security",
                &[
                    ("StartTLS", SmtpSecurity::StartTls),
                    ("TLS", SmtpSecurity::Tls),
                    ("None", SmtpSecurity::None),
                ],
            )
            .unwrap_or_default();
        if let Some((host, address)) = &host
            && security == SmtpSecurity::None
            && allowed != Some(true)
            && !is_this_host(host, *address)
        {
            reader.fault(
                "security",
                "None would send mails and password over the network for all to read; use StartTLS or TLS, or set \
                 allowUnencrypted to \"true\"",
            );
        }
        let port = reader.port(security);
        let credentials = reader.credentials();
        let from = reader.text("from").and_then(|from| match Mailbox::parse(&from) {
            Ok(from) => Some(from),
            Err(fault) => {
                reader.fault("from", fault);
                None
            }
        });
        let authorities = reader.authorities();
        let faults = reader.faults;
        match (host, port) {
            (Some((host, address)), Some(port)) if faults.is_empty() => Ok(Self {
                host,
                address,
                port,
                security,
                credentials,
                from,
                authorities,
                fingerprint: fingerprint(value),
            }),
            _ => Err(faults),
        }
    }

    /// `smtp://mail.example.com:587`, or `smtps://` for TLS from the first byte.
    #[must_use]
    pub fn origin(&self) -> String {
        let scheme = match self.security {
            SmtpSecurity::Tls => "smtps",
            SmtpSecurity::StartTls | SmtpSecurity::None => "smtp",
        };
        match self.address {
            Some(IpAddr::V6(address)) => format!("{scheme}://[{address}]:{}", self.port),
            _ => format!("{scheme}://{}:{}", self.host, self.port),
        }
    }
}

fn is_this_host(host: &str, address: Option<IpAddr>) -> bool {
    address.map_or(host == "localhost", |address| {
        address.to_canonical().is_loopback()
    })
}

fn fingerprint<'a>(value: impl Fn(&str) -> Option<&'a [u8]>) -> Fingerprint {
    let mut hash = Sha256::new();
    for key in KEYS {
        let value = value(key);
        hash.update([u8::from(value.is_some())]);
        let value = value.unwrap_or_default();
        hash.update((value.len() as u64).to_le_bytes());
        hash.update(value);
    }
    Fingerprint(hash.finalize().into())
}

struct Reader<'f, F> {
    value: &'f F,
    faults: Vec<ServerFault>,
}

impl<'a, F: Fn(&str) -> Option<&'a [u8]>> Reader<'_, F> {
    fn fault(&mut self, key: &'static str, message: impl Into<String>) {
        self.faults.push(ServerFault {
            key,
            message: message.into(),
        });
    }

    /// A value as text without white space around it; `None` when it is not there or empty.
    fn text(&mut self, key: &'static str) -> Option<String> {
        let text = std::str::from_utf8((self.value)(key)?);
        if text.is_err() {
            self.fault(key, "the value is not UTF-8 text; replace it");
        }
        text.ok()
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    }

    fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(name, _)| name.eq_ignore_ascii_case(&text));
        if found.is_none() {
            let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
            self.fault(key, format!("must be one of {}", names.join(", ")));
        }
        found.map(|(_, choice)| *choice)
    }

    fn host(&mut self, egress: &EgressPolicy) -> Option<(Box<str>, Option<IpAddr>)> {
        let Some(text) = self.text("host") else {
            if self.faults.is_empty() {
                self.fault(
                    "host",
                    "is missing or empty; give the server's name, for example smtp.example.com",
                );
            }
            return None;
        };
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        let address = match (bare.parse::<IpAddr>(), Host::parse(&text)) {
            (Ok(address), _) => Some(address),
            (Err(_), Ok(Host::Ipv4(address))) => Some(address.into()),
            (Err(_), Ok(Host::Ipv6(address))) => Some(address.into()),
            (Err(_), Ok(Host::Domain(name))) => return Some((name.into(), None)),
            (Err(_), Err(_)) => {
                self.fault(
                    "host",
                    "must be a host name or an address, without scheme and port",
                );
                return None;
            }
        };
        if let Some(Err(refusal)) = address.map(|address| egress.check(address)) {
            self.fault("host", refusal.to_string());
            return None;
        }
        address.map(|address| (address.to_string().into(), Some(address)))
    }

    fn port(&mut self, security: SmtpSecurity) -> Option<u16> {
        let Some(text) = self.text("port") else {
            return Some(match security {
                SmtpSecurity::StartTls => 587,
                SmtpSecurity::Tls => 465,
                SmtpSecurity::None => 25,
            });
        };
        let port = text.parse().ok().filter(|port| *port > 0);
        if port.is_none() {
            self.fault("port", "must be a number between 1 and 65535");
        }
        port
    }

    fn credentials(&mut self) -> Option<Credentials> {
        let username = self.text("username");
        // White space around it may belong to it, but a line break at the end never does.
        let password = match (self.value)("password").map(std::str::from_utf8) {
            Some(Ok(text)) => Some(text.trim_end_matches(['\r', '\n'])).filter(|text| !text.is_empty()),
            Some(Err(_)) => {
                self.fault("password", "the value is not UTF-8 text; replace it");
                return None;
            }
            None => None,
        };
        for (key, value) in [("username", username.as_deref()), ("password", password)] {
            if value.is_some_and(|value| value.len() > MAX_CREDENTIAL || value.contains('\0')) {
                self.fault(
                    key,
                    format!("must be at most {MAX_CREDENTIAL} bytes, without NUL"),
                );
            }
        }
        match (username, password) {
            (Some(username), Some(password)) => Some(Credentials {
                username,
                password: Secret::new(password.to_owned()),
            }),
            (None, None) => None,
            (Some(_), None) => {
                self.fault("password", "is missing or empty; username needs it");
                None
            }
            (None, Some(_)) => {
                self.fault("username", "is missing or empty; password needs it");
                None
            }
        }
    }

    fn authorities(&mut self) -> Vec<Box<[u8]>> {
        const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
        const END: &str = "-----END CERTIFICATE-----";
        let Some(text) = self.text("ca") else {
            return Vec::new();
        };
        let blocks = text.split(BEGIN).skip(1).map(|block| {
            let base64: String = block.split_once(END)?.0.split_ascii_whitespace().collect();
            let der = STANDARD.decode(base64).ok().filter(|der| !der.is_empty())?;
            Some(der.into_boxed_slice())
        });
        let found: Option<Vec<_>> = blocks.take(MAX_AUTHORITIES + 1).collect();
        match found {
            Some(found) if (1..=MAX_AUTHORITIES).contains(&found.len()) => found,
            _ => {
                self.fault(
                    "ca",
                    format!("must be 1 to {MAX_AUTHORITIES} certificates in PEM, each from {BEGIN} to {END}"),
                );
                Vec::new()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<SmtpServer, String> {
        let open = EgressPolicy::new(["127.0.0.0/8".parse().unwrap()]);
        let map: HashMap<_, _> = pairs.iter().copied().collect();
        SmtpServer::read(|key| map.get(key).map(|value| value.as_bytes()), &open).map_err(|faults| {
            let lines: Vec<_> = faults
                .iter()
                .map(|fault| format!("{}: {}", fault.key, fault.message))
                .collect();
            lines.join("; ")
        })
    }

    #[test]
    fn a_host_is_enough_and_the_port_follows_the_security() {
        for (security, port, origin) in [
            ("StartTLS", 587, "smtp://mail.example.com:587"),
            ("TLS", 465, "smtps://mail.example.com:465"),
        ] {
            let server = read(&[("host", " Mail.Example.com\n"), ("security", security)]).unwrap();
            assert_eq!((server.port, server.origin().as_str()), (port, origin));
            assert!(server.credentials.is_none());
        }
        assert_eq!(
            read(&[("host", "x.example")]).unwrap().security,
            SmtpSecurity::StartTls
        );
    }

    #[test]
    fn no_encryption_needs_a_word_unless_it_stays_on_this_host() {
        for host in ["localhost", "127.0.0.1", "127.1"] {
            assert_eq!(read(&[("host", host), ("security", "None")]).unwrap().port, 25);
        }
        let refused = read(&[("host", "relay.shop.svc"), ("security", "none")]).unwrap_err();
        assert!(refused.contains("allowUnencrypted"), "{refused}");
        let allowed = [
            ("host", "relay.shop.svc"),
            ("security", "None"),
            ("allowUnencrypted", "true"),
        ];
        assert!(read(&allowed).is_ok());
    }

    #[test]
    fn every_fault_is_told_at_once_and_none_holds_the_password() {
        let faults = read(&[
            ("host", "http://x"),
            ("port", "0"),
            ("security", "SSL"),
            ("password", "hunter2"),
            ("from", "nobody"),
            ("ca", "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----"),
        ])
        .unwrap_err();
        for key in ["host: ", "port: ", "security: ", "username: ", "from: ", "ca: "] {
            assert!(faults.contains(key), "{faults}");
        }
        assert!(!faults.contains("hunter2"), "{faults}");
        assert!(
            read(&[("host", "169.254.169.254")])
                .unwrap_err()
                .starts_with("host: ")
        );
        assert!(read(&[]).unwrap_err().starts_with("host: is missing"));
        assert!(
            read(&[("host", "x.example"), ("username", "u")])
                .unwrap_err()
                .starts_with("password")
        );
    }

    #[test]
    fn a_password_is_kept_to_itself_and_tells_servers_apart() {
        let with =
            |password| read(&[("host", "x.example"), ("username", "u"), ("password", password)]).unwrap();
        let server = with(" pass word \n");
        assert_eq!(
            server.credentials.as_ref().unwrap().password.expose(),
            " pass word "
        );
        assert!(!format!("{server:?}").contains("pass word"));
        assert!(format!("{server:?}").contains("Fingerprint(…)"));
        assert_ne!(server.fingerprint, with("other").fingerprint);
        assert_eq!(with("other").fingerprint, with("other").fingerprint);
    }
}
