//! Placeholders alone and among text, every fault of a template, and the bounds of what it makes.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::event::sample;
use crate::domain::project::ProjectFacts;

fn event() -> Event {
    sample::event(&json!({
        "id": "evt-7", "type": "workflow_failure", "timestamp": 1_729_629_642_607_i64,
        "user": {"id": "u-1", "metadata": {"plan": "pro"}}, "workflow": {"id": "w", "name": "W \"1\""},
        "sync": {"id": "s"}, "error": {"message": "no", "code": 7},
        "data": {
            "n": 5, "f": 1.5, "yes": true, "nothing": null, "list": [{"a": [10, 20]}], "odd key": {"x\"y": 1},
            "text": "a \"b\"\n{{ $.event.id }}", "größe": "XL", "a-b": 1, "0": "zero",
        },
    }))
}

fn parse(source: impl Into<Value>) -> Result<Template, Vec<TemplateFault>> {
    Template::parse(&source.into())
}

fn try_render(source: Value) -> Result<Rendered, RenderError> {
    parse(source)
        .unwrap()
        .render(&event(), &sample::identity(), sample::attempt())
}

fn body(source: Value) -> String {
    String::from_utf8(try_render(source).unwrap().body.into()).unwrap()
}

fn json_of(source: Value) -> Value {
    serde_json::from_str(&body(source)).unwrap()
}

fn fault(source: Value) -> (String, String) {
    let mut faults = parse(source).unwrap_err();
    assert_eq!(faults.len(), 1, "{faults:?}");
    let fault = faults.remove(0);
    (fault.pointer, fault.message)
}

#[test]
fn a_whole_placeholder_keeps_the_type() {
    for (path, expected) in [
        ("$.event.data.n", json!(5)),
        ("event.data.n", json!(5)),
        ("$.event.data.f", json!(1.5)),
        ("$.event.data.yes", json!(true)),
        ("$.event.data.nothing", json!(null)),
        ("$.event.data.list", json!([{"a": [10, 20]}])),
        ("$.event.data.list[0].a[1]", json!(20)),
        ("$.event.data[\"odd key\"]['x\"y']", json!(1)),
        ("$.event[\"data\"][ \"n\" ]", json!(5)),
        ("$.event.data.größe", json!("XL")),
        ("$.event.data.a-b", json!(1)),
        ("$.event.data.0", json!("zero")),
        ("$.event.user", json!({"id": "u-1", "metadata": {"plan": "pro"}})),
        ("$.event.user.metadata.plan", json!("pro")),
        ("$.event.timestamp", json!(1_729_629_642_607_i64)),
        ("$.event.timestampISO", json!("2024-10-22T20:40:42.607Z")),
        ("$.event.message", json!("Workflow “W \"1\"“ failed for User u-1")),
        ("$.event.id", json!("evt-7")),
        ("$.event.sync.id", json!("s")),
        ("$.event.error.code", json!(7)),
        ("$.event.environment", json!("production")),
        ("$.event.account", json!({"id": 42, "name": "Acme Inc"})),
        ("$.project.name", json!("Test Project Name")),
        (
            "project",
            json!({"id": "613b038f-e9bf-49ec-bc58-ba8d620754c7", "name": "Test Project Name"}),
        ),
        (
            "$.destination",
            json!({"name": "ops", "id": "9d2c7b58-0000-4000-8000-000000000002"}),
        ),
        ("$.delivery.attempt", json!(1)),
        ("$.delivery.publishedAt", json!("2026-01-31T08:15:30.123Z")),
    ] {
        assert_eq!(
            json_of(json!({"x": format!("{{{{ {path} }}}}")})),
            json!({"x": expected}),
            "{path}"
        );
    }
    let id = json_of(json!("{{ delivery.id }}"));
    let expected = id::delivery_id(&event().id, &event().project.uid, &sample::identity().uid).to_string();
    assert_eq!(id, json!(expected));
}

#[test]
fn a_placeholder_among_text_becomes_text() {
    assert_eq!(
        json_of(json!([
            "n={{$.event.data.n}}, {{ $.event.data.yes }} {{ $.event.data.nothing }}!",
            " {{ $.event.data.n }}"
        ])),
        json!(["n=5, true null!", " 5"])
    );
    assert_eq!(
        json_of(json!({"t": "<{{ $.event.data.text }}>"})),
        json!({"t": "<a \"b\"\n{{ $.event.id }}>"})
    );
    assert_eq!(
        json_of(json!(["{{ $.event.data.list | json }}!"])),
        json!(["[{\"a\":[10,20]}]!"])
    );
}

