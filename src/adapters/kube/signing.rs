//! Signing keys: making them, changing them, and remembering those that came before.
//!
//! The record of generated keys is beside them in their Secret, so that a rotation publishes the new key and writes
//! down the previous one in a single step. That of the user's own keys is in a Secret of ours, `…-rotated`; it holds a
//! copy of the key in use too, so that a change is noticed that was made while no operator ran.

mod hold;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use tokio::time::Instant;

pub(super) use self::hold::hold;
use super::context::Shared;
use super::error::Error;
use super::observed::Observed;
use super::secrets::{self, Ensured, Values, Wanted};
use crate::api::v1alpha1::event_destination::SignatureStatus;
use crate::api::v1alpha1::{EventDestination, EventDestinationStatus};
use crate::domain::destination::{FIRST_SIGNATURE, Identity, Reference, References, SigningKeyRef};
use crate::domain::id::Uid;
use crate::domain::rotation::{self, RotationResult};
use crate::domain::secret::Secret;
use crate::domain::signature::key::generate;
use crate::domain::status::unanswered_rotation;
use crate::domain::test_send::echo;

/// Key of a Secret of ours that holds the record of earlier keys.
const RECORD_KEY: &str = "rotation";
/// What a request may take beyond its deadline before it is sent.
const LEAD_MARGIN: Duration = Duration::from_secs(1);

/// Key of the Secret under which a signature's public key is written.
fn public_key(name: &str) -> String {
    if name == FIRST_SIGNATURE {
        "publicKey".to_owned()
    } else {
        format!("{name}.publicKey")
    }
}

/// Finds the Secret of a destination's generated keys, or makes it; `generated` are those signatures.
pub(super) async fn ensure(
    object: &Observed<EventDestination>,
    identity: &Identity,
    secret_name: &str,
    generated: &[&SigningKeyRef],
    shared: &Shared,
) -> Result<Ensured, Error> {
    let owner = object.owner_reference();
    let keys: Vec<&str> = generated.iter().map(|one| one.key.key.as_str()).collect();
    let wanted = Wanted {
        namespace: &identity.key.namespace,
        name: secret_name,
        keys: &keys,
        owner: &owner,
        first: object.is_new(),
        ending: object.is_ending(),
    };
    let make = |missing: &[&str]| {
        let missing = generated
            .iter()
            .filter(|one| missing.contains(&one.key.key.as_str()));
        missing.flat_map(|one| values(one, shared)).collect()
    };
    let ensured = secrets::ensure(&shared.client, wanted, make).await?;
    let Ensured::Ours(secret) = ensured else {
        return Ok(ensured);
    };
    let stale = stale_public_keys(&secret, generated);
    if stale.is_empty() || object.is_ending() {
        return Ok(Ensured::Ours(secret));
    }
    let filled = secrets::fill(&shared.client, &secret, &stale).await?;
    Ok(Ensured::Ours(Box::new(filled)))
}

/// A new key with all that is written of it. Should none be made, the key stays missing, which is a fault that is told.
fn values(one: &SigningKeyRef, shared: &Shared) -> Values {
    let Ok(made) = generate(one.scheme, shared.random()) else {
        return Values::new();
    };
    let public = made.public.map(|public| (public_key(&one.name), public));
    let secret = (one.key.key.clone(), made.secret.expose().clone());
    [secret].into_iter().chain(public).collect()
}

/// The public keys that a Secret should show and does not, for example since somebody wrote another private one.
fn stale_public_keys(secret: &KubeSecret, generated: &[&SigningKeyRef]) -> Values {
    let shown = generated.iter().filter_map(|one| {
        let key = one.parse(secrets::data(secret, &one.key.key)?).ok()?;
        let (name, text) = (public_key(&one.name), key.public_text()?);
        (secrets::data(secret, &name) != Some(text.as_bytes())).then_some((name, text))
    });
    shown.collect()
}

