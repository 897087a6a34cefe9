//! What a spec asks of its requests: who they say they are from, and how the receiver is known.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, header};

use super::check::{Check, in_secret};
use super::payload::{self, Made};
use super::reference::{INSTALLATION, PROXY_LOGIN, PROXY_URL, Reference, ca, secret};
use super::{Endpoint, Identity, ValueRef, Webhook};
use crate::api::v1alpha1::event_destination::{
    EventDestinationSpec, HeaderSpec, PayloadFormat, WebhookTarget,
};
use crate::api::v1alpha1::request::{
    AuthSpec, AuthStyle, BasicAuth, CloudEventsMode, ContentType, OAuth2ClientCredentials, ProxySpec,
    RequestMethod, TlsSpec,
};
use crate::api::v1alpha1::{LocalReference, SecretKeyRef, SecretKeySource};
use crate::domain::format;
use crate::domain::oauth2::{self, Client, ClientCredentials};
use crate::domain::policy::replies::Statuses;
use crate::domain::proxy::Proxy;
use crate::domain::request::body::BodyForm;
use crate::domain::request::{Passage, RequestForm};
use crate::domain::secret::Secret;
use crate::domain::shape::{CLOUD_EVENT_JSON, JSON, TEXT};
use crate::domain::template::MAX_OUTPUT;
use crate::domain::tls::{self, Part, Tls};

const AUTH: &str = "spec.webhook.auth";
const BASIC: &str = "spec.webhook.auth.basic";
const OAUTH2: &str = "spec.webhook.auth.oauth2ClientCredentials";
/// Keys of a Secret of type `kubernetes.io/basic-auth`.
const BASIC_KEYS: [&str; 2] = ["username", "password"];
const PROXY: &str = "spec.webhook.proxy";
const ONE_PROXY: &str =
    "set exactly one of url, urlFrom and direct: true; authFrom belongs to url and urlFrom";
const LOGIN_MISSING: &str = "Postrider was installed with a proxy whose user name or password is missing in the folder \
                             of --proxy-auth-dir (chart value egress.proxy.secretName); have it put there, or set \
                             proxy.direct to go without";
const LOGIN_UNUSABLE: &str = "Postrider was installed with a proxy whose user name or password is unusable";
const LOGIN_MENDING: &str = "have the files in the folder of --proxy-auth-dir (chart value egress.proxy.secretName) \
                             put right, or set proxy.direct to go without";
const CA: &str = "spec.webhook.tls.caFrom";
const CERTIFICATE: &str = "spec.webhook.tls.clientCertificateFrom.secretRef";
/// Keys of a Secret of type `kubernetes.io/tls`.
const TLS_KEYS: [&str; 2] = ["tls.crt", "tls.key"];
/// Most bytes of a user name, a client's id and a token: a header's value must hold them.
const MAX_TOKEN: usize = 4096;
const MAX_SCOPES: usize = 64;
const MAX_PARAMETERS: usize = 16;
const RESERVED_PARAMETERS: [&str; 5] = ["grant_type", "client_id", "client_secret", "scope", "audience"];

/// What was read of a spec.
#[derive(Debug, Default)]
pub(super) struct Asked {
    authorization: Option<HeaderValue>,
    form: RequestForm,
}

