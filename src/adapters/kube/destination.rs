//! Reconciles an `EventDestination`: Secrets and ConfigMaps, validation, directory, status.
//!
//! Most reconciles only follow deliveries: then what was validated before is used again, and nothing is read from
//! the API server. When it cannot be asked, a configuration that is in force stays in force.
//!
//! A destination whose spec no longer decodes keeps the subscription it had, so that what it wanted is parked. When
//! the process has not seen it decode, what can be read of the subscription counts: in the worst case none of it.
//!
//! A destination that is being deleted works on until it is gone. Its generation rises with the deletion, so it is
//! looked at as after any change; only no Secret is made for it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;

use super::config_maps;
use super::context::{SLOW_REQUEUE, SOON, Shared};
use super::dead_letters;
use super::error::Error;
use super::observed::Observed;
use super::ownership;
use super::references::{Named, Referrer, Seen};
use super::replays;
use super::secrets::{self, Ensured};
use super::signing;
use super::status;
use super::trigger::object_ref;
use super::watch::Sink;
use crate::adapters::installation::Changes;
use crate::api::v1alpha1::{EventDestination, EventDestinationSpec, EventDestinationStatus, EventProject};
use crate::domain::destination::{
    Destination, Holder, INSTALLATION, Identity, Reference, References, SigningKeyRef, Subscription,
    generated_secret_name, signing_key_refs, value_references,
};
use crate::domain::fault::Faults;
use crate::domain::id::{ObjectKey, Uid};
use crate::domain::secret::Secret;
use crate::domain::status::{Configuration, Delivery, DestinationFacts, destination, unanswered_test};
use crate::domain::test_send::{INVALID_REQUEST, NOT_READY, TestRequest, TestResult};
use crate::engine::directory::{Entry, EntryState, Kind};
use crate::engine::view::LaneView;

/// What the watch of destinations does.
pub(super) struct DestinationSink {
    pub(super) shared: Arc<Shared>,
}

impl Sink<EventDestination> for DestinationSink {
    fn seen(&self, key: &ObjectKey, uid: &Uid, object: &Observed<EventDestination>) {
        self.shared.children.seen(&self.shared, key, uid, object);
        let directory = self.shared.directory();
        let generation = object.generation();
        let known = directory.destination(uid);
        if known
            .as_ref()
            .is_some_and(|entry| entry.identity.generation >= generation)
        {
            return;
        }
        let identity = Identity {
            key: key.clone(),
            uid: uid.clone(),
            generation,
        };
        directory.put_destination(entry(&self.shared, object, identity, EntryState::NotReady));
        if known.is_none() {
            look_at_senders(&self.shared, key);
        }
    }

    fn gone(&self, key: &ObjectKey, uid: &Uid) {
        self.shared.directory().remove_destination(uid);
        self.shared.children.gone(&self.shared, key, uid);
        self.shared.references.forget(&referrer(key));
        self.shared.forget(uid);
        self.shared.dead_letters.names(key, None);
        look_at_senders(&self.shared, key);
    }

    fn listed(&self, _: HashSet<Uid>) {
        self.shared.directory().mark_synced(Kind::Destination);
        self.shared.mark_destinations_listed();
        self.shared.children.listed(&self.shared);
    }
}

/// Has those destinations looked at that send another their dead letters, because it is new or gone.
fn look_at_senders(shared: &Shared, key: &ObjectKey) {
    for sender in shared.dead_letters.naming(key) {
        shared.destination_triggers.push(sender);
    }
}

fn entry(
    shared: &Shared,
    object: &Observed<EventDestination>,
    identity: Identity,
    state: EntryState,
) -> Entry {
    let subscription = match &object.spec {
        Ok(spec) => {
            let subscription = Subscription::of(spec);
            shared.wants(&identity, &subscription);
            subscription
        }
        Err(bad) => shared.wanted(&identity.uid).unwrap_or_else(|| {
            Subscription::lenient(bad.project.as_deref(), bad.events.iter().map(String::as_str))
        }),
    };
    Entry {
        identity,
        subscription,
        state,
        enable_request: object.enable_request().map(ToOwned::to_owned),
    }
}

