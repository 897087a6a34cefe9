//! [`Json`]: writes JSON straight into bytes, in the order of the calls, splicing raw values as they are.
//!
//! It keeps no state but the bytes: a comma is due unless an object or array was just opened. Values are the caller's
//! to balance; the shapes' tests parse every result.

use std::fmt::{Display, Write as _};

use jiff::Timestamp;
use jiff::fmt::temporal::DateTimePrinter;
use serde_json::value::RawValue;

/// Prints exactly three decimals.
const MILLISECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
/// Prints no decimals.
const SECONDS: DateTimePrinter = DateTimePrinter::new().precision(Some(0));

/// Bytes that become a JSON value.
pub(crate) struct Json(String);

impl Json {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self(String::with_capacity(bytes))
    }

    pub(crate) fn open(&mut self) -> &mut Self {
        self.0.push('{');
        self
    }

    pub(crate) fn close(&mut self) -> &mut Self {
        self.0.push('}');
        self
    }

    /// A member name that needs no escapes; its value must follow.
    pub(crate) fn name(&mut self, name: &str) -> &mut Self {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(name);
        self.0.push_str("\":");
        self
    }

    /// A member name as it was sent; its value must follow.
    pub(crate) fn any_name(&mut self, name: &str) -> &mut Self {
        if !self.0.ends_with('{') {
            self.0.push(',');
        }
        self.string(name);
        self.0.push(':');
        self
    }

    pub(crate) fn string(&mut self, text: &str) -> &mut Self {
        self.0.push('"');
        escape(text, &mut self.0);
        self.0.push('"');
        self
    }

    pub(crate) fn number(&mut self, number: impl Display) -> &mut Self {
        // Writing to a `String` cannot fail.
        let _ = write!(self.0, "{number}");
        self
    }

    pub(crate) fn raw(&mut self, json: &str) -> &mut Self {
        self.0.push_str(json);
        self
    }

    pub(crate) fn member(&mut self, name: &str, text: &str) -> &mut Self {
        self.name(name).string(text)
    }

    pub(crate) fn optional(&mut self, name: &str, text: Option<&str>) -> &mut Self {
        if let Some(text) = text {
            self.member(name, text);
        }
        self
    }

    pub(crate) fn optional_raw(&mut self, name: &str, raw: Option<&RawValue>) -> &mut Self {
        if let Some(raw) = raw {
            self.name(name).raw(raw.get());
        }
        self
    }

    /// A time with exactly three decimals and `Z`.
    pub(crate) fn time(&mut self, time: Timestamp) -> &mut Self {
        self.printed(&MILLISECONDS, time)
    }

    /// A time with `Z`, and with three decimals unless they are all zero.
    pub(crate) fn short_time(&mut self, time: Timestamp) -> &mut Self {
        let whole = time.as_millisecond().rem_euclid(1000) == 0;
        self.printed(if whole { &SECONDS } else { &MILLISECONDS }, time)
    }

    fn printed(&mut self, printer: &DateTimePrinter, time: Timestamp) -> &mut Self {
        self.0.push('"');
        let _ = printer.print_timestamp(&time, &mut self.0);
        self.0.push('"');
        self
    }

    pub(crate) fn finish(self) -> String {
        self.0
    }
}

/// Appends a text as it stands between the quotes of a JSON string (RFC 8259 §7).
pub(crate) fn escape(text: &str, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest
        .bytes()
        .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1F))
    {
        let (clean, tail) = rest.split_at(at);
        out.push_str(clean);
        let mut characters = tail.chars();
        match characters.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some('\r') => out.push_str("\\r"),
            Some('\t') => out.push_str("\\t"),
            Some(control) => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            None => {}
        }
        rest = characters.as_str();
    }
    out.push_str(rest);
}
