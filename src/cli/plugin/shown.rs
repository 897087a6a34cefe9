//! How lists and objects are shown: tables for people, JSON and YAML for programs.
//!
//! Colours are for terminals whose user wants them ([`Paint`]). A cell is bounded and holds nothing that a terminal
//! would obey.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::{Report, printable};

/// Most characters of a cell that is not its row's last.
const MAX_CELL: usize = 64;

/// Form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Table,
    /// JSON.
    Json,
    /// The same as YAML.
    Yaml,
}

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    Colours,
    Plain,
}

impl Paint {
    /// As the standard output and the environment have it.
    #[expect(
        clippy::disallowed_methods,
        reason = "NO_COLOR and TERM are conventions of terminals, not settings"
    )]
    pub(super) fn here() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|value| value == "dumb");
        if std::io::stdout().is_terminal() && !set("NO_COLOR") && !dumb {
            Self::Colours
        } else {
            Self::Plain
        }
    }
}

/// What a cell says about its row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Tone {
    #[default]
    Plain,
    Good,
    Bad,
    Open,
}

impl Tone {
    const fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Good => Some("32"),
            Self::Bad => Some("31"),
            Self::Open => Some("33"),
        }
    }
}

/// A cell of a table.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    pub(super) fn toned(text: impl AsRef<str>, tone: Tone) -> Self {
        Self {
            text: printable(text.as_ref()),
            tone,
        }
    }
}

impl<T: AsRef<str>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::toned(text, Tone::Plain)
    }
}

/// Rows under a heading.
#[derive(Debug)]
pub(super) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(super) fn new(heading: &[&str]) -> Self {
        Self {
            rows: vec![heading.iter().map(Cell::from).collect()],
        }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// Writes it; without rows, nothing.
    pub(super) fn write(&self, report: &mut Report, paint: Paint) {
        if self.rows.len() < 2 {
            return;
        }
        let cut = |cell: &Cell| -> String {
            match cell.text.char_indices().nth(MAX_CELL) {
                Some(_) => cell.text.chars().take(MAX_CELL - 1).chain(['…']).collect(),
                None if cell.text.is_empty() => "-".to_owned(),
                None => cell.text.clone(),
            }
        };
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let lengths = self.rows.iter().filter_map(|row| row.get(column));
            lengths
                .map(|cell| cut(cell).chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let text = cut(cell);
                let gap = if column + 1 == row.len() {
                    0
                } else {
                    width.saturating_sub(text.chars().count()) + 2
                };
                match cell.tone.code().filter(|_| paint == Paint::Colours) {
                    Some(code) => line.extend(["\u{1b}[", code, "m", &text, "\u{1b}[0m"]),
                    None => line.push_str(&text),
                }
                line.extend(std::iter::repeat_n(' ', gap));
            }
            report.out.extend_from_slice(line.as_bytes());
            report.out.push(b'\n');
        }
    }
}

impl Report {
    /// Shows a value as JSON or YAML; for people there is something else.
    ///
    /// # Errors
    /// When it cannot be written, which would be a bug.
    pub(super) fn value(&mut self, value: &impl Serialize, output: Output) -> anyhow::Result<bool> {
        match output {
            Output::Table => return Ok(false),
            Output::Json => {
                serde_json::to_writer_pretty(&mut self.out, value)?;
                self.out.push(b'\n');
            }
            Output::Yaml => self
                .out
                .extend_from_slice(serde_saphyr::to_string(value)?.as_bytes()),
        }
        Ok(true)
    }

    /// Names and values, one a line; those without a value are left out.
    pub(super) fn pairs(&mut self, pairs: &[(&str, String)]) {
        let pairs = pairs.iter().filter(|(_, value)| !value.is_empty());
        let width = pairs
            .clone()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or_default();
        for (name, value) in pairs {
            self.line(&format!("{name:width$}  {value}"));
        }
    }
}

/// A member of an object as text; empty when there is none.
pub(super) fn text(value: &Value, name: &str) -> String {
    match value.get(name) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// The time by the user's clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the plugin is asked now; only this function reads the clock"
)]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

/// How long ago a time was, in its largest unit; empty when it is none.
pub(super) fn ago(time: &str, now: Timestamp) -> String {
    let Ok(time) = time.parse::<Timestamp>() else {
        return String::new();
    };
    let seconds = now.duration_since(time).as_secs();
    let size = match seconds.unsigned_abs() {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ 120..7_200 => format!("{}m", seconds / 60),
        seconds @ 7_200..172_800 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    };
    if seconds < 0 {
        format!("in {size}")
    } else {
        format!("{size} ago")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&["NAME", "READY", "REASON"]);
        table.row(vec!["a".into(), Cell::toned("True", Tone::Good), "".into()]);
        table.row(vec!["longer\u{1b}[2J".into(), "".into(), "ü".into()]);
        table
    }

    #[test]
    fn columns_line_up_and_nothing_is_obeyed() {
        let mut report = Report::default();
        sample().write(&mut report, Paint::Plain);
        assert_eq!(
            String::from_utf8(report.out).unwrap(),
            "NAME             READY  REASON\na                True   -\nlonger\\u{1b}[2J  -      ü\n"
        );
        let mut report = Report::default();
        Table::new(&["NAME"]).write(&mut report, Paint::Plain);
        assert!(report.out.is_empty());
    }

    #[test]
    fn colours_are_around_the_text_alone() {
        let mut report = Report::default();
        sample().write(&mut report, Paint::Colours);
        let text = String::from_utf8(report.out).unwrap();
        assert!(text.contains("\u{1b}[32mTrue\u{1b}[0m   -"), "{text:?}");
    }

    #[test]
    fn a_long_cell_is_cut() {
        let mut table = Table::new(&["A", "B"]);
        table.row(vec!["x".repeat(100).into(), "end".into()]);
        let mut report = Report::default();
        table.write(&mut report, Paint::Plain);
        let text = String::from_utf8(report.out).unwrap();
        assert!(text.ends_with(&format!("{}…  end\n", "x".repeat(63))), "{text}");
    }

    #[test]
    fn a_time_is_told_in_its_largest_unit() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (time, expected) in [
            ("2026-01-31T11:59:01Z", "59s ago"),
            ("2026-01-31T11:57:30Z", "2m ago"),
            ("2026-01-31T12:05:00Z", "in 5m"),
            ("2026-01-31T01:00:00Z", "11h ago"),
            ("2026-01-01T12:00:00Z", "30d ago"),
            ("", ""),
        ] {
            assert_eq!(ago(time, now), expected, "{time}");
        }
    }

    #[test]
    fn json_and_yaml_hold_the_same() {
        let value = json!({"a": [1, "b: c"], "d": null});
        let written = |output| {
            let mut report = Report::default();
            assert!(report.value(&value, output).unwrap());
            String::from_utf8(report.out).unwrap()
        };
        let as_yaml: Value = serde_saphyr::from_str(&written(Output::Yaml)).unwrap();
        let as_json: Value = serde_json::from_str(&written(Output::Json)).unwrap();
        assert_eq!((&as_yaml, &as_json), (&value, &value));
    }
}
