//! A real etcd, kube-apiserver and kube-controller-manager on loopback.
//!
//! `tools/controlplane/run.sh` starts the programs and keeps them while its standard input is open. This process
//! holds the other end of that pipe, so the kernel closes it however the process ends (return, panic, `kill -9`),
//! and nothing is left running. The one shared control plane is started by the first test that asks.
//!
//! Clients are not shared: a client belongs to the runtime it was made in, and each test has its own.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::repository_file;

/// A running control plane.
///
/// The shared one lives as long as the process. A private one dies when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: PathBuf,
    bin: PathBuf,
    server: String,
    supervisor: Mutex<Supervisor>,
}

#[derive(Debug)]
struct Supervisor {
    child: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What `kubectl` or `helm` answered.
#[derive(Clone, Debug)]
pub(crate) struct CommandOutput {
    /// The exit code; `None` when a signal ended the program.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    command: String,
}

impl CommandOutput {
    /// Whether the exit code was 0.
    pub(crate) fn success(&self) -> bool {
        self.code == Some(0)
    }

    /// Standard output; panics with everything that was said when the program failed.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        let Self {
            code,
            stdout,
            stderr,
            command,
        } = &self;
        assert!(
            self.success(),
            "`{command}` ended with {code:?}\n{stdout}{stderr}"
        );
        self.stdout
    }

    /// Standard error; panics when the program succeeded.
    #[track_caller]
    pub(crate) fn refused(self) -> String {
        assert!(
            !self.success(),
            "`{}` was expected to fail\n{}",
            self.command,
            self.stdout
        );
        self.stderr
    }
}

