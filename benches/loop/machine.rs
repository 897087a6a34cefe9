//! The machine that the figures belong to.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

/// Lines of a Markdown list that describe the machine and the disk that holds the folder.
pub(crate) fn describe(data: &Path) -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let memory: f64 = first_word("/proc/meminfo", "MemTotal:").parse().unwrap_or(0.0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut text = String::new();
    let processor = processor();
    writeln!(text, "- Processor: {processor}, {cores} cores").unwrap();
    writeln!(text, "- Memory: {:.1} GiB", memory / 1024.0 / 1024.0).unwrap();
    writeln!(text, "- Kernel: Linux {}", kernel.trim()).unwrap();
    writeln!(
        text,
        "- Disk: {}, {:.0} `fdatasync`/s of single 300-byte appends",
        file_system(data),
        syncs(data)
    )
    .unwrap();
    text
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with("model name"))
        .unwrap_or_default();
    match line.split_once(':') {
        Some((_, name)) => name.trim().to_owned(),
        None => std::env::consts::ARCH.to_owned(),
    }
}

fn first_word(file: &str, key: &str) -> String {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .unwrap_or_default();
    line.split_whitespace().next().unwrap_or_default().to_owned()
}

/// The type of the file system with the longest mount point above the folder.
fn file_system(folder: &Path) -> String {
    let mounts = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let above = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (point, kind) = (words.next()?, words.next()?);
        folder.starts_with(point).then(|| (point.len(), kind.to_owned()))
    });
    above
        .max_by_key(|(length, _)| *length)
        .map_or_else(|| "unknown".to_owned(), |(_, kind)| kind)
}

/// Appends with `fdatasync` per second, one after the other, in a quarter of a second.
fn syncs(folder: &Path) -> f64 {
    let path = folder.join("probe");
    let mut file = fs::File::create(&path).expect("the data folder can be written");
    let start = Instant::now();
    let mut count = 0;
    while start.elapsed().as_millis() < 250 {
        file.write_all(&[b'x'; 300])
            .and_then(|()| file.sync_data())
            .expect("the data folder can be written");
        count += 1;
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    drop(fs::remove_file(path));
    rate
}
