//! [`Server`]: a running SMTP server of either make, and what it has taken.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{repository_file, verifiers};

/// Whose server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    Python,
    Node,
}

pub(crate) const BOTH: [Make; 2] = [Make::Python, Make::Node];

/// An authority and a certificate for `localhost` of it, as files.
pub(crate) struct Identity {
    folder: TempDir,
    pub(crate) authority: String,
}

/// Authorities of the same name would be taken for one another.
static COUNT: AtomicUsize = AtomicUsize::new(0);

impl Identity {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(
            DnType::CommonName,
            format!("authority {}", COUNT.fetch_add(1, Ordering::Relaxed)),
        );
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("cert.pem"),
            pem("CERTIFICATE", certificate.der()),
        )
        .unwrap();
        std::fs::write(
            folder.path().join("key.pem"),
            pem("PRIVATE KEY", &key.serialize_der()),
        )
        .unwrap();
        Self {
            folder,
            authority: pem("CERTIFICATE", issuer.der()),
        }
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> = text
        .as_bytes()
        .chunks(64)
        .map(|line| std::str::from_utf8(line).unwrap())
        .collect();
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        lines.join("\n")
    )
}

/// A running server; killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    input: ChildStdin,
    lines: BufReader<ChildStdout>,
    pub(crate) port: String,
}

impl Server {
    pub(crate) fn start(make: Make, settings: &Value) -> Self {
        Self::start_with(make, settings, None)
    }

    pub(crate) fn start_with(make: Make, settings: &Value, identity: Option<&Identity>) -> Self {
        let mut settings = settings.clone();
        if let Some(identity) = identity {
            settings["cert"] = json!(identity.folder.path().join("cert.pem"));
            settings["key"] = json!(identity.folder.path().join("key.pem"));
        }
        let mut command = match make {
            Make::Python => {
                let mut python = Command::new(verifiers().join("venv/bin/python"));
                python
                    .arg("-W")
                    .arg("ignore")
                    .arg(repository_file("tools/verifiers/smtp.py"));
                python
            }
            Make::Node => {
                let mut node = Command::new("node");
                node.arg(repository_file("tools/verifiers/smtp.mjs"))
                    .env("NODE_PATH", verifiers().join("node_modules"));
                node
            }
        };
        let mut child = command
            .arg(settings.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{make:?}: {error}"));
        let mut server = Self {
            input: child.stdin.take().unwrap(),
            lines: BufReader::new(child.stdout.take().unwrap()),
            child,
            port: String::new(),
        };
        server.port = server.line()["port"].to_string();
        server
    }

    /// The next thing it says; the harness's time limit bounds the wait.
    fn line(&mut self) -> Value {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).unwrap();
        assert!(length > 0, "the server ended: {:?}", self.child.wait());
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The next mail, read by Python's `email` whatever server took it.
    pub(crate) fn mail(&mut self) -> Value {
        let mut mail = self.line();
        if let Some(raw) = mail.get("raw").cloned() {
            let parsed = parse(raw.as_str().unwrap());
            mail.as_object_mut()
                .unwrap()
                .extend(parsed.as_object().unwrap().clone());
        }
        mail
    }

    /// How many mails it has taken.
    pub(crate) fn count(&mut self) -> u64 {
        self.input.write_all(b"count\n").unwrap();
        self.input.flush().unwrap();
        loop {
            if let Some(count) = self.line()["count"].as_u64() {
                return count;
            }
        }
    }

    /// The keys that describe it, with no encryption.
    pub(crate) fn plain(&self) -> Vec<(&str, &str)> {
        vec![("host", "localhost"), ("port", &self.port), ("security", "None")]
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A message as Python's `email` reads it.
fn parse(base64: &str) -> Value {
    const PROGRAM: &str = r"
import base64, email, email.policy, json, sys
raw = base64.b64decode(sys.stdin.read())
message = email.message_from_bytes(raw, policy=email.policy.default)
parts = {p.get_content_type(): p.get_content() for p in message.walk() if p.get_content_maintype() == 'text'}
defects = [repr(d) for p in message.walk() for d in p.defects]
defects += [repr(d) for v in message.values() for d in getattr(v, 'defects', ())]
print(json.dumps({'headers': [[n, str(v)] for n, v in message.items()],
                  'addresses': [[a.display_name, a.addr_spec] for a in message['To'].addresses], 'parts': parts, 'defects': defects,
                  'longest': max(map(len, raw.split(b'\r\n'))), 'ascii': raw.isascii()}))
";
    let mut child = Command::new("python3")
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(base64.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The value of a header that is there once.
pub(crate) fn header<'a>(mail: &'a Value, name: &str) -> &'a str {
    let all = mail["headers"].as_array().unwrap().iter();
    let found: Vec<_> = all
        .filter(|header| header[0].as_str().unwrap().eq_ignore_ascii_case(name))
        .collect();
    assert_eq!(found.len(), 1, "{name}: {mail}");
    found[0][1].as_str().unwrap()
}