fn referrer(key: &ObjectKey) -> Referrer {
    Referrer {
        kind: Kind::Destination,
        key: key.clone(),
    }
}

/// What came of looking at a destination.
enum State {
    InForce(Arc<Destination>),
    Faulty(Faults),
    Undecodable(String),
    Waiting(String),
    Unproved(ownership::Missing),
}

pub(super) async fn reconcile(
    object: Arc<Observed<EventDestination>>,
    shared: Arc<Shared>,
    projects: Store<Observed<EventProject>>,
) -> Result<Action, Error> {
    shared
        // Boxed: it holds much, and there is one for each destination that is looked at.
        .reconciling(
            Kind::Destination,
            object.uid(),
            Box::pin(look(&object, &shared, &projects)),
        )
        .await
}

async fn look(
    object: &Observed<EventDestination>,
    shared: &Shared,
    projects: &Store<Observed<EventProject>>,
) -> Result<Action, Error> {
    let (Some(key), Some(uid)) = (object.key(), object.uid()) else {
        return Err(Error::Nameless);
    };
    let identity = Identity {
        key,
        uid,
        generation: object.generation(),
    };
    let state = match &object.spec {
        Err(undecodable) => State::Undecodable(undecodable.error.clone()),
        Ok(spec) => match prepare(object, &identity, spec, shared, projects).await {
            Ok(state) => state,
            Err(error) => {
                if in_force(shared, &identity).is_none()
                    && let Some(message) = error.told()
                {
                    report(
                        shared,
                        object,
                        &identity,
                        &State::Waiting(message),
                        shared.context.counter_interval,
                    )
                    .await?;
                }
                return Err(error);
            }
        },
    };
    let directory_state = match &state {
        State::InForce(destination) => EntryState::Ready(Arc::clone(destination)),
        _ => EntryState::NotReady,
    };
    if !publish(shared, entry(shared, object, identity.clone(), directory_state)) {
        return Ok(Action::await_change());
    }
    let keys_due = match state {
        State::InForce(_) => signing::in_force(&identity.uid, shared),
        _ => None,
    };
    let again = report(shared, object, &identity, &state, shared.context.counter_interval).await?;
    let usual = match &state {
        State::Waiting(_) => SOON,
        State::Unproved(missing) => missing.again.unwrap_or(SLOW_REQUEUE),
        _ => SLOW_REQUEUE,
    };
    let again = again.unwrap_or_else(|| shared.jittered(usual));
    Ok(Action::requeue(keys_due.map_or(again, |due| again.min(due))))
}

/// Puts an entry into the directory unless it is there already; whether the object still exists in this generation.
fn publish(shared: &Shared, entry: Entry) -> bool {
    let same = shared
        .directory()
        .destination(&entry.identity.uid)
        .is_some_and(|known| {
            let same_state = match (&known.state, &entry.state) {
                (EntryState::Ready(known), EntryState::Ready(new)) => Arc::ptr_eq(known, new),
                (EntryState::NotReady, EntryState::NotReady) => true,
                _ => false,
            };
            same_state
                && known.identity == entry.identity
                && known.subscription == entry.subscription
                && known.enable_request == entry.enable_request
        });
    same || shared.directory().put_destination(entry)
}

/// The validated destination of that generation, if it is in force.
fn in_force(shared: &Shared, identity: &Identity) -> Option<Arc<Destination>> {
    let entry = shared.directory().destination(&identity.uid)?;
    let same = entry.identity.generation == identity.generation;
    entry.ready().filter(|_| same).cloned()
}

