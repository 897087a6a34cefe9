//! Command line and environment: what the process is told, typed and bounded.
//!
//! Every flag has an environment name; a flag wins. What describes what is delivered is configuration in custom
//! resources; what is here describes the process.

pub mod manifests;
pub mod plugin;

use crate::api::names::is_namespace;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::domain::proxy::Proxy;
use crate::domain::{duration, size};

/// The Postrider operator: durable, signed event delivery configured by Kubernetes custom resources.
#[derive(Debug, Parser)]
#[command(name = "postrider", version, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator.
    Run(Box<RunArgs>),
    /// Print the custom resource definitions, write them to a folder, or check a folder against them.
    Crds(CrdsArgs),
}

/// Settings of `postrider crds`.
#[derive(Debug, Args)]
pub struct CrdsArgs {
    /// Write one file for each kind into this folder.
    #[arg(long, value_name = "DIR", conflicts_with = "check")]
    pub out: Option<PathBuf>,
    /// Compare the files of this folder; exit 1 and name those that differ.
    #[arg(long, value_name = "DIR")]
    pub check: Option<PathBuf>,
}

/// Settings of `postrider run`.
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// Address for publishing events.
    #[arg(long, env = "POSTRIDER_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Address for `/healthz`, `/readyz` and `/metrics`.
    #[arg(long, env = "POSTRIDER_ADMIN_LISTEN", default_value = "0.0.0.0:9090")]
    pub admin_listen: SocketAddr,
    /// Folder of the queue's file; must survive a restart.
    #[arg(long, env = "POSTRIDER_DATA_DIR", default_value = "/var/lib/postrider")]
    pub data_dir: PathBuf,
    /// Base of the publish URL that projects show in `status.ingestURL`.
    #[arg(long, env = "POSTRIDER_PUBLIC_URL", default_value = "http://localhost:8080", value_parser = public_url)]
    pub public_url: url::Url,
    /// Networks that webhooks and mails may be sent to although they are private, such as the cluster's service network.
    /// Repeat the flag or separate with commas.
    #[arg(
        long,
        env = "POSTRIDER_ALLOW_EGRESS",
        value_name = "CIDR",
        value_delimiter = ',',
        value_parser = network
    )]
    pub allow_egress: Vec<IpNet>,
    /// Networks that the proxies of webhooks may be in although they are private; those of `--allow-egress` are such, too.
    /// Whoever may write an `EventDestination` reaches through such a proxy what the proxy lets them. Repeat the flag or
    /// separate with commas.
    #[arg(
        long,
        env = "POSTRIDER_ALLOW_PROXY",
        value_name = "CIDR",
        value_delimiter = ','
    )]
    pub allow_proxy: Vec<IpNet>,
    /// Proxy of webhooks that set none, `http` or `https`, such as `http://proxy.example.com:3128`; a destination goes
    /// without with `proxy.direct`. Its own address is not checked by the egress guard: whoever sets the flag vouches
    /// for it. Default: none.
    #[arg(long, env = "POSTRIDER_PROXY", value_name = "URL", value_parser = proxy)]
    pub proxy: Option<String>,
    /// Folder with user name and password for `--proxy`: files `username` and `password`, as a mounted Secret of type
    /// `kubernetes.io/basic-auth` has them. They are read again when they change.
    #[arg(
        long,
        env = "POSTRIDER_PROXY_AUTH_DIR",
        value_name = "DIR",
        requires = "proxy"
    )]
    pub proxy_auth_dir: Option<PathBuf>,
    /// Folder that describes the SMTP server of e-mail destinations that name none: files `host`, `port`, `security`,
    /// `username`, `password`, `from`, `ca` and `allowUnencrypted`, as a mounted Secret has them. Default: none.
    #[arg(long, env = "POSTRIDER_SMTP_DIR", value_name = "DIR")]
    pub smtp_dir: Option<PathBuf>,
    /// What Kubernetes Events name as their writer, such as the pod's name. Default: `postrider`.
    #[arg(long, env = "POSTRIDER_INSTANCE")]
    pub instance: Option<String>,
    /// Look after one namespace only. Default: all.
    #[arg(long, env = "POSTRIDER_WATCH_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace)]
    pub watch_namespace: Option<String>,
    /// Form of log lines.
    #[arg(long, env = "POSTRIDER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
    /// What to log, as `tracing` filters: `info`, `postrider=debug`.
    #[arg(long, env = "POSTRIDER_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Largest body of a publish request, in bytes or as `1Mi`, up to `64Mi`.
    #[arg(long, env = "POSTRIDER_MAX_BODY_BYTES", default_value = "1Mi", value_name = "BYTES",
          value_parser = |text: &str| bytes(text, 1 << 10, 64 << 20))]
    pub max_body_bytes: u64,
    /// Deliveries of one project that may wait; publishing beyond answers 429.
    #[arg(long, env = "POSTRIDER_PROJECT_QUEUE_LIMIT", default_value_t = 1_000_000,
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub project_queue_limit: u64,
    /// Largest size of the queue's file, in bytes or as `10Gi`; publishing beyond answers 503.
    #[arg(long, env = "POSTRIDER_QUEUE_MAX_BYTES", default_value = "10Gi", value_name = "BYTES",
          value_parser = |text: &str| bytes(text, 1 << 20, u64::MAX))]
    pub queue_max_bytes: u64,
    /// Size of the queue's file above which delivered events are removed early, in bytes or as `1Gi`.
    #[arg(long, env = "POSTRIDER_RETENTION_BYTES", default_value = "1Gi", value_name = "BYTES",
          value_parser = |text: &str| bytes(text, 0, u64::MAX))]
    pub retention_bytes: u64,
    /// Ids of events that are remembered to tell duplicates. Beyond, the oldest are forgotten before 24 hours are over,
    /// and so are the bodies of their events once delivered.
    #[arg(long, env = "POSTRIDER_DEDUPLICATION_IDS", default_value_t = 5_000_000,
          value_parser = clap::value_parser!(u64).range(1_000..=1_000_000_000))]
    pub deduplication_ids: u64,
    /// For how long attempts stay in the delivery log; `0s` keeps no log.
    #[arg(long, env = "POSTRIDER_DELIVERY_LOG_RETENTION", default_value = "72h", value_parser = log_retention)]
    pub delivery_log_retention: Duration,
    /// Room that the delivery log may take, in bytes; beyond, the oldest attempts are removed.
    #[arg(long, env = "POSTRIDER_DELIVERY_LOG_MAX_BYTES", default_value_t = 256 << 20,
          value_parser = clap::value_parser!(u64).range(4 << 20..))]
    pub delivery_log_max_bytes: u64,
    /// Requests in flight over all destinations, 2 to 65536. Failing destinations share half of them.
    #[arg(long, env = "POSTRIDER_MAX_IN_FLIGHT", default_value_t = 1024,
          value_parser = clap::value_parser!(u32).range(2..=65536))]
    pub max_in_flight: u32,
    /// How long requests under way may take to end when the process stops.
    #[arg(long, env = "POSTRIDER_GRACE_PERIOD", default_value = "25s", value_parser = grace_period)]
    pub grace_period: Duration,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

