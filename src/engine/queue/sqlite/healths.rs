//! The health of destinations, stored beside the queue in the same file.

use async_trait::async_trait;

use super::SqliteQueue;
use super::inbox::Op;
use crate::domain::health::Health;
use crate::domain::id::Uid;
use crate::engine::queue::{HealthStore, QueueError};

#[async_trait]
impl HealthStore for SqliteQueue {
    async fn load_health(&self) -> Result<Vec<(Uid, Health)>, QueueError> {
        self.check()?;
        self.ask(Op::LoadHealth).await
    }

    async fn save_health(&self, healths: Vec<(Uid, Health)>) -> Result<(), QueueError> {
        self.check()?;
        if healths.is_empty() {
            return Ok(());
        }
        self.ask(|reply| Op::Health(healths, reply)).await
    }
}
