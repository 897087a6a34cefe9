//! What a reconcile needs, and what the controllers remember between two of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use kube::runtime::controller::Action;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::children::Seen;
use super::dead_letters::DeadLetters;
use super::error::{Class, Error, backoff};
use super::metrics::KubeMetrics;
use super::notices::Notices;
use super::observed::{Observed, Watched};
use super::references::References;
use super::signing::Held;
use super::trigger::Triggers;
use crate::adapters::installation::Installation;
use crate::domain::destination::{Identity, Subscription};
use crate::domain::egress::EgressPolicy;
use crate::domain::id::{ObjectKey, Uid};
use crate::domain::reconcile_request::Requests;
use crate::domain::retry;
use crate::domain::secret::Secret;
use crate::engine::clock::Clock;
use crate::engine::directory::{Directory, Kind};
use crate::engine::prover::Prover;
use crate::engine::replayer::Replayer;
use crate::engine::tester::Tester;
use crate::engine::view::DeliveryView;

/// Longest time for one reconcile.
const DEADLINE: Duration = Duration::from_secs(30);
/// Each object is looked at again after about this long, whatever happens.
pub(super) const SLOW_REQUEUE: Duration = Duration::from_secs(600);
/// An object that waits for something is looked at again after about this long, should nothing tell.
pub(super) const SOON: Duration = Duration::from_secs(5);
/// An object's Secrets are read again after this long, whatever the watch says.
const FULL_AFTER: Duration = Duration::from_secs(540);

/// Fills 32 bytes with randomness that nobody can guess.
pub type Random = Arc<dyn Fn(&mut [u8; 32]) + Send + Sync>;

/// What the controllers are made of.
#[derive(Clone)]
pub struct Context {
    /// Is filled with projects and destinations.
    pub directory: Arc<Directory>,
    /// Says how deliveries are doing.
    pub view: Arc<dyn DeliveryView>,
    /// Makes test sends.
    pub tester: Arc<dyn Tester>,
    /// Asks receivers whether they want the events.
    pub prover: Arc<dyn Prover>,
    /// Key of the seals of their proofs.
    pub seal: Secret<[u8; 32]>,
    /// Makes replays.
    pub replayer: Arc<dyn Replayer>,
    /// Base of the publish URL that projects show.
    pub public_url: url::Url,
    /// Says what time it is.
    pub clock: Arc<dyn Clock>,
    /// Makes publish tokens and signing keys; see [`super::system_random`].
    pub random: Random,
    /// Where requests may go.
    pub egress: EgressPolicy,
    /// The SMTP server and the proxy of destinations that name none.
    pub installation: Arc<Installation>,
    /// Counts.
    pub metrics: KubeMetrics,
    /// The one namespace to look after; `None`: all.
    pub namespace: Option<String>,
    /// Counters of one object's status are written at most once per interval; see [`super::COUNTER_INTERVAL`].
    pub counter_interval: Duration,
    /// Name of this process in Kubernetes Events, such as the pod's.
    pub instance: Option<String>,
}

/// What reconciles share.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) context: Context,
    pub(super) references: References,
    pub(super) notices: Notices,
    pub(super) project_triggers: Arc<Triggers>,
    pub(super) destination_triggers: Arc<Triggers>,
    /// The destinations that belong to projects.
    pub(super) children: Seen,
    /// Which destinations get what others give up.
    pub(super) dead_letters: DeadLetters,
    /// Whether every project there is has been seen.
    projects_listed: watch::Sender<bool>,
    /// The same for destinations.
    destinations_listed: watch::Sender<bool>,
    memories: Mutex<HashMap<Uid, Memory>>,
}

/// What is remembered of one object.
#[derive(Default)]
struct Memory {
    failures: u32,
    /// What is known of a destination's signing keys.
    signing: Held,
    /// The requests to reconcile that it has carried.
    requests: Requests,
    /// What a destination wanted when its spec last decoded, and in which generation.
    subscription: Option<(i64, Subscription)>,
    /// When everything was last read anew.
    full: Option<Instant>,
    /// The last status written, when, and the version of the object it was computed from.
    written: Option<(Instant, Option<String>, Arc<dyn std::any::Any + Send + Sync>)>,
}

impl Shared {
    pub(super) fn new(client: Client, context: Context, notices: Notices) -> Self {
        Self {
            client,
            context,
            references: References::default(),
            notices,
            project_triggers: Arc::default(),
            destination_triggers: Arc::default(),
            children: Seen::default(),
            dead_letters: DeadLetters::default(),
            projects_listed: watch::Sender::default(),
            destinations_listed: watch::Sender::default(),
            memories: Mutex::default(),
        }
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.context.directory
    }

    pub(super) fn projects_are_listed(&self) {
        self.projects_listed.send_replace(true);
    }

    /// Waits until the store of projects is complete.
    ///
    /// `Store::wait_until_ready` cannot be used for this: of several that wait at the same time, and the controller of
    /// projects is one, it wakes only the last.
    pub(super) async fn wait_for_projects(&self) {
        // The sender is in `self`, so that it cannot be gone.
        let _ = self.projects_listed.subscribe().wait_for(|listed| *listed).await;
    }

    pub(super) fn mark_destinations_listed(&self) {
        self.destinations_listed.send_replace(true);
    }

    /// Whether the store of destinations is complete.
    pub(super) fn destinations_are_listed(&self) -> bool {
        *self.destinations_listed.borrow()
    }

