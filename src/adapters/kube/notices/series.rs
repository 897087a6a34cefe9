//! [`Series`]: which notices become Kubernetes Events of their own, and which only count one that there is.
//!
//! A notice that says the same of the same object as one of the last minutes counts that one; another text is
//! another Event, because the text of an Event cannot be changed and is what people read. Bounds, for an object that
//! never settles: at most [`MAX_NOTES`] texts of one object and reason are told within [`WINDOW`], and further ones
//! count the newest; at most [`MAX_KEPT`] Events are known, and of one that is forgotten the next notice is new.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;

/// How long after its last notice an Event is known.
pub(super) const WINDOW: Duration = Duration::from_mins(6);
/// Most texts of one object and reason that are told within [`WINDOW`].
pub(super) const MAX_NOTES: usize = 10;
/// Most Events that are known.
pub(super) const MAX_KEPT: usize = 4096;

/// What an Event is about, its text left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Subject {
    pub(super) uid: String,
    pub(super) warning: bool,
    pub(super) reason: String,
}

/// What to do about a notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// Make an Event.
    Tell,
    /// Count the Event of that name.
    Count {
        name: String,
        count: i32,
        /// It says something else than the notice.
        other_text: bool,
    },
}

/// The Events of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Series {
    told: HashMap<Subject, VecDeque<Told>>,
    kept: usize,
}

#[derive(Debug)]
struct Told {
    name: String,
    note: String,
    count: i32,
    last: Timestamp,
}

impl Series {
    /// Decides, without taking note of it.
    pub(super) fn decide(&mut self, subject: &Subject, note: &str, now: Timestamp) -> Deed {
        self.forget_before(now);
        let Some(told) = self.told.get(subject) else {
            return Deed::Tell;
        };
        let same = told.iter().find(|told| told.note == note);
        let newest = || told.back().filter(|_| told.len() >= MAX_NOTES);
        match same.or_else(newest) {
            Some(event) => Deed::Count {
                name: event.name.clone(),
                count: event.count.saturating_add(1),
                other_text: event.note != note,
            },
            None => Deed::Tell,
        }
    }

    /// An Event was made.
    pub(super) fn made(&mut self, subject: Subject, name: String, note: String, now: Timestamp) {
        if self.kept >= MAX_KEPT {
            // Rare, and the price is a few Events more: start anew.
            self.told.clear();
            self.kept = 0;
        }
        self.kept += 1;
        self.told.entry(subject).or_default().push_back(Told {
            name,
            note,
            count: 1,
            last: now,
        });
    }

    /// An Event was counted.
    pub(super) fn counted(&mut self, subject: &Subject, name: &str, now: Timestamp) {
        let events = self.told.get_mut(subject).into_iter().flatten();
        for event in events.filter(|event| event.name == name) {
            event.count = event.count.saturating_add(1);
            event.last = now;
        }
    }

    /// An Event is gone.
    pub(super) fn gone(&mut self, subject: &Subject, name: &str) {
        if let Some(events) = self.told.get_mut(subject) {
            let before = events.len();
            events.retain(|event| event.name != name);
            self.kept = self.kept.saturating_sub(before - events.len());
        }
    }

    fn forget_before(&mut self, now: Timestamp) {
        self.told.retain(|_, events| {
            events.retain(|event| {
                Duration::try_from(now.duration_since(event.last)).unwrap_or_default() < WINDOW
            });
            !events.is_empty()
        });
        self.kept = self.told.values().map(VecDeque::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(uid: &str, reason: &str) -> Subject {
        Subject {
            uid: uid.to_owned(),
            warning: true,
            reason: reason.to_owned(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Takes note of a notice; the name of its Event is the text.
    fn tell(series: &mut Series, subject: &Subject, note: &str, second: i64) -> Deed {
        let deed = series.decide(subject, note, at(second));
        match &deed {
            Deed::Tell => series.made(subject.clone(), note.to_owned(), note.to_owned(), at(second)),
            Deed::Count { name, .. } => series.counted(subject, name, at(second)),
        }
        deed
    }

    fn count(name: &str, count: i32) -> Deed {
        Deed::Count {
            name: name.to_owned(),
            count,
            other_text: false,
        }
    }

    #[test]
    fn the_same_is_counted_and_another_text_is_told() {
        let (mut series, one) = (Series::default(), subject("one", "InvalidSpec"));
        assert_eq!(tell(&mut series, &one, "a", 0), Deed::Tell);
        assert_eq!(tell(&mut series, &one, "a", 1), count("a", 2));
        assert_eq!(tell(&mut series, &one, "b", 2), Deed::Tell);
        assert_eq!(tell(&mut series, &one, "a", 3), count("a", 3));
        for other in [subject("two", "InvalidSpec"), subject("one", "Succeeded")] {
            assert_eq!(tell(&mut series, &other, "a", 4), Deed::Tell);
        }
        assert_eq!(tell(&mut series, &one, "a", 362), count("a", 4));
        assert_eq!(
            tell(&mut series, &one, "b", 363),
            Deed::Tell,
            "the first was too long ago"
        );
        series.gone(&one, "a");
        assert_eq!(tell(&mut series, &one, "a", 364), Deed::Tell);
    }

    #[test]
    fn an_object_that_never_settles_is_bounded() {
        let (mut series, one) = (Series::default(), subject("one", "ServerError"));
        for number in 0..10 {
            assert_eq!(
                tell(&mut series, &one, &format!("since {number}"), number),
                Deed::Tell
            );
        }
        for number in 10..400 {
            let expected = Deed::Count {
                name: "since 9".to_owned(),
                count: i32::try_from(number - 8).unwrap(),
                other_text: true,
            };
            let deed = series.decide(&one, &format!("since {number}"), at(number));
            if number < 360 {
                assert_eq!(deed, expected);
                series.counted(&one, "since 9", at(number));
            } else {
                assert_eq!(deed, Deed::Tell, "the others are forgotten");
            }
        }
        for number in 0..10_000 {
            tell(&mut series, &subject(&number.to_string(), "x"), "a", 400);
            assert!(series.kept <= MAX_KEPT && series.told.len() <= MAX_KEPT);
        }
    }
}
