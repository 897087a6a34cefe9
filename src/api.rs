//! The custom resources as users write them, and the names Postrider uses on other objects.
//!
//! Types here are wire types: they decode whatever the API server holds and decide nothing.
//! Validation beyond what a schema can say is `domain`'s.

pub mod conditions;
pub mod manifest;
pub mod names;
pub mod v1alpha1;

/// The API group of every custom resource.
pub const GROUP: &str = "postrider.dev";

/// The group and version of every custom resource, as manifests write it.
pub const API_VERSION: &str = "postrider.dev/v1alpha1";

/// The field manager of every server-side apply, and the reporting controller of Kubernetes Events.
pub const FIELD_MANAGER: &str = "postrider";

/// Asks for a reconcile; the value is any token, echoed in `status.lastHandledReconcileAt`.
pub const RECONCILE_ANNOTATION: &str = "postrider.dev/reconcile";

/// Flux's own request annotation, honoured beside [`RECONCILE_ANNOTATION`].
pub const FLUX_RECONCILE_ANNOTATION: &str = "reconcile.fluxcd.io/requestedAt";

/// Asks for a test send: `TOKEN`, or `TYPE@TOKEN` for the example of an event type; a value is handled once and echoed
/// in `status.lastHandledTest`.
pub const TEST_ANNOTATION: &str = "postrider.dev/test";

/// Asks for new signing keys in the place of the generated ones; a token is handled once and echoed in
/// `status.lastHandledRotateSecret`.
pub const ROTATE_ANNOTATION: &str = "postrider.dev/rotate-secret";
/// Asks for a replay: `since=TIME token=TOKEN`, with `until=TIME`, `type=TYPE` and `failed` as wanted, `failed
/// token=TOKEN` or `id=EVENT token=TOKEN`; a value is handled once and echoed in `status.lastHandledReplay`.
pub const REPLAY_ANNOTATION: &str = "postrider.dev/replay";

/// On a destination that a project's notifications made: `true` keeps its events and sends nothing.
pub const SUSPEND_ANNOTATION: &str = "postrider.dev/suspend";

/// On a destination that a project's notifications made: what it is for.
pub const NOTIFICATION_LABEL: &str = "postrider.dev/notification";

/// Re-enables an auto-disabled destination; a token is handled once and echoed in `status.lastHandledEnable`.
pub const ENABLE_ANNOTATION: &str = "postrider.dev/enable";

#[cfg(test)]
mod tests {
    //! The group is written in several texts that must agree.

    use kube::Resource as _;

    use super::*;
    use crate::api::v1alpha1::{EventDestination, EventProject};

    #[test]
    fn every_name_that_holds_the_group_holds_this_one() {
        let versions = [EventProject::api_version(&()), EventDestination::api_version(&())];
        assert_eq!(versions, [API_VERSION; 2]);
        assert_eq!(EventProject::group(&()), GROUP);
        for name in [
            API_VERSION,
            RECONCILE_ANNOTATION,
            ENABLE_ANNOTATION,
            REPLAY_ANNOTATION,
        ] {
            assert_eq!(name.split('/').next(), Some(GROUP));
        }
    }
}
