//! How the requests of a webhook are signed, and what the status tells of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::common::{
    DEFAULT_HEADERS, DurationString, HEADER_NAME_MESSAGE, SecretKeyRef, duration_rule, header_name_rule,
};

/// Schemes whose header can be named.
const HEADER_RULE: &str =
    "!has(self.header) || (has(self.scheme) && self.scheme in ['HmacSHA256', 'Hmac', 'Stripe', 'GitHub'])";
const HEADER_MESSAGE: &str = "header belongs to schemes HmacSHA256, Hmac, Stripe and GitHub";
const WRITING_RULE: &str = "(has(self.scheme) && self.scheme in ['HmacSHA256', 'Hmac']) || (!has(self.prefix) && !has(self.encoding))";
const WRITING_MESSAGE: &str = "prefix and encoding belong to schemes HmacSHA256 and Hmac";
const NEEDS_RULE: &str = "!has(self.scheme) || !(self.scheme in ['HmacSHA256', 'Hmac']) || has(self.header)";
const NEEDS_MESSAGE: &str =
    "schemes HmacSHA256 and Hmac need header, the name of the header that carries the signature";
const CUSTOM_RULE: &str =
    "(has(self.scheme) && self.scheme == 'Hmac') || (!has(self.algorithm) && !has(self.signedContent))";
const CUSTOM_MESSAGE: &str = "algorithm and signedContent belong to scheme Hmac";
const TTL_MESSAGE: &str = "previousSecretTTL must be a duration between 0s and 168h, such as 24h";

/// The header of a signature in CEL; empty for Standard Webhooks, whose header holds several.
macro_rules! cel_header {
    ($one:literal) => {
        concat!(
            "(has(",
            $one,
            ".header) ? ",
            $one,
            ".header.lowerAscii() : has(",
            $one,
            ".scheme) && ",
            $one,
            ".scheme == 'Stripe' ? 'stripe-signature' : has(",
            $one,
            ".scheme) && ",
            $one,
            ".scheme == 'GitHub' ? 'x-hub-signature-256' : '')"
        )
    };
}

/// No two signatures want one header.
const CLASH_RULE: &str = concat!(
    "!has(self.also) || self.also.all(one, ",
    cel_header!("one"),
    " == '' || (",
    cel_header!("one"),
    " != ",
    cel_header!("self"),
    " && self.also.exists_one(other, ",
    cel_header!("other"),
    " == ",
    cel_header!("one"),
    ")))"
);
/// No signature wants a header that `headers` sets.
pub(super) const HEADERS_RULE: &str = concat!(
    "!has(self.headers) || !has(self.signing) || self.headers.all(own, own.name.lowerAscii() != ",
    cel_header!("self.signing"),
    " && (!has(self.signing.also) || self.signing.also.all(one, own.name.lowerAscii() != ",
    cel_header!("one"),
    ")))"
);
/// What it says.
pub(super) const HEADERS_MESSAGE: &str = "signing.header is also set in headers; choose another name";

/// How requests are signed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new(HEADER_RULE).message(HEADER_MESSAGE))]
#[x_kube(validation = Rule::new(WRITING_RULE).message(WRITING_MESSAGE))]
#[x_kube(validation = Rule::new(NEEDS_RULE).message(NEEDS_MESSAGE))]
#[x_kube(validation = Rule::new(CUSTOM_RULE).message(CUSTOM_MESSAGE))]
#[x_kube(validation = Rule::new("!has(self.scheme) || self.scheme != 'None' || (!has(self.secretRef) && !has(self.previousSecretTTL) && !has(self.also))").message("scheme None signs nothing; remove secretRef, previousSecretTTL and also"))]
#[x_kube(validation = Rule::new(CLASH_RULE).message("two signatures want the same header; give one of them another"))]
#[serde(rename_all = "camelCase")]
pub struct SigningSpec {
    /// `StandardWebhooks` (default) or `StandardWebhooksEd25519`, `Stripe`, `GitHub`, `HmacSHA256` over the raw body in
    /// a header of your choice, `Hmac` with everything of your choice, or `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<SigningScheme>,
    /// Name of the header that carries the signature, for example `X-Acme-HMAC-SHA-256`. `HmacSHA256` and `Hmac` need
    /// it; `Stripe` (default `Stripe-Signature`) and `GitHub` (default `X-Hub-Signature-256`) take it. No header that
    /// the request has anyway, that `headers` sets, or that carries another signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(header_name_rule(&DEFAULT_HEADERS)).message(HEADER_NAME_MESSAGE))]
    pub header: Option<String>,
    /// `HmacSHA256` and `Hmac`: text before the signature, for example `sha256=`, at most 64 characters. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]*$')").message("use visible ASCII without spaces"))]
    pub prefix: Option<String>,
    /// `HmacSHA256` and `Hmac`: how the signature is written. Default: `Hex`, lower case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
    /// `Hmac`: the hash, `SHA256` (default), `SHA384`, `SHA512`, or `SHA1` for receivers that know nothing better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<SignatureAlgorithm>,
    /// `Hmac`: what is signed: text with the placeholders `{{ $.id }}` and `{{ $.timestamp }}` (the values of the
    /// headers `webhook-id` and `webhook-timestamp`), `{{ $.body }}` (the bytes that are sent; needed), `{{ $.url }}` and
    /// `{{ $.method }}`. At most 256 characters and 16 placeholders; default `{{ $.body }}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub signed_content: Option<String>,
    /// Secret that holds the key. Default: a generated one, named in `status.signingSecretRef`.
    /// `StandardWebhooks`: `whsec_` and base64 of 24 to 64 bytes. `StandardWebhooksEd25519`: `whsk_` and base64 of the
    /// 32 bytes of the seed, or of seed and public key. Others: the text itself is the key, at most 4096 bytes without
    /// a newline at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// How long the previous key still signs after the key has changed, 0s to 168h; `0s` not at all. Schemes with room
    /// for several signatures sign with both; the others, which have room for one, with the previous one, so that
    /// receivers can be given the new one meanwhile. Default: 24h; 0s for those with room for one and a `secretRef`.
    #[serde(
        default,
        rename = "previousSecretTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[x_kube(validation = Rule::new(duration_rule("self", "0s", "168h")).message(TTL_MESSAGE))]
    pub previous_secret_ttl: Option<DurationString>,
    /// Further signatures of the same requests, at most 4, for the time in which receivers move to another scheme.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub also: Vec<AlsoSigning>,
}

