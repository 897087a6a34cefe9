//! Filters at work: which destinations an accepted event goes to, and whether a waiting delivery still is wanted.
//!
//! An event is made ready for filters once, whatever the number of filters, and only when some destination has one.
//! Work that could take long is done on threads for such work, one for each processor at a time, so that no other
//! publisher or delivery waits for it.
//!
//! A filter is asked twice. When an event is published it decides whether a delivery is stored at all. Before each
//! attempt it decides again, because the event may have come while the filter was faulty or another one.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::available_parallelism;

use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use super::Core;
use super::directory::Route;
use super::queue::{NewEvent, Stored};
use crate::domain::destination::Destination;
use crate::domain::event::Event;
use crate::domain::filter::{Facts, Filter, NoMatch};
use crate::domain::id::Uid;

/// Most bytes of events that are looked at where they are.
const INLINE_BYTES: usize = 16 * 1024;
/// Most bytes that filters go over, each as often as they do, where they are asked for.
const INLINE_WORK: usize = 256 * 1024;

/// Bytes that stand for what an evaluation costs beside them.
const EVALUATION: usize = 256;

/// Turns for long work.
pub(crate) struct Filters(Arc<Semaphore>);

impl Default for Filters {
    fn default() -> Self {
        let turns = available_parallelism().map_or(1, usize::from);
        Self(Arc::new(Semaphore::new(turns)))
    }
}

/// An accepted event and where events of its type go.
pub(crate) struct Accepted {
    pub(crate) event: Arc<Event>,
    pub(crate) route: Arc<Route>,
}

/// Events with the destinations whose filters let them through; `None` when the process is stopping.
pub(crate) async fn narrow(core: &Core, accepted: Vec<Accepted>) -> Option<Vec<NewEvent>> {
    if accepted.iter().all(|one| one.route.filters.is_empty()) {
        let events = accepted.into_iter().map(|one| NewEvent {
            lanes: Arc::clone(&one.route.lanes),
            event: one.event,
        });
        return Some(events.collect());
    }
    let asked = accepted.iter().filter(|one| !one.route.filters.is_empty());
    let mut size = Size::default();
    for one in asked {
        size.add(&one.event, one.route.filters.iter().flatten());
    }
    let work = move || accepted.into_iter().map(chosen).collect::<Vec<_>>();
    let chosen = core.filters.run(size, work).await?;
    let events = chosen.into_iter().map(|(event, refusals)| {
        for why in refusals {
            core.metrics.filtered(why);
        }
        event
    });
    Some(events.collect())
}

/// Whether the destination's filter does not let a stored event through. Damaged events are left to the attempt.
pub(crate) async fn refuses(core: &Core, destination: &Destination, stored: &Stored) -> bool {
    let (Some(filter), Stored::Event(event)) = (&destination.subscription.filter, stored) else {
        return false;
    };
    let (filter, event) = (Arc::clone(filter), Arc::clone(event));
    let mut size = Size::default();
    size.add(&event, [&filter]);
    let work = move || filter.matches(&Facts::of(&event));
    match core.filters.run(size, work).await {
        Some(Err(why)) => {
            core.metrics.filtered(why);
            true
        }
        // When the process is stopping, the attempt ends by itself.
        Some(Ok(())) | None => false,
    }
}

/// How much there is to do.
#[derive(Clone, Copy, Debug, Default)]
struct Size {
    /// Of the events.
    bytes: usize,
    /// Bytes that filters go over.
    work: usize,
    /// A filter goes over a list or searches for a pattern.
    is_slow: bool,
}

impl Size {
    fn add<'a>(&mut self, event: &Event, filters: impl IntoIterator<Item = &'a Arc<Filter>>) {
        let bytes = weight(event);
        self.bytes = self.bytes.saturating_add(bytes);
        for filter in filters {
            let work = bytes.saturating_mul(filter.passes()).saturating_add(EVALUATION);
            self.work = self.work.saturating_add(work);
            self.is_slow |= filter.is_slow();
        }
    }

    const fn is_small(self) -> bool {
        !self.is_slow && self.bytes <= INLINE_BYTES && self.work <= INLINE_WORK
    }
}

impl Filters {
    async fn run<T: Send + 'static>(
        &self,
        size: Size,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if size.is_small() {
            return Some(work());
        }
        let turn = Arc::clone(&self.0).acquire_owned().await.ok()?;
        let done = spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        match done.await {
            Ok(done) => Some(done),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => None,
            },
        }
    }
}

fn chosen(accepted: Accepted) -> (NewEvent, Vec<NoMatch>) {
    let Accepted { event, route } = accepted;
    if route.filters.is_empty() {
        let lanes = Arc::clone(&route.lanes);
        return (NewEvent { event, lanes }, Vec::new());
    }
    let facts = Facts::of(&event);
    let mut refusals = Vec::new();
    let mut wants = |filter: &Option<Arc<Filter>>| match filter.as_ref().map(|filter| filter.matches(&facts))
    {
        None | Some(Ok(())) => true,
        Some(Err(why)) => {
            refusals.push(why);
            false
        }
    };
    let lanes = route.lanes.iter().zip(&route.filters);
    let lanes: Vec<Uid> = lanes
        .filter(|(_, filter)| wants(filter))
        .map(|(uid, _)| uid.clone())
        .collect();
    let lanes = lanes.into();
    (NewEvent { event, lanes }, refusals)
}

/// Bytes of an event that are worth counting.
fn weight(event: &Event) -> usize {
    let raw = |value: Option<&RawValue>| value.map_or(0, |value| value.get().len());
    let content = &event.content;
    let metadata = content.user.as_ref().and_then(|user| user.metadata.as_deref());
    let message = content.message.as_ref().map_or(0, String::len);
    content.data.get().len()
        + raw(metadata)
        + raw(content.error.as_deref())
        + raw(content.cloud_event.as_deref())
        + message
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::event::sample;

    fn is_small(filter: &str, count: usize, bytes: usize) -> bool {
        let event = sample::event(&json!({"type": "x", "data": {"text": "a".repeat(bytes)}}));
        let filter = Arc::new(Filter::parse(filter).unwrap());
        let mut size = Size::default();
        size.add(&event, std::iter::repeat_n(&filter, count));
        size.is_small()
    }

    #[test]
    fn only_little_work_is_done_where_it_is_asked_for() {
        let plain = "event.type == 'x' && event.data.text != 'y'";
        assert!(is_small(plain, 1, 1000) && is_small(plain, 50, 1000));
        assert!(!is_small(plain, 2000, 10), "many filters");
        assert!(!is_small(plain, 1, 20_000), "a large event");
        assert!(!is_small("event.data.text.matches('a')", 1, 10), "a pattern");
        assert!(!is_small("event.data.a.all(a, a == 1)", 1, 10), "a loop");
        let heavy = vec!["event.data == event.data"; 20].join(" && ");
        assert!(
            is_small(&heavy, 1, 1000) && !is_small(&heavy, 1, 15_000),
            "many passes"
        );
    }
}
