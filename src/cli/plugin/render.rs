//! `render`: the request that a destination would be sent for an event, byte by byte.
//!
//! The request is made by `domain::delivery::prepare`, a mail by `domain::email::prepare`, as the operator does it. What
//! only a cluster knows has a stand-in, and a note says so: uids, the id of an event that names none, a signing key that
//! is not among the files. The egress guard is not in force, because nothing is sent; a refusal becomes a note.

use std::borrow::Cow;
use std::sync::Arc;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use ipnet::IpNet;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use url::Position;

use super::holders::Holders;
use super::input::{self, Document};
use super::lint::{self, Linter};
use super::{RenderArgs, RenderOutput, Report, Verdict, mails};
use crate::api::API_VERSION;
use crate::api::v1alpha1::event_destination::WebhookTarget;
use crate::api::v1alpha1::event_project::EventProjectSpec;
use crate::api::v1alpha1::{EventDestination, EventProject};
use crate::domain::delivery::{self, Attempt, WebhookRequest};
use crate::domain::destination::{
    Destination, Reference, References, Target, Webhook, signing_key_refs, value_references,
};
use crate::domain::egress::EgressPolicy;
use crate::domain::email;
use crate::domain::email::settled::Settled;
use crate::domain::event::{Draft, Event, parse};
use crate::domain::filter::Facts;
use crate::domain::id::EventId;
use crate::domain::project::ProjectFacts;
use crate::domain::request::Passage;
use crate::domain::secret::Secret;
use crate::domain::signature::Signer;
use crate::domain::signature::key::generate;
use crate::engine::clock::{Clock as _, SystemClock};

/// What has to be opened so that no address is refused that can be opened at all.
const EVERYWHERE: [&str; 8] = [
    "0.0.0.0/0",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "100.100.100.200/32",
    "::/0",
    "::1/128",
    "fe80::/10",
    "fd00:ec2::254/128",
];
/// Stands for a value that is secret.
const HIDDEN: &str = "(secret)";

/// Shows the request.
///
/// # Errors
/// When a file cannot be used, or it is not clear which destination is meant.
pub(super) fn run(args: &RenderArgs) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let mut documents = Vec::new();
    for file in args.files.iter().chain(&args.project) {
        documents.extend(input::documents(file)?);
    }
    let mut holders = Holders::default();
    for (document, faults) in holders.add_all(documents.iter()) {
        report.notes.extend(lint::lines(document, &faults));
    }
    args.secret.iter().for_each(|given| holders.give(given));

    let document = chosen(&documents, args.name.as_deref())?;
    let Some((destination, spec)) = destination(document, &holders, &mut report)? else {
        return Ok(report);
    };
    let now = args.now.unwrap_or_else(|| SystemClock.now());
    let Some(draft) = draft(args, &mut report)? else {
        return Ok(report);
    };
    let project = project(&documents, document, &spec, &mut report)?;
    let event = event(draft, now, project, &mut report);
    if !destination.subscription.matches(
        spec.spec.project_ref.as_ref().map_or("", |project| &project.name),
        &event.content.event_type,
    ) {
        report.note(format!(
            "note: the destination would not be sent this event: no pattern of spec.events fits {}",
            event.content.event_type
        ));
    }
    if let Some(filter) = &destination.subscription.filter
        && let Err(why) = filter.matches(&Facts::of(&event))
    {
        let why: &str = why.into();
        report.note(format!(
            "note: the destination would not be sent this event: spec.filter does not let it through ({why})"
        ));
    }
    if let Some(dedup) = &destination.subscription.dedup
        && dedup.mark(&event, &destination.identity).is_none()
    {
        report.note(
            "note: this event is never taken for the same as another: it lacks what spec.delivery.dedup.key names, \
             or has null there",
        );
    }
    if let Some(batch) = destination.policy.batch {
        report.note(format!(
            "note: the destination sends up to {} such events in one request",
            batch.max_events
        ));
    }
    let attempt = Attempt {
        number: args.attempt,
        now,
    };
    let identity = &destination.identity;
    let shown = match &destination.target {
        Target::Webhook(webhook) => delivery::prepare(webhook, identity, &event, attempt)
            .map(|request| show(args, webhook, &spec, &request, &mut report)),
        Target::Email(email) => email::prepare(email, identity, &event, attempt, &Settled::default())
            .map(|mail| mails::show(args.output, &mail, &mut report)),
    };
    match shown {
        Ok(shown) => shown?,
        Err(error) => {
            report.at_least(Verdict::Faulty);
            report.note(format!("error: the event cannot be rendered: {error}"));
        }
    }
    Ok(report)
}

