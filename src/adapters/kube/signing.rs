//! Signing keys: making them, changing them, and remembering those that came before.
//!
//! The record of generated keys is beside them in their Secret, so that a rotation publishes the new key and writes
//! down the previous one in a single step. That of the user's own keys is in a Secret of ours, `…-rotated`; it holds a
//! copy of the key in use too, so that a change is noticed that was made while no operator ran.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::ResourceExt as _;
use tokio::time::Instant;

use super::context::Shared;
use super::error::Error;
use super::observed::Observed;
use super::references::{Named, Referrer, Seen};
use super::secrets::{self, Ensured, Values, Wanted};
use crate::api::v1alpha1::event_destination::SignatureStatus;
use crate::api::v1alpha1::{EventDestination, EventDestinationStatus};
use crate::domain::destination::{
    Destination, FIRST_SIGNATURE, Identity, Reference, References, SigningKeyRef, Target,
    generated_secret_name, rotated_secret_name,
};
use crate::domain::fault::Faults;
use crate::domain::id::Uid;
use crate::domain::rotation::{self, MAX_PREVIOUS, Record, RotationResult};
use crate::domain::secret::Secret;
use crate::domain::signature::key::{Key, generate};
use crate::domain::status::{seconds, unanswered_rotation};
use crate::domain::test_send::echo;
use crate::engine::directory::Kind;

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

