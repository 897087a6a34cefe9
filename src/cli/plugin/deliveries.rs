//! `deliveries` and `show`: what became of deliveries, as the operator's delivery log tells it.
//!
//! Pages are followed until enough is found; a page of the API may be short while there is more. Both the items and
//! the pages are bounded, and what is left out is said.

use bytes::Bytes;
use clap::{Args, ValueEnum};
use http::{HeaderValue, Method};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::online::operator::{Answer, Operator, OperatorArgs, Question, part};
use super::online::{Connection, block_on, caller, name};
use super::shown::{Cell, Output, Paint, Table, Tone, ago, now, text};
use super::testing::event_type;
use super::{Report, Verdict};
use crate::domain::duration;

/// Deliveries asked for at once, at most.
const PAGE: usize = 500;
/// Most deliveries that are shown.
const MAX_ITEMS: usize = 100_000;
/// Most requests for one list; each looks at 20,000 attempts.
const MAX_PAGES: usize = 1_000;

/// Arguments of `deliveries`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 listed, 1 never, 2 they cannot be seen.\n\n\
    Each delivery is listed once, by its last attempt, the newest first.\n\n\
    Examples:\n  \
    kubectl postrider deliveries alerts --state Exhausted --since 2h\n  \
    kubectl postrider deliveries alerts --state Waiting --all\n  \
    kubectl postrider deliveries alerts --type run_failed -o json | jq -r '.[].id'")]
pub(super) struct DeliveriesArgs {
    /// Name of the EventDestination.
    #[arg(value_name = "NAME", value_parser = name)]
    destination: String,
    /// Only deliveries in this state.
    #[arg(long, value_enum, ignore_case = true)]
    state: Option<State>,
    /// Only events of this type.
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    event_type: Option<String>,
    /// Only those whose last attempt ended since then; of waiting ones, accepted. A time, or how long ago: 2h.
    #[arg(long, value_name = "TIME", value_parser = time)]
    since: Option<Timestamp>,
    /// Only those before then.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<Timestamp>,
    /// Most deliveries to show.
    #[arg(long, value_name = "NUMBER", default_value_t = 50,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Show all, at most 100000.
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// States, in the API's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum State {
    /// The receiver took it.
    Delivered,
    /// An attempt failed, another follows.
    Retrying,
    /// Given up.
    Exhausted,
    /// The filter no longer matches.
    Dropped,
    /// Somebody cancelled it.
    Cancelled,
    /// In the queue now.
    Waiting,
}

/// Arguments of `show`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 shown, 1 nothing is known of the event, 2 it cannot be seen.\n\n\
    JSON and YAML hold the request's headers of every attempt; secret values are not kept.\n\n\
    Examples:\n  \
    kubectl postrider show alerts 0197f0b2-7c1e-7a3e-9d5c-0c1d2e3f4a5b\n  \
    kubectl postrider show alerts order-17 -o json | jq '.attempts[-1].reply'"
)]
pub(super) struct ShowArgs {
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

/// A time, or how long ago one was.
pub(super) fn time(text: &str) -> Result<Timestamp, String> {
    let before = |length| {
        now()
            .checked_sub(jiff::SignedDuration::try_from(length).ok()?)
            .ok()
    };
    text.parse()
        .ok()
        .or_else(|| duration::parse(text).and_then(before))
        .ok_or_else(|| {
            "give a time such as 2026-01-02T03:04:05Z, or how long ago it was, such as 2h".to_owned()
        })
}

/// The id of an event.
pub(super) fn event_id(text: &str) -> Result<String, String> {
    if !text.is_empty() && text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("no event has such an id: use at most 128 visible ASCII characters".to_owned())
    }
}

/// The delivery API of one destination, asked as one caller.
pub(super) struct Deliveries {
    operator: Operator,
    bearer: HeaderValue,
    root: String,
}

impl Deliveries {
    /// Finds the operator, and the token to ask it with.
    ///
    /// # Errors
    /// When there is none of them.
    pub(super) async fn of(destination: &str, args: &OperatorArgs) -> anyhow::Result<Self> {
        let connection = Connection::open(&args.cluster).await?;
        let bearer = caller::bearer(&connection, args.service_account.as_deref()).await?;
        let operator = Operator::find(&connection, args).await?;
        let namespace = &connection.namespace;
        Ok(Self {
            operator,
            bearer,
            root: format!("/v1/namespaces/{namespace}/eventdestinations/{destination}/deliveries"),
        })
    }

