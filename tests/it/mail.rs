//! Mails to SMTP servers that are not ours: aiosmtpd (Python) and smtp-server (Node).
//!
//! The mailer is driven as the engine drives it. What arrives is read by Python's standard library `email`.

mod faults;
mod letters;
mod many;
mod script;
pub(crate) mod server;
mod unasked;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use postrider::adapters::smtp::{IDLE_TIMEOUT, MailerSettings, SmtpMailer};
use postrider::adapters::webhook::{TransportMetrics, Trust, system_lookup};
use postrider::api::v1alpha1::EventDestinationSpec;
use postrider::domain::delivery::Attempt;
use postrider::domain::destination::{
    Destination, Identity, Reference, References, Target, value_references,
};
use postrider::domain::egress::EgressPolicy;
use postrider::domain::email::settled::{Fate, Settled};
use postrider::domain::email::{Email, Mail, prepare};
use postrider::domain::event::{Event, parse};
use postrider::domain::id::{EventId, ObjectKey, Uid};
use postrider::domain::project::ProjectFacts;
use postrider::domain::secret::Secret;
use postrider::engine::transport::Mailer as _;
use serde_json::{Value, json};

/// Long enough for a machine under load; nothing waits for it to pass.
const LONG: Duration = Duration::from_secs(60);
/// Passes for sure: the server hangs.
const SHORT: Duration = Duration::from_millis(1500);

fn open_policy() -> EgressPolicy {
    EgressPolicy::new(["127.0.0.0/8".parse().unwrap()])
}

fn mailer_with(policy: EgressPolicy) -> SmtpMailer {
    SmtpMailer::new(MailerSettings {
        policy,
        trust: Trust::Only(Vec::new()),
        lookup: system_lookup(),
        refusals: TransportMetrics::default(),
        idle: IDLE_TIMEOUT,
    })
    .unwrap()
}

fn mailer() -> SmtpMailer {
    mailer_with(open_policy())
}

/// A `spec.email` for a server described by these keys.
fn email(spec: &Value, secret: &[(&str, &str)]) -> Email {
    let mut email =
        json!({"to": ["a@x.example"], "from": "Postrider <sender@x.example>", "smtpRef": {"name": "mail"}});
    email
        .as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let spec: EventDestinationSpec =
        serde_json::from_value(json!({"events": ["*"], "email": email})).unwrap();
    let secret: BTreeMap<_, _> = secret.iter().copied().collect();
    let found = value_references("ops", &spec).into_iter().map(|(_, key)| {
        let value = secret
            .get(key.key.as_str())
            .map(|value| value.as_bytes().to_vec());
        (
            key,
            value.map_or(Reference::NoKey, |value| Reference::Found(Secret::new(value))),
        )
    });
    let references: References = found.collect();
    match Destination::try_from_spec(identity(), &spec, &references, &open_policy())
        .unwrap()
        .target
    {
        Target::Email(email) => *email,
        Target::Webhook(_) => unreachable!(),
    }
}

fn identity() -> Identity {
    Identity {
        key: ObjectKey::new("shop", "ops"),
        uid: Uid::new("9d2c7b58-0000-4000-8000-000000000002"),
        generation: 1,
    }
}

fn event(body: &Value) -> Event {
    let headers = http::HeaderMap::from_iter([(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    )]);
    let draft = parse::parse(body.to_string().as_bytes(), &headers)
        .unwrap()
        .remove(0);
    let project = ProjectFacts {
        uid: Uid::new("0b1f3a44-0000-4000-8000-000000000001"),
        id: "acme".into(),
        name: "Acme".into(),
        environment: None,
        account_id: None,
        account_name: None,
    };
    let id = draft.id.unwrap_or_else(|| EventId::parse("evt-1").unwrap());
    Event::new(id, now(), draft.content, std::sync::Arc::new(project))
}

fn now() -> Timestamp {
    "2026-01-31T08:15:30Z".parse().unwrap()
}

fn mail_of(email: &Email, body: &Value) -> Mail {
    let attempt = Attempt {
        number: 1,
        now: now(),
    };
    prepare(email, &identity(), &event(body), attempt, &Settled::default()).unwrap()
}

fn some_mail(email: &Email) -> Mail {
    mail_of(email, &json!({"type": "workflow_failure", "data": {}}))
}

/// Sends a mail and tells each recipient's fate in one word, with the message of a failure.
async fn send(mailer: &SmtpMailer, mail: &Mail, deadline: Duration) -> Vec<(String, String)> {
    let fates = mailer.mail(mail, deadline).await;
    assert_eq!(fates.len(), mail.recipients().count());
    fates
        .into_iter()
        .map(|fate| match fate {
            Fate::Taken => ("Taken".to_owned(), String::new()),
            Fate::Refused(failure) => (format!("Refused {}", failure.reason.as_str()), failure.message),
            Fate::Open(failure) => (format!("Open {}", failure.reason.as_str()), failure.message),
        })
        .collect()
}

/// The same, the words alone.
async fn words(mailer: &SmtpMailer, mail: &Mail) -> Vec<String> {
    send(mailer, mail, LONG)
        .await
        .into_iter()
        .map(|(word, _)| word)
        .collect()
}