/// The values that a webhook's requests need, with the path of the field that names each.
pub(super) fn references(target: &WebhookTarget) -> Vec<(String, ValueRef)> {
    let mut found = Vec::new();
    let bundle = target.tls.as_ref().and_then(|tls| tls.ca_from.as_ref());
    found.extend(bundle.and_then(ca).map(|bundle| (CA.to_owned(), bundle)));
    let mut source = |path: String, source: Option<&SecretKeySource>| {
        found.extend(source.map(|source| (path, (&source.secret_key_ref).into())));
    };
    if let Some(proxy) = &target.proxy {
        source(format!("{PROXY}.urlFrom"), proxy.url_from.as_ref());
    } else {
        let keys = PROXY_LOGIN.map(|(_, key)| key).into_iter().chain([PROXY_URL]);
        found.extend(keys.map(|key| (PROXY.to_owned(), secret(INSTALLATION, key))));
    }
    let mut source = |path: String, source: Option<&SecretKeySource>| {
        found.extend(source.map(|source| (path, (&source.secret_key_ref).into())));
    };
    let auth = target.auth.clone().unwrap_or_default();
    source(format!("{AUTH}.bearer"), auth.bearer.as_ref());
    if let Some(client) = &auth.oauth2_client_credentials {
        source(format!("{OAUTH2}.clientIDFrom"), client.client_id_from.as_ref());
        source(
            format!("{OAUTH2}.clientSecretFrom"),
            Some(&client.client_secret_from),
        );
    }
    if let Some(basic) = &auth.basic {
        source(format!("{BASIC}.passwordFrom"), basic.password_from.as_ref());
        let keys = basic
            .secret_ref
            .iter()
            .flat_map(|reference| keys(reference, &BASIC_KEYS));
        found.extend(keys.map(|key| (format!("{BASIC}.secretRef"), key.into())));
    }
    let login = target.proxy.as_ref().and_then(|proxy| proxy.auth_from.as_ref());
    if let Some(source) = login {
        let path = format!("{PROXY}.authFrom.secretRef");
        found.extend(keys(&source.secret_ref, &BASIC_KEYS).map(|key| (path.clone(), key.into())));
    }
    let certificate = target
        .tls
        .as_ref()
        .and_then(|tls| tls.client_certificate_from.as_ref());
    if let Some(source) = certificate {
        found.extend(keys(&source.secret_ref, &TLS_KEYS).map(|key| (CERTIFICATE.to_owned(), key.into())));
    }
    found
}

/// Keys of a Secret that is named as a whole.
fn keys<'a>(reference: &'a LocalReference, keys: &'a [&str]) -> impl Iterator<Item = SecretKeyRef> + 'a {
    keys.iter().map(|key| SecretKeyRef {
        name: reference.name.clone(),
        key: (*key).to_owned(),
    })
}

