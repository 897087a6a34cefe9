//! `publish`: events to a project, with the project's own token.
//!
//! The token is read from its Secret with the user's rights, goes to the operator alone and does not show. An event has
//! its id before it is sent, so that whoever gets no answer can publish it again, and it counts once.

use std::path::PathBuf;

use anyhow::Context as _;
use bytes::Bytes;
use clap::Args;
use http::{HeaderValue, Method};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use serde_json::{Map, Value, json};

use super::Report;
use super::deliveries::{event_id, refuse};
use super::input;
use super::online::operator::{Operator, OperatorArgs, Question, Unsent};
use super::online::{Connection, block_on, caller, name, request};
use super::shown::{Output, Paint, Table, now, text};
use super::testing::event_type;
use crate::api::names::{TOKEN_SUFFIX, is_name};

/// Key of the token's Secret.
const TOKEN_KEY: &str = "token";

/// Arguments of `publish`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["event_type", "event"]),
    after_help = "Exit code: 0 accepted, 1 an event is refused, 2 nothing could be published.\n\n\
    You need the right to read the project's Secret with its token.\n\n\
    Examples:\n  \
    kubectl postrider publish acme --type order.placed --data '{\"total\": 12}'\n  \
    kubectl postrider publish acme --type order.placed --file data.json --id order-17\n  \
    kubectl postrider events run_failed -o json | jq '.[0].example' | kubectl postrider publish acme --event -"
)]
pub(super) struct PublishArgs {
    /// Name of the EventProject.
    #[arg(value_name = "PROJECT", value_parser = name)]
    project: String,
    /// Type of the event.
    #[arg(long = "type", value_name = "TYPE", value_parser = event_type)]
    event_type: Option<String>,
    /// The event's data, a JSON object. Default: {}.
    #[arg(long, value_name = "JSON", conflicts_with_all = ["file", "event"])]
    data: Option<String>,
    /// File with the event's data; `-` is the standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "event")]
    file: Option<PathBuf>,
    /// Id of the event; the same id again within a day is a duplicate. Default: a new one, which is told when there is
    /// no answer.
    #[arg(long, value_name = "ID", value_parser = event_id, conflicts_with = "event")]
    id: Option<String>,
    /// File with a whole event, or an array of events, as JSON; CloudEvents are recognised. `-` is the standard input.
    #[arg(long, value_name = "FILE")]
    event: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    operator: OperatorArgs,
}

/// Publishes.
///
/// # Errors
/// When nothing could be published.
pub(super) fn run(args: &PublishArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let id = args.id.clone().unwrap_or_else(fresh_id);
    let (content_type, body) = body(args, &id)?;
    let answer = block_on(async {
        let connection = Connection::open(&args.operator.cluster).await?;
        let bearer = token(&connection, &args.project).await?;
        let mut operator = Operator::find(&connection, &args.operator).await?;
        let namespace = &connection.namespace;
        let question = Question {
            method: Method::POST,
            path: &format!("/v1/namespaces/{namespace}/projects/{}/events", args.project),
            bearer: &bearer,
            body: Some((content_type, body)),
        };
        operator
            .ask(question)
            .await
            .map_err(|error| unanswered(error, args, &id))
    })?;
    if answer.status.is_server_error() {
        // It may be stored all the same.
        return Err(anyhow::anyhow!(answer.problem()).context(again(args, &id)));
    }
    if !answer.status.is_success() {
        refuse(&answer, &mut report)?;
        faults(&answer.body, &mut report);
    } else if !report.value(&answer.body, args.output)? {
        tell(&answer.body, &mut report);
    }
    Ok(report)
}

/// An id that no other event has: a UUIDv7.
fn fresh_id() -> String {
    let millis = u64::try_from(now().as_millisecond()).unwrap_or_default();
    let id = uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid();
    id.to_string()
}

/// Why there is no answer, and what to do.
fn unanswered(error: anyhow::Error, args: &PublishArgs, id: &str) -> anyhow::Error {
    if error.is::<Unsent>() {
        return error;
    }
    error.context(again(args, id))
}

/// What to do when it is not known whether the operator has the event.
fn again(args: &PublishArgs, id: &str) -> String {
    if args.event.is_some() {
        "it is not known whether the operator has what was published; publish it again: an event with an id counts \
         once within a day, one without may be there twice"
            .to_owned()
    } else {
        format!(
            "it is not known whether the operator has the event; publish it again with the same words and --id {id}: \
             it counts once within a day"
        )
    }
}

/// Type and bytes of what is published.
fn body(args: &PublishArgs, id: &str) -> anyhow::Result<(&'static str, Bytes)> {
    if let Some(path) = &args.event {
        let bytes = input::bytes(path)?;
        return Ok((content_type(&bytes), bytes.into()));
    }
    let data = match (&args.data, &args.file) {
        (Some(text), _) => serde_json::from_str(text).context("--data is no JSON object")?,
        (None, Some(path)) => {
            let bytes = input::bytes(path)?;
            serde_json::from_slice(&bytes)
                .with_context(|| format!("{} holds no JSON object", path.display()))?
        }
        (None, None) => Map::new(),
    };
    let event = json!({"id": id, "type": args.event_type, "data": data});
    Ok(("application/json", event.to_string().into()))
}

fn content_type(bytes: &[u8]) -> &'static str {
    let is_cloud_event = |value: &Value| value.get("specversion").is_some();
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Array(events)) if events.first().is_some_and(is_cloud_event) => {
            "application/cloudevents-batch+json"
        }
        Ok(event) if is_cloud_event(&event) => "application/cloudevents+json",
        // What is no JSON is told by who refuses it.
        _ => "application/json",
    }
}

