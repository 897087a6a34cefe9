//! Which letters an event becomes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::api::v1alpha1::EventDestinationSpec;
use crate::domain::catalogue::EVENT_TYPES;
use crate::domain::destination::{Destination, Reference, References, Target, value_references};
use crate::domain::egress::EgressPolicy;
use crate::domain::event::sample;
use crate::domain::secret::Secret;

fn read(more: &Value, secret: &[(&str, &str)]) -> Result<Destination, String> {
    let mut email = json!({"to": ["Ops <ops@x.example>"], "smtpRef": {"name": "mail"}});
    let members = email.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    members.retain(|_, value| !value.is_null());
    let spec: EventDestinationSpec =
        serde_json::from_value(json!({"events": ["*"], "email": email})).unwrap();
    let secret: BTreeMap<_, _> = secret.iter().copied().collect();
    let found = value_references("ops", &spec).into_iter().map(|(_, key)| {
        let value = secret.get(key.key.as_str());
        let missing = if secret.is_empty() {
            Reference::NoObject
        } else {
            Reference::NoKey
        };
        let found = value.map_or(missing, |text| {
            Reference::Found(Secret::new(text.as_bytes().to_vec()))
        });
        (key, found)
    });
    let references: References = found.collect();
    Destination::try_from_spec(sample::identity(), &spec, &references, &EgressPolicy::default())
        .map_err(|faults| faults.to_string())
}

const SERVER: &[(&str, &str)] = &[
    ("host", "smtp.x.example"),
    ("from", "Postrider <no-reply@x.example>"),
];

fn email(more: &Value) -> Email {
    match read(more, SERVER).unwrap().target {
        Target::Email(email) => *email,
        Target::Webhook(_) => panic!(),
    }
}

fn mail(more: &Value, event: &Value) -> Result<Mail, PrepareError> {
    let event = sample::event(event);
    prepare(
        &email(more),
        &sample::identity(),
        &event,
        sample::attempt(),
        &Settled::default(),
    )
}

fn letter(more: &Value, event: &Value) -> Letter {
    mail(more, event).unwrap().letters.remove(0)
}

#[test]
fn every_fault_has_its_path() {
    for (more, secret, expected) in [
        (json!({"to": ["ops"]}), SERVER, "spec.email.to[0]: "),
        (
            json!({"cc": ["a@x.example", "b@x.example\r\nBcc: c@x.example"]}),
            SERVER,
            "spec.email.cc[1]: ",
        ),
        (json!({"replyTo": ["@"]}), SERVER, "spec.email.replyTo[0]: "),
        (json!({"from": "me"}), SERVER, "spec.email.from: "),
        (
            json!({"subject": "{{ $.event.gone"}),
            SERVER,
            "spec.email.subject: ",
        ),
        (json!({"html": "{{ $.nothing }}"}), SERVER, "spec.email.html: "),
        (
            json!({}),
            &[("host", "x.example")][..],
            "spec.email.from: the SMTP server names no sender",
        ),
        (
            json!({}),
            &[],
            "spec.email.smtpRef: Secret \"mail\" does not exist; create it with key \"host\"",
        ),
        (
            json!({}),
            &[("from", "a@b.example")],
            "spec.email.smtpRef: Secret \"mail\"",
        ),
        (
            json!({"smtpRef": null}),
            &[],
            "spec.email.smtpRef: Postrider was installed without an SMTP server",
        ),
        (
            json!({}),
            &[("host", "10.0.0.1"), ("security", "SSL")],
            "Secret \"mail\" key \"security\": must be one of StartTLS, TLS, None",
        ),
    ] {
        let faults = read(&more, secret).unwrap_err();
        assert!(faults.contains(expected), "{more}: {faults}");
    }
}

#[test]
fn a_retry_is_the_same_mail() {
    let event = sample::event(&json!({"id": "e-1", "type": "workflow_failure", "data": {}}));
    let made = |number| {
        let attempt = Attempt {
            number,
            now: sample::at("2026-02-01T00:00:00Z"),
        };
        format!(
            "{:?}",
            prepare(
                &email(&json!({})),
                &sample::identity(),
                &event,
                attempt,
                &Settled::default()
            )
            .unwrap()
        )
    };
    assert_eq!(made(1), made(7));
}

