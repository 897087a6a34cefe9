//! `lint`: everything wrong with the manifests of our kinds.
//!
//! Joins what the schema says about the form with what `domain` says about the meaning; of two faults of one field
//! the meaning's is kept. A Secret or ConfigMap that is not among the files counts as present: it may be in the cluster.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::holders::Holders;
use super::input::{self, Document};
use super::schema::Schemas;
use super::shown::Output;
use super::{LintArgs, LintOutput, Report, Verdict};
use crate::api::names::{MAX_DESTINATION_NAME, MAX_NAME, MAX_PROJECT_NAME, is_well_formed};
use crate::api::v1alpha1::{EventDestination, EventProject};
use crate::api::{API_VERSION, GROUP};
use crate::domain::destination::{Destination, Holder, Identity, Reference, References, value_references};
use crate::domain::egress::EgressPolicy;
use crate::domain::fault::{FaultKind, Faults};
use crate::domain::id::{ObjectKey, Uid};
use crate::domain::notifications;
use crate::domain::type_rules::TypeRules;

/// The kinds that are checked, each with the most characters of a name: the rest is for what is added to it.
const KINDS: [(&str, usize); 2] = [
    ("EventDestination", MAX_DESTINATION_NAME),
    ("EventProject", MAX_PROJECT_NAME),
];

/// One fault and where it is.
#[derive(Debug, Serialize)]
struct Finding {
    file: String,
    document: usize,
    kind: Option<String>,
    name: Option<String>,
    path: String,
    message: String,
}

