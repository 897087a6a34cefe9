//! `EventDestination`: where a platform's events go, in what form, and how hard to try.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{
    DurationString, HEADER_NAME_MESSAGE, LocalReference, SecretKeyRef, SecretKeySource, URL_MESSAGE,
    URL_TEMPLATE_RULE, duration_rule, header_name_rule,
};
use super::delivery::{
    BATCH_FIELDS_MESSAGE, BATCH_FIELDS_RULE, BATCH_MESSAGE, BATCH_RULE, BatchSpec, DedupSpec,
    FAILURES_MESSAGE, FAILURES_RULE, Ordering, RateLimitSpec, STATUSES_MESSAGE, STATUSES_RULE,
    dead_letter_rule,
};
use super::email::EmailTarget;
use super::ownership::{OwnershipProofSpec, OwnershipProofStatus};
pub use super::payload::{PayloadFormat, PayloadSpec};
pub use super::replay::LastReplay;
use super::request::{
    AuthSpec, CloudEventsMode, CompressionSpec, ContentType, ProxySpec, RequestMethod, TlsSpec,
};
pub use super::signing::{
    AlsoSigning, LastRotation, SignatureAlgorithm, SignatureEncoding, SignatureStatus, SigningScheme,
    SigningSpec,
};
use super::signing::{HEADERS_MESSAGE, HEADERS_RULE};
use crate::api::names::{MAX_DESTINATION_NAME, SIGNING_SUFFIX, length_rule};

