//! `replay` and `cancel`: stored events are delivered again, what waits is dropped.
//!
//! A replay is made of steps that follow each other, a request each; whoever watches sees the count grow. When it ends
//! before its end, also by Ctrl-C, what was made is told, and with which words to go on: the cursor, and the start as a
//! time, since "2h ago" has moved meanwhile. A step that the operator refused made nothing. One whose answer is lost
//! may have been made, and is made again by whoever goes on: it is the only one whose events may be sent twice.

use std::future::Future;
use std::io::IsTerminal as _;
use std::time::Duration;

use clap::Args;
use futures::FutureExt as _;
use http::{Method, StatusCode};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value, json};

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
        let mut deliveries = Deliveries::of(&args.destination, &args.operator).await?;
        if let Some(id) = &args.id {
            return one(&mut deliveries, id, &mut report).await;
        }
        let ask = async |body: &Value| deliveries.ask(Method::POST, ":replay", Some(body)).await;
        let stop = tokio::signal::ctrl_c().map(drop);
        Span::of(args, progress()).run(ask, stop).await.map(Some)
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

/// A replay of many, and how far it is.
struct Span {
    since: Option<Timestamp>,
    /// Without the cursor.
    body: Map<String, Value>,
    /// Where the next step begins; nowhere before the first is made.
    cursor: Option<String>,
    done: Done,
    progress: ProgressBar,
}

impl Span {
    fn of(args: &ReplayArgs, progress: ProgressBar) -> Self {
        let mut body = Map::new();
        body.insert("since".to_owned(), json!(args.since));
        body.insert("failedOnly".to_owned(), json!(args.failed));
        // The end is the same for every step; one that goes on later has it from the cursor.
        body.insert("until".to_owned(), json!(args.until.unwrap_or_else(now)));
        if let Some(event_type) = &args.event_type {
            body.insert("type".to_owned(), json!(event_type));
        }
        Self {
            since: args.since,
            body,
            cursor: args.cursor.clone(),
            done: Done::default(),
            progress,
        }
    }

    /// Asks step by step, until the end or until it is to stop.
    async fn run(
        mut self,
        mut ask: impl AsyncFnMut(&Value) -> anyhow::Result<Answer>,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<Done> {
        let mut stop = std::pin::pin!(stop);
        let mut refusals = 0;
        loop {
            let mut body = self.body.clone();
            if let Some(cursor) = &self.cursor {
                body.insert("cursor".to_owned(), json!(cursor));
            }
            let body = Value::Object(body);
            let asked = tokio::select! {
                asked = ask(&body) => asked,
                () = &mut stop => Err(anyhow::anyhow!("interrupted")),
            };
            let answer = asked.map_err(|error| error.context(self.early(Step::Unknown)))?;
            if let Some(pause) = pause(&answer, refusals) {
                refusals += 1;
                self.progress
                    .set_message(format!("{}; the operator asks for patience", self.done.words()));
                tokio::select! {
                    () = tokio::time::sleep(pause) => continue,
                    () = &mut stop => {
                        return Err(anyhow::anyhow!("interrupted").context(self.early(Step::Refused)));
                    }
                }
            }
            if !answer.status.is_success() {
                return Err(anyhow::anyhow!(answer.problem()).context(self.early(Step::of(answer.status))));
            }
            refusals = 0;
            self.done.add(&answer.body);
            self.progress.set_message(self.done.words());
            let next = text(&answer.body, "next");
            if next.is_empty() {
                self.progress.finish_and_clear();
                return Ok(self.done);
            }
            anyhow::ensure!(
                self.cursor.as_ref() != Some(&next),
                "the operator goes round in circles; {}",
                self.done.words()
            );
            self.cursor = Some(next);
        }
    }

    /// What to know when it ends before its end.
    fn early(&self, last: Step) -> String {
        if (last, &self.cursor) == (Step::Refused, &None) {
            return "nothing is replayed".to_owned();
        }
        let mut words = vec![format!("it ended early: {}", self.done.words())];
        if last == Step::Unknown {
            words.push(
                "the last step has no answer: it may have been made, and then its events are sent again by going on"
                    .to_owned(),
            );
        }
        words.push(match (&self.cursor, self.since) {
            (Some(cursor), Some(since)) => {
                format!("go on with the same words, but --since {since} and --cursor {cursor}")
            }
            (_, Some(since)) => format!("begin again with the same words, but --since {since}"),
            (_, None) => "begin again with the same words".to_owned(),
        });
        words.join("; ")
    }
}

/// What is known of the step at which a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The operator said no.
    Refused,
    /// It was asked for, and there is no answer of the operator's.
    Unknown,
}

