//! What every back-end keeps: one suite, run on the queue in memory, on a file whose lanes fit into memory, and on one
//! whose lanes do not.

use std::sync::Arc;

use postrider::engine::queue::Queue;
use postrider::engine::queue::memory::MemoryQueue;

use super::settings;

/// A queue with a quota of 1,000 deliveries per project, small windows, and what it needs to live.
struct Subject {
    queue: Arc<dyn Queue>,
    _directory: Option<tempfile::TempDir>,
}

fn memory() -> Subject {
    Subject {
        queue: Arc::new(MemoryQueue::new(1_000)),
        _directory: None,
    }
}

async fn sqlite(window: usize) -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let mut settings = settings(directory.path());
    settings.project_limit = 1_000;
    settings.window_deliveries = window;
    Subject {
        queue: Arc::new(super::open(&settings).await),
        _directory: Some(directory),
    }
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
mod lanes;
mod leases;
mod retries;
