//! `enable` and `rotate-secret`: what is asked of a destination and answered in its status.

use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::online::ask::{Asked, fresh};
use super::online::{ClusterArgs, Connection, block_on, limit, name};
use super::shown::{Output, text};
use super::{Report, Verdict};
use crate::api::{ENABLE_ANNOTATION, ROTATE_ANNOTATION};

/// Arguments of `enable`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 enabled, 1 enabled but not delivering, 2 it could not be asked for.\n\n\
    Sets the annotation postrider.dev/enable. Suspended destinations stay so: that is spec.suspend.\n\n\
    Examples:\n  \
    kubectl postrider enable alerts\n  \
    kubectl postrider enable alerts -n acme --wait=0s"
)]
pub(super) struct EnableArgs {
    #[command(flatten)]
    acting: ActingArgs,
}

/// Arguments of `rotate-secret`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 rotated, 1 not, 2 it could not be asked for.\n\n\
    Sets the annotation postrider.dev/rotate-secret. The keys themselves do not show.\n\n\
    Examples:\n  \
    kubectl postrider rotate-secret alerts\n  \
    kubectl postrider rotate-secret alerts -o json | jq -r .reason")]
pub(super) struct RotateArgs {
    #[command(flatten)]
    acting: ActingArgs,
}

#[derive(Debug, Args)]
struct ActingArgs {
    /// Name of the EventDestination.
    #[arg(value_name = "NAME", value_parser = name)]
    destination: String,
    /// How long to wait for the answer, at most 1h; 0s does not wait.
    #[arg(long, value_name = "DURATION", value_parser = limit, default_value = "1m", default_missing_value = "1m",
          num_args = 0..=1, require_equals = true)]
    wait: Duration,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Enables a destination that was disabled because its receiver stayed broken.
///
/// # Errors
/// When it could not be asked for, or was not answered in time.
pub(super) fn enable(args: &EnableArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let Some(object) = ask(&args.acting, ENABLE_ANNOTATION, "lastHandledEnable", &mut report)? else {
        return Ok(report);
    };
    let delivering = condition(&object, "Delivering");
    if text(&delivering, "status") == "False" {
        report.at_least(Verdict::Faulty);
    }
    if !report.value(&delivering, args.acting.output)? {
        report.pairs(&[
            ("delivering", text(&delivering, "status")),
            ("reason", text(&delivering, "reason")),
            ("message", text(&delivering, "message")),
        ]);
    }
    Ok(report)
}

/// Has a new signing key made.
///
/// # Errors
/// When it could not be asked for, or was not answered in time.
pub(super) fn rotate(args: &RotateArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let object = ask(
        &args.acting,
        ROTATE_ANNOTATION,
        "lastHandledRotateSecret",
        &mut report,
    )?;
    let Some(object) = object else { return Ok(report) };
    let result = object
        .pointer("/status/lastRotation")
        .cloned()
        .unwrap_or(json!({}));
    if text(&result, "outcome") != "Rotated" {
        report.at_least(Verdict::Faulty);
    }
    if !report.value(&result, args.acting.output)? {
        report.pairs(&[
            ("outcome", text(&result, "outcome")),
            ("reason", text(&result, "reason")),
            ("message", text(&result, "message")),
        ]);
    }
    Ok(report)
}

/// A condition of an object; null when it has none of that type.
pub(super) fn condition(object: &Value, kind: &str) -> Value {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    let found = conditions.find(|condition| text(condition, "type") == kind);
    found.cloned().unwrap_or_default()
}

fn ask(
    args: &ActingArgs,
    annotation: &str,
    handled: &str,
    report: &mut Report,
) -> anyhow::Result<Option<Value>> {
    let value = fresh();
    let asked = Asked {
        name: &args.destination,
        annotation,
        handled,
        value: &value,
        limit: args.wait,
    };
    let object = block_on(async { asked.answer(&Connection::open(&args.cluster).await?).await })?;
    if object.is_none() {
        report.note(format!("asked with {value:?}; status.{handled} will repeat it"));
    }
    Ok(object)
}
