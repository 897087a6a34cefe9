//! Each rule of the schemas against the real API server: the accepted and the refused side, on create and on update.
//!
//! A case is a merge patch over a spec that is good, and either nothing or a part of the refusal. Requests are dry
//! runs with strict field validation, like `kubectl apply`.

use serde_json::{Value, json};

use super::destinations::DESTINATIONS;
use super::policy::POLICY;
use super::requests::REQUESTS;
use super::signing::SIGNING;
use crate::support::{Cluster, TempNamespace};

pub(super) const ACCEPTED: &str = "";
pub(super) const URL: &str =
    "url must be an absolute http or https URL with a host and without user name or password";
pub(super) const MAILBOX: &str = "use addresses such as ops@example.com or Ops Team <ops@example.com>";
pub(super) const NAME: &str = "use lower-case letters, digits, \"-\" and \".\"";

const PROJECT: &[(&str, &str)] = &[
    ("{}", ACCEPTED),
    (
        "{displayName: Acme, projectID: 613b038f-aaaa, environment: production, account: {id: 42, name: Acme}}",
        ACCEPTED,
    ),
    ("{account: {id: forty-two}}", ACCEPTED),
    ("{account: {id: LONG128}}", ACCEPTED),
    (
        "{account: {id: LONG129}}",
        "account.id must be an integer or at most 128 characters",
    ),
    ("{account: {id: 1.5}}", "must be of type"),
    ("{account: {name: ''}}", "should be at least 1 chars long"),
    ("{displayName: ''}", "should be at least 1 chars long"),
    ("{displayName: LONG256}", ACCEPTED),
    ("{displayName: LONG257}", "Too long"),
    ("{environment: LONG129}", "Too long"),
    ("{projectID: 'a.b:c_d-9'}", ACCEPTED),
    (
        "{projectID: '-a'}",
        "begin with a letter or digit; use letters, digits, \"_\", \".\", \":\" and \"-\"",
    ),
    ("{projectID: 'a b'}", "begin with a letter or digit"),
    ("{projectID: LONG129}", "Too long"),
    // Event types.
    ("{validation: Enforce}", ACCEPTED),
    ("{validation: Warn}", ACCEPTED),
    ("{validation: Off}", "must be of type string"),
    ("{validation: 'Off'}", ACCEPTED),
    ("{validation: Strict}", "supported values"),
    (
        "{eventTypes: [{name: a.b, description: d, schema: {properties: {n: {$ref: x}}}, example: {n: [1]}}]}",
        ACCEPTED,
    ),
    ("{eventTypes: [{}]}", "spec.eventTypes[0].name: Required value"),
    (
        "{eventTypes: [{name: 'a b'}]}",
        "use letters, digits, \"_\", \".\" and \"-\"",
    ),
    ("{eventTypes: [{name: LONG129}]}", "Too long"),
    ("{eventTypes: [{name: postriders}]}", ACCEPTED),
    (
        "{eventTypes: [{name: postrider.mine}]}",
        "names that begin with postrider. are Postrider's own; choose another name",
    ),
    ("{eventTypes: [{name: a}, {name: a}]}", "Duplicate value"),
    (
        "{eventTypes: [{name: a, schema: true}]}",
        "must be of type object",
    ),
    ("{eventTypes: [{name: a, example: 5}]}", "must be of type object"),
    (
        "{eventTypes: [{name: a, shema: {}}]}",
        "unknown field \"spec.eventTypes[0].shema\"",
    ),
    ("{project: x}", "unknown field \"spec.project\""),
];

/// Words that stand for something long, largest numbers first so that none is a part of another.
fn expand(case: &str) -> String {
    let mut text = case.replace("KEY", "keyFrom: {secretKeyRef: {name: s, key: k}}");
    text = text.replace("SECRET", "clientSecretFrom: {secretKeyRef: {name: s, key: k}}");
    for length in [2048, 257, 256, 129, 128, 65] {
        text = text.replace(&format!("LONG{length}"), &"a".repeat(length));
    }
    for count in [32, 33, 64, 65] {
        let list =
            |item: fn(usize) -> String| format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(", "));
        text = text.replace(&format!("TIMES{count}"), &list(|n| format!("type_{n}")));
        text = text.replace(
            &format!("HEADERS{count}"),
            &list(|n| format!("{{name: X-{n}, value: '1'}}")),
        );
        text = text.replace(&format!("WAITS{count}"), &list(|n| format!("{n}s")));
    }
    text
}

fn merge(base: &mut Value, patch: &Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    base.remove(key);
                } else {
                    merge(base.entry(key.clone()).or_insert(Value::Null), value);
                }
            }
        }
        (base, patch) => *base = patch.clone(),
    }
}

async fn send(client: &kube::Client, method: &str, uri: String, body: &Value) -> Result<Value, String> {
    let request = http::Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(body).unwrap())
        .unwrap();
    client
        .request::<Value>(request)
        .await
        .map_err(|error| match error {
            kube::Error::Api(status) => status.message.clone(),
            other => panic!("{other}"),
        })
}

