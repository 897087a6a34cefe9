//! No test just sleeps: it waits for what it needs with a bound, or says why time itself must pass.

use super::form::check;
use super::source::Source;
use super::{assert_none, breaches_of_all, rust_files};

/// The one file of the tests that waits for others.
const WAITS: &str = "tests/it/support/wait.rs";

/// Every sleep of a test that does not say why time must pass, in a comment right above.
fn sleep_breaches(path: &str, text: &str, for_tests: bool) -> Vec<String> {
    let source = Source::read(text, for_tests);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let says_why = |line: usize| line > 1 && lines[line - 2].starts_with("//");
    source
        .lines_of_word_in_tests("sleep")
        .filter(|line| lines[line - 1].contains("sleep(") && !says_why(*line))
        .map(|line| {
            format!("{path}:{line}: sleeps; use `eventually` or `until`, or say above why time must pass")
        })
        .collect()
}

#[test]
fn no_test_sleeps_without_a_reason() {
    let mut breaches = breaches_of_all(sleep_breaches);
    for (path, text) in rust_files("tests") {
        if path != WAITS {
            breaches.extend(sleep_breaches(&path, &text, true));
        }
    }
    assert_none(&breaches);
}

#[test]
fn a_sleep_without_a_reason_is_a_breach() {
    for (text, words) in [
        ("fn f() {\n    sleep(SECOND).await;\n}\n", Some(":2: sleeps")),
        (
            "fn f() {\n    tokio::time::sleep(\n        SECOND,\n    )\n}\n",
            Some(":2: sleeps"),
        ),
        (
            "fn f() {\n    std::thread::sleep(SECOND);\n}\n",
            Some(":2: sleeps"),
        ),
        ("use tokio::time::{sleep, timeout};\n", None),
        (
            "fn f() {\n    // The server measures its idle time.\n    sleep(SECOND).await;\n}\n",
            None,
        ),
        ("const S: &str = \"sleep(SECOND)\"; // sleep\n", None),
    ] {
        check(text, &sleep_breaches("tests/it/a.rs", text, true), words);
        let module = format!("#[cfg(test)] mod tests {{ {text} }}");
        check(&module, &sleep_breaches("src/engine/a.rs", &module, false), words);
        check(text, &sleep_breaches("src/engine/a.rs", text, false), None);
    }
}
