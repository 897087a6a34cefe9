//! What readers of the directory rely on.

use parking_lot::Mutex;

use super::*;
use crate::domain::event::sample;
use crate::domain::pattern::TypePattern;
use crate::domain::project::Token;

fn entry(uid: &str, namespace: &str, generation: i64, project: Option<&str>, events: &[&str]) -> Entry {
    Entry {
        identity: Identity {
            key: ObjectKey::new(namespace, uid),
            uid: Uid::new(uid),
            generation,
        },
        subscription: Subscription {
            dedup: None,
            filter: None,
            project: project.map(Into::into),
            events: events
                .iter()
                .filter_map(|text| TypePattern::parse(text))
                .collect(),
        },
        state: EntryState::NotReady,
        enable_request: None,
    }
}

fn project(uid: &str, name: &str) -> Project {
    Project {
        types: Arc::default(),
        key: ObjectKey::new("ns", name),
        facts: Arc::new(sample::bare_project(uid, name)),
        token: Token::Unknown,
    }
}

fn uids(names: &[&str]) -> Vec<Uid> {
    names.iter().map(|name| Uid::new(name)).collect()
}

#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl DirectoryListener for Heard {
    fn destination_changed(&self, uid: &Uid) {
        self.0.lock().push(format!("changed {uid}"));
    }

    fn destination_removed(&self, uid: &Uid) {
        self.0.lock().push(format!("removed {uid}"));
    }

    fn synced(&self) {
        self.0.lock().push("synced".to_owned());
    }
}

#[test]
fn an_event_goes_to_the_destinations_of_its_namespace_that_want_it() {
    let directory = Directory::new();
    directory.put_destination(entry("any", "ns", 1, None, &["*"]));
    directory.put_destination(entry("acme", "ns", 1, Some("acme"), &["record_*"]));
    directory.put_destination(entry("other", "ns", 1, Some("other"), &["*"]));
    directory.put_destination(entry("elsewhere", "elsewhere", 1, None, &["*"]));
    let acme = ObjectKey::new("ns", "acme");
    for _ in 0..2 {
        assert_eq!(
            *directory.matching(&acme, "record_created"),
            uids(&["acme", "any"])
        );
        assert_eq!(*directory.matching(&acme, "run_failed"), uids(&["any"]));
        assert_eq!(
            *directory.matching(&ObjectKey::new("none", "acme"), "run_failed"),
            []
        );
    }
}

#[test]
fn remembered_matches_follow_every_change_of_a_subscription() {
    let directory = Directory::new();
    let acme = ObjectKey::new("ns", "acme");
    assert_eq!(*directory.matching(&acme, "a"), []);
    directory.put_destination(entry("x", "ns", 1, None, &["a"]));
    assert_eq!(*directory.matching(&acme, "a"), uids(&["x"]));
    directory.put_destination(entry("x", "ns", 2, None, &["b"]));
    assert_eq!(*directory.matching(&acme, "a"), []);
    assert_eq!(*directory.matching(&acme, "b"), uids(&["x"]));
    directory.remove_destination(&Uid::new("x"));
    assert_eq!(*directory.matching(&acme, "b"), []);
}

#[test]
fn remembered_matches_are_bounded() {
    let directory = Directory::new();
    directory.put_destination(entry("x", "ns", 1, None, &["*"]));
    for number in 0..2 * MAX_MATCHES + 5 {
        let found = directory.matching(&ObjectKey::new("ns", "acme"), &format!("t{number}"));
        assert_eq!(*found, uids(&["x"]));
        assert!(directory.matches.read().count <= MAX_MATCHES);
    }
}

#[test]
fn a_removed_destination_does_not_come_back() {
    let directory = Directory::new();
    directory.put_destination(entry("x", "ns", 1, None, &["*"]));
    directory.remove_destination(&Uid::new("x"));
    assert!(!directory.put_destination(entry("x", "ns", 2, None, &["*"])));
    assert!(directory.destination(&Uid::new("x")).is_none());
    assert!(directory.objects.read().namespaces.is_empty());
}

