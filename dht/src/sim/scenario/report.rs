//! [`Report`]: what a scenario found, as data: rows under columns, charts, and findings in a line each.
//! Text, JSON and drawings are made from it elsewhere. All of it follows from the seed; what a run cost
//! in time and memory stands nowhere in it.

use std::fmt;
use std::time::Duration;

use crate::sim::totals::Totals;

/// What a scenario found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Names of the columns: lower case with `_` and a unit at the end, as keys of JSON are.
    pub columns: Vec<&'static str>,
    /// Rows with a cell for each column.
    pub rows: Vec<Vec<Cell>>,
    /// What can be drawn.
    pub charts: Vec<Chart>,
    /// Single figures by name.
    pub findings: Vec<(&'static str, Cell)>,
    /// What the run consisted of.
    pub totals: Totals,
}

/// A value in a [`Report`].
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// A word.
    Text(String),
    /// A number of things.
    Count(u64),
    /// A measure.
    Real(f64),
    /// There is none.
    Nothing,
}

/// Curves over the same axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What it shows.
    pub title: &'static str,
    /// What is from left to right, with its unit.
    pub x: &'static str,
    /// Whether equal ratios are equally far apart from left to right.
    pub log_x: bool,
    /// What is from bottom to top, with its unit.
    pub y: &'static str,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// A line through points.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What it stands for.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
}

impl Chart {
    /// How long lookups take: their share over milliseconds.
    pub(super) fn of_times(title: &'static str, curves: Vec<Curve>) -> Self {
        Self { title, x: "ms", log_x: false, y: "share of the lookups", curves }
    }
}

impl Report {
    /// A report with these columns and no rows.
    pub(super) fn new(columns: &[&'static str]) -> Self {
        Self { columns: columns.to_vec(), ..Self::default() }
    }

    /// Appends a row.
    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len());
        self.rows.push(cells.into());
    }

    /// Appends a finding.
    pub(super) fn found(&mut self, name: &'static str, value: impl Into<Cell>) {
        self.findings.push((name, value.into()));
    }

    /// The number in the column called `column` of the first row whose first cells are these, as they are
    /// shown; for checks.
    pub fn number(&self, first: &[&str], column: &str) -> Option<f64> {
        let is_it =
            |row: &&Vec<Cell>| first.iter().zip(row.iter()).all(|(wanted, cell)| cell.to_string() == *wanted);
        let at = self.columns.iter().position(|name| *name == column)?;
        self.rows.iter().find(is_it)?.get(at)?.number()
    }

    /// The number that was found under this name.
    pub fn finding(&self, name: &str) -> Option<f64> {
        self.findings.iter().find(|(found, _)| *found == name)?.1.number()
    }
}

impl Cell {
    /// The number, if it is one.
    pub fn number(&self) -> Option<f64> {
        match *self {
            Self::Count(count) => Some(count as f64),
            Self::Real(real) => Some(real),
            Self::Text(_) | Self::Nothing => None,
        }
    }
}

/// As people read it: measures with three digits or so.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.pad(text),
            Self::Count(count) => f.pad(&count.to_string()),
            Self::Real(real) if real.abs() >= 100.0 || *real == 0.0 => f.pad(&format!("{real:.0}")),
            Self::Real(real) if real.abs() >= 10.0 => f.pad(&format!("{real:.1}")),
            Self::Real(real) => f.pad(&format!("{real:.3}")),
            Self::Nothing => f.pad("-"),
        }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<usize> for Cell {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<u64> for Cell {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<f64> for Cell {
    fn from(real: f64) -> Self {
        if real.is_finite() { Self::Real(real) } else { Self::Nothing }
    }
}

/// In milliseconds.
impl From<Duration> for Cell {
    fn from(span: Duration) -> Self {
        Self::Real(span.as_secs_f64() * 1000.0)
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Nothing, Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_shown_with_as_many_digits_as_say_something() {
        let shown = |cell: Cell| cell.to_string();
        assert_eq!(shown(1234.56.into()), "1235");
        assert_eq!(shown(12.345.into()), "12.3");
        assert_eq!(shown(0.97.into()), "0.970");
        assert_eq!(shown(Duration::from_micros(90_500).into()), "90.5");
        assert_eq!([shown(f64::NAN.into()), shown(None::<f64>.into()), shown(0.0.into())], ["-", "-", "0"]);
        assert_eq!(format!("{:>5}|{:<4}|", Cell::from(7usize), Cell::from("ab")), "    7|ab  |");
    }

    #[test]
    fn numbers_are_found_by_the_first_cells_of_their_row() {
        let mut report = Report::new(&["kind", "share", "count"]);
        report.row(["a".into(), 0.5.into(), 3usize.into()]);
        report.row(["b".into(), 0.5.into(), 4usize.into()]);
        report.found("all", 7usize);
        assert_eq!(report.number(&["b", "0.500"], "count"), Some(4.0));
        assert_eq!((report.number(&["c"], "count"), report.number(&["a"], "none")), (None, None));
        assert_eq!((report.finding("all"), report.finding("none")), (Some(7.0), None));
    }
}
