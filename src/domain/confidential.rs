//! [`masked`]: what others say, without what they were told in confidence.
//!
//! Whoever repeats a value often writes it in another form: in a JSON string, percent-encoded, in HTML. Each form is
//! undone over the whole text, and the values are looked for in what comes out, so that it does not matter which
//! characters were escaped, and how. A text in which nothing is escaped is only searched.

use std::borrow::Cow;
use std::ops::Range;

/// A form in which a value may be repeated.
#[derive(Clone, Copy)]
enum Form {
    /// In a JSON string, or a string of a programming language.
    Json,
    /// In a URL.
    Percent,
    /// In a form: as in a URL, and `+` is a space.
    Plus,
    /// In HTML.
    Html,
}

/// What is undone, one after the other. JSON in JSON is what a receiver answers that repeats a request's body.
const WAYS: [&[Form]; 6] = [
    &[Form::Json],
    &[Form::Json, Form::Json],
    &[Form::Percent],
    &[Form::Plus],
    &[Form::Html],
    &[Form::Html, Form::Json],
];

/// The text with `mask` in place of each of the values, none of which is empty, in any form.
#[must_use]
pub fn masked<'t>(text: &'t str, values: &[String], mask: &str) -> Cow<'t, str> {
    let mut hidden: Vec<Range<usize>> = Vec::new();
    for value in values {
        hidden.extend(text.match_indices(value).map(|(at, value)| at..at + value.len()));
    }
    for way in WAYS {
        let Some(plain) = undone(text, way) else { continue };
        for value in values {
            for (at, value) in plain.text.match_indices(value) {
                hidden.push(plain.origin(at)..plain.origin(at + value.len()));
            }
        }
    }
    if hidden.is_empty() {
        return text.into();
    }
    hidden.sort_unstable_by_key(|range| range.start);
    let mut out = String::with_capacity(text.len());
    let mut shown = 0;
    for range in hidden {
        if range.start > shown || out.is_empty() {
            // The places of values are those of whole characters.
            out.push_str(text.get(shown..range.start).unwrap_or_default());
            out.push_str(mask);
        }
        shown = shown.max(range.end);
    }
    out.push_str(text.get(shown..).unwrap_or_default());
    out.into()
}

/// A text that was undone, and where each of its bytes comes from.
struct Plain {
    text: String,
    origins: Vec<usize>,
    /// Length of what it comes from.
    length: usize,
}

impl Plain {
    fn origin(&self, at: usize) -> usize {
        self.origins.get(at).copied().unwrap_or(self.length)
    }
}

/// The text, undone; `None` when there is nothing to undo.
fn undone(text: &str, way: &[Form]) -> Option<Plain> {
    let mut whole: Option<Plain> = None;
    for form in way {
        let source = whole.as_ref().map_or(text, |plain| plain.text.as_str());
        if !source.contains(|one| form.opens(one)) {
            return None;
        }
        let mut plain = Plain {
            text: String::with_capacity(source.len()),
            origins: Vec::with_capacity(source.len()),
            length: text.len(),
        };
        let mut rest = source;
        while let Some(first) = rest.chars().next() {
            let at = source.len() - rest.len();
            let read = form.opens(first).then(|| form.read(rest)).flatten();
            let (one, length) = read.unwrap_or((first, first.len_utf8()));
            plain.text.push(one);
            let origin = whole.as_ref().map_or(at, |before| before.origin(at));
            plain.origins.resize(plain.text.len(), origin);
            rest = rest.get(length..).unwrap_or_default();
        }
        whole = Some(plain);
    }
    whole
}

impl Form {
    const fn opens(self, one: char) -> bool {
        match self {
            Self::Json => one == '\\',
            Self::Percent => one == '%',
            Self::Plus => matches!(one, '%' | '+'),
            Self::Html => one == '&',
        }
    }

    /// The character for which an escape stands, and the escape's length.
    fn read(self, text: &str) -> Option<(char, usize)> {
        match self {
            Self::Json => json(text),
            Self::Plus if text.starts_with('+') => Some((' ', 1)),
            Self::Percent | Self::Plus => percent(text),
            Self::Html => html(text),
        }
    }
}

