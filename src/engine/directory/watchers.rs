//! Who is told of a destination's health.

use super::{Directory, Route};
use crate::domain::destination::Identity;

impl Directory {
    /// The destinations of a namespace that ask for operational events of a type about another one: those that serve
    /// a project which that one serves, too. Never itself; ready or not.
    pub(crate) fn watchers(&self, about: &Identity, event_type: &str) -> Route {
        let objects = self.objects.read();
        let subject = objects.destinations.get(&about.uid);
        let project = subject.and_then(|entry| entry.subscription.project.clone());
        let uids = objects.namespaces.get(&about.key.namespace).into_iter().flatten();
        let watchers = uids
            .filter(|uid| **uid != about.uid)
            .filter_map(|uid| objects.destinations.get(uid))
            .filter(|entry| {
                let subscription = &entry.subscription;
                let shared = match (&project, &subscription.project) {
                    (Some(one), Some(other)) => one == other,
                    _ => true,
                };
                shared && subscription.wants(event_type)
            });
        Route::to(watchers)
    }
}
