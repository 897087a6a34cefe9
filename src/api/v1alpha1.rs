//! Version `v1alpha1` of the custom resources.
#![allow(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "the derives of kube repeat each struct inside a function, and each printcolumn repeats its keys"
)]

pub mod common;
pub mod delivery;
pub mod email;
pub mod event_destination;
pub mod event_project;
pub mod ownership;
pub mod payload;
pub mod replay;
pub mod request;
pub mod signing;

pub use common::{
    CaSource, ConfigMapKeyRef, ConfigMapKeySource, DurationString, LocalReference, SecretKeyRef,
    SecretKeySource,
};
pub use email::EmailTarget;
pub use event_destination::{EventDestination, EventDestinationSpec, EventDestinationStatus};
pub use event_project::{EventProject, EventProjectSpec, EventProjectStatus};