    /// Waits until it is; see [`Self::wait_for_projects`].
    pub(super) async fn wait_for_destinations(&self) {
        let _ = self
            .destinations_listed
            .subscribe()
            .wait_for(|listed| *listed)
            .await;
    }

    pub(super) fn trigger(&self, kind: Kind, key: ObjectKey) {
        match kind {
            Kind::Project => self.project_triggers.push(key),
            Kind::Destination => self.destination_triggers.push(key),
        }
    }

    /// 32 random bytes.
    pub(super) fn random(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        (self.context.random)(&mut bytes);
        bytes
    }

    /// Runs one reconcile within its deadline; counts it and remembers failures in a row.
    pub(super) async fn reconciling(
        &self,
        kind: Kind,
        uid: Option<Uid>,
        work: impl Future<Output = Result<Action, Error>>,
    ) -> Result<Action, Error> {
        let start = Instant::now();
        let result = timeout(DEADLINE, work).await.unwrap_or(Err(Error::Timeout));
        let (outcome, reason) = match &result {
            Ok(_) => ("ok", ""),
            Err(error) => ("error", error.reason()),
        };
        self.context
            .metrics
            .reconciled(kind, outcome, reason, start.elapsed());
        if let Some(uid) = uid {
            self.remember(&uid, |memory| {
                memory.failures = if result.is_ok() {
                    0
                } else {
                    memory.failures.saturating_add(1)
                };
            });
        }
        result
    }

    /// What to do after an error.
    pub(super) fn after_error(&self, uid: Option<&Uid>, error: &Error) -> Action {
        match error.class() {
            Class::Transient => {
                let failures =
                    uid.and_then(|uid| self.memories.lock().get(uid).map(|memory| memory.failures));
                Action::requeue(self.jittered(backoff(failures.unwrap_or(1))))
            }
            Class::Terminal => Action::await_change(),
        }
    }

    pub(super) fn jittered(&self, wait: Duration) -> Duration {
        let [byte, ..] = self.random();
        retry::jittered(wait, f64::from(byte) / 256.0)
    }

    /// Whether everything that an object refers to must be read anew, because it has not been for long.
    pub(super) fn is_due(&self, uid: &Uid) -> bool {
        let memories = self.memories.lock();
        memories
            .get(uid)
            .and_then(|memory| memory.full)
            .is_none_or(|at| at.elapsed() >= FULL_AFTER)
    }

    /// What is remembered of a destination's signing keys.
    pub(super) fn signing<T>(&self, uid: &Uid, look: impl FnOnce(&mut Held) -> T) -> T {
        look(&mut self.memories.lock().entry(uid.clone()).or_default().signing)
    }

    /// The request to reconcile that is echoed; `handled` is the one that was last.
    pub(super) fn reconcile_request<K: Watched>(
        &self,
        object: &Observed<K>,
        uid: &Uid,
        handled: Option<&str>,
    ) -> Option<String> {
        let mut memories = self.memories.lock();
        let requests = &mut memories.entry(uid.clone()).or_default().requests;
        requests
            .note(object.reconcile_requests(), handled)
            .map(ToOwned::to_owned)
    }

    pub(super) fn read_anew(&self, uid: &Uid) {
        self.remember(uid, |memory| memory.full = Some(Instant::now()));
    }

    /// Takes note of what a destination wants, whose spec decodes. A reconcile under way may know less than the watch.
    pub(super) fn wants(&self, identity: &Identity, subscription: &Subscription) {
        self.remember(&identity.uid, |memory| {
            let newest = memory.subscription.as_ref().map(|(generation, _)| *generation);
            if newest.is_none_or(|newest| newest <= identity.generation) {
                memory.subscription = Some((identity.generation, subscription.clone()));
            }
        });
    }

    /// What a destination wanted when its spec last decoded, in this process.
    pub(super) fn wanted(&self, uid: &Uid) -> Option<Subscription> {
        let memories = self.memories.lock();
        let (_, subscription) = memories.get(uid)?.subscription.as_ref()?;
        Some(subscription.clone())
    }

    /// How long ago a status was last written.
    pub(super) fn since_written(&self, uid: &Uid) -> Option<Duration> {
        self.memories
            .lock()
            .get(uid)?
            .written
            .as_ref()
            .map(|(at, ..)| at.elapsed())
    }

    /// The status as it is: what the object says, unless it has not caught up with what was written last.
    pub(super) fn current_status<K: Watched>(
        &self,
        uid: &Uid,
        version: Option<&str>,
        observed: Option<&K::Status>,
    ) -> Option<Arc<K::Status>> {
        let written = self.memories.lock().get(uid).and_then(|memory| {
            let (_, from, status) = memory.written.as_ref()?;
            (from.as_deref() == version).then(|| Arc::clone(status))
        });
        written
            .and_then(|status| status.downcast::<K::Status>().ok())
            .or_else(|| observed.map(|status| Arc::new(status.clone())))
    }

    pub(super) fn status_written<K: Watched>(&self, uid: &Uid, version: Option<String>, status: K::Status) {
        self.remember(uid, |memory| {
            memory.written = Some((Instant::now(), version, Arc::new(status)));
        });
    }

    pub(super) fn forget(&self, uid: &Uid) {
        self.memories.lock().remove(uid);
    }

    pub(super) fn forget_others(&self, kept: impl Fn(&Uid) -> bool) {
        self.memories.lock().retain(|uid, _| kept(uid));
    }

    fn remember(&self, uid: &Uid, change: impl FnOnce(&mut Memory)) {
        change(self.memories.lock().entry(uid.clone()).or_default());
    }
}
