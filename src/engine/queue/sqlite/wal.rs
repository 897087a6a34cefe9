//! Mending the log that a process left behind.
//!
//! SQLite reads its log up to the first frame whose checksum is wrong and silently drops the rest: a torn end looks like
//! that, and so does one flipped bit in the middle, behind which commits follow that were acknowledged. This module
//! tells the two apart and writes the checksums of the log anew, so that SQLite reads all of it.
//!
//! A frame of which one byte is wrong is put right when its sums say which byte and what it was, see
//! [`checksum`](super::checksum), else let in as it is. One with more damage is let in as it is when a transaction behind it is whole: SQLite
//! began to write that one after all before it was on the disk. A damaged frame in the last transaction proves nothing.
//! A kill between the header of a frame and its page leaves the page of an older round behind the header of a commit,
//! and a power failure any mixture; to let that in would undo what older commits wrote. So the last transaction is
//! dropped when such a frame is in it, as SQLite does, and that is said: it was acknowledged if the disk lost what it
//! had confirmed.
//!
//! What damage did to a page that is let in is found when it broke the page's structure (by the check of the
//! file), an event's row (by its checksum, when it is delivered), or the lane of a delivery so that it has no name. It
//! is *not* found in the other numbers of `deliveries`, and in `ids`, `old_ids`, `health` and the names: these rows have
//! no checksum. Such damage makes one delivery come at another time, with another count of attempts, or as
//! [`Stored::Corrupt`](crate::engine::queue::Stored::Corrupt) when its event is not there; go to another lane whose
//! number differs, or be one of another event; or forgets one id. The mended log is reported for that reason.
//!
//! # The format
//!
//! Header, 32 bytes, big-endian: magic (`377f0682`: sums over little-endian words, `377f0683`: over big-endian ones),
//! version, page size, checkpoint number, two salts, two sums over the 24 bytes before. Then frames: page number, size
//! of the database after a commit (else 0), the two salts, two sums, the page. The sums of a frame go over the first 8
//! bytes of its header and the page, and begin with the sums before it. So a frame can be checked by itself with the
//! stored sums of the frame before. Frames of an older round of the log have other salts.
//!
//! The log is read frame by frame: checkpoints bound it, see [`LOG_BYTES`](super::schema::LOG_BYTES), but not while the
//! file is looked through after an unclean stop.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::checksum::{Order, Pair, Repair, changed_byte, one_byte_differs};
use super::fault::StoreError;
use super::opening::{beside, sync_directory};
use super::schema::{PAGE, PAGE_BYTES};

/// Bytes of the log's header.
pub(super) const HEADER: usize = 32;
/// Bytes of a frame before its page.
pub(super) const FRAME_HEADER: usize = 24;
/// Bytes of a frame with its page.
pub(super) const FRAME: usize = FRAME_HEADER + PAGE;
/// What a mended log is called until it takes the place of the damaged one.
pub(super) const MENDED: &str = "-wal.mended";
const MAGIC: u32 = 0x377f_0682;
const VERSION: u32 = 3_007_000;
/// Where in a frame's header the size of the database after a commit is.
const SIZE: usize = 4;
/// Bytes of a frame's header that its sums go over.
const SUMMED_HEADER: usize = 8;

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

fn pair(bytes: &[u8], at: usize) -> Pair {
    (word(bytes, at), word(bytes, at.saturating_add(4)))
}

fn put_pair(bytes: &mut [u8], at: usize, (first, second): Pair) {
    put(bytes, at, first);
    put(bytes, at.saturating_add(4), second);
}

/// What was found in a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// What was mended, in words; `None` when SQLite reads all that is worth reading.
    pub(super) mended: Option<String>,
    /// Frames of this round behind the last whole commit: a commit that was not finished.
    pub(super) torn: usize,
}

