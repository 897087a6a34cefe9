//! Reconciles an `EventProject`: publish token, directory, status.
//!
//! A project whose spec does not decode keeps the facts it had, so that a newer version's field does not stop its
//! producer; without such facts nothing can be published to it, and publishers are told to come again.
//!
//! A project that is being deleted is published to until it is gone; only no token is made for it.

use std::collections::{BTreeSet, HashSet};
use std::panic::resume_unwind;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::Store;
use parking_lot::Mutex;
use tokio::task::spawn_blocking;

use super::children::{self, Children};
use super::context::{SLOW_REQUEUE, SOON, Shared};
use super::error::Error;
use super::observed::{Observed, Watched};
use super::references::{Named, Referrer, Seen};
use super::secrets::{self, Ensured, Wanted};
use super::status;
use super::watch::{Sink, wake_referring};
use crate::api::names::TOKEN_SUFFIX;
use crate::api::v1alpha1::{EventDestination, EventProject, EventProjectSpec};
use crate::domain::fault::Faults;
use crate::domain::id::{ObjectKey, Uid};
use crate::domain::project::{Project, ProjectFacts, Token};
use crate::domain::secret::Secret;
use crate::domain::status::{ProjectState, ProjectSummary, project};
use crate::domain::type_rules::TypeRules;
use crate::engine::directory::Kind;

/// Key of the token in its Secret.
pub const TOKEN_KEY: &str = "token";
/// Beginning of every generated token, so that scanners of leaked secrets know it.
const TOKEN_PREFIX: &str = "ptr_";
/// Fewest characters of a token that somebody chose.
const MIN_TOKEN: usize = 16;
/// Most characters of a token.
const MAX_TOKEN: usize = 512;
/// Where a fault of the token Secret is.
const TOKEN_PATH: &str = "status.tokenSecretRef";

/// Name of the Secret that holds a project's publish token.
#[must_use]
pub fn token_secret_name(project: &str) -> String {
    format!("{project}{TOKEN_SUFFIX}")
}

/// What the watch of projects does.
pub(super) struct ProjectSink {
    pub(super) shared: Arc<Shared>,
    pub(super) initial: Arc<Initial>,
}

/// The projects that existed at start and were not reconciled yet: until then their tokens are unknown, and a
/// publisher must not be told that its token is wrong.
#[derive(Default)]
pub(super) struct Initial(Mutex<Waiting>);

#[derive(Default)]
enum Waiting {
    /// The list is not complete, and nothing is reconciled before it is.
    #[default]
    Unlisted,
    /// These are still to be looked at.
    For(HashSet<Uid>),
    /// All were looked at, or are gone.
    Done,
}

impl Initial {
    fn listed(&self, uids: HashSet<Uid>, shared: &Shared) {
        let waiting = &mut *self.0.lock();
        if matches!(waiting, Waiting::Unlisted) {
            *waiting = Waiting::For(uids);
        }
        Self::check(waiting, shared);
    }

    fn settled(&self, uid: &Uid, shared: &Shared) {
        let waiting = &mut *self.0.lock();
        if let Waiting::For(uids) = waiting {
            uids.remove(uid);
        }
        Self::check(waiting, shared);
    }

    fn check(waiting: &mut Waiting, shared: &Shared) {
        if matches!(waiting, Waiting::For(uids) if uids.is_empty()) {
            *waiting = Waiting::Done;
            shared.directory().mark_synced(Kind::Project);
        }
    }
}

impl Sink<EventProject> for ProjectSink {
    fn seen(&self, key: &ObjectKey, uid: &Uid, _: &Observed<EventProject>) {
        let known = self.shared.directory().project(key);
        if known.is_none_or(|known| known.facts.uid != *uid) {
            wake_referring(&self.shared, key);
        }
    }

    fn gone(&self, key: &ObjectKey, uid: &Uid) {
        self.shared.directory().remove_project(key, uid);
        self.shared.references.forget(&Referrer {
            kind: Kind::Project,
            key: key.clone(),
        });
        self.shared.forget(uid);
        self.initial.settled(uid, &self.shared);
        wake_referring(&self.shared, key);
    }

    fn listed(&self, uids: HashSet<Uid>) {
        self.shared.projects_are_listed();
        self.initial.listed(uids, &self.shared);
    }
}

pub(super) async fn reconcile(
    object: Arc<Observed<EventProject>>,
    shared: Arc<Shared>,
    initial: Arc<Initial>,
    destinations: Store<Observed<EventDestination>>,
) -> Result<Action, Error> {
    let uid = object.uid();
    let result = shared
        .reconciling(Kind::Project, uid.clone(), look(&object, &shared, &destinations))
        .await;
    // Also after an error: one project that cannot be looked at must not keep all others waiting.
    if let Some(uid) = uid {
        initial.settled(&uid, &shared);
    }
    result
}

