//! Lengths of time as users write them: `5s`, `1h30m`, `250ms`, `1.5s`.

use std::time::Duration;

/// Longest text that [`parse`] reads.
const MAX_LENGTH: usize = 32;
/// Longest duration that [`parse`] returns: ten years.
const MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Parses a duration: one or more numbers, each with a unit of `ms`, `s`, `m` or `h`.
///
/// `None` when the text is empty, too long, has another unit or sign, or exceeds ten years.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    if text.is_empty() || text.len() > MAX_LENGTH || !text.is_ascii() {
        return None;
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(quantity(number, unit)?)?;
        rest = tail;
    }
    (total <= MAX).then_some(total)
}

fn quantity(number: &str, unit: &str) -> Option<Duration> {
    let (whole, fraction) = number
        .split_once('.')
        .map_or((number, None), |(w, f)| (w, Some(f)));
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(3600),
        _ => return None,
    };
    let whole = unit.checked_mul(whole.parse().ok()?)?;
    let Some(fraction) = fraction else {
        return Some(whole);
    };
    if fraction.is_empty() || fraction.len() > 6 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let parts: u32 = fraction.parse().ok()?;
    let scale = 10_u32.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    whole.checked_add(unit.checked_mul(parts)? / scale)
}

/// Writes a duration the way [`parse`] reads it, for messages: `1h30m`, `250ms`.
#[must_use]
pub fn format(duration: Duration) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    let seconds = duration.as_secs();
    for (amount, unit) in [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (duration.subsec_millis().into(), "ms"),
    ] {
        if amount > 0 {
            let _ = write!(text, "{amount}{unit}");
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_of_each_unit_and_of_several_are_read() {
        for (text, expected) in [
            ("0s", Duration::ZERO),
            ("250ms", Duration::from_millis(250)),
            ("1.5s", Duration::from_millis(1500)),
            ("1h30m", Duration::from_secs(5400)),
            ("1m1s1ms", Duration::from_millis(61_001)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_duration_is_refused() {
        for text in [
            "",
            "5",
            "s",
            "-1s",
            "1d",
            "1.s",
            "1.2.3s",
            "9223372036854775807h",
            "99999999999999999999s",
            "５s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_written_duration_reads_back() {
        for text in ["0s", "250ms", "1h30m", "1m1s1ms", "24h"] {
            assert_eq!(parse(text).map(format).as_deref(), Some(text));
        }
    }
}
