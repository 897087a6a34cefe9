//! [`Gist`]: what an event tells people, the same in a mail, a chat and an alert.
//!
//! Owns the sentence with the names that make it worth reading, the facts worth a line each, and what of them says
//! which thing the event is about ([`Gist::subject`]). Facts stand beside `data`, or in it for the built-in types that
//! keep them there. How much of it is shown, and in which form, is left to those who show it.
//!
//! A subject holds every fact that tells things apart: user, integration, workflow, sync, model, tenant, partner,
//! destination. What is another one each time is no part of it (run, execution, record), nor is where in it something
//! went wrong (action, credential): failures of the same thing belong together.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;
use serde_json::value::RawValue;

use super::catalogue;
use super::event::{Content, Event};

/// What an event tells.
pub struct Gist<'a> {
    /// One sentence about what happened.
    pub headline: Cow<'a, str>,
    /// Message of the event's error, which stands beside `data` or in it.
    pub error: Option<String>,
    /// What it is about, the most important first; at most 14.
    pub facts: Vec<Fact>,
    /// Members of `data` that `error` and `facts` tell.
    pub told: Vec<&'static str>,
    /// Members of `data`.
    pub data: Data<'a>,
}

/// One fact.
pub struct Fact {
    /// What it is a fact of.
    pub label: &'static str,
    /// What it says about the event.
    pub role: Role,
    name: Option<String>,
    id: Option<String>,
}

/// What a fact says about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Where it happened, the same for all events of a project.
    Scope,
    /// Which thing it is about.
    Subject,
    /// What differs between events about the same thing.
    Detail,
}

/// Members of an event's `data`; those that nobody asks for stay unread, however long they are.
pub struct Data<'a>(BTreeMap<String, &'a RawValue>);

/// Where `data` of a built-in type, or its error, keeps a fact.
struct Member {
    label: &'static str,
    role: Role,
    name: Option<&'static str>,
    id: &'static str,
}

impl Member {
    const fn new(label: &'static str, role: Role, id: &'static str) -> Self {
        let name = None;
        Self {
            label,
            role,
            name,
            id,
        }
    }

    const fn named(label: &'static str, name: &'static str, id: &'static str) -> Self {
        let (role, name) = (Role::Subject, Some(name));
        Self {
            label,
            role,
            name,
            id,
        }
    }
}

/// Facts that a built-in type keeps in `data`.
fn members(event_type: &str) -> &'static [Member] {
    const INTEGRATION: Member = Member::named("Integration", "integration_name", "integration_id");
    const TENANT: Member = Member::named("Tenant", "tenant_name", "tenant_id");
    const PARTNER: Member = Member::named("Partner", "partner_name", "partner_id");
    const RUN: Member = Member::new("Run", Role::Detail, "run_id");
    const STATUS: Member = Member::new("Run status", Role::Detail, "run_status");
    const USER: Member = Member::new("User", Role::Subject, "userId");
    const WORKFLOW: Member = Member::new("Workflow", Role::Subject, "workflowId");
    const EXECUTION: Member = Member::new("Execution", Role::Detail, "workflowExecutionId");
    const ACTION: Member = Member::new("Action", Role::Detail, "workflowActionId");
    const MODEL: Member = Member::new("Model", Role::Subject, "model");
    const RECORD: Member = Member::new("Record", Role::Detail, "recordId");
    // Its uid is left out: made anew under its name, it is the same to people.
    const DESTINATION: Member = Member::new("Destination", Role::Subject, "destination");
    const NAMESPACE: Member = Member::new("Namespace", Role::Subject, "namespace");
    const REASON: Member = Member::new("Reason", Role::Detail, "reason");
    const FAILURES: Member = Member::new("Failures", Role::Detail, "failures");
    match event_type {
        "workflow_failure" => &[WORKFLOW],
        "credentials_failure" => &[USER],
        "sync_complete" => &[MODEL],
        "record_created" | "record_updated" | "record_deleted" | "record_errored" => &[MODEL, RECORD],
        "integration_created" => &[INTEGRATION],
        "tenant_created" | "tenant_archived" => &[TENANT, INTEGRATION],
        "partner_integration_updated" => &[PARTNER, INTEGRATION],
        "run_failed" => &[RUN, STATUS, TENANT, INTEGRATION],
        "workflowExecution.actionExecuted"
        | "workflowExecution.waitingForTrigger"
        | "workflowExecution.failed" => &[WORKFLOW, EXECUTION, ACTION],
        "workflowExecution.started" | "workflowExecution.completed" | "workflowExecution.canceled" => {
            &[WORKFLOW, EXECUTION]
        }
        "postrider.destination.failing" | "postrider.destination.disabled" => {
            &[DESTINATION, NAMESPACE, REASON, FAILURES]
        }
        "postrider.destination.exhausted" => &[DESTINATION, NAMESPACE, REASON],
        "postrider.destination.recovered" => &[DESTINATION, NAMESPACE],
        _ => &[],
    }
}

