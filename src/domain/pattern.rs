//! [`TypePattern`]: which event types a destination wants. `*` stands for any run of characters, also none.

use std::fmt;

use super::operation::is_operational;

/// Most characters of a pattern.
pub const MAX_LENGTH: usize = 128;

/// A pattern over event types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypePattern(Box<str>);

impl TypePattern {
    /// Checks and wraps a pattern; `None` when it is empty, too long or holds another character than an event
    /// type may have or `*`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty()
            && text.len() <= MAX_LENGTH
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-*".contains(&b));
        fits.then(|| Self(text.into()))
    }

    /// Whether events of a type are asked for: that it fits, and for operational events of Postrider's own that the
    /// pattern names their prefix. So `*` means every event of the users' and brings no surprise.
    #[must_use]
    pub fn asks_for(&self, event_type: &str) -> bool {
        (!is_operational(event_type) || is_operational(&self.0)) && self.matches(event_type)
    }

    /// Whether an event type fits. Linear in the lengths for each `*`: no backtracking beyond the last one.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), event_type.as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(byte) if text.get(t) == Some(byte) => {
                    p += 1;
                    t += 1;
                }
                _ => {
                    let Some((at, from)) = star else { return false };
                    star = Some((at, from + 1));
                    p = at + 1;
                    t = from + 1;
                }
            }
        }
        pattern.iter().skip(p).all(|byte| *byte == b'*')
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_users_expect() {
        for (pattern, event_type, fits) in [
            ("workflow_failure", "workflow_failure", true),
            ("workflow_failure", "workflow_failures", false),
            ("record_*", "record_created", true),
            ("record_*", "record_", true),
            ("record_*", "records", false),
            ("*", "anything.at-all", true),
            ("*.failed", "workflowExecution.failed", true),
            ("*.failed", "workflowExecution.failed.again", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("**", "x", true),
        ] {
            assert_eq!(
                TypePattern::parse(pattern).map(|p| p.matches(event_type)),
                Some(fits),
                "{pattern} {event_type}"
            );
        }
    }

    #[test]
    fn operational_events_are_asked_for_by_their_prefix_only() {
        for (pattern, event_type, asked) in [
            ("*", "postrider.destination.disabled", false),
            ("post*", "postrider.destination.disabled", false),
            ("*.disabled", "postrider.destination.disabled", false),
            ("postrider*", "postrider.destination.disabled", false),
            ("postrider.*", "postrider.destination.disabled", true),
            ("postrider.*.disabled", "postrider.destination.disabled", true),
            (
                "postrider.destination.disabled",
                "postrider.destination.disabled",
                true,
            ),
            (
                "postrider.destination.disabled",
                "postrider.destination.failing",
                false,
            ),
            ("*", "postriders", true),
        ] {
            let pattern = TypePattern::parse(pattern).unwrap();
            assert_eq!(pattern.asks_for(event_type), asked, "{pattern} {event_type}");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_stays_quick() {
        let pattern = TypePattern::parse(&"*a".repeat(60)).map(|p| p.matches(&"a".repeat(128)));
        assert_eq!(pattern, Some(true));
    }
}
