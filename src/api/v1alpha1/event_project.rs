//! `EventProject`: the producer of events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
pub use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::common::{
    LocalReference, MAILBOX_MESSAGE, MAILBOX_RULE, MAILBOXES_RULE, SecretKeySource, URL_MESSAGE, URL_RULE,
};
use crate::api::names::{MAX_PROJECT_NAME, TOKEN_SUFFIX, length_rule};

/// A producer of events: what its events say about their origin. Every field may be left out, and so may `spec`.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "postrider.dev",
    version = "v1alpha1",
    kind = "EventProject",
    plural = "eventprojects",
    shortname = "eproj",
    category = "postrider",
    doc = "An `EventProject` is a producer of events: it has a URL to publish to, a bearer token in a Secret, and facts that its events carry.",
    namespaced,
    validation = length_rule(MAX_PROJECT_NAME, TOKEN_SUFFIX),
    status = "EventProjectStatus",
    derive = "PartialEq",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(name = "Ingest URL", type_ = "string", json_path = ".status.ingestURL"),
    printcolumn(
        name = "Token Secret",
        type_ = "string",
        json_path = ".status.tokenSecretRef.name",
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
#[serde(rename_all = "camelCase")]
pub struct EventProjectSpec {
    /// Name that events carry as `project.name`, at most 256 characters. Default: the object's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub display_name: Option<String>,

    /// Id that events carry as `project.id`, at most 128 characters. Default: the object's uid. Receivers may key on it, so set it when
    /// the project must keep its id if it is ever deleted and created again.
    #[serde(default, rename = "projectID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9][A-Za-z0-9_.:-]*$')").message("begin with a letter or digit; use letters, digits, \"_\", \".\", \":\" and \"-\""))]
    pub project_id: Option<String>,

    /// Name of the environment, such as `production`, at most 128 characters. Events carry it in the formats `Flat`
    /// and `CloudEvent`, and templates reach it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub environment: Option<String>,

    /// The customer account that the project belongs to. Events carry it in the formats `Flat` and `CloudEvent`, and
    /// templates reach it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,

    /// Event types of this project, at most 64 and 256 KiB in all, beside the built-in ones. A type need not be listed to be
    /// published; listing it describes it, and lets its events be checked. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub event_types: Vec<EventTypeSpec>,

    /// What happens to an event that breaks the schema of its type, or lacks a member that a built-in type needs.
    /// `Warn` (default) accepts it, counts it and says so in the answer; `Enforce` refuses the request; `Off` does not
    /// look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation: Option<Validation>,

    /// What the attribute `subject` of CloudEvents stands for: `Keep` (default) keeps it as the attribute that it is;
    /// with `UserID` it is the id of the event's user, too, unless it is over 1,024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_events_subject: Option<CloudEventsSubject>,

    /// Who is told of the project's events without an `EventDestination` of their own. Each becomes an
    /// `EventDestination` that belongs to the project; `status.notifications` names them. The annotation
    /// `postrider.dev/suspend=true` on one of them pauses it. Default: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notifications: Option<Notifications>,
}

/// Who is told of a project's events.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notifications {
    /// Address of the project's owner, who is told of each `workflow_failure`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 320))]
    #[x_kube(validation = Rule::new(MAILBOX_RULE).message(MAILBOX_MESSAGE))]
    pub owner_email: Option<String>,
    /// Addresses that are told of every event, at most 10. They are not told again as owner or subscriber.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(min = 3, max = 320)))]
    #[x_kube(validation = Rule::new(MAILBOXES_RULE).message(MAILBOX_MESSAGE))]
    pub primary_contact: Vec<String>,
    /// One URL that is told of every type whose `sendWebhook` is true: POST of the format `Flat`, sent once, not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<NotificationWebhook>,
    /// Which types go to `webhook`, and who else is told of them by e-mail; at most 64 types, with at most 256
    /// subscribers in all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub events: Vec<NotificationEvent>,
    /// Secret in the same namespace that describes the SMTP server; see `kubectl explain ed.spec.email.smtpRef`. Default:
    /// the server that Postrider was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp_ref: Option<LocalReference>,
}