#[test]
fn values_are_never_read_as_templates() {
    let rendered = body(json!({"t": "{{ $.event.data.text }}"}));
    assert!(rendered.contains("{{ $.event.id }}"), "{rendered}");
}

#[test]
fn objects_in_text_ask_for_json() {
    let error = try_render(json!({"a": {"b": "x {{ $.event.data.list }}"}})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.webhook.payload.template.a.b: $.event.data.list is an array and cannot stand inside text; add `| json`"
    );
}

#[test]
fn a_path_that_leads_nowhere_is_an_error_unless_it_has_a_default() {
    let error = try_render(json!({"a": ["{{ $.event.data.gone[0].x }}"]})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "spec.webhook.payload.template.a[0]: the event has no $.event.data.gone[0].x; publish it or add `| default(…)`"
    );
    for path in [
        "$.event.data.n.x",
        "$.event.data.list[9]",
        "$.event.data.list.a",
        "$.event.integration.name",
        "$.event.data[0]",
    ] {
        assert!(
            try_render(json!([format!("{{{{ {path} }}}}")])).is_err(),
            "{path}"
        );
    }
    for (filters, expected) in [
        ("default(\"x\")", json!("x")),
        ("default('it is \"x\"')", json!("it is \"x\"")),
        ("default(5)", json!(5)),
        ("default( -1.5 )", json!(-1.5)),
        ("default(null)", json!(null)),
        ("default({\"a\": {\"b\": 1}})", json!({"a": {"b": 1}})),
        ("default([]) | json", json!("[]")),
        ("json | default(\"late\")", json!("late")),
    ] {
        assert_eq!(
            json_of(json!([format!("{{{{ $.event.data.gone | {filters} }}}}")])),
            json!([expected]),
            "{filters}"
        );
    }
    assert_eq!(
        json_of(json!([
            "{{ $.event.data.nothing | default(1) }}",
            "{{ $.event.data.n | default(1) }}"
        ])),
        json!([1, 5])
    );
}

#[test]
fn a_template_of_one_string_is_text_json_or_a_value() {
    for (source, content_type, expected) in [
        (
            "Run {{ $.event.data.n }} of {{ $.event.data.text }}",
            shape::TEXT,
            "Run 5 of a \"b\"\n{{ $.event.id }}",
        ),
        ("no placeholder", shape::TEXT, "no placeholder"),
        ("{{ $.event.data.n }}", shape::JSON, "5"),
        (" {{ $.event.data.list }}\n", shape::JSON, "[{\"a\":[10,20]}]"),
        (
            "{\"t\": \"{{ $.event.data.text }}\", \"n\": \"{{ $.event.data.n }}\"}",
            shape::JSON,
            "{\"t\":\"a \\\"b\\\"\\n{{ $.event.id }}\",\"n\":5}",
        ),
        ("[ok] {{ $.event.id }}", shape::TEXT, "[ok] evt-7"),
        ("", shape::TEXT, ""),
    ] {
        let rendered = try_render(json!(source)).unwrap();
        assert_eq!(
            (
                rendered.content_type,
                String::from_utf8_lossy(&rendered.body).as_ref()
            ),
            (content_type, expected)
        );
    }
}

#[test]
fn the_whole_event_is_the_event_format() {
    let data = r#"{ "big":123456789012345678901234567890 }"#;
    let event = sample::event_of(&format!(r#"{{"type":"t","data":{data}}}"#), sample::project());
    let template = parse(json!("{{ $.event }}")).unwrap();
    let rendered = template
        .render(&event, &sample::identity(), sample::attempt())
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&rendered.body),
        shape::whole_event(&event)
    );
    assert!(String::from_utf8_lossy(&rendered.body).contains(data));
    let nested = json_of(json!({"e": "{{ event | json }}"}));
    assert!(
        nested["e"]
            .as_str()
            .unwrap()
            .starts_with("{\"type\":\"workflow_failure\"")
    );
}

#[test]
fn braces_can_be_written() {
    assert_eq!(
        json_of(json!(["{{ \"{{\" }} x }}", "{{ '}}' }}", "{ } }}"])),
        json!(["{{ x }}", "}}", "{ } }}"])
    );
}