/// The header with the project's token.
async fn token(connection: &Connection, project: &str) -> anyhow::Result<HeaderValue> {
    let namespace = &connection.namespace;
    let what = format!("read EventProject {project:?} in namespace {namespace:?}");
    let object = request(&what, connection.projects().get(project)).await?;
    let named = object
        .data
        .pointer("/status/tokenSecretRef/name")
        .and_then(Value::as_str);
    let name = named.map_or_else(|| format!("{project}{TOKEN_SUFFIX}"), ToOwned::to_owned);
    anyhow::ensure!(
        is_name(&name),
        "EventProject {project:?} names a Secret that cannot be"
    );
    let api = Api::<Secret>::namespaced(connection.client(), namespace);
    let what = format!("read the project's token in Secret {name:?} of namespace {namespace:?}");
    let secret = request(&what, api.get(&name)).await?;
    let value = secret.data.as_ref().and_then(|data| data.get(TOKEN_KEY));
    let value = value.with_context(|| format!("cannot {what}: it has no key {TOKEN_KEY:?}"))?;
    let text = std::str::from_utf8(&value.0);
    caller::header(
        text.map_err(|_| anyhow::anyhow!("cannot {what}: the token is no text"))?
            .trim(),
    )
}

fn tell(answer: &Value, report: &mut Report) {
    let mut table = Table::new(&["ID", "DELIVERIES", "DUPLICATE"]);
    let mut nobody = 0;
    for event in members(answer, "events") {
        let is_duplicate = event.get("duplicate") == Some(&json!(true));
        let deliveries = text(event, "deliveries");
        if deliveries == "0" && !is_duplicate {
            nobody += 1;
        }
        let duplicate = if is_duplicate { "yes" } else { "no" };
        table.row(vec![
            text(event, "id").into(),
            deliveries.into(),
            duplicate.into(),
        ]);
    }
    table.write(report, Paint::Plain);
    if nobody > 0 {
        report.note(format!("no destination wants {nobody} of them"));
    }
    for warning in members(answer, "warnings") {
        report.note(format!("warning: {}", said(warning)));
    }
}

/// Every fault of what was refused.
fn faults(problem: &Value, report: &mut Report) {
    for fault in members(problem, "faults") {
        report.note(format!("  {}", said(fault)));
    }
}

fn members<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// A fault or warning: where it is, and its words.
fn said(fault: &Value) -> String {
    let place = [text(fault, "index"), text(fault, "pointer")];
    let words = text(fault, "detail");
    match place.map(|part| part.trim().to_owned()) {
        [index, pointer] if index.is_empty() && pointer.is_empty() => words,
        [index, pointer] if index.is_empty() => format!("{pointer}: {words}"),
        [index, pointer] => format!("event {index} {pointer}: {words}"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::plugin::{Command, Plugin};

    #[test]
    fn what_became_of_each_event_is_told_with_its_warnings() {
        let answer = json!({
            "events": [
                {"id": "a", "duplicate": false, "deliveries": 2},
                {"id": "b", "duplicate": true, "deliveries": 0},
                {"id": "c", "duplicate": false, "deliveries": 0},
            ],
            "warnings": [{"index": 0, "pointer": "/data/x", "reason": "Type", "detail": "use a number"}],
        });
        let mut report = Report::default();
        tell(&answer, &mut report);
        let text = String::from_utf8(report.out).unwrap();
        assert_eq!(text.lines().nth(1), Some("a   2           no"));
        assert_eq!(
            report.notes,
            [
                "no destination wants 1 of them",
                "warning: event 0 /data/x: use a number"
            ]
        );
    }

    fn args(more: &[&str]) -> PublishArgs {
        let words = ["kubectl-postrider", "publish", "acme"];
        let plugin = Plugin::try_parse_from(words.iter().chain(more)).unwrap();
        let Command::Publish(args) = plugin.command else {
            panic!("{:?}", plugin.command);
        };
        *args
    }

    #[test]
    fn an_event_has_its_id_before_it_is_sent_and_whoever_gets_no_answer_is_told_it() {
        let id = fresh_id();
        assert_ne!(id, fresh_id());
        assert_eq!(uuid::Uuid::parse_str(&id).unwrap().get_version_num(), 7);
        let args = args(&["--type", "order.placed"]);
        let (_, bytes) = body(&args, &id).unwrap();
        let event: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(event, json!({"id": id, "type": "order.placed", "data": {}}));
        assert!(again(&args, &id).contains(&format!("--id {id}")));
    }

    #[test]
    fn whoever_publishes_a_file_is_told_what_an_id_is_worth() {
        let text = again(&args(&["--event", "e.json"]), "unused");
        assert!(
            text.contains("one without may be there twice") && !text.contains("unused"),
            "{text}"
        );
    }

    #[test]
    fn whoever_reached_nobody_is_not_told_that_the_event_may_be_there() {
        let args = args(&["--type", "order.placed"]);
        let told = |error| format!("{:#}", unanswered(error, &args, "1"));
        let unsent = anyhow::anyhow!("refused").context(Unsent("nothing was sent".to_owned()));
        assert_eq!(told(unsent), "nothing was sent: refused");
        assert!(told(anyhow::anyhow!("broke")).contains("--id 1"));
    }

    #[test]
    fn cloud_events_are_recognised() {
        for (text, expected) in [
            ("{\"type\": \"a\"}", "application/json"),
            ("[{\"type\": \"a\"}]", "application/json"),
            ("{\"specversion\": \"1.0\"}", "application/cloudevents+json"),
            (
                "[{\"specversion\": \"1.0\"}]",
                "application/cloudevents-batch+json",
            ),
            ("no JSON", "application/json"),
        ] {
            assert_eq!(content_type(text.as_bytes()), expected, "{text}");
        }
    }
}
