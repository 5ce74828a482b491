//! Growing columns that can be cut back to a number of rows, which Arrow's own builders can't: a record that turns out bad in
//! its last field is taken back from all columns.

use std::sync::Arc;

use arrow::array::builder::{BooleanBufferBuilder, NullBufferBuilder};
use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, ListArray, MapArray, PrimitiveArray, StringArray,
    StructArray,
};
use arrow::buffer::{Buffer as Bytes, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use super::value::FieldIndex;
use shared::model::ColumnType;
use shared::{Error, Result};

/// Values of one column.
#[derive(Debug)]
pub(crate) struct Buffer {
    pub(super) ty: ColumnType,
    pub(super) nulls: NullBufferBuilder,
    pub(super) values: Values,
    /// Whether values come from files: see [`Buffer::of_files`].
    pub(super) lenient: bool,
}

/// The values themselves; a null takes a place too.
#[derive(Debug)]
pub(super) enum Values {
    Boolean(BooleanBufferBuilder),
    TinyInt(Vec<i8>),
    SmallInt(Vec<i16>),
    Int(Vec<i32>),
    BigInt(Vec<i64>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Decimal(Vec<i128>),
    /// Strings and binaries.
    Bytes(Offsets, Vec<u8>),
    /// Days since 1970-01-01.
    Date(Vec<i32>),
    /// Microseconds since the epoch, with and without a zone.
    Timestamp(Vec<i64>),
    /// Microseconds since midnight.
    Time(Vec<i64>),
    Array(Offsets, Box<Buffer>),
    Map(Offsets, Box<Buffer>, Box<Buffer>),
    Struct(Vec<Buffer>, Arc<FieldIndex>),
}

/// Ends of variable-sized values: one more than there are values, the first is 0.
#[derive(Debug)]
pub(super) struct Offsets(Vec<i32>);

impl Offsets {
    fn new() -> Self {
        Self(vec![0])
    }

    /// Ends a value at `end`. Batches are bounded to 2 GiB of text, and no text becomes longer, so `end` fits.
    pub(super) fn push(&mut self, end: usize) {
        self.0.push(i32::try_from(end).unwrap_or(i32::MAX));
    }

    pub(super) fn last(&self) -> usize {
        self.0.last().map_or(0, |end| usize::try_from(*end).unwrap_or(0))
    }

    fn truncate(&mut self, values: usize) -> usize {
        self.0.truncate(values + 1);
        self.last()
    }

    fn finish(self) -> OffsetBuffer<i32> {
        OffsetBuffer::new(ScalarBuffer::from(self.0))
    }
}

impl Buffer {
    /// A column of files, where a text column takes any JSON value as its JSON, and a number or boolean may stand in quotes.
    pub(crate) fn of_files(ty: &ColumnType) -> Self {
        let mut buffer = Self::new(ty);
        buffer.make_lenient();
        buffer
    }

    fn make_lenient(&mut self) {
        self.lenient = true;
        match &mut self.values {
            Values::Array(_, items) => items.make_lenient(),
            Values::Map(_, keys, values) => {
                keys.make_lenient();
                values.make_lenient();
            }
            Values::Struct(fields, index) => {
                *index = Arc::new(FieldIndex::of_files(index.names()));
                fields.iter_mut().for_each(Self::make_lenient);
            }
            _ => {}
        }
    }

    pub(super) fn new(ty: &ColumnType) -> Self {
        let values = match ty {
            ColumnType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            ColumnType::TinyInt => Values::TinyInt(Vec::new()),
            ColumnType::SmallInt => Values::SmallInt(Vec::new()),
            ColumnType::Int => Values::Int(Vec::new()),
            ColumnType::BigInt => Values::BigInt(Vec::new()),
            ColumnType::Float => Values::Float(Vec::new()),
            ColumnType::Double => Values::Double(Vec::new()),
            ColumnType::Decimal(..) => Values::Decimal(Vec::new()),
            ColumnType::String | ColumnType::Binary | ColumnType::Uuid => Values::Bytes(Offsets::new(), Vec::new()),
            ColumnType::Date => Values::Date(Vec::new()),
            ColumnType::Timestamp | ColumnType::TimestampTz | ColumnType::TimestampNs | ColumnType::TimestampTzNs => {
                Values::Timestamp(Vec::new())
            }
            ColumnType::Time => Values::Time(Vec::new()),
            ColumnType::Array(item) => Values::Array(Offsets::new(), Box::new(Self::new(item))),
            ColumnType::Map(key, value) => {
                Values::Map(Offsets::new(), Box::new(Self::new(key)), Box::new(Self::new(value)))
            }
            ColumnType::Struct(fields) => {
                let index = FieldIndex::unchecked(fields.iter().map(|(name, _)| name.as_str()));
                Values::Struct(fields.iter().map(|(_, ty)| Self::new(ty)).collect(), Arc::new(index))
            }
        };
        Self { ty: ty.clone(), nulls: NullBufferBuilder::new(0), values, lenient: false }
    }

    /// Rows so far.
    pub(crate) fn len(&self) -> usize {
        self.nulls.len()
    }

    pub(super) fn is_null(&self, row: usize) -> bool {
        !self.nulls.is_valid(row)
    }

    /// Says that a value was added to `values`.
    pub(super) fn mark_valid(&mut self) {
        self.nulls.append_non_null();
    }

    pub(crate) fn push_null(&mut self) {
        match &mut self.values {
            Values::Boolean(v) => v.append(false),
            Values::TinyInt(v) => v.push(0),
            Values::SmallInt(v) => v.push(0),
            Values::Int(v) | Values::Date(v) => v.push(0),
            Values::BigInt(v) | Values::Timestamp(v) | Values::Time(v) => v.push(0),
            Values::Float(v) => v.push(0.0),
            Values::Double(v) => v.push(0.0),
            Values::Decimal(v) => v.push(0),
            Values::Bytes(ends, _) | Values::Array(ends, _) | Values::Map(ends, _, _) => ends.push(ends.last()),
            Values::Struct(fields, _) => fields.iter_mut().for_each(Self::push_null),
        }
        self.nulls.append_null();
    }

    /// Takes back everything after the first `rows` rows, half-added rows too.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.nulls.truncate(rows);
        match &mut self.values {
            Values::Boolean(v) => v.truncate(rows),
            Values::TinyInt(v) => v.truncate(rows),
            Values::SmallInt(v) => v.truncate(rows),
            Values::Int(v) | Values::Date(v) => v.truncate(rows),
            Values::BigInt(v) | Values::Timestamp(v) | Values::Time(v) => v.truncate(rows),
            Values::Float(v) => v.truncate(rows),
            Values::Double(v) => v.truncate(rows),
            Values::Decimal(v) => v.truncate(rows),
            Values::Bytes(ends, data) => data.truncate(ends.truncate(rows)),
            Values::Array(ends, items) => items.truncate(ends.truncate(rows)),
            Values::Map(ends, keys, values) => {
                let entries = ends.truncate(rows);
                keys.truncate(entries);
                values.truncate(entries);
            }
            Values::Struct(fields, _) => fields.iter_mut().for_each(|f| f.truncate(rows)),
        }
    }

    /// The Arrow array of type `to`, which is `self.ty` in Arrow's words.
    pub(crate) fn finish(self, to: &DataType) -> Result<ArrayRef> {
        let nulls = self.nulls.build();
        match self.values {
            Values::Boolean(v) => Ok(Arc::new(BooleanArray::new(v.build(), nulls))),
            Values::TinyInt(v) => Ok(primitive::<Int8Type>(v, nulls, to)),
            Values::SmallInt(v) => Ok(primitive::<Int16Type>(v, nulls, to)),
            Values::Int(v) => Ok(primitive::<Int32Type>(v, nulls, to)),
            Values::BigInt(v) => Ok(primitive::<Int64Type>(v, nulls, to)),
            Values::Float(v) => Ok(primitive::<Float32Type>(v, nulls, to)),
            Values::Double(v) => Ok(primitive::<Float64Type>(v, nulls, to)),
            Values::Decimal(v) => Ok(primitive::<Decimal128Type>(v, nulls, to)),
            Values::Date(v) => Ok(primitive::<Date32Type>(v, nulls, to)),
            Values::Timestamp(v) => Ok(primitive::<TimestampMicrosecondType>(v, nulls, to)),
            Values::Time(v) => Ok(primitive::<Time64MicrosecondType>(v, nulls, to)),
            Values::Bytes(ends, data) => bytes(ends, data, nulls, to),
            Values::Array(ends, items) => list(ends, *items, nulls, to),
            Values::Map(ends, keys, values) => map(ends, *keys, *values, nulls, to),
            Values::Struct(fields, _) => structs(fields, nulls, to),
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>, to: &DataType) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls).with_data_type(to.clone()))
}

