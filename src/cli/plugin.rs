//! The `kubectl postrider` plugin: what a person can find out, and do, at a terminal.
//!
//! Owns the plugin's command line, and how a command's [`Report`] is printed. Each command is a function from its
//! arguments and the files they name to a report; all decisions are `domain`'s, so what the plugin says is what the
//! operator does.
//!
//! Every file is bounded. Some commands ask a cluster (`online`), the others nobody at all. Values of Secrets do not
//! show, unless the user asks for them.

mod acting;
mod completion;
mod deliveries;
mod events;
mod formats;
mod holders;
mod input;
mod lint;
mod mails;
mod online;
mod publish;
mod render;
mod replay;
mod schema;
mod shown;
mod status;
mod testing;
mod verify;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use jiff::Timestamp;

use self::acting::{EnableArgs, RotateArgs};
use self::completion::{CompleteArgs, CompletionArgs};
use self::deliveries::{DeliveriesArgs, ShowArgs};
use self::formats::FormatsArgs;
use self::holders::GivenSecret;
use self::publish::PublishArgs;
use self::replay::{CancelArgs, ReplayArgs};
use self::shown::Output;
use self::status::StatusArgs;
use self::testing::TestArgs;
use crate::domain::duration;

/// Sees what becomes of events and acts on it; checks manifests, requests and signatures without a cluster.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-postrider",
    bin_name = "kubectl postrider",
    version,
    max_term_width = 110,
    after_help = "Examples:\n  \
        kubectl postrider status -A\n  \
        kubectl postrider test alerts\n  \
        kubectl postrider deliveries alerts --state Exhausted --since 2h\n  \
        kubectl postrider replay alerts --since 2h --failed\n  \
        kubectl postrider lint destinations/*.yaml\n  \
        kustomize build . | kubectl postrider lint -\n  \
        kubectl postrider render destination.yaml --event event.json\n  \
        kubectl postrider events 'record_*' -o yaml\n  \
        kubectl postrider formats\n  \
        kubectl postrider verify --secret key.txt --header 'webhook-id: 1' … --body body.json"
)]
pub struct Plugin {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List everything wrong with EventProject and EventDestination manifests.
    Lint(LintArgs),
    /// Show the request that a destination would be sent for an event.
    Render(Box<RenderArgs>),
    /// List the built-in event types.
    Events(EventsArgs),
    /// List the ready formats of services, such as Slack, and what each needs.
    Formats(FormatsArgs),
    /// Check the signature of a request, and say what is wrong with it.
    Verify(Box<VerifyArgs>),
    /// Show the projects and destinations of a namespace, and what is wrong.
    Status(StatusArgs),
    /// List what became of a destination's deliveries.
    Deliveries(Box<DeliveriesArgs>),
    /// Show one delivery with its attempts.
    Show(ShowArgs),
    /// Deliver stored events again.
    Replay(Box<ReplayArgs>),
    /// Drop a delivery that waits.
    Cancel(CancelArgs),
    /// Send an example event to a destination, and show what its receiver says.
    Test(TestArgs),
    /// Publish an event to a project.
    Publish(Box<PublishArgs>),
    /// Enable a destination that was disabled because its receiver stayed broken.
    Enable(EnableArgs),
    /// Have a new signing key made for a destination.
    RotateSecret(RotateArgs),
    /// Print what a shell needs to complete words.
    Completion(CompletionArgs),
    /// Answer kubectl, which completes words.
    #[command(hide = true)]
    Complete(CompleteArgs),
}

