//! The composition root: builds adapters, binds listeners, supervises tasks, stops in order.
//!
//! Every long-lived task is owned here. The first that ends unasked stops the process with a non-zero code.
//! The servers come first, so that probes and publishers are answered while the queue's file is opened, which takes
//! long when a large one is damaged; deliveries and controllers follow when it is open or known to be unavailable.
//! The order of a stop: not ready → stop accepting → stop leasing → attempts end within the grace period → counters
//! stored → last status → queue closed → exit 0.

mod readiness;
mod running;
mod seal;

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use self::readiness::AppReadiness;
use self::running::Running;
use crate::adapters::http::{
    AdminServer, AdminState, HttpMetrics, HttpSettings, PublishServer, PublishState, Readiness,
};
use crate::adapters::installation::{Folders, Installation};
use crate::adapters::kube::access::{AccessMetrics, KubeAuthorizer};
use crate::adapters::kube::{self as controllers, KubeMetrics};
use crate::adapters::smtp::{self, MailerSettings, SmtpMailer};
use crate::adapters::webhook::{HttpTransport, TransportSettings, Trust, system_lookup};
use crate::cli::{CrdsArgs, RunArgs, manifests};
use crate::domain::egress::EgressPolicy;
use crate::domain::secret::Secret;
use crate::engine::clock::{Clock, SystemClock};
use crate::engine::deliveries::metrics::LogMetrics;
use crate::engine::deliveries::sqlite::{self as log_file, SqliteLog};
use crate::engine::deliveries::{DeliveryLog, NoLog};
use crate::engine::directory::{Directory, DirectoryListener};
use crate::engine::metrics::{EngineMetrics, LaneGauges};
use crate::engine::queue::Queue;
use crate::engine::queue::metrics::QueueMetrics;
use crate::engine::queue::sqlite::{self, SqliteQueue};
use crate::engine::{Engine, Parts, Runner};
use crate::telemetry::{self, LogGuard};

/// Longest that writing the last statuses may take when the process stops.
const STATUS_GRACE: Duration = Duration::from_secs(5);
/// Longest that publish requests under way may take when the process stops.
const PUBLISH_GRACE: Duration = Duration::from_secs(10);

/// Longest that probes and scrapes under way may take when the process stops.
const ADMIN_GRACE: Duration = Duration::from_secs(2);

/// Bytes of events in flight over all destinations; the requests made of them take about as much again.
const IN_FLIGHT_BYTES: usize = 64 << 20;

/// Runs the operator until it is told to stop.
///
/// # Errors
/// When start-up fails, or a part ends unasked, and the log does not say so; if it does, the exit code alone tells.
pub fn run(args: RunArgs) -> anyhow::Result<ExitCode> {
    let log = telemetry::start(args.log_format, &args.log)?;
    // Refused only when a provider is installed already, and then it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    let result = runtime.block_on(async {
        let app = App::build(args, &log).await?;
        app.run(stop_signal()?).await
    });
    match result {
        // Said once: whoever filters errors out of the log reads it on stderr.
        Err(error) if tracing::enabled!(tracing::Level::ERROR) => {
            tracing::error!(error = %chain(&error), "stopped");
            Ok(ExitCode::FAILURE)
        }
        result => result.map(|()| ExitCode::SUCCESS),
    }
}

/// Prints, writes or checks the custom resource definitions.
///
/// # Errors
/// When a file cannot be written or read.
pub fn crds(args: &CrdsArgs) -> anyhow::Result<ExitCode> {
    let files = manifests::files()?;
    if let Some(folder) = &args.out {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        for (name, text) in files {
            let path = folder.join(name);
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let Some(folder) = &args.check else {
        say(&files
            .into_iter()
            .map(|(_, text)| text)
            .collect::<Vec<_>>()
            .join("---\n"));
        return Ok(ExitCode::SUCCESS);
    };
    let mut differing = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        if std::fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            differing.push(path.display().to_string());
        }
    }
    if differing.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::bail!(
        "not as generated, write them with `postrider crds --out`: {}",
        differing.join(", ")
    )
}

#[expect(clippy::print_stdout, reason = "what the command was asked for")]
fn say(text: &str) {
    print!("{text}");
}

