//! [`ValueRef`]: where a spec takes a value from, and [`Reference`]: what was found there.

use std::collections::BTreeMap;
use std::fmt;

use super::{SMTP_PATH, payload, request, signing_key_refs};
use crate::api::v1alpha1::event_destination::EventDestinationSpec;
use crate::api::v1alpha1::{CaSource, ConfigMapKeyRef, SecretKeyRef};
use crate::domain::secret::Secret;
use crate::domain::smtp;

/// Stands, among [`References`], for what Postrider was installed with, its SMTP server and its proxy: no Secret has an
/// empty name.
pub const INSTALLATION: &str = "";
/// Key of the installation's proxy: its URL.
pub const PROXY_URL: &str = "proxy.url";
/// Files with the login for the installation's proxy, and their keys; none of these is known when it asks for no login.
pub const PROXY_LOGIN: [(&str, &str); 2] = [("username", "proxy.username"), ("password", "proxy.password")];

/// A kind of object that holds values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Holder {
    /// A Secret.
    Secret,
    /// A ConfigMap.
    ConfigMap,
}

impl Holder {
    /// Its kind, as messages and metrics name it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key of an object in the destination's namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueRef {
    /// Kind of the object.
    pub holder: Holder,
    /// Its name.
    pub name: String,
    /// Key within its data.
    pub key: String,
}

impl ValueRef {
    /// A fault of what the object holds: the field of the spec is right, so the object and its key are named.
    pub(super) fn holds(&self, fault: &str) -> String {
        let Self { holder, name, key } = self;
        format!("{holder} {name:?} key {key:?}: {fault}")
    }
}

impl From<SecretKeyRef> for ValueRef {
    fn from(SecretKeyRef { name, key }: SecretKeyRef) -> Self {
        let holder = Holder::Secret;
        Self { holder, name, key }
    }
}

impl From<&SecretKeyRef> for ValueRef {
    fn from(source: &SecretKeyRef) -> Self {
        source.clone().into()
    }
}

impl From<&ConfigMapKeyRef> for ValueRef {
    fn from(source: &ConfigMapKeyRef) -> Self {
        Self {
            holder: Holder::ConfigMap,
            name: source.name.clone(),
            key: source.key.clone(),
        }
    }
}

/// What a bundle of authorities comes from; `None` unless it is exactly one.
pub(super) fn ca(source: &CaSource) -> Option<ValueRef> {
    match (&source.secret_key_ref, &source.config_map_key_ref) {
        (Some(secret), None) => Some(secret.into()),
        (None, Some(config_map)) => Some(config_map.into()),
        _ => None,
    }
}

/// The values that a spec refers to.
pub type References = BTreeMap<ValueRef, Reference>;

/// What was found for one reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// The value. That of a ConfigMap is none, and is treated as one all the same.
    Found(Secret<Vec<u8>>),
    /// There is no such object.
    NoObject,
    /// The object has no such key.
    NoKey,
}

/// Every value that a spec needs, with the path of the field that names it.
#[must_use]
pub fn value_references(name: &str, spec: &EventDestinationSpec) -> Vec<(String, ValueRef)> {
    let mut references = Vec::new();
    if let Some(webhook) = &spec.webhook {
        if let Some(source) = &webhook.url_from {
            references.push(("spec.webhook.urlFrom".to_owned(), (&source.secret_key_ref).into()));
        }
        if let Some(source) = webhook
            .format_options
            .as_ref()
            .and_then(|options| options.key_from.as_ref())
        {
            references.push((
                "spec.webhook.formatOptions.keyFrom".to_owned(),
                (&source.secret_key_ref).into(),
            ));
        }
        references.extend(payload::reference(webhook));
        references.extend(request::references(webhook));
        for (index, header) in webhook.headers.iter().enumerate() {
            if let Some(source) = &header.value_from {
                references.push((
                    format!("spec.webhook.headers[{index}].valueFrom"),
                    (&source.secret_key_ref).into(),
                ));
            }
        }
    }
    if let Some(email) = &spec.email {
        let server = email
            .smtp_ref
            .as_ref()
            .map_or(INSTALLATION, |reference| &reference.name);
        references.extend(
            smtp::KEYS
                .iter()
                .map(|key| (SMTP_PATH.to_owned(), secret(server, key))),
        );
    }
    for signing in signing_key_refs(name, spec) {
        references.push((signing.path(), signing.key.into()));
    }
    references
}

