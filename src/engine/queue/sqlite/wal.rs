//! Mending the log that a process left behind.
//!
//! SQLite reads its log up to the first frame whose checksum is wrong and silently drops the rest: a torn end after a
//! power failure looks like that, and so does one flipped bit in the middle, behind which commits follow that were
//! acknowledged. This module tells the two apart and writes the checksums of the log anew, so that SQLite reads all of
//! it. The last commit is let in, too, when its frames are there and only their sums are wrong: it may have been
//! acknowledged.
//!
//! What a flipped bit did to a page that is let in is found when it broke the page's structure (by the check of the
//! file), an event's row (by its checksum, when it is delivered), or the lane of a delivery so that it has no name. It
//! is *not* found in the other numbers of `deliveries`, and in `ids`, `old_ids`, `health` and the names: these rows have
//! no checksum. Such a bit makes one delivery come at another time, with another count of attempts, or as
//! [`Stored::Corrupt`](crate::engine::queue::Stored::Corrupt) when its event is not there; go to another lane whose
//! number differs by that bit, or be one of another event; or forgets one id. The mended log is reported for that reason.
//!
//! # The format
//!
//! Header, 32 bytes, big-endian: magic (`377f0682`: sums over little-endian words, `377f0683`: over big-endian ones),
//! version, page size, checkpoint number, two salts, two sums over the 24 bytes before. Then frames: page number, size
//! of the database after a commit (else 0), the two salts, two sums, the page. The sums of a frame go over the first 8
//! bytes of its header and the page, and begin with the sums before it. So a frame can be checked by itself with the
//! stored sums of the frame before. Frames of an older round of the log have other salts.
//!
//! The log is bounded by checkpoints, see [`LOG_BYTES`](super::schema::LOG_BYTES), so it is read as a whole.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use super::fault::StoreError;
use super::opening::beside;
use super::schema::PAGE;

const HEADER: usize = 32;
/// Bytes of a frame before its page.
pub(super) const FRAME: usize = 24;
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;

type Sums = (u32, u32);

fn word(bytes: &[u8], at: usize) -> u32 {
    let word = bytes
        .get(at..at.saturating_add(4))
        .and_then(|word| word.try_into().ok());
    u32::from_be_bytes(word.unwrap_or_default())
}

fn put(bytes: &mut [u8], at: usize, value: u32) {
    if let Some(place) = bytes.get_mut(at..at.saturating_add(4)) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

fn pair(bytes: &[u8], at: usize) -> Sums {
    (word(bytes, at), word(bytes, at.saturating_add(4)))
}

fn sums(little: bool, (mut first, mut second): Sums, bytes: &[u8]) -> Sums {
    let read = |word: &[u8]| {
        let word = word.try_into().unwrap_or_default();
        if little {
            u32::from_le_bytes(word)
        } else {
            u32::from_be_bytes(word)
        }
    };
    for words in bytes.chunks_exact(8) {
        let (left, right) = words.split_at(4);
        first = first.wrapping_add(read(left)).wrapping_add(second);
        second = second.wrapping_add(read(right)).wrapping_add(first);
    }
    (first, second)
}

fn frame_sums(little: bool, before: Sums, frame: &[u8]) -> Sums {
    let head = sums(little, before, frame.get(..8).unwrap_or_default());
    sums(little, head, frame.get(FRAME..).unwrap_or_default())
}

/// Mends the log in place and says what was done. `None` when SQLite will read all that is worth reading.
pub(super) fn mend(path: &Path, time: &str) -> Result<Option<String>, StoreError> {
    let log = beside(path, "-wal");
    let before = std::fs::read(&log)?;
    let Some((after, frames)) = mend_bytes(&before) else {
        return Ok(None);
    };
    let copy = beside(path, &format!(".damaged-{time}-wal"));
    let mut file = File::create(&copy)?;
    file.write_all(&before)?;
    file.sync_all()?;
    let mut file = File::options().write(true).open(&log)?;
    file.write_all(&after)?;
    file.sync_all()?;
    let report = format!(
        "the log had {frames} damaged pages; they were let in, a copy of the log is {}",
        copy.display()
    );
    Ok(Some(report))
}

/// The mended log, and the number of bad frames.
fn mend_bytes(log: &[u8]) -> Option<(Vec<u8>, usize)> {
    let page = usize::try_from(PAGE).ok()?;
    let frames: Vec<&[u8]> = log.get(HEADER..)?.chunks_exact(FRAME + page).collect();
    let header = log.get(..HEADER)?;
    let little = word(header, 0) != MAGIC | 1;
    let header_good = (word(header, 0) | 1, word(header, 4), word(header, 8)) == (MAGIC | 1, VERSION, 4096)
        && sums(little, (0, 0), header.get(..24)?) == pair(header, 24);
    // A damaged header's salts are those of its first frames.
    let salts = if header_good {
        pair(header, 16)
    } else {
        pair(frames.first()?, 8)
    };
    let mut seed = pair(header, 24);
    let good: Vec<bool> = frames
        .iter()
        .map(|frame| {
            let stored = pair(frame, 16);
            let good = pair(frame, 8) == salts && frame_sums(little, seed, frame) == stored;
            seed = stored;
            good
        })
        .collect();
    if !header_good && !good.iter().any(|good| *good) {
        return None;
    }
    let commits = |frame: &[u8]| word(frame, 4) != 0;
    let whole = if header_good {
        good.iter().take_while(|good| **good).count()
    } else {
        0
    };
    // The last commit: a good frame anywhere, or a bad one that at least belongs to this round of the log.
    let last = frames
        .iter()
        .zip(&good)
        .rposition(|(frame, good)| commits(frame) && (*good || pair(frame, 8) == salts))?;
    if last < whole {
        return None;
    }
    let bad = good.get(..=last)?.iter().filter(|good| !**good).count();
    let mut mended = log.to_vec();
    let (head, rest) = mended.split_at_mut(HEADER);
    if !header_good {
        let kept = word(head, 12);
        for (at, value) in [
            (0, MAGIC),
            (4, VERSION),
            (8, 4096),
            (12, kept),
            (16, salts.0),
            (20, salts.1),
        ] {
            put(head, at, value);
        }
        let (first, second) = sums(true, (0, 0), head.get(..24)?);
        put(head, 24, first);
        put(head, 28, second);
    }
    let mut seed = pair(head, 24);
    for frame in rest.chunks_exact_mut(FRAME + page).take(last.saturating_add(1)) {
        put(frame, 8, salts.0);
        put(frame, 12, salts.1);
        seed = frame_sums(little, seed, frame);
        put(frame, 16, seed.0);
        put(frame, 20, seed.1);
    }
    Some((mended, bad))
}
