//! Partitions of the current snapshot: their values, counts and statistics.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StructArray, new_null_array};
use arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::ScalarValue;
use iceberg::spec::{DataContentType, DataFile, TableMetadata, Transform, Type};

use super::{Columns, current_entries, longs};
use crate::prune;
use shared::Result;
use table::live::LiveFile;
use table::partitioning::partition_type;
use table::{Table, schema};

/// A partition field of any of the table's specs.
pub(super) struct PartitionKey {
    id: i32,
    name: String,
    ty: Type,
}

/// The partition fields of all specs, each once, as the specification unites them.
pub(super) fn partition_fields(metadata: &TableMetadata) -> Result<Vec<PartitionKey>> {
    let mut specs: Vec<_> = metadata.partition_specs_iter().collect();
    specs.sort_by_key(|spec| spec.spec_id());
    let mut keys: Vec<PartitionKey> = Vec::new();
    for spec in specs {
        let types = partition_type(metadata, spec)?;
        for (field, typed) in spec.fields().iter().zip(types.fields()) {
            if field.transform != Transform::Void && !keys.iter().any(|key| key.id == field.field_id) {
                keys.push(PartitionKey {
                    id: field.field_id,
                    name: field.name.clone(),
                    ty: typed.field_type.as_ref().clone(),
                });
            }
        }
    }
    Ok(keys)
}

pub(super) fn arrow_fields(keys: &[PartitionKey]) -> Result<Fields> {
    keys.iter().map(|key| Ok(Field::new(&key.name, schema::arrow_type(&key.ty)?, true))).collect()
}

/// A file's partition, in the order of the keys.
pub(super) fn partition(keys: &[PartitionKey], file: &LiveFile) -> Vec<Option<ScalarValue>> {
    let spec = file.manifest().metadata().partition_spec();
    keys.iter()
        .map(|key| {
            let place = spec.fields().iter().position(|field| field.field_id == key.id)?;
            let literal = file.data().partition().fields().get(place)?.as_ref()?.as_primitive_literal()?;
            match &key.ty {
                Type::Primitive(ty) => prune::value(ty, &literal),
                _ => None,
            }
        })
        .collect()
}

pub(super) fn partition_column(
    keys: &[PartitionKey],
    rows: impl Iterator<Item = Vec<Option<ScalarValue>>>,
) -> Result<ArrayRef> {
    let rows: Vec<_> = rows.collect();
    let fields = arrow_fields(keys)?;
    let arrays =
        fields.iter().enumerate().map(|(i, field)| scalars(field.data_type(), rows.iter().map(|row| row[i].clone())));
    let arrays = arrays.collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(StructArray::try_new_with_length(fields, arrays, None, rows.len())?))
}

fn scalars(ty: &DataType, values: impl Iterator<Item = Option<ScalarValue>>) -> Result<ArrayRef> {
    let null = ScalarValue::try_from(ty)?;
    let values: Vec<_> = values
        .map(|value| match value {
            Some(value) if value.data_type() == *ty => Ok(value),
            Some(value) => value.cast_to(ty),
            None => Ok(null.clone()),
        })
        .collect::<datafusion::common::Result<_>>()?;
    if values.is_empty() {
        return Ok(new_null_array(ty, 0));
    }
    Ok(ScalarValue::iter_to_array(values)?)
}

/// What is known of a column in the files of one partition.
#[derive(Clone)]
struct Known {
    least: Option<ScalarValue>,
    greatest: Option<ScalarValue>,
    bounded: bool,
    nulls: Option<u64>,
    nans: Option<u64>,
}

impl Known {
    fn add(&mut self, file: &DataFile, id: i32, ty: &DataType) {
        let nulls = file.null_value_counts().get(&id);
        self.nulls = self.nulls.zip(nulls).map(|(sum, n)| sum + n);
        self.nans = self.nans.zip(file.nan_value_counts().get(&id)).map(|(sum, n)| sum + n);
        if nulls == Some(&file.record_count()) {
            return;
        }
        let Some((lower, upper)) = prune::bounds(file, id, ty) else {
            self.bounded = false;
            return;
        };
        if self.least.as_ref().is_none_or(|least| lower < *least) {
            self.least = Some(lower);
        }
        if self.greatest.as_ref().is_none_or(|greatest| upper > *greatest) {
            self.greatest = Some(upper);
        }
    }
}

