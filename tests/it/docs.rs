//! The guides say what is true: links lead somewhere, every flag, metric, reason and problem they name exists, and
//! the programs they show verify what is genuine and nothing else.

mod commands;
mod fields;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit, Mac};
use postrider::domain::outcome::FailureReason;
use sha2::Sha256;
use strum::IntoEnumIterator as _;

use crate::support::{Cluster, Operator, TempNamespace, repository, repository_file, verifiers};

/// Every page for people.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![repository_file("README.md"), repository_file("CONTRIBUTING.md")];
    let mut folders = vec![repository_file("docs"), repository_file("examples")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn page(name: &str) -> String {
    read(repository_file("docs").join(name))
}

/// A page without its code blocks.
fn prose(text: &str) -> String {
    let mut in_code = false;
    text.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            in_code ^= fence;
            !fence && !in_code
        })
        .collect::<Vec<_>>()
        .join("\n")
}

/// The anchor that GitHub makes of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>()
        .replace(' ', "-")
}

/// What stands in the first code span of each row's first cell, in the table under a heading.
fn first_cells(page: &str, heading: &str) -> BTreeSet<String> {
    let (_, section) = page
        .split_once(&format!("\n{heading}\n"))
        .unwrap_or_else(|| panic!("no heading {heading}"));
    let level = heading.split(' ').next().unwrap();
    section
        .lines()
        .take_while(|line| !line.starts_with(&format!("{level} ")))
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(cell, _)| cell.to_owned())
        .collect()
}

/// Words that begin with a prefix and go on with letters and the joining character.
fn words<'t>(text: &'t str, prefix: &str, joint: char) -> BTreeSet<&'t str> {
    text.match_indices(prefix)
        .filter(|(at, _)| !text[..*at].ends_with(|c: char| c.is_alphanumeric() || c == joint))
        .map(|(at, _)| {
            let rest = &text[at..];
            let end = rest[prefix.len()..].find(|c: char| !c.is_ascii_lowercase() && c != joint);
            rest[..end.map_or(rest.len(), |end| prefix.len() + end)].trim_end_matches(joint)
        })
        .filter(|word| word.len() > prefix.len())
        .collect()
}

