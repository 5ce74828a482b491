//! Values as JSON and CSV have them.
//!
//! | type | JSON | CSV |
//! |---|---|---|
//! | null | `null` | nothing (an empty text is `""`) |
//! | integers | a number; a text beyond ±9007199254740991, which JavaScript can't hold | digits |
//! | decimals | a text, every digit kept | digits |
//! | floats | a number; `"NaN"`, `"Infinity"`, `"-Infinity"` | the same |
//! | date | `"2013-02-08"` | the same |
//! | timestamp | `"2013-02-08T06:00:00"`, fractions as far as they go; with a zone in UTC: `…Z` | the same |
//! | time | `"06:00:00"`, fractions as far as they go | the same |
//! | uuid, and other values of 16 bytes | `"f81d4fae-7dec-11d0-a765-00a0c91e6bf6"` | the same |
//! | binary | base64 | base64 |
//! | array, struct, map | array, object, object | JSON text |

use std::borrow::Cow;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Decimal256Array, RecordBatch, StructArray};
use arrow::datatypes::{
    DataType, Date32Type, Date64Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value, json};
use shared::Result;
use shared::model::ColumnType;
use uuid::Uuid;

/// The largest integer that every JSON reader keeps.
const MAX_SAFE: u64 = (1 << 53) - 1;

/// Names and types, in Glue's words where a table could hold the type.
pub fn columns(schema: &SchemaRef) -> Value {
    let column = |field: &arrow::datatypes::FieldRef| {
        let ty = ColumnType::from_arrow(field.data_type()).map(|ty| ty.to_string());
        json!({"name": field.name(), "type": ty.unwrap_or_else(|_| field.data_type().to_string())})
    };
    schema.fields().iter().map(column).collect()
}

/// The rows of a batch as arrays of values.
///
/// # Errors
/// `Invalid` for a value of a type that has no text.
pub fn json_rows(batch: &RecordBatch) -> Result<Vec<Value>> {
    let columns: Vec<Vec<Value>> = batch.columns().iter().map(json_values).collect::<Result<_>>()?;
    let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
    let row = |_| Value::Array(columns.iter_mut().map(|c| c.next().unwrap_or(Value::Null)).collect());
    Ok((0..batch.num_rows()).map(row).collect())
}

/// One row of CSV, without the end of its line.
pub fn csv_row(row: &[Value], out: &mut Vec<u8>) {
    for (i, value) in row.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        match value {
            Value::Null => {}
            Value::String(text) => out.extend(csv_field(text).as_bytes()),
            nested @ (Value::Array(_) | Value::Object(_)) => out.extend(csv_field(&nested.to_string()).as_bytes()),
            plain => out.extend(plain.to_string().into_bytes()),
        }
    }
}

/// A text as RFC 4180 has it; an empty one is quoted to differ from null.
pub fn csv_field(text: &str) -> Cow<'_, str> {
    let needs = text.is_empty() || text.contains(['"', ',', '\n', '\r']) || text.trim() != text;
    if needs { format!("\"{}\"", text.replace('"', "\"\"")).into() } else { text.into() }
}

macro_rules! numbers {
    ($array:expr, $ty:ty, $value:expr) => {
        $array.as_primitive::<$ty>().iter().map(|v| v.map_or(Value::Null, $value)).collect()
    };
}

