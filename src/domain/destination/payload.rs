//! The form of a webhook's body: a format, or a template that stands in the spec or in a ConfigMap.

use serde_json::Value;

use super::check::Check;
use super::{Reference, References, ValueRef};
use crate::api::v1alpha1::event_destination::{PayloadFormat, PayloadSpec, WebhookTarget};
use crate::domain::fault::field_path;
use crate::domain::shape::Payload;
use crate::domain::template::Template;

pub(super) const PAYLOAD: &str = "spec.webhook.payload";
pub(super) const ONE_PAYLOAD: &str = "set at most one of format, template and templateFrom";
const TEMPLATE_FROM: &str = "spec.webhook.payload.templateFrom";

/// What a template makes of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// Text.
    Text,
    /// A JSON value.
    Json,
    /// Nobody knows: the template is missing or faulty, which [`Check::payload`] tells.
    Unknown,
}

/// The ConfigMap that holds the template, with the path of the field that names it.
pub(super) fn reference(target: &WebhookTarget) -> Option<(String, ValueRef)> {
    let source = target.payload.as_ref()?.template_from.as_ref()?;
    Some((TEMPLATE_FROM.to_owned(), (&source.config_map_key_ref).into()))
}

/// What the template makes; `None`: the body has a format.
pub(super) fn made(payload: &PayloadSpec, references: &References) -> Option<Made> {
    let template = match (&payload.template, &payload.template_from) {
        (None, None) => return None,
        (Some(template), _) => Template::parse(template).ok(),
        (None, Some(source)) => {
            let of = ValueRef::from(&source.config_map_key_ref);
            match references.get(&of) {
                Some(Reference::Found(value)) => held(&of, value.expose()).ok(),
                Some(Reference::NoObject | Reference::NoKey) | None => None,
            }
        }
    };
    Some(match template {
        Some(template) if template.is_text() => Made::Text,
        Some(_) => Made::Json,
        None => Made::Unknown,
    })
}

/// The template that an object holds.
///
/// # Errors
/// Every fault of it, without the object's name.
fn held(of: &ValueRef, value: &[u8]) -> Result<Template, Vec<String>> {
    let text = std::str::from_utf8(value).map_err(|_| {
        vec!["a template is UTF-8 text; replace the value, under data and not binaryData".to_owned()]
    })?;
    if text.trim().is_empty() {
        return Err(vec!["the template is empty; fill it in".to_owned()]);
    }
    let is_json = of.key.to_ascii_lowercase().ends_with(".json");
    let source = if is_json {
        serde_json::from_str(text).map_err(|error| {
            vec![format!(
                "this is no JSON, which a key that ends with .json must hold: {error}; put placeholders into strings, \
                 or use another key for text"
            )]
        })?
    } else {
        Value::from(text)
    };
    Template::parse(&source).map_err(|faults| {
        let told = faults.into_iter().map(|fault| {
            let place = field_path(&fault.pointer);
            let colon = if place.is_empty() { "" } else { ": " };
            format!("{}{colon}{}", place.trim_start_matches('.'), fault.message)
        });
        told.collect()
    })
}

