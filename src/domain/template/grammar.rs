//! The grammar of placeholders: a string to its [`Piece`]s. Rules are in the parent module.

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::path::{self, Path, Root, Segment};
use super::{Filter, Head, MAX_FILTERS, MAX_PLACEHOLDERS, MAX_SEGMENTS, Placeholder};
use crate::domain::event::json;

/// A part of a string.
pub(super) enum Piece<'a> {
    Text(&'a str),
    Placeholder(Placeholder),
}

/// Splits a string; the error says what is wrong and at which character.
pub(super) fn pieces<'a>(text: &'a str, pointer: &str, most: usize) -> Result<Vec<Piece<'a>>, String> {
    let mut pieces = Vec::new();
    let mut placeholders = 0;
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("{{") {
        if !before.is_empty() {
            pieces.push(Piece::Text(before));
        }
        if placeholders == most {
            return Err(format!(
                "the template has more than {MAX_PLACEHOLDERS} placeholders"
            ));
        }
        placeholders += 1;
        let mut cursor = Cursor { rest: tail };
        match cursor.placeholder(pointer) {
            Ok(placeholder) => pieces.push(Piece::Placeholder(placeholder)),
            Err(message) => {
                let read = text.len() - cursor.rest.len();
                let character = 1 + text.get(..read).unwrap_or_default().chars().count();
                return Err(format!("{message}, at character {character}"));
            }
        }
        rest = cursor.rest;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

struct Cursor<'a> {
    rest: &'a str,
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
            if self.eat("}}") {
                return Ok(Placeholder {
                    pointer: pointer.into(),
                    head,
                    filters: filters.into(),
                });
            }
            if !self.eat("|") {
                return Err("expected `|` or `}}`".to_owned());
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
            return Err("expected `.` and event, project, destination or delivery after `$`".to_owned());
        }
        let name = self.name().unwrap_or_default();
        let Some(root) = Root::parse(name) else {
            self.rest = start;
            return Err("a path starts with event, project, destination or delivery".to_owned());
        };
        let mut segments = Vec::new();
        loop {
            let segment = if self.eat(".") {
                let name = self
                    .name()
                    .ok_or("expected a name after `.`; write other names as [\"…\"]")?;
                Segment::Name(name.into())
            } else if self.eat("[") {
                self.skip_space();
                let segment = match self.peek() {
                    Some('"' | '\'') => Segment::Name(self.string()?.into()),
                    _ => Segment::Index(self.index()?),
                };
                self.skip_space();
                if !self.eat("]") {
                    return Err("expected `]`".to_owned());
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
                    Err("json takes no argument".to_owned())
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
                    return Err("expected `)`".to_owned());
                }
                Ok(Filter::Default(value))
            }
            name => {
                self.rest = start;
                match name {
                    Some(_) => Err("unknown filter; known are default and json".to_owned()),
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
            .ok_or_else(|| "expected a JSON value, such as \"none\", 0 or null".to_owned())
    }

    fn string(&mut self) -> Result<String, String> {
        if self.eat("'") {
            let (text, rest) = self
                .rest
                .split_once('\'')
                .ok_or("the text has no closing quote")?;
            self.rest = rest;
            return Ok(text.to_owned());
        }
        match self.peek() {
            Some('"') => self
                .json()
                .ok_or_else(|| "expected a string in quotes".to_owned()),
            _ => Err("expected a string in quotes".to_owned()),
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
