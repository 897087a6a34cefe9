//! [`Record`]: which keys of a destination's signatures came before the ones that are there now, and for how long they
//! still count.
//!
//! A key that is found to be another than the one before makes that one a previous key, which counts until its time
//! is over, at most [`MAX_PREVIOUS`] of them. A rotation that was asked for begins with new keys that are *pending*: they sign
//! before anybody can read them, so that who reads a new key can rely on it at once; once no request without them can
//! be under way any more they are published, and what they replace becomes a previous key.
//!
//! The record is kept in a Kubernetes Secret, as JSON, so that it survives the process; this module reads and writes
//! the text only. Keys never show: they are [`Secret`]s. Time and randomness are arguments.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use super::signature::key::Generated;
use super::test_send::{MAX_ASKED, echo};

/// Most previous keys of one signature; with one more, the oldest counts no longer.
pub const MAX_PREVIOUS: usize = 4;

/// The bytes of a key as they are in a Secret.
pub type KeyBytes = Secret<Vec<u8>>;

/// Reason of a rotation that was made.
pub const ROTATED: &str = "Rotated";
/// Reason of a rotation that the annotation does not describe.
pub const INVALID_REQUEST: &str = "InvalidRequest";
/// Reason when no key is Postrider's to change.
pub const NOT_GENERATED: &str = "NotGenerated";
/// Reason when the configuration is not in force.
pub const NOT_READY: &str = "NotReady";
/// Reason when too many earlier keys still count.
pub const TOO_MANY_KEYS: &str = "TooManyKeys";

/// The keys of a destination's signatures, by the names of the signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// The keys in use.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, Ring>,
    /// A rotation that has begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending: Option<Pending>,
    /// The last rotation that ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handled: Option<Handled>,
}

/// The keys of one signature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Ring {
    /// The key that was found last.
    #[serde(with = "optional_key", skip_serializing_if = "Option::is_none")]
    pub current: Option<Secret<Vec<u8>>>,
    /// Those before it that count, the newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub previous: Vec<Previous>,
}

/// A key that was replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The key.
    #[serde(with = "key")]
    pub key: Secret<Vec<u8>>,
    /// When another one was found in its place.
    pub replaced: Timestamp,
}

/// A rotation that has begun: the new keys sign, and nobody can read them yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// Value of the annotation.
    pub asked: String,
    /// The new keys.
    pub next: BTreeMap<String, NewKey>,
}

/// A new key and what is written of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewKey {
    /// The key.
    #[serde(with = "key")]
    pub key: Secret<Vec<u8>>,
    /// What receivers verify with, if that is something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public: Option<String>,
}

/// A rotation that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handled {
    /// Value of the annotation.
    pub asked: String,
    /// When.
    pub at: Timestamp,
}

/// What came of a request for new keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RotationResult {
    /// Value of the annotation, cut to [`MAX_ASKED`] characters.
    pub asked: String,
    /// Whether there are new keys.
    pub rotated: bool,
    /// One word.
    pub reason: &'static str,
    /// What happened and what to do.
    pub message: String,
    /// When it ended.
    pub completed: Timestamp,
}

impl RotationResult {
    /// New keys were made.
    #[must_use]
    pub fn rotated(asked: &str, completed: Timestamp) -> Self {
        Self {
            asked: echo(asked).to_owned(),
            rotated: true,
            reason: ROTATED,
            message: "the generated keys are new; the previous ones sign as long as previousSecretTTL says; give the \
                      receivers the new ones"
                .to_owned(),
            completed,
        }
    }

    /// None were made.
    #[must_use]
    pub fn refused(
        asked: &str,
        reason: &'static str,
        message: impl Into<String>,
        completed: Timestamp,
    ) -> Self {
        Self {
            asked: echo(asked).to_owned(),
            rotated: false,
            reason,
            message: message.into(),
            completed,
        }
    }
}