impl Check<'_> {
    pub(super) fn payload(&mut self, spec: Option<&PayloadSpec>) -> Option<Payload> {
        let Some(spec) = spec else {
            return Some(Payload::Format(PayloadFormat::Default));
        };
        match (&spec.format, &spec.template, &spec.template_from) {
            (format, None, None) => Some(Payload::Format(format.unwrap_or_default())),
            (None, Some(template), None) => match Template::parse(template) {
                Ok(template) => Some(Payload::Template(template)),
                Err(faults) => {
                    for fault in faults {
                        let path = format!("{PAYLOAD}.template{}", field_path(&fault.pointer));
                        self.faults.invalid(path, fault.message);
                    }
                    None
                }
            },
            (None, None, Some(source)) => {
                let of = ValueRef::from(&source.config_map_key_ref);
                let value = self.value(TEMPLATE_FROM, &of)?;
                match held(&of, value.expose()) {
                    Ok(template) => {
                        let holder = format!("From ({} {:?} key {:?})", of.holder, of.name, of.key);
                        Some(Payload::Template(template.held_by(&holder)))
                    }
                    Err(faults) => {
                        for fault in faults {
                            self.faults.invalid(TEMPLATE_FROM, of.holds(&fault));
                        }
                        None
                    }
                }
            }
            _ => {
                self.faults.invalid(PAYLOAD, ONE_PAYLOAD);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::v1alpha1::event_destination::EventDestinationSpec;
    use crate::domain::delivery::Attempt;
    use crate::domain::destination::{Destination, Target, value_references};
    use crate::domain::egress::EgressPolicy;
    use crate::domain::event::sample;
    use crate::domain::secret::Secret;

    fn found(text: &[u8]) -> Reference {
        Reference::Found(Secret::new(text.to_vec()))
    }

    /// Validates a spec whose template is under that key; the webhook also has `more`.
    fn check(key: &str, found: &Reference, more: &Value) -> Result<Payload, Vec<String>> {
        let source = json!({"configMapKeyRef": {"name": "body", "key": key}});
        let mut spec = json!({"events": ["*"], "webhook": {
            "url": "https://hooks.example.com/in", "payload": {"templateFrom": source},
            "signing": {"scheme": "None"}, "proxy": {"direct": true},
        }});
        for (field, value) in more.as_object().unwrap() {
            spec["webhook"][field] = value.clone();
        }
        let spec: EventDestinationSpec = serde_json::from_value(spec).unwrap();
        let wanted = value_references("hook", &spec);
        assert_eq!(wanted.len(), 1, "{wanted:?}");
        let references = wanted.into_iter().map(|(_, of)| (of, found.clone())).collect();
        let checked =
            Destination::try_from_spec(sample::identity(), &spec, &references, &EgressPolicy::default());
        let told = |faults: crate::domain::fault::Faults| {
            let said = faults
                .iter()
                .map(|fault| format!("{}: {}", fault.path, fault.message));
            said.collect::<Vec<_>>()
        };
        match checked.map_err(told)?.target {
            Target::Webhook(webhook) => Ok(webhook.payload),
            Target::Email(_) => panic!("the spec has a webhook"),
        }
    }

    fn rendered(payload: &Payload, event: &Value) -> Result<(&'static str, String), String> {
        let event = sample::event(event);
        let attempt = Attempt {
            number: 1,
            now: event.accepted,
        };
        let rendered = payload.render(&event, &sample::identity(), attempt);
        let rendered = rendered.map_err(|error| error.to_string())?;
        Ok((
            rendered.content_type,
            String::from_utf8(rendered.body.to_vec()).unwrap(),
        ))
    }

    #[test]
    fn a_template_in_a_config_map_makes_what_the_same_one_in_the_spec_makes() {
        let event = json!({"type": "x", "data": {"n": 7}});
        for (key, text, content_type, body) in [
            (
                "body.json",
                r#"{"n": "{{ $.event.data.n }}"}"#,
                "application/json",
                r#"{"n":7}"#,
            ),
            (
                "body",
                "{\"n\": \"{{ $.event.data.n }}\"}\n",
                "application/json",
                r#"{"n":7}"#,
            ),
            (
                "body",
                "{{ $.event.type }}: {{ $.event.data.n }}\n",
                "text/plain; charset=utf-8",
                "x: 7",
            ),
        ] {
            let payload = check(key, &found(text.as_bytes()), &json!({})).unwrap();
            let expected = (content_type, body.to_owned());
            assert_eq!(rendered(&payload, &event), Ok(expected), "{key} {text}");
        }
    }

    #[test]
    fn what_an_event_lacks_is_told_with_the_object_that_asks_for_it() {
        let text = br#"{"a": ["{{ $.event.data.gone }}"]}"#;
        let payload = check("body.json", &found(text), &json!({})).unwrap();
        assert_eq!(
            rendered(&payload, &json!({"type": "x"})).unwrap_err(),
            "spec.webhook.payload.templateFrom (ConfigMap \"body\" key \"body.json\").a[0]: the event has no \
             $.event.data.gone; publish it or add `| default(…)`"
        );
    }

    #[test]
    fn what_is_wrong_with_the_template_is_told_once_by_field_object_and_key() {
        for (key, value, part) in [
            (
                "body",
                Reference::NoObject,
                "ConfigMap \"body\" does not exist; create it with key \"body\"",
            ),
            (
                "body",
                Reference::NoKey,
                "ConfigMap \"body\" has no key \"body\"; add it",
            ),
            (
                "body",
                found(b" \n"),
                "ConfigMap \"body\" key \"body\": the template is empty",
            ),
            (
                "body",
                found(&[0xff, 0]),
                "ConfigMap \"body\" key \"body\": a template is UTF-8 text",
            ),
            (
                "b.json",
                found(b"{\"a\": {{ x }}}"),
                "ConfigMap \"body\" key \"b.json\": this is no JSON",
            ),
            (
                "b.json",
                found(br#"{"a": ["{{ $.event.tpe }}"]}"#),
                "ConfigMap \"body\" key \"b.json\": a[0]: ",
            ),
        ] {
            for more in [
                json!({}),
                json!({"contentType": "text/plain"}),
                json!({"contentType": "application/json"}),
            ] {
                let faults = check(key, &value, &more).unwrap_err();
                let expected = format!("{TEMPLATE_FROM}: {part}");
                assert!(
                    faults.len() == 1 && faults[0].starts_with(&expected),
                    "{faults:?}"
                );
            }
        }
    }

    #[test]
    fn the_content_type_fits_what_the_template_makes() {
        let text = || found(b"total {{ $.event.data.total }}");
        let of = |content_type: &str| json!({"contentType": content_type});
        assert!(check("body", &text(), &of("text/plain")).is_ok());
        let faults = check("body", &text(), &of("application/json")).unwrap_err();
        assert!(
            faults[0].contains("contentType: the template is text"),
            "{faults:?}"
        );
        let faults = check("b.json", &found(b"{}"), &of("text/plain")).unwrap_err();
        assert!(
            faults[0].contains("contentType: this belongs to templates that are text"),
            "{faults:?}"
        );
    }

    #[test]
    fn a_template_in_a_config_map_stands_alone() {
        for other in [
            json!({"format": "Event"}),
            json!({"format": "Slack"}),
            json!({"template": {}}),
        ] {
            let mut payload = other.clone();
            payload["templateFrom"] = json!({"configMapKeyRef": {"name": "body", "key": "b"}});
            let faults = check("b", &found(b"x"), &json!({"payload": payload})).unwrap_err();
            assert_eq!(faults, [format!("{PAYLOAD}: {ONE_PAYLOAD}")], "{other}");
        }
    }
}
