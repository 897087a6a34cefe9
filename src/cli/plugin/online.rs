//! The user's cluster: which it is, how it is asked, and what its refusals mean.
//!
//! Owns the flags that choose a cluster, the runtime that commands run in, and the words for what the API server
//! refuses. It is reached as `kubectl` reaches it, by the kubeconfig. Every request has a [`DEADLINE`]. Nothing here
//! shows a token: errors of a kubeconfig, and of the programs it names, are told without what they hold.

pub(super) mod ask;
pub(super) mod caller;
mod forward;
pub(super) mod operator;

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::client::AuthError;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Api, Client, Config};

use crate::api::names::{is_name, is_namespace};
use crate::api::v1alpha1::{EventDestination, EventProject};
use crate::domain::duration;

/// How long the API server may take for an answer.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long a connection to it may take.
const CONNECT: Duration = Duration::from_secs(10);
/// Objects asked for at once.
const PAGE: u32 = 500;
/// Most objects of a kind that are looked at.
const MAX_OBJECTS: usize = 20_000;

/// Which cluster and namespace.
#[derive(Debug, Args)]
pub(super) struct ClusterArgs {
    /// File that says how to reach the cluster. Default: as kubectl finds it.
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig. Default: the current one.
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    context: Option<String>,
    /// Namespace of the object. Default: that of the context.
    #[arg(short, long, value_name = "NAMESPACE", value_parser = namespace, help_heading = "Cluster")]
    namespace: Option<String>,
}

/// A cluster that can be asked.
pub(super) struct Connection {
    client: Client,
    config: Config,
    /// The namespace that is meant.
    pub(super) namespace: String,
}

impl Connection {
    /// Reads the kubeconfig; asks nobody but the program it may name for credentials.
    ///
    /// # Errors
    /// When there is no usable one.
    pub(super) async fn open(args: &ClusterArgs) -> anyhow::Result<Self> {
        let config = configuration(args).await?;
        let namespace = args.namespace.as_ref().unwrap_or(&config.default_namespace);
        anyhow::ensure!(
            is_namespace(namespace),
            "the context's namespace {namespace:?} cannot be one; use --namespace"
        );
        let namespace = namespace.clone();
        let client = crate::adapters::kube::client(config.clone()).map_err(|error| told(&error))?;
        Ok(Self {
            client,
            config,
            namespace,
        })
    }

    /// A client for other kinds.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// The destinations of the namespace.
    pub(super) fn destinations(&self) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<EventDestination>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind)
    }

    /// The projects of the namespace.
    pub(super) fn projects(&self) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<EventProject>(&());
        Api::namespaced_with(self.client.clone(), &self.namespace, &kind)
    }

    /// The projects and destinations of every namespace.
    pub(super) fn everywhere(&self) -> [Api<DynamicObject>; 2] {
        [
            Api::all_with(self.client.clone(), &ApiResource::erase::<EventProject>(&())),
            Api::all_with(self.client.clone(), &ApiResource::erase::<EventDestination>(&())),
        ]
    }
}

/// Runs a command that asks a cluster.
///
/// # Errors
/// Those of the command.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    // Refused only when a provider is installed already, and then it is the same one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let done = runtime.block_on(work);
    // A name that is still looked up is nothing to wait for.
    runtime.shutdown_background();
    done
}

/// Asks the API server, within [`DEADLINE`]; `what` completes "cannot".
///
/// # Errors
/// What it refused, or that it did not answer.
pub(super) async fn request<T>(
    what: &str,
    work: impl Future<Output = Result<T, kube::Error>>,
) -> anyhow::Result<T> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(told(&error)).with_context(|| format!("cannot {what}")),
        Err(_) => anyhow::bail!(
            "cannot {what}: the API server did not answer within {}",
            duration::format(DEADLINE)
        ),
    }
}

/// All objects of a kind, page by page.
///
/// # Errors
/// As [`request`], and when there are too many.
pub(super) async fn list(what: &str, api: &Api<DynamicObject>) -> anyhow::Result<Vec<DynamicObject>> {
    let mut found = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = request(what, api.list(&params)).await?;
        found.extend(page.items);
        let next = page.metadata.continue_.filter(|next| !next.is_empty());
        let Some(next) = next else { return Ok(found) };
        anyhow::ensure!(
            found.len() < MAX_OBJECTS,
            "cannot {what}: there are more than {MAX_OBJECTS}; choose a namespace"
        );
        params = params.continue_token(&next);
    }
}

