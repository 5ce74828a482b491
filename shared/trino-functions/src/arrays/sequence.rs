//! Sequences of numbers, dates and timestamps.

use std::sync::Arc;

use arrow::array::NullBufferBuilder;
use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, Int64Array};
use arrow::datatypes::{
    DataType, Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType,
};
use datafusion::common::Result;

use super::{Function, SECTION, compute, scalar};
use crate::call::{Bigint, Call, Column, Date, Fixed, Timestamp, invalid};
use crate::nested::{list_array, offset};

/// How many elements a sequence has at most, as in Trino.
const MAX_ELEMENTS: u64 = 10_000;

const DAY_MICROS: i64 = 86_400_000_000;

type Interval = Fixed<IntervalMonthDayNanoType>;

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(
            SECTION,
            "sequence",
            "what lies from one value to another, by steps of 1 or a day unless told, at most 10000",
        )
        .way("sequence(bigint, bigint) -> array(bigint)", compute(numbers))
        .way("sequence(bigint, bigint, bigint) -> array(bigint)", compute(numbers))
        .way("sequence(date, date) -> array(date)", compute(dates))
        .way("sequence(date, date, interval) -> array(date)", compute(dates))
        .way("sequence(timestamp, timestamp, interval) -> array(timestamp)", compute(timestamps))
        .example("sequence(1, 3)", "[1, 2, 3]")
        .example("sequence(10, 1, -4)", "[10, 6, 2]")
        .example(
            "sequence(DATE '2020-01-31', DATE '2020-03-31', INTERVAL '1' MONTH)",
            "[2020-01-31, 2020-02-29, 2020-03-31]",
        ),
    ]
}

/// How a sequence goes on.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// By so many units.
    Units(i64),
    /// By so many months.
    Months(i32),
}

impl Step {
    /// An interval as steps of units of so many microseconds.
    fn of(interval: IntervalMonthDayNano, unit: i64) -> Result<Self> {
        let (nanos, days) = (i128::from(interval.nanoseconds), i128::from(interval.days));
        let micros = nanos / 1_000 + days * i128::from(DAY_MICROS);
        match (interval.months, micros) {
            (months, 0) if months != 0 => Ok(Self::Months(months)),
            (0, micros) if micros % i128::from(unit) == 0 => i64::try_from(micros / i128::from(unit))
                .map(Self::Units)
                .map_err(|_| invalid("expected a step of fewer days, found one that no timestamp has room for")),
            (0, _) => Err(invalid("expected a step of whole days between dates, found a part of a day")),
            _ => Err(invalid("expected a step of months or of days and less, found both")),
        }
    }

    fn sign(self) -> i64 {
        match self {
            Self::Units(by) => by.signum(),
            Self::Months(by) => i64::from(by.signum()),
        }
    }
}

/// The values of a sequence. `plus` adds months to a value.
fn sequence(
    from: i64,
    to: i64,
    step: Step,
    values: &mut Vec<i64>,
    plus: impl Fn(i64, i32) -> Option<i64>,
) -> Result<()> {
    let sign = step.sign();
    if sign == 0 {
        return Err(invalid("expected a step other than 0, found 0"));
    }
    if (to < from && sign > 0) || (to > from && sign < 0) {
        let way = if sign > 0 { "to a value that is not less" } else { "to a value that is not greater" };
        return Err(invalid(format!("expected a sequence {way}, found one against its step")));
    }
    let too_many = || invalid(format!("expected a sequence of at most {MAX_ELEMENTS} elements, found more"));
    match step {
        Step::Units(by) => {
            let steps = to.abs_diff(from) / by.unsigned_abs();
            if steps >= MAX_ELEMENTS {
                return Err(too_many());
            }
            values.extend((0..=steps).map(|i| from.wrapping_add(by.wrapping_mul(i.cast_signed()))));
        }
        Step::Months(by) => {
            for i in 0..=i32::try_from(MAX_ELEMENTS).unwrap_or(i32::MAX) {
                let next = by.checked_mul(i).and_then(|months| plus(from, months));
                let Some(next) = next.filter(|next| if sign > 0 { *next <= to } else { *next >= to }) else {
                    return Ok(());
                };
                if u64::from(i.unsigned_abs()) >= MAX_ELEMENTS {
                    return Err(too_many());
                }
                values.push(next);
            }
        }
    }
    Ok(())
}

