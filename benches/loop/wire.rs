//! As much HTTP/1.1 as the loader and the receiver need: messages with `Content-Length` on kept-alive connections.
//!
//! Both share the cores with the system under test, so they read and write bytes by hand and parse only what they
//! use. Anything unexpected, such as a chunked body, is an error and ends the benchmark: nothing is guessed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Where one complete message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// Length of the start line and the headers, the empty line included.
    pub(crate) head: usize,
    /// Length of the body.
    pub(crate) body: usize,
}

impl Frame {
    /// Length of the message.
    pub(crate) fn length(self) -> usize {
        self.head + self.body
    }
}

/// Finds the first message in the buffer; `None` when its headers are not complete yet.
///
/// The body may still be missing: compare [`Frame::length`] with the buffer's.
pub(crate) fn frame(buffer: &[u8]) -> Result<Option<Frame>, String> {
    let Some(head) = find(buffer, b"\r\n\r\n").map(|at| at + 4) else {
        return Ok(None);
    };
    let mut body = 0;
    for line in buffer[..head].split(|&byte| byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value).map_err(|error| error.to_string())?;
            body = value
                .parse()
                .map_err(|error| format!("content-length {value}: {error}"))?;
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            return Err("a chunked message; the benchmark reads Content-Length only".to_owned());
        }
    }
    Ok(Some(Frame { head, body }))
}

/// The request target of a request, or the status code of a response: the second word of its first line.
pub(crate) fn second_word(message: &[u8]) -> &str {
    let line = message.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let word = line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    std::str::from_utf8(word).unwrap_or_default()
}

/// Where the bytes first occur.
pub(crate) fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

/// The whole number that follows a key such as `"sent":`.
pub(crate) fn number_after(text: &[u8], key: &[u8]) -> Option<u64> {
    let rest = &text[find(text, key)? + key.len()..];
    let digits = rest
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(rest.len());
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// Nanoseconds since 1970: the one clock that all processes of the benchmark share.
pub(crate) fn epoch_ns() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// The figures of a set of latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub(crate) struct Latency {
    /// Half are at most this, in milliseconds.
    pub(crate) p50: f64,
    /// 99 of 100 are at most this, in milliseconds.
    pub(crate) p99: f64,
    /// The longest, in milliseconds.
    pub(crate) max: f64,
}

impl Latency {
    /// Exact figures; sorts the samples.
    pub(crate) fn of(samples: &mut [u32]) -> Self {
        samples.sort_unstable();
        let at = |quantile: f64| {
            let rank = (samples.len() as f64 * quantile).ceil() as usize;
            samples
                .get(rank.saturating_sub(1))
                .map_or(0.0, |&us| f64::from(us) / 1000.0)
        };
        Self {
            p50: at(0.50),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// A span of nanoseconds as a sample of [`Latency`].
pub(crate) fn sample(ns: u64) -> u32 {
    u32::try_from(ns / 1000).unwrap_or(u32::MAX)
}
