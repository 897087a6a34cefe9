//! Fuzz targets of what reads other people's bytes: templates, filters, events, CloudEvents, `Retry-After`, signatures.
//!
//! `cargo test` runs each for a moment with random input; `make fuzz` runs them for long, guided by coverage. A target
//! takes bytes. [`text`] makes text of them out of the words of a grammar, so that random bytes get past its beginning.

use std::panic::AssertUnwindSafe;

use bolero::check;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::event::parse::{parse, places};
use super::event::{Event, sample};
use super::filter::{Facts, Filter};
use super::id::EventId;
use super::outcome::retry_after;
use super::signature::{Outgoing, Received, Signer, WEBHOOK_ID, WEBHOOK_SIGNATURE, WEBHOOK_TIMESTAMP};
use super::template::field::{self, HeaderTemplate};
use super::template::{MAX_OUTPUT, Template};

/// Text of bytes: one below 128 is an ASCII character, any other the word of that number.
fn text(bytes: &[u8], words: &[&str]) -> String {
    let mut text = String::new();
    for &byte in bytes {
        match byte.checked_sub(128) {
            None => text.push(char::from(byte)),
            Some(number) => text.push_str(words[usize::from(number) % words.len()]),
        }
    }
    text
}

/// An event whose data is hostile to whoever puts it somewhere.
fn hostile() -> Event {
    sample::event(&json!({
        "id": "evt-7", "type": "workflow_failure", "user": {"id": "u\"1"}, "sync": {"id": "s"},
        "data": {
            "a": "<!channel> {{ $.event.id }} \"\\ \r\n %2e/../", "n": -1.5e300, "deep": [[[[[{"x": [1, 2, null]}]]]]],
            "ü": "\u{1F600}\u{202E}", "": {"": ""}, "list": [1, "2", {"sku": "m"}], "total": 12,
        },
    }))
}

#[test]
fn fuzz_template() {
    const WORDS: [&str; 24] = [
        "{{", "}}", " ", "$.", "event", ".data", ".a", ".n", ".deep", "[0]", "[\"ü\"]", "['']", "|",
        "default(", ")", "json", "'text'", "\"s\"", "null", "{\"k\":", "}", "[", "]", ".list",
    ];
    let event = hostile();
    check!().for_each(|bytes: &[u8]| {
        let source = text(bytes, &WORDS);
        let tree: Value = serde_json::from_str(&source).unwrap_or_else(|_| Value::String(source.clone()));
        if let Ok(template) = Template::parse(&tree)
            && let Ok(rendered) = template.render(&event, &sample::identity(), sample::attempt())
        {
            assert!(rendered.body.len() <= MAX_OUTPUT);
            if !template.is_text() {
                serde_json::from_slice::<Value>(&rendered.body).expect("a body that is no text is JSON");
            }
        }
        if let Ok(template) = HeaderTemplate::parse("f", &source) {
            drop(template.render(&event, &sample::identity(), sample::attempt()));
        }
        let url = format!("https://hooks.example/{source}");
        if let Ok((marked, taken_out)) = field::take_out(&url)
            && let Ok(marked) = url::Url::parse(&marked)
            && let Ok(template) = taken_out.put_back("f", &marked)
            && let Ok(made) = template.render(&event, &sample::identity(), sample::attempt())
        {
            assert_eq!(made.host_str(), Some("hooks.example"), "{source:?}");
        }
    });
}

#[test]
fn fuzz_filter() {
    const WORDS: [&str; 32] = [
        "event",
        ".data",
        ".total",
        ".list",
        "user",
        ".id",
        "project",
        "has(",
        "(",
        ")",
        "&&",
        "||",
        "!",
        "==",
        ">",
        "+",
        "'a'",
        "1",
        ".exists(x, ",
        ".all(x, ",
        ".map(x, ",
        "x",
        ".size()",
        ".contains(",
        ".matches(",
        "[",
        "]",
        "in",
        "?",
        ":",
        "{",
        "}",
    ];
    let facts = AssertUnwindSafe(Facts::of(&hostile()));
    check!().for_each(|bytes: &[u8]| {
        let facts = &*facts;
        if let Ok(filter) = Filter::parse(&text(bytes, &WORDS)) {
            let first = filter.matches(facts);
            assert_eq!(
                first,
                filter.matches(facts),
                "a filter says the same of the same event"
            );
        }
    });
}

const JSON_WORDS: [&str; 32] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"type\"",
    "\"x.y\"",
    "\"data\"",
    "\"id\"",
    "\"user\"",
    "\"timestamp\"",
    "1",
    "-1e400",
    "null",
    "true",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "\"specversion\"",
    "\"1.0\"",
    "\"source\"",
    "\"/s\"",
    "\"data_base64\"",
    "\"aGk=\"",
    "\"time\"",
    "\"2026-01-31T08:15:31Z\"",
    "\"subject\"",
    "\"sync\"",
    "\"error\"",
    "\"message\"",
    "\"extension\"",
    "\"workflow\"",
];

