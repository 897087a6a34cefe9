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
//! dropped when such a frame is in it, as SQLite does.
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
//! The log is bounded by checkpoints, see [`LOG_BYTES`](super::schema::LOG_BYTES), so it is read as a whole.

use std::fmt;
use std::fs::File;
use std::io::Write;
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

/// Mends the log in place and says what was done. `None` when SQLite will read all that is worth reading.
pub(super) fn mend(path: &Path, time: &str) -> Result<Option<String>, StoreError> {
    let log = beside(path, "-wal");
    let before = std::fs::read(&log)?;
    let Some((after, damage)) = mend_bytes(&before) else {
        return Ok(None);
    };
    let copy = beside(path, &format!(".damaged-{time}-wal"));
    let mut file = File::create(&copy)?;
    file.write_all(&before)?;
    file.sync_all()?;
    // At once: of a log that is half mended, this module would take the seam for damage.
    let new = beside(path, "-wal.mended");
    let mut file = File::create(&new)?;
    file.write_all(&after)?;
    file.sync_all()?;
    std::fs::rename(&new, &log)?;
    sync_directory(path)?;
    let report = format!("{damage}; a copy of the log is {}", copy.display());
    Ok(Some(report))
}

/// The mended log, and what was wrong with it.
fn mend_bytes(log: &[u8]) -> Option<(Vec<u8>, Damage)> {
    let read = Log::read(log)?;
    let last = read.last_proof()?;
    let taken = read.frames.get(..=last)?;
    let damage = Damage {
        header: !read.header_good,
        repaired: count(taken, |state| {
            matches!(state, State::Changed(_) | State::OtherSalts | State::OtherSums(_))
        }),
        let_in: count(taken, |state| {
            matches!(state, State::ChangedSomewhere { .. } | State::Bad)
        }),
    };
    if damage == Damage::default() {
        return None;
    }
    let mut mended = log.to_vec();
    let (head, frames) = mended.split_at_mut_checked(HEADER)?;
    if damage.header {
        head.copy_from_slice(&new_header(word(head, 12), read.salts));
    }
    let order = order(head);
    let superseded = word(frames.chunks_exact(FRAME).nth(last)?, 0);
    let mut seed = pair(head, 24);
    for (frame, found) in frames.chunks_exact_mut(FRAME).zip(taken) {
        if let Some(repair) = found.state.repair() {
            frame.copy_from_slice(&apply(repair, frame));
        }
        if word(frame, 0) == 0 {
            // Which page it was is lost. A page that the log has again later makes it harmless.
            put(frame, 0, superseded);
        }
        put_pair(frame, 8, read.salts);
        seed = order.sums(seed, &summed(frame));
        put_pair(frame, 16, seed);
    }
    Some((mended, damage))
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

struct Frame {
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
    fn read(log: &[u8]) -> Option<Self> {
        let (header, rest) = log.split_at_checked(HEADER)?;
        let frames = rest.chunks_exact(FRAME);
        let order = order(header);
        let header_good = (word(header, 0) | 1, word(header, 4), word(header, 8))
            == (MAGIC | 1, VERSION, PAGE_BYTES)
            && order.sums((0, 0), header.get(..24)?) == pair(header, 24);
        let salts = if header_good {
            pair(header, 16)
        } else {
            salts_of_frames(order, &frames.clone().collect::<Vec<_>>())?
        };
        // The sums of a damaged header may be what is damaged, or what is left.
        let rebuilt = new_header(word(header, 12), salts);
        let mut seeds = vec![pair(header, 24), pair(&rebuilt, 24)];
        let frames = frames.map(|frame| {
            let state = judge(order, salts, &seeds, frame);
            seeds = state.next_seeds(frame);
            let size = match state.repair() {
                Some(repair) => word(&apply(repair, frame), SIZE),
                None => word(frame, SIZE),
            };
            let of_this_round = !matches!(state, State::Bad) || pair(frame, 8) == salts;
            let commits = size != 0 && of_this_round;
            Frame { state, commits }
        });
        Some(Self {
            header_good,
            salts,
            frames: frames.collect(),
        })
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
fn salts_of_frames(order: Order, frames: &[&[u8]]) -> Option<Pair> {
    let proved = frames.windows(2).find_map(|two| match two {
        [before, frame] if order.sums(pair(before, 16), &summed(frame)) == pair(frame, 16) => Some(*frame),
        _ => None,
    });
    proved.or(frames.first().copied()).map(|frame| pair(frame, 8))
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