/// Mends the log if it is damaged. The new one takes its place at once: of a log that is half mended, this module would
/// take the seam for damage.
pub(super) fn mend(path: &Path, time: &str) -> Result<Found, StoreError> {
    let log = beside(path, "-wal");
    let Some(read) = Log::read(&log)? else {
        return Ok(Found::default());
    };
    let Some(taken) = read.last_proof().and_then(|last| read.frames.get(..=last)) else {
        let torn = read.torn(0);
        return Ok(Found { mended: None, torn });
    };
    let torn = read.torn(taken.len());
    let damage = Damage::of(&read, taken);
    if damage == Damage::default() {
        return Ok(Found { mended: None, torn });
    }
    let copy = beside(path, &format!(".damaged-{time}-wal"));
    let new = beside(path, MENDED);
    let made = keep_copy(&log, &copy).and_then(|()| write_mended(&log, &new, &read, taken));
    if let Err(error) = made {
        // Of no use, and the next try makes others.
        for part in [&copy, &new] {
            std::fs::remove_file(part).ok();
        }
        return Err(error.into());
    }
    std::fs::rename(&new, &log)?;
    sync_directory(path)?;
    let mended = Some(format!("{damage}; a copy of the log is {}", copy.display()));
    Ok(Found { mended, torn })
}

fn keep_copy(log: &Path, copy: &Path) -> io::Result<()> {
    std::fs::copy(log, copy)?;
    File::open(copy)?.sync_all()
}

/// Writes the frames that are taken, mended, and what follows them as it is.
fn write_mended(log: &Path, new: &Path, read: &Log, taken: &[Frame]) -> io::Result<()> {
    let (mut header, mut frames) = Frames::open(log)?.ok_or(io::ErrorKind::UnexpectedEof)?;
    if !read.header_good {
        header = new_header(word(&header, 12), read.salts);
    }
    let mut out = BufWriter::new(File::create(new)?);
    out.write_all(&header)?;
    let order = order(&header);
    let mut seed = pair(&header, 24);
    let superseded = taken.last().map_or(0, |last| last.page);
    for found in taken {
        let mut frame = frames.next()?.ok_or(io::ErrorKind::UnexpectedEof)?.to_vec();
        if let Some(repair) = found.state.repair() {
            frame = apply(repair, &frame);
        }
        if word(&frame, 0) == 0 {
            // Which page it was is lost. A page that the log has again later makes it harmless.
            put(&mut frame, 0, superseded);
        }
        put_pair(&mut frame, 8, read.salts);
        seed = order.sums(seed, &summed(&frame));
        put_pair(&mut frame, 16, seed);
        out.write_all(&frame)?;
    }
    while let Some(frame) = frames.next()? {
        out.write_all(frame)?;
    }
    out.into_inner()?.sync_all()
}

/// Writes what the whole commits of a log hold into a new file; how many pages, `None` when there is no whole commit.
pub(super) fn replay(log: &Path, file: &Path) -> Result<Option<usize>, StoreError> {
    let Some(read) = Log::read(log)? else {
        return Ok(None);
    };
    let Some(taken) = read.last_proof().and_then(|last| read.frames.get(..=last)) else {
        return Ok(None);
    };
    let Some((_, mut frames)) = Frames::open(log)? else {
        return Ok(None);
    };
    let out = File::create(file)?;
    let mut pages = HashSet::new();
    let mut size = 0;
    for found in taken {
        let Some(frame) = frames.next()? else { break };
        let frame = match found.state.repair() {
            Some(repair) => apply(repair, frame),
            None => frame.to_vec(),
        };
        if found.commits {
            size = u64::from(word(&frame, SIZE));
        }
        if let Some(place) = u64::from(found.page).checked_sub(1) {
            let page = frame.get(FRAME_HEADER..).unwrap_or_default();
            out.write_all_at(page, place.saturating_mul(PAGE as u64))?;
            pages.insert(found.page);
        }
    }
    out.set_len(size.saturating_mul(PAGE as u64))?;
    out.sync_all()?;
    Ok(Some(pages.len()))
}

/// The frames of a log, one after the other.
struct Frames {
    file: BufReader<File>,
    frame: Vec<u8>,
}

impl Frames {
    /// The header and the frames; `None` when the log is too short for a header.
    fn open(log: &Path) -> io::Result<Option<([u8; HEADER], Self)>> {
        let mut file = BufReader::with_capacity(64 * FRAME, File::open(log)?);
        let mut header = [0; HEADER];
        match file.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let frame = vec![0; FRAME];
        Ok(Some((header, Self { file, frame })))
    }