impl Step {
    /// The operator refuses before it does anything; a proxy before it may answer for one that was under way.
    fn of(status: StatusCode) -> Self {
        let refused = status.is_client_error() || status == StatusCode::SERVICE_UNAVAILABLE;
        if refused { Self::Refused } else { Self::Unknown }
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

/// On a terminal, on the standard error. The operator looks for events as it goes on and knows no total, so what is
/// shown is the time it takes and what was made so far.
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
        let mut deliveries = Deliveries::of(&args.destination, &args.operator).await?;
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
    }

    const SINCE: &str = "2026-01-31T08:00:00Z";

    /// What a replay says whose steps are answered so, and which is interrupted when there are no more answers.
    async fn ended(answers: Vec<anyhow::Result<Answer>>) -> String {
        let span = Span {
            since: Some(SINCE.parse().unwrap()),
            body: Map::new(),
            cursor: None,
            done: Done::default(),
            progress: ProgressBar::hidden(),
        };
        let mut answers = answers.into_iter();
        let (interrupt, interrupted) = tokio::sync::oneshot::channel::<()>();
        let mut interrupt = Some(interrupt);
        let ask = async |_: &Value| {
            if let Some(answer) = answers.next() {
                return answer;
            }
            drop(interrupt.take());
            std::future::pending().await
        };
        let done = span.run(ask, interrupted.map(drop)).await;
        format!("{:#}", done.unwrap_err())
    }

    fn answered(status: u16, body: Value) -> Answer {
        Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            body,
        }
    }

    fn step() -> Answer {
        answered(202, json!({"replayed": 2000, "next": "a5.9"}))
    }

    #[tokio::test]
    async fn a_replay_that_ended_early_goes_on_from_the_same_start() {
        let refused = answered(403, json!({"detail": "no"}));
        let text = ended(vec![Ok(step()), Ok(refused)]).await;
        let go_on = format!("but --since {SINCE} and --cursor a5.9");
        assert!(
            text.contains("2000 deliveries were made") && text.contains(&go_on),
            "{text}"
        );
        assert!(
            !text.contains("may have been made"),
            "a refused step is not made: {text}"
        );
        let refused = ended(vec![Ok(answered(403, json!({"detail": "no"})))]).await;
        assert_eq!(refused, "nothing is replayed: you lack a right: no");
        let cut = ended(vec![Ok(step()), Ok(answered(504, Value::Null))]).await;
        assert!(cut.contains("may have been made"), "{cut}");
    }

    #[tokio::test]
    async fn a_step_whose_answer_is_lost_may_have_been_made() {
        for steps in [vec![], vec![Ok(step())]] {
            let first = steps.is_empty();
            let mut steps = steps;
            steps.push(Err(anyhow::anyhow!("the connection broke")));
            let text = ended(steps).await;
            assert!(
                text.contains("it may have been made") && text.contains(SINCE),
                "{text}"
            );
            assert_eq!(text.contains("begin again"), first, "{text}");
        }
    }

    #[tokio::test]
    async fn who_interrupts_is_told_how_to_go_on() {
        let text = ended(vec![Ok(step())]).await;
        assert!(
            text.contains("--cursor a5.9")
                && text.contains("may have been made")
                && text.ends_with("interrupted"),
            "{text}"
        );
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
