//! Kubernetes Events: what people read in `kubectl describe` and `kubectl get events`.
//!
//! They are told from a queue of their own, so that neither status nor delivery waits for them, and dropped (and
//! counted) when there are too many at once or the process stops: the conditions say the same and are never dropped.
//! Repetitions are counted in the Event that there is ([`series`]); kube's own recorder would do so by reason alone and drop the text.

mod series;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event as KubeEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use self::series::{Deed, Series, Subject};
use super::error::is_namespace_ending;
use super::metrics::KubeMetrics;
use crate::api::FIELD_MANAGER;
use crate::domain::status::Notice;
use crate::engine::clock::Clock;

/// Events that wait.
const WAITING: usize = 4096;
/// Longest time for one.
const DEADLINE: Duration = Duration::from_secs(10);
/// Most bytes of a note that Kubernetes takes.
const MAX_NOTE: usize = 1024;
/// Most characters of a name, less a dot and 64 bits in hexadecimal.
const MAX_NAME: usize = 253 - 17;

/// Where events are put.
#[derive(Debug)]
pub(super) struct Notices {
    sender: mpsc::Sender<(Notice, ObjectReference)>,
    metrics: KubeMetrics,
}

/// Writes the events that were put.
pub(super) struct NoticeWriter {
    receiver: mpsc::Receiver<(Notice, ObjectReference)>,
    client: Client,
    /// Name of this process.
    instance: String,
    /// A failure was logged since the last success.
    complained: bool,
    clock: Arc<dyn Clock>,
    metrics: KubeMetrics,
    series: Series,
}

pub(super) fn notices(
    client: Client,
    instance: Option<String>,
    clock: Arc<dyn Clock>,
    metrics: KubeMetrics,
) -> (Notices, NoticeWriter) {
    let (sender, receiver) = mpsc::channel(WAITING);
    (
        Notices {
            sender,
            metrics: metrics.clone(),
        },
        NoticeWriter {
            receiver,
            client,
            instance: instance.unwrap_or_else(|| FIELD_MANAGER.to_owned()),
            complained: false,
            clock,
            metrics,
            series: Series::default(),
        },
    )
}

impl Notices {
    pub(super) fn tell(&self, notices: Vec<Notice>, about: &ObjectReference) {
        for notice in notices {
            if self.sender.try_send((notice, about.clone())).is_err() {
                self.metrics.events_dropped(1);
            }
        }
    }
}

