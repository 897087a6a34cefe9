//! Event types, their schemas, and filters, with the real binary.

use std::path::Path;

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::support::{Cluster, Operator, Stage, TempNamespace, condition, repository_file};

fn project(spec: &Value) -> Value {
    json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventProject", "metadata": {"name": "acme"}, "spec": spec,
    })
}

/// Applies the stage's project anew and waits until a generation is looked at.
async fn reconfigure(stage: &Stage, spec: &Value) -> Value {
    stage.apply(&project(spec));
    let generation = stage.get("eproj", "acme")["metadata"]["generation"].clone();
    stage
        .until("eproj", "acme", "the generation is looked at", |object| {
            object["status"]["observedGeneration"] == generation
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_breaks_its_schema_is_warned_about_refused_or_let_be() {
    let stage = Stage::set("catalogue").await;
    stage.destination("hook", "/hook", &json!({}));
    let types = json!([{
        "name": "invoice.paid",
        "schema": {"required": ["total"], "properties": {"total": {"type": "number", "default": 0}}},
        "example": {"total": 1},
    }]);
    let good = json!({"type": "invoice.paid", "data": {"total": 5}});
    let bad = json!([good, {"type": "invoice.paid", "data": {"total": "hunter2"}}, {"type": "run_failed"}]);

    let object = reconfigure(&stage, &json!({"eventTypes": types})).await;
    assert_eq!(condition(&object, "Ready")["status"], "True");
    let (status, answer) = stage.publish_raw(&bad).await;
    assert_eq!(status, 202, "{answer}");
    assert_eq!(
        answer["warnings"][0],
        json!({
            "index": 1, "pointer": "/1/data/total", "reason": "BreaksSchema",
            "detail": "value is not of type \"number\"",
        })
    );
    assert_eq!(
        answer["warnings"][1]["pointer"], "/2/data",
        "built-in types count, too"
    );
    assert!(answer["warningCount"].as_u64().unwrap() > 1 && !answer.to_string().contains("hunter2"));
    let (status, answer) = stage.publish_raw(&good).await;
    assert_eq!((status, &answer["warnings"]), (202, &Value::Null));
    let count = |outcome: &'static str| {
        let line = format!("postrider_ingest_schema_violations_total{{outcome=\"{outcome}\"}}");
        let stage = &stage;
        async move { stage.operator().metric(&line).await }
    };
    assert!((count("accepted").await - 2.0).abs() < f64::EPSILON);

    reconfigure(&stage, &json!({"eventTypes": types, "validation": "Enforce"})).await;
    let (status, answer) = stage.publish_raw(&bad).await;
    assert_eq!((status, &answer["indices"]), (400, &json!([1, 2])), "{answer}");
    assert_eq!(answer["faults"][0]["pointer"], "/1/data/total");
    assert_eq!(answer["faults"][0]["reason"], "BreaksSchema");
    assert!((count("refused").await - 2.0).abs() < f64::EPSILON);
    assert_eq!(stage.publish_raw(&good).await.0, 202);

    reconfigure(&stage, &json!({"eventTypes": types, "validation": "Off"})).await;
    let (status, answer) = stage.publish_raw(&bad).await;
    assert_eq!((status, &answer["warnings"]), (202, &Value::Null), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_faulty_type_stalls_the_project_and_costs_no_event() {
    let stage = Stage::set("catalogue").await;
    let types = |schema: Value| {
        json!({"validation": "Enforce", "eventTypes": [
            {"name": "good", "schema": {"required": ["n"]}},
            {"name": "bad", "schema": schema, "example": {"m": "x"}},
        ]})
    };
    let object = reconfigure(&stage, &types(json!({"$ref": "https://example.com/schema.json"}))).await;
    assert_eq!(condition(&object, "Ready")["status"], "False");
    let stalled = condition(&object, "Stalled");
    assert_eq!(stalled["reason"], "InvalidSpec");
    let message = stalled["message"].as_str().unwrap();
    assert!(
        message.starts_with(
            "spec.eventTypes[1].schema[\"$ref\"]: https://example.com/schema.json leads out of the schema"
        ),
        "{message}"
    );
    let events = |event_type: &str| json!({"type": event_type, "data": {}});
    assert_eq!(stage.publish_raw(&events("bad")).await.0, 202);
    assert_eq!(stage.publish_raw(&events("good")).await.0, 400);

    let object = reconfigure(&stage, &types(json!({"properties": {"m": {"type": "integer"}}}))).await;
    let message = condition(&object, "Stalled")["message"].as_str().unwrap();
    assert!(
        message.starts_with("spec.eventTypes[1].example.m: the example breaks its schema"),
        "{message}"
    );

    let object = reconfigure(&stage, &types(json!({"required": ["m"]}))).await;
    assert_eq!(condition(&object, "Ready")["status"], "True");
    assert_eq!(condition(&object, "Stalled"), &Value::Null);
    assert_eq!(stage.publish_raw(&events("bad")).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_decides_what_is_sent() {
    let stage = Stage::set("catalogue").await;
    stage.destination(
        "large",
        "/large",
        &json!({"filter": "event.data.total > 100 && project.name == 'Acme'"}),
    );
    stage.destination(
        "listed",
        "/listed",
        &json!({"filter": "event.data.tags.exists(tag, tag == 'eu')"}),
    );
    let (_, answer) = stage
        .publish_raw(&json!([
            {"id": "1", "type": "x", "data": {"total": 500, "tags": ["eu"]}},
            {"id": "2", "type": "x", "data": {"total": 5, "tags": ["us"]}},
            {"id": "3", "type": "x", "data": {"total": 500}},
            {"id": "4", "type": "x", "data": {"total": 5, "tags": ["eu"]}},
        ]))
        .await;
    let deliveries: Vec<_> = (0..4)
        .map(|index| answer["events"][index]["deliveries"].clone())
        .collect();
    assert_eq!(deliveries, [2, 0, 1, 1], "{answer}");
    let ids = |path: &'static str| {
        let requests = stage.receiver.wait_for(path, 2);
        async move {
            let requests = requests.await;
            let mut ids: Vec<_> = requests
                .iter()
                .map(|request| request.header("webhook-id").to_owned())
                .collect();
            ids.sort();
            ids
        }
    };
    assert_eq!(ids("/large").await, ["1", "3"]);
    assert_eq!(ids("/listed").await, ["1", "4"]);
    for (reason, count) in [("False", 3.0), ("MissingKey", 1.0)] {
        let line = format!("postrider_events_filtered_total{{reason=\"{reason}\"}}");
        let found = stage.operator().metric(&line).await;
        assert!((found - count).abs() < f64::EPSILON, "{reason}: {found}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_a_filter_was_faulty_is_decided_by_the_mended_one() {
    let stage = Stage::set("catalogue").await;
    stage.apply_destination("hook", "/hook", &json!({"filter": "evnt.data.keep"}));
    let object = stage
        .until("ed", "hook", "the fault shows", |ed| {
            condition(ed, "Stalled")["status"] == "True"
        })
        .await;
    assert_eq!(
        condition(&object, "Stalled")["message"],
        "spec.filter: at line 1 column 1: there is no variable \"evnt\"; there are event, project, user"
    );
    for keep in [false, true, false] {
        stage.publish("x", &json!({"keep": keep})).await;
    }
    stage.destination("hook", "/hook", &json!({"filter": "event.data.keep"}));
    let is_done =
        |ed: &Value| ed["status"]["delivery"]["delivered"] == 1 && ed["status"]["delivery"]["pending"] == 0;
    stage.until("ed", "hook", "all are decided", is_done).await;
    let requests = stage.receiver.received("/hook");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].json()["data"], json!({"keep": true}));
    let dropped = "postrider_deliveries_total{outcome=\"dropped\",reason=\"Filtered\"}";
    assert!((stage.operator().metric(dropped).await - 2.0).abs() < f64::EPSILON);
}

/// Applies an example, publishes one of its files, and returns the answer.
async fn publish_example(name: &str, files: &[&str]) -> Vec<(u16, Value)> {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, &format!("catalogue-{name}")).await;
    let operator = Operator::start(cluster, namespace.name()).await;
    let folder = repository_file(&format!("examples/{name}"));
    let read = |file: &str| std::fs::read_to_string(Path::new(&folder).join(file)).unwrap();
    let manifests = format!("{}\n---\n{}", read("project.yaml"), read("destination.yaml"));
    cluster
        .kubectl_with(&["apply", "-n", namespace.name()], &manifests)
        .ok();
    for kind in ["eventprojects", "eventdestinations"] {
        let wait = [
            "wait",
            "--for=condition=Ready",
            "--all",
            "--timeout=30s",
            "-n",
            namespace.name(),
            kind,
        ];
        cluster.kubectl(&wait).ok();
    }
    let secret = namespace
        .api::<Secret>()
        .get(&format!("{name}-publish-token"))
        .await
        .unwrap();
    let token = String::from_utf8(secret.data.unwrap()["token"].0.clone()).unwrap();
    let mut answers = Vec::new();
    for file in files {
        let body = serde_json::from_str(&read(file)).unwrap();
        answers.push(operator.publish(name, &token, &body).await);
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_event_types_refuses_what_its_readme_says() {
    let answers = publish_example("event-types", &["good.json", "bad.json"]).await;
    let (status, answer) = &answers[0];
    assert_eq!(
        (*status, &answer["events"][0]["deliveries"]),
        (202, &json!(1)),
        "{answer}"
    );
    let (status, answer) = &answers[1];
    assert_eq!((*status, &answer["indices"]), (400, &json!([1])), "{answer}");
    let mut pointers: Vec<_> = answer["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| fault["pointer"].clone())
        .collect();
    pointers.sort_by_key(ToString::to_string);
    assert_eq!(pointers, ["/1/data/lines/0", "/1/data/number", "/1/data/total"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_a_filter_sends_what_its_readme_says() {
    let answers = publish_example("filter", &["events.json"]).await;
    let (status, answer) = &answers[0];
    assert_eq!(*status, 202, "{answer}");
    let deliveries: Vec<_> = (0..5)
        .map(|index| answer["events"][index]["deliveries"].clone())
        .collect();
    assert_eq!(deliveries, [1, 0, 0, 0, 0], "{answer}");
}
