//! Every example is accepted, becomes Ready, and does what its README says.

mod monitoring;
mod policies;
mod requests;
mod signed;
mod site;

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::support::{Cluster, Operator, TempNamespace, http_client, repository_file};

/// The folders under `examples/`.
fn examples() -> Vec<PathBuf> {
    let mut folders: Vec<_> = std::fs::read_dir(repository_file("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.sort();
    assert!(!folders.is_empty(), "examples/ is empty");
    folders
}

/// The manifests of an example, as one stream.
fn manifests(folder: &Path) -> String {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} has no manifest", folder.display());
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    texts.collect::<Vec<_>>().join("\n---\n")
}

fn json_file(path: &str) -> Value {
    let text =
        std::fs::read_to_string(repository_file(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Waits until every object of ours in the namespace is Ready.
#[track_caller]
fn wait_until_ready(cluster: &Cluster, namespace: &str) {
    let all = [
        "wait",
        "--for=condition=Ready",
        "--all",
        "--timeout=30s",
        "-n",
        namespace,
    ];
    for kind in ["eventprojects", "eventdestinations"] {
        cluster.kubectl(&[&all[..], &[kind]].concat()).ok();
    }
}

#[tokio::test]
async fn every_example_is_accepted() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "examples-dry").await;
    for folder in examples() {
        let apply = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "-n",
            namespace.name(),
        ];
        cluster.kubectl_with(&apply, &manifests(&folder)).ok();
    }
}

#[tokio::test]
async fn every_example_becomes_ready() {
    let cluster = Cluster::shared();
    // These wait for their receivers, see below.
    let waits =
        |folder: &PathBuf| folder.ends_with("ownership-proof") || folder.ends_with("ownership-cloudevents");
    for folder in examples().into_iter().filter(|folder| !waits(folder)) {
        let namespace = TempNamespace::new(cluster, "examples-ready").await;
        let _operator = Operator::start(cluster, namespace.name()).await;
        cluster
            .kubectl_with(&["apply", "-n", namespace.name()], &manifests(&folder))
            .ok();
        wait_until_ready(cluster, namespace.name());
    }
}

/// An example's receiver, run as its README says; killed when it is dropped.
struct Program {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Program {
    fn start(words: &[&str], secret: &str, port: u16) -> Self {
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .env("SECRET", secret)
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let lines = BufReader::new(child.stdout.take().unwrap());
        let mut program = Self { child, lines };
        assert_eq!(program.line(), format!("listening on http://127.0.0.1:{port}"));
        program
    }

    /// The next line it prints; the harness's time limit bounds the wait.
    fn line(&mut self) -> String {
        let mut line = String::new();
        let length = self.lines.read_line(&mut line).unwrap();
        assert!(length > 0, "the receiver ended: {:?}", self.child.wait());
        line.trim_end().to_owned()
    }

    /// The bodies of the next verified requests.
    async fn verified(mut self, count: usize) -> (Self, Vec<Value>) {
        let reading = tokio::task::spawn_blocking(move || {
            let bodies = (0..count).map(|_| {
                let line = self.line();
                let body = line
                    .strip_prefix("verified: ")
                    .unwrap_or_else(|| panic!("{line}"));
                serde_json::from_str(body).unwrap()
            });
            let bodies = bodies.collect();
            (self, bodies)
        });
        tokio::time::timeout(Duration::from_secs(30), reading)
            .await
            .expect("they arrive in time")
            .unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

async fn secret(namespace: &TempNamespace, name: &str, key: &str) -> String {
    let secret = namespace
        .api::<Secret>()
        .get(name)
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
}

/// Does what an example's README says up to the receiver; its port is moved to a free one.
async fn running(
    cluster: &Cluster,
    name: &str,
    port: &str,
    receiver: &[&str],
) -> (TempNamespace, Operator, Program, u16) {
    let namespace = TempNamespace::new(cluster, &format!("examples-{name}")).await;
    let operator = Operator::start(cluster, namespace.name()).await;
    let free = free_port();
    let manifests = manifests(&repository_file(&format!("examples/{name}")));
    let moved = manifests.replace(&format!("127.0.0.1:{port}/"), &format!("127.0.0.1:{free}/"));
    assert!(moved != manifests, "the destination's URL has port {port}");
    cluster
        .kubectl_with(&["apply", "-n", namespace.name()], &moved)
        .ok();
    wait_until_ready(cluster, namespace.name());
    let secret = secret(&namespace, &format!("{name}-signing"), "secret").await;
    let program = Program::start(receiver, &secret, free);
    (namespace, operator, program, free)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signed_envelope_is_verified_by_node() {
    let cluster = Cluster::shared();
    let script = repository_file("examples/signed-envelope/receiver.mjs");
    let receiver = ["node", script.to_str().unwrap()];
    let (namespace, operator, program, port) = running(cluster, "signed-envelope", "8091", &receiver).await;

    let event = json_file("examples/signed-envelope/event.json");
    let token = secret(&namespace, "signed-envelope-publish-token", "token").await;
    let (status, answer) = operator.publish("signed-envelope", &token, &event).await;
    assert_eq!(
        (status, &answer["events"][0]["deliveries"]),
        (202, &json!(1)),
        "{answer}"
    );
    let (mut program, bodies) = program.verified(1).await;
    let body = &bodies[0];
    assert_eq!(body["projectId"], "613b038f-e9bf-49ec-bc58-ba8d620754c7");
    assert_eq!(body["eventType"], "workflowExecution.failed");
    assert_eq!(body["payload"], event["data"]);
    assert_eq!(body.as_object().unwrap().len(), 5, "{body}");

    // A forgery is refused.
    let forged = http_client()
        .post(format!("http://127.0.0.1:{port}/webhook"))
        .header("X-Acme-HMAC-SHA-256", "00".repeat(32))
        .body("{}")
        .send()
        .await
        .unwrap();
    assert_eq!(forged.status(), 401);
    assert_eq!(program.line(), "refused: the signature is not right");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sync_webhooks_have_the_documented_form() {
    let cluster = Cluster::shared();
    let script = repository_file("examples/sync-webhooks/receiver.py");
    let receiver = ["python3", script.to_str().unwrap()];
    let (namespace, operator, program, _) = running(cluster, "sync-webhooks", "8092", &receiver).await;

    let token = secret(&namespace, "sync-webhooks-publish-token", "token").await;
    let events = json_file("examples/sync-webhooks/events.json");
    let (status, answer) = operator.publish("sync-webhooks", &token, &events).await;
    assert_eq!(status, 202, "{answer}");
    let (_program, mut bodies) = program.verified(6).await;

    let Value::Array(mut expected) = json_file("examples/sync-webhooks/received.json") else {
        panic!("an array")
    };
    let by_type = |body: &Value| body["event"].as_str().unwrap_or_default().to_owned();
    bodies.sort_by_key(by_type);
    expected.sort_by_key(by_type);
    assert_eq!(bodies, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_answers_the_challenge_gets_what_waited() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "examples-ownership").await;
    let operator = Operator::start(cluster, namespace.name()).await;
    let port = free_port();
    let manifests = manifests(&repository_file("examples/ownership-proof"));
    let moved = manifests.replace("127.0.0.1:8098/", &format!("127.0.0.1:{port}/"));
    assert!(moved != manifests, "the destination's URL has that port");
    let namespaced = ["-n", namespace.name()];
    cluster
        .kubectl_with(&[&["apply"][..], &namespaced].concat(), &moved)
        .ok();
    let wait = |what: &str, object: &str| {
        let what = format!("--for={what}");
        let args = ["wait", "--timeout=30s", &what, object];
        cluster.kubectl(&[&args[..], &namespaced].concat()).ok();
    };
    wait("condition=Ready", "eventproject/ownership-proof");
    wait(
        "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}=OwnershipUnproved",
        "ed/ownership-proof",
    );
    let token = secret(&namespace, "ownership-proof-publish-token", "token").await;
    let event = json!({"type": "x", "data": {"number": 7}});
    let (status, answer) = operator.publish("ownership-proof", &token, &event).await;
    assert_eq!(status, 202, "{answer}");
    let script = repository_file("examples/ownership-proof/receiver.mjs");
    let secret = secret(&namespace, "ownership-proof-signing", "secret").await;
    let program = Program::start(&["node", script.to_str().unwrap()], &secret, port);
    let (_program, bodies) = program.verified(1).await;
    assert_eq!(bodies[0]["data"], event["data"]);
    wait("condition=Ready", "ed/ownership-proof");
}
