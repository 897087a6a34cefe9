//! The rules of `spec.notifications`, on create and on update.

use serde_json::json;

use super::rules::{ACCEPTED, MAILBOX, NAME, URL, check};

const TYPE: &str = "use letters, digits, \"_\", \".\" and \"-\"";
const ONE_URL: &str = "set exactly one of url and urlFrom";

const NOTIFICATIONS: &[(&str, &str)] = &[
    ("{}", ACCEPTED),
    (
        "{ownerEmail: dev@a.example, primaryContact: [ops@a.example, 'Ops Team <ops@b.example>'], smtpRef: {name: smtp}}",
        ACCEPTED,
    ),
    (
        "{ownerMail: a@b.example}",
        "unknown field \"spec.notifications.ownerMail\"",
    ),
    // Owner and contacts.
    ("{ownerEmail: jürgen@bücher.example}", ACCEPTED),
    ("{ownerEmail: ''}", "should be at least 3 chars long"),
    ("{ownerEmail: dev}", MAILBOX),
    ("{ownerEmail: \"a@b.example\\nBcc: c@d.example\"}", MAILBOX),
    ("{ownerEmail: LONG2048}", "Too long"),
    ("{ownerEmail: [a@b.example]}", "must be of type string"),
    ("{primaryContact: []}", ACCEPTED),
    ("{primaryContact: [a@b.example, nobody]}", MAILBOX),
    ("{primaryContact: ['a@']}", "should be at least 3 chars long"),
    ("{primaryContact: a@b.example}", "must be of type array"),
    ("{primaryContact: MAILBOXES10}", ACCEPTED),
    (
        "{primaryContact: MAILBOXES11}",
        "Too many: 11: must have at most 10 items",
    ),
    ("{smtpRef: {}}", "spec.notifications.smtpRef.name: Required value"),
    ("{smtpRef: {name: ../x}}", NAME),
    // The shared URL.
    ("{webhook: {url: 'https://hooks.example.com/in'}}", ACCEPTED),
    (
        "{webhook: {urlFrom: {secretKeyRef: {name: s, key: url}}}}",
        ACCEPTED,
    ),
    ("{webhook: {}}", ONE_URL),
    (
        "{webhook: {url: 'https://hooks.example.com/in', urlFrom: {secretKeyRef: {name: s, key: url}}}}",
        ONE_URL,
    ),
    ("{webhook: {url: 'ftp://hooks.example.com'}}", URL),
    ("{webhook: {url: 'https://user:pass@hooks.example.com'}}", URL),
    (
        "{webhook: {url: 'https://hooks.example.com/LONG2048'}}",
        "Too long",
    ),
    (
        "{webhook: {urlFrom: {secretKeyRef: {name: ../x, key: url}}}}",
        NAME,
    ),
    (
        "{webhook: {url: 'https://hooks.example.com/in', headers: []}}",
        "unknown field \"spec.notifications.webhook.headers\"",
    ),
    // Types: switches and subscribers.
    (
        "{events: [{type: a.b_C-9, sendWebhook: true, emailSubscribers: [a@b.example]}, {type: x, emailSubscribers: 'a@b.example, c@d.example'}]}",
        ACCEPTED,
    ),
    (
        "{events: [{}]}",
        "spec.notifications.events[0].type: Required value",
    ),
    ("{events: [{type: ''}]}", "should be at least 1 chars long"),
    ("{events: [{type: 'run failed'}]}", TYPE),
    ("{events: [{type: 'run_*'}]}", TYPE),
    ("{events: [{type: LONG128}]}", ACCEPTED),
    ("{events: [{type: LONG129}]}", "Too long"),
    ("{events: [{type: a}, {type: a}]}", "Duplicate value"),
    (
        "{events: [{type: a, sendWebhook: 'yes'}]}",
        "must be of type boolean",
    ),
    (
        "{events: [{type: a, subscribers: []}]}",
        "unknown field \"spec.notifications.events[0].subscribers\"",
    ),
    ("{events: TYPES64}", ACCEPTED),
    ("{events: TYPES65}", "Too many: 65: must have at most 64 items"),
];

/// A case as a change of the whole spec.
fn whole(case: &str) -> String {
    let mut text = format!("{{notifications: {case}}}");
    let list = |count: usize, item: fn(usize) -> String| {
        format!("[{}]", (0..count).map(item).collect::<Vec<_>>().join(", "))
    };
    for count in [10, 11, 64, 65] {
        text = text.replace(
            &format!("MAILBOXES{count}"),
            &list(count, |n| format!("a{n}@b.example")),
        );
        text = text.replace(
            &format!("TYPES{count}"),
            &list(count, |n| format!("{{type: type_{n}}}")),
        );
    }
    text
}

#[tokio::test]
async fn notifications_are_accepted_and_refused_as_they_should() {
    let cases: Vec<_> = NOTIFICATIONS
        .iter()
        .map(|(case, expected)| (whole(case), *expected))
        .collect();
    let cases: Vec<_> = cases
        .iter()
        .map(|(case, expected)| (case.as_str(), *expected))
        .collect();
    check("EventProject", "eventprojects", json!({}), &cases).await;
}