    /// Asks below the destination's deliveries.
    ///
    /// # Errors
    /// When there is no answer.
    pub(super) async fn ask(
        &mut self,
        method: Method,
        below: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Answer> {
        let question = Question {
            method,
            path: &format!("{}{below}", self.root),
            bearer: &self.bearer,
            body: body.map(|body| ("application/json", Bytes::from(body.to_string()))),
        };
        self.operator.ask(question).await
    }
}

/// What an answer that is no success means to the exit code: the event's own fault, or no way to know.
pub(super) fn refuse(answer: &Answer, report: &mut Report) -> anyhow::Result<()> {
    let problem = answer.problem();
    let of_event = ["conflict", "event-gone", "no-such-delivery", "invalid-event"];
    anyhow::ensure!(of_event.iter().any(|kind| answer.is(kind)), "{problem}");
    report.at_least(Verdict::Faulty);
    report.note(format!("error: {problem}"));
    Ok(())
}

/// Lists deliveries.
///
/// # Errors
/// When they cannot be seen.
pub(super) fn list(args: &DeliveriesArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let items = block_on(async {
        let mut deliveries = Deliveries::of(&args.destination, &args.operator).await?;
        collect(&mut deliveries, args, &mut report).await
    })?;
    if !report.value(&items, args.output)? {
        table(&items, now(), Paint::here(), &mut report);
        if items.is_empty() {
            report.note("there are no such deliveries");
        }
    }
    Ok(report)
}

async fn collect(
    deliveries: &mut Deliveries,
    args: &DeliveriesArgs,
    report: &mut Report,
) -> anyhow::Result<Vec<Value>> {
    let limit = if args.all { MAX_ITEMS } else { args.limit as usize };
    let mut items = Vec::new();
    let mut cursor = None;
    for _ in 0..MAX_PAGES {
        let query = query(args, (limit - items.len()).min(PAGE), cursor.as_deref());
        let answer = deliveries.ask(Method::GET, &query, None).await?;
        anyhow::ensure!(answer.status.is_success(), "{}", answer.problem());
        let found = answer.body.get("items").and_then(Value::as_array);
        items.extend(found.into_iter().flatten().cloned());
        cursor = answer
            .body
            .get("next")
            .and_then(Value::as_str)
            .map(ToOwned::to_owned);
        if cursor.is_none() {
            return Ok(items);
        }
        if items.len() >= limit {
            break;
        }
    }
    report.note(format!(
        "there are more than these {}; use --limit, --all, or --since and --until",
        items.len()
    ));
    Ok(items)
}

fn query(args: &DeliveriesArgs, limit: usize, cursor: Option<&str>) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &limit.to_string());
    if let Some(state) = args.state.and_then(|state| state.to_possible_value()) {
        query.append_pair("state", state.get_name());
    }
    let times = [("since", args.since), ("until", args.until)];
    for (name, time) in times {
        if let Some(time) = time {
            query.append_pair(name, &time.to_string());
        }
    }
    if let Some(event_type) = &args.event_type {
        query.append_pair("type", event_type);
    }
    if let Some(cursor) = cursor {
        query.append_pair("cursor", cursor);
    }
    format!("?{}", query.finish())
}

fn table(items: &[Value], now: Timestamp, paint: Paint, report: &mut Report) {
    let heading = [
        "ID",
        "TYPE",
        "STATE",
        "ATTEMPT",
        "STATUS",
        "REASON",
        "TOOK",
        "WHEN",
        "NEXT ATTEMPT",
    ];
    let mut table = Table::new(&heading);
    for item in items {
        let mut row: Vec<Cell> = vec![text(item, "id").into(), text(item, "type").into()];
        row.extend(attempt(item, now));
        table.row(row);
    }
    table.write(report, paint);
}

/// State, number, status, reason, duration, time and next time of an attempt.
fn attempt(item: &Value, now: Timestamp) -> [Cell; 7] {
    let state = text(item, "state");
    let tone = match state.as_str() {
        "Delivered" => Tone::Good,
        "Exhausted" => Tone::Bad,
        "Retrying" => Tone::Open,
        _ => Tone::Plain,
    };
    let mut number = text(item, "attempt");
    if item.get("replay") == Some(&json!(true)) {
        number.push_str(" (replay)");
    }
    let took = item.pointer("/milliseconds/total").and_then(Value::as_f64);
    let time = [text(item, "time"), text(item, "accepted")]
        .into_iter()
        .find(|time| !time.is_empty());
    [
        Cell::toned(state, tone),
        number.into(),
        text(item, "statusCode").into(),
        text(item, "reason").into(),
        took.map(|took| format!("{took:.1}ms")).unwrap_or_default().into(),
        ago(&time.unwrap_or_default(), now).into(),
        ago(&text(item, "nextAttemptTime"), now).into(),
    ]
}

