//! [`Key`]: what events have in common, as an expression over an event.

use std::cell::Cell;

use sha2::{Digest as _, Sha256};

use crate::domain::delivery::Attempt;
use crate::domain::destination::Identity;
use crate::domain::event::Event;
use crate::domain::template::Template;

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
        let is_path = !source.contains("{{");
        let text = if is_path {
            format!("{{{{ {} }}}}", source.trim())
        } else {
            source.to_owned()
        };
        let template = Template::parse_text(&text).map_err(|faults| {
            let messages: Vec<_> = faults.into_iter().map(|fault| fault.message).collect();
            messages.join("; ")
        })?;
        Ok(Self {
            source: source.into(),
            template,
        })
    }

    /// The key of an event, as a digest; `None` when the event lacks what the expression names.
    #[must_use]
    pub fn of(&self, event: &Event, destination: &Identity) -> Option<u128> {
        let text = self.text(event, destination, |value, out| out.push_str(value))?;
        Some(digest(&[&text]))
    }

    /// The same, told apart from the keys of every other expression; `None` also when all of it is empty, or some part
    /// of it is null.
    #[must_use]
    pub fn of_value(&self, event: &Event, destination: &Identity) -> Option<u128> {
        let has_null = Cell::new(false);
        let text = self.text(event, destination, |value, out| {
            has_null.set(has_null.get() || value == "null");
            out.push_str(value);
        })?;
        (!has_null.get() && !text.is_empty()).then(|| digest(&[&self.source, &text]))
    }

    fn text(
        &self,
        event: &Event,
        destination: &Identity,
        write: impl Fn(&str, &mut String),
    ) -> Option<String> {
        let attempt = Attempt {
            number: 1,
            now: event.accepted,
        };
        self.template.render_text(event, destination, attempt, write).ok()
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
