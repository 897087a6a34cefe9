//! [`Words`]: texts that many records share, stored once.
//!
//! Bounded: beyond [`MOST`] texts or [`MOST_BYTES`], a text stands in its record itself; so do the headers of a
//! destination that has had [`MOST_OF_LANE`] others, because they will differ the next time, too. Texts that no record has
//! any more go when a file is opened that is more than half full of them.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::Connection;
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};

/// Most texts.
const MOST: usize = 10_000;
/// Most bytes of them.
const MOST_BYTES: usize = 4 << 20;
/// Most headers of one destination while a file is open: they change with its configuration, unless with each event.
const MOST_OF_LANE: u32 = 64;
/// Most texts that are known by where they lie in memory.
const MOST_RECENT: usize = 256;

/// Texts by number, and back. What is known is what the file holds, or a transaction that is open.
#[derive(Debug, Default)]
pub(super) struct Words {
    numbers: HashMap<Box<str>, i64>,
    texts: HashMap<i64, Box<str>>,
    bytes: usize,
    /// By address, which stays theirs as long as they are here: records share them, and they are long to hash.
    recent: HashMap<usize, (Arc<str>, i64)>,
    /// Headers that a destination, by number, has added.
    added: HashMap<i64, u32>,
}

/// A text as it is stored.
#[derive(Clone, Copy, Debug)]
pub(super) enum Word<'a> {
    /// Its number.
    Number(i64),
    /// Itself.
    Text(&'a str),
}

impl ToSql for Word<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Number(number) => ToSqlOutput::from(*number),
            Self::Text(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        })
    }
}

impl Words {
    /// Reads the texts of a file, and removes unused ones when there are many.
    pub(super) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let words = Self::read_all(connection)?;
        if words.numbers.len() <= MOST / 2 && words.bytes <= MOST_BYTES / 2 {
            return Ok(words);
        }
        connection.execute(
            "DELETE FROM words WHERE number NOT IN (SELECT kind FROM attempts WHERE typeof(kind) = 'integer'
             UNION SELECT reason FROM attempts WHERE typeof(reason) = 'integer'
             UNION SELECT headers FROM attempts WHERE typeof(headers) = 'integer')",
            [],
        )?;
        Self::read_all(connection)
    }

    fn read_all(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let mut words = Self::default();
        let mut statement = connection.prepare("SELECT number, text FROM words")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            words.put(&row.get::<_, String>(1)?, row.get(0)?);
        }
        Ok(words)
    }

    fn put(&mut self, text: &str, number: i64) {
        self.bytes = self.bytes.saturating_add(text.len());
        self.numbers.insert(text.into(), number);
        self.texts.insert(number, text.into());
    }

    /// The stored form of a text that is about to be written.
    pub(super) fn intern<'a>(
        &mut self,
        connection: &Connection,
        text: &'a str,
    ) -> Result<Word<'a>, rusqlite::Error> {
        if let Some(number) = self.numbers.get(text) {
            return Ok(Word::Number(*number));
        }
        if self.numbers.len() >= MOST || self.bytes.saturating_add(text.len()) > MOST_BYTES {
            return Ok(Word::Text(text));
        }
        let mut statement = connection.prepare_cached("INSERT INTO words(text) VALUES(?1)")?;
        let number = statement.insert([text])?;
        self.put(text, number);
        Ok(Word::Number(number))
    }

    /// The same for headers of a destination, which many records share in memory, too.
    pub(super) fn intern_shared<'a>(
        &mut self,
        connection: &Connection,
        lane: i64,
        text: &'a Arc<str>,
    ) -> Result<Word<'a>, rusqlite::Error> {
        let address = text.as_ptr().addr();
        if let Some((_, number)) = self.recent.get(&address) {
            return Ok(Word::Number(*number));
        }
        if !self.numbers.contains_key(&**text) {
            let added = self.added.entry(lane).or_default();
            if *added >= MOST_OF_LANE {
                return Ok(Word::Text(text));
            }
            *added += 1;
        }
        let word = self.intern(connection, text)?;
        if let Word::Number(number) = word {
            if self.recent.len() >= MOST_RECENT {
                self.recent.clear();
            }
            self.recent.insert(address, (Arc::clone(text), number));
        }
        Ok(word)
    }

    /// Forgets how many headers a destination has added of which nothing is left.
    pub(super) fn forget(&mut self, lane: i64) {
        self.added.remove(&lane);
    }

    /// The stored form of a text, if any record can have it.
    pub(super) fn find<'a>(&self, text: &'a str) -> Word<'a> {
        let number = self.numbers.get(text);
        number.map_or(Word::Text(text), |number| Word::Number(*number))
    }

    /// The text of a stored form.
    pub(super) fn text<'a>(&'a self, stored: ValueRef<'a>) -> &'a str {
        match stored {
            ValueRef::Integer(number) => self.texts.get(&number).map_or("", |text| text),
            ValueRef::Text(text) => std::str::from_utf8(text).unwrap_or_default(),
            _ => "",
        }
    }
}

impl Word<'_> {
    /// Whether a stored form is this one.
    pub(super) fn is(&self, stored: ValueRef<'_>) -> bool {
        match (self, stored) {
            (Self::Number(number), ValueRef::Integer(stored)) => *number == stored,
            (Self::Text(text), ValueRef::Text(stored)) => text.as_bytes() == stored,
            // It may have been stored in full before there was a number.
            _ => false,
        }
    }
}
