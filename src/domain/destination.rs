//! [`Destination`]: a validated `EventDestination`, the only form the engine sees.
//!
//! [`Destination::try_from_spec`] either returns a value or *every* fault of the spec, each with its field path.
//! A [`Subscription`] is the part that decides which events are meant; it exists even when the rest is faulty,
//! because a destination that is not ready parks its events.

mod check;
mod email;
mod ownership;
mod payload;
mod policy;
mod ready;
mod reference;
mod request;
mod signing;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use self::check::Check;
pub use self::reference::{
    Holder, INSTALLATION, PROXY_LOGIN, PROXY_URL, Reference, References, ValueRef, secret, value_references,
};
pub use self::signing::{
    FIRST_SIGNATURE, SIGNING_PATH, SigningKeyRef, generated_secret_name, rotated_secret_name,
    signing_key_refs,
};
use super::egress::EgressPolicy;
use super::email::Email;
use super::fault::Faults;
use super::filter::Filter;
use super::format::{self, Service};
use super::health::DisablePolicy;
use super::id::{ObjectKey, Uid};
use super::pattern::TypePattern;
use super::policy::Policy;
use super::policy::dedup::Dedup;
use super::request::RequestForm;
use super::retry::RetryPolicy;
use super::shape::Payload;
use super::signature::Signer;
use super::template::field::{HeaderTemplate, UrlTemplate};
use crate::api::v1alpha1::event_destination::{EventDestinationSpec, WebhookTarget};

/// Default of `delivery.timeout`.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Default of `delivery.maxInFlight`.
pub const DEFAULT_MAX_IN_FLIGHT: u32 = 16;
/// Most bytes of a URL.
const MAX_URL: usize = 2048;

/// Which object a destination was made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Namespace and name.
    pub key: ObjectKey,
    /// uid: the lane's name in the queue.
    pub uid: Uid,
    /// Generation of the spec.
    pub generation: i64,
}

/// Which events a destination wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// Name of the project, or every project of the namespace.
    pub project: Option<Box<str>>,
    /// Patterns, any of which must fit.
    pub events: Vec<TypePattern>,
    /// Condition that an event must meet; none also while it is faulty.
    pub filter: Option<Arc<Filter>>,
    /// Which of them are the same; none also while it is faulty.
    pub dedup: Option<Arc<Dedup>>,
}

/// A validated destination.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Which object it is.
    pub identity: Identity,
    /// Which events it wants.
    pub subscription: Subscription,
    /// Events are kept, nothing is sent.
    pub suspended: bool,
    /// Where to and in what form.
    pub target: Target,
    /// One deadline over connect, TLS, request and the whole answer.
    pub timeout: Duration,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Most requests at once.
    pub max_in_flight: u32,
    /// When to give up on the receiver.
    pub disable: DisablePolicy,
    /// What it asks for beyond the usual.
    pub policy: Policy,
}

/// Where a destination's events go.
#[derive(Clone, Debug)]
pub enum Target {
    /// To an HTTP endpoint.
    Webhook(Box<Webhook>),
    /// Into mails.
    Email(Box<Email>),
}

impl Target {
    /// Scheme, host and port: all that is ever shown.
    #[must_use]
    pub fn origin(&self) -> String {
        match self {
            Self::Webhook(webhook) => webhook.endpoint.origin(),
            Self::Email(email) => email.server.origin(),
        }
    }
}

/// A webhook target.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where to.
    pub endpoint: Endpoint,
    /// Extra headers; values from Secrets are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// What each event changes of URL and headers.
    pub templates: RequestTemplates,
    /// Form of the body.
    pub payload: Payload,
    /// Signs the body.
    pub signer: Signer,
    /// What else requests need.
    pub request: RequestForm,
}

/// Placeholders in a webhook's URL and headers.
#[derive(Clone, Debug, Default)]
pub struct RequestTemplates {
    /// Path and query of the URL; `None` when every event goes to the same.
    pub url: Option<UrlTemplate>,
    /// Extra headers whose values are made of the event.
    pub headers: Vec<(HeaderName, HeaderTemplate)>,
}