/// Says on stderr why the program ends.
#[expect(clippy::print_stderr, reason = "logging may not have started")]
pub fn complain(error: &anyhow::Error) {
    eprintln!("postrider: {}", chain(error));
}

/// An error and its causes in one line.
fn chain(error: &anyhow::Error) -> String {
    error
        .chain()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Connections are files, and many systems start processes with room for 1,024 only.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files was not raised");
    }
}

/// Ends with SIGTERM or SIGINT.
fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}

/// Every part of the operator, built and bound, not yet running.
struct App {
    settings: RunArgs,
    client: kube::Client,
    publish: TcpListener,
    admin: TcpListener,
    registry: Registry,
    http_metrics: HttpMetrics,
    queue: StartedQueue,
    deliveries: Arc<dyn DeliveryLog>,
    directory: Arc<Directory>,
    engine: Engine,
    runner: Runner,
    egress: EgressPolicy,
    seal: Secret<[u8; 32]>,
}

/// How waiting for the queue ended.
enum Start {
    /// The first try to open it is over.
    Opened,
    /// The process was told to stop.
    Stopped,
    /// A part ended unasked.
    Ended(&'static str),
}

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The queue, and what there is to wait for.
struct StartedQueue {
    queue: Arc<dyn Queue>,
    /// Ends when the first try to open it is over.
    opened: Ended,
    /// Ends when one of its threads panicked.
    broken: Ended,
}

/// What starts when the queue was opened.
struct Work {
    client: kube::Client,
    context: controllers::Context,
    listener: Arc<dyn DirectoryListener>,
    runner: Runner,
    grace: Duration,
}

impl App {
    async fn build(settings: RunArgs, log: &LogGuard) -> anyhow::Result<Self> {
        let clock = Arc::new(SystemClock);
        let egress = EgressPolicy::new(settings.allow_egress.iter().copied());
        let publish = bind("--listen", settings.listen).await?;
        let admin = bind("--admin-listen", settings.admin_listen).await?;
        let client = kube_client().await?;

        let mut registry = Registry::with_prefix("postrider");
        registry.register_collector(Box::new(log.metrics()));
        let http_metrics = HttpMetrics::new();
        http_metrics.register(&mut registry);
        let queue = start_queue(&settings, &mut registry, clock.clone())?;
        let seal = seal::key(&settings.data_dir)?;
        let deliveries = start_log(&settings, &mut registry, clock.clone())?;
        let transport = HttpTransport::new(TransportSettings {
            policy: egress.clone(),
            proxies: EgressPolicy::new(settings.allow_egress.iter().chain(&settings.allow_proxy).copied()),
            max_idle_per_host: usize::try_from(settings.max_in_flight).unwrap_or(usize::MAX),
            ..TransportSettings::default()
        })
        .context("cannot set up the HTTP client")?;
        transport.metrics().register(&mut registry);
        let mailer = SmtpMailer::new(MailerSettings {
            policy: egress.clone(),
            trust: Trust::default(),
            lookup: system_lookup(),
            refusals: transport.metrics().clone(),
            idle: smtp::IDLE_TIMEOUT,
        })
        .context("cannot set up the SMTP client")?;
        mailer.metrics().register(&mut registry);
        let metrics = EngineMetrics::default();
        metrics.register(&mut registry);
        let directory = Arc::new(Directory::new());
        let (engine, runner) = Engine::new(Parts {
            directory: Arc::clone(&directory),
            queue: Arc::clone(&queue.queue),
            deliveries: Arc::clone(&deliveries),
            transport: Arc::new(transport),
            mailer: Arc::new(mailer),
            clock,
            metrics,
            max_in_flight: usize::try_from(settings.max_in_flight).unwrap_or(usize::MAX),
            max_in_flight_bytes: IN_FLIGHT_BYTES,
            watched_namespace: settings.watch_namespace.clone(),
        });
        registry.register_collector(Box::new(LaneGauges::new(&engine)));
        Ok(Self {
            settings,
            client,
            publish,
            admin,
            registry,
            http_metrics,
            queue,
            deliveries,
            directory,
            engine,
            runner,
            egress,
            seal,
        })
    }

