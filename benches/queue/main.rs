//! What the queue costs: events per second through enqueue, lease and settle with 64 tasks, beside a bare file.
//!
//! The bare file gets the same bytes by the same group commit: append what waits, `fdatasync`, answer; twice per event,
//! because a delivery is two durable writes. Rounds are interleaved; medians and ratios to the bare file are printed.
//!
//! `cargo bench --bench queue [-- EVENTS ROUNDS DIRECTORY]`
//!
//! `cargo bench --bench queue -- deliveries [RECORDS]`: the delivery log, see [`deliveries`].

#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a benchmark's failure is a panic"
)]
#![allow(
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "it prints numbers"
)]

mod deliveries;

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use postrider::domain::event::{Content, Event};
use postrider::domain::id::{EventId, Uid};
use postrider::domain::project::ProjectFacts;
use postrider::engine::clock::{Clock, SystemClock};
use postrider::engine::queue::memory::MemoryQueue;
use postrider::engine::queue::metrics::QueueMetrics;
use postrider::engine::queue::sqlite::{Settings, SqliteQueue};
use postrider::engine::queue::{Completion, NewEvent, Queue, Settlement};
use tokio::sync::oneshot;

const TASKS: u64 = 64;

fn content() -> Content {
    let data = "x".repeat(200);
    let json = format!(r#"{{"type":"record_created","timestamp":1700000000000,"data":{{"text":"{data}"}}}}"#);
    serde_json::from_str(&json).unwrap()
}

fn facts() -> Arc<ProjectFacts> {
    Arc::new(ProjectFacts {
        uid: Uid::new("613b038f-0000-4000-8000-000000000001"),
        id: "613b038f".into(),
        name: "Acme".into(),
        environment: None,
        account_id: None,
        account_name: None,
    })
}

async fn through(queue: Arc<dyn Queue>, events: u64, lanes: usize) -> f64 {
    let names: Arc<[Uid]> = (0..lanes).map(|lane| Uid::new(&format!("lane-{lane}"))).collect();
    let (project, left) = (facts(), Arc::new(AtomicU64::new(events)));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (queue, left, project, names) = (
            Arc::clone(&queue),
            Arc::clone(&left),
            Arc::clone(&project),
            Arc::clone(&names),
        );
        tasks.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                let now = SystemClock.now();
                let id = EventId::from_uuid(uuid::Uuid::now_v7());
                let event = Arc::new(Event::new(id, now, content(), Arc::clone(&project)));
                queue
                    .enqueue(vec![NewEvent::new(event, Arc::clone(&names))])
                    .await
                    .unwrap();
                for lane in names.iter() {
                    let leased = queue.lease(lane, now, 1).await.unwrap();
                    for lease in leased.leases {
                        let done = Settlement {
                            lease,
                            completion: Completion::Finished,
                            health: None,
                            note: None,
                        };
                        queue.settle(vec![done]).await.unwrap();
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    started.elapsed().as_secs_f64()
}

type Append = (Vec<u8>, oneshot::Sender<()>);

async fn bare(path: &Path, events: u64) -> f64 {
    let (send, receive) = std::sync::mpsc::channel::<Append>();
    let mut file = std::fs::File::create(path).unwrap();
    let writer = std::thread::spawn(move || {
        while let Ok((mut bytes, first)) = receive.recv() {
            let mut waiting = vec![first];
            while let Ok((more, reply)) = receive.try_recv() {
                bytes.extend(more);
                waiting.push(reply);
            }
            file.write_all(&bytes).unwrap();
            file.sync_data().unwrap();
            for reply in waiting {
                reply.send(()).ok();
            }
        }
    });
    let left = Arc::new(AtomicU64::new(events));
    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..TASKS {
        let (send, left) = (send.clone(), Arc::clone(&left));
        tasks.spawn(async move {
            while left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                for bytes in [content().to_stored().unwrap(), vec![0; 16]] {
                    let (reply, answer) = oneshot::channel();
                    send.send((bytes, reply)).unwrap();
                    answer.await.unwrap();
                }
            }
        });
    }
    tasks.join_all().await;
    let took = started.elapsed().as_secs_f64();
    drop(send);
    writer.join().unwrap();
    took
}

/// Processor seconds of this process' threads whose name starts so.
fn thread_seconds(name: &str) -> f64 {
    let mut ticks = 0.0;
    for task in std::fs::read_dir("/proc/self/task").unwrap().flatten() {
        let Ok(stat) = std::fs::read_to_string(task.path().join("stat")) else {
            continue;
        };
        if stat.contains(name) {
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
            ticks += fields
                .iter()
                .skip(11)
                .take(2)
                .map(|field| field.parse::<f64>().unwrap())
                .sum::<f64>();
        }
    }
    ticks / 100.0
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

async fn sqlite(directory: &Path, events: u64, lanes: usize) -> (f64, f64) {
    let path = directory.join("queue.db");
    let queue = SqliteQueue::open(
        Settings::new(&path),
        QueueMetrics::default(),
        Arc::new(SystemClock),
    )
    .await
    .unwrap();
    let queue: Arc<dyn Queue> = Arc::new(queue);
    let took = through(Arc::clone(&queue), events, lanes).await;
    let writer = thread_seconds("queue-writer");
    queue.close().await;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        std::fs::remove_file(directory.join(format!("queue.db{suffix}"))).ok();
    }
    (took, writer)
}

/// A deep queue: how fast it fills, opens again, and drains from disk, and what it costs in memory.
async fn deep(directory: &Path, events: u64) {
    let path = directory.join("queue.db");
    let open = || {
        SqliteQueue::open(
            Settings::new(&path),
            QueueMetrics::default(),
            Arc::new(SystemClock),
        )
    };
    let (lane, project) = (Uid::new("deep"), facts());
    let lanes: Arc<[Uid]> = [lane.clone()].into();
    let before = resident();
    let queue = open().await.unwrap();
    let started = Instant::now();
    for _ in 0..events / 200 {
        let batch = (0..200).map(|_| {
            let id = EventId::from_uuid(uuid::Uuid::now_v7());
            let event = Arc::new(Event::new(id, SystemClock.now(), content(), Arc::clone(&project)));
            NewEvent::new(event, Arc::clone(&lanes))
        });
        queue.enqueue(batch.collect()).await.unwrap();
    }
    println!(
        "deep: {:.0} events/s in, {:.1} MB more resident",
        rate(events, &started),
        resident() - before
    );
    queue.close().await;
    drop(queue);
    let started = Instant::now();
    let queue = open().await.unwrap();
    println!("deep: open again in {:.3} s", started.elapsed().as_secs_f64());
    let first = queue.lease(&lane, SystemClock.now(), 1).await.unwrap();
    println!("deep: first lease after {:.3} s", started.elapsed().as_secs_f64());
    drop(first);
    let started = Instant::now();
    let mut drained = 0;
    while drained < events / 200 * 200 {
        let now = SystemClock.now();
        let leases = queue.lease(&lane, now, 64).await.unwrap().leases;
        drained += leases.len() as u64;
        let done = leases.into_iter().map(|lease| Settlement {
            lease,
            completion: Completion::Finished,
            health: None,
            note: None,
        });
        queue.settle(done.collect()).await.unwrap();
    }
    println!(
        "deep: {:.0} events/s out, {:.1} MB more resident",
        rate(events, &started),
        resident() - before
    );
    queue.close().await;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        std::fs::remove_file(directory.join(format!("queue.db{suffix}"))).ok();
    }
}

fn rate(events: u64, started: &Instant) -> f64 {
    events as f64 / started.elapsed().as_secs_f64()
}

fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<f64>().unwrap() * 4096.0 / 1e6
}

