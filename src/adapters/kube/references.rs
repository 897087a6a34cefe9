//! [`References`]: which objects refer to which Secrets, and in which version each was last read.
//!
//! Secrets are watched by metadata only and no watch result is kept: this index knows the few that matter. A change
//! wakes an object only when it has not read that version already, so neither a relist nor the Secrets that Postrider
//! itself makes cause work. Interest is registered *before* a Secret is read: a change in between is noticed.

use std::collections::{BTreeSet, HashMap, HashSet};

use parking_lot::Mutex;

use crate::domain::id::ObjectKey;
use crate::engine::directory::Kind;

/// An object that refers to Secrets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Referrer {
    pub(super) kind: Kind,
    pub(super) key: ObjectKey,
}

/// What an object last saw of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// It has not looked yet.
    Nothing,
    /// There was none.
    Missing,
    /// It existed in that resource version.
    Version(String),
}

impl Seen {
    pub(super) fn of(resource_version: Option<&str>) -> Self {
        resource_version.map_or(Self::Nothing, |version| Self::Version(version.to_owned()))
    }
}

/// Which objects refer to which Secrets.
#[derive(Debug, Default)]
pub(super) struct References(Mutex<Index>);

#[derive(Debug, Default)]
struct Index {
    secrets: HashMap<ObjectKey, HashMap<Referrer, Seen>>,
    referrers: HashMap<Referrer, Interest>,
    /// Secrets met since a relist began; `None` outside of one.
    listing: Option<HashSet<ObjectKey>>,
}

#[derive(Debug, Default)]
struct Interest {
    names: BTreeSet<String>,
    /// All of it was read, and nothing has changed since the reading began.
    current: bool,
    /// A reading is under way in which nothing has changed so far.
    reading: bool,
}

impl References {
    /// Says that an object is about to read these Secrets of its namespace, and no others from now on.
    pub(super) fn begin(&self, referrer: &Referrer, names: &BTreeSet<String>) {
        let index = &mut *self.0.lock();
        let interest = index.referrers.entry(referrer.clone()).or_default();
        // A change from here on is noticed; one before is about to be read.
        interest.reading = true;
        interest.current = false;
        let before = std::mem::replace(&mut interest.names, names.clone());
        for name in before.difference(names) {
            index.forget_secret(referrer, name);
        }
        for name in names.difference(&before) {
            let secret = ObjectKey::new(&referrer.key.namespace, name);
            index
                .secrets
                .entry(secret)
                .or_default()
                .insert(referrer.clone(), Seen::Nothing);
        }
    }

    /// Says what an object saw of a Secret.
    pub(super) fn saw(&self, referrer: &Referrer, name: &str, seen: Seen) {
        let secret = ObjectKey::new(&referrer.key.namespace, name);
        if let Some(state) = self
            .0
            .lock()
            .secrets
            .get_mut(&secret)
            .and_then(|objects| objects.get_mut(referrer))
        {
            *state = seen;
        }
    }

    /// Says that an object has read everything. A reading that fails never gets here, and is repeated.
    pub(super) fn complete(&self, referrer: &Referrer) {
        if let Some(interest) = self.0.lock().referrers.get_mut(referrer) {
            interest.current = std::mem::take(&mut interest.reading);
        }
    }

    /// Whether what an object read is still what there is.
    pub(super) fn is_current(&self, referrer: &Referrer) -> bool {
        self.0
            .lock()
            .referrers
            .get(referrer)
            .is_some_and(|interest| interest.current)
    }

    /// Says that what an object read elsewhere than in Secrets has changed.
    pub(super) fn outdate(&self, referrer: &Referrer) {
        if let Some(interest) = self.0.lock().referrers.get_mut(referrer) {
            interest.current = false;
            interest.reading = false;
        }
    }

    /// Forgets an object.
    pub(super) fn forget(&self, referrer: &Referrer) {
        let index = &mut *self.0.lock();
        if let Some(interest) = index.referrers.remove(referrer) {
            for name in interest.names {
                index.forget_secret(referrer, &name);
            }
        }
    }

    /// Forgets objects that are gone, should a reconcile under way have brought one back.
    pub(super) fn retain(&self, kept: impl Fn(&Referrer) -> bool) {
        let gone: Vec<Referrer> = self
            .0
            .lock()
            .referrers
            .keys()
            .filter(|referrer| !kept(referrer))
            .cloned()
            .collect();
        for referrer in &gone {
            self.forget(referrer);
        }
    }