impl<'a> Gist<'a> {
    /// What an event tells.
    #[must_use]
    pub fn of(event: &'a Event) -> Self {
        let content = &event.content;
        let data = Data::of(content);
        let mut told = Vec::new();
        let error: Option<Value> = match &content.error {
            Some(error) => serde_json::from_str(error.get()).ok(),
            None => data.value("error"),
        };
        if content.error.is_none() && error.as_ref().is_some_and(Value::is_string) {
            told.push("error");
        }
        let of_error = |name: &str| error.as_ref()?.get(name).and_then(scalar);
        let message = error
            .as_ref()
            .and_then(Value::as_str)
            .map(str::to_owned)
            .or_else(|| of_error("message"))
            .filter(|message| !message.trim().is_empty());
        let mut facts = Facts(Vec::new());
        facts.add("Error code", Role::Detail, None, of_error("code"));
        facts.beside(event);
        for member in members(&content.event_type) {
            let of = |name: &str| data.scalar(name).or_else(|| of_error(name));
            facts.add(member.label, member.role, member.name.and_then(of), of(member.id));
            told.extend(member.name);
            told.push(member.id);
        }
        let account = event.project.account_name.as_deref().map(str::to_owned);
        facts.add("Account", Role::Scope, account, None);
        facts.join_users();
        Self {
            headline: headline(event, &data, message.as_deref()),
            error: message,
            facts: facts.0,
            told,
            data,
        }
    }

    /// The same for all events of one type about the same thing, and another one for each other thing.
    #[must_use]
    pub fn subject(&self, event: &Event) -> String {
        let escape = |text: &str| text.replace('%', "%25").replace('/', "%2F");
        let mut subject = format!("{}/{}", escape(&event.project.id), event.content.event_type);
        for fact in self.facts.iter().filter(|fact| fact.role == Role::Subject) {
            let label = fact.label.to_ascii_lowercase();
            let _ = write!(subject, "/{label}={}", escape(fact.id()));
        }
        subject
    }
}

impl Fact {
    /// Name and id.
    #[must_use]
    pub fn shown(&self) -> Cow<'_, str> {
        match (&self.name, &self.id) {
            (Some(name), Some(id)) if name != id => Cow::Owned(format!("{name} ({id})")),
            _ => Cow::Borrowed(self.name()),
        }
    }

    /// The name, or the id of what has none.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_ref().or(self.id.as_ref()).map_or("", |text| text)
    }

    /// The id, or the name of what has none.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.as_ref().or(self.name.as_ref()).map_or("", |text| text)
    }
}

struct Facts(Vec<Fact>);

impl Facts {
    /// Adds what says something that was not said before.
    fn add(&mut self, label: &'static str, role: Role, name: Option<String>, id: Option<String>) {
        let [name, id] = [name, id].map(|text| text.filter(|text| !text.trim().is_empty()));
        let fact = Fact {
            label,
            role,
            name,
            id,
        };
        let is_known = |other: &Fact| other.label == label && other.id() == fact.id();
        if !fact.id().is_empty() && !self.0.iter().any(is_known) {
            self.0.push(fact);
        }
    }

    /// A workflow that fails for all its users is one thing, not one for each of them.
    fn join_users(&mut self) {
        let is = |fact: &Fact, label| fact.label == label && fact.role == Role::Subject;
        if self.0.iter().any(|fact| is(fact, "Workflow")) {
            let users = self.0.iter_mut().filter(|fact| is(fact, "User"));
            users.for_each(|user| user.role = Role::Detail);
        }
    }

