//! `test`: one example event to a destination, and what its receiver said.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::online::ask::{Asked, fresh};
use super::online::{ClusterArgs, Connection, block_on, limit, name};
use super::shown::{Output, text};
use super::{Report, Verdict};
use crate::api::TEST_ANNOTATION;
use crate::domain::event::parse::is_event_type;

/// Arguments of `test`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 delivered, 1 not, 2 it could not be asked for.\n\n\
    Sets the annotation postrider.dev/test; the destination need not be enabled, and its health does not change.\n\n\
    Examples:\n  \
    kubectl postrider test alerts\n  \
    kubectl postrider test alerts --event-type run_failed --wait=2m\n  \
    kubectl postrider test alerts -o json | jq .statusCode"
)]
pub(super) struct TestArgs {
    /// Name of the EventDestination.
    #[arg(value_name = "NAME", value_parser = name)]
    destination: String,
    /// Type whose example is sent. Default: the first that the destination wants.
    #[arg(long, value_name = "TYPE", value_parser = event_type)]
    event_type: Option<String>,
    /// How long to wait for the result, at most 1h; 0s does not wait.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "1m", default_missing_value = "1m",
          num_args = 0..=1, require_equals = true)]
    wait: Duration,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// The type of an event.
pub(super) fn event_type(text: &str) -> Result<String, String> {
    if is_event_type(text) {
        Ok(text.to_owned())
    } else {
        Err("no event has such a type: use at most 128 letters, digits, \".\", \"_\" and \"-\"".to_owned())
    }
}

/// Asks for a test and shows its result.
///
/// # Errors
/// When it could not be asked for, or was not answered in time.
pub(super) fn run(args: &TestArgs) -> anyhow::Result<Report> {
    let value = match &args.event_type {
        Some(event_type) => format!("{event_type}@{}", fresh()),
        None => fresh(),
    };
    let asked = Asked {
        name: &args.destination,
        annotation: TEST_ANNOTATION,
        handled: "lastHandledTest",
        value: &value,
        limit: args.wait,
    };
    let object = block_on(async { asked.answer(&Connection::open(&args.cluster).await?).await })?;
    let mut report = Report::default();
    let Some(object) = object else {
        report.note(format!(
            "asked with {value:?}; status.lastTest will tell the result"
        ));
        return Ok(report);
    };
    let result = object.pointer("/status/lastTest").cloned().unwrap_or(json!({}));
    tell(&result, args.output, &mut report)?;
    Ok(report)
}

fn tell(result: &Value, output: Output, report: &mut Report) -> anyhow::Result<()> {
    if text(result, "outcome") != "Delivered" {
        report.at_least(Verdict::Faulty);
    }
    if !report.value(result, output)? {
        report.pairs(&[
            ("outcome", text(result, "outcome")),
            ("reason", text(result, "reason")),
            ("type", text(result, "eventType")),
            ("status", text(result, "statusCode")),
            ("latency", text(result, "latency")),
            ("message", text(result, "message")),
            ("reply", text(result, "reply")),
        ]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_told_with_what_it_has() {
        let mut report = Report::default();
        let result = json!({"requested": "1", "outcome": "Failed", "reason": "Unavailable", "statusCode": 503,
            "latency": "12ms", "message": "the receiver answered 503", "reply": "later\n"});
        tell(&result, Output::Table, &mut report).unwrap();
        assert_eq!(
            String::from_utf8(report.out).unwrap(),
            "outcome  Failed\nreason   Unavailable\nstatus   503\nlatency  12ms\n\
             message  the receiver answered 503\nreply    later\\n\n"
        );
        assert_eq!(report.verdict, Verdict::Faulty);
        let mut report = Report::default();
        tell(&json!({"outcome": "Delivered"}), Output::Json, &mut report).unwrap();
        assert_eq!(report.verdict, Verdict::Clean);
    }
}
