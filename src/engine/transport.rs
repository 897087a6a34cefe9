//! [`Transport`]: sends a prepared request. The adapter owns connections, TLS and the egress guard.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::delivery::WebhookRequest;
use crate::domain::outcome::{Failure, Reply};

/// Sends requests.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends one request and reads the answer within `deadline`, which covers name lookup, connecting, TLS, the
    /// request, and the answer's head and body up to the cap. Never follows redirects.
    ///
    /// # Errors
    /// A [`Failure`] without status for everything below HTTP, classified; and `ResponseTooLarge`.
    async fn send(&self, request: WebhookRequest, deadline: Duration) -> Result<Reply, Failure>;
}
