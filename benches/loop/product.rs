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
use crate::system::{Destination, Running, Setup};
use crate::wire;

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
    /// Who may see, replay and cancel deliveries: a Kubernetes token.
    oncall: Option<String>,
    /// The delivery log that the next Postrider begins with.
    pub(crate) delivery_log: Option<PathBuf>,
}

/// What the delivery API answered.
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: String,
    /// The body, `null` when it is no JSON.
    pub(crate) body: Value,
    /// From connecting to the last byte.
    pub(crate) took: Duration,
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
            oncall: None,
            delivery_log: None,
        }
    }

    /// Where a Kubernetes client finds the API server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.cluster.kubeconfig()
    }

    /// Applies what a scenario needs.
    pub(crate) fn apply(&self, setup: &Setup, receiver: SocketAddr) {
        let mut items = vec![json!({
            "apiVersion": "postrider.dev/v1alpha1",
            "kind": "EventProject",
            "metadata": {"name": setup.project, "namespace": NAMESPACE},
            "spec": {},
        })];
        items.extend(setup.objects.iter().cloned());
        let destinations = setup.destinations.iter();
        items.extend(destinations.map(|destination| manifest(setup.project, destination, receiver)));
        self.apply_all(&items);
    }

    fn apply_all(&self, items: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string();
        self.cluster.kubectl_with(&["apply", "--server-side"], &list).ok();
    }

    /// The uid of a destination.
    pub(crate) fn uid(&self, destination: &Destination) -> String {
        let object = self.get("ed", &destination.name);
        object["metadata"]["uid"]
            .as_str()
            .expect("every object has one")
            .to_owned()
    }

    /// A Kubernetes token that may see and replay deliveries.
    pub(crate) fn oncall(&mut self) -> String {
        const GROUP: &str = "rbac.authorization.k8s.io";
        if let Some(token) = &self.oncall {
            return token.clone();
        }
        let metadata = json!({"name": "oncall", "namespace": NAMESPACE});
        self.apply_all(&[
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
            json!({
                "apiVersion": format!("{GROUP}/v1"), "kind": "Role", "metadata": metadata,
                "rules": [{
                    "apiGroups": ["postrider.dev"], "verbs": ["get", "list", "create"],
                    "resources": ["eventdestinations/deliveries", "eventdestinations/replay"],
                }],
            }),
            json!({
                "apiVersion": format!("{GROUP}/v1"), "kind": "RoleBinding", "metadata": metadata,
                "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "oncall"},
                "subjects": [{"kind": "ServiceAccount", "name": "oncall", "namespace": NAMESPACE}],
            }),
        ]);
        let token = self
            .cluster
            .kubectl(&["create", "token", "oncall", "-n", NAMESPACE])
            .ok();
        token.trim().clone_into(self.oncall.insert(String::new()));
        token.trim().to_owned()
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

    fn spawn(&mut self, data: &Path, log: PathBuf) -> Process {
        let data = tempfile::Builder::new()
            .prefix("postrider-")
            .tempdir_in(data)
            .expect("the data folder is writable");
        if let Some(log) = self.delivery_log.take() {
            let place = data.path().join("deliveries.db");
            std::fs::rename(&log, place).expect("the delivery log is on the same file system");
        }
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
        let project = self.get("eproj", project);
        let secret = project["status"]["tokenSecretRef"]["name"]
            .as_str()
            .expect("a ready project names its token");
        let secret = self.get("secret", secret);
        let token = secret["data"]["token"].as_str().expect("the Secret has a token");
        let token = base64::engine::general_purpose::STANDARD
            .decode(token)
            .expect("base64");
        String::from_utf8(token).expect("ASCII")
    }

    /// How many destinations are ready.
    pub(crate) fn ready(&self) -> usize {
        let path = format!("/apis/postrider.dev/v1alpha1/namespaces/{NAMESPACE}/eventdestinations");
        let text = self.cluster.kubectl(&["get", "--raw", &path]).ok();
        let list: Value = serde_json::from_str(&text).expect("kubectl prints JSON");
        let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
        let is_ready = |item: &&Value| {
            let conditions = item["status"]["conditions"].as_array();
            conditions.is_some_and(|all| {
                all.iter()
                    .any(|one| one["type"] == "Ready" && one["status"] == "True")
            })
        };
        items.iter().filter(is_ready).count()
    }

    fn get(&self, kind: &str, name: &str) -> Value {
        let text = self
            .cluster
            .kubectl(&["get", kind, name, "-n", NAMESPACE, "-o", "json"])
            .ok();
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }
}

fn manifest(project: &str, destination: &Destination, receiver: SocketAddr) -> Value {
    let mut spec = json!({
        "projectRef": {"name": project},
        "events": [destination.events],
        "suspend": destination.suspend,
        "webhook": {
            "url": format!("http://{receiver}{}", destination.path),
            "signing": {"scheme": "StandardWebhooks"},
        },
        "delivery": {"maxInFlight": destination.in_flight, "timeout": "30s"},
    });
    if destination.spec.is_object() {
        merge(&mut spec, &destination.spec);
    }
    json!({
        "apiVersion": "postrider.dev/v1alpha1",
        "kind": "EventDestination",
        "metadata": {"name": destination.name, "namespace": NAMESPACE},
        "spec": spec,
    })
}

/// A merge patch (RFC 7396) of objects.
fn merge(into: &mut Value, patch: &Value) {
    let (Value::Object(members), Value::Object(patch)) = (&mut *into, patch) else {
        *into = patch.clone();
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            members.remove(name);
        } else {
            merge(members.entry(name.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Asks the delivery API, below a destination.
pub(crate) fn ask(
    running: &Running,
    token: &str,
    destination: &Destination,
    method: &str,
    below: &str,
    body: &str,
) -> Answer {
    let name = &destination.name;
    let path = format!("/v1/namespaces/{NAMESPACE}/eventdestinations/{name}/deliveries{below}");
    let headers = format!(
        "authorization: Bearer {token}\r\ncontent-length: {}\r\n",
        body.len()
    );
    let started = Instant::now();
    let answer = exchange(running.target, &format!("{method} {path}"), &headers, body);
    let took = started.elapsed();
    let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let text = answer.split_once("\r\n\r\n").map_or("", |(_, text)| text);
    Answer {
        status: wire::second_word(answer.as_bytes()).to_owned(),
        body: serde_json::from_str(text).unwrap_or_default(),
        took,
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
            let last = match exchange(admin, "GET /readyz", "", "") {
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

/// One request on a connection of its own, its whole answer as text.
fn exchange(address: SocketAddr, what: &str, headers: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let head = format!("{what} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}\r\n");
    stream.write_all([head.as_bytes(), body.as_bytes()].concat().as_slice())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
