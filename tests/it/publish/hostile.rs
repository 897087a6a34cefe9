//! Clients that err on purpose, over HTTP/1.1: each is told so in time, and a good client never notices.

use std::time::Duration;

use postrider::adapters::http::HttpSettings;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::{Answer, EVENTS, Server, TOKEN, head, only, settings};

/// Writes a piece every 20 ms until the server closes or answers.
async fn drip(stream: &mut TcpStream, piece: &[u8]) {
    let mut peeked = [0; 1];
    loop {
        if stream.write_all(piece).await.is_err() {
            return;
        }
        if timeout(Duration::from_millis(20), stream.peek(&mut peeked))
            .await
            .is_ok()
        {
            return;
        }
    }
}

/// The one answer on a connection that was opened with these bytes and then left alone.
async fn stalled(server: &Server, bytes: &[u8]) -> (Answer, Duration) {
    let started = Instant::now();
    let answer = server.unharmed(server.raw(bytes)).await;
    (only(answer), started.elapsed())
}

#[tokio::test]
async fn a_header_that_does_not_end_is_408() {
    let server = Server::start(settings()).await;
    for start in [
        "",
        "P",
        "PRI * HT",
        "POST /v1/na",
        "GET /openapi.json HTTP/1.1\r\nhost: x\r\n",
        "\r\n",
    ] {
        let (answer, took) = stalled(&server, start.as_bytes()).await;
        answer.is_problem(408, "request-timeout");
        assert!(
            (Duration::from_millis(250)..Duration::from_secs(2)).contains(&took),
            "{start:?}: {took:?}"
        );
    }
    assert_eq!(
        server.metric(r#"postrider_limit_hits_total{limit="header_timeout"}"#),
        6
    );
}

#[tokio::test]
async fn a_header_that_drips_is_408_however_steady() {
    let server = Server::start(settings()).await;
    let answers = server.unharmed(async {
        let mut stream = server.connect().await;
        stream.write_all(b"GET /openapi.json HTTP/1.1\r\n").await.unwrap();
        drip(&mut stream, b"a: b\r\n").await;
        Answer::all(&mut stream).await
    });
    only(answers.await).is_problem(408, "request-timeout");
}

#[tokio::test]
async fn the_next_header_on_a_connection_has_a_deadline_too() {
    let server = Server::start(settings()).await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(Answer::next(&mut stream).await.status, 404);
    let started = Instant::now();
    stream.write_all(b"POST ").await.unwrap();
    only(Answer::all(&mut stream).await).is_problem(408, "request-timeout");
    assert!(
        started.elapsed() < Duration::from_millis(650),
        "idle time does not count"
    );
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_a_word() {
    let server = Server::start(settings()).await;
    let mut stream = server.connect().await;
    let body = r#"{"type":"x"}"#;
    let request = head(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    for _ in 0..3 {
        // Rests between requests do not add up: the wait below would be 300 ms shorter.
        sleep(Duration::from_millis(100)).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        assert_eq!(Answer::next(&mut stream).await.status, 202);
    }
    let started = Instant::now();
    assert_eq!(Answer::all(&mut stream).await, []);
    let took = started.elapsed();
    assert!(
        (Duration::from_millis(600)..Duration::from_secs(3)).contains(&took),
        "{took:?}"
    );
}

#[tokio::test]
async fn a_body_that_does_not_end_is_408() {
    let server = Server::start(settings()).await;
    for rest in [
        "content-length: 1000\r\n\r\n",
        "content-length: 1000\r\n\r\n{\"type\":\"x\"}",
        "transfer-encoding: chunked\r\n\r\n",
        "transfer-encoding: chunked\r\n\r\nc\r\n{\"type\":",
        "transfer-encoding: chunked\r\n\r\nc\r\n{\"type\":\"x\"}\r\n",
        "transfer-encoding: chunked\r\n\r\nc\r\n{\"type\":\"x\"}\r\n0\r\n",
    ] {
        let (answer, took) = stalled(&server, head(rest).as_bytes()).await;
        answer.is_problem(408, "request-timeout");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(took < Duration::from_secs(3), "{rest:?}: {took:?}");
    }
    assert_eq!(
        server.metric(r#"postrider_limit_hits_total{limit="body_timeout"}"#),
        6
    );
    assert_eq!(server.metric("postrider_ingest_body_bytes"), 0);
}

#[tokio::test]
async fn a_body_that_drips_is_408_however_steady() {
    let server = Server::start(settings()).await;
    for (fields, piece) in [
        ("content-length: 60000\r\n\r\n", &b" "[..]),
        ("transfer-encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    ] {
        let answers = server.unharmed(async {
            let mut stream = server.connect().await;
            stream.write_all(head(fields).as_bytes()).await.unwrap();
            drip(&mut stream, piece).await;
            Answer::all(&mut stream).await
        });
        only(answers.await).is_problem(408, "request-timeout");
    }
}

#[tokio::test]
async fn a_client_that_stops_sending_in_the_middle_harms_nobody() {
    let server = Server::start(settings()).await;
    let hostile = async {
        for cut in [
            "",
            "GET",
            &head("content-length: 9\r\n\r\n{"),
            &head("transfer-encoding: chunked\r\n\r\n5\r\n{"),
        ] {
            let mut stream = server.connect().await;
            stream.write_all(cut.as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let answers = Answer::all(&mut stream).await;
            assert!(answers.iter().all(|answer| answer.status == 400), "{answers:?}");
        }
    };
    server.unharmed(hostile).await;
}

#[tokio::test]
async fn too_large_a_body_is_413_announced_or_not() {
    let server = Server::start(settings()).await;
    // Announced: before any of it is sent.
    let mut stream = server.connect().await;
    stream
        .write_all(head("expect: 100-continue\r\ncontent-length: 65537\r\n\r\n").as_bytes())
        .await
        .unwrap();
    only(Answer::all(&mut stream).await).is_problem(413, "body-too-large");
    // Announced as more than any number.
    let answers = server
        .raw(head("content-length: 99999999999999999999999999\r\n\r\n").as_bytes())
        .await;
    only(answers).is_problem(400, "malformed-request");
    // Sent anyway; the answer arrives although the client goes on writing.
    for (fields, piece) in [
        ("content-length: 4000000\r\n\r\n", vec![b' '; 16_384]),
        (
            "transfer-encoding: chunked\r\n\r\n",
            [&b"4000\r\n"[..], &[b' '; 0x4000], b"\r\n"].concat(),
        ),
    ] {
        let answers = server.unharmed(async {
            let (mut read, mut write) = server.connect().await.into_split();
            let flood = tokio::spawn(async move {
                write.write_all(head(fields).as_bytes()).await.unwrap();
                for _ in 0..200 {
                    if write.write_all(&piece).await.is_err() {
                        break;
                    }
                }
                write
            });
            let mut bytes = Vec::new();
            let answer = loop {
                if let Some((answer, _)) = Answer::parse(&bytes) {
                    break answer;
                }
                assert!(
                    read.read_buf(&mut bytes)
                        .await
                        .expect("no reset before the answer")
                        > 0,
                    "no answer"
                );
            };
            drop(flood.await.unwrap());
            answer
        });
        answers.await.is_problem(413, "body-too-large");
    }
    let largest = format!(r#"{{"type":"x","data":{{"a":"{}"}}}}"#, "a".repeat(65_536 - 28));
    assert_eq!(
        (largest.len(), server.publish(&largest).await.status),
        (65_536, 202)
    );
    assert_eq!(server.metric(r#"postrider_limit_hits_total{limit="body"}"#), 3);
}

#[tokio::test]
async fn bodies_of_all_requests_together_are_bounded() {
    let server = Server::start(HttpSettings {
        body_bytes_in_flight: 40_000,
        body_timeout: Duration::from_secs(10),
        ..settings()
    });
    let server = server.await;
    let mut first = server.connect().await;
    let piece = " ".repeat(15_000);
    first
        .write_all(head(&format!("content-length: 60000\r\n\r\n{piece}")).as_bytes())
        .await
        .unwrap();
    server
        .until("15 kB are held", |server| {
            server.metric("postrider_ingest_body_bytes") >= 15_000
        })
        .await;
    assert_eq!(
        server.publish(r#"{"type":"good"}"#).await.status,
        202,
        "small ones still fit"
    );
    let large = format!(r#"{{"type":"x","data":{{"a":"{}"}}}}"#, "a".repeat(26_000));
    let answer = server.publish(&large).await;
    answer.is_problem(503, "unavailable");
    assert!(answer.header("retry-after").is_some());
    drop(first);
    server
        .until("what was held is given back", |server| {
            server.metric("postrider_ingest_body_bytes") == 0
        })
        .await;
    assert_eq!(server.publish(&large).await.status, 202);
}

#[tokio::test]
async fn bodies_that_are_no_proper_json_are_400_with_a_reason() {
    let server = Server::start(settings()).await;
    let deep = format!(
        r#"{{"type":"x","data":{}{}}}"#,
        "{\"a\":".repeat(20_000),
        "1".to_owned() + &"}".repeat(20_000)
    );
    let deep_arrays = format!(
        r#"{{"type":"x","data":{{"a":{}1{}}}}}"#,
        "[".repeat(5_000),
        "]".repeat(5_000)
    );
    let cases: [(&[u8], &str); 11] = [
        (b"", "Empty"),
        (b"not json", "Malformed"),
        (b"{\"type\":\"x\"", "Malformed"),
        (b"{\"type\":\"x\"} {}", "Malformed"),
        (b"{\"type\":\"\xff\xfe\"}", "InvalidUtf8"),
        (b"\xef\xbb\xbf{\"type\":\"x\"}", "Malformed"),
        (b"{\"type\":\"x\",\"type\":\"y\"}", "DuplicateKey"),
        (
            b"{\"type\":\"x\",\"data\":{\"a\":1,\"\\u0061\":2}}",
            "DuplicateKey",
        ),
        (b"{\"type\":\"x\",\"data\":{\"a\":\"\\u0000\"}}", "NulCharacter"),
        (deep.as_bytes(), "TooDeep"),
        (deep_arrays.as_bytes(), "TooDeep"),
    ];
    for (body, reason) in cases {
        let request = [
            head(&format!(
                "connection: close\r\ncontent-length: {}\r\n\r\n",
                body.len()
            ))
            .as_bytes(),
            body,
        ]
        .concat();
        let answer = only(server.unharmed(server.raw(&request)).await);
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        if answer.status == 413 {
            assert!(body.len() > 65_536, "{shown}");
            continue;
        }
        answer.is_problem(400, "invalid-event");
        assert_eq!(
            answer.json()["faults"][0]["reason"],
            reason,
            "{shown}: {answer:?}"
        );
    }
    // A NUL as such, where JSON has none.
    let answer = server.publish("{\"type\":\"x\",\"data\":{\"a\":\"\0\"}}").await;
    answer.is_problem(400, "invalid-event");
}

/// So many lines of a head.
fn headers(count: usize) -> String {
    (0..count).fold(String::new(), |head, number| head + &format!("x-{number}: y\r\n"))
}

#[tokio::test]
async fn headers_are_bounded_in_number_and_bytes() {
    let server = Server::start(settings()).await;
    let many = headers(200);
    let long = format!("x: {}\r\n", "y".repeat(40_000));
    let small = headers(90);
    for fields in [&many, &long] {
        let request = head(&format!("{fields}content-length: 0\r\n\r\n"));
        let answers = server.unharmed(server.raw(request.as_bytes())).await;
        only(answers).is_problem(431, "header-too-large");
    }
    let line = format!("POST /{} HTTP/1.1\r\nhost: x\r\n\r\n", "a".repeat(70_000));
    only(server.unharmed(server.raw(line.as_bytes())).await).is_problem(431, "header-too-large");
    let body = r#"{"type":"x"}"#;
    let request = head(&format!(
        "{small}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    ));
    assert_eq!(only(server.raw(request.as_bytes()).await).status, 202);
    assert_eq!(server.metric(r#"postrider_limit_hits_total{limit="header"}"#), 3);
}

#[tokio::test]
async fn an_endless_header_is_cut() {
    let server = Server::start(HttpSettings {
        header_timeout: Duration::from_secs(10),
        ..settings()
    })
    .await;
    let answers = server.unharmed(async {
        let mut stream = server.connect().await;
        stream.write_all(b"GET / HTTP/1.1\r\nx: ").await.unwrap();
        let piece = [b'y'; 4_096];
        for _ in 0..64 {
            if stream.write_all(&piece).await.is_err() {
                break;
            }
        }
        Answer::all(&mut stream).await
    });
    only(answers.await).is_problem(431, "header-too-large");
}

#[tokio::test]
async fn what_is_not_http_is_400() {
    let server = Server::start(settings()).await;
    let client_hello = [0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3, 3, 0x0d, 0x0a, 0, 0];
    let answer = only(server.unharmed(server.raw(&client_hello)).await);
    answer.is_problem(400, "malformed-request");
    assert!(answer.body.contains("not TLS"), "{answer:?}");
    let cases: [&[u8]; 9] = [
        b"\0\0\0\0\r\n\r\n",
        b"\xff\xfe garbage \x80\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET  /  HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\n x: folded\r\n\r\n",
        b"POST / HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
    ];
    for bytes in cases {
        let answer = only(server.unharmed(server.raw(bytes)).await);
        answer.is_problem(400, "malformed-request");
    }
}

#[tokio::test]
async fn a_lying_content_length_is_no_way_to_smuggle() {
    let server = Server::start(settings()).await;
    let event = r#"{"type":"x"}"#;
    // Shorter than the body: the rest is no request.
    let request = head(&format!("content-length: {}\r\n\r\n{event}{event}", event.len()));
    let answers = server.unharmed(server.raw(request.as_bytes())).await;
    assert_eq!(
        answers.iter().map(|answer| answer.status).collect::<Vec<_>>(),
        [202, 400],
        "{answers:?}"
    );
    // Negative, signed, doubled.
    for length in ["-1", "+12", "0x0c", "12, 12", "1 2", ""] {
        let answers = server
            .raw(head(&format!("content-length: {length}\r\n\r\n{event}")).as_bytes())
            .await;
        assert!(
            answers.iter().all(|answer| answer.status == 400),
            "{length:?}: {answers:?}"
        );
        assert!(!answers.is_empty(), "{length:?}");
    }
    // Both framings: the chunks count, and the connection ends, so nothing after them is a request.
    let smuggled = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n";
    for fields in [
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
    ] {
        let request = head(&format!("{fields}\r\n\r\nc\r\n{event}\r\n0\r\n\r\n{smuggled}"));
        let answer = only(server.unharmed(server.raw(request.as_bytes())).await);
        assert_eq!(answer.status, 202, "{answer:?}");
    }
    // Chunks that are none.
    for chunks in [
        "zz\r\n",
        "-1\r\n",
        "fffffffffffffffff\r\n",
        "1\r\nab",
        "c;\n{}",
        "c\r\n{\"type\":\"x\"}xx",
    ] {
        let answers = server
            .raw(head(&format!("transfer-encoding: chunked\r\n\r\n{chunks}")).as_bytes())
            .await;
        only(answers).is_problem(400, "malformed-request");
    }
}

#[tokio::test]
async fn an_expecting_client_is_told_to_go_on_once_it_is_known() {
    let server = Server::start(settings()).await;
    let body = r#"{"type":"x"}"#;
    let mut stream = server.connect().await;
    let fields = format!("expect: 100-continue\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head(&fields).as_bytes()).await.unwrap();
    assert_eq!(Answer::next(&mut stream).await.status, 100);
    stream.write_all(body.as_bytes()).await.unwrap();
    assert_eq!(Answer::next(&mut stream).await.status, 202);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = Server::start(settings()).await;
    let request = |id: usize| {
        let body = format!(r#"{{"id":"{id}","type":"x"}}"#);
        head(&format!("content-length: {}\r\n\r\n{body}", body.len()))
    };
    let mut all: String = (0..50).map(request).collect();
    all += "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let answers = server.unharmed(server.raw(all.as_bytes())).await;
    assert_eq!(answers.len(), 51);
    for (id, answer) in answers[..50].iter().enumerate() {
        assert_eq!(answer.json()["events"][0]["id"], id.to_string());
    }
    assert_eq!(answers[50].status, 404);
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_cut() {
    let server = Server::start(settings()).await;
    server
        .unharmed(async {
            let mut stream = server.connect().await;
            let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
            while let Ok(Ok(())) = timeout(Duration::from_secs(5), stream.write_all(&request)).await {}
            let cut = r#"postrider_limit_hits_total{limit="write_timeout"}"#;
            server
                .until("the connection is cut", |server| server.metric(cut) == 1)
                .await;
        })
        .await;
}

#[tokio::test]
async fn connections_are_bounded() {
    let server = Server::start(HttpSettings {
        connections: 8,
        header_timeout: Duration::from_secs(10),
        ..settings()
    });
    let server = server.await;
    let open = r#"postrider_http_connections{server="publish"}"#;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(server.connect().await);
    }
    server
        .until("all are open", |server| server.metric(open) == 8)
        .await;
    for _ in 0..200 {
        let mut stream = server.connect().await;
        // Most are told, the rest just closed.
        let answers = Answer::all(&mut stream).await;
        for answer in &answers {
            answer.is_problem(503, "unavailable");
        }
    }
    assert_eq!(server.metric(open), 8);
    assert_eq!(
        server.metric(r#"postrider_limit_hits_total{limit="connections"}"#),
        200
    );
    held.clear();
    server
        .until("there is room again", |server| server.metric(open) == 0)
        .await;
    assert_eq!(server.publish(r#"{"type":"x"}"#).await.status, 202);
}

#[tokio::test]
async fn a_thousand_slow_clients_harm_nobody() {
    let server = Server::start(settings()).await;
    let hostile = async {
        let mut streams = Vec::new();
        for number in 0..1_000 {
            let mut stream = server.connect().await;
            let start = match number % 4 {
                0 => String::new(),
                1 => "POST /v1".to_owned(),
                2 => head("content-length: 60000\r\n\r\n{"),
                _ => format!(
                    "POST {EVENTS} HTTP/1.1\r\nauthorization: Bearer x{TOKEN}\r\ncontent-length: 9\r\n\r\n"
                ),
            };
            stream.write_all(start.as_bytes()).await.unwrap();
            streams.push(stream);
        }
        for mut stream in streams {
            let status = only(Answer::all(&mut stream).await).status;
            assert!(matches!(status, 401 | 408), "{status}");
        }
    };
    server.unharmed(hostile).await;
}
