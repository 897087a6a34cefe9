//! Random histories against a simple model.

use std::collections::BTreeMap;
use std::sync::Arc;

use postrider::engine::queue::memory::MemoryQueue;
use postrider::engine::queue::{Completion, Enqueued, Lease, Queue, Reach};
use proptest::prelude::*;

use super::file::QueueFile;
use super::{at, event, keyed, lane, settle_all};

const LANES: [&str; 3] = ["a", "b", "c"];

/// For how many milliseconds keys count.
const WINDOW: i64 = 30;

#[derive(Clone, Debug)]
enum Step {
    /// A batch of ids with lanes, as bits, and perhaps a key.
    Enqueue(Vec<(u8, u8, Option<u8>)>),
    Lease(usize, usize),
    /// Ends the lease at an index.
    Finish(usize),
    Retry(usize, i64),
    /// By age: what is due, or only the oldest.
    Rewind(usize, bool),
    GiveBack(usize),
    DropLane(usize),
    Wait(i64),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec((0..120_u8, 0..8_u8, prop::option::of(0..4_u8)), 1..20).prop_map(Step::Enqueue),
        6 => (0..3_usize, 1..12_usize).prop_map(|(lane, limit)| Step::Lease(lane, limit)),
        6 => (0..30_usize).prop_map(Step::Finish),
        3 => (0..30_usize, -20..50_i64).prop_map(|(lease, wait)| Step::Retry(lease, wait)),
        2 => (0..3_usize, any::<bool>()).prop_map(|(lane, all)| Step::Rewind(lane, all)),
        2 => (0..30_usize).prop_map(Step::GiveBack),
        1 => (0..3_usize).prop_map(Step::DropLane),
        3 => (0..40_i64).prop_map(Step::Wait),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..120)
}

/// What should be in the queue: due time and position to id, attempts, and whether it is leased.
type Deliveries = BTreeMap<(i64, usize), (u8, u32, bool)>;

#[derive(Debug, Default)]
struct Model {
    lanes: BTreeMap<usize, Deliveries>,
    used: Vec<u8>,
    /// When each lane stored each key.
    seen: BTreeMap<(usize, u8), i64>,
    /// When each position was accepted.
    accepted: Vec<i64>,
}

#[derive(Debug)]
struct Held {
    lane: usize,
    key: (i64, usize),
    /// The lane was dropped, or the queue opened again, since.
    stale: bool,
    lease: Lease,
}

