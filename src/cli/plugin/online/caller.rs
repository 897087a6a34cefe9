//! Who asks the operator: the caller's own token, or a short-lived one of a service account.
//!
//! The operator knows callers by Kubernetes tokens and asks the API server about them. The token is the one that the
//! kubeconfig would send there, wherever it comes from: the file itself, another file, a program. A certificate cannot
//! be passed on, nor can impersonation: then nothing is sent, and the message says what to do. Tokens do not show.

use std::error::Error;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use parking_lot::Mutex;

use super::{Connection, request, told};

/// How long a service account's token is good for; the API server gives no shorter ones.
const LIFETIME: i64 = 600;

/// What to send as `Authorization`.
///
/// # Errors
/// When there is no token to send.
pub(in crate::cli::plugin) async fn bearer(
    connection: &Connection,
    service_account: Option<&str>,
) -> anyhow::Result<HeaderValue> {
    match service_account {
        Some(name) => of_service_account(connection, name).await,
        None => own(connection).await,
    }
}

/// The header of a token.
pub(in crate::cli::plugin) fn header(token: &str) -> anyhow::Result<HeaderValue> {
    let header = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut header =
        header.map_err(|_| anyhow::anyhow!("the token has characters that no token may have"))?;
    header.set_sensitive(true);
    Ok(header)
}

async fn of_service_account(connection: &Connection, name: &str) -> anyhow::Result<HeaderValue> {
    let api = Api::<ServiceAccount>::namespaced(connection.client.clone(), &connection.namespace);
    let wanted = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(LIFETIME),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let what = format!(
        "have a token made for service account {name:?} of namespace {:?}",
        connection.namespace
    );
    let params = PostParams::default();
    let made = request(&what, api.create_token_request(name, &params, &wanted)).await?;
    let token = made.status.map(|status| status.token);
    header(&token.ok_or_else(|| anyhow::anyhow!("cannot {what}: the answer holds none"))?)
}

/// The token of the kubeconfig: what its own layer puts into a request, which goes nowhere.
async fn own(connection: &Connection) -> anyhow::Result<HeaderValue> {
    let how = how_to(&connection.namespace);
    let user = &connection.config.auth_info;
    if user.impersonate.is_some() || user.impersonate_groups.is_some() || user.impersonate_uid.is_some() {
        anyhow::bail!(
            "the kubeconfig impersonates somebody, which cannot be passed on to the operator. {how}"
        );
    }
    let layer = connection.config.auth_layer().map_err(|error| told(&error))?;
    let Some(layer) = layer else {
        anyhow::bail!(
            "the kubeconfig has no token to pass on to the operator: it shows a client certificate, or nothing. {how}"
        );
    };
    let caught = Catch::default();
    let client = ClientBuilder::new(caught.clone(), "default")
        .with_layer(&layer)
        .build();
    client
        .send(Request::new(Body::empty()))
        .await
        .map_err(|error| told(&error))?;
    let header = caught.0.lock().take();
    header
        .filter(|header| header.as_bytes().starts_with(b"Bearer "))
        .ok_or_else(|| {
            anyhow::anyhow!("the kubeconfig has a password, and no token to pass on to the operator. {how}")
        })
}

/// What to do without a token.
fn how_to(namespace: &str) -> String {
    format!(
        "Use a service account's token of 10 minutes with `--service-account NAME`. To make such an account: \
         `kubectl create serviceaccount postrider-cli -n {namespace}` and `kubectl create rolebinding postrider-cli \
         -n {namespace} --clusterrole=edit --serviceaccount={namespace}:postrider-cli`"
    )
}

/// Keeps the credentials of a request and answers it itself.
#[derive(Clone, Default)]
struct Catch(Arc<Mutex<Option<HeaderValue>>>);

impl tower_service::Service<Request<Body>> for Catch {
    type Response = Response<Full<Bytes>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        *self.0.lock() = request.headers().get(AUTHORIZATION).cloned();
        std::future::ready(Ok(Response::new(Full::default())))
    }
}

#[cfg(test)]
mod tests {
    use kube::config::{AuthInfo, ExecConfig};
    use kube::{Client, Config};

    use super::*;
    use crate::cli::plugin::online::block_on;

    fn asked(user: AuthInfo) -> anyhow::Result<HeaderValue> {
        block_on(async {
            let mut config = Config::new(http::Uri::from_static("http://127.0.0.1:1"));
            config.auth_info = user;
            let connection = Connection {
                client: Client::try_from(Config::new(config.cluster_url.clone()))?,
                config,
                namespace: "acme".to_owned(),
            };
            bearer(&connection, None).await
        })
    }

    #[test]
    fn a_token_is_passed_on_wherever_it_comes_from() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from-file").unwrap();
        let of_file = AuthInfo {
            token_file: Some(file.path().display().to_string()),
            ..AuthInfo::default()
        };
        assert_eq!(asked(of_file).unwrap(), "Bearer from-file");
        let credential = r#"{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential",
            "status": {"token": "from-program"}}"#;
        let exec: ExecConfig = serde_json::from_value(serde_json::json!({
            "apiVersion": "client.authentication.k8s.io/v1", "command": "echo", "args": [credential],
        }))
        .unwrap();
        let of_program = AuthInfo {
            exec: Some(exec),
            ..AuthInfo::default()
        };
        let header = asked(of_program).unwrap();
        assert_eq!(header, "Bearer from-program");
        assert!(header.is_sensitive());
    }

    #[test]
    fn what_cannot_be_passed_on_is_said_with_what_to_do() {
        let impersonating = AuthInfo {
            token_file: Some("/nowhere".to_owned()),
            impersonate: Some("root".to_owned()),
            ..AuthInfo::default()
        };
        let password = AuthInfo {
            username: Some("me".to_owned()),
            password: Some("s3cret".to_owned().into()),
            ..AuthInfo::default()
        };
        for (user, words) in [
            (AuthInfo::default(), "client certificate"),
            (impersonating, "impersonates"),
            (password, "password"),
        ] {
            let text = format!("{:#}", asked(user).unwrap_err());
            assert!(
                text.contains(words) && text.contains("--service-account NAME") && !text.contains("s3cret"),
                "{text}"
            );
        }
    }
}
