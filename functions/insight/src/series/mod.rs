//! Rows of a query as a regular series: one number a period, gaps marked, parted by dimensions.

mod calendar;
mod regular;
mod rows;

pub use calendar::{Calendar, Unit};
pub use rows::Rows;

use serde::Serialize;
use shared::{Error, Result};

use crate::question::Question;

/// One number a period, without holes in time.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name of the date column.
    pub date: String,
    /// Name of the value column.
    pub value: String,
    pub calendar: Calendar,
    /// Number of the first period in `calendar`.
    first: i64,
    zoned: bool,
    /// The sum of each period's rows; `None` where there is none and it can't be known to be 0.
    pub values: Vec<Option<f64>>,
    pub dimensions: Vec<Dimension>,
    /// Rows that were read.
    pub rows: u64,
    /// Rows without a date or a finite number.
    pub ignored_rows: u64,
    pub left_out: Vec<LeftOut>,
}

/// A column that parts the rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Dimension {
    pub name: String,
    /// Largest first.
    pub members: Vec<Member>,
}

/// One value of a dimension and its share of every period; together the members make up the series.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub name: String,
    pub values: Vec<f64>,
}

/// A period at an end of the series that is not whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    pub date: String,
    pub reason: &'static str,
}

impl Series {
    /// # Errors
    /// `Invalid` when no row counts or a sum is too large to work with; `Limit` for too many periods.
    pub fn new(rows: Rows, question: &Question, now_ms: i64) -> Result<Self> {
        regular::series(rows, &question.date, &question.value, now_ms)
    }

    /// Periods, gaps counted.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Never, once made.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The name of period `i`, which may lie after the end.
    pub fn label(&self, i: usize) -> String {
        self.calendar.label(self.index(i), self.zoned)
    }

    /// The first instant of period `i`, in microseconds since the epoch.
    pub fn start(&self, i: usize) -> i64 {
        self.calendar.start(self.index(i))
    }

    fn index(&self, i: usize) -> i64 {
        self.first.saturating_add(i64::try_from(i).unwrap_or(i64::MAX))
    }

    /// Periods whose value is known.
    pub fn known(&self) -> usize {
        self.values.iter().flatten().count()
    }

    /// # Errors
    /// `Invalid` when fewer than `periods` are known.
    pub fn require(&self, periods: usize, what: &str) -> Result<()> {
        if self.known() >= periods {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "expected at least {periods} periods with a value for {what}, found {} (period: {})",
            self.known(),
            self.calendar.unit().as_str()
        )))
    }

    /// The values, gaps bridged by straight lines. The ends of a series are never gaps.
    pub fn bridged(&self) -> Vec<f64> {
        let known: Vec<(usize, f64)> = self.values.iter().enumerate().filter_map(|(i, v)| Some((i, (*v)?))).collect();
        let mut values: Vec<f64> = self.values.iter().map(|v| v.unwrap_or(0.0)).collect();
        for pair in known.windows(2) {
            let ((from, start), (to, end)) = (pair[0], pair[1]);
            for (i, value) in values.iter_mut().enumerate().take(to).skip(from + 1) {
                *value = start + (end - start) * (i - from) as f64 / (to - from) as f64;
            }
        }
        values
    }
}

#[cfg(test)]
pub(crate) mod tests;
