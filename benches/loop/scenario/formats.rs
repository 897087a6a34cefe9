//! What each body format takes to render: pure computation, in this process, no input or output.
//!
//! The events are the examples of all built-in types. The formats take turns in each round, and stand beside `Event`.

use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;
use postrider::api::v1alpha1::event_destination::PayloadFormat;
use postrider::domain::catalogue;
use postrider::domain::delivery::Attempt;
use postrider::domain::destination::Identity;
use postrider::domain::event::Event;
use postrider::domain::event::parse::parse;
use postrider::domain::format::{FORMATS, Options, ReadyFormat};
use postrider::domain::id::{EventId, ObjectKey, Uid};
use postrider::domain::project::ProjectFacts;
use postrider::domain::secret::Secret;
use postrider::domain::shape::Payload;
use postrider::domain::template::Template;
use serde_json::{Value, json};

use crate::report::{Series, Unit};
use crate::stage::Stage;

/// A format, and what its renderings took.
struct Form {
    name: String,
    payload: Payload,
    micros: Series,
    bytes: usize,
}

/// A table of its own.
pub(super) fn formats(stage: &mut Stage) {
    let events: Vec<Event> = catalogue::EVENT_TYPES
        .iter()
        .map(|entry| event(&entry.definition().example))
        .collect();
    let mut forms = forms();
    let repeats = stage.sized(200, 10);
    for _ in 0..stage.round_count() {
        for form in &mut forms {
            form.measure(&events, repeats);
        }
    }
    let Some(plain) = forms.first().map(|form| form.micros.clone()) else {
        return;
    };
    let mut text = format!(
        "\n| Body format, {} events | a rendering | of `Event` | bytes |\n|---|---:|---:|---:|\n",
        events.len()
    );
    for form in &forms {
        let ratio = form.micros.ratios(&plain).written(&Unit::TIMES);
        let (name, micros) = (&form.name, form.micros.written(&Unit::US));
        writeln!(text, "| {name} | {micros} | {ratio} | {} |", form.bytes).unwrap();
    }
    stage.tables.push(text);
}

impl Form {
    fn measure(&mut self, events: &[Event], repeats: u64) {
        let now = Timestamp::now();
        let (identity, attempt) = (identity(), Attempt { number: 1, now });
        let render = |event| {
            let rendered = self.payload.render(black_box(event), &identity, attempt);
            rendered
                .unwrap_or_else(|error| panic!("{}: {error}", self.name))
                .body
        };
        // The first time through also says how long the bodies are.
        self.bytes = events.iter().map(|event| render(event).len()).sum::<usize>() / events.len();
        let started = Instant::now();
        for _ in 0..repeats {
            for event in events {
                black_box(render(event));
            }
        }
        let renderings = repeats as f64 * events.len() as f64;
        self.micros
            .0
            .push(started.elapsed().as_secs_f64() * 1e6 / renderings);
    }
}

/// Postrider's own formats, `Event` first, then those of services. `Sync` suits some types only.
fn forms() -> Vec<Form> {
    let form = |name: &str, payload| Form {
        name: name.to_owned(),
        payload,
        micros: Series::default(),
        bytes: 0,
    };
    let template = json!({
        "title": "{{ $.event.type }} in {{ $.project.name }}",
        "when": "{{ $.event.timestamp }}",
        "trigger": "{{ $.event.data.trigger | default('none') }}",
        "details": "{{ $.event.data }}",
    });
    let template = Template::parse(&template).unwrap_or_else(|faults| panic!("{faults:?}"));
    let own = [
        ("`Event`", PayloadFormat::Event),
        ("`Flat`", PayloadFormat::Flat),
        ("`Envelope`", PayloadFormat::Envelope),
        ("`CloudEvent`", PayloadFormat::CloudEvent),
        ("`Default`: each type's own", PayloadFormat::Default),
    ];
    let mut forms: Vec<Form> = own
        .map(|(name, format)| form(name, Payload::Format(format)))
        .into();
    forms.push(form("a template of 5 placeholders", Payload::Template(template)));
    let key = Secret::new("0123456789abcdef0123456789abcdef".to_owned());
    forms.extend(FORMATS.iter().map(|service| {
        let options = Options {
            chat: Some("-100123".into()),
            ..Options::default()
        };
        let ready = ReadyFormat::new(service, options, Some(&key));
        form(&format!("`{}`", service.name), Payload::Ready(Box::new(ready)))
    }));
    forms
}

fn event(body: &Value) -> Event {
    let headers =
        HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
    let draft = parse(body.to_string().as_bytes(), &headers)
        .unwrap_or_else(|refusal| panic!("{refusal:?}"))
        .remove(0);
    let accepted = Timestamp::now();
    let mut content = draft.content;
    content.timestamp = draft.timestamp.unwrap_or(accepted).as_millisecond();
    let project = ProjectFacts {
        uid: Uid::new("0b1f3a44-0000-4000-8000-000000000001"),
        id: "p-1".into(),
        name: "Acme".into(),
        environment: Some("production".into()),
        account_id: None,
        account_name: Some("Acme Inc".into()),
    };
    let id = EventId::parse("0197f0b2-7c1e-7a3e-9d5c-0c1d2e3f4a5b").expect("a UUID");
    Event::new(id, accepted, content, Arc::new(project))
}

fn identity() -> Identity {
    Identity {
        key: ObjectKey::new("shop", "ops"),
        uid: Uid::new("9d2c7b58-0000-4000-8000-000000000002"),
        generation: 1,
    }
}