/// Checks what the annotation says: any token of at most [`MAX_ASKED`] characters.
///
/// # Errors
/// What is wrong with it.
pub fn check(asked: &str) -> Result<(), String> {
    if echo(asked).len() < asked.len() {
        return Err(format!(
            "the annotation is over {MAX_ASKED} characters; a time will do"
        ));
    }
    if asked.trim().is_empty() {
        return Err("the annotation is empty; give it any token, such as a time".to_owned());
    }
    Ok(())
}

impl Record {
    /// Reads what [`Record::to_text`] wrote.
    ///
    /// # Errors
    /// Where it is no record; nothing of it is in the message.
    pub fn parse(text: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(text)
            .map_err(|error| format!("line {} column {}", error.line(), error.column()))
    }

    /// The record as text; it holds keys.
    #[must_use]
    pub fn to_text(&self) -> Secret<String> {
        Secret::new(serde_json::to_string(self).unwrap_or_default())
    }

    /// Whether nothing is in it that could not be found out again.
    #[must_use]
    pub fn is_trivial(&self) -> bool {
        self.pending.is_none()
            && self.handled.is_none()
            && self.keys.values().all(|ring| ring.previous.is_empty())
    }

    /// Takes note of the key that a signature has now; `remembered` is the one that the process knows from before,
    /// should the record know none. Answers how many previous keys were too many.
    pub fn observe(
        &mut self,
        name: &str,
        found: &[u8],
        remembered: Option<&Secret<Vec<u8>>>,
        ttl: Duration,
        now: Timestamp,
    ) -> usize {
        if ttl.is_zero() {
            self.keys.remove(name);
            return 0;
        }
        let ring = self.keys.entry(name.to_owned()).or_default();
        let before = ring.current.take().or_else(|| remembered.cloned());
        if let Some(before) = before.filter(|before| before.expose() != found) {
            ring.previous.insert(
                0,
                Previous {
                    key: before,
                    replaced: now,
                },
            );
        }
        ring.current = Some(Secret::new(found.to_vec()));
        for previous in &mut ring.previous {
            previous.replaced = previous.replaced.min(now); // a clock that went back does not prolong
        }
        ring.previous
            .retain(|previous| previous.key.expose() != found && end(previous.replaced, ttl) > now);
        let excess = ring.previous.len().saturating_sub(MAX_PREVIOUS);
        ring.previous.truncate(MAX_PREVIOUS);
        excess
    }

    /// Before [`observe`](Self::observe), where one key signs: when the key that was found is an earlier one, forgets
    /// those that came after it. None of them has signed while the earlier one counted, so no receiver relies on them.
    pub fn revert(&mut self, name: &str, found: &[u8]) {
        if let Some(ring) = self.keys.get_mut(name)
            && let Some(index) = ring
                .previous
                .iter()
                .position(|previous| previous.key.expose() == found)
        {
            ring.previous.drain(..=index);
            ring.current = Some(Secret::new(found.to_vec()));
        }
    }