/// Sequences in each row; null where `row` gives none.
fn collect(call: &Call<'_>, mut row: impl FnMut(usize, &mut Vec<i64>) -> Result<bool>) -> Result<ArrayRef> {
    let mut values = Vec::new();
    let mut offsets = Vec::with_capacity(call.rows + 1);
    offsets.push(0);
    let mut nulls = NullBufferBuilder::new(call.rows);
    for at in 0..call.rows {
        nulls.append(row(at, &mut values)?);
        offsets.push(offset(values.len())?);
    }
    let values: ArrayRef = Arc::new(Int64Array::from(values));
    let values = match crate::signature::element_of(call.gives) {
        Some(DataType::Date32) => arrow::compute::cast(&values, &DataType::Int32)?,
        _ => values,
    };
    list_array(offsets, nulls.finish(), values, call.gives)
}

fn numbers(call: &Call<'_>) -> Result<ArrayRef> {
    let (from, to) = (call.column::<Bigint>(0)?, call.column::<Bigint>(1)?);
    let step = third::<Bigint>(call)?;
    collect(call, |row, values| {
        let (Some(from), Some(to)) = (from.get(row), to.get(row)) else { return Ok(false) };
        let step = match step.as_ref().map(|step| step.get(row)) {
            Some(None) => return Ok(false),
            Some(Some(step)) => step,
            None => ahead(from, to),
        };
        sequence(from, to, Step::Units(step), values, |_, _| None).map(|()| true)
    })
}

fn dates(call: &Call<'_>) -> Result<ArrayRef> {
    let (from, to) = (call.column::<Date>(0)?, call.column::<Date>(1)?);
    let step = third::<Interval>(call)?;
    collect(call, |row, values| {
        let (Some(from), Some(to)) = (from.get(row), to.get(row)) else { return Ok(false) };
        let (from, to) = (i64::from(from), i64::from(to));
        let step = match step.as_ref().map(|step| step.get(row)) {
            Some(None) => return Ok(false),
            Some(Some(step)) => Step::of(step, DAY_MICROS)?,
            None => Step::Units(ahead(from, to)),
        };
        let plus =
            |date: i64, months| Date32Type::add_year_months_opt(i32::try_from(date).ok()?, months).map(i64::from);
        sequence(from, to, step, values, plus).map(|()| true)
    })
}

fn timestamps(call: &Call<'_>) -> Result<ArrayRef> {
    let (from, to, step) = (call.column::<Timestamp>(0)?, call.column::<Timestamp>(1)?, call.column::<Interval>(2)?);
    let utc: Tz = "+00:00".parse()?;
    collect(call, |row, values| {
        let (Some(from), Some(to), Some(step)) = (from.get(row), to.get(row), step.get(row)) else { return Ok(false) };
        let plus = |time: i64, months| TimestampMicrosecondType::add_year_months(time, months, utc);
        sequence(from, to, Step::of(step, 1)?, values, plus).map(|()| true)
    })
}

fn third<'a, A: crate::call::Argument>(call: &Call<'a>) -> Result<Option<Column<'a, A>>> {
    (call.arguments.len() > 2).then(|| call.column::<A>(2)).transpose()
}

fn ahead(from: i64, to: i64) -> i64 {
    if from <= to { 1 } else { -1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(from: i64, to: i64, by: i64) -> Result<Vec<i64>> {
        let mut values = Vec::new();
        sequence(from, to, Step::Units(by), &mut values, |_, _| None).map(|()| values)
    }

    #[test]
    fn sequences_end_at_the_edges_of_their_type() {
        assert_eq!(made(i64::MAX - 1, i64::MAX, 1).unwrap(), [i64::MAX - 1, i64::MAX]);
        assert_eq!(made(i64::MIN, i64::MAX, i64::MAX).unwrap(), [i64::MIN, -1, i64::MAX - 1]);
        assert_eq!(made(0, i64::MIN, i64::MIN).unwrap(), [0, i64::MIN]);
        assert_eq!(made(1, 10_000, 1).unwrap().len(), 10_000);
        for (from, to, by) in [(0, 10_000, 1), (1, 2, 0), (1, 2, -1), (2, 1, 1), (i64::MIN, i64::MAX, 1)] {
            assert!(made(from, to, by).is_err(), "{from} {to} {by}");
        }
    }
}
