//! [`expand`]: a project's `spec.notifications` as the `EventDestination`s that it stands for.
//!
//! Owns who is told of what, and the names of the children, which depend on nothing but project, type and address: a
//! change of one entry touches its own child and no other, so that no other queue is lost or sent twice. An address
//! is told of one event once: a primary contact is no owner and no subscriber besides, an owner no subscriber. Making, mending and removing
//! the children is left to the controller of projects.

use sha2::{Digest as _, Sha256};

use super::destination::Endpoint;
use super::egress::EgressPolicy;
use super::email::Mailbox;
use super::event::parse::is_event_type;
use super::fault::Faults;
use crate::api::v1alpha1::event_destination::{
    DeliverySpec, EventDestinationSpec, PayloadFormat, PayloadSpec, RetrySpec, SigningScheme, SigningSpec,
    WebhookTarget,
};
use crate::api::v1alpha1::event_project::{Notifications, Subscribers};
use crate::api::v1alpha1::{EmailTarget, LocalReference};

/// Most types that are listed.
pub const MAX_EVENTS: usize = 64;
/// Most subscribers over all types.
pub const MAX_SUBSCRIBERS: usize = 256;
/// Most primary contacts.
pub const MAX_CONTACTS: usize = 10;
/// What a project's owner is told of.
const OWNER_TYPE: &str = "workflow_failure";
/// Most characters of a mailbox, as a destination takes it.
const MAX_MAILBOX: usize = 320;
/// Most characters of a destination's name.
const MAX_NAME: usize = 245;
/// Most characters of an event type in a name.
const MAX_TYPE_IN_NAME: usize = 40;
const PATH: &str = "spec.notifications";

/// What a child is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The project's owner.
    Owner,
    /// Those who are told of everything.
    PrimaryContact,
    /// The shared URL.
    Webhook,
    /// Somebody who is told of one type.
    Subscriber,
}

impl Role {
    /// The word for it, as in the child's label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::PrimaryContact => "primary-contact",
            Self::Webhook => "webhook",
            Self::Subscriber => "subscriber",
        }
    }
}

/// An `EventDestination` that a project's notifications stand for.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// What it does.
    pub spec: EventDestinationSpec,
}

/// The children of a project, in the order of the spec's fields.
///
/// # Errors
/// Every fault of the notifications at once; then nothing should be changed.
pub fn expand(project: &str, spec: &Notifications, egress: &EgressPolicy) -> Result<Vec<Child>, Faults> {
    let mut expansion = Expansion {
        project,
        smtp: spec.smtp_ref.as_ref(),
        faults: Faults::default(),
        children: Vec::new(),
    };
    let contacts = expansion.contacts(&spec.primary_contact);
    let told_of_all = |mailbox: &Mailbox| contacts.iter().any(|one| one.is_same_address(mailbox));
    let mut told_as_owner = None;
    if let Some(owner) = &spec.owner_email
        && let Some(mailbox) = expansion.mailbox(format!("{PATH}.ownerEmail"), owner)
        && !told_of_all(&mailbox)
    {
        expansion.mail(Role::Owner, OWNER_TYPE, vec![owner.trim().to_owned()], "owner");
        told_as_owner = Some(mailbox);
    }
    if !contacts.is_empty() {
        let to = spec
            .primary_contact
            .iter()
            .map(|one| one.trim().to_owned())
            .collect();
        expansion.mail(Role::PrimaryContact, "*", to, Role::PrimaryContact.as_str());
    }
    expansion.webhook(spec, egress);
    let is_told = |event_type: &str, mailbox: &Mailbox| {
        let as_owner = event_type == OWNER_TYPE
            && told_as_owner
                .as_ref()
                .is_some_and(|owner| owner.is_same_address(mailbox));
        as_owner || told_of_all(mailbox)
    };
    expansion.subscribers(spec, is_told);
    if expansion.faults.is_empty() {
        Ok(expansion.children)
    } else {
        Err(expansion.faults)
    }
}

struct Expansion<'a> {
    project: &'a str,
    smtp: Option<&'a LocalReference>,
    faults: Faults,
    children: Vec<Child>,
}

