//! A thousand destinations at once. Times are printed, and bounded only generously: other tests run, too.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use kube::api::{ListParams, PostParams};
use postrider::api::v1alpha1::EventDestination;

use super::operator::{Operator, Playground};
use crate::support::eventually;

const COUNT: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_destinations_become_ready() {
    use futures::StreamExt as _;

    let ground = Playground::new("scale").await;
    let operator = Operator::start(&ground.namespace).synced().await;
    let api = ground.namespace.api::<EventDestination>();
    let resident_before = resident_kib();
    let start = Instant::now();
    futures::stream::iter(0..COUNT)
        .for_each_concurrent(16, async |number| {
            let mut yaml = String::new();
            write!(
                yaml,
                "{}",
                super::destination(&format!("hook-{number}"), super::HOOK)
            )
            .unwrap();
            let object: EventDestination = serde_saphyr::from_str(yaml.trim_start_matches("\n---")).unwrap();
            api.create(&PostParams::default(), &object).await.unwrap();
        })
        .await;
    let applied = Instant::now();
    eventually("all are in force", Duration::from_secs(60), async || {
        let uids = operator.directory.destinations();
        let entries = uids.iter().filter_map(|uid| operator.directory.destination(uid));
        match entries.filter(|entry| entry.ready().is_some()).count() {
            COUNT => Ok(()),
            count => Err(count.to_string()),
        }
    })
    .await;
    let in_force = applied.elapsed();
    eventually("all are Ready", Duration::from_secs(60), async || {
        let list = api.list(&ListParams::default()).await.unwrap();
        let ready = list.iter().filter(|object| {
            let conditions = object.status.iter().flat_map(|status| &status.conditions);
            conditions
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
        });
        match ready.count() {
            COUNT => Ok(()),
            count => Err(count.to_string()),
        }
    })
    .await;
    eprintln!(
        "{COUNT} destinations: created in {:?}, in force {in_force:?} later, all Ready {:?} after the last",
        applied - start,
        applied.elapsed(),
    );
    eprintln!(
        "resident: {resident_before} KiB before, {} KiB after, this test's own included",
        resident_kib()
    );
    let stop = Instant::now();
    operator.stop().await;
    eprintln!("stopped in {:?}", stop.elapsed());
}

/// Memory of this process, which other tests share.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
