//! What became of each recipient, over all attempts, and what an attempt as a whole came to.
//!
//! A recipient is *settled* when the server has taken the mail for it, or has refused it for good. Settled recipients
//! are remembered with the delivery ([`Settled`]), so that a retry is for the others alone. The decision, by
//! [`conclude`]:
//!
//! | Recipients | Outcome |
//! |---|---|
//! | all taken | delivered |
//! | some not settled | the first such failure; it is retried, for them alone |
//! | all settled, some taken, some refused | `PartlyRefused`: given up, and a sign that the server works |
//! | all settled, some taken, some impossible for another reason | that reason: given up |
//! | all refused | `RecipientRefused`, or what else the server said: given up |

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

use super::{Mailbox, Recipient};
use crate::domain::outcome::{Failure, FailureReason, Outcome};

/// SMTP's "done".
const DONE: u16 = 250;
/// Bytes of a mark.
const MARK: usize = 8;

/// What the server did about one recipient in one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has taken responsibility for the mail.
    Taken,
    /// It will not take it, now or later.
    Refused(Failure),
    /// It may take it later, or nothing is known.
    Open(Failure),
}

/// Stands for a recipient's address: the beginning of its SHA-256.
pub type Mark = [u8; MARK];

/// The mark of an address.
#[must_use]
pub fn mark(mailbox: &Mailbox) -> Mark {
    let hash = Sha256::digest(mailbox.address().as_bytes());
    let mut mark = [0; MARK];
    mark.iter_mut().zip(hash).for_each(|(to, from)| *to = from);
    mark
}

/// Who is settled, and with which code the server said so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settled(BTreeMap<Mark, u16>);

impl Settled {
    /// Reads what [`Settled::to_note`] wrote. What is damaged is left out: its recipient may get the mail again.
    #[must_use]
    pub fn of_note(note: &[u8]) -> Self {
        let entries = note.chunks_exact(MARK + 2).filter_map(|entry| {
            let (mark, code) = entry.split_first_chunk::<MARK>()?;
            Some((*mark, u16::from_le_bytes(code.try_into().ok()?)))
        });
        Self(entries.collect())
    }

    /// The stored form; `None` when nobody is settled.
    #[must_use]
    pub fn to_note(&self) -> Option<Box<[u8]>> {
        let bytes = self
            .0
            .iter()
            .flat_map(|(mark, code)| mark.iter().copied().chain(code.to_le_bytes()));
        Some(bytes.collect::<Box<[u8]>>()).filter(|bytes| !bytes.is_empty())
    }

    /// Whether that recipient is settled.
    #[must_use]
    pub fn knows(&self, mailbox: &Mailbox) -> bool {
        !self.0.is_empty() && self.0.contains_key(&mark(mailbox))
    }
}

