//! [`Complaint`]: what keeps going wrong is one line in the log, not one for each try.

use std::time::{Duration, Instant};

/// How often the same is said again while it goes on.
const EVERY: Duration = Duration::from_secs(60);

/// What was said last, and when.
#[derive(Debug, Default)]
pub(super) struct Complaint {
    last: Option<(String, Instant)>,
    /// How often it happened without being said.
    unsaid: u64,
}

impl Complaint {
    /// Notes that it happened at `now`. When it is news, or was not said for a while: how often it happened since the
    /// last line. Success in between is no news: a full file refuses one call and takes the next.
    pub(super) fn make(&mut self, what: &impl ToString, now: Instant) -> Option<u64> {
        let what = what.to_string();
        self.unsaid = self.unsaid.saturating_add(1);
        let known = self
            .last
            .as_ref()
            .is_some_and(|(last, at)| *last == what && now.saturating_duration_since(*at) < EVERY);
        if known {
            return None;
        }
        self.last = Some((what, now));
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    //! When a line is written.

    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_and_news_at_once() {
        let mut complaint = Complaint::default();
        let start = Instant::now();
        assert_eq!(complaint.make(&"full", start), Some(1));
        for second in 1..60 {
            assert_eq!(complaint.make(&"full", start + Duration::from_secs(second)), None);
        }
        assert_eq!(complaint.make(&"full", start + EVERY), Some(60));
        assert_eq!(complaint.make(&"read-only", start + EVERY), Some(1));
    }
}