impl Expansion<'_> {
    fn contacts(&mut self, contacts: &[String]) -> Vec<Mailbox> {
        if contacts.len() > MAX_CONTACTS {
            let message = format!("at most {MAX_CONTACTS} addresses are allowed");
            self.faults.invalid(format!("{PATH}.primaryContact"), message);
        }
        let each = contacts.iter().enumerate();
        each.filter_map(|(index, text)| self.mailbox(format!("{PATH}.primaryContact[{index}]"), text))
            .collect()
    }

    fn mailbox(&mut self, path: String, text: &str) -> Option<Mailbox> {
        if text.chars().count() > MAX_MAILBOX {
            let message = format!("this is over {MAX_MAILBOX} characters; shorten the name");
            self.faults.invalid(path, message);
            return None;
        }
        match Mailbox::parse(text) {
            // What a destination takes at first sight: spaces around an address in its brackets are too much.
            Ok(_) if has_inner_space(text) => {
                self.faults.invalid(path, "remove the spaces around the address");
                None
            }
            Ok(mailbox) => Some(mailbox),
            Err(message) => {
                self.faults.invalid(path, message);
                None
            }
        }
    }

    fn webhook(&mut self, spec: &Notifications, egress: &EgressPolicy) {
        let path = format!("{PATH}.webhook");
        let switched: Vec<String> = spec
            .events
            .iter()
            .filter(|event| event.send_webhook)
            .map(|event| event.event_type.clone())
            .collect();
        let Some(webhook) = &spec.webhook else {
            let switch = spec.events.iter().position(|event| event.send_webhook);
            if let Some(index) = switch {
                let message = "there is no webhook to send to; set spec.notifications.webhook";
                self.faults
                    .invalid(format!("{PATH}.events[{index}].sendWebhook"), message);
            }
            return;
        };
        match (&webhook.url, &webhook.url_from) {
            (Some(url), None) => {
                if let Err(message) = Endpoint::parse(url, egress) {
                    self.faults.invalid(format!("{path}.url"), message);
                }
            }
            (None, Some(_)) => {}
            _ => self.faults.invalid(path, "set exactly one of url and urlFrom"),
        }
        if switched.is_empty() {
            return;
        }
        let target = WebhookTarget {
            url: webhook.url.clone(),
            url_from: webhook.url_from.clone(),
            payload: Some(PayloadSpec {
                format: Some(PayloadFormat::Flat),
                ..PayloadSpec::default()
            }),
            signing: Some(SigningSpec {
                scheme: Some(SigningScheme::None),
                ..SigningSpec::default()
            }),
            ..WebhookTarget::default()
        };
        let delivery = DeliverySpec {
            retry: Some(RetrySpec {
                max_attempts: Some(1),
                ..RetrySpec::default()
            }),
            ..DeliverySpec::default()
        };
        let spec = EventDestinationSpec {
            webhook: Some(target),
            delivery: Some(delivery),
            ..self.spec(switched)
        };
        self.child(Role::Webhook, Role::Webhook.as_str(), spec);
    }

    fn subscribers(&mut self, spec: &Notifications, is_told: impl Fn(&str, &Mailbox) -> bool) {
        if spec.events.len() > MAX_EVENTS {
            let message = format!("at most {MAX_EVENTS} types are allowed");
            self.faults.invalid(format!("{PATH}.events"), message);
            return;
        }
        let each = spec.events.iter().map(|event| event.email_subscribers.as_ref());
        let all: Vec<_> = each.map(addresses).collect();
        let count: usize = all.iter().map(Vec::len).sum();
        if count > MAX_SUBSCRIBERS {
            let message = format!("{count} subscribers in all, at most {MAX_SUBSCRIBERS} are allowed");
            self.faults.invalid(format!("{PATH}.events"), message);
            return;
        }
        for ((index, event), addresses) in spec.events.iter().enumerate().zip(all) {
            let path = format!("{PATH}.events[{index}]");
            let event_type = &event.event_type;
            if !is_event_type(event_type) {
                let message = "use 1 to 128 letters, digits, \"_\", \".\" and \"-\"";
                self.faults.invalid(format!("{path}.type"), message);
            }
            let same = |other: &&str| *other == event_type;
            let before = spec
                .events
                .iter()
                .take(index)
                .map(|event| event.event_type.as_str());
            if before.filter(|other| same(other)).count() > 0 {
                let message = format!("{event_type} is listed twice; join the two entries");
                self.faults.invalid(format!("{path}.type"), message);
                continue;
            }
            if let Some(Subscribers::Other(_)) = event.email_subscribers {
                let message = "use a list of addresses, or one text with commas between them";
                self.faults.invalid(format!("{path}.emailSubscribers"), message);
            }
            let mut seen: Vec<Mailbox> = Vec::new();
            for (place, text) in addresses {
                let path = format!("{path}.emailSubscribers{place}");
                let Some(mailbox) = self.mailbox(path, &text) else {
                    continue;
                };
                if is_told(event_type, &mailbox) || seen.iter().any(|one| one.is_same_address(&mailbox)) {
                    continue;
                }
                let suffix = subscriber_suffix(event_type, &mailbox);
                self.mail(Role::Subscriber, event_type, vec![text], &suffix);
                seen.push(mailbox);
            }
        }
    }

    fn mail(&mut self, role: Role, event_type: &str, to: Vec<String>, suffix: &str) {
        let email = EmailTarget {
            to,
            smtp_ref: self.smtp.cloned(),
            ..EmailTarget::default()
        };
        let spec = EventDestinationSpec {
            email: Some(email),
            ..self.spec(vec![event_type.to_owned()])
        };
        self.child(role, suffix, spec);
    }

    fn spec(&self, events: Vec<String>) -> EventDestinationSpec {
        EventDestinationSpec {
            project_ref: Some(LocalReference {
                name: self.project.to_owned(),
            }),
            events,
            filter: None,
            suspend: false,
            webhook: None,
            email: None,
            delivery: None,
            auto_disable: None,
        }
    }

    fn child(&mut self, role: Role, suffix: &str, spec: EventDestinationSpec) {
        let name = child_name(self.project, suffix);
        self.children.push(Child { name, role, spec });
    }
}

