//! [`Content`]: what a custom HMAC covers, as text with placeholders.
//!
//! The placeholders are written as everywhere: `{{ $.body }}` or `{{ body }}`; `{{ "{{" }}` is `{{` itself. The body
//! goes in as the bytes that are sent, so that content is never text on its way into the hash. What does not cover the
//! body is refused: anybody could change it.

use std::fmt;

use super::Message;

/// Longest content, in bytes of its source.
pub const MAX_CONTENT: usize = 256;
/// Most placeholders.
pub const MAX_PARTS: usize = 16;
/// Names of the placeholders.
const KNOWN: &str = "id, timestamp, body, url, method";

/// What an HMAC covers.
#[derive(Clone, PartialEq, Eq)]
pub struct Content(Box<[Part]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Id,
    Timestamp,
    Body,
    Url,
    Method,
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.0).finish()
    }
}

impl Content {
    /// The raw body alone.
    #[must_use]
    pub fn body() -> Self {
        Self([Part::Body].into())
    }

    /// Reads `signedContent`.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn parse(source: &str) -> Result<Self, String> {
        if source.len() > MAX_CONTENT {
            return Err(format!("this is longer than {MAX_CONTENT} bytes; shorten it"));
        }
        let (mut parts, mut rest, mut placeholders) = (Vec::new(), source, 0_usize);
        while let Some((text, after)) = rest.split_once("{{") {
            push_text(&mut parts, text);
            let at = source[..source.len() - after.len()].chars().count() - 1;
            let (inner, next) = placeholder(after)
                .ok_or_else(|| format!("character {at}: \"{{{{\" is not closed by \"}}}}\""))?;
            placeholders += 1;
            match part(inner.trim()) {
                Some(Part::Text(text)) => push_text(&mut parts, &text),
                Some(part) => parts.push(part),
                None => {
                    return Err(format!(
                        "character {at}: there is no {:?}; known here: {KNOWN}",
                        inner.trim()
                    ));
                }
            }
            rest = next;
        }
        push_text(&mut parts, rest);
        if placeholders > MAX_PARTS {
            return Err(format!("there are more than {MAX_PARTS} placeholders"));
        }
        if !parts.contains(&Part::Body) {
            return Err("{{ $.body }} is missing: nobody could tell whether the body was changed".to_owned());
        }
        Ok(Self(parts.into()))
    }

    /// The bytes, piece by piece.
    pub(super) fn pieces<'a>(&'a self, message: &'a Message<'a>) -> impl Iterator<Item = &'a [u8]> {
        self.0.iter().map(move |part| match part {
            Part::Text(text) => text.as_bytes(),
            Part::Id => message.id.as_bytes(),
            Part::Timestamp => message.timestamp.as_bytes(),
            Part::Body => message.body,
            Part::Url => message.url.as_bytes(),
            Part::Method => message.method.as_bytes(),
        })
    }

    /// Whether the time is covered, so that an old request cannot be played again.
    #[must_use]
    pub fn covers_time(&self) -> bool {
        self.0.contains(&Part::Timestamp)
    }
}

/// Text in one piece, however it was written.
fn push_text(parts: &mut Vec<Part>, text: &str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => *before = [before, text].concat().into(),
        _ => parts.push(Part::Text(text.into())),
    }
}

/// What is between the braces, and what follows them; a quoted text may hold braces.
fn placeholder(after: &str) -> Option<(&str, &str)> {
    let start = after.trim_start();
    let skipped = after.len() - start.len();
    let quote = start.chars().next().filter(|first| matches!(first, '"' | '\''));
    let from = match quote {
        Some(quote) => skipped + 1 + start.get(1..)?.find(quote)? + 1,
        None => 0,
    };
    let end = from + after.get(from..)?.find("}}")?;
    Some((after.get(..end)?, after.get(end + 2..)?))
}

fn part(inner: &str) -> Option<Part> {
    for quote in ['"', '\''] {
        if let Some(text) = inner
            .strip_prefix(quote)
            .and_then(|rest| rest.strip_suffix(quote))
        {
            return (!text.contains([quote, '\\'])).then(|| Part::Text(text.into()));
        }
    }
    Some(match inner.strip_prefix("$.").unwrap_or(inner) {
        "id" => Part::Id,
        "timestamp" => Part::Timestamp,
        "body" => Part::Body,
        "url" => Part::Url,
        "method" => Part::Method,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(source: &str) -> String {
        let message = Message {
            id: "evt-1",
            timestamp: "1700000000",
            body: b"{\"a\":1}",
            url: "https://h.example/in?x=1",
            method: "POST",
        };
        let content = Content::parse(source).unwrap();
        String::from_utf8(content.pieces(&message).flatten().copied().collect()).unwrap()
    }

    #[test]
    fn each_placeholder_stands_for_its_value() {
        assert_eq!(rendered("{{ $.body }}"), "{\"a\":1}");
        assert_eq!(rendered("v0:{{$.timestamp}}:{{body}}"), "v0:1700000000:{\"a\":1}");
        assert_eq!(
            rendered("{{ $.method }}{{ $.url }}{{ $.body }}{{ $.timestamp }}"),
            "POSThttps://h.example/in?x=1{\"a\":1}1700000000"
        );
        assert_eq!(
            rendered("{{ id }}.{{ timestamp }}.{{ body }}"),
            "evt-1.1700000000.{\"a\":1}"
        );
        assert_eq!(
            rendered("}} {{ \"{{\" }}{{ '}}' }}{{ body }}é"),
            "}} {{}}{\"a\":1}é"
        );
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (source, part) in [
            ("{{ $.timestamp }}", "{{ $.body }} is missing"),
            ("", "is missing"),
            (
                "é{{ $.boddy }}",
                "character 2: there is no \"$.boddy\"; known here: id,",
            ),
            ("{{ body }}{{ x", "character 11: \"{{\" is not closed"),
            ("{{ $.event.data }}", "there is no \"$.event.data\""),
            ("{{ 'a }}", "not closed"),
            (&"a".repeat(257), "longer than 256 bytes"),
            (&"{{ body }}".repeat(17), "more than 16"),
        ] {
            let fault = Content::parse(source).unwrap_err();
            assert!(fault.contains(part), "{source}: {fault}");
        }
    }
}