/// Sends events to a webhook or by e-mail.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "postrider.dev",
    version = "v1alpha1",
    kind = "EventDestination",
    plural = "eventdestinations",
    shortname = "ed",
    category = "postrider",
    doc = "An `EventDestination` sends the events of a project to a webhook or by e-mail: which events, in what form, and how hard to try. Its status says whether the configuration is in force (`Ready`) and whether events arrive (`Delivering`).",
    namespaced,
    validation = length_rule(MAX_DESTINATION_NAME, SIGNING_SUFFIX),
    validation = dead_letter_rule(),
    status = "EventDestinationStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Delivering",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Delivering\")].status"
    ),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.delivery.pending"),
    printcolumn(
        name = "Last Success",
        type_ = "date",
        json_path = ".status.delivery.lastSuccessTime"
    ),
    printcolumn(
        name = "Endpoint",
        type_ = "string",
        json_path = ".status.endpoint",
        priority = 1
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[x_kube(validation = Rule::new("has(self.webhook) != has(self.email)").message("set exactly one target: spec.webhook or spec.email"))]
#[x_kube(validation = Rule::new("!has(self.email) || !has(self.delivery) || !has(self.delivery.success)").message("success belongs to webhooks; a mail server's answers are fixed").field_path(".delivery"))]
#[x_kube(validation = Rule::new(BATCH_RULE).message(BATCH_MESSAGE).field_path(".delivery"))]
#[x_kube(validation = Rule::new(BATCH_FIELDS_RULE).message(BATCH_FIELDS_MESSAGE).field_path(".delivery"))]
#[serde(rename_all = "camelCase")]
pub struct EventDestinationSpec {
    /// The project whose events are sent. Default: every `EventProject` of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project_ref: Option<LocalReference>,

    /// Event types to send, 1 to 64 patterns; `*` stands for any characters: `workflow_failure`, `record_*`, `*`.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new("self.all(pattern, pattern.matches('^[A-Za-z0-9_.*-]+$'))").message("use letters, digits, \"_\", \".\", \"-\" and \"*\" in each pattern"))]
    pub events: Vec<String>,

    /// A condition in CEL over `event`, `project` and `user`, at most 1024 bytes: only events for which it is true
    /// are sent, for example `event.data.total > 100 && user.id != 'test'`. A member that an event lacks makes it false;
    /// `has(event.data.total)` asks first. It is asked when an event is published, and again before it is sent.
    /// Default: every event of the types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub filter: Option<String>,

    /// True keeps events and sends nothing. False (default) sends; what was kept goes in the order in which it is due.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,

    /// The webhook that receives the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookTarget>,

    /// The mails that tell of the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<EmailTarget>,

    /// How hard to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySpec>,

    /// When to give up on a receiver that keeps failing, and how to find out that it works again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_disable: Option<AutoDisableSpec>,
}

/// An HTTP endpoint that receives events.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.url) != has(self.urlFrom) || (!has(self.url) && !has(self.urlFrom) && has(self.payload) && has(self.payload.format) && self.payload.format in ['Datadog', 'NewRelic', 'PagerDuty', 'Opsgenie', 'Telegram'])").message("set exactly one of url and urlFrom; only formats Datadog, NewRelic, PagerDuty, Opsgenie and Telegram know their URL"))]
#[x_kube(validation = Rule::new("(has(self.payload) && has(self.payload.format) && self.payload.format in ['Datadog', 'NewRelic', 'PagerDuty', 'Opsgenie', 'Telegram']) == (has(self.formatOptions) && has(self.formatOptions.keyFrom))").message("formatOptions.keyFrom belongs to formats Datadog, NewRelic, PagerDuty, Opsgenie and Telegram, which need it").field_path(".formatOptions"))]
#[x_kube(validation = Rule::new("(has(self.payload) && has(self.payload.format) && self.payload.format == 'Telegram') == (has(self.formatOptions) && has(self.formatOptions.chatID))").message("formatOptions.chatID belongs to format Telegram, which needs it").field_path(".formatOptions"))]
#[x_kube(validation = Rule::new("!has(self.formatOptions) || (has(self.payload) && has(self.payload.format) && !(self.payload.format in ['Default', 'Event', 'Sync', 'Flat', 'Envelope', 'CloudEvent']))").message("formatOptions belongs to the ready formats of services, such as Slack; set payload.format").field_path(".formatOptions"))]
#[x_kube(validation = Rule::new(HEADERS_RULE).message(HEADERS_MESSAGE))]
#[x_kube(validation = Rule::new("!has(self.contentType) || (!has(self.cloudEvents) && (!has(self.headers) || self.headers.all(one, one.name.lowerAscii() != 'content-type')))").message("contentType, cloudEvents and a header Content-Type exclude each other").field_path(".contentType"))]
#[x_kube(validation = Rule::new("!has(self.contentType) || !has(self.payload) || !has(self.payload.format) || self.payload.format in ['Default', 'Event', 'Sync', 'Flat', 'Envelope', 'CloudEvent']").message("the ready formats of services have a content type of their own; remove contentType").field_path(".contentType"))]
#[x_kube(validation = Rule::new("!has(self.contentType) || self.contentType != 'application/cloudevents+json' || (has(self.payload) && (!has(self.payload.format) || self.payload.format == 'CloudEvent'))").message("contentType application/cloudevents+json belongs to format CloudEvent, or to a template that is one").field_path(".contentType"))]
#[x_kube(validation = Rule::new("!has(self.cloudEvents) || (has(self.payload) && has(self.payload.format) && self.payload.format == 'CloudEvent')").message("cloudEvents belongs to format CloudEvent; set payload.format").field_path(".cloudEvents"))]
#[x_kube(validation = Rule::new("!has(self.ownershipProof) || ((!has(self.url) || !self.url.contains('{{')) && (!has(self.payload) || !has(self.payload.format) || self.payload.format in ['Default', 'Event', 'Sync', 'Flat', 'Envelope', 'CloudEvent']))").message("ownershipProof is for one URL without placeholders, and not for the ready formats of services").field_path(".ownershipProof"))]
#[x_kube(validation = Rule::new("!has(self.ownershipProof) || self.ownershipProof.type != 'SignedChallenge' || !has(self.signing) || !has(self.signing.scheme) || self.signing.scheme != 'None'").message("a SignedChallenge has to be signed; set signing.scheme").field_path(".ownershipProof"))]
#[x_kube(validation = Rule::new("!has(self.tls) || !has(self.url) || self.url.lowerAscii().startsWith('https:')").message("tls needs an https URL").field_path(".tls"))]
#[x_kube(validation = Rule::new("!has(self.auth) || !has(self.headers) || self.headers.all(one, one.name.lowerAscii() != 'authorization')").message("auth sets the header Authorization; remove it from headers").field_path(".headers"))]
#[x_kube(validation = Rule::new("!has(self.auth) || !has(self.signing) || ((!has(self.signing.header) || self.signing.header.lowerAscii() != 'authorization') && (!has(self.signing.also) || self.signing.also.all(one, !has(one.header) || one.header.lowerAscii() != 'authorization')))").message("auth sets the header Authorization; choose another header for the signature").field_path(".signing"))]
#[serde(rename_all = "camelCase")]
pub struct WebhookTarget {
    /// URL of the endpoint, `http` or `https`, at most 2048 characters. Path and query may hold `{{ $.event.… }}`
    /// placeholders; what they become is percent-encoded. Use `urlFrom` when the URL is itself a secret.
    /// Formats `Datadog`, `NewRelic`, `PagerDuty`, `Opsgenie` and `Telegram` know theirs and need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(URL_TEMPLATE_RULE).message(URL_MESSAGE))]
    pub url: Option<String>,

    /// Secret that holds the URL. White space around it does not count; only its scheme and host are ever shown. It is
    /// used as it is, without placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<SecretKeySource>,

    /// Extra request headers, at most 32. Headers that Postrider or HTTP itself sets are refused, except
    /// `Content-Type` and `User-Agent`, which these replace.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[x_kube(validation = Rule::new("self.all(one, self.exists_one(other, one.name.lowerAscii() == other.name.lowerAscii()))").message("each header may be set once; upper and lower case are the same name"))]
    pub headers: Vec<HeaderSpec>,

    /// Method of requests: `POST` (default), `PUT` or `PATCH`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<RequestMethod>,

    /// Form of the body: JSON, a form, or text. Default: what the payload's format or template is. Not for the ready
    /// formats of services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<ContentType>,

    /// Format `CloudEvent`: how it is sent, `Structured` (default) as JSON, or `Binary` with attributes in headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_events: Option<CloudEventsMode>,

    /// Compression of large bodies, for receivers that understand it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionSpec>,

    /// How requests say who sends them: user name and password, a token, or OAuth 2.0. Default: they do not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<AuthSpec>,

    /// Authorities of the receiver's certificate, a client certificate, the receiver's name. Only for `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSpec>,

    /// HTTP proxy that requests go through. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxySpec>,

    /// Form of the request body: `format` or `template`. Default: the format that belongs to the event's type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload: Option<PayloadSpec>,

    /// What a ready format of a service, such as `Datadog`, needs or lets change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format_options: Option<FormatOptions>,

    /// How requests are signed. Default: Standard Webhooks with a generated secret; not at all for the ready formats of
    /// services, which have their own keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing: Option<SigningSpec>,

    /// Proof that the receiver wants the events, before the first one is sent; they wait for it. Default: none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership_proof: Option<OwnershipProofSpec>,
}

/// One request header.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)").message("set exactly one of value and valueFrom"))]
#[serde(rename_all = "camelCase")]
pub struct HeaderSpec {
    /// Name of the header, at most 128 characters. Upper and lower case are the same name.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(header_name_rule(&[])).message(HEADER_NAME_MESSAGE))]
    pub name: String,
    /// Value of the header, visible ASCII of at most 4096 characters. It may hold `{{ $.event.… }}` placeholders. Use
    /// `valueFrom` for secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    #[x_kube(validation = Rule::new(r"self.matches('^[ -~\t]*$')").message("use visible ASCII without line breaks"))]
    pub value: Option<String>,
    /// Secret that holds the value. White space around it does not count. It is sent as it is, without placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<SecretKeySource>,
}

/// What a ready format needs or lets change. Which field belongs to which format stands at each field.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct FormatOptions {
    /// Secret that holds the key: Datadog's API key, New Relic's license key, PagerDuty's integration key, Opsgenie's
    /// API key, the token of a Telegram bot. These formats need it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_from: Option<SecretKeySource>,
    /// Where the account is: for Datadog its site, such as `datadoghq.eu` (default `datadoghq.com`); for New Relic,
    /// PagerDuty and Opsgenie `US` (default) or `EU`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub site: Option<String>,
    /// Telegram, which needs it: id of the chat, or `@` and the name of a public channel.
    #[serde(default, rename = "chatID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub chat_id: Option<String>,
    /// Slack and Mattermost: another channel than the webhook's own, where the webhook allows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub channel: Option<String>,
    /// Slack, Mattermost and Discord: name that messages are sent under, where the webhook allows that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 80))]
    pub username: Option<String>,
    /// Datadog, New Relic, Sentry (as logger), PagerDuty and Opsgenie (as source), Alertmanager: name of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 100))]
    pub service: Option<String>,
    /// Datadog, New Relic, Sentry, PagerDuty, Opsgenie, Alertmanager: further tags, at most 16, names and values of at
    /// most 32 and 100 characters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(name, name.matches('^[A-Za-z][A-Za-z0-9_.-]{0,31}$') && self[name].size() <= 100)").message("a tag's name begins with a letter and has at most 32 letters, digits, \"_\", \".\" and \"-\", its value at most 100 characters"))]
    pub tags: BTreeMap<String, String>,
    /// How bad events are, at most 16 rules; the first that fits counts. Default: `Error` for types that name a failure
    /// or an error, `Warning` for those that name an end before time, else `Info`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub severity: Vec<SeverityRule>,
}

