//! Field types shared by the kinds.

use std::borrow::Cow;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::api::names::{NAME_MESSAGE, NAME_RULE};

/// Headers that HTTP or Postrider sets. Neither an extra header nor a signature may use them.
pub const RESERVED_HEADERS: [&str; 15] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "content-encoding",
    "accept-encoding",
    "webhook-id",
    "webhook-timestamp",
    "webhook-signature",
];

/// Headers that every request has, unless the spec sets them to something else. A signature must not take their place.
pub const DEFAULT_HEADERS: [&str; 2] = ["content-type", "user-agent"];

/// Beginning of the headers that Postrider sets beside the standard ones.
pub const OWN_HEADER_PREFIX: &str = "x-postrider-";

/// What keys of Secrets and ConfigMaps are made of.
const KEY_RULE: &str = "self.matches('^[-._a-zA-Z0-9]+$')";
const KEY_MESSAGE: &str = "use letters, digits, \"-\", \"_\" and \".\"";

/// What a rule made by [`header_name_rule`] says.
pub(super) const HEADER_NAME_MESSAGE: &str =
    "this is not a header name, or one that HTTP or Postrider itself sets; choose another name";

/// Refuses what is no mailbox at first sight; `domain` has the last word.
pub(super) const MAILBOX_RULE: &str =
    "self.matches('^[^\\\\x00-\\\\x1f\\\\x7f]*[^\\\\x00-\\\\x20\\\\x7f@]@[^\\\\x00-\\\\x20\\\\x7f@]+$')";
/// The same for each member of a list.
pub(super) const MAILBOXES_RULE: &str = "self.all(one, one.matches('^[^\\\\x00-\\\\x1f\\\\x7f]*[^\\\\x00-\\\\x20\\\\x7f@]@[^\\\\x00-\\\\x20\\\\x7f@]+$'))";
/// What they say.
pub(super) const MAILBOX_MESSAGE: &str =
    "use addresses such as ops@example.com or Ops Team <ops@example.com>";

/// Go's idea of a URL, with the parts we need; `domain` has the last word.
pub(super) const URL_RULE: &str = "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != '' \
    && self.matches('^[^/]*//[^/?#@]+([/?#][^ ]*)?$')";
/// The same, with placeholders in path and query.
pub(super) const URL_TEMPLATE_RULE: &str = "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != '' \
    && self.matches('^[^/]*//[^/?#@{}]+([/?#]([^ {]|[{][^ {]|[{][{]([^}]|[}][^}])*[}][}])*[{]?)?$')";
/// What [`URL_RULE`] says.
pub(super) const URL_MESSAGE: &str = "url must be an absolute http or https URL with a host and without user name or password, for example https://hooks.example.com/in";

/// Units from large to small, each at most once, so that the sum cannot overflow.
const DURATION_PATTERN: &str = "^([0-9]{1,6}([.][0-9]{1,6})?h)?([0-9]{1,6}([.][0-9]{1,6})?m)?\
    ([0-9]{1,9}([.][0-9]{1,6})?s)?([0-9]{1,9}([.][0-9]{1,6})?ms)?$";

/// A CEL rule: the string is a duration within bounds.
pub(super) fn duration_rule(subject: &str, least: &str, most: &str) -> String {
    format!(
        "{subject}.matches('{DURATION_PATTERN}') && duration({subject}) >= duration('{least}') \
         && duration({subject}) <= duration('{most}')"
    )
}

/// A CEL rule: the string is a header name that a user may set; `also` are further refused names.
pub(super) fn header_name_rule(also: &[&str]) -> String {
    let names: Vec<String> = RESERVED_HEADERS
        .iter()
        .chain(also)
        .map(|name| format!("'{name}'"))
        .collect();
    let names = names.join(", ");
    format!(
        "self.matches('^[A-Za-z0-9!#$%&*+.^_`|~-]+$') && !(self.lowerAscii() in [{names}]) \
         && !self.lowerAscii().startsWith('{OWN_HEADER_PREFIX}')"
    )
}

/// The name of another object in the same namespace.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// Name of the object.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(NAME_RULE).message(NAME_MESSAGE))]
    pub name: String,
}

/// One key of a Secret in the same namespace.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, PartialOrd, Ord, Hash, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(NAME_RULE).message(NAME_MESSAGE))]
    pub name: String,
    /// Key within the Secret's data.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(KEY_RULE).message(KEY_MESSAGE))]
    pub key: String,
}

/// Where a value kept in a Secret comes from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeySource {
    /// A key of a Secret in the same namespace. A change of the Secret takes effect within seconds.
    pub secret_key_ref: SecretKeyRef,
}

/// One key of a ConfigMap in the same namespace.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(NAME_RULE).message(NAME_MESSAGE))]
    pub name: String,
    /// Key within its data.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(KEY_RULE).message(KEY_MESSAGE))]
    pub key: String,
}

/// Where a value kept in a ConfigMap comes from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeySource {
    /// A key of a ConfigMap in the same namespace.
    pub config_map_key_ref: ConfigMapKeyRef,
}

/// Where certificates of authorities come from: set exactly one of `secretKeyRef` and `configMapKeyRef`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq, KubeSchema)]
#[x_kube(validation = Rule::new("has(self.secretKeyRef) != has(self.configMapKeyRef)").message("set exactly one of secretKeyRef and configMapKeyRef"))]
#[serde(rename_all = "camelCase")]
pub struct CaSource {
    /// A key of a Secret in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<SecretKeyRef>,
    /// A key of a ConfigMap in the same namespace, such as trust-manager writes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<ConfigMapKeyRef>,
}

/// A length of time as Kubernetes and Go write it: `5s`, `1h30m`, `250ms`, `1.5s`.
///
/// Each field's own CEL rule, made by `duration_rule`, refuses what does not parse or is out of bounds.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct DurationString(pub String);

impl JsonSchema for DurationString {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": 32,
        })
    }
}

impl From<&str> for DurationString {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}
