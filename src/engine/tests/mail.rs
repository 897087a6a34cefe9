//! E-mail destinations: who gets a mail, how often, and what remembers it.

use std::sync::Arc;

use serde_json::json;

use super::fixture::*;
use crate::api::v1alpha1::EventDestinationSpec;
use crate::domain::destination::{Destination, Reference, Subscription, value_references};
use crate::domain::egress::EgressPolicy;
use crate::domain::email::settled::Fate;
use crate::domain::outcome::{Failure, FailureReason};
use crate::domain::secret::Secret;
use crate::engine::directory::{Entry, EntryState};
use crate::engine::queue::Queue;
use crate::engine::queue::memory::MemoryQueue;

fn refused() -> Fate {
    Fate::Refused(Failure::new(FailureReason::RecipientRefused, "550 no such user"))
}

pub(super) fn later() -> Fate {
    Fate::Open(Failure::new(FailureReason::TryLater, "451 greylisted"))
}

/// An engine with an e-mail destination for `a@`, `b@` and `c@`.
fn mailing(queue: Arc<dyn Queue>, per_recipient: bool) -> Fixture {
    let fixture = Fixture::with_queue(queue, 8);
    fixture.email("mails", per_recipient);
    fixture
}

impl Fixture {
    pub(super) fn email(&self, name: &str, per_recipient: bool) {
        let spec: EventDestinationSpec = serde_json::from_value(json!({
            "events": [name],
            "email": {
                "to": ["a@x.example", "b@x.example"], "cc": ["c@x.example", "a@x.example"],
                "perRecipient": per_recipient, "smtpRef": {"name": "mail"},
            },
            "delivery": {"retry": {"schedule": ["10s", "10s", "10s"]}},
        }))
        .unwrap();
        let references = value_references(name, &spec).into_iter().map(|(_, key)| {
            let value = match key.key.as_str() {
                "host" => Reference::Found(Secret::new(b"smtp.example".to_vec())),
                "from" => Reference::Found(Secret::new(b"postrider@x.example".to_vec())),
                _ => Reference::NoKey,
            };
            (key, value)
        });
        let identity = identity(name, 1);
        let egress = EgressPolicy::default();
        let destination =
            Destination::try_from_spec(identity.clone(), &spec, &references.collect(), &egress).unwrap();
        self.directory.put_destination(Entry {
            identity,
            subscription: Subscription::of(&spec),
            state: EntryState::Ready(Arc::new(destination)),
            enable_request: None,
        });
    }

    pub(super) fn script(&self, fates: Vec<Fate>) {
        *self.mailer.fates.lock() = fates;
    }

    /// Who was named to the server since the last look.
    pub(super) fn mailed(&self) -> Vec<String> {
        let sent = std::mem::take(&mut *self.mailer.sent.lock());
        sent.into_iter()
            .map(|(_, address)| address.replace("@x.example", ""))
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_gets_one_mail_once() {
    for per_recipient in [false, true] {
        let fixture = mailing(Arc::new(MemoryQueue::default()), per_recipient);
        fixture.publish("mails", 1).await;
        fixture.pass(3600).await;
        let ids: std::collections::HashSet<_> = fixture
            .mailer
            .sent
            .lock()
            .iter()
            .map(|(id, _)| id.clone())
            .collect();
        assert_eq!(ids.len(), if per_recipient { 3 } else { 1 });
        assert_eq!(fixture.mailed(), ["a", "b", "c"]);
        assert_eq!(fixture.view("mails").health.delivered, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_leaves_out_who_has_the_mail_and_who_never_will() {
    let fixture = mailing(Arc::new(MemoryQueue::default()), false);
    fixture.script(vec![Fate::Taken, refused(), later(), later()]);
    fixture.publish("mails", 1).await;
    fixture.pass(3).await;
    assert_eq!(fixture.mailed(), ["a", "b", "c"]);
    fixture.pass(3600).await;
    assert_eq!(fixture.mailed(), ["c", "c"]);
    let view = fixture.view("mails");
    assert_eq!((view.depth.pending, view.health.exhausted), (0, 1));
    let last = view.health.last_failure.unwrap();
    assert_eq!(last.reason, FailureReason::PartlyRefused);
    assert!(
        last.message.starts_with("2 of 3 recipients have the mail; "),
        "{}",
        last.message
    );
}

#[tokio::test(start_paused = true)]
async fn who_has_the_mail_is_remembered_over_a_restart() {
    let queue: Arc<dyn Queue> = Arc::new(MemoryQueue::default());
    let fixture = mailing(Arc::clone(&queue), true);
    fixture.script(vec![Fate::Taken, later(), Fate::Taken]);
    fixture.publish("mails", 1).await;
    fixture.pass(3).await;
    fixture.shutdown.cancel();
    let first = fixture.mailer.sent.lock()[1].clone();
    let Fixture { running, .. } = fixture;
    running.await.unwrap().unwrap();
    let fixture = mailing(queue, true);
    fixture.pass(3600).await;
    assert_eq!(
        fixture.mailer.sent.lock().clone(),
        [first],
        "the same message, for the one who lacks it"
    );
    assert_eq!(fixture.view("mails").health.delivered, 1);
}

#[tokio::test(start_paused = true)]
async fn a_refused_recipient_among_others_does_not_disable_the_destination() {
    let fixture = mailing(Arc::new(MemoryQueue::default()), false);
    fixture.script(
        (0..40)
            .flat_map(|_| [Fate::Taken, refused(), Fate::Taken])
            .collect(),
    );
    for _ in 0..40 {
        fixture.publish("mails", 1).await;
        fixture.pass(300).await;
    }
    let health = fixture.view("mails").health;
    assert_eq!(
        (health.disabled, health.exhausted, health.consecutive_failures),
        (None, 40, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_that_refuses_everybody_disables_the_destination() {
    let fixture = mailing(Arc::new(MemoryQueue::default()), false);
    fixture.script(vec![refused(); 3 * 40]);
    for _ in 0..40 {
        fixture.publish("mails", 1).await;
        fixture.pass(300).await;
    }
    assert!(fixture.view("mails").health.disabled.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_mail_that_reaches_somebody_shows_that_the_server_is_back() {
    let fixture = mailing(Arc::new(MemoryQueue::default()), false);
    fixture.script(vec![later(); 3 * 4 * 40]);
    for _ in 0..40 {
        fixture.publish("mails", 1).await;
        fixture.pass(300).await;
    }
    assert!(fixture.view("mails").health.disabled.is_some());
    fixture.script(
        (0..100)
            .flat_map(|_| [Fate::Taken, refused(), Fate::Taken])
            .collect(),
    );
    fixture.pass(24 * 3600).await;
    let view = fixture.view("mails");
    assert_eq!(
        (
            view.health.disabled,
            view.health.consecutive_failures,
            view.depth.pending
        ),
        (None, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn greylisting_beside_a_refused_recipient_does_not_disable_the_destination() {
    let fixture = mailing(Arc::new(MemoryQueue::default()), false);
    fixture.script(
        (0..60)
            .flat_map(|_| [Fate::Taken, refused(), later(), Fate::Taken])
            .collect(),
    );
    for _ in 0..60 {
        fixture.publish("mails", 1).await;
        fixture.pass(300).await;
    }
    let health = fixture.view("mails").health;
    assert_eq!((health.disabled, health.exhausted), (None, 60));
}
