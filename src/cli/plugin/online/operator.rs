//! The operator's HTTP API, by a URL or through the API server (`forward`).
//!
//! One connection at a time, HTTP/1.1. A request has a [`DEADLINE`] and an answer at most [`MAX_ANSWER`] bytes. Tokens
//! go to the operator alone: redirects are not followed, and a URL without encryption is pointed out.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use futures::future::OptionFuture;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use url::{Host, Url};

use super::forward::{self, Place, Refusal};
use super::{CONNECT, ClusterArgs, Connection, name, namespace};
use crate::cli::plugin::shown::text;
use crate::cli::plugin::tell_at_once;
use crate::domain::duration;

/// How long the operator may take for an answer.
const DEADLINE: Duration = Duration::from_secs(60);
/// How long a pod may take to say why it refused a connection.
const REFUSAL: Duration = Duration::from_millis(500);
/// Most bytes of an answer.
const MAX_ANSWER: usize = 16 << 20;
/// Most characters of what a problem says.
const MAX_DETAIL: usize = 1000;

/// Which operator, and as whom.
#[derive(Debug, Args)]
pub(in crate::cli::plugin) struct OperatorArgs {
    #[command(flatten)]
    pub(in crate::cli::plugin) cluster: ClusterArgs,
    /// URL of the operator's publish port. Default: its pod, through the API server.
    #[arg(long, env = "POSTRIDER_URL", value_name = "URL", value_parser = base, help_heading = "Operator")]
    pub(in crate::cli::plugin) server: Option<Url>,
    /// Namespace in which the operator runs. Default: where its cluster role binding says.
    #[arg(long, env = "POSTRIDER_OPERATOR_NAMESPACE", value_name = "NAMESPACE", value_parser = namespace,
          help_heading = "Operator")]
    pub(in crate::cli::plugin) operator_namespace: Option<String>,
    /// Ask as this service account of the object's namespace, with a token of 10 minutes. Default: with the
    /// kubeconfig's own token.
    #[arg(long, value_name = "NAME", value_parser = name, help_heading = "Operator")]
    pub(in crate::cli::plugin) service_account: Option<String>,
}

fn base(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| error.to_string())?;
    let plain = url.username().is_empty() && url.password().is_none();
    let plain = plain && url.query().is_none() && url.fragment().is_none();
    if plain && matches!(url.scheme(), "http" | "https") && url.has_host() {
        Ok(url)
    } else {
        Err(
            "give an http or https URL without credentials and query, such as http://localhost:8080"
                .to_owned(),
        )
    }
}

/// An operator that can be asked.
pub(in crate::cli::plugin) struct Operator {
    way: Way,
    sender: Option<SendRequest<Full<Bytes>>>,
    /// What moves the bytes of connections; ends with them.
    connections: JoinSet<()>,
    /// What the pod says of the connection in use, when it refuses it.
    refusal: Option<Refusal>,
}

enum Way {
    Url(Url),
    Forward(kube::Client, Place),
}

/// Said of a question of which the operator has not seen a byte.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::cli::plugin) struct Unsent(pub(in crate::cli::plugin) String);

/// What to ask.
pub(in crate::cli::plugin) struct Question<'a> {
    pub(in crate::cli::plugin) method: Method,
    /// Path and query, from the API's root.
    pub(in crate::cli::plugin) path: &'a str,
    pub(in crate::cli::plugin) bearer: &'a HeaderValue,
    /// Type and bytes of the body.
    pub(in crate::cli::plugin) body: Option<(&'static str, Bytes)>,
}

/// What the operator answered.
#[derive(Debug)]
pub(in crate::cli::plugin) struct Answer {
    pub(in crate::cli::plugin) status: StatusCode,
    /// Seconds after which it is worth another try.
    pub(in crate::cli::plugin) retry_after: Option<u64>,
    pub(in crate::cli::plugin) body: Value,
}

impl Answer {
    /// What is wrong, in the operator's words.
    pub(in crate::cli::plugin) fn problem(&self) -> String {
        let (title, detail) = (text(&self.body, "title"), text(&self.body, "detail"));
        let said = match (title.is_empty(), detail.is_empty()) {
            (_, false) => detail,
            (false, true) => title,
            (true, true) => format!(
                "the answer is {} and no word; is the URL the operator's?",
                self.status
            ),
        };
        let said = cut(&said);
        match self.status {
            StatusCode::UNAUTHORIZED => format!(
                "the operator refuses the token: {said}. With `--service-account NAME` one is made that it knows"
            ),
            StatusCode::FORBIDDEN => format!("you lack a right: {said}"),
            _ => said,
        }
    }

    /// Whether the problem is of a kind, by the end of its `type`.
    pub(in crate::cli::plugin) fn is(&self, kind: &str) -> bool {
        text(&self.body, "type").rsplit('/').next() == Some(kind)
    }
}

