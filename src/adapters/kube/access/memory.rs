//! [`Memory`]: results of checking tokens, as long as they are believed, under digests of the tokens.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::domain::id::ObjectKey;
use crate::domain::secret::Secret;
use crate::engine::publish::{Access, Right};

/// Results remembered, of each kind.
const REMEMBERED: usize = 1_024;
/// How long a yes is believed.
pub(super) const YES: Duration = Duration::from_secs(10);
/// How long it is known of a token that there was a yes for it, after that is believed no more.
const KNOWN: Duration = Duration::from_mins(10);
/// How long a no is believed.
pub(super) const NO: Duration = Duration::from_secs(2);

/// A token together with the project it is used for.
pub(super) type Fingerprint = [u8; 32];

/// Digest of token and key. The parts of a key cannot hold a NUL, nor can a token from a header.
pub(super) fn fingerprint(token: &Secret<String>, key: &ObjectKey, right: Right) -> Fingerprint {
    let mut digest = Sha256::new();
    for part in [
        key.namespace.as_bytes(),
        key.name.as_bytes(),
        &[right as u8],
        token.expose().as_bytes(),
    ] {
        digest.update(part);
        digest.update([0]);
    }
    digest.finalize().into()
}

/// Results that are still believed, and who had a yes.
pub(super) struct Memory {
    yes: Store,
    no: Store,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            yes: Store::kept(KNOWN),
            no: Store::kept(Duration::ZERO),
        }
    }
}

/// Results of one kind, each with the time until which it is believed.
struct Store {
    /// How long a result stays after it is believed no more.
    after: Duration,
    results: HashMap<Fingerprint, (Access, Instant)>,
    /// The same, the next to go first.
    order: BTreeSet<(Instant, Fingerprint)>,
}

impl Memory {
    pub(super) fn recall(&self, fingerprint: &Fingerprint, now: Instant) -> Option<Access> {
        let find = |store: &Store| {
            store
                .results
                .get(fingerprint)
                .copied()
                .filter(|(_, end)| *end > now)
        };
        find(&self.yes)
            .or_else(|| find(&self.no))
            .map(|(access, _)| access)
    }

    /// Whether there was a yes lately, and no other answer since.
    pub(super) fn knows(&self, fingerprint: &Fingerprint, now: Instant) -> bool {
        let yes = self.yes.results.get(fingerprint);
        yes.is_some_and(|(_, end)| *end + KNOWN > now)
    }

    /// Remembers a result; answers how many had to go before their time.
    pub(super) fn keep(&mut self, fingerprint: Fingerprint, access: Access, now: Instant) -> u64 {
        match access {
            Access::Allowed => {
                self.no.remove(&fingerprint);
                self.yes.keep(fingerprint, access, now, now + YES)
            }
            Access::Denied | Access::Unauthenticated => {
                self.yes.remove(&fingerprint);
                self.no.keep(fingerprint, access, now, now + NO)
            }
            Access::Unavailable => 0,
        }
    }
}

impl Store {
    fn kept(after: Duration) -> Self {
        Self {
            after,
            results: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    fn keep(&mut self, fingerprint: Fingerprint, access: Access, now: Instant, end: Instant) -> u64 {
        self.remove(&fingerprint);
        self.results.insert(fingerprint, (access, end));
        self.order.insert((end, fingerprint));
        let mut evicted = 0;
        while let Some((oldest_end, oldest)) = self.order.first().copied() {
            let over = self.order.len() > REMEMBERED;
            if !over && oldest_end + self.after > now {
                break;
            }
            self.remove(&oldest);
            evicted += u64::from(oldest_end > now);
        }
        evicted
    }

    fn remove(&mut self, fingerprint: &Fingerprint) {
        if let Some((_, end)) = self.results.remove(fingerprint) {
            self.order.remove(&(end, *fingerprint));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Fingerprint {
        fingerprint(
            &Secret::new(text.to_owned()),
            &ObjectKey::new("a", "b"),
            Right::Publish,
        )
    }

    #[test]
    fn a_yes_is_known_for_a_while_unless_there_is_a_no() {
        let mut memory = Memory::default();
        let now = Instant::now();
        let good = of("good");
        assert!(!memory.knows(&good, now));
        memory.keep(good, Access::Allowed, now);
        let lapsed = now + YES;
        assert_eq!(memory.recall(&good, lapsed), None);
        assert!(memory.knows(&good, lapsed));
        assert!(!memory.knows(&good, lapsed + KNOWN));
        memory.keep(good, Access::Unavailable, lapsed);
        assert!(memory.knows(&good, lapsed));
        memory.keep(good, Access::Denied, lapsed);
        assert!(!memory.knows(&good, lapsed));
    }

    #[tokio::test(start_paused = true)]
    async fn made_up_tokens_do_not_push_good_ones_out() {
        let mut memory = Memory::default();
        let now = Instant::now();
        memory.keep(of("good"), Access::Allowed, now);
        let evicted: u64 = (0..3 * REMEMBERED)
            .map(|number| memory.keep(of(&number.to_string()), Access::Unauthenticated, now))
            .sum();
        assert_eq!(evicted, 2 * REMEMBERED as u64);
        assert_eq!(memory.no.results.len(), REMEMBERED);
        assert_eq!(memory.recall(&of("good"), now), Some(Access::Allowed));
        memory.keep(of("another"), Access::Allowed, now + YES + KNOWN);
        assert_eq!(memory.yes.order.len(), 1, "what is past its time goes");
    }

    #[test]
    fn tokens_in_use_take_one_place_each() {
        let mut memory = Memory::default();
        let start = Instant::now();
        memory.keep(of("idle"), Access::Allowed, start);
        for turn in 0..50 {
            let now = start + YES * turn;
            for number in 0..100 {
                assert_eq!(memory.keep(of(&number.to_string()), Access::Allowed, now), 0);
            }
        }
        assert_eq!(memory.yes.order.len(), 101);
        assert_eq!(memory.yes.results.len(), 101);
        assert!(
            memory.knows(&of("idle"), start + YES * 50),
            "others do not push it out"
        );
    }
}
