//! A request that is made of several events: their bodies as one array, under one id and one signature.
//!
//! The id is made of the deliveries' ids: the same deliveries give the same id, on every attempt. What belongs to one
//! event, its id and its type, is in no header.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::Timestamp;

use super::{ATTEMPT, Attempt, OWN_HEADERS, PrepareError, USER_AGENT, WebhookRequest};
use crate::domain::destination::{Identity, Webhook};
use crate::domain::event::Event;
use crate::domain::id::{self, EventId};
use crate::domain::request::body::gzip;
use crate::domain::shape::{CLOUD_EVENT_JSON, JSON};
use crate::domain::signature::Outgoing;
use crate::domain::template::MAX_OUTPUT;

/// Header of the number of events in the body.
pub const SIZE: HeaderName = HeaderName::from_static("x-postrider-batch-size");
/// Content type of several CloudEvents.
pub const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";

/// What becomes of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// It is in the request.
    Taken,
    /// There is no room for it.
    Left,
    /// It cannot be rendered.
    Faulty(PrepareError),
}

/// Renders and signs a request for as many of the events as its body may hold, in their order; `None` when none can be
/// rendered. The body has at most [`MAX_OUTPUT`] bytes, unless a single event has more.
#[must_use]
pub fn prepare(
    webhook: &Webhook,
    destination: &Identity,
    events: &[(&Event, u32)],
    now: Timestamp,
) -> (Option<WebhookRequest>, Vec<Place>) {
    let mut places = Vec::with_capacity(events.len());
    let (mut body, mut content_type, mut taken) = (vec![b'['], CLOUD_EVENTS, Vec::new());
    let mut is_full = false;
    for (event, number) in events {
        let attempt = Attempt { number: *number, now };
        if is_full {
            places.push(Place::Left);
            continue;
        }
        let (text, of_one) = match render(webhook, destination, event, attempt) {
            Ok(rendered) => rendered,
            Err(error) => {
                places.push(Place::Faulty(error));
                continue;
            }
        };
        is_full = !taken.is_empty() && body.len().saturating_add(text.len() + 2) > MAX_OUTPUT;
        if is_full {
            places.push(Place::Left);
            continue;
        }
        if !taken.is_empty() {
            body.push(b',');
        }
        body.extend_from_slice(&text);
        if of_one != CLOUD_EVENT_JSON {
            content_type = JSON;
        }
        taken.push((*event, *number));
        places.push(Place::Taken);
    }
    body.push(b']');
    let request =
        (!taken.is_empty()).then(|| finish(webhook, destination, &taken, body.into(), content_type, now));
    (request, places)
}

/// The same for one event.
pub(super) fn of_one(
    webhook: &Webhook,
    destination: &Identity,
    event: &Event,
    attempt: Attempt,
) -> Result<WebhookRequest, PrepareError> {
    let rendered = render(webhook, destination, event, attempt)?;
    let mut body = vec![b'['];
    body.extend_from_slice(&rendered.0);
    body.push(b']');
    let content_type = if rendered.1 == CLOUD_EVENT_JSON {
        CLOUD_EVENTS
    } else {
        JSON
    };
    let taken = [(event, attempt.number)];
    Ok(finish(
        webhook,
        destination,
        &taken,
        body.into(),
        content_type,
        attempt.now,
    ))
}

fn render(
    webhook: &Webhook,
    destination: &Identity,
    event: &Event,
    attempt: Attempt,
) -> Result<(Bytes, &'static str), PrepareError> {
    let rendered = webhook.payload.render(event, destination, attempt)?;
    let (rendered, _) = webhook.request.body.apply(rendered)?;
    Ok((rendered.body, rendered.content_type))
}

fn finish(
    webhook: &Webhook,
    destination: &Identity,
    taken: &[(&Event, u32)],
    mut body: Bytes,
    content_type: &'static str,
    now: Timestamp,
) -> WebhookRequest {
    let mut headers = HeaderMap::with_capacity(OWN_HEADERS + webhook.headers.len());
    for (name, value) in &webhook.headers {
        headers.append(name.clone(), value.clone());
    }
    if webhook.request.gzip_above.is_some_and(|most| body.len() > most) {
        body = gzip(&body);
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers
        .entry(header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static(content_type));
    headers
        .entry(header::USER_AGENT)
        .or_insert(HeaderValue::from_static(USER_AGENT));
    let number = taken.iter().map(|(_, number)| *number).max().unwrap_or(1);
    headers.insert(ATTEMPT, HeaderValue::from(number));
    headers.insert(SIZE, HeaderValue::from(taken.len()));
    let deliveries = taken
        .iter()
        .map(|(event, _)| id::delivery_id(&event.id, &event.project.uid, &destination.uid));
    let id = EventId::from_uuid(id::batch_id(deliveries));
    let outgoing = Outgoing {
        id: &id,
        now,
        body: &body,
        url: webhook.endpoint.expose().as_str(),
        method: webhook.request.method.as_str(),
    };
    webhook.signer.sign(&outgoing, &mut headers);
    WebhookRequest {
        method: webhook.request.method.clone(),
        endpoint: webhook.endpoint.clone(),
        headers,
        body,
        passage: webhook.request.passage.clone(),
    }
}

#[cfg(test)]
mod tests;
