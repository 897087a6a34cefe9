//! Condition types and reasons, one word each, shared by conditions, Kubernetes Events, metrics and logs.
//!
//! Reasons of failed attempts are `domain::outcome::FailureReason`; they appear in `Delivering`.

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The configuration is in force. Does not flip because a receiver is down.
pub const READY: &str = "Ready";
/// Events reach the receiver.
pub const DELIVERING: &str = "Delivering";
/// Abnormal-true: the newest generation is not in force yet.
pub const RECONCILING: &str = "Reconciling";
/// Abnormal-true: a person must act.
pub const STALLED: &str = "Stalled";
/// Abnormal-true: the queue's file was found damaged, and was mended or replaced; the message says what was kept.
pub const STORE_REPAIRED: &str = "StoreRepaired";

/// Reasons of `Ready`, `Reconciling` and `Stalled`.
pub mod reason {
    /// The configuration is in force.
    pub const SUCCEEDED: &str = "Succeeded";
    /// The spec has faults; the message lists every one with its field path.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The object does not decode as this version's type.
    pub const UNDECODABLE: &str = "Undecodable";
    /// A referenced Secret or key is missing.
    pub const REFERENCE_MISSING: &str = "ReferenceMissing";
    /// The API server could not be asked; will be retried.
    pub const PROGRESSING: &str = "Progressing";
    /// The receiver has not proved yet that it wants the events; it is asked again.
    pub const OWNERSHIP_UNPROVED: &str = "OwnershipUnproved";
    /// The receiver says that it does not want the events, or says nothing that proves it.
    pub const OWNERSHIP_REFUSED: &str = "OwnershipRefused";
    /// Disabled after too many failures in a row.
    pub const AUTO_DISABLED: &str = "AutoDisabled";
    /// The receiver answered 410.
    pub const GONE: &str = "Gone";
    /// The queue's file was damaged; of `StoreRepaired`.
    pub const FILE_DAMAGED: &str = "FileDamaged";
    /// `spec.suspend` is true.
    pub const SUSPENDED: &str = "Suspended";
    /// No attempt has been made yet.
    pub const NO_ATTEMPTS: &str = "NoAttempts";
    /// The last attempt succeeded.
    pub const DELIVERED: &str = "Delivered";
    /// Of a Kubernetes Event: the first success after failures.
    pub const RECOVERED: &str = "Recovered";
    /// Of a Kubernetes Event: `spec.suspend` holds events back no more.
    pub const RESUMED: &str = "Resumed";
}
