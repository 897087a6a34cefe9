//! [`Clock`]: the only source of "now".

use jiff::Timestamp;

/// Says what time it is. Waiting is tokio's, so tests that pause tokio's time use a clock that follows it.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}
