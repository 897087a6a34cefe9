//! Reading request bodies: bounded in bytes, in time, and over all requests together.
//!
//! Owns [`Budget`], the count of body bytes held by the whole server. Invariants: a body over the limit is refused
//! from its `Content-Length`, before any of it is read; without one, reading stops at the limit; bytes are counted as
//! they arrive, so that a client that only announces a body takes no room; what was counted is given back on drop.
//!
//! Leaves to others: who may send a body (`auth`), what it means (`domain::event`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::time::timeout;

use super::limits::{HttpSettings, Limit};
use super::metrics::HttpMetrics;
use super::problem::{Kind, Problem};

/// Room made at once for a body that comes in pieces.
const FIRST_ROOM: usize = 64 * 1024;

/// Body bytes that all requests together may hold.
#[derive(Debug)]
pub(super) struct Budget {
    limit: usize,
    held: AtomicUsize,
    metrics: HttpMetrics,
}

impl Budget {
    pub(super) fn new(limit: usize, metrics: HttpMetrics) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: AtomicUsize::new(0),
            metrics,
        })
    }
}

/// A body's share of the [`Budget`].
#[derive(Debug)]
pub(super) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// A share without bytes.
    pub(super) fn empty(budget: &Arc<Budget>) -> Self {
        Self {
            budget: Arc::clone(budget),
            bytes: 0,
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        let held = self
            .budget
            .held
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes);
        self.bytes += bytes;
        self.budget
            .metrics
            .held()
            .inc_by(u64::try_from(bytes).unwrap_or_default());
        if held <= self.budget.limit {
            return Ok(());
        }
        self.budget.metrics.hit(Limit::BodyMemory);
        Err(Problem::new(Kind::Unavailable, "too many requests are being read").retry_after(1))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget
            .metrics
            .held()
            .dec_by(u64::try_from(self.bytes).unwrap_or_default());
    }
}

/// Reads a whole body. The share belongs to the bytes: keep it as long as them.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Incoming,
    settings: &HttpSettings,
    budget: &Arc<Budget>,
) -> Result<(Bytes, Share), Problem> {
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let limit = settings.body_bytes;
    if announced.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit)) {
        return Err(too_large(limit, budget));
    }
    match timeout(settings.body_timeout, collect(body, limit, budget)).await {
        Ok(read) => read,
        Err(_elapsed) => {
            budget.metrics.hit(Limit::BodyTimeout);
            Err(Problem::new(
                Kind::RequestTimeout,
                "the request's body did not end in time",
            ))
        }
    }
}

async fn collect(mut body: Incoming, limit: usize, budget: &Arc<Budget>) -> Result<(Bytes, Share), Problem> {
    let mut share = Share::empty(budget);
    let mut whole: Vec<u8> = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            // Nobody reads this when the client is gone; a client with broken chunks does.
            Problem::new(
                Kind::MalformedRequest,
                "the body's framing is broken or the body is cut",
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        share.grow(data.len())?;
        if share.bytes > limit {
            return Err(too_large(limit, budget));
        }
        if whole.is_empty() {
            if body.is_end_stream() {
                // A body in one piece, which is the most frequent, is not copied.
                return Ok((data, share));
            }
            whole.reserve(FIRST_ROOM.min(limit).max(data.len()));
        }
        whole.extend_from_slice(&data);
    }
    Ok((whole.into(), share))
}

fn too_large(limit: usize, budget: &Budget) -> Problem {
    budget.metrics.hit(Limit::Body);
    Problem::new(
        Kind::BodyTooLarge,
        format!("send at most {limit} bytes; split a batch"),
    )
}
