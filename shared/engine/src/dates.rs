//! `date_diff(unit, from, to)` and `date_add(unit, n, time)`, as Presto defines them: whole units, months by the calendar.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Date32Array, Int64Array, PrimitiveArray};
use arrow::datatypes::{DataType, Date32Type, Int64Type, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use shared::Error;

/// Adds both functions.
///
/// # Errors
/// Whatever the registry says.
pub(super) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for kind in [Kind::Diff, Kind::Add] {
        registry.register_udf(Arc::new(ScalarUDF::from(DateFunction::new(kind))))?;
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Diff,
    Add,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct DateFunction {
    kind: Kind,
    signature: Signature,
}

impl DateFunction {
    fn new(kind: Kind) -> Self {
        Self { kind, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

impl ScalarUDFImpl for DateFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Diff => "date_diff",
            Kind::Add => "date_add",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, types) {
            (Kind::Diff, [_, _, _]) => Ok(vec![DataType::Utf8, MICROS, MICROS]),
            (Kind::Add, [_, _, time]) => Ok(vec![DataType::Utf8, DataType::Int64, added_type(time)]),
            (kind, other) => {
                let expected = if kind == Kind::Diff { "date_diff(unit, from, to)" } else { "date_add(unit, n, time)" };
                Err(DataFusionError::from(Error::invalid(format!(
                    "expected `{expected}`, found {} arguments",
                    other.len()
                ))))
            }
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match (self.kind, types) {
            (Kind::Add, [_, _, time]) => Ok(added_type(time)),
            _ => Ok(DataType::Int64),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [units, from, to] = arrays.as_slice() else {
            return Err(DataFusionError::from(Error::bug(format!("expected 3 arguments, found {}", arrays.len()))));
        };
        let result = match self.kind {
            Kind::Diff => diff(units, from, to)?,
            Kind::Add => add(units, from, to)?,
        };
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            false => Ok(ColumnarValue::Array(result)),
        }
    }
}

/// Dates stay dates; everything else is a time in microseconds, its zone kept.
fn added_type(time: &DataType) -> DataType {
    match time {
        DataType::Date32 | DataType::Date64 => DataType::Date32,
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Microsecond, zone.clone()),
        _ => MICROS,
    }
}

/// A unit: so many microseconds, or so many months.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Micros(i64),
    Months(i64),
}

const DAY: i64 = 86_400_000_000;

impl Unit {
    fn parse(text: &str) -> Result<Self> {
        Ok(match text.to_ascii_lowercase().as_str() {
            "millisecond" => Self::Micros(1_000),
            "second" => Self::Micros(1_000_000),
            "minute" => Self::Micros(60_000_000),
            "hour" => Self::Micros(3_600_000_000),
            "day" => Self::Micros(DAY),
            "week" => Self::Micros(7 * DAY),
            "month" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" => Self::Months(12),
            _ => {
                return Err(DataFusionError::from(Error::invalid(format!(
                    "expected the unit millisecond, second, minute, hour, day, week, month, quarter or year, found `{text}`"
                ))));
            }
        })
    }

    /// Whole units from one time to the other, rounded toward zero.
    fn between(self, from: i64, to: i64) -> Option<i64> {
        match self {
            Self::Micros(unit) => Some(to.checked_sub(from)? / unit),
            Self::Months(unit) => Some(months_between(at(from)?, at(to)?) / unit),
        }
    }

    /// The time `n` units later; a day that the month lacks becomes its last.
    fn after(self, time: i64, n: i64) -> Option<i64> {
        match self {
            Self::Micros(unit) => time.checked_add(unit.checked_mul(n)?),
            Self::Months(unit) => {
                let months = Months::new(u32::try_from(unit.checked_mul(n)?.unsigned_abs()).ok()?);
                let time = at(time)?;
                let moved = if n < 0 { time.checked_sub_months(months) } else { time.checked_add_months(months) };
                Some(moved?.and_utc().timestamp_micros())
            }
        }
    }
}

fn at(micros: i64) -> Option<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros).map(|t| t.naive_utc())
}

/// As Joda-Time counts: the last day of a month is as far as any day that the month lacks.
fn months_between(from: NaiveDateTime, to: NaiveDateTime) -> i64 {
    if to < from {
        return -months_between(to, from);
    }
    let months = i64::from(to.year() - from.year()) * 12 + i64::from(to.month()) - i64::from(from.month());
    let reached = u32::try_from(months).ok().and_then(|months| from.checked_add_months(Months::new(months)));
    if reached.is_some_and(|reached| reached > to) { months - 1 } else { months }
}

