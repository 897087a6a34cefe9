//! [`DeadLetters`]: which destinations name which others for what they give up, so that they are looked at again when
//! one of those comes or goes. Bounded by the destinations there are.

use std::collections::{BTreeSet, HashMap};

use parking_lot::Mutex;

use crate::api::v1alpha1::EventDestinationSpec;
use crate::domain::id::ObjectKey;

/// Who names whom.
#[derive(Debug, Default)]
pub(super) struct DeadLetters(Mutex<Named>);

#[derive(Debug, Default)]
struct Named {
    by: HashMap<ObjectKey, BTreeSet<ObjectKey>>,
    of: HashMap<ObjectKey, ObjectKey>,
}

/// The destination that a spec names.
pub(super) fn target(key: &ObjectKey, spec: &EventDestinationSpec) -> Option<ObjectKey> {
    let delivery = spec.delivery.as_ref()?;
    let named = delivery.dead_letter.as_ref()?;
    Some(ObjectKey::new(&key.namespace, &named.name))
}

impl DeadLetters {
    /// Takes note of whom a destination names, if anyone.
    pub(super) fn names(&self, who: &ObjectKey, whom: Option<&ObjectKey>) {
        let mut named = self.0.lock();
        if named.of.get(who) == whom {
            return;
        }
        let Named { by, of } = &mut *named;
        if let Some(before) = of.remove(who)
            && let Some(others) = by.get_mut(&before)
        {
            others.remove(who);
            if others.is_empty() {
                by.remove(&before);
            }
        }
        if let Some(whom) = whom {
            of.insert(who.clone(), whom.clone());
            by.entry(whom.clone()).or_default().insert(who.clone());
        }
    }

    /// The destinations that name one.
    pub(super) fn naming(&self, whom: &ObjectKey) -> Vec<ObjectKey> {
        let named = self.0.lock();
        named.by.get(whom).into_iter().flatten().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_whom_is_known_both_ways() {
        let (a, b, c) = (
            ObjectKey::new("ns", "a"),
            ObjectKey::new("ns", "b"),
            ObjectKey::new("ns", "c"),
        );
        let known = DeadLetters::default();
        known.names(&a, Some(&c));
        known.names(&b, Some(&c));
        assert_eq!(known.naming(&c), [a.clone(), b.clone()]);
        known.names(&a, Some(&b));
        assert_eq!(
            (known.naming(&c), known.naming(&b)),
            (vec![b.clone()], vec![a.clone()])
        );
        known.names(&a, None);
        known.names(&b, None);
        assert!(known.0.lock().by.is_empty() && known.0.lock().of.is_empty());
    }
}