    /// The next whole frame.
    fn next(&mut self) -> io::Result<Option<&[u8]>> {
        match self.file.read_exact(&mut self.frame) {
            Ok(()) => Ok(Some(&self.frame)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What was wrong with a log up to its last proof.
#[derive(Debug, Default, PartialEq, Eq)]
struct Damage {
    header: bool,
    /// Frames of which one byte was wrong. It was put right.
    repaired: usize,
    /// Frames that were let in as they are.
    let_in: usize,
}

impl Damage {
    fn of(log: &Log, taken: &[Frame]) -> Self {
        Self {
            header: !log.header_good,
            repaired: count(taken, |state| {
                matches!(state, State::Changed(_) | State::OtherSalts | State::OtherSums(_))
            }),
            let_in: count(taken, |state| {
                matches!(state, State::ChangedSomewhere { .. } | State::Bad)
            }),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the log was damaged")?;
        if self.header {
            out.write_str("; its header was made again")?;
        }
        if self.repaired > 0 {
            write!(
                out,
                "; one wrong byte was put right in each of {} pages",
                self.repaired
            )?;
        }
        if self.let_in > 0 {
            write!(out, "; {} pages were let in as they are", self.let_in)?;
        }
        Ok(())
    }
}

/// What a frame's sums and salts say about it.
#[derive(Debug)]
enum State {
    Good,
    /// One byte of its page, of its number or of the size after it is wrong.
    Changed(Repair),
    /// So, or one byte of its sums; which one is not known.
    ChangedSomewhere {
        /// The change that would have made the size of the database smaller. It is taken: what is beyond that size is
        /// lost, but too large a size is found by the check of the file.
        larger: Option<Repair>,
        /// The sums it has.
        sums: Vec<Pair>,
    },
    /// One byte of its salts is wrong.
    OtherSalts,
    /// One byte of its sums is wrong; these are the right ones.
    OtherSums(Pair),
    /// Torn, damaged in several bytes, or of an older round.
    Bad,
}

impl State {
    /// What is put right in the frame.
    fn repair(&self) -> Option<&Repair> {
        match self {
            Self::Changed(repair)
            | Self::ChangedSomewhere {
                larger: Some(repair), ..
            } => Some(repair),
            _ => None,
        }
    }

    /// What the sums of the frame behind may begin with.
    fn next_seeds(&self, frame: &[u8]) -> Vec<Pair> {
        let stored = pair(frame, 16);
        match self {
            Self::OtherSums(right) => vec![*right],
            Self::ChangedSomewhere { sums, .. } => sums.iter().copied().chain([stored]).collect(),
            _ => vec![stored],
        }
    }
}

/// What is kept of a frame.
struct Frame {
    /// Number of its page.
    page: u32,
    /// Its salts are those of this round.
    ours: bool,
    state: State,
    /// Whether it ends a transaction of this round.
    commits: bool,
}

fn count(frames: &[Frame], which: impl Fn(&State) -> bool) -> usize {
    frames.iter().filter(|frame| which(&frame.state)).count()
}

/// A log as it was left.
struct Log {
    header_good: bool,
    salts: Pair,
    frames: Vec<Frame>,
}

impl Log {
    /// Reads a log frame by frame; `None` when it has none. An unfinished check of the file lets a log grow far beyond
    /// its usual bound, so that it is never held in memory as a whole: some 100 bytes for each frame are.
    fn read(log: &Path) -> io::Result<Option<Self>> {
        let Some((header, mut frames)) = Frames::open(log)? else {
            return Ok(None);
        };
        let order = order(&header);
        let known = (word(&header, 0) | 1, word(&header, 4), word(&header, 8));
        let header_good = known == (MAGIC | 1, VERSION, PAGE_BYTES)
            && order.sums((0, 0), header.get(..24).unwrap_or_default()) == pair(&header, 24);
        let salts = if header_good {
            pair(&header, 16)
        } else {
            match salts_of_frames(order, log)? {
                Some(salts) => salts,
                None => return Ok(None),
            }
        };
        // The sums of a damaged header may be what is damaged, or what is left.
        let rebuilt = new_header(word(&header, 12), salts);
        let mut seeds = vec![pair(&header, 24), pair(&rebuilt, 24)];
        let mut read = Self {
            header_good,
            salts,
            frames: Vec::new(),
        };
        while let Some(frame) = frames.next()? {
            let state = judge(order, salts, &seeds, frame);
            seeds = state.next_seeds(frame);
            let (page, size) = match state.repair() {
                Some(repair) => {
                    let whole = apply(repair, frame);
                    (word(&whole, 0), word(&whole, SIZE))
                }
                None => (word(frame, 0), word(frame, SIZE)),
            };
            let ours = pair(frame, 8) == salts;
            let commits = size != 0 && (ours || !matches!(state, State::Bad));
            read.frames.push(Frame {
                page,
                ours,
                state,
                commits,
            });
        }
        Ok(Some(read))
    }

    /// Frames of this round from there on.
    fn torn(&self, from: usize) -> usize {
        let behind = self.frames.get(from..).unwrap_or_default();
        behind.iter().filter(|frame| frame.ours).count()
    }

    /// The end of the last transaction that is there as it was written, or can be made so. SQLite began it after all
    /// before it was on the disk: what is bad before it was damaged later.
    fn last_proof(&self) -> Option<usize> {
        let mut last = None;
        let mut whole = true;
        for (number, frame) in self.frames.iter().enumerate() {
            whole &= !matches!(frame.state, State::Bad);
            if frame.commits {
                last = if whole { Some(number) } else { last };
                whole = true;
            }
        }
        last
    }
}

/// What a frame is, when the sums before it are one of these.
fn judge(order: Order, salts: Pair, seeds: &[Pair], frame: &[u8]) -> State {
    let (found_salts, wanted) = (pair(frame, 8), pair(frame, 16));
    let ours = found_salts == salts;
    if !ours && !one_byte_apart(found_salts, salts) {
        return State::Bad;
    }
    let summed = summed(frame);
    let sums: Vec<Pair> = seeds.iter().map(|seed| order.sums(*seed, &summed)).collect();
    if sums.contains(&wanted) {
        return if ours { State::Good } else { State::OtherSalts };
    }
    if !ours {
        return State::Bad;
    }
    let other_sums = sums.iter().find(|sums| one_byte_apart(**sums, wanted));
    let mut changed: Vec<Repair> = sums
        .iter()
        .flat_map(|found| changed_byte(order, &summed, *found, wanted))
        .collect();
    match (other_sums, changed.len()) {
        (Some(right), 0) => State::OtherSums(*right),
        (None, 0) => State::Bad,
        (None, 1) => State::Changed(changed.remove(0)),
        _ => {
            let larger = changed
                .into_iter()
                .find(|repair| repair.at == SIZE && u32::from_be_bytes(repair.bytes) > word(frame, SIZE));
            State::ChangedSomewhere { larger, sums }
        }
    }
}

/// The salts of the round that a log without a header begins with: those of the first frame that its sums prove.
fn salts_of_frames(order: Order, log: &Path) -> io::Result<Option<Pair>> {
    let Some((_, mut frames)) = Frames::open(log)? else {
        return Ok(None);
    };
    let mut first = None;
    let mut before: Option<Pair> = None;
    while let Some(frame) = frames.next()? {
        let salts = pair(frame, 8);
        if before.is_some_and(|before| order.sums(before, &summed(frame)) == pair(frame, 16)) {
            return Ok(Some(salts));
        }
        before = Some(pair(frame, 16));
        first = first.or(Some(salts));
    }
    Ok(first)
}

fn order(header: &[u8]) -> Order {
    if word(header, 0) == MAGIC | 1 {
        Order::Big
    } else {
        Order::Little
    }
}

/// What the sums of a frame go over.
fn summed(frame: &[u8]) -> Vec<u8> {
    let head = frame.get(..SUMMED_HEADER).unwrap_or_default();
    [head, frame.get(FRAME_HEADER..).unwrap_or_default()].concat()
}

fn apply(repair: &Repair, frame: &[u8]) -> Vec<u8> {
    let at = if repair.at < SUMMED_HEADER {
        repair.at
    } else {
        repair.at - SUMMED_HEADER + FRAME_HEADER
    };
    let mut frame = frame.to_vec();
    if let Some(place) = frame.get_mut(at..at + repair.bytes.len()) {
        place.copy_from_slice(&repair.bytes);
    }
    frame
}

fn one_byte_apart(left: Pair, right: Pair) -> bool {
    let (first, second) = (left.0 ^ right.0, left.1 ^ right.1);
    (first == 0 && one_byte_differs(second)) || (second == 0 && one_byte_differs(first))
}

/// The header of a log for these salts, with sums over little-endian words.
fn new_header(checkpoint: u32, salts: Pair) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    for (at, value) in [(0, MAGIC), (4, VERSION), (8, PAGE_BYTES), (12, checkpoint)] {
        put(&mut header, at, value);
    }
    put_pair(&mut header, 16, salts);
    let sums = Order::Little.sums((0, 0), header.get(..24).unwrap_or_default());
    put_pair(&mut header, 24, sums);
    header
}

#[cfg(test)]
mod fuzz;