    /// Forgets signatures that there are no more.
    pub fn retain(&mut self, known: impl Fn(&str) -> bool) {
        self.keys.retain(|name, _| known(name));
        if let Some(pending) = &mut self.pending {
            pending.next.retain(|name, _| known(name));
        }
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.next.is_empty())
        {
            self.pending = None;
        }
    }

    /// Whether there is room for what one more rotation replaces.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.keys.values().all(|ring| ring.previous.len() < MAX_PREVIOUS)
    }

    /// Begins a rotation.
    pub fn begin(&mut self, asked: &str, next: impl IntoIterator<Item = (String, Generated)>) {
        let next = next.into_iter().map(|(name, made)| {
            let key = Secret::new(made.secret.expose().clone().into_bytes());
            (
                name,
                NewKey {
                    key,
                    public: made.public,
                },
            )
        });
        self.pending = Some(Pending {
            asked: echo(asked).to_owned(),
            next: next.collect(),
        });
    }

    /// Publishes the pending keys: answers what is to be written, and takes note of it. `ttl` of each signature.
    pub fn publish(&mut self, ttl: impl Fn(&str) -> Duration, now: Timestamp) -> BTreeMap<String, NewKey> {
        let Some(pending) = self.pending.take() else {
            return BTreeMap::new();
        };
        for (name, new) in &pending.next {
            self.observe(name, new.key.expose(), None, ttl(name), now);
        }
        self.handled = Some(Handled {
            asked: pending.asked,
            at: now,
        });
        pending.next
    }

    /// The keys that sign besides the one that is there now: a pending one, and the previous ones, the newest first.
    #[must_use]
    pub fn others(&self, name: &str) -> (Option<&KeyBytes>, Vec<&KeyBytes>) {
        let pending = self.pending.as_ref().and_then(|pending| pending.next.get(name));
        let ring = self.keys.get(name);
        let previous = ring.iter().flat_map(|ring| &ring.previous).map(|one| &one.key);
        (pending.map(|new| &new.key), previous.collect())
    }

    /// When a signature has no previous key any more, and when one of its keys next counts no longer.
    #[must_use]
    pub fn ends(&self, name: &str, ttl: Duration) -> Option<(Timestamp, Timestamp)> {
        let ends = || {
            let ring = self.keys.get(name);
            ring.into_iter()
                .flat_map(|ring| &ring.previous)
                .map(|one| end(one.replaced, ttl))
        };
        Some((ends().max()?, ends().min()?))
    }
}

fn end(replaced: Timestamp, ttl: Duration) -> Timestamp {
    replaced.saturating_add(ttl).unwrap_or(Timestamp::MAX)
}

mod key {
    //! A key as base64.

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::Secret;

    pub(super) fn serialize<S: Serializer>(key: &Secret<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(key.expose()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Secret<Vec<u8>>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD
            .decode(text)
            .map(Secret::new)
            .map_err(|_| D::Error::custom("this is not base64"))
    }
}

mod optional_key {
    //! A key as base64, or nothing.

    use serde::{Deserialize, Deserializer, Serialize as _, Serializer};

    use super::{Secret, key};

