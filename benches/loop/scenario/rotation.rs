//! The signing keys of a thousand destinations rotate while events are delivered to them.

use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use postrider::api::v1alpha1::EventDestination;
use serde_json::json;

use super::FANOUT_IN_FLIGHT;
use crate::loader::Load;
use crate::product::{NAMESPACE, Product};
use crate::report::{Row, Series, Unit};
use crate::stage::Stage;
use crate::system::Setup;

const DESTINATIONS: usize = 1000;
/// Most rounds: a rotation writes to the API server some four thousand times.
const ROUNDS: usize = 3;
/// Seconds of publishing, without and with a rotation.
const SPAN: u64 = 6;
/// Longest wait for a rotation.
const PATIENCE: Duration = Duration::from_secs(60);
/// Annotations written at once.
const AT_ONCE: usize = 16;

/// What a rotation came to.
struct Rotated {
    seconds: f64,
    destinations: usize,
}

/// Publishes for a while, and for the same while with a rotation of all keys.
pub(super) fn rotation(stage: &mut Stage) {
    let mut setup = Setup::uniform("rotation", DESTINATIONS, FANOUT_IN_FLIGHT);
    setup.divide();
    for destination in &mut setup.destinations {
        // New keys are published when no request with the old ones alone can be under way: after this timeout.
        destination.spec = json!({
            "webhook": {"signing": {"previousSecretTTL": "5s"}},
            "delivery": {"timeout": "2s"},
        });
    }
    let names: Vec<&str> = setup
        .destinations
        .iter()
        .map(|destination| destination.name.as_str())
        .collect();
    let (mut quiet, mut rotating, mut whole) = (Series::default(), Series::default(), Series::default());
    stage.ours(stage.round_count().min(ROUNDS), &setup, |stage, running| {
        let Some(kubeconfig) = stage.product.as_ref().map(Product::kubeconfig) else {
            return;
        };
        let mut load = Load::closed(running.target, &running.path, u64::from(u32::MAX));
        (load.types, load.limit) = (DESTINATIONS as u64, SPAN);
        let (rate, ()) = stage.during(running, "rotation", &load, || {
            std::thread::sleep(Duration::from_secs(SPAN));
        });
        quiet.0.push(rate);
        let token = format!("round-{}", quiet.0.len());
        let (rate, rotated) =
            stage.during(running, "rotation", &load, || rotate(&kubeconfig, &names, &token));
        let Rotated {
            seconds,
            destinations,
        } = rotated;
        eprintln!("  {destinations} destinations have new keys after {seconds:.2} s");
        if destinations < DESTINATIONS {
            stage.note(&format!(
                "rotation: {destinations} of {DESTINATIONS} destinations got new keys in time"
            ));
        }
        rotating.0.push(rate);
        whole.0.push(seconds);
    });
    stage.rows.extend([
        Row::alone(
            "Closed loop over 1,000 destinations: deliveries",
            &quiet,
            &Unit::RATE,
        ),
        Row::beside(
            "… while all their signing keys rotate",
            &rotating,
            &quiet,
            "before",
            &Unit::RATE,
        ),
        Row::alone("… until all had new keys", &whole, &Unit::SECONDS),
    ]);
}

/// Asks each destination for new keys and waits until all have them.
fn rotate(kubeconfig: &Path, names: &[&str], token: &str) -> Rotated {
    // A second installation is refused, and that is fine.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("the control plane has one");
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("it is complete");
        let client = kube::Client::try_from(config).expect("it is complete");
        let api: Api<EventDestination> = Api::namespaced(client, NAMESPACE);
        let patch = json!({"metadata": {"annotations": {"postrider.dev/rotate-secret": token}}});
        let (patch, params) = (Patch::Merge(&patch), PatchParams::default());
        let start = Instant::now();
        futures::stream::iter(names)
            .for_each_concurrent(AT_ONCE, async |name| {
                let patched = api.patch(name, &params, &patch).await;
                patched.unwrap_or_else(|error| panic!("{name}: {error}"));
            })
            .await;
        loop {
            let all = api
                .list(&ListParams::default())
                .await
                .expect("the API server answers");
            let has_new = |object: &&EventDestination| {
                let status = object.status.as_ref();
                status.is_some_and(|status| {
                    status.last_handled_rotate_secret.as_deref() == Some(token)
                        && status
                            .last_rotation
                            .as_ref()
                            .is_some_and(|rotation| rotation.reason == "Rotated")
                })
            };
            let destinations = all.iter().filter(has_new).count();
            let passed = start.elapsed();
            if destinations >= names.len() || passed > PATIENCE {
                let seconds = passed.as_secs_f64();
                return Rotated {
                    seconds,
                    destinations,
                };
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    })
}