/// How bad events of some types are.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeverityRule {
    /// Event types, 1 to 16 patterns; `*` stands for any characters.
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 128)))]
    #[x_kube(validation = Rule::new("self.all(pattern, pattern.matches('^[A-Za-z0-9_.*-]+$'))").message("use letters, digits, \"_\", \".\", \"-\" and \"*\" in each pattern"))]
    pub events: Vec<String>,
    /// How bad they are.
    pub level: SeverityLevel,
}

/// How bad an event is: `Critical`, `Error`, `Warning` or `Info`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum SeverityLevel {
    /// Somebody must act now.
    Critical,
    /// Something failed.
    Error,
    /// Something may fail.
    Warning,
    /// Good to know.
    Info,
}

/// How hard to try.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("!has(self.orderingKey) || (has(self.ordering) && self.ordering == 'Fifo')").message("orderingKey belongs to ordering: Fifo").field_path(".orderingKey"))]
#[x_kube(validation = Rule::new("!has(self.batch) || !has(self.ordering) || self.ordering != 'Fifo'").message("batch and ordering: Fifo exclude each other; remove one of them").field_path(".batch"))]
#[serde(rename_all = "camelCase")]
pub struct DeliverySpec {
    /// One deadline over connecting, TLS, the request and the whole answer; of an e-mail over everything up to the
    /// server's last word. 100ms to 60s; default 15s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(duration_rule("self", "100ms", "60s")).message("timeout must be a duration between 100ms and 60s, such as 500ms or 15s"))]
    pub timeout: Option<DurationString>,
    /// When to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetrySpec>,
    /// Most requests at once to this endpoint, or mails at once, 1 to 1024; default 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_in_flight: Option<i32>,
    /// An event older than this is given up instead of sent: 1s to 720h. Default: the retry schedule decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(duration_rule("self", "1s", "720h")).message("maxAge must be a duration between 1s and 720h, such as 15s or 1h30m"))]
    pub max_age: Option<DurationString>,
    /// Statuses of webhooks' answers that count as delivered, 1 to 32 codes, ranges or classes: `["2xx", "409"]`.
    /// Default: `["2xx"]`. No redirect is ever followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 7)))]
    #[x_kube(validation = Rule::new(STATUSES_RULE).message(STATUSES_MESSAGE))]
    pub success: Option<Vec<String>>,
    /// At most so many deliveries in a time, retries included. What is over it waits and spends no attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimitSpec>,
    /// `Fifo` delivers strictly in the order of acceptance: while one event is tried again, those behind it wait.
    /// Default: `None`, which does not wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<Ordering>,
    /// `Fifo`: what events are in order of, as a path such as `$.event.user.id` or text with `{{ … }}` placeholders, at
    /// most 512 bytes. Events with the same value wait for each other and for no others; those that lack it are one
    /// group. Default: all events of the destination are in one order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub ordering_key: Option<String>,
    /// Sends several events in one request, as a JSON array. Default: each alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchSpec>,
    /// Leaves out events that are the same as one of the last minutes or hours. Default: every event is delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dedup: Option<DedupSpec>,
    /// Another `EventDestination` of the namespace that gets what this one gives up, in its own format, whatever types
    /// and filter it has. What it gives up in turn is not sent on. Default: what is given up is only counted and logged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letter: Option<LocalReference>,
}

