//! CloudEvents, structured, binary and in batches, and where each fault of one is found.

use http::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::domain::event::parse::parse;
use crate::domain::event::refusal::ParseError;
use crate::domain::event::sample;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCH: &str = "application/cloudevents-batch+json";

fn event() -> Value {
    json!({"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.paid", "data": {"a": 1}})
}

fn with(name: &str, value: Value) -> Value {
    let mut event = event();
    event[name] = value;
    event
}

fn read(content_type: &'static str, body: &Value) -> Result<Vec<Draft>, ParseError> {
    parse(body.to_string().as_bytes(), &sample::headers(content_type))
}

fn faults(result: Result<Vec<Draft>, ParseError>) -> Vec<(String, FaultReason)> {
    match result {
        Ok(_) => Vec::new(),
        Err(ParseError::Invalid(faults)) => faults
            .listed()
            .iter()
            .map(|fault| (fault.pointer.to_string(), fault.reason))
            .collect(),
        Err(error) => panic!("{error}"),
    }
}

fn binary(headers: &[(&'static str, &str)], body: &str) -> Result<Vec<Draft>, ParseError> {
    let mut map = sample::headers("application/json");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "e-1"),
        ("ce-source", "/shop"),
        ("ce-type", "order.paid"),
    ] {
        map.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        map.insert(HeaderName::from_static(name), value);
    }
    parse(body.as_bytes(), &map)
}

fn kept(draft: &Draft) -> Value {
    serde_json::from_str(draft.content.cloud_event.as_ref().unwrap().get()).unwrap()
}