/// What came of looking at a project.
enum State {
    Open,
    Faulty(Faults),
    Undecodable(String),
    Waiting(String),
}

async fn look(
    object: &Observed<EventProject>,
    shared: &Shared,
    destinations: &Store<Observed<EventDestination>>,
) -> Result<Action, Error> {
    let (Some(key), Some(uid)) = (object.key(), object.uid()) else {
        return Err(Error::Nameless);
    };
    let mut names = told_children(object);
    let (state, project_id) = match &object.spec {
        Err(undecodable) => {
            shared.directory().put_unusable(&key, &uid);
            (State::Undecodable(undecodable.error.clone()), None)
        }
        Ok(spec) => {
            let facts = facts(object, spec).ok_or(Error::Nameless)?;
            // The token that was good stays good while the API server cannot be asked; without one, publishers are
            // told that it is not known, also when this look is cut short.
            let before = shared
                .directory()
                .project(&key)
                .filter(|known| known.facts.uid == uid);
            let known = before
                .as_ref()
                .map(|known| known.token.clone())
                .unwrap_or_default();
            let (types, faults) = types(spec, before.as_deref()).await;
            put(shared, &key, &facts, &types, known.clone());
            let (state, token) = match token(object, &key, shared).await {
                Ok(found) => found,
                Err(error) => {
                    if let (Some(message), Token::Unknown) = (error.told(), known) {
                        report(
                            shared,
                            object,
                            &key,
                            &uid,
                            &State::Waiting(message),
                            Some(&facts.id),
                            &names,
                        )
                        .await?;
                    }
                    return Err(error);
                }
            };
            put(shared, &key, &facts, &types, token);
            let mut state = with_faults(state, faults);
            let converged = if object.metadata.deletion_timestamp.is_some() {
                // They go with it; one that went already must not be made again.
                Children::unchanged(names)
            } else {
                children::converge(shared, object, &key, &uid, spec, destinations).await
            };
            names = converged.names;
            state = with_faults(state, converged.faults);
            // What cannot be had is told, and publishing goes on.
            let told = converged.error.as_ref().and_then(children::told);
            state = match (state, told.or(converged.waiting)) {
                (State::Open, Some(message)) => State::Waiting(message),
                (State::Faulty(mut faults), Some(message)) if converged.error.is_some() => {
                    faults.missing(children::PATH, message);
                    State::Faulty(faults)
                }
                (state, _) => state,
            };
            if let Some(error) = converged.error {
                if error.told().is_some() {
                    report(shared, object, &key, &uid, &state, Some(&facts.id), &names).await?;
                }
                return Err(error);
            }
            (state, Some(Arc::clone(&facts.id)))
        }
    };
    let again = report(shared, object, &key, &uid, &state, project_id.as_ref(), &names).await?;
    let usual = if matches!(state, State::Waiting(_)) {
        SOON
    } else {
        SLOW_REQUEUE
    };
    Ok(Action::requeue(again.unwrap_or_else(|| shared.jittered(usual))))
}

/// The children that the status names: what is known before they were looked at.
fn told_children(object: &Observed<EventProject>) -> Vec<String> {
    let status = object.status.as_ref();
    status
        .map(|status| status.notifications.clone())
        .unwrap_or_default()
}

/// The rules of a project's event types, compiled unless they are known, and what is wrong with them.
async fn types(spec: &EventProjectSpec, before: Option<&Project>) -> (Arc<TypeRules>, Faults) {
    let validation = spec.validation.unwrap_or_default();
    let subject = spec.cloud_events_subject.unwrap_or_default();
    if let Some(before) = before
        && before.types.is_of(spec)
        && before.types.is_whole()
    {
        return (Arc::clone(&before.types), Faults::default());
    }
    if spec.event_types.is_empty() {
        let (mut rules, faults) = TypeRules::compile(&[], validation);
        rules.subject = subject;
        return (Arc::new(rules), faults);
    }
    let types = spec.event_types.clone();
    // Many schemas are more work than the threads that wait for the network should do.
    let compiling = spawn_blocking(move || TypeRules::compile(&types, validation));
    let (mut rules, faults) = match compiling.await {
        Ok(compiled) => compiled,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // The process is stopping.
            Err(_) => TypeRules::compile(&spec.event_types, validation),
        },
    };
    rules.subject = subject;
    (Arc::new(rules), faults)
}

/// A state that also has the faults of the event types; what waits is told first.
fn with_faults(state: State, types: Faults) -> State {
    match state {
        state if types.is_empty() => state,
        State::Open => State::Faulty(types),
        State::Faulty(mut faults) => {
            faults.extend(types);
            State::Faulty(faults)
        }
        state @ (State::Undecodable(_) | State::Waiting(_)) => state,
    }
}

fn put(shared: &Shared, key: &ObjectKey, facts: &Arc<ProjectFacts>, types: &Arc<TypeRules>, token: Token) {
    shared.directory().put_project(Project {
        types: Arc::clone(types),
        key: key.clone(),
        facts: Arc::clone(facts),
        token,
    });
}

