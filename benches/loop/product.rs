//! Postrider as a user runs it: the binary, configured by custom resources in a real API server.
//!
//! The control plane starts once and idles while anything is measured. Postrider itself starts anew, with an empty
//! data folder, for each measurement. Its log goes to memory where there is a `/dev/shm`: a container's log does
//! not share the disk's `fdatasync` with the queue either.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::Options;
use crate::controlplane::Cluster;
use crate::system::{Running, Setup};

/// Namespace of everything the benchmark applies.
pub(crate) const NAMESPACE: &str = "bench";

/// Longest wait for a start.
const START: Duration = Duration::from_secs(60);

/// The binary and the control plane that configures it.
pub(crate) struct Product {
    cluster: Cluster,
    binary: PathBuf,
    arguments: Vec<String>,
    logs: PathBuf,
    keep_logs: bool,
    started: u32,
}

/// A Postrider that runs; killed when dropped, and its data removed.
pub(crate) struct Process {
    child: Child,
    data: tempfile::TempDir,
    log: PathBuf,
    keep_log: bool,
    /// Where it accepts events.
    pub(crate) target: SocketAddr,
}

impl Product {
    /// Starts a control plane with our kinds.
    pub(crate) fn new(options: &Options) -> Self {
        eprintln!("starting a control plane");
        let cluster = Cluster::private();
        cluster.kubectl(&["create", "namespace", NAMESPACE]).ok();
        let memory = Path::new("/dev/shm");
        let logs = if memory.is_dir() {
            memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        Self {
            cluster,
            binary: options
                .postrider
                .clone()
                .unwrap_or_else(|| env!("CARGO_BIN_EXE_postrider").into()),
            arguments: options.postrider_arg.clone(),
            logs: options.keep_logs.clone().unwrap_or(logs),
            keep_logs: options.keep_logs.is_some(),
            started: 0,
        }
    }

    /// Applies what a scenario needs.
    pub(crate) fn apply(&self, setup: &Setup, receiver: SocketAddr) {
        let mut items = vec![json!({
            "apiVersion": "postrider.dev/v1alpha1",
            "kind": "EventProject",
            "metadata": {"name": setup.project, "namespace": NAMESPACE},
            "spec": {},
        })];
        items.extend(setup.destinations.iter().map(|destination| {
            json!({
                "apiVersion": "postrider.dev/v1alpha1",
                "kind": "EventDestination",
                "metadata": {"name": destination.name, "namespace": NAMESPACE},
                "spec": {
                    "projectRef": {"name": setup.project},
                    "events": [destination.events],
                    "suspend": destination.suspend,
                    "webhook": {
                        "url": format!("http://{receiver}{}", destination.path),
                        "signing": {"scheme": "StandardWebhooks"},
                    },
                    "delivery": {"maxInFlight": destination.in_flight, "timeout": "30s"},
                },
            })
        }));
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        self.cluster.kubectl_with(&["apply", "--server-side"], &list).ok();
    }

    /// Removes everything that was applied, a kind at a time: kubectl alone would take a thousand objects one by one.
    pub(crate) fn remove_all(&self) {
        for kind in ["eventdestinations", "eventprojects"] {
            let path = format!("/apis/postrider.dev/v1alpha1/namespaces/{NAMESPACE}/{kind}");
            self.cluster.kubectl(&["delete", "--raw", &path]).ok();
        }
    }

    /// Starts Postrider and waits until it is ready and the project has a token.
    pub(crate) fn start(&mut self, setup: &Setup, data: &Path) -> Running {
        self.started += 1;
        let log = self.logs.join(format!(
            "postrider-bench-{}-{}.log",
            std::process::id(),
            self.started
        ));
        let mut process = self.spawn(data, log);
        process.await_ready();
        let project = format!("eproj/{}", setup.project);
        let ready = [
            "wait",
            "--for=condition=Ready",
            "--timeout=60s",
            "-n",
            NAMESPACE,
            &project,
        ];
        let ready = self.cluster.kubectl(&ready);
        assert!(
            ready.success(),
            "{project} is not ready\n{}\n{}",
            ready.stderr,
            process.end_of_log()
        );
        let path = format!("/v1/namespaces/{NAMESPACE}/projects/{}/events", setup.project);
        let token = self.token(setup.project);
        Running::postrider(process, path, token)
    }

    fn spawn(&self, data: &Path, log: PathBuf) -> Process {
        let data = tempfile::Builder::new()
            .prefix("postrider-")
            .tempdir_in(data)
            .expect("the data folder is writable");
        let output = File::create(&log).unwrap_or_else(|error| panic!("{}: {error}", log.display()));
        let (target, admin) = (free_port(), free_port());
        // With this process it ends, too, even when this one is killed.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(&self.binary)
            .arg("run")
            .args([
                "--listen",
                &target.to_string(),
                "--admin-listen",
                &admin.to_string(),
            ])
            .arg("--data-dir")
            .arg(data.path())
            .args([
                "--public-url",
                &format!("http://{target}"),
                "--allow-egress",
                "127.0.0.0/8",
            ])
            // A million events may wait.
            .args(["--log-format", "json", "--project-queue-limit", "10000000"])
            .args(&self.arguments)
            .env("KUBECONFIG", self.cluster.kubeconfig())
            .stdin(Stdio::null())
            .stderr(output.try_clone().expect("a file handle"))
            .stdout(output)
            .spawn()
            .expect("setpriv (util-linux) and the binary are there");
        let mut process = Process {
            child,
            data,
            log,
            keep_log: self.keep_logs,
            target,
        };
        process.await_answer(admin);
        process
    }

    fn token(&self, project: &str) -> String {
        let get = |kind: &str, name: &str| -> Value {
            let text = self
                .cluster
                .kubectl(&["get", kind, name, "-n", NAMESPACE, "-o", "json"])
                .ok();
            serde_json::from_str(&text).expect("kubectl prints JSON")
        };
        let project = get("eproj", project);
        let secret = project["status"]["tokenSecretRef"]["name"]
            .as_str()
            .expect("a ready project names its token");
        let secret = get("secret", secret);
        let token = secret["data"]["token"].as_str().expect("the Secret has a token");
        let token = base64::engine::general_purpose::STANDARD
            .decode(token)
            .expect("base64");
        String::from_utf8(token).expect("ASCII")
    }
}

impl Process {
    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `/readyz` says yes.
    fn await_answer(&mut self, admin: SocketAddr) {
        let start = Instant::now();
        loop {
            let last = match get(admin, "/readyz") {
                Ok(answer) if answer.starts_with("HTTP/1.1 200") => return,
                Ok(answer) => answer,
                Err(error) => error.to_string(),
            };
            let ended = self.child.try_wait().expect("our child");
            assert!(
                ended.is_none() && start.elapsed() < START,
                "postrider is not ready ({ended:?}): {last}\n{}",
                self.end_of_log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until it accepts connections.
    fn await_ready(&mut self) {
        let start = Instant::now();
        while TcpStream::connect(self.target).is_err() {
            assert!(
                start.elapsed() < START,
                "postrider does not listen\n{}",
                self.end_of_log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn end_of_log(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&text[text.len().saturating_sub(4000)..]).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if !self.keep_log {
            drop(std::fs::remove_file(&self.log));
        }
        drop(std::fs::remove_dir_all(self.data.path()));
    }
}

/// An address nobody listens on right now.
fn free_port() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a loopback port");
    listener.local_addr().expect("bound")
}

/// One GET, its whole answer as text.
fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
