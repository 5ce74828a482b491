//! A query's answer as bare rows: an instant, a value, a member of each dimension.

use std::collections::HashMap;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::{can_cast_types, cast};
use arrow::datatypes::{DataType, Float64Type, Schema, TimeUnit, TimestampMicrosecondType};
use shared::{Error, Result};

use super::calendar;
use crate::question::Question;

/// Rows that one question may read.
const MAX_ROWS: u64 = 2_000_000;
/// What a null in a dimension is called.
const NO_NAME: &str = "(null)";

/// One row that counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    /// Microseconds since the epoch.
    pub instant: i64,
    pub value: f64,
}

/// Rows of a question.
#[derive(Debug)]
pub struct Rows {
    date: usize,
    value: usize,
    /// Whether the date column has a zone: labels of instants then end in `Z`.
    pub zoned: bool,
    pub rows: Vec<Row>,
    pub dimensions: Vec<Labels>,
    /// Rows of the answer, with those that don't count.
    pub read: u64,
    /// Rows without a date or a finite value.
    pub ignored: u64,
}

/// The members of one dimension, and which one each row belongs to.
#[derive(Debug)]
pub struct Labels {
    column: usize,
    pub name: String,
    pub members: Vec<String>,
    /// Index into `members`, one a row.
    pub of_row: Vec<u32>,
    known: HashMap<String, u32>,
}

impl Rows {
    /// Finds the question's columns.
    ///
    /// # Errors
    /// `Invalid` for a column that is missing (with those there are) or of a type that does not serve (with its type).
    pub fn new(question: &Question, schema: &Schema) -> Result<Self> {
        let date = column(schema, "date", &question.date)?;
        let value = column(schema, "value", &question.value)?;
        let zoned = match schema.field(date).data_type() {
            DataType::Timestamp(_, zone) => zone.is_some(),
            DataType::Date32 | DataType::Date64 => false,
            other => return Err(wrong_type("a date or timestamp", &question.date, other)),
        };
        let ty = schema.field(value).data_type();
        if !(ty.is_numeric() && can_cast_types(ty, &DataType::Float64)) {
            return Err(wrong_type("a number", &question.value, ty));
        }
        let dimensions = question.dimensions.iter().map(|name| Labels::new(schema, name)).collect::<Result<_>>()?;
        Ok(Self { date, value, zoned, rows: Vec::new(), dimensions, read: 0, ignored: 0 })
    }

    /// Adds the rows of a batch.
    ///
    /// # Errors
    /// `Limit` past two million rows.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        self.read += batch.num_rows() as u64;
        if self.read > MAX_ROWS {
            return Err(Error::limit(format!(
                "expected at most {MAX_ROWS} rows, found more: aggregate them in the SELECT, e.g. with \
                 `GROUP BY date_trunc('hour', …)`"
            )));
        }
        let dates = instants(batch.column(self.date))?;
        let dates = dates.as_primitive::<TimestampMicrosecondType>();
        let values = cast(batch.column(self.value), &DataType::Float64)?;
        let values = values.as_primitive::<Float64Type>();
        let counts: Vec<bool> = (0..batch.num_rows())
            .map(|i| {
                let dated = dates.is_valid(i) && calendar::is_in_range(dates.value(i));
                dated && values.is_valid(i) && values.value(i).is_finite()
            })
            .collect();
        for i in (0..batch.num_rows()).filter(|i| counts[*i]) {
            self.rows.push(Row { instant: dates.value(i), value: values.value(i) });
        }
        self.ignored += counts.iter().filter(|c| !**c).count() as u64;
        for labels in &mut self.dimensions {
            labels.push(batch, &counts)?;
        }
        Ok(())
    }
}

impl Labels {
    fn new(schema: &Schema, name: &str) -> Result<Self> {
        let column = column(schema, "dimension", name)?;
        let ty = schema.field(column).data_type();
        if ty.is_nested() || !can_cast_types(ty, &DataType::Utf8) {
            return Err(wrong_type("a text or another plain value", name, ty));
        }
        Ok(Self { column, name: name.into(), members: Vec::new(), of_row: Vec::new(), known: HashMap::new() })
    }

    fn push(&mut self, batch: &RecordBatch, counts: &[bool]) -> Result<()> {
        let texts = cast(batch.column(self.column), &DataType::Utf8)?;
        let texts = texts.as_string::<i32>();
        for i in (0..batch.num_rows()).filter(|i| counts[*i]) {
            let text = if texts.is_valid(i) { texts.value(i) } else { NO_NAME };
            let member = match self.known.get(text) {
                Some(member) => *member,
                None => self.add(text),
            };
            self.of_row.push(member);
        }
        Ok(())
    }

    fn add(&mut self, text: &str) -> u32 {
        // At most MAX_ROWS members, which fit.
        let member = u32::try_from(self.members.len()).unwrap_or(u32::MAX);
        self.members.push(text.into());
        self.known.insert(text.into(), member);
        member
    }
}

/// A date or timestamp column in microseconds, its zone left out of account: the values are UTC already.
fn instants(column: &arrow::array::ArrayRef) -> Result<arrow::array::ArrayRef> {
    let zone = match column.data_type() {
        DataType::Timestamp(_, zone) => zone.clone(),
        _ => None,
    };
    Ok(cast(column, &DataType::Timestamp(TimeUnit::Microsecond, zone))?)
}

fn column(schema: &Schema, role: &str, name: &str) -> Result<usize> {
    schema.index_of(name).map_err(|_| {
        let found: Vec<_> = schema.fields().iter().map(|f| format!("`{}`", f.name())).collect();
        Error::invalid(format!(
            "expected the {role} column `{name}` in the answer of the SELECT, found {}",
            if found.is_empty() { "no columns".into() } else { found.join(", ") }
        ))
    })
}

fn wrong_type(expected: &str, name: &str, found: &DataType) -> Error {
    Error::invalid(format!("expected {expected} in column `{name}`, found the type `{found}`"))
}
