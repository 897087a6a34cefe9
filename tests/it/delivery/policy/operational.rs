//! Operational events: one destination is told of another's health.

use serde_json::json;

use crate::support::{Manner, Stage, condition};

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_destination_is_told_to_another_that_asks_for_it() {
    let stage = Stage::set("operational").await;
    stage.receiver.answer("/slack", Manner::Status(410));
    stage.destination("slack", "/slack", &json!({"events": ["x"]}));
    stage.destination("owner", "/owner", &json!({"events": ["postrider.destination.*"]}));
    stage.destination("all", "/all", &json!({"events": ["*"]}));
    stage.publish("x", &json!({})).await;
    let request = stage.receiver.wait_for("/owner", 1).await.remove(0);
    assert_eq!(
        request.header("x-postrider-event-type"),
        "postrider.destination.disabled"
    );
    let body = request.json();
    assert_eq!(body["message"], "Destination slack was disabled: Gone");
    assert_eq!(
        (&body["data"]["reason"], &body["data"]["statusCode"]),
        (&json!("Gone"), &json!(410))
    );
    assert_eq!(body["project"]["name"], "Acme");

    // It works again after a person has enabled it.
    stage.receiver.answer("/slack", Manner::Status(200));
    let namespace = stage.namespace.name();
    let enable = ["annotate", "-n", namespace, "ed/slack", "postrider.dev/enable=1"];
    stage.cluster.kubectl(&enable).ok();
    let request = stage.receiver.wait_for("/owner", 2).await.remove(1);
    assert_eq!(request.json()["message"], "Destination slack works again");
    assert_eq!(
        stage.receiver.received("/all").len(),
        1,
        "`*` brings none of them"
    );
    let stored =
        "postrider_operational_events_total{type=\"postrider.destination.disabled\",outcome=\"stored\"}";
    assert!((stage.operator().metric(stored).await - 1.0).abs() < f64::EPSILON);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_publishes_or_declares_their_types() {
    let stage = Stage::set("operational").await;
    let (status, answer) = stage
        .publish_raw(&json!([{"type": "x"}, {"type": "postrider.destination.disabled"}]))
        .await;
    assert_eq!((status, &answer["indices"]), (400, &json!([1])), "{answer}");
    assert_eq!(answer["faults"][0]["reason"], "ReservedType");
    assert_eq!(answer["faults"][0]["pointer"], "/1/type");
    assert_eq!(condition(&stage.get("eproj", "acme"), "Ready")["status"], "True");
}
