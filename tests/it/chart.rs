//! The Helm chart: the API server accepts what it renders, and its roles allow what is needed and nothing else.

mod release;
mod rights;
mod values;

use std::time::Duration;

use crate::support::Cluster;

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/postrider");
const SOON: Duration = Duration::from_secs(30);

/// `helm template` for a release of the namespace's name, with more arguments.
fn rendered(cluster: &Cluster, namespace: &str, more: &[&str]) -> String {
    let mut args = vec![
        "template",
        namespace,
        CHART,
        "--namespace",
        namespace,
        "--kube-version",
        "1.34.0",
    ];
    args.extend(more);
    cluster.helm(&args).ok()
}
