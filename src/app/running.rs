//! [`Running`]: the process's long-lived tasks, and the order in which they are stopped.

use std::collections::HashMap;
use std::future::Future;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// The tasks.
#[derive(Default)]
pub(super) struct Running {
    parts: Vec<Part>,
    tasks: JoinSet<anyhow::Result<()>>,
    ended: HashMap<Id, anyhow::Result<()>>,
}

struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: Id,
    outlasts: bool,
}

impl Running {
    /// Starts a task; it is to end soon after its token is cancelled, within a bound of its own.
    pub(super) fn add<F>(&mut self, name: &'static str, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.push(name, false, start);
    }

    /// The same for a task that is stopped after all others, whenever they were started.
    pub(super) fn add_outlasting<F>(&mut self, name: &'static str, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.push(name, true, start);
    }

    fn push<F>(&mut self, name: &'static str, outlasts: bool, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let task = self.tasks.spawn(start(stop.clone())).id();
        self.parts.push(Part {
            name,
            stop,
            task,
            outlasts,
        });
    }

    /// Waits until a task ends, in a panic or otherwise, and says which.
    pub(super) async fn first_to_end(&mut self) -> &'static str {
        let ended = self.one_end().await;
        let part = self.parts.iter().find(|part| Some(part.task) == ended);
        part.map_or("nothing", |part| part.name)
    }

    /// Stops the tasks one after the other; answers with the first error.
    pub(super) async fn stop(mut self) -> Option<anyhow::Error> {
        let mut failure = None;
        self.parts.sort_by_key(|part| part.outlasts);
        for Part { name, stop, task, .. } in std::mem::take(&mut self.parts) {
            stop.cancel();
            while !self.ended.contains_key(&task) && self.one_end().await.is_some() {}
            if let Some(Err(error)) = self.ended.remove(&task)
                && failure.is_none()
            {
                failure = Some(error.context(format!("{name} failed")));
            }
        }
        failure
    }

    /// Waits for the next task to end; `None` when none is left.
    async fn one_end(&mut self) -> Option<Id> {
        let (task, result) = match self.tasks.join_next_with_id().await? {
            Ok(ended) => ended,
            Err(error) => (JoinError::id(&error), Err(error.into())),
        };
        self.ended.insert(task, result);
        Some(task)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[tokio::test]
    async fn tasks_stop_in_order_and_the_first_error_counts() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let mut running = Running::default();
        let part = |name: &'static str| {
            let said = Arc::clone(&said);
            move |stop: CancellationToken| async move {
                stop.cancelled().await;
                said.lock().push(name);
                anyhow::ensure!(name != "second", "{name} is unwell");
                Ok(())
            }
        };
        running.add_outlasting("last", part("last"));
        for name in ["first", "second", "third"] {
            running.add(name, part(name));
        }
        let failure = running.stop().await.unwrap();
        assert_eq!(*said.lock(), ["first", "second", "third", "last"]);
        assert_eq!(format!("{failure:#}"), "second failed: second is unwell");
    }

    #[tokio::test]
    async fn a_panic_is_an_end_like_any_other() {
        let mut running = Running::default();
        running.add("the patient one", |stop| async move {
            stop.cancelled().await;
            Ok(())
        });
        running.add("the hasty one", |_| async { panic!("too hasty") });
        assert_eq!(running.first_to_end().await, "the hasty one");
        let failure = running.stop().await.unwrap();
        assert_eq!(failure.to_string(), "the hasty one failed");
    }
}
