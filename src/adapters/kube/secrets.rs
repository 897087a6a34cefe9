//! Reading Secrets, and making those that Postrider owns.
//!
//! A Secret is made once, when it is not there, and belongs to its object, so that it goes with it. What is in it is
//! never changed: a value that somebody put there is used. A Secret of the right name that is not ours is a fault,
//! never overwritten. Deleting ours, or its key, asks for a new value; of an object that is itself being deleted, it
//! does not: nothing is made that would have to be collected at once.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::error::Error;
use crate::api::FIELD_MANAGER;
use crate::api::names::is_name;

/// Keys of a Secret with their text.
pub(super) type Values = BTreeMap<String, String>;

const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// A Secret that Postrider makes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted<'a> {
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
    /// Keys that it must have.
    pub(super) keys: &'a [&'a str],
    pub(super) owner: &'a OwnerReference,
    /// The owner is new, so the Secret is probably not there: try to make it before looking for it.
    pub(super) first: bool,
    /// The owner is being deleted: what is not there is not made.
    pub(super) ending: bool,
}

/// What was found or made.
#[derive(Debug)]
pub(super) enum Ensured {
    /// It is there, it is ours, and it has the key.
    Ours(Box<Secret>),
    /// It belongs to somebody else.
    Foreign,
    /// It belongs to an object of the same name that is gone, and will be collected.
    Leftover,
    /// It is not there, or lacks the key, and its owner is being deleted.
    Missing,
}

/// Reads a Secret.
pub(super) async fn read(client: &Client, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
    // A name becomes a part of the request's path: `../../x/secrets/y` would be another namespace's Secret.
    if !is_name(name) {
        return Ok(None);
    }
    let api = Api::<Secret>::namespaced(client.clone(), namespace);
    api.get_opt(name)
        .await
        .map_err(Error::request(format!("read Secret {name:?}")))
}

/// Finds a Secret that Postrider owns, or makes it. `values` says what becomes of the keys that are missing.
pub(super) async fn ensure(
    client: &Client,
    wanted: Wanted<'_>,
    values: impl Fn(&[&str]) -> Values,
) -> Result<Ensured, Error> {
    if wanted.ending {
        return match read(client, wanted.namespace, wanted.name).await? {
            Some(secret) => claim(client, wanted, secret, values).await,
            None => Ok(Ensured::Missing),
        };
    }
    let mut create_first = wanted.first;
    // Twice at most: the Secret may appear or vanish between the look and the deed.
    loop {
        if create_first && let Some(made) = create(client, wanted, values(wanted.keys)).await? {
            return Ok(Ensured::Ours(Box::new(made)));
        }
        match read(client, wanted.namespace, wanted.name).await? {
            Some(secret) => return claim(client, wanted, secret, values).await,
            None if create_first => return Ok(Ensured::Leftover),
            None => create_first = true,
        }
    }
}

/// `None`: there is one already.
async fn create(client: &Client, wanted: Wanted<'_>, values: Values) -> Result<Option<Secret>, Error> {
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(wanted.name.to_owned()),
            namespace: Some(wanted.namespace.to_owned()),
            labels: Some(BTreeMap::from([(
                MANAGED_BY.to_owned(),
                FIELD_MANAGER.to_owned(),
            )])),
            owner_references: Some(vec![wanted.owner.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(
            values
                .into_iter()
                .map(|(key, value)| (key, ByteString(value.into_bytes())))
                .collect(),
        ),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match Api::<Secret>::namespaced(client.clone(), wanted.namespace)
        .create(&params, &secret)
        .await
    {
        Ok(made) => Ok(Some(made)),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(None),
        Err(error) => Err(Error::request(format!("create Secret {:?}", wanted.name))(error)),
    }
}

async fn claim(
    client: &Client,
    wanted: Wanted<'_>,
    secret: Secret,
    values: impl Fn(&[&str]) -> Values,
) -> Result<Ensured, Error> {
    let owners = secret.metadata.owner_references.as_deref().unwrap_or_default();
    if !owners.iter().any(|owner| owner.uid == wanted.owner.uid) {
        let namesake =
            |owner: &OwnerReference| owner.kind == wanted.owner.kind && owner.name == wanted.owner.name;
        return Ok(if owners.iter().any(namesake) {
            Ensured::Leftover
        } else {
            Ensured::Foreign
        });
    }
    let lacks = |key: &&&str| data(&secret, key).is_none_or(<[u8]>::is_empty);
    let missing: Vec<&str> = wanted.keys.iter().filter(lacks).copied().collect();
    if missing.is_empty() {
        return Ok(Ensured::Ours(Box::new(secret)));
    }
    if wanted.ending {
        return Ok(Ensured::Missing);
    }
    let filled = fill(client, &secret, &values(&missing)).await?;
    Ok(Ensured::Ours(Box::new(filled)))
}

/// Sets keys of a Secret, only if nobody else writes meanwhile.
pub(super) async fn fill(client: &Client, secret: &Secret, values: &Values) -> Result<Secret, Error> {
    let patch = json!({
        "metadata": {"resourceVersion": secret.metadata.resource_version, "uid": secret.metadata.uid},
        "stringData": values,
    });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let (name, namespace) = (secret.name_any(), secret.namespace().unwrap_or_default());
    Api::<Secret>::namespaced(client.clone(), &namespace)
        .patch(&name, &params, &Patch::Merge(&patch))
        .await
        .map_err(Error::request(format!("fill Secret {name:?}")))
}

/// A key's value.
pub(super) fn data<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(key).map(|value| value.0.as_slice())
}
