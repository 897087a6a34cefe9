//! `kubectl postrider` on the examples, on broken files, on a cluster, and on what it shows itself.

mod completion;
mod forms;
mod forward;
mod online;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::{repository, repository_file};

const NOW: &str = "2025-01-01T00:00:00Z";
const KEY: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";

struct Answer {
    code: i32,
    out: String,
    notes: String,
}

fn plugin(folder: &Path, arguments: &[&str]) -> Answer {
    plugin_fed(folder, arguments, b"")
}

fn plugin_fed(folder: &Path, arguments: &[&str], input: &[u8]) -> Answer {
    let mut child = Command::new(env!("CARGO_BIN_EXE_kubectl-postrider"))
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A command that does not read its input may be gone before it is written.
    drop(child.stdin.take().unwrap().write_all(input));
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    Answer {
        code: status.code().unwrap(),
        out: String::from_utf8(stdout).unwrap(),
        notes: String::from_utf8(stderr).unwrap(),
    }
}

/// A folder with files.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn example_manifests() -> Vec<String> {
    let mut files = Vec::new();
    for example in std::fs::read_dir(repository_file("examples")).unwrap() {
        let example = example.unwrap().path();
        if !example.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(&example).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let path = path.strip_prefix(repository()).unwrap();
                files.push(path.to_str().unwrap().to_owned());
            }
        }
    }
    files.sort();
    assert!(!files.is_empty(), "no manifest is found");
    files
}

#[test]
fn the_examples_are_clean_once_their_local_receivers_are_allowed() {
    let files = example_manifests();
    let files: Vec<&str> = files.iter().map(String::as_str).collect();
    let allowed = plugin(
        repository(),
        &[&["lint", "--allow-egress", "127.0.0.1/32"], &files[..]].concat(),
    );
    assert_eq!((allowed.code, allowed.out.as_str()), (0, ""), "{}", allowed.notes);

    let refused = plugin(repository(), &[&["lint"], &files[..]].concat());
    assert_eq!(refused.code, 1);
    for line in refused.out.lines() {
        assert!(
            line.contains(": spec.webhook.url: 127.0.0.1 is a loopback address"),
            "{line}"
        );
    }
}

const BROKEN: &str = "
apiVersion: postrider.dev/v1alpha1
kind: EventDestination
metadata: {name: alerts}
spec:
  events: ['*']
  suspended: true
  webhook:
    url: ftp://example.com
    headers: [{name: Host, value: x}]
---
apiVersion: v1
kind: ConfigMap
---
apiVersion: postrider.dev/v1alpha1
kind: EventProject
metadata: {name: acme}
spec: {displayName: 5}
";

const TOLD_NOBODY: &str = "
apiVersion: postrider.dev/v1alpha1
kind: EventProject
metadata: {name: acme}
spec:
  notifications:
    webhook: {url: 'https://127.0.0.1/'}
    events: [{type: a, emailSubscribers: 'a@x.example, nobody'}, {type: b, emailSubscribers: 5}]
";

#[test]
fn faults_of_notifications_are_found_without_a_cluster() {
    let folder = folder(&[("project.yaml", TOLD_NOBODY)]);
    let answer = plugin(folder.path(), &["lint", "project.yaml"]);
    let start = "project.yaml: EventProject/acme: spec.notifications";
    let expected = [
        format!("{start}.webhook.url: 127.0.0.1 is a loopback address"),
        format!("{start}.events[0].emailSubscribers: this is not an address"),
        format!("{start}.events[1].emailSubscribers: use a list of addresses, or one text"),
    ];
    let lines: Vec<_> = answer.out.lines().collect();
    assert_eq!((lines.len(), answer.code), (expected.len(), 1), "{}", answer.out);
    for (line, expected) in lines.iter().zip(&expected) {
        assert!(line.starts_with(expected), "{line}");
    }
}

#[test]
fn every_fault_of_every_document_is_a_line() {
    let folder = folder(&[("broken.yaml", BROKEN)]);
    let answer = plugin(folder.path(), &["lint", "broken.yaml"]);
    let lines: Vec<_> = answer.out.lines().collect();
    let expected = [
        "broken.yaml: EventDestination/alerts: spec.suspended: there is no such field; known here: ",
        "broken.yaml: EventDestination/alerts: spec.webhook.url: the URL's scheme must be http or https",
        "broken.yaml: EventDestination/alerts: spec.webhook.headers[0].name: this header is set by HTTP",
        "broken.yaml: EventProject/acme: spec.displayName: must be a string, is a number",
    ];
    assert_eq!(lines.len(), expected.len(), "{}", answer.out);
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "{line}");
    }
    assert_eq!(answer.code, 1);
    assert_eq!(answer.notes, "2 checked, 1 of other kinds ignored, 4 faults\n");

    let answer = plugin_fed(folder.path(), &["lint", "-", "-o", "json"], BROKEN.as_bytes());
    let found: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(answer.code, 1);
    assert_eq!((&found["checked"], &found["ignored"]), (&json!(2), &json!(1)));
    let last = &found["faults"][3];
    assert_eq!(
        (&last["file"], &last["document"], &last["name"], &last["path"]),
        (&json!("-"), &json!(3), &json!("acme"), &json!("spec.displayName"))
    );
}

