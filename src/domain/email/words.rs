//! What a mail says by default: subject, plain text and HTML, for built-in types and for any other.
//!
//! Subject and first line are the sentence of the event's [`Gist`]; then its facts, a line each; then whatever else
//! the event carries, as JSON. The text is for a terminal of 80 columns, the HTML for a phone: one column, no images,
//! no scripts, nothing that is fetched. Everything of the event is bounded and, in HTML, escaped.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::domain::destination::Identity;
use crate::domain::event::Event;
use crate::domain::gist::{Gist, scalar};

/// Most characters of one fact.
const MAX_FACT: usize = 500;
/// Most facts.
const MAX_FACTS: usize = 40;
/// Most characters of the JSON at the end.
const MAX_JSON: usize = 16 * 1024;
/// Columns of a fact's name in the text.
const NAME: usize = 18;

/// The default subject.
#[must_use]
pub fn subject(event: &Event) -> String {
    format!("[{}] {}", event.project.name, Gist::of(event).headline)
}

/// The default plain text.
#[must_use]
pub fn text(event: &Event, destination: &Identity) -> String {
    let gist = Gist::of(event);
    let (facts, rest) = facts(event, &gist);
    let mut out = String::with_capacity(1024);
    out.push_str(&one_line(&gist.headline, MAX_FACT));
    out.push_str("\n\n");
    for (name, value) in &facts {
        let _ = writeln!(out, "{:<NAME$}{value}", format!("{name}:"));
    }
    if let Some(json) = json(rest) {
        let _ = write!(out, "\nDetails:\n\n{json}\n");
    }
    let _ = write!(out, "\n-- \n{}\n", footer(event, destination));
    out
}

/// The default HTML text.
#[must_use]
pub fn html(event: &Event, destination: &Identity, title: &str) -> String {
    let gist = Gist::of(event);
    let (facts, rest) = facts(event, &gist);
    let mut out = String::with_capacity(4096);
    out.push_str(concat!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n",
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n",
        "<meta name=\"color-scheme\" content=\"light dark\">\n<title>"
    ));
    escape(title, &mut out);
    out.push_str(concat!(
        "</title>\n</head>\n<body style=\"margin:0;padding:16px;font:16px/1.5 -apple-system,'Segoe UI',Roboto,",
        "Helvetica,Arial,sans-serif\">\n<div style=\"max-width:640px;margin:0 auto\">\n",
        "<h1 style=\"font-size:20px;line-height:1.3;margin:0 0 16px;overflow-wrap:anywhere\">"
    ));
    escape(&one_line(&gist.headline, MAX_FACT), &mut out);
    out.push_str("</h1>\n<table role=\"presentation\" style=\"border-collapse:collapse;width:100%\">\n");
    for (name, value) in &facts {
        out.push_str(concat!(
            "<tr><th scope=\"row\" style=\"text-align:left;vertical-align:top;font-weight:normal;opacity:.7;",
            "padding:4px 12px 4px 0;white-space:nowrap\">"
        ));
        escape(name, &mut out);
        out.push_str("</th><td style=\"padding:4px 0;overflow-wrap:anywhere\">");
        if is_link(value) {
            out.push_str("<a href=\"");
            escape(value, &mut out);
            out.push_str("\">");
            escape(value, &mut out);
            out.push_str("</a>");
        } else {
            escape(value, &mut out);
        }
        out.push_str("</td></tr>\n");
    }
    out.push_str("</table>\n");
    if let Some(json) = json(rest) {
        out.push_str(concat!(
            "<h2 style=\"font-size:16px;margin:24px 0 8px\">Details</h2>\n",
            "<pre style=\"font:13px/1.45 ui-monospace,Consolas,monospace;white-space:pre-wrap;",
            "overflow-wrap:anywhere;border:1px solid #8888;border-radius:6px;padding:12px;margin:0\">"
        ));
        escape(&json, &mut out);
        out.push_str("</pre>\n");
    }
    out.push_str("<p style=\"font-size:13px;opacity:.7;margin:24px 0 0\">");
    escape(&footer(event, destination).replace('\n', " "), &mut out);
    out.push_str("</p>\n</div>\n</body>\n</html>\n");
    out
}