async fn prepare(
    object: &Observed<EventDestination>,
    identity: &Identity,
    spec: &EventDestinationSpec,
    shared: &Shared,
    projects: &Store<Observed<EventProject>>,
) -> Result<State, Error> {
    let referrer = referrer(&identity.key);
    shared.wait_for_projects().await;
    let missing_project = spec.project_ref.as_ref().filter(|project| {
        let key = ObjectKey::new(&identity.key.namespace, &project.name);
        projects.get(&object_ref(&key)).is_none()
    });
    let dead_letters = dead_letters::target(&identity.key, spec);
    // Before it is looked for, so that it does not come unnoticed.
    shared.dead_letters.names(&identity.key, dead_letters.as_ref());
    if dead_letters.is_some() {
        shared.wait_for_destinations().await;
    }
    let missing_target = dead_letters.filter(|target| shared.directory().destination_named(target).is_none());
    if missing_project.is_none()
        && missing_target.is_none()
        && shared.references.is_current(&referrer)
        && !shared.is_due(&identity.uid)
        && !signing::is_due(
            object,
            status::current(shared, object, &identity.uid).as_deref(),
            &identity.uid,
            shared,
        )
        && let Some(destination) = in_force(shared, identity)
    {
        return Ok(State::InForce(destination));
    }
    let mut faults = Faults::default();
    if let Some(project) = missing_project {
        let message = format!(
            "EventProject {:?} does not exist in this namespace; create it",
            project.name
        );
        faults.missing("spec.projectRef.name", message);
    }
    if let Some(target) = missing_target {
        let message = format!(
            "EventDestination {:?} does not exist in this namespace; create it, or remove this; events wait",
            target.name
        );
        faults.missing("spec.delivery.deadLetter.name", message);
    }
    let signatures = signing_key_refs(&identity.key.name, spec);
    let generated: Vec<&SigningKeyRef> = signatures.iter().filter(|one| one.generated).collect();
    let wanted = value_references(&identity.key.name, spec);
    let (installed, wanted): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|(_, key)| key.name == INSTALLATION);
    let names: BTreeSet<Named> = wanted.iter().map(|(_, of)| of.into()).collect();
    shared.references.begin(&referrer, &names);
    let mut found: HashMap<String, Option<KubeSecret>> = HashMap::new();
    let mut is_foreign = false;
    if let Some(first) = generated.first() {
        let name = generated_secret_name(&identity.key.name);
        match signing::ensure(object, identity, &name, &generated, shared).await? {
            Ensured::Ours(secret) => {
                found.insert(name, Some(*secret));
            }
            Ensured::Missing => {
                return Ok(State::Waiting(format!(
                    "Secret {name:?} is missing, and none is made for a destination that is being deleted; events wait"
                )));
            }
            Ensured::Foreign => {
                let message = format!(
                    "Secret {name:?} does not belong to this destination; delete it to have one made, or name it here"
                );
                faults.missing(first.field(), message);
                is_foreign = true;
            }
            Ensured::Leftover => {
                let message =
                    format!("Secret {name:?} of a deleted destination of the same name is being removed");
                return Ok(State::Waiting(message));
            }
        }
    }
    let others: Vec<_> = of_kind(Holder::Secret, &names)
        .filter(|name| !found.contains_key(*name))
        .collect();
    let reads = others.into_iter().map(async |name| {
        let secret = secrets::read(&shared.client, &identity.key.namespace, name).await?;
        Ok::<_, Error>((name.to_owned(), secret))
    });
    found.extend(try_join_all(reads).await?);
    let reads = of_kind(Holder::ConfigMap, &names).map(async |name| {
        let config_map = config_maps::read(&shared.client, &identity.key.namespace, name).await?;
        Ok::<_, Error>((name.to_owned(), config_map))
    });
    let config_maps: HashMap<_, _> = try_join_all(reads).await?.into_iter().collect();
    for named in &names {
        let version = match named.holder {
            Holder::Secret => version(&found, &named.name),
            Holder::ConfigMap => version(&config_maps, &named.name),
        };
        let seen = version.map_or(Seen::Missing, |version| Seen::of(Some(&version)));
        shared.references.saw(&referrer, named, seen);
    }
    let mut references: References = wanted
        .into_iter()
        .map(|(_, of)| {
            let value = match of.holder {
                Holder::Secret => value(&found, &of.name, |secret| secrets::data(secret, &of.key)),
                Holder::ConfigMap => value(&config_maps, &of.name, |object| {
                    config_maps::data(object, &of.key)
                }),
            };
            (of, value)
        })
        .collect();
    if !installed.is_empty() {
        let found = shared.context.installation.references();
        let found = installed
            .into_iter()
            .filter_map(|(_, of)| Some((found.get(&of)?.clone(), of)));
        references.extend(found.map(|(found, of)| (of, found)));
    }
    if is_foreign {
        signing::stand_in(&generated, &mut references, shared);
    }
    let validated = Destination::try_from_spec(identity.clone(), spec, &references, &shared.context.egress);
    let state = match validated {
        Ok(mut destination) if faults.is_empty() => {
            let keys = signing::hold(object, identity, &signatures, &found, &mut destination, shared).await?;
            if keys.is_empty() {
                let status = status::current(shared, object, &identity.uid);
                match ownership::establish(object, status.as_deref(), &mut destination, shared) {
                    Ok(()) => State::InForce(Arc::new(destination)),
                    Err(missing) => State::Unproved(missing),
                }
            } else {
                State::Faulty(keys)
            }
        }
        Ok(_) => State::Faulty(faults),
        Err(others) => {
            faults.extend(others);
            State::Faulty(faults)
        }
    };
    shared.references.complete(&referrer);
    shared.read_anew(&identity.uid);
    Ok(state)
}