async fn configuration(args: &ClusterArgs) -> anyhow::Result<Config> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = match &args.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file).map_err(|error| unusable(&error))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| unusable(&error))?
        }
        None => match Config::from_kubeconfig(&options).await {
            Ok(config) => config,
            // Inside a pod there is none.
            Err(error) if args.context.is_none() => Config::incluster().map_err(|_| unusable(&error))?,
            Err(error) => return Err(unusable(&error)),
        },
    };
    config.connect_timeout = Some(CONNECT);
    Ok(config)
}

/// What is wrong with a kubeconfig, without a line of it.
fn unusable(error: &KubeconfigError) -> anyhow::Error {
    match error {
        KubeconfigError::Parse(_) => anyhow::anyhow!("the kubeconfig is no valid YAML of a kubeconfig"),
        KubeconfigError::CurrentContextNotSet => {
            anyhow::anyhow!("the kubeconfig has no current context; use --context, or --kubeconfig")
        }
        KubeconfigError::LoadContext(name) => anyhow::anyhow!("the kubeconfig has no context {name:?}"),
        error => anyhow::anyhow!("no cluster is known: {error}"),
    }
}

/// What an error of the client means.
fn told(error: &kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => match status.code {
            401 => anyhow::anyhow!(
                "the API server does not know you: the kubeconfig's credentials are wrong or expired"
            ),
            403 => anyhow::anyhow!("you lack a right: {}", status.message),
            404 if ["could not find the requested resource", "page not found"]
                .iter()
                .any(|words| status.message.contains(words)) =>
            {
                anyhow::anyhow!("this cluster does not know the kind: Postrider is not installed there")
            }
            _ => anyhow::anyhow!("{}", status.message),
        },
        kube::Error::Auth(error) => credentials(error),
        error => {
            let inner =
                std::error::Error::source(error).and_then(|source| source.downcast_ref::<AuthError>());
            inner.map_or_else(|| unreachable_server(error), credentials)
        }
    }
}

/// Why there are no credentials, without what a program printed on its standard output.
fn credentials(error: &AuthError) -> anyhow::Error {
    match error {
        AuthError::AuthExecRun { cmd, out } => {
            let said: String = String::from_utf8_lossy(&out.stderr).chars().take(500).collect();
            anyhow::anyhow!(
                "the kubeconfig's program {cmd:?} for credentials ended with {}: {}",
                out.status,
                said.trim()
            )
        }
        AuthError::AuthExecParse(_) => {
            anyhow::anyhow!(
                "the kubeconfig's program for credentials printed something else than credentials"
            )
        }
        error => anyhow::anyhow!("the kubeconfig's credentials cannot be used: {error}"),
    }
}

/// The innermost cause says what happened; the outer ones repeat it.
fn unreachable_server(error: &kube::Error) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    anyhow::anyhow!("the API server cannot be reached: {cause}")
}

/// The name of an object: it becomes a part of a path.
pub(super) fn name(text: &str) -> Result<String, String> {
    if is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("no object has such a name: use lower-case letters, digits, \"-\" and \".\"".to_owned())
    }
}

/// The name of a namespace.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    if is_namespace(text) {
        Ok(text.to_owned())
    } else {
        Err("no namespace has such a name: use at most 63 lower-case letters, digits and \"-\"".to_owned())
    }
}

/// How long to wait.
pub(super) fn limit(text: &str) -> Result<Duration, String> {
    duration::parse(text)
        .filter(|limit| *limit <= Duration::from_secs(3600))
        .ok_or_else(|| "give a duration of at most 1h, such as 90s, or 0s not to wait".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place() {
        assert_eq!(name("alerts.a").as_deref(), Ok("alerts.a"));
        for text in ["", "../x", "a/b", "A", "a?b"] {
            name(text).unwrap_err();
            namespace(text).unwrap_err();
        }
    }

    #[test]
    fn a_refusal_says_what_is_lacking() {
        let told_of = |code: u16, message: &str| {
            let status = kube::core::Status::failure(message, "x").with_code(code);
            told(&kube::Error::Api(Box::new(status))).to_string()
        };
        assert!(told_of(401, "Unauthorized").contains("credentials"));
        assert!(told_of(403, "user cannot patch x").contains("right: user cannot patch x"));
        assert!(told_of(404, "the server could not find the requested resource").contains("not installed"));
        assert_eq!(told_of(404, "x \"a\" not found"), "x \"a\" not found");
    }

    #[test]
    fn a_broken_kubeconfig_is_not_quoted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "users: [{name: a, user: {token: s3cret: x}}]").unwrap();
        let args = ClusterArgs {
            kubeconfig: Some(file.path().to_owned()),
            context: None,
            namespace: None,
        };
        let error = block_on(async { Connection::open(&args).await.map(|_| ()) }).unwrap_err();
        let text = format!("{error:#} {error:?}");
        assert!(text.contains("kubeconfig") && !text.contains("s3cret"), "{text}");
    }
}
