//! [`MemoryLog`]: the [`DeliveryLog`] in memory, for tests of what uses one. Keeps everything.

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{DeliveryLog, LogError, MAX_ATTEMPTS, MAX_PAGE, MAX_SCAN, Page, Query, Which};
use crate::domain::delivery_log::Record;
use crate::domain::id::Uid;
use crate::domain::retry;

/// The log in memory.
#[derive(Debug, Default)]
pub struct MemoryLog {
    records: Mutex<Vec<Record>>,
}

#[async_trait]
impl DeliveryLog for MemoryLog {
    fn is_on(&self) -> bool {
        true
    }

    fn record(&self, record: Record) {
        self.records.lock().push(record);
    }

    async fn list(&self, lane: &Uid, query: Query) -> Result<Page, LogError> {
        let records = self.records.lock();
        let mut page = Page::default();
        let after = |at: i64| match (query.cursor, query.oldest_first) {
            (Some(cursor), true) => at > cursor,
            (Some(cursor), false) => at < cursor,
            (None, _) => true,
        };
        let mut places: Vec<usize> = (0..records.len())
            .filter(|at| after(i64::try_from(*at).unwrap_or(i64::MAX)))
            .collect();
        if !query.oldest_first {
            places.reverse();
        }
        let of_lane = |at: &usize| records.get(*at).is_some_and(|record| record.lane == *lane);
        for (looked, at) in places.into_iter().filter(of_lane).enumerate() {
            if page.records.len() >= query.limit.min(MAX_PAGE) || looked >= MAX_SCAN {
                return Ok(page);
            }
            let Some(record) = records.get(at) else { break };
            page.next = i64::try_from(at).ok();
            let ended = retry::after(record.began, record.timings.total);
            let newer = records.iter().skip(at + 1);
            let superseded = newer
                .filter(|newer| newer.lane == *lane && newer.seq == record.seq)
                .any(|newer| newer.event_id == record.event_id);
            if query.state.is_none_or(|state| state == record.state)
                && query
                    .event_type
                    .as_ref()
                    .is_none_or(|wanted| *wanted == record.event_type)
                && query.since.is_none_or(|since| ended >= since)
                && query.until.is_none_or(|until| ended < until)
                && !superseded
            {
                page.records.push(record.clone());
            }
        }
        page.next = None;
        Ok(page)
    }

    async fn attempts(&self, lane: &Uid, which: Which) -> Result<Vec<Record>, LogError> {
        let (Which::Position(_, id) | Which::Id(id)) = &which;
        let records = self.records.lock();
        let found = records
            .iter()
            .filter(|record| record.lane == *lane && record.event_id == *id);
        let mut found: Vec<Record> = found.cloned().collect();
        let first = found.len().saturating_sub(MAX_ATTEMPTS);
        Ok(found.split_off(first))
    }

    async fn close(&self) {}
}
