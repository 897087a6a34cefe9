//! The real operator binary, started on the control plane.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Cluster, eventually};

/// A running operator; killed when it is dropped.
pub(crate) struct Operator {
    child: Child,
    listen: SocketAddr,
    admin: SocketAddr,
    settings: Settings,
    http: reqwest::Client,
}

/// How an operator is started.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) namespace: String,
    pub(crate) data_dir: PathBuf,
    /// Further flags.
    pub(crate) flags: Vec<String>,
}

impl Operator {
    /// Starts the operator for one namespace with a data folder of its own, and waits until it is ready.
    pub(crate) async fn start(cluster: &Cluster, namespace: &str) -> Self {
        Self::start_with(cluster, namespace, &[]).await
    }

    /// The same with further flags.
    pub(crate) async fn start_with(cluster: &Cluster, namespace: &str, flags: &[&str]) -> Self {
        let data_dir = cluster.folder().join("operators").join(namespace);
        let settings = Settings {
            kubeconfig: cluster.kubeconfig(),
            namespace: namespace.to_owned(),
            data_dir,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        };
        Self::launch(settings).await
    }

    /// Starts an operator and waits until it is ready.
    pub(crate) async fn launch(settings: Settings) -> Self {
        let operator = Self::spawn(settings);
        operator.wait_ready().await;
        operator
    }

    /// Starts an operator without waiting.
    pub(crate) fn spawn(settings: Settings) -> Self {
        let (listen, admin) = (free_address(), free_address());
        std::fs::create_dir_all(&settings.data_dir).expect("the data folder can be made");
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(settings.data_dir.join("operator.log"))
            .expect("the log can be written");
        let child = Command::new(env!("CARGO_BIN_EXE_postrider"))
            .arg("run")
            .args(["--listen", &listen.to_string()])
            .args(["--admin-listen", &admin.to_string()])
            .args(["--public-url", &format!("http://{listen}")])
            .args(["--watch-namespace", &settings.namespace])
            .args(["--allow-egress", "127.0.0.0/8"])
            .arg("--data-dir")
            .arg(&settings.data_dir)
            .args(&settings.flags)
            .env("KUBECONFIG", &settings.kubeconfig)
            .stdin(Stdio::null())
            .stderr(log.try_clone().expect("a file handle can be cloned"))
            .stdout(log)
            .spawn()
            .expect("the operator's binary runs");
        Self {
            child,
            listen,
            admin,
            settings,
            http: http_client(),
        }
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn wait_ready(&self) {
        eventually("the operator is ready", Duration::from_secs(30), || async {
            let (status, body) = self.admin("/readyz").await?;
            if status == 200 {
                Ok(())
            } else {
                Err(format!("{status} {body}"))
            }
        })
        .await;
    }

    /// Gets a path of the admin port.
    pub(crate) async fn admin(&self, path: &str) -> Result<(u16, String), String> {
        let url = format!("http://{}{path}", self.admin);
        let response = self
            .http
            .get(url)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        Ok((status, response.text().await.map_err(|error| error.to_string())?))
    }

    /// The value of a metric's line, such as `postrider_pending`; 0 when there is none.
    pub(crate) async fn metric(&self, line: &str) -> f64 {
        let (_, text) = self.admin("/metrics").await.expect("metrics are served");
        text.lines()
            .filter_map(|found| found.strip_prefix(line)?.strip_prefix(' '))
            .find_map(|value| value.trim().parse().ok())
            .unwrap_or(0.0)
    }

    /// Publishes a body; answers status and JSON.
    pub(crate) async fn publish(&self, project: &str, token: &str, body: &Value) -> (u16, Value) {
        let response = self
            .http
            .post(self.publish_url(project))
            .bearer_auth(token)
            .header("content-type", "application/json")
            .body(body.to_string())
            .send()
            .await
            .expect("the operator answers");
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_str(&response.text().await.expect("the answer is text")).unwrap_or_default(),
        )
    }

    /// The publish URL of a project of the operator's namespace.
    pub(crate) fn publish_url(&self, project: &str) -> String {
        format!(
            "http://{}/v1/namespaces/{}/projects/{project}/events",
            self.listen, self.settings.namespace
        )
    }

    /// Everything it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.settings.data_dir.join("operator.log")).unwrap_or_default()
    }

    /// Process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it with -9 and returns what is needed to start it again.
    pub(crate) fn kill(mut self) -> Settings {
        self.child.kill().expect("the operator can be killed");
        self.child.wait().expect("the operator ends");
        self.settings.clone()
    }

    /// Asks it to end with SIGTERM and waits for its exit code.
    pub(crate) async fn stop(mut self) -> (Option<i32>, Settings) {
        let pid = self.pid().to_string();
        let kill = Command::new("kill")
            .args(["-TERM", &pid])
            .status()
            .expect("`kill` of procps runs");
        assert!(kill.success(), "the operator had ended before it was asked to");
        let child = &mut self.child;
        let mut exit = || {
            child
                .try_wait()
                .map_err(|error| error.to_string())?
                .ok_or("it runs".to_owned())
        };
        let status = eventually("the operator ends", Duration::from_secs(40), || {
            std::future::ready(exit())
        })
        .await;
        (status.code(), self.settings.clone())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An HTTP client for tests.
pub(crate) fn http_client() -> reqwest::Client {
    // A second installation is refused, and that is fine.
    drop(rustls::crypto::ring::default_provider().install_default());
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(30))
        .build()
        .expect("a plain client builds")
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("a bound listener has an address")
}