fn chosen<'a>(documents: &'a [Document], name: Option<&str>) -> anyhow::Result<&'a Document> {
    let destinations: Vec<_> = documents
        .iter()
        .filter(|document| lint::is(document, "EventDestination"))
        .collect();
    let names: Vec<_> = destinations
        .iter()
        .filter_map(|document| document.metadata("name"))
        .collect();
    let mut fitting = destinations
        .iter()
        .filter(|document| name.is_none() || document.metadata("name") == name);
    match (fitting.next(), fitting.next(), name) {
        (Some(document), None, _) => Ok(document),
        (Some(_), Some(_), None) => anyhow::bail!("choose a destination with --name: {}", names.join(", ")),
        (Some(_), Some(_), Some(name)) => anyhow::bail!("there are several destinations named {name}"),
        (None, _, None) => anyhow::bail!("the files hold no EventDestination of {API_VERSION}"),
        (None, _, Some(name)) => {
            anyhow::bail!("there is no destination named {name}, only: {}", names.join(", "))
        }
    }
}

/// The destination and its object; `None`: it is faulty, and the report says how.
fn destination(
    document: &Document,
    holders: &Holders,
    report: &mut Report,
) -> anyhow::Result<Option<(Destination, EventDestination)>> {
    let open = || EgressPolicy::new(EVERYWHERE.iter().filter_map(|net| net.parse::<IpNet>().ok()));
    let faults = Linter::new(open())?.faults(document, "EventDestination", holders);
    let object = serde_json::from_value::<EventDestination>(document.value.clone());
    let (true, Ok(object)) = (faults.is_empty(), object) else {
        report.at_least(Verdict::Faulty);
        report.notes.extend(lint::lines(document, &faults));
        return Ok(None);
    };
    let identity = lint::identity(document);
    let namespace = document.metadata("namespace");
    let mut references: References = value_references(&identity.key.name, &object.spec)
        .into_iter()
        .map(|(_, key)| {
            let found = holders.find(namespace, &key);
            (key, found)
        })
        .collect();
    let unsigned = stand_in(&identity.key.name, &object, &mut references, report);
    mails::stand_in(&object.spec, &mut references, report);
    match Destination::try_from_spec(identity, &object.spec, &references, &open()) {
        Ok(mut destination) => {
            if let Target::Webhook(webhook) = &mut destination.target {
                let signatures = webhook.signer.signatures().iter().enumerate();
                let kept = signatures.filter(|(index, _)| !unsigned.contains(index));
                webhook.signer = Signer::new(kept.map(|(_, one)| one.clone()).collect());
            }
            let usual = EgressPolicy::default();
            let checked = match &destination.target {
                Target::Webhook(webhook) => usual.check_literal(webhook.endpoint.expose()),
                Target::Email(email) => email
                    .server
                    .address
                    .map_or(Ok(()), |address| usual.check(address)),
            };
            if let Err(refusal) = checked {
                report.note(format!(
                    "note: the operator refuses this {} by default: {refusal}",
                    if object.spec.email.is_some() {
                        "SMTP server"
                    } else {
                        "URL"
                    }
                ));
            }
            Ok(Some((destination, object)))
        }
        Err(faults) => {
            report.at_least(Verdict::Faulty);
            report.notes.extend(lint::lines(document, &faults));
            Ok(None)
        }
    }
}