#[tokio::main(worker_threads = 2)]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some("deliveries") {
        let records = arguments.next().map_or(1_000_000, |text| text.parse().unwrap());
        return deliveries::run(records).await;
    }
    let events: u64 = first.map_or(200_000, |text| text.parse().unwrap());
    let rounds: usize = arguments.next().map_or(5, |text| text.parse().unwrap());
    let root = arguments.next().unwrap_or_else(|| "target".to_owned());
    let directory = tempfile::tempdir_in(root).unwrap();
    let directory = directory.path();
    let (mut files, mut memories, mut databases, mut tens, mut writers) =
        (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..rounds {
        files.push(events as f64 / bare(&directory.join("bare"), events).await);
        memories.push(events as f64 / through(Arc::new(MemoryQueue::default()), events, 1).await);
        let (took, writer) = sqlite(directory, events, 1).await;
        databases.push(events as f64 / took);
        writers.push(writer / events as f64 * 1e6);
        let (took, _) = sqlite(directory, events / 5, 10).await;
        tens.push(events as f64 * 2.0 / took);
    }
    let file = median(&mut files);
    println!("| what | per second | of bare |\n|---|---|---|");
    for (name, values) in [
        ("bare append and fdatasync, twice", &mut files),
        ("memory, 1 lane", &mut memories),
        ("sqlite, 1 lane", &mut databases),
        ("sqlite, 10 lanes (deliveries)", &mut tens),
    ] {
        let value = median(values);
        println!("| {name} | {value:.0} | {:.2} |", value / file);
    }
    println!(
        "writer thread: {:.2} us per event with 1 lane",
        median(&mut writers)
    );
    deep(directory, events * 5).await;
}
