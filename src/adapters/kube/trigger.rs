//! [`Triggers`]: objects of one kind that are to be looked at again, each once.

use std::sync::Arc;

use futures::Stream;
use futures::StreamExt as _;
use kube::runtime::reflector::ObjectRef;

use super::observed::{Observed, Watched};
use crate::domain::id::ObjectKey;
use crate::engine::view::Changes;

/// A set of names that one controller drains; bounded by the objects there are.
pub(super) type Triggers = Changes<ObjectKey>;

/// The names that are pushed. Endless; for one reader.
pub(super) fn stream<K: Watched>(
    triggers: &Arc<Triggers>,
) -> impl Stream<Item = ObjectRef<Observed<K>>> + use<K> {
    let triggers = Arc::clone(triggers);
    futures::stream::unfold(triggers, async |triggers| {
        let keys = triggers.next().await;
        Some((
            futures::stream::iter(keys.into_iter().map(|key| object_ref(&key))),
            triggers,
        ))
    })
    .flatten()
}

/// How kube names an object.
pub(super) fn object_ref<K: Watched>(key: &ObjectKey) -> ObjectRef<Observed<K>> {
    ObjectRef::new(&key.name).within(&key.namespace)
}
