//! [`Observed`]: an object as the API server holds it, whether or not its spec decodes.
//!
//! A typed watch ends at the first object that does not decode: one bad object would blind the operator to all
//! others. This wrapper takes every object. When the spec does not decode it keeps the reason, so that the object can
//! be reported, and what could be read of the subscription, which counts while no better one is known.
//! `managedFields` and the copy that `kubectl apply` leaves in an annotation are dropped on the way in, because the
//! store would hold them.

use std::borrow::Cow;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt as _};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::api::conditions::Condition;
use crate::api::v1alpha1::{EventDestination, EventProject};
use crate::api::{
    ENABLE_ANNOTATION, FLUX_RECONCILE_ANNOTATION, RECONCILE_ANNOTATION, REPLAY_ANNOTATION, ROTATE_ANNOTATION,
    TEST_ANNOTATION,
};
use crate::domain::id::{ObjectKey, Uid};
use crate::domain::test_send::echo;
use crate::engine::directory::Kind;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Most characters of a decoding error; it quotes the offending value.
const MAX_ERROR: usize = 512;
/// Deepest level at which the field that does not decode is looked for.
const MAX_LEVELS: usize = 32;

/// A kind that is watched.
pub(super) trait Watched:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + 'static
{
    /// What the user wrote.
    type Spec: Clone + Debug + DeserializeOwned + Send + Sync + 'static;
    /// What we found out.
    type Status: Clone + Debug + DeserializeOwned + serde::Serialize + PartialEq + Send + Sync + 'static;
    /// Its name in the directory.
    const KIND: Kind;

    /// The conditions of a status.
    fn conditions(status: &Self::Status) -> &[Condition];
}

impl Watched for EventProject {
    type Spec = crate::api::v1alpha1::EventProjectSpec;
    type Status = crate::api::v1alpha1::EventProjectStatus;
    const KIND: Kind = Kind::Project;

    fn conditions(status: &Self::Status) -> &[Condition] {
        &status.conditions
    }
}

impl Watched for EventDestination {
    type Spec = crate::api::v1alpha1::EventDestinationSpec;
    type Status = crate::api::v1alpha1::EventDestinationStatus;
    const KIND: Kind = Kind::Destination;

    fn conditions(status: &Self::Status) -> &[Condition] {
        &status.conditions
    }
}

/// An object as the API server holds it.
#[derive(Clone, Debug)]
pub(super) struct Observed<K: Watched> {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: Result<K::Spec, Undecodable>,
    /// `None` also when it does not decode: it will be written anew.
    pub(super) status: Option<K::Status>,
}

/// What could be read of a spec that does not decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Undecodable {
    /// Where and why.
    pub(super) error: String,
    pub(super) project: Option<String>,
    pub(super) events: Vec<String>,
}

impl<K: Watched> Observed<K> {
    /// Namespace and name; `None` for what the API server never serves.
    pub(super) fn key(&self) -> Option<ObjectKey> {
        Some(ObjectKey::new(
            self.metadata.namespace.as_deref()?,
            self.metadata.name.as_deref()?,
        ))
    }

    pub(super) fn uid(&self) -> Option<Uid> {
        self.metadata.uid.as_deref().map(Uid::new)
    }

    pub(super) fn generation(&self) -> i64 {
        self.metadata.generation.unwrap_or_default()
    }

    /// It is being deleted: somebody's finalizer holds it, or what it owns goes first.
    pub(super) fn is_ending(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// Nothing was found out about it yet; the API server gives it a status of its own.
    pub(super) fn is_new(&self) -> bool {
        let status = self.status.as_ref();
        status.is_none_or(|status| K::conditions(status).is_empty())
    }

    pub(super) fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations().get(name).map(String::as_str)
    }

    pub(super) fn enable_request(&self) -> Option<&str> {
        // An empty value asks, too; a long one is a token by its beginning.
        self.annotation(ENABLE_ANNOTATION).map(echo)
    }

    pub(super) fn replay_request(&self) -> Option<&str> {
        self.annotation(REPLAY_ANNOTATION)
    }

    pub(super) fn test_request(&self) -> Option<&str> {
        self.annotation(TEST_ANNOTATION)
    }

    pub(super) fn rotate_request(&self) -> Option<&str> {
        self.annotation(ROTATE_ANNOTATION)
    }

    /// Ours and Flux's.
    pub(super) fn reconcile_requests(&self) -> [Option<&str>; 2] {
        [RECONCILE_ANNOTATION, FLUX_RECONCILE_ANNOTATION].map(|name| self.annotation(name).map(echo))
    }

