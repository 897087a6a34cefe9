//! Secrets and ConfigMaps that the user gave: manifests among the files, and `--secret`.
//!
//! Values are wrapped as soon as they are read and are never part of a message.

use std::collections::BTreeMap;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::input::Document;
use crate::api::v1alpha1::SecretKeyRef;
use crate::domain::destination::{Holder, Reference, ValueRef};
use crate::domain::fault::Faults;
use crate::domain::secret::Secret;

/// One `--secret NAME/KEY=VALUE`.
#[derive(Clone, Debug)]
pub(super) struct GivenSecret {
    key: SecretKeyRef,
    value: Secret<Vec<u8>>,
}

impl FromStr for GivenSecret {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text
            .split_once('/')
            .and_then(|(name, rest)| rest.split_once('=').map(|(key, value)| (name, key, value)))
            .filter(|(name, key, _)| !name.is_empty() && !key.is_empty());
        let (name, key, value) =
            parts.ok_or("give the Secret's name, its key and the value as NAME/KEY=VALUE")?;
        Ok(Self {
            key: SecretKeyRef {
                name: name.to_owned(),
                key: key.to_owned(),
            },
            value: Secret::new(value.as_bytes().to_vec()),
        })
    }
}

/// Secrets and ConfigMaps by name.
#[derive(Debug, Default)]
pub(super) struct Holders(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    holder: Holder,
    name: String,
    namespace: Option<String>,
    data: BTreeMap<String, Secret<Vec<u8>>>,
}

impl Holders {
    /// What a document holds values as; `None`: it does not.
    pub(super) fn holder(document: &Document) -> Option<Holder> {
        let kind = document
            .text("kind")
            .filter(|_| document.text("apiVersion") == Some("v1"))?;
        [Holder::Secret, Holder::ConfigMap]
            .into_iter()
            .find(|holder| holder.as_str() == kind)
    }

    /// Adds the Secrets and ConfigMaps of documents; what is wrong with them is returned.
    pub(super) fn add_all<'a>(
        &mut self,
        documents: impl Iterator<Item = &'a Document>,
    ) -> Vec<(&'a Document, Faults)> {
        documents
            .filter_map(|document| Some((document, self.add(document, Self::holder(document)?))))
            .collect()
    }

    fn add(&mut self, document: &Document, holder: Holder) -> Faults {
        let mut faults = Faults::default();
        let Some(name) = document.metadata("name") else {
            // Nothing of ours can refer to it; most ConfigMaps are somebody else's business.
            if holder == Holder::Secret {
                faults.invalid("metadata.name", "is missing");
            }
            return faults;
        };
        let mut data = BTreeMap::new();
        let mut members = |field: &str, decode: fn(&str) -> Option<Vec<u8>>, wanted: &str| {
            let members = document.value.get(field).and_then(Value::as_object);
            for (key, value) in members.into_iter().flatten() {
                match value.as_str().and_then(decode) {
                    Some(value) => drop(data.insert(key.clone(), Secret::new(value))),
                    None => faults.invalid(format!("{field}.{key}"), format!("must be {wanted}")),
                }
            }
        };
        let [text, bytes] = match holder {
            Holder::Secret => ["stringData", "data"],
            Holder::ConfigMap => ["data", "binaryData"],
        };
        members(bytes, decode, "base64");
        members(text, |text| Some(text.as_bytes().to_vec()), "a string");
        self.0.push(Entry {
            holder,
            name: name.to_owned(),
            namespace: document.metadata("namespace").map(str::to_owned),
            data,
        });
        faults
    }

    /// Adds a value of the command line, which wins over files and is in every namespace.
    pub(super) fn give(&mut self, given: &GivenSecret) {
        let data = BTreeMap::from([(given.key.key.clone(), given.value.clone())]);
        let entry = Entry {
            holder: Holder::Secret,
            name: given.key.name.clone(),
            namespace: None,
            data,
        };
        self.0.insert(0, entry);
    }

    /// What a reference leads to; a namespace that is not written down is any.
    pub(super) fn find(&self, namespace: Option<&str>, of: &ValueRef) -> Reference {
        let mut found = Reference::NoObject;
        let is_it = |entry: &&Entry| entry.holder == of.holder && entry.name == of.name;
        for entry in self.0.iter().filter(is_it) {
            let elsewhere = matches!((&entry.namespace, namespace), (Some(a), Some(b)) if a != b);
            if elsewhere {
                continue;
            }
            match entry.data.get(&of.key) {
                Some(value) => return Reference::Found(value.clone()),
                None => found = Reference::NoKey,
            }
        }
        found
    }
}

/// Base64 as in a Secret; line breaks are allowed there.
fn decode(text: &str) -> Option<Vec<u8>> {
    let text: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::plugin::input;
    use crate::domain::destination::secret as key;

    #[test]
    fn a_key_is_found_in_its_namespace() {
        let text = "{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: x}, \
                    data: {k: czNjcmV0, bad: '?'}, stringData: {t: text}}";
        let document = &input::parse("f", text).unwrap()[0];
        let mut holders = Holders::default();
        let (_, faults) = holders.add_all([document].into_iter()).remove(0);
        assert_eq!(faults.to_string(), "data.bad: must be base64");
        let found = |text: &str| Reference::Found(Secret::new(text.as_bytes().to_vec()));
        assert_eq!(holders.find(Some("x"), &key("a", "k")), found("s3cret"));
        assert_eq!(holders.find(None, &key("a", "t")), found("text"));
        assert_eq!(holders.find(Some("x"), &key("a", "other")), Reference::NoKey);
        assert_eq!(holders.find(Some("y"), &key("a", "k")), Reference::NoObject);
        holders.give(&"a/k=mine=1".parse().unwrap());
        assert_eq!(holders.find(Some("x"), &key("a", "k")), found("mine=1"));
        assert_eq!(holders.find(Some("x"), &key("a", "t")), found("text"));
        assert!("a=b".parse::<GivenSecret>().is_err());
    }

    #[test]
    fn a_config_map_holds_text_and_bytes_and_is_no_secret() {
        let text =
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {t: text}, binaryData: {b: YQ==}}";
        let document = &input::parse("f", text).unwrap()[0];
        let mut holders = Holders::default();
        assert!(holders.add_all([document].into_iter()).remove(0).1.is_empty());
        let find = |holder, name: &str| {
            let (name, key) = ("a".to_owned(), name.to_owned());
            holders.find(None, &ValueRef { holder, name, key })
        };
        let found = |text: &str| Reference::Found(Secret::new(text.as_bytes().to_vec()));
        assert_eq!(find(Holder::ConfigMap, "t"), found("text"));
        assert_eq!(find(Holder::ConfigMap, "b"), found("a"));
        assert_eq!(find(Holder::ConfigMap, "c"), Reference::NoKey);
        assert_eq!(find(Holder::Secret, "t"), Reference::NoObject);
    }
}