#[test]
fn a_file_that_cannot_be_read_does_not_hide_the_others() {
    let huge = " ".repeat((1 << 20) + 1);
    let folder = folder(&[
        ("broken.yaml", BROKEN),
        ("no.yaml", "a: b: s3cret"),
        ("huge.yaml", &huge),
    ]);
    let answer = plugin(
        folder.path(),
        &["lint", "none.yaml", "no.yaml", "huge.yaml", "broken.yaml"],
    );
    assert_eq!(answer.code, 2);
    assert_eq!(answer.out.lines().count(), 4, "{}", answer.out);
    for word in [
        "cannot read none.yaml",
        "no.yaml cannot be read",
        "huge.yaml is larger",
    ] {
        assert!(answer.notes.contains(word), "{}", answer.notes);
    }
    assert!(!answer.notes.contains("s3cret"), "{}", answer.notes);
}

#[test]
fn each_example_is_rendered_with_its_event() {
    for (example, event, more, scheme) in [
        ("signed-envelope", "event.json", &[][..], "x-acme-hmac-sha-256: "),
        (
            "sync-webhooks",
            "events.json",
            &["--index", "2"][..],
            "webhook-signature: v1,",
        ),
    ] {
        let folder = repository_file("examples").join(example);
        let start = [
            "render",
            "destination.yaml",
            "--event",
            event,
            "--project",
            "project.yaml",
        ];
        let unsigned = plugin(&folder, &[&start[..], more].concat());
        assert_eq!(unsigned.code, 0, "{}", unsigned.notes);
        assert!(
            unsigned.out.starts_with("POST http://127.0.0.1:"),
            "{}",
            unsigned.out
        );
        assert!(!unsigned.out.contains(scheme), "{}", unsigned.out);
        assert!(
            unsigned.notes.contains("the signature is left out"),
            "{}",
            unsigned.notes
        );

        let secret = format!("{example}-signing/secret={KEY}");
        let signed = plugin(&folder, &[&start[..], more, &["--secret", &secret]].concat());
        assert!(signed.out.contains(scheme), "{}", signed.out);
        assert!(!signed.notes.contains("left out"), "{}", signed.notes);
        let (_, body) = signed.out.split_once("\n\n").unwrap();
        serde_json::from_str::<Value>(body).unwrap();
    }
}

#[test]
fn what_is_shown_is_verified_and_a_change_is_not() {
    let destination = "
apiVersion: postrider.dev/v1alpha1
kind: EventDestination
metadata: {name: d}
spec:
  events: ['order.*']
  webhook:
    urlFrom: {secretKeyRef: {name: s, key: url}}
    headers: [{name: X-Token, valueFrom: {secretKeyRef: {name: s, key: token}}}]
    signing: {secretRef: {name: s, key: key}}
    payload: {template: {total: '{{ $.event.data.total }}'}}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {url: 'https://hooks.example.com/t0ken?q=1', token: t0ken, key: KEY}
"
    .replace("KEY", KEY);
    let folder = folder(&[
        ("d.yaml", &destination),
        (
            "event.json",
            r#"{"id": "evt-1", "type": "order.placed", "data": {"total": 12}}"#,
        ),
        ("key", &format!("{KEY}\n")),
    ]);
    let folder = folder.path();
    let render = |more: &[&str]| {
        let start = [
            "render",
            "d.yaml",
            "--event",
            "event.json",
            "--now",
            NOW,
            "--attempt",
            "3",
        ];
        plugin(folder, &[&start[..], more].concat())
    };
    let shown = render(&[]);
    assert_eq!(shown.code, 0, "{}", shown.notes);
    assert!(
        shown.out.starts_with("POST https://hooks.example.com/(secret)\n"),
        "{}",
        shown.out
    );
    assert!(shown.out.contains("\nx-token: (secret)\n"), "{}", shown.out);
    assert!(shown.out.contains("\nx-postrider-attempt: 3\n"), "{}", shown.out);
    assert!(
        shown
            .out
            .contains("\nwebhook-id: evt-1\nwebhook-timestamp: 1735689600\n"),
        "{}",
        shown.out
    );
    assert!(shown.out.ends_with("\n\n{\"total\":12}"), "{}", shown.out);
    assert!(!format!("{}{}", shown.out, shown.notes).contains("t0ken"));
    let all = render(&["--show-secrets"]);
    assert!(
        all.out.starts_with("POST https://hooks.example.com/t0ken?q=1\n"),
        "{}",
        all.out
    );
    assert!(all.out.contains("\nx-token: t0ken\n"), "{}", all.out);

    let body = render(&["-o", "body"]).out;
    let headers: Vec<&str> = shown
        .out
        .lines()
        .filter(|line| line.starts_with("webhook-"))
        .collect();
    let verify = |body: &str, now: &str| {
        let mut arguments = vec!["verify", "--secret", "key", "--body", "-", "--now", now];
        for header in &headers {
            arguments.extend(["--header", header]);
        }
        plugin_fed(folder, &arguments, body.as_bytes())
    };
    let genuine = verify(&body, NOW);
    assert_eq!(
        (genuine.code, genuine.out.as_str()),
        (0, "genuine\n"),
        "{}",
        genuine.notes
    );
    let changed = verify("{\"total\": 12}", NOW);
    assert_eq!(changed.code, 1);
    assert!(changed.out.contains("as JSON without spaces"), "{}", changed.out);
    let old = verify(&body, "2025-01-01T02:00:00Z");
    assert!(old.out.contains("7200s old, more than 5m"), "{}", old.out);
}