    /// What an owned object says of this one. It does not block the owner's deletion, which would need the right to
    /// set finalizers on the owner.
    pub(super) fn owner_reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: K::api_version(&()).into_owned(),
            kind: K::kind(&()).into_owned(),
            name: self.name_any(),
            uid: self.metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: None,
        }
    }

    pub(super) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some(K::api_version(&()).into_owned()),
            kind: Some(K::kind(&()).into_owned()),
            name: self.metadata.name.clone(),
            namespace: self.metadata.namespace.clone(),
            uid: self.metadata.uid.clone(),
            ..ObjectReference::default()
        }
    }
}

impl<K: Watched> Resource for Observed<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind(dynamic: &()) -> Cow<'_, str> {
        K::kind(dynamic)
    }

    fn group(dynamic: &()) -> Cow<'_, str> {
        K::group(dynamic)
    }

    fn version(dynamic: &()) -> Cow<'_, str> {
        K::version(dynamic)
    }

    fn plural(dynamic: &()) -> Cow<'_, str> {
        K::plural(dynamic)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl<'de, K: Watched> Deserialize<'de> for Observed<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Raw {
            metadata: ObjectMeta,
            #[serde(default)]
            spec: Value,
            #[serde(default)]
            status: Value,
        }

        let Raw {
            mut metadata,
            spec,
            status,
        } = Raw::deserialize(deserializer)?;
        if metadata.uid.is_none() {
            return Err(D::Error::custom("metadata.uid is missing"));
        }
        metadata.managed_fields = None;
        if let Some(annotations) = &mut metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
        // What is left out is empty: the fault, if that is one, names the missing field.
        let spec = match spec {
            Value::Null => Value::Object(serde_json::Map::new()),
            spec => spec,
        };
        let spec = K::Spec::deserialize(&spec).map_err(|error| Undecodable::of::<K::Spec>(&spec, &error));
        Ok(Self {
            metadata,
            spec,
            status: K::Status::deserialize(&status).ok(),
        })
    }
}

impl Undecodable {
    fn of<S: DeserializeOwned>(spec: &Value, error: &serde_json::Error) -> Self {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let events = spec.get("events").and_then(Value::as_array);
        let mut message = format!("spec{}: {error}", locate::<S>(spec, &error.to_string()));
        if let Some((end, _)) = message.char_indices().nth(MAX_ERROR) {
            message.truncate(end);
        }
        Self {
            error: message,
            project: spec.pointer("/projectRef/name").and_then(text),
            events: events.into_iter().flatten().filter_map(text).collect(),
        }
    }
}

/// The path below `spec` of the value that an error is about.
///
/// Decoding goes through a list or object in its order and ends at the first error. So the guilty member is the last
/// one of the shortest beginning that fails in the same way, and halving finds it: a few decodings for each level,
/// however long a list is. What fails with no member at all lacks something, and is itself what the error is about.
fn locate<S: DeserializeOwned>(spec: &Value, error: &str) -> String {
    let is_lack = error.starts_with("missing field");
    let (mut path, mut pointer) = (String::new(), String::new());
    let mut copy = spec.clone();
    for _ in 0..MAX_LEVELS {
        let Some(here) = spec.pointer(&pointer) else { break };
        let mut fails = |count: usize| {
            let Some(place) = copy.pointer_mut(&pointer) else {
                return false;
            };
            *place = beginning(here, count);
            S::deserialize(&copy).is_err_and(|other: serde_json::Error| other.to_string() == error)
        };
        let Some(count) = shortest(length(here), &mut fails) else {
            break;
        };
        fails(count);
        let (name, step, guilty) = match here {
            Value::Object(members) => match members.iter().nth(count - 1) {
                Some((key, guilty)) => {
                    let step = key.replace('~', "~0").replace('/', "~1");
                    (format!(".{key}"), step, guilty)
                }
                None => break,
            },
            Value::Array(items) => match items.get(count - 1) {
                Some(guilty) => (format!("[{}]", count - 1), (count - 1).to_string(), guilty),
                None => break,
            },
            _ => break,
        };
        // Only an object can lack a field: another one beside this member is lacking.
        if is_lack && length(guilty) == 0 && !guilty.is_object() {
            break;
        }
        path.push_str(&name);
        pointer = format!("{pointer}/{step}");
    }
    path
}

/// The least number, above none and up to `most`, with which it fails; `None` when none does, or nothing is enough.
fn shortest(most: usize, fails: &mut impl FnMut(usize) -> bool) -> Option<usize> {
    if fails(0) || !fails(most) {
        return None;
    }
    let (mut good, mut bad) = (0, most);
    while bad - good > 1 {
        let middle = good.midpoint(bad);
        if fails(middle) {
            bad = middle;
        } else {
            good = middle;
        }
    }
    Some(bad)
}

