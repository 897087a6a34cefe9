//! [`ReadyFormat`]: bodies, addresses and headers of other vendors' services.
//!
//! Owns the table [`FORMATS`], one row for each service with where its API is described, and the choice of URL and
//! headers, so that a destination needs the name of a format and a key or URL and nothing else. What a body looks
//! like is left to the modules below by kind of service: [`chat`] for people, [`incident`] for those on call, [`log`]
//! for machines. Each sees the event as a [`Digest`].
//!
//! Invariants: a body is within the limits that its vendor documents, whatever the event holds, and text that was
//! shortened says so; text of the event can neither mention people nor hide where a link leads; a retry has the same
//! body. Values of Secrets are in the headers, the URL or the body of the request and nowhere else.

mod chat;
mod digest;
mod incident;
mod log;
mod shrink;

use std::collections::BTreeMap;
use std::fmt;

use http::{HeaderName, HeaderValue};
use url::Url;

pub use self::digest::{Digest, Level};
use super::destination::Identity;
use super::event::Event;
use super::outcome::Reading;
use super::pattern::TypePattern;
use super::secret::Secret;
use super::shape::{JSON, Rendered};
use crate::api::v1alpha1::event_destination::PayloadFormat;

/// Most bytes of a body: what the smallest of the services that take logs allows.
pub(crate) const MAX_BODY: usize = 900 * 1024;
/// Content type of Sentry's envelopes.
const SENTRY_ENVELOPE: &str = "application/x-sentry-envelope";

/// What a service needs beside the name of its format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// `url` or `urlFrom`, which is itself the secret.
    Url,
    /// `formatOptions.keyFrom`; the URL follows.
    Key,
    /// `formatOptions.keyFrom` and `formatOptions.chatID`; the URL follows.
    KeyAndChat,
}

/// One service.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Its name in `payload.format`.
    pub format: PayloadFormat,
    /// The name as text.
    pub name: &'static str,
    /// What a destination must say.
    pub needs: Needs,
    /// What is sent, in one line.
    pub description: &'static str,
    /// Where the vendor describes the API.
    pub reference: &'static str,
    /// How replies are read; a service that takes a request with 202 needs no more than the status.
    pub reading: Reading,
    /// Where requests go when the destination names no URL; `{site}` is `formatOptions.site`.
    endpoint: Option<Endpoint>,
}

/// Where a service is.
#[derive(Clone, Copy, Debug)]
struct Endpoint {
    url: &'static str,
    /// Default of `formatOptions.site`, and what else it may be by name.
    sites: &'static [(&'static str, &'static str)],
    /// A site may also be any host of the vendor's, with these endings.
    endings: &'static [&'static str],
}