    /// Runs until `stop` or until a part ends unasked, then ends everything in order.
    async fn run(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let mut stop = pin!(stop);
        let queue = Arc::clone(&self.queue.queue);
        let deliveries = Arc::clone(&self.deliveries);
        let broken = std::mem::replace(&mut self.queue.broken, Box::pin(std::future::pending()));
        let readiness = Arc::new(AppReadiness::new(Arc::clone(&self.directory), Arc::clone(&queue)));
        let opened = std::mem::replace(&mut self.queue.opened, Box::pin(std::future::pending()));
        let mut running = Running::default();
        running.add("the queue", |stop| async move {
            tokio::select! {
                () = stop.cancelled() => Ok(()),
                () = broken => anyhow::bail!("a thread of the queue panicked; the log says which"),
            }
        });
        let work = self.serve(&readiness, &mut running);
        tracing::info!(service.version = env!("CARGO_PKG_VERSION"), "opening the queue");
        let start = tokio::select! {
            () = &mut stop => Start::Stopped,
            name = running.first_to_end() => Start::Ended(name),
            () = opened => Start::Opened,
        };
        let unasked = match start {
            Start::Stopped => None,
            Start::Ended(name) => Some(name),
            Start::Opened => {
                work.start(&mut running);
                tracing::info!(service.version = env!("CARGO_PKG_VERSION"), "started");
                tokio::select! {
                    () = stop => None,
                    name = running.first_to_end() => Some(name),
                }
            }
        };
        readiness.stop();
        let failure = running.stop().await;
        queue.close().await;
        deliveries.close().await;
        match (failure, unasked) {
            (Some(error), _) => Err(error),
            (None, Some(name)) => anyhow::bail!("{name} ended unasked"),
            (None, None) => {
                tracing::info!("stopped");
                Ok(())
            }
        }
    }

    /// Starts the servers.
    fn serve(self, readiness: &Arc<AppReadiness>, running: &mut Running) -> Work {
        let listener: Arc<dyn DirectoryListener> = Arc::new(self.engine.clone());
        self.directory.set_listener(Arc::downgrade(&listener));
        let mut registry = self.registry;
        let access = AccessMetrics::default();
        access.register(&mut registry);
        let kube_metrics = KubeMetrics::default();
        kube_metrics.register(&mut registry);

        let grace = self.settings.grace_period;
        let limits = HttpSettings {
            body_bytes: usize::try_from(self.settings.max_body_bytes).unwrap_or(usize::MAX),
            grace: grace.min(PUBLISH_GRACE),
            ..HttpSettings::default()
        };
        let publish = PublishState {
            publisher: Arc::new(self.engine.clone()),
            authorizer: Arc::new(KubeAuthorizer::new(self.client.clone(), access)),
            history: Arc::new(self.engine.clone()),
            clock: Arc::new(SystemClock),
            metrics: self.http_metrics.clone(),
        };
        let context = controllers::Context {
            directory: Arc::clone(&self.directory),
            view: Arc::new(self.engine.clone()),
            tester: Arc::new(self.engine.clone()),
            prover: Arc::new(self.engine.clone()),
            seal: self.seal,
            replayer: Arc::new(self.engine.clone()),
            clock: Arc::new(SystemClock),
            egress: self.egress,
            installation: installed(Folders {
                smtp: self.settings.smtp_dir,
                proxy: self.settings.proxy,
                proxy_login: self.settings.proxy_auth_dir,
            }),
            public_url: self.settings.public_url,
            namespace: self.settings.watch_namespace,
            random: controllers::system_random(),
            metrics: kube_metrics,
            counter_interval: controllers::COUNTER_INTERVAL,
            instance: self.settings.instance,
        };
        let admin = AdminState {
            readiness: Arc::clone(readiness) as Arc<dyn Readiness>,
            registry: Arc::new(registry),
            metrics: self.http_metrics,
        };

        let publish_listener = self.publish;
        running.add("the publish server", |stop| async move {
            PublishServer::serve(publish_listener, publish, limits, stop).await;
            Ok(())
        });
        let admin_listener = self.admin;
        running.add_outlasting("the admin server", |stop| async move {
            let settings = HttpSettings {
                grace: ADMIN_GRACE,
                ..HttpSettings::default()
            };
            AdminServer::serve(admin_listener, admin, settings, stop).await;
            Ok(())
        });
        Work {
            client: self.client,
            context,
            listener,
            runner: self.runner,
            grace,
        }
    }
}

impl Work {
    fn start(self, running: &mut Running) {
        let Self {
            client,
            context,
            listener,
            runner,
            grace,
        } = self;
        running.add("delivery", move |stop| async move {
            // Held here, because the directory holds it weakly.
            let _listener = listener;
            Ok(runner.run(stop, grace).await?)
        });
        running.add("the controllers", move |stop| async move {
            let stopping = stop.clone();
            let overdue = async {
                stopping.cancelled().await;
                tokio::time::sleep(STATUS_GRACE).await;
            };
            tokio::select! {
                ended = controllers::run(client, context, stop) => ended?,
                () = overdue => tracing::warn!("the last statuses were not all written in time"),
            }
            Ok(())
        });
    }
}

/// The installation's SMTP server and proxy, as they are described now.
fn installed(folders: Folders) -> Arc<Installation> {
    let installation = Arc::new(Installation::new(folders));
    installation.refresh();
    installation
}

async fn bind(flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("{flag}: cannot listen on {address}"))
}