/// Puts a key in the place of each signing key that is not among the files; answers which signatures are to be left out.
fn stand_in(
    name: &str,
    object: &EventDestination,
    references: &mut References,
    report: &mut Report,
) -> Vec<usize> {
    let mut unsigned = Vec::new();
    for (index, signing) in signing_key_refs(name, &object.spec).into_iter().enumerate() {
        if matches!(references.get(&(&signing.key).into()), Some(Reference::Found(_))) {
            continue;
        }
        let origin = if signing.generated {
            "which Postrider makes, "
        } else {
            ""
        };
        let which = if index == 0 {
            "the signature".to_owned()
        } else {
            format!("the signature {:?}", signing.name)
        };
        let (name, key) = (&signing.key.name, &signing.key.key);
        report.note(format!(
            "note: {which} is left out: the signing key, {origin}key {key:?} of Secret {name:?}, is not among the \
             files; give it as a Secret manifest or with --secret {name}/{key}=VALUE"
        ));
        if let Ok(made) = generate(signing.scheme, [1; 32]) {
            let value = Secret::new(made.secret.expose().clone().into_bytes());
            references.insert(signing.key.into(), Reference::Found(value));
            unsigned.push(index);
        }
    }
    unsigned
}

/// The event as published; `None`: it is faulty, and the report says how.
fn draft(args: &RenderArgs, report: &mut Report) -> anyhow::Result<Option<Draft>> {
    let file = args.event.display();
    let body = input::bytes(&args.event)?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, content_type(&body));
    let mut drafts = match parse::parse(&body, &headers) {
        Ok(drafts) => drafts,
        Err(error) => {
            report.at_least(Verdict::Faulty);
            report.note(format!("{file}: {error}"));
            return Ok(None);
        }
    };
    let count = drafts.len();
    let index = match args.index {
        None if count > 1 => {
            anyhow::bail!("{file} holds {count} events; choose one with --index, 0 is the first")
        }
        index => index.unwrap_or_default(),
    };
    anyhow::ensure!(index < count, "{file} holds {count} events; 0 is the first");
    Ok(Some(drafts.swap_remove(index)))
}

/// A producer says what it sends; a file does not, but a CloudEvent shows.
fn content_type(body: &[u8]) -> HeaderValue {
    let value = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let first = value.get(0).unwrap_or(&value);
    HeaderValue::from_static(match (first.get("specversion"), value.is_array()) {
        (None, _) => "application/json",
        (Some(_), false) => "application/cloudevents+json",
        (Some(_), true) => "application/cloudevents-batch+json",
    })
}

fn project(
    documents: &[Document],
    destination: &Document,
    object: &EventDestination,
    report: &mut Report,
) -> anyhow::Result<Arc<ProjectFacts>> {
    let wanted = object
        .spec
        .project_ref
        .as_ref()
        .map(|project| project.name.as_str());
    let namespace = destination.metadata("namespace");
    let given = documents
        .iter()
        .filter(|document| lint::is(document, "EventProject"))
        .filter(|document| wanted.is_none() || document.metadata("name") == wanted)
        .find(|document| {
            let other = document.metadata("namespace");
            other.is_none() || namespace.is_none() || other == namespace
        });
    let mut project = if let Some(document) = given {
        lint::project(document)
            .with_context(|| format!("{}: the EventProject is faulty, see lint", document.file))?
    } else {
        let name = wanted.unwrap_or("project");
        report.note(format!(
            "note: no EventProject is among the files; one named {name:?} stands in"
        ));
        EventProject::new(name, EventProjectSpec::default())
    };
    if project.metadata.uid.is_none() || destination.metadata("uid").is_none() {
        report.note(
            "note: without metadata.uid the delivery's id, and what else comes from uids, is a stand-in",
        );
    }
    project
        .metadata
        .uid
        .get_or_insert_with(|| lint::STAND_IN.to_owned());
    let facts = ProjectFacts::of(&project).context("the EventProject has no name")?;
    Ok(Arc::new(facts))
}