/// The services, in the order in which they are listed.
pub static FORMATS: [Service; 12] = [
    Service {
        format: PayloadFormat::Slack,
        name: "Slack",
        needs: Needs::Url,
        description: "a message of blocks to an incoming webhook",
        reference: "https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks",
        reading: Reading::Slack,
        endpoint: None,
    },
    Service {
        format: PayloadFormat::Datadog,
        name: "Datadog",
        needs: Needs::Key,
        description: "a log; key: an API key, site: such as datadoghq.eu",
        reference: "https://docs.datadoghq.com/api/latest/logs/#send-logs",
        reading: Reading::Status,
        endpoint: Some(Endpoint {
            url: "https://http-intake.logs.{site}/api/v2/logs",
            sites: &[("datadoghq.com", "datadoghq.com")],
            endings: &["datadoghq.com", "datadoghq.eu", "ddog-gov.com"],
        }),
    },
    Service {
        format: PayloadFormat::NewRelic,
        name: "NewRelic",
        needs: Needs::Key,
        description: "a log; key: a license key, site: US or EU",
        reference: "https://docs.newrelic.com/docs/logs/log-api/introduction-log-api/",
        reading: Reading::Status,
        endpoint: Some(Endpoint {
            url: "https://{site}/log/v1",
            sites: &[
                ("US", "log-api.newrelic.com"),
                ("EU", "log-api.eu.newrelic.com"),
                ("FedRAMP", "gov-log-api.newrelic.com"),
            ],
            endings: &[],
        }),
    },
    Service {
        format: PayloadFormat::Sentry,
        name: "Sentry",
        needs: Needs::Url,
        description: "an error event; the URL is the DSN of a project",
        reference: "https://develop.sentry.dev/sdk/foundations/transport/envelopes/",
        reading: Reading::Status,
        endpoint: None,
    },
    Service {
        format: PayloadFormat::Discord,
        name: "Discord",
        needs: Needs::Url,
        description: "a message with an embed to a channel's webhook",
        reference: "https://discord.com/developers/docs/resources/webhook#execute-webhook",
        reading: Reading::Status,
        endpoint: None,
    },
    Service {
        format: PayloadFormat::MicrosoftTeams,
        name: "MicrosoftTeams",
        needs: Needs::Url,
        description: "an Adaptive Card to a workflow's webhook",
        reference: "https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using",
        reading: Reading::MicrosoftTeams,
        endpoint: None,
    },
    Service {
        format: PayloadFormat::GoogleChat,
        name: "GoogleChat",
        needs: Needs::Url,
        description: "a card to a space's webhook",
        reference: "https://developers.google.com/workspace/chat/quickstart/webhooks",
        reading: Reading::Status,
        endpoint: None,
    },
    Service {
        format: PayloadFormat::PagerDuty,
        name: "PagerDuty",
        needs: Needs::Key,
        description: "an alert by the Events API v2; key: an integration key, site: US or EU",
        reference: "https://developer.pagerduty.com/docs/events-api-v2/trigger-events/",
        reading: Reading::Status,
        endpoint: Some(Endpoint {
            url: "https://{site}/v2/enqueue",
            sites: &[("US", "events.pagerduty.com"), ("EU", "events.eu.pagerduty.com")],
            endings: &[],
        }),
    },
    Service {
        format: PayloadFormat::Opsgenie,
        name: "Opsgenie",
        needs: Needs::Key,
        description: "an alert; key: an API key, site: US or EU",
        reference: "https://docs.opsgenie.com/docs/alert-api#create-alert",
        reading: Reading::Status,
        endpoint: Some(Endpoint {
            url: "https://{site}/v2/alerts",
            sites: &[("US", "api.opsgenie.com"), ("EU", "api.eu.opsgenie.com")],
            endings: &[],
        }),
    },
    Service {
        format: PayloadFormat::Mattermost,
        name: "Mattermost",
        needs: Needs::Url,
        description: "a message with an attachment to an incoming webhook",
        reference: "https://developers.mattermost.com/integrate/webhooks/incoming/",
        reading: Reading::Status,
        endpoint: None,
    },
    Service {
        format: PayloadFormat::Telegram,
        name: "Telegram",
        needs: Needs::KeyAndChat,
        description: "a message of a bot; key: the bot's token, chatID: where to",
        reference: "https://core.telegram.org/bots/api#sendmessage",
        reading: Reading::Telegram,
        endpoint: Some(Endpoint {
            url: "https://api.telegram.org/bot{key}/sendMessage",
            sites: &[],
            endings: &[],
        }),
    },
    Service {
        format: PayloadFormat::Alertmanager,
        name: "Alertmanager",
        needs: Needs::Url,
        description: "an alert; the URL is Alertmanager's own, such as http://alertmanager:9093",
        reference: "https://prometheus.io/docs/alerting/latest/alerts_api/",
        reading: Reading::Status,
        endpoint: None,
    },
];

/// The service of that format; `None` for Postrider's own formats.
#[must_use]
pub fn of(format: PayloadFormat) -> Option<&'static Service> {
    FORMATS.iter().find(|service| service.format == format)
}

/// What people change about a ready format.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where a message goes, when the service lets the sender choose.
    pub channel: Option<Box<str>>,
    /// Name that a message is sent under.
    pub username: Option<Box<str>>,
    /// `service` of logs and alerts.
    pub service: Option<Box<str>>,
    /// Further tags.
    pub tags: BTreeMap<Box<str>, Box<str>>,
    /// Levels by event type; the first that fits counts.
    pub severity: Vec<(Vec<TypePattern>, Level)>,
    /// Telegram's chat.
    pub chat: Option<Box<str>>,
}

