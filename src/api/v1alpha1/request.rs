//! How a webhook's requests are made: who they say they are from, and how the receiver is known.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{CaSource, LocalReference, SecretKeySource, URL_MESSAGE, URL_RULE};

/// How requests say who sends them: set exactly one of `basic`, `bearer` and `oauth2ClientCredentials`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.basic), has(self.bearer), has(self.oauth2ClientCredentials)].filter(one, one).size() == 1").message("set exactly one of basic, bearer and oauth2ClientCredentials"))]
#[serde(rename_all = "camelCase")]
pub struct AuthSpec {
    /// User name and password (RFC 7617).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<BasicAuth>,
    /// Secret that holds a token, sent as `Authorization: Bearer …`. White space around it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<SecretKeySource>,
    /// A token that is fetched with a client's id and secret (RFC 6749 §4.4), kept until shortly before it expires, and
    /// fetched anew when the receiver answers 401.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2_client_credentials: Option<OAuth2ClientCredentials>,
}

/// User name and password: either `secretRef`, or `username` and `passwordFrom`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.secretRef) ? (!has(self.username) && !has(self.passwordFrom)) : (has(self.username) && has(self.passwordFrom))").message("set either secretRef, or username and passwordFrom"))]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// User name, at most 255 characters, without `:`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new(r"self.matches('^[^:\\x00-\\x1f\\x7f]+$')").message("a user name has no \":\" and no control characters"))]
    pub username: Option<String>,
    /// Secret that holds the password. White space around it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_from: Option<SecretKeySource>,
    /// Secret of type `kubernetes.io/basic-auth` in the same namespace; its keys are `username` and `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
}

/// A client of an OAuth 2.0 authorization server. The token is fetched by the rules that hold for webhooks: egress
/// guard, `delivery.timeout`, an answer of at most 64 KiB.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.clientID) != has(self.clientIDFrom)").message("set exactly one of clientID and clientIDFrom"))]
#[serde(rename_all = "camelCase")]
pub struct OAuth2ClientCredentials {
    /// URL of the token endpoint, `http` or `https`, at most 2048 characters.
    #[serde(rename = "tokenURL")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(URL_RULE).message(URL_MESSAGE))]
    pub token_url: String,
    /// Id of the client, at most 255 characters.
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub client_id: Option<String>,
    /// Secret that holds the client's id. White space around it does not count.
    #[serde(default, rename = "clientIDFrom", skip_serializing_if = "Option::is_none")]
    pub client_id_from: Option<SecretKeySource>,
    /// Secret that holds the client's secret. White space around it does not count.
    pub client_secret_from: SecretKeySource,
    /// Scopes to ask for, at most 64. Default: none is named, the server chooses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new(r"self.all(scope, scope.matches('^[!#-\\[\\]-~]+$'))").message("a scope is visible ASCII without spaces, quotes and backslashes; name each in an item of its own"))]
    pub scopes: Vec<String>,
    /// Parameter `audience`, which some servers need. At most 2048 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub audience: Option<String>,
    /// Further parameters of the token request, at most 16, such as `resource`. Not for secrets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("!('grant_type' in self) && !('client_id' in self) && !('client_secret' in self) && !('scope' in self) && !('audience' in self) && self.all(name, name.size() > 0 && name.size() <= 128 && self[name].size() <= 2048)").message("a parameter's name has 1 to 128 characters, its value at most 2048; grant_type, client_id, client_secret, scope and audience have fields of their own"))]
    pub parameters: BTreeMap<String, String>,
    /// How the client's id and secret are sent: `Basic` (default) or `Body`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_style: Option<AuthStyle>,
}

/// How a client's id and secret are sent (RFC 6749 §2.3.1): in `Authorization: Basic …` (default), or as `client_id` and
/// `client_secret` in the `Body`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum AuthStyle {
    /// In the header `Authorization`.
    #[default]
    Basic,
    /// In the body.
    Body,
}