/// Finds out which keys sign besides those that are there, keeps the record of it, and begins or ends rotations.
pub(super) async fn hold(
    object: &Observed<EventDestination>,
    identity: &Identity,
    signatures: &[SigningKeyRef],
    found: &HashMap<String, Option<KubeSecret>>,
    destination: &mut Destination,
    shared: &Shared,
) -> Result<Faults, Error> {
    let mut faults = Faults::default();
    let uid = &identity.uid;
    let previous = super::status::current(shared, object, uid);
    let timeout = destination.timeout;
    let Target::Webhook(webhook) = &mut destination.target else {
        return Ok(faults);
    };
    let now = shared.context.clock.now();
    let value = |one: &SigningKeyRef| {
        let secret = found.get(&one.key.name)?.as_ref()?;
        secrets::data(secret, &one.key.key).map(<[u8]>::to_vec)
    };
    let remembered = shared.signing(uid, |held| held.current.clone());
    let ttl = |name: &str| {
        let one = signatures.iter().find(|one| one.name == name);
        one.map_or(Duration::ZERO, |one| one.previous_ttl)
    };
    let observe = |record: &mut Record, generated: bool| {
        let mut excess = 0;
        record.retain(|name| {
            signatures
                .iter()
                .any(|one| one.generated == generated && one.name == name)
        });
        for one in signatures.iter().filter(|one| one.generated == generated) {
            if let Some(key) = value(one) {
                let known = remembered.get(&one.name);
                if !one.has_room() {
                    record.revert(&one.name, &key);
                }
                excess += record.observe(&one.name, &key, known, one.previous_ttl, now);
            }
        }
        if excess > 0 {
            shared.context.metrics.signing_keys_dropped(excess);
            tracing::warn!(
                destination.namespace = &*identity.key.namespace,
                destination.name = &*identity.key.name,
                excess,
                "previous signing keys count no longer: there were too many changes within previousSecretTTL"
            );
        }
    };

    // The user's own keys: what came before them is kept in a Secret of ours. Nothing is written when it is not ours.
    let name = rotated_secret_name(&identity.key.name);
    let has_own = signatures.iter().any(|one| !one.generated);
    let wanted = signatures
        .iter()
        .any(|one| !one.generated && !one.previous_ttl.is_zero());
    let kept = if has_own {
        secrets::read(&shared.client, &identity.key.namespace, &name).await?
    } else {
        None
    };
    let ours = |secret: &KubeSecret| {
        let mut owners = secret.owner_references().iter();
        owners.any(|owner| Some(&owner.uid) == object.metadata.uid.as_ref())
    };
    let is_foreign = kept.as_ref().is_some_and(|secret| !ours(secret));
    if is_foreign && wanted {
        faults.missing(
            "spec.webhook.signing.previousSecretTTL",
            format!(
                "Secret {name:?}, which would keep the previous keys, does not belong to this destination; delete or \
                 rename it, or set previousSecretTTL to 0s"
            ),
        );
        return Ok(faults);
    }

    // The generated keys: their record is beside them.
    let mut record = Record::default();
    let mut result = None;
    let mut published = BTreeMap::new();
    let asked = shared.signing(uid, |held| {
        asked(object, previous.as_deref(), held).map(ToOwned::to_owned)
    });
    let secret = found
        .get(&generated_secret_name(&identity.key.name))
        .and_then(Option::as_ref);
    let has_generated = signatures.iter().any(|one| one.generated);
    if let Some(secret) = secret.filter(|_| has_generated) {
        let stored = stored(secret, identity);
        record = stored.clone().unwrap_or_default();
        observe(&mut record, true);
        let mut written = Values::new();
        let lead = shared.signing(uid, |held| {
            let same = held.pending.as_ref().map(|(asked, ..)| asked.as_str())
                == record.pending.as_ref().map(|pending| pending.asked.as_str());
            held.lead().filter(|_| same)
        });
        if lead == Some(Duration::ZERO) {
            for (name, new) in record.publish(ttl, now) {
                let text = String::from_utf8_lossy(new.key.expose()).into_owned();
                written.extend(new.public.map(|public| (public_key(&name), public)));
                published.insert(name.clone(), new.key);
                written.insert(name, text);
            }
        }
        if let Some(asked) = &asked {
            match &record.handled {
                Some(handled) if handled.asked == echo(asked) => {
                    result = Some(RotationResult::rotated(asked, handled.at));
                }
                _ if record.pending.is_some() => {}
                _ => match begin(&mut record, asked, signatures, object.is_ending(), shared) {
                    Ok(()) => {}
                    Err((reason, message)) => {
                        result = Some(RotationResult::refused(asked, reason, message, now));
                    }
                },
            }
        }
        let is_new = stored.as_ref() != Some(&record) && !(stored.is_none() && record.is_trivial());
        if is_new && !object.is_ending() {
            written.insert(RECORD_KEY.to_owned(), record.to_text().expose().clone());
            let filled = secrets::fill(&shared.client, secret, &written).await?;
            note_version(identity, &filled, shared);
        }
    } else if let Some(asked) = &asked {
        let message = if signatures.is_empty() {
            "nothing is signed; there is no key to change"
        } else {
            "every key is in a Secret of yours; change that Secret to have another key used"
        };
        result = Some(match rotation::check(asked) {
            Ok(()) => RotationResult::refused(asked, rotation::NOT_GENERATED, message, now),
            Err(fault) => RotationResult::refused(asked, rotation::INVALID_REQUEST, fault, now),
        });
    }

    if has_own && !is_foreign {
        let before = kept.as_ref().and_then(|secret| stored(secret, identity));
        let mut own = before.clone().unwrap_or_default();
        observe(&mut own, false);
        let is_new = if kept.is_some() {
            before.as_ref() != Some(&own)
        } else {
            wanted
        };
        if is_new && !object.is_ending() {
            let values = Values::from([(RECORD_KEY.to_owned(), own.to_text().expose().clone())]);
            keep(object, identity, &name, kept.as_ref(), values, shared).await?;
        }
        record.keys.append(&mut own.keys);
    }

    let mut statuses = Vec::new();
    let mut due: Option<Timestamp> = None;
    let mut current = BTreeMap::new();
    let is_several = signatures.len() > 1;
    for (index, one) in signatures.iter().enumerate() {
        let Some(found) = value(one) else { continue };
        let now_key = published.remove(&one.name).unwrap_or_else(|| Secret::new(found));
        let (pending, previous_keys) = record.others(&one.name);
        let all = pending.into_iter().chain([&now_key]).chain(previous_keys);
        // What no longer fits the scheme, such as after a change of it, signs no longer.
        let keys: Vec<Key> = all.filter_map(|key| one.parse(key.expose()).ok()).collect();
        // Where there is room for one signature the oldest key signs; a pending key is for the others.
        webhook.signer.hold(index, keys);
        let ends = record.ends(&one.name, one.previous_ttl);
        due = due.into_iter().chain(ends.map(|(_, next)| next)).min();
        let public_key = one.parse(now_key.expose()).ok().and_then(|key| key.public_text());
        if is_several || public_key.is_some() || ends.is_some() {
            statuses.push(SignatureStatus {
                name: one.name.clone(),
                secret_ref: one.key.clone(),
                public_key,
                previous_secret_until: ends.map(|(last, _)| seconds(last)),
            });
        }
        current.insert(one.name.clone(), now_key);
    }
    let pending = record.pending.map(|pending| pending.asked);
    shared.signing(uid, |held| {
        held.current = current;
        held.statuses = statuses;
        held.due = due;
        let same = held.pending.as_ref().map(|(asked, ..)| asked) == pending.as_ref();
        if !same {
            held.pending = pending.map(|asked| (asked, timeout + LEAD_MARGIN, None));
        }
        if result.is_some() {
            held.result = result;
        }
    });
    Ok(faults)
}