#[test]
fn an_older_generation_does_not_replace_a_newer_one() {
    let directory = Directory::new();
    directory.put_destination(entry("x", "ns", 2, None, &["new"]));
    assert!(!directory.put_destination(entry("x", "ns", 1, None, &["old"])));
    let generation = directory
        .destination(&Uid::new("x"))
        .map(|entry| entry.identity.generation);
    assert_eq!(generation, Some(2));
}

#[test]
fn the_memory_of_removed_uids_is_bounded() {
    let mut removed = Removed::default();
    for number in 0..MAX_REMOVED + 10 {
        removed.remember(&Uid::new(&number.to_string()));
    }
    assert_eq!(
        (removed.set.len(), removed.order.len()),
        (MAX_REMOVED, MAX_REMOVED)
    );
    assert!(!removed.contains(&Uid::new("0")));
}

#[test]
fn listeners_hear_of_each_change_and_of_each_removal_once() {
    let directory = Directory::new();
    let heard = Arc::new(Heard::default());
    let listener: Arc<dyn DirectoryListener> = heard.clone();
    directory.set_listener(Arc::downgrade(&listener));
    directory.put_destination(entry("x", "ns", 1, None, &["*"]));
    directory.put_destination(entry("y", "ns", 1, None, &["*"]));
    directory.remove_destination(&Uid::new("x"));
    directory.remove_destination(&Uid::new("x"));
    directory.put_destination(entry("x", "ns", 2, None, &["*"]));
    assert_eq!(*heard.0.lock(), ["changed x", "changed y", "removed x"]);
}

#[test]
fn a_project_of_the_same_name_outlives_the_removal_of_the_old_one() {
    let directory = Directory::new();
    let key = ObjectKey::new("ns", "acme");
    directory.put_project(project("1", "acme"));
    directory.put_project(project("2", "acme"));
    directory.remove_project(&key, &Uid::new("1"));
    assert_eq!(
        directory.project(&key).map(|project| project.facts.uid.clone()),
        Some(Uid::new("2"))
    );
    directory.put_project(project("1", "acme"));
    assert_eq!(
        directory.project(&key).map(|project| project.facts.uid.clone()),
        Some(Uid::new("2"))
    );
    directory.remove_project(&key, &Uid::new("2"));
    assert!(directory.project(&key).is_none());
}

#[test]
fn the_directory_is_synced_when_every_kind_is_and_says_so_once() {
    let directory = Directory::new();
    let heard = Arc::new(Heard::default());
    let listener: Arc<dyn DirectoryListener> = heard.clone();
    directory.set_listener(Arc::downgrade(&listener));
    assert!(!directory.synced());
    directory.mark_synced(Kind::Destination);
    assert_eq!(directory.unsynced().collect::<Vec<_>>(), [Kind::Project]);
    directory.mark_synced(Kind::Project);
    assert!(directory.synced());
    directory.mark_synced(Kind::Project);
    assert_eq!(*heard.0.lock(), ["synced"]);
}

#[test]
fn a_project_that_is_not_understood_is_known_until_it_is_or_goes() {
    let directory = Directory::new();
    let key = ObjectKey::new("ns", "acme");
    assert!(!directory.is_unusable(&key));
    directory.put_unusable(&key, &Uid::new("1"));
    assert!(directory.is_unusable(&key));
    directory.remove_project(&key, &Uid::new("other"));
    assert!(directory.is_unusable(&key));
    directory.put_project(project("1", "acme"));
    assert!(!directory.is_unusable(&key));
    directory.put_unusable(&key, &Uid::new("1"));
    assert!(!directory.is_unusable(&key), "what was known of it is still good");
    directory.remove_project(&key, &Uid::new("1"));
    directory.put_unusable(&key, &Uid::new("1"));
    assert!(!directory.is_unusable(&key), "it does not come back");
    directory.put_unusable(&key, &Uid::new("2"));
    directory.remove_project(&key, &Uid::new("2"));
    assert!(!directory.is_unusable(&key));
}
