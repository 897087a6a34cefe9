//! Whether a destination's receiver has proved that it wants the events: as the status tells, or by asking it.
//!
//! What the status tells counts only with a seal that fits, see [`crate::domain::ownership::seal`]. A proof is in force
//! before the status tells it; a process that ends in between asks again.

use std::time::Duration;

use super::context::Shared;
use super::observed::Observed;
use crate::api::v1alpha1::{EventDestination, EventDestinationStatus};
use crate::domain::destination::{Destination, Target, Webhook};
use crate::domain::ownership::{Proof, Proved, Unproved, seal};
use crate::domain::secret::Secret;
use crate::engine::prover::{Asking, Stand};

/// How a proof stands that is needed.
pub(super) struct Missing {
    /// The receiver says no: somebody must do something.
    pub(super) refused: bool,
    pub(super) message: String,
    /// When to look again; `None`: it will be told.
    pub(super) again: Option<Duration>,
}

/// Looks for the proof of a destination that needs one, and puts it there; the destination is not in force without.
///
/// # Errors
/// How it stands, when it is missing.
pub(super) fn establish(
    object: &Observed<EventDestination>,
    status: Option<&EventDestinationStatus>,
    destination: &mut Destination,
    shared: &Shared,
) -> Result<(), Missing> {
    let Target::Webhook(webhook) = &destination.target else {
        return Ok(());
    };
    let Some(proof) = webhook.request.proof.as_deref().cloned() else {
        return Ok(());
    };
    let context = &shared.context;
    let sealed = |rate| {
        let identity = &destination.identity;
        seal(
            &context.seal,
            identity,
            proof.manner,
            webhook,
            origin(shared),
            rate,
        )
    };
    let proved = if let Some(proved) = told(status, &sealed) {
        proved
    } else {
        let generation = destination.identity.generation;
        let handled = status.and_then(|status| status.last_handled_reconcile_at.as_deref());
        let request = shared.reconcile_request(object, &destination.identity.uid, handled);
        let about = format!("{}/{generation}/{}", sealed(None), request.unwrap_or_default());
        let mut asking = || ask(&proof, webhook, destination.timeout, shared);
        match context.prover.prove(&destination.identity, &about, &mut asking) {
            Stand::Proved(rate) => Proved {
                allowed_rate: rate,
                time: context.clock.now(),
                seal: sealed(rate),
            },
            Stand::Asking(last) => return Err(missing(last, None)),
            Stand::Unproved(unproved, wait) => return Err(missing(Some(unproved), Some(wait))),
        }
    };
    let proof = Proof {
        proved: Some(proved),
        ..proof
    };
    destination.policy.rate = proof.agreed(destination.policy.rate);
    if let Target::Webhook(webhook) = &mut destination.target {
        proof.announce(webhook, origin(shared));
        webhook.request.proof = Some(Box::new(proof));
    }
    Ok(())
}

/// What the status tells of a proof, if it is one.
fn told(status: Option<&EventDestinationStatus>, sealed: &dyn Fn(Option<u32>) -> String) -> Option<Proved> {
    let told = status?.ownership_proof.as_ref()?;
    let allowed_rate = told.allowed_rate.map(u32::try_from).transpose().ok()?;
    (sealed(allowed_rate) == told.seal).then(|| Proved {
        allowed_rate,
        time: told.proved_time.0,
        seal: told.seal.clone(),
    })
}

/// What this installation is called: the host that publishers know.
fn origin(shared: &Shared) -> &str {
    shared.context.public_url.host_str().unwrap_or_default()
}

fn ask(proof: &Proof, webhook: &Webhook, timeout: Duration, shared: &Shared) -> Asking {
    let context = &shared.context;
    let random = Secret::new(shared.random());
    Asking {
        question: proof.question(webhook, origin(shared), &random, context.clock.now()),
        timeout,
    }
}

fn missing(unproved: Option<Unproved>, again: Option<Duration>) -> Missing {
    match unproved {
        None => Missing {
            refused: false,
            message: "the receiver is asked whether it wants the events; they wait".to_owned(),
            again,
        },
        Some(Unproved { refused, message, .. }) => Missing {
            refused,
            message: format!("the receiver has not proved that it wants the events, which wait: {message}"),
            again,
        },
    }
}