impl Operator {
    /// Finds the operator; it is connected to when it is asked. The user is warned before that of a token without
    /// encryption.
    ///
    /// # Errors
    /// When none is found.
    pub(in crate::cli::plugin) async fn find(
        connection: &Connection,
        args: &OperatorArgs,
    ) -> anyhow::Result<Self> {
        let way = if let Some(url) = &args.server {
            if url.scheme() == "http" && !is_local(url) {
                let host = url.host_str().unwrap_or_default();
                tell_at_once(&format!(
                    "warning: the token goes to {host} without encryption; use https where others listen"
                ));
            }
            Way::Url(url.clone())
        } else {
            let place = forward::find(&connection.client, args.operator_namespace.as_deref()).await?;
            Way::Forward(connection.client.clone(), place)
        };
        Ok(Self {
            way,
            sender: None,
            connections: JoinSet::new(),
            refusal: None,
        })
    }

    /// Asks.
    ///
    /// # Errors
    /// When there is no answer, or one that is no JSON.
    pub(in crate::cli::plugin) async fn ask(&mut self, question: Question<'_>) -> anyhow::Result<Answer> {
        let mut is_sent = false;
        let asked = tokio::time::timeout(DEADLINE, self.exchange(question, &mut is_sent)).await;
        let answer = asked.unwrap_or_else(|_| {
            Err(anyhow::anyhow!(
                "there was no answer within {}",
                duration::format(DEADLINE)
            ))
        });
        let place = || format!("cannot ask the operator at {}", self.place());
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) if !is_sent => {
                let hint = self.hint(&error);
                let place = self.place();
                let words = format!("cannot connect to the operator at {place}; nothing was sent{hint}");
                error.context(Unsent(words))
            }
            Err(error) => error.context(place()),
        };
        self.sender = None;
        let refusal = self
            .refusal
            .take()
            .map(|refusal| tokio::time::timeout(REFUSAL, refusal));
        match OptionFuture::from(refusal).await {
            Some(Ok(Some(said))) => Err(error.context(format!("the pod refuses: {}", cut(&said)))),
            _ => Err(error),
        }
    }

    fn place(&self) -> String {
        match &self.way {
            Way::Url(url) => url.to_string(),
            Way::Forward(_, place) => format!("pod {}/{} through the API server", place.namespace, place.pod),
        }
    }

    /// What to do when there is no connection.
    fn hint(&self, error: &anyhow::Error) -> &'static str {
        match &self.way {
            Way::Url(url) if url.scheme() == "https" && is_no_tls(error) => {
                "; there is no TLS there; use http://, or the port with TLS"
            }
            Way::Url(_) => {
                "; check the URL, and whether the operator's publish port can be reached from here"
            }
            Way::Forward(..) => "",
        }
    }

    /// Asks; notes when the operator may have seen some of the question.
    async fn exchange(&mut self, question: Question<'_>, is_sent: &mut bool) -> anyhow::Result<Answer> {
        let mut sender = match self.sender.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let (host, root) = match &self.way {
            Way::Url(url) => (authority(url), url.path().trim_end_matches('/')),
            Way::Forward(..) => ("postrider".to_owned(), ""),
        };
        let mut request = Request::builder()
            .method(question.method)
            .uri(format!("{root}{}", question.path))
            .header(HOST, host)
            .header(ACCEPT, "application/json")
            .header(AUTHORIZATION, question.bearer);
        let mut body = Bytes::new();
        if let Some((content_type, bytes)) = question.body {
            request = request.header(CONTENT_TYPE, content_type);
            body = bytes;
        }
        let request = request.body(Full::new(body)).context("it cannot be asked for")?;
        sender.ready().await.context("the connection broke")?;
        *is_sent = true;
        let answer = sender
            .send_request(request)
            .await
            .context("the connection broke")?;
        let (head, body) = answer.into_parts();
        let body = bounded(body).await?;
        let body = serde_json::from_slice(&body);
        let retry_after = head
            .headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok());
        self.sender = Some(sender);
        Ok(Answer {
            status: head.status,
            retry_after,
            body: match body {
                Ok(body) => body,
                Err(_) if !head.status.is_success() => Value::Null,
                Err(_) => anyhow::bail!("the answer is no JSON: is the URL the operator's?"),
            },
        })
    }

    async fn connect(&mut self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        match &self.way {
            Way::Forward(client, place) => {
                let (stream, refusal) = forward::stream(client, place).await?;
                self.refusal = Some(refusal);
                speak(&mut self.connections, stream).await
            }
            Way::Url(url) => {
                let stream = tokio::time::timeout(CONNECT, tcp(url)).await;
                let stream = stream
                    .map_err(|_| anyhow::anyhow!("no connection within {}", duration::format(CONNECT)))?
                    .context("no connection")?;
                if url.scheme() == "http" {
                    return speak(&mut self.connections, stream).await;
                }
                let name = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
                let name = ServerName::try_from(name.to_owned()).context("TLS knows no such host")?;
                let secured = TlsConnector::from(Arc::new(tls()?)).connect(name, stream).await;
                speak(&mut self.connections, secured.context("no TLS connection")?).await
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the user says where the operator is")]
async fn tcp(url: &Url) -> std::io::Result<TcpStream> {
    let port = url.port_or_known_default().unwrap_or(443);
    match url.host() {
        Some(Host::Ipv4(address)) => TcpStream::connect((address, port)).await,
        Some(Host::Ipv6(address)) => TcpStream::connect((address, port)).await,
        Some(Host::Domain(name)) => TcpStream::connect((name, port)).await,
        None => Err(std::io::ErrorKind::InvalidInput.into()),
    }
}

/// The system's authorities, or those of `SSL_CERT_FILE`.
fn tls() -> anyhow::Result<ClientConfig> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Whether whoever answered speaks something else than TLS.
fn is_no_tls(error: &anyhow::Error) -> bool {
    let inner = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>()?.get_ref());
    inner
        .filter_map(|inner| inner.downcast_ref::<rustls::Error>())
        .any(|inner| matches!(inner, rustls::Error::InvalidMessage(_)))
}

fn cut(said: &str) -> String {
    said.trim().chars().take(MAX_DETAIL).collect()
}

async fn speak<S>(connections: &mut JoinSet<()>, stream: S) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await.context("no connection")?;
    // What ends the connection is told to whoever waits for an answer.
    connections.spawn(async move { drop(connection.await) });
    Ok(sender)
}

#[expect(clippy::disallowed_methods, reason = "it is bounded")]
async fn bounded(body: Incoming) -> anyhow::Result<Bytes> {
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    let broken = |error| anyhow::anyhow!("the answer broke off, or is over {MAX_ANSWER} bytes: {error}");
    Ok(body.map_err(broken)?.to_bytes())
}

fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port()
        .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

fn is_local(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// A part of a path, so that nothing in it separates parts.
pub(in crate::cli::plugin) fn part(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_is_a_plain_url() {
        for text in [
            "http://localhost:8080",
            "https://events.example.com/base/",
            "http://[::1]:1",
        ] {
            base(text).unwrap();
        }
        for text in [
            "localhost:8080",
            "ftp://x",
            "http://me:pw@x",
            "http://x?y",
            "http://x#y",
        ] {
            base(text).unwrap_err();
        }
        for (text, local) in [
            ("http://localhost:1", true),
            ("http://[::1]", true),
            ("http://10.0.0.1", false),
        ] {
            assert_eq!(is_local(&base(text).unwrap()), local, "{text}");
        }
    }

    #[test]
    fn a_problem_is_told_in_its_words_and_with_what_to_do() {
        let problem = |status: u16, body: Value| {
            let status = StatusCode::from_u16(status).unwrap();
            let answer = Answer {
                status,
                retry_after: None,
                body,
            };
            answer.problem()
        };
        assert_eq!(problem(409, json!({"title": "t", "detail": "d"})), "d");
        assert_eq!(problem(500, json!({"title": "t"})), "t");
        assert!(problem(502, Value::Null).contains("502"));
        assert!(problem(401, json!({"detail": "d"})).contains("--service-account NAME"));
        assert!(problem(403, json!({"detail": "the verb"})).contains("right: the verb"));
    }

    #[test]
    fn an_id_stays_one_part_of_a_path() {
        assert_eq!(part("a/b:replay?x#y"), "a%2Fb%3Areplay%3Fx%23y");
    }

    /// Why an operator at a URL could not be asked.
    async fn unasked(url: &str) -> anyhow::Error {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut operator = Operator {
            way: Way::Url(base(url).unwrap()),
            sender: None,
            connections: JoinSet::new(),
            refusal: None,
        };
        let question = Question {
            method: Method::POST,
            path: "/v1/x",
            bearer: &HeaderValue::from_static("Bearer t"),
            body: None,
        };
        operator.ask(question).await.unwrap_err()
    }

    #[tokio::test]
    async fn who_reaches_nobody_is_told_that_nothing_was_sent() {
        let error = unasked("http://127.0.0.1:1").await;
        assert!(error.is::<Unsent>(), "{error:#}");
        let start = "cannot connect to the operator at http://127.0.0.1:1/; nothing was sent; check the URL";
        assert!(error.to_string().starts_with(start), "{error:#}");
    }

    /// A server that reads a little, answers and ends.
    async fn server(tasks: &mut JoinSet<()>, says: &'static [u8]) -> std::net::SocketAddr {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 16]).await;
            let _ = stream.write_all(says).await;
        });
        address
    }

    #[tokio::test]
    async fn who_speaks_tls_to_a_plain_port_is_told_to_use_http() {
        let mut tasks = JoinSet::new();
        let address = server(&mut tasks, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        let error = unasked(&format!("https://{address}")).await;
        assert!(error.is::<Unsent>(), "{error:#}");
        assert!(
            error.to_string().contains("no TLS there; use http://"),
            "{error:#}"
        );
    }

    #[tokio::test]
    async fn a_connection_that_breaks_after_the_question_leaves_open_what_became_of_it() {
        let mut tasks = JoinSet::new();
        let address = server(&mut tasks, b"").await;
        let error = unasked(&format!("http://{address}")).await;
        assert!(!error.is::<Unsent>(), "{error:#}");
    }
}
