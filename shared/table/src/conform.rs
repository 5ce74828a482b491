//! Fits record batches to a table's schema: columns by name, missing ones as nulls, casts that lose nothing.

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, SchemaRef};
use arrow::error::ArrowError;

use shared::{Error, Result};

/// How the columns of some rows become the columns of a table.
#[derive(Debug)]
pub struct Conform {
    target: SchemaRef,
    /// For each column of the table, its place among the rows' columns.
    sources: Vec<Option<usize>>,
}

impl Conform {
    /// # Errors
    /// `Invalid` for a column that the table lacks, a required column that the rows lack, or a type that can't become the
    /// table's without losing information.
    pub fn new(rows: &SchemaRef, target: &SchemaRef) -> Result<Self> {
        for field in rows.fields() {
            if target.field_with_name(field.name()).is_err() {
                let known: Vec<_> = target.fields().iter().map(|f| format!("`{}`", f.name())).collect();
                return Err(Error::invalid(format!(
                    "expected a column of the table ({}), found `{}`",
                    known.join(", "),
                    field.name()
                )));
            }
        }
        let sources = target.fields().iter().map(|field| source(rows, field)).collect::<Result<_>>()?;
        Ok(Self { target: target.clone(), sources })
    }

    /// The batch in the table's schema. Columns of the right type are passed on without a copy.
    ///
    /// # Errors
    /// `Invalid`, naming the column, for a value that does not fit or is missing where one is required.
    pub fn apply(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut columns = Vec::with_capacity(self.sources.len());
        for (field, source) in self.target.fields().iter().zip(&self.sources) {
            let column = match source {
                Some(i) => convert(batch.column(*i), field)?,
                None => new_null_array(field.data_type(), batch.num_rows()),
            };
            if !field.is_nullable() && column.null_count() > 0 {
                return Err(Error::invalid(format!(
                    "column `{}`: expected a value in every row, found {} without",
                    field.name(),
                    column.null_count()
                )));
            }
            columns.push(column);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.target.clone(), columns, &options)?)
    }
}

fn source(rows: &SchemaRef, field: &Field) -> Result<Option<usize>> {
    let Some((i, found)) = rows.fields().iter().enumerate().find(|(_, f)| f.name() == field.name()) else {
        if field.is_nullable() {
            return Ok(None);
        }
        return Err(Error::invalid(format!("expected the required column `{}`, found none", field.name())));
    };
    if fits(found.data_type(), field.data_type()) {
        return Ok(Some(i));
    }
    Err(unfit(field, found.data_type()))
}

/// The values in the type of `field`.
///
/// # Errors
/// `Invalid`, naming the field, for a type that never fits or a value that would be lost.
pub fn assigned(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    match fits(column.data_type(), field.data_type()) {
        true => convert(column, field),
        false => Err(unfit(field, column.data_type())),
    }
}

fn unfit(field: &Field, found: &DataType) -> Error {
    Error::invalid(format!(
        "column `{}`: expected a type that becomes `{}` without loss, found `{found}`",
        field.name(),
        field.data_type(),
    ))
}

/// Whether values may be cast at all; whether each one survives is checked with the values.
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    match (from, to) {
        (D::Null, _) => true,
        (D::Dictionary(_, value), to) => fits(value, to),
        (D::Utf8 | D::LargeUtf8 | D::Utf8View, D::Utf8) => true,
        (D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_), D::Binary | D::FixedSizeBinary(_)) => true,
        (D::Date32 | D::Date64 | D::Timestamp(_, None), D::Date32 | D::Timestamp(_, None)) => true,
        (D::Timestamp(_, Some(_)), D::Timestamp(_, Some(_))) => true,
        (D::Time32(_) | D::Time64(_), D::Time64(_)) => true,
        (D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _), D::List(t)) => fits(f.data_type(), t.data_type()),
        (D::Map(f, _), D::Map(t, _)) => match (f.data_type(), t.data_type()) {
            (D::Struct(f), D::Struct(t)) => f.iter().zip(t).all(|(f, t)| fits(f.data_type(), t.data_type())),
            _ => false,
        },
        (D::Struct(f), D::Struct(t)) => {
            f.iter().all(|f| t.iter().any(|t| t.name() == f.name() && fits(f.data_type(), t.data_type())))
        }
        (from, to) if from.is_numeric() => to.is_numeric(),
        (from, to) => from == to,
    }
}

