//! What every back-end keeps: one suite, run on the queue in memory, on a file whose lanes fit into memory, and on one
//! whose lanes do not.

use std::ops::Range;
use std::sync::Arc;

use postrider::engine::queue::Queue;
use postrider::engine::queue::memory::MemoryQueue;

use super::event;
use super::file::QueueFile;

/// A queue with a quota of 1,000 deliveries per project, small windows, and what it needs to live.
struct Subject {
    queue: Arc<dyn Queue>,
    _file: Option<QueueFile>,
}

fn memory() -> Subject {
    Subject {
        queue: Arc::new(MemoryQueue::new(1_000)),
        _file: None,
    }
}

async fn sqlite(window: usize) -> Subject {
    let file = QueueFile::with(|settings| {
        settings.project_limit = 1_000;
        settings.window_deliveries = window;
    });
    Subject {
        queue: file.open().await,
        _file: Some(file),
    }
}

/// The names of [`enqueue_numbered`].
fn numbered(range: Range<i64>) -> Vec<String> {
    range.map(|number| format!("e{number}")).collect()
}

/// Publishes an event a millisecond to lane `a`.
async fn enqueue_numbered(queue: &dyn Queue, range: Range<i64>) {
    let batch = range.map(|number| event(&format!("e{number}"), number, &["a"]));
    queue.enqueue(batch.collect()).await.unwrap();
}

/// Makes a test of each function for each back-end.
macro_rules! conformance {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(crate::queue::conformance::memory().queue).await; })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                let subject = crate::queue::conformance::sqlite(1024).await;
                super::$name(std::sync::Arc::clone(&subject.queue)).await;
                subject.queue.close().await;
            })*
        }
        mod sqlite_from_disk {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() {
                let subject = crate::queue::conformance::sqlite(8).await;
                super::$name(std::sync::Arc::clone(&subject.queue)).await;
                subject.queue.close().await;
            })*
        }
    };
}

mod acceptance;
mod handing;
mod keys;
mod lanes;
mod leases;
mod replays;
mod retries;
