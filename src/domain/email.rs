//! [`Email`]: a validated `spec.email`; [`Mail`]: exactly what is said to the SMTP server.
//!
//! [`prepare`] is pure: the same arguments give the same mail. It is the same on every attempt, `Message-ID` and
//! `Date` included, unless a template asks for the attempt's number; so a receiver that got it twice can tell.
//! Turning it into bytes (MIME) and saying it is left to the transport; what its answers mean is decided in
//! [`settled`]. What a mail says by default is in [`words`].
//!
//! Nothing of an event gets into a header or a command unchecked: line breaks and other control characters become
//! spaces in a subject, addresses come from the spec alone, and types and ids are visible ASCII since they were parsed.

mod address;
pub mod settled;
pub mod words;

use std::sync::Arc;

use jiff::Timestamp;

pub use self::address::Mailbox;
use self::settled::Settled;
use super::delivery::{Attempt, PrepareError};
use super::destination::Identity;
use super::event::Event;
use super::id;
use super::shape::RenderError;
use super::smtp::SmtpServer;
use super::template::Template;
use super::template::field::FieldError;

/// Most characters of a subject.
pub const MAX_SUBJECT: usize = 200;

/// An e-mail target.
#[derive(Clone, Debug)]
pub struct Email {
    /// Who gets the mail.
    pub to: Vec<Mailbox>,
    /// Who gets a copy.
    pub cc: Vec<Mailbox>,
    /// Where answers go; empty: to the sender.
    pub reply_to: Vec<Mailbox>,
    /// The sender.
    pub from: Mailbox,
    /// Subject; `None`: the default one.
    pub subject: Option<Template>,
    /// Plain text.
    pub text: Option<Template>,
    /// HTML text. When neither is there, both are the default ones.
    pub html: Option<Template>,
    /// A mail for each recipient.
    pub per_recipient: bool,
    /// Which server takes the mails.
    pub server: Arc<SmtpServer>,
}

/// What one attempt says to the server.
#[derive(Clone, Debug)]
pub struct Mail {
    /// The server.
    pub server: Arc<SmtpServer>,
    /// One letter, or one for each recipient.
    pub letters: Vec<Letter>,
}

/// A message and who still has to get it.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Recipients of the envelope.
    pub recipients: Vec<Recipient>,
    /// Sender, of the envelope too.
    pub from: Mailbox,
    /// `To`.
    pub to: Vec<Mailbox>,
    /// `Cc`.
    pub cc: Vec<Mailbox>,
    /// `Reply-To`.
    pub reply_to: Vec<Mailbox>,
    /// `Subject`, without control characters.
    pub subject: Arc<str>,
    /// Plain text.
    pub text: Option<Arc<str>>,
    /// HTML text.
    pub html: Option<Arc<str>>,
    /// `Message-ID`, with its angle brackets.
    pub message_id: String,
    /// `Date`: when the event was accepted.
    pub date: Timestamp,
    /// What separates the parts; in none of them.
    pub boundary: String,
    /// Further headers; visible ASCII.
    pub headers: Vec<(&'static str, String)>,
}

/// Somebody who gets a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Address.
    pub mailbox: Mailbox,
    /// Which field names it, such as `spec.email.to[1]`: messages show this, not the address.
    pub field: Box<str>,
}

impl Letter {
    /// Whether the server must understand SMTPUTF8 to take it: an address in header or envelope needs it.
    #[must_use]
    pub fn is_international(&self) -> bool {
        let headers = [&self.to, &self.cc, &self.reply_to].into_iter().flatten();
        let envelope = self.recipients.iter().map(|recipient| &recipient.mailbox);
        self.from.is_international() || headers.chain(envelope).any(Mailbox::is_international)
    }
}

impl Mail {
    /// Everybody who still has to get it, in the order in which the transport tells what became of them.
    pub fn recipients(&self) -> impl Iterator<Item = &Recipient> {
        self.letters.iter().flat_map(|letter| &letter.recipients)
    }
}

impl Email {
    /// Everybody, each address once.
    #[must_use]
    pub fn recipients(&self) -> Vec<Recipient> {
        let named = |list: &'static str, mailboxes: &[Mailbox]| {
            let each = mailboxes
                .iter()
                .enumerate()
                .map(move |(index, mailbox)| Recipient {
                    mailbox: mailbox.clone(),
                    field: format!("spec.email.{list}[{index}]").into(),
                });
            each.collect::<Vec<_>>()
        };
        let mut recipients: Vec<Recipient> = Vec::with_capacity(self.to.len() + self.cc.len());
        for recipient in [named("to", &self.to), named("cc", &self.cc)]
            .into_iter()
            .flatten()
        {
            if !recipients
                .iter()
                .any(|known| known.mailbox.is_same_address(&recipient.mailbox))
            {
                recipients.push(recipient);
            }
        }
        recipients
    }
}

