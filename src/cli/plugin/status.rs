//! `status`: the projects and destinations of a namespace on one screen, with what is wrong.
//!
//! Everything comes from the objects' own status; the operator is not asked.

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::acting::condition;
use super::online::{ClusterArgs, Connection, block_on, list};
use super::shown::{Cell, Output, Paint, Table, Tone, ago, now, text};
use super::{Report, Verdict};

/// Most objects whose message is shown below the tables.
const MAX_MESSAGES: usize = 20;

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit code: 0 all is well, 1 something is not ready or not delivered, 2 it cannot be seen.\n\n\
    A suspended destination is well. Numbers are written at most every 30 seconds.\n\n\
    Examples:\n  \
    kubectl postrider status\n  \
    kubectl postrider status -A\n  \
    kubectl postrider status -o json | jq -r '.destinations[] | select(.failingSince) | .name'"
)]
pub(super) struct StatusArgs {
    /// Look at every namespace.
    #[arg(short = 'A', long, conflicts_with = "namespace")]
    all_namespaces: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What is shown.
#[derive(Debug, Default, Serialize)]
struct Screen {
    projects: Vec<Project>,
    destinations: Vec<Destination>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Project {
    namespace: String,
    name: String,
    ready: String,
    reason: String,
    message: String,
    #[serde(rename = "ingestURL")]
    ingest_url: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Destination {
    namespace: String,
    name: String,
    ready: String,
    delivering: String,
    /// Of `Ready` when that is not true, else of `Delivering`.
    reason: String,
    message: String,
    endpoint: String,
    pending: i64,
    delivered: i64,
    exhausted: i64,
    suppressed: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    failing_since: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_success_time: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    last_failure_time: String,
    #[serde(skip_serializing_if = "Value::is_null")]
    last_failure: Value,
}

impl Project {
    fn of(object: &Value) -> Self {
        let ready = condition(object, "Ready");
        let status = object.get("status").unwrap_or(&Value::Null);
        Self {
            namespace: metadata(object, "namespace"),
            name: metadata(object, "name"),
            ready: known(text(&ready, "status")),
            reason: text(&ready, "reason"),
            message: text(&ready, "message"),
            ingest_url: text(status, "ingestURL"),
        }
    }

    fn is_well(&self) -> bool {
        self.ready == "True"
    }
}

impl Destination {
    fn of(object: &Value) -> Self {
        let (ready, delivering) = (condition(object, "Ready"), condition(object, "Delivering"));
        let status = object.get("status").unwrap_or(&Value::Null);
        let delivery = status.get("delivery").unwrap_or(&Value::Null);
        let number = |name: &str| delivery.get(name).and_then(Value::as_i64).unwrap_or_default();
        let says = if text(&ready, "status") == "True" && !delivering.is_null() {
            &delivering
        } else {
            &ready
        };
        Self {
            namespace: metadata(object, "namespace"),
            name: metadata(object, "name"),
            ready: known(text(&ready, "status")),
            delivering: known(text(&delivering, "status")),
            reason: text(says, "reason"),
            message: text(says, "message"),
            endpoint: text(status, "endpoint"),
            pending: number("pending"),
            delivered: number("delivered"),
            exhausted: number("exhausted"),
            suppressed: number("suppressed"),
            failing_since: text(delivery, "failingSince"),
            last_success_time: text(delivery, "lastSuccessTime"),
            last_failure_time: text(delivery, "lastFailureTime"),
            last_failure: delivery.get("lastFailure").cloned().unwrap_or_default(),
        }
    }

    fn is_well(&self) -> bool {
        self.ready == "True" && (self.delivering != "False" || self.reason == "Suspended")
    }

    fn last_failure(&self, now: Timestamp) -> String {
        let words = [
            text(&self.last_failure, "statusCode"),
            text(&self.last_failure, "reason"),
            ago(&self.last_failure_time, now),
        ];
        let words: Vec<_> = words.into_iter().filter(|word| !word.is_empty()).collect();
        words.join(" ")
    }
}

/// Shows the screen.
///
/// # Errors
/// When the objects cannot be listed.
pub(super) fn run(args: &StatusArgs) -> anyhow::Result<Report> {
    let objects = block_on(async {
        let connection = Connection::open(&args.cluster).await?;
        let [projects, destinations] = if args.all_namespaces {
            connection.everywhere()
        } else {
            [connection.projects(), connection.destinations()]
        };
        let place = if args.all_namespaces {
            "every namespace".to_owned()
        } else {
            format!("namespace {:?}", connection.namespace)
        };
        let projects = list(&format!("list the EventProjects of {place}"), &projects).await?;
        let what = format!("list the EventDestinations of {place}");
        Ok((projects, list(&what, &destinations).await?, place))
    })?;
    let (projects, destinations, place) = objects;
    let mut screen = Screen::default();
    for object in projects {
        screen.projects.push(Project::of(&serde_json::to_value(object)?));
    }
    for object in destinations {
        screen
            .destinations
            .push(Destination::of(&serde_json::to_value(object)?));
    }
    let mut report = Report::default();
    if !screen.projects.iter().all(Project::is_well) || !screen.destinations.iter().all(Destination::is_well)
    {
        report.at_least(Verdict::Faulty);
    }
    if !report.value(&screen, args.output)? {
        if screen.projects.is_empty() && screen.destinations.is_empty() {
            report.note(format!(
                "there are no EventProjects and no EventDestinations in {place}"
            ));
        }
        screen.write(args.all_namespaces, now(), Paint::here(), &mut report);
    }
    Ok(report)
}

impl Screen {
    fn write(&self, with_namespace: bool, now: Timestamp, paint: Paint, report: &mut Report) {
        let heading = |names: &[&'static str]| {
            let first = with_namespace.then_some("NAMESPACE");
            Table::new(&first.into_iter().chain(names.iter().copied()).collect::<Vec<_>>())
        };
        let begin =
            |namespace: &str| -> Vec<Cell> { with_namespace.then(|| namespace.into()).into_iter().collect() };
        let mut table = heading(&["PROJECT", "READY", "REASON", "INGEST URL"]);
        for project in &self.projects {
            let mut row = begin(&project.namespace);
            row.extend([
                Cell::from(&project.name),
                toned(&project.ready),
                Cell::from(&project.reason),
                Cell::from(&project.ingest_url),
            ]);
            table.row(row);
        }
        table.write(report, paint);
        if !self.projects.is_empty() && !self.destinations.is_empty() {
            report.line("");
        }
        let mut table = heading(&[
            "DESTINATION",
            "READY",
            "DELIVERING",
            "REASON",
            "PENDING",
            "FAILING SINCE",
            "LAST SUCCESS",
            "LAST FAILURE",
        ]);
        for destination in &self.destinations {
            let mut row = begin(&destination.namespace);
            row.extend([
                Cell::from(&destination.name),
                toned(&destination.ready),
                toned(&destination.delivering),
                Cell::from(&destination.reason),
                Cell::from(destination.pending.to_string()),
                Cell::toned(ago(&destination.failing_since, now), Tone::Bad),
                Cell::from(ago(&destination.last_success_time, now)),
                Cell::from(destination.last_failure(now)),
            ]);
            table.row(row);
        }
        table.write(report, paint);
        self.messages(with_namespace, report);
    }

    /// What is wrong, in words.
    fn messages(&self, with_namespace: bool, report: &mut Report) {
        let place = |namespace: &str, name: &str| {
            if with_namespace {
                format!("{namespace}/{name}")
            } else {
                name.to_owned()
            }
        };
        let projects = self
            .projects
            .iter()
            .filter(|project| !project.is_well())
            .map(|project| {
                let place = place(&project.namespace, &project.name);
                format!("EventProject {place}: {}", said(&project.message))
            });
        let destinations = self
            .destinations
            .iter()
            .filter(|destination| !destination.is_well());
        let destinations = destinations.map(|destination| {
            let place = place(&destination.namespace, &destination.name);
            format!("EventDestination {place}: {}", said(&destination.message))
        });
        let messages: Vec<String> = projects.chain(destinations).collect();
        if !messages.is_empty() {
            report.line("");
        }
        for message in messages.iter().take(MAX_MESSAGES) {
            report.line(message);
        }
        if messages.len() > MAX_MESSAGES {
            report.line(&format!("and {} more", messages.len() - MAX_MESSAGES));
        }
    }
}

fn metadata(object: &Value, name: &str) -> String {
    object
        .get("metadata")
        .map(|metadata| text(metadata, name))
        .unwrap_or_default()
}

/// A condition that nobody has set is not known.
fn known(status: String) -> String {
    if status.is_empty() {
        "Unknown".to_owned()
    } else {
        status
    }
}

fn said(message: &str) -> &str {
    if message.is_empty() {
        "it has no status: does an operator look after its namespace?"
    } else {
        message
    }
}

fn toned(status: &str) -> Cell {
    let tone = match status {
        "True" => Tone::Good,
        "False" => Tone::Bad,
        _ => Tone::Open,
    };
    Cell::toned(status, tone)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn destination(name: &str, ready: &str, delivering: &str, reason: &str) -> Value {
        json!({"metadata": {"namespace": "acme", "name": name}, "status": {
            "conditions": [
                {"type": "Ready", "status": ready, "reason": "Ready", "message": "ready words"},
                {"type": "Delivering", "status": delivering, "reason": reason, "message": "delivering words"},
            ],
            "delivery": {"pending": 3, "delivered": 0, "exhausted": 1, "failingSince": "2026-01-31T11:50:00Z",
                "lastFailureTime": "2026-01-31T11:59:00Z",
                "lastFailure": {"reason": "Unavailable", "statusCode": 503, "message": "x"}},
        }})
    }

    #[test]
    fn suspended_is_well_and_failing_is_not() {
        for (ready, delivering, reason, well) in [
            ("True", "True", "Delivered", true),
            ("True", "Unknown", "Idle", true),
            ("True", "False", "Suspended", true),
            ("True", "False", "Unavailable", false),
            ("False", "True", "Delivered", false),
        ] {
            let found = Destination::of(&destination("a", ready, delivering, reason));
            assert_eq!(found.is_well(), well, "{ready} {delivering} {reason}");
        }
        assert!(!Destination::of(&json!({"metadata": {"name": "a"}})).is_well());
        assert!(!Project::of(&json!({"metadata": {"name": "a"}})).is_well());
    }

    #[test]
    fn the_screen_says_what_is_wrong_and_since_when() {
        let screen = Screen {
            projects: vec![Project::of(
                &json!({"metadata": {"namespace": "acme", "name": "shop"}}),
            )],
            destinations: vec![Destination::of(&destination(
                "hook",
                "True",
                "False",
                "Unavailable",
            ))],
        };
        let mut report = Report::default();
        let now = "2026-01-31T12:00:00Z".parse().unwrap();
        screen.write(true, now, Paint::Plain, &mut report);
        let text = String::from_utf8(report.out).unwrap();
        for words in [
            "NAMESPACE  PROJECT",
            "acme       shop     Unknown",
            "10m ago",
            "503 Unavailable 60s ago",
            "EventDestination acme/hook: delivering words",
            "EventProject acme/shop: it has no status",
        ] {
            assert!(text.contains(words), "{words:?} is not in\n{text}");
        }
    }
}
