//! [`References`]: which objects refer to which Secrets and ConfigMaps, and in which version each was last read.
//!
//! They are watched by metadata only and no watch result is kept: this index knows the few that matter. A change
//! wakes an object only when it has not read that version already, so neither a relist nor the Secrets that Postrider
//! itself makes cause work. Interest is registered *before* an object is read: a change in between is noticed.
//! ConfigMaps are not watched before somebody refers to one: who needs none need not let them be read.

use std::collections::{BTreeSet, HashMap, HashSet};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::domain::destination::{Holder, ValueRef};
use crate::domain::id::ObjectKey;
use crate::engine::directory::Kind;

/// An object that refers to Secrets and ConfigMaps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Referrer {
    pub(super) kind: Kind,
    pub(super) key: ObjectKey,
}

/// A Secret or ConfigMap in the namespace of whoever refers to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Named {
    pub(super) holder: Holder,
    pub(super) name: String,
}

impl Named {
    pub(super) fn secret(name: &str) -> Self {
        let (holder, name) = (Holder::Secret, name.to_owned());
        Self { holder, name }
    }
}

impl From<&ValueRef> for Named {
    fn from(of: &ValueRef) -> Self {
        let (holder, name) = (of.holder, of.name.clone());
        Self { holder, name }
    }
}

/// What an object last saw of a Secret or ConfigMap.
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

/// Which objects refer to which Secrets and ConfigMaps.
#[derive(Debug, Default)]
pub(super) struct References {
    index: Mutex<Index>,
    /// Somebody refers, or referred, to a ConfigMap.
    config_maps: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Index {
    holders: HashMap<(Holder, ObjectKey), HashMap<Referrer, Seen>>,
    referrers: HashMap<Referrer, Interest>,
    /// What was met of each kind since a relist began; none outside of one.
    listing: HashMap<Holder, HashSet<ObjectKey>>,
}

#[derive(Debug, Default)]
struct Interest {
    names: BTreeSet<Named>,
    /// All of it was read, and nothing has changed since the reading began.
    current: bool,
    /// A reading is under way in which nothing has changed so far.
    reading: bool,
}

impl References {
    /// Says that an object is about to read these of its namespace, and no others from now on.
    pub(super) fn begin(&self, referrer: &Referrer, names: &BTreeSet<Named>) {
        if names.iter().any(|named| named.holder == Holder::ConfigMap) {
            self.config_maps
                .send_if_modified(|wanted| !std::mem::replace(wanted, true));
        }
        let index = &mut *self.index.lock();
        let interest = index.referrers.entry(referrer.clone()).or_default();
        // A change from here on is noticed; one before is about to be read.
        interest.reading = true;
        interest.current = false;
        let before = std::mem::replace(&mut interest.names, names.clone());
        for name in before.difference(names) {
            index.forget_holder(referrer, name);
        }
        for name in names.difference(&before) {
            index
                .holders
                .entry(place(referrer, name))
                .or_default()
                .insert(referrer.clone(), Seen::Nothing);
        }
    }

    /// Says what an object saw of a Secret or ConfigMap.
    pub(super) fn saw(&self, referrer: &Referrer, name: &Named, seen: Seen) {
        if let Some(state) = self
            .index
            .lock()
            .holders
            .get_mut(&place(referrer, name))
            .and_then(|objects| objects.get_mut(referrer))
        {
            *state = seen;
        }
    }

    /// Says that an object has read everything. A reading that fails never gets here, and is repeated.
    pub(super) fn complete(&self, referrer: &Referrer) {
        if let Some(interest) = self.index.lock().referrers.get_mut(referrer) {
            interest.current = std::mem::take(&mut interest.reading);
        }
    }

    /// Whether what an object read is still what there is.
    pub(super) fn is_current(&self, referrer: &Referrer) -> bool {
        self.index
            .lock()
            .referrers
            .get(referrer)
            .is_some_and(|interest| interest.current)
    }

    /// Says that what an object read elsewhere has changed.
    pub(super) fn outdate(&self, referrer: &Referrer) {
        if let Some(interest) = self.index.lock().referrers.get_mut(referrer) {
            interest.current = false;
            interest.reading = false;
        }
    }

    /// Forgets an object.
    pub(super) fn forget(&self, referrer: &Referrer) {
        let index = &mut *self.index.lock();
        if let Some(interest) = index.referrers.remove(referrer) {
            for name in interest.names {
                index.forget_holder(referrer, &name);
            }
        }
    }

