//! [`Record`]: what the delivery log keeps of one attempt, and what it must never keep.
//!
//! Nothing secret gets in: [`RequestNotes`] writes the request's headers down with every value masked that is marked
//! sensitive or whose name says that it is a credential, and masks those values in what a
//! receiver echoes, in whatever form it does. Body and URL
//! of the request are not kept at all.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};
use jiff::Timestamp;
use strum::{EnumIter, EnumString, FromRepr, IntoStaticStr};

use super::delivery::{ATTEMPT, DELIVERY_ID, EVENT_ID, EVENT_TYPE, WebhookRequest, batch};
use super::email::Mail;
use super::id::{EventId, Uid};
use super::secret::Secret;
use super::signature::{WEBHOOK_ID, WEBHOOK_TIMESTAMP};
use super::test_send;

/// What stands in place of a value that is not shown.
pub const REDACTED: &str = "[redacted]";

/// Most bytes of the headers of one request that are kept; what is beyond is cut, which is said.
pub const MAX_HEADERS: usize = 4096;

/// Stands for a value that differs with each delivery and is known from the rest of the record.
const OF_DELIVERY: &str = "\u{1}";

/// The header that each mail has for itself.
const MESSAGE_ID: &str = "message-id";

/// Said at the end of headers that were cut.
const CUT: &str = "…";

/// How a delivery stood after an attempt.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EnumString, EnumIter, IntoStaticStr, FromRepr,
)]
#[repr(u8)]
pub enum State {
    /// The receiver has it.
    Delivered = 0,
    /// It failed and is tried again.
    Retrying = 1,
    /// It failed and was given up.
    Exhausted = 2,
    /// It was dropped without being sent, because the destination does not want it any more.
    Dropped = 3,
    /// It was cancelled on request.
    Cancelled = 4,
}

impl State {
    /// The word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How long the parts of an attempt took. What a kept connection made needless is not there.
///
/// Of several requests in one attempt, such as for a token, only the last one to the receiver counts in the parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// Looking up the name; the proxy's when there is one.
    pub dns: Option<Duration>,
    /// Opening the connection; through a proxy, until that has agreed to it.
    pub connect: Option<Duration>,
    /// Agreeing on TLS with the receiver.
    pub tls: Option<Duration>,
    /// From there until the answer's head was here.
    pub first_byte: Option<Duration>,
    /// All of it.
    pub total: Duration,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// uid of the destination.
    pub lane: Uid,
    /// Id of the event.
    pub event_id: EventId,
    /// Its type; empty when the stored event was damaged.
    pub event_type: Arc<str>,
    /// Its position in the queue.
    pub seq: u64,
    /// 1 for the first; 0 when nothing was tried.
    pub attempt: u32,
    /// When the attempt began.
    pub began: Timestamp,
    /// How the delivery stood afterwards.
    pub state: State,
    /// Status code, if there was an answer.
    pub status: Option<u16>,
    /// Why it failed, in one word; empty when it did not.
    pub reason: Cow<'static, str>,
    /// The same in a sentence.
    pub message: String,
    /// How long it took.
    pub timings: Timings,
    /// The request's headers as [`RequestNotes`] wrote them; [`headers`] reads them.
    pub headers: Arc<str>,
    /// What the answer's body began with.
    pub excerpt: Option<String>,
    /// When the next attempt is due.
    pub next_attempt: Option<Timestamp>,
    /// The delivery was asked for by a replay.
    pub replayed: bool,
}

impl Record {
    /// Bytes that it takes in memory, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let excerpt = self.excerpt.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.headers.len() + self.message.len() + excerpt
    }
}

/// What is noted of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestNotes<'a> {
    request: &'a WebhookRequest,
    in_body: Option<&'a Secret<String>>,
}

impl<'a> RequestNotes<'a> {
    /// Notes of a request, and of what its body carries in confidence ([`Payload::body_secret`]).
    ///
    /// [`Payload::body_secret`]: super::shape::Payload::body_secret
    #[must_use]
    pub const fn of(request: &'a WebhookRequest, in_body: Option<&'a Secret<String>>) -> Self {
        Self { request, in_body }
    }

    /// What the answer's body begins with, without what the request told in confidence.
    #[must_use]
    pub fn excerpt(&self, body: &[u8]) -> Option<String> {
        if body.is_empty() {
            return None;
        }
        // Too short to repeat anything: nothing needs to be collected.
        if body.len() < test_send::MIN_PASSWORD {
            return test_send::excerpt(body, &self.request.endpoint, &[]);
        }
        let in_body = self.in_body.map(|secret| Cow::from(secret.expose()));
        // The transport adds it to requests that a proxy passes on.
        let passage = self.request.passage.as_ref();
        let proxy = passage.and_then(|passage| passage.proxy.as_ref());
        let for_proxy = proxy.and_then(|proxy| proxy.authorization.as_ref());
        let headers = self.request.headers.iter();
        let in_headers = headers
            .filter(|(name, value)| is_secret(name, value))
            .map(|(_, value)| value);
        let values = for_proxy.into_iter().chain(in_headers);
        let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
        let secrets: Vec<Cow<'_, str>> = in_body.into_iter().chain(values).collect();
        test_send::excerpt(body, &self.request.endpoint, &secrets)
    }

