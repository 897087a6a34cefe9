//! `formats`: the ready formats of services.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Report, Verdict};
use crate::domain::format::{FORMATS, Needs, Service};

/// Arguments of `formats`.
#[derive(Debug, Args)]
#[command(after_help = "Exit code: 0 listed, 1 no service has such a name.\n\n\
    What a format needs stands in `spec.webhook`; docs/payloads.md shows what each sends.\n\n\
    Examples:\n  \
    kubectl postrider formats\n  \
    kubectl postrider formats slack sentry\n  \
    kubectl postrider formats -o json | jq -r '.[] | select(.needs | index(\"urlFrom\")) | .name'")]
pub(super) struct FormatsArgs {
    /// Names of services, upper or lower case. Default: all.
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t = FormatsOutput::Table)]
    output: FormatsOutput,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatsOutput {
    /// One service a line.
    Table,
    /// An array of objects.
    Json,
    /// The same as YAML.
    Yaml,
}

/// A service as it is shown.
#[derive(Serialize)]
struct Shown {
    name: &'static str,
    needs: &'static [&'static str],
    description: &'static str,
    reference: &'static str,
}

impl Shown {
    const fn of(service: &Service) -> Self {
        Self {
            name: service.name,
            needs: match service.needs {
                Needs::Url => &["urlFrom"],
                Needs::Key => &["formatOptions.keyFrom"],
                Needs::KeyAndChat => &["formatOptions.keyFrom", "formatOptions.chatID"],
            },
            description: service.description,
            reference: service.reference,
        }
    }
}

/// Lists the services.
///
/// # Errors
/// When the list cannot be written.
pub(super) fn run(args: &FormatsArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    for name in &args.services {
        if !FORMATS
            .iter()
            .any(|service| service.name.eq_ignore_ascii_case(name))
        {
            report.at_least(Verdict::Faulty);
            report.note(format!("error: no ready format is called {name:?}"));
        }
    }
    let wanted = |service: &&Service| {
        let named = |name: &String| service.name.eq_ignore_ascii_case(name);
        args.services.is_empty() || args.services.iter().any(named)
    };
    let shown: Vec<Shown> = FORMATS.iter().filter(wanted).map(Shown::of).collect();
    match args.output {
        FormatsOutput::Table => table(&shown, &mut report),
        FormatsOutput::Json => {
            serde_json::to_writer_pretty(&mut report.out, &shown)?;
            report.out.push(b'\n');
        }
        FormatsOutput::Yaml => {
            let text = serde_saphyr::to_string(&shown)?;
            report.out.extend_from_slice(text.as_bytes());
        }
    }
    Ok(report)
}

fn table(shown: &[Shown], report: &mut Report) {
    let needs = |one: &Shown| one.needs.join(", ");
    let widest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or_default();
    let name = widest(&mut shown.iter().map(|one| one.name.len())).max("FORMAT".len());
    let need = widest(&mut shown.iter().map(|one| needs(one).len())).max("NEEDS".len());
    let told = widest(&mut shown.iter().map(|one| one.description.len())).max("DESCRIPTION".len());
    if !shown.is_empty() {
        report.line(&format!(
            "{:name$}  {:need$}  {:told$}  REFERENCE",
            "FORMAT", "NEEDS", "DESCRIPTION"
        ));
    }
    for one in shown {
        report.line(&format!(
            "{:name$}  {:need$}  {:told$}  {}",
            one.name,
            needs(one),
            one.description,
            one.reference
        ));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn run_for(services: &[&str], output: FormatsOutput) -> Report {
        let services = services.iter().map(|text| (*text).to_owned()).collect();
        run(&FormatsArgs { services, output }).unwrap()
    }

    #[test]
    fn the_table_has_a_line_for_each_service() {
        let report = run_for(&[], FormatsOutput::Table);
        let text = String::from_utf8(report.out).unwrap();
        assert_eq!(text.lines().count(), 1 + FORMATS.len());
        let telegram = text.lines().find(|line| line.starts_with("Telegram")).unwrap();
        assert!(
            telegram.contains("formatOptions.keyFrom, formatOptions.chatID"),
            "{telegram}"
        );
        assert_eq!(report.verdict, Verdict::Clean);
    }

    #[test]
    fn json_and_yaml_hold_the_same() {
        let services = &["slack", "PagerDuty"];
        let as_json: Value = serde_json::from_slice(&run_for(services, FormatsOutput::Json).out).unwrap();
        let text = String::from_utf8(run_for(services, FormatsOutput::Yaml).out).unwrap();
        let as_yaml: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(as_json, as_yaml);
        assert_eq!(as_json[0]["needs"], json!(["urlFrom"]));
        assert_eq!(as_json[1]["needs"], json!(["formatOptions.keyFrom"]));
        let reference = as_json[1]["reference"].as_str().unwrap();
        assert!(reference.starts_with("https://developer.pagerduty.com/"));
    }

    #[test]
    fn a_name_that_is_none_is_said() {
        let report = run_for(&["skype"], FormatsOutput::Table);
        assert_eq!(report.verdict, Verdict::Faulty);
        assert!(report.out.is_empty() && report.notes[0].contains("\"skype\""));
    }
}