fn event(draft: Draft, now: Timestamp, project: Arc<ProjectFacts>, report: &mut Report) -> Event {
    let Draft {
        id,
        timestamp,
        mut content,
    } = draft;
    content.timestamp = timestamp.unwrap_or(now).as_millisecond();
    let id = id.unwrap_or_else(|| {
        report.note("note: the event has no id; publishing makes one, here a stand-in is used");
        EventId::from_uuid(uuid::Uuid::nil())
    });
    Event::new(id, now, content, project)
}

/// A request as it is shown.
#[derive(Serialize)]
struct Shown<'a> {
    method: &'a str,
    url: String,
    headers: Vec<ShownHeader<'a>>,
    #[serde(flatten)]
    body: Content<'a>,
}

#[derive(Serialize)]
struct ShownHeader<'a> {
    name: &'a str,
    value: Cow<'a, str>,
}

/// A body: its text, or its bytes when it is none.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Content<'a> {
    Body(&'a str),
    BodyBase64(String),
}

fn show(
    args: &RenderArgs,
    webhook: &Webhook,
    object: &EventDestination,
    request: &WebhookRequest,
    report: &mut Report,
) -> anyhow::Result<()> {
    let shown = shown(args, webhook, object, request);
    if args.output == RenderOutput::Request {
        report.line(&format!("{} {}", shown.method, shown.url));
        for header in &shown.headers {
            report.line(&format!("{}: {}", header.name, header.value));
        }
        report.line("");
    }
    if request.headers.contains_key(header::CONTENT_ENCODING) {
        report.note("note: the body is compressed with gzip, as spec.webhook.compression says");
    }
    if let Some(passage) = &request.passage {
        explain(passage, report);
    }
    if !report.value(&shown, args.output.form())? {
        report.out.extend_from_slice(&request.body);
    }
    Ok(())
}

fn shown<'a>(
    args: &RenderArgs,
    webhook: &Webhook,
    object: &EventDestination,
    request: &'a WebhookRequest,
) -> Shown<'a> {
    let hide = |secret: bool| secret && !args.show_secrets;
    let of_secret = |webhook: &WebhookTarget| webhook.url_from.is_some();
    let path = if hide(object.spec.webhook.as_ref().is_some_and(of_secret)) {
        format!("/{HIDDEN}")
    } else {
        request.endpoint.expose()[Position::BeforePath..].to_owned()
    };
    let header = |(name, value): (&'a HeaderName, &'a HeaderValue)| {
        let own = &webhook.headers;
        let secret = own
            .iter()
            .any(|(other, own)| other == name && own.is_sensitive() && own == value);
        let value = if hide(secret) {
            HIDDEN.into()
        } else {
            String::from_utf8_lossy(value.as_bytes())
        };
        ShownHeader {
            name: name.as_str(),
            value,
        }
    };
    Shown {
        method: request.method.as_str(),
        url: format!("{}{path}", request.endpoint.origin()),
        headers: request.headers.iter().map(header).collect(),
        body: std::str::from_utf8(&request.body).map_or_else(
            |_| Content::BodyBase64(STANDARD.encode(&request.body)),
            Content::Body,
        ),
    }
}

/// Says what of a request's way the request itself does not show.
fn explain(passage: &Passage, report: &mut Report) {
    if let Some(credentials) = &passage.credentials {
        report.note(format!(
            "note: the header authorization is left out: its token is fetched from {}",
            credentials.endpoint().origin()
        ));
    }
    if let Some(proxy) = &passage.proxy {
        report.note(format!(
            "note: the request goes through the proxy {}",
            proxy.origin()
        ));
    }
    let Some(tls) = &passage.tls else { return };
    if !tls.authorities.is_empty() {
        let count = tls.authorities.len();
        report.note(format!(
            "note: TLS trusts {count} authorities of spec.webhook.tls.caFrom and no others"
        ));
    }
    if tls.client.is_some() {
        report.note("note: TLS shows the certificate of spec.webhook.tls.clientCertificateFrom");
    }
    if let Some(name) = &tls.server_name {
        report.note(format!("note: TLS expects a certificate for {}", name.to_str()));
    }
}
