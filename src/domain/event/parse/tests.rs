//! Events and batches as they are published, and what a publisher is told about a bad one.

use http::HeaderValue;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::domain::event::refusal::{MAX_LISTED, ParseClass};
use crate::domain::event::sample;
use crate::domain::id::EventId;

/// Faults of a canonical body as `(pointer, reason)`.
fn faults(body: &str) -> Vec<(String, FaultReason)> {
    match sample::drafts(body) {
        Ok(_) => Vec::new(),
        Err(ParseError::Invalid(faults)) => faults
            .listed()
            .iter()
            .map(|fault| (fault.pointer.to_string(), fault.reason))
            .collect(),
        Err(error) => panic!("{error}"),
    }
}

fn one(pointer: &str, reason: FaultReason) -> Vec<(String, FaultReason)> {
    vec![(pointer.to_owned(), reason)]
}

fn draft(body: &Value) -> Draft {
    sample::drafts(&body.to_string()).unwrap().remove(0)
}

fn details(body: &str) -> String {
    sample::drafts(body).unwrap_err().to_string()
}

#[test]
fn the_least_event_is_a_type() {
    let draft = draft(&json!({"type": "order.paid"}));
    assert_eq!(&*draft.content.event_type, "order.paid");
    assert_eq!(
        (draft.id, draft.timestamp, draft.content.timestamp),
        (None, None, 0)
    );
    assert_eq!(draft.content.data.get(), "{}");
}

#[test]
fn a_full_event_is_taken_over_member_by_member() {
    let draft = draft(&json!({
        "id": "evt-7", "type": "workflow_failure", "timestamp": "2024-10-22T22:40:42.607+02:00", "message": "m",
        "user": {"id": "u", "metadata": {"a": 1}}, "integration": {"id": "i", "type": "slack", "name": "Slack"},
        "workflow": {"id": "w", "name": "W"}, "sync": {"id": "s", "integration": "drive", "credentialId": "c"},
        "error": {"message": "no", "code": 7}, "data": {"x": [1]},
    }));
    let content = draft.content;
    assert_eq!(draft.id, EventId::parse("evt-7"));
    assert_eq!(content.timestamp, 1_729_629_642_607);
    assert_eq!(
        draft.timestamp.map(Timestamp::as_millisecond),
        Some(1_729_629_642_607)
    );
    assert_eq!(
        serde_json::to_value(content).unwrap(),
        json!({
            "type": "workflow_failure", "timestamp": 1_729_629_642_607_i64, "message": "m",
            "user": {"id": "u", "metadata": {"a": 1}},
            "integration": {"id": "i", "type": "slack", "name": "Slack"}, "workflow": {"id": "w", "name": "W"},
            "sync": {"id": "s", "integration": "drive", "credentialId": "c"},
            "error": {"message": "no", "code": 7}, "data": {"x": [1]},
        })
    );
}

#[test]
fn what_is_parsed_is_stored_and_read_back() {
    let draft = draft(&json!({"type": "t", "user": {"id": "u\"\n"}, "data": {"a": "é\u{1F600}"}}));
    let stored = draft.content.to_stored().unwrap();
    let read = Content::from_stored(&stored).unwrap();
    assert_eq!(read.to_stored().unwrap(), stored);
}