    /// Takes note of what the watch says of a Secret; answers with the objects that have to read it anew.
    pub(super) fn changed(&self, secret: &ObjectKey, now: &Seen) -> Vec<Referrer> {
        let index = &mut *self.0.lock();
        if let Some(listed) = &mut index.listing
            && index.secrets.contains_key(secret)
        {
            listed.insert(secret.clone());
        }
        index.differing(secret, now)
    }

    /// A relist begins.
    pub(super) fn relist(&self) {
        self.0.lock().listing = Some(HashSet::new());
    }

    /// A relist is complete: what was not met is gone.
    pub(super) fn relisted(&self) -> Vec<Referrer> {
        let index = &mut *self.0.lock();
        let Some(listed) = index.listing.take() else {
            return Vec::new();
        };
        let gone: Vec<ObjectKey> = index
            .secrets
            .keys()
            .filter(|key| !listed.contains(*key))
            .cloned()
            .collect();
        gone.iter()
            .flat_map(|key| index.differing(key, &Seen::Missing))
            .collect()
    }
}

impl Index {
    fn differing(&mut self, secret: &ObjectKey, now: &Seen) -> Vec<Referrer> {
        let objects = self.secrets.get(secret).into_iter().flatten();
        let differing: Vec<Referrer> = objects
            .filter(|(_, seen)| *seen != now)
            .map(|(referrer, _)| referrer.clone())
            .collect();
        for referrer in &differing {
            if let Some(interest) = self.referrers.get_mut(referrer) {
                interest.current = false;
                interest.reading = false;
            }
        }
        differing
    }

    fn forget_secret(&mut self, referrer: &Referrer, name: &str) {
        let secret = ObjectKey::new(&referrer.key.namespace, name);
        if let Some(objects) = self.secrets.get_mut(&secret) {
            objects.remove(referrer);
            if objects.is_empty() {
                self.secrets.remove(&secret);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referrer(name: &str) -> Referrer {
        Referrer {
            kind: Kind::Destination,
            key: ObjectKey::new("ns", name),
        }
    }

    fn version(text: &str) -> Seen {
        Seen::Version(text.to_owned())
    }

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
        names.into_iter().map(ToOwned::to_owned).collect()
    }

    #[test]
    fn only_objects_that_have_not_read_a_version_are_woken() {
        let references = References::default();
        let (a, b, secret) = (referrer("a"), referrer("b"), ObjectKey::new("ns", "s"));
        references.begin(&a, &names(["s"]));
        references.saw(&a, "s", version("1"));
        references.begin(&b, &names(["s"]));
        assert_eq!(
            references.changed(&secret, &version("1")),
            std::slice::from_ref(&b)
        );
        references.saw(&b, "s", version("2"));
        assert_eq!(
            references.changed(&secret, &version("2")),
            std::slice::from_ref(&a)
        );
        assert!(!references.is_current(&a));
        references.begin(&a, &names(["s"]));
        assert!(!references.is_current(&a), "the reading is under way, or failed");
        references.saw(&a, "s", version("2"));
        references.complete(&a);
        assert!(references.is_current(&a));
        references.begin(&a, &names(["s"]));
        references.changed(&secret, &version("3"));
        references.complete(&a);
        assert!(!references.is_current(&a), "it changed during the reading");
        assert_eq!(
            references.changed(&ObjectKey::new("other", "s"), &version("9")),
            []
        );
        assert_eq!(
            references.changed(&ObjectKey::new("ns", "other"), &version("9")),
            []
        );
    }

    #[test]
    fn a_secret_that_goes_during_an_outage_is_noticed() {
        let references = References::default();
        let (a, b) = (referrer("a"), referrer("b"));
        for (object, name) in [(&a, "gone"), (&b, "kept")] {
            references.begin(object, &names([name]));
            references.saw(object, name, version("1"));
        }
        references.relist();
        assert_eq!(
            references.changed(&ObjectKey::new("ns", "kept"), &version("1")),
            []
        );
        assert_eq!(references.relisted(), [a]);
    }

    #[test]
    fn nothing_is_left_of_an_object_that_went() {
        let references = References::default();
        let a = referrer("a");
        references.begin(&a, &names(["s", "t"]));
        references.begin(&a, &names(["t"]));
        assert_eq!(references.0.lock().secrets.len(), 1);
        references.forget(&a);
        let index = references.0.lock();
        assert!(index.secrets.is_empty() && index.referrers.is_empty());
    }
}
