//! Reading request bodies: bounded in bytes, in time, and over all requests together.
//!
//! Owns [`Budget`], the count of memory that the whole server holds for bodies. Invariants: a body over the limit is
//! refused from its `Content-Length`, before any of it is read; without one, reading stops at the limit; what is
//! counted is the room that was made, which is at most twice what has arrived, so that a client that only announces
//! a body takes none; what was counted is given back on drop. Bodies are copied out of their connection's buffers,
//! which are bounded elsewhere, so that a short one does not keep a long buffer. While a body moves to a larger room
//! it is there twice: of those there are no more than threads, and they are not counted.
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

/// Bytes that all requests together may hold for their bodies.
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
    let announced = announced.and_then(|length| usize::try_from(length).ok());
    match timeout(settings.body_timeout, collect(body, limit, announced, budget)).await {
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

async fn collect<B>(
    mut body: B,
    limit: usize,
    announced: Option<usize>,
    budget: &Arc<Budget>,
) -> Result<(Bytes, Share), Problem>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut room = Room::empty(budget);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            // Nobody reads this when the client is gone; a client with broken chunks does.
            Problem::new(
                Kind::MalformedRequest,
                "the body's framing is broken or the body is cut",
            )
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > limit.saturating_sub(room.whole.len()) {
            return Err(too_large(limit, budget));
        }
        room.take(&data, announced.unwrap_or(limit))?;
    }
    Ok((room.whole.into(), room.share))
}

/// What has arrived of a body.
struct Room {
    whole: Vec<u8>,
    /// As much as `whole` has room for.
    share: Share,
}

impl Room {
    fn empty(budget: &Arc<Budget>) -> Self {
        Self {
            whole: Vec::new(),
            share: Share::empty(budget),
        }
    }

    /// Adds a piece of a body that will probably have `whole` bytes: room is doubled, but not beyond that.
    fn take(&mut self, piece: &[u8], whole: usize) -> Result<(), Problem> {
        let needed = self.whole.len().saturating_add(piece.len());
        let room = self.whole.capacity();
        if needed > room {
            let wanted = room.saturating_mul(2).min(whole).max(needed);
            self.share.grow(wanted - room)?;
            self.whole.reserve_exact(wanted - self.whole.len());
            // The allocator may have given more.
            self.share.grow(self.whole.capacity() - wanted)?;
        }
        self.whole.extend_from_slice(piece);
        Ok(())
    }
}

fn too_large(limit: usize, budget: &Budget) -> Problem {
    budget.metrics.hit(Limit::Body);
    Problem::new(
        Kind::BodyTooLarge,
        format!("send at most {limit} bytes; split a batch"),
    )
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::StreamBody;
    use hyper::body::Frame;

    use super::*;

    fn budget(limit: usize) -> Arc<Budget> {
        Budget::new(limit, HttpMetrics::default())
    }

    fn held(budget: &Budget) -> usize {
        budget.held.load(Ordering::Relaxed)
    }

    /// A body that arrives in pieces.
    async fn arrive(
        pieces: &[usize],
        announced: Option<usize>,
        budget: &Arc<Budget>,
    ) -> Result<(Bytes, Share), Problem> {
        let frames = pieces
            .iter()
            .map(|length| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; *length]))));
        let body = StreamBody::new(futures::stream::iter(frames));
        collect(body, 1 << 20, announced, budget).await
    }

    #[test]
    fn the_room_that_is_made_is_counted_and_at_most_twice_what_arrived() {
        let budget = budget(usize::MAX);
        for (pieces, announced) in [
            (vec![1], None),
            (vec![1; 1000], None),
            (vec![1; 1000], Some(1000)),
            (vec![40_000, 1, 1], None),
            (vec![16_384; 64], Some(1 << 20)),
            (vec![3, 70_000, 5], Some(1 << 20)),
        ] {
            let mut room = Room::empty(&budget);
            for piece in &pieces {
                room.take(&vec![b'x'; *piece], announced.unwrap_or(1 << 20))
                    .unwrap();
                assert_eq!(room.whole.capacity(), held(&budget));
                assert!(held(&budget) <= 2 * room.whole.len(), "{pieces:?}");
            }
            if announced == Some(pieces.iter().sum()) {
                assert_eq!(room.whole.capacity(), room.whole.len(), "{pieces:?}");
            }
            drop(room);
            assert_eq!(held(&budget), 0);
        }
    }

    #[tokio::test]
    async fn the_memory_of_a_held_body_is_what_was_counted_for_it() {
        let budget = budget(usize::MAX);
        for pieces in [vec![1], vec![1, 1], vec![1; 100], vec![30_000], vec![30_000, 9]] {
            let (bytes, share) = arrive(&pieces, None, &budget).await.unwrap();
            assert_eq!(bytes.len(), pieces.iter().sum::<usize>());
            let memory = bytes.try_into_mut().expect("nobody else holds it").capacity();
            assert_eq!((memory, held(&budget)), (share.bytes, share.bytes), "{pieces:?}");
        }
        assert!(arrive(&[1; 100], Some(100), &budget).await.is_ok());
        assert_eq!(held(&budget), 0);
    }

    #[tokio::test]
    async fn small_bodies_in_pieces_fit_by_the_hundred() {
        let budget = budget(4_000);
        let mut shares = Vec::new();
        for _ in 0..1_000 {
            shares.push(arrive(&[1, 1], None, &budget).await.expect("there is room"));
        }
        let refused = arrive(&[2_001], None, &budget).await.unwrap_err();
        assert_eq!(refused.response().status(), 503);
        shares.clear();
        assert_eq!(held(&budget), 0);
        assert!(arrive(&[2_001], None, &budget).await.is_ok());
    }
}
