//! [`WebhookRequest`]: exactly what goes on the wire, made from a destination and an event. What an e-mail
//! destination sends is in [`email`](super::email).
//!
//! [`prepare`] is pure: the same arguments give the same bytes. Body, ids and headers are the same on every attempt,
//! except `X-Postrider-Attempt`, `webhook-timestamp` and with it the signature. Host, Content-Length and whatever
//! else HTTP itself needs is left to the transport.

pub mod batch;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use jiff::Timestamp;

use super::destination::{Endpoint, Identity, Webhook};
use super::event::Event;
use super::id;
use super::request::Passage;
use super::request::body::{Attributes, FormError, gzip};
use super::shape::{RenderError, Rendered};
use super::signature::Outgoing;
use super::template::field::FieldError;

/// Header of the event's type.
pub const EVENT_TYPE: HeaderName = HeaderName::from_static("x-postrider-event-type");
/// Header of the event's id.
pub const EVENT_ID: HeaderName = HeaderName::from_static("x-postrider-event-id");
/// Header of the delivery's id: one event to one destination, the same on every attempt.
pub const DELIVERY_ID: HeaderName = HeaderName::from_static("x-postrider-delivery-id");
/// Header of the attempt's number, 1 for the first.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-postrider-attempt");
/// Header that marks a test send; its value is `true`. Deliveries do not have it.
pub const TEST: HeaderName = HeaderName::from_static("x-postrider-test");
/// What Postrider calls itself.
pub const USER_AGENT: &str = concat!("Postrider/", env!("CARGO_PKG_VERSION"));

/// Headers that [`prepare`] sets itself, at most.
const OWN_HEADERS: usize = 9;

/// A request ready to send.
#[derive(Clone, Debug)]
pub struct WebhookRequest {
    /// Method.
    pub method: Method,
    /// Where to.
    pub endpoint: Endpoint,
    /// All headers that Postrider sets; secret ones are marked sensitive.
    pub headers: HeaderMap,
    /// The exact bytes that were signed.
    pub body: Bytes,
    /// How it gets to its receiver, when it is not the plain way.
    pub passage: Option<Arc<Passage>>,
}

/// Facts of one attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When it starts.
    pub now: Timestamp,
}

/// Why a request could not be made. Terminal: no retry mends it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrepareError {
    /// The format or template met an event it cannot render.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// The body cannot have the form that `contentType` or `cloudEvents` asks for.
    #[error(transparent)]
    Form(#[from] FormError),
    /// A template of a field, such as a header or a subject, met an event it cannot render.
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Renders and signs.
///
/// Where events go in batches it is a batch of one. The destination's own headers win over `Content-Type` and `User-Agent`. What
/// Postrider says about the delivery, and the signature, is written last and cannot be replaced.
///
/// # Errors
/// When the format or the template cannot render this event; see [`PrepareError`].
pub fn prepare(
    webhook: &Webhook,
    destination: &Identity,
    event: &Event,
    attempt: Attempt,
) -> Result<WebhookRequest, PrepareError> {
    if webhook.request.is_batch {
        return batch::of_one(webhook, destination, event, attempt);
    }
    let rendered = webhook.payload.render(event, destination, attempt)?;
    let (mut rendered, mut attributes) = webhook.request.body.apply(rendered)?;
    if webhook
        .request
        .gzip_above
        .is_some_and(|most| rendered.body.len() > most)
    {
        rendered.body = gzip(&rendered.body);
        attributes.push((header::CONTENT_ENCODING, HeaderValue::from_static("gzip")));
    }
    let endpoint = match &webhook.templates.url {
        Some(url) => Endpoint::filled(url.render(event, destination, attempt)?),
        None => webhook.endpoint.clone(),
    };
    let mut headers = own_headers(webhook, event, destination, attempt)?;
    describe(&mut headers, attributes, &rendered, event, destination, attempt);
    let outgoing = Outgoing {
        id: &event.id,
        now: attempt.now,
        body: &rendered.body,
        url: endpoint.expose().as_str(),
        method: webhook.request.method.as_str(),
    };
    webhook.signer.sign(&outgoing, &mut headers);
    Ok(WebhookRequest {
        method: webhook.request.method.clone(),
        endpoint,
        headers,
        body: rendered.body,
        passage: webhook.request.passage.clone(),
    })
}

/// The same for a test send: marked, so that a receiver can tell it from a delivery.
///
/// # Errors
/// As [`prepare`].
pub fn prepare_test(
    webhook: &Webhook,
    destination: &Identity,
    event: &Event,
    now: Timestamp,
) -> Result<WebhookRequest, PrepareError> {
    let mut request = prepare(webhook, destination, event, Attempt { number: 1, now })?;
    request.headers.insert(TEST, HeaderValue::from_static("true"));
    Ok(request)
}

/// The destination's own headers, with room for the others.
fn own_headers(
    webhook: &Webhook,
    event: &Event,
    destination: &Identity,
    attempt: Attempt,
) -> Result<HeaderMap, FieldError> {
    let own = webhook.headers.len() + webhook.templates.headers.len();
    let mut headers = HeaderMap::with_capacity(OWN_HEADERS + own);
    for (name, value) in &webhook.headers {
        headers.append(name.clone(), value.clone());
    }
    for (name, template) in &webhook.templates.headers {
        headers.append(name.clone(), template.render(event, destination, attempt)?);
    }
    Ok(headers)
}

/// Sets what Postrider says of the delivery.
fn describe(
    headers: &mut HeaderMap,
    attributes: Attributes,
    rendered: &Rendered,
    event: &Event,
    destination: &Identity,
    attempt: Attempt,
) {
    // What the event says of itself wins, as what Postrider says does.
    for (name, value) in attributes {
        headers.insert(name, value);
    }
    headers
        .entry(header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static(rendered.content_type));
    headers
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(USER_AGENT));
    // Types and ids are visible ASCII since they were parsed, so these hold.
    if let Ok(value) = HeaderValue::from_str(&event.content.event_type) {
        headers.insert(EVENT_TYPE, value);
    }
    if let Ok(value) = HeaderValue::from_str(event.id.as_str()) {
        headers.insert(EVENT_ID, value);
    }
    let delivery = id::delivery_id(&event.id, &event.project.uid, &destination.uid);
    let mut buffer = uuid::Uuid::encode_buffer();
    if let Ok(value) = HeaderValue::from_str(delivery.hyphenated().encode_lower(&mut buffer)) {
        headers.insert(DELIVERY_ID, value);
    }
    headers.insert(ATTEMPT, HeaderValue::from(attempt.number));
}

#[cfg(test)]
mod tests;
