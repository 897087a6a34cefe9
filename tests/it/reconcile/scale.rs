//! A thousand destinations at once, and the real binary. Times are printed, and bounded only generously: other tests
//! run, too. Memory is bounded.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::{ListParams, PostParams};
use postrider::api::v1alpha1::EventDestination;

use crate::support::{Cluster, Operator, TempNamespace, eventually};

const COUNT: usize = 1000;

/// Most memory of its own that the operator may have then, in KiB. What is beside it, up to 60 MB in all, is the
/// binary's text, of which a debug build has several times as much.
const MOST: u64 = 40 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_destinations_become_ready_within_bounded_memory() {
    let cluster = Cluster::shared();
    let namespace = TempNamespace::new(cluster, "scale").await;
    let operator = Operator::start(cluster, namespace.name()).await;
    let api = namespace.api::<EventDestination>();
    let start = Instant::now();
    futures::stream::iter(0..COUNT)
        .for_each_concurrent(16, async |number| {
            let yaml = super::destination(&format!("hook-{number}"), super::HOOK);
            let object: EventDestination = serde_saphyr::from_str(yaml.trim_start_matches("\n---")).unwrap();
            api.create(&PostParams::default(), &object).await.unwrap();
        })
        .await;
    let applied = Instant::now();
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
    let (own, all) = (memory(&operator, "RssAnon:"), memory(&operator, "VmRSS:"));
    eprintln!(
        "{COUNT} destinations: created in {:?}, all Ready {:?} after the last; {own} KiB of its own, {all} KiB in all",
        applied - start,
        applied.elapsed(),
    );
    assert!(own < MOST, "{own} KiB");
    operator.stop().await;
}

fn memory(operator: &Operator, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", operator.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