#[test]
fn a_mail_says_what_it_is() {
    let letter = letter(
        &json!({}),
        &json!({"id": "e-1", "type": "run_failed", "data": {}}),
    );
    let delivery = letter
        .headers
        .iter()
        .find(|(name, _)| *name == "X-Postrider-Delivery-Id")
        .unwrap()
        .1
        .clone();
    assert_eq!(letter.message_id, format!("<{delivery}@x.example>"));
    assert_eq!(letter.date, sample::at(sample::ACCEPTED));
    for header in [
        ("Auto-Submitted", "auto-generated"),
        ("List-Id", "<ops.shop.x.example>"),
        ("X-Postrider-Event-Type", "run_failed"),
        ("X-Postrider-Event-Id", "e-1"),
    ] {
        assert!(
            letter
                .headers
                .iter()
                .any(|(name, value)| (*name, value.as_str()) == header),
            "{header:?}"
        );
    }
}

#[test]
fn each_recipient_gets_a_mail_of_its_own_when_asked() {
    let more = json!({"to": ["a@x.example", "B <b@x.example>"], "cc": ["c@x.example", "A <a@x.example>"]});
    let event = json!({"type": "x", "data": {}});
    let one = mail(&more, &event).unwrap();
    assert_eq!(one.letters.len(), 1);
    assert_eq!(
        (
            one.letters[0].recipients.len(),
            one.letters[0].to.len(),
            one.letters[0].cc.len()
        ),
        (3, 2, 2)
    );
    let mut each = more;
    each["perRecipient"] = json!(true);
    let each = mail(&each, &event).unwrap();
    let ids: std::collections::BTreeSet<_> = each.letters.iter().map(|letter| &letter.message_id).collect();
    assert_eq!((each.letters.len(), ids.len()), (3, 3));
    assert!(
        each.letters
            .iter()
            .all(|letter| letter.to.len() == 1 && letter.cc.is_empty())
    );
}

#[test]
fn templates_render_and_html_is_escaped() {
    let more = json!({
        "subject": "{{ $.event.type }}: {{ $.event.data.what }}",
        "text": "{\"not\": \"json\"} {{ $.event.data.what }}",
        "html": "<p title=\"{{ $.event.data.what }}\">{{ $.event.data.count }}</p>",
    });
    let event = json!({"type": "t", "data": {"what": "<b>\"x\" & 'y'\r\nBcc: evil@x.example", "count": 3}});
    let letter = letter(&more, &event);
    assert_eq!(&*letter.subject, "t: <b>\"x\" & 'y' Bcc: evil@x.example");
    assert_eq!(
        letter.text.as_deref(),
        Some("{\"not\": \"json\"} <b>\"x\" & 'y'\r\nBcc: evil@x.example")
    );
    assert_eq!(
        letter.html.as_deref(),
        Some("<p title=\"&lt;b&gt;&quot;x&quot; &amp; &#39;y&#39;\r\nBcc: evil@x.example\">3</p>")
    );
}

#[test]
fn one_part_is_sent_when_one_is_given() {
    let event = json!({"type": "t", "data": {}});
    let text = letter(&json!({"text": "a"}), &event);
    assert_eq!((text.text.as_deref(), text.html), (Some("a"), None));
    let html = letter(&json!({"html": "<p>a</p>"}), &event);
    assert_eq!((html.text, html.html.as_deref()), (None, Some("<p>a</p>")));
}

