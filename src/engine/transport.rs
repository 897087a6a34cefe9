//! [`Transport`] sends a prepared request, [`Mailer`] a prepared mail. The adapters own connections, TLS and the
//! egress guard.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::delivery::WebhookRequest;
use crate::domain::delivery_log::Timings;
use crate::domain::email::Mail;
use crate::domain::email::settled::Fate;
use crate::domain::outcome::{Failure, Reply};

/// Sends requests.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends one request and reads the answer within `deadline`, which covers name lookup, connecting, TLS, the
    /// request, and the answer's head and body up to the cap. Never follows redirects.
    ///
    /// # Errors
    /// A [`Failure`] without status for everything below HTTP, classified; and `ResponseTooLarge`.
    async fn send(&self, request: &WebhookRequest, deadline: Duration) -> Result<Reply, Failure>;

    /// The same, and how long its parts took, as far as known.
    async fn send_timed(
        &self,
        request: &WebhookRequest,
        deadline: Duration,
    ) -> (Result<Reply, Failure>, Timings) {
        let began = tokio::time::Instant::now();
        let result = self.send(request, deadline).await;
        let timings = Timings {
            total: began.elapsed(),
            ..Timings::default()
        };
        (result, timings)
    }
}

/// Sends mails.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// Says a mail to its server within `deadline`, which covers name lookup, connecting, TLS, authentication, and
    /// every letter. Tells what became of each recipient, in the order of [`Mail::recipients`]; what the server has
    /// taken before the deadline counts as taken.
    async fn mail(&self, mail: &Mail, deadline: Duration) -> Vec<Fate>;

    /// The same, and how long its parts took, as far as known.
    async fn mail_timed(&self, mail: &Mail, deadline: Duration) -> (Vec<Fate>, Timings) {
        let began = tokio::time::Instant::now();
        let fates = self.mail(mail, deadline).await;
        let timings = Timings {
            total: began.elapsed(),
            ..Timings::default()
        };
        (fates, timings)
    }
}