/// A further signature.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, KubeSchema)]
#[x_kube(validation = Rule::new(HEADER_RULE).message(HEADER_MESSAGE))]
#[x_kube(validation = Rule::new(WRITING_RULE).message(WRITING_MESSAGE))]
#[x_kube(validation = Rule::new(NEEDS_RULE).message(NEEDS_MESSAGE))]
#[x_kube(validation = Rule::new(CUSTOM_RULE).message(CUSTOM_MESSAGE))]
#[x_kube(validation = Rule::new("!has(self.scheme) || self.scheme != 'None'").message("a further signature has a scheme other than None; remove it instead"))]
#[serde(rename_all = "camelCase")]
pub struct AlsoSigning {
    /// Name of this signature: lower-case letters, digits and "-", at most 32. It is the key of the generated Secret,
    /// beside that of the first signature, `secret`.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$') && !(self in ['secret', 'rotation'])").message("use lower-case letters, digits and \"-\", and neither \"secret\" nor \"rotation\""))]
    pub name: String,
    /// As in `signing`, but not `None`. Default: `StandardWebhooks`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<SigningScheme>,
    /// As in `signing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(header_name_rule(&DEFAULT_HEADERS)).message(HEADER_NAME_MESSAGE))]
    pub header: Option<String>,
    /// As in `signing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = Rule::new("self.matches('^[!-~]*$')").message("use visible ASCII without spaces"))]
    pub prefix: Option<String>,
    /// As in `signing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<SignatureEncoding>,
    /// As in `signing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<SignatureAlgorithm>,
    /// As in `signing`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub signed_content: Option<String>,
    /// Secret that holds the key. Default: a generated one, under the key `name` of the Secret that holds the generated
    /// keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
    /// As in `signing`.
    #[serde(
        default,
        rename = "previousSecretTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[x_kube(validation = Rule::new(duration_rule("self", "0s", "168h")).message(TTL_MESSAGE))]
    pub previous_secret_ttl: Option<DurationString>,
}

impl AlsoSigning {
    /// The same as a first signature would be written.
    #[must_use]
    pub fn to_spec(&self) -> SigningSpec {
        let one = self.clone();
        SigningSpec {
            scheme: one.scheme,
            header: one.header,
            prefix: one.prefix,
            encoding: one.encoding,
            algorithm: one.algorithm,
            signed_content: one.signed_content,
            secret_ref: one.secret_ref,
            previous_secret_ttl: one.previous_secret_ttl,
            also: Vec::new(),
        }
    }
}

/// `StandardWebhooks` (default) signs as the Standard Webhooks specification says, `StandardWebhooksEd25519` so with a
/// key pair, of which receivers need only the public half; `Stripe` and `GitHub` sign as these services do;
/// `HmacSHA256` puts an HMAC of the raw body into a header of your choice; `Hmac` lets hash, content and form be
/// chosen too; `None` signs nothing.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum SigningScheme {
    /// `v1` of the Standard Webhooks specification.
    #[default]
    StandardWebhooks,
    /// `v1a` of the Standard Webhooks specification.
    StandardWebhooksEd25519,
    /// `t=…,v1=…`: HMAC-SHA-256 of timestamp, dot and raw body.
    Stripe,
    /// `sha256=…`: HMAC-SHA-256 of the raw body.
    GitHub,
    /// HMAC-SHA-256 of the raw body in one header.
    #[serde(rename = "HmacSHA256")]
    HmacSha256,
    /// HMAC with hash, content and form of your choice.
    Hmac,
    /// No signature.
    None,
}

/// `Hmac`: the hash, `SHA256` (default), `SHA384`, `SHA512` or `SHA1`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum SignatureAlgorithm {
    /// SHA-1.
    #[serde(rename = "SHA1")]
    Sha1,
    /// SHA-256.
    #[default]
    #[serde(rename = "SHA256")]
    Sha256,
    /// SHA-384.
    #[serde(rename = "SHA384")]
    Sha384,
    /// SHA-512.
    #[serde(rename = "SHA512")]
    Sha512,
}

/// `HmacSHA256` and `Hmac`: how the signature is written, `Hex` (default, lower case) or `Base64` (standard, with
/// padding).
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum SignatureEncoding {
    /// Lower-case hexadecimal.
    #[default]
    Hex,
    /// Standard base64 with padding.
    Base64,
}

/// What is known of one signature.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SignatureStatus {
    /// Name of the signature; `secret` is the first one's.
    pub name: String,
    /// Secret that holds the key.
    pub secret_ref: SecretKeyRef,
    /// `StandardWebhooksEd25519`: the key that receivers verify with, `whpk_` and base64. It is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// Until when a previous key signs too, or alone in schemes with room for one signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_secret_until: Option<Time>,
}

/// What came of a request for new keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRotation {
    /// Value of the annotation that asked for it, cut to 256 characters.
    pub requested: String,
    /// `Rotated`, or `NotRotated`.
    pub outcome: String,
    /// One word for it, for programs to go by.
    pub reason: String,
    /// What happened and what to do.
    pub message: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}
