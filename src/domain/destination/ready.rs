//! Ready formats of services: URL and headers follow from the format's name, a key and a few options.

use http::HeaderName;

use super::check::{Check, FixedHeaders, HeaderTemplates, URL_PATH, in_secret};
use super::{Endpoint, RequestTemplates, Webhook};
use crate::api::v1alpha1::event_destination::{FormatOptions, SeverityLevel, WebhookTarget};
use crate::domain::format::{ConnectionFault, Level, Needs, Options, Part, ReadyFormat, Service};
use crate::domain::pattern::TypePattern;
use crate::domain::request::RequestForm;
use crate::domain::secret::Secret;
use crate::domain::shape::Payload;
use crate::domain::signature::Signer;
use crate::domain::template::field::TakenOut;

const OPTIONS_PATH: &str = "spec.webhook.formatOptions";
/// Most tags and most rules of severity.
const MAX_ENTRIES: usize = 16;
/// Most characters of a tag's name and of its value.
const MAX_TAG: (usize, usize) = (32, 100);

impl Check<'_> {
    /// The webhook of a ready format, its signer apart.
    pub(super) fn ready(
        &mut self,
        service: &'static Service,
        target: &WebhookTarget,
        own: FixedHeaders,
        templates: HeaderTemplates,
        signer: Option<Signer>,
    ) -> Option<Webhook> {
        let given = target.format_options.clone().unwrap_or_default();
        let options = self.options(service, &given);
        let key = self.key(service, &given);
        let (url, taken_out) = self.url(target)?;
        if service.needs != Needs::Url && key.is_none() {
            return None;
        }
        let connection = service.connect(
            url.as_ref().map(|url| url.expose().as_str()),
            key.as_ref(),
            given.site.as_deref(),
        );
        let connection = match connection {
            Ok(connection) => connection,
            Err(fault) => {
                self.connection_fault(target, &given, fault);
                return None;
            }
        };
        let endpoint = Endpoint::parse(&connection.url, self.egress).and_then(|endpoint| {
            let template = taken_out.map(|taken| taken.put_back(URL_PATH, endpoint.expose()));
            Ok((endpoint, template.transpose()?))
        });
        let (endpoint, url) = match endpoint {
            Ok(endpoint) => endpoint,
            Err(fault) => {
                let fault = ConnectionFault {
                    part: Part::Url,
                    message: fault,
                };
                self.connection_fault(target, &given, fault);
                return None;
            }
        };
        // What the service needs wins: with another key it would take nothing.
        let mut headers = own;
        let is_needed = |name: &HeaderName| connection.headers.iter().any(|(needed, _)| needed == name);
        headers.retain(|(name, _)| !is_needed(name));
        let mut templates = templates;
        templates.retain(|(name, _)| !is_needed(name));
        headers.extend(connection.headers);
        Some(Webhook {
            endpoint,
            headers,
            templates: RequestTemplates {
                url,
                headers: templates,
            },
            payload: Payload::Ready(Box::new(ReadyFormat::new(service, options?, key.as_ref()))),
            signer: signer?,
            request: RequestForm::default(),
        })
    }

    /// The URL that is given, and its placeholders; the outer `None` after a fault.
    fn url(&mut self, target: &WebhookTarget) -> Option<(Option<Secret<String>>, Option<TakenOut>)> {
        match (&target.url, &target.url_from) {
            (Some(url), None) => {
                let (text, taken_out) = self.placeholders(url)?;
                Some((Some(Secret::new(text)), taken_out))
            }
            (None, Some(source)) => {
                let text = self.secret_url(&source.secret_key_ref)?;
                Some((Some(Secret::new(text)), None))
            }
            (None, None) => Some((None, None)),
            (Some(_), Some(_)) => {
                self.faults
                    .invalid("spec.webhook", "set at most one of url and urlFrom");
                None
            }
        }
    }

    fn key(&mut self, service: &Service, given: &FormatOptions) -> Option<Secret<String>> {
        let path = format!("{OPTIONS_PATH}.keyFrom");
        match (&given.key_from, service.needs) {
            (Some(source), Needs::Key | Needs::KeyAndChat) => {
                self.secret_text(&path, &source.secret_key_ref).map(Secret::new)
            }
            (None, Needs::Key | Needs::KeyAndChat) => {
                let message = format!("format {service} needs a key; name the Secret that holds it");
                self.faults.invalid(path, message);
                None
            }
            (Some(_), Needs::Url) => {
                let message = format!("format {service} has no key, its URL is the secret; remove it");
                self.faults.invalid(path, message);
                None
            }
            (None, Needs::Url) => None,
        }
    }

    fn options(&mut self, service: &Service, given: &FormatOptions) -> Option<Options> {
        let before = self.faults.iter().count();
        if (service.needs == Needs::KeyAndChat) != given.chat_id.is_some() {
            let message = "format Telegram, and no other, needs the id of a chat";
            self.faults.invalid(format!("{OPTIONS_PATH}.chatID"), message);
        }
        let texts = [
            ("chatID", &given.chat_id, 128),
            ("channel", &given.channel, 128),
            ("username", &given.username, 80),
            ("service", &given.service, 100),
            ("site", &given.site, 128),
        ];
        for (name, text, most) in texts {
            let fits = |text: &String| (1..=most).contains(&text.chars().count());
            if text.as_ref().is_some_and(|text| !fits(text)) {
                let message = format!("use 1 to {most} characters");
                self.faults.invalid(format!("{OPTIONS_PATH}.{name}"), message);
            }
        }
        if given.tags.len() > MAX_ENTRIES {
            let message = format!("at most {MAX_ENTRIES} tags are allowed");
            self.faults.invalid(format!("{OPTIONS_PATH}.tags"), message);
        }
        let named = |name: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
            name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.len() <= MAX_TAG.0
                && name.bytes().all(fits)
        };
        for (name, value) in &given.tags {
            if !named(name) || value.chars().count() > MAX_TAG.1 {
                let message = format!(
                    "tag {name:?}: a tag's name begins with a letter and has at most {} letters, digits, \"_\", \".\" \
                     and \"-\", its value at most {} characters",
                    MAX_TAG.0, MAX_TAG.1
                );
                self.faults.invalid(format!("{OPTIONS_PATH}.tags"), message);
            }
        }
        if given.severity.len() > MAX_ENTRIES {
            let message = format!("at most {MAX_ENTRIES} rules are allowed");
            self.faults.invalid(format!("{OPTIONS_PATH}.severity"), message);
        }
        let mut severity = Vec::new();
        for (index, rule) in given.severity.iter().enumerate() {
            let path = format!("{OPTIONS_PATH}.severity[{index}].events");
            severity.push((self.patterns(&path, &rule.events), level(rule.level)));
        }
        let boxed = |text: &Option<String>| text.as_deref().map(Into::into);
        let tags = given.tags.iter();
        let options = Options {
            channel: boxed(&given.channel),
            username: boxed(&given.username),
            service: boxed(&given.service),
            tags: tags
                .map(|(name, value)| (name.as_str().into(), value.as_str().into()))
                .collect(),
            severity,
            chat: boxed(&given.chat_id),
        };
        (self.faults.iter().count() == before).then_some(options)
    }

    fn patterns(&mut self, path: &str, patterns: &[String]) -> Vec<TypePattern> {
        let read: Option<Vec<_>> = patterns
            .iter()
            .map(|pattern| TypePattern::parse(pattern))
            .collect();
        let read = read.filter(|read| !read.is_empty());
        if read.is_none() {
            self.faults.invalid(
                path,
                "name at least one event type; use letters, digits, \"_\", \".\", \"-\" and \"*\"",
            );
        }
        read.unwrap_or_default()
    }

    fn connection_fault(&mut self, target: &WebhookTarget, given: &FormatOptions, fault: ConnectionFault) {
        let (path, source) = match fault.part {
            Part::Key => (format!("{OPTIONS_PATH}.keyFrom"), given.key_from.as_ref()),
            Part::Site => (format!("{OPTIONS_PATH}.site"), None),
            Part::Url if target.url_from.is_some() => {
                ("spec.webhook.urlFrom".to_owned(), target.url_from.as_ref())
            }
            Part::Url => ("spec.webhook.url".to_owned(), None),
        };
        let message = match source {
            Some(source) => in_secret(&source.secret_key_ref, &fault.message),
            None => fault.message,
        };
        self.faults.invalid(path, message);
    }
}

const fn level(level: SeverityLevel) -> Level {
    match level {
        SeverityLevel::Critical => Level::Critical,
        SeverityLevel::Error => Level::Error,
        SeverityLevel::Warning => Level::Warning,
        SeverityLevel::Info => Level::Info,
    }
}