fn sources() -> String {
    let mut text = String::new();
    let mut folders = vec![repository_file("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&read(&path));
            }
        }
    }
    text
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken = Vec::new();
    for path in pages() {
        let text = prose(&read(&path));
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            if target.starts_with("http") {
                continue;
            }
            let (file, fragment) = target.split_once('#').unwrap_or((target, ""));
            let to = if file.is_empty() {
                path.clone()
            } else {
                path.parent().unwrap().join(file)
            };
            let found = to.exists()
                && (fragment.is_empty()
                    || prose(&read(&to))
                        .lines()
                        .filter(|line| line.starts_with('#'))
                        .any(|line| anchor(line.trim_start_matches('#')) == fragment));
            if !found {
                broken.push(format!(
                    "{}: {target}",
                    path.strip_prefix(repository()).unwrap().display()
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// What `postrider run --help` says.
fn help_of_the_binary() -> String {
    let binary = env!("CARGO_BIN_EXE_postrider");
    let help = Command::new(binary).args(["run", "--help"]).output().unwrap();
    assert!(help.status.success(), "postrider run --help: {}", help.status);
    String::from_utf8(help.stdout).unwrap()
}

fn flags_of_the_binary() -> BTreeSet<String> {
    words(&help_of_the_binary(), "--", '-')
        .into_iter()
        .filter(|flag| *flag != "--help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn flags_are_those_of_the_binary() {
    let (help, known) = (help_of_the_binary(), flags_of_the_binary());
    let table = first_cells(&page("operations.md"), "## Flags");
    assert_eq!(
        table, known,
        "the table of docs/operations.md, and `postrider run --help`"
    );
    for variable in words(&page("operations.md"), "POSTRIDER_", '_') {
        assert!(help.contains(variable), "{variable}");
    }
    // The chart sets flags, too, and a misspelt one would only show in a cluster.
    let template = read(repository_file("charts/postrider/templates/statefulset.yaml"));
    for flag in words(&template, "--", '-') {
        assert!(known.contains(flag), "the chart's {flag}");
    }
}

#[test]
fn metrics_are_those_of_the_source() {
    let sources = sources();
    let registered = |name: &str| {
        let name = name.trim_end_matches("_bucket").trim_end_matches("_total");
        let names = [name, name.trim_end_matches("_seconds")];
        let prefixes = ["", "postrider_", "postrider_queue_"];
        names.iter().any(|name| {
            prefixes
                .iter()
                .filter_map(|prefix| name.strip_prefix(prefix))
                .any(|rest| sources.contains(&format!("\"{rest}\"")))
        })
    };
    let mut missing = BTreeSet::new();
    for path in pages() {
        let text = read(path);
        missing.extend(
            words(&text, "postrider_", '_')
                .into_iter()
                .filter(|name| !registered(name))
                .map(str::to_owned),
        );
    }
    assert!(missing.is_empty(), "not registered: {missing:#?}");

    let operations = page("operations.md");
    let calls = sources
        .split(".register(")
        .skip(1)
        .filter_map(|call| call.trim_start().strip_prefix('"'));
    for name in calls.filter_map(|call| call.split('"').next()) {
        let name = name.strip_prefix("postrider_").unwrap_or(name);
        assert!(
            operations.contains(&format!("`postrider_{name}")),
            "docs/operations.md does not name {name}"
        );
    }
}

#[tokio::test]
async fn metrics_are_served_under_their_documented_names() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "docs-metrics").await;
    let operator = Operator::start(cluster, namespace.name()).await;
    let (status, served) = operator.admin("/metrics").await.unwrap();
    assert_eq!(status, 200);
    let operations = page("operations.md");
    let names = served
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let unknown: Vec<_> = names
        .map(|(name, kind)| {
            if kind == "counter" {
                format!("{name}_total")
            } else {
                name.to_owned()
            }
        })
        .filter(|name| !operations.contains(&format!("| `{name}` |")))
        .collect();
    assert!(
        unknown.is_empty() && served.contains("# TYPE postrider_"),
        "{unknown:#?}\n{served}"
    );
}

#[test]
fn reasons_are_those_of_the_source() {
    let delivery = page("delivery.md");
    let known: BTreeSet<String> = FailureReason::iter()
        .map(|reason| reason.as_str().to_owned())
        .collect();
    assert_eq!(first_cells(&delivery, "## Reasons"), known);
    for reason in FailureReason::iter() {
        let row = delivery
            .lines()
            .find(|line| line.starts_with(&format!("| `{}` |", reason.as_str())))
            .unwrap();
        let retried = if reason.is_terminal() { "| no |" } else { "| yes |" };
        assert!(row.ends_with(retried), "{row}");
    }
    let conditions = read(repository_file("src/api/conditions.rs"));
    for reason in conditions
        .split("pub const ")
        .skip(1)
        .filter_map(|constant| constant.split('"').nth(1))
    {
        assert!(
            delivery.contains(&format!("`{reason}`")),
            "docs/delivery.md does not say what {reason} means"
        );
    }
}

#[test]
fn problems_are_those_of_the_source() {
    let source = read(repository_file("src/adapters/http/problem.rs"));
    let table = first_cells(&page("publishing.md"), "## Errors");
    assert!(!table.is_empty(), "docs/publishing.md lists no problem");
    for problem in &table {
        assert!(source.contains(&format!("\"{problem}\"")), "{problem}");
    }
    // Each kind's last part is the first string in its row of the table in the source.
    let parts = source
        .split("Self::")
        .skip(1)
        .filter(|row| row.contains("StatusCode::"));
    for problem in parts
        .filter_map(|row| row.split('"').nth(1))
        .filter(|word| !word.contains([' ', '/']))
    {
        assert!(
            table.contains(problem),
            "docs/publishing.md does not say what {problem} means"
        );
    }
}

#[test]
fn guides_show_what_the_programs_hold() {
    let signatures = page("signatures.md");
    let mut shown = 0;
    for piece in signatures.split("<!-- from ").skip(1) {
        let (file, rest) = piece.split_once(" -->\n```").unwrap();
        let (_, rest) = rest.split_once('\n').unwrap();
        let (code, _) = rest.split_once("\n```").unwrap();
        assert!(
            page(file).contains(code),
            "docs/signatures.md shows what is not in docs/{file}:\n{code}"
        );
        shown += 1;
    }
    assert_eq!(shown, 4);
}

fn sign(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

struct Case {
    what: &'static str,
    arguments: Vec<String>,
    genuine: bool,
}

const BODY: &str = "{\"text\": \"ünïcödé\",  \"n\": 1}";

fn cases() -> Vec<Case> {
    let key = b"a key of at least 24 bytes";
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(key));
    let now = jiff::Timestamp::now().as_second();
    let standard = |what, key: &[u8], seconds: i64, before: &str, body: &str, genuine| {
        let signature = BASE64_STANDARD.encode(sign(key, format!("evt-1.{seconds}.{body}").as_bytes()));
        let arguments = vec![
            "standard".to_owned(),
            secret.clone(),
            "webhook-id: evt-1".to_owned(),
            format!("webhook-timestamp: {seconds}"),
            format!("webhook-signature: {before}v1,{signature}"),
        ];
        Case {
            what,
            arguments,
            genuine,
        }
    };
    let plain = |what, key: &str, body: &str, genuine| {
        let signature = hex::encode(sign(key.as_bytes(), body.as_bytes()));
        let header = format!("X-Acme-HMAC-SHA-256: {signature}");
        Case {
            what,
            arguments: vec!["hmac".to_owned(), "s3cret".to_owned(), header],
            genuine,
        }
    };
    vec![
        standard("a genuine request", key, now, "", BODY, true),
        standard(
            "a request signed with two secrets",
            key,
            now,
            "v1,bm90IGl0 v1a,eA== ",
            BODY,
            true,
        ),
        standard("another body", key, now, "", "{}", false),
        standard(
            "another key",
            b"another key of 24 bytes or so",
            now,
            "",
            BODY,
            false,
        ),
        standard("an old request", key, now - 3600, "", BODY, false),
        standard("a request from the future", key, now + 3600, "", BODY, false),
        Case {
            what: "a request without headers",
            arguments: vec!["standard".to_owned(), secret.clone()],
            genuine: false,
        },
        plain("a genuine HMAC", "s3cret", BODY, true),
        plain("an HMAC of another body", "s3cret", "{}", false),
        plain("an HMAC with another key", "secret", BODY, false),
        Case {
            what: "a request without an HMAC",
            arguments: vec!["hmac".to_owned(), "s3cret".to_owned()],
            genuine: false,
        },
    ]
}

/// Runs a guide's program on each case.
fn judge(words: &[&str]) {
    for Case {
        what,
        arguments,
        genuine,
    } in cases()
    {
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(arguments)
            .env("NODE_PATH", verifiers().join("node_modules"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{words:?}: {error}"));
        // A program that refuses early does not read the body.
        drop(child.stdin.take().unwrap().write_all(BODY.as_bytes()));
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let expected = if genuine {
            (Some(0), "genuine")
        } else {
            (Some(1), said.trim())
        };
        assert_eq!(
            (output.status.code(), said.trim()),
            expected,
            "{words:?}: {what}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn python_and_node_programs_tell_genuine_from_forged() {
    let python = verifiers().join("venv/bin/python");
    judge(&[
        python.to_str().unwrap(),
        repository_file("docs/verify/verify.py").to_str().unwrap(),
    ]);
    judge(&["node", repository_file("docs/verify/verify.js").to_str().unwrap()]);
}

/// Runs a compiler.
fn compile(command: &mut Command) {
    let built = command
        .status()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run tools/setup.sh"));
    assert!(built.success(), "{command:?}: {built}");
}

#[test]
fn a_go_program_tells_genuine_from_forged() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("verify");
    let source = repository_file("docs/verify/verify.go");
    compile(Command::new("go").args(["build", "-o"]).args([&program, &source]));
    judge(&[program.to_str().unwrap()]);
}

#[test]
fn a_java_program_tells_genuine_from_forged() {
    let folder = tempfile::tempdir().unwrap();
    let classes = folder.path().to_str().unwrap();
    let source = repository_file("docs/verify/Verify.java");
    compile(
        Command::new("javac")
            .args(["-encoding", "UTF-8", "-d", classes])
            .arg(source),
    );
    judge(&["java", "-Dfile.encoding=UTF-8", "-cp", classes, "Verify"]);
}
