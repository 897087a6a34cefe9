//! Reading ConfigMaps: values that are no secret, such as the bundle of authorities that trust-manager writes.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use super::error::Error;
use crate::api::names::is_name;

/// Reads a ConfigMap. The API server holds none over 1 MiB.
pub(super) async fn read(client: &Client, namespace: &str, name: &str) -> Result<Option<ConfigMap>, Error> {
    // A name becomes a part of the request's path, see `secrets::read`.
    if !is_name(name) {
        return Ok(None);
    }
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    api.get_opt(name)
        .await
        .map_err(Error::request(format!("read ConfigMap {name:?}")))
}

/// A key's value, which is text or bytes.
pub(super) fn data<'a>(object: &'a ConfigMap, key: &str) -> Option<&'a [u8]> {
    let text = object.data.as_ref().and_then(|data| data.get(key));
    let bytes = || {
        object
            .binary_data
            .as_ref()?
            .get(key)
            .map(|value| value.0.as_slice())
    };
    text.map(String::as_bytes).or_else(bytes)
}
