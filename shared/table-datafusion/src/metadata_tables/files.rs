//! The files of the current snapshot, and the manifests that list them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayBuilder, ArrayRef, BinaryArray, BooleanArray, Int32Builder, Int64Builder, ListArray, ListBuilder,
    MapBuilder, StringArray, StringBuilder, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field};
use iceberg::spec::{DataFile, Datum, ManifestFile, StructType, TableMetadata, Type};

use super::partitions::{arrow_fields, partition, partition_column, partition_fields};
use super::{Columns, current_entries, ints, longs, names, texts};
use crate::prune::shown;
use shared::Result;
use table::Table;
use table::live::LiveFile;
use table::partitioning::partition_type;

pub(super) async fn manifests(table: &Table) -> Result<Columns> {
    let list = match table.metadata().current_snapshot() {
        Some(snapshot) => table.io().manifest_list(snapshot, table.metadata().format_version()).await?,
        None => Arc::default(),
    };
    let each = || list.iter();
    Ok(Columns::new(list.len())
        .ready("path", false, texts(each().map(|m| Some(m.manifest_path.clone()))))
        .ready("length", false, longs(each().map(|m| Some(m.manifest_length))))
        .ready("partition_spec_id", false, ints(each().map(|m| Some(m.partition_spec_id))))
        .ready("added_snapshot_id", false, longs(each().map(|m| Some(m.added_snapshot_id))))
        .ready("added_data_files_count", true, ints(each().map(|m| m.added_files_count)))
        .ready("added_rows_count", true, longs(each().map(|m| m.added_rows_count)))
        .ready("existing_data_files_count", true, ints(each().map(|m| m.existing_files_count)))
        .ready("existing_rows_count", true, longs(each().map(|m| m.existing_rows_count)))
        .ready("deleted_data_files_count", true, ints(each().map(|m| m.deleted_files_count)))
        .ready("deleted_rows_count", true, longs(each().map(|m| m.deleted_rows_count)))
        .ready("partition_summaries", true, summaries(table.metadata(), &list)?)
        .ready("content", false, ints(each().map(|m| Some(m.content as i32)))))
}

/// For each manifest, what it says of the partition fields of its spec.
fn summaries(metadata: &TableMetadata, list: &[ManifestFile]) -> Result<ArrayRef> {
    let (mut contains_null, mut contains_nan, mut lower, mut upper) = (vec![], vec![], vec![], vec![]);
    let mut lengths = Vec::with_capacity(list.len());
    for manifest in list {
        let types = match metadata.partition_spec_by_id(manifest.partition_spec_id) {
            Some(spec) => partition_type(metadata, spec)?,
            None => StructType::default(),
        };
        let fields = manifest.partitions.as_deref().unwrap_or_default();
        for (summary, field) in fields.iter().zip(types.fields()) {
            let bound = |bytes: Option<&[u8]>| match (bytes, field.field_type.as_ref()) {
                (Some(bytes), Type::Primitive(ty)) => {
                    Datum::try_from_bytes(bytes, ty.clone()).ok().map(|datum| shown(&datum))
                }
                _ => None,
            };
            contains_null.push(Some(summary.contains_null));
            contains_nan.push(summary.contains_nan);
            lower.push(bound(summary.lower_bound.as_ref().map(|b| b.as_slice())));
            upper.push(bound(summary.upper_bound.as_ref().map(|b| b.as_slice())));
        }
        lengths.push(fields.len().min(types.fields().len()));
    }
    let columns: Vec<(Field, ArrayRef)> = vec![
        (Field::new("contains_null", DataType::Boolean, true), Arc::new(BooleanArray::from(contains_null))),
        (Field::new("contains_nan", DataType::Boolean, true), Arc::new(BooleanArray::from(contains_nan))),
        (Field::new("lower_bound", DataType::Utf8, true), Arc::new(StringArray::from(lower))),
        (Field::new("upper_bound", DataType::Utf8, true), Arc::new(StringArray::from(upper))),
    ];
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    let items = StructArray::try_new(fields.into(), arrays, None)?;
    let item = Arc::new(Field::new("element", items.data_type().clone(), true));
    let list = ListArray::try_new(item, OffsetBuffer::from_lengths(lengths), Arc::new(items), None)?;
    Ok(Arc::new(list))
}

