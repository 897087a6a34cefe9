//! The strict reading of JSON that publish requests go through, before anything is taken from it.
//!
//! One pass over the text checks the grammar of RFC 8259 and what that RFC leaves to luck: duplicate member names
//! (at any depth, compared after unescaping), `\u0000`, lone surrogates, numbers that no double holds and nesting.
//! It also notes where the members of each event lie, so that values are cut out instead of being parsed again.
//!
//! Two kinds of trouble: a [`Halt`] is text that is not JSON, reading ends there; a [`Flaw`] is JSON that is refused,
//! reading goes on, so that one answer can name the trouble of every event of a batch. Memory is bounded by the text
//! and by [`MAX_FLAWS`] for each event. What the members mean is left to `parse` and `cloudevents`.

use std::borrow::Cow;
use std::collections::HashSet;

use super::refusal::{FaultReason, Pointer};

/// Deepest nesting of an event, the event's own object included.
pub(crate) const MAX_DEPTH: usize = 64;
/// Most flaws kept for one event; further ones are only counted.
pub(crate) const MAX_FLAWS: usize = 16;
/// Depth at which reading ends, so that hostile text cannot exhaust the stack.
const HALT_DEPTH: usize = 256;
/// Names of one object that are compared one by one; beyond, a hash set takes over.
const LINEAR_NAMES: usize = 24;

/// One member of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member<'a> {
    /// Its name, unescaped.
    pub(crate) name: Cow<'a, str>,
    /// Its value as written, without white space around it.
    pub(crate) value: &'a str,
}

/// What kind of value a checked text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Object,
    Array,
    String,
    Number,
    Bool,
    Null,
}

/// One candidate event.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    /// The value as written.
    pub(crate) raw: &'a str,
    /// Its members, when it is an object.
    pub(crate) members: Vec<Member<'a>>,
    /// What is wrong in it; at most [`MAX_FLAWS`].
    pub(crate) flaws: Vec<Flaw>,
    /// How much is wrong in it.
    pub(crate) flaw_count: usize,
}

/// JSON that is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Where, from the item on.
    pub(crate) pointer: Pointer,
    /// What kind.
    pub(crate) reason: FaultReason,
    /// What is wrong and what to do.
    pub(crate) detail: &'static str,
}

/// Text that is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Halt {
    /// Byte at which reading ended.
    pub(crate) offset: usize,
    /// The event of a batch in which it ended.
    pub(crate) index: Option<usize>,
    /// What kind.
    pub(crate) reason: FaultReason,
    /// What is wrong.
    pub(crate) detail: &'static str,
}

/// A checked text.
#[derive(Debug)]
pub(crate) enum Document<'a> {
    /// Any value but an array.
    One(Item<'a>),
    /// The elements of an array.
    Many(Vec<Item<'a>>),
}

/// Checks a text whose root is one item, or an array of at most `most` items.
pub(crate) fn document(text: &str, most: usize) -> Result<Document<'_>, Halt> {
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    let document = if scanner.peek() == Some(b'[') {
        Document::Many(scanner.items(most)?)
    } else {
        Document::One(scanner.item()?)
    };
    scanner.end()?;
    Ok(document)
}

/// Checks a text that is one value; an array is a value like any other.
pub(crate) fn value(text: &str) -> Result<Item<'_>, Halt> {
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    let item = scanner.item()?;
    scanner.end()?;
    Ok(item)
}

/// The flawless value that a text starts with.
pub(crate) fn prefix(text: &str) -> Option<&str> {
    Scanner::new(text)
        .item()
        .ok()
        .filter(|item| item.flaw_count == 0)
        .map(|item| item.raw)
}

/// The members of an object that was checked before; none when it is not an object.
pub(crate) fn members(raw: &str) -> Vec<Member<'_>> {
    value(raw).map(|item| item.members).unwrap_or_default()
}

/// What kind of value a checked text is.
pub(crate) fn kind(raw: &str) -> Kind {
    match raw.as_bytes().first() {
        Some(b'{') => Kind::Object,
        Some(b'[') => Kind::Array,
        Some(b'"') => Kind::String,
        Some(b't' | b'f') => Kind::Bool,
        Some(b'n') => Kind::Null,
        _ => Kind::Number,
    }
}

