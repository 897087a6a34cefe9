//! What status and Kubernetes Events say of deliveries, and how often.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use postrider::domain::health::{DisableReason, Disabled, LastFailure};
use postrider::domain::id::Uid;
use postrider::domain::outcome::FailureReason;
use serde_json::Value;

use super::operator::{Operator, Playground, SOON, condition, ready, truth, uid};
use super::{HOOK, destination};
use crate::support::eventually;

fn failure(time: Timestamp) -> LastFailure {
    LastFailure {
        time,
        reason: FailureReason::ServerError,
        status: Some(500),
        message: "the receiver answered 500".to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transitions_show_at_once_and_are_told_as_events() {
    let ground = Playground::new("health").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&destination("hook", HOOK));
    let object = ground.await_destination("hook", "ready", ready).await;
    let lane = Uid::new(&uid(&object));
    let now = Timestamp::now();

    operator.played.play(&lane, true, |view| {
        view.health.generation = 1;
        view.health.consecutive_failures = 1;
        view.health.failing_since = Some(now);
        view.health.last_failure = Some(failure(now));
        view.depth.pending = 1;
    });
    let object = ground
        .await_destination("hook", "failing", |object| truth(object, "Delivering") == "False")
        .await;
    assert_eq!(truth(&object, "Ready"), "True");
    let delivering = condition(&object, "Delivering");
    assert_eq!(delivering["reason"], "ServerError");
    assert!(
        delivering["message"]
            .as_str()
            .unwrap()
            .starts_with("failing since 20"),
        "{delivering}"
    );
    assert_eq!(object["status"]["delivery"]["lastFailure"]["statusCode"], 500);

    operator.played.play(&lane, true, |view| {
        view.health.disabled = Some(Disabled {
            since: now,
            reason: DisableReason::AutoDisabled,
            next_probe: None,
        });
    });
    let object = ground
        .await_destination("hook", "disabled", |object| truth(object, "Stalled") == "True")
        .await;
    for kind in ["Ready", "Delivering", "Stalled"] {
        assert_eq!(condition(&object, kind)["reason"], "AutoDisabled", "{kind}");
        assert!(
            condition(&object, kind)["message"]
                .as_str()
                .unwrap()
                .starts_with("disabled since 20"),
            "{kind}"
        );
    }
    assert_eq!(object["status"]["delivery"]["state"], "Disabled");

    ground
        .kubectl(&["annotate", "ed/hook", "postrider.dev/enable=now-please"])
        .ok();
    eventually("the request is in the directory", SOON, async || {
        let request = operator
            .directory
            .destination(&lane)
            .and_then(|entry| entry.enable_request.clone());
        if request.as_deref() == Some("now-please") {
            Ok(())
        } else {
            Err(format!("{request:?}"))
        }
    })
    .await;
    operator.played.play(&lane, true, |view| {
        view.health.observe(1, Some("now-please"));
        view.health.last_success = Some(Timestamp::now());
        view.health.delivered = 1;
        view.depth.pending = 0;
    });
    // Success and failure fell into the same second, or not: the success is the newer.
    operator.played.play(&lane, true, |view| {
        view.health.last_success = Some(now + Duration::from_secs(2));
    });
    let right = |object: &Value| truth(object, "Delivering") == "True" && ready(object);
    let object = ground.await_destination("hook", "recovered", right).await;
    assert_eq!(object["status"]["lastHandledEnable"], "now-please");
    assert_eq!(condition(&object, "Stalled"), Value::Null);

    let expected = ["Succeeded", "ServerError", "AutoDisabled", "Recovered"];
    eventually("Kubernetes Events tell of it", SOON, async || {
        let args = [
            "get",
            "events.events.k8s.io",
            "-o",
            "jsonpath={range .items[*]}{.regarding.name} {.reason}{\"\\n\"}{end}",
        ];
        let told = ground.kubectl(&args).ok();
        let missing: Vec<_> = expected
            .iter()
            .filter(|reason| !told.contains(&format!("hook {reason}")))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?} in {told}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counters_are_written_at_most_once_per_interval() {
    const INTERVAL: Duration = Duration::from_secs(3);
    let ground = Playground::new("counters").await;
    let operator = Operator::start_with(ground.namespace.client(), Some(ground.name()), INTERVAL)
        .synced()
        .await;
    ground.apply(&destination("hook", HOOK));
    let object = ground.await_destination("hook", "ready", ready).await;
    let lane = Uid::new(&uid(&object));
    operator.played.play(&lane, true, |view| {
        view.health.last_success = Some(Timestamp::now());
    });
    ground
        .await_destination("hook", "delivering", |object| {
            truth(object, "Delivering") == "True"
        })
        .await;
    let (start, before) = (Instant::now(), operator.metrics.status_writes());
    while start.elapsed() < INTERVAL * 3 {
        operator.played.play(&lane, true, |view| {
            view.health.delivered += 1;
            view.depth.pending += 1;
        });
        // Counters change 20 times a second, for three intervals: the rate is what this is about.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let writes = operator.metrics.status_writes() - before;
    assert!(
        (2..=4).contains(&writes),
        "{writes} writes in {:?}",
        start.elapsed()
    );
    // Untold numbers, such as events that gather while the destination is suspended, show as well.
    operator
        .played
        .play(&lane, false, |view| view.depth.pending = 12_345);
    let probe = async || match ground.destination("hook").await {
        object if object["status"]["delivery"]["pending"] == 12_345 => Ok(()),
        object => Err(object["status"]["delivery"].to_string()),
    };
    eventually("the last number", INTERVAL * 3, probe).await;
    // The last numbers are written when the process stops, whatever the interval says.
    operator
        .played
        .play(&lane, false, |view| view.depth.pending = 54_321);
    operator.stop().await;
    assert_eq!(
        ground.destination("hook").await["status"]["delivery"]["pending"],
        54_321
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_echoed_and_suspension_shows() {
    let ground = Playground::new("requests").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    ground.apply(&destination("hook", &format!("  suspend: true\n{HOOK}")));
    let object = ground.await_destination("hook", "ready", ready).await;
    assert_eq!(
        (
            truth(&object, "Delivering"),
            &condition(&object, "Delivering")["reason"]
        ),
        ("False".to_owned(), &"Suspended".into())
    );
    for annotation in ["postrider.dev/reconcile=1", "reconcile.fluxcd.io/requestedAt=2"] {
        ground.kubectl(&["annotate", "ed/hook", annotation]).ok();
        let token = annotation.rsplit('=').next().unwrap();
        ground
            .await_destination("hook", "echoed", |object| {
                object["status"]["lastHandledReconcileAt"] == token
            })
            .await;
    }
    ground
        .kubectl(&[
            "patch",
            "ed/hook",
            "--type=merge",
            "-p",
            r#"{"spec":{"suspend":false}}"#,
        ])
        .ok();
    let object = ground
        .await_destination("hook", "resumed", |object| {
            ready(object) && object["metadata"]["generation"] == 2
        })
        .await;
    assert_eq!(truth(&object, "Delivering"), "Unknown");
    let entry = operator.entry(&uid(&object)).unwrap();
    assert_eq!(
        (entry.ready().unwrap().suspended, entry.identity.generation),
        (false, 2)
    );
}
