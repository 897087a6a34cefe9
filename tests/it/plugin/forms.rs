//! What the offline commands answer programs: the same as JSON and as YAML.

use serde_json::{Value, json};

use super::{NOW, folder, plugin};
use crate::support::repository_file;

/// The same command's answer as JSON, which YAML repeats.
fn told(folder: &std::path::Path, arguments: &[&str]) -> Value {
    let form = |form: &str| plugin(folder, &[arguments, &["-o", form]].concat());
    let (json, yaml) = (form("json"), form("yaml"));
    let value: Value =
        serde_json::from_str(&json.out).unwrap_or_else(|_| panic!("{}{}", json.out, json.notes));
    assert_eq!(json.code, yaml.code);
    assert_eq!(serde_saphyr::from_str::<Value>(&yaml.out).unwrap(), value);
    value
}

#[test]
fn faults_are_told_in_each_form() {
    let folder = folder(&[(
        "project.yaml",
        "{apiVersion: postrider.dev/v1alpha1, kind: EventProject, metadata: {name: acme}, spec: {displayName: 5}}",
    )]);
    let told = told(folder.path(), &["lint", "project.yaml"]);
    assert_eq!(
        (&told["checked"], &told["faults"][0]["path"]),
        (&json!(1), &json!("spec.displayName"))
    );
}

const DESTINATION: &str = "
apiVersion: postrider.dev/v1alpha1
kind: EventDestination
metadata: {name: d}
spec:
  events: ['*']
  webhook:
    url: https://hooks.example.com/in
    headers: [{name: X-Token, valueFrom: {secretKeyRef: {name: s, key: token}}}]
    payload: {template: {total: '{{ $.event.data.total }}'}}
---
{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {token: t0ken}}
";

#[test]
fn a_request_and_the_verdict_on_it_are_told_in_each_form() {
    let folder = folder(&[
        ("d.yaml", DESTINATION),
        (
            "event.json",
            r#"{"id": "evt-1", "type": "order.placed", "data": {"total": 12}}"#,
        ),
        ("key", super::KEY),
        ("body", "{}"),
    ]);
    let shown = told(
        folder.path(),
        &["render", "d.yaml", "--event", "event.json", "--now", NOW],
    );
    assert_eq!(
        (&shown["method"], &shown["url"], &shown["body"]),
        (
            &json!("POST"),
            &json!("https://hooks.example.com/in"),
            &json!("{\"total\":12}")
        )
    );
    let headers = shown["headers"].as_array().unwrap();
    assert!(
        headers.contains(&json!({"name": "webhook-id", "value": "evt-1"})),
        "{shown}"
    );
    assert!(
        headers.contains(&json!({"name": "x-token", "value": "(secret)"})),
        "{shown}"
    );
    let verdict = told(folder.path(), &["verify", "--secret", "key", "--body", "body"]);
    assert_eq!(verdict["genuine"], false);
    assert!(verdict["problems"][0].is_string(), "{verdict}");
}

#[test]
fn a_mail_is_told_in_each_form() {
    let arguments = [
        "render",
        "alerts.yaml",
        "project.yaml",
        "smtp.yaml",
        "--event",
        "event.json",
        "--name",
        "email-alerts",
        "--now",
        NOW,
    ];
    let shown = told(&repository_file("examples/email"), &arguments);
    let mail = &shown["mails"][0];
    assert_eq!(
        (&shown["server"], &mail["from"]),
        (
            &json!("smtp://smtp.example.com:587"),
            &json!("postrider@example.com")
        )
    );
    assert_eq!(mail["recipients"][0], "ops@example.com");
    assert!(
        mail["message"]
            .as_str()
            .unwrap()
            .contains("Reply-To: support@example.com")
    );
}