fn footer(event: &Event, destination: &Identity) -> String {
    format!(
        "Sent by Postrider for EventDestination {}.\nEvent {}.",
        destination.key, event.id
    )
}

/// The facts worth a line each, and what is left of `data`.
fn facts(event: &Event, gist: &Gist<'_>) -> (Vec<(String, String)>, Map<String, Value>) {
    let content = &event.content;
    let mut facts: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: &str| {
        if !value.is_empty() && facts.len() < MAX_FACTS {
            facts.push((name.to_owned(), one_line(value, MAX_FACT)));
        }
    };
    let happened = jiff::Timestamp::from_millisecond(content.timestamp).unwrap_or(event.accepted);
    add("Event", &content.event_type);
    add("Time", &happened.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    if let Some(error) = &gist.error {
        add("Error", error);
    }
    for fact in &gist.facts {
        add(fact.label, &fact.shown());
    }
    let mut rest: Map<String, Value> = serde_json::from_str(content.data.get()).unwrap_or_default();
    let is_short = |value: &Value| scalar(value).filter(|text| text.chars().count() <= MAX_FACT);
    rest.retain(|name, value| is_short(value).is_none() || !gist.told.contains(&&**name));
    let flat: Vec<(String, String)> = rest
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), is_short(value)?)))
        .take(MAX_FACTS / 2)
        .collect();
    for (name, value) in flat {
        rest.shift_remove(&name);
        add(&one_line(&title(&name), 60), &value);
    }
    (facts, rest)
}

/// `executionUrl` as `Execution url`, `tenant_name` as `Tenant name`.
fn title(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut last_lower = false;
    for (index, one) in name.chars().enumerate() {
        if one == '_' || one == '-' {
            out.push(' ');
        } else if index == 0 {
            out.extend(one.to_uppercase());
        } else if one.is_uppercase() && last_lower {
            out.push(' ');
            out.extend(one.to_lowercase());
        } else {
            out.push(one);
        }
        last_lower = one.is_lowercase();
    }
    out
}

fn json(rest: Map<String, Value>) -> Option<String> {
    if rest.is_empty() {
        return None;
    }
    let mut json = escape_unseen(&serde_json::to_string_pretty(&Value::Object(rest)).ok()?);
    if let Some((end, _)) = json.char_indices().nth(MAX_JSON) {
        let left = json.len() - end;
        json.truncate(end);
        let _ = write!(json, "…\n({left} more bytes are left out)");
    }
    Some(json)
}

/// JSON without raw control and reordering characters; what it lays out itself are spaces and line breaks alone.
fn escape_unseen(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for one in json.chars() {
        if (one.is_control() && one != '\n') || is_reordering(one) || matches!(one, '\u{2028}' | '\u{2029}') {
            let _ = write!(out, "\\u{:04x}", u32::from(one));
        } else {
            out.push(one);
        }
    }
    out
}

/// Only what a browser opens as a page becomes a link; an event cannot make a client run anything.
fn is_link(value: &str) -> bool {
    (value.starts_with("https://") || value.starts_with("http://"))
        && value.chars().all(|one| !one.is_whitespace() && !one.is_control())
}

/// Text on one line: runs of white space and control characters become one space, and too long a text ends in `…`.
#[must_use]
pub fn one_line(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most * 4));
    let (mut count, mut gap) = (0, false);
    for one in text.chars() {
        if one.is_whitespace() || one.is_control() || is_reordering(one) {
            gap = count > 0;
            continue;
        }
        if count + usize::from(gap) + 1 >= most {
            out.push('…');
            return out;
        }
        if std::mem::take(&mut gap) {
            out.push(' ');
            count += 1;
        }
        out.push(one);
        count += 1;
    }
    out
}

/// Characters that change the order in which others are shown, with which a text could pretend to be another.
const fn is_reordering(one: char) -> bool {
    matches!(one, '\u{61c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{feff}')
}

/// Appends text so that HTML shows it as it is, in an attribute too.
pub fn escape(text: &str, out: &mut String) {
    for one in text.chars() {
        match one {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\0' => out.push('\u{fffd}'),
            one => out.push(one),
        }
    }
}
