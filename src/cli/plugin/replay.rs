//! `replay` and `cancel`: stored events are delivered again, what waits is dropped.
//!
//! A replay is made of requests that follow each other; whoever watches sees the count grow. When one of them fails,
//! what was made is told, and the cursor with which to go on, so that nothing is sent twice.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::Report;
use super::deliveries::{Deliveries, event_id, refuse, time};
use super::online::operator::{Answer, OperatorArgs, part};
use super::online::{block_on, name};
use super::shown::{Output, now, text};
use super::testing::event_type;

/// How often in a row a full queue, or an operator that cannot answer now, is asked again.
const MAX_REFUSALS: u32 = 20;
/// Shortest and longest pause before that.
const PAUSE: (u64, u64) = (1, 30);

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["id", "since"]),
    after_help = "Exit code: 0 all is done, 1 the event cannot be replayed, 2 it ended early, or could not be asked for.\n\n\
    A receiver that drops duplicates by webhook-id drops what it had; docs/deliveries.md.\n\n\
    Examples:\n  \
    kubectl postrider replay alerts --id 0197f0b2-7c1e-7a3e-9d5c-0c1d2e3f4a5b\n  \
    kubectl postrider replay alerts --since 2h --failed\n  \
    kubectl postrider replay alerts --since 2026-01-31T08:00:00Z --until 2026-01-31T09:00:00Z --type run_failed"
)]
pub(super) struct ReplayArgs {
    /// Name of the EventDestination.
    #[arg(value_name = "NAME", value_parser = name)]
    destination: String,
    /// Id of the one event to deliver again.
    #[arg(long, value_name = "ID", value_parser = event_id)]
    id: Option<String>,
    /// Events accepted since then; with --failed, given up. A time, or how long ago: 2h.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// But before then. Default: now.
    #[arg(long, value_name = "TIME", value_parser = time, requires = "since")]
    until: Option<Timestamp>,
    /// Only what was given up, and has not been delivered since.
    #[arg(long, requires = "since")]
    failed: bool,
    /// Only events of this type.
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type, requires = "since")]
    event_type: Option<String>,
    /// Where a replay that ended early said to go on.
    #[arg(long, value_name = "CURSOR", requires = "since")]
    cursor: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Arguments of `cancel`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 cancelled, 1 it does not wait, 2 it could not be asked for.\n\n\
    Examples:\n  \
    kubectl postrider cancel alerts 0197f0b2-7c1e-7a3e-9d5c-0c1d2e3f4a5b\n  \
    kubectl postrider deliveries alerts --state Waiting --all -o json | jq -r '.[].id' | \\\n      \
    xargs -n 1 kubectl postrider cancel alerts"
)]
pub(super) struct CancelArgs {
    /// Name of the EventDestination.
    #[arg(value_name = "NAME", value_parser = name)]
    destination: String,
    /// Id of the event.
    #[arg(value_name = "ID", value_parser = event_id)]
    id: String,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    replayed: u64,
    already_waiting: u64,
    no_longer_stored: u64,
    dead_letters: u64,
}

impl Done {
    fn add(&mut self, page: &Value) {
        let number = |name: &str| page.get(name).and_then(Value::as_u64).unwrap_or_default();
        self.replayed += number("replayed");
        self.already_waiting += number("alreadyWaiting");
        self.no_longer_stored += number("noLongerStored");
        self.dead_letters += number("deadLetters");
    }

    fn words(&self) -> String {
        let made = match self.replayed {
            1 => "1 delivery was made".to_owned(),
            number => format!("{number} deliveries were made"),
        };
        let mut words = vec![made];
        if self.already_waiting > 0 {
            words.push(format!(
                "{} waited or were under way anyway",
                self.already_waiting
            ));
        }
        if self.no_longer_stored > 0 {
            words.push(format!("{} are no longer stored", self.no_longer_stored));
        }
        if self.dead_letters > 0 {
            words.push(format!(
                "{} came as dead letters of other destinations: replay them there",
                self.dead_letters
            ));
        }
        words.join("; ")
    }
}

/// Delivers again.
///
/// # Errors
/// When it could not be asked for, or ended early.
pub(super) fn replay(args: &ReplayArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let done = block_on(async {
        let mut deliveries = Deliveries::of(&args.destination, &args.operator, &mut report).await?;
        match &args.id {
            Some(id) => one(&mut deliveries, id, &mut report).await,
            None => span(&mut deliveries, args).await.map(Some),
        }
    })?;
    if let Some(done) = done
        && !report.value(&done, args.output)?
    {
        report.line(&done.words());
    }
    Ok(report)
}