#[test]
fn null_stands_for_an_absent_optional_member() {
    let draft = draft(&json!({
        "type": "t", "id": null, "timestamp": null, "message": null, "user": null, "integration": {"id": null},
        "workflow": null, "sync": {"id": "s", "integration": null}, "error": null, "data": null,
    }));
    assert!(draft.id.is_none() && draft.content.user.is_none() && draft.content.error.is_none());
    assert_eq!(faults(r#"{"type":null}"#), one("/type", FaultReason::WrongType));
    assert_eq!(
        faults(r#"{"type":"t","user":{"id":null}}"#),
        one("/user/id", FaultReason::WrongType)
    );
}

#[test]
fn each_rule_names_its_place() {
    use FaultReason::{InvalidValue, MissingMember, TooLong, UnknownMember, WrongType};
    let long = "x".repeat(1025);
    for (members, pointer, reason) in [
        (r#""typo":1"#, "/typo", UnknownMember),
        (r#""a/b":1"#, "/a~1b", UnknownMember),
        (r#""cloudEvent":{}"#, "/cloudEvent", UnknownMember),
        (r#""id":"""#, "/id", InvalidValue),
        (r#""id":"a b""#, "/id", InvalidValue),
        (r#""id":"é""#, "/id", InvalidValue),
        (r#""id":7"#, "/id", WrongType),
        (r#""timestamp":"yesterday""#, "/timestamp", InvalidValue),
        (r#""timestamp":-1"#, "/timestamp", InvalidValue),
        (r#""timestamp":1.5"#, "/timestamp", InvalidValue),
        (r#""timestamp":1e12"#, "/timestamp", InvalidValue),
        (r#""timestamp":253402300800000"#, "/timestamp", InvalidValue),
        (r#""timestamp":99999999999999999999"#, "/timestamp", InvalidValue),
        (r#""timestamp":{}"#, "/timestamp", WrongType),
        (r#""message":7"#, "/message", WrongType),
        (r#""user":"u""#, "/user", WrongType),
        (r#""user":{}"#, "/user", MissingMember),
        (r#""user":{"id":""}"#, "/user/id", InvalidValue),
        (r#""user":{"id":7}"#, "/user/id", WrongType),
        (&format!(r#""user":{{"id":"{long}"}}"#), "/user/id", TooLong),
        (r#""user":{"id":"u","metadata":[]}"#, "/user/metadata", WrongType),
        (r#""user":{"id":"u","name":"n"}"#, "/user/name", UnknownMember),
        (
            r#""integration":{"kind":"n"}"#,
            "/integration/kind",
            UnknownMember,
        ),
        (r#""integration":{"type":""}"#, "/integration/type", InvalidValue),
        (r#""workflow":{"name":"n"}"#, "/workflow", MissingMember),
        (r#""sync":{"integration":"n"}"#, "/sync", MissingMember),
        (r#""sync":{"id":[]}"#, "/sync/id", WrongType),
        (r#""error":"broke""#, "/error", WrongType),
        (r#""error":{}"#, "/error", MissingMember),
        (r#""error":{"message":1}"#, "/error/message", WrongType),
        (r#""data":[]"#, "/data", WrongType),
        (r#""data":"x""#, "/data", WrongType),
        (
            r#""data":{"a":{"b":1,"b":2}}"#,
            "/data/a/b",
            FaultReason::DuplicateKey,
        ),
        (r#""data":{"a":"\u0000"}"#, "/data/a", FaultReason::NulCharacter),
    ] {
        assert_eq!(
            faults(&format!(r#"{{"type":"t",{members}}}"#)),
            one(pointer, reason),
            "{members}"
        );
    }
    assert_eq!(faults("{}"), one("", MissingMember));
    for event_type in ["", "a b", "é", "a/b", &"t".repeat(129)] {
        assert_eq!(
            faults(&json!({"type": event_type}).to_string()),
            one("/type", InvalidValue),
            "{event_type}"
        );
    }
    assert_eq!(faults(&json!({"type": "t".repeat(128)}).to_string()), []);
}

#[test]
fn an_unknown_member_is_answered_with_the_known_ones() {
    let detail = details(r#"{"type":"t","usr":{}}"#);
    assert_eq!(
        detail,
        "/usr: an event has no member `usr`; known are id, type, timestamp, message, user, integration, workflow, \
         sync, error, data; what is specific to the type goes into data"
    );
}

#[test]
fn a_member_of_data_cannot_overwrite_a_flat_field() {
    assert_eq!(
        faults(r#"{"type":"tenant_created","data":{"tenant_id":1,"timestamp":2,"account_id":3}}"#),
        [
            ("/data/timestamp".to_owned(), FaultReason::OverwritesField),
            ("/data/account_id".to_owned(), FaultReason::OverwritesField)
        ]
    );
    assert_eq!(
        faults(r#"{"type":"workflow_failure","data":{"timestamp":2}}"#),
        []
    );
    assert!(details(r#"{"type":"run_failed","data":{"event_type":2}}"#).contains("`event_type`"));
}

#[test]
fn every_bad_event_of_a_batch_is_reported() {
    let mut events: Vec<Value> = (0..40).map(|_| json!({"type": "t"})).collect();
    events[3] = json!({"type": "no good", "id": ""});
    events[7] = json!(7);
    events[30] = json!({"typ": "t"});
    let text = Value::from(events).to_string().replacen(
        r#"{"type":"t"}"#,
        r#"{"type":"t","data":{"a":1,"a":2}}"#,
        1,
    );
    let Err(ParseError::Invalid(faults)) = sample::drafts(&text) else {
        panic!()
    };
    assert_eq!(faults.indices(), [0, 3, 7, 30]);
    let listed: Vec<_> = faults
        .listed()
        .iter()
        .map(|fault| (fault.index, fault.pointer.as_str()))
        .collect();
    assert_eq!(
        listed,
        [
            (Some(0), "/0/data/a"),
            (Some(3), "/3/type"),
            (Some(3), "/3/id"),
            (Some(7), "/7"),
            (Some(30), "/30/typ"),
            (Some(30), "/30"),
        ]
    );
}

#[test]
fn many_faults_are_counted_and_some_listed() {
    let text = format!("[{}]", vec![r#"{"x":1}"#; 1000].join(","));
    let Err(ParseError::Invalid(faults)) = sample::drafts(&text) else {
        panic!()
    };
    assert_eq!(
        (faults.total(), faults.listed().len(), faults.indices().len()),
        (2000, MAX_LISTED, 1000)
    );
    assert!(faults.to_string().ends_with("; and 1984 more"));
}

#[test]
fn a_batch_keeps_its_order() {
    let drafts = sample::drafts(r#" [ {"type":"a"} , {"type":"b","id":"2"} ] "#).unwrap();
    let types: Vec<_> = drafts.iter().map(|draft| &*draft.content.event_type).collect();
    assert_eq!(types, ["a", "b"]);
}

#[test]
fn bodies_without_an_acceptable_event_say_so() {
    use FaultReason::{Empty, Malformed, NulCharacter, TooManyEvents, WrongType};
    let many = format!("[{}]", vec![r#"{"type":"t"}"#; 1001].join(","));
    for (body, pointer, reason) in [
        ("", "", Empty),
        (" \n", "", Empty),
        ("[]", "", Empty),
        ("7", "", WrongType),
        ("null", "", WrongType),
        ("\"{}\"", "", WrongType),
        ("[[]]", "/0", WrongType),
        ("{", "", Malformed),
        (r#"{"type":"t"}}"#, "", Malformed),
        (r#"{"type":"t",}"#, "", Malformed),
        (r#"[{"type":"t"},{"type":}]"#, "/1", Malformed),
        (r"{'type':'t'}", "", Malformed),
        ("{\"type\":\"t\"}\0", "", NulCharacter),
        ("{\"type\":\"t\0\"}", "", NulCharacter),
        ("\u{feff}{}", "", Malformed),
        (&many, "", TooManyEvents),
    ] {
        assert_eq!(
            faults(body),
            one(pointer, reason),
            "{}",
            body.get(..40).unwrap_or(body)
        );
    }
    assert_eq!(
        sample::drafts(&many.replacen(r#"{"type":"t"},"#, "", 1)).map(|drafts| drafts.len()),
        Ok(1000)
    );
    let message = details("{\"type\":\"t\",\n  oops}");
    assert_eq!(
        message,
        "request: expected a member name in double quotes, at line 2 column 3"
    );
    let error = parse(b"{\"type\":\"\xff\"}", &sample::headers("application/json")).unwrap_err();
    assert_eq!(error.to_string(), "request: the body is not UTF-8 from byte 9 on");
}

#[test]
fn the_content_type_decides_the_mode() {
    let body = br#"{"type":"t"}"#;
    for accepted in [
        "application/json",
        "Application/JSON; charset=UTF-8",
        "application/json;charset=\"utf-8\";v=1",
    ] {
        assert!(parse(body, &sample::headers(accepted)).is_ok(), "{accepted}");
    }
    assert!(parse(body, &HeaderMap::new()).is_ok(), "no content type is JSON");
    for refused in [
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "application/json; charset=latin1",
        "application/cloudevents+avro",
        "application/vnd.acme+json",
        "",
        "multipart/form-data",
    ] {
        let error = parse(body, &sample::headers(refused)).unwrap_err();
        assert_eq!(error.class(), ParseClass::UnsupportedMediaType, "{refused}");
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_bytes(b"\xff").unwrap());
    assert_eq!(
        parse(body, &headers).unwrap_err().class(),
        ParseClass::UnsupportedMediaType
    );
}

#[test]
fn messages_stay_short_whatever_was_sent() {
    let name = "n".repeat(500_000);
    for body in [
        json!({"type": "t", &name: 1}).to_string(),
        json!({"type": "t", "data": {&name: {"a": "A"}}})
            .to_string()
            .replace('A', "\\u0000"),
        json!({"type": "t", "user": {"id": "u", &name: 1}}).to_string(),
        json!({"type": name}).to_string(),
    ] {
        assert!(details(&body).len() < 1200, "{}", details(&body).len());
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..64), binary in any::<bool>()) {
        let mut headers = sample::headers("application/json");
        if binary {
            headers.insert("ce-id", HeaderValue::from_static("1"));
        }
        let _ = parse(&body, &headers);
    }

    #[test]
    fn no_members_panic(
        name in prop::sample::select(MEMBERS.to_vec()),
        value in prop_oneof![Just("{}"), Just("[]"), Just("1"), Just("\"\""), Just("null"), Just("{\"id\":1}"), Just("{\"message\":[]}")],
    ) {
        let _ = sample::drafts(&format!("{{\"type\":\"t\",\"{name}\":{value}}}"));
    }

    #[test]
    fn any_data_travels_unchanged(text in any::<String>().prop_filter("no NUL", |text| !text.contains('\0'))) {
        let data = json!({"k": text}).to_string();
        let drafts = sample::drafts(&format!("{{\"type\":\"t\",\"data\":{data}}}")).unwrap();
        prop_assert_eq!(drafts[0].content.data.get(), data);
    }
}

#[test]
fn a_cloud_event_sent_as_plain_json_is_told_how_to_be_sent() {
    let body = r#"{"specversion": "1.0", "type": "x", "source": "/s", "id": "1"}"#;
    let error = sample::drafts(body).unwrap_err().to_string();
    assert!(error.contains("application/cloudevents+json"), "{error}");
}
