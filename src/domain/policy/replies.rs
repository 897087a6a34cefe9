//! Which answers count as delivered ([`read`]), and which failures are tried again ([`RetryRules`]).
//!
//! A redirect that counts as delivered is not followed either. Faults of our own are never tried again, and `410`
//! disables the destination unless it counts as delivered.

use jiff::Timestamp;
use strum::IntoEnumIterator as _;

use crate::domain::outcome::{self, Failure, FailureReason, Outcome, Reading, Reply};

/// Most entries of a list.
pub const MAX_ENTRIES: usize = 32;
/// Least and highest status that an answer can have.
const STATUSES: (u16, u16) = (200, 599);

/// Statuses, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statuses(Box<[(u16, u16)]>);

impl Statuses {
    /// Reads codes, ranges and classes: `409`, `200-299`, `2xx`.
    ///
    /// # Errors
    /// Position and fault of each entry that is none.
    pub fn parse(entries: &[String]) -> Result<Self, Vec<(usize, String)>> {
        let mut faults = Vec::new();
        let mut ranges = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            match range(entry) {
                Ok(range) => ranges.push(range),
                Err(fault) => faults.push((index, fault)),
            }
        }
        if faults.is_empty() {
            Ok(Self(ranges.into()))
        } else {
            Err(faults)
        }
    }

    /// Whether a status is one of them.
    #[must_use]
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|(from, to)| (*from..=*to).contains(&status))
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    const SHAPE: &str =
        "use a status such as \"409\", a range such as \"200-299\" or a class such as \"2xx\"";
    let code = |text: &str| {
        let fits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        fits.then(|| text.parse::<u16>().ok()).flatten()
    };
    let (from, to) = if let Some(class) = text.strip_suffix("xx") {
        let first = code(&format!("{class}00")).ok_or(SHAPE)?;
        (first, first + 99)
    } else if let Some((from, to)) = text.split_once('-') {
        (code(from).ok_or(SHAPE)?, code(to).ok_or(SHAPE)?)
    } else {
        let one = code(text).ok_or(SHAPE)?;
        (one, one)
    };
    if from > to {
        return Err(format!("the range ends before it begins; write \"{to}-{from}\""));
    }
    if from < STATUSES.0 || to > STATUSES.1 {
        return Err("an answer has a status from 200 to 599".to_owned());
    }
    Ok((from, to))
}

/// Reads an answer: what counts as delivered is what the destination says.
#[must_use]
pub fn read(success: Option<&Statuses>, reply: &Reply, reading: Reading, now: Timestamp) -> Outcome {
    let Some(success) = success else {
        return outcome::classify(reply, reading, now);
    };
    let status = reply.status;
    if success.contains(status) {
        return reading
            .refusal(reply)
            .map_or(Outcome::Delivered { status }, Outcome::Failed);
    }
    if !(200..=299).contains(&status) {
        return outcome::classify(reply, reading, now);
    }
    Outcome::Failed(Failure {
        status: Some(status),
        ..Failure::new(
            FailureReason::Rejected,
            format!("the receiver answered {status}, which spec.delivery.success does not name"),
        )
    })
}

/// Which failures are tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryRules {
    on: Option<Failures>,
    give_up_on: Option<Failures>,
}

/// Some failures: by status of the answer, or by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Failures {
    statuses: Statuses,
    reasons: Box<[FailureReason]>,
}