pub(super) async fn check(kind: &str, plural: &str, base: Value, cases: &[(&str, &str)]) {
    use futures::StreamExt as _;

    let namespace = TempNamespace::new(Cluster::shared(), "rules").await;
    let client = namespace.client();
    let path = format!(
        "/apis/postrider.dev/v1alpha1/namespaces/{}/{plural}",
        namespace.name()
    );
    let object = |spec: &Value, name: &str| json!({"apiVersion": "postrider.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let existing = send(
        &client,
        "POST",
        format!("{path}?fieldValidation=Strict"),
        &object(&base, "existing"),
    )
    .await;
    let existing = existing.unwrap();
    let wrong: Vec<Option<String>> = futures::stream::iter(cases)
        .map(async |(case, expected)| {
            let change: Value = serde_saphyr::from_str(&expand(case)).unwrap();
            let mut spec = base.clone();
            merge(&mut spec, &change);
            let query = "dryRun=All&fieldValidation=Strict";
            let created = send(&client, "POST", format!("{path}?{query}"), &object(&spec, "new")).await;
            let mut changed = existing.clone();
            changed["spec"] = spec;
            let updated = send(&client, "PUT", format!("{path}/existing?{query}"), &changed).await;
            let answers = [("create", created), ("update", updated)];
            answers.into_iter().find_map(|(verb, answer)| match answer {
                Ok(_) if *expected == ACCEPTED => None,
                Ok(_) => Some(format!("{verb} {case}: accepted")),
                Err(message) if *expected != ACCEPTED && message.contains(expected) => None,
                Err(message) => Some(format!("{verb} {case}: {message}")),
            })
        })
        .buffered(16)
        .collect()
        .await;
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(
        wrong.is_empty(),
        "{} of {} cases:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[tokio::test]
async fn destinations_are_accepted_and_refused_as_they_should() {
    let base = json!({"events": ["*"], "webhook": {"url": "https://hooks.example.com/in"}});
    let cases = [DESTINATIONS, POLICY, SIGNING].concat();
    check("EventDestination", "eventdestinations", base, &cases).await;
}

#[tokio::test]
async fn requests_are_accepted_and_refused_as_they_should() {
    let base = json!({"events": ["*"], "webhook": {"url": "https://hooks.example.com/in"}});
    check("EventDestination", "eventdestinations", base, REQUESTS).await;
}

#[tokio::test]
async fn projects_are_accepted_and_refused_as_they_should() {
    check("EventProject", "eventprojects", json!({}), PROJECT).await;
}

#[tokio::test]
async fn a_project_may_leave_out_its_spec_and_a_destination_may_not() {
    let namespace = TempNamespace::new(Cluster::shared(), "specless").await;
    let client = namespace.client();
    let send = async |kind: &str, plural: &str, name: &str, more: Value| {
        let path = format!(
            "/apis/postrider.dev/v1alpha1/namespaces/{}/{plural}",
            namespace.name()
        );
        let mut object =
            json!({"apiVersion": "postrider.dev/v1alpha1", "kind": kind, "metadata": {"name": name}});
        merge(&mut object, &more);
        send(&client, "POST", format!("{path}?fieldValidation=Strict"), &object).await
    };
    for (name, more) in [("left-out", json!({})), ("empty", json!({"spec": {}}))] {
        let made = send("EventProject", "eventprojects", name, more).await.unwrap();
        assert_eq!(made["spec"], json!({}), "{name}");
    }
    let refused = send("EventDestination", "eventdestinations", "left-out", json!({})).await;
    assert!(refused.unwrap_err().contains("spec: Required value"));
}

#[tokio::test]
async fn a_destination_cannot_name_itself_for_its_dead_letters() {
    let namespace = TempNamespace::new(Cluster::shared(), "dead-letters").await;
    let client = namespace.client();
    let uri = format!(
        "/apis/postrider.dev/v1alpha1/namespaces/{}/eventdestinations?dryRun=All",
        namespace.name()
    );
    for (target, fits) in [("other", true), ("hook", false)] {
        let object = json!({
            "apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination", "metadata": {"name": "hook"},
            "spec": {
                "events": ["*"], "webhook": {"url": "https://hooks.example.com/in"},
                "delivery": {"deadLetter": {"name": target}},
            },
        });
        let answer = send(&client, "POST", uri.clone(), &object).await;
        assert_eq!(answer.is_ok(), fits, "{answer:?}");
        assert!(
            fits || answer
                .unwrap_err()
                .contains("deadLetter must name another destination")
        );
    }
}

#[tokio::test]
async fn names_leave_room_for_what_is_added_to_them() {
    let namespace = TempNamespace::new(Cluster::shared(), "names").await;
    let client = namespace.client();
    let destination = json!({"events": ["*"], "webhook": {"url": "https://hooks.example.com/in"}});
    for (kind, plural, spec, longest) in [
        ("EventDestination", "eventdestinations", destination, 245),
        ("EventProject", "eventprojects", json!({}), 239),
    ] {
        for (length, fits) in [(longest, true), (longest + 1, false)] {
            let uri = format!(
                "/apis/postrider.dev/v1alpha1/namespaces/{}/{plural}?dryRun=All",
                namespace.name()
            );
            let object = json!({
                "apiVersion": "postrider.dev/v1alpha1", "kind": kind,
                "metadata": {"name": "a".repeat(length)}, "spec": spec,
            });
            let answer = send(&client, "POST", uri, &object).await;
            assert_eq!(answer.is_ok(), fits, "{answer:?}");
            let wanted = format!("the name may have at most {longest} characters");
            assert!(fits || answer.unwrap_err().contains(&wanted), "{wanted}");
        }
    }
}