/// One value for each row.
fn json_values(array: &ArrayRef) -> Result<Vec<Value>> {
    Ok(match array.data_type() {
        DataType::Null => vec![Value::Null; array.len()],
        DataType::Boolean => array.as_boolean().iter().map(Value::from).collect(),
        DataType::Int8 => numbers!(array, Int8Type, Value::from),
        DataType::Int16 => numbers!(array, Int16Type, Value::from),
        DataType::Int32 => numbers!(array, Int32Type, Value::from),
        DataType::Int64 => numbers!(array, Int64Type, |v| safe(v.unsigned_abs(), v.into(), &v)),
        DataType::UInt8 => numbers!(array, UInt8Type, Value::from),
        DataType::UInt16 => numbers!(array, UInt16Type, Value::from),
        DataType::UInt32 => numbers!(array, UInt32Type, Value::from),
        DataType::UInt64 => numbers!(array, UInt64Type, |v| safe(v, v.into(), &v)),
        DataType::Float16 => numbers!(array, Float16Type, |v| float(f64::from(v))),
        DataType::Float32 => numbers!(array, Float32Type, single),
        DataType::Float64 => numbers!(array, Float64Type, float),
        DataType::Decimal128(..) => {
            decimals(array, |i| array.as_any().downcast_ref::<Decimal128Array>().map(|a| a.value_as_string(i)))
        }
        DataType::Decimal256(..) => {
            decimals(array, |i| array.as_any().downcast_ref::<Decimal256Array>().map(|a| a.value_as_string(i)))
        }
        DataType::Utf8 => array.as_string::<i32>().iter().map(Value::from).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(Value::from).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(Value::from).collect(),
        DataType::Binary => array.as_binary::<i32>().iter().map(base64).collect(),
        DataType::LargeBinary => array.as_binary::<i64>().iter().map(base64).collect(),
        DataType::BinaryView => array.as_binary_view().iter().map(base64).collect(),
        DataType::FixedSizeBinary(16) => {
            let text = |bytes| Uuid::from_slice(bytes).map_or(Value::Null, |uuid| Value::String(uuid.to_string()));
            array.as_fixed_size_binary().iter().map(|bytes| bytes.map_or(Value::Null, text)).collect()
        }
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().iter().map(base64).collect(),
        DataType::Date32 => each(array, |i| array.as_primitive::<Date32Type>().value_as_date(i).map(|d| d.to_string())),
        DataType::Date64 => each(array, |i| array.as_primitive::<Date64Type>().value_as_date(i).map(|d| d.to_string())),
        DataType::Timestamp(unit, zone) => timestamps(array, *unit, zone.is_some()),
        DataType::List(_) => lists(array, |i| array.as_list::<i32>().value(i))?,
        DataType::LargeList(_) => lists(array, |i| array.as_list::<i64>().value(i))?,
        DataType::FixedSizeList(..) => lists(array, |i| array.as_fixed_size_list().value(i))?,
        DataType::Struct(_) => structs(array.as_struct())?,
        DataType::Map(..) => maps(array)?,
        DataType::Dictionary(_, value) => json_values(&arrow::compute::cast(array, value)?)?,
        _ => displayed(array)?,
    })
}

fn safe(magnitude: u64, number: Number, text: &dyn std::fmt::Display) -> Value {
    if magnitude <= MAX_SAFE { Value::Number(number) } else { Value::String(text.to_string()) }
}

fn float(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| Value::String(unreal(value)), Value::Number)
}

/// The shortest number that reads back as the same `f32`, not its long form as an `f64`.
fn single(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, float)
}

fn unreal(value: f64) -> String {
    let text = if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    text.to_owned()
}

fn base64(bytes: Option<&[u8]>) -> Value {
    bytes.map_or(Value::Null, |bytes| Value::String(STANDARD.encode(bytes)))
}

fn decimals(array: &ArrayRef, text: impl Fn(usize) -> Option<String>) -> Vec<Value> {
    each(array, text)
}

fn each(array: &ArrayRef, text: impl Fn(usize) -> Option<String>) -> Vec<Value> {
    let value = |i: usize| if array.is_null(i) { Value::Null } else { text(i).map_or(Value::Null, Value::String) };
    (0..array.len()).map(value).collect()
}

fn timestamps(array: &ArrayRef, unit: TimeUnit, zoned: bool) -> Vec<Value> {
    let at = |i: usize| match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value_as_datetime(i),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value_as_datetime(i),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value_as_datetime(i),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value_as_datetime(i),
    };
    each(array, |i| {
        let mut text = at(i)?.format("%Y-%m-%dT%H:%M:%S%.f").to_string();
        if zoned {
            text.push('Z');
        }
        Some(text)
    })
}