#[test]
fn what_cannot_work_is_refused_when_parsed() {
    let long_path = format!("{{{{ $.event.data{} }}}}", ".a".repeat(32));
    let filters = format!("{{{{ $.event.data.a{} }}}}", " | json".repeat(9));
    for (text, part) in [
        ("{{ }}", "the placeholder is empty"),
        ("{{", "`{{` at character 1 is never closed"),
        ("{{ $.event.data.a", "`{{` at character 1 is never closed"),
        ("{{ $.event.data.a }", "`{{` at character 1 is never closed"),
        (
            "{{ $.event.id }} and {{ $.event.data.a } and {{ $.event.id }}",
            "`{{` at character 22 is never closed",
        ),
        ("{{ $ }}", "expected `.`"),
        ("{{ $event.a }}", "expected `.`"),
        (
            "{{ events.a }}",
            "a path starts with event, project, destination or delivery",
        ),
        (
            "{{ $.event.mesage }}",
            "event has no member `mesage`; known are type, ",
        ),
        ("{{ $.event.user.id.x }}", "event.user.id has no members"),
        (
            "{{ $.event.workflow.title }}",
            "event.workflow has no member `title`; known are id, name",
        ),
        ("{{ $.event.type.x }}", "event.type has no members; remove `x`"),
        ("{{ $.event[0] }}", "event has no member `[0]`"),
        (
            "{{ project.uid }}",
            "project has no member `uid`; known are id, name",
        ),
        ("{{ destination.name.x }}", "destination.name has no members"),
        ("{{ delivery.number }}", "known are id, attempt, publishedAt"),
        ("{{ $.event.data. }}", "expected a name"),
        ("{{ $.event.data[] }}", "expected a position"),
        ("{{ $.event.data[-1] }}", "expected a position"),
        ("{{ $.event.data[99999999999999999999] }}", "expected a position"),
        ("{{ $.event.data[0 }}", "expected `]`"),
        ("{{ $.event.data['a] }}", "no closing `'`"),
        ("{{ $.event.data[\"a] }}", "add the closing `\"`"),
        (
            "{{ $.event.data.a | upper }}",
            "unknown filter `upper`; known are default and json",
        ),
        ("{{ $.event.data.a | }}", "expected a filter"),
        ("{{ $.event.data.a | default }}", "default needs an argument"),
        ("{{ $.event.data.a | default() }}", "expected a JSON value"),
        ("{{ $.event.data.a | default(\"x\" }}", "expected `)`"),
        ("{{ $.event.data.a | json(1) }}", "json takes no argument"),
        ("{{ $.event.data.a + 1 }}", "expected `|` or `}}` here, not `+`"),
        (
            "{{ $.event.data.my key }}",
            "expected `|` or `}}` here, not `key`",
        ),
        ("{{{ $.event.data.a }}}", "as in $.event.message, not with `{`"),
        (&long_path, "at most 32 segments"),
        (&filters, "at most 8 filters"),
    ] {
        let (pointer, message) = fault(json!({"a/b": [text]}));
        assert_eq!(pointer, "/a~1b/0");
        assert!(message.contains(part), "{text}: {message}");
    }
    let (_, message) = fault(json!({"x": "größe {{ $.event.mesage }}"}));
    assert!(message.ends_with(", at character 10"), "{message}");
    for (text, end) in [
        ("größe\n\n  {{ $.event.mesage }}", ", at line 3, character 6"),
        ("\n\n{{ $.event.mesage }}", ", at line 3, character 4"),
        (
            "a\nb {{ $.event.id",
            "`{{` at line 2, character 3 is never closed; add `}}` after its path, or write `{{ \"{{\" }}` for the \
             braces themselves",
        ),
    ] {
        let (_, message) = fault(json!(text));
        assert!(message.ends_with(end), "{message}");
    }
    let (pointer, message) = fault(json!({"{{ $.event.id }}": 1}));
    assert_eq!(
        (pointer.as_str(), message.contains("names are literal")),
        ("/{{ $.event.id }}", true)
    );
}

#[test]
fn every_fault_is_reported_up_to_a_bound() {
    let faults = parse(json!({"a": "{{ x }}", "b": ["{{ y }}", "{{ $.event.id }}"]})).unwrap_err();
    let pointers: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
    assert_eq!(pointers, ["/a", "/b/0"]);
    assert_eq!(parse(json!(vec!["{{ x }}"; 500])).unwrap_err().len(), MAX_FAULTS);
}

