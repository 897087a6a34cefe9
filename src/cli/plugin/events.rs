//! `events`: the built-in event types.

use serde::Serialize;
use serde_json::Value;

use super::{EventsArgs, EventsOutput, Report, Verdict};
use crate::api::v1alpha1::event_destination::PayloadFormat;
use crate::domain::catalogue::{EVENT_TYPES, EventType};
use crate::domain::pattern::TypePattern;

/// A type as it is shown.
#[derive(Serialize)]
struct Shown {
    name: &'static str,
    format: PayloadFormat,
    description: &'static str,
    message: String,
    needs: Vec<String>,
    schema: Value,
    example: Value,
}

impl Shown {
    fn of(entry: &EventType) -> Self {
        let definition = entry.definition();
        Self {
            name: entry.name,
            format: entry.format,
            description: entry.description,
            message: entry.message_template(),
            needs: definition.needs,
            schema: definition.schema,
            example: definition.example,
        }
    }
}

/// Lists the types.
///
/// # Errors
/// When a name is none, or the list cannot be written.
pub(super) fn run(args: &EventsArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut patterns = Vec::new();
    for text in &args.types {
        let known = |pattern: &TypePattern| EVENT_TYPES.iter().any(|entry| pattern.matches(entry.name));
        if let Some(pattern) = TypePattern::parse(text).filter(known) {
            patterns.push(pattern);
        } else {
            report.at_least(Verdict::Faulty);
            report.note(format!("error: no built-in type is called {text:?}"));
        }
    }
    let wanted = |entry: &&EventType| {
        args.types.is_empty() || patterns.iter().any(|pattern| pattern.matches(entry.name))
    };
    let entries: Vec<&EventType> = EVENT_TYPES.iter().filter(wanted).collect();
    let shown = || entries.iter().map(|entry| Shown::of(entry)).collect::<Vec<_>>();
    match args.output {
        EventsOutput::Table => {
            let width = entries
                .iter()
                .map(|entry| entry.name.len())
                .max()
                .unwrap_or_default();
            if !entries.is_empty() {
                report.line(&format!("{:width$}  {:8}  DESCRIPTION", "TYPE", "FORMAT"));
            }
            for entry in &entries {
                let format = format!("{:?}", entry.format);
                report.line(&format!(
                    "{:width$}  {format:8}  {}",
                    entry.name, entry.description
                ));
            }
        }
        EventsOutput::Json => {
            serde_json::to_writer_pretty(&mut report.out, &shown())?;
            report.out.push(b'\n');
        }
        EventsOutput::Yaml => {
            let text = serde_saphyr::to_string(&shown())?;
            report.out.extend_from_slice(text.as_bytes());
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run_for(types: &[&str], output: EventsOutput) -> Report {
        let types = types.iter().map(|text| (*text).to_owned()).collect();
        run(&EventsArgs { types, output }).unwrap()
    }

    #[test]
    fn the_table_has_a_line_for_each_type() {
        let report = run_for(&[], EventsOutput::Table);
        let text = String::from_utf8(report.out).unwrap();
        assert_eq!(text.lines().count(), 1 + EVENT_TYPES.len());
        assert!(text.contains("run_failed"), "{text}");
        assert_eq!(report.verdict, Verdict::Clean);
    }

    #[test]
    fn json_and_yaml_hold_the_same() {
        let text = run_for(&["record_*", "run_failed"], EventsOutput::Json).out;
        let as_json: Value = serde_json::from_slice(&text).unwrap();
        let text = String::from_utf8(run_for(&["record_*", "run_failed"], EventsOutput::Yaml).out).unwrap();
        let as_yaml: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(as_json, as_yaml);
        assert_eq!(as_json.as_array().unwrap().len(), 5);
        assert_eq!(as_json[0]["example"]["type"], json!("record_created"));
    }

    #[test]
    fn a_name_that_is_none_is_said() {
        let report = run_for(&["nothing"], EventsOutput::Table);
        assert_eq!(report.verdict, Verdict::Faulty);
        assert!(report.out.is_empty() && report.notes[0].contains("\"nothing\""));
    }
}