/// When to try again.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetrySpec {
    /// Waits before each further attempt, each ±20 %; 1 to 32 entries of at most 168h.
    /// Default: 5s, 5m, 30m, 2h, 5h, 10h, 10h, 14h, 20h, 24h. When `maxAttempts` is larger, the last wait repeats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(format!("self.all(wait, {})", duration_rule("wait", "0s", "168h"))).message("each wait must be a duration of at most 168h, such as 5s or 1h30m"))]
    pub schedule: Option<Vec<DurationString>>,
    /// Attempts in all, the first included: 1 to 100; 1 sends once. Default: one more than the schedule has entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: Option<i32>,
    /// Failures that are tried again, 1 to 32 statuses, ranges, classes or reasons:
    /// `["408", "429", "500-599", Timeout]`. Default: all that can be. Alone it means these and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 64)))]
    #[x_kube(validation = Rule::new(FAILURES_RULE).message(FAILURES_MESSAGE))]
    pub retry_on: Option<Vec<String>>,
    /// Failures after which an event is given up at once, unless `retryOn` names them: `["4xx"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 3, max = 64)))]
    #[x_kube(validation = Rule::new(FAILURES_RULE).message(FAILURES_MESSAGE))]
    pub give_up_on: Option<Vec<String>>,
}