fn public_url(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).map_err(|error| error.to_string())?;
    if matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.query().is_none()
        && url.fragment().is_none()
    {
        Ok(url)
    } else {
        Err("give an http or https URL without query, such as https://events.example.com".to_owned())
    }
}

/// A proxy's URL; a command line is no place for a password.
fn proxy(text: &str) -> Result<String, String> {
    let proxy = Proxy::read(text, None)?;
    if text.contains('@') || proxy.authorization.is_some() {
        return Err("leave user name and password out; give them in files, with --proxy-auth-dir".to_owned());
    }
    Ok(proxy.origin())
}

fn grace_period(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .filter(|period| *period <= Duration::from_secs(600))
        .ok_or_else(|| "give a duration of at most 10m, such as 25s".to_owned())
}

/// A network such as `10.0.0.0/8`.
fn network(text: &str) -> Result<IpNet, String> {
    text.parse().map_err(|_| match text.parse::<IpAddr>() {
        Ok(address) => {
            let one = IpNet::from(address);
            format!("give a network with the length of its prefix; {one} is this one address")
        }
        Err(_) => "give a network with the length of its prefix, such as 10.96.0.0/12".to_owned(),
    })
}

/// A number of bytes between two bounds, both included.
fn bytes(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number =
        size::parse(text).ok_or("give a number of bytes, such as 1048576, 512Mi or 10Gi".to_owned())?;
    if (least..=most).contains(&number) {
        Ok(number)
    } else if most == u64::MAX {
        Err(format!("give at least {least} bytes"))
    } else {
        Err(format!("give {least} to {most} bytes"))
    }
}

fn log_retention(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "give a duration, such as 72h, or 0s for no log".to_owned())
}

/// The name of a namespace.
fn namespace(text: &str) -> Result<String, String> {
    if is_namespace(text) {
        Ok(text.to_owned())
    } else {
        Err("no namespace has such a name: use at most 63 lower-case letters, digits and \"-\"".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn sizes_may_have_a_suffix() {
        let cli = Cli::try_parse_from(["postrider", "run", "--queue-max-bytes", "20Gi"]).unwrap();
        let Command::Run(settings) = cli.command else {
            unreachable!("it is the command that was given")
        };
        assert_eq!(settings.queue_max_bytes, 20 << 30);
        assert_eq!(settings.retention_bytes, 1 << 30);
        assert_eq!(settings.max_body_bytes, 1 << 20);
    }

    #[test]
    fn wrong_settings_are_refused_in_words() {
        for (flag, value, word) in [
            ("--public-url", "ftp://x", "http or https"),
            ("--grace-period", "1d", "at most 10m"),
            ("--allow-egress", "10.0.0.0", "10.0.0.0/32 is this one address"),
            ("--allow-egress", "10.0.0.0/64", "such as 10.96.0.0/12"),
            ("--max-body-bytes", "5", "give 1024 to 67108864 bytes"),
            ("--max-body-bytes", "65Mi", "give 1024 to"),
            ("--queue-max-bytes", "10GB", "such as 1048576, 512Mi or 10Gi"),
            ("--queue-max-bytes", "1Ki", "give at least 1048576"),
            ("--delivery-log-retention", "3 days", "such as 72h"),
            ("--delivery-log-max-bytes", "5", "4194304"),
            ("--watch-namespace", "Foo_Bar", "no namespace"),
            ("--proxy", "socks5://p.example", "http or https"),
            ("--proxy", "http://p.example/x", "no path"),
            ("--proxy", "http://me:hunter2@p.example", "--proxy-auth-dir"),
            ("--proxy-auth-dir", "/x", "--proxy"),
        ] {
            let error = Cli::try_parse_from(["postrider", "run", flag, value])
                .unwrap_err()
                .to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