fn length(value: &Value) -> usize {
    match value {
        Value::Object(members) => members.len(),
        Value::Array(items) => items.len(),
        _ => 0,
    }
}

/// The first members of a list or object.
fn beginning(value: &Value, count: usize) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.iter().take(count);
            Value::Object(
                members
                    .map(|(name, member)| (name.clone(), member.clone()))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().take(count).cloned().collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::v1alpha1::EventProjectSpec;

    fn read(spec: &Value) -> Observed<EventDestination> {
        let metadata = json!({
            "name": "x", "namespace": "ns", "uid": "u", "generation": 3,
            "managedFields": [{"manager": "m"}],
            "annotations": {LAST_APPLIED: "{}", ENABLE_ANNOTATION: "now"},
        });
        serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": {"conditions": 5}}))
            .unwrap()
    }

    #[test]
    fn a_good_object_decodes_without_what_the_store_need_not_hold() {
        let object = read(&json!({"events": ["*"], "webhook": {"url": "https://a.example"}}));
        assert_eq!(object.spec.unwrap().events, ["*"]);
        assert!(object.metadata.managed_fields.is_none());
        assert_eq!(object.metadata.annotations.unwrap().len(), 1);
        assert!(object.status.is_none());
    }

    #[test]
    fn a_bad_object_says_where_and_why_and_still_subscribes() {
        for (spec, expected) in [
            (
                json!({"events": ["a", 5, "b"], "projectRef": {"name": "acme"}}),
                "spec.events[1]: invalid type: integer `5`, expected a string",
            ),
            (
                json!({"events": ["a", "b"], "projectRef": {"name": "acme"}, "delivery": {"retry": {"maxAttempts": "ten"}}}),
                "spec.delivery.retry.maxAttempts: invalid type: string \"ten\", expected i32",
            ),
            (
                json!({"projectRef": {"name": "acme"}}),
                "spec: missing field `events`",
            ),
            (
                json!({"events": ["a", "b"], "projectRef": {"name": "acme"}, "webhook": {"urlFrom": {"secretKeyRef": {"name": "s"}}}}),
                "spec.webhook.urlFrom.secretKeyRef: missing field `key`",
            ),
            (
                json!({"events": ["a", "b"], "projectRef": {"name": "acme"}, "webhook": {"headers": [{"name": "A"}, {"value": "1"}]}}),
                "spec.webhook.headers[1]: missing field `name`",
            ),
            (
                json!({"events": ["a", "b"], "projectRef": {"name": "acme"}, "suspend": null}),
                "spec.suspend: invalid type: null, expected a boolean",
            ),
        ] {
            let bad = read(&spec).spec.unwrap_err();
            assert_eq!(bad.error, expected);
            assert_eq!(bad.project.as_deref(), Some("acme"));
            let wanted: &[&str] = if spec.get("events").is_some() {
                &["a", "b"]
            } else {
                &[]
            };
            assert_eq!(bad.events, wanted);
        }
    }

    #[test]
    fn a_spec_that_is_left_out_is_empty() {
        let metadata = json!({"name": "x", "namespace": "ns", "uid": "u"});
        for object in [
            json!({"metadata": metadata}),
            json!({"metadata": metadata, "spec": null}),
        ] {
            let project: Observed<EventProject> = serde_json::from_value(object.clone()).unwrap();
            assert_eq!(project.spec.unwrap(), EventProjectSpec::default());
            let destination: Observed<EventDestination> = serde_json::from_value(object).unwrap();
            assert_eq!(
                destination.spec.unwrap_err().error,
                "spec: missing field `events`"
            );
        }
    }

    #[test]
    fn a_fault_far_down_a_long_list_is_found_with_few_trials() {
        let mut headers: Vec<Value> = (0..5000).map(|n| json!({"name": n.to_string()})).collect();
        headers[4321] = json!({"name": 7});
        let spec = json!({"events": ["a"], "webhook": {"headers": headers}});
        let bad = read(&spec).spec.unwrap_err();
        assert_eq!(
            bad.error,
            "spec.webhook.headers[4321].name: invalid type: integer `7`, expected a string"
        );
        let mut trials = 0;
        let found = shortest(5000, &mut |count| {
            trials += 1;
            count > 4321
        });
        assert_eq!(found, Some(4322));
        assert!(trials < 20, "{trials}");
    }
}