/// Whatever is accepted can be kept and shown; whatever is refused says where.
fn parses(body: &[u8], headers: &HeaderMap) {
    match parse(body, headers) {
        Ok(drafts) => {
            for draft in drafts {
                let event = sample::accepted(draft, sample::project());
                let template = Template::parse(&json!("{{ $.event }}")).expect("it is a template");
                let rendered = template.render(&event, &sample::identity(), sample::attempt());
                let body = rendered.expect("an accepted event can be shown").body;
                serde_json::from_slice::<Value>(&body).expect("it is shown as JSON");
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let _ = places(body, headers);
}

#[test]
fn fuzz_event() {
    check!().for_each(|bytes: &[u8]| {
        let headers = sample::headers("application/json");
        parses(bytes, &headers);
        parses(text(bytes, &JSON_WORDS).as_bytes(), &headers);
    });
}

#[test]
fn fuzz_cloud_event() {
    check!().for_each(|bytes: &[u8]| {
        let body = text(bytes, &JSON_WORDS);
        for kind in [
            "application/cloudevents+json",
            "application/cloudevents-batch+json",
        ] {
            parses(body.as_bytes(), &sample::headers(kind));
        }
        let mut headers = sample::headers("application/json");
        let (value, rest) = bytes.split_at(bytes.len() / 2);
        for name in [
            "ce-specversion",
            "ce-id",
            "ce-source",
            "ce-type",
            "ce-time",
            "ce-x",
        ] {
            let plain = if name == "ce-specversion" { "1.0" } else { "x" };
            let value = HeaderValue::from_bytes(value).unwrap_or(HeaderValue::from_static(plain));
            headers.insert(HeaderName::from_static(name), value);
        }
        parses(rest, &headers);
        headers.insert("ce-specversion", HeaderValue::from_static("1.0"));
        parses(text(rest, &JSON_WORDS).as_bytes(), &headers);
    });
}

#[test]
fn fuzz_retry_after() {
    const WORDS: [&str; 12] = [
        "Sat, ",
        "31 ",
        "Jan ",
        "2026 ",
        "08:15:31",
        " GMT",
        "120",
        "-",
        "9",
        ".",
        "Saturday, 31-Jan-26 ",
        "+0100",
    ];
    let now = sample::at("2026-01-31T08:15:31Z");
    check!().for_each(|bytes: &[u8]| {
        let _ = retry_after(&text(bytes, &WORDS), now);
    });
}

#[test]
fn fuzz_signature_headers() {
    const WORDS: [&str; 10] = [
        "v1,",
        "v1a,",
        " ",
        "=",
        "t=",
        "v1=",
        "sha256=",
        "1769847331",
        ",",
        "AAAA",
    ];
    let signer = Signer::standard(b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("it is a key");
    let id = EventId::parse("evt_1").expect("it is an id");
    let now = sample::at("2026-01-31T08:15:31Z");
    let (url, method) = ("https://hooks.example/in", "POST");
    let verifies = |headers: &HeaderMap, body: &[u8]| {
        let received = Received {
            headers,
            body,
            url,
            method,
        };
        signer.verify(&received, now)
    };
    check!().for_each(|bytes: &[u8]| {
        let (value, body) = bytes.split_at(bytes.len() / 2);
        let value = HeaderValue::from_str(&text(value, &WORDS)).unwrap_or(HeaderValue::from_static("v1,"));
        let mut headers = HeaderMap::new();
        let outgoing = Outgoing {
            id: &id,
            now,
            body,
            url,
            method,
        };
        signer.sign(&outgoing, &mut headers);
        headers.insert(WEBHOOK_ID, HeaderValue::from_static("evt_1"));
        headers.insert(WEBHOOK_TIMESTAMP, HeaderValue::from(now.as_second()));
        assert_eq!(verifies(&headers, body), Ok(()), "what was signed verifies");
        for name in [WEBHOOK_SIGNATURE, WEBHOOK_ID, WEBHOOK_TIMESTAMP] {
            let mut forged = headers.clone();
            let genuine = forged.insert(&name, value.clone());
            // Nobody can guess a signature, and id and time are signed as they are written.
            if genuine.as_ref() != Some(&value) {
                assert!(verifies(&forged, body).is_err(), "{name}: {value:?}");
            }
        }
        let longer = [body, &[0]].concat();
        assert!(
            verifies(&headers, &longer).is_err(),
            "another body does not verify"
        );
    });
}
