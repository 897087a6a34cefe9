//! Small volumes, really mounted, and what else is on them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use postrider::engine::queue::sqlite::Settings;

use super::file::QueueFile;

/// The name of the test this stands in, as the test's program knows it.
macro_rules! this_test {
    () => {{
        fn here() {}
        crate::queue::volume::test_around(std::any::type_name_of_val(&here))
    }};
}

/// Mounts a small volume for the test this stands in. Who may not mount runs the whole test again in a name space of
/// its own, where everybody may, and leaves it here once it passed there; where that is forbidden, too, it fails.
macro_rules! small_volume {
    ($size:literal) => {
        match crate::queue::volume::SmallVolume::mount($size, this_test!()) {
            Some(volume) => volume,
            None => return,
        }
    };
}

/// `full::a_test` of `it::full::a_test::{{closure}}::here`.
pub(super) fn test_around(function: &str) -> &str {
    let end = function.find("::{{closure}}").or_else(|| function.rfind("::"));
    let path = &function[..end.expect("a function's path")];
    path.split_once("::").expect("the crate's name").1
}

/// A small file system of its own.
pub(super) struct SmallVolume(tempfile::TempDir);

impl SmallVolume {
    /// Mounts one; see [`small_volume`].
    pub(super) fn mount(size: &str, test: &str) -> Option<Self> {
        const INSIDE: &str = "POSTRIDER_TEST_MAY_MOUNT";
        let directory = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(directory.path());
        let mounted = mount.output().expect("mount is there; see tools/setup.sh");
        if mounted.status.success() {
            return Some(Self(directory));
        }
        let why = String::from_utf8_lossy(&mounted.stderr);
        assert!(std::env::var_os(INSIDE).is_none(), "mount fails: {why}");
        let inside = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture", test])
            .env(INSIDE, "1")
            .output()
            .expect("unshare is there; see tools/setup.sh");
        let said = String::from_utf8_lossy(&inside.stdout);
        assert!(
            inside.status.success() && said.contains("1 passed"),
            "this test needs a machine where it may mount a file system, as root or in a user name space\n\
             mount: {why}\nin a name space: {said}{}",
            String::from_utf8_lossy(&inside.stderr)
        );
        None
    }

    /// A queue's file on it, with a reserve.
    pub(super) fn file(&self) -> QueueFile {
        let mut file = QueueFile::below(self.0.path());
        // More than these tests write into the log, by which the file may have to grow.
        file.settings.reserve_bytes = 12 << 20;
        file.settings.reserve_pause = Duration::from_millis(50);
        file.settings.retention_interval = Duration::from_millis(10);
        file
    }

    /// One that is opened with other settings.
    pub(super) fn file_with(&self, change: impl FnOnce(&mut Settings)) -> QueueFile {
        let mut file = self.file();
        change(&mut file.settings);
        file
    }

    /// Leaves no room on it.
    pub(super) fn fill_up(&self) -> Filler {
        self.fill_up_but(0)
    }

    /// Leaves so many bytes of room on it.
    pub(super) fn fill_up_but(&self, left: u64) -> Filler {
        let path = self.0.path().join("other");
        let file = File::create(&path).unwrap();
        let mut length = 0;
        while file.write_all_at(&[7; 4096], length).is_ok() {
            length += 4096;
        }
        file.set_len(length.saturating_sub(left)).unwrap();
        Filler(path)
    }

    pub(super) fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        let mut mount = Command::new("mount");
        let status = mount.args(["-o", &options]).arg(self.0.path()).status().unwrap();
        assert!(status.success(), "mount -o {options}: {status}");
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(self.0.path()).status().ok();
    }
}

/// Somebody else's file, which takes whatever room the volume has.
pub(super) struct Filler(PathBuf);

impl Filler {
    pub(super) fn give_back(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}
