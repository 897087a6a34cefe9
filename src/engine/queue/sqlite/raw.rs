//! Finding events in a damaged file without its tree: leaf page by leaf page.
//!
//! When a page inside the tree of events is lost, SQLite cannot reach the intact leaves below it. Their rows are found
//! by looking at every page, in the log and in the file, and taking what looks like an event; its checksum then says
//! whether it is one.
//!
//! # The format of a leaf of a table
//!
//! Byte 0 is `0d`, bytes 3 and 4 the number of cells, from byte 8 two bytes per cell with its place. A cell: length of
//! the record, rowid (both variable-length integers), the record; a record over 4061 bytes goes on in a chain of
//! pages, each with the number of the next in its first four bytes. A record: length of its header and one type per
//! column (variable-length integers), then the columns. Page 1 begins with the file's header and holds no events.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rusqlite::types::Value;

use super::fault::StoreError;
use super::opening::beside;
use super::schema::PAGE;
use super::wal;

/// Columns of an event.
const COLUMNS: usize = 8;
/// Largest record that is believed: events are bounded by the publish API.
const MAX_RECORD: usize = 64 << 20;

/// A damaged file's pages.
struct Pages {
    file: File,
    count: u64,
    log: Vec<u8>,
    /// Where the log has the newest state of a page.
    newest: HashMap<u64, usize>,
}

impl Pages {
    fn open(path: &Path) -> Result<Self, StoreError> {
        let file = File::open(path)?;
        let count = file.metadata()?.len() / PAGE as u64;
        let log = std::fs::read(beside(path, "-wal")).unwrap_or_default();
        let salts = log.get(16..24).unwrap_or_default().to_vec();
        let mut newest = HashMap::new();
        let frames = log
            .get(wal::HEADER..)
            .unwrap_or_default()
            .chunks_exact(wal::FRAME);
        for (number, frame) in frames.enumerate() {
            if frame.get(8..16) == Some(&*salts) {
                let page = wal::HEADER + number * wal::FRAME + wal::FRAME_HEADER;
                newest.insert(u64::from(word(frame)), page);
            }
        }
        Ok(Self {
            file,
            count,
            log,
            newest,
        })
    }

    fn read(&self, number: u64, page: &mut [u8; PAGE]) -> bool {
        if let Some(bytes) = self
            .newest
            .get(&number)
            .and_then(|at| self.log.get(*at..*at + PAGE))
        {
            page.copy_from_slice(bytes);
            return true;
        }
        let at = number.saturating_sub(1).saturating_mul(PAGE as u64);
        number > 0 && self.file.read_exact_at(page, at).is_ok()
    }

    /// The record of a cell: what is on its page, and what follows in the chain.
    fn record(&self, length: usize, local: &[u8]) -> Option<Vec<u8>> {
        const LARGEST: usize = PAGE - 35;
        const LEAST: usize = (PAGE - 12) * 32 / 255 - 23;
        if length <= LARGEST {
            return local.get(..length).map(<[u8]>::to_vec);
        }
        let fitting = LEAST + (length - LEAST) % (PAGE - 4);
        let here = if fitting <= LARGEST { fitting } else { LEAST };
        let mut record = local.get(..here)?.to_vec();
        let mut next = u64::from(word(local.get(here..here + 4)?));
        let mut page = [0; PAGE];
        while record.len() < length {
            if !self.read(next, &mut page) {
                return None;
            }
            let (head, rest) = page.split_at(4);
            let missing = length - record.len();
            record.extend_from_slice(rest.get(..missing).unwrap_or(rest));
            next = u64::from(word(head));
        }
        Some(record)
    }
}

/// Calls `each` with every row that looks like an event: its position, and its columns but the first.
pub(super) fn events(
    path: &Path,
    mut each: impl FnMut(i64, Vec<Value>) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let pages = Pages::open(path)?;
    let last = pages.newest.keys().copied().max().unwrap_or(0).max(pages.count);
    let mut page = [0; PAGE];
    for number in 2..=last {
        if !pages.read(number, &mut page) || page.first() != Some(&0x0d) {
            continue;
        }
        for cell in 0..half(&page, 3) {
            let place = half(&page, 8 + 2 * cell);
            let Some((seq, columns)) = page.get(place..).and_then(|cell| read_cell(&pages, cell)) else {
                continue;
            };
            each(seq, columns)?;
        }
    }
    Ok(())
}

fn read_cell(pages: &Pages, mut cell: &[u8]) -> Option<(i64, Vec<Value>)> {
    let length = usize::try_from(variable(&mut cell)?)
        .ok()
        .filter(|length| *length <= MAX_RECORD)?;
    let seq = variable(&mut cell)?.cast_signed();
    let record = pages.record(length, cell)?;
    let mut header = &*record;
    let head = usize::try_from(variable(&mut header)?).ok()?;
    let used = record.len().checked_sub(header.len())?;
    let mut types = record.get(used..head)?;
    let mut body = record.get(head..)?;
    let mut columns = Vec::with_capacity(COLUMNS);
    while !types.is_empty() {
        let kind = variable(&mut types)?;
        columns.push(column(kind, &mut body)?);
        if columns.len() > COLUMNS {
            return None;
        }
    }
    (columns.len() == COLUMNS && columns.remove(0) == Value::Null).then_some((seq, columns))
}

fn column(kind: u64, body: &mut &[u8]) -> Option<Value> {
    let mut take = |length: usize| {
        let (taken, rest) = body.split_at_checked(length)?;
        *body = rest;
        Some(taken)
    };
    Some(match kind {
        0 => Value::Null,
        1..=6 => {
            let length = match kind {
                5 => 6,
                6 => 8,
                shorter => usize::try_from(shorter).ok()?,
            };
            let bytes = take(length)?;
            let sign = if bytes.first()? & 0x80 == 0 { 0 } else { -1 };
            Value::Integer(
                bytes
                    .iter()
                    .fold(sign, |number: i64, byte| number << 8 | i64::from(*byte)),
            )
        }
        8 => Value::Integer(0),
        9 => Value::Integer(1),
        blob if blob >= 12 && blob % 2 == 0 => {
            Value::Blob(take(usize::try_from((blob - 12) / 2).ok()?)?.to_vec())
        }
        text if text >= 13 => {
            let bytes = take(usize::try_from((text - 13) / 2).ok()?)?;
            Value::Text(String::from_utf8(bytes.to_vec()).ok()?)
        }
        _ => return None,
    })
}

/// Reads a variable-length integer: seven bits per byte, the highest first, all of a ninth.
fn variable(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for place in 0..9 {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        if place == 8 {
            return Some(value << 8 | u64::from(*first));
        }
        value = value << 7 | u64::from(first & 0x7f);
        if first & 0x80 == 0 {
            break;
        }
    }
    Some(value)
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(
        bytes
            .get(..4)
            .and_then(|word| word.try_into().ok())
            .unwrap_or_default(),
    )
}

fn half(bytes: &[u8], at: usize) -> usize {
    let half = bytes
        .get(at..at + 2)
        .and_then(|half| half.try_into().ok())
        .unwrap_or_default();
    usize::from(u16::from_be_bytes(half))
}
