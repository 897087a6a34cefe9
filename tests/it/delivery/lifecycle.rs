//! What survives a restart, and what a deletion takes along.

use std::time::Duration;

use serde_json::json;

use crate::support::{Manner, Operator, Settings, Stage, condition, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_counted_across_a_crash() {
    let mut stage = Stage::set("lifecycle").await;
    stage.receiver.answer("/down", Manner::Status(500));
    let policy = json!({"delivery": {"retry": {"schedule": ["50ms", "50ms", "3s"], "maxAttempts": 4}}});
    stage.destination("down", "/down", &policy);
    stage.publish("x", &json!({})).await;
    stage.receiver.wait_for("/down", 3).await;
    stage
        .until("ed", "down", "three failures show", |ed| {
            ed["status"]["delivery"]["consecutiveFailures"] == 3
        })
        .await;
    let settings = stage.take_operator().kill();
    stage.start_again(settings).await;
    stage
        .until("ed", "down", "it is given up", |ed| {
            ed["status"]["delivery"]["exhausted"] == 1
        })
        .await;
    let attempts: Vec<_> = stage
        .receiver
        .received("/down")
        .iter()
        .map(|r| r.header("x-postrider-attempt").to_owned())
        .collect();
    assert_eq!(attempts, ["1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_destination_takes_its_work_along_and_a_new_one_of_its_name_starts_empty() {
    let stage = Stage::set("lifecycle").await;
    stage.destination("hook", "/hook", &json!({"suspend": true}));
    for _ in 0..5 {
        stage.publish("old", &json!({})).await;
    }
    stage
        .cluster
        .kubectl(&["delete", "-n", stage.namespace.name(), "ed/hook", "--wait"])
        .ok();
    eventually(
        "the work is dropped and counted",
        Duration::from_secs(10),
        || async {
            let line = "postrider_deliveries_total{outcome=\"dropped\",reason=\"DestinationDeleted\"}";
            let dropped = stage.operator().metric(line).await;
            if (dropped - 5.0).abs() < 0.5 {
                Ok(())
            } else {
                Err(format!("{dropped}"))
            }
        },
    )
    .await;
    stage.destination("hook", "/hook", &json!({}));
    stage.publish("new", &json!({})).await;
    let received = stage.receiver.wait_for("/hook", 1).await;
    assert_eq!(received[0].json()["type"], "new");
    assert_eq!(received.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_during_start_up_ends_the_process() {
    let stage = Stage::set("lifecycle").await;
    for number in 0..5 {
        let settings = Settings {
            kubeconfig: stage.cluster.kubeconfig(),
            namespace: stage.namespace.name().to_owned(),
            data_dir: stage
                .cluster
                .folder()
                .join(format!("operators/start-up-{number}")),
            flags: Vec::new(),
        };
        let operator = Operator::spawn(settings);
        eventually("its signal handlers are there", Duration::from_secs(20), || {
            let log = operator.log();
            std::future::ready(if log.contains("started") { Ok(()) } else { Err(log) })
        })
        .await;
        let (code, _) = operator.stop().await;
        assert_eq!(code, Some(0), "run {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_publishers_are_answered_while_the_queue_is_being_opened() {
    let stage = Stage::set("lifecycle").await;
    let settings = Settings {
        kubeconfig: stage.cluster.kubeconfig(),
        namespace: stage.namespace.name().to_owned(),
        data_dir: stage.cluster.folder().join("operators/slow-disk"),
        flags: Vec::new(),
    };
    std::fs::create_dir_all(&settings.data_dir).unwrap();
    // Whoever opens a pipe for writing waits until somebody reads it.
    let pipe = settings.data_dir.join("queue.db.lock");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success(), "{made}");
    let operator = Operator::spawn(settings);
    eventually("the process is alive", Duration::from_secs(20), || async {
        let (status, body) = operator.admin("/healthz").await?;
        if status == 200 { Ok(()) } else { Err(body) }
    })
    .await;
    let (status, missing) = operator.admin("/readyz").await.unwrap();
    assert_eq!(status, 503);
    let first = missing.lines().next();
    assert_eq!(
        first,
        Some("queue: the queue's file is being opened"),
        "{missing}"
    );
    let (status, problem) = operator.publish("p", "token", &json!({"type": "x"})).await;
    assert_eq!(status, 503, "{problem}");
    let metrics = async || operator.admin("/metrics").await.unwrap().1;
    let pending = "\npostrider_pending ";
    assert!(!metrics().await.contains(pending), "what waits is not known yet");
    let _reader = std::fs::File::open(&pipe).unwrap();
    operator.wait_ready().await;
    let text = metrics().await;
    assert!(text.contains(pending), "no {pending} in\n{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_cleanly_and_nothing_is_lost() {
    let mut stage = Stage::set("lifecycle").await;
    stage.receiver.answer("/hook", Manner::Hang);
    stage.destination(
        "hook",
        "/hook",
        &json!({"delivery": {"timeout": "1s", "retry": {"schedule": ["1s"]}}}),
    );
    for n in 0..50 {
        stage.publish("x", &json!({"n": n})).await;
    }
    stage.receiver.wait_for("/hook", 1).await;
    let (code, settings) = stage.take_operator().stop().await;
    assert_eq!(code, Some(0));
    stage.receiver.answer("/hook", Manner::Status(200));
    stage.start_again(settings).await;
    let ed = stage
        .until("ed", "hook", "everything is delivered", |ed| {
            ed["status"]["delivery"]["delivered"] == 50
        })
        .await;
    assert_eq!(condition(&ed, "Ready")["status"], "True");
}

#[test]
fn a_fatal_error_is_said_once_and_never_not_at_all() {
    for level in ["info", "off"] {
        let folder = tempfile::tempdir().unwrap();
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"))
            .args(["run", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"])
            .args(["--public-url", "http://127.0.0.1", "--log", level, "--data-dir"])
            .arg(folder.path())
            .env("KUBECONFIG", folder.path().join("missing"))
            .env_remove("KUBERNETES_SERVICE_HOST")
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert_eq!(
            said.matches("no Kubernetes configuration").count(),
            1,
            "{level}: {said}"
        );
    }
}
