//! What the annotation `postrider.dev/replay` asks for, and what came of it.
//!
//! The value is words: `token=…` and what to deliver again, `id=…` or any of `since=…`, `until=…`, `failed` and
//! `type=…`. Every value is answered, a malformed one with what to write. That a replay begins is told in the status
//! before it does: one that a crash cut off is not begun again, but called [`ReplayOutcome::Interrupted`].

use std::fmt::Write as _;
use std::sync::Arc;

use jiff::Timestamp;

use super::event::parse::is_event_type;
use super::id::EventId;
use super::test_send::{MAX_ASKED, echo};

/// What to write, for messages.
const USAGE: &str = "write `since=2026-01-02T03:04:05Z token=1`, with `until=…`, `type=…` or `failed` as you like, \
    `failed token=1`, or `id=EVENT token=1`; the token is any text that is new";

/// What the annotation asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRequest {
    /// The whole value, which is handled once and echoed.
    pub asked: Arc<str>,
    /// What to deliver again.
    pub what: What,
}

/// What to deliver again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// One event.
    One(EventId),
    /// Those accepted, or given up, within a span.
    Span {
        /// From then on.
        since: Timestamp,
        /// But before then.
        until: Option<Timestamp>,
        /// Those only that were given up.
        failed_only: bool,
        /// Those of this type only.
        event_type: Option<Arc<str>>,
    },
}

/// How a replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// It is under way.
    Running,
    /// Every event that was asked for is delivered again, or told why not.
    Done,
    /// It ended early; the message says why.
    Stopped,
    /// The process ended meanwhile; what was begun is delivered, the rest is not.
    Interrupted,
    /// Nothing was done: the value makes no sense.
    Refused,
}

impl ReplayOutcome {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::Done => "Done",
            Self::Stopped => "Stopped",
            Self::Interrupted => "Interrupted",
            Self::Refused => "Refused",
        }
    }
}

/// How many events met which fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCounts {
    /// Deliveries made.
    pub made: u64,
    /// Events whose delivery waits anyway.
    pub open: u64,
    /// Events that retention has removed.
    pub gone: u64,
    /// Dead letters of other destinations, which are replayed there.
    pub dead_letters: u64,
}

/// What came of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayResult {
    /// Value of the annotation that is answered, cut to [`MAX_ASKED`] characters.
    pub asked: Arc<str>,
    /// How it stands.
    pub outcome: ReplayOutcome,
    /// What happened and what to do.
    pub message: String,
    /// How many events; of an interrupted one, nobody knows.
    pub counts: Option<ReplayCounts>,
    /// When it ended.
    pub completed: Option<Timestamp>,
}

impl ReplayRequest {
    /// Reads the annotation.
    ///
    /// # Errors
    /// What is wrong with it, and what to write.
    pub fn parse(asked: &str) -> Result<Self, String> {
        if echo(asked).len() < asked.len() {
            return Err(format!("the annotation is over {MAX_ASKED} characters; {USAGE}"));
        }
        let (mut token, mut id, mut since, mut until, mut event_type) = (None, None, None, None, None);
        let mut failed_only = false;
        for word in asked.split_whitespace() {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            let place = match name {
                "failed" if word == "failed" => {
                    failed_only = true;
                    continue;
                }
                "token" => &mut token,
                "id" => &mut id,
                "since" => &mut since,
                "until" => &mut until,
                "type" => &mut event_type,
                _ => return Err(format!("{word:?} is not understood; {USAGE}")),
            };
            if value.is_empty() || place.replace(value).is_some() {
                return Err(format!("{name} must have one value; {USAGE}"));
            }
        }
        if token.is_none() {
            return Err(format!("there is no token; {USAGE}"));
        }
        let time = |name: &str, text: Option<&str>| {
            let read = text.map(str::parse::<Timestamp>).transpose();
            read.map_err(|_| format!("{name} is no time such as 2026-01-02T03:04:05Z; {USAGE}"))
        };
        let (from, until) = (time("since", since)?, time("until", until)?);
        let what = match (id, from) {
            (Some(_), _) if from.is_some() || until.is_some() || failed_only || event_type.is_some() => {
                return Err(format!("an id stands alone; {USAGE}"));
            }
            (Some(id), _) => {
                let id = EventId::parse(id).ok_or_else(|| format!("that is no id of an event; {USAGE}"))?;
                What::One(id)
            }
            (None, None) if !failed_only => {
                return Err(format!("it is not said what to deliver again; {USAGE}"));
            }
            (None, since) => {
                if event_type.is_some_and(|text| !is_event_type(text)) {
                    return Err(format!("type is no event type; {USAGE}"));
                }
                What::Span {
                    since: since.unwrap_or(Timestamp::UNIX_EPOCH),
                    until,
                    failed_only,
                    event_type: event_type.map(Into::into),
                }
            }
        };
        Ok(Self {
            asked: asked.into(),
            what,
        })
    }
}

