//! Asking the operator by annotation, and waiting for the answer in the status.
//!
//! A value is new each time, so that it is handled. The wait is bounded; an API server that is away meanwhile is asked
//! again. What was asked for stays asked for when the wait ends, and the message says so.

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Connection, request};
use crate::cli::plugin::shown::now;
use crate::domain::duration;

/// Pause before the status is looked at again, at first and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What is asked of a destination.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli::plugin) struct Asked<'a> {
    pub(in crate::cli::plugin) name: &'a str,
    /// The annotation, and the member of the status that repeats its value once it is handled.
    pub(in crate::cli::plugin) annotation: &'a str,
    pub(in crate::cli::plugin) handled: &'a str,
    pub(in crate::cli::plugin) value: &'a str,
    /// How long to wait; not at all when zero.
    pub(in crate::cli::plugin) limit: Duration,
}

/// A text that is new.
pub(in crate::cli::plugin) fn fresh() -> String {
    now().to_string()
}

impl Asked<'_> {
    /// Sets the annotation and waits until it is handled; the object then. `None` when it is not waited for.
    ///
    /// # Errors
    /// What the API server refused, or that the wait ended.
    pub(in crate::cli::plugin) async fn answer(
        &self,
        connection: &Connection,
    ) -> anyhow::Result<Option<Value>> {
        let api = connection.destinations();
        let what = format!(
            "annotate EventDestination {:?} in namespace {:?}",
            self.name, connection.namespace
        );
        let patch = Patch::Merge(json!({"metadata": {"annotations": {self.annotation: self.value}}}));
        let params = PatchParams::default();
        let mut object = request(&what, api.patch(self.name, &params, &patch)).await?;
        if self.limit.is_zero() {
            return Ok(None);
        }
        let what = format!(
            "read EventDestination {:?} in namespace {:?}",
            self.name, connection.namespace
        );
        let (mut pause, longest) = PAUSE;
        let end = Instant::now() + self.limit;
        let mut lost = None;
        loop {
            let status = object.data.get("status").unwrap_or(&Value::Null);
            if status.get(self.handled).and_then(Value::as_str) == Some(self.value) {
                return Ok(Some(serde_json::to_value(&object)?));
            }
            if Instant::now() >= end {
                let words = self.unanswered(status);
                return Err(match lost {
                    Some(error) => anyhow::Error::context(error, words),
                    None => anyhow::anyhow!(words),
                });
            }
            tokio::time::sleep_until((Instant::now() + pause).min(end)).await;
            pause = (pause * 2).min(longest);
            let mut is_final = false;
            let look = async {
                let found = api.get(self.name).await;
                is_final = found.as_ref().is_err_and(is_refusal);
                found
            };
            match request(&what, look).await {
                Ok(found) => (object, lost) = (found, None),
                Err(error) if is_final => {
                    return Err(error.context(format!("{} is set; {}", self.annotation, self.stays())));
                }
                Err(error) => lost = Some(error),
            }
        }
    }

    fn stays(&self) -> String {
        format!(
            "it stays asked for, and status.{} will repeat {:?} when it is done",
            self.handled, self.value
        )
    }

    fn unanswered(&self, status: &Value) -> String {
        let conditions = status.get("conditions").and_then(Value::as_array);
        let ready = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"))
            .and_then(|condition| {
                let text = |name: &str| condition.get(name).and_then(Value::as_str);
                Some(format!(
                    "Ready is {}: {}",
                    text("status")?,
                    text("message").unwrap_or_default()
                ))
            });
        format!(
            "no operator has answered {} within {}; {}. {}",
            self.annotation,
            duration::format(self.limit),
            self.stays(),
            ready.unwrap_or_else(|| {
                "The destination has no status: does an operator look after its namespace?".to_owned()
            }),
        )
    }
}

/// Whether the API server would say the same again: a right is lacking, or the object is gone.
fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && ![408, 429].contains(&status.code))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::sync::Arc;
    use std::task::{Context, Poll};

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use kube::client::Body;
    use kube::{Client, Config};
    use parking_lot::Mutex;

    use super::*;

    /// An API server that gives these answers, one after the other, and the last one again and again.
    #[derive(Clone)]
    struct Answers(Arc<Mutex<VecDeque<(u16, Value)>>>);

    impl tower_service::Service<Request<Body>> for Answers {
        type Response = Response<Full<Bytes>>;
        type Error = Infallible;
        type Future = std::future::Ready<Result<Self::Response, Infallible>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Request<Body>) -> Self::Future {
            let mut answers = self.0.lock();
            let (status, body) = answers.front().unwrap().clone();
            if answers.len() > 1 {
                answers.pop_front();
            }
            let answer = Response::builder().status(status);
            std::future::ready(Ok(answer.body(Full::from(body.to_string())).unwrap()))
        }
    }

    async fn asked_of(answers: Vec<(u16, Value)>) -> anyhow::Result<Option<Value>> {
        let connection = Connection {
            client: Client::new(Answers(Arc::new(Mutex::new(answers.into()))), "acme"),
            config: Config::new(http::Uri::from_static("http://127.0.0.1:1")),
            namespace: "acme".to_owned(),
        };
        let asked = Asked {
            name: "hook",
            annotation: "postrider.dev/test",
            handled: "lastHandledTest",
            value: "1",
            limit: Duration::from_secs(60),
        };
        asked.answer(&connection).await
    }

    fn object(handled: &str) -> (u16, Value) {
        let object = json!({"apiVersion": "postrider.dev/v1alpha1", "kind": "EventDestination",
            "metadata": {"name": "hook"}, "status": {"lastHandledTest": handled}});
        (200, object)
    }

    fn failure(code: u16, message: &str) -> (u16, Value) {
        let status = json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code,
            "message": message, "reason": "x"});
        (code, status)
    }

    #[tokio::test(start_paused = true)]
    async fn an_api_server_that_is_away_for_a_moment_is_asked_again() {
        let away = failure(500, "etcd has no leader");
        let answers = vec![object("0"), away.clone(), away, object("0"), object("1")];
        assert!(asked_of(answers).await.unwrap().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_asked_for_stays_so_whatever_ends_the_wait() {
        for (answer, words) in [
            (
                failure(500, "etcd has no leader"),
                ["within 1m", "etcd has no leader"],
            ),
            (
                failure(403, "you cannot get it"),
                ["postrider.dev/test is set", "you cannot get it"],
            ),
        ] {
            let error = asked_of(vec![object("0"), answer]).await.unwrap_err();
            let text = format!("{error:#}");
            assert!(
                text.contains("status.lastHandledTest will repeat \"1\""),
                "{text}"
            );
            assert!(words.iter().all(|words| text.contains(words)), "{text}");
        }
    }

    #[test]
    fn who_is_not_answered_is_told_what_stands_in_the_way() {
        let asked = Asked {
            name: "hook",
            annotation: "postrider.dev/test",
            handled: "lastHandledTest",
            value: "1",
            limit: Duration::from_secs(60),
        };
        let text = asked.unanswered(&Value::Null);
        assert!(
            text.contains("postrider.dev/test within 1m") && text.contains("does an operator"),
            "{text}"
        );
        let status =
            json!({"conditions": [{"type": "Ready", "status": "False", "message": "Secret x is missing"}]});
        let text = asked.unanswered(&status);
        assert!(text.contains("Ready is False: Secret x is missing"), "{text}");
    }
}