/// Shows one delivery.
///
/// # Errors
/// When it cannot be seen.
pub(super) fn show(args: &ShowArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let answer = block_on(async {
        let mut deliveries = Deliveries::of(&args.destination, &args.operator).await?;
        deliveries
            .ask(Method::GET, &format!("/{}", part(&args.id)), None)
            .await
    })?;
    if !answer.status.is_success() {
        refuse(&answer, &mut report)?;
    } else if !report.value(&answer.body, args.output)? {
        tell(&answer.body, now(), Paint::here(), &mut report);
    }
    Ok(report)
}

fn tell(told: &Value, now: Timestamp, paint: Paint, report: &mut Report) {
    let stored = if told.get("stored") == Some(&json!(true)) {
        "yes, it can be replayed"
    } else {
        "no longer"
    };
    report.pairs(&[
        ("id", text(told, "id")),
        ("type", text(told, "type")),
        ("state", text(told, "state")),
        ("accepted", text(told, "accepted")),
        ("next attempt", text(told, "nextAttemptTime")),
        ("stored", stored.to_owned()),
    ]);
    let attempts = told.get("attempts").and_then(Value::as_array);
    let attempts = attempts.map(Vec::as_slice).unwrap_or_default();
    let mut table = Table::new(&[
        "STATE",
        "ATTEMPT",
        "STATUS",
        "REASON",
        "TOOK",
        "WHEN",
        "NEXT ATTEMPT",
    ]);
    for item in attempts {
        table.row(attempt(item, now).into());
    }
    let Some(last) = attempts.last() else { return };
    report.line("");
    table.write(report, paint);
    report.line("");
    report.pairs(&[
        ("last message", text(last, "message")),
        ("last reply", text(last, "reply")),
    ]);
    let headers = last.get("requestHeaders").and_then(Value::as_array);
    for header in headers.into_iter().flatten() {
        report.line(&format!("  {}: {}", text(header, "name"), text(header, "value")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_line_for_each_delivery() {
        let items = [
            json!({"id": "a", "type": "run_failed", "state": "Exhausted", "attempt": 8, "replay": false,
                "time": "2026-01-31T11:00:00Z", "milliseconds": {"total": 12.94}, "statusCode": 500,
                "reason": "ServerError"}),
            json!({"id": "b", "state": "Waiting", "attempt": 0, "replay": true, "accepted": "2026-01-31T11:59:30Z",
                "nextAttemptTime": "2026-01-31T12:00:10Z"}),
        ];
        let mut report = Report::default();
        table(
            &items,
            "2026-01-31T12:00:00Z".parse().unwrap(),
            Paint::Plain,
            &mut report,
        );
        let text = String::from_utf8(report.out).unwrap();
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(
            lines[1],
            [
                "a",
                "run_failed",
                "Exhausted",
                "8",
                "500",
                "ServerError",
                "12.9ms",
                "60m",
                "ago",
                "-"
            ]
        );
        assert_eq!(
            lines[2],
            [
                "b", "-", "Waiting", "0", "(replay)", "-", "-", "-", "30s", "ago", "in", "10s"
            ]
        );
    }

    #[test]
    fn a_delivery_is_told_with_its_attempts_and_the_last_reply() {
        let told = json!({"id": "a", "state": "Retrying", "stored": true, "attempts": [
            {"id": "a", "state": "Retrying", "attempt": 1, "replay": false, "statusCode": 500,
                "message": "the receiver answered 500", "reply": "no\u{1b}[2J",
                "requestHeaders": [{"name": "webhook-signature", "value": "[redacted]"}]},
        ]});
        let mut report = Report::default();
        tell(
            &told,
            "2026-01-31T12:00:00Z".parse().unwrap(),
            Paint::Plain,
            &mut report,
        );
        let text = String::from_utf8(report.out).unwrap();
        for words in [
            "can be replayed",
            "Retrying  1",
            "last reply    no\\u{1b}[2J",
            "  webhook-signature: [redacted]",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_time_may_be_how_long_ago_it_was() {
        let hour_ago = time("1h").unwrap();
        let age = now().duration_since(hour_ago).as_secs();
        assert!((3_600..3_700).contains(&age), "{age}");
        assert_eq!(
            time("2026-01-02T03:04:05Z").unwrap().to_string(),
            "2026-01-02T03:04:05Z"
        );
        for wrong in ["yesterday", "-1h", ""] {
            time(wrong).unwrap_err();
        }
        event_id("order-1").unwrap();
        event_id("a b").unwrap_err();
    }
}
