//! The form of a file: it opens with docs, has a bounded length and nothing unfinished, and unwraps in tests only.

use super::source::Source;
use super::{assert_none, breaches_of_all, rust_files};

/// Lines that a file may have.
const LONGEST: usize = 600;

/// Every breach of the rules that hold for any file, of source, tests or benchmarks.
fn form_breaches(path: &str, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    if path.ends_with("/mod.rs") {
        breaches.push(format!("{path}: use foo.rs beside foo/"));
    }
    if Source::read(text, true).has_code() && !text.starts_with("//! ") {
        breaches.push(format!(
            "{path}: opens without `//!` that says what the module is for"
        ));
    }
    let lines = text.lines().count();
    if lines > LONGEST {
        breaches.push(format!("{path}: {lines} lines, at most {LONGEST}; split it"));
    }
    for (number, line) in (1..).zip(text.lines()) {
        // Spelled in two parts so that this file passes its own rule.
        if [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!(")]
            .iter()
            .any(|word| line.contains(word))
        {
            breaches.push(format!("{path}:{number}: unfinished work belongs into an issue"));
        }
    }
    breaches
}

/// Every `.unwrap()` outside tests.
fn unwrap_breaches(path: &str, text: &str, for_tests: bool) -> Vec<String> {
    let source = Source::read(text, for_tests);
    source
        .lines_of_unwrap()
        .map(|line| format!("{path}:{line}: `.unwrap()` outside tests"))
        .collect()
}

/// Every Rust file of tests and benchmarks.
fn test_files() -> Vec<(String, String)> {
    [rust_files("tests"), rust_files("benches")].concat()
}

#[test]
fn each_file_has_docs_and_a_bounded_length_and_nothing_unfinished() {
    let files = [rust_files("src"), test_files()].concat();
    let breaches = files.iter().flat_map(|(path, text)| form_breaches(path, text));
    assert_none(&breaches.collect::<Vec<_>>());
}

#[test]
fn nothing_is_unwrapped_outside_tests() {
    assert_none(&breaches_of_all(unwrap_breaches));
}

/// Checks that one of the breaches has the words, or that there is none.
#[track_caller]
pub(super) fn check(text: &str, breaches: &[String], words: Option<&str>) {
    match words {
        Some(words) => assert!(
            breaches.iter().any(|breach| breach.contains(words)),
            "`{text}` passes: {breaches:?}"
        ),
        None => assert_none(breaches),
    }
}

#[test]
fn each_rule_of_form_fails_on_a_breach() {
    let longest = format!("//! Docs.\n{}", "fn f() {}\n".repeat(LONGEST - 1));
    let too_long = format!("{longest}fn f() {{}}\n");
    for (text, words) in [
        ("use std::fmt;\n", Some("//!")),
        ("// Not docs.\nuse std::fmt;\n", Some("//!")),
        (concat!("//! Docs.\n// TO", "DO: later\n"), Some(":2: unfinished")),
        (&too_long, Some("601 lines")),
        (&longest, None),
        ("", None),
    ] {
        for path in ["src/domain/a.rs", "tests/it/a.rs", "benches/loop/a.rs"] {
            check(text, &form_breaches(path, text), words);
        }
    }
    let path = "tests/it/a/mod.rs";
    check(path, &form_breaches(path, "//! Docs.\n"), Some("mod.rs: use"));
}

#[test]
fn an_unwrap_outside_tests_is_a_breach() {
    for (text, words) in [
        ("fn f() { g().unwrap(); }\n", Some(":1: `.unwrap()`")),
        ("fn f() { g()\n    .unwrap () }\n", Some(":2: `.unwrap()`")),
        (
            "#[cfg(test)]\nmod tests { fn f() {} }\nfn f() { g().unwrap(); }\n",
            Some(":3:"),
        ),
        ("fn f() { g().unwrap_or_default(); }\n", None),
        (
            "#[cfg(test)]\nmod tests {\n    fn f() { if a { g().unwrap(); } }\n}\n",
            None,
        ),
        ("/// See `.unwrap()`.\nconst S: &str = \".unwrap()\";\n", None),
    ] {
        check(text, &unwrap_breaches("src/domain/a.rs", text, false), words);
    }
}