impl Cluster {
    /// The control plane all tests of this process share, started on first use with the CRDs installed.
    ///
    /// Tests run at the same time: work in a [`TempNamespace`](super::TempNamespace) and give objects without
    /// a namespace names of your own.
    #[track_caller]
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Result<Cluster, String>> = OnceLock::new();
        // A failure is kept, too: one start-up that fails is enough for all tests.
        match SHARED.get_or_init(|| Self::start(true)) {
            Ok(cluster) => cluster,
            Err(problem) => panic!("{problem}"),
        }
    }

    /// A control plane of the caller's own, for tests that stop its programs; killed on drop.
    #[track_caller]
    pub(crate) fn private() -> Self {
        Self::start(true).unwrap_or_else(|problem| panic!("{problem}"))
    }

    /// A control plane of the caller's own that does not know our kinds; killed on drop.
    #[track_caller]
    pub(crate) fn private_without_crds() -> Self {
        Self::start(false).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn start(with_crds: bool) -> Result<Self, String> {
        let bin = binaries()?;
        let folder = tempfile::Builder::new()
            .prefix("postrider-test-")
            .tempdir()
            .map_err(|error| format!("no temporary folder: {error}"))?
            .keep(); // run.sh removes it, so that it goes even if this process is killed
        let mut command = Command::new(repository_file("tools/controlplane/run.sh"));
        if with_crds {
            command.arg("--crds").arg(repository_file("crds"));
        }
        let log = folder.join("run.log");
        let log_file = std::fs::OpenOptions::new()
            .read(true)
            .append(true)
            .create_new(true)
            .open(&log)
            .map_err(|error| format!("{}: {error}", log.display()))?;
        let mut child = command
            .arg("--remove")
            .arg(&folder)
            .env("POSTRIDER_CONTROLPLANE_BIN", &bin)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file.try_clone().map_err(|error| error.to_string())?)
            .spawn()
            .map_err(|error| format!("tools/controlplane/run.sh: {error}"))?;
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let mut supervisor = Supervisor {
            child,
            commands,
            answers,
        };
        // Kept open: the folder is gone when start-up has failed, its log is still readable through this handle.
        match supervisor
            .answer()
            .and_then(|line| line.strip_prefix("ready ").map(str::to_owned))
        {
            Some(server) => Ok(Self {
                folder,
                bin,
                server,
                supervisor: Mutex::new(supervisor),
            }),
            None => Err(format!(
                "the control plane did not start:\n{}",
                read_back(log_file)
            )),
        }
    }

    /// The API server's address.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// A kubeconfig with all rights.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// A folder that lives as long as the control plane; holds the programs' logs.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of kubectl, helm and the servers.
    pub(crate) fn bin(&self) -> &Path {
        &self.bin
    }

    /// Settings of a client with all rights, to change before making one.
    pub(crate) async fn config(&self) -> kube::Config {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig()).expect("run.sh wrote a kubeconfig");
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("the kubeconfig of run.sh is complete")
    }

    /// A new client with all rights, bound to the caller's runtime.
    pub(crate) async fn client(&self) -> kube::Client {
        kube::Client::try_from(self.config().await).expect("the kubeconfig of run.sh is complete")
    }

    /// Runs kubectl with all rights and waits for it, at most two minutes.
    pub(crate) fn kubectl<S: AsRef<OsStr>>(&self, args: &[S]) -> CommandOutput {
        self.run("kubectl", args, None)
    }

    /// Runs `kubectl ARGS -f -` with the manifest on standard input, for example `kubectl_with(&["apply"], …)`.
    pub(crate) fn kubectl_with<S: AsRef<OsStr>>(&self, args: &[S], manifest: &str) -> CommandOutput {
        let mut all: Vec<&OsStr> = args.iter().map(AsRef::as_ref).collect();
        all.extend([OsStr::new("-f"), OsStr::new("-")]);
        self.run("kubectl", &all, Some(manifest))
    }

    /// Runs helm with all rights and waits for it, at most two minutes.
    pub(crate) fn helm<S: AsRef<OsStr>>(&self, args: &[S]) -> CommandOutput {
        self.run("helm", args, None)
    }

    fn run<S: AsRef<OsStr>>(&self, program: &str, args: &[S], input: Option<&str>) -> CommandOutput {
        let path = self.bin.join(program);
        assert!(
            path.exists(),
            "{program} is not in {}; run tools/controlplane/ensure.sh",
            self.bin.display()
        );
        let mut child = Command::new("timeout")
            .args(["-k", "1", "120"])
            .arg(path)
            .args(args)
            .env("KUBECONFIG", self.kubeconfig())
            .env("KUBECACHEDIR", self.folder.join("kubectl-cache"))
            .env("HELM_CACHE_HOME", self.folder.join("helm/cache"))
            .env("HELM_CONFIG_HOME", self.folder.join("helm/config"))
            .env("HELM_DATA_HOME", self.folder.join("helm/data"))
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("`timeout` of coreutils runs");
        if let (Some(mut stdin), Some(input)) = (child.stdin.take(), input.map(str::to_owned)) {
            // On a thread of its own, or a large manifest and a large answer would wait for each other.
            // A program that ends without reading everything says why by itself.
            std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
        }
        let output = child.wait_with_output().expect("its output can be read");
        let words = args
            .iter()
            .map(|arg| arg.as_ref().to_string_lossy())
            .collect::<Vec<_>>();
        CommandOutput {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            command: format!("{program} {}", words.join(" ")),
        }
    }

    /// Applies `crds/` and waits until all of it is established.
    ///
    /// [`shared`](Self::shared) and [`private`](Self::private) come with the CRDs.
    #[track_caller]
    pub(crate) fn install_crds(&self) {
        let crds = repository_file("crds");
        let crds = crds.to_str().expect("the repository's path is UTF-8");
        self.kubectl(&["apply", "--server-side", "-f", crds]).ok();
        self.kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", crds])
            .ok();
    }

    /// Kills a program (`etcd`, `kube-apiserver`, `kube-controller-manager`) with -9. Private control planes only.
    #[track_caller]
    pub(crate) fn stop(&self, program: &str) {
        self.command("stop", program);
    }

    /// Starts a stopped program on its old port with its old data and waits until it answers.
    #[track_caller]
    pub(crate) fn start_again(&self, program: &str) {
        self.command("start", program);
    }

    #[track_caller]
    fn command(&self, verb: &str, program: &str) {
        let mut supervisor = self.supervisor.lock().unwrap_or_else(PoisonError::into_inner);
        let commands = supervisor.commands.as_mut().expect("only drop closes the pipe");
        writeln!(commands, "{verb} {program}").expect("run.sh lives");
        let answer = supervisor.answer();
        assert_eq!(answer.as_deref(), Some("ok"), "{verb} {program}");
    }
}

impl Supervisor {
    /// The next line run.sh says; `None` when it has ended.
    fn answer(&mut self) -> Option<String> {
        let mut line = String::new();
        let length = self.answers.read_line(&mut line).ok()?;
        (length > 0).then(|| line.trim_end().to_owned())
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        drop(self.commands.take());
        drop(self.child.wait());
    }
}

/// The folder of the control plane's programs, found or built once per process.
fn binaries() -> Result<PathBuf, String> {
    static BINARIES: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARIES.get_or_init(find_binaries).clone()
}

fn find_binaries() -> Result<PathBuf, String> {
    if let Some(folder) = std::env::var_os("POSTRIDER_CONTROLPLANE_BIN").filter(|folder| !folder.is_empty()) {
        return Ok(folder.into());
    }
    let output = Command::new(repository_file("tools/controlplane/ensure.sh"))
        .stdin(Stdio::null())
        .stderr(Stdio::inherit()) // a build takes minutes and says so
        .output()
        .map_err(|error| format!("tools/controlplane/ensure.sh: {error}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().into())
    } else {
        Err("tools/controlplane/ensure.sh failed; it said why on standard error".to_owned())
    }
}

fn read_back(mut log: std::fs::File) -> String {
    use std::io::{Read, Seek};
    let mut text = String::new();
    match log.rewind().and_then(|()| log.read_to_string(&mut text)) {
        Ok(_) => text,
        Err(error) => format!("(its log cannot be read: {error})"),
    }
}
