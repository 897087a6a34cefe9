//! [`Policy`]: how a destination wants its deliveries to be made, beyond when to try again.
//!
//! Each part is a pure decision in a module of its own; a destination that uses none of them has the default, which
//! asks nothing. What waits and when it goes on is the lane's business. [`dedup`] is asked when an event is published, and
//! so belongs to the subscription.

pub mod batch;
pub mod dedup;
pub mod key;
pub mod order;
pub mod rate;
pub mod replies;

use self::batch::Batch;
use self::order::Order;
use self::rate::Rate;
use self::replies::Statuses;

/// What a destination asks for beyond the usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Statuses that count as delivered; `None`: 2xx.
    pub success: Option<Statuses>,
    /// How many deliveries may be tried in a time.
    pub rate: Option<Rate>,
    /// In which order deliveries are made; `None`: in none.
    pub order: Option<Order>,
    /// How many go in one request; `None`: each alone.
    pub batch: Option<Batch>,
    /// Name of the destination that gets what is given up.
    pub dead_letter: Option<Box<str>>,
}
