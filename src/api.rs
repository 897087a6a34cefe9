//! The custom resources as users write them, and the names Postrider uses on other objects.
//!
//! Types here are wire types: they decode whatever the API server holds and decide nothing.
//! Validation beyond what a schema can say is `domain`'s.

pub mod conditions;
pub mod manifest;
pub mod v1alpha1;

/// The API group of every custom resource.
pub const GROUP: &str = "postrider.dev";

/// The field manager of every server-side apply, and the reporting controller of Kubernetes Events.
pub const FIELD_MANAGER: &str = "postrider";

/// Asks for a reconcile; the value is any token, echoed in `status.lastHandledReconcileAt`.
pub const RECONCILE_ANNOTATION: &str = "postrider.dev/reconcile";

/// Flux's own request annotation, honoured beside [`RECONCILE_ANNOTATION`].
pub const FLUX_RECONCILE_ANNOTATION: &str = "reconcile.fluxcd.io/requestedAt";

/// On a destination that a project's notifications made: `true` keeps its events and sends nothing.
pub const SUSPEND_ANNOTATION: &str = "postrider.dev/suspend";

/// On a destination that a project's notifications made: what it is for.
pub const NOTIFICATION_LABEL: &str = "postrider.dev/notification";

/// Re-enables an auto-disabled destination; a token is handled once and echoed in `status.lastHandledEnable`.
pub const ENABLE_ANNOTATION: &str = "postrider.dev/enable";
