//! Asking the operator by annotation, and waiting for the answer in the status.
//!
//! A value is new each time, so that it is handled. The wait is bounded; what was asked for stays asked for when it
//! ends, and the message says so.

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
        loop {
            let status = object.data.get("status").unwrap_or(&Value::Null);
            if status.get(self.handled).and_then(Value::as_str) == Some(self.value) {
                return Ok(Some(serde_json::to_value(&object)?));
            }
            if Instant::now() >= end {
                anyhow::bail!(self.unanswered(status));
            }
            tokio::time::sleep_until((Instant::now() + pause).min(end)).await;
            pause = (pause * 2).min(longest);
            object = request(&what, api.get(self.name)).await?;
        }
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
            "no operator has answered {} within {}; it stays asked for, and {} will repeat {:?} when it is done. {}",
            self.annotation,
            duration::format(self.limit),
            format_args!("status.{}", self.handled),
            self.value,
            ready.unwrap_or_else(|| {
                "The destination has no status: does an operator look after its namespace?".to_owned()
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
