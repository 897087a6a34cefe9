//! [`Dedup`]: which events a destination takes for the same, and for how long.
//!
//! The first of them opens a window, which the others do not lengthen. What was seen is remembered by the store, in the
//! same write as the event, so that of two publishers one is first, and a crash neither forgets what was acknowledged
//! nor remembers what was not.

use std::time::Duration;

use super::key::Key;
use crate::domain::destination::Identity;
use crate::domain::event::Event;

/// The shortest window.
pub const SHORTEST_WINDOW: Duration = Duration::from_secs(1);
/// The longest window.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 3600);

/// Which events are the same, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dedup {
    /// What they have in common.
    pub key: Key,
    /// For how long after the first one.
    pub window: Duration,
}

/// The key of one event, and for how long the next ones with it are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The key's digest. Other expressions give other ones.
    pub key: u128,
    /// In milliseconds.
    pub window: i64,
}

impl Dedup {
    /// The mark of an event; `None` when the event lacks what the key names: it is like no other.
    #[must_use]
    pub fn mark(&self, event: &Event, destination: &Identity) -> Option<Mark> {
        Some(Mark {
            key: self.key.of_value(event, destination)?,
            window: i64::try_from(self.window.as_millis()).unwrap_or(i64::MAX),
        })
    }
}

impl Mark {
    /// The mark as it counts against an event that was seen before: what opened a shorter window then keeps it, and a
    /// window that is shorter now holds for what was seen before, too.
    #[must_use]
    pub fn against(self, before: i64, until: i64) -> Self {
        let opened = until.saturating_sub(before);
        Self {
            window: self.window.min(opened),
            ..self
        }
    }

    /// Whether an event accepted then is within the window of one accepted before. Both ways, because events that are
    /// accepted at once may be stored the other way round; what is further in the future than the window was
    /// remembered by a clock that was ahead, and does not count.
    #[must_use]
    pub const fn is_within(&self, before: i64, accepted: i64) -> bool {
        accepted.saturating_sub(before).saturating_abs() < self.window
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::event::sample;

    fn mark(key: &str, data: &Value) -> Option<Mark> {
        let dedup = Dedup {
            key: Key::parse(key).unwrap(),
            window: Duration::from_secs(600),
        };
        let event = sample::event(&json!({"type": "x", "user": {"id": "u"}, "data": data}));
        dedup.mark(&event, &sample::identity())
    }

    #[test]
    fn events_with_the_same_value_are_the_same() {
        let path = "$.event.data.invoice";
        let first = mark(path, &json!({"invoice": "i1", "n": 1})).unwrap();
        assert_eq!(first.window, 600_000);
        assert_eq!(mark(path, &json!({"invoice": "i1", "n": 2})), Some(first));
        assert_ne!(mark(path, &json!({"invoice": "i2"})), Some(first));
        let text = "{{ $.event.user.id }}/{{ $.event.data.invoice }}";
        assert_eq!(
            mark(text, &json!({"invoice": 1})),
            mark(text, &json!({"invoice": 1}))
        );
    }

    #[test]
    fn an_event_that_lacks_the_key_is_like_no_other() {
        for data in [
            json!({}),
            json!({"invoice": null}),
            json!({"invoice": ""}),
            json!({"invoice": {}}),
        ] {
            assert_eq!(mark("$.event.data.invoice", &data), None, "{data}");
        }
        let text = "{{ $.event.user.id }}/{{ $.event.data.invoice }}";
        assert_eq!(mark(text, &json!({"invoice": null})), None);
        let fallback = "{{ $.event.user.id }}/{{ $.event.data.invoice | default('none') }}";
        assert!(mark(fallback, &json!({})).is_some(), "when it is asked for");
        let as_json = "{{ $.event.data.invoice | json }}";
        assert_eq!(mark(as_json, &json!({"invoice": null})), None);
    }

    #[test]
    fn text_that_reads_null_is_a_value() {
        let text = mark("$.event.data.invoice", &json!({"invoice": "null"}));
        assert!(text.is_some());
    }

    #[test]
    fn another_key_begins_anew() {
        let data = json!({"a": "1", "b": "1"});
        assert_ne!(mark("$.event.data.a", &data), mark("$.event.data.b", &data));
    }

    proptest! {
        #[test]
        fn a_window_holds_for_its_time_and_no_longer(before: i32, after: i32, window in 1..i64::from(i32::MAX)) {
            let mark = Mark { key: 1, window };
            let (before, after) = (i64::from(before), i64::from(after));
            prop_assert_eq!(mark.is_within(before, after), before.abs_diff(after) < window.unsigned_abs());
            prop_assert!(mark.is_within(before, before));
            prop_assert!(!mark.is_within(before, before + window));
        }
    }

    #[test]
    fn the_shorter_of_two_windows_counts() {
        let mark = Mark {
            key: 1,
            window: 1_000,
        };
        assert_eq!(mark.against(5_000, 5_400).window, 400);
        assert_eq!(mark.against(5_000, 9_000).window, 1_000);
    }

    #[test]
    fn a_time_out_of_reason_does_no_harm() {
        let mark = Mark {
            key: 1,
            window: 1_000,
        };
        assert!(!mark.is_within(i64::MAX, i64::MIN) && !mark.is_within(i64::MIN, i64::MAX));
    }
}