/// What an attempt came to; adds to `settled`. `all` are the recipients of the spec, `tried` those of the attempt,
/// each with its fate.
#[must_use]
pub fn conclude<'a>(
    all: &[Recipient],
    tried: impl Iterator<Item = (&'a Recipient, Fate)>,
    settled: &mut Settled,
) -> Outcome {
    let (mut open, mut refused) = (None, None);
    for (recipient, fate) in tried {
        let code = match fate {
            Fate::Taken => DONE,
            Fate::Refused(failure) => {
                let code = failure.status.unwrap_or_default();
                refused.get_or_insert(failure);
                code
            }
            Fate::Open(failure) => {
                open.get_or_insert(failure);
                continue;
            }
        };
        settled.0.insert(mark(&recipient.mailbox), code);
    }
    let codes = || {
        all.iter()
            .filter_map(|one| Some((one, *settled.0.get(&mark(&one.mailbox))?)))
    };
    let taken = codes().filter(|(_, code)| *code == DONE).count();
    let with_count = |failure: Failure| Failure {
        message: Failure::new(
            failure.reason,
            format!(
                "{taken} of {} recipients have the mail; {}",
                all.len(),
                failure.message
            ),
        )
        .message,
        ..failure
    };
    if let Some(failure) = open {
        return Outcome::Failed(if taken > 0 { with_count(failure) } else { failure });
    }
    let Some((first, code)) = codes().find(|(_, code)| *code != DONE) else {
        return Outcome::Delivered { status: DONE };
    };
    let failure = refused.unwrap_or_else(|| {
        let status = Some(code).filter(|code| *code > 0);
        let with = status.map(|code| format!(" with {code}")).unwrap_or_default();
        let message = format!("{}: an earlier attempt was refused for good{with}", first.field);
        Failure {
            status,
            ..Failure::new(FailureReason::RecipientRefused, message)
        }
    });
    Outcome::Failed(if taken > 0 {
        with_count(Failure {
            reason: match failure.reason {
                FailureReason::RecipientRefused | FailureReason::MessageRefused => {
                    FailureReason::PartlyRefused
                }
                // Not the server's word.
                other => other,
            },
            ..failure
        })
    } else {
        failure
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipients(names: &[&str]) -> Vec<Recipient> {
        let each = names.iter().enumerate().map(|(index, name)| Recipient {
            mailbox: Mailbox::parse(&format!("{name}@example.com")).unwrap(),
            field: format!("spec.email.to[{index}]").into(),
        });
        each.collect()
    }

    fn refused() -> Fate {
        Fate::Refused(Failure {
            status: Some(550),
            ..Failure::new(FailureReason::RecipientRefused, "550 no such user")
        })
    }

    fn forbidden() -> Fate {
        Fate::Refused(Failure::new(FailureReason::EgressRefused, "a private address"))
    }

    fn later() -> Fate {
        Fate::Open(Failure::new(FailureReason::TryLater, "451 greylisted"))
    }

    fn word(outcome: &Outcome) -> &str {
        match outcome {
            Outcome::Delivered { .. } => "Delivered",
            Outcome::Failed(failure) => failure.reason.as_str(),
        }
    }

    #[test]
    fn the_table_of_the_module_holds() {
        for (fates, expected) in [
            (vec![Fate::Taken, Fate::Taken], "Delivered"),
            (vec![Fate::Taken, later()], "TryLater"),
            (vec![refused(), later()], "TryLater"),
            (vec![Fate::Taken, refused()], "PartlyRefused"),
            (vec![refused(), refused()], "RecipientRefused"),
            (vec![Fate::Taken, forbidden()], "EgressRefused"),
        ] {
            let all = recipients(&["a", "b"]);
            let outcome = conclude(&all, all.iter().zip(fates), &mut Settled::default());
            assert_eq!(word(&outcome), expected);
        }
    }

    #[test]
    fn who_is_settled_stays_so_over_attempts_and_the_stored_form() {
        let all = recipients(&["a", "b", "c"]);
        let mut settled = Settled::default();
        let first = conclude(
            &all,
            all.iter().zip([Fate::Taken, refused(), later()]),
            &mut settled,
        );
        let Outcome::Failed(failure) = &first else {
            panic!()
        };
        assert_eq!(failure.message, "1 of 3 recipients have the mail; 451 greylisted");
        let mut settled = Settled::of_note(&settled.to_note().unwrap());
        let known: Vec<_> = all.iter().map(|one| settled.knows(&one.mailbox)).collect();
        assert_eq!(known, [true, true, false]);
        let second = conclude(&all, all[2..].iter().zip([Fate::Taken]), &mut settled);
        assert_eq!(word(&second), "PartlyRefused");
        let Outcome::Failed(failure) = &second else {
            panic!()
        };
        assert_eq!(failure.status, Some(550));
        assert!(
            failure
                .message
                .contains("spec.email.to[1]: an earlier attempt was refused"),
            "{failure:?}"
        );
    }

    #[test]
    fn what_an_earlier_attempt_came_to_is_told_with_its_code_if_it_had_one() {
        for (fate, expected) in [
            (refused(), "was refused for good with 550"),
            (forbidden(), "was refused for good"),
        ] {
            let all = recipients(&["a", "b"]);
            let mut settled = Settled::default();
            let _ = conclude(&all, all.iter().zip([fate, later()]), &mut settled);
            let Outcome::Failed(failure) = conclude(&all[..1], std::iter::empty(), &mut settled) else {
                panic!()
            };
            assert!(failure.message.ends_with(expected), "{}", failure.message);
        }
    }

    #[test]
    fn a_recipient_who_was_removed_from_the_spec_counts_no_more() {
        let all = recipients(&["a", "b"]);
        let mut settled = Settled::default();
        let _ = conclude(&all, all.iter().zip([Fate::Taken, refused()]), &mut settled);
        let outcome = conclude(&all[..1], std::iter::empty(), &mut settled);
        assert_eq!(word(&outcome), "Delivered");
    }

    #[test]
    fn a_damaged_note_settles_nobody_else() {
        assert_eq!(Settled::of_note(b"short"), Settled::default());
        assert_eq!(Settled::default().to_note(), None);
    }
}