    /// Forgets objects that are gone, should a reconcile under way have brought one back.
    pub(super) fn retain(&self, kept: impl Fn(&Referrer) -> bool) {
        let gone: Vec<Referrer> = self
            .index
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

    /// Waits until somebody refers to a ConfigMap.
    pub(super) async fn config_maps_wanted(&self) {
        // The sender is in `self`, so that it cannot be gone.
        let _ = self.config_maps.subscribe().wait_for(|wanted| *wanted).await;
    }

    /// Takes note of what a watch says; answers with the objects that have to read it anew.
    pub(super) fn changed(&self, holder: Holder, key: &ObjectKey, now: &Seen) -> Vec<Referrer> {
        let place = (holder, key.clone());
        let index = &mut *self.index.lock();
        if let Some(listed) = index.listing.get_mut(&holder)
            && index.holders.contains_key(&place)
        {
            listed.insert(key.clone());
        }
        index.differing(&place, now)
    }

    /// A relist begins.
    pub(super) fn relist(&self, holder: Holder) {
        self.index.lock().listing.insert(holder, HashSet::new());
    }

    /// A relist is complete: what was not met is gone.
    pub(super) fn relisted(&self, holder: Holder) -> Vec<Referrer> {
        let index = &mut *self.index.lock();
        let Some(listed) = index.listing.remove(&holder) else {
            return Vec::new();
        };
        let gone: Vec<(Holder, ObjectKey)> = index
            .holders
            .keys()
            .filter(|(kind, key)| *kind == holder && !listed.contains(key))
            .cloned()
            .collect();
        gone.iter()
            .flat_map(|place| index.differing(place, &Seen::Missing))
            .collect()
    }
}

impl Index {
    fn differing(&mut self, place: &(Holder, ObjectKey), now: &Seen) -> Vec<Referrer> {
        let objects = self.holders.get(place).into_iter().flatten();
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

    fn forget_holder(&mut self, referrer: &Referrer, name: &Named) {
        let place = place(referrer, name);
        if let Some(objects) = self.holders.get_mut(&place) {
            objects.remove(referrer);
            if objects.is_empty() {
                self.holders.remove(&place);
            }
        }
    }
}

fn place(referrer: &Referrer, named: &Named) -> (Holder, ObjectKey) {
    let key = ObjectKey::new(&referrer.key.namespace, &named.name);
    (named.holder, key)
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

    fn names<const N: usize>(names: [&str; N]) -> BTreeSet<Named> {
        names.into_iter().map(Named::secret).collect()
    }

    #[test]
    fn only_objects_that_have_not_read_a_version_are_woken() {
        let references = References::default();
        let (a, b, secret) = (referrer("a"), referrer("b"), ObjectKey::new("ns", "s"));
        references.begin(&a, &names(["s"]));
        references.saw(&a, &Named::secret("s"), version("1"));
        references.begin(&b, &names(["s"]));
        assert_eq!(
            references.changed(Holder::Secret, &secret, &version("1")),
            std::slice::from_ref(&b)
        );
        references.saw(&b, &Named::secret("s"), version("2"));
        assert_eq!(
            references.changed(Holder::Secret, &secret, &version("2")),
            std::slice::from_ref(&a)
        );
        assert!(!references.is_current(&a));
        references.begin(&a, &names(["s"]));
        assert!(!references.is_current(&a), "the reading is under way, or failed");
        references.saw(&a, &Named::secret("s"), version("2"));
        references.complete(&a);
        assert!(references.is_current(&a));
        references.begin(&a, &names(["s"]));
        references.changed(Holder::Secret, &secret, &version("3"));
        references.complete(&a);
        assert!(!references.is_current(&a), "it changed during the reading");
        assert_eq!(
            references.changed(Holder::Secret, &ObjectKey::new("other", "s"), &version("9")),
            []
        );
        assert_eq!(
            references.changed(Holder::Secret, &ObjectKey::new("ns", "other"), &version("9")),
            []
        );
    }

    #[test]
    fn a_secret_that_goes_during_an_outage_is_noticed() {
        let references = References::default();
        let (a, b) = (referrer("a"), referrer("b"));
        for (object, name) in [(&a, "gone"), (&b, "kept")] {
            references.begin(object, &names([name]));
            references.saw(object, &Named::secret(name), version("1"));
        }
        references.relist(Holder::Secret);
        assert_eq!(
            references.changed(Holder::Secret, &ObjectKey::new("ns", "kept"), &version("1")),
            []
        );
        assert_eq!(references.relisted(Holder::Secret), [a]);
    }

    #[test]
    fn secrets_and_config_maps_of_one_name_are_two_things() {
        let references = References::default();
        let (a, b, key) = (referrer("a"), referrer("b"), ObjectKey::new("ns", "ca"));
        let config_map = Named {
            holder: Holder::ConfigMap,
            name: "ca".to_owned(),
        };
        references.begin(&a, &names(["ca"]));
        assert!(!*references.config_maps.borrow(), "nobody refers to a ConfigMap");
        references.begin(&b, &BTreeSet::from([config_map.clone()]));
        assert!(*references.config_maps.borrow());
        references.saw(&a, &Named::secret("ca"), version("1"));
        references.saw(&b, &config_map, version("1"));
        let changed = references.changed(Holder::ConfigMap, &key, &version("2"));
        assert_eq!(changed, std::slice::from_ref(&b));
        // A relist of one kind says nothing of the other, also while both are under way.
        references.relist(Holder::ConfigMap);
        references.relist(Holder::Secret);
        assert_eq!(references.relisted(Holder::ConfigMap), [b]);
        assert_eq!(references.changed(Holder::Secret, &key, &version("1")), []);
        assert_eq!(references.relisted(Holder::Secret), []);
    }

    #[test]
    fn nothing_is_left_of_an_object_that_went() {
        let references = References::default();
        let a = referrer("a");
        references.begin(&a, &names(["s", "t"]));
        references.begin(&a, &names(["t"]));
        assert_eq!(references.index.lock().holders.len(), 1);
        references.forget(&a);
        let index = references.index.lock();
        assert!(index.holders.is_empty() && index.referrers.is_empty());
    }
}
