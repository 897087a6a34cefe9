//! Rules about the source that no compiler checks.
//!
//! Each rule is a pure function of a file's path and text; the cases beside it prove that it fails on a breach.

mod form;
mod layers;
mod sleeps;
mod source;

use std::path::Path;

use source::Source;

use crate::support::{repository, repository_file};

/// The Rust files below a folder of the repository, with their text.
fn rust_files(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
        let entries =
            std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path
                    .strip_prefix(repository())
                    .unwrap()
                    .to_string_lossy()
                    .into_owned();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    walk(&repository_file(folder), &mut found);
    found.sort();
    assert!(!found.is_empty(), "no Rust file below {folder}");
    found
}

/// Applies a rule to every file under `src/`, with what the other files say about it: that it is for tests only.
fn breaches_of_all(rule: fn(&str, &str, bool) -> Vec<String>) -> Vec<String> {
    let files = rust_files("src");
    let test_files: Vec<String> = files
        .iter()
        .flat_map(|(path, text)| {
            let folder = path.trim_end_matches(".rs");
            Source::read(text, false)
                .test_modules()
                .map(|name| format!("{folder}/{name}"))
                .collect::<Vec<_>>()
        })
        .collect();
    let is_for_tests = |path: &str| {
        let module = path.trim_end_matches(".rs");
        test_files
            .iter()
            .any(|test| module == test || module.starts_with(&format!("{test}/")))
    };
    files
        .iter()
        .flat_map(|(path, text)| rule(path, text, is_for_tests(path)))
        .collect()
}

#[track_caller]
fn assert_none(breaches: &[String]) {
    assert!(
        breaches.is_empty(),
        "{} breaches:\n{}",
        breaches.len(),
        breaches.join("\n")
    );
}