fn facts(object: &Observed<EventProject>, spec: &EventProjectSpec) -> Option<Arc<ProjectFacts>> {
    let project = EventProject {
        metadata: object.metadata.clone(),
        spec: spec.clone(),
        status: None,
    };
    ProjectFacts::of(&project).map(Arc::new)
}

async fn token(
    object: &Observed<EventProject>,
    key: &ObjectKey,
    shared: &Shared,
) -> Result<(State, Token), Error> {
    let name = token_secret_name(&key.name);
    let referrer = Referrer {
        kind: Kind::Project,
        key: key.clone(),
    };
    shared
        .references
        .begin(&referrer, &BTreeSet::from([Named::secret(&name)]));
    let owner = object.owner_reference();
    let wanted = Wanted {
        namespace: &key.namespace,
        name: &name,
        keys: &[TOKEN_KEY],
        owner: &owner,
        first: object.is_new(),
        ending: object.is_ending(),
    };
    let make = |_: &[&str]| {
        let token = format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(shared.random()));
        secrets::Values::from([(TOKEN_KEY.to_owned(), token)])
    };
    Ok(match secrets::ensure(&shared.client, wanted, make).await? {
        Ensured::Ours(secret) => {
            shared.references.saw(
                &referrer,
                &Named::secret(&name),
                Seen::of(secret.resource_version().as_deref()),
            );
            if let Some(token) = secrets::data(&secret, TOKEN_KEY).and_then(parse) {
                (State::Open, Token::Known(token))
            } else {
                let message = format!(
                    "Secret {name:?} key {TOKEN_KEY:?}: a token is {MIN_TOKEN} to {MAX_TOKEN} visible ASCII \
                     characters; delete the Secret to have a new one made, and give publishers the new token"
                );
                let mut faults = Faults::default();
                faults.invalid(TOKEN_PATH, message);
                (State::Faulty(faults), Token::Unknown)
            }
        }
        Ensured::Foreign => {
            let message =
                format!("Secret {name:?} does not belong to this project; delete it to have one made");
            let mut faults = Faults::default();
            faults.missing(TOKEN_PATH, message);
            (State::Faulty(faults), Token::Unknown)
        }
        Ensured::Missing => (
            State::Waiting(format!(
                "Secret {name:?} is missing, and none is made for a project that is being deleted"
            )),
            Token::Unknown,
        ),
        Ensured::Leftover => (
            State::Waiting(format!(
                "Secret {name:?} of a deleted project of the same name is being removed"
            )),
            Token::Unknown,
        ),
    })
}

fn parse(value: &[u8]) -> Option<Secret<String>> {
    let text = std::str::from_utf8(value).ok()?.trim();
    let fits =
        (MIN_TOKEN..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| Secret::new(text.to_owned()))
}

async fn report(
    shared: &Shared,
    object: &Observed<EventProject>,
    key: &ObjectKey,
    uid: &Uid,
    state: &State,
    project_id: Option<&Arc<str>>,
    children: &[String],
) -> Result<Option<std::time::Duration>, Error> {
    let previous = status::current(shared, object, uid);
    let handled = previous
        .as_ref()
        .and_then(|status| status.last_handled_reconcile_at.as_deref());
    let request = shared.reconcile_request(object, uid, handled);
    let repaired = shared.context.view.store_repaired();
    let base = shared.context.public_url.as_str().trim_end_matches('/');
    let next = project(&ProjectSummary {
        generation: object.generation(),
        state: match state {
            State::Open => ProjectState::Open,
            State::Faulty(faults) => ProjectState::Faulty(faults),
            State::Undecodable(error) => ProjectState::Undecodable(error),
            State::Waiting(message) => ProjectState::Waiting(message),
        },
        ingest_url: &format!(
            "{base}/v1/namespaces/{}/projects/{}/events",
            key.namespace, key.name
        ),
        project_id: project_id.map(AsRef::as_ref),
        token_secret: &token_secret_name(&key.name),
        notifications: children,
        reconcile_request: request.as_deref(),
        store_repaired: repaired.as_deref(),
        previous: previous.as_deref(),
        now: shared.context.clock.now(),
    });
    status::write(shared, object, uid, next, shared.context.counter_interval).await
}

/// What to do after an error.
pub(super) fn after_error<K: Watched>(object: &Observed<K>, error: &Error, shared: &Shared) -> Action {
    shared.after_error(object.uid().as_ref(), error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_that_somebody_chose_are_checked() {
        for (value, good) in [
            ("ptr_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG", true),
            ("0123456789abcdef", true),
            (" 0123456789abcdef\n", true),
            ("short", false),
            ("0123456789 abcdef", false),
            ("0123456789äbcdef!", false),
        ] {
            assert_eq!(parse(value.as_bytes()).is_some(), good, "{value}");
        }
    }
}