    #[derive(Deserialize)]
    struct Wrapped(#[serde(with = "key")] Secret<Vec<u8>>);

    #[expect(clippy::ref_option, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(
        key: &Option<Secret<Vec<u8>>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => key::serialize(key, serializer),
            None => ().serialize(serializer),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Secret<Vec<u8>>>, D::Error> {
        Ok(Option::<Wrapped>::deserialize(deserializer)?.map(|wrapped| wrapped.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::v1alpha1::event_destination::SigningScheme;
    use crate::domain::event::sample::at;
    use crate::domain::signature::key::generate;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn texts(record: &Record, name: &str) -> (Option<String>, Vec<String>) {
        let text = |key: &Secret<Vec<u8>>| String::from_utf8(key.expose().clone()).unwrap();
        let (pending, previous) = record.others(name);
        (pending.map(text), previous.into_iter().map(text).collect())
    }

    #[test]
    fn a_key_that_is_replaced_counts_until_its_time_is_over() {
        let mut record = Record::default();
        let noon = at("2026-01-31T12:00:00Z");
        record.observe("secret", b"one", None, DAY, noon);
        assert!(record.is_trivial());
        record.observe("secret", b"two", None, DAY, noon);
        assert_eq!(texts(&record, "secret"), (None, vec!["one".to_owned()]));
        let end = at("2026-02-01T12:00:00Z");
        assert_eq!(record.ends("secret", DAY), Some((end, end)));
        record.observe("secret", b"two", None, DAY, at("2026-02-01T11:59:59Z"));
        assert_eq!(texts(&record, "secret").1, ["one"]);
        record.observe("secret", b"two", None, DAY, end);
        assert!(record.is_trivial() && record.ends("secret", DAY).is_none());
    }

    #[test]
    fn several_keys_may_count_but_not_any_number_and_the_one_in_use_is_no_previous_one() {
        let mut record = Record::default();
        let now = at("2026-01-31T12:00:00Z");
        let mut excess = 0;
        for key in ["a", "b", "c", "d", "e", "f"] {
            excess += record.observe("secret", key.as_bytes(), None, DAY, now);
        }
        assert_eq!(
            (texts(&record, "secret").1, excess),
            (vec!["e".into(), "d".into(), "c".into(), "b".into()], 1)
        );
        assert!(!record.has_room());
        record.observe("secret", b"e", None, DAY, now);
        assert_eq!(
            texts(&record, "secret").1,
            ["f", "d", "c", "b"],
            "back to an earlier key"
        );
    }

    #[test]
    fn where_one_key_signs_a_key_that_comes_back_signs_and_those_after_it_are_forgotten() {
        let now = at("2026-01-31T12:00:00Z");
        let see = |record: &mut Record, key: &str| {
            record.revert("secret", key.as_bytes());
            record.observe("secret", key.as_bytes(), None, DAY, now);
        };
        let mut record = Record::default();
        for key in ["one", "two", "one"] {
            see(&mut record, key);
        }
        assert!(texts(&record, "secret").1.is_empty(), "two has never signed");
        for key in ["two", "three", "two"] {
            see(&mut record, key);
        }
        assert_eq!(texts(&record, "secret").1, ["one"], "which signs to its end");
    }

    #[test]
    fn a_shorter_time_takes_effect_at_once_and_none_forgets_everything() {
        let mut record = Record::default();
        let now = at("2026-01-31T12:00:00Z");
        record.observe("secret", b"one", None, DAY, now);
        record.observe("secret", b"two", None, DAY, now);
        let later = at("2026-01-31T13:00:00Z");
        let mut shorter = record.clone();
        shorter.observe("secret", b"two", None, Duration::from_secs(1800), later);
        assert!(shorter.is_trivial());
        record.observe("secret", b"two", None, Duration::ZERO, later);
        assert_eq!(record, Record::default());
    }

    #[test]
    fn what_the_process_remembers_counts_when_the_record_is_lost() {
        let mut record = Record::default();
        let known = Secret::new(b"one".to_vec());
        record.observe("secret", b"two", Some(&known), DAY, at("2026-01-31T12:00:00Z"));
        assert_eq!(texts(&record, "secret").1, ["one"]);
    }

    #[test]
    fn a_rotation_signs_before_it_publishes_and_survives_as_text() {
        let mut record = Record::default();
        let now = at("2026-01-31T12:00:00Z");
        record.observe("secret", b"old", None, DAY, now);
        let made = generate(SigningScheme::HmacSha256, [7; 32]).unwrap();
        record.begin("token", [("secret".to_owned(), made)]);
        let new = "07".repeat(32);
        assert_eq!(texts(&record, "secret"), (Some(new.clone()), vec![]));
        let mut record = Record::parse(record.to_text().expose().as_bytes()).unwrap();
        let published = record.publish(|_| DAY, now);
        assert_eq!(published["secret"].key.expose(), new.as_bytes());
        assert_eq!(texts(&record, "secret"), (None, vec!["old".to_owned()]));
        assert_eq!(record.handled.as_ref().unwrap().asked, "token");
        let again = Record::parse(record.to_text().expose().as_bytes()).unwrap();
        assert_eq!(again, record);
        assert!(!format!("{record:?}").contains("old"), "keys do not show");
        record.retain(|name| name == "other");
        assert!(record.keys.is_empty());
    }

    #[test]
    fn a_clock_that_goes_back_prolongs_nothing() {
        let mut record = Record::default();
        record.observe("secret", b"one", None, DAY, at("2026-03-01T00:00:00Z"));
        record.observe("secret", b"two", None, DAY, at("2026-03-01T00:00:00Z"));
        record.observe("secret", b"two", None, DAY, at("2026-01-31T00:00:00Z"));
        let end = at("2026-02-01T00:00:00Z");
        assert_eq!(record.ends("secret", DAY), Some((end, end)));
    }

    #[test]
    fn a_malformed_request_is_answered() {
        assert!(check("2026-01-31").is_ok());
        assert!(check(" ").unwrap_err().contains("empty"));
        assert!(check(&"a".repeat(257)).unwrap_err().contains("over 256"));
    }
}