#[test]
fn a_structured_event_maps_to_the_canonical_one() {
    let mut body = with("time", json!("2024-10-22T20:40:42.607Z"));
    body["subject"] = json!("order-1");
    body["traceparent"] = json!("00-1");
    body["sequence"] = json!(7);
    let draft = read(STRUCTURED, &body).unwrap().remove(0);
    assert_eq!(draft.id, EventId::parse("e-1"));
    assert_eq!(&*draft.content.event_type, "order.paid");
    assert_eq!(draft.content.timestamp, 1_729_629_642_607);
    assert_eq!(draft.content.data.get(), r#"{"a":1}"#);
    assert_eq!(
        kept(&draft),
        json!({"source": "/shop", "subject": "order-1", "traceparent": "00-1", "sequence": 7})
    );
    assert!(draft.content.user.is_none(), "a subject is no user");
}

#[test]
fn data_that_is_no_object_is_wrapped() {
    for (data, expected) in [
        (json!("text"), json!({"value": "text"})),
        (json!([1]), json!({"value": [1]})),
        (json!(1.5), json!({"value": 1.5})),
        (json!(null), json!({})),
    ] {
        let draft = read(STRUCTURED, &with("data", data)).unwrap().remove(0);
        assert_eq!(
            serde_json::from_str::<Value>(draft.content.data.get()).unwrap(),
            expected
        );
    }
    let mut body = with("data_base64", json!("AAEC"));
    body.as_object_mut().unwrap().remove("data");
    let draft = read(STRUCTURED, &body).unwrap().remove(0);
    assert_eq!(draft.content.data.get(), r#"{"data_base64":"AAEC"}"#);
    body["data_base64"] = json!("not base64");
    assert_eq!(
        faults(read(STRUCTURED, &body)),
        [("/data_base64".to_owned(), FaultReason::InvalidValue)]
    );
    body["data_base64"] = json!("AAEC");
    body["data"] = json!({});
    assert_eq!(
        faults(read(STRUCTURED, &body)),
        [("/data_base64".to_owned(), FaultReason::InvalidValue)]
    );
}

#[test]
fn each_rule_of_an_attribute_names_its_place() {
    use FaultReason::{InvalidValue, TooLong, UnknownMember, WrongType};
    for (name, value, reason) in [
        ("specversion", json!("0.3"), InvalidValue),
        ("specversion", json!(1.0), InvalidValue),
        ("id", json!(""), InvalidValue),
        ("id", json!(7), WrongType),
        ("type", json!("com/acme"), InvalidValue),
        ("source", json!(""), InvalidValue),
        ("source", json!(7), WrongType),
        ("time", json!("now"), InvalidValue),
        ("time", json!(1_729_629_642_607_i64), WrongType),
        ("subject", json!(["a"]), WrongType),
        ("Extension", json!("a"), UnknownMember),
        ("my_extension", json!("a"), UnknownMember),
        ("ext", json!({"a": 1}), WrongType),
        ("ext", json!(1.5), InvalidValue),
        ("ext", json!(2_147_483_648_i64), InvalidValue),
        ("ext", json!("a".repeat(5000)), TooLong),
    ] {
        assert_eq!(
            faults(read(STRUCTURED, &with(name, value.clone()))),
            [(format!("/{name}"), reason)],
            "{name} {value}"
        );
    }
    assert_eq!(faults(read(STRUCTURED, &with("ext", json!(null)))), []);
    for name in ["specversion", "id", "source", "type"] {
        let mut body = event();
        body.as_object_mut().unwrap().remove(name);
        let error = read(STRUCTURED, &body).unwrap_err();
        assert_eq!(error.to_string(), format!("request: a CloudEvent needs {name}"));
    }
}

#[test]
fn a_batch_is_an_array_and_a_structured_event_is_not() {
    assert_eq!(
        read(BATCH, &json!([event(), event()])).map(|drafts| drafts.len()),
        Ok(2)
    );
    assert_eq!(
        faults(read(BATCH, &event())),
        [(String::new(), FaultReason::WrongType)]
    );
    assert_eq!(
        faults(read(BATCH, &json!([]))),
        [(String::new(), FaultReason::Empty)]
    );
    assert_eq!(
        faults(read(STRUCTURED, &json!([event()]))),
        [(String::new(), FaultReason::WrongType)]
    );
    let bad = read(BATCH, &json!([event(), with("id", json!("")), {}]));
    let Err(ParseError::Invalid(faults)) = bad else {
        panic!()
    };
    assert_eq!(faults.indices(), [1, 2]);
}

#[test]
fn binary_mode_reads_headers_and_body() {
    let draft = binary(
        &[("ce-time", "2024-10-22T20:40:42.607Z"), ("ce-tenant", "acme")],
        r#"{"a": 1}"#,
    );
    let draft = draft.unwrap().remove(0);
    assert_eq!(draft.content.timestamp, 1_729_629_642_607);
    assert_eq!(draft.content.data.get(), r#"{"a": 1}"#);
    assert_eq!(kept(&draft), json!({"source": "/shop", "tenant": "acme"}));
    assert_eq!(binary(&[], "").unwrap().remove(0).content.data.get(), "{}");
    assert_eq!(
        binary(&[], "[1]").unwrap().remove(0).content.data.get(),
        r#"{"value":[1]}"#
    );
    assert!(
        binary(
            &[("content-type", "application/vnd.acme+json; charset=utf-8")],
            "{}"
        )
        .is_ok()
    );
    for refused in [
        "text/plain",
        "application/octet-stream",
        "application/cloudevents+xml",
    ] {
        let error = binary(&[("content-type", refused)], "{}").unwrap_err();
        assert!(matches!(error, ParseError::UnsupportedMediaType(_)), "{refused}");
    }
}

#[test]
fn header_values_are_percent_decoded() {
    // The example of the HTTP binding §3.1.3.2.
    let draft = binary(&[("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80")], "{}")
        .unwrap()
        .remove(0);
    assert_eq!(kept(&draft)["subject"], "Euro € 😀");
    let draft = binary(&[("ce-subject", "\"quoted \\\"text\\\" %22\"")], "{}")
        .unwrap()
        .remove(0);
    assert_eq!(kept(&draft)["subject"], "quoted \"text\" \"");
    let draft = binary(&[("ce-subject", "a\"b")], "{}").unwrap().remove(0);
    assert_eq!(kept(&draft)["subject"], "a\"b");
    for bad in ["%", "%2", "%zz", "%ff", "a%00b"] {
        let error = binary(&[("ce-subject", bad)], "{}").unwrap_err();
        assert!(
            error.to_string().starts_with("request: header ce-subject"),
            "{bad}: {error}"
        );
    }
}

#[test]
fn faults_of_headers_and_body_come_together() {
    let error = binary(
        &[("ce-id", "%20"), ("ce-my_ext", "a"), ("ce-specversion", "2.0")],
        r#"{"a":1,"a":2}"#,
    );
    let Err(ParseError::Invalid(faults)) = error else {
        panic!()
    };
    assert_eq!(faults.total(), 4, "{faults}");
    let error = binary(&[], "{").unwrap_err();
    assert!(error.to_string().contains("line 1 column 2"), "{error}");
}

#[test]
fn a_header_that_is_set_twice_is_refused() {
    let mut headers = sample::headers("application/json");
    headers.append("ce-id", HeaderValue::from_static("a"));
    headers.append("ce-id", HeaderValue::from_static("b"));
    let error = parse(b"{}", &headers).unwrap_err();
    assert!(
        error.to_string().contains("header ce-id is set more than once"),
        "{error}"
    );
    assert!(
        error.to_string().contains("a CloudEvent needs header ce-type"),
        "{error}"
    );
}

#[test]
fn structured_mode_wins_over_ce_headers() {
    let mut headers = sample::headers(STRUCTURED);
    headers.insert("ce-id", HeaderValue::from_static("other"));
    let draft = parse(event().to_string().as_bytes(), &headers).unwrap().remove(0);
    assert_eq!(draft.id, EventId::parse("e-1"));
}

#[test]
fn a_subject_becomes_the_user_when_it_is_to_and_stays_an_attribute() {
    let read_one = |subject: Value| {
        let mut drafts = read(STRUCTURED, &with("subject", subject)).unwrap();
        let mut draft = drafts.remove(0);
        assert!(draft.content.user.is_none());
        subject_as_user(&mut draft);
        draft.content
    };
    let content = read_one(json!("us\u{fc}-\"1\""));
    assert_eq!(content.user.unwrap().id, "us\u{fc}-\"1\"");
    let attributes: Value = serde_json::from_str(content.cloud_event.unwrap().get()).unwrap();
    assert_eq!(attributes["subject"], "us\u{fc}-\"1\"");
    assert!(read_one(json!("x".repeat(MAX_NAME + 1))).user.is_none());
    let mut drafts = read(STRUCTURED, &event()).unwrap();
    subject_as_user(&mut drafts[0]);
    assert!(drafts[0].content.user.is_none());
}
