//! Waiting with a bound: a probe is repeated until it succeeds or its time is up.

use std::fmt::{Debug, Display};
use std::time::{Duration, Instant};

use kube::api::Api;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Repeats the probe until it answers `Ok`; panics with its last answer when the time is up.
///
/// The pause between two probes grows from 10 ms to 200 ms. A probe that hangs is cut off at the deadline, too.
#[track_caller]
pub(crate) fn eventually<T, E, F, P>(
    what: &str,
    within: Duration,
    mut probe: P,
) -> impl Future<Output = T> + use<'_, T, E, F, P>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
    P: FnMut() -> F,
{
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        let mut pause = Duration::from_millis(10);
        let mut last = "the probe never answered".to_owned();
        loop {
            let left = within.saturating_sub(start.elapsed());
            match tokio::time::timeout(left, probe()).await {
                Ok(Ok(value)) => return value,
                Ok(Err(problem)) => last = problem.to_string(),
                Err(_) => {}
            }
            assert!(
                start.elapsed() < within,
                "{caller}: not within {within:?}: {what}: {last}"
            );
            tokio::time::sleep(pause.min(within.saturating_sub(start.elapsed()))).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(200));
        }
    }
}

/// Waits until something holds that costs nothing to look at, at most 10 seconds.
#[track_caller]
pub(crate) fn until<F: Fn() -> bool>(holds: F) -> impl Future<Output = ()> + use<F> {
    let caller = std::panic::Location::caller();
    async move {
        let start = Instant::now();
        while !holds() {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "{caller}: what is waited for here did not come within 10 s"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Waits until the object's status condition has the wanted status (`True`, `False`, `Unknown`); returns the object.
///
/// A condition that was computed for an older generation of the spec does not count.
#[track_caller]
pub(crate) fn await_condition<'a, K>(
    api: &'a Api<K>,
    name: &'a str,
    condition: &'a str,
    status: &'a str,
    within: Duration,
) -> impl Future<Output = K> + use<'a, K>
where
    K: Clone + Debug + DeserializeOwned + serde::Serialize,
{
    let what = format!("{name}: {condition}={status}");
    let caller = std::panic::Location::caller();
    async move {
        let probe = || async {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            let json = serde_json::to_value(&object).map_err(|error| error.to_string())?;
            if has_condition(&json, condition, status) {
                Ok(object)
            } else {
                Err(format!("{caller}: status is {:#}", json["status"]))
            }
        };
        eventually(&what, within, probe).await
    }
}

fn has_condition(object: &Value, condition: &str, status: &str) -> bool {
    let generation = object["metadata"]["generation"].as_i64();
    object["status"]["conditions"]
        .as_array()
        .is_some_and(|conditions| {
            conditions.iter().any(|entry| {
                let observed = entry["observedGeneration"].as_i64();
                entry["type"] == condition
                    && entry["status"] == status
                    && (observed.is_none() || generation.is_none() || observed == generation)
            })
        })
}