async fn replay(steps: Vec<Step>, mut queue: Arc<dyn Queue>, reopen: Option<&QueueFile>) {
    let mut model = Model::default();
    let mut held: Vec<Held> = Vec::new();
    let mut now = 0;
    for step in steps {
        match step {
            Step::Enqueue(batch) => {
                let lanes =
                    |bits: u8| -> Vec<usize> { (0..3).filter(|lane| bits & (1 << lane) != 0).collect() };
                let events = batch.iter().map(|(id, bits, key)| {
                    let names: Vec<&str> = lanes(*bits).iter().map(|lane| LANES[*lane]).collect();
                    let id = format!("id{id}");
                    match key {
                        Some(key) => keyed(&id, now, &names, (*key).into(), WINDOW),
                        None => event(&id, now, &names),
                    }
                });
                let answers = queue.enqueue(events.collect()).await.unwrap();
                for ((id, bits, key), answer) in batch.into_iter().zip(answers) {
                    let duplicate = model.used.contains(&id);
                    assert_eq!(answer == Enqueued::Duplicate, duplicate);
                    if duplicate {
                        continue;
                    }
                    model.used.push(id);
                    model.accepted.push(now);
                    let mut left_out = Vec::new();
                    for (place, lane) in lanes(bits).into_iter().enumerate() {
                        if let Some(key) = key {
                            let seen = model.seen.get(&(lane, key));
                            if seen.is_some_and(|seen| now - seen < WINDOW) {
                                left_out.push(place);
                                continue;
                            }
                            model.seen.insert((lane, key), now);
                        }
                        model
                            .lanes
                            .entry(lane)
                            .or_default()
                            .insert((now, model.accepted.len() - 1), (id, 0, false));
                    }
                    let expected = match left_out {
                        none if none.is_empty() => Enqueued::Accepted,
                        some => Enqueued::Suppressed(some.into()),
                    };
                    assert_eq!(answer, expected);
                }
            }
            Step::Lease(which, limit) => {
                let leased = queue.lease(&lane(LANES[which]), at(now), limit).await.unwrap();
                let deliveries = model.lanes.entry(which).or_default();
                let free = deliveries
                    .iter()
                    .filter(|(key, (_, _, leased))| key.0 <= now && !leased);
                let mut keys: Vec<(i64, usize)> = free.map(|(key, _)| *key).take(limit).collect();
                keys.sort_by_key(|key| key.1);
                assert_eq!(leased.leases.len(), keys.len(), "lane {which} at {now}");
                for (key, lease) in keys.into_iter().zip(leased.leases) {
                    let (id, attempts, leased) = deliveries.get_mut(&key).unwrap();
                    assert_eq!(super::id(&lease), format!("id{id}"));
                    assert_eq!((lease.attempts, lease.due), (*attempts, at(key.0)));
                    *leased = true;
                    held.push(Held {
                        lane: which,
                        key,
                        stale: false,
                        lease,
                    });
                }
                let next = deliveries
                    .iter()
                    .find(|(_, (_, _, leased))| !leased)
                    .map(|(key, _)| at(key.0));
                assert_eq!(leased.next_due, next);
            }
            Step::Rewind(which, all) => {
                let reach = if all { Reach::DueBy(at(now)) } else { Reach::Oldest };
                queue.rewind(&lane(LANES[which]), reach).await.unwrap();
                let deliveries = model.lanes.entry(which).or_default();
                let free = deliveries.iter().filter(|(_, (_, _, leased))| !leased);
                let mut moves: Vec<_> = free
                    .map(|(key, _)| ((model.accepted[key.1], key.1), *key))
                    .collect();
                moves.sort_unstable();
                if all {
                    moves.retain(|(_, key)| key.0 <= now);
                } else {
                    moves.truncate(1);
                }
                for (age, key) in moves {
                    let delivery = deliveries.remove(&key).unwrap();
                    deliveries.insert(age, delivery);
                }
            }
            Step::Finish(index) | Step::Retry(index, _) => {
                if index >= held.len() {
                    continue;
                }
                let Held {
                    lane,
                    key,
                    stale,
                    lease,
                } = held.swap_remove(index);
                let (completion, again) = match step {
                    Step::Retry(_, wait) => (Completion::RetryAt(at(now + wait)), Some(now + wait)),
                    _ => (Completion::Finished, None),
                };
                settle_all(&*queue, vec![lease], completion).await.unwrap();
                if stale {
                    continue;
                }
                let deliveries = model.lanes.entry(lane).or_default();
                let (id, attempts, _) = deliveries.remove(&key).unwrap();
                if let Some(due) = again {
                    let due = due.max(model.accepted[key.1]);
                    deliveries.insert((due, key.1), (id, attempts + 1, false));
                }
            }
            Step::GiveBack(index) => {
                if index < held.len() {
                    let Held {
                        lane,
                        key,
                        stale,
                        lease,
                    } = held.swap_remove(index);
                    drop(lease);
                    if !stale {
                        model.lanes.get_mut(&lane).unwrap().get_mut(&key).unwrap().2 = false;
                    }
                }
            }
            Step::DropLane(which) => {
                let dropped = queue.drop_lane(&lane(LANES[which])).await.unwrap();
                let gone = model.lanes.remove(&which).unwrap_or_default();
                model.seen.retain(|(lane, _), _| *lane != which);
                assert_eq!(dropped, gone.len() as u64);
                held.iter_mut()
                    .filter(|held| held.lane == which)
                    .for_each(|held| held.stale = true);
            }
            Step::Wait(millis) => now += millis,
            Step::Reopen => {
                let Some(file) = reopen else { continue };
                queue.close().await;
                held.clear();
                queue = file.reopen().await;
                for delivery in model.lanes.values_mut().flat_map(BTreeMap::values_mut) {
                    delivery.2 = false;
                }
            }
        }
        for (which, name) in LANES.into_iter().enumerate() {
            let deliveries = model.lanes.get(&which);
            let depth = queue.depth(&lane(name));
            assert_eq!(
                depth.pending,
                deliveries.map_or(0, |deliveries| deliveries.len() as u64)
            );
            let all = || deliveries.into_iter().flatten();
            let oldest = all().map(|(key, _)| model.accepted[key.1]).min();
            assert_eq!(depth.oldest, oldest.map(|millis| at(millis).as_millisecond()));
            let next = all().find(|(_, (_, _, leased))| !leased);
            assert_eq!(depth.next_due, next.map(|(key, _)| at(key.0).as_millisecond()));
        }
    }
    drop(held);
    queue.close().await;
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn memory_does_as_the_model(steps in steps()) {
        runtime().block_on(replay(steps, Arc::new(MemoryQueue::default()), None));
    }

    #[test]
    fn sqlite_does_as_the_model(steps in steps(), window in 1..40_usize) {
        let file = QueueFile::with(|settings| {
            settings.window_deliveries = window;
            // Some histories run out of bytes before they run out of places.
            settings.window_bytes = 30_000;
        });
        runtime().block_on(async {
            let queue = file.open().await;
            replay(steps, queue, Some(&file)).await;
        });
    }
}
