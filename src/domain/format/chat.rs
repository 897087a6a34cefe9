//! Messages for people: Slack, Discord, Microsoft Teams, Google Chat, Mattermost, Telegram.
//!
//! Each has a title (the event's type), the message, an error when there is one, the facts, and a link. Bounds are
//! those of the vendors' documentation, see [`FORMATS`](super::FORMATS).

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::Options;
use super::digest::{Digest, Level, Unit, cut, cut_by, escape_within};

/// Text of a link.
const OPEN: &str = "Open";
/// Most characters of a fact's value.
const MAX_FACT: usize = 200;

fn colour(level: Level) -> u32 {
    match level {
        Level::Critical => 0x00b0_1030,
        Level::Error => 0x00d9_3b3b,
        Level::Warning => 0x00e6_a117,
        Level::Info => 0x002f_7ed8,
    }
}

fn hex_colour(level: Level) -> String {
    format!("#{:06x}", colour(level))
}

/// Sets members that are there.
fn set(body: &mut Value, name: &str, value: Option<&str>) {
    if let (Some(members), Some(value)) = (body.as_object_mut(), value) {
        members.insert(name.to_owned(), Value::String(value.to_owned()));
    }
}

/// Slack's three characters; it also keeps `<!channel>` and `<@U123>` from being mentions.
fn slack_escape(char: char) -> Option<&'static str> {
    match char {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        _ => None,
    }
}

/// Blocks with a fallback text. A section has at most 3,000 characters, a header 150, a URL 3,000, a context 10 items.
pub(super) fn slack(digest: &Digest<'_>, options: &Options) -> Value {
    let text = |text: &str, most| escape_within(Unit::Utf16, text, most, slack_escape);
    let mrkdwn = |text: &str| json!({"type": "mrkdwn", "text": text, "verbatim": true});
    let mut blocks = vec![
        json!({"type": "header", "text": {"type": "plain_text", "text": cut(digest.event_type, 150)}}),
        json!({"type": "section", "text": mrkdwn(&text(&digest.message, 3000))}),
    ];
    if let Some(error) = digest.error.as_deref().filter(|error| !error.trim().is_empty()) {
        let quoted = format!("*Error:* {}", text(error, 2900));
        blocks.push(json!({"type": "section", "text": mrkdwn(&quoted)}));
    }
    let facts: Vec<Value> = digest
        .facts
        .iter()
        .map(|fact| mrkdwn(&format!("*{}:* {}", fact.label, text(&fact.shown(), MAX_FACT))))
        .collect();
    for facts in facts.chunks(10) {
        blocks.push(json!({"type": "context", "elements": facts}));
    }
    if let Some(link) = &digest.link {
        let button = json!({"type": "button", "text": {"type": "plain_text", "text": OPEN}, "url": link});
        blocks.push(json!({"type": "actions", "elements": [button]}));
    }
    let fallback = format!(
        "{}: {}",
        text(digest.event_type, 150),
        text(&digest.message, 3000)
    );
    let mut body = json!({"text": fallback, "blocks": blocks, "unfurl_links": false, "unfurl_media": false});
    set(&mut body, "channel", options.channel.as_deref());
    set(&mut body, "username", options.username.as_deref());
    body
}

/// What begins markup in Discord's and Teams' Markdown.
fn markdown_escape(char: char) -> Option<&'static str> {
    Some(match char {
        '\\' => "\\\\",
        '*' => "\\*",
        '_' => "\\_",
        '~' => "\\~",
        '`' => "\\`",
        '|' => "\\|",
        '[' => "\\[",
        ']' => "\\]",
        '<' => "\\<",
        '>' => "\\>",
        '#' => "\\#",
        _ => return None,
    })
}

