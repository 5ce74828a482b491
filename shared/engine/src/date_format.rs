//! `date_parse(text, format)` and `date_format(time, format)` with MySQL's letters, as Presto took them over.
//!
//! What a format lacks is that of 1970-01-01 00:00:00. A time with a zone is shown as its zone has it.

use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, AsArray, PrimitiveArray, StringArray};
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, NaiveDateTime, TimeZone};
use datafusion::common::{DataFusionError, Result as DfResult, ScalarValue};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use shared::{Error, Result};

/// Names of the functions; they take a format in the letters of chrono.
pub(super) const PARSE: &str = "$date_parse";
pub(super) const FORMAT: &str = "$date_format";

const MICROS: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

/// Adds both functions.
///
/// # Errors
/// Whatever the registry says.
pub(super) fn register(registry: &mut dyn FunctionRegistry) -> DfResult<()> {
    for parses in [true, false] {
        let signature = Signature::user_defined(Volatility::Immutable);
        registry.register_udf(Arc::new(ScalarUDF::from(Formatted { parses, signature })))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Formatted {
    parses: bool,
    signature: Signature,
}

impl ScalarUDFImpl for Formatted {
    fn name(&self) -> &str {
        if self.parses { PARSE } else { FORMAT }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> DfResult<Vec<DataType>> {
        match types {
            [DataType::Timestamp(_, Some(zone)), _] if !self.parses => {
                Ok(vec![DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::clone(zone))), DataType::Utf8])
            }
            [_, _] => Ok(vec![if self.parses { DataType::Utf8 } else { MICROS }, DataType::Utf8]),
            other => Err(DataFusionError::from(Error::bug(format!("expected 2 arguments, found {}", other.len())))),
        }
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(if self.parses { MICROS } else { DataType::Utf8 })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let [_, ColumnarValue::Scalar(ScalarValue::Utf8(Some(format)))] = args.args.as_slice() else {
            return Err(DataFusionError::from(Error::invalid("expected a date format in quotes such as `'%Y-%m-%d'`")));
        };
        let values = args.args[0].to_array(args.number_rows)?;
        let found = if self.parses { parsed(&values, format) } else { shown(&values, format) }?;
        match is_scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?)),
            false => Ok(ColumnarValue::Array(found)),
        }
    }
}

fn parsed(texts: &ArrayRef, format: &str) -> Result<ArrayRef> {
    let items = items(format)?;
    let texts = texts.as_string::<i32>();
    let times = texts.iter().map(|text| text.map(|text| time_of(text, &items)).transpose());
    Ok(Arc::new(times.collect::<Result<PrimitiveArray<TimestampMicrosecondType>>>()?))
}

fn items(format: &str) -> Result<Vec<Item<'_>>> {
    let items = StrftimeItems::new(format).parse();
    items.map_err(|e| Error::invalid(format!("expected a date format, found `{format}`")).with_source(e))
}

/// Microseconds of the time that the text names.
fn time_of(text: &str, items: &[Item<'_>]) -> Result<i64> {
    let refused = |e: chrono::ParseError| {
        Error::invalid(format!("expected a date as its format says, found `{text}`")).with_source(e)
    };
    let mut found = Parsed::new();
    parse(&mut found, text, items.iter()).map_err(refused)?;
    completed(&mut found).map_err(refused)?;
    let date = found.to_naive_date().map_err(refused)?;
    let time = found.to_naive_time().map_err(refused)?;
    // To the millisecond, as in Trino.
    Ok(NaiveDateTime::new(date, time).and_utc().timestamp_millis() * 1_000)
}

/// Adds what was not in the text.
fn completed(found: &mut Parsed) -> chrono::format::ParseResult<()> {
    if found.isoweek().is_some() && found.weekday().is_none() {
        found.set_weekday(chrono::Weekday::Mon)?;
    }
    if found.isoweek().is_none() {
        if found.year().is_none() && found.year_mod_100().is_none() {
            found.set_year(1970)?;
        }
        if found.ordinal().is_none() {
            if found.month().is_none() {
                found.set_month(1)?;
            }
            if found.day().is_none() {
                found.set_day(1)?;
            }
        }
    }
    match (found.hour_div_12(), found.hour_mod_12()) {
        (None, None) => found.set_hour(0)?,
        (None, Some(_)) => found.set_ampm(false)?,
        (Some(_), None) => found.set_hour12(12)?,
        (Some(_), Some(_)) => {}
    }
    if found.minute().is_none() {
        found.set_minute(0)?;
    }
    if found.second().is_none() {
        found.set_second(0)?;
    }
    Ok(())
}

fn shown(times: &ArrayRef, format: &str) -> Result<ArrayRef> {
    let items = items(format)?;
    let zone = match times.data_type() {
        DataType::Timestamp(_, Some(zone)) => Some(zone.parse::<Tz>().map_err(Error::from)?),
        _ => None,
    };
    let text = |micros: i64| {
        let outside = || Error::invalid("the time lies outside the range of times");
        let time = DateTime::from_timestamp_micros(micros).ok_or_else(outside)?.naive_utc();
        let time = zone.map_or(time, |zone| zone.from_utc_datetime(&time).naive_local());
        Ok(time.format_with_items(items.iter()).to_string())
    };
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let texts = times.iter().map(|micros| micros.map(text).transpose());
    Ok(Arc::new(texts.collect::<Result<StringArray>>()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_format_lacks_is_that_of_1970() {
        for (text, format, expected) in [
            ("2024-01-31", "%Y-%m-%d", "2024-01-31 00:00:00"),
            ("202402", "%Y%m", "2024-02-01 00:00:00"),
            ("1/5/2024", "%-m/%-d/%Y", "2024-01-05 00:00:00"),
            ("10:20", "%H:%M", "1970-01-01 10:20:00"),
            ("01:05 PM", "%I:%M %p", "1970-01-01 13:05:00"),
            ("24", "%y", "2024-01-01 00:00:00"),
            ("2024 060", "%Y %j", "2024-02-29 00:00:00"),
        ] {
            let micros = time_of(text, &items(format).unwrap()).unwrap();
            assert_eq!(DateTime::from_timestamp_micros(micros).unwrap().naive_utc().to_string(), expected, "{text}");
        }
        assert!(time_of("31.01.2024", &items("%Y-%m-%d").unwrap()).is_err());
    }

    #[test]
    fn a_time_with_a_zone_is_shown_as_its_zone_has_it() {
        let times = PrimitiveArray::<TimestampMicrosecondType>::from(vec![1_710_052_200_000_000]);
        let in_york: ArrayRef = Arc::new(times.clone().with_timezone("America/New_York"));
        let shown_there = shown(&in_york, "%H:%M").unwrap();
        let plain: ArrayRef = Arc::new(times);
        assert_eq!(shown_there.as_string::<i32>().value(0), "01:30");
        assert_eq!(shown(&plain, "%H:%M").unwrap().as_string::<i32>().value(0), "06:30");
    }
}
