//! [`Destination`]: a validated `EventDestination`, the only form the engine sees.
//!
//! [`Destination::try_from_spec`] either returns a value or *every* fault of the spec, each with its field path.
//! A [`Subscription`] is the part that decides which events are meant; it exists even when the rest is faulty,
//! because a destination that is not ready parks its events.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use url::Url;

use super::duration;
use super::egress::EgressPolicy;
use super::fault::Faults;
use super::health::DisablePolicy;
use super::id::{ObjectKey, Uid};
use super::pattern::TypePattern;
use super::retry::{MAX_ATTEMPTS, RetryPolicy};
use super::secret::Secret;
use super::shape::Payload;
use super::signature::Signer;
use super::template::Template;
use crate::api::v1alpha1::common::{OWN_HEADER_PREFIX, RESERVED_HEADERS};
use crate::api::v1alpha1::event_destination::{
    AutoDisableSpec, DeliverySpec, EventDestinationSpec, HeaderSpec, PayloadFormat, PayloadSpec,
    SigningScheme, SigningSpec, WebhookTarget,
};
use crate::api::v1alpha1::{DurationString, SecretKeyRef};

/// Default of `delivery.timeout`.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Default of `delivery.maxInFlight`.
pub const DEFAULT_MAX_IN_FLIGHT: u32 = 16;
/// Key of a generated signing Secret.
pub const GENERATED_SECRET_KEY: &str = "secret";
/// Most bytes of a header's value.
const MAX_HEADER_VALUE: usize = 4096;
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
    pub webhook: Webhook,
    /// One deadline over connect, TLS, request and the whole answer.
    pub timeout: Duration,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Most requests at once.
    pub max_in_flight: u32,
    /// When to give up on the receiver.
    pub disable: DisablePolicy,
}

/// A webhook target.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where to.
    pub endpoint: Endpoint,
    /// Extra headers; values from Secrets are marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Form of the body.
    pub payload: Payload,
    /// Signs the body.
    pub signer: Signer,
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

/// The values of the Secrets that a spec refers to.
pub type References = BTreeMap<SecretKeyRef, Reference>;

/// What was found for one reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The value.
    Found(Secret<Vec<u8>>),
    /// There is no such Secret.
    NoSecret,
    /// The Secret has no such key.
    NoKey,
}

impl Subscription {
    /// The subscription of a spec, faulty patterns left out: it exists even when the rest is wrong.
    #[must_use]
    pub fn of(spec: &EventDestinationSpec) -> Self {
        Self::lenient(
            spec.project_ref.as_ref().map(|project| project.name.as_str()),
            spec.events.iter().map(String::as_str),
        )
    }

    /// A subscription of whatever could be read of an object that does not decode.
    pub fn lenient<'a>(project: Option<&str>, events: impl Iterator<Item = &'a str>) -> Self {
        Self {
            project: project.map(Into::into),
            events: events.filter_map(TypePattern::parse).collect(),
        }
    }

    /// Whether an event of that project and type is meant; namespaces have been compared before.
    #[must_use]
    pub fn matches(&self, project: &str, event_type: &str) -> bool {
        self.project.as_deref().is_none_or(|name| name == project)
            && self.events.iter().any(|pattern| pattern.matches(event_type))
    }
}

/// The name of the Secret that is generated for a destination's signing key.
#[must_use]
pub fn generated_secret_name(destination: &str) -> String {
    format!("{destination}-signing")
}

/// Where a destination's signing key is kept; `None` when nothing is signed.
#[must_use]
pub fn signing_key_ref(name: &str, spec: &EventDestinationSpec) -> Option<SigningKeyRef> {
    let signing = spec.webhook.as_ref()?.signing.clone().unwrap_or_default();
    let scheme = signing.scheme.unwrap_or_default();
    if scheme == SigningScheme::None {
        return None;
    }
    let generated = signing.secret_ref.is_none();
    let key = signing.secret_ref.unwrap_or_else(|| SecretKeyRef {
        name: generated_secret_name(name),
        key: GENERATED_SECRET_KEY.to_owned(),
    });
    Some(SigningKeyRef {
        key,
        scheme,
        generated,
    })
}

/// Where a signing key is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SigningKeyRef {
    /// Secret and key.
    pub key: SecretKeyRef,
    /// Scheme the key is for.
    pub scheme: SigningScheme,
    /// Postrider makes the Secret, because the spec names none.
    pub generated: bool,
}

