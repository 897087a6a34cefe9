//! Writing a status: server-side apply, one field manager, and only when it differs. What people should hear of goes
//! to the log, a metric and a Kubernetes Event.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;

use super::context::Shared;
use super::error::Error;
use super::observed::{Observed, Watched};
use crate::api::FIELD_MANAGER;
use crate::domain::id::Uid;
use crate::domain::status::{Change, Notice, Pace, notices, pace};

/// Writes a status if it is time to, and tells people what happened. Answers with when to look again, if it is not.
pub(super) async fn write<K>(
    shared: &Shared,
    object: &Observed<K>,
    uid: &Uid,
    (next, change): (K::Status, Change),
    spacing: Duration,
) -> Result<Option<Duration>, Error>
where
    K: Watched + Clone + Debug,
{
    match pace(change, shared.since_written(uid), spacing) {
        Pace::Nothing => return Ok(None),
        Pace::After(wait) => return Ok(Some(wait)),
        Pace::Now => {}
    }
    if !apply(shared, object, &next).await? {
        return Ok(None);
    }
    shared.context.metrics.status_written(K::KIND);
    let previous = current(shared, object, uid);
    let before = previous.as_deref().map(K::conditions).unwrap_or_default();
    let notices = notices(before, K::conditions(&next));
    for notice in &notices {
        report(shared, object, notice);
    }
    shared.notices.tell(notices, &object.reference());
    shared.status_written::<K>(uid, object.resource_version(), next);
    Ok(None)
}

/// Logs and counts what people are told.
fn report<K: Watched>(shared: &Shared, object: &Observed<K>, notice: &Notice) {
    shared.context.metrics.noticed(K::KIND, &notice.reason);
    tracing::info!(
        kind = K::KIND.as_str(),
        object.namespace = object.metadata.namespace,
        object.name = object.metadata.name,
        warning = notice.warning,
        reason = notice.reason,
        detail = notice.message,
        "status changed"
    );
}

/// The status as it is, as far as is known.
pub(super) fn current<K: Watched>(
    shared: &Shared,
    object: &Observed<K>,
    uid: &Uid,
) -> Option<Arc<K::Status>> {
    shared.current_status::<K>(
        uid,
        object.metadata.resource_version.as_deref(),
        object.status.as_ref(),
    )
}

/// `false`: the object is gone, or its name belongs to another one by now.
async fn apply<K>(shared: &Shared, object: &Observed<K>, status: &K::Status) -> Result<bool, Error>
where
    K: Watched + Clone + Debug,
{
    let (name, namespace) = (object.name_any(), object.namespace().unwrap_or_default());
    let api = Api::<Observed<K>>::namespaced(shared.client.clone(), &namespace);
    let whole = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name, "uid": object.metadata.uid},
        "status": status,
    });
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let mut result = api.patch_status(&name, &params, &Patch::Apply(&whole)).await;
    if object.spec.is_err() && result.is_err() {
        // Server-side apply merges typed values, and this object's are of the wrong type.
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let part = json!({"metadata": {"uid": object.metadata.uid}, "status": status});
        result = api.patch_status(&name, &params, &Patch::Merge(&part)).await;
    }
    match result {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(Error::request("write the status")(error)),
    }
}
