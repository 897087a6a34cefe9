//! The resource definitions: the committed files are what the types say, the API server takes them, and each rule
//! refuses what it should with a message that says what to do.

use std::collections::BTreeSet;

use postrider::cli::manifests;

use crate::support::repository_file;

mod rules;

/// The limit of an annotation that `kubectl apply` fills with the whole object, less some room.
const LARGEST: usize = 100 * 1024;

/// `POSTRIDER_WRITE_CRDS=1 cargo test --test it crds` rewrites the files, like `postrider crds --out crds`.
#[test]
fn the_committed_definitions_are_those_of_the_types() {
    let folder = repository_file("crds");
    let mut names = BTreeSet::new();
    for (name, yaml) in manifests::files().unwrap() {
        let path = folder.join(&name);
        if std::env::var_os("POSTRIDER_WRITE_CRDS").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &yaml).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            committed == yaml,
            "{} differs from the types; run `postrider crds --out crds`",
            path.display()
        );
        assert!(yaml.len() < LARGEST, "{name} has {} bytes", yaml.len());
        names.insert(name);
    }
    let present: BTreeSet<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(present, names, "files in crds/");
}

#[test]
fn the_same_types_give_the_same_bytes() {
    assert_eq!(manifests::files().unwrap(), manifests::files().unwrap());
}