/// The URL that is told of a project's events.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.url) != has(self.urlFrom)").message("set exactly one of url and urlFrom"))]
#[serde(rename_all = "camelCase")]
pub struct NotificationWebhook {
    /// URL of the endpoint, `http` or `https`, at most 2048 characters. Use `urlFrom` when the URL is itself a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(URL_RULE).message(URL_MESSAGE))]
    pub url: Option<String>,
    /// Secret that holds the URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<SecretKeySource>,
}

/// Who is told of one event type.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NotificationEvent {
    /// The event type.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_.-]+$')").message("use letters, digits, \"_\", \".\" and \"-\""))]
    pub event_type: String,
    /// True sends events of the type to `webhook`. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub send_webhook: bool,
    /// Addresses that are told of the type: a list, or one text with commas between them; a name with a comma in it needs
    /// the list. Each gets mails of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "list_or_text")]
    pub email_subscribers: Option<Subscribers>,
}

/// Addresses, as a list or as one text with commas between them.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Subscribers {
    /// One address each.
    List(Vec<String>),
    /// Addresses with commas between them.
    Text(String),
    /// Neither, which is a fault. The schema cannot refuse it, and it must not make the rest of the spec unreadable.
    Other(serde_json::Value),
}

fn list_or_text(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// An event type of a project.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventTypeSpec {
    /// Name of the type, as in `type`: letters, digits, `_`, `.` and `-`, at most 128 characters. Not a built-in one,
    /// and none that begins with `postrider.`: those events are Postrider's own.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("!self.startsWith('postrider.')").message("names that begin with postrider. are Postrider's own; choose another name"))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9_.-]+$')").message("use letters, digits, \"_\", \".\" and \"-\""))]
    pub name: String,
    /// One line about when it is sent, at most 512 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub description: Option<String>,
    /// JSON Schema (2020-12) of the event's `data`, at most 32 KiB. It stands alone: `$ref` leads to `#/$defs/…` and
    /// nothing is ever fetched, and no schema leads back to itself. Patterns have no look-around and no
    /// back-references; `format` is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub schema: Option<serde_json::Value>,
    /// An example of the event's `data`, at most 16 KiB; it must follow the schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub example: Option<serde_json::Value>,
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// What happens to an event that breaks the schema of its type.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum Validation {
    /// It is refused.
    Enforce,
    /// It is accepted, counted, and the answer says what is wrong.
    #[default]
    Warn,
    /// Nobody looks.
    Off,
}

/// What the attribute `subject` of CloudEvents stands for.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum CloudEventsSubject {
    /// For itself.
    #[default]
    Keep,
    /// For the event's user.
    #[serde(rename = "UserID")]
    UserId,
}

/// The customer account that a project belongs to.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Id of the account, an integer or at most 128 characters: an integer stays an integer in payloads, a string a
    /// string.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) == int || size(string(self)) <= 128").message("account.id must be an integer or at most 128 characters"))]
    pub id: Option<IntOrString>,
    /// Name of the account, at most 256 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
}

/// What Postrider found out about an `EventProject`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct EventProjectStatus {
    /// Generation of the spec that this status describes; -1 until Postrider has looked at a new object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, and, while true, `Reconciling`, `Stalled` and `StoreRepaired`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Where to POST events.
    #[serde(default, rename = "ingestURL", skip_serializing_if = "Option::is_none")]
    pub ingest_url: Option<String>,
    /// Id that events carry as `project.id`.
    #[serde(default, rename = "projectID", skip_serializing_if = "Option::is_none")]
    pub project_id: Option<String>,
    /// Secret whose key `token` holds the bearer token for publishing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<LocalReference>,
    /// Names of the `EventDestination`s that `spec.notifications` stands for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 300), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub notifications: Vec<String>,
    /// The last handled value of the annotation `postrider.dev/reconcile` or `reconcile.fluxcd.io/requestedAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
}