fn bytes(ends: Offsets, data: Vec<u8>, nulls: Option<NullBuffer>, to: &DataType) -> Result<ArrayRef> {
    let data = Bytes::from_vec(data);
    Ok(match to {
        DataType::Binary => Arc::new(BinaryArray::try_new(ends.finish(), data, nulls).map_err(bug)?),
        _ => Arc::new(StringArray::try_new(ends.finish(), data, nulls).map_err(bug)?),
    })
}

fn list(ends: Offsets, items: Buffer, nulls: Option<NullBuffer>, to: &DataType) -> Result<ArrayRef> {
    let DataType::List(field) = to else { return Err(mismatch(to)) };
    let items = items.finish(field.data_type())?;
    Ok(Arc::new(ListArray::try_new(field.clone(), ends.finish(), items, nulls).map_err(bug)?))
}

fn map(ends: Offsets, keys: Buffer, values: Buffer, nulls: Option<NullBuffer>, to: &DataType) -> Result<ArrayRef> {
    let DataType::Map(entries, ordered) = to else { return Err(mismatch(to)) };
    let DataType::Struct(fields) = entries.data_type() else { return Err(mismatch(to)) };
    let arrays = vec![keys.finish(fields[0].data_type())?, values.finish(fields[1].data_type())?];
    let pairs = StructArray::try_new(fields.clone(), arrays, None).map_err(bug)?;
    Ok(Arc::new(MapArray::try_new(entries.clone(), ends.finish(), pairs, nulls, *ordered).map_err(bug)?))
}