#[test]
fn a_template_that_meets_nothing_says_where() {
    for (field, expected) in [
        (
            "subject",
            "spec.email.subject: the event has no $.event.data.gone; publish it or add `| default(…)`",
        ),
        (
            "html",
            "spec.email.html: the event has no $.event.data.gone; publish it or add `| default(…)`",
        ),
    ] {
        let error = mail(
            &json!({field: "{{ $.event.data.gone }}"}),
            &json!({"type": "t", "data": {}}),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    let list = json!({"text": "{{ $.event.data.list }}"});
    let error = mail(&list, &json!({"type": "t", "data": {"list": []}})).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("spec.email.text: $.event.data.list is an array"),
        "{error}"
    );
}

#[test]
fn default_subjects_tell_what_happened() {
    let sync = json!({"id": "s-1", "integration": "googledrive"});
    for (event, subject) in [
        (
            json!({"type": "workflow_failure", "user": {"id": "u1"}, "workflow": {"id": "w", "name": "Import"}}),
            "Workflow “Import“ failed for User u1",
        ),
        (
            json!({"type": "sync_complete", "sync": sync, "data": {"numRecords": 7, "model": "files"}}),
            "Sync of googledrive completed: 7 files",
        ),
        (
            json!({"type": "sync_errored", "sync": sync, "error": {"message": "rate limit"}}),
            "Sync of googledrive failed: rate limit",
        ),
        (
            json!({"type": "sync_errored", "integration": {"type": "hubspot"}, "error": {"message": "rate limit"}}),
            "Sync of hubspot failed: rate limit",
        ),
        (
            json!({"type": "tenant_created", "data": {"tenant_id": 7, "tenant_name": "Globex", "integration_name": "CRM"}}),
            "Tenant Globex of CRM was created",
        ),
        (
            json!({"type": "workflowExecution.failed", "data": {"workflowId": "w1", "error": {"message": "boom"}}}),
            "Workflow w1 failed: boom",
        ),
        (json!({"type": "invoice.paid"}), "Event invoice.paid occurred"),
        (
            json!({"type": "invoice.paid", "message": "Paid\n in full"}),
            "Paid in full",
        ),
    ] {
        assert_eq!(
            &*letter(&json!({}), &event).subject,
            format!("[Test Project Name] {subject}")
        );
    }
}

#[test]
fn the_examples_of_the_catalogue_have_subjects_that_tell_what_happened() {
    let subjects = EVENT_TYPES.map(|entry| {
        let subject = letter(&json!({}), &entry.definition().example).subject;
        subject.replace("[Test Project Name] ", "")
    });
    assert_eq!(
        subjects,
        [
            "Workflow “Test Workflow Name“ failed for User user-7",
            "Connected User “user-7“ credential for slack expired and can not be refreshed.",
            "Sync of googledrive completed: 1000 files",
            "Sync of googledrive failed: the credential was revoked",
            "files dd7c2d4e-0000-5000-8000-2f1a4b9c6e11 was created in googledrive",
            "files dd7c2d4e-0000-5000-8000-2f1a4b9c6e11 was updated in googledrive",
            "files dd7c2d4e-0000-5000-8000-2f1a4b9c6e11 was deleted in googledrive",
            "A record of googledrive could not be processed: permissions could not be read",
            "Integration CRM was created",
            "Tenant Globex of CRM was created",
            "Tenant Globex of CRM was archived",
            "Initech updated integration CRM",
            "Run 99 of CRM failed for tenant Globex",
            "Workflow wf-1 started",
            "Workflow wf-1 executed action act-1",
            "Workflow wf-1 completed",
            "Workflow wf-1 waits for a trigger",
            "Workflow wf-1 was canceled",
            "Workflow wf-1 failed: it broke",
            "Destination slack keeps failing: 50 % of the way to being disabled",
            "Destination slack was disabled: AutoDisabled",
            "Destination slack works again",
            "3 deliveries to destination slack were given up",
        ]
    );
}

#[test]
fn every_built_in_type_has_words_even_without_facts() {
    for entry in EVENT_TYPES {
        let letter = letter(&json!({}), &json!({"type": entry.name, "data": {}}));
        assert!(
            letter.subject.len() > "[Test Project Name] ".len() + 8,
            "{}",
            letter.subject
        );
        let (text, html) = (letter.text.unwrap(), letter.html.unwrap());
        assert!(text.contains(entry.name) && html.contains(entry.name));
    }
}

#[test]
fn the_default_text_fits_a_terminal_and_shows_the_facts() {
    let event = json!({
        "id": "e-1", "type": "workflow_failure", "timestamp": "2026-01-31T08:00:00Z",
        "user": {"id": "u1"}, "integration": {"id": "i", "type": "slack"}, "workflow": {"id": "w", "name": "Import"},
        "data": {"error": "rate limit", "executionUrl": "https://app.example/x", "stepExecution": {"stepId": "s"}},
    });
    let text = letter(&json!({}), &event).text.unwrap();
    assert_eq!(
        &*text,
        "Workflow “Import“ failed for User u1\n\
         \n\
         Event:            workflow_failure\n\
         Time:             2026-01-31 08:00:00 UTC\n\
         Error:            rate limit\n\
         Project:          Test Project Name\n\
         Environment:      production\n\
         User:             u1\n\
         Integration:      slack (i)\n\
         Workflow:         Import (w)\n\
         Account:          Acme Inc\n\
         Execution url:    https://app.example/x\n\
         \n\
         Details:\n\
         \n\
         {\n  \"stepExecution\": {\n    \"stepId\": \"s\"\n  }\n}\n\
         \n\
         -- \n\
         Sent by Postrider for EventDestination shop/ops.\n\
         Event e-1.\n"
    );
}

#[test]
fn a_hostile_event_adds_no_markup_and_no_length() {
    let long = "x".repeat(200_000);
    let event = json!({
        "type": "t", "message": "<script>alert(1)</script>",
        "data": {
            "a\"><img src=x>": "javascript:alert(1)", "link": "https://x.example/?a=\"><script>",
            "long": long, "nested": {"long": long, "tag": "</pre><script>"}, "rtl": "\u{202e}txt.exe",
        },
    });
    let letter = letter(&json!({}), &event);
    let (text, html) = (letter.text.unwrap(), letter.html.unwrap());
    assert!(
        !html.contains("<script") && !html.contains("<img") && !html.contains("href=\"javascript"),
        "{html}"
    );
    assert!(
        html.len() < 64 * 1024 && text.len() < 64 * 1024,
        "{} {}",
        html.len(),
        text.len()
    );
    assert!(!text.contains('\u{202e}') && text.contains("more bytes are left out"));
    assert!(html.contains("<a href=\"https://x.example/?a=&quot;&gt;&lt;script&gt;\">"));
}

#[test]
fn nothing_of_an_event_reorders_text_or_controls_a_terminal() {
    let nasty = "a\u{202e}b\u{2066}c\u{61c}d\u{9b}31me\u{7f}f\u{85}g\u{2028}h\u{feff}i";
    let nested = json!({(nasty): [nasty, {"deep": nasty}]});
    let event = json!({
        "type": "t", "message": nasty, "user": {"id": "u"}, "error": {"message": nasty, "code": nasty},
        "data": {"scalar": nasty, (nasty): nasty, "nested": nested},
    });
    let letter = letter(&json!({}), &event);
    for body in [&letter.text.unwrap(), &letter.html.unwrap()] {
        let found = body.chars().find(|one| {
            (one.is_control() && *one != '\n') || "\u{202e}\u{2066}\u{61c}\u{2028}\u{feff}".contains(*one)
        });
        assert_eq!(found, None, "{body}");
        // The details are JSON still, and tell what was there.
        assert!(
            body.contains("a\\u202eb\\u2066c\\u061cd\\u009b31me\\u007ff\\u0085g\\u2028h\\ufeffi"),
            "{body}"
        );
    }
}

#[test]
fn a_long_subject_is_cut_and_says_so() {
    let letter = letter(
        &json!({}),
        &json!({"type": "t", "message": "é".repeat(500), "data": {}}),
    );
    assert_eq!(letter.subject.chars().count(), MAX_SUBJECT);
    assert!(letter.subject.ends_with('…'));
}

#[test]
fn the_delivery_log_has_a_mails_headers_without_addresses_and_subject() {
    use crate::domain::delivery_log::{are_shared, mail_headers};
    let to: Vec<_> = (0..50)
        .map(|n| format!("User {n} <u{n}@{}.example>", "y".repeat(60)))
        .collect();
    let event = json!({"type": "workflow_failure", "data": {}});
    let more = json!({"cc": ["Zo\u{e9} <z@y.example>"], "subject": "of {{ event.type }}"});
    let stored = mail_headers(&mail(&more, &event).unwrap());
    let id = letter(&more, &event).message_id;
    for line in [
        &*format!("message-id: {id}"),
        "subject: [redacted]",
        "from: [redacted]@x.example",
        "to: [redacted]@x.example",
        "cc: [redacted]@y.example",
        "auto-submitted: auto-generated",
    ] {
        assert!(stored.lines().any(|other| other == line), "{line}: {stored}");
    }
    for secret in ["ops@", "z@", "no-reply", "workflow_failure"] {
        assert!(!stored.contains(secret), "{secret}: {stored}");
    }
    assert!(!are_shared(&stored));
    let long = mail_headers(&mail(&json!({"to": to}), &event).unwrap());
    assert!(long.len() < 4200, "{}", long.len());
}
