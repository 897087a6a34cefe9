//! Numbers of bytes as users write them: `1048576`, `512Mi`, `10Gi`, `1.5G`, as in a Kubernetes quantity.

/// Longest text that [`parse`] reads.
const MAX_LENGTH: usize = 24;

/// Suffixes, binary before decimal, because `Mi` ends in no decimal one but `M` begins it.
const UNITS: [(&str, u64); 8] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
];

/// Parses a number of bytes: digits, up to three decimals when a suffix follows, and `Ki`, `Mi`, `Gi`, `Ti`, `k`, `M`,
/// `G`, `T` or nothing ([Kubernetes quantities](https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/)).
///
/// `None` when the text is anything else, too long, or more than [`u64::MAX`].
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let Some((number, unit)) = UNITS
        .iter()
        .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
    else {
        return digits(text);
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let decimals = u32::try_from(fraction.len()).ok().filter(|count| *count <= 3)?;
    let part = u128::from(digits(fraction)?) * u128::from(unit) / u128::from(10_u64.pow(decimals));
    let whole = digits(whole)?.checked_mul(unit)?;
    whole.checked_add(u64::try_from(part).ok()?)
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_a_suffix() {
        for (text, expected) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512Mi", 512 << 20),
            ("10Gi", 10 << 30),
            ("1.5G", 1_500_000_000),
            ("0.5Ki", 512),
            ("2T", 2_000_000_000_000),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "",
            "Gi",
            ".5Gi",
            "5.Gi",
            "1.5",
            "-1",
            "+1",
            "1 Gi",
            "1gi",
            "1GB",
            "1e3",
            "1.0000Gi",
            "５Gi",
            "99999999Ti",
            "99999999999999999999",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,30}") {
            let _ = parse(&text);
        }
    }
}