#[test]
fn size_depth_and_number_are_bounded() {
    let nested = |depth: usize| (0..depth).fold(json!("{{ event.id }}"), |inner, _| json!([inner]));
    assert!(parse(nested(32)).is_ok());
    assert!(fault(nested(33)).1.contains("deeper than 32"));
    assert!(parse(nested(32).to_string()).is_ok());
    assert!(fault(nested(33).to_string().into()).1.contains("deeper than 32"));
    assert!(parse(json!("x".repeat(MAX_SOURCE))).is_ok());
    assert!(
        fault(json!("x".repeat(MAX_SOURCE + 1)))
            .1
            .contains("longer than 65536")
    );
    assert!(
        fault(json!(["x".repeat(MAX_SOURCE)]))
            .1
            .contains("longer than 65536")
    );
    assert!(parse(json!(vec!["{{event.id}}"; 1000])).is_ok());
    assert!(
        parse(json!(vec!["{{event.id}}"; 1001])).unwrap_err()[0]
            .message
            .contains("more than 1000")
    );
    assert!(
        fault(json!("{{event.id}} ".repeat(1001)))
            .1
            .contains("more than 1000")
    );
}

#[test]
fn output_is_bounded() {
    let event = sample::event(&json!({"type": "t", "data": {"big": "x".repeat(300_000)}}));
    let render = |count: usize| {
        let template = parse(json!(vec!["{{ $.event.data.big }}"; count])).unwrap();
        template.render(&event, &sample::identity(), sample::attempt())
    };
    assert!(render(3).is_ok());
    assert_eq!(render(4), Err(RenderError::TooLarge(MAX_OUTPUT)));
    assert_eq!(render(1000), Err(RenderError::TooLarge(MAX_OUTPUT)));
}

#[test]
fn absent_facts_of_the_project_are_missing() {
    let facts = ProjectFacts {
        environment: None,
        account_id: None,
        account_name: None,
        ..sample::project()
    };
    let event = sample::event_of(r#"{"type":"t"}"#, facts);
    for path in ["environment", "account", "account.id", "user", "cloudEvent"] {
        let template = parse(json!(format!("{{{{ $.event.{path} }}}}"))).unwrap();
        assert!(
            template
                .render(&event, &sample::identity(), sample::attempt())
                .is_err(),
            "{path}"
        );
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[{} $.|a-z\"'\\[\\]()]{0,24}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn literal_trees_render_to_themselves(tree in any_json()) {
        prop_assume!(!tree.to_string().contains("{{") && !tree.is_string());
        prop_assert_eq!(body(tree.clone()), tree.to_string());
    }

    #[test]
    fn parsing_never_panics(tree in any_json()) {
        let _ = parse(tree);
    }

    #[test]
    fn no_placeholder_panics(bytes in prop::collection::vec(any::<u8>(), 0..48), head in prop::sample::select(vec!["", "$.event.", "event.data[", "event.id | ", "event.id | default("])) {
        let text = format!("{{{{ {head}{}", String::from_utf8_lossy(&bytes));
        let _ = parse(json!([text]));
        let _ = parse(json!(text));
    }

    #[test]
    fn hostile_values_leave_the_body_valid_json(text in any::<String>().prop_filter("no NUL", |text| !text.contains('\0'))) {
        let event = sample::event(&json!({"type": "t", "message": text, "data": {"t": text, "o": {&text: [text]}}}));
        let template = parse(json!({
            "a": "{{ $.event.data.t }}", "b": "<{{ $.event.message }}>", "c": "{{ $.event.data.o }}",
            "d": "{{ $.event.data.o | json }}", "e": "{{ $.event }}",
        })).unwrap();
        let rendered = template.render(&event, &sample::identity(), sample::attempt()).unwrap();
        let value: Value = serde_json::from_slice(&rendered.body).unwrap();
        prop_assert_eq!(&value["a"], &json!(text));
        prop_assert_eq!(&value["b"], &json!(format!("<{text}>")));
        prop_assert_eq!(&value["c"], &json!({&text: [&text]}));
        prop_assert_eq!(value["d"].as_str(), Some(&*json!({&text: [&text]}).to_string()));
    }
}