/// What a document is to us.
enum Role {
    Ours(&'static str),
    Secret,
    Other,
    Broken(&'static str, String),
}

/// Checks the files.
///
/// # Errors
/// When our own schemas cannot be made, which would be a bug.
pub(super) fn run(args: &LintArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut documents = Vec::new();
    let mut unreadable = Vec::new();
    for file in &args.files {
        match input::documents(file) {
            Ok(found) => documents.extend(found),
            Err(error) => unreadable.push(format!("{error:#}")),
        }
    }
    let linter = Linter::new(EgressPolicy::new(args.allow_egress.iter().copied()))?;
    let mut holders = Holders::default();
    let mut findings = Vec::new();
    for (document, faults) in holders.add_all(documents.iter()) {
        findings.extend(findings_of(document, &faults));
    }
    let (mut checked, mut ignored) = (0_usize, 0_usize);
    for document in &documents {
        let faults = match role(document) {
            Role::Ours(kind) => {
                checked += 1;
                linter.faults(document, kind, &holders)
            }
            Role::Secret => continue,
            Role::Other => {
                ignored += 1;
                continue;
            }
            Role::Broken(path, message) => {
                let mut faults = Faults::default();
                faults.invalid(path, message);
                faults
            }
        };
        findings.extend(findings_of(document, &faults));
    }
    if !findings.is_empty() {
        report.at_least(Verdict::Faulty);
    }
    if !unreadable.is_empty() {
        report.at_least(Verdict::Unusable);
    }
    match args.output {
        LintOutput::Text => {
            for finding in &findings {
                report.line(&finding.line());
            }
            report.note(format!(
                "{checked} checked, {ignored} of other kinds ignored, {} faults",
                findings.len()
            ));
        }
        LintOutput::Json | LintOutput::Yaml => {
            let answer = json!({
                "checked": checked,
                "ignored": ignored,
                "faults": findings,
                "unreadable": unreadable,
            });
            let form = if args.output == LintOutput::Yaml {
                Output::Yaml
            } else {
                Output::Json
            };
            report.value(&answer, form)?;
        }
    }
    report
        .notes
        .extend(unreadable.into_iter().map(|error| format!("error: {error}")));
    Ok(report)
}

impl Finding {
    fn line(&self) -> String {
        let Self {
            file,
            document,
            kind,
            name,
            path,
            message,
        } = self;
        let object = match (kind, name) {
            (Some(kind), Some(name)) => format!("{kind}/{name}"),
            (Some(kind), None) => format!("{kind} in document {document}"),
            (None, _) => format!("document {document}"),
        };
        if path.is_empty() {
            format!("{file}: {object}: {message}")
        } else {
            format!("{file}: {object}: {path}: {message}")
        }
    }
}

fn findings_of(document: &Document, faults: &Faults) -> Vec<Finding> {
    let finding = |path: &str, message: &str| Finding {
        file: document.file.clone(),
        document: document.number,
        kind: document.text("kind").map(str::to_owned),
        name: document.metadata("name").map(str::to_owned),
        path: path.to_owned(),
        message: message.to_owned(),
    };
    faults
        .iter()
        .map(|fault| finding(&fault.path, &fault.message))
        .collect()
}

/// The faults of an object as lines.
pub(super) fn lines(document: &Document, faults: &Faults) -> Vec<String> {
    findings_of(document, faults).iter().map(Finding::line).collect()
}

/// Whether a document is an object of ours, of that kind and of the version that this program knows.
pub(super) fn is(document: &Document, wanted: &str) -> bool {
    matches!(role(document), Role::Ours(kind) if kind == wanted)
}

fn role(document: &Document) -> Role {
    if !document.value.is_object() {
        return Role::Broken("", "this is not an object".to_owned());
    }
    let (Some(version), Some(kind)) = (document.text("apiVersion"), document.text("kind")) else {
        let path = if document.text("kind").is_none() {
            "kind"
        } else {
            "apiVersion"
        };
        return Role::Broken(path, "is missing or no text".to_owned());
    };
    if Holders::holder(document) == Some(Holder::Secret) {
        return Role::Secret;
    }
    if version.split('/').next() != Some(GROUP) {
        return Role::Other;
    }
    match KINDS.iter().find(|(name, _)| *name == kind) {
        None => Role::Broken("kind", "must be EventProject or EventDestination".to_owned()),
        Some(_) if version != API_VERSION => Role::Broken("apiVersion", format!("must be {API_VERSION}")),
        Some((kind, _)) => Role::Ours(kind),
    }
}

/// Checks objects.
pub(super) struct Linter {
    schemas: Schemas,
    egress: EgressPolicy,
}

impl Linter {
    pub(super) fn new(egress: EgressPolicy) -> anyhow::Result<Self> {
        let schemas = Schemas::new()?;
        Ok(Self { schemas, egress })
    }

    /// Everything wrong with an object of ours.
    pub(super) fn faults(&self, document: &Document, kind: &str, holders: &Holders) -> Faults {
        let mut faults = name_faults(document, kind);
        let form = self.schemas.check(kind, &document.value);
        let meaning = match kind {
            "EventDestination" => serde_json::from_value::<EventDestination>(document.value.clone())
                .map(|object| self.meaning(document, &object, holders)),
            _ => project(document).map(|object| {
                let name = object.metadata.name.unwrap_or_default();
                let spec = object.spec;
                let (_, mut faults) =
                    TypeRules::compile(&spec.event_types, spec.validation.unwrap_or_default());
                let notifications = spec.notifications.unwrap_or_default();
                if let Err(others) = notifications::expand(&name, &notifications, &self.egress) {
                    faults.extend(others);
                }
                faults
            }),
        };
        let meaning = match meaning {
            Ok(meaning) => meaning,
            Err(error) => {
                let mut fault = Faults::default();
                if form.is_empty() {
                    fault.invalid("", error.to_string());
                }
                fault
            }
        };
        let known: BTreeSet<_> = meaning.iter().map(|fault| fault.path.clone()).collect();
        for fault in form.iter().filter(|fault| !known.contains(&fault.path)) {
            faults.invalid(fault.path.clone(), fault.message.clone());
        }
        faults.extend(meaning);
        faults
    }

    fn meaning(&self, document: &Document, object: &EventDestination, holders: &Holders) -> Faults {
        let namespace = document.metadata("namespace");
        let identity = identity(document);
        let mut outside = BTreeSet::new();
        let mut references = References::new();
        for (path, key) in value_references(&identity.key.name, &object.spec) {
            match holders.find(namespace, &key) {
                Reference::NoObject => drop(outside.insert(path)),
                found => drop(references.insert(key, found)),
            }
        }
        let mut kept = Faults::default();
        let checked = Destination::try_from_spec(identity, &object.spec, &references, &self.egress);
        for fault in checked.err().iter().flat_map(Faults::iter) {
            match fault.kind {
                FaultKind::ReferenceMissing if outside.contains(&fault.path) => {}
                FaultKind::ReferenceMissing => kept.missing(fault.path.clone(), fault.message.clone()),
                FaultKind::Invalid => kept.invalid(fault.path.clone(), fault.message.clone()),
            }
        }
        kept
    }
}

/// A project as the API server would hold it: a spec that is left out is empty.
///
/// # Errors
/// When it does not decode.
pub(super) fn project(document: &Document) -> serde_json::Result<EventProject> {
    let mut value = document.value.clone();
    if let Some(object) = value.as_object_mut()
        && object.get("spec").is_none_or(Value::is_null)
    {
        object.insert("spec".to_owned(), json!({}));
    }
    serde_json::from_value(value)
}

/// Who an object is; a stand-in is used for what only the API server says.
pub(super) fn identity(document: &Document) -> Identity {
    Identity {
        key: ObjectKey::new(
            document.metadata("namespace").unwrap_or("default"),
            document.metadata("name").unwrap_or_default(),
        ),
        uid: Uid::new(document.metadata("uid").unwrap_or(STAND_IN)),
        generation: 1,
    }
}

/// Stands for the uid of an object that no API server has seen.
pub(super) const STAND_IN: &str = "00000000-0000-0000-0000-000000000000";

fn name_faults(document: &Document, kind: &str) -> Faults {
    let mut faults = Faults::default();
    let Some(name) = document.metadata("name") else {
        if document.metadata("generateName").is_none() {
            faults.invalid("metadata.name", "is missing");
        }
        return faults;
    };
    if !is_well_formed(name) {
        let message = "use lower-case letters, digits, \"-\" and \".\"; begin and end with a letter or digit";
        faults.invalid("metadata.name", message);
    }
    let most = KINDS
        .iter()
        .find(|(name, _)| *name == kind)
        .map_or(MAX_NAME, |(_, most)| *most);
    if name.len() > most {
        faults.invalid("metadata.name", format!("may have at most {most} characters"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every fault of a text of manifests, as lines.
    fn lint(text: &str) -> Vec<String> {
        let documents = input::parse("f", text).unwrap();
        let linter = Linter::new(EgressPolicy::default()).unwrap();
        let mut holders = Holders::default();
        let faults = holders.add_all(documents.iter());
        assert!(faults.iter().all(|(_, faults)| faults.is_empty()));
        let faults = |document: &Document| match role(document) {
            Role::Ours(kind) => linter.faults(document, kind, &holders),
            Role::Secret | Role::Other => Faults::default(),
            Role::Broken(path, message) => {
                let mut faults = Faults::default();
                faults.invalid(path, message);
                faults
            }
        };
        documents
            .iter()
            .flat_map(|document| lines(document, &faults(document)))
            .collect()
    }

    const START: &str = "apiVersion: postrider.dev/v1alpha1\nkind: EventDestination\nmetadata: {name: d}\n";

    #[test]
    fn form_and_meaning_are_checked_and_no_fault_is_said_twice() {
        let spec = "spec: {events: ['*', 'a b'], webhok: {}, delivery: {maxInFlight: 5000, timeout: 2h}}";
        assert_eq!(
            lint(&format!("{START}{spec}")),
            [
                "f: EventDestination/d: spec.webhok: there is no such field; known here: autoDisable, delivery, \
                 email, events, filter, projectRef, suspend, webhook",
                "f: EventDestination/d: spec.events[1]: use letters, digits, \"_\", \".\", \"-\" and \"*\", at most \
                 128 characters",
                "f: EventDestination/d: spec: set exactly one target: spec.webhook or spec.email",
                "f: EventDestination/d: spec.delivery.timeout: must be a duration between 100ms and 1m, such as \
                 500ms or 5s",
                "f: EventDestination/d: spec.delivery.maxInFlight: must be between 1 and 1024",
            ]
        );
    }

    #[test]
    fn a_faulty_filter_and_a_faulty_type_are_told() {
        let spec = "spec: {events: ['*'], filter: 'evnt.type == 1', webhook: {url: 'https://a.example'}}";
        assert_eq!(
            lint(&format!("{START}{spec}")),
            [
                "f: EventDestination/d: spec.filter: at line 1 column 1: there is no variable \"evnt\"; there are event, \
              project, user"
            ]
        );
        let head = "apiVersion: postrider.dev/v1alpha1\nkind: EventProject\nmetadata: {name: p}\n";
        let spec = "spec: {eventTypes: [{name: a, schema: {required: [total]}, example: {m: 1}}, {name: run_failed}]}";
        assert_eq!(
            lint(&format!("{head}{spec}")),
            [
                "f: EventProject/p: spec.eventTypes[0].example: the example breaks its schema: \"total\" is a required \
                 property",
                "f: EventProject/p: spec.eventTypes[1].name: \"run_failed\" is a built-in type; choose another name",
            ]
        );
    }

    #[test]
    fn only_secrets_among_the_files_are_checked() {
        let spec = "spec: {events: ['*'], webhook: {urlFrom: {secretKeyRef: {name: s, key: url}}}}";
        assert_eq!(lint(&format!("{START}{spec}")), [""; 0]);
        let secret = "\n---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {other: x}}";
        let missing = "f: EventDestination/d: spec.webhook.urlFrom: Secret \"s\" has no key \"url\"; add it";
        assert_eq!(lint(&format!("{START}{spec}{secret}")), [missing]);
        let secret =
            "\n---\n{apiVersion: v1, kind: Secret, metadata: {name: s}, stringData: {url: 'ftp://x'}}";
        let wrong = lint(&format!("{START}{spec}{secret}"));
        assert!(wrong[0].contains("scheme must be http or https"), "{wrong:?}");
    }

    #[test]
    fn a_project_needs_no_spec_and_a_destination_does() {
        let head = "apiVersion: postrider.dev/v1alpha1\nmetadata: {name: a}\n";
        assert_eq!(lint(&format!("{head}kind: EventProject")), [""; 0]);
        assert_eq!(
            lint(&format!("{head}kind: EventDestination")),
            ["f: EventDestination/a: spec: is missing"]
        );
    }

    #[test]
    fn what_is_no_object_of_ours_is_told_apart() {
        assert_eq!(lint("{apiVersion: v1, kind: ConfigMap}"), [""; 0]);
        for (text, line) in [
            ("hello", "f: document 1: this is not an object"),
            (
                "{kind: EventProject}",
                "f: EventProject in document 1: apiVersion: is missing or no text",
            ),
            (
                "{apiVersion: postrider.dev/v1, kind: EventProject, metadata: {name: p}}",
                "f: EventProject/p: apiVersion: must be postrider.dev/v1alpha1",
            ),
            (
                "{apiVersion: postrider.dev/v1alpha1, kind: Project, metadata: {name: p}}",
                "f: Project/p: kind: must be EventProject or EventDestination",
            ),
            (
                "{apiVersion: postrider.dev/v1alpha1, kind: EventProject, metadata: {name: P_}, spec: {}}",
                "f: EventProject/P_: metadata.name: use lower-case letters, digits, \"-\" and \".\"; begin and end \
                 with a letter or digit",
            ),
        ] {
            assert_eq!(lint(text), [line]);
        }
    }
}
