//! [`Running`]: the process's long-lived tasks, in the order in which they are stopped.

use std::future::Future;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The tasks.
pub(super) struct Running {
    parts: Vec<Part>,
    ended: mpsc::UnboundedReceiver<&'static str>,
    ending: mpsc::UnboundedSender<&'static str>,
}

struct Part {
    name: &'static str,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Default for Running {
    fn default() -> Self {
        let (ending, ended) = mpsc::unbounded_channel();
        Self {
            parts: Vec::new(),
            ended,
            ending,
        }
    }
}

/// Says that a task ended, also when it panicked.
struct Ending(&'static str, mpsc::UnboundedSender<&'static str>);

impl Drop for Ending {
    fn drop(&mut self) {
        // Nobody listens once the process stops anyway.
        let _ = self.1.send(self.0);
    }
}

impl Running {
    /// Starts a task; it is to end soon after its token is cancelled, within a bound of its own.
    pub(super) fn add<F>(&mut self, name: &'static str, start: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let ending = Ending(name, self.ending.clone());
        let work = start(stop.clone());
        let task = tokio::task::spawn(async move {
            let _ending = ending;
            work.await
        });
        self.parts.push(Part { name, stop, task });
    }

    /// Waits until a task ends, and says which.
    pub(super) async fn first_to_end(&mut self) -> &'static str {
        self.ended.recv().await.unwrap_or("nothing")
    }

    /// Stops the tasks one after the other; answers with the first error.
    pub(super) async fn stop(self) -> Option<anyhow::Error> {
        let mut failure = None;
        for Part { name, stop, task } in self.parts {
            stop.cancel();
            let result = task
                .await
                .map_err(anyhow::Error::from)
                .and_then(std::convert::identity);
            if let Err(error) = result
                && failure.is_none()
            {
                failure = Some(error.context(format!("{name} failed")));
            }
        }
        failure
    }
}
