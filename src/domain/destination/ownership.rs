//! What a spec asks its receiver to prove.

use super::check::Check;
use super::ready_service;
use crate::api::v1alpha1::event_destination::{EventDestinationSpec, SigningScheme, WebhookTarget};
use crate::api::v1alpha1::ownership::OwnershipProofType;
use crate::domain::duration;
use crate::domain::ownership::Proof;
use crate::domain::template::field::has_placeholder;

const PATH: &str = "spec.webhook.ownershipProof";

impl Check<'_> {
    pub(super) fn ownership_proof(
        &mut self,
        spec: &EventDestinationSpec,
        target: &WebhookTarget,
    ) -> Option<Proof> {
        let manner = target.ownership_proof.as_ref()?.manner;
        let unsigned =
            target.signing.as_ref().and_then(|signing| signing.scheme) == Some(SigningScheme::None);
        let fault = if target.url.as_deref().is_some_and(has_placeholder) {
            "the proof is for one URL; remove the placeholders from url, or this"
        } else if ready_service(target).is_some() {
            "the ready formats of services ask no proof of theirs; remove it"
        } else if manner == OwnershipProofType::SignedChallenge && unsigned {
            "a challenge has to be signed; set signing.scheme"
        } else {
            return Some(Proof {
                manner,
                rate: rate(spec),
                proved: None,
            });
        };
        self.faults.invalid(PATH, fault);
        None
    }
}

/// Most requests that a spec's rate lets go in a minute. What is wrong with the rate is told elsewhere.
fn rate(spec: &EventDestinationSpec) -> Option<u32> {
    let limit = spec.delivery.as_ref()?.rate_limit.as_ref()?;
    let seconds = duration::parse(&limit.per.0)?.as_secs_f64();
    let even = (f64::from(limit.events) * 60.0 / seconds).ceil();
    let more = limit.burst.unwrap_or(1).saturating_sub(1);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounded, and a cast saturates"
    )]
    let even = even.clamp(1.0, f64::from(u32::MAX)) as u32;
    Some(even.saturating_add(u32::try_from(more).unwrap_or_default()))
}
