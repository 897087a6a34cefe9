//! A letter's bytes: headers and MIME parts (RFC 5322, 2045–2047), built by lettre.
//!
//! Both parts are quoted-printable, which keeps lines short and ASCII whatever an event holds, stays readable in the
//! raw, and cannot hold the boundary.

use std::time::SystemTime;

use lettre::Address;
use lettre::address::AddressError;
use lettre::error::Error as BuildError;
use lettre::message::header::{
    self, ContentTransferEncoding, ContentType, HeaderName, HeaderValue, InvalidHeaderName,
};
use lettre::message::{Body, Mailbox as LettreMailbox, Mailboxes, Message, MultiPart, SinglePart};

use crate::domain::email::{Letter, Mailbox};

/// Why a letter cannot be written. The domain checks all of this before, so that it points to a bug of ours.
#[derive(Debug, thiserror::Error)]
pub enum MimeError {
    /// An address.
    #[error("an address cannot stand in a mail: {0}")]
    Address(#[from] AddressError),
    /// A header's name.
    #[error("a header's name cannot stand in a mail")]
    Header(#[from] InvalidHeaderName),
    /// Anything else.
    #[error("the mail cannot be built: {0}")]
    Build(#[from] BuildError),
}

/// Writes a letter.
///
/// # Errors
/// See [`MimeError`].
pub fn format(letter: &Letter) -> Result<Vec<u8>, MimeError> {
    let mut builder = Message::builder()
        .date(SystemTime::from(letter.date))
        .message_id(Some(letter.message_id.clone()))
        .header(header::From::from(mailboxes(std::slice::from_ref(&letter.from))?))
        .header(header::To::from(mailboxes(&letter.to)?))
        .subject(&*letter.subject);
    if !letter.cc.is_empty() {
        builder = builder.header(header::Cc::from(mailboxes(&letter.cc)?));
    }
    if !letter.reply_to.is_empty() {
        builder = builder.header(header::ReplyTo::from(mailboxes(&letter.reply_to)?));
    }
    for (name, value) in &letter.headers {
        let name = HeaderName::new_from_ascii((*name).to_owned())?;
        builder = builder.raw_header(HeaderValue::new(name, value.clone()));
    }
    // lettre wants an envelope it can make of the headers; ours is in the session.
    let part = |kind, text: &str| SinglePart::builder().header(kind).body(body(text));
    let message = match (&letter.text, &letter.html) {
        (Some(text), Some(html)) => builder.multipart(
            MultiPart::alternative()
                .boundary(letter.boundary.clone())
                .singlepart(part(ContentType::TEXT_PLAIN, text))
                .singlepart(part(ContentType::TEXT_HTML, html)),
        ),
        (None, Some(html)) => builder.singlepart(part(ContentType::TEXT_HTML, html)),
        (text, None) => {
            let text = text.as_deref().unwrap_or_default();
            builder.singlepart(part(ContentType::TEXT_PLAIN, text))
        }
    };
    Ok(message?.formatted())
}

fn body(text: &str) -> Body {
    // Line ends of any system become those of mail; quoted-printable keeps everything else as it is.
    let lines = text.replace("\r\n", "\n").replace('\r', "\n");
    let encoding = ContentTransferEncoding::QuotedPrintable;
    Body::new_with_encoding(lines, encoding).unwrap_or_else(Body::new)
}

fn mailboxes(list: &[Mailbox]) -> Result<Mailboxes, AddressError> {
    let mut mailboxes = Mailboxes::new();
    for mailbox in list {
        let address = Address::new(mailbox.local(), mailbox.domain())?;
        mailboxes.push(LettreMailbox::new(mailbox.name().map(str::to_owned), address));
    }
    Ok(mailboxes)
}
