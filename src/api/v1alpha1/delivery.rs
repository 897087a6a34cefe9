//! The parts of `EventDestination.spec.delivery` that say more than how hard to try.

use kube::KubeSchema;
use kube::core::Rule;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{DurationString, duration_rule};

/// A status, a range of them or a class, as a CEL rule over a list.
pub const STATUSES_RULE: &str =
    "self.all(one, one.matches('^([2-5][0-9][0-9](-[2-5][0-9][0-9])?|[2-5]xx)$'))";
/// What [`STATUSES_RULE`] says.
pub const STATUSES_MESSAGE: &str =
    "use statuses such as \"409\", ranges such as \"200-299\" or classes such as \"2xx\" in each entry";
/// The same, or a reason.
pub const FAILURES_RULE: &str =
    "self.all(one, one.matches('^([2-5][0-9][0-9](-[2-5][0-9][0-9])?|[2-5]xx|[A-Z][A-Za-z]+)$'))";
/// What [`FAILURES_RULE`] says.
pub const FAILURES_MESSAGE: &str = "use statuses such as \"429\", ranges such as \"500-599\", classes such as \"5xx\" or reasons such as Timeout in each entry";

/// No destination takes its own dead letters.
pub(super) fn dead_letter_rule() -> Rule {
    Rule::new(
        "!has(self.spec.delivery) || !has(self.spec.delivery.deadLetter) || self.spec.delivery.deadLetter.name != self.metadata.name",
    )
    .message("deadLetter must name another destination")
    .field_path(".spec.delivery.deadLetter.name")
}

/// At most so many deliveries in a time, retries included.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitSpec {
    /// How many, 1 to 100000.
    #[schemars(range(min = 1, max = 100_000))]
    pub events: i32,
    /// In which time, 1s to 24h. They are spread evenly over it.
    #[x_kube(validation = Rule::new(duration_rule("self", "1s", "24h")).message("per must be a duration between 1s and 24h, such as 1s or 1m"))]
    pub per: DurationString,
    /// How many may go at once after a quiet time, 1 to 100000; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<i32>,
}

/// How many events go in one request, and how long they wait for each other.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchSpec {
    /// Most events in a request, 2 to 100.
    #[schemars(range(min = 2, max = 100))]
    pub max_events: i32,
    /// How long an event waits for others, 1s to 5m.
    #[x_kube(validation = Rule::new(duration_rule("self", "1s", "5m")).message("maxWait must be a duration between 1s and 5m, such as 10s"))]
    pub max_wait: DurationString,
}

/// Batches are for webhooks whose body is JSON and whose URL and headers are the same for every event.
pub(super) const BATCH_RULE: &str = "!has(self.delivery) || !has(self.delivery.batch) || (has(self.webhook) && (!has(self.webhook.payload) || !has(self.webhook.payload.format) || self.webhook.payload.format in ['Default', 'Event', 'Sync', 'Flat', 'Envelope', 'CloudEvent']) && (!has(self.webhook.cloudEvents) || self.webhook.cloudEvents != 'Binary') && (!has(self.webhook.contentType) || self.webhook.contentType in ['application/json', 'application/cloudevents+json']))";
/// What [`BATCH_RULE`] says.
pub(super) const BATCH_MESSAGE: &str = "batch needs a webhook that takes JSON: remove it for email, for the ready formats of services, for cloudEvents: Binary and for contentType form or text";
/// No placeholders where there is one value for several events.
pub(super) const BATCH_FIELDS_RULE: &str = "!has(self.delivery) || !has(self.delivery.batch) || !has(self.webhook) || ((!has(self.webhook.url) || !self.webhook.url.contains('{{')) && (!has(self.webhook.headers) || self.webhook.headers.all(one, !has(one.value) || !one.value.contains('{{'))))";
/// What [`BATCH_FIELDS_RULE`] says.
pub(super) const BATCH_FIELDS_MESSAGE: &str =
    "with batch, a request is for several events: remove the placeholders from url and headers, or batch";

/// Which events are the same, and for how long.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DedupSpec {
    /// What the same events have in common, as a path such as `$.event.data.invoice` or text with `{{ … }}`
    /// placeholders, at most 512 bytes. An event that lacks it, or has null there, is never left out.
    #[schemars(length(min = 1, max = 512))]
    pub key: String,
    /// For how long after the first one, 1s to 24h.
    #[x_kube(validation = Rule::new(duration_rule("self", "1s", "24h")).message("window must be a duration between 1s and 24h, such as 10m"))]
    pub window: DurationString,
}

/// `Fifo` delivers strictly in the order of acceptance; `None` (default) does not wait.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Ordering {
    /// In no order.
    #[default]
    None,
    /// In the order of acceptance, in all or for each key.
    Fifo,
}