impl ReplayResult {
    /// A replay that begins.
    #[must_use]
    pub fn running(asked: &str) -> Self {
        Self {
            asked: echo(asked).into(),
            outcome: ReplayOutcome::Running,
            message: "events are being delivered again".to_owned(),
            counts: None,
            completed: None,
        }
    }

    /// One that does not begin.
    #[must_use]
    pub fn refused(asked: &str, message: String, now: Timestamp) -> Self {
        Self {
            outcome: ReplayOutcome::Refused,
            message,
            completed: Some(now),
            ..Self::running(asked)
        }
    }

    /// One that an earlier process began.
    #[must_use]
    pub fn interrupted(asked: &str, now: Timestamp) -> Self {
        Self {
            outcome: ReplayOutcome::Interrupted,
            message: "Postrider was restarted meanwhile; ask again with a new token for what is missing"
                .to_owned(),
            completed: Some(now),
            ..Self::running(asked)
        }
    }

    /// One that a newer one has ended.
    #[must_use]
    pub fn superseded(asked: &str, now: Timestamp) -> Self {
        Self {
            outcome: ReplayOutcome::Stopped,
            message: "a newer replay took its place; what it made by then is delivered".to_owned(),
            completed: Some(now),
            ..Self::running(asked)
        }
    }

    /// One that ended; early when there is a `fault`.
    #[must_use]
    pub fn ended(asked: &str, counts: ReplayCounts, fault: Option<String>, now: Timestamp) -> Self {
        let (outcome, message) = match fault {
            Some(fault) => (ReplayOutcome::Stopped, fault),
            None => (ReplayOutcome::Done, summary(counts)),
        };
        Self {
            outcome,
            message,
            counts: Some(counts),
            completed: Some(now),
            ..Self::running(asked)
        }
    }
}

fn summary(counts: ReplayCounts) -> String {
    let ReplayCounts {
        made,
        open,
        gone,
        dead_letters,
    } = counts;
    let mut text = format!("{made} deliveries were made");
    if open > 0 {
        let _ = write!(text, "; {open} waited or were under way anyway");
    }
    if gone > 0 {
        let _ = write!(text, "; {gone} events are no longer stored");
    }
    if dead_letters > 0 {
        let _ = write!(
            text,
            "; {dead_letters} came as dead letters of other destinations: replay them there"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn what(asked: &str) -> What {
        ReplayRequest::parse(asked).unwrap().what
    }

    #[test]
    fn a_value_says_what_to_deliver_again() {
        assert_eq!(
            what("id=evt_1 token=1"),
            What::One(EventId::parse("evt_1").unwrap())
        );
        assert_eq!(
            what("since=2026-01-02T03:04:05Z failed token=abc"),
            What::Span {
                since: "2026-01-02T03:04:05Z".parse().unwrap(),
                until: None,
                failed_only: true,
                event_type: None,
            }
        );
        assert_eq!(
            what(" token=x  since=2026-01-02T00:00:00Z until=2026-01-03T00:00:00Z type=a.b "),
            What::Span {
                since: "2026-01-02T00:00:00Z".parse().unwrap(),
                until: Some("2026-01-03T00:00:00Z".parse().unwrap()),
                failed_only: false,
                event_type: Some("a.b".into()),
            }
        );
        assert!(matches!(
            what("failed token=1"),
            What::Span {
                failed_only: true,
                ..
            }
        ));
    }

    #[test]
    fn a_value_that_makes_no_sense_is_answered_with_what_to_write() {
        for (asked, word) in [
            ("", "no token"),
            ("17", "not understood"),
            ("token=17", "not said what"),
            ("since=2026-01-02T03:04:05Z", "no token"),
            ("since=yesterday token=1", "since is no time"),
            ("token= failed", "one value"),
            ("token=1 token=2 failed", "one value"),
            ("id=x failed token=1", "stands alone"),
            ("failed type=a/b token=1", "no event type"),
            ("all token=1", "not understood"),
        ] {
            let message = ReplayRequest::parse(asked).unwrap_err();
            assert!(
                message.contains(word) && message.contains("token=1"),
                "{asked}: {message}"
            );
        }
        assert!(ReplayRequest::parse(&"x".repeat(MAX_ASKED + 1)).is_err());
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in "(token=|since=|id=|failed| |.){0,12}") {
            let _ = ReplayRequest::parse(&text);
        }
    }
}