/// Puts keys in the place of those that cannot be had, so that nothing else is said about them than that.
pub(super) fn stand_in(generated: &[&SigningKeyRef], references: &mut References, shared: &Shared) {
    for one in generated {
        if let Ok(made) = generate(one.scheme, shared.random()) {
            let value = made.secret.expose().clone().into_bytes();
            references.insert((&one.key).into(), Reference::Found(Secret::new(value)));
        }
    }
}

/// What is remembered of a destination's signing keys.
#[derive(Default)]
pub(super) struct Held {
    /// The keys that were found last.
    current: BTreeMap<String, Secret<Vec<u8>>>,
    /// What the status tells.
    statuses: Vec<SignatureStatus>,
    /// When something is to be done without anybody asking.
    due: Option<Timestamp>,
    /// The rotation whose new keys wait to be published, how long, and since when they sign.
    pending: Option<(String, Duration, Option<Instant>)>,
    /// What came of the last rotation that was asked for.
    result: Option<RotationResult>,
}

impl Held {
    /// How long until the pending keys can be published: no request without them is under way any more.
    fn lead(&self) -> Option<Duration> {
        let (_, lead, since) = self.pending.as_ref()?;
        let gone = since.map(|since| since.elapsed()).unwrap_or_default();
        Some(lead.saturating_sub(gone))
    }
}

/// The request for new keys that nobody has answered yet.
fn asked<'a>(
    object: &'a Observed<EventDestination>,
    previous: Option<&EventDestinationStatus>,
    held: &Held,
) -> Option<&'a str> {
    let told = held.result.as_ref().map(|result| result.asked.as_str());
    unanswered_rotation(object.rotate_request(), previous).filter(|asked| told != Some(echo(asked)))
}

/// Whether keys are to be looked at although nothing has changed.
pub(super) fn is_due(
    object: &Observed<EventDestination>,
    previous: Option<&EventDestinationStatus>,
    uid: &Uid,
    shared: &Shared,
) -> bool {
    let now = shared.context.clock.now();
    shared.signing(uid, |held| {
        let lead_is_over = held.lead() == Some(Duration::ZERO);
        let begun = held.pending.is_some();
        held.due.is_some_and(|due| due <= now)
            || lead_is_over
            || (!begun && asked(object, previous, held).is_some())
    })
}

/// Says that the destination's keys are in force from now on; answers when to look again.
pub(super) fn in_force(uid: &Uid, shared: &Shared) -> Option<Duration> {
    let now = shared.context.clock.now();
    shared.signing(uid, |held| {
        if let Some((_, _, since)) = &mut held.pending {
            since.get_or_insert_with(Instant::now);
        }
        let due = held.due.map(|due| {
            let wait = due.duration_since(now);
            Duration::try_from(wait).unwrap_or_default()
        });
        // A little later, so that the time has come for sure.
        due.into_iter()
            .chain(held.lead())
            .min()
            .map(|wait| wait + Duration::from_millis(20))
    })
}

/// What is told of the signatures and of the last rotation.
pub(super) fn told(
    uid: &Uid,
    previous: Option<&EventDestinationStatus>,
    shared: &Shared,
) -> (Vec<SignatureStatus>, Option<RotationResult>) {
    let told = previous.and_then(|status| status.last_handled_rotate_secret.as_deref());
    shared.signing(uid, |held| {
        let result = held
            .result
            .clone()
            .filter(|result| told != Some(result.asked.as_str()));
        (held.statuses.clone(), result)
    })
}

/// Answers a request for new keys of a destination that is not in force.
pub(super) fn refuse(
    object: &Observed<EventDestination>,
    previous: Option<&EventDestinationStatus>,
    uid: &Uid,
    shared: &Shared,
) {
    let now = shared.context.clock.now();
    shared.signing(uid, |held| {
        if let Some(asked) = asked(object, previous, held) {
            let message = "the configuration is not in force; mend what condition Ready says and ask again";
            held.result = Some(RotationResult::refused(asked, rotation::NOT_READY, message, now));
        }
    });
}
