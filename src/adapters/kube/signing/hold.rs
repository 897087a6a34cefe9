//! Which keys of a destination sign besides those that are there: what came before them, and what is to come.
//!
//! The steps of [`hold`]: the generated keys ([`Keys::rotate`]), the user's own ([`Keys::keep_own`]), what signs now
//! ([`Keys::sign`]), and what is remembered until the next look.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::ResourceExt as _;

use super::{LEAD_MARGIN, RECORD_KEY, asked, public_key};
use crate::adapters::kube::context::Shared;
use crate::adapters::kube::error::Error;
use crate::adapters::kube::observed::Observed;
use crate::adapters::kube::references::{Named, Referrer, Seen};
use crate::adapters::kube::secrets::{self, Values, Wanted};
use crate::adapters::kube::status;
use crate::api::v1alpha1::EventDestination;
use crate::api::v1alpha1::event_destination::SignatureStatus;
use crate::domain::destination::{
    Destination, Identity, SigningKeyRef, Target, Webhook, generated_secret_name, rotated_secret_name,
};
use crate::domain::fault::Faults;
use crate::domain::rotation::{self, KeyBytes, MAX_PREVIOUS, Record, RotationResult};
use crate::domain::secret::Secret;
use crate::domain::signature::key::{Key, generate};
use crate::domain::status::seconds;
use crate::domain::test_send::echo;
use crate::engine::directory::Kind;

/// Finds out which keys sign besides those that are there, keeps the record of it, and begins or ends rotations.
pub(crate) async fn hold(
    object: &Observed<EventDestination>,
    identity: &Identity,
    signatures: &[SigningKeyRef],
    found: &HashMap<String, Option<KubeSecret>>,
    destination: &mut Destination,
    shared: &Shared,
) -> Result<Faults, Error> {
    let timeout = destination.timeout;
    let keys = Keys {
        object,
        identity,
        signatures,
        found,
        shared,
        now: shared.context.clock.now(),
        remembered: shared.signing(&identity.uid, |held| held.current.clone()),
    };
    let Target::Webhook(webhook) = &mut destination.target else {
        // Mails have no keys, but who asks for new ones is answered.
        let rotated = keys.rotate().await?;
        keys.remember(Signing::default(), rotated, timeout);
        return Ok(Faults::default());
    };
    let kept = keys.kept().await?;
    if kept.is_foreign && keys.keep_previous_own() {
        return Ok(kept.foreign());
    }
    let mut rotated = keys.rotate().await?;
    if keys.have_own() && !kept.is_foreign {
        let mut own = keys.keep_own(&kept).await?;
        rotated.record.keys.append(&mut own.keys);
    }
    let told = keys.sign(webhook, &rotated.record, &mut rotated.published);
    keys.remember(told, rotated, timeout);
    Ok(Faults::default())
}

/// The keys of a destination, for one look at them.
struct Keys<'a> {
    object: &'a Observed<EventDestination>,
    identity: &'a Identity,
    signatures: &'a [SigningKeyRef],
    /// The Secrets that they are in.
    found: &'a HashMap<String, Option<KubeSecret>>,
    shared: &'a Shared,
    now: Timestamp,
    /// The keys that were found last.
    remembered: BTreeMap<String, KeyBytes>,
}

/// The Secret of ours that holds what came before the user's own keys.
struct Kept {
    name: String,
    secret: Option<KubeSecret>,
    /// It has our name, and is not ours.
    is_foreign: bool,
}

impl Kept {
    fn foreign(&self) -> Faults {
        let mut faults = Faults::default();
        let name = &self.name;
        faults.missing(
            "spec.webhook.signing.previousSecretTTL",
            format!(
                "Secret {name:?}, which would keep the previous keys, does not belong to this destination; delete or \
                 rename it, or set previousSecretTTL to 0s"
            ),
        );
        faults
    }
}

/// The generated keys after a look at them.
#[derive(Default)]
struct Rotated {
    record: Record,
    /// Keys that were pending and are in the Secret now.
    published: BTreeMap<String, KeyBytes>,
    /// What came of a rotation that was asked for.
    result: Option<RotationResult>,
}

/// What is told and remembered of the keys that sign now.
#[derive(Default)]
struct Signing {
    statuses: Vec<SignatureStatus>,
    due: Option<Timestamp>,
    current: BTreeMap<String, KeyBytes>,
}