fn structs(buffers: Vec<Buffer>, nulls: Option<NullBuffer>, to: &DataType) -> Result<ArrayRef> {
    let DataType::Struct(fields) = to else { return Err(mismatch(to)) };
    let arrays = buffers.into_iter().zip(fields).map(|(b, f)| b.finish(f.data_type())).collect::<Result<_>>()?;
    Ok(Arc::new(StructArray::try_new(fields.clone(), arrays, nulls).map_err(bug)?))
}

fn bug(error: ArrowError) -> Error {
    Error::bug("decoded values make no column").with_source(error)
}

fn mismatch(to: &DataType) -> Error {
    Error::bug(format!("decoded values are no `{to}`"))
}

/// Refuses types that records have no form for: map keys other than text, numbers and dates, structs with a field twice,
/// nanoseconds, uuids.
pub(super) fn check_type(ty: &ColumnType) -> Result<()> {
    match ty {
        ColumnType::Array(item) => check_type(item),
        ColumnType::Map(key, value) => match **key {
            ColumnType::String | ColumnType::Int | ColumnType::BigInt | ColumnType::Date => check_type(value),
            ref other => {
                Err(Error::invalid(format!("expected map keys of string, int, bigint or date, found `{other}`")))
            }
        },
        ColumnType::Struct(fields) => {
            FieldIndex::new(fields.iter().map(|(name, _)| name.as_str()))?;
            fields.iter().try_for_each(|(_, ty)| check_type(ty))
        }
        ColumnType::TimestampNs | ColumnType::TimestampTzNs | ColumnType::Uuid => {
            Err(Error::invalid(format!("expected a type that records can have, found `{ty}`")))
        }
        _ => Ok(()),
    }
}