/// When to give up on a receiver, and how to find out that it works again.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AutoDisableSpec {
    /// False never disables. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Failed attempts in a row, retries included, 1 to 10000; default 20. `minimumDuration` must have passed too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub consecutive_failures: Option<i32>,
    /// How long the failures must have lasted, 0s to 720h; default 1h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(duration_rule("self", "0s", "720h")).message("minimumDuration must be a duration between 0s and 720h, such as 15s or 1h30m"))]
    pub minimum_duration: Option<DurationString>,
    /// How often a disabled destination is tried with one event, 1s to 168h; `0s` never. Default 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new(format!("self == '0s' || ({})", duration_rule("self", "1s", "168h"))).message("probeInterval must be 0s (never) or a duration between 1s and 168h, such as 15m"))]
    pub probe_interval: Option<DurationString>,
}

/// What Postrider found out about an `EventDestination`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventDestinationStatus {
    /// Generation of the spec that this status describes; -1 until Postrider has looked at a new object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, `Delivering`, and, while true, `Reconciling` and `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Scheme and host of the endpoint; the rest may be secret. Of e-mail: the SMTP server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Secret that holds the signing key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_secret_ref: Option<SecretKeyRef>,
    /// Signatures with a public key, with a previous key that still signs, or in `signing.also`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub signatures: Vec<SignatureStatus>,
    /// The proof that the receiver wants the events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ownership_proof: Option<OwnershipProofStatus>,
    /// Health and counters of deliveries; counters are written at most every 30 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliveryStatus>,
    /// The last handled value of the annotation `postrider.dev/reconcile` or `reconcile.fluxcd.io/requestedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// The last handled value of the annotation `postrider.dev/enable`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_enable: Option<String>,
    /// The last handled value of the annotation `postrider.dev/test`, cut to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_test: Option<String>,
    /// What came of the last test send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_test: Option<LastTest>,
    /// The last handled value of the annotation `postrider.dev/rotate-secret`, cut to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_rotate_secret: Option<String>,
    /// What came of the last request for new keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation: Option<LastRotation>,
    /// The last handled value of the annotation `postrider.dev/replay`, cut to 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_replay: Option<String>,
    /// What came of the last replay that the annotation asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_replay: Option<LastReplay>,
}

/// What came of a test send: one example event, sent once, outside the queue and without effect on health.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastTest {
    /// Value of the annotation that asked for it.
    pub requested: String,
    /// Type of the event that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_type: Option<String>,
    /// `Delivered`, `Failed`, or `NotSent` when there was nothing to send.
    pub outcome: String,
    /// One word, as in conditions and metrics.
    pub reason: String,
    /// HTTP status code of the answer, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<i32>,
    /// From the start of the request to the end of the answer, such as `132ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// What happened and what to do.
    pub message: String,
    /// What the answer's body begins with, at most 1024 characters; what may be secret is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply: Option<String>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}

/// Health and counters of a destination's deliveries.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryStatus {
    /// `Idle` (nothing waits), `Delivering` (something does), `Failing` (the last attempt failed), `Suspended`,
    /// `Disabled` or `Parked` (not ready).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Deliveries that wait, parked ones included.
    pub pending: i64,
    /// Deliveries that wait because the destination is suspended, disabled or not ready.
    pub parked: i64,
    /// Deliveries that succeeded.
    pub delivered: i64,
    /// Deliveries given up: the schedule ended, the event grew too old, or a fault that no retry mends.
    pub exhausted: i64,
    /// Events that `spec.delivery.dedup` left out.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suppressed: i64,
    /// Failed attempts since the last success.
    pub consecutive_failures: i64,
    /// When an attempt last succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// When an attempt last failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure_time: Option<Time>,
    /// The last failed attempt. It stays after a success; `consecutiveFailures` says whether it is still so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<LastFailure>,
    /// When the current row of failures began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Time>,
    /// When the destination was disabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_time: Option<Time>,
    /// What of `spec.delivery` keeps deliveries waiting that are due: `RateLimit`, `Batch`, or `Order` when more wait
    /// for those before them than is looked ahead at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_for: Option<String>,
    /// When the next attempt is due.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_attempt_time: Option<Time>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
const fn is_zero(count: &i64) -> bool {
    *count == 0
}

/// A failed attempt.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastFailure {
    /// One word, as in metrics and logs.
    pub reason: String,
    /// Status code of the answer, HTTP or SMTP, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_code: Option<i32>,
    /// What happened and what to do.
    pub message: String,
}
