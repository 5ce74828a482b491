//! Z-order: one sort key of several columns, whose bits take turns, so that rows near each other in the order are near in every
//! column. Values are first spread evenly between the least and the greatest of the files, 32 bits each: otherwise a column of
//! great numbers alone would say where a row goes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use datafusion::common::Column;
use datafusion::logical_expr::{ColumnarValue, Expr, Volatility, create_udf};
use iceberg::spec::{DataFile, Datum, NestedFieldRef, PrimitiveLiteral, PrimitiveType, Type};

use shared::Result;
use table::live::LiveFile;
use table::schema::arrow_type;

/// The sort key of the rows of `files`.
///
/// # Errors
/// `Invalid` for a column of a type that no column type stands for.
pub(super) fn key(columns: &[NestedFieldRef], files: &[LiveFile]) -> Result<Expr> {
    let inputs = columns.iter().map(|column| arrow_type(&column.field_type)).collect::<Result<Vec<_>>>()?;
    let scales: Vec<_> = columns.iter().map(|column| Scale::of(column, files.iter().map(LiveFile::data))).collect();
    let apply = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let ranks = arrays.iter().zip(&scales).map(|(array, scale)| scale.ranks(array));
        let ranks = ranks.collect::<arrow::error::Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(interleaved(&ranks)))
    };
    let function = create_udf("z_order", inputs, DataType::Binary, Volatility::Immutable, Arc::new(apply));
    Ok(function.call(columns.iter().map(|column| Expr::Column(Column::from_name(&column.name))).collect()))
}

/// Where the values of a column lie.
struct Scale {
    /// Bytes that all values of a text column begin with.
    prefix: usize,
    least: f64,
    greatest: f64,
}

impl Scale {
    fn of<'a>(column: &NestedFieldRef, files: impl Iterator<Item = &'a DataFile>) -> Self {
        let mut texts: Option<(Vec<u8>, Vec<u8>)> = None;
        let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
        for file in files {
            let bounds = (file.lower_bounds().get(&column.id), file.upper_bounds().get(&column.id));
            let (Some(lower), Some(upper)) = bounds else { continue };
            match (text(lower), text(upper)) {
                (Some(lower), Some(upper)) => {
                    texts = Some(match texts {
                        Some((least, greatest)) => (least.min(lower), greatest.max(upper)),
                        None => (lower, upper),
                    });
                }
                _ => {
                    least = least.min(number(lower, &column.field_type));
                    greatest = greatest.max(number(upper, &column.field_type));
                }
            }
        }
        let mut prefix = 0;
        if let Some((lower, upper)) = texts {
            prefix = lower.iter().zip(&upper).take_while(|(a, b)| a == b).count();
            (least, greatest) = (leading(&lower, prefix), leading(&upper, prefix));
        }
        Self { prefix, least, greatest }
    }

    /// The place of each value between the least and the greatest; null comes first.
    fn ranks(&self, values: &ArrayRef) -> arrow::error::Result<Vec<u32>> {
        let numbers: Vec<Option<f64>> = match values.data_type() {
            DataType::Utf8 => {
                values.as_string::<i32>().iter().map(|v| v.map(|v| leading(v.as_bytes(), self.prefix))).collect()
            }
            DataType::Binary => values.as_binary::<i32>().iter().map(|v| v.map(|v| leading(v, self.prefix))).collect(),
            DataType::FixedSizeBinary(_) => {
                values.as_fixed_size_binary().iter().map(|v| v.map(|v| leading(v, self.prefix))).collect()
            }
            DataType::Date32 | DataType::Timestamp(..) | DataType::Time64(_) => {
                let whole =
                    if matches!(values.data_type(), DataType::Date32) { DataType::Int32 } else { DataType::Int64 };
                let numbers = cast(&cast(values, &whole)?, &DataType::Float64)?;
                numbers.as_primitive::<Float64Type>().iter().collect()
            }
            _ => cast(values, &DataType::Float64)?.as_primitive::<Float64Type>().iter().collect(),
        };
        Ok(numbers.into_iter().map(|number| number.map_or(0, |number| self.rank(number))).collect())
    }

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the share lies between 0 and 1")]
    fn rank(&self, number: f64) -> u32 {
        let width = self.greatest - self.least;
        if width > 0.0 && width.is_finite() {
            let share = ((number - self.least) / width).clamp(0.0, 1.0);
            let rank = share * f64::from(u32::MAX - 1);
            return if rank.is_nan() { u32::MAX } else { rank as u32 + 1 };
        }
        // Nothing is known of the values: the bits of a float keep its order once the sign is turned.
        let bits = number.to_bits();
        let ordered = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
        (ordered >> 32) as u32
    }
}