fn of_kind(holder: Holder, names: &BTreeSet<Named>) -> impl Iterator<Item = &str> {
    let those = names.iter().filter(move |named| named.holder == holder);
    those.map(|named| named.name.as_str())
}

/// The version in which an object was read; `None`: there is none.
fn version<K: kube::Resource>(found: &HashMap<String, Option<K>>, name: &str) -> Option<String> {
    let object = found.get(name)?.as_ref()?;
    // The API server gives every object one.
    Some(object.meta().resource_version.clone().unwrap_or_default())
}

fn value<K>(
    found: &HashMap<String, Option<K>>,
    name: &str,
    data: impl FnOnce(&K) -> Option<&[u8]>,
) -> Reference {
    match found.get(name) {
        Some(Some(object)) => match data(object) {
            Some(value) => Reference::Found(Secret::new(value.to_vec())),
            None => Reference::NoKey,
        },
        Some(None) | None => Reference::NoObject,
    }
}

async fn report(
    shared: &Shared,
    object: &Observed<EventDestination>,
    identity: &Identity,
    state: &State,
    spacing: Duration,
) -> Result<Option<Duration>, Error> {
    let uid = &identity.uid;
    let previous = status::current(shared, object, uid);
    let view = shared.context.view.view(uid);
    let signing = object
        .spec
        .as_ref()
        .ok()
        .and_then(|spec| signing_key_refs(&identity.key.name, spec).into_iter().next())
        .map(|signing| signing.key);
    let test = test(shared, object, previous.as_deref(), state);
    if matches!(state, State::Faulty(_) | State::Undecodable(_)) {
        signing::refuse(object, previous.as_deref(), uid, shared);
    }
    let (signatures, rotation) = signing::told(uid, previous.as_deref(), shared);
    let handled = previous
        .as_ref()
        .and_then(|status| status.last_handled_reconcile_at.as_deref());
    let request = shared.reconcile_request(object, uid, handled);
    let replay = replays::result(shared, object, uid, previous.as_deref());
    let next = destination(&DestinationFacts {
        generation: identity.generation,
        configuration: match state {
            State::InForce(destination) => Configuration::InForce(destination),
            State::Faulty(faults) => Configuration::Faulty(faults),
            State::Undecodable(error) => Configuration::Undecodable(error),
            State::Waiting(message) => Configuration::Waiting(message),
            State::Unproved(missing) => Configuration::Unproved {
                refused: missing.refused,
                message: &missing.message,
            },
        },
        signing_secret: signing.as_ref(),
        delivery: view.as_ref().map(delivery),
        test: test.as_ref(),
        signatures: &signatures,
        rotation: rotation.as_ref(),
        replay: replay.as_ref(),
        reconcile_request: request.as_deref(),
        previous: previous.as_deref(),
        now: shared.context.clock.now(),
    });
    let again = status::write(shared, object, uid, next, spacing).await?;
    replays::start(shared, object, uid);
    Ok(again)
}