/// A URL whose path and query may be secret: only scheme and host are ever shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Scheme, host and port, such as `https://hooks.slack.com`.
    #[must_use]
    pub fn origin(&self) -> String {
        self.0.origin().ascii_serialization()
    }

    /// What a template made of an endpoint that was parsed: the origin is the same, as placeholders stand in path and
    /// query only.
    pub(super) const fn filled(url: Url) -> Self {
        Self(url)
    }

    /// The whole URL; never log, format or store it.
    #[must_use]
    pub const fn expose(&self) -> &Url {
        &self.0
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({}/…)", self.origin())
    }
}

impl Subscription {
    /// The subscription of a spec, faulty patterns left out: it exists even when the rest is wrong.
    #[must_use]
    pub fn of(spec: &EventDestinationSpec) -> Self {
        let filter = spec.filter.as_deref().map(Filter::parse);
        let dedup = spec
            .delivery
            .as_ref()
            .and_then(|delivery| delivery.dedup.as_ref());
        Self {
            filter: filter.and_then(Result::ok).map(Arc::new),
            dedup: dedup.and_then(policy::dedup).map(Arc::new),
            ..Self::lenient(
                spec.project_ref.as_ref().map(|project| project.name.as_str()),
                spec.events.iter().map(String::as_str),
            )
        }
    }

    /// A subscription of whatever could be read of an object that does not decode.
    pub fn lenient<'a>(project: Option<&str>, events: impl Iterator<Item = &'a str>) -> Self {
        Self {
            project: project.map(Into::into),
            events: events.filter_map(TypePattern::parse).collect(),
            filter: None,
            dedup: None,
        }
    }

    /// Whether events of a type are meant, project and filter apart.
    #[must_use]
    pub fn wants(&self, event_type: &str) -> bool {
        self.events.iter().any(|pattern| pattern.asks_for(event_type))
    }

    /// Whether an event of that project and type is meant, filter apart; namespaces have been compared before.
    #[must_use]
    pub fn matches(&self, project: &str, event_type: &str) -> bool {
        self.project.as_deref().is_none_or(|name| name == project) && self.wants(event_type)
    }
}

/// The service whose ready format a webhook has; `None` for Postrider's own formats and templates.
fn ready_service(webhook: &WebhookTarget) -> Option<&'static Service> {
    format::of(webhook.payload.as_ref()?.format?)
}

/// Where the SMTP server's Secret is named.
pub const SMTP_PATH: &str = "spec.email.smtpRef";
impl Destination {
    /// Validates a spec.
    ///
    /// # Errors
    /// Every fault of the spec at once, each with its field path.
    pub fn try_from_spec(
        identity: Identity,
        spec: &EventDestinationSpec,
        references: &References,
        egress: &EgressPolicy,
    ) -> Result<Self, Faults> {
        let mut check = Check {
            references,
            egress,
            faults: Faults::default(),
        };
        check.events(&spec.events);
        check.filter(spec.filter.as_deref());
        let target = check.target(&identity, spec);
        let (timeout, retry, max_in_flight) = check.delivery(spec.delivery.clone().unwrap_or_default());
        let disable = check.disable(&spec.auto_disable.clone().unwrap_or_default());
        let policy = check.policy(&identity, spec);
        match target {
            Some(target) if check.faults.is_empty() => Ok(Self {
                subscription: Subscription::of(spec),
                identity,
                suspended: spec.suspend,
                target,
                timeout,
                retry,
                max_in_flight,
                disable,
                policy,
            }),
            _ => Err(check.faults),
        }
    }
}

impl Endpoint {
    /// Checks and wraps a URL: absolute, `http` or `https`, with a host that the egress guard lets through when it is
    /// an address, without user name and password.
    ///
    /// # Errors
    /// What is wrong and what to do; never the URL itself.
    pub fn parse(text: &str, egress: &EgressPolicy) -> Result<Self, String> {
        const EXAMPLE: &str = "for example https://hooks.example.com/in";
        if text.len() > MAX_URL {
            return Err(format!("the URL is over {MAX_URL} characters"));
        }
        let mut url =
            Url::parse(text).map_err(|_| format!("this is not a URL; give an absolute one, {EXAMPLE}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("the URL's scheme must be http or https, {EXAMPLE}"));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("the URL has no host, {EXAMPLE}"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "the URL must not carry a user name or password; use a header from a Secret".to_owned(),
            );
        }
        egress
            .check_literal(&url)
            .map_err(|refusal| refusal.to_string())?;
        url.set_fragment(None);
        Ok(Self(url))
    }
}

#[cfg(test)]
mod tests;
