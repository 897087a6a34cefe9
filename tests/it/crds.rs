//! The resource definitions: the committed files are what the types say, the API server takes them, and each rule
//! refuses what it should with a message that says what to do.

mod destinations;
mod notifications;
mod policy;
mod requests;
mod rules;
mod signing;

use std::collections::BTreeSet;
use std::time::Duration;

use postrider::api::manifest::Manifest;
use postrider::cli::manifests;
use serde_json::Value;

use crate::support::{Cluster, eventually, repository_file};

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

/// Every field below a schema, with its path.
fn walk(schema: &Value, path: &str, check: &mut impl FnMut(&str, &Value)) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        check(&path, field);
        walk(field, &path, check);
        walk(&field["items"], &format!("{path}[]"), check);
    }
}

fn schemas() -> Vec<(&'static str, Value)> {
    let manifests = postrider::api::manifest::crds().unwrap();
    let schema =
        |manifest: &Manifest| manifest.definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
    manifests
        .iter()
        .map(|manifest| (manifest.name, schema(manifest)))
        .collect()
}

#[test]
fn every_field_is_described_and_plain() {
    for (name, schema) in schemas() {
        let mut fields = 0;
        walk(&schema, name, &mut |path, field| {
            fields += 1;
            let text = field["description"].as_str().unwrap_or_default();
            assert!(text.len() > 10, "{path} has no description: {field}");
            assert_eq!(field.get("nullable"), None, "{path}");
            assert!(
                ["anyOf", "oneOf", "$ref", "title"]
                    .iter()
                    .all(|key| field.get(key).is_none()),
                "{path}: {field}"
            );
            for bound in ["minimum", "maximum"] {
                assert!(
                    field
                        .get(bound)
                        .is_none_or(|bound| bound.is_i64() || bound.is_u64()),
                    "{path}: {field}"
                );
            }
        });
        assert!(fields > 20, "{name}: {fields}");
    }
}

#[tokio::test]
async fn kubectl_explains_every_field() {
    let cluster = Cluster::shared();
    for (name, schema) in schemas() {
        // The API server publishes a new kind's documentation a moment after the kind itself.
        let text = eventually(
            "the kind is documented",
            Duration::from_secs(30),
            async || match cluster.kubectl(&["explain", name, "--recursive"]) {
                answer if answer.success() => Ok(answer.stdout),
                answer => Err(answer.stderr),
            },
        )
        .await;
        walk(&schema, name, &mut |path, _| {
            let field = path.rsplit('.').next().unwrap().trim_end_matches("[]");
            assert!(text.contains(&format!("{field}\t<")), "{path}: {text}");
        });
    }
    let text = cluster
        .kubectl(&["explain", "ed.spec.webhook.payload.format"])
        .ok();
    assert!(text.contains("A ready format. `Default` picks the one"), "{text}");
}