/// Arguments of `lint`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 nothing wrong, 1 faults, 2 a file cannot be read.\n\n\
    References to Secrets and ConfigMaps that are not among the files count as present.\n\n\
    Examples:\n  \
    kubectl postrider lint project.yaml destination.yaml\n  \
    helm template . | kubectl postrider lint - -o json"
)]
struct LintArgs {
    /// Manifests, YAML or JSON, of any number of documents; `-` is the standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = LintOutput::Text)]
    output: LintOutput,
    /// Networks that the operator may send to although they are private: its own flag of this name. Repeat the flag
    /// or separate with commas.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    allow_egress: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LintOutput {
    /// One fault a line.
    Text,
    /// One JSON object.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Arguments of `render`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 shown, 1 the destination or the event is faulty, 2 a file cannot be used.\n\n\
    What HTTP itself adds (Host, Content-Length) is not shown. Without the signing key there is no signature.\n\n\
    Examples:\n  \
    kubectl postrider render destination.yaml project.yaml --event event.json\n  \
    kubectl postrider render destination.yaml --event event.json --secret alerts-signing/secret=whsec_…\n  \
    kubectl postrider render destination.yaml --event event.json -o body | jq ."
)]
struct RenderArgs {
    /// Manifests with the destination, and with Secrets and projects if you like; `-` is the standard input.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Name of the destination, when the files hold several.
    #[arg(long, value_name = "DESTINATION")]
    name: Option<String>,
    /// The event as it would be published, JSON; CloudEvents are recognised.
    #[arg(long, value_name = "FILE")]
    event: PathBuf,
    /// Which event, when the file holds an array: 0 is the first.
    #[arg(long, value_name = "NUMBER")]
    index: Option<usize>,
    /// Further manifests, with the event's project.
    #[arg(long, value_name = "FILE", num_args = 1..)]
    project: Vec<PathBuf>,
    /// A key of a Secret. Others on the machine may see arguments; a Secret manifest among the files is safer.
    #[arg(long, value_name = "NAME/KEY=VALUE")]
    secret: Vec<GivenSecret>,
    /// Number of the attempt.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    attempt: u32,
    /// Time of the attempt, RFC 3339. Default: now.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    /// Show URLs and headers that come from Secrets.
    #[arg(long)]
    show_secrets: bool,
    /// What to show.
    #[arg(short, long, value_enum, default_value_t = RenderOutput::Request)]
    output: RenderOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RenderOutput {
    /// Method, URL, headers, an empty line and the body.
    Request,
    /// The bytes of the body alone.
    Body,
    /// One JSON object.
    Json,
    /// The same as YAML.
    Yaml,
}

impl RenderOutput {
    /// The form for programs; a table stands for what is for people.
    const fn form(self) -> Output {
        match self {
            Self::Request | Self::Body => Output::Table,
            Self::Json => Output::Json,
            Self::Yaml => Output::Yaml,
        }
    }
}

/// Arguments of `events`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 listed, 1 no type has such a name.\n\n\
    JSON and YAML also hold each type's message, JSON Schema of `data`, the other members it needs, and an example.\n\n\
    Examples:\n  \
    kubectl postrider events\n  \
    kubectl postrider events run_failed -o json | jq '.[0].example'\n  \
    kubectl postrider events 'workflowExecution.*' -o yaml")]
struct EventsArgs {
    /// Names of types; `*` stands for any characters. Default: all.
    #[arg(value_name = "TYPE")]
    types: Vec<String>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = EventsOutput::Table)]
    output: EventsOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum EventsOutput {
    /// One type a line.
    Table,
    /// An array of objects.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 genuine, 1 not genuine, 2 a file or the key cannot be used.\n\n\
    Examples:\n  \
    kubectl postrider verify --secret key.txt --body body.json --header webhook-id=01J… \\\n      \
    --header webhook-timestamp=1700000000 --header webhook-signature=v1,…\n  \
    kubectl postrider verify --secret key.txt --body body.json --scheme hmac \\\n      \
    --header-name X-Acme-HMAC-SHA-256 --header X-Acme-HMAC-SHA-256=…"
)]
struct VerifyArgs {
    /// File that holds the signing key, or the public key (`whpk_…`) of `ed25519`; a newline at its end does not count.
    #[arg(long, value_name = "FILE")]
    secret: PathBuf,
    /// A header of the request, `Name=value` or `Name: value`.
    #[arg(long, value_name = "HEADER", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    /// File that holds the body's bytes; `-` is the standard input.
    #[arg(long, value_name = "FILE")]
    body: PathBuf,
    /// How the request is signed.
    #[arg(long, value_enum, default_value_t = VerifyScheme::Standard)]
    scheme: VerifyScheme,
    /// `hmac`, `stripe`, `github`: header of the signature. The last two have a default.
    #[arg(long, value_name = "NAME", required_if_eq("scheme", "hmac"))]
    header_name: Option<HeaderName>,
    /// `hmac`: the hash.
    #[arg(long, value_enum, default_value_t = VerifyAlgorithm::Sha256)]
    algorithm: VerifyAlgorithm,
    /// `hmac`: what is signed, as in the destination.
    #[arg(long, value_name = "CONTENT", default_value = "{{ $.body }}")]
    signed_content: String,
    /// URL of the destination, when it is signed.
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    url: String,
    /// Method of the request, when it is signed.
    #[arg(long, value_name = "METHOD", default_value = "POST")]
    method: String,
    /// `hmac`: text before the signature.
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: String,
    /// `hmac`: how the signature is written.
    #[arg(long, value_enum, default_value_t = VerifyEncoding::Hex)]
    encoding: VerifyEncoding,
    /// How far a signed timestamp may be from now.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = tolerance)]
    tolerance: Duration,
    /// Time to compare the timestamp with, RFC 3339. Default: now.
    #[arg(long, value_name = "TIME")]
    now: Option<Timestamp>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VerifyScheme {
    /// Standard Webhooks, `v1`.
    Standard,
    /// Standard Webhooks, `v1a`.
    Ed25519,
    /// `t=…,v1=…`, as Stripe signs.
    Stripe,
    /// `sha256=…`, as GitHub signs.
    Github,
    /// An HMAC in one header; by default HMAC-SHA-256 of the body.
    Hmac,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VerifyAlgorithm {
    /// SHA-1.
    Sha1,
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum VerifyEncoding {
    /// Lower-case hexadecimal.
    Hex,
    /// Standard base64.
    Base64,
}

/// What a command found.
#[derive(Debug, Default)]
struct Report {
    /// For the standard output, byte by byte.
    out: Vec<u8>,
    /// For people, on the standard error; one line each.
    notes: Vec<String>,
    verdict: Verdict,
}

/// How a command ended, from good to bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// Nothing is wrong.
    #[default]
    Clean,
    /// Something is wrong with what was looked at.
    Faulty,
    /// It could not be looked at.
    Unusable,
}

impl Report {
    fn line(&mut self, text: &str) {
        self.out.extend_from_slice(printable(text).as_bytes());
        self.out.push(b'\n');
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn at_least(&mut self, verdict: Verdict) {
        self.verdict = self.verdict.max(verdict);
    }
}

/// Does what the command line says; the exit code is the verdict.
#[must_use]
pub fn run(plugin: &Plugin) -> ExitCode {
    let report = match &plugin.command {
        Command::Lint(args) => lint::run(args),
        Command::Render(args) => render::run(args),
        Command::Events(args) => events::run(args),
        Command::Formats(args) => formats::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Status(args) => status::run(args),
        Command::Deliveries(args) => deliveries::list(args),
        Command::Show(args) => deliveries::show(args),
        Command::Replay(args) => replay::replay(args),
        Command::Cancel(args) => replay::cancel(args),
        Command::Test(args) => testing::run(args),
        Command::Publish(args) => publish::run(args),
        Command::Completion(args) => Ok(completion::run(args)),
        Command::Complete(args) => Ok(completion::complete(args)),
        Command::Enable(args) => acting::enable(args),
        Command::RotateSecret(args) => acting::rotate(args),
    };
    let report = report.unwrap_or_else(|error| Report {
        notes: vec![format!("error: {error:#}")],
        verdict: Verdict::Unusable,
        ..Report::default()
    });
    print(&report)
}

/// Whoever reads may have gone away, such as `head`; then nobody is left to be told.
fn print(report: &Report) -> ExitCode {
    let mut errors = std::io::stderr().lock();
    for note in &report.notes {
        if writeln!(errors, "{}", printable(note)).is_err() {
            break;
        }
    }
    let mut out = std::io::stdout().lock();
    let written = out.write_all(&report.out).and_then(|()| out.flush());
    match report.verdict {
        Verdict::Clean if written.is_ok() => ExitCode::SUCCESS,
        Verdict::Faulty if written.is_ok() => ExitCode::from(1),
        _ => ExitCode::from(2),
    }
}

/// For people, before what follows; notes of a report come at its end, and not at all when it ends with an error.
fn tell_at_once(text: &str) {
    let mut errors = std::io::stderr().lock();
    // Whoever reads may have gone away.
    drop(writeln!(errors, "{}", printable(text)));
}

/// Text that may come from a file, without what a terminal would obey.
fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            clean.extend(character.escape_default());
        } else {
            clean.push(character);
        }
    }
    clean
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text
        .split_once(['=', ':'])
        .ok_or("give a header as Name=value or \"Name: value\"")?;
    let name = HeaderName::from_bytes(name.trim().as_bytes()).map_err(|error| error.to_string())?;
    let value = HeaderValue::from_str(value.trim()).map_err(|error| error.to_string())?;
    Ok((name, value))
}

fn tolerance(text: &str) -> Result<Duration, String> {
    duration::parse(text).ok_or_else(|| "give a duration, such as 5m".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Plugin::command().debug_assert();
    }

    #[test]
    fn a_header_may_be_written_in_two_ways() {
        for text in ["Webhook-Signature=v1,a=b:c", "webhook-signature: v1,a=b:c"] {
            let (name, value) = header(text).unwrap();
            assert_eq!(
                (name.as_str(), value.as_bytes()),
                ("webhook-signature", &b"v1,a=b:c"[..])
            );
        }
        for text in ["webhook-id", "a b=c", "a=b\nc"] {
            header(text).unwrap_err();
        }
    }

    #[test]
    fn a_terminal_is_told_nothing_to_obey() {
        assert_eq!(printable("a\u{1b}[31mü\n"), "a\\u{1b}[31mü\\n");
    }
}