/// Begins a rotation of every generated key.
fn begin(
    record: &mut Record,
    asked: &str,
    signatures: &[SigningKeyRef],
    ending: bool,
    shared: &Shared,
) -> Result<(), (&'static str, String)> {
    rotation::check(asked).map_err(|fault| (rotation::INVALID_REQUEST, fault))?;
    if ending {
        let message = "the destination is being deleted; its keys stay as they are";
        return Err((rotation::NOT_READY, message.to_owned()));
    }
    if !record.has_room() {
        let message = format!(
            "{MAX_PREVIOUS} previous keys still count; ask again when one has ended, see status.signatures, or shorten \
             previousSecretTTL"
        );
        return Err((rotation::TOO_MANY_KEYS, message));
    }
    let generated = signatures.iter().filter(|one| one.generated);
    let made: Result<Vec<_>, String> = generated
        .map(|one| Ok((one.name.clone(), generate(one.scheme, shared.random())?)))
        .collect();
    record.begin(asked, made.map_err(|fault| (rotation::NOT_READY, fault))?);
    Ok(())
}

/// The record that a Secret holds. What is no record is as none, which is told in the log.
fn stored(secret: &KubeSecret, identity: &Identity) -> Option<Record> {
    match Record::parse(secrets::data(secret, RECORD_KEY)?) {
        Ok(record) => Some(record),
        Err(place) => {
            tracing::warn!(
                destination.namespace = &*identity.key.namespace,
                destination.name = &*identity.key.name,
                secret = secret.name_any(),
                place,
                "key \"rotation\" of a Secret is not as it was written; earlier signing keys count no longer"
            );
            None
        }
    }
}

/// A change that is our own need not be read again.
fn note_version(identity: &Identity, secret: &KubeSecret, shared: &Shared) {
    let referrer = Referrer {
        kind: Kind::Destination,
        key: identity.key.clone(),
    };
    let seen = Seen::of(secret.resource_version().as_deref());
    shared
        .references
        .saw(&referrer, &Named::secret(&secret.name_any()), seen);
}

/// Writes the Secret of earlier keys.
async fn keep(
    object: &Observed<EventDestination>,
    identity: &Identity,
    name: &str,
    kept: Option<&KubeSecret>,
    values: Values,
    shared: &Shared,
) -> Result<(), Error> {
    if let Some(secret) = kept {
        secrets::fill(&shared.client, secret, &values).await?;
        return Ok(());
    }
    let owner = object.owner_reference();
    let wanted = Wanted {
        namespace: &identity.key.namespace,
        name,
        keys: &[RECORD_KEY],
        owner: &owner,
        first: true,
        ending: false,
    };
    secrets::ensure(&shared.client, wanted, |_| values.clone()).await?;
    Ok(())
}