/// A key of a Secret.
pub fn secret(name: &str, key: &str) -> ValueRef {
    ValueRef {
        holder: Holder::Secret,
        name: name.to_owned(),
        key: key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::destination::{Destination, Identity, Target};
    use crate::domain::egress::EgressPolicy;
    use crate::domain::id::{ObjectKey, Uid};

    /// Validates a spec whose authorities come from there; what is found there is `found`.
    fn check(ca_from: &Value, found: &Reference) -> Result<usize, Vec<String>> {
        let spec: EventDestinationSpec = serde_json::from_value(json!({
            "events": ["*"],
            "webhook": {
                "url": "https://hooks.example.com/in", "tls": {"caFrom": ca_from}, "signing": {"scheme": "None"},
            },
        }))
        .unwrap();
        let mut wanted = value_references("hook", &spec);
        wanted.retain(|(_, of)| of.name != INSTALLATION);
        assert!(wanted.len() <= 1, "{wanted:?}");
        let references = wanted.into_iter().map(|(_, of)| (of, found.clone())).collect();
        let identity = Identity {
            key: ObjectKey::new("shop", "hook"),
            uid: Uid::new("u"),
            generation: 1,
        };
        let checked = Destination::try_from_spec(identity, &spec, &references, &EgressPolicy::default());
        let faults = |faults: crate::domain::fault::Faults| {
            let said = faults
                .iter()
                .map(|fault| format!("{}: {}", fault.path, fault.message));
            said.collect::<Vec<_>>()
        };
        let Target::Webhook(webhook) = checked.map_err(faults)?.target else {
            panic!("the spec has a webhook")
        };
        let passage = webhook.request.passage.unwrap();
        Ok(passage.tls.as_ref().unwrap().authorities.len())
    }

    fn pem() -> Reference {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["a.example".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let text = STANDARD.encode(certificate.der());
        let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
        Reference::Found(Secret::new(pem.into_bytes()))
    }

    #[test]
    fn authorities_come_from_a_secret_or_a_config_map() {
        let key = json!({"name": "ca", "key": "ca.crt"});
        assert_eq!(check(&json!({"configMapKeyRef": key}), &pem()), Ok(1));
        assert_eq!(check(&json!({"secretKeyRef": key}), &pem()), Ok(1));
        for source in [json!({}), json!({"secretKeyRef": key, "configMapKeyRef": key})] {
            assert_eq!(
                check(&source, &pem()).unwrap_err(),
                ["spec.webhook.tls.caFrom: set exactly one of secretKeyRef and configMapKeyRef"]
            );
        }
    }

    /// The proxy of a webhook, with these values of the installation.
    fn proxy(of_webhook: &Value, installed: &[(&str, Reference)]) -> Result<Option<String>, String> {
        let mut webhook = json!({"url": "https://hooks.example.com/in", "signing": {"scheme": "None"}});
        if !of_webhook.is_null() {
            webhook["proxy"] = of_webhook.clone();
        }
        let spec = serde_json::from_value(json!({"events": ["*"], "webhook": webhook})).unwrap();
        let wanted = value_references("hook", &spec);
        let installed = installed
            .iter()
            .map(|(key, found)| (secret(INSTALLATION, key), found));
        let found = installed.filter(|(of, _)| wanted.iter().any(|(_, wanted)| wanted == of));
        let references = found.map(|(of, found)| (of, found.clone())).collect();
        let identity = Identity {
            key: ObjectKey::new("shop", "hook"),
            uid: Uid::new("u"),
            generation: 1,
        };
        let checked = Destination::try_from_spec(identity, &spec, &references, &EgressPolicy::default());
        let Target::Webhook(webhook) = checked.map_err(|faults| faults.to_string())?.target else {
            panic!("the spec has a webhook")
        };
        let proxy = webhook.request.passage.and_then(|passage| passage.proxy.clone());
        Ok(proxy.map(|proxy| {
            let login = proxy
                .authorization
                .as_ref()
                .map_or("", |value| value.to_str().unwrap());
            format!("{} {} {login}", proxy.origin(), proxy.is_of_installation)
        }))
    }

    #[test]
    fn a_webhook_that_sets_no_proxy_has_the_installations() {
        let text = |text: &str| Reference::Found(Secret::new(text.as_bytes().to_vec()));
        let url = (PROXY_URL, text("http://p.example:3128"));
        let [user, password] = PROXY_LOGIN.map(|(_, key)| key);
        let bare = [url.clone()];
        let full = [url.clone(), (user, text("me\n")), (password, text("pw\n"))];
        assert_eq!(proxy(&Value::Null, &[]), Ok(None));
        let expected = "http://p.example:3128 true ";
        assert_eq!(proxy(&Value::Null, &bare), Ok(Some(expected.to_owned())));
        let expected = format!("{expected}Basic bWU6cHc=");
        assert_eq!(proxy(&Value::Null, &full), Ok(Some(expected)));
        let own = proxy(&json!({"url": "http://own.example"}), &full);
        assert_eq!(own, Ok(Some("http://own.example:80 false ".to_owned())));
        assert_eq!(proxy(&json!({"direct": true}), &full), Ok(None));
        for missing in [Reference::NoKey, text(" ")] {
            let half = [url.clone(), (user, text("me")), (password, missing)];
            let fault = proxy(&Value::Null, &half).unwrap_err();
            assert!(
                fault.starts_with("spec.webhook.proxy: Postrider was installed"),
                "{fault}"
            );
            assert_eq!(proxy(&json!({"direct": true}), &half), Ok(None));
        }
        for (user_name, secret, part) in [
            ("me", "hun\nter2", "a password has no control characters"),
            ("m:e", "hunter2", "a user name has no \":\""),
        ] {
            let bad = [url.clone(), (user, text(user_name)), (password, text(secret))];
            let fault = proxy(&Value::Null, &bad).unwrap_err();
            assert!(
                fault.contains(part) && fault.contains("--proxy-auth-dir"),
                "{fault}"
            );
            assert!(!fault.contains("ter2"), "{fault}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_config_map_is_told_by_field_object_and_key() {
        let source = json!({"configMapKeyRef": {"name": "ca", "key": "ca.crt"}});
        let binary = Reference::Found(Secret::new(vec![0xff, 0, 0xfe]));
        for (found, fault) in [
            (
                Reference::NoObject,
                "ConfigMap \"ca\" does not exist; create it with key \"ca.crt\"",
            ),
            (Reference::NoKey, "ConfigMap \"ca\" has no key \"ca.crt\"; add it"),
            (
                binary,
                "ConfigMap \"ca\" key \"ca.crt\": this must be 1 to 64 certificates in PEM",
            ),
        ] {
            let faults = check(&source, &found).unwrap_err();
            let expected = format!("spec.webhook.tls.caFrom: {fault}");
            assert!(
                faults.len() == 1 && faults[0].starts_with(&expected),
                "{faults:?}"
            );
        }
    }
}
