//! Medians, ratios and the Markdown table.

use std::fmt::Write as _;

/// One line of the table.
pub(crate) struct Row {
    /// What was measured.
    pub(crate) what: String,
    /// Postrider's figure.
    pub(crate) ours: String,
    /// The baseline's.
    pub(crate) bare: String,
    /// Ours ÷ the baseline's, round by round.
    pub(crate) ratio: String,
    /// What was asked for.
    pub(crate) bar: String,
    /// Whether it was met; `None` without a bar or a figure.
    pub(crate) met: Option<bool>,
}

impl Row {
    /// A line without a bar.
    pub(crate) fn new(what: &str, ours: &Series, bare: &Series, unit: &Unit) -> Self {
        Self {
            what: what.to_owned(),
            ours: ours.written(unit),
            bare: bare.written(unit),
            ratio: ours.ratios(bare).written(&Unit::PERCENT),
            bar: String::new(),
            met: None,
        }
    }

    /// A line without a baseline.
    pub(crate) fn alone(what: &str, ours: &Series, unit: &Unit) -> Self {
        Self::new(what, ours, &Series::default(), unit)
    }

    /// A line whose ratio is to another figure of our own, of the same rounds.
    pub(crate) fn beside(what: &str, ours: &Series, other: &Series, of: &str, unit: &Unit) -> Self {
        let mut row = Self::alone(what, ours, unit);
        let ratios = ours.ratios(other);
        if ratios.median().is_some() {
            row.ratio = format!("{} of {of}", ratios.written(&Unit::PERCENT));
        }
        row
    }

    /// Adds a bar to those there are: `met` says of the medians whether it holds, `None` when there is no figure.
    #[must_use]
    pub(crate) fn bar(mut self, bar: &str, met: Option<bool>) -> Self {
        if !self.bar.is_empty() {
            self.bar.push_str(", ");
        }
        self.bar.push_str(bar);
        self.met = match (self.met, met) {
            (Some(before), Some(now)) => Some(before && now),
            (before, now) => before.or(now),
        };
        self
    }
}

/// How a figure is written.
pub(crate) struct Unit {
    factor: f64,
    decimals: usize,
    suffix: &'static str,
}

impl Unit {
    pub(crate) const RATE: Self = Self {
        factor: 1.0,
        decimals: 0,
        suffix: "/s",
    };
    pub(crate) const MS: Self = Self {
        factor: 1.0,
        decimals: 2,
        suffix: " ms",
    };
    pub(crate) const US: Self = Self {
        factor: 1.0,
        decimals: 2,
        suffix: " µs",
    };
    pub(crate) const SECONDS: Self = Self {
        factor: 1.0,
        decimals: 2,
        suffix: " s",
    };
    pub(crate) const CPU: Self = Self {
        factor: 1.0,
        decimals: 4,
        suffix: " ms",
    };
    pub(crate) const MB: Self = Self {
        factor: 1.0,
        decimals: 1,
        suffix: " MB",
    };
    pub(crate) const TIMES: Self = Self {
        factor: 1.0,
        decimals: 2,
        suffix: "×",
    };
    pub(crate) const COUNT: Self = Self {
        factor: 1.0,
        decimals: 0,
        suffix: "",
    };
    const PERCENT: Self = Self {
        factor: 100.0,
        decimals: 0,
        suffix: " %",
    };

    pub(crate) fn write(&self, value: f64) -> String {
        let text = format!("{:.*}", self.decimals, value * self.factor);
        let (whole, rest) = text
            .split_once('.')
            .map_or((text.as_str(), String::new()), |(w, r)| (w, format!(".{r}")));
        let mut grouped = String::new();
        for (index, digit) in whole.chars().enumerate() {
            if index > 0 && (whole.len() - index).is_multiple_of(3) {
                grouped.push(',');
            }
            grouped.push(digit);
        }
        format!("{grouped}{rest}{}", self.suffix)
    }
}

/// A figure of each round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Series(pub(crate) Vec<f64>);

impl Series {
    /// The middle one; of an even number, the mean of the two in the middle.
    pub(crate) fn median(&self) -> Option<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted.len().checked_sub(1)? / 2, sorted.len() / 2);
        Some(f64::midpoint(sorted[low], sorted[high]))
    }

    /// This ÷ the other, round by round.
    pub(crate) fn ratios(&self, other: &Self) -> Self {
        let pairs = self.0.iter().zip(&other.0);
        Self(pairs.map(|(ours, other)| ours / other).collect())
    }

    /// The median of that.
    pub(crate) fn ratio(&self, other: &Self) -> Option<f64> {
        self.ratios(other).median()
    }

    /// Median, and the range when there is one.
    pub(crate) fn written(&self, unit: &Unit) -> String {
        let Some(median) = self.median() else {
            return "–".to_owned();
        };
        let low = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let high = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let mut text = unit.write(median);
        if self.0.len() > 1 {
            let bare = Unit { suffix: "", ..*unit };
            write!(text, " ({}–{})", bare.write(low), bare.write(high)).unwrap();
        }
        text
    }
}

/// The table of all rows that have a figure.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text =
        String::from("| What | Postrider | bare | ratio | bar | |\n|---|---:|---:|---:|---|---|\n");
    for Row {
        what,
        ours,
        bare,
        ratio,
        bar,
        met,
    } in rows.iter().filter(|row| row.ours != "–" || row.bare != "–")
    {
        let verdict = match met {
            Some(true) => "met",
            Some(false) => "**missed**",
            None => "",
        };
        writeln!(text, "| {what} | {ours} | {bare} | {ratio} | {bar} | {verdict} |").unwrap();
    }
    text
}