/// The text of a checked string; `None` when it is another value or holds lone surrogates.
pub(crate) fn text(raw: &str) -> Option<Cow<'_, str>> {
    let inner = raw.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        serde_json::from_str(raw).ok().map(Cow::Owned)
    } else {
        Some(Cow::Borrowed(inner))
    }
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
    /// Names of the open objects, innermost last.
    names: Vec<Cow<'a, str>>,
    flaws: Vec<Flaw>,
    flaw_count: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            names: Vec::new(),
            flaws: Vec::new(),
            flaw_count: 0,
        }
    }

    fn items(&mut self, most: usize) -> Result<Vec<Item<'a>>, Halt> {
        let mut items = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.eat(b']') {
            return Ok(items);
        }
        loop {
            if items.len() >= most {
                return Err(self.halt(FaultReason::TooManyEvents, "the batch holds too many events"));
            }
            let item = self.item().map_err(|halt| Halt {
                index: Some(items.len()),
                ..halt
            })?;
            items.push(item);
            self.skip_space();
            if self.eat(b']') {
                return Ok(items);
            }
            if !self.eat(b',') {
                return Err(self.syntax("expected a comma or the end of the array"));
            }
            self.skip_space();
        }
    }

    fn item(&mut self) -> Result<Item<'a>, Halt> {
        let start = self.at;
        let mut members = Vec::new();
        if self.peek() == Some(b'{') {
            members.reserve(8);
            self.object(1, Some(&mut members))?;
        } else {
            self.value(1)?;
        }
        Ok(Item {
            raw: self.text.get(start..self.at).unwrap_or_default(),
            members,
            flaws: std::mem::take(&mut self.flaws),
            flaw_count: std::mem::take(&mut self.flaw_count),
        })
    }

    fn end(&mut self) -> Result<(), Halt> {
        self.skip_space();
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(self.syntax("expected the end of the body"))
        }
    }

    fn value(&mut self, depth: usize) -> Result<(), Halt> {
        match self.peek() {
            Some(b'"') => self.string().map(drop),
            Some(b'{') => self.object(depth, None),
            Some(b'[') => self.array(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(_) => Err(self.syntax("expected a JSON value")),
            None => Err(self.syntax("the body ends where a value is expected")),
        }
    }

    fn object(&mut self, depth: usize, mut sink: Option<&mut Vec<Member<'a>>>) -> Result<(), Halt> {
        self.descend(depth)?;
        self.at += 1;
        self.skip_space();
        if self.eat(b'}') {
            return Ok(());
        }
        let first = self.names.len();
        let mut many: Option<HashSet<Cow<'a, str>>> = None;
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.syntax("expected a member name in double quotes"));
            }
            let name = self.string()?.decoded();
            if self.is_duplicate(first, &mut many, &name) {
                let mut pointer = Pointer::default();
                pointer.prepend_name(&name);
                self.flaw_at(
                    pointer,
                    FaultReason::DuplicateKey,
                    "the object has two members of this name",
                );
            }
            self.skip_space();
            if !self.eat(b':') {
                return Err(self.syntax("expected a colon after the member name"));
            }
            self.skip_space();
            let (start, flaws) = (self.at, self.flaws.len());
            self.value(depth + 1)?;
            for flaw in self.flaws.iter_mut().skip(flaws) {
                flaw.pointer.prepend_name(&name);
            }
            if let Some(sink) = sink.as_deref_mut() {
                sink.push(Member {
                    name,
                    value: self.text.get(start..self.at).unwrap_or_default(),
                });
            }
            self.skip_space();
            if self.eat(b'}') {
                break;
            }
            if !self.eat(b',') {
                return Err(self.syntax("expected a comma or the end of the object"));
            }
            self.skip_space();
        }
        self.names.truncate(first);
        Ok(())
    }

    /// Notes a name of the object whose names start at `first`; tells whether it was there before.
    fn is_duplicate(
        &mut self,
        first: usize,
        many: &mut Option<HashSet<Cow<'a, str>>>,
        name: &Cow<'a, str>,
    ) -> bool {
        if let Some(set) = many {
            return !set.insert(name.clone());
        }
        let names = self.names.get(first..).unwrap_or_default();
        if names.iter().any(|known| known == name) {
            return true;
        }
        if names.len() < LINEAR_NAMES {
            self.names.push(name.clone());
        } else {
            let mut set: HashSet<_> = self.names.drain(first..).collect();
            set.insert(name.clone());
            *many = Some(set);
        }
        false
    }

    fn array(&mut self, depth: usize) -> Result<(), Halt> {
        self.descend(depth)?;
        self.at += 1;
        self.skip_space();
        if self.eat(b']') {
            return Ok(());
        }
        let mut index = 0;
        loop {
            let flaws = self.flaws.len();
            self.value(depth + 1)?;
            for flaw in self.flaws.iter_mut().skip(flaws) {
                flaw.pointer.prepend_index(index);
            }
            index += 1;
            self.skip_space();
            if self.eat(b']') {
                return Ok(());
            }
            if !self.eat(b',') {
                return Err(self.syntax("expected a comma or the end of the array"));
            }
            self.skip_space();
        }
    }

    fn descend(&mut self, depth: usize) -> Result<(), Halt> {
        if depth == MAX_DEPTH + 1 {
            self.flaw(
                FaultReason::TooDeep,
                "an event may nest at most 64 objects and arrays",
            );
        }
        if depth > HALT_DEPTH {
            return Err(self.halt(
                FaultReason::TooDeep,
                "an event may nest at most 64 objects and arrays",
            ));
        }
        Ok(())
    }

    fn string(&mut self) -> Result<Quoted<'a>, Halt> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            let tail = self.bytes.get(self.at..).unwrap_or_default();
            let Some(length) = tail
                .iter()
                .position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1F))
            else {
                self.at = self.bytes.len();
                return Err(self.syntax("the body ends inside a string"));
            };
            self.at += length;
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(0) => return Err(self.halt(FaultReason::NulCharacter, "NUL bytes are not allowed")),
                _ => return Err(self.syntax("control characters in strings must be escaped")),
            }
        }
        self.at += 1;
        Ok(Quoted {
            raw: self.text.get(start..self.at).unwrap_or_default(),
            escaped,
        })
    }

    fn escape(&mut self) -> Result<(), Halt> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                return Ok(());
            }
            Some(b'u') => {}
            _ => return Err(self.syntax("unknown escape in a string")),
        }
        let Some(unit) = self.unit(self.at) else {
            return Err(self.syntax("\\u must be followed by four hexadecimal digits"));
        };
        match unit {
            0 => self.flaw(
                FaultReason::NulCharacter,
                "\\u0000 is not allowed in strings and names",
            ),
            0xD800..=0xDBFF if matches!(self.unit(self.at + 6), Some(0xDC00..=0xDFFF)) => self.at += 6,
            0xD800..=0xDFFF => {
                self.flaw(
                    FaultReason::LoneSurrogate,
                    "a \\u surrogate without its other half is no character",
                );
            }
            _ => {}
        }
        self.at += 6;
        Ok(())
    }

    /// The UTF-16 unit of a `\uXXXX` that starts there.
    fn unit(&self, at: usize) -> Option<u32> {
        let digits = self.bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
        digits.iter().try_fold(0, |unit, digit| {
            Some(unit * 16 + char::from(*digit).to_digit(16)?)
        })
    }

    fn number(&mut self) -> Result<(), Halt> {
        let start = self.at;
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        } else if matches!(self.peek(), Some(b'0'..=b'9')) {
            return Err(self.syntax("numbers have no leading zeros"));
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        let scaled = matches!(self.peek(), Some(b'e' | b'E'));
        if scaled {
            self.at += 1;
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        if scaled || self.at - start > 300 {
            let number = self
                .text
                .get(start..self.at)
                .and_then(|text| text.parse::<f64>().ok());
            if !number.is_some_and(f64::is_finite) {
                self.flaw(
                    FaultReason::NumberRange,
                    "the number is too large for a 64-bit float",
                );
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<(), Halt> {
        let tail = self.bytes.get(self.at..).unwrap_or_default();
        let length = tail
            .iter()
            .position(|byte| !byte.is_ascii_digit())
            .unwrap_or(tail.len());
        self.at += length;
        if length == 0 {
            Err(self.syntax("expected a digit"))
        } else {
            Ok(())
        }
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Halt> {
        if !self
            .bytes
            .get(self.at..)
            .is_some_and(|tail| tail.starts_with(word))
        {
            return Err(self.syntax("expected a JSON value"));
        }
        self.at += word.len();
        Ok(())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn flaw(&mut self, reason: FaultReason, detail: &'static str) {
        self.flaw_at(Pointer::default(), reason, detail);
    }

    fn flaw_at(&mut self, pointer: Pointer, reason: FaultReason, detail: &'static str) {
        self.flaw_count += 1;
        if self.flaws.len() < MAX_FLAWS {
            self.flaws.push(Flaw {
                pointer,
                reason,
                detail,
            });
        }
    }

    const fn halt(&self, reason: FaultReason, detail: &'static str) -> Halt {
        Halt {
            offset: self.at,
            index: None,
            reason,
            detail,
        }
    }

    fn syntax(&self, detail: &'static str) -> Halt {
        if self.peek() == Some(0) {
            return self.halt(FaultReason::NulCharacter, "NUL bytes are not allowed");
        }
        self.halt(FaultReason::Malformed, detail)
    }
}

/// A string as written, quotes included.
struct Quoted<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Quoted<'a> {
    /// The characters meant; the text as written when it holds lone surrogates, which are a flaw already.
    fn decoded(self) -> Cow<'a, str> {
        if self.escaped
            && let Ok(text) = serde_json::from_str(self.raw)
        {
            return Cow::Owned(text);
        }
        Cow::Borrowed(
            self.raw
                .get(1..self.raw.len().saturating_sub(1))
                .unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests;
