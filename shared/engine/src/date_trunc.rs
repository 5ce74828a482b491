//! `date_trunc(unit, time)` for all years, and of dates: DataFusion computes in nanoseconds, which end in 2262, and makes times of dates.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Date32Type, Field, FieldRef, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike, NaiveDate};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::functions::datetime;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use shared::Error;

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
const DAY: i64 = 86_400_000_000;

/// Puts the function in the place of DataFusion's.
///
/// # Errors
/// Whatever the registry says.
pub(super) fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    let signature = Signature::user_defined(Volatility::Immutable);
    registry.register_udf(Arc::new(ScalarUDF::from(DateTrunc { inner: datetime::date_trunc(), signature })))?;
    Ok(())
}

/// `inner` is DataFusion's, for times with a zone, times of day and nanoseconds.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DateTrunc {
    inner: Arc<ScalarUDF>,
    signature: Signature,
}

impl ScalarUDFImpl for DateTrunc {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [_, time] = types else {
            let found = types.len();
            return Err(DataFusionError::from(Error::invalid(format!(
                "expected `date_trunc(unit, time)`, found {found} arguments"
            ))));
        };
        let time = match time {
            DataType::Date32 | DataType::Date64 => DataType::Date32,
            DataType::Timestamp(TimeUnit::Nanosecond, _)
            | DataType::Timestamp(_, Some(_))
            | DataType::Time32(_)
            | DataType::Time64(_) => time.clone(),
            _ => MICROS,
        };
        Ok(vec![DataType::Utf8, time])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.last().cloned().unwrap_or(MICROS))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        let time = args.arg_fields.last().map(|field| (field.data_type().clone(), field.is_nullable()));
        let (ty, nullable) = time.unwrap_or((MICROS, true));
        Ok(Arc::new(Field::new(self.name(), ty, nullable)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [unit, time] = args.args.as_slice() else {
            return Err(DataFusionError::from(Error::bug(format!("expected 2 arguments, found {}", args.args.len()))));
        };
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(unit))) = unit else {
            return Err(DataFusionError::from(Error::invalid(
                "expected a unit in quotes such as `'month'`, found another expression",
            )));
        };
        if !matches!(time.data_type(), DataType::Date32) && time.data_type() != MICROS {
            return self.inner.invoke_with_args(args);
        }
        let unit = unit.to_lowercase();
        match time {
            ColumnarValue::Array(times) => truncated(times, &unit).map(ColumnarValue::Array),
            ColumnarValue::Scalar(time) => {
                let found = truncated(&time.to_array()?, &unit)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?))
            }
        }
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        self.inner.output_ordering(input)
    }
}

fn truncated(times: &ArrayRef, unit: &str) -> Result<ArrayRef> {
    // Known before a row is there, so that no rows are refused as many are.
    truncate(0, unit)?;
    if let Some(dates) = times.as_primitive_opt::<Date32Type>() {
        let of = |day: i32| -> Result<i32> {
            let micros = truncate(i64::from(day) * DAY, unit)?;
            i32::try_from(micros.div_euclid(DAY)).map_err(|_| DataFusionError::from(no_date(day.into())))
        };
        return Ok(Arc::new(dates.try_unary::<_, Date32Type, DataFusionError>(of)?));
    }
    let times = times.as_primitive::<TimestampMicrosecondType>();
    Ok(Arc::new(times.try_unary::<_, TimestampMicrosecondType, DataFusionError>(|micros| truncate(micros, unit))?))
}

/// Microseconds since 1970 of the beginning of the unit.
fn truncate(micros: i64, unit: &str) -> Result<i64> {
    let fixed = match unit {
        "microsecond" => 1,
        "millisecond" => 1_000,
        "second" => 1_000_000,
        "minute" => 60_000_000,
        "hour" => 3_600_000_000,
        "day" => DAY,
        "week" => {
            // 1970-01-01 was a Thursday; weeks begin on Monday.
            let day = micros.div_euclid(DAY);
            let monday = (day - (day + 3).rem_euclid(7)).checked_mul(DAY);
            return monday.ok_or_else(|| DataFusionError::from(no_date(micros)));
        }
        "month" | "quarter" | "year" => {
            let date = DateTime::from_timestamp_micros(micros)
                .ok_or_else(|| DataFusionError::from(no_date(micros)))?
                .date_naive();
            let month = match unit {
                "month" => date.month(),
                "quarter" => (date.month() - 1) / 3 * 3 + 1,
                _ => 1,
            };
            let first =
                NaiveDate::from_ymd_opt(date.year(), month, 1).ok_or_else(|| DataFusionError::from(no_date(micros)))?;
            return Ok(first.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros());
        }
        other => {
            return Err(DataFusionError::from(Error::invalid(format!(
                "expected one of the units microsecond, millisecond, second, minute, hour, day, week, month, quarter, year, \
                 found `{other}`"
            ))));
        }
    };
    micros.checked_sub(micros.rem_euclid(fixed)).ok_or_else(|| DataFusionError::from(no_date(micros)))
}

fn no_date(found: i64) -> Error {
    Error::invalid(format!("expected a time between the years -262143 and 262142, found {found} from 1970"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> i64 {
        chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").unwrap().and_utc().timestamp_micros()
    }

    #[test]
    fn a_time_is_truncated_in_every_year() {
        for (time, unit, expected) in [
            ("9999-12-31 23:59:59.5", "year", "9999-01-01 00:00:00"),
            ("0001-02-03 04:05:06", "quarter", "0001-01-01 00:00:00"),
            ("1969-12-31 23:59:59.999999", "hour", "1969-12-31 23:00:00"),
            ("2024-02-29 12:30:45.5", "week", "2024-02-26 00:00:00"),
            ("1969-12-31 01:00:00", "week", "1969-12-29 00:00:00"),
            ("2024-08-29 12:30:45.5", "quarter", "2024-07-01 00:00:00"),
            ("2024-08-29 12:30:45.123456", "millisecond", "2024-08-29 12:30:45.123"),
        ] {
            assert_eq!(truncate(at(time), unit).unwrap(), at(expected), "{unit} of {time}");
        }
        assert!(truncate(0, "fortnight").unwrap_err().to_string().contains("fortnight"));
    }
}
