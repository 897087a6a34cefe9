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
/// Most evaluations that are done where they are asked for.
const INLINE_FILTERS: usize = 64;

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
    let filters = || accepted.iter().flat_map(|one| one.route.filters.iter().flatten());
    let count = filters().count();
    if count == 0 {
        let events = accepted.into_iter().map(|one| NewEvent {
            lanes: Arc::clone(&one.route.lanes),
            event: one.event,
        });
        return Some(events.collect());
    }
    let asked = accepted.iter().filter(|one| !one.route.filters.is_empty());
    let bytes = asked.map(|one| weight(&one.event)).sum();
    let is_long = count > INLINE_FILTERS || filters().any(|filter| filter.is_slow());
    let work = move || accepted.into_iter().map(chosen).collect::<Vec<_>>();
    let chosen = core.filters.run(is_long, bytes, work).await?;
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
    let (is_long, bytes) = (filter.is_slow(), weight(&event));
    let work = move || filter.matches(&Facts::of(&event));
    match core.filters.run(is_long, bytes, work).await {
        Some(Err(why)) => {
            core.metrics.filtered(why);
            true
        }
        // When the process is stopping, the attempt ends by itself.
        Some(Ok(())) | None => false,
    }
}

impl Filters {
    async fn run<T: Send + 'static>(
        &self,
        is_long: bool,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        if !is_long && bytes <= INLINE_BYTES {
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