/// A text as bytes; `None` for other values.
fn text(datum: &Datum) -> Option<Vec<u8>> {
    match datum.literal() {
        PrimitiveLiteral::String(text) => Some(text.as_bytes().to_vec()),
        PrimitiveLiteral::Binary(bytes) => Some(bytes.clone()),
        PrimitiveLiteral::UInt128(uuid) => Some(uuid.to_be_bytes().to_vec()),
        _ => None,
    }
}

#[allow(clippy::cast_precision_loss, reason = "near is near enough")]
fn number(datum: &Datum, ty: &Type) -> f64 {
    match datum.literal() {
        PrimitiveLiteral::Boolean(value) => f64::from(u8::from(*value)),
        PrimitiveLiteral::Int(value) => f64::from(*value),
        PrimitiveLiteral::Long(value) => *value as f64,
        PrimitiveLiteral::Float(value) => f64::from(value.0),
        PrimitiveLiteral::Double(value) => value.0,
        PrimitiveLiteral::Int128(value) => match ty {
            Type::Primitive(PrimitiveType::Decimal { scale, .. }) => {
                *value as f64 / 10_f64.powi(i32::try_from(*scale).unwrap_or(0))
            }
            _ => *value as f64,
        },
        _ => f64::NAN,
    }
}

/// The 8 bytes after the first `prefix` ones, as a number.
#[allow(clippy::cast_precision_loss, reason = "near is near enough")]
fn leading(bytes: &[u8], prefix: usize) -> f64 {
    let mut leading = [0; 8];
    for (to, from) in leading.iter_mut().zip(bytes.iter().skip(prefix)) {
        *to = *from;
    }
    u64::from_be_bytes(leading) as f64
}

/// The bits of the columns' ranks by turns, the highest first.
fn interleaved(ranks: &[Vec<u32>]) -> ArrayRef {
    let rows = ranks.first().map_or(0, Vec::len);
    let mut keys = BinaryBuilder::with_capacity(rows, rows * ranks.len() * 4);
    let mut key = vec![0_u8; ranks.len() * 4];
    for row in 0..rows {
        key.fill(0);
        let bits = (0..32).rev().flat_map(|bit| ranks.iter().map(move |column| column[row] >> bit & 1));
        for (place, bit) in bits.enumerate() {
            key[place / 8] |= u8::from(bit == 1) << (7 - place % 8);
        }
        keys.append_value(&key);
    }
    Arc::new(keys.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_all_columns_take_turns_from_the_highest_on() {
        let keys = interleaved(&[vec![0b10 << 30, 0], vec![0b01 << 30, 1]]);
        let keys = keys.as_binary::<i32>();
        assert_eq!(keys.value(0), [0b1001_0000, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(keys.value(1), [0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn values_are_spread_over_all_bits_in_their_order() {
        let scale = Scale { prefix: 0, least: -10.0, greatest: 10.0 };
        let ranks: Vec<_> = [f64::NEG_INFINITY, -10.0, -9.0, 0.0, 10.0].map(|v| scale.rank(v)).to_vec();
        assert_eq!((ranks[0], ranks[1], ranks[4]), (1, 1, u32::MAX));
        assert!(ranks.is_sorted() && ranks[3].abs_diff(u32::MAX / 2) < 4, "{ranks:?}");
        let unknown = Scale { prefix: 0, least: f64::INFINITY, greatest: f64::NEG_INFINITY };
        let ranks: Vec<_> = [-1e9, -1.0, 0.0, 1.0, 1e9].map(|v| unknown.rank(v)).to_vec();
        assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]), "{ranks:?}");
    }

    #[test]
    fn texts_are_told_apart_behind_what_they_share() {
        assert!(leading(b"customer-a", 9) < leading(b"customer-b", 9));
        assert_eq!(leading(b"cust", 9).to_bits(), 0.0_f64.to_bits());
    }
}