impl Keys<'_> {
    fn have_own(&self) -> bool {
        self.signatures.iter().any(|one| !one.generated)
    }

    /// Whether what came before the user's own keys is wanted.
    fn keep_previous_own(&self) -> bool {
        let mut own = self.signatures.iter().filter(|one| !one.generated);
        own.any(|one| !one.previous_ttl.is_zero())
    }

    /// The bytes of a key as its Secret has them.
    fn value(&self, one: &SigningKeyRef) -> Option<Vec<u8>> {
        let secret = self.found.get(&one.key.name)?.as_ref()?;
        secrets::data(secret, &one.key.key).map(<[u8]>::to_vec)
    }

    /// Brings a record up to the keys that are there.
    fn observe(&self, record: &mut Record, generated: bool) {
        let mut excess = 0;
        let of_kind = |one: &&SigningKeyRef| one.generated == generated;
        record.retain(|name| self.signatures.iter().filter(of_kind).any(|one| one.name == name));
        for one in self.signatures.iter().filter(of_kind) {
            if let Some(key) = self.value(one) {
                let known = self.remembered.get(&one.name);
                if !one.has_room() {
                    record.revert(&one.name, &key);
                }
                excess += record.observe(&one.name, &key, known, one.previous_ttl, self.now);
            }
        }
        if excess > 0 {
            self.shared.context.metrics.signing_keys_dropped(excess);
            tracing::warn!(
                destination.namespace = &*self.identity.key.namespace,
                destination.name = &*self.identity.key.name,
                excess,
                "previous signing keys count no longer: there were too many changes within previousSecretTTL"
            );
        }
    }

    /// Reads what came before the user's own keys. Nothing is written when the Secret is not ours.
    async fn kept(&self) -> Result<Kept, Error> {
        let name = rotated_secret_name(&self.identity.key.name);
        let secret = if self.have_own() {
            secrets::read(&self.shared.client, &self.identity.key.namespace, &name).await?
        } else {
            None
        };
        let ours = |secret: &KubeSecret| {
            let mut owners = secret.owner_references().iter();
            owners.any(|owner| Some(&owner.uid) == self.object.metadata.uid.as_ref())
        };
        Ok(Kept {
            is_foreign: secret.as_ref().is_some_and(|secret| !ours(secret)),
            name,
            secret,
        })
    }

    /// Looks at the generated keys, whose record is beside them, and answers a request for new ones.
    async fn rotate(&self) -> Result<Rotated, Error> {
        let previous = status::current(self.shared, self.object, &self.identity.uid);
        let asked = self.shared.signing(&self.identity.uid, |held| {
            asked(self.object, previous.as_deref(), held).map(ToOwned::to_owned)
        });
        let secret = self
            .found
            .get(&generated_secret_name(&self.identity.key.name))
            .and_then(Option::as_ref);
        let generated = self.signatures.iter().any(|one| one.generated);
        if let Some(secret) = secret.filter(|_| generated) {
            return self.rotate_in(secret, asked.as_deref()).await;
        }
        let result = asked.map(|asked| {
            let message = if self.signatures.is_empty() {
                "nothing is signed; there is no key to change"
            } else {
                "every key is in a Secret of yours; change that Secret to have another key used"
            };
            match rotation::check(&asked) {
                Ok(()) => RotationResult::refused(&asked, rotation::NOT_GENERATED, message, self.now),
                Err(fault) => RotationResult::refused(&asked, rotation::INVALID_REQUEST, fault, self.now),
            }
        });
        Ok(Rotated {
            result,
            ..Rotated::default()
        })
    }

    async fn rotate_in(&self, secret: &KubeSecret, asked: Option<&str>) -> Result<Rotated, Error> {
        let stored = stored(secret, self.identity);
        let mut record = stored.clone().unwrap_or_default();
        self.observe(&mut record, true);
        let (mut written, published) = self.publish(&mut record);
        let result = asked.and_then(|asked| self.answer(&mut record, asked));
        let is_new = stored.as_ref() != Some(&record) && !(stored.is_none() && record.is_trivial());
        if is_new && !self.object.is_ending() {
            written.insert(RECORD_KEY.to_owned(), record.to_text().expose().clone());
            let filled = secrets::fill(&self.shared.client, secret, &written).await?;
            note_version(self.identity, &filled, self.shared);
        }
        Ok(Rotated {
            record,
            published,
            result,
        })
    }

    /// Publishes the pending keys once no request without them can be under way: what is to be written, and the keys.
    fn publish(&self, record: &mut Record) -> (Values, BTreeMap<String, KeyBytes>) {
        let (mut written, mut published) = (Values::new(), BTreeMap::new());
        let lead = self.shared.signing(&self.identity.uid, |held| {
            let same = held.pending.as_ref().map(|(asked, ..)| asked.as_str())
                == record.pending.as_ref().map(|pending| pending.asked.as_str());
            held.lead().filter(|_| same)
        });
        if lead == Some(Duration::ZERO) {
            let ttl = |name: &str| {
                let one = self.signatures.iter().find(|one| one.name == name);
                one.map_or(Duration::ZERO, |one| one.previous_ttl)
            };
            for (name, new) in record.publish(ttl, self.now) {
                let text = String::from_utf8_lossy(new.key.expose()).into_owned();
                written.extend(new.public.map(|public| (public_key(&name), public)));
                published.insert(name.clone(), new.key);
                written.insert(name, text);
            }
        }
        (written, published)
    }

    /// Begins the rotation that was asked for, unless it was made or one is under way.
    fn answer(&self, record: &mut Record, asked: &str) -> Option<RotationResult> {
        match &record.handled {
            Some(handled) if handled.asked == echo(asked) => Some(RotationResult::rotated(asked, handled.at)),
            _ if record.pending.is_some() => None,
            _ => {
                let begun = begin(
                    record,
                    asked,
                    self.signatures,
                    self.object.is_ending(),
                    self.shared,
                );
                let refused = |(reason, message)| RotationResult::refused(asked, reason, message, self.now);
                begun.err().map(refused)
            }
        }
    }

    /// Brings the record of the user's own keys up to date.
    async fn keep_own(&self, kept: &Kept) -> Result<Record, Error> {
        let secret = kept.secret.as_ref();
        let before = secret.and_then(|secret| stored(secret, self.identity));
        let mut own = before.clone().unwrap_or_default();
        self.observe(&mut own, false);
        let is_new = if secret.is_some() {
            before.as_ref() != Some(&own)
        } else {
            self.keep_previous_own()
        };
        if is_new && !self.object.is_ending() {
            let values = Values::from([(RECORD_KEY.to_owned(), own.to_text().expose().clone())]);
            keep(
                self.object,
                self.identity,
                &kept.name,
                secret,
                values,
                self.shared,
            )
            .await?;
        }
        Ok(own)
    }

    /// Gives the signer every key that signs now.
    fn sign(
        &self,
        webhook: &mut Webhook,
        record: &Record,
        published: &mut BTreeMap<String, KeyBytes>,
    ) -> Signing {
        let mut told = Signing::default();
        let is_several = self.signatures.len() > 1;
        for (index, one) in self.signatures.iter().enumerate() {
            let Some(found) = self.value(one) else { continue };
            let now_key = published.remove(&one.name).unwrap_or_else(|| Secret::new(found));
            let (pending, previous_keys) = record.others(&one.name);
            let all = pending.into_iter().chain([&now_key]).chain(previous_keys);
            // What no longer fits the scheme, such as after a change of it, signs no longer.
            let keys: Vec<Key> = all.filter_map(|key| one.parse(key.expose()).ok()).collect();
            // Where there is room for one signature the oldest key signs; a pending key is for the others.
            webhook.signer.hold(index, keys);
            let ends = record.ends(&one.name, one.previous_ttl);
            told.due = told.due.into_iter().chain(ends.map(|(_, next)| next)).min();
            let public_key = one.parse(now_key.expose()).ok().and_then(|key| key.public_text());
            if is_several || public_key.is_some() || ends.is_some() {
                told.statuses.push(SignatureStatus {
                    name: one.name.clone(),
                    secret_ref: one.key.clone(),
                    public_key,
                    previous_secret_until: ends.map(|(last, _)| seconds(last)),
                });
            }
            told.current.insert(one.name.clone(), now_key);
        }
        told
    }

    /// Remembers what was found for the next look.
    fn remember(&self, told: Signing, rotated: Rotated, timeout: Duration) {
        let pending = rotated.record.pending.map(|pending| pending.asked);
        self.shared.signing(&self.identity.uid, |held| {
            held.current = told.current;
            held.statuses = told.statuses;
            held.due = told.due;
            let same = held.pending.as_ref().map(|(asked, ..)| asked) == pending.as_ref();
            if !same {
                held.pending = pending.map(|asked| (asked, timeout + LEAD_MARGIN, None));
            }
            if rotated.result.is_some() {
                held.result = rotated.result;
            }
        });
    }
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