/// An embed. Title 256 characters, description 4,096, a field's value 1,024, all together 6,000; nobody is mentioned.
pub(super) fn discord(digest: &Digest<'_>, options: &Options) -> Value {
    let text = |text: &str, most| escape_within(Unit::Utf16, text, most, markdown_escape);
    let mut description = text(&digest.message, 2000);
    if let Some(error) = digest.error.as_deref().filter(|error| !error.trim().is_empty()) {
        description.push_str("\n**Error:** ");
        description.push_str(&text(error, 1400));
    }
    let fields: Vec<Value> = digest
        .facts
        .iter()
        .map(|fact| json!({"name": fact.label, "value": text(&fact.shown(), 150), "inline": true}))
        .collect();
    let mut embed = json!({
        "title": text(digest.event_type, 256),
        "description": description,
        "color": colour(digest.level),
        "timestamp": digest.time.to_string(),
        "fields": fields,
    });
    set(&mut embed, "url", digest.link.as_deref());
    let mut body = json!({"embeds": [embed], "allowed_mentions": {"parse": []}});
    set(&mut body, "username", options.username.as_deref());
    body
}

/// An Adaptive Card 1.4. Texts of the event are runs of a rich text block, which have no markup. A message has 28 KB;
/// some ways into Teams count two bytes for each character, so half of it is used.
pub(super) fn teams(digest: &Digest<'_>) -> Value {
    let colour = match digest.level {
        Level::Critical | Level::Error => "attention",
        Level::Warning => "warning",
        Level::Info => "accent",
    };
    let rich = |runs: Vec<Value>| json!({"type": "RichTextBlock", "inlines": runs});
    let run = |text: &str, most| json!({"type": "TextRun", "text": cut_by(Unit::Json, text, most)});
    let mut title = run(digest.event_type, 150);
    if let Some(members) = title.as_object_mut() {
        members.extend([
            ("weight".to_owned(), json!("bolder")),
            ("size".to_owned(), json!("large")),
            ("color".to_owned(), json!(colour)),
        ]);
    }
    let mut parts = vec![rich(vec![title]), rich(vec![run(&digest.message, 4500)])];
    if let Some(error) = digest.error.as_deref().filter(|error| !error.trim().is_empty()) {
        let label = json!({"type": "TextRun", "text": "Error: ", "weight": "bolder"});
        parts.push(rich(vec![label, run(error, 2500)]));
    }
    let facts: Vec<Value> = digest
        .facts
        .iter()
        .map(|fact| {
            let value = escape_within(Unit::Json, &fact.shown(), MAX_FACT, markdown_escape);
            json!({"title": fact.label, "value": value})
        })
        .collect();
    if !facts.is_empty() {
        parts.push(json!({"type": "FactSet", "facts": facts}));
    }
    let mut card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": parts,
    });
    if let (Some(link), Some(members)) = (&digest.link, card.as_object_mut()) {
        let open = json!({"type": "Action.OpenUrl", "title": OPEN, "url": link});
        members.insert("actions".to_owned(), json!([open]));
    }
    json!({
        "type": "message",
        "attachments": [{"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card}],
    })
}

fn html_escape(char: char) -> Option<&'static str> {
    match char {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        _ => None,
    }
}

/// A card. Texts are HTML; the whole message has at most 32,000 bytes.
pub(super) fn google_chat(digest: &Digest<'_>) -> Value {
    let html = |text: &str, most| escape_within(Unit::Json, text, most, html_escape);
    let mut widgets = vec![json!({"textParagraph": {"text": html(&digest.message, 12_000)}})];
    if let Some(error) = digest.error.as_deref().filter(|error| !error.trim().is_empty()) {
        let text = html(error, 8000);
        widgets.push(json!({"decoratedText": {"topLabel": "Error", "text": text, "wrapText": true}}));
    }
    for fact in &digest.facts {
        let text = html(&fact.shown(), MAX_FACT);
        widgets.push(json!({"decoratedText": {"topLabel": fact.label, "text": text, "wrapText": true}}));
    }
    if let Some(link) = &digest.link {
        let open = json!({"text": OPEN, "onClick": {"openLink": {"url": link}}});
        widgets.push(json!({"buttonList": {"buttons": [open]}}));
    }
    let header = json!({"title": cut(digest.event_type, 150)});
    json!({
        "cardsV2": [{"cardId": digest.delivery.to_string(), "card": {"header": header, "sections": [{"widgets": widgets}]}}],
    })
}