async fn one(deliveries: &mut Deliveries, id: &str, report: &mut Report) -> anyhow::Result<Option<Done>> {
    let below = format!("/{}:replay", part(id));
    let answer = deliveries.ask(Method::POST, &below, None).await?;
    if answer.status.is_success() {
        let mut done = Done::default();
        done.add(&answer.body);
        return Ok(Some(done));
    }
    refuse(&answer, report)?;
    Ok(None)
}

async fn span(deliveries: &mut Deliveries, args: &ReplayArgs) -> anyhow::Result<Done> {
    let progress = progress();
    let mut body = json!({"since": args.since, "failedOnly": args.failed});
    // The end is the same for every request, also for one that goes on later.
    let until = args.until.unwrap_or_else(now);
    let mut set = |name: &str, value: Value| {
        if let Some(body) = body.as_object_mut() {
            body.insert(name.to_owned(), value);
        }
    };
    set("until", json!(until));
    if let Some(event_type) = &args.event_type {
        set("type", json!(event_type));
    }
    let mut done = Done::default();
    let mut cursor = args.cursor.clone();
    let mut refusals = 0;
    loop {
        if let (Some(cursor), Some(body)) = (&cursor, body.as_object_mut()) {
            body.insert("cursor".to_owned(), json!(cursor));
        }
        let asked = deliveries.ask(Method::POST, ":replay", Some(&body)).await;
        let answer = asked.map_err(|error| error.context(early(&done, cursor.as_deref())))?;
        if let Some(pause) = pause(&answer, refusals) {
            refusals += 1;
            progress.set_message(format!("{}; the operator asks for patience", done.words()));
            tokio::time::sleep(pause).await;
            continue;
        }
        if !answer.status.is_success() {
            return Err(anyhow::anyhow!(answer.problem()).context(early(&done, cursor.as_deref())));
        }
        refusals = 0;
        done.add(&answer.body);
        progress.set_message(done.words());
        let next = text(&answer.body, "next");
        if next.is_empty() {
            progress.finish_and_clear();
            return Ok(done);
        }
        anyhow::ensure!(
            cursor.as_ref() != Some(&next),
            "the operator goes round in circles; {}",
            done.words()
        );
        cursor = Some(next);
    }
}

/// How long to wait before the same is asked again; `None` when it is not to be.
fn pause(answer: &Answer, refusals: u32) -> Option<Duration> {
    let patience = matches!(
        answer.status,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    let (least, most) = PAUSE;
    let seconds = answer.retry_after.unwrap_or(5).clamp(least, most);
    (patience && refusals < MAX_REFUSALS).then(|| Duration::from_secs(seconds))
}

/// What to know when a replay ends before its end.
fn early(done: &Done, cursor: Option<&str>) -> String {
    match cursor {
        Some(cursor) => format!(
            "it ended early: {}; go on with the same words and --cursor {cursor}",
            done.words()
        ),
        None => "nothing is known to be replayed".to_owned(),
    }
}

/// On a terminal, on the standard error; the number of events to come is not known beforehand.
fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} [{elapsed_precise}] {msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Drops what waits.
///
/// # Errors
/// When it could not be asked for.
pub(super) fn cancel(args: &CancelArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let answer = block_on(async {
        let mut deliveries = Deliveries::of(&args.destination, &args.operator, &mut report).await?;
        let below = format!("/{}:cancel", part(&args.id));
        deliveries.ask(Method::POST, &below, None).await
    })?;
    if !answer.status.is_success() {
        refuse(&answer, &mut report)?;
    } else if !report.value(&answer.body, args.output)? {
        report.line(&format!("{} is cancelled", args.id));
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_add_up_and_are_told() {
        let mut done = Done::default();
        done.add(&json!({"id": "a", "replayed": 1}));
        assert_eq!(done.words(), "1 delivery was made");
        done.add(&json!({"replayed": 2000, "alreadyWaiting": 3, "noLongerStored": 4, "next": "r1.2"}));
        assert_eq!(
            done.words(),
            "2001 deliveries were made; 3 waited or were under way anyway; 4 are no longer stored"
        );
        assert!(early(&done, Some("r1.2")).contains("2001 deliveries were made"));
        assert!(early(&done, Some("r1.2")).ends_with("--cursor r1.2"));
    }

    #[test]
    fn a_full_queue_is_waited_for_within_bounds() {
        let answer = |status, retry_after| Answer {
            status,
            retry_after,
            body: Value::Null,
        };
        let full = answer(StatusCode::TOO_MANY_REQUESTS, Some(600));
        assert_eq!(pause(&full, 0), Some(Duration::from_secs(30)));
        assert_eq!(pause(&full, MAX_REFUSALS), None);
        let starting = answer(StatusCode::SERVICE_UNAVAILABLE, Some(0));
        assert_eq!(pause(&starting, 3), Some(Duration::from_secs(1)));
        assert_eq!(pause(&answer(StatusCode::FORBIDDEN, Some(1)), 0), None);
    }
}