fn diff(units: &ArrayRef, from: &ArrayRef, to: &ArrayRef) -> Result<ArrayRef> {
    let units = units.as_string::<i32>();
    let (from, to) = (from.as_primitive::<TimestampMicrosecondType>(), to.as_primitive::<TimestampMicrosecondType>());
    let mut found = Vec::with_capacity(from.len());
    for i in 0..from.len() {
        let missing = units.is_null(i) || from.is_null(i) || to.is_null(i);
        found.push(match missing {
            true => None,
            false => Some(in_range(Unit::parse(units.value(i))?.between(from.value(i), to.value(i)))?),
        });
    }
    Ok(Arc::new(Int64Array::from(found)))
}

fn add(units: &ArrayRef, counts: &ArrayRef, times: &ArrayRef) -> Result<ArrayRef> {
    let units = units.as_string::<i32>();
    let counts = counts.as_primitive::<Int64Type>();
    let is_date = times.data_type() == &DataType::Date32;
    let time = |i: usize| match is_date {
        true => i64::from(times.as_primitive::<Date32Type>().value(i)) * DAY,
        false => times.as_primitive::<TimestampMicrosecondType>().value(i),
    };
    let mut found = Vec::with_capacity(times.len());
    for i in 0..times.len() {
        if units.is_null(i) || counts.is_null(i) || times.is_null(i) {
            found.push(None);
            continue;
        }
        let unit = Unit::parse(units.value(i))?;
        if is_date && matches!(unit, Unit::Micros(micros) if micros < DAY) {
            let error =
                Error::invalid(format!("expected a unit of a day or more for a date, found `{}`", units.value(i)));
            return Err(DataFusionError::from(error));
        }
        found.push(Some(in_range(unit.after(time(i), counts.value(i)))?));
    }
    if is_date {
        let days = found.into_iter().map(|t| t.map(|t| days(t.div_euclid(DAY))).transpose());
        return Ok(Arc::new(days.collect::<Result<Date32Array>>()?));
    }
    let times = PrimitiveArray::<TimestampMicrosecondType>::from(found).with_data_type(times.data_type().clone());
    Ok(Arc::new(times))
}

fn days(days: i64) -> Result<i32> {
    in_range(i32::try_from(days).ok().filter(|d| NaiveDate::from_epoch_days(*d).is_some()))
}

fn in_range<T>(value: Option<T>) -> Result<T> {
    value.ok_or_else(|| DataFusionError::from(Error::invalid("the result lies outside the range of times")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(text: &str) -> i64 {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap().and_utc().timestamp_micros()
    }

    #[test]
    fn only_whole_units_count() {
        for (unit, from, to, expected) in [
            ("day", "2020-03-01 12:00", "2020-03-03 11:00", 1),
            ("day", "2020-03-03 11:00", "2020-03-01 12:00", -1),
            ("month", "2020-01-31 00:00", "2020-02-29 00:00", 1),
            ("month", "2020-02-29 00:00", "2020-01-31 00:00", -1),
            ("month", "2020-01-30 00:00", "2020-02-28 00:00", 0),
            ("month", "2020-01-15 10:00", "2020-03-15 10:00", 2),
            ("month", "2020-03-15 10:00", "2020-01-15 11:00", -1),
            ("year", "2019-03-01 00:00", "2021-02-28 00:00", 1),
            ("quarter", "2020-01-01 00:00", "2020-12-31 00:00", 3),
            ("hour", "2020-01-01 00:30", "2020-01-01 03:29", 2),
        ] {
            let found = Unit::parse(unit).unwrap().between(micros(from), micros(to));
            assert_eq!(found, Some(expected), "{unit} {from} {to}");
        }
    }

    #[test]
    fn a_day_that_the_month_lacks_becomes_its_last() {
        let january = micros("2021-01-31 08:00");
        assert_eq!(Unit::parse("month").unwrap().after(january, 1), Some(micros("2021-02-28 08:00")));
        assert_eq!(
            Unit::parse("year").unwrap().after(micros("2020-02-29 00:00"), -1),
            Some(micros("2019-02-28 00:00"))
        );
    }

    #[test]
    fn times_without_end_are_refused() {
        assert_eq!(Unit::parse("week").unwrap().after(0, i64::MAX), None);
        assert_eq!(Unit::parse("year").unwrap().after(0, 1_000_000), None);
        assert!(Unit::parse("fortnight").is_err());
    }
}
