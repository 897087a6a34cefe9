//! A letter's bytes: headers and MIME parts (RFC 5322, 2045–2047), built by lettre.
//!
//! Both parts are quoted-printable, which keeps lines short and ASCII whatever an event holds, stays readable in the
//! raw, and cannot hold the boundary.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lettre::Address;
use lettre::address::AddressError;
use lettre::error::Error as BuildError;
use lettre::message::header::{
    self, ContentTransferEncoding, ContentType, HeaderName, HeaderValue, InvalidHeaderName,
};
use lettre::message::{Body, Mailbox as LettreMailbox, Mailboxes, Message, MultiPart, SinglePart};

use crate::domain::email::{Letter, Mailbox};

/// Bytes of text in an encoded word, by which a line stays below 76 characters (RFC 2047 §2).
const WORD: usize = 30;

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
        .raw_header(unstructured("Subject", letter.subject.to_string())?);
    if !letter.cc.is_empty() {
        builder = builder.header(header::Cc::from(mailboxes(&letter.cc)?));
    }
    if !letter.reply_to.is_empty() {
        builder = builder.header(header::ReplyTo::from(mailboxes(&letter.reply_to)?));
    }
    for (name, value) in &letter.headers {
        builder = builder.raw_header(unstructured(name, value.clone())?);
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

/// A header that is text. lettre encodes what is not ASCII; text that looks as if it were encoded already is encoded
/// here, or a reader would decode it, into line breaks, too.
fn unstructured(name: &'static str, text: String) -> Result<HeaderValue, InvalidHeaderName> {
    let name = HeaderName::new_from_ascii(name.to_owned())?;
    if !text.contains("=?") {
        return Ok(HeaderValue::new(name, text));
    }
    let mut words: Vec<String> = Vec::new();
    let mut rest = &*text;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.floor_char_boundary(WORD));
        words.push(format!("=?utf-8?b?{}?=", STANDARD.encode(word)));
        rest = after;
    }
    Ok(HeaderValue::dangerous_new_pre_encoded(
        name,
        text,
        words.join("\r\n "),
    ))
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