async fn kube_client() -> anyhow::Result<kube::Client> {
    let config = kube::Config::infer()
        .await
        .context("no Kubernetes configuration: not in a cluster, and no kubeconfig")?;
    controllers::client(config).context("the Kubernetes configuration is unusable")
}

fn start_queue(
    settings: &RunArgs,
    registry: &mut Registry,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<StartedQueue> {
    let folder = &settings.data_dir;
    std::fs::create_dir_all(folder)
        .with_context(|| format!("--data-dir: cannot make {}", folder.display()))?;
    let metrics = QueueMetrics::default();
    metrics.register(registry);
    let queue = sqlite::Settings {
        max_bytes: settings.queue_max_bytes,
        // Delivered events must not keep the file full.
        retention_bytes: settings.retention_bytes.min(settings.queue_max_bytes / 2),
        max_ids: settings.deduplication_ids,
        project_limit: settings.project_queue_limit,
        ..sqlite::Settings::new(folder.join("queue.db"))
    };
    let (queue, opened) = SqliteQueue::start(queue, metrics, clock).context("cannot start the queue")?;
    Ok(StartedQueue {
        broken: Box::pin(queue.broken()),
        opened: Box::pin(opened),
        queue: Arc::new(queue),
    })
}

/// Starts the delivery log, in a file beside the queue's.
fn start_log(
    settings: &RunArgs,
    registry: &mut Registry,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Arc<dyn DeliveryLog>> {
    let path = settings.data_dir.join("deliveries.db");
    if settings.delivery_log_retention.is_zero() {
        // What an earlier run kept is not to be kept any longer.
        if let Err(error) = log_file::remove(&path) {
            tracing::warn!(
                log.path = %path.display(), %error,
                "the delivery log is off, but its file cannot be removed; remove it by hand"
            );
        }
        return Ok(Arc::new(NoLog));
    }
    let metrics = LogMetrics::default();
    metrics.register(registry);
    let file = log_file::Settings {
        retention: settings.delivery_log_retention,
        max_bytes: settings.delivery_log_max_bytes,
        ..log_file::Settings::new(path)
    };
    let log = SqliteLog::start(file, metrics, clock).context("cannot start the delivery log")?;
    Ok(Arc::new(log))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[tokio::test]
    async fn a_log_that_is_switched_off_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let data_dir = folder.path().to_str().unwrap();
        for (retention, is_kept) in [("72h", true), ("0s", false), ("0s", false)] {
            let words = [
                "postrider",
                "run",
                "--data-dir",
                data_dir,
                "--delivery-log-retention",
                retention,
            ];
            let Command::Run(settings) = Cli::try_parse_from(words).unwrap().command else {
                unreachable!("it is the command that was given")
            };
            let clock: Arc<dyn Clock> = Arc::new(SystemClock);
            let log = start_log(&settings, &mut Registry::default(), clock).unwrap();
            log.close().await;
            assert_eq!(log.is_on(), is_kept);
            let left = std::fs::read_dir(folder.path()).unwrap().count();
            assert_eq!(left > 0, is_kept, "{left} files");
        }
    }
}