/// Has a destination looked at again whose SMTP server or proxy is the installation's, which has changed.
pub(super) fn installation_changed(object: &Observed<EventDestination>, changes: Changes, shared: &Shared) {
    let Ok(spec) = &object.spec else { return };
    let email = spec.email.as_ref().is_some_and(|email| email.smtp_ref.is_none());
    let webhook = spec
        .webhook
        .as_ref()
        .is_some_and(|webhook| webhook.proxy.is_none());
    let concerns = (changes.smtp && email) || (changes.proxy && webhook);
    if let Some(key) = object.key().filter(|_| concerns) {
        shared.references.outdate(&referrer(&key));
        shared.destination_triggers.push(key);
    }
}

/// Answers a test that was asked for, or has it made; its end triggers another reconcile.
fn test(
    shared: &Shared,
    object: &Observed<EventDestination>,
    previous: Option<&EventDestinationStatus>,
    state: &State,
) -> Option<TestResult> {
    let asked = unanswered_test(object.test_request(), previous)?;
    let not_sent = |reason, message: &str| {
        let now = shared.context.clock.now();
        Some(TestResult::not_sent(asked, reason, message, now))
    };
    match (TestRequest::parse(asked), state) {
        (Err(fault), _) => not_sent(INVALID_REQUEST, &fault),
        (Ok(request), State::InForce(destination)) => shared.context.tester.test(destination, &request),
        (Ok(_), State::Unproved(_)) => not_sent(
            NOT_READY,
            "the receiver has not proved that it wants events; condition Ready says how that stands",
        ),
        (Ok(_), State::Faulty(_) | State::Undecodable(_)) => not_sent(
            NOT_READY,
            "the configuration is not in force; mend what condition Ready says and ask again",
        ),
        (Ok(_), State::Waiting(_)) => None,
    }
}

/// Whether the numbers of deliveries are others than the status says.
pub(super) fn has_moved(object: &Observed<EventDestination>, shared: &Shared) -> bool {
    let Some((uid, view)) = object
        .uid()
        .and_then(|uid| Some((uid.clone(), shared.context.view.view(&uid)?)))
    else {
        return false;
    };
    let status = status::current(shared, object, &uid);
    let told = status.as_ref().and_then(|status| status.delivery.as_ref());
    told.is_none_or(|told| delivery(&view).has_moved(told))
}

fn delivery(view: &LaneView) -> Delivery<'_> {
    Delivery {
        health: &view.health,
        pending: view.depth.pending,
        parked: view.parked,
        next_attempt: view.next_attempt,
        waiting_for: view.waiting_for,
    }
}

/// Writes the last numbers when the process stops, whatever the interval says.
pub(super) async fn write_last(object: &Observed<EventDestination>, shared: &Shared) {
    let (Some(key), Some(uid)) = (object.key(), object.uid()) else {
        return;
    };
    let identity = Identity {
        key,
        uid,
        generation: object.generation(),
    };
    let Some(destination) = in_force(shared, &identity) else {
        return;
    };
    let written = report(
        shared,
        object,
        &identity,
        &State::InForce(destination),
        Duration::ZERO,
    )
    .await;
    if let Err(error) = written {
        tracing::debug!(%error, destination.name = &*identity.key.name, "the last status was not written");
    }
}