fn convert(column: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    let (from, to) = (column.data_type(), field.data_type());
    if from == to {
        return Ok(column.clone());
    }
    let refused = |error: Error| error.context(format!("column `{}`", field.name()));
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast =
        |array: &ArrayRef, to: &DataType| cast_with_options(array, to, &options).map_err(|e| refused(Error::from(e)));
    let converted = cast(column, to)?;
    if !always_survives(from, to) {
        let back = cast(&converted, from)?;
        let lost = lost(&back, column).map_err(|e| refused(Error::from(e)))?;
        if lost > 0 {
            return Err(refused(Error::invalid(format!(
                "expected values that `{to}` holds without loss, found {lost} of `{from}` that it does not"
            ))));
        }
    }
    Ok(converted)
}

/// How many values are not what they were.
fn lost(back: &ArrayRef, values: &ArrayRef) -> Result<usize, ArrowError> {
    if !values.data_type().is_nested() {
        return Ok(distinct(back, values)?.true_count());
    }
    Ok((0..values.len()).filter(|row| back.slice(*row, 1) != values.slice(*row, 1)).count())
}

/// Whether the cast itself fails for each value that would change. Other casts are checked by casting back.
fn always_survives(from: &DataType, to: &DataType) -> bool {
    use DataType as D;
    match (from, to) {
        (D::Null, _) => true,
        (from, to) if from == to => true,
        (D::Dictionary(_, value), to) => always_survives(value, to),
        (D::List(f) | D::LargeList(f) | D::FixedSizeList(f, _), D::List(t)) | (D::Map(f, _), D::Map(t, _)) => {
            always_survives(f.data_type(), t.data_type())
        }
        (D::Struct(from), D::Struct(to)) => {
            let of = |name: &str| to.iter().find(|to| to.name() == name);
            from.iter().all(|f| of(f.name()).is_some_and(|t| always_survives(f.data_type(), t.data_type())))
        }
        (D::Float16 | D::Float32, D::Float32 | D::Float64) => true,
        (from, to) if from.is_integer() => match to {
            D::Float64 => matches!(from, D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16 | D::UInt32),
            D::Float32 => matches!(from, D::Int8 | D::Int16 | D::UInt8 | D::UInt16),
            _ => true,
        },
        (from, _) if from.is_numeric() => false,
        // Finer units reach less far: nanoseconds from 1677 to 2262.
        (D::Date32 | D::Date64 | D::Timestamp(_, _) | D::Time32(_) | D::Time64(_), _) => false,
        (from, _) if from.is_nested() => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Date32Array, Float64Array, Int64Array, ListArray, TimestampMillisecondArray};
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::TimeUnit;

    use super::*;

    fn list(values: ArrayRef) -> ArrayRef {
        let field = Arc::new(Field::new("item", values.data_type().clone(), true));
        Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([1, values.len() - 1]), values, None))
    }

    fn list_of(ty: DataType) -> DataType {
        DataType::List(Arc::new(Field::new("item", ty, true)))
    }

    #[test]
    fn a_value_that_a_column_can_not_hold_is_refused_also_inside_others() {
        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
        let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
        let doubles = |values: &[f64]| Arc::new(Float64Array::from(values.to_vec())) as ArrayRef;
        let longs = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        let days = |values: &[i32]| Arc::new(Date32Array::from(values.to_vec())) as ArrayRef;
        for (values, to, fits) in [
            (longs(&[1, 2]), DataType::Int32, true),
            (longs(&[1, 1 << 40]), DataType::Int32, false),
            (list(longs(&[1, 1 << 40])), list_of(DataType::Int32), false),
            (list(longs(&[1, 2, 3])), list_of(DataType::Int32), true),
            (list(doubles(&[1.0, f64::NAN])), list_of(DataType::Float64), true),
            (list(doubles(&[1.0, 2.0])), list_of(DataType::Int32), true),
            (list(doubles(&[1.0, 2.5])), list_of(DataType::Int32), false),
            (doubles(&[2.0, 0.1]), DataType::Float32, false),
            (doubles(&[12.25]), DataType::Decimal128(4, 2), true),
            (doubles(&[1e300]), DataType::Decimal128(38, 2), false),
            (days(&[0, 2_932_896]), micros.clone(), true),
            (days(&[0, i32::MAX]), micros.clone(), false),
            (days(&[2_932_896]), nanos.clone(), false),
            (Arc::new(TimestampMillisecondArray::from(vec![i64::MAX])), micros.clone(), false),
        ] {
            let field = Field::new("c", to, true);
            let assigned = assigned(&values, &field);
            assert_eq!(assigned.is_ok(), fits, "{values:?} {field}: {assigned:?}");
            if let Err(error) = assigned {
                assert_eq!(error.kind(), shared::ErrorKind::Invalid, "{error}");
                assert!(error.to_string().contains("`c`"), "{error}");
            }
        }
    }
}
