//! [`Key`]: what events have in common, as an expression over an event.

use sha2::{Digest as _, Sha256};

use crate::domain::delivery::Attempt;
use crate::domain::destination::Identity;
use crate::domain::event::Event;
use crate::domain::template::Template;
use crate::domain::template::key::KeyText;

/// Most bytes of an expression.
pub const MAX_LENGTH: usize = 512;

/// An expression that gives events their keys: a path such as `$.event.user.id`, or text with `{{ … }}` placeholders.
#[derive(Clone, Debug)]
pub struct Key {
    source: Box<str>,
    template: Template,
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Key {}

impl Key {
    /// Compiles an expression.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(source: &str) -> Result<Self, String> {
        if source.trim().is_empty() || source.len() > MAX_LENGTH {
            return Err(format!(
                "give a path such as $.event.user.id, at most {MAX_LENGTH} bytes"
            ));
        }
        let template = if source.contains("{{") {
            Template::parse_text(source).map_err(|faults| {
                let messages: Vec<_> = faults.into_iter().map(|fault| fault.message).collect();
                messages.join("; ")
            })?
        } else {
            Template::parse_bare(source)?
        };
        Ok(Self {
            source: source.into(),
            template,
        })
    }

    /// The key of an event, as a digest; `None` when the event lacks what the expression names.
    #[must_use]
    pub fn of(&self, event: &Event, destination: &Identity) -> Option<u128> {
        let KeyText { text, .. } = self.text(event, destination)?;
        Some(digest(&[&text]))
    }

    /// The same, told apart from the keys of every other expression; `None` also when all of it is empty, or some part
    /// of it is null.
    #[must_use]
    pub fn of_value(&self, event: &Event, destination: &Identity) -> Option<u128> {
        let KeyText { text, has_null } = self.text(event, destination)?;
        (!has_null && !text.is_empty()).then(|| digest(&[&self.source, &text]))
    }

    fn text(&self, event: &Event, destination: &Identity) -> Option<KeyText> {
        let attempt = Attempt {
            number: 1,
            now: event.accepted,
        };
        self.template.render_key(event, destination, attempt).ok()
    }
}

fn digest(texts: &[&str]) -> u128 {
    let mut hash = Sha256::new();
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            hash.update([0]);
        }
        hash.update(text.as_bytes());
    }
    let digest = hash.finalize();
    digest
        .iter()
        .take(16)
        .fold(0, |key, byte| key << 8 | u128::from(*byte))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::event::sample;

    #[test]
    fn events_with_the_same_values_have_the_same_key() {
        let of = |key: &str, user: &str, n: u32| {
            let event = sample::event(&json!({"type": "x", "user": {"id": user}, "data": {"n": n}}));
            Key::parse(key).unwrap().of(&event, &sample::identity())
        };
        assert_eq!(of("$.event.user.id", "a", 1), of("$.event.user.id", "a", 2));
        assert_ne!(of("$.event.user.id", "a", 1), of("$.event.user.id", "b", 1));
        let both = "{{ $.event.user.id }}/{{ $.event.data.n }}";
        assert_ne!(of(both, "a", 1), of(both, "a", 2));
        assert_eq!(of("$.event.data.lacking", "a", 1), None);
    }

    #[test]
    fn numbers_are_told_apart_as_they_were_written() {
        let of = |key: &str, data: &str| {
            let body = format!(r#"{{"type": "x", "data": {data}}}"#);
            let event = sample::event_of(&body, sample::project());
            let (key, identity) = (Key::parse(key).unwrap(), sample::identity());
            (
                key.of(&event, &identity).unwrap(),
                key.of_value(&event, &identity).unwrap(),
            )
        };
        for (one, other) in [
            ("20261121000000000000001", "20261121000000000000002"),
            ("36893488147419103232", "36893488147419103233"),
            ("-9223372036854775809", "-9223372036854775810"),
            ("0.12345678901234567890", "0.12345678901234567891"),
            ("18446744073709551614", "18446744073709551615"),
        ] {
            for key in [
                "$.event.data.k[1]",
                "{{ $.event.data.k[1] }}",
                "$.event.data | json",
                "$.event | json",
            ] {
                let [one, again, other] =
                    [one, one, other].map(|number| of(key, &format!(r#"{{"k": ["\"1.5", {number}]}}"#)));
                assert_eq!(one, again, "{key}");
                assert!(one.0 != other.0 && one.1 != other.1, "{key}: {other:?}");
            }
        }
        let path = "$.event.data.k";
        assert_eq!(of(path, r#"{"k": 1.5}"#), of(path, r#"{"k": "1.5"}"#));
    }

    #[test]
    fn a_fault_of_a_path_is_named_where_it_stands() {
        for (source, part) in [
            ("$.data.invoice", "not with `data`, at character 3"),
            ("invoice", "not with `invoice`, at character 1"),
            ("  invoice", "not with `invoice`, at character 3"),
            ("$.event.data.items[*].id", ", at character 20"),
            (
                "$.event.data['a'",
                "expected `]` here, not the end, at character 17",
            ),
            (
                "$.event.type x",
                "expected `|` or the end here, not `x`, at character 14",
            ),
            (
                "$.event.type }} x",
                "expected `|` or the end here, not `}`, at character 14",
            ),
            ("{{ $.data.invoice }}", "not with `data`, at character 6"),
        ] {
            let fault = Key::parse(source).unwrap_err();
            assert!(fault.contains(part), "{source}: {fault}");
        }
    }

    #[test]
    fn a_faulty_expression_is_refused_in_words() {
        for (source, part) in [
            ("", "give a path"),
            ("$.event.usr.id", "usr"),
            ("{{ $.event.type", "}}"),
            ("x y", ""),
        ] {
            let fault = Key::parse(source).unwrap_err();
            assert!(fault.contains(part), "{source}: {fault}");
        }
    }
}