impl NoticeWriter {
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => None,
                next = self.receiver.recv() => next,
            };
            let Some((notice, about)) = next else { return };
            self.tell(notice, &about).await;
        }
    }

    /// Writes one, or counts it as dropped. Of failures in a row only the first is logged.
    async fn tell(&mut self, notice: Notice, about: &ObjectReference) {
        let error: Box<dyn std::error::Error> = match timeout(DEADLINE, self.write(notice, about)).await {
            Ok(Ok(())) => {
                self.complained = false;
                return;
            }
            // The object's namespace is going, and with it everybody who could read this.
            Ok(Err(kube::Error::Api(status))) if is_namespace_ending(&status) || status.is_not_found() => {
                self.metrics.events_dropped(1);
                return;
            }
            Ok(Err(error)) => error.into(),
            Err(elapsed) => elapsed.into(),
        };
        self.metrics.events_dropped(1);
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                %error, object.name = about.name,
                "a Kubernetes Event was not written; the next ones that fail are only counted"
            );
        }
    }

    async fn write(&mut self, notice: Notice, about: &ObjectReference) -> kube::Result<()> {
        let namespace = about.namespace.as_deref().unwrap_or_default();
        let api = Api::<KubeEvent>::namespaced(self.client.clone(), namespace);
        let now = self.clock.now();
        let note = cut(notice.message);
        let subject = Subject {
            uid: about.uid.clone().unwrap_or_default(),
            warning: notice.warning,
            reason: notice.reason,
        };
        if let Deed::Count {
            name,
            count,
            other_text,
        } = self.series.decide(&subject, &note, now)
        {
            let series = json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}});
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            match api.patch(&name, &params, &Patch::Merge(&series)).await {
                Ok(_) => {
                    self.series.counted(&subject, &name, now);
                    if other_text {
                        self.metrics.events_dropped(1);
                    }
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => {
                    self.series.gone(&subject, &name); // it expired, or somebody deleted it
                }
                Err(error) => return Err(error),
            }
        }
        let event = self.event(&subject, &note, about, now);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        api.create(&params, &event).await?;
        let name = event.metadata.name.unwrap_or_default();
        self.series.made(subject, name, note, now);
        Ok(())
    }

    fn event(&self, subject: &Subject, note: &str, about: &ObjectReference, now: Timestamp) -> KubeEvent {
        let kind = if subject.warning { "Warning" } else { "Normal" };
        KubeEvent {
            metadata: ObjectMeta {
                name: Some(name(about.name.as_deref().unwrap_or(FIELD_MANAGER), now)),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            type_: Some(kind.to_owned()),
            reason: Some(subject.reason.clone()),
            note: Some(note.to_owned()),
            action: Some("Reconcile".to_owned()),
            regarding: Some(about.clone()),
            event_time: Some(MicroTime(now)),
            reporting_controller: Some(FIELD_MANAGER.to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..KubeEvent::default()
        }
    }
}

impl Drop for NoticeWriter {
    /// The process stops, maybe in the middle of one: what still waits is not written.
    fn drop(&mut self) {
        self.receiver.close();
        let left = std::iter::from_fn(|| self.receiver.try_recv().ok()).count();
        if left > 0 {
            self.metrics.events_dropped(left);
            tracing::info!(
                events = left,
                "Kubernetes Events were not written before the stop"
            );
        }
    }
}

/// The name of an Event: the object's, as far as there is room, and the time.
fn name(object: &str, now: Timestamp) -> String {
    // Names of objects are ASCII.
    let part = object
        .get(..MAX_NAME)
        .unwrap_or(object)
        .trim_end_matches(['.', '-']);
    format!("{part}.{:x}", now.as_nanosecond())
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
    use prometheus_client::registry::Registry;
    use tokio::net::TcpListener;

    use super::*;
    use crate::engine::clock::SystemClock;

    fn dropped(metrics: &KubeMetrics) -> Option<u64> {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().find_map(|line| {
            line.strip_prefix("kubernetes_events_dropped_total ")?
                .parse()
                .ok()
        })
    }

    fn notice() -> Notice {
        Notice {
            warning: true,
            reason: "ServerError".to_owned(),
            message: "the receiver answered 500".to_owned(),
        }
    }

    /// A writer to an API server that takes connections and never answers.
    async fn unheard(metrics: &KubeMetrics) -> (Notices, NoticeWriter, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let client = Client::try_from(kube::Config::new(url.parse().unwrap())).unwrap();
        let (notices, writer) = notices(client, None, Arc::new(SystemClock), metrics.clone());
        (notices, writer, listener)
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_takes_too_long_is_counted_and_complained_of() {
        let metrics = KubeMetrics::default();
        let (_notices, mut writer, _listener) = unheard(&metrics).await;
        writer.tell(notice(), &ObjectReference::default()).await;
        assert_eq!((dropped(&metrics), writer.complained), (Some(1), true));
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_wait_when_the_process_stops_are_counted() {
        for started in [false, true] {
            let metrics = KubeMetrics::default();
            let (notices, writer, _listener) = unheard(&metrics).await;
            notices.tell(vec![notice(), notice(), notice()], &ObjectReference::default());
            let shutdown = CancellationToken::new();
            if !started {
                shutdown.cancel();
            }
            // Stopped between two events, or cut off within the first.
            let running = timeout(Duration::from_secs(1), writer.run(shutdown)).await;
            assert_eq!(running.is_err(), started);
            let left = if started { 2 } else { 3 };
            notices.tell(vec![notice()], &ObjectReference::default());
            assert_eq!(dropped(&metrics), Some(left + 1));
        }
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        for text in ["ä".repeat(2000), "a".repeat(1025)] {
            let cut = cut(text);
            assert!(cut.len() <= MAX_NOTE && cut.ends_with('…'), "{}", cut.len());
        }
        assert_eq!(cut("short".to_owned()), "short");
    }

    #[test]
    fn an_event_of_the_longest_object_has_a_name_that_kubernetes_takes() {
        let now: Timestamp = "2026-01-31T08:15:30.123456789Z".parse().unwrap();
        assert_eq!(name("hook", now), "hook.188fc2c50aaea115");
        let long = name(&format!("{}.{}", "a".repeat(235), "b".repeat(9)), now);
        assert_eq!(long, format!("{}.188fc2c50aaea115", "a".repeat(235)));
        assert!(long.len() <= 253);
    }
}