/// A ready format of one destination.
#[derive(Clone, Debug)]
pub struct ReadyFormat {
    /// Which service.
    pub service: &'static Service,
    /// What differs from the service's defaults.
    pub options: Options,
    /// What PagerDuty wants in the body; other keys are in the URL or a header.
    routing_key: Option<Secret<String>>,
}

/// Where a ready format's requests go, and what they carry beside the body.
pub struct Connection {
    /// The URL.
    pub url: String,
    /// Headers, secret ones marked sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a ready format's connection could not be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionFault {
    /// Which part is wrong.
    pub part: Part,
    /// What is wrong and what to do; never the value.
    pub message: String,
}

/// What a destination says about its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `url` or `urlFrom`.
    Url,
    /// `formatOptions.keyFrom`.
    Key,
    /// `formatOptions.site`.
    Site,
}

impl ConnectionFault {
    fn new(part: Part, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { part, message }
    }
}

impl ReadyFormat {
    /// Joins a service with a destination's options.
    #[must_use]
    pub fn new(service: &'static Service, options: Options, key: Option<&Secret<String>>) -> Self {
        let routing_key = key
            .filter(|_| service.format == PayloadFormat::PagerDuty)
            .cloned();
        Self {
            service,
            options,
            routing_key,
        }
    }

    /// What the body carries of a Secret.
    #[must_use]
    pub const fn body_secret(&self) -> Option<&Secret<String>> {
        self.routing_key.as_ref()
    }

    /// Renders an event.
    #[must_use]
    pub fn render(&self, event: &Event, destination: &Identity) -> Rendered {
        let digest = Digest::of(event, destination, &self.options.severity);
        let options = &self.options;
        let body = match self.service.format {
            PayloadFormat::Slack => chat::slack(&digest, options),
            PayloadFormat::Discord => chat::discord(&digest, options),
            PayloadFormat::MicrosoftTeams => chat::teams(&digest),
            PayloadFormat::GoogleChat => chat::google_chat(&digest),
            PayloadFormat::Mattermost => chat::mattermost(&digest, options),
            PayloadFormat::Telegram => chat::telegram(&digest, options),
            PayloadFormat::PagerDuty => {
                let key = self.routing_key.as_ref().map_or("", |key| key.expose().as_str());
                incident::pager_duty(&digest, options, key)
            }
            PayloadFormat::Opsgenie => incident::opsgenie(&digest, options),
            PayloadFormat::Alertmanager => incident::alertmanager(&digest, options),
            PayloadFormat::NewRelic => log::new_relic(&digest, options),
            PayloadFormat::Sentry => {
                return Rendered {
                    content_type: SENTRY_ENVELOPE,
                    body: log::sentry(&digest, options).into(),
                };
            }
            // The only other one in `FORMATS`.
            _ => log::datadog(&digest, options),
        };
        Rendered {
            content_type: JSON,
            body: body.to_string().into(),
        }
    }
}

impl Service {
    /// Where requests go and what they carry.
    ///
    /// # Errors
    /// What is wrong with the URL, the key or the site.
    pub fn connect(
        &self,
        url: Option<&str>,
        key: Option<&Secret<String>>,
        site: Option<&str>,
    ) -> Result<Connection, ConnectionFault> {
        let key = key.map(|key| key.expose().as_str());
        let plain = |url: &str| Connection {
            url: url.to_owned(),
            headers: Vec::new(),
        };
        match (self.format, url) {
            (PayloadFormat::Sentry, Some(dsn)) => sentry_connection(dsn),
            (PayloadFormat::Alertmanager, Some(url)) => Ok(plain(&alertmanager_url(url))),
            (_, Some(url)) => self.with_key(plain(url), key),
            (_, None) => {
                let url = self.url_of(site, key)?;
                self.with_key(plain(&url), key)
            }
        }
    }

