//! Filters at work: which destinations an accepted event goes to, and whether a waiting delivery still is wanted.
//!
//! An event is made ready for filters once, whatever the number of filters, and only when some destination has one.
//! Work that could take long is done on threads for such work, one for each processor at a time, so that no other
//! publisher or delivery waits for it.
//!
//! With the same look, events get the keys by which destinations with `dedup` tell the same ones; the store decides.
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
use super::queue::keys::LaneKey;
use super::queue::{NewEvent, Stored};
use crate::domain::destination::Destination;
use crate::domain::event::Event;
use crate::domain::filter::{Facts, Filter, NoMatch};

/// Most bytes of events that are looked at where they are.
const INLINE_BYTES: usize = 16 * 1024;
/// Most bytes that filters go over, each as often as they do, where they are asked for.
const INLINE_WORK: usize = 256 * 1024;

/// Bytes that stand for what an evaluation costs beside them.
const EVALUATION: usize = 256;

/// An event lacks the key by which a destination tells the same ones.
const NO_KEY: &str = "MissingKey";

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
    if accepted.iter().all(|one| one.route.is_plain()) {
        let events = accepted
            .into_iter()
            .map(|one| NewEvent::new(one.event, Arc::clone(&one.route.lanes)));
        return Some(events.collect());
    }
    let asked = accepted.iter().filter(|one| !one.route.is_plain());
    let mut size = Size::default();
    for one in asked {
        size.add(&one.event, one.route.filters.iter().flatten());
        size.add_keys(&one.event, one.route.dedups.iter().flatten().count());
    }
    let work = move || accepted.into_iter().map(chosen).collect::<Vec<_>>();
    let chosen = core.filters.run(size, work).await?;
    let events = chosen.into_iter().map(|chosen| {
        for why in chosen.refusals {
            core.metrics.filtered(why);
        }
        core.metrics.deduplicated(chosen.keyless, NO_KEY);
        chosen.event
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

    /// Keys that are made of an event.
    fn add_keys(&mut self, event: &Event, count: usize) {
        if count > 0 {
            let bytes = weight(event);
            self.bytes = self.bytes.saturating_add(bytes);
            self.work = self
                .work
                .saturating_add(bytes)
                .saturating_add(count.saturating_mul(EVALUATION));
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

/// An event with the lanes that want it.
struct Chosen {
    event: NewEvent,
    refusals: Vec<NoMatch>,
    /// Lanes whose key it lacks.
    keyless: u64,
}

fn chosen(accepted: Accepted) -> Chosen {
    let Accepted { event, route } = accepted;
    let mut chosen = Chosen {
        event: NewEvent::new(event, Arc::clone(&route.lanes)),
        refusals: Vec::new(),
        keyless: 0,
    };
    if route.is_plain() {
        return chosen;
    }
    let new = &mut chosen.event;
    // Of the chosen lanes, their places in the route.
    let mut places: Vec<usize> = (0..route.lanes.len()).collect();
    if !route.filters.is_empty() {
        let facts = Facts::of(&new.event);
        places.retain(|place| match route.filters.get(*place) {
            Some(Some(filter)) => match filter.matches(&facts) {
                Ok(()) => true,
                Err(why) => {
                    chosen.refusals.push(why);
                    false
                }
            },
            _ => true,
        });
        let lanes = places.iter().filter_map(|place| route.lanes.get(*place));
        new.lanes = lanes.cloned().collect();
    }
    let mut keys = Vec::new();
    for (lane, place) in places.into_iter().enumerate() {
        let Some(Some(asked)) = route.dedups.get(place) else {
            continue;
        };
        match asked.dedup.mark(&new.event, &asked.destination) {
            Some(mark) => keys.push(LaneKey { lane, mark }),
            None => chosen.keyless += 1,
        }
    }
    new.keys = keys.into();
    // It may wait for long, and in numbers.
    if let Some(event) = Arc::get_mut(&mut new.event) {
        event.forget_view();
    }
    chosen
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
