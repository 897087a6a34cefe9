//! [`WebhookRequest`]: exactly what goes on the wire, made from a destination and an event.
//!
//! [`prepare`] is pure: the same arguments give the same bytes. The delivery id is the same on every attempt; the
//! timestamp is the attempt's.

use bytes::Bytes;
use http::{HeaderMap, Method};
use jiff::Timestamp;

use super::destination::{Destination, Endpoint};
use super::event::Event;

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
    /// The template met an event it cannot render.
    #[error("{0}")]
    Render(String),
}

/// Renders and signs.
///
/// # Errors
/// When the template cannot render this event; see [`PrepareError`].
pub fn prepare(
    _destination: &Destination,
    _event: &Event,
    _attempt: Attempt,
) -> Result<WebhookRequest, PrepareError> {
    Err(PrepareError::Render("unwritten".to_owned()))
}
