//! The end of the servers, and the administration server.

use std::time::Duration;

use postrider::adapters::http::HttpSettings;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::{Answer, PATIENCE, Server, only, settings};
use crate::support::eventually;

async fn get(address: std::net::SocketAddr, method: &str, path: &str) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    only(Answer::all(&mut stream).await)
}

#[tokio::test]
async fn a_stop_finishes_what_runs_and_takes_nothing_new() {
    let settings = HttpSettings {
        answer_timeout: Duration::from_secs(20),
        ..settings()
    };
    let mut server = Server::start(settings).await;
    let mut idle = server.connect().await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(Answer::next(&mut idle).await.status, 404);
    let mut running = server.publish_slowly().await;
    server.shutdown.cancel();
    let closed = timeout(Duration::from_millis(600), Answer::all(&mut idle)).await;
    assert_eq!(closed.expect("an idle connection is closed at once"), []);
    eventually(
        "the listener is closed",
        PATIENCE,
        async || match TcpStream::connect(server.address).await {
            Ok(_) => Err("it still takes connections"),
            Err(_) => Ok(()),
        },
    )
    .await;
    server.stub.gate.add_permits(1);
    let answer = only(Answer::all(&mut running).await);
    assert_eq!(answer.status, 202);
    for task in std::mem::take(&mut server.tasks) {
        timeout(Duration::from_millis(1_500), task)
            .await
            .expect("stopped in time")
            .unwrap();
    }
}

#[tokio::test]
async fn a_stop_cuts_what_outlasts_the_grace_period() {
    let settings = HttpSettings {
        answer_timeout: Duration::from_secs(20),
        grace: Duration::from_millis(300),
        ..settings()
    };
    let mut server = Server::start(settings).await;
    let mut running = server.publish_slowly().await;
    let started = Instant::now();
    server.shutdown.cancel();
    for task in std::mem::take(&mut server.tasks) {
        timeout(PATIENCE, task).await.unwrap().unwrap();
    }
    let took = started.elapsed();
    assert!(
        (Duration::from_millis(250)..Duration::from_secs(2)).contains(&took),
        "{took:?}"
    );
    assert_eq!(Answer::all(&mut running).await, []);
    assert_eq!(server.metric(r#"postrider_limit_hits_total{limit="grace"}"#), 1);
    assert_eq!(
        server.metric(r#"postrider_http_connections{server="publish"}"#),
        0
    );
}

#[tokio::test]
async fn probes_say_whether_the_process_lives_and_what_it_lacks() {
    let server = Server::start(settings()).await;
    let answer = get(server.admin, "GET", "/healthz").await;
    assert_eq!((answer.status, &*answer.body), (200, "ok\n"));
    let answer = get(server.admin, "GET", "/readyz").await;
    assert_eq!((answer.status, &*answer.body), (200, "ok\n"));
    *server.notes.lock() = vec!["queue: the file was damaged".to_owned()];
    let answer = get(server.admin, "GET", "/readyz").await;
    assert_eq!(
        (answer.status, &*answer.body),
        (200, "ok\nnote: queue: the file was damaged\n")
    );
    *server.missing.lock() = vec!["queue: read-only".to_owned(), "projects: not synced".to_owned()];
    let answer = get(server.admin, "GET", "/readyz").await;
    assert_eq!(
        (answer.status, &*answer.body),
        (503, "queue: read-only\nprojects: not synced\n")
    );
    assert_eq!(get(server.admin, "GET", "/healthz").await.status, 200);
    get(server.admin, "GET", "/")
        .await
        .is_problem(404, "no-such-path");
    get(server.admin, "POST", "/readyz")
        .await
        .is_problem(405, "method-not-allowed");
}

#[tokio::test]
async fn metrics_are_openmetrics_with_every_name_from_the_start() {
    let server = Server::start(settings()).await;
    let answer = get(server.admin, "GET", "/metrics").await;
    assert_eq!(
        answer.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    for line in [
        "postrider_ingest_requests_total{status=\"202\"} 0",
        "postrider_ingest_events_total{outcome=\"accepted\"} 0",
        "postrider_ingest_duration_seconds_count 0",
        "postrider_ingest_body_bytes 0",
        "postrider_http_connections{server=\"admin\"} 1",
        "postrider_limit_hits_total{limit=\"connections\"} 0",
        "postrider_limit_hits_total{limit=\"body_memory\"} 0",
    ] {
        assert!(
            answer.body.lines().any(|found| found == line),
            "{line}\n{}",
            answer.body
        );
    }
    assert!(answer.body.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_administration_server_is_as_patient_as_the_other() {
    let server = Server::start(settings()).await;
    let mut stream = TcpStream::connect(server.admin).await.unwrap();
    stream.write_all(b"GET /healthz HT").await.unwrap();
    only(Answer::all(&mut stream).await).is_problem(408, "request-timeout");
}
