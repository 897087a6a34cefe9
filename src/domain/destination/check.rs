//! [`Check`]: reads a spec field by field and collects what is wrong with it.

use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::payload::{ONE_PAYLOAD, PAYLOAD};
use super::{
    DEFAULT_MAX_IN_FLIGHT, DEFAULT_TIMEOUT, Endpoint, Identity, MAX_URL, Reference, References,
    RequestTemplates, Target, ValueRef, Webhook, ready_service,
};
use crate::api::v1alpha1::common::{OWN_HEADER_PREFIX, RESERVED_HEADERS};
use crate::api::v1alpha1::event_destination::{
    AutoDisableSpec, DeliverySpec, EventDestinationSpec, HeaderSpec, WebhookTarget,
};
use crate::api::v1alpha1::{DurationString, SecretKeyRef};
use crate::domain::duration;
use crate::domain::egress::EgressPolicy;
use crate::domain::fault::Faults;
use crate::domain::filter::Filter;
use crate::domain::health::DisablePolicy;
use crate::domain::pattern::TypePattern;
use crate::domain::request::RequestForm;
use crate::domain::retry::{LONGEST_MAX_AGE, MAX_ATTEMPTS, RetryPolicy};
use crate::domain::secret::Secret;
use crate::domain::template::field::{HeaderTemplate, TakenOut, UrlTemplate, has_placeholder, take_out};

/// Most bytes of a header's value.
const MAX_HEADER_VALUE: usize = 4096;
/// Where the URL stands.
pub(super) const URL_PATH: &str = "spec.webhook.url";
/// Where the URL that a Secret holds is named.
const URL_FROM_PATH: &str = "spec.webhook.urlFrom";

/// Headers that are the same for every event.
pub(super) type FixedHeaders = Vec<(HeaderName, HeaderValue)>;
/// Headers that are made of the event.
pub(super) type HeaderTemplates = Vec<(HeaderName, HeaderTemplate)>;

/// Collects faults while it reads a spec.
pub(super) struct Check<'a> {
    pub(super) references: &'a References,
    pub(super) egress: &'a EgressPolicy,
    pub(super) faults: Faults,
}