/// Every Secret that a spec needs, with the path of the field that names it.
#[must_use]
pub fn secret_references(name: &str, spec: &EventDestinationSpec) -> Vec<(String, SecretKeyRef)> {
    let mut references = Vec::new();
    if let Some(webhook) = &spec.webhook {
        if let Some(source) = &webhook.url_from {
            references.push(("spec.webhook.urlFrom".to_owned(), source.secret_key_ref.clone()));
        }
        for (index, header) in webhook.headers.iter().enumerate() {
            if let Some(source) = &header.value_from {
                references.push((
                    format!("spec.webhook.headers[{index}].valueFrom"),
                    source.secret_key_ref.clone(),
                ));
            }
        }
    }
    if let Some(signing) = signing_key_ref(name, spec) {
        references.push((SIGNING_PATH.to_owned(), signing.key));
    }
    references
}

const SIGNING_PATH: &str = "spec.webhook.signing.secretRef";

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
        let webhook = check.webhook(&identity, spec);
        let (timeout, retry, max_in_flight) = check.delivery(spec.delivery.clone().unwrap_or_default());
        let disable = check.disable(spec.auto_disable.clone().unwrap_or_default());
        match webhook {
            Some(webhook) if check.faults.is_empty() => Ok(Self {
                subscription: Subscription::of(spec),
                identity,
                suspended: spec.suspend,
                webhook,
                timeout,
                retry,
                max_in_flight,
                disable,
            }),
            _ => Err(check.faults),
        }
    }
}

/// Collects faults while it reads a spec.
struct Check<'a> {
    references: &'a References,
    egress: &'a EgressPolicy,
    faults: Faults,
}