pub(super) async fn files(table: &Table) -> Result<Columns> {
    let files: Arc<Vec<LiveFile>> = Arc::new(current_entries(table).await?);
    let rows = files.len();
    let each = {
        let files = files.clone();
        move |value: fn(&DataFile) -> Option<i64>| {
            let files = files.clone();
            move || Ok(longs(files.iter().map(|f| value(f.data()))))
        }
    };
    let ints_of = {
        let files = files.clone();
        move |value: fn(&DataFile) -> Option<i32>| {
            let files = files.clone();
            move || Ok(ints(files.iter().map(|f| value(f.data()))))
        }
    };
    let texts_of = {
        let files = files.clone();
        move |value: fn(&DataFile) -> Option<String>| {
            let files = files.clone();
            move || Ok(texts(files.iter().map(|f| value(f.data()))))
        }
    };
    let counts = {
        let files = files.clone();
        move |value: fn(&DataFile) -> &HashMap<i32, u64>| {
            let files = files.clone();
            move || {
                int_map(&files, Int64Builder::new(), |f, to| {
                    let sorted: BTreeMap<_, _> = value(f).iter().collect();
                    sorted
                        .into_iter()
                        .map(|(id, n)| {
                            to.append_value(n.cast_signed());
                            *id
                        })
                        .collect()
                })
            }
        }
    };
    let bounds = {
        let files = files.clone();
        move |value: fn(&DataFile) -> &HashMap<i32, Datum>| {
            let files = files.clone();
            move || {
                int_map(&files, StringBuilder::new(), |f, to| {
                    let sorted: BTreeMap<_, _> = value(f).iter().collect();
                    sorted
                        .into_iter()
                        .map(|(id, d)| {
                            to.append_value(shown(d));
                            *id
                        })
                        .collect()
                })
            }
        }
    };
    let (count_type, bound_type) = (map_type(DataType::Int64), map_type(DataType::Utf8));
    let mut columns = Columns::new(rows)
        .lazy("content", DataType::Int32, ints_of(|f| Some(f.content_type() as i32)))
        .lazy("file_path", DataType::Utf8, texts_of(|f| Some(f.file_path().to_owned())))
        .lazy("file_format", DataType::Utf8, texts_of(|f| Some(f.file_format().to_string().to_uppercase())))
        .lazy("spec_id", DataType::Int32, {
            let files = files.clone();
            move || Ok(ints(files.iter().map(|f| Some(f.manifest().metadata().partition_spec().spec_id()))))
        });
    let keys = Arc::new(partition_fields(table.metadata())?);
    if !keys.is_empty() {
        let (files, keys) = (files.clone(), keys.clone());
        columns = columns.lazy("partition", DataType::Struct(arrow_fields(&keys)?), move || {
            partition_column(&keys, files.iter().map(|f| partition(&keys, f)))
        });
    }
    let long_list = DataType::List(Arc::new(Field::new("element", DataType::Int64, true)));
    let int_list = DataType::List(Arc::new(Field::new("element", DataType::Int32, true)));
    Ok(columns
        .lazy("record_count", DataType::Int64, each(|f| i64::try_from(f.record_count()).ok()))
        .lazy("file_size_in_bytes", DataType::Int64, each(|f| i64::try_from(f.file_size_in_bytes()).ok()))
        .lazy("column_sizes", count_type.clone(), counts(DataFile::column_sizes))
        .lazy("value_counts", count_type.clone(), counts(DataFile::value_counts))
        .lazy("null_value_counts", count_type.clone(), counts(DataFile::null_value_counts))
        .lazy("nan_value_counts", count_type, counts(DataFile::nan_value_counts))
        .lazy("lower_bounds", bound_type.clone(), bounds(DataFile::lower_bounds))
        .lazy("upper_bounds", bound_type, bounds(DataFile::upper_bounds))
        .lazy("key_metadata", DataType::Binary, {
            let files = files.clone();
            move || Ok(Arc::new(files.iter().map(|f| f.data().key_metadata()).collect::<BinaryArray>()))
        })
        .lazy("split_offsets", long_list, {
            let files = files.clone();
            move || {
                let item = Field::new("element", DataType::Int64, true);
                let mut list = ListBuilder::new(Int64Builder::new()).with_field(item);
                for file in files.iter() {
                    list.append_option(file.data().split_offsets().map(|o| o.iter().copied().map(Some)));
                }
                Ok(Arc::new(list.finish()))
            }
        })
        .lazy("equality_ids", int_list, {
            let files = files.clone();
            move || {
                let item = Field::new("element", DataType::Int32, true);
                let mut list = ListBuilder::new(Int32Builder::new()).with_field(item);
                for file in files.iter() {
                    list.append_option(file.data().equality_ids().map(|ids| ids.into_iter().map(Some)));
                }
                Ok(Arc::new(list.finish()))
            }
        })
        .lazy("sort_order_id", DataType::Int32, ints_of(DataFile::sort_order_id)))
}

fn map_type(value: DataType) -> DataType {
    let fields = vec![Field::new("key", DataType::Int32, false), Field::new("value", value, true)];
    DataType::Map(Arc::new(Field::new("key_value", DataType::Struct(fields.into()), false)), false)
}

/// A map for each file; `fill` appends the values and gives their keys.
fn int_map<B: ArrayBuilder>(
    files: &[LiveFile],
    values: B,
    fill: impl Fn(&DataFile, &mut B) -> Vec<i32>,
) -> Result<ArrayRef> {
    let mut map = MapBuilder::new(Some(names()), Int32Builder::new(), values);
    for file in files {
        for key in fill(file.data(), map.values()) {
            map.keys().append_value(key);
        }
        map.append(true)?;
    }
    Ok(Arc::new(map.finish()))
}