/// Keeps `@channel`, `@all`, `@here` and names from being mentions: a space of no width follows the sign.
fn mattermost_escape(char: char) -> Option<&'static str> {
    match char {
        '@' => Some("@\u{200b}"),
        '<' => Some("&lt;"),
        other => markdown_escape(other),
    }
}

/// An attachment. A post has at most 16,383 characters.
pub(super) fn mattermost(digest: &Digest<'_>, options: &Options) -> Value {
    let text = |text: &str, most| escape_within(Unit::Json, text, most, mattermost_escape);
    let mut message = text(&digest.message, 5000);
    if let Some(error) = digest.error.as_deref().filter(|error| !error.trim().is_empty()) {
        message.push_str("\n\n**Error:** ");
        message.push_str(&text(error, 4000));
    }
    let fields: Vec<Value> = digest
        .facts
        .iter()
        .map(|fact| json!({"short": true, "title": fact.label, "value": text(&fact.shown(), MAX_FACT)}))
        .collect();
    let mut attachment = json!({
        "fallback": format!("{}: {}", text(digest.event_type, 150), text(&digest.message, 500)),
        "color": hex_colour(digest.level),
        "title": text(digest.event_type, 150),
        "text": message,
        "fields": fields,
    });
    set(&mut attachment, "title_link", digest.link.as_deref());
    let mut body = json!({"attachments": [attachment]});
    set(&mut body, "channel", options.channel.as_deref());
    set(&mut body, "username", options.username.as_deref());
    body
}

/// Most UTF-16 units of a message of Telegram, without the markup.
const MAX_TELEGRAM: usize = 4096;

/// A message in HTML. A link that no button may have is the last line of the text.
pub(super) fn telegram(digest: &Digest<'_>, options: &Options) -> Value {
    // Cut before it is escaped: what counts is the text without escapes. A space of no width keeps `@name` from being
    // a mention.
    let told = |text: &str, most| cut(&text.replace('@', "@\u{200b}"), most);
    let html = |text: &str| escape_within(Unit::Utf16, text, usize::MAX, html_escape);
    let (title, message) = (told(digest.event_type, 150), told(&digest.message, 1400));
    let mut rows: Vec<(&str, String)> = Vec::new();
    if let Some(error) = digest.error.as_deref().filter(|error| !error.trim().is_empty()) {
        rows.push(("Error", told(error, 800)));
    }
    let facts = digest.facts.iter();
    rows.extend(facts.map(|fact| (fact.label, told(&fact.shown(), 90))));
    let (button, line): (Option<&String>, _) = match &digest.link {
        Some(link) if is_for_button(link) => (Some(link), None),
        link => (None, link.as_ref()),
    };
    if let Some(link) = line {
        let size = |text: &str| text.encode_utf16().count();
        let rows_size: usize = rows
            .iter()
            .map(|(label, value)| size(label) + size(value) + 3)
            .sum();
        let used = size(&title) + 1 + size(&message) + rows_size + size(OPEN) + 3;
        let room = MAX_TELEGRAM.saturating_sub(used);
        rows.push((OPEN, cut(&link.replace('@', "%40"), room)));
    }
    let mut text = format!("<b>{}</b>\n{}", html(&title), html(&message));
    for (label, value) in &rows {
        let _ = write!(text, "\n<b>{label}:</b> {}", html(value));
    }
    let mut body = json!({
        "chat_id": options.chat.as_deref().unwrap_or_default(),
        "text": text,
        "parse_mode": "HTML",
        "link_preview_options": {"is_disabled": true},
    });
    if let (Some(link), Some(members)) = (button, body.as_object_mut()) {
        let keyboard = json!({"inline_keyboard": [[{"text": OPEN, "url": link}]]});
        members.insert("reply_markup".to_owned(), keyboard);
    }
    body
}

/// Telegram refuses the whole message when a button leads to an address or to a name without a dot.
fn is_for_button(link: &str) -> bool {
    let url = url::Url::parse(link);
    url.is_ok_and(|url| match url.host() {
        Some(url::Host::Domain(name)) => name.trim_end_matches('.').contains('.'),
        _ => false,
    })
}
