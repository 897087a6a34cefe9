//! What good clients, and those that only err, are answered.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::{Answer, EVENTS, Server, TOKEN, head, only, settings};

#[tokio::test]
async fn events_are_answered_in_their_order_with_ids_and_duplicates() {
    let server = Server::start(settings()).await;
    let answer = server.publish(r#"{"id":"a\"b\\c","type":"x"}"#).await;
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (202, Some("application/json"))
    );
    assert_eq!(
        answer.json(),
        json!({"events": [{"id": "a\"b\\c", "duplicate": false, "deliveries": 1}]})
    );
    let answer = server
        .publish(r#"[{"id":"1","type":"x"},{"id":"a\"b\\c","type":"x"},{"type":"x"}]"#)
        .await;
    let expected = json!({"events": [
        {"id": "1", "duplicate": false, "deliveries": 1},
        {"id": "a\"b\\c", "duplicate": true, "deliveries": 0},
        {"id": "made-2", "duplicate": false, "deliveries": 1},
    ]});
    assert_eq!(answer.json(), expected);
    assert_eq!(
        server.metric(r#"postrider_ingest_events_total{outcome="accepted"}"#),
        3
    );
    assert_eq!(
        server.metric(r#"postrider_ingest_events_total{outcome="duplicate"}"#),
        1
    );
    assert_eq!(
        server.metric(r#"postrider_ingest_requests_total{status="202"}"#),
        2
    );
    assert_eq!(server.metric("postrider_ingest_duration_seconds_count"), 2);
    assert_eq!(
        server.metric("postrider_ingest_body_bytes"),
        0,
        "what was held is given back"
    );
}

#[tokio::test]
async fn cloud_events_come_in_all_three_modes() {
    let server = Server::start(settings()).await;
    let bearer = format!("Bearer {TOKEN}");
    let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"x","data":{"n":1}}"#;
    let batch = format!("[{}]", event.replace("\"1\"", "\"2\""));
    let modes = [
        (vec![("content-type", "application/cloudevents+json")], event, "1"),
        (
            vec![(
                "content-type",
                "application/cloudevents-batch+json; charset=utf-8",
            )],
            &*batch,
            "2",
        ),
        (
            vec![
                ("ce-specversion", "1.0"),
                ("ce-id", "3"),
                ("ce-source", "/s"),
                ("ce-type", "x"),
            ],
            r#"{"n":1}"#,
            "3",
        ),
    ];
    for (mut headers, body, id) in modes {
        headers.push(("authorization", &*bearer));
        let answer = server.post(EVENTS, &headers, body).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        assert_eq!(answer.json()["events"][0]["id"], id);
    }
}

#[tokio::test]
async fn only_those_who_may_are_told_whether_a_project_exists() {
    let server = Server::start(settings()).await;
    let other = "/v1/namespaces/team/projects/nobody/events";
    let elsewhere = "/v1/namespaces/other/projects/acme/events";
    let secret = format!("Bearer {TOKEN}");
    let cases = [
        (EVENTS, "", 401, "unauthorized"),
        (EVENTS, "Bearer", 401, "unauthorized"),
        (EVENTS, "Basic cHI6cHI=", 401, "unauthorized"),
        (EVENTS, "Bearer a b", 401, "unauthorized"),
        (EVENTS, "Bearer wrong", 401, "unauthorized"),
        (EVENTS, "Bearer eyJh.nobody.x", 401, "unauthorized"),
        (EVENTS, "Bearer eyJh.denied.x", 403, "forbidden"),
        (EVENTS, "Bearer eyJh.down.x", 503, "unavailable"),
        (other, "", 401, "unauthorized"),
        (other, "Bearer wrong", 401, "unauthorized"),
        (other, &secret, 401, "unauthorized"),
        (other, "Bearer eyJh.nobody.x", 401, "unauthorized"),
        (other, "Bearer eyJh.denied.x", 403, "forbidden"),
        (other, "Bearer eyJh.team.x", 404, "no-such-project"),
        (elsewhere, "Bearer eyJh.team.x", 403, "forbidden"),
        (elsewhere, "Bearer eyJh.allowed.x", 404, "no-such-project"),
    ];
    let mut wrong = Vec::new();
    for (path, authorization, status, kind) in cases {
        let headers: &[(&str, &str)] = if authorization.is_empty() {
            &[]
        } else {
            &[("authorization", authorization)]
        };
        let answer = server.post(path, headers, r#"{"type":"x"}"#).await;
        answer.is_problem(status, kind);
        assert_eq!(
            answer.header("www-authenticate"),
            (status == 401).then_some("bearer"),
            "{answer:?}"
        );
        if authorization == "Bearer wrong" {
            wrong.push(answer.body);
        }
    }
    assert_eq!(wrong[0], wrong[1], "an unknown project looks like a wrong token");
    for authorization in [
        "Bearer eyJh.team.x",
        "Bearer eyJh.allowed.x",
        &*secret,
        "bearer pr_5up3rs3cr3t",
    ] {
        let answer = server
            .post(EVENTS, &[("authorization", authorization)], r#"{"type":"x"}"#)
            .await;
        assert_eq!(answer.status, 202, "{authorization}");
    }
}

#[tokio::test]
async fn a_body_is_not_read_before_its_sender_is_known() {
    let server = Server::start(settings()).await;
    let mut stream = server.connect().await;
    let head =
        format!("POST {EVENTS} HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 60000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    only(Answer::all(&mut stream).await).is_problem(401, "unauthorized");
}

#[tokio::test]
async fn other_paths_and_methods_are_refused_as_problems() {
    let server = Server::start(settings()).await;
    for path in [
        "/",
        "/v1",
        "/v1/namespaces/team/projects/acme",
        "/v1/namespaces/team/projects/acme/events/",
        "/v1/namespaces/team/projects/acme/events/1",
        "/v1/namespaces/Team/projects/acme/events",
        "/v1/namespaces/te%61m/projects/acme/events",
        "/v1/namespaces//projects/acme/events",
        "/v1/namespaces/-/projects/acme/events",
    ] {
        server
            .post(path, &[("authorization", &format!("Bearer {TOKEN}"))], "{}")
            .await
            .is_problem(404, "no-such-path");
    }
    for (method, path, allow) in [
        ("GET", EVENTS, "post"),
        ("PUT", EVENTS, "post"),
        ("DELETE", "/openapi.json", "get, head"),
    ] {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let answer = only(server.raw(request.as_bytes()).await);
        answer.is_problem(405, "method-not-allowed");
        assert_eq!(answer.header("allow"), Some(allow));
    }
}

#[tokio::test]
async fn every_bad_event_of_a_batch_is_pointed_at() {
    let server = Server::start(settings()).await;
    let answer = server
        .publish(r#"[{"type":"ok"},{"type":"no spaces"},{"type":"x","data":[]},{"id":"1"}]"#)
        .await;
    answer.is_problem(400, "invalid-event");
    let problem = answer.json();
    assert_eq!(problem["indices"], json!([1, 2, 3]));
    assert_eq!(problem["faultCount"], 3);
    let pointers: Vec<_> = problem["faults"]
        .as_array()
        .unwrap()
        .iter()
        .map(|fault| &fault["pointer"])
        .collect();
    assert_eq!(pointers[..2], ["/1/type", "/2/data"]);
    assert_eq!(
        server.metric(r#"postrider_ingest_events_total{outcome="refused"}"#),
        3
    );
}

#[tokio::test]
async fn what_the_queue_refuses_is_said_with_when_to_come_back() {
    let server = Server::start(settings()).await;
    let cases = [
        ("full", 429, "queue-full", true),
        ("disk", 503, "unavailable", true),
        ("broken", 503, "unavailable", true),
        ("overload", 503, "unavailable", true),
        ("closed", 503, "unavailable", true),
        ("stopping", 503, "unavailable", true),
        ("panic", 500, "internal", false),
        ("slow", 503, "no-answer", true),
    ];
    for (event_type, status, kind, again) in cases {
        let answer = server.publish(&format!(r#"{{"type":"{event_type}"}}"#)).await;
        answer.is_problem(status, kind);
        assert_eq!(answer.header("retry-after").is_some(), again, "{answer:?}");
        assert!(!answer.body.contains("secret"), "{answer:?}");
    }
    assert_eq!(
        server.metric(r#"postrider_limit_hits_total{limit="answer_timeout"}"#),
        1
    );
}

#[tokio::test]
async fn types_and_encodings_that_are_not_understood_are_415() {
    let server = Server::start(settings()).await;
    let bearer = format!("Bearer {TOKEN}");
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-type", "application/xml"),
        ("content-type", "application/json; charset=utf-16"),
        ("content-encoding", "gzip"),
    ] {
        let answer = server
            .post(
                EVENTS,
                &[("authorization", &bearer), (name, value)],
                r#"{"type":"x"}"#,
            )
            .await;
        answer.is_problem(415, "unsupported-media-type");
    }
}

#[tokio::test]
async fn a_connection_is_kept_for_more_requests_also_after_an_error() {
    let server = Server::start(settings()).await;
    let mut stream = server.connect().await;
    for (body, status) in [
        (r#"{"type":"x"}"#, 202),
        (r#"{"type":1}"#, 400),
        (r#"{"type":"x"}"#, 202),
    ] {
        let request = head(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(Answer::next(&mut stream).await.status, status);
    }
}

#[tokio::test]
async fn a_client_that_goes_away_is_counted() {
    let server = Server::start(settings()).await;
    drop(server.publish_slowly().await);
    let gone = r#"postrider_ingest_requests_total{status="499"}"#;
    server
        .until("the request ends", |server| server.metric(gone) == 1)
        .await;
}

#[tokio::test]
async fn before_everything_is_known_nobody_is_told_anything() {
    let server = Server::start(settings()).await;
    server
        .stub
        .ready
        .store(false, std::sync::atomic::Ordering::SeqCst);
    for token in [TOKEN, "wrong", "eyJh.denied.x"] {
        let answer = server
            .post(
                EVENTS,
                &[("authorization", &format!("Bearer {token}"))],
                r#"{"type":"x"}"#,
            )
            .await;
        answer.is_problem(503, "unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
    }
}

#[tokio::test]
async fn a_refusal_closes_the_connection_only_when_a_body_is_in_the_way() {
    let server = Server::start(settings()).await;
    let request = |token: &str, fields: &str| {
        format!("POST {EVENTS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n{fields}\r\n")
    };
    for (token, fields, status) in [
        ("wrong", "content-length: 100000\r\n", 401),
        ("wrong", "transfer-encoding: chunked\r\n", 401),
        (TOKEN, "content-encoding: gzip\r\ncontent-length: 100000\r\n", 415),
        (TOKEN, "content-length: 100000000\r\n", 413),
    ] {
        // Not a byte of the body is sent: the server answers and closes without it.
        let answer = only(server.raw(request(token, fields).as_bytes()).await);
        assert_eq!(
            (answer.status, answer.header("connection")),
            (status, Some("close")),
            "{fields:?}"
        );
    }
    let mut stream = server.connect().await;
    for _ in 0..2 {
        let bodiless = request("wrong", "content-length: 0\r\n");
        stream.write_all(bodiless.as_bytes()).await.unwrap();
        let answer = Answer::next(&mut stream).await;
        assert_eq!((answer.status, answer.header("connection")), (401, None));
    }
}