/// A faulty entry of the rules: list, position and fault.
pub type RuleFault = (&'static str, usize, String);

impl RetryRules {
    /// Reads the lists `retryOn` and `giveUpOn`: statuses as in [`Statuses::parse`], and reasons.
    ///
    /// # Errors
    /// Every entry that is neither.
    pub fn parse(on: Option<&[String]>, give_up_on: Option<&[String]>) -> Result<Self, Vec<RuleFault>> {
        let mut faults = Vec::new();
        let rules = Self {
            on: on.map(|entries| failures("retryOn", entries, &mut faults)),
            give_up_on: give_up_on.map(|entries| failures("giveUpOn", entries, &mut faults)),
        };
        if faults.is_empty() { Ok(rules) } else { Err(faults) }
    }

    /// Whether a failure that could be tried again is: what `retryOn` names is, what else `giveUpOn` names is not. Of the
    /// rest nothing is when there is a `retryOn` alone, everything otherwise.
    #[must_use]
    pub fn allow(&self, failure: &Failure) -> bool {
        match (&self.on, &self.give_up_on) {
            (None, None) => true,
            (Some(on), None) => on.contain(failure),
            (None, Some(give_up_on)) => !give_up_on.contain(failure),
            (Some(on), Some(give_up_on)) => on.contain(failure) || !give_up_on.contain(failure),
        }
    }
}

fn failures(list: &'static str, entries: &[String], faults: &mut Vec<RuleFault>) -> Failures {
    let (mut ranges, mut reasons) = (Vec::new(), Vec::new());
    for (index, entry) in entries.iter().enumerate() {
        let read = if entry.starts_with(|first: char| first.is_ascii_uppercase()) {
            reason(entry).map(|reason| reasons.push(reason))
        } else {
            range(entry).map(|range| ranges.push(range))
        };
        if let Err(fault) = read {
            faults.push((list, index, fault));
        }
    }
    Failures {
        statuses: Statuses(ranges.into()),
        reasons: reasons.into(),
    }
}

fn reason(word: &str) -> Result<FailureReason, String> {
    match word.parse::<FailureReason>() {
        Ok(reason) if reason.is_terminal() => Err(format!("{word} is never tried again; remove it")),
        Ok(reason) => Ok(reason),
        Err(_) => {
            let known = FailureReason::iter().filter(|reason| !reason.is_terminal());
            let known: Vec<&str> = known.map(FailureReason::as_str).collect();
            Err(format!(
                "there is no reason {word:?}; there are {}",
                known.join(", ")
            ))
        }
    }
}

impl Failures {
    fn contain(&self, failure: &Failure) -> bool {
        self.reasons.contains(&failure.reason)
            || failure
                .status
                .is_some_and(|status| self.statuses.contains(status))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::api::v1alpha1::delivery::FAILURES_RULE;

    fn texts(entries: &[&str]) -> Vec<String> {
        entries.iter().map(|entry| (*entry).to_owned()).collect()
    }

    fn failed(reason: FailureReason, status: Option<u16>) -> Failure {
        Failure {
            status,
            ..Failure::new(reason, "x")
        }
    }

    #[test]
    fn codes_ranges_and_classes_are_statuses_and_nothing_else_is() {
        let statuses = Statuses::parse(&texts(&["409", "200-204", "3xx"])).unwrap();
        for (status, expected) in [
            (199, false),
            (200, true),
            (204, true),
            (205, false),
            (307, true),
            (409, true),
        ] {
            assert_eq!(statuses.contains(status), expected, "{status}");
        }
        for (entry, part) in [
            ("", "use a status"),
            ("2x", "use a status"),
            ("20", "use a status"),
            ("+20", "use a status"),
            ("200-", "use a status"),
            ("200-300-400", "use a status"),
            ("xx", "use a status"),
            ("1xx", "from 200 to 599"),
            ("100-299", "from 200 to 599"),
            ("600", "from 200 to 599"),
            ("299-200", "write \"200-299\""),
        ] {
            let faults = Statuses::parse(&texts(&["200", entry])).unwrap_err();
            assert!(
                faults[0].0 == 1 && faults[0].1.contains(part),
                "{entry}: {faults:?}"
            );
        }
    }

    #[test]
    fn what_counts_as_delivered_is_what_the_destination_says() {
        let success = Statuses::parse(&texts(&["200", "302", "409", "410"])).unwrap();
        let read = |status, reading, body: &'static str| {
            let reply = Reply {
                status,
                excerpt: bytes::Bytes::from_static(body.as_bytes()),
                ..Reply::default()
            };
            match read(Some(&success), &reply, reading, Timestamp::UNIX_EPOCH) {
                Outcome::Delivered { status: told } => {
                    assert_eq!(told, status);
                    None
                }
                Outcome::Failed(failure) => Some(failure.reason),
            }
        };
        for status in [200, 302, 409, 410] {
            assert_eq!(read(status, Reading::Status, ""), None, "{status}");
        }
        assert_eq!(read(202, Reading::Status, ""), Some(FailureReason::Rejected));
        assert_eq!(read(301, Reading::Status, ""), Some(FailureReason::Redirect));
        assert_eq!(read(500, Reading::Status, ""), Some(FailureReason::ServerError));
        assert_eq!(
            read(200, Reading::Slack, "no_service"),
            Some(FailureReason::Rejected)
        );
    }

    #[test]
    fn rules_say_what_is_tried_again() {
        use FailureReason as R;
        let (on, give_up) = (texts(&["408", "429", "500-599", "Timeout"]), texts(&["4xx"]));
        let cases = [
            (failed(R::ClientError, Some(408)), [true, true, false, true]),
            (failed(R::ClientError, Some(404)), [true, false, false, false]),
            (failed(R::TooManyRequests, Some(429)), [true, true, false, true]),
            (failed(R::ServerError, Some(500)), [true, true, true, true]),
            (failed(R::Timeout, None), [true, true, true, true]),
            (failed(R::DnsError, None), [true, false, true, true]),
        ];
        for (failure, expected) in cases {
            let found = [
                (None, None),
                (Some(&on), None),
                (None, Some(&give_up)),
                (Some(&on), Some(&give_up)),
            ]
            .map(|(on, give_up)| {
                let rules = RetryRules::parse(on.map(|on| &on[..]), give_up.map(|give_up| &give_up[..]));
                rules.unwrap().allow(&failure)
            });
            assert_eq!(found, expected, "{failure:?}");
        }
    }

    #[test]
    fn a_faulty_rule_is_named_by_list_and_position() {
        let faults = RetryRules::parse(
            Some(&texts(&["500", "TimeOut", "EgressRefused"])),
            Some(&texts(&["404-400"])),
        )
        .unwrap_err();
        let places: Vec<_> = faults.iter().map(|(list, index, _)| (*list, *index)).collect();
        assert_eq!(places, [("retryOn", 1), ("retryOn", 2), ("giveUpOn", 0)]);
        assert!(faults[0].2.contains("there are") && faults[0].2.contains("Timeout"));
        assert!(faults[1].2.contains("never tried again"));
    }

    #[test]
    fn the_schema_lets_through_the_reasons_that_a_rule_may_name_and_no_others() {
        // What is in the apostrophes is a regular expression that both CEL and this crate read.
        let pattern = FAILURES_RULE.split('\'').nth(1).unwrap();
        let rule = format!("self.matches('{pattern}')");
        let program = cel::Program::compile(&rule).unwrap();
        let matches = |word: &str| {
            let mut context = cel::Context::default();
            context.add_variable("self", word).unwrap();
            program.execute(&context).unwrap() == cel::Value::Bool(true)
        };
        for reason in FailureReason::iter() {
            let word = reason.as_str();
            let known = super::reason(word).is_ok();
            assert_eq!(matches(word), known, "{word}");
        }
        for word in ["", "timeout", "TimeoutX", "XTimeout", "Connection"] {
            assert!(!matches(word), "{word}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(entry in ".{0,12}") {
            let _ = Statuses::parse(std::slice::from_ref(&entry));
            let _ = RetryRules::parse(Some(std::slice::from_ref(&entry)), None);
        }
    }
}
