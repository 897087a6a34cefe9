//! [`Progress`]: how far a salvage is, for people who wait for it.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far a salvage is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Bytes of the damaged file; 0 when nothing is being salvaged.
    total: AtomicU64,
    /// Bytes that were carried over.
    done: AtomicU64,
}

impl Progress {
    pub(super) fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn advance(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// What is missing, and how far it is while something is salvaged.
    pub(super) fn describe(&self, why: &str) -> String {
        let mib = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed).div_ceil(1 << 20);
        match mib(&self.total) {
            0 => why.to_owned(),
            total => format!("{why} ({} of at most {total} MiB)", mib(&self.done)),
        }
    }
}

#[cfg(test)]
mod tests {
    //! What people who wait for a salvage are told.

    use super::*;

    #[test]
    fn progress_is_told_only_while_something_is_salvaged() {
        let progress = Progress::default();
        assert_eq!(progress.describe("it is opened"), "it is opened");
        progress.begin(90 << 20);
        progress.advance(7 << 20);
        assert_eq!(
            progress.describe("carried over"),
            "carried over (7 of at most 90 MiB)"
        );
    }
}
