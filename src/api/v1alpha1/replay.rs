//! What the status of an `EventDestination` tells of a replay.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What came of a replay: stored events that are delivered again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastReplay {
    /// Value of the annotation that asked for it.
    pub requested: String,
    /// `Running`, `Done`, `Stopped` when it ended early, `Interrupted` when the operator was restarted meanwhile, or
    /// `Refused` when the value makes no sense.
    pub outcome: String,
    /// What happened and what to do.
    pub message: String,
    /// Deliveries that were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replayed: Option<i64>,
    /// Events whose delivery waited or was under way anyway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub already_waiting: Option<i64>,
    /// Events that retention has removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_longer_stored: Option<i64>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<Time>,
}
