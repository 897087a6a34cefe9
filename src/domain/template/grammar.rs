//! The grammar of placeholders: a string to its [`Piece`]s. Rules are in the parent module.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::path::{self, Path, Root, Segment};
use super::{Filter, Head, MAX_FILTERS, MAX_PLACEHOLDERS, MAX_SEGMENTS, Placeholder};
use crate::domain::event::json;

/// Most characters of a template that a message repeats.
const MAX_FOUND: usize = 32;

/// A part of a string.
pub(super) enum Piece<'a> {
    Text(&'a str),
    Placeholder(Placeholder),
}

/// Splits a string; the error says what is wrong and where in `text` with what was cut off before it.
pub(super) fn pieces<'a>(
    cut: &str,
    text: &'a str,
    pointer: &str,
    most: usize,
) -> Result<Vec<Piece<'a>>, String> {
    let mut pieces = Vec::new();
    let mut placeholders = 0;
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("{{") {
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        if placeholders == most {
            return Err(format!(
                "the template has more than {MAX_PLACEHOLDERS} placeholders; send whole objects instead of each \
                 member"
            ));
        }
        placeholders += 1;
        let mut cursor = Cursor {
            rest: tail,
            is_bare: false,
        };
        match cursor.placeholder(pointer) {
            Ok(placeholder) => pieces.push(Piece::Placeholder(placeholder)),
            Err(_) if is_unclosed(tail) => {
                let opened = text.len() - tail.len() - "{{".len();
                return Err(format!(
                    "`{{{{` {} is never closed; add `}}}}` after its path, or write `{{{{ \"{{{{\" }}}}` for the \
                     braces themselves",
                    place(cut, text, opened)
                ));
            }
            Err(message) => {
                let read = text.len() - cursor.rest.len();
                return Err(format!("{message}, {}", place(cut, text, read)));
            }
        }
        rest = cursor.rest;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// The placeholder of an expression that stands without braces; the error says what is wrong and where in it.
pub(super) fn bare(text: &str) -> Result<Placeholder, String> {
    let mut cursor = Cursor {
        rest: text,
        is_bare: true,
    };
    cursor.placeholder("").map_err(|message| {
        let read = text.len() - cursor.rest.len();
        format!("{message}, {}", place("", text, read))
    })
}

/// Whether a faulty placeholder has no end, or none before the next one begins.
fn is_unclosed(tail: &str) -> bool {
    match (tail.find("}}"), tail.find("{{")) {
        (None, _) => true,
        (Some(end), next) => next.is_some_and(|next| next < end),
    }
}

/// A position for people: the line is only named when there are several.
fn place(cut: &str, text: &str, at: usize) -> String {
    let read = [cut, text.get(..at).unwrap_or_default()].concat();
    let line = read.rsplit('\n').next().unwrap_or_default();
    let character = 1 + line.chars().count();
    if read.contains('\n') || text.contains('\n') {
        format!(
            "at line {}, character {character}",
            1 + read.matches('\n').count()
        )
    } else {
        format!("at character {character}")
    }
}

struct Cursor<'a> {
    rest: &'a str,
    /// There are no braces: the end of the text is the placeholder's.
    is_bare: bool,
}

impl<'a> Cursor<'a> {
    fn placeholder(&mut self, pointer: &str) -> Result<Placeholder, String> {
        self.skip_space();
        let head = match self.peek() {
            Some('"' | '\'') => Head::Literal(self.string()?.into()),
            Some('}') => {
                return Err("the placeholder is empty; write a path such as $.event.message".to_owned());
            }
            _ => Head::Path(self.path()?),
        };
        let mut filters = Vec::new();
        loop {
            self.skip_space();
            let is_end = if self.is_bare {
                self.rest.is_empty()
            } else {
                self.eat("}}")
            };
            if is_end {
                return Ok(Placeholder {
                    pointer: pointer.into(),
                    head,
                    filters: filters.into(),
                });
            }
            if !self.eat("|") {
                let end = if self.is_bare { "the end" } else { "`}}`" };
                return Err(format!("expected `|` or {end} here, not {}", self.found()));
            }
            if filters.len() == MAX_FILTERS {
                return Err(format!("a placeholder has at most {MAX_FILTERS} filters"));
            }
            filters.push(self.filter()?);
        }
    }