    /// The headers, to be stored. Requests of one destination nearly always have the same ones, so `last` is given back
    /// when they are those.
    #[must_use]
    pub fn headers(&self, last: Option<&Arc<str>>) -> Arc<str> {
        if let Some(last) = last {
            let mut rest: &str = last;
            let is_same = write(&self.request.headers, |part| {
                let left = rest.strip_prefix(part);
                rest = left.unwrap_or(rest);
                left.is_some()
            });
            if is_same && rest.is_empty() {
                return Arc::clone(last);
            }
        }
        let mut text = String::with_capacity(320);
        write(&self.request.headers, |part| {
            text.push_str(part);
            true
        });
        text.into()
    }
}

/// Hands out the text that is stored of headers, part by part, until `put` wants no more. Returns whether it had all.
fn write(headers: &HeaderMap, mut put: impl FnMut(&str) -> bool) -> bool {
    // Its id and number are not those of any delivery in it.
    let is_batch = headers.contains_key(batch::SIZE);
    let mut written = 0_usize;
    for (name, value) in headers {
        if written >= MAX_HEADERS {
            return put(CUT);
        }
        let shown = if is_secret(name, value) {
            REDACTED
        } else if !is_batch && is_of_delivery(name) {
            OF_DELIVERY
        } else {
            value.to_str().unwrap_or("[not text]")
        };
        let room = MAX_HEADERS.saturating_sub(written);
        let shown = shown.get(..room).unwrap_or(shown);
        let line = [name.as_str(), ": ", shown, "\n"];
        if !line.iter().all(|part| put(part)) {
            return false;
        }
        written = line
            .iter()
            .fold(written, |sum, part| sum.saturating_add(part.len()));
    }
    true
}

/// The headers of a mail, to be stored; of several letters, one for each recipient, those of the first. Of addresses
/// there is the domain alone, and the subject, which is made of the event, is masked.
#[must_use]
pub fn mail_headers(mail: &Mail) -> Arc<str> {
    let Some(letter) = mail.letters.first() else {
        return Arc::default();
    };
    let mut text = String::with_capacity(640);
    let mut put = |name: &str, value: &str| {
        if text.ends_with(CUT) {
            return;
        }
        let room = MAX_HEADERS.saturating_sub(text.len());
        if room == 0 {
            return text.push_str(CUT);
        }
        let shown = value.get(..value.floor_char_boundary(room)).unwrap_or_default();
        for part in [name, ": ", shown, "\n"] {
            text.push_str(part);
        }
    };
    put(MESSAGE_ID, &letter.message_id);
    put("date", &letter.date.to_string());
    put("subject", REDACTED);
    for (name, value) in &letter.headers {
        let name = name.to_ascii_lowercase();
        let is_of_delivery = HeaderName::try_from(&name).is_ok_and(|name| is_of_delivery(&name));
        put(&name, if is_of_delivery { OF_DELIVERY } else { value });
    }
    for (name, list) in [
        ("from", std::slice::from_ref(&letter.from)),
        ("to", &letter.to),
        ("cc", &letter.cc),
        ("reply-to", &letter.reply_to),
    ] {
        let shown: Vec<_> = list
            .iter()
            .map(|mailbox| format!("{REDACTED}@{}", mailbox.domain()))
            .collect();
        if !shown.is_empty() {
            put(name, &shown.join(", "));
        }
    }
    text.into()
}

/// Whether other requests of a destination have the same headers, as they are stored.
#[must_use]
pub fn are_shared(headers: &str) -> bool {
    !headers.contains(batch::SIZE.as_str()) && !headers.starts_with(MESSAGE_ID)
}

/// Whether a header's value is not to be shown.
fn is_secret(name: &HeaderName, value: &HeaderValue) -> bool {
    // Looking through a name takes longest, so only names that are not ours are.
    value.is_sensitive() || !is_of_delivery(name) && !is_plain(name) && is_credential(name.as_str())
}

/// Whether a header differs with each delivery and is known from the rest of the record.
fn is_of_delivery(name: &HeaderName) -> bool {
    [
        EVENT_ID,
        DELIVERY_ID,
        ATTEMPT,
        EVENT_TYPE,
        WEBHOOK_ID,
        WEBHOOK_TIMESTAMP,
    ]
    .contains(name)
}

/// Whether every request has a header of that name, and nothing secret in it.
fn is_plain(name: &HeaderName) -> bool {
    [CONTENT_TYPE, USER_AGENT].contains(name)
}

/// Whether a header of that name carries what proves who sends.
fn is_credential(name: &str) -> bool {
    const WORDS: [&str; 8] = [
        "signature",
        "authorization",
        "cookie",
        "token",
        "secret",
        "password",
        "api-key",
        "apikey",
    ];
    WORDS.iter().any(|word| name.contains(word)) || name.ends_with("-key")
}

/// The headers of a record, values that differ with each delivery filled in.
#[must_use]
pub fn headers(record: &Record, delivery_id: Option<&str>) -> Vec<(String, String)> {
    let lines = record.headers.lines().filter_map(|line| line.split_once(": "));
    let named = |name: &str| match name {
        "x-postrider-event-type" => record.event_type.to_string(),
        "x-postrider-attempt" => record.attempt.to_string(),
        "x-postrider-delivery-id" => delivery_id.unwrap_or("[not known]").to_owned(),
        "webhook-timestamp" => record.began.as_second().to_string(),
        _ => record.event_id.as_str().to_owned(),
    };
    lines
        .map(|(name, value)| {
            let value = if value == OF_DELIVERY {
                named(name)
            } else {
                value.to_owned()
            };
            (name.to_owned(), value)
        })
        .collect()
}

#[cfg(test)]
mod tests;
