//! Fuzz target of the reader of the log: a real log, changed in places that the fuzzer chooses.

use bolero::check;
use rusqlite::Connection;

use super::*;

/// Rounds of `cargo test`: each writes and syncs files.
const ROUNDS: usize = 150;

/// The log of three commits.
fn real_log(folder: &Path) -> Vec<u8> {
    let path = folder.join("real.db");
    let connection = Connection::open(&path).expect("a database");
    connection
        .execute_batch(
            "PRAGMA page_size=4096; PRAGMA journal_mode=WAL; CREATE TABLE t(a INTEGER PRIMARY KEY, b BLOB);",
        )
        .expect("a table");
    for size in [10, 6000, 100] {
        connection
            .execute("INSERT INTO t(b) VALUES (randomblob(?1))", [size])
            .expect("a row");
    }
    std::fs::read(beside(&path, "-wal")).expect("a log")
}

/// Changes a log: each five bytes of the input are what to do, where, and with what.
fn change(log: &mut Vec<u8>, input: &[u8]) {
    for step in input.chunks_exact(5).take(8) {
        let &[what, high, low, fine, value] = step else {
            continue;
        };
        let frames = (log.len().saturating_sub(HEADER) / FRAME).max(1);
        let frame = HEADER + usize::from(high) % frames * FRAME;
        let at = match what % 4 {
            // Headers are where a change means most.
            0 => frame + usize::from(fine) % FRAME_HEADER,
            1 => usize::from(fine) % HEADER,
            _ => frame + usize::from(u16::from_be_bytes([low, fine])) % FRAME,
        };
        match what % 7 {
            5 => log.truncate(at),
            6 => {
                let copied = log.get(HEADER..HEADER + FRAME).map(<[u8]>::to_vec);
                if let (Some(copied), Some(place)) = (copied, log.get_mut(frame..frame + FRAME)) {
                    place.copy_from_slice(&copied);
                }
            }
            _ => {
                if let Some(byte) = log.get_mut(at) {
                    *byte ^= value;
                }
            }
        }
    }
}

#[test]
fn fuzz_log_reader() {
    let folder = tempfile::tempdir().expect("a folder");
    let real = real_log(folder.path());
    let path = folder.path().join("queue.db");
    let log = beside(&path, "-wal");
    check!().with_iterations(ROUNDS).for_each(|input: &[u8]| {
        let mut changed = real.clone();
        change(&mut changed, input);
        std::fs::write(&log, &changed).expect("a log");
        let found = mend(&path, "now").expect("it can be read and written");
        if changed == real {
            assert_eq!(found, Found::default(), "a sound log is left alone");
        }
        if found.mended.is_none() {
            assert_eq!(
                std::fs::read(&log).expect("a log"),
                changed,
                "what is not mended is not touched"
            );
        }
        // What follows the mended part stays as it is, and may be proof of a little more once the part before is whole.
        let settles = (0..4).any(|_| {
            let again = mend(&path, "later").expect("it can be read and written");
            again.mended.is_none()
        });
        assert!(settles, "mending comes to an end");
        let rebuilt = folder.path().join("rebuilt.db");
        if let Some(pages) = replay(&log, &rebuilt).expect("it can be read and written") {
            assert!(pages <= changed.len() / FRAME, "no more pages than frames");
        }
    });
}