/// Whether there is white space between the last `@` and what is next to it, to the end.
fn has_inner_space(mailbox: &str) -> bool {
    mailbox.trim().rsplit_once('@').is_some_and(|(before, after)| {
        before.ends_with(char::is_whitespace) || after.contains(char::is_whitespace)
    })
}

/// The addresses with the end of their field path.
fn addresses(subscribers: Option<&Subscribers>) -> Vec<(String, String)> {
    match subscribers {
        None | Some(Subscribers::Other(_)) => Vec::new(),
        Some(Subscribers::List(list)) => {
            let each = list.iter().enumerate();
            each.map(|(index, text)| (format!("[{index}]"), text.trim().to_owned()))
                .collect()
        }
        Some(Subscribers::Text(text)) => {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| (String::new(), part.to_owned())).collect()
        }
    }
}

/// The type, as far as a name can hold it, and what tells types and addresses apart.
fn subscriber_suffix(event_type: &str, mailbox: &Mailbox) -> String {
    let letters: String = event_type
        .chars()
        .take(MAX_TYPE_IN_NAME)
        .map(|char| {
            if char.is_ascii_alphanumeric() {
                char.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let hash = hash(&[event_type, &mailbox.address()]);
    match letters.trim_matches('-') {
        "" => hash,
        letters => format!("{letters}-{hash}"),
    }
}

fn child_name(project: &str, suffix: &str) -> String {
    let name = format!("{project}-{suffix}");
    if name.len() <= MAX_NAME {
        return name;
    }
    let ending = format!("-{}-{suffix}", hash(&[project]));
    let room = MAX_NAME.saturating_sub(ending.len());
    let beginning = project.get(..room.min(project.len())).unwrap_or_default();
    format!("{}{ending}", beginning.trim_end_matches(['.', '-']))
}

/// Ten hexadecimal digits.
fn hash(parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("\n"));
    let mut text = hex::encode(digest);
    text.truncate(10);
    text
}

#[cfg(test)]
mod tests;