struct Partition {
    values: Vec<Option<ScalarValue>>,
    rows: u64,
    files: u64,
    bytes: u64,
    columns: Vec<Known>,
}

pub(super) async fn partitions(table: &Table) -> Result<Columns> {
    let keys = partition_fields(table.metadata())?;
    let schema = table.metadata().current_schema();
    let identity: HashSet<i32> = table
        .metadata()
        .partition_specs_iter()
        .flat_map(|spec| spec.fields())
        .filter(|field| field.transform == Transform::Identity)
        .map(|field| field.source_id)
        .collect();
    let columns: Vec<_> = schema
        .as_struct()
        .fields()
        .iter()
        .zip(table.arrow_schema().fields())
        .filter(|(field, _)| field.field_type.is_primitive() && !identity.contains(&field.id))
        .map(|(field, arrow)| (field.id, arrow.name().clone(), arrow.data_type().clone()))
        .collect();
    let unknown = Known { least: None, greatest: None, bounded: true, nulls: Some(0), nans: Some(0) };
    let mut places: HashMap<Vec<Option<ScalarValue>>, usize> = HashMap::new();
    let mut all: Vec<Partition> = Vec::new();
    for file in current_entries(table).await?.iter().filter(|f| f.data().content_type() == DataContentType::Data) {
        let values = partition(&keys, file);
        let place = *places.entry(values.clone()).or_insert(all.len());
        if place == all.len() {
            all.push(Partition { values, rows: 0, files: 0, bytes: 0, columns: vec![unknown.clone(); columns.len()] });
        }
        let found = &mut all[place];
        found.files += 1;
        found.rows += file.data().record_count();
        found.bytes += file.data().file_size_in_bytes();
        for (known, (id, _, ty)) in found.columns.iter_mut().zip(&columns) {
            known.add(file.data(), *id, ty);
        }
    }
    let mut answer = Columns::new(all.len());
    if !keys.is_empty() {
        let column = partition_column(&keys, all.iter().map(|p| p.values.clone()))?;
        answer = answer.ready("partition", true, column);
    }
    answer = answer
        .ready("record_count", false, longs(all.iter().map(|p| Some(p.rows))))
        .ready("file_count", false, longs(all.iter().map(|p| Some(p.files))))
        .ready("total_size", false, longs(all.iter().map(|p| Some(p.bytes))));
    if columns.is_empty() {
        return Ok(answer);
    }
    let (mut fields, mut arrays): (Vec<Field>, Vec<ArrayRef>) = (Vec::new(), Vec::new());
    for (i, (_, name, ty)) in columns.iter().enumerate() {
        let known = || all.iter().map(|p| &p.columns[i]);
        let bound = |value: fn(&Known) -> &Option<ScalarValue>| {
            scalars(ty, known().map(|k| value(k).clone().filter(|_| k.bounded)))
        };
        let parts: Vec<ArrayRef> = vec![
            bound(|k| &k.least)?,
            bound(|k| &k.greatest)?,
            longs(known().map(|k| k.nulls)),
            longs(known().map(|k| k.nans.filter(|_| ty.is_floating()))),
        ];
        let names = ["min", "max", "null_count", "nan_count"];
        let inner: Fields =
            names.iter().zip(&parts).map(|(name, part)| Field::new(*name, part.data_type().clone(), true)).collect();
        let array = StructArray::try_new_with_length(inner, parts, None, all.len())?;
        fields.push(Field::new(name, array.data_type().clone(), true));
        arrays.push(Arc::new(array));
    }
    let data = StructArray::try_new_with_length(fields.into(), arrays, None, all.len())?;
    Ok(answer.ready("data", true, Arc::new(data)))
}
