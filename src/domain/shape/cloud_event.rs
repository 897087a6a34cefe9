//! The `CloudEvent` format: CloudEvents 1.0, JSON format, structured mode.
//!
//! Attributes in this order: `specversion`, `id`, `source` (`/projects/<project id>`), `type`, `subject` (the user's
//! id, else the subject that the event came with), `time`, `datacontenttype`, `dataschema` (when the event came with
//! one), what else the event has as extension attributes, `data`. Extensions are scalars and named in lower-case
//! letters and digits, so objects travel as JSON text: `usermetadata` and `error`.
//!
//! An event that came as a CloudEvent keeps its extension attributes; one that has the name of an attribute written
//! here takes its place. Its `source` becomes `originsource`, and its `subject` `originsubject` when the user's id
//! is the subject.

use std::fmt::Write as _;

use serde_json::value::RawValue;

use super::write::Json;
use super::{account_id, capacity, happened};
use crate::domain::catalogue;
use crate::domain::event::Event;
use crate::domain::event::json::{self as reader, Member};

/// Attributes of the specification itself: not extensions.
const CORE: [&str; 8] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
];

pub(super) fn render(event: &Event) -> String {
    let (content, project) = (&event.content, &event.project);
    let origin: Vec<Member<'_>> = content
        .cloud_event
        .as_deref()
        .map(|raw| reader::members(raw.get()))
        .unwrap_or_default();
    let given = |name: &str| {
        origin
            .iter()
            .find(|member| member.name == name)
            .map(|member| member.value)
    };
    let mut json = Json::with_capacity(capacity(event));
    json.open()
        .member("specversion", "1.0")
        .member("id", event.id.as_str());
    json.member("source", &source(&project.id))
        .member("type", &content.event_type);
    match (&content.user, given("subject")) {
        (Some(user), _) => {
            json.member("subject", &user.id);
        }
        (None, Some(subject)) => {
            json.name("subject").raw(subject);
        }
        (None, None) => {}
    }
    json.name("time").time(happened(event));
    json.member("datacontenttype", "application/json");
    if let Some(schema) = given("dataschema") {
        json.name("dataschema").raw(schema);
    }

    let mut extensions = Extensions {
        json: &mut json,
        origin: &origin,
    };
    extensions.text("message", Some(&catalogue::message(event)));
    extensions.text("projectname", Some(&project.name));
    extensions.text("environment", project.environment.as_deref());
    if project.account_id.is_some() && extensions.is_free("accountid") {
        account_id(extensions.json, "accountid", project);
    }
    extensions.text("accountname", project.account_name.as_deref());
    extensions.object(
        "usermetadata",
        content.user.as_ref().and_then(|user| user.metadata.as_deref()),
    );
    if let Some(integration) = &content.integration {
        extensions.text("integrationid", integration.id.as_deref());
        extensions.text("integrationtype", integration.kind.as_deref());
        extensions.text("integrationname", integration.name.as_deref());
    }
    if let Some(workflow) = &content.workflow {
        extensions.text("workflowid", Some(&workflow.id));
        extensions.text("workflowname", workflow.name.as_deref());
    }
    if let Some(sync) = &content.sync {
        extensions.text("syncid", Some(&sync.id));
        extensions.text("syncintegration", sync.integration.as_deref());
        extensions.text("synccredentialid", sync.credential_id.as_deref());
    }
    if let Some(error) = content.error.as_deref() {
        let members = reader::members(error.get());
        let message = members.iter().find(|member| member.name == "message");
        extensions.text(
            "errormessage",
            message.and_then(|member| reader::text(member.value)).as_deref(),
        );
        extensions.object("error", Some(error));
    }
    if let Some(source) = given("source") {
        extensions.raw("originsource", source);
    }
    if let Some(subject) = given("subject").filter(|_| content.user.is_some()) {
        extensions.raw("originsubject", subject);
    }
    for member in origin.iter().filter(|member| !CORE.contains(&&*member.name)) {
        json.name(&member.name).raw(member.value);
    }
    json.name("data").raw(content.data.get()).close();
    json.finish()
}

struct Extensions<'a> {
    json: &'a mut Json,
    origin: &'a [Member<'a>],
}

impl Extensions<'_> {
    fn is_free(&self, name: &str) -> bool {
        self.origin.iter().all(|member| member.name != name)
    }

    fn text(&mut self, name: &str, text: Option<&str>) {
        if let Some(text) = text
            && self.is_free(name)
        {
            self.json.member(name, text);
        }
    }

    /// An object, as text; an empty one is left out.
    fn object(&mut self, name: &str, raw: Option<&RawValue>) {
        self.text(
            name,
            raw.filter(|raw| !super::is_empty_object(raw)).map(RawValue::get),
        );
    }

    fn raw(&mut self, name: &str, raw: &str) {
        if self.is_free(name) {
            self.json.name(name).raw(raw);
        }
    }
}

/// `/projects/<id>`, with everything percent-encoded that a path segment cannot hold (RFC 3986 §3.3).
fn source(project: &str) -> String {
    let mut source = String::from("/projects/");
    for byte in project.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            source.push(char::from(byte));
        } else {
            let _ = write!(source, "%{byte:02X}");
        }
    }
    source
}
