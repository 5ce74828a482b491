//! Arrays as texts.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::Result;

use super::{Function, SECTION, compute, scalar};
use crate::call::{Call, Text, collect, invalid};
use crate::nested::Lists;
use crate::types::type_name;

pub(super) fn functions() -> Vec<Function> {
    vec![
        scalar(SECTION, "array_join", "the elements as one text with a delimiter between them; nulls are left out, or another text stands for them")
            .typed("array_join(array(T), varchar) -> varchar", gives, compute(join))
            .typed("array_join(array(T), varchar, varchar) -> varchar", gives, compute(join))
            .example("array_join(ARRAY[1, NULL, 2], '-')", "1-2")
            .example("array_join(ARRAY['a', NULL], ',', 'none')", "a,none"),
    ]
}

fn gives(types: &[DataType]) -> Result<DataType> {
    let element = types.first().and_then(crate::signature::element_of).unwrap_or(&DataType::Null);
    let is_joined = matches!(element, DataType::Boolean | DataType::Null | DataType::Date32 | DataType::Utf8)
        || crate::signature::is_number(element);
    match is_joined {
        true => Ok(DataType::Utf8View),
        false => Err(invalid(format!(
            "expected elements that are texts, numbers, truth values or dates, found `{}`: transform them to texts first",
            type_name(element)
        ))),
    }
}

fn join(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, delimiter) = (Lists::of(call, 0)?, call.column::<Text>(1)?);
    let instead = (call.arguments.len() > 2).then(|| call.column::<Text>(2)).transpose()?;
    let elements = texts(&lists.values)?;
    let elements = elements.as_string::<i32>();
    collect(call, |row| {
        let (Some(range), Some(delimiter)) = (lists.get(row), delimiter.get(row)) else { return Ok(None) };
        let instead = match instead.as_ref().map(|instead| instead.get(row)) {
            Some(None) => return Ok(None),
            Some(text) => text,
            None => None,
        };
        let text = |at: usize| if elements.is_valid(at) { Some(elements.value(at)) } else { instead };
        let mut joined = String::new();
        for (i, part) in range.filter_map(text).enumerate() {
            if i > 0 {
                joined.push_str(delimiter);
            }
            joined.push_str(part);
        }
        Ok(Some(joined))
    })
}

/// The values as texts, numbers as Java writes them.
fn texts(values: &ArrayRef) -> Result<ArrayRef> {
    if !values.data_type().is_floating() {
        return Ok(cast(values, &DataType::Utf8)?);
    }
    let is_real = *values.data_type() == DataType::Float32;
    let shortest = cast(values, &DataType::Utf8)?;
    let (shortest, doubles) = (shortest.as_string::<i32>(), cast(values, &DataType::Float64)?);
    let doubles = doubles.as_primitive::<Float64Type>();
    let text = |at: usize| {
        doubles.is_valid(at).then(|| {
            let double =
                if is_real { shortest.value(at).parse().unwrap_or(doubles.value(at)) } else { doubles.value(at) };
            java_text(double)
        })
    };
    Ok(std::sync::Arc::new((0..values.len()).map(text).collect::<StringArray>()))
}

/// As Java's `Double.toString`: digits from 0.001 to below 10 million, a power of ten otherwise.
fn java_text(double: f64) -> String {
    let size = double.abs();
    if double.is_nan() {
        "NaN".to_owned()
    } else if double.is_infinite() {
        if double > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else if double == 0.0 || (1e-3..1e7).contains(&size) {
        format!("{double:?}")
    } else {
        let text = format!("{double:E}");
        match text.split_once('E') {
            Some((digits, power)) if !digits.contains('.') => format!("{digits}.0E{power}"),
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_are_written_as_java_does() {
        for (double, text) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e20, "1.0E20"),
            (1.25e-7, "1.25E-7"),
            (9_999_999.5, "9999999.5"),
            (1e7, "1.0E7"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(java_text(double), text);
        }
    }
}
