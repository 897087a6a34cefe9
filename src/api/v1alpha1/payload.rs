//! What a webhook's body is made of: a format or a template.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::common::ConfigMapKeySource;

/// Form of a request body: set one of `format`, `template` and `templateFrom`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[schemars(extend("maxProperties" = 1))] // no CEL rule can see `template`, which has no type
#[serde(rename_all = "camelCase")]
pub struct PayloadSpec {
    /// A ready format. `Default` picks the one that belongs to the event's type; `Event` is the whole event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<PayloadFormat>,
    /// The body as any JSON value. Strings in it may hold `{{ $.event.… }}` placeholders: one that is the whole
    /// string keeps the value's type, one inside text becomes text. At most 64 KiB and 32 levels. A path that leads
    /// nowhere gives the event up, unless `| default(…)` follows. Members are sent in alphabetical order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_json")]
    pub template: Option<serde_json::Value>,
    /// ConfigMap that holds the template: JSON under a key that ends with `.json`, else what `template` takes as a
    /// string. A change takes effect within seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template_from: Option<ConfigMapKeySource>,
}

fn any_json(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// A ready format. `Default` picks the one that belongs to the event's type; `Event` is the whole event; `Sync` has
/// `event`, `sync`, `user` and `data`; `Flat` puts account facts beside the members of `data`; `Envelope` wraps a
/// `payload`; `CloudEvent` is CloudEvents 1.0 structured JSON. The others are what the service of that name takes, URL
/// and headers included: `Slack`, `Discord`, `MicrosoftTeams`, `GoogleChat`, `Mattermost`, `Sentry` (the DSN) and
/// `Alertmanager` need a URL, `Datadog`, `NewRelic`, `PagerDuty`, `Opsgenie` and `Telegram` `formatOptions.keyFrom`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, Hash, JsonSchema)]
pub enum PayloadFormat {
    /// The format that belongs to the event's type.
    #[default]
    Default,
    /// The whole event.
    Event,
    /// `event`, `sync`, `syncInstanceId`, `user`, `data`.
    Sync,
    /// `event_type` and account facts beside the members of `data`.
    Flat,
    /// `webhookId`, `eventType` and a `payload`.
    Envelope,
    /// CloudEvents 1.0 structured JSON.
    CloudEvent,
    /// A message to a Slack incoming webhook; needs its URL.
    Slack,
    /// A Datadog log; needs an API key in `formatOptions.keyFrom`.
    Datadog,
    /// A New Relic log; needs a license key in `formatOptions.keyFrom`.
    NewRelic,
    /// A Sentry event; needs the DSN in `urlFrom`.
    Sentry,
    /// A message to a Discord webhook; needs its URL.
    Discord,
    /// An Adaptive Card to a Microsoft Teams workflow; needs its URL.
    MicrosoftTeams,
    /// A card to a Google Chat space; needs its webhook's URL.
    GoogleChat,
    /// A PagerDuty alert; needs an integration key in `formatOptions.keyFrom`.
    PagerDuty,
    /// An Opsgenie alert; needs an API key in `formatOptions.keyFrom`.
    Opsgenie,
    /// A message to a Mattermost incoming webhook; needs its URL.
    Mattermost,
    /// A message of a Telegram bot; needs its token in `formatOptions.keyFrom` and `chatID`.
    Telegram,
    /// An alert for Prometheus' Alertmanager; needs its URL.
    Alertmanager,
}
