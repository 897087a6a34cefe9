//! [`DeadLetter`]: why a delivery is in another destination's lane, and how that is kept and told.
//!
//! A delivery that a destination gives up is made anew for the destination that `deadLetter` names. Why is in the new
//! delivery's note, before what attempts leave there for later ones ([`Settled`]). What attempts leave has a length
//! that is a multiple of ten bytes; a note that begins with a dead letter has five more, so that the two are told apart.
//!
//! A dead letter that is given up in turn is not sent on: one hop, so that no circle of destinations has no end.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::domain::email::Mail;
use crate::domain::email::settled::Settled;

/// Header that names the destination which gave the event up.
pub const FROM: HeaderName = HeaderName::from_static("x-postrider-dead-letter-from");
/// Header that says why, in one word.
pub const REASON: HeaderName = HeaderName::from_static("x-postrider-dead-letter-reason");

/// Why a dead letter is not replayed where it went.
pub const NOT_REPLAYED: &str = "it came here as the dead letter of another destination: replay it there; the header \
                                X-Postrider-Dead-Letter-From of its attempts names it";

/// Bytes that what attempts leave is a multiple of.
const ENTRY: usize = 10;
/// Bytes that a note with a dead letter has beyond a multiple of [`ENTRY`].
const REST: usize = 5;
/// Bytes of the length at the beginning.
const LENGTH: usize = 2;

/// Why a delivery is in another destination's lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Name of the destination that gave it up.
    pub from: Box<str>,
    /// Why, in one word, as in metrics.
    pub reason: Box<str>,
}

/// What is noted with a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// Another destination gave it up.
    pub letter: Option<DeadLetter>,
    /// Who has the mail, or never will.
    pub settled: Settled,
}

impl Note {
    /// Reads what [`Note::to_bytes`] wrote. What is damaged is left out.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        if bytes.len() % ENTRY != REST {
            return Self {
                letter: None,
                settled: Settled::of_note(bytes),
            };
        }
        let length = bytes
            .first_chunk::<LENGTH>()
            .map_or(0, |length| usize::from(u16::from_le_bytes(*length)));
        let text = bytes
            .get(LENGTH..LENGTH + length)
            .and_then(|text| std::str::from_utf8(text).ok());
        let settled = bytes.get(LENGTH + length + padding(length)..).unwrap_or_default();
        let (from, reason) = text.and_then(|text| text.split_once('\n')).unwrap_or_default();
        Self {
            letter: Some(DeadLetter {
                from: from.into(),
                reason: reason.into(),
            }),
            settled: Settled::of_note(settled),
        }
    }

    /// The stored form; `None` when there is nothing to note.
    #[must_use]
    pub fn to_bytes(&self) -> Option<Box<[u8]>> {
        let settled = self.settled.to_note();
        let Some(letter) = &self.letter else {
            return settled;
        };
        let text = format!("{}\n{}", letter.from, letter.reason);
        // Names and reasons are far shorter.
        let length = u16::try_from(text.len()).ok()?;
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len() + padding(text.len()), 0);
        bytes.extend(settled.into_iter().flatten());
        Some(bytes.into())
    }
}

/// The note of a delivery that waits and is to stand for a dead letter, too: that one's note, and behind it what attempts
/// left. `None` when it stands for one already.
#[must_use]
pub fn join(letter: &[u8], had: Option<&[u8]>) -> Option<Box<[u8]>> {
    let had = had.unwrap_or_default();
    (had.len() % ENTRY != REST).then(|| [letter, had].concat().into())
}

/// Zeros behind a text of that length.
const fn padding(length: usize) -> usize {
    (ENTRY + REST - (LENGTH + length) % ENTRY) % ENTRY
}

impl DeadLetter {
    /// Says in the headers of a request where the event comes from. They are no part of what is signed.
    pub fn mark(&self, headers: &mut HeaderMap) {
        for (name, value) in [(FROM, &self.from), (REASON, &self.reason)] {
            // Names and reasons are visible ASCII; what is damaged is left out.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }

    /// The same for a mail.
    pub fn mark_mail(&self, mail: &mut Mail) {
        for letter in &mut mail.letters {
            for (name, value) in [
                ("X-Postrider-Dead-Letter-From", &self.from),
                ("X-Postrider-Dead-Letter-Reason", &self.reason),
            ] {
                if value.bytes().all(|byte| byte.is_ascii_graphic()) {
                    letter.headers.push((name, value.to_string()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letter(from: &str) -> DeadLetter {
        DeadLetter {
            from: from.into(),
            reason: "ServerError".into(),
        }
    }

    #[test]
    fn a_note_reads_back_whatever_the_length_of_the_name() {
        let settled = Settled::of_note(&[7; 30]);
        for length in 1..=253 {
            for settled in [Settled::default(), settled.clone()] {
                let note = Note {
                    letter: Some(letter(&"x".repeat(length))),
                    settled,
                };
                assert_eq!(Note::parse(&note.to_bytes().unwrap()), note, "{length}");
            }
        }
    }

    #[test]
    fn a_note_without_a_dead_letter_is_what_it_was_before_there_were_any() {
        let old: Vec<u8> = (0..40).collect();
        let note = Note::parse(&old);
        assert_eq!(
            (note.letter.as_ref(), note.settled.to_note().as_deref()),
            (None, Some(&*old))
        );
        assert_eq!(note.to_bytes().as_deref(), Some(&*old));
        assert_eq!(Note::default().to_bytes(), None);
    }

    #[test]
    fn a_delivery_that_waits_takes_a_dead_letter_once_and_keeps_what_attempts_left() {
        let note = |from, settled: &[u8]| Note {
            letter: Some(letter(from)),
            settled: Settled::of_note(settled),
        };
        let new = note("a", &[]).to_bytes().unwrap();
        for settled in [&[][..], &[7; 30]] {
            let joined = join(&new, Some(settled)).unwrap();
            assert_eq!(Note::parse(&joined), note("a", settled));
            assert_eq!(join(&new, Some(&joined)), None);
        }
        assert_eq!(join(&new, None), Some(new));
    }

    #[test]
    fn a_request_says_who_gave_it_up_and_why() {
        let mut headers = HeaderMap::new();
        letter("billing").mark(&mut headers);
        assert_eq!(headers["x-postrider-dead-letter-from"], "billing");
        assert_eq!(headers["x-postrider-dead-letter-reason"], "ServerError");
        let mut headers = HeaderMap::new();
        letter("a\r\nb: c").mark(&mut headers);
        assert!(!headers.contains_key(FROM));
    }

    proptest! {
        #[test]
        fn a_damaged_note_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Note::parse(&bytes);
        }
    }
}
