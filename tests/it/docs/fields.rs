//! Each field of the objects is shown in a worked example of a page.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{pages, read};
use crate::support::repository_file;

/// The ways to the fields of a schema that hold no further ones.
fn fields(schema: &Value, way: &str, into: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, schema) in properties {
            fields(schema, &format!("{way}.{name}"), into);
        }
    } else if schema["items"]["properties"].is_object() {
        fields(&schema["items"], way, into);
    } else {
        into.insert(way.to_owned());
    }
}

/// The ways to everything in a piece of YAML, the members of lists' items included.
fn shown(value: &Value, way: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let way = format!("{way}.{name}");
                shown(value, &way, into);
                into.insert(way);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| shown(item, way, into)),
        _ => {}
    }
}

/// The blocks of YAML of a page.
fn blocks(page: &str) -> Vec<String> {
    let parts = page.split("```yaml\n").skip(1);
    parts
        .filter_map(|part| part.split("\n```").next().map(ToOwned::to_owned))
        .collect()
}

/// Whether an example, which may show an inner part alone, shows the field: its own name and that of what it is in.
fn shows(example: &BTreeSet<String>, field: &str) -> bool {
    example
        .iter()
        .any(|way| way.matches('.').count() >= 2 && format!(".spec{field}").ends_with(way.as_str()))
}

#[test]
fn each_field_is_shown_in_an_example_of_a_page() {
    let mut example = BTreeSet::new();
    for path in pages() {
        for block in blocks(&read(&path)) {
            for document in block.split("\n---\n") {
                let value: Value = serde_saphyr::from_str(document)
                    .unwrap_or_else(|error| panic!("{}: {error}\n{document}", path.display()));
                shown(&value, "", &mut example);
            }
        }
    }
    let mut missing = Vec::new();
    for crd in ["eventdestinations", "eventprojects"] {
        let crd = read(repository_file(&format!("crds/{crd}.yaml")));
        let crd: Value = serde_saphyr::from_str(&crd).unwrap();
        let mut wanted = BTreeSet::new();
        fields(
            &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"],
            "",
            &mut wanted,
        );
        assert!(wanted.len() > 10, "{wanted:?}");
        missing.extend(wanted.into_iter().filter(|field| !shows(&example, field)));
    }
    assert!(missing.is_empty(), "no page shows {missing:#?}");
}