    /// Adds those that stand beside `data`.
    fn beside(&mut self, event: &Event) {
        let (content, project) = (&event.content, &event.project);
        self.add("Project", Role::Scope, Some(project.name.to_string()), None);
        let environment = project.environment.as_deref().map(str::to_owned);
        self.add("Environment", Role::Scope, environment, None);
        if let Some(user) = &content.user {
            self.add("User", Role::Subject, None, Some(user.id.clone()));
        }
        if let Some(it) = &content.integration {
            let name = it.name.clone().or_else(|| it.kind.clone());
            self.add("Integration", Role::Subject, name, it.id.clone());
        }
        if let Some(it) = &content.workflow {
            self.add("Workflow", Role::Subject, it.name.clone(), Some(it.id.clone()));
        }
        if let Some(it) = &content.sync {
            self.add("Sync", Role::Subject, it.integration.clone(), Some(it.id.clone()));
            self.add("Credential", Role::Detail, None, it.credential_id.clone());
        }
    }
}

impl<'a> Data<'a> {
    fn of(content: &'a Content) -> Self {
        Self(serde_json::from_str(content.data.get()).unwrap_or_default())
    }

    /// A member.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<Value> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    fn scalar(&self, name: &str) -> Option<String> {
        let raw = self.0.get(name)?.get();
        // A long array or object is not worth reading for nothing.
        let is_nested = raw.starts_with(['{', '[']);
        (!is_nested)
            .then(|| self.value(name))
            .flatten()
            .as_ref()
            .and_then(scalar)
    }
}

/// A text, number or truth as text.
#[must_use]
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn headline<'a>(event: &'a Event, data: &Data<'_>, error: Option<&str>) -> Cow<'a, str> {
    let is_said = |message: &str| !message.trim().is_empty();
    if event.content.message.as_deref().is_some_and(is_said) {
        return catalogue::message(event);
    }
    sentence(&event.content, data, error).map_or_else(
        || match catalogue::message(event) {
            message if is_said(&message) => message,
            _ => Cow::Owned(format!("Event {} occurred", event.content.event_type)),
        },
        Cow::Owned,
    )
}

/// A sentence with the names that make it worth reading; `None`: the event lacks them, or its type is not built in.
fn sentence(content: &Content, data: &Data<'_>, error: Option<&str>) -> Option<String> {
    let of = |name: &str| data.scalar(name);
    let sync = || {
        let named = content.sync.as_ref().and_then(|it| it.integration.clone());
        named.or_else(|| content.integration.as_ref()?.kind.clone())
    };
    Some(match &*content.event_type {
        "sync_complete" => match (of("numRecords"), of("model")) {
            (Some(count), Some(model)) => format!("Sync of {} completed: {count} {model}", sync()?),
            _ => format!("Sync of {} completed", sync()?),
        },
        "sync_errored" => format!("Sync of {} failed: {}", sync()?, error?),
        "record_created" => format!("{} {} was created in {}", of("model")?, of("recordId")?, sync()?),
        "record_updated" => format!("{} {} was updated in {}", of("model")?, of("recordId")?, sync()?),
        "record_deleted" => format!("{} {} was deleted in {}", of("model")?, of("recordId")?, sync()?),
        "record_errored" => format!("A record of {} could not be processed: {}", sync()?, error?),
        "integration_created" => format!("Integration {} was created", of("integration_name")?),
        "tenant_created" => format!(
            "Tenant {} of {} was created",
            of("tenant_name")?,
            of("integration_name")?
        ),
        "tenant_archived" => format!(
            "Tenant {} of {} was archived",
            of("tenant_name")?,
            of("integration_name")?
        ),
        "partner_integration_updated" => format!(
            "{} updated integration {}",
            of("partner_name")?,
            of("integration_name")?
        ),
        "run_failed" => format!(
            "Run {} of {} failed for tenant {}",
            of("run_id")?,
            of("integration_name")?,
            of("tenant_name")?
        ),
        "workflowExecution.failed" => format!("Workflow {} failed: {}", of("workflowId")?, error?),
        "workflowExecution.started" => format!("Workflow {} started", of("workflowId")?),
        "workflowExecution.completed" => format!("Workflow {} completed", of("workflowId")?),
        "workflowExecution.canceled" => format!("Workflow {} was canceled", of("workflowId")?),
        "workflowExecution.actionExecuted" => format!(
            "Workflow {} executed action {}",
            of("workflowId")?,
            of("workflowActionId")?
        ),
        "workflowExecution.waitingForTrigger" => {
            format!("Workflow {} waits for a trigger", of("workflowId")?)
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