impl Check<'_> {
    pub(super) fn request(
        &mut self,
        identity: &Identity,
        spec: &EventDestinationSpec,
        target: &WebhookTarget,
    ) -> Option<Asked> {
        let mut asked = Asked::default();
        let mut passage = Passage::default();
        let before = self.faults.iter().count();
        asked.form.method = match target.method.unwrap_or_default() {
            RequestMethod::Post => Method::POST,
            RequestMethod::Put => Method::PUT,
            RequestMethod::Patch => Method::PATCH,
        };
        asked.form.body = self.body_form(target);
        asked.form.proof = self.ownership_proof(spec, target).map(Box::new);
        let delivery = spec.delivery.as_ref();
        asked.form.is_batch = delivery.is_some_and(|delivery| delivery.batch.is_some());
        if let Some(compression) = &target.compression {
            match usize::try_from(compression.gzip_above_bytes) {
                Ok(most) if most <= MAX_OUTPUT => asked.form.gzip_above = Some(most),
                _ => {
                    let message = format!("must be between 0 and {MAX_OUTPUT}");
                    self.faults
                        .invalid("spec.webhook.compression.gzipAboveBytes", message);
                }
            }
        }
        if let Some(tls) = &target.tls {
            passage.tls = self.tls(tls);
        }
        passage.proxy = match &target.proxy {
            Some(proxy) => self.proxy(proxy),
            None => self.installed_proxy(),
        };
        if let Some(auth) = &target.auth {
            self.authorization_of_ones_own(target);
            match self.auth(identity, auth, &passage) {
                Some(Auth::Header(value)) => asked.authorization = Some(value),
                Some(Auth::Token(credentials)) => {
                    passage.credentials = Some(credentials);
                    // What is wrong with the entries is told elsewhere.
                    let success = spec.delivery.as_ref().and_then(|one| one.success.as_deref());
                    passage.takes_401 = success
                        .and_then(|entries| Statuses::parse(entries).ok())
                        .is_some_and(|statuses| statuses.contains(401));
                }
                None => {}
            }
        }
        if self.faults.iter().count() != before {
            return None;
        }
        asked.form.passage = (!passage.is_plain()).then(|| Arc::new(passage));
        Some(asked)
    }

    fn body_form(&mut self, target: &WebhookTarget) -> BodyForm {
        let payload = target.payload.clone().unwrap_or_default();
        let is_cloud_event = payload.format == Some(PayloadFormat::CloudEvent);
        if let Some(mode) = target.cloud_events {
            if !is_cloud_event {
                let message = "this belongs to format CloudEvent; set payload.format";
                self.faults.invalid("spec.webhook.cloudEvents", message);
            }
            if mode == CloudEventsMode::Binary {
                self.no_content_type(target, "cloudEvents: Binary");
                return BodyForm::Binary;
            }
        }
        let Some(wanted) = target.content_type else {
            return BodyForm::AsItIs;
        };
        self.no_content_type(target, "contentType");
        let made = payload::made(&payload, self.references);
        let is_text = made == Some(Made::Text);
        let (form, fault) = match wanted {
            ContentType::Json => (
                BodyForm::Labelled(JSON),
                is_text.then_some("the template is text; make it a JSON value, or use text/plain"),
            ),
            ContentType::CloudEvent => (
                BodyForm::Labelled(CLOUD_EVENT_JSON),
                (!is_cloud_event && (is_text || made.is_none()))
                    .then_some("this belongs to format CloudEvent, or to a template that is one"),
            ),
            ContentType::Form => (
                BodyForm::Form,
                is_text.then_some("a form needs the members of an object, and the template is text"),
            ),
            ContentType::Text => (
                BodyForm::Labelled(TEXT),
                matches!(made, None | Some(Made::Json))
                    .then_some("this belongs to templates that are text; the payload is JSON"),
            ),
        };
        let is_ready = payload.format.is_some_and(|format| format::of(format).is_some());
        let ready = "the ready formats of services have a content type of their own; remove it";
        if let Some(fault) = is_ready.then_some(ready).or(fault) {
            self.faults.invalid("spec.webhook.contentType", fault);
        }
        form
    }

    /// Refuses a header that would say another content type.
    fn no_content_type(&mut self, target: &WebhookTarget, field: &str) {
        let is_it = |header: &HeaderSpec| header.name.eq_ignore_ascii_case(header::CONTENT_TYPE.as_str());
        if let Some(index) = target.headers.iter().position(is_it) {
            let message = format!("spec.webhook.{field} sets this header; remove one of them");
            self.faults
                .invalid(format!("spec.webhook.headers[{index}].name"), message);
        }
        if target.cloud_events.is_some() && target.content_type.is_some() {
            let message = "contentType and cloudEvents exclude each other; remove one of them";
            self.faults.invalid("spec.webhook.contentType", message);
        }
    }

    /// Refuses headers that would take the place of the one that `auth` sets.
    fn authorization_of_ones_own(&mut self, target: &WebhookTarget) {
        let is_it = |name: &str| name.eq_ignore_ascii_case(header::AUTHORIZATION.as_str());
        if let Some(index) = target.headers.iter().position(|header| is_it(&header.name)) {
            self.faults.invalid(
                format!("spec.webhook.headers[{index}].name"),
                "spec.webhook.auth sets this header; remove one of them",
            );
        }
        let signing = target.signing.as_ref();
        let first = signing.map(|signing| ("spec.webhook.signing.header".to_owned(), &signing.header));
        let also = signing.map_or(&[][..], |signing| &signing.also);
        let also = also
            .iter()
            .enumerate()
            .map(|(index, one)| (format!("spec.webhook.signing.also[{index}].header"), &one.header));
        for (path, header) in first.into_iter().chain(also) {
            if header.as_deref().is_some_and(is_it) {
                self.faults
                    .invalid(path, "spec.webhook.auth sets this header; choose another name");
            }
        }
    }

    /// The proxy that Postrider was installed with.
    fn installed_proxy(&mut self) -> Option<Proxy> {
        let Some(Reference::Found(url)) = self.references.get(&secret(INSTALLATION, PROXY_URL)) else {
            return None;
        };
        let found = PROXY_LOGIN.map(|(_, key)| self.references.get(&secret(INSTALLATION, key)));
        let login = match found {
            [None, None] => None,
            [Some(Reference::Found(user)), Some(Reference::Found(password))] => {
                let text = |value: &Secret<Vec<u8>>| {
                    let text = std::str::from_utf8(value.expose()).ok().map(str::trim);
                    text.filter(|text| !text.is_empty()).map(ToOwned::to_owned)
                };
                let (Some(user), Some(password)) = (text(user), text(password)) else {
                    self.faults.missing(PROXY, LOGIN_MISSING);
                    return None;
                };
                match login(&user, &Secret::new(password)) {
                    Ok(value) => Some(value),
                    Err(fault) => {
                        self.faults
                            .missing(PROXY, format!("{LOGIN_UNUSABLE}: {fault}; {LOGIN_MENDING}"));
                        return None;
                    }
                }
            }
            _ => {
                self.faults.missing(PROXY, LOGIN_MISSING);
                return None;
            }
        };
        // The command line was refused unless it can be read.
        let url = std::str::from_utf8(url.expose()).ok()?;
        match Proxy::read(url, login) {
            Ok(proxy) => Some(proxy.of_installation()),
            Err(message) => {
                self.faults.invalid(PROXY, message);
                None
            }
        }
    }

    fn proxy(&mut self, spec: &ProxySpec) -> Option<Proxy> {
        if spec.direct == Some(true) {
            if spec.url.is_some() || spec.url_from.is_some() || spec.auth_from.is_some() {
                self.faults.invalid(PROXY, ONE_PROXY);
            }
            return None;
        }
        let login = match &spec.auth_from {
            Some(source) => {
                Some(self.whole_login(&format!("{PROXY}.authFrom.secretRef"), &source.secret_ref)?)
            }
            None => None,
        };
        let (path, text, source) = match (&spec.url, &spec.url_from) {
            (Some(url), None) => (format!("{PROXY}.url"), url.clone(), None),
            (None, Some(source)) => {
                let path = format!("{PROXY}.urlFrom");
                let text = self.secret_text(&path, &source.secret_key_ref)?;
                (path, text, Some(&source.secret_key_ref))
            }
            _ => {
                self.faults.invalid(PROXY, ONE_PROXY);
                return None;
            }
        };
        let text = Secret::new(text);
        match Proxy::read(text.expose(), login) {
            Ok(proxy) => Some(proxy),
            Err(message) => {
                let message = source.map_or(message.clone(), |source| in_secret(source, &message));
                self.faults.invalid(path, message);
                None
            }
        }
    }

    /// User name and password of a Secret that is named as a whole.
    fn whole_login(&mut self, path: &str, reference: &LocalReference) -> Option<HeaderValue> {
        let mut values = keys(reference, &BASIC_KEYS).map(|key| self.secret_text(path, &key));
        let (user, password) = (values.next().flatten(), values.next().flatten());
        self.login(path, &user?, &Secret::new(password?))
    }

    fn tls(&mut self, spec: &TlsSpec) -> Option<Tls> {
        let authorities = spec.ca_from.as_ref().and_then(ca);
        if spec.ca_from.is_some() && authorities.is_none() {
            self.faults
                .invalid(CA, "set exactly one of secretKeyRef and configMapKeyRef");
            return None;
        }
        let bundle = authorities.as_ref().map(|of| self.value(CA, of));
        let reference = spec
            .client_certificate_from
            .as_ref()
            .map(|source| &source.secret_ref);
        let [chain_key, private_key] =
            TLS_KEYS.map(|key| reference.map(|reference| secret(&reference.name, key)));
        let mut read = |key: Option<&ValueRef>| key.map(|key| self.value(CERTIFICATE, key));
        let (chain, key) = (read(chain_key.as_ref()), read(private_key.as_ref()));
        if [&bundle, &chain, &key]
            .iter()
            .any(|found| matches!(found, Some(None)))
        {
            return None;
        }
        let (bundle, chain, key) = (bundle.flatten(), chain.flatten(), key.flatten());
        let client = chain.as_ref().zip(key.as_ref());
        let read = Tls::read(tls::Parts {
            bundle: bundle.as_ref().map(|bundle| bundle.expose().as_slice()),
            client: client.map(|(chain, key)| (chain.expose().as_slice(), key.expose().as_slice())),
            server_name: spec.server_name.as_deref(),
        });
        match read {
            Ok(tls) => Some(tls),
            Err(faults) => {
                for (part, message) in faults {
                    let (path, held) = match part {
                        Part::Bundle => (CA, authorities.as_ref()),
                        Part::Chain => (CERTIFICATE, chain_key.as_ref()),
                        Part::Key => (CERTIFICATE, private_key.as_ref()),
                        Part::ServerName => ("spec.webhook.tls.serverName", None),
                    };
                    let message = held.map_or(message.clone(), |held| held.holds(&message));
                    self.faults.invalid(path, message);
                }
                None
            }
        }
    }

    fn auth(&mut self, identity: &Identity, auth: &AuthSpec, passage: &Passage) -> Option<Auth> {
        match (&auth.basic, &auth.bearer, &auth.oauth2_client_credentials) {
            (Some(basic), None, None) => self.basic(basic).map(Auth::Header),
            (None, Some(source), None) => self.bearer(source).map(Auth::Header),
            (None, None, Some(client)) => self.client(identity, client, passage).map(Auth::Token),
            _ => {
                self.faults.invalid(
                    AUTH,
                    "set exactly one of basic, bearer and oauth2ClientCredentials",
                );
                None
            }
        }
    }

    fn basic(&mut self, basic: &BasicAuth) -> Option<HeaderValue> {
        match (&basic.username, &basic.password_from, &basic.secret_ref) {
            (Some(user), Some(password), None) => {
                let path = format!("{BASIC}.passwordFrom");
                let password = Secret::new(self.secret_text(&path, &password.secret_key_ref)?);
                self.login(&format!("{BASIC}.username"), user, &password)
            }
            (None, None, Some(reference)) => self.whole_login(&format!("{BASIC}.secretRef"), reference),
            _ => {
                self.faults
                    .invalid(BASIC, "set either secretRef, or username and passwordFrom");
                None
            }
        }
    }

    fn login(&mut self, path: &str, user: &str, password: &Secret<String>) -> Option<HeaderValue> {
        match login(user, password) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.faults.invalid(path, fault);
                None
            }
        }
    }

    fn bearer(&mut self, source: &SecretKeySource) -> Option<HeaderValue> {
        let path = format!("{AUTH}.bearer");
        let token = Secret::new(self.secret_text(&path, &source.secret_key_ref)?);
        let fits = token.expose().len() <= MAX_TOKEN;
        let value = oauth2::bearer(token.expose()).filter(|_| fits);
        if value.is_none() {
            let rule = "a token is visible ASCII of at most 4096 characters, without spaces";
            self.faults.invalid(path, in_secret(&source.secret_key_ref, rule));
        }
        value
    }

    fn client(
        &mut self,
        identity: &Identity,
        client: &OAuth2ClientCredentials,
        passage: &Passage,
    ) -> Option<ClientCredentials> {
        let before = self.faults.iter().count();
        let endpoint = match Endpoint::parse(&client.token_url, self.egress) {
            Ok(endpoint) => Some(endpoint),
            Err(fault) => {
                self.faults.invalid(format!("{OAUTH2}.tokenURL"), fault);
                None
            }
        };
        let id = match (&client.client_id, &client.client_id_from) {
            (Some(id), None) => Some(id.clone()),
            (None, Some(source)) => {
                self.secret_text(&format!("{OAUTH2}.clientIDFrom"), &source.secret_key_ref)
            }
            _ => {
                self.faults
                    .invalid(OAUTH2, "set exactly one of clientID and clientIDFrom");
                None
            }
        };
        let secret = self
            .secret_text(
                &format!("{OAUTH2}.clientSecretFrom"),
                &client.client_secret_from.secret_key_ref,
            )
            .map(Secret::new);
        let parameters = self.parameters(client);
        if self.faults.iter().count() != before {
            return None;
        }
        let client = Client {
            endpoint: endpoint?,
            id: &id?,
            secret: &secret?,
            in_body: client.auth_style == Some(AuthStyle::Body),
            parameters,
            passage: passage.for_other_host(),
        };
        Some(ClientCredentials::new(&client, &identity.uid))
    }

    fn parameters<'a>(&mut self, client: &'a OAuth2ClientCredentials) -> Vec<(&'a str, String)> {
        let is_scope = |scope: &String| {
            let fits = |byte: u8| matches!(byte, b'!' | b'#'..=b'[' | b']'..=b'~');
            (1..=256).contains(&scope.len()) && scope.bytes().all(fits)
        };
        if client.scopes.len() > MAX_SCOPES || !client.scopes.iter().all(is_scope) {
            self.faults.invalid(
                format!("{OAUTH2}.scopes"),
                "at most 64 scopes of visible ASCII without spaces, quotes and backslashes are allowed; name each in \
                 an item of its own",
            );
        }
        let is_parameter = |(name, value): (&String, &String)| {
            (1..=128).contains(&name.len())
                && value.len() <= 2048
                && !RESERVED_PARAMETERS.contains(&name.as_str())
        };
        if client.parameters.len() > MAX_PARAMETERS || !client.parameters.iter().all(is_parameter) {
            self.faults.invalid(
                format!("{OAUTH2}.parameters"),
                "at most 16 parameters are allowed, with names of at most 128 and values of at most 2048 characters; \
                 grant_type, client_id, client_secret, scope and audience have fields of their own",
            );
        }
        let mut all = Vec::new();
        if !client.scopes.is_empty() {
            all.push(("scope", client.scopes.join(" ")));
        }
        all.extend(
            client
                .audience
                .iter()
                .map(|audience| ("audience", audience.clone())),
        );
        all.extend(
            client
                .parameters
                .iter()
                .map(|(name, value)| (name.as_str(), value.clone())),
        );
        all
    }

    /// Adds to a webhook what its requests need; what its format sets itself must stay.
    pub(super) fn dressed(&mut self, mut webhook: Webhook, asked: Asked) -> Option<Webhook> {
        let sets = |name: &HeaderName| webhook.headers.iter().any(|(other, _)| other == name);
        let has_tls = asked
            .form
            .passage
            .as_ref()
            .is_some_and(|passage| passage.tls.is_some());
        if has_tls && webhook.endpoint.expose().scheme() != "https" {
            self.faults.invalid(
                "spec.webhook.tls",
                "the URL is not https; change it or remove tls",
            );
            return None;
        }
        let has_auth = asked.authorization.is_some()
            || asked
                .form
                .passage
                .as_ref()
                .is_some_and(|passage| passage.credentials.is_some());
        if has_auth && sets(&header::AUTHORIZATION) {
            self.faults.invalid(
                AUTH,
                "this format sets the header Authorization itself; remove auth",
            );
            return None;
        }
        webhook
            .headers
            .extend(asked.authorization.map(|value| (header::AUTHORIZATION, value)));
        webhook.request = asked.form;
        Some(webhook)
    }
}

/// The value of a header for a user name and password.
fn login(user: &str, password: &Secret<String>) -> Result<HeaderValue, &'static str> {
    let control = |text: &str| text.chars().any(char::is_control);
    if user.contains(':') || control(user) {
        Err("a user name has no \":\" and no control characters")
    } else if control(password.expose()) {
        Err("a password has no control characters")
    } else if user.len().saturating_add(password.expose().len()) > MAX_TOKEN / 2 {
        Err("user name and password have at most 2048 bytes together")
    } else {
        oauth2::basic(user, password).ok_or("no header can hold them")
    }
}

enum Auth {
    Header(HeaderValue),
    Token(ClientCredentials),
}
