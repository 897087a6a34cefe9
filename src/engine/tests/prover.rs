//! Receivers that are asked whether they want the events.

use jiff::Timestamp;
use serde_json::json;

use super::fixture::*;
use crate::api::v1alpha1::ownership::OwnershipProofType;
use crate::domain::destination::{Identity, Target};
use crate::domain::id::ObjectKey;
use crate::domain::ownership::Proof;
use crate::domain::secret::Secret;
use crate::engine::prover::{Asking, MAX_OF_NAMESPACE, Prover as _, Stand};

impl Fixture {
    /// How the proof of a destination stands; it is asked for with a challenge, which no scripted receiver answers.
    fn prove(&self, name: &str, about: &str) -> Stand {
        self.prove_in("ns", name, about)
    }

    /// The same of a destination that is said to be in another namespace.
    fn prove_in(&self, namespace: &str, name: &str, about: &str) -> Stand {
        let entry = self.directory.destination(&identity(name, 1).uid).unwrap();
        let destination = entry.ready().unwrap();
        let Target::Webhook(webhook) = &destination.target else {
            panic!("it is a webhook")
        };
        let proof = Proof {
            manner: OwnershipProofType::SignedChallenge,
            rate: None,
            proved: None,
        };
        let mut asking = || Asking {
            question: proof.question(webhook, "x.example", &Secret::new([7; 32]), Timestamp::UNIX_EPOCH),
            timeout: destination.timeout,
        };
        let identity = Identity {
            key: ObjectKey::new(namespace, name),
            ..destination.identity.clone()
        };
        self.engine.prove(&identity, about, &mut asking)
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_is_asked_again_after_a_wait_that_doubles() {
    let fixture = Fixture::new();
    fixture.answer("a", Script::Status(500));
    fixture.destination("a", 1, &json!({}));
    assert_eq!(fixture.prove("a", "1"), Stand::Asking(None));
    assert_eq!(fixture.prove("a", "1"), Stand::Asking(None), "it is under way");
    for (tries, wait) in [(1, 5), (2, 10), (3, 20)] {
        fixture.pass(1).await;
        let Stand::Unproved(unproved, left) = fixture.prove("a", "1") else {
            panic!("it has failed")
        };
        assert!(!unproved.refused && left.as_secs() < wait, "{left:?}");
        assert_eq!(fixture.sent("a"), tries);
        fixture.pass(wait).await;
        assert_eq!(fixture.prove("a", "1"), Stand::Asking(Some(unproved)));
    }
}

#[tokio::test(start_paused = true)]
async fn another_question_is_asked_at_once_and_nothing_is_left_of_a_destination_that_went() {
    let fixture = Fixture::new();
    fixture.destination("a", 1, &json!({}));
    fixture.prove("a", "1");
    fixture.pass(1).await;
    let Stand::Unproved(unproved, _) = fixture.prove("a", "1") else {
        panic!("200 alone is no proof")
    };
    assert!(unproved.refused);
    assert_eq!(fixture.prove("a", "2"), Stand::Asking(None));
    fixture.pass(1).await;
    assert_eq!(fixture.sent("a"), 2);
    fixture.directory.remove_destination(&identity("a", 1).uid);
    assert_eq!(fixture.engine.core().proofs.asked(), 0);
}

#[tokio::test(start_paused = true)]
async fn receivers_that_hang_take_few_turns_of_others_and_not_for_long() {
    let fixture = Fixture::new();
    for number in 0..30 {
        let name = format!("h{number}");
        fixture.receiver(&name, &json!({"timeout": "60s"}), Script::Hang);
        fixture.prove(&name, "1");
    }
    fixture.destination("a", 1, &json!({}));
    fixture.prove_in("other", "a", "1");
    fixture.pass(1).await;
    assert_eq!(fixture.sent("a"), 1, "the other namespace has its turns");
    let asked = |fixture: &Fixture| fixture.transport.sent.lock().len() - 1;
    assert_eq!(asked(&fixture), MAX_OF_NAMESPACE);
    fixture.pass(5).await;
    assert_eq!(
        asked(&fixture),
        2 * MAX_OF_NAMESPACE,
        "the next ones had their turn"
    );
    assert!(matches!(fixture.prove("h0", "1"), Stand::Unproved(unproved, _) if !unproved.refused));
}