fn json(text: &str) -> Option<(char, usize)> {
    let hex = |range: Range<usize>| u16::try_from(number(text.get(range)?, 16)?).ok();
    let one = match *text.as_bytes().get(1)? {
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'x' => return Some((char::from_u32(hex(2..4)?.into())?, 4)),
        b'u' => {
            let first = hex(2..6)?;
            if let Some(one) = char::from_u32(first.into()) {
                return Some((one, 6));
            }
            let second = text
                .get(6..8)
                .filter(|opening| *opening == "\\u")
                .and(hex(8..12))?;
            let one = char::decode_utf16([first, second]).next()?.ok()?;
            return Some((one, 12));
        }
        other if other.is_ascii_punctuation() => char::from(other),
        _ => return None,
    };
    Some((one, 2))
}

/// One character, of as many bytes as its first one says.
fn percent(text: &str) -> Option<(char, usize)> {
    let byte = |index: usize| {
        let digits = text.get(3 * index..3 * index + 3)?.strip_prefix('%')?;
        u8::try_from(number(digits, 16)?).ok()
    };
    let width = match byte(0)? {
        ..0x80 => 1,
        0xc0..0xe0 => 2,
        0xe0..0xf0 => 3,
        0xf0.. => 4,
        _ => return None,
    };
    let bytes: Vec<u8> = (0..width).map(byte).collect::<Option<_>>()?;
    let one = std::str::from_utf8(&bytes).ok()?.chars().next()?;
    Some((one, 3 * width))
}

fn html(text: &str) -> Option<(char, usize)> {
    /// Bytes of the longest reference.
    const LONGEST: usize = 10;
    let end = text.bytes().take(LONGEST).position(|byte| byte == b';')?;
    let name = text.get(1..end)?;
    let one = match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let digits = name.strip_prefix('#')?;
            let code = match digits.strip_prefix(['x', 'X']) {
                Some(digits) => number(digits, 16)?,
                None => number(digits, 10)?,
            };
            char::from_u32(code)?
        }
    };
    Some((one, end + 1))
}

/// Digits without a sign.
fn number(digits: &str, radix: u32) -> Option<u32> {
    let is_plain = digits.chars().all(|digit| digit.is_digit(radix));
    u32::from_str_radix(digits, radix).ok().filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str, values: &[&str]) -> String {
        let values: Vec<_> = values.iter().map(ToString::to_string).collect();
        masked(text, &values, "*").into_owned()
    }

    #[test]
    fn what_overlaps_is_masked_once() {
        assert_eq!(of("xabcdex", &["abc", "cde", "bcd"]), "x*x");
        assert_eq!(of("abc", &["abc"]), "*");
        assert_eq!(of("abcabc!", &["abc"]), "*!");
        assert_eq!(of("äbc\\n", &["x"]), "äbc\\n");
    }

    #[test]
    fn each_form_is_undone_and_the_rest_stays_as_it_is() {
        for (text, expected) in [
            (
                r#"{"a": "x\"ä&y\n", "b": "\n%20"}"#,
                r#"{"a": "*\n", "b": "\n%20"}"#,
            ),
            (r#"{\"a\": \"x\\\"ä&y\"}"#, r#"{\"a\": \"*\"}"#),
            (
                r"x\x22\u00E4\u0026y \ud83d\ude00 \ud83d",
                r"* \ud83d\ude00 \ud83d",
            ),
            ("?q=x%22%C3%a4%26y&z=%41", "?q=*&z=%41"),
            ("<b>x&quot;&#xe4;&amp;y</b> &nbsp;", "<b>*</b> &nbsp;"),
            (
                "{&quot;a&quot;: &quot;x\\&quot;ä&amp;y&quot;}",
                "{&quot;a&quot;: &quot;*&quot;}",
            ),
        ] {
            assert_eq!(of(text, &["x\"ä&y"]), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_looked_through(text in r#"([a-c\\ux&#;%+0-9é"]|\\u[0-9a-fA-F]{4}|%[c-f89][0-9a-f]){0,40}"#) {
            let shown = of(&text, &["a", "é"]);
            prop_assert!(!shown.contains(['a', 'é']) , "{shown}");
        }
    }
}