/// Renders the mail of a test send, for everybody: marked in its subject and by a header.
///
/// # Errors
/// When a template cannot render this event.
pub fn prepare_test(
    email: &Email,
    destination: &Identity,
    event: &Event,
    now: Timestamp,
) -> Result<Mail, PrepareError> {
    let attempt = Attempt { number: 1, now };
    let mut mail = prepare(email, destination, event, attempt, &Settled::default())?;
    for letter in &mut mail.letters {
        let subject = format!("[Test] {}", letter.subject);
        letter.subject = words::one_line(&subject, MAX_SUBJECT).into();
        letter.headers.push(("X-Postrider-Test", "true".to_owned()));
    }
    Ok(mail)
}

/// Renders the mail for those who are not settled.
///
/// # Errors
/// When a template cannot render this event.
pub fn prepare(
    email: &Email,
    destination: &Identity,
    event: &Event,
    attempt: Attempt,
    settled: &Settled,
) -> Result<Mail, PrepareError> {
    let render = |field: &str, template: &Template, write: fn(&str, &mut String)| {
        let rendered = template.render_text(event, destination, attempt, write);
        rendered.map_err(|error| unrendered(field, error))
    };
    let plain = |value: &str, out: &mut String| out.push_str(value);
    let subject = match &email.subject {
        Some(template) => render("spec.email.subject", template, plain)?,
        None => words::subject(event),
    };
    let subject: Arc<str> = words::one_line(&subject, MAX_SUBJECT).into();
    let is_default = email.text.is_none() && email.html.is_none();
    let text = match &email.text {
        Some(template) => Some(render("spec.email.text", template, plain)?),
        None => is_default.then(|| words::text(event, destination)),
    };
    let html = match &email.html {
        Some(template) => Some(render("spec.email.html", template, words::escape)?),
        None => is_default.then(|| words::html(event, destination, &subject)),
    };
    let (text, html) = (text.map(Arc::<str>::from), html.map(Arc::<str>::from));
    let delivery = id::delivery_id(&event.id, &event.project.uid, &destination.uid);
    let letter = |recipients: Vec<Recipient>, to: &[Mailbox], cc: &[Mailbox], which: &str| Letter {
        recipients,
        from: email.from.clone(),
        to: to.to_vec(),
        cc: cc.to_vec(),
        reply_to: email.reply_to.clone(),
        subject: Arc::clone(&subject),
        text: text.clone(),
        html: html.clone(),
        message_id: format!("<{delivery}{which}@{}>", email.from.domain()),
        date: event.accepted,
        // Parts are encoded so that no line of theirs begins with `--=_`.
        boundary: format!("=_{}", delivery.simple()),
        headers: headers(email, destination, event, &delivery),
    };
    let open = email.recipients();
    let mut open: Vec<_> = open
        .into_iter()
        .filter(|one| !settled.knows(&one.mailbox))
        .collect();
    let letters = if email.per_recipient {
        let each = open.drain(..).map(|recipient| {
            let which = format!(".{}", hex::encode(settled::mark(&recipient.mailbox)));
            let to = [recipient.mailbox.clone()];
            letter(vec![recipient], &to, &[], &which)
        });
        each.collect()
    } else if open.is_empty() {
        Vec::new()
    } else {
        vec![letter(open, &email.to, &email.cc, "")]
    };
    Ok(Mail {
        server: Arc::clone(&email.server),
        letters,
    })
}

fn headers(
    email: &Email,
    destination: &Identity,
    event: &Event,
    delivery: &uuid::Uuid,
) -> Vec<(&'static str, String)> {
    vec![
        ("Auto-Submitted", "auto-generated".to_owned()),
        // Exchange answers machines all the same unless it is told not to.
        ("X-Auto-Response-Suppress", "All".to_owned()),
        ("List-Id", list_id(email, destination)),
        ("X-Postrider-Event-Type", event.content.event_type.to_string()),
        ("X-Postrider-Event-Id", event.id.to_string()),
        ("X-Postrider-Delivery-Id", delivery.to_string()),
    ]
}

/// `<name.namespace.domain-of-the-sender>` (RFC 2919); the uid stands for a name that is too long.
fn list_id(email: &Email, destination: &Identity) -> String {
    const MAX_LIST_ID: usize = 255;
    let (namespace, domain) = (&destination.key.namespace, email.from.domain());
    let id = format!("{}.{namespace}.{domain}", destination.key.name);
    if id.len() <= MAX_LIST_ID {
        format!("<{id}>")
    } else {
        format!("<{}.{domain}>", destination.uid)
    }
}

/// What a template could not do, with the field it stands in.
fn unrendered(field: &str, error: RenderError) -> PrepareError {
    PrepareError::Field(FieldError::Render {
        field: field.into(),
        error,
    })
}

#[cfg(test)]
mod tests;