#[test]
fn what_cannot_be_rendered_is_said() {
    let folder = folder(&[
        ("broken.yaml", BROKEN),
        ("event.json", r#"{"type": "a b", "extra": 1}"#),
        ("good.json", r#"{"type": "a"}"#),
    ]);
    let folder = folder.path();
    let faulty = plugin(folder, &["render", "broken.yaml", "--event", "good.json"]);
    assert_eq!((faulty.code, faulty.out.as_str()), (1, ""));
    assert!(faulty.notes.contains("spec.webhook.url: "), "{}", faulty.notes);
    let other = plugin(
        folder,
        &["render", "broken.yaml", "--event", "good.json", "--name", "x"],
    );
    assert_eq!(other.code, 2);
    assert!(
        other.notes.contains("no destination named x, only: alerts"),
        "{}",
        other.notes
    );

    let quickstart = repository_file("examples/quickstart/destination.yaml");
    let event = plugin(
        folder,
        &["render", quickstart.to_str().unwrap(), "--event", "event.json"],
    );
    assert_eq!((event.code, event.out.as_str()), (1, ""));
    for word in ["/type", "extra"] {
        assert!(event.notes.contains(word), "{}", event.notes);
    }
}

#[test]
fn a_mail_is_shown_as_it_would_be_sent_with_and_without_its_server() {
    let folder = repository_file("examples/email");
    let base = ["render", "alerts.yaml", "project.yaml", "--event", "event.json"];
    let alerts = plugin(
        &folder,
        &[&base[..], &["smtp.yaml", "--name", "email-alerts"]].concat(),
    );
    assert_eq!(alerts.code, 0, "{}", alerts.notes);
    for line in [
        "smtp://smtp.example.com:587",
        "MAIL FROM:<postrider@example.com>",
        "RCPT TO:<ops@example.com>",
        "RCPT TO:<oncall@example.com>",
        "Auto-Submitted: auto-generated",
        "Reply-To: support@example.com",
    ] {
        assert!(
            alerts.out.lines().any(|other| other.trim_end() == line),
            "{line}: {}",
            alerts.out
        );
    }
    assert!(!alerts.out.contains("replace-me") && !alerts.notes.contains("replace-me"));
    let tenants = plugin(
        &folder,
        &[&base[..], &["--name", "email-tenants", "-o", "body"]].concat(),
    );
    assert_eq!(tenants.code, 0, "{}", tenants.notes);
    assert!(
        tenants
            .notes
            .contains("Secret \"smtp\", which describes the SMTP server, is not among the files")
    );
    assert_eq!(tenants.out.matches("Message-ID: ").count(), 2, "{}", tenants.out);
    assert!(!tenants.out.contains("RCPT TO"));
    let lint = plugin(&folder, &["lint", "alerts.yaml", "project.yaml"]);
    assert_eq!(lint.code, 0, "{}{}", lint.out, lint.notes);
}

#[test]
fn a_filter_that_keeps_the_event_away_is_noted() {
    let example = repository_file("examples/filter");
    for (index, note) in [
        ("0", None),
        ("1", Some("spec.filter does not let it through (False)")),
        ("4", Some("spec.filter does not let it through (MissingKey)")),
    ] {
        let arguments = [
            "render",
            "destination.yaml",
            "project.yaml",
            "--event",
            "events.json",
            "--index",
            index,
        ];
        let answer = plugin(&example, &arguments);
        assert_eq!(answer.code, 0, "{}", answer.notes);
        match note {
            Some(note) => assert!(answer.notes.contains(note), "{}", answer.notes),
            None => assert!(!answer.notes.contains("would not be sent"), "{}", answer.notes),
        }
    }
}

#[test]
fn an_event_that_lacks_the_key_of_dedup_is_noted() {
    let example = repository_file("examples/dedup");
    for (event, is_noted) in [
        (r#"{"type": "invoice.paid", "data": {"invoice": "i1"}}"#, false),
        (r#"{"type": "invoice.paid", "data": {"invoice": null}}"#, true),
        (r#"{"type": "invoice.paid", "data": {}}"#, true),
    ] {
        let folder = folder(&[("event.json", event)]);
        let event = folder.path().join("event.json");
        let arguments = [
            "render",
            "destination.yaml",
            "project.yaml",
            "--event",
            event.to_str().unwrap(),
        ];
        let answer = plugin(&example, &arguments);
        assert_eq!(answer.code, 0, "{}", answer.notes);
        assert_eq!(
            answer.notes.contains("never taken for the same"),
            is_noted,
            "{}",
            answer.notes
        );
    }
    let faulty = std::fs::read_to_string(example.join("destination.yaml")).unwrap();
    let faulty = faulty.replace("$.event.data.invoice", "$.event.dta.invoice");
    let folder = folder(&[("destination.yaml", &faulty)]);
    let lint = plugin(folder.path(), &["lint", "destination.yaml"]);
    assert_eq!(lint.code, 1, "{}", lint.out);
    assert!(lint.out.contains("spec.delivery.dedup.key"), "{}", lint.out);
}

#[test]
fn a_batch_is_rendered_as_an_array() {
    let folder = folder(&[("event.json", r#"{"type": "invoice.paid", "data": {"n": 1}}"#)]);
    let event = folder.path().join("event.json");
    let mut arguments = vec!["render", "destination.yaml", "project.yaml", "--event"];
    arguments.extend([event.to_str().unwrap(), "-o", "body"]);
    let answer = plugin(&repository_file("examples/batch"), &arguments);
    assert_eq!(answer.code, 0, "{}", answer.notes);
    let body: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(body[0]["data"]["n"], 1);
    assert!(answer.notes.contains("up to 50 such events"), "{}", answer.notes);
}

#[test]
fn the_built_in_types_are_listed_in_each_form() {
    let folder = folder(&[]);
    let table = plugin(folder.path(), &["events"]);
    assert_eq!(
        (table.code, table.out.lines().count()),
        (0, 24),
        "{}",
        table.notes
    );
    let answer = plugin(folder.path(), &["events", "run_failed", "-o", "json"]);
    let listed: Value = serde_json::from_str(&answer.out).unwrap();
    assert_eq!(listed[0]["example"]["type"], "run_failed");
    assert_eq!(listed[0]["format"], "Flat");
    let answer = plugin(folder.path(), &["events", "run_*", "-o", "yaml"]);
    assert!(answer.out.contains("name: run_failed"), "{}", answer.out);
    let unknown = plugin(folder.path(), &["events", "nothing"]);
    assert_eq!((unknown.code, unknown.out.as_str()), (1, ""));
}

#[test]
fn help_and_the_guide_name_the_same_flags() {
    let guide = std::fs::read_to_string(repository_file("docs/plugin.md")).unwrap();
    for command in [
        "lint",
        "render",
        "events",
        "formats",
        "verify",
        "status",
        "test",
        "enable",
        "rotate-secret",
        "deliveries",
        "show",
        "replay",
        "cancel",
        "publish",
        "completion",
    ] {
        let help = plugin(repository(), &[command, "--help"]);
        assert_eq!(help.code, 0);
        assert!(help.out.contains("Examples:"), "{}", help.out);
        let flags = help
            .out
            .lines()
            .filter_map(|line| line.trim_start().split_once("--"))
            .filter(|(before, _)| before.is_empty() || before.ends_with(", "))
            .map(|(_, rest)| rest.split([' ', '=', '[']).next().unwrap())
            .filter(|flag| *flag != "help");
        for flag in flags {
            assert!(
                guide.contains(&format!("`--{flag}")),
                "docs/plugin.md does not name --{flag} of {command}"
            );
        }
    }
    let version = plugin(repository(), &["--version"]);
    assert_eq!(
        version.out.trim(),
        concat!("kubectl-postrider ", env!("CARGO_PKG_VERSION"))
    );
}
