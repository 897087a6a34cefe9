//! Kubernetes Events: what people read in `kubectl describe` and `kubectl get events`.
//!
//! They are told from a queue of their own, so that neither status nor delivery waits for them, and dropped (and
//! counted) when there are too many at once: the conditions say the same and are never dropped.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::metrics::KubeMetrics;
use crate::api::FIELD_MANAGER;
use crate::domain::status::Notice;

/// Events that wait.
const WAITING: usize = 4096;
/// Longest time for one.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of a note that Kubernetes takes.
const MAX_NOTE: usize = 1024;

/// Where events are put.
#[derive(Debug)]
pub(super) struct Notices {
    sender: mpsc::Sender<(Notice, ObjectReference)>,
    metrics: KubeMetrics,
}

/// Writes the events that were put.
pub(super) struct NoticeWriter {
    receiver: mpsc::Receiver<(Notice, ObjectReference)>,
    recorder: Recorder,
    metrics: KubeMetrics,
}

pub(super) fn notices(
    client: Client,
    instance: Option<String>,
    metrics: KubeMetrics,
) -> (Notices, NoticeWriter) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let recorder = Recorder::new(
        client,
        Reporter {
            controller: FIELD_MANAGER.to_owned(),
            instance,
        },
    );
    (
        Notices {
            sender,
            metrics: metrics.clone(),
        },
        NoticeWriter {
            receiver,
            recorder,
            metrics,
        },
    )
}

impl Notices {
    pub(super) fn tell(&self, notices: Vec<Notice>, about: &ObjectReference) {
        for notice in notices {
            if self.sender.try_send((notice, about.clone())).is_err() {
                self.metrics.event_dropped();
            }
        }
    }
}

impl NoticeWriter {
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let next = tokio::select! {
                next = self.receiver.recv() => next,
                () = shutdown.cancelled() => None,
            };
            let Some((notice, about)) = next else { return };
            let event = KubeEvent {
                type_: if notice.warning {
                    EventType::Warning
                } else {
                    EventType::Normal
                },
                reason: notice.reason,
                note: Some(cut(notice.message)),
                action: "Reconcile".to_owned(),
                secondary: None,
            };
            match timeout(DEADLINE, self.recorder.publish(&event, &about)).await {
                Ok(Ok(())) => {}
                // The object's namespace is going, and with it everybody who could read this.
                Ok(Err(kube::Error::Api(status))) if status.is_forbidden() || status.is_not_found() => {
                    self.metrics.event_dropped();
                }
                Ok(Err(error)) => {
                    self.metrics.event_dropped();
                    tracing::debug!(%error, object.name = about.name, "a Kubernetes Event was not written");
                }
                Err(_) => self.metrics.event_dropped(),
            }
        }
    }
}

fn cut(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        let end = (0..=MAX_NOTE - 3)
            .rev()
            .find(|end| note.is_char_boundary(*end))
            .unwrap_or_default();
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_between_characters() {
        for text in ["ä".repeat(2000), "a".repeat(1025)] {
            let cut = cut(text);
            assert!(cut.len() <= MAX_NOTE && cut.ends_with('…'), "{}", cut.len());
        }
        assert_eq!(cut("short".to_owned()), "short");
    }
}