fn lists(array: &ArrayRef, items: impl Fn(usize) -> ArrayRef) -> Result<Vec<Value>> {
    let value = |i| if array.is_null(i) { Ok(Value::Null) } else { json_values(&items(i)).map(Value::Array) };
    (0..array.len()).map(value).collect()
}

fn structs(array: &StructArray) -> Result<Vec<Value>> {
    let columns: Vec<Vec<Value>> = array.columns().iter().map(json_values).collect::<Result<_>>()?;
    let names = array.column_names();
    let value = |i: usize| match array.is_null(i) {
        true => Value::Null,
        false => names.iter().zip(&columns).map(|(name, column)| ((*name).to_owned(), column[i].clone())).collect(),
    };
    Ok((0..array.len()).map(value).collect())
}

fn maps(array: &ArrayRef) -> Result<Vec<Value>> {
    let map = array.as_map();
    let value = |i: usize| {
        if array.is_null(i) {
            return Ok(Value::Null);
        }
        let entries = map.value(i);
        let (keys, values) = (json_values(entries.column(0))?, json_values(entries.column(1))?);
        let key = |value: Value| if let Value::String(text) = value { text } else { value.to_string() };
        Ok(keys.into_iter().map(key).zip(values).collect())
    };
    (0..array.len()).map(value).collect()
}

/// Intervals and the like, as Arrow shows them; times of day too, which is as ISO 8601 has them.
fn displayed(array: &ArrayRef) -> Result<Vec<Value>> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    let mut values = Vec::with_capacity(array.len());
    for i in 0..array.len() {
        let mut text = String::new();
        formatter.value(i).write(&mut text)?;
        values.push(if array.is_null(i) { Value::Null } else { Value::String(text) });
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int64Array, ListArray, MapBuilder, StringBuilder, TimestampMicrosecondArray};
    use std::sync::Arc;

    fn values(array: impl Array + 'static) -> Value {
        let array: ArrayRef = Arc::new(array);
        Value::Array(json_values(&array).unwrap())
    }

    #[test]
    fn integers_that_javascript_would_round_are_texts() {
        let array =
            Int64Array::from(vec![Some(9_007_199_254_740_991), Some(9_007_199_254_740_993), Some(i64::MIN), None]);
        let expected = json!([9_007_199_254_740_991_i64, "9007199254740993", "-9223372036854775808", null]);
        assert_eq!(values(array), expected);
    }

    #[test]
    fn decimals_keep_every_digit() {
        let array =
            Decimal128Array::from(vec![Some(1_234_500), Some(-5), None]).with_precision_and_scale(38, 4).unwrap();
        assert_eq!(values(array), json!(["123.4500", "-0.0005", null]));
    }

    #[test]
    fn floats_that_json_lacks_are_texts() {
        let array = Float64Array::from(vec![0.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
        assert_eq!(values(array), json!([0.1, "NaN", "Infinity", "-Infinity"]));
        assert_eq!(values(arrow::array::Float32Array::from(vec![0.1_f32])), json!([0.1]));
    }

    #[test]
    fn timestamps_are_iso_8601_with_the_fraction_that_they_have() {
        let array = TimestampMicrosecondArray::from(vec![Some(0), Some(1_500_000), None]);
        assert_eq!(values(array.clone()), json!(["1970-01-01T00:00:00", "1970-01-01T00:00:01.500", null]));
        assert_eq!(values(array.with_timezone("+00:00"))[0], json!("1970-01-01T00:00:00Z"));
    }

    #[test]
    fn nested_values_are_json() {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1), None]), None]);
        assert_eq!(values(list), json!([[1, null], null]));
        let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        map.keys().append_value("a");
        map.values().append_value("b");
        map.append(true).unwrap();
        assert_eq!(values(map.finish()), json!([{"a": "b"}]));
    }
}
