//! What stands in headers and URLs, what is refused beforehand, and that hostile events stay in their place.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::event::sample;

fn event(user: &str) -> Event {
    sample::event(&json!({
        "id": "evt-7", "type": "workflow_failure", "data": {"n": 5, "list": [], "name": user},
    }))
}

fn header(value: &str, user: &str) -> Result<String, String> {
    let template = HeaderTemplate::parse("spec.webhook.headers[2].value", value)
        .map_err(|faults| faults.into_iter().map(|fault| fault.message).collect::<String>())?;
    let value = template.render(&event(user), &sample::identity(), sample::attempt());
    let value = value.map_err(|error| error.to_string())?;
    Ok(value.to_str().unwrap().to_owned())
}

fn template(url: &str) -> Result<UrlTemplate, String> {
    let (marked, taken) = take_out(url)?;
    let mut marked = Url::parse(&marked).map_err(|error| error.to_string())?;
    marked.set_fragment(None);
    taken.put_back("spec.webhook.url", &marked)
}

fn url(url: &str, user: &str) -> Result<String, String> {
    let url = template(url)?.render(&event(user), &sample::identity(), sample::attempt());
    url.map(Into::into).map_err(|error| error.to_string())
}

const USER: &str = "{{ $.event.data.name }}";

#[test]
fn a_header_is_made_of_the_event() {
    for (value, expected) in [
        ("{{ $.event.type }}", "workflow_failure"),
        (
            "run {{ event.id }}, try {{ delivery.attempt }}",
            "run evt-7, try 1",
        ),
        ("{{ $.event.data.n }}", "5"),
        ("{{ $.event.data.none | default('none') }}", "none"),
        ("{{ $.event.data.list | json }}", "[]"),
    ] {
        assert_eq!(header(value, "Ann").as_deref(), Ok(expected), "{value}");
    }
}

#[test]
fn what_an_event_brings_cannot_end_a_header() {
    for (user, expected) in [
        ("Ann\r\nX-Evil: 1", "Ann  X-Evil: 1"),
        ("a\u{1}b\u{7f}c\td", "a b c d"),
        ("Jürgen ✓", "J%C3%BCrgen %E2%9C%93"),
        ("  padded ", "padded"),
    ] {
        assert_eq!(header(USER, user).as_deref(), Ok(expected));
    }
}

#[test]
fn a_header_that_cannot_be_made_names_its_field() {
    for (value, user, expected) in [
        (
            "{{ $.event.data.none }}",
            "",
            "spec.webhook.headers[2].value: the event has no $.event.data.none; publish it or add `| default(…)`",
        ),
        (
            "{{ $.event.data.list }}",
            "",
            "spec.webhook.headers[2].value: $.event.data.list is an array and cannot stand inside text; add `| json`",
        ),
        (
            USER,
            "x".repeat(4097).as_str(),
            "spec.webhook.headers[2].value: the value would be over 4096 bytes; send less of the event",
        ),
    ] {
        assert_eq!(header(value, user).unwrap_err(), expected);
    }
}

#[test]
fn path_and_query_are_made_of_the_event() {
    for (source, user, expected) in [
        (
            "https://h.example/in/{{ $.event.type }}?user={{ $.event.data.name }}&n={{ event.data.n }}",
            "Ann Lee",
            "https://h.example/in/workflow_failure?user=Ann%20Lee&n=5",
        ),
        (
            "https://h.example:8443/{{ event.id }}",
            "",
            "https://h.example:8443/evt-7",
        ),
        ("https://H.example?{{ event.id }}", "", "https://h.example/?evt-7"),
        (
            "https://h.example/a%20b/{{ event.id }}/ü",
            "",
            "https://h.example/a%20b/evt-7/%C3%BC",
        ),
        (
            "https://h.example/u/{{ $.event.data.name }}/",
            "",
            "https://h.example/u//",
        ),
    ] {
        assert_eq!(url(source, user).as_deref(), Ok(expected), "{source}");
    }
}

