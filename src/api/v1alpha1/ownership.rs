//! The proof that a receiver wants the events.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a receiver proves that it wants the events.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnershipProofSpec {
    /// `CloudEventsOptions`: it answers `OPTIONS` with `WebHook-Allowed-Origin`. `SignedChallenge`: it answers a signed
    /// request with the challenge in it.
    #[serde(rename = "type")]
    pub manner: OwnershipProofType,
}

/// `CloudEventsOptions` (handshake of the CloudEvents webhook specification 1.0) or `SignedChallenge`.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, JsonSchema)]
pub enum OwnershipProofType {
    /// An `OPTIONS` request.
    CloudEventsOptions,
    /// A signed `POST` request.
    SignedChallenge,
}

impl OwnershipProofType {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloudEventsOptions => "CloudEventsOptions",
            Self::SignedChallenge => "SignedChallenge",
        }
    }
}

/// What the receiver has agreed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnershipProofStatus {
    /// `CloudEventsOptions` or `SignedChallenge`.
    #[serde(rename = "type")]
    pub manner: String,
    /// When it agreed.
    pub proved_time: Time,
    /// Most requests in a minute that it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_rate: Option<i64>,
    /// Shows Postrider that it wrote this itself, for this URL.
    pub seal: String,
}