impl Check<'_> {
    pub(super) fn events(&mut self, events: &[String]) {
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

    pub(super) fn filter(&mut self, filter: Option<&str>) {
        if let Some(Err(fault)) = filter.map(Filter::parse) {
            self.faults.invalid("spec.filter", fault);
        }
    }

    pub(super) fn target(&mut self, identity: &Identity, spec: &EventDestinationSpec) -> Option<Target> {
        match (&spec.webhook, &spec.email) {
            (Some(webhook), None) => self
                .webhook(identity, spec, webhook)
                .map(Box::new)
                .map(Target::Webhook),
            (None, Some(email)) => self.email(email).map(Box::new).map(Target::Email),
            _ => {
                self.faults
                    .invalid("spec", "set exactly one target: spec.webhook or spec.email");
                None
            }
        }
    }

    fn webhook(
        &mut self,
        identity: &Identity,
        spec: &EventDestinationSpec,
        target: &WebhookTarget,
    ) -> Option<Webhook> {
        let asked = self.request(identity, spec, target);
        let webhook = self.undressed(identity, spec, target);
        self.dressed(webhook?, asked?)
    }

    /// The webhook without what its requests need beyond URL, headers, body and signature.
    fn undressed(
        &mut self,
        identity: &Identity,
        spec: &EventDestinationSpec,
        target: &WebhookTarget,
    ) -> Option<Webhook> {
        if let Some(service) = ready_service(target) {
            if target
                .payload
                .as_ref()
                .is_some_and(|payload| payload.template.is_some() || payload.template_from.is_some())
            {
                self.faults.invalid(PAYLOAD, ONE_PAYLOAD);
            }
            let (headers, templates) = self.headers(&target.headers);
            let signer = self.signer(identity, spec);
            return self.ready(service, target, headers, templates, signer);
        }
        if target.format_options.is_some() {
            self.faults.invalid(
                "spec.webhook.formatOptions",
                "this belongs to the ready formats of services, such as Slack; set payload.format or remove it",
            );
        }
        let endpoint = self.endpoint(target);
        let (headers, header_templates) = self.headers(&target.headers);
        let payload = self.payload(target.payload.as_ref());
        let signer = self.signer(identity, spec);
        let (endpoint, url) = endpoint?;
        Some(Webhook {
            endpoint,
            headers,
            templates: RequestTemplates {
                url,
                headers: header_templates,
            },
            payload: payload?,
            signer: signer?,
            request: RequestForm::default(),
        })
    }

    fn endpoint(&mut self, target: &WebhookTarget) -> Option<(Endpoint, Option<UrlTemplate>)> {
        let (path, text, taken_out) = match (&target.url, &target.url_from) {
            (Some(url), None) => {
                let (text, taken_out) = self.placeholders(url)?;
                (URL_PATH, text, taken_out)
            }
            (None, Some(source)) => (URL_FROM_PATH, self.secret_url(&source.secret_key_ref)?, None),
            _ => {
                self.faults
                    .invalid("spec.webhook", "set exactly one of url and urlFrom");
                return None;
            }
        };
        let parsed = Endpoint::parse(&text, self.egress).and_then(|endpoint| {
            let template = taken_out.map(|taken| taken.put_back(URL_PATH, endpoint.expose()));
            Ok((endpoint, template.transpose()?))
        });
        match parsed {
            Ok(endpoint) => Some(endpoint),
            Err(fault) => {
                let fault = match &target.url_from {
                    Some(source) => in_secret(&source.secret_key_ref, &fault),
                    None => fault,
                };
                self.faults.invalid(path, fault);
                None
            }
        }
    }

    /// The URL that a Secret holds.
    pub(super) fn secret_url(&mut self, key: &SecretKeyRef) -> Option<String> {
        let text = self.secret_text(URL_FROM_PATH, key)?;
        if !has_placeholder(&text) {
            return Some(text);
        }
        let fault = "placeholders are for spec.webhook.url; move the URL there, or take \"{{\" out of it";
        self.faults.invalid(URL_FROM_PATH, in_secret(key, fault));
        None
    }

    /// Takes the placeholders out of `spec.webhook.url`. What comes from a Secret has none: it is sent as it is.
    pub(super) fn placeholders(&mut self, url: &str) -> Option<(String, Option<TakenOut>)> {
        if url.len() > MAX_URL {
            self.faults
                .invalid(URL_PATH, format!("the URL is over {MAX_URL} characters"));
            return None;
        }
        if !has_placeholder(url) {
            return Some((url.to_owned(), None));
        }
        match take_out(url) {
            Ok((text, taken_out)) => Some((text, Some(taken_out))),
            Err(fault) => {
                self.faults.invalid(URL_PATH, fault);
                None
            }
        }
    }

    /// The headers that are the same for every event, and those that are made of it.
    fn headers(&mut self, specs: &[HeaderSpec]) -> (FixedHeaders, HeaderTemplates) {
        let mut headers = Vec::with_capacity(specs.len());
        let mut templates = Vec::new();
        for (index, spec) in specs.iter().enumerate() {
            let path = format!("spec.webhook.headers[{index}]");
            let name = self.header_name(&format!("{path}.name"), &spec.name);
            let same = |other: &HeaderSpec| other.name.eq_ignore_ascii_case(&spec.name);
            if let Some(first) = specs.iter().take(index).position(same) {
                self.faults.invalid(
                    format!("{path}.name"),
                    format!(
                        "header {:?} is set already by headers[{first}]; upper and lower case are the same name; \
                         remove one of them",
                        spec.name
                    ),
                );
            }
            if let Some(value) = spec.value.as_deref().filter(|value| has_placeholder(value)) {
                let template = self.header_template(&path, spec, value);
                if let (Some(name), Some(template)) = (name, template) {
                    templates.push((name, template));
                }
                continue;
            }
            let value = self.header_value(&path, spec);
            if let (Some(name), Some(value)) = (name, value) {
                headers.push((name, value));
            }
        }
        (headers, templates)
    }

    fn header_template(&mut self, path: &str, spec: &HeaderSpec, value: &str) -> Option<HeaderTemplate> {
        // Says what is wrong with the literal parts, and with valueFrom beside it.
        self.header_value(path, spec)?;
        let field = format!("{path}.value");
        match HeaderTemplate::parse(&field, value) {
            Ok(template) => Some(template),
            Err(faults) => {
                for fault in faults {
                    self.faults.invalid(&field, fault.message);
                }
                None
            }
        }
    }

    pub(super) fn header_name(&mut self, path: &str, name: &str) -> Option<HeaderName> {
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
            let rule = "a header value is visible ASCII of at most 4096 characters, without line breaks";
            let fault = match &spec.value_from {
                Some(source) => in_secret(&source.secret_key_ref, rule),
                None => rule.to_owned(),
            };
            self.faults.invalid(path, fault);
            return None;
        };
        value.set_sensitive(sensitive);
        Some(value)
    }

    pub(super) fn delivery(&mut self, spec: DeliverySpec) -> (Duration, RetryPolicy, u32) {
        let seconds = Duration::from_secs;
        let timeout = self
            .bounded(
                "spec.delivery.timeout",
                spec.timeout.as_ref(),
                Duration::from_millis(100),
                seconds(60),
            )
            .unwrap_or(DEFAULT_TIMEOUT);
        let max_age = self.bounded(
            "spec.delivery.maxAge",
            spec.max_age.as_ref(),
            seconds(1),
            LONGEST_MAX_AGE,
        );
        let max_in_flight = self
            .count("spec.delivery.maxInFlight", spec.max_in_flight, 1024)
            .unwrap_or(DEFAULT_MAX_IN_FLIGHT);
        let retry = spec.retry.unwrap_or_default();
        let mut policy = RetryPolicy {
            rules: self.retry_rules(&retry),
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

    pub(super) fn disable(&mut self, spec: &AutoDisableSpec) -> DisablePolicy {
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

    pub(super) fn bounded(
        &mut self,
        path: &str,
        text: Option<&DurationString>,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let text = text?;
        let duration = duration::parse(&text.0).filter(|duration| (least..=most).contains(duration));
        if duration.is_none() {
            let example = if most < EXAMPLE {
                "500ms or 5s"
            } else {
                "5s or 1h30m"
            };
            let (least, most) = (duration::format(least), duration::format(most));
            self.faults.invalid(
                path,
                format!("must be a duration between {least} and {most}, such as {example}"),
            );
        }
        duration
    }

    pub(super) fn count(&mut self, path: &str, count: Option<i32>, most: u32) -> Option<u32> {
        let count = count?;
        let fits = u32::try_from(count)
            .ok()
            .filter(|count| (1..=most).contains(count));
        if fits.is_none() {
            self.faults.invalid(path, format!("must be between 1 and {most}"));
        }
        fits
    }

    pub(super) fn secret(&mut self, path: &str, key: &SecretKeyRef) -> Option<Secret<Vec<u8>>> {
        self.value(path, &key.into())
    }

    pub(super) fn value(&mut self, path: &str, of: &ValueRef) -> Option<Secret<Vec<u8>>> {
        let ValueRef { holder, name, key } = of;
        match self.references.get(of) {
            Some(Reference::Found(value)) => Some(value.clone()),
            Some(Reference::NoKey) => {
                self.faults
                    .missing(path, format!("{holder} {name:?} has no key {key:?}; add it"));
                None
            }
            Some(Reference::NoObject) | None => {
                self.faults.missing(
                    path,
                    format!("{holder} {name:?} does not exist; create it with key {key:?}"),
                );
                None
            }
        }
    }

    /// A secret as text without surrounding white space, which `kubectl create secret --from-file` likes to add.
    pub(super) fn secret_text(&mut self, path: &str, key: &SecretKeyRef) -> Option<String> {
        let value = self.secret(path, key)?;
        match std::str::from_utf8(value.expose()) {
            Ok(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
            Ok(_) => {
                self.faults
                    .invalid(path, in_secret(key, "the value is empty; fill it in"));
                None
            }
            Err(_) => {
                self.faults
                    .invalid(path, in_secret(key, "the value is not UTF-8 text; replace it"));
                None
            }
        }
    }
}

/// A fault of what a Secret holds: the field of the spec is right, so the Secret and its key are named.
pub(super) fn in_secret(key: &SecretKeyRef, fault: &str) -> String {
    ValueRef::from(key).holds(fault)
}

/// The longest duration that messages give as an example.
const EXAMPLE: Duration = Duration::from_mins(90);
const DAYS_30: Duration = Duration::from_secs(720 * 3600);
