//! Decoded values as an Iceberg table holds them: named fields with ids, maps as maps.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use arrow::error::ArrowError;
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;

/// How deep types may be nested.
pub(super) const MAX_DEPTH: usize = 64;

/// Counts the fields of structs with and without an id.
#[derive(Debug, Default)]
pub(super) struct Ids {
    with: usize,
    /// The first field without.
    without: Option<String>,
}

impl Ids {
    /// A field of a struct, or a column.
    pub(super) fn field(&mut self, name: &str, ty: DataType, nullable: bool, id: Option<i32>) -> FieldRef {
        match id {
            Some(_) => self.with += 1,
            None if self.without.is_none() => self.without = Some(name.to_owned()),
            None => {}
        }
        named(name, ty, nullable, id)
    }

    /// Whether the file has ids.
    ///
    /// # Errors
    /// When some fields have an id and others have none: nobody could tell which of the table's they are.
    pub(super) fn check(self) -> Result<bool, ArrowError> {
        match self.without {
            Some(name) if self.with > 0 => {
                Err(ArrowError::SchemaError(format!("expected an Iceberg id of each field, found none of `{name}`")))
            }
            _ => Ok(self.with > 0),
        }
    }
}

/// A field that is found by its place in its parent, with its id if it has one.
pub(super) fn named(name: &str, ty: DataType, nullable: bool, id: Option<i32>) -> FieldRef {
    let field = Field::new(name, ty, nullable);
    Arc::new(match id {
        Some(id) => field.with_metadata(HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())])),
        None => field,
    })
}

pub(super) fn map_of(key: FieldRef, value: FieldRef) -> DataType {
    let entries = Field::new("key_value", DataType::Struct(Fields::from(vec![key, value])), false);
    DataType::Map(Arc::new(entries), false)
}

/// What no column of an Iceberg table holds.
pub(super) fn unknown(what: impl std::fmt::Display) -> ArrowError {
    ArrowError::NotYetImplemented(format!("expected types of an Iceberg table, found `{what}`"))
}

/// The rows with the columns of `schema`, which are found by their places.
///
/// # Errors
/// When a value has no equal in the type that the schema gives it.
pub(super) fn conform(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| shaped(column, field.data_type()));
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_, _>>()?, &options)
}

fn shaped(values: &ArrayRef, target: &DataType) -> Result<ArrayRef, ArrowError> {
    match (values.data_type(), target) {
        (own, target) if own == target => Ok(values.clone()),
        (DataType::Struct(_), DataType::Struct(fields)) => Ok(Arc::new(struct_of(values.as_struct(), fields)?)),
        (DataType::List(_), DataType::List(field)) => {
            let list = values.as_list::<i32>();
            let elements = shaped(list.values(), field.data_type())?;
            Ok(Arc::new(ListArray::try_new(field.clone(), list.offsets().clone(), elements, list.nulls().cloned())?))
        }
        // Avro's own maps have keys of text: Iceberg writes others as lists of pairs.
        (DataType::List(_), DataType::Map(entries, _)) => {
            let list = values.as_list::<i32>();
            let pairs = pairs_of(list.values(), entries)?;
            Ok(Arc::new(MapArray::try_new(
                entries.clone(),
                list.offsets().clone(),
                pairs,
                list.nulls().cloned(),
                false,
            )?))
        }
        (DataType::Map(..), DataType::Map(entries, _)) => {
            let map = values.as_map();
            let own: ArrayRef = Arc::new(map.entries().clone());
            let pairs = pairs_of(&own, entries)?;
            Ok(Arc::new(MapArray::try_new(entries.clone(), map.offsets().clone(), pairs, map.nulls().cloned(), false)?))
        }
        _ => cast_with_options(values, target, &CastOptions { safe: false, ..CastOptions::default() }),
    }
}

fn pairs_of(values: &ArrayRef, entries: &FieldRef) -> Result<StructArray, ArrowError> {
    match (values.as_struct_opt(), entries.data_type()) {
        (Some(pairs), DataType::Struct(fields)) => struct_of(pairs, fields),
        _ => Err(unknown(format!("entries of a map as {}", values.data_type()))),
    }
}

fn struct_of(values: &StructArray, fields: &Fields) -> Result<StructArray, ArrowError> {
    let columns = values.columns().iter().zip(fields).map(|(column, field)| shaped(column, field.data_type()));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, values.nulls().cloned(), values.len())
}