/// What TLS asks of the receiver, and shows to it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.caFrom) || has(self.clientCertificateFrom) || has(self.serverName)").message("set at least one of caFrom, clientCertificateFrom and serverName"))]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// Secret or ConfigMap that holds the authorities that the receiver's certificate may come from, 1 to 64 certificates
    /// in PEM; no others are trusted. A change takes effect for new connections within seconds. Default: those of the
    /// installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_from: Option<CaSource>,
    /// The certificate that is shown to a receiver that asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_from: Option<ClientCertificateSource>,
    /// Name that the receiver's certificate must have, at most 253 characters. Default: the URL's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$')").message("serverName must be a host name, for example hooks.example.com"))]
    pub server_name: Option<String>,
}

/// Where a client certificate comes from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCertificateSource {
    /// Secret of type `kubernetes.io/tls` in the same namespace: `tls.crt` is the certificate and what leads to its
    /// authority, `tls.key` its key. A change takes effect for new connections within seconds.
    pub secret_ref: LocalReference,
}

/// Method of a request: `POST` (default), `PUT` or `PATCH`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum RequestMethod {
    /// The receiver decides what becomes of the event.
    #[default]
    Post,
    /// The URL names what the event replaces.
    Put,
    /// The URL names what the event changes.
    Patch,
}

/// Form of a request body: `application/json`, `application/cloudevents+json` (the same bytes under that name),
/// `application/x-www-form-urlencoded` (the members of the object as fields) or `text/plain` (a template that is text).
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum ContentType {
    /// JSON.
    #[serde(rename = "application/json")]
    Json,
    /// A CloudEvent in JSON.
    #[serde(rename = "application/cloudevents+json")]
    CloudEvent,
    /// The fields of a form: `{"a": {"b": [1]}}` is `a[b][0]=1`.
    #[serde(rename = "application/x-www-form-urlencoded")]
    Form,
    /// Text.
    #[serde(rename = "text/plain")]
    Text,
}

/// How a CloudEvent is sent: `Structured` (default), everything in a JSON body; or `Binary`, attributes in `ce-` headers
/// and the event's data as body.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum CloudEventsMode {
    /// Everything in a JSON body.
    #[default]
    Structured,
    /// Attributes in headers, data as body.
    Binary,
}

/// An HTTP proxy. It is asked for a tunnel (`CONNECT`) to `https` URLs, and passes requests for `http` URLs on. It
/// resolves the receiver's name itself, so the egress guard checks the proxy's addresses instead of the receiver's.
/// Default: the proxy that Postrider was installed with, if any.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("[has(self.url), has(self.urlFrom), has(self.direct) && self.direct].filter(one, one).size() == 1 && !(has(self.direct) && has(self.authFrom))").message("set exactly one of url, urlFrom and direct: true; authFrom belongs to url and urlFrom"))]
#[serde(rename_all = "camelCase")]
pub struct ProxySpec {
    /// URL of the proxy, `http` or `https`, without path, for example `http://proxy.example.com:3128`; at most 2048
    /// characters. Use `urlFrom` when it holds a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(URL_RULE).message(URL_MESSAGE))]
    pub url: Option<String>,
    /// Secret that holds the URL, which may carry a user name and password. White space around it does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<SecretKeySource>,
    /// User name and password for the proxy. They take the place of those of the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_from: Option<ProxyLoginSource>,
    /// Go to the receiver without a proxy, also when Postrider was installed with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direct: Option<bool>,
}

/// Where user name and password for a proxy come from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProxyLoginSource {
    /// Secret of type `kubernetes.io/basic-auth` in the same namespace; its keys are `username` and `password`.
    pub secret_ref: LocalReference,
}

/// When bodies are compressed.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CompressionSpec {
    /// Bodies of more bytes than this are sent with `Content-Encoding: gzip`, 0 to 1048576. The signature covers the
    /// compressed bytes.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub gzip_above_bytes: i32,
}
