//! Methods and forms of requests, read by libraries that are not ours.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value, json};

use crate::support::{Program, Received, Stage, Verifier};

/// A request as the CNCF's SDK reads it.
fn read_by_sdk(request: &Received) -> Value {
    let headers: Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), Value::from(value.to_str().unwrap_or_default())))
        .collect();
    let settings = json!({"headers": headers, "body_base64": BASE64_STANDARD.encode(&request.body)});
    Program::node("cloudevents.mjs", &settings).facts.clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_event_is_read_by_its_sdk_in_both_modes() {
    let stage = Stage::set("requests").await;
    let format = json!({"format": "CloudEvent"});
    for (name, more) in [
        ("structured", json!({"payload": format})),
        (
            "binary",
            json!({"payload": format, "cloudEvents": "Binary", "method": "PUT"}),
        ),
    ] {
        stage.destination(name, &format!("/{name}"), &json!({"webhook": more}));
    }
    let message = "Euro € \"100%\" 😀";
    let event =
        json!({"type": "order.placed", "message": message, "user": {"id": "u-1"}, "data": {"total": 1.50}});
    let (status, answer) = stage.publish_raw(&event).await;
    assert_eq!(status, 202, "{answer}");
    let structured = stage.receiver.wait_for("/structured", 1).await.remove(0);
    let binary = stage.receiver.wait_for("/binary", 1).await.remove(0);
    assert_eq!(
        (structured.method.as_str(), binary.method.as_str()),
        ("POST", "PUT")
    );
    assert_eq!(binary.header("content-type"), "application/json");
    assert_eq!(
        binary.header("ce-message"),
        "Euro%20%E2%82%AC%20%22100%25%22%20%F0%9F%98%80"
    );
    assert_eq!(binary.json(), json!({"total": 1.5}));
    let (structured, binary) = (read_by_sdk(&structured), read_by_sdk(&binary));
    assert_eq!(
        (&structured["mode"], &binary["mode"]),
        (&json!("structured"), &json!("binary")),
        "{structured} {binary}"
    );
    for attribute in [
        "id",
        "source",
        "type",
        "subject",
        "specversion",
        "data",
        "projectname",
    ] {
        assert_eq!(
            structured["event"][attribute], binary["event"][attribute],
            "{attribute}"
        );
    }
    assert_eq!(binary["event"]["type"], "order.placed");
    assert_eq!(binary["event"]["data"], json!({"total": 1.5}));
}

#[tokio::test(flavor = "multi_thread")]
async fn method_and_form_are_as_asked_and_the_signature_covers_what_is_sent() {
    let stage = Stage::set("requests").await;
    let template =
        json!({"id": "{{ $.event.id }}", "total": "{{ $.event.data.total }}", "tags": ["a b", "c&d"]});
    for (name, more) in [
        (
            "form",
            json!({"method": "PATCH", "contentType": "application/x-www-form-urlencoded",
                "payload": {"template": template}}),
        ),
        (
            "text",
            json!({"contentType": "text/plain", "payload": {"template": "total {{ $.event.data.total }}"}}),
        ),
        (
            "labelled",
            json!({"contentType": "application/json", "payload": {"format": "CloudEvent"}}),
        ),
    ] {
        stage.destination(name, &format!("/{name}"), &json!({"webhook": more}));
    }
    let id = stage.publish("x", &json!({"total": 7})).await;
    let form = stage.receiver.wait_for("/form", 1).await.remove(0);
    assert_eq!(form.method, "PATCH");
    assert_eq!(form.header("content-type"), "application/x-www-form-urlencoded");
    let fields: Vec<(String, String)> = url::form_urlencoded::parse(&form.body).into_owned().collect();
    let expected = [
        ("id", id.as_str()),
        ("tags[0]", "a b"),
        ("tags[1]", "c&d"),
        ("total", "7"),
    ];
    assert_eq!(
        fields,
        expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    let secret = stage.secret("form-signing", "secret").await;
    assert_eq!(super::signing::verdict(&form, &secret), Ok(()));
    let text = stage.receiver.wait_for("/text", 1).await.remove(0);
    assert_eq!(text.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(text.body, "total 7");
    let labelled = stage.receiver.wait_for("/labelled", 1).await.remove(0);
    assert_eq!(labelled.header("content-type"), "application/json");
    assert_eq!(labelled.json()["specversion"], "1.0");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_are_compressed_and_the_signature_covers_the_compressed_bytes() {
    use std::io::Read as _;
    let stage = Stage::set("requests").await;
    stage.destination(
        "gzip",
        "/gzip",
        &json!({"webhook": {
            "compression": {"gzipAboveBytes": 2000},
            "signing": {"scheme": "HmacSHA256", "header": "X-Signature"},
        }}),
    );
    let secret = stage.secret("gzip-signing", "secret").await;
    for (text, encoding) in [("small".to_owned(), ""), ("large ".repeat(1000), "gzip")] {
        let before = stage.receiver.received("/gzip").len();
        stage.publish("x", &json!({"text": text})).await;
        let request = stage.receiver.wait_for("/gzip", before + 1).await.remove(before);
        assert_eq!(request.header("content-encoding"), encoding);
        assert_eq!(
            super::signing::raw_verdicts(&request, &secret),
            vec![Ok(()); Verifier::ALL.len()]
        );
        let mut body = Vec::new();
        if encoding.is_empty() {
            body.extend_from_slice(&request.body);
        } else {
            assert!(request.body.len() < text.len() / 4);
            flate2::read::GzDecoder::new(&request.body[..])
                .read_to_end(&mut body)
                .unwrap();
        }
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["data"]["text"], text);
    }
}
