//! Signatures and bodies judged by libraries that are not ours.
//!
//! `tools/verifiers/` holds small programs around signature libraries of five languages, and around the libraries of
//! the services that have a ready format; `POSTRIDER_VERIFIERS` says where they are installed, and
//! without it `ensure.sh` installs them.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use super::repository_file;

/// A language whose library verifies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verifier {
    Python,
    Node,
    Go,
    Java,
    Rust,
}

impl Verifier {
    /// Each language there is.
    pub(crate) const ALL: [Self; 5] = [Self::Python, Self::Node, Self::Go, Self::Java, Self::Rust];

    /// The library's verdict on each request, in order; a refusal comes with the library's words.
    ///
    /// A request is `{scheme: "standard", secret, headers, body_base64}` or of another scheme, as
    /// `tools/verifiers/verify.py` describes.
    pub(crate) fn verify(self, requests: &[Value]) -> Vec<Result<(), String>> {
        let folder = folder();
        let command = match self {
            Self::Python => python(&folder, "verify.py"),
            Self::Node => node("verify.mjs"),
            Self::Go => Command::new(folder.join("signatures-go")),
            Self::Java => java(&folder),
            Self::Rust => Command::new(folder.join("signatures-rust")),
        };
        verdicts(command, requests)
    }
}

/// A language with libraries that judge bodies of ready formats.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Judge {
    Python,
    Node,
    Go,
}

impl Judge {
    /// The verdict on each body, in order: pairs of a service's name and what is sent.
    pub(crate) fn judge(self, bodies: &[(&str, &[u8])]) -> Vec<Result<(), String>> {
        let folder = folder();
        let command = match self {
            Self::Python => python(&folder, "formats.py"),
            Self::Node => node("formats.mjs"),
            Self::Go => Command::new(folder.join("formats")),
        };
        let requests: Vec<Value> = bodies
            .iter()
            .map(|(service, body)| json!({"service": service, "body_base64": BASE64_STANDARD.encode(body)}))
            .collect();
        verdicts(command, &requests)
    }
}

fn python(folder: &Path, program: &str) -> Command {
    let mut python = Command::new(folder.join("venv/bin/python"));
    python.arg(repository_file("tools/verifiers").join(program));
    python
}

fn node(program: &str) -> Command {
    let mut node = Command::new("node");
    node.arg(repository_file("tools/verifiers").join(program));
    node
}

fn java(folder: &Path) -> Command {
    let mut java = Command::new("java");
    // A short run needs no optimising compiler.
    java.args(["-XX:TieredStopAtLevel=1", "-cp"]);
    java.arg(format!("{0}/java:{0}/java/*", folder.display()));
    java.arg("Verify");
    java
}

/// What a program answers to each request, a line for a line.
fn verdicts(mut command: Command, requests: &[Value]) -> Vec<Result<(), String>> {
    let mut child = command
        .env("POSTRIDER_VERIFIERS", folder())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run tools/setup.sh"));
    let input: String = requests
        .iter()
        .flat_map(|request| [request.to_string(), "\n".to_owned()])
        .collect();
    let mut stdin = child.stdin.take().expect("standard input is piped");
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("its output can be read");
    writer
        .join()
        .expect("the writer does not panic")
        .expect("it reads all requests");
    assert!(
        output.status.success(),
        "{command:?} ended with {}",
        output.status
    );
    let answers: Vec<_> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| {
            let answer: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
            match answer["ok"].as_bool() {
                Some(true) => Ok(()),
                _ => Err(answer["error"].as_str().unwrap_or_default().to_owned()),
            }
        })
        .collect();
    assert_eq!(answers.len(), requests.len(), "{command:?} answers each request");
    answers
}

/// Where the libraries are installed.
pub(crate) fn folder() -> PathBuf {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOLDER
        .get_or_init(find)
        .clone()
        .unwrap_or_else(|problem| panic!("{problem}"))
}

fn find() -> Result<PathBuf, String> {
    if let Some(folder) = std::env::var_os("POSTRIDER_VERIFIERS").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let output = Command::new(repository_file("tools/verifiers/ensure.sh"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("tools/verifiers/ensure.sh: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().into())
    } else {
        Err("tools/verifiers/ensure.sh failed; it said why on standard error".to_owned())
    }
}
