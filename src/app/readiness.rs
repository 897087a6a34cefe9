//! Whether the process can do its work, and what is missing when it cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::adapters::http::Readiness;
use crate::engine::directory::Directory;
use crate::engine::queue::Queue;

/// Ready means: not stopping, the queue takes writes, and every custom resource has been looked at once.
pub(super) struct AppReadiness {
    directory: Arc<Directory>,
    queue: Arc<dyn Queue>,
    stopping: AtomicBool,
}

impl AppReadiness {
    pub(super) fn new(directory: Arc<Directory>, queue: Arc<dyn Queue>) -> Self {
        Self {
            directory,
            queue,
            stopping: AtomicBool::new(false),
        }
    }

    /// From now on the process is not ready.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
    }
}

impl Readiness for AppReadiness {
    fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        if self.stopping.load(Ordering::Acquire) {
            missing.push("stopping".to_owned());
        }
        if let Some(why) = self.queue.state().unavailable {
            missing.push(format!("queue: {why}"));
        }
        for kind in self.directory.unsynced() {
            let kind = kind.as_str();
            missing.push(format!(
                "{kind}: the first list is not complete; is the API server there, are the CRDs installed, and may we list them?"
            ));
        }
        missing
    }

    fn notes(&self) -> Vec<String> {
        let repaired = self.queue.state().repaired;
        repaired
            .map(|what| format!("queue: {what}"))
            .into_iter()
            .collect()
    }
}
