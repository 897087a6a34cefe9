//! The health of destinations, kept in memory.

use async_trait::async_trait;

use super::MemoryQueue;
use crate::domain::health::Health;
use crate::domain::id::Uid;
use crate::engine::queue::{HealthStore, QueueError};

#[async_trait]
impl HealthStore for MemoryQueue {
    async fn load_health(&self) -> Result<Vec<(Uid, Health)>, QueueError> {
        let inner = self.inner.lock();
        inner.check()?;
        let stored = inner
            .lanes
            .iter()
            .filter_map(|(uid, lane)| Some((uid.clone(), lane.health.clone()?)));
        Ok(stored.collect())
    }

    async fn save_health(&self, healths: Vec<(Uid, Health)>) -> Result<(), QueueError> {
        let mut inner = self.inner.lock();
        inner.check()?;
        for (uid, health) in healths {
            inner.lanes.entry(uid).or_default().keep_health(health);
        }
        Ok(())
    }
}
