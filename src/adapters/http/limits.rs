//! [`HttpSettings`]: every bound of the HTTP servers, in one place. [`Limit`] names a bound that was hit.
//!
//! Memory one client can pin before it is authenticated is `header_bytes` for HTTP/1.1 and `h2_connection_window`
//! for HTTP/2; together with `connections` that bounds the server. Bodies of authenticated callers are counted
//! against `body_bytes_in_flight`, for as long as they are held.
//!
//! Leaves to others: enforcing them.

use std::time::Duration;

use strum::{EnumCount, EnumIter, IntoStaticStr};

/// Bounds of a server. The defaults are those of a production installation.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Open connections; more are answered 503 and closed.
    pub connections: usize,
    /// Header fields of a request.
    pub header_count: usize,
    /// Bytes of request line and header fields; at least 8 KiB.
    pub header_bytes: usize,
    /// From the first byte of a request, or from connecting, to the end of its header.
    pub header_timeout: Duration,
    /// How long a connection may wait between requests.
    pub idle_timeout: Duration,
    /// Bytes of one body.
    pub body_bytes: usize,
    /// Bytes of memory made for all bodies held at a time.
    pub body_bytes_in_flight: usize,
    /// From the header to the end of the body.
    pub body_timeout: Duration,
    /// From the body to an answer.
    pub answer_timeout: Duration,
    /// How long a client may leave its answer unread.
    pub write_timeout: Duration,
    /// Concurrent requests of one HTTP/2 connection.
    pub h2_streams: u32,
    /// Requests that a client reset before they were looked at; one more closes its connection.
    pub h2_pending_resets: usize,
    /// Bytes of one request that an HTTP/2 client may send before they are read.
    pub h2_stream_window: u32,
    /// Bytes that an HTTP/2 client may send before they are read.
    pub h2_connection_window: u32,
    /// How long requests in flight may take once the server stops.
    pub grace: Duration,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            connections: 4_096,
            header_count: 100,
            header_bytes: 32 * 1024,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_bytes: 1024 * 1024,
            body_bytes_in_flight: 64 * 1024 * 1024,
            body_timeout: Duration::from_secs(15),
            answer_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(15),
            h2_streams: 128,
            h2_pending_resets: 20,
            h2_stream_window: 64 * 1024,
            h2_connection_window: 128 * 1024,
            grace: Duration::from_secs(10),
        }
    }
}

/// A bound that was hit; the label of `postrider_limit_hits_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumCount, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Limit {
    /// Open connections.
    Connections,
    /// Header fields: their number or bytes.
    Header,
    /// A header that did not end in time.
    HeaderTimeout,
    /// Bytes of one body.
    Body,
    /// Bytes of all bodies.
    BodyMemory,
    /// A body that did not end in time.
    BodyTimeout,
    /// An answer that was not ready in time.
    AnswerTimeout,
    /// An answer that was not read in time.
    WriteTimeout,
    /// Requests still running when the grace period ended.
    Grace,
}