    fn path(&mut self) -> Result<Path, String> {
        let start = self.rest;
        if self.eat("$") && !self.eat(".") {
            return Err(
                "expected `.` and event, project, destination or delivery after `$`, as in $.event.message"
                    .to_owned(),
            );
        }
        let root = self.rest;
        let name = self.name().unwrap_or_default();
        let Some(root) = Root::parse(name) else {
            self.rest = root;
            let found = self.found();
            return Err(format!(
                "a path starts with event, project, destination or delivery, as in $.event.message, not with {found}"
            ));
        };
        let mut segments = Vec::new();
        loop {
            let segment = if self.eat(".") {
                let name = self
                    .name()
                    .ok_or("expected a name after `.`; a name with other characters than letters, digits, `_` and `-` is written as \
                     [\"…\"]")?;
                Segment::Name(name.into())
            } else if self.eat("[") {
                self.skip_space();
                let segment = match self.peek() {
                    Some('"' | '\'') => Segment::Name(self.string()?.into()),
                    _ => Segment::Index(self.index()?),
                };
                self.skip_space();
                if !self.eat("]") {
                    return Err(format!("expected `]` here, not {}", self.found()));
                }
                segment
            } else {
                break;
            };
            if segments.len() == MAX_SEGMENTS {
                return Err(format!("a path has at most {MAX_SEGMENTS} segments"));
            }
            segments.push(segment);
        }
        let path = Path {
            root,
            segments: segments.into(),
        };
        path.misspelt().map_or(Ok(path), |message| {
            self.rest = start;
            Err(message)
        })
    }

    fn filter(&mut self) -> Result<Filter, String> {
        self.skip_space();
        let start = self.rest;
        match self.name() {
            Some("json") => {
                self.skip_space();
                if self.peek() == Some('(') {
                    Err("json takes no argument; write `| json`".to_owned())
                } else {
                    Ok(Filter::Json)
                }
            }
            Some("default") => {
                self.skip_space();
                if !self.eat("(") {
                    return Err("default needs an argument, for example default(\"none\")".to_owned());
                }
                self.skip_space();
                let value = self.literal()?;
                self.skip_space();
                if !self.eat(")") {
                    return Err(format!(
                        "expected `)` after the value of default, not {}",
                        self.found()
                    ));
                }
                Ok(Filter::Default(value))
            }
            name => {
                self.rest = start;
                match name {
                    Some(_) => {
                        let found = self.found();
                        Err(format!("unknown filter {found}; known are default and json"))
                    }
                    None => Err("expected a filter, default or json, after `|`".to_owned()),
                }
            }
        }
    }

    /// A JSON value, or text between single quotes.
    fn literal(&mut self) -> Result<Value, String> {
        if self.peek() == Some('\'') {
            return self.string().map(Value::String);
        }
        self.json()
            .ok_or_else(|| "expected a JSON value inside default(…), such as \"none\", 0 or null".to_owned())
    }

    fn string(&mut self) -> Result<String, String> {
        if self.eat("'") {
            let (text, rest) = self
                .rest
                .split_once('\'')
                .ok_or("this text has no closing `'`; add one")?;
            self.rest = rest;
            return Ok(text.to_owned());
        }
        match self.peek() {
            Some('"') => self.json().ok_or_else(|| {
                "this text is no JSON string; add the closing `\"`, or use single quotes".to_owned()
            }),
            _ => Err("expected text in quotes".to_owned()),
        }
    }

    /// A JSON value that something else may follow.
    fn json<T: DeserializeOwned>(&mut self) -> Option<T> {
        let raw = json::prefix(self.rest)?;
        let value = serde_json::from_str(raw).ok()?;
        self.rest = self.rest.strip_prefix(raw)?;
        Some(value)
    }

    fn index(&mut self) -> Result<usize, String> {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let index = digits
            .parse()
            .map_err(|_| "expected a position, such as [0], or a name in quotes")?;
        self.rest = rest;
        Ok(index)
    }

    fn name(&mut self) -> Option<&'a str> {
        let end = self
            .rest
            .find(|c| !path::is_name_character(c))
            .unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    /// What comes next, for messages: a word, or one character.
    fn found(&self) -> String {
        let rest = self.rest;
        let word = rest.find(|c| !path::is_name_character(c)).unwrap_or(rest.len());
        let length = word.max(self.peek().map_or(0, char::len_utf8));
        match rest.get(..length) {
            None | Some("") => "the end".to_owned(),
            Some(found) if found.chars().nth(MAX_FOUND).is_some() => {
                format!("`{}…`", found.chars().take(MAX_FOUND).collect::<String>())
            }
            Some(found) => format!("`{found}`"),
        }
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn eat(&mut self, text: &str) -> bool {
        match self.rest.strip_prefix(text) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }
}
