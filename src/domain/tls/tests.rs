//! What is read of PEM, and what is found wrong with it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};

use super::*;

/// A certificate and its key, as PEM.
fn pair(name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([name.to_owned()]).unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (
        pem("CERTIFICATE", certificate.der()),
        pem("PRIVATE KEY", &key.serialize_der()),
    )
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    )
}

fn faults(parts: Parts<'_>) -> Vec<(Part, String)> {
    Tls::read(parts).expect_err("a fault")
}

#[test]
fn bundle_chain_key_and_name_are_read_and_the_key_does_not_show() {
    let (one, one_key) = pair("a.example");
    let (other, _) = pair("b.example");
    let bundle = format!("# ours\n{one}\n# theirs\n{other}");
    let tls = Tls::read(Parts {
        bundle: Some(bundle.as_bytes()),
        client: Some((one.as_bytes(), one_key.as_bytes())),
        server_name: Some("receiver.example"),
    })
    .unwrap();
    assert_eq!(tls.authorities.len(), 2);
    assert_eq!(tls.client.as_ref().unwrap().cert.len(), 1);
    let inner = one_key.lines().nth(1).unwrap();
    assert!(!format!("{tls:?}").contains(&inner[10..40]));
    let elsewhere = tls.for_other_host();
    assert!(elsewhere.installation_too && elsewhere.server_name.is_none());
    assert_ne!(elsewhere.fingerprint, tls.fingerprint);
}

#[test]
fn each_part_that_differs_gives_another_fingerprint() {
    let (one, one_key) = pair("a.example");
    let (other, other_key) = pair("b.example");
    let read = |parts| Tls::read(parts).unwrap().fingerprint;
    let base = Parts {
        bundle: Some(one.as_bytes()),
        client: Some((one.as_bytes(), one_key.as_bytes())),
        server_name: None,
    };
    assert_eq!(read(base), read(base));
    for parts in [
        Parts { bundle: None, ..base },
        Parts { client: None, ..base },
        Parts {
            client: Some((other.as_bytes(), other_key.as_bytes())),
            ..base
        },
        Parts {
            server_name: Some("x.example"),
            ..base
        },
    ] {
        assert_ne!(read(base), read(parts));
    }
}

#[test]
fn what_cannot_work_is_found_before_any_handshake() {
    let (one, one_key) = pair("a.example");
    let (_, other_key) = pair("b.example");
    let garbage = pem("CERTIFICATE", b"garbage");
    let many = one.repeat(MAX_CERTIFICATES + 1);
    for (parts, part, text) in [
        (
            Parts {
                bundle: Some(b"hunter2"),
                ..Parts::default()
            },
            Part::Bundle,
            "1 to 64 certificates in PEM",
        ),
        (
            Parts {
                bundle: Some(many.as_bytes()),
                ..Parts::default()
            },
            Part::Bundle,
            "1 to 64 certificates in PEM",
        ),
        (
            Parts {
                bundle: Some(garbage.as_bytes()),
                ..Parts::default()
            },
            Part::Bundle,
            "certificate 1 of the bundle",
        ),
        (
            Parts {
                client: Some((one.as_bytes(), other_key.as_bytes())),
                ..Parts::default()
            },
            Part::Key,
            "does not belong to the certificate",
        ),
        (
            Parts {
                client: Some((one.as_bytes(), b"hunter2")),
                ..Parts::default()
            },
            Part::Key,
            "must be a private key in PEM",
        ),
        (
            Parts {
                client: Some((one_key.as_bytes(), one_key.as_bytes())),
                ..Parts::default()
            },
            Part::Chain,
            "1 to 64 certificates in PEM",
        ),
        (
            Parts {
                server_name: Some("a b"),
                ..Parts::default()
            },
            Part::ServerName,
            "neither a host name",
        ),
    ] {
        let found = faults(parts);
        let [(place, message)] = found.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!(*place, part, "{message}");
        assert!(
            message.contains(text) && !message.contains("hunter2"),
            "{message}"
        );
    }
    let both = Parts {
        bundle: Some(b""),
        server_name: Some("a b"),
        ..Parts::default()
    };
    assert_eq!(faults(both).len(), 2);
}