#[test]
fn what_an_event_brings_stays_in_its_segment() {
    for (user, expected) in [
        ("../admin", "https://h.example/u/..%2Fadmin/in"),
        ("a?b#c&d=e;f", "https://h.example/u/a%3Fb%23c%26d%3De%3Bf/in"),
        ("a\\b\r\nc%2e", "https://h.example/u/a%5Cb%0D%0Ac%252e/in"),
        ("@evil.example:80", "https://h.example/u/%40evil.example%3A80/in"),
        ("ü", "https://h.example/u/%C3%BC/in"),
    ] {
        let source = format!("https://h.example/u/{USER}/in");
        assert_eq!(url(&source, user).as_deref(), Ok(expected));
    }
}

#[test]
fn a_url_that_would_lead_elsewhere_is_not_made() {
    for (source, user) in [
        ("https://h.example/u/{{ $.event.data.name }}/in", ".."),
        ("https://h.example/u/{{ $.event.data.name }}", "."),
        ("https://h.example/u/.{{ $.event.data.name }}?q", "."),
        ("https://h.example/u/%2e{{ $.event.data.name }}/in", "."),
    ] {
        let message = url(source, user).unwrap_err();
        assert!(
            message.starts_with("spec.webhook.url: a segment of the path would be"),
            "{message}"
        );
    }
    let long = "x".repeat(MAX_URL);
    let message = url("https://h.example/{{ $.event.data.name }}", &long).unwrap_err();
    assert_eq!(
        message,
        "spec.webhook.url: the value would be over 8192 bytes; send less of the event"
    );
}

#[test]
fn placeholders_stand_in_path_and_query_only() {
    for source in [
        "https://{{ $.event.data.name }}/in",
        "https://h.{{ event.id }}.example/in",
        "https://h.example:{{ event.data.n }}/in",
        "{{ event.data.url }}",
        "https://h.example/in#{{ event.id }}",
        "http:///{{ event.id }}/in",
        "http:/{{ event.id }}/in",
    ] {
        assert_eq!(template(source).unwrap_err(), ELSEWHERE, "{source}");
    }
}

#[test]
fn faults_of_placeholders_are_told_with_their_place() {
    for (source, word) in [
        ("https://h.example/{{ $.event.idd }}", "idd"),
        ("https://h.example/{{ $.event.id", "never closed"),
        (
            "https://h.example/postrider-placeholder-0~/{{ event.id }}",
            "must not hold",
        ),
    ] {
        let message = template(source).unwrap_err();
        assert!(message.contains(word), "{message}");
    }
    let message = header("{{ $.evnt.id }}", "").unwrap_err();
    assert!(message.contains("at character"), "{message}");
}

proptest! {
    #[test]
    fn no_event_changes_origin_or_shape_of_a_url(user in any::<String>()) {
        let source = "https://h.example:8443/a/{{ $.event.data.name }}/b?c={{ $.event.data.name }}&d=1";
        if let Ok(made) = url(source, &user) {
            let made = Url::parse(&made).unwrap();
            prop_assert_eq!(made.origin().ascii_serialization(), "https://h.example:8443");
            let segments: Vec<_> = made.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 3);
            let pairs: Vec<_> = made.query_pairs().into_owned().collect();
            prop_assert_eq!(pairs, [("c".to_owned(), user), ("d".to_owned(), "1".to_owned())]);
            prop_assert!(made.fragment().is_none());
        } else {
            prop_assert!(matches!(user.as_str(), "." | "..") || user.len() > MAX_URL / 8);
        }
    }

    #[test]
    fn every_event_makes_a_header_or_a_fault(user in any::<String>()) {
        let made = header("a {{ $.event.data.name }} b", &user);
        prop_assert!(made.is_ok() || user.len() > MAX_HEADER / 4);
    }
}