impl Check<'_> {
    fn events(&mut self, events: &[String]) {
        if events.is_empty() {
            self.faults
                .invalid("spec.events", "name at least one event type, or \"*\" for all");
        }
        for (index, pattern) in events.iter().enumerate() {
            if TypePattern::parse(pattern).is_none() {
                self.faults.invalid(
                    format!("spec.events[{index}]"),
                    "use letters, digits, \"_\", \".\", \"-\" and \"*\", at most 128 characters",
                );
            }
        }
    }

    fn webhook(&mut self, identity: &Identity, spec: &EventDestinationSpec) -> Option<Webhook> {
        let Some(target) = &spec.webhook else {
            self.faults
                .invalid("spec.webhook", "set exactly one target: spec.webhook");
            return None;
        };
        let endpoint = self.endpoint(target);
        let headers = self.headers(&target.headers);
        let payload = self.payload(target.payload.as_ref());
        let signer = self.signer(identity, spec, target.signing.as_ref());
        Some(Webhook {
            endpoint: endpoint?,
            headers,
            payload: payload?,
            signer: signer?,
        })
    }

    fn endpoint(&mut self, target: &WebhookTarget) -> Option<Endpoint> {
        let (path, text) = match (&target.url, &target.url_from) {
            (Some(url), None) => ("spec.webhook.url", url.clone()),
            (None, Some(source)) => {
                let path = "spec.webhook.urlFrom";
                (path, self.secret_text(path, &source.secret_key_ref)?)
            }
            _ => {
                self.faults
                    .invalid("spec.webhook", "set exactly one of url and urlFrom");
                return None;
            }
        };
        match Endpoint::parse(&text, self.egress) {
            Ok(endpoint) => Some(endpoint),
            Err(fault) => {
                self.faults.invalid(path, fault);
                None
            }
        }
    }

    fn headers(&mut self, specs: &[HeaderSpec]) -> Vec<(HeaderName, HeaderValue)> {
        let mut headers: Vec<(HeaderName, HeaderValue)> = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let path = format!("spec.webhook.headers[{index}]");
            let name = self.header_name(&format!("{path}.name"), &spec.name);
            if name
                .as_ref()
                .is_some_and(|name| headers.iter().any(|(other, _)| other == name))
            {
                self.faults.invalid(
                    format!("{path}.name"),
                    format!("header {:?} is set twice", spec.name),
                );
            }
            let value = self.header_value(&path, spec);
            if let (Some(name), Some(value)) = (name, value) {
                headers.push((name, value));
            }
        }
        headers
    }

    fn header_name(&mut self, path: &str, name: &str) -> Option<HeaderName> {
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else {
            self.faults.invalid(path, "this is not a header name");
            return None;
        };
        if RESERVED_HEADERS.contains(&name.as_str()) || name.as_str().starts_with(OWN_HEADER_PREFIX) {
            self.faults.invalid(
                path,
                "this header is set by HTTP or by Postrider; choose another name",
            );
            return None;
        }
        Some(name)
    }

    fn header_value(&mut self, path: &str, spec: &HeaderSpec) -> Option<HeaderValue> {
        let (path, bytes, sensitive) = match (&spec.value, &spec.value_from) {
            (Some(value), None) => (format!("{path}.value"), value.clone().into_bytes(), false),
            (None, Some(source)) => {
                let path = format!("{path}.valueFrom");
                let value = self.secret_text(&path, &source.secret_key_ref)?;
                (path, value.into_bytes(), true)
            }
            _ => {
                self.faults
                    .invalid(path, "set exactly one of value and valueFrom");
                return None;
            }
        };
        let visible = bytes.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
        let value = HeaderValue::from_bytes(&bytes)
            .ok()
            .filter(|_| visible && bytes.len() <= MAX_HEADER_VALUE);
        let Some(mut value) = value else {
            self.faults.invalid(
                path,
                "a header value is visible ASCII of at most 4096 characters, without line breaks",
            );
            return None;
        };
        value.set_sensitive(sensitive);
        Some(value)
    }

    fn payload(&mut self, spec: Option<&PayloadSpec>) -> Option<Payload> {
        let Some(spec) = spec else {
            return Some(Payload::Format(PayloadFormat::Default));
        };
        match (&spec.format, &spec.template) {
            (format, None) => Some(Payload::Format(format.unwrap_or_default())),
            (None, Some(template)) => match Template::parse(template) {
                Ok(template) => Some(Payload::Template(template)),
                Err(faults) => {
                    for fault in faults {
                        let path = format!("spec.webhook.payload.template{}", field_path(&fault.pointer));
                        self.faults.invalid(path, fault.message);
                    }
                    None
                }
            },
            (Some(_), Some(_)) => {
                self.faults
                    .invalid("spec.webhook.payload", "set at most one of format and template");
                None
            }
        }
    }

    fn signer(
        &mut self,
        identity: &Identity,
        spec: &EventDestinationSpec,
        signing: Option<&SigningSpec>,
    ) -> Option<Signer> {
        let Some(SigningKeyRef { key, scheme, .. }) = signing_key_ref(&identity.key.name, spec) else {
            return Some(Signer::None);
        };
        let key = self.secret(SIGNING_PATH, &key);
        let signing = signing.cloned().unwrap_or_default();
        let header = match (scheme, &signing.header) {
            (SigningScheme::HmacSha256, Some(header)) => {
                Some(self.header_name("spec.webhook.signing.header", header)?)
            }
            (SigningScheme::HmacSha256, None) => {
                self.faults.invalid(
                    "spec.webhook.signing.header",
                    "scheme HmacSHA256 needs the name of a header",
                );
                return None;
            }
            _ => None,
        };
        let key = key?;
        let signer = match header {
            Some(header) => Signer::hmac(
                header,
                signing.prefix.as_deref().unwrap_or_default(),
                signing.encoding.unwrap_or_default(),
                key.expose(),
            ),
            None => Signer::standard(key.expose()),
        };
        match signer {
            Ok(signer) => Some(signer),
            Err(fault) => {
                self.faults.invalid(SIGNING_PATH, fault);
                None
            }
        }
    }

    fn delivery(&mut self, spec: DeliverySpec) -> (Duration, RetryPolicy, u32) {
        let seconds = Duration::from_secs;
        let timeout = self
            .bounded(
                "spec.delivery.timeout",
                spec.timeout.as_ref(),
                Duration::from_millis(100),
                seconds(60),
            )
            .unwrap_or(DEFAULT_TIMEOUT);
        let max_age = self.bounded("spec.delivery.maxAge", spec.max_age.as_ref(), seconds(1), DAYS_30);
        let max_in_flight = self
            .count("spec.delivery.maxInFlight", spec.max_in_flight, 1024)
            .unwrap_or(DEFAULT_MAX_IN_FLIGHT);
        let retry = spec.retry.unwrap_or_default();
        let mut policy = RetryPolicy {
            max_age,
            ..RetryPolicy::default()
        };
        if let Some(schedule) = retry.schedule {
            if schedule.is_empty() || schedule.len() > 32 {
                self.faults.invalid(
                    "spec.delivery.retry.schedule",
                    "give 1 to 32 waits, or maxAttempts: 1 to send once",
                );
            }
            let waits = schedule.iter().enumerate().filter_map(|(index, wait)| {
                self.bounded(
                    &format!("spec.delivery.retry.schedule[{index}]"),
                    Some(wait),
                    Duration::ZERO,
                    seconds(168 * 3600),
                )
            });
            policy.schedule = waits.collect();
            policy.max_attempts = u32::try_from(policy.schedule.len())
                .unwrap_or(u32::MAX)
                .saturating_add(1);
        }
        if let Some(attempts) = self.count(
            "spec.delivery.retry.maxAttempts",
            retry.max_attempts,
            MAX_ATTEMPTS,
        ) {
            policy.max_attempts = attempts;
        }
        (timeout, policy, max_in_flight)
    }

    fn disable(&mut self, spec: AutoDisableSpec) -> DisablePolicy {
        let default = DisablePolicy::default();
        let path = "spec.autoDisable.probeInterval";
        let probe = self.bounded(
            path,
            spec.probe_interval.as_ref(),
            Duration::ZERO,
            Duration::from_secs(168 * 3600),
        );
        if probe.is_some_and(|probe| !probe.is_zero() && probe < Duration::from_secs(1)) {
            self.faults
                .invalid(path, "must be 0s (never) or between 1s and 168h");
        }
        DisablePolicy {
            enabled: spec.enabled.unwrap_or(true),
            consecutive_failures: self
                .count(
                    "spec.autoDisable.consecutiveFailures",
                    spec.consecutive_failures,
                    10_000,
                )
                .unwrap_or(default.consecutive_failures),
            minimum_duration: self
                .bounded(
                    "spec.autoDisable.minimumDuration",
                    spec.minimum_duration.as_ref(),
                    Duration::ZERO,
                    DAYS_30,
                )
                .unwrap_or(default.minimum_duration),
            probe_interval: probe.map_or(default.probe_interval, |probe| {
                Some(probe).filter(|probe| !probe.is_zero())
            }),
        }
    }

    fn bounded(
        &mut self,
        path: &str,
        text: Option<&DurationString>,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let text = text?;
        let duration = duration::parse(&text.0).filter(|duration| (least..=most).contains(duration));
        if duration.is_none() {
            let (least, most) = (duration::format(least), duration::format(most));
            self.faults.invalid(
                path,
                format!("must be a duration between {least} and {most}, such as 5s or 1h30m"),
            );
        }
        duration
    }

    fn count(&mut self, path: &str, count: Option<i32>, most: u32) -> Option<u32> {
        let count = count?;
        let fits = u32::try_from(count)
            .ok()
            .filter(|count| (1..=most).contains(count));
        if fits.is_none() {
            self.faults.invalid(path, format!("must be between 1 and {most}"));
        }
        fits
    }

    fn secret(&mut self, path: &str, key: &SecretKeyRef) -> Option<Secret<Vec<u8>>> {
        match self.references.get(key) {
            Some(Reference::Found(value)) => Some(value.clone()),
            Some(Reference::NoKey) => {
                self.faults.missing(
                    path,
                    format!("Secret {:?} has no key {:?}; add it", key.name, key.key),
                );
                None
            }
            Some(Reference::NoSecret) | None => {
                self.faults.missing(
                    path,
                    format!(
                        "Secret {:?} does not exist; create it with key {:?}",
                        key.name, key.key
                    ),
                );
                None
            }
        }
    }

    /// A secret as text without surrounding white space, which `kubectl create secret --from-file` likes to add.
    fn secret_text(&mut self, path: &str, key: &SecretKeyRef) -> Option<String> {
        let value = self.secret(path, key)?;
        match std::str::from_utf8(value.expose()) {
            Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Ok(_) => {
                self.faults.invalid(
                    path,
                    format!("key {:?} of Secret {:?} is empty", key.key, key.name),
                );
                None
            }
            Err(_) => {
                self.faults.invalid(
                    path,
                    format!("key {:?} of Secret {:?} is not UTF-8 text", key.key, key.name),
                );
                None
            }
        }
    }
}

const DAYS_30: Duration = Duration::from_secs(720 * 3600);

/// A JSON pointer as a field path: `/a/0/b` is `.a[0].b`.
fn field_path(pointer: &str) -> String {
    pointer
        .split('/')
        .skip(1)
        .map(|part| part.replace("~1", "/").replace("~0", "~"))
        .map(|part| {
            if part.bytes().all(|b| b.is_ascii_digit()) {
                format!("[{part}]")
            } else {
                format!(".{part}")
            }
        })
        .collect()
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