    fn url_of(&self, site: Option<&str>, key: Option<&str>) -> Result<String, ConnectionFault> {
        let Some(endpoint) = &self.endpoint else {
            return Err(ConnectionFault::new(
                Part::Url,
                format!("format {} needs url or urlFrom", self.name),
            ));
        };
        if endpoint.url.contains("{key}") {
            let key = key.unwrap_or_default();
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":_-".contains(&byte);
            if key.is_empty() || !key.bytes().all(fits) {
                return Err(ConnectionFault::new(
                    Part::Key,
                    "this is no bot token, which has digits, a colon, letters, digits, \"_\" and \"-\"",
                ));
            }
            return Ok(endpoint.url.replace("{key}", key));
        }
        let host = match site {
            None => endpoint.sites.first().map(|(_, host)| (*host).to_owned()),
            Some(site) => {
                let named = endpoint
                    .sites
                    .iter()
                    .find(|(name, _)| name.eq_ignore_ascii_case(site));
                named.map(|(_, host)| (*host).to_owned()).or_else(|| {
                    let belongs = endpoint
                        .endings
                        .iter()
                        .any(|ending| site == *ending || site.ends_with(&format!(".{ending}")));
                    belongs.then(|| site.to_owned())
                })
            }
        };
        let fits = |host: &String| {
            host.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
        };
        if let Some(host) = host.filter(fits) {
            return Ok(endpoint.url.replace("{site}", &host));
        }
        let names = endpoint.sites.iter().map(|(name, _)| *name);
        let names: Vec<&str> = names.chain(endpoint.endings.iter().copied()).collect();
        let message = format!("{} has no such site; use one of {}", self.name, names.join(", "));
        Err(ConnectionFault::new(Part::Site, message))
    }

    fn with_key(&self, mut connection: Connection, key: Option<&str>) -> Result<Connection, ConnectionFault> {
        let (name, value) = match (self.format, key) {
            (PayloadFormat::Datadog, Some(key)) => ("dd-api-key", key.to_owned()),
            (PayloadFormat::NewRelic, Some(key)) => ("api-key", key.to_owned()),
            (PayloadFormat::Opsgenie, Some(key)) => ("authorization", format!("GenieKey {key}")),
            _ => return Ok(connection),
        };
        let value = HeaderValue::from_str(&value)
            .map_err(|_| ConnectionFault::new(Part::Key, "a key is visible ASCII without line breaks"))?;
        connection
            .headers
            .push(sensitive(HeaderName::from_static(name), value));
        Ok(connection)
    }
}

fn sensitive(name: HeaderName, mut value: HeaderValue) -> (HeaderName, HeaderValue) {
    value.set_sensitive(true);
    (name, value)
}

/// A DSN, `https://<key>@<host>/<path>/<project>`, as the URL and header that it stands for.
fn sentry_connection(dsn: &str) -> Result<Connection, ConnectionFault> {
    let fault = || {
        ConnectionFault::new(
            Part::Url,
            "this is no DSN, which looks like https://KEY@HOST/PROJECT; copy it from the project's settings",
        )
    };
    let mut url = Url::parse(dsn.trim()).map_err(|_| fault())?;
    let key = url.username().to_owned();
    let path = url.path().trim_end_matches('/').to_owned();
    let (prefix, project) = path.rsplit_once('/').ok_or_else(fault)?;
    let fits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !fits(&key) || !fits(project) {
        return Err(fault());
    }
    let path = format!("{prefix}/api/{project}/envelope/");
    // An old DSN has a secret key, too, which Sentry no longer wants.
    let cleared = url.set_username("").is_ok() && url.set_password(None).is_ok();
    if !cleared {
        return Err(fault());
    }
    url.set_path(&path);
    url.set_query(None);
    let auth = format!(
        "Sentry sentry_version=7, sentry_client=postrider/{}, sentry_key={key}",
        env!("CARGO_PKG_VERSION")
    );
    let value = HeaderValue::from_str(&auth).map_err(|_| fault())?;
    Ok(Connection {
        url: url.into(),
        headers: vec![sensitive(HeaderName::from_static("x-sentry-auth"), value)],
    })
}

/// The URL of alerts below Alertmanager's own; a URL that names the path already stays.
fn alertmanager_url(url: &str) -> String {
    const PATH: &str = "/api/v2/alerts";
    let base = url.trim_end_matches('/');
    if base.ends_with(PATH) {
        base.to_owned()
    } else {
        [base, PATH].concat()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name)
    }
}

#[cfg(test)]
mod tests;
