//! Many destinations, of which every tenth is broken, in one of four ways.
//!
//! `POSTRIDER_DESTINATIONS` sets how many (200).

use std::collections::HashMap;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Api, ListParams, PostParams};
use postrider::api::v1alpha1::EventDestination;
use serde_json::{Value, json};

use crate::support::{Manner, Stage, condition, eventually};

/// One of so many is broken.
const BROKEN: usize = 10;
const EVENTS: usize = 3;
/// Objects that are made at once.
const AT_ONCE: usize = 16;

/// How a destination is broken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    Fails,
    Hangs,
    IsBusy,
    LacksItsSecret,
}

impl Fault {
    /// The fault of a number, if it has one.
    fn of(number: usize) -> Option<Self> {
        let faults = [Self::Fails, Self::Hangs, Self::IsBusy, Self::LacksItsSecret];
        number
            .is_multiple_of(BROKEN)
            .then(|| faults[number / BROKEN % faults.len()])
    }

    fn manner(self) -> Option<Manner> {
        match self {
            Self::Fails => Some(Manner::Status(500)),
            Self::Hangs => Some(Manner::Hang),
            Self::IsBusy => Some(Manner::Status(429)),
            Self::LacksItsSecret => None,
        }
    }

    /// The condition that tells it, and the reason.
    const fn told(self) -> (&'static str, &'static str) {
        match self {
            Self::Fails => ("Delivering", "ServerError"),
            Self::Hangs => ("Delivering", "Timeout"),
            Self::IsBusy => ("Delivering", "TooManyRequests"),
            Self::LacksItsSecret => ("Ready", "ReferenceMissing"),
        }
    }
}

fn all() -> usize {
    std::env::var("POSTRIDER_DESTINATIONS").map_or(200, |text| {
        text.parse().expect("POSTRIDER_DESTINATIONS is a number")
    })
}

fn path(number: usize) -> String {
    format!("/d{number}")
}

fn destination(stage: &Stage, number: usize) -> EventDestination {
    let url = stage.receiver.url(&path(number));
    let webhook = match Fault::of(number) {
        Some(Fault::LacksItsSecret) => {
            json!({"urlFrom": {"secretKeyRef": {"name": "places", "key": format!("d{number}")}}})
        }
        _ => json!({"url": url}),
    };
    let object = json!({
        "apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination",
        "metadata": {"name": format!("d{number}")},
        "spec": {
            "events": ["x"], "webhook": webhook, "autoDisable": {"enabled": false},
            "delivery": {"timeout": "5s", "retry": {"schedule": ["5s"], "maxAttempts": 100}},
        },
    });
    serde_json::from_value(object).expect("the object has the form of its type")
}

/// Status of each destination by number.
async fn statuses(api: &Api<EventDestination>) -> Result<HashMap<usize, Value>, String> {
    let listed = api
        .list(&ListParams::default())
        .await
        .map_err(|error| error.to_string())?;
    let status = |object: EventDestination| {
        let number = object
            .metadata
            .name
            .as_deref()
            .and_then(|name| name.strip_prefix('d'));
        let number = number
            .and_then(|number| number.parse().ok())
            .expect("all have a number");
        (number, json!({"status": object.status}))
    };
    Ok(listed.items.into_iter().map(status).collect())
}

/// How long everything may take.
fn patience() -> Duration {
    Duration::from_secs(60) + Duration::from_millis(30) * u32::try_from(all()).unwrap()
}

/// Waits until each destination has a status as wanted.
async fn until_all(
    what: &str,
    api: &Api<EventDestination>,
    numbers: impl Iterator<Item = usize> + Clone,
    is_right: impl Fn(usize, &Value) -> bool,
) {
    eventually(what, patience(), async || {
        let statuses = statuses(api).await?;
        let mut wrong = numbers
            .clone()
            .filter(|number| !is_right(*number, &statuses[number]));
        match wrong.next() {
            None => Ok(()),
            Some(number) => Err(format!("{} and {} more", statuses[&number], wrong.count())),
        }
    })
    .await;
}

/// Ids of the events that each path has taken, in order.
fn taken(stage: &Stage) -> HashMap<String, Vec<String>> {
    let mut taken: HashMap<String, Vec<String>> = HashMap::new();
    for request in stage.receiver.accepted() {
        let id = request.header("webhook-id").to_owned();
        taken.entry(request.path).or_default().push(id);
    }
    for ids in taken.values_mut() {
        ids.sort_unstable();
    }
    taken
}

/// Waits until each of these has taken every event, once.
async fn until_taken(
    what: &str,
    stage: &Stage,
    numbers: impl Iterator<Item = usize> + Clone,
    ids: &[String],
) {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    eventually(what, patience(), async || {
        let taken = taken(stage);
        let mut others = numbers
            .clone()
            .filter(|number| taken.get(&path(*number)) != Some(&ids));
        match others.next() {
            None => Ok(()),
            Some(number) => Err(format!(
                "{number} took {:?}, and {} more differ",
                taken.get(&path(number)),
                others.count()
            )),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_broken_destinations_disturb_no_other_are_told_by_reason_and_lose_nothing() {
    let stage = Stage::set("many").await;
    let api: Api<EventDestination> = stage.namespace.api();
    for (number, fault) in (0..all()).filter_map(|number| Some((number, Fault::of(number)?))) {
        if let Some(manner) = fault.manner() {
            stage.receiver.answer(&path(number), manner);
        }
    }
    stream::iter(0..all())
        .map(|number| {
            let (api, object) = (api.clone(), destination(&stage, number));
            async move { api.create(&PostParams::default(), &object).await }
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(async |_| Ok(()))
        .await
        .expect("all can be made");
    let broken = (0..all()).filter(|number| Fault::of(*number).is_some());
    let well = (0..all()).filter(|number| Fault::of(*number).is_none());
    let is_ready = |number: usize, object: &Value| {
        let expected = if Fault::of(number) == Some(Fault::LacksItsSecret) {
            "False"
        } else {
            "True"
        };
        condition(object, "Ready")["status"] == expected
    };
    until_all("all are looked at", &api, 0..all(), is_ready).await;

    let mut ids = Vec::new();
    for _ in 0..EVENTS {
        ids.push(stage.publish("x", &json!({})).await);
    }
    until_taken("those that work get all", &stage, well.clone(), &ids).await;
    let is_told = |number: usize, object: &Value| {
        Fault::of(number).is_some_and(|fault| {
            let (kind, reason) = fault.told();
            let told = condition(object, kind);
            told["status"] == "False" && told["reason"] == reason
        })
    };
    until_all("the others say why not", &api, broken.clone(), is_told).await;

    // While they fail, whoever works gets the next event.
    ids.push(stage.publish("x", &json!({})).await);
    until_taken("those that work get one more", &stage, well, &ids).await;

    let lacking = broken
        .clone()
        .filter(|number| Fault::of(*number) == Some(Fault::LacksItsSecret));
    let places: HashMap<_, _> = lacking
        .map(|number| (format!("d{number}"), stage.receiver.url(&path(number))))
        .collect();
    stage.apply(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "places"}, "stringData": places}),
    );
    for number in broken.clone() {
        stage.receiver.answer(&path(number), Manner::Status(200));
    }
    until_taken("all are mended", &stage, 0..all(), &ids).await;
    let is_empty = |_: usize, object: &Value| {
        let delivery = &object["status"]["delivery"];
        delivery["delivered"] == ids.len() && delivery["pending"] == 0 && delivery["exhausted"] == 0
    };
    until_all("their statuses follow", &api, 0..all(), is_empty).await;
}
