//! [`Triggers`]: objects of one kind that are to be looked at again, each once.

use std::collections::HashSet;
use std::sync::Arc;

use futures::Stream;
use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::observed::{Observed, Watched};
use crate::domain::id::ObjectKey;

/// A set of names that one controller drains; bounded by the objects there are.
#[derive(Debug, Default)]
pub(super) struct Triggers {
    waiting: Mutex<HashSet<ObjectKey>>,
    ready: Notify,
}

impl Triggers {
    pub(super) fn push(&self, key: ObjectKey) {
        if self.waiting.lock().insert(key) {
            self.ready.notify_one();
        }
    }

    async fn next(&self) -> HashSet<ObjectKey> {
        loop {
            let taken = std::mem::take(&mut *self.waiting.lock());
            if !taken.is_empty() {
                return taken;
            }
            self.ready.notified().await;
        }
    }

    /// Endless; for one reader.
    pub(super) fn stream<K: Watched>(
        self: &Arc<Self>,
    ) -> impl Stream<Item = ObjectRef<Observed<K>>> + use<K> {
        use futures::StreamExt as _;

        let triggers = Arc::clone(self);
        futures::stream::unfold(triggers, async |triggers| {
            let keys = triggers.next().await;
            Some((
                futures::stream::iter(keys.into_iter().map(|key| object_ref(&key))),
                triggers,
            ))
        })
        .flatten()
    }
}

/// How kube names an object.
pub(super) fn object_ref<K: Watched>(key: &ObjectKey) -> ObjectRef<Observed<K>> {
    ObjectRef::new(&key.name).within(&key.namespace)
}
