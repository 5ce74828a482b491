//! Files that others wrote: made here, listed in the table as another engine would list them.

use bytes::Bytes;
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Struct};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use arrow::array::Array;

use super::*;

/// Rows of [`columns`] as a Parquet file with row groups of `group` rows.
pub(super) fn parquet_rows(values: &[(i64, Option<&str>, i64)], group: usize) -> Bytes {
    parquet(&rows(values), group)
}

pub(super) fn parquet(batch: &RecordBatch, group: usize) -> Bytes {
    let mut bytes = Vec::new();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    bytes.into()
}

/// A file of an unpartitioned table.
pub(super) fn entry(table: &Table, file: &str, bytes: &Bytes, rows: u64) -> DataFile {
    DataFileBuilder::default()
        .content(DataContentType::Data)
        .file_path(location(table, file))
        .file_format(DataFileFormat::Parquet)
        .partition(Struct::empty())
        .partition_spec_id(0)
        .record_count(rows)
        .file_size_in_bytes(bytes.len() as u64)
        .build()
        .unwrap()
}

pub(super) fn location(table: &Table, file: &str) -> String {
    format!("{}/data/{file}", table.metadata().location().trim_end_matches('/'))
}

/// Puts a Parquet file into an unpartitioned table.
pub(super) async fn add_file(table: &Table, file: &str, bytes: Bytes) -> Table {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let table = table.reload().await.unwrap();
    let rows = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().metadata().file_metadata().num_rows();
    let entry = entry(&table, file, &bytes, rows.unsigned_abs());
    table.io().put(&location(&table, file), bytes).await.unwrap();
    let delta = snapshot::Delta { added: vec![snapshot::AddedFile::new(entry, 0)], ..snapshot::Delta::default() };
    let id = table.metadata().last_sequence_number() + 1;
    let mut manifests = manifests::Manifests::new(&table, id);
    let prepared = snapshot::prepare(&table, &mut manifests, id, &delta, None).await.unwrap();
    table.swap(&prepared.metadata, prepared.location).await.unwrap()
}

/// The data files of the current snapshot, oldest first.
pub(super) async fn data_files(table: &Table) -> Vec<live::LiveFile> {
    let snapshot = table.metadata().current_snapshot().unwrap();
    let mut files = snapshot::live_files(table.io(), table.metadata(), snapshot).await.unwrap();
    files.sort_by_key(|file| (file.sequence(), format!("{:?}", file.data().lower_bounds().get(&1))));
    files
}

/// Commits files that were put into the table's folder, each with its data sequence number if it is not the snapshot's.
pub(super) async fn commit(table: &Table, files: Vec<(DataFile, Bytes, Option<i64>)>) -> Table {
    let table = table.reload().await.unwrap();
    let mut delta = snapshot::Delta::default();
    for (file, bytes, sequence) in files {
        table.io().put(file.file_path(), bytes).await.unwrap();
        let spec_id = table.metadata().default_partition_spec_id();
        delta.added.push(snapshot::AddedFile { file, spec_id, sequence });
    }
    let id = table.metadata().last_sequence_number() + 1000;
    let mut manifests = manifests::Manifests::new(&table, id);
    let prepared = snapshot::prepare(&table, &mut manifests, id, &delta, None).await.unwrap();
    table.swap(&prepared.metadata, prepared.location).await.unwrap()
}

fn with_id(name: &str, ty: arrow::datatypes::DataType, id: i32) -> arrow::datatypes::Field {
    let id = std::collections::HashMap::from([("PARQUET:field_id".to_owned(), id.to_string())]);
    arrow::datatypes::Field::new(name, ty, true).with_metadata(id)
}

/// A Parquet file whose columns have field ids.
pub(super) fn parquet_with_ids(columns: Vec<(&str, i32, ArrayRef)>) -> Bytes {
    let fields: Vec<_> = columns.iter().map(|(n, id, a)| with_id(n, a.data_type().clone(), *id)).collect();
    let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    parquet(&RecordBatch::try_new(schema, arrays).unwrap(), 1 << 20)
}

/// A position delete file for the partition of `like`: locations and places.
pub(super) fn position_deletes(table: &Table, file: &str, like: &DataFile, rows: &[(&str, i64)]) -> (DataFile, Bytes) {
    let bytes = parquet_with_ids(vec![
        ("file_path", 2_147_483_546, Arc::new(rows.iter().map(|r| Some(r.0)).collect::<StringArray>())),
        ("pos", 2_147_483_545, Arc::new(rows.iter().map(|r| Some(r.1)).collect::<Int64Array>())),
    ]);
    let entry = delete_entry(table, file, like, &bytes, rows.len()).content(DataContentType::PositionDeletes).build();
    (entry.unwrap(), bytes)
}

/// An equality delete file by the given columns: name, field id, values.
pub(super) fn equality_deletes(
    table: &Table,
    file: &str,
    like: &DataFile,
    columns: Vec<(&str, i32, ArrayRef)>,
) -> (DataFile, Bytes) {
    let ids = columns.iter().map(|(_, id, _)| *id).collect();
    let rows = columns[0].2.len();
    let bytes = parquet_with_ids(columns);
    let mut entry = delete_entry(table, file, like, &bytes, rows);
    (entry.content(DataContentType::EqualityDeletes).equality_ids(Some(ids)).build().unwrap(), bytes)
}

/// A Puffin file with the deletion vector of one data file. The reader goes by the manifest, so header and footer are left out.
pub(super) fn vector(table: &Table, file: &str, of: &DataFile, places: &[u64]) -> (DataFile, Bytes) {
    let blob = table::deletes::vector_blob(&places.iter().copied().collect()).unwrap();
    let bytes: Bytes = [b"PFA1".as_slice(), &blob].concat().into();
    let mut entry = delete_entry(table, file, of, &bytes, places.len());
    let entry = entry
        .content(DataContentType::PositionDeletes)
        .file_format(DataFileFormat::Puffin)
        .referenced_data_file(Some(of.file_path().to_owned()))
        .content_offset(Some(4))
        .content_size_in_bytes(Some(i64::try_from(blob.len()).unwrap()));
    (entry.build().unwrap(), bytes)
}

fn delete_entry(table: &Table, file: &str, like: &DataFile, bytes: &Bytes, rows: usize) -> DataFileBuilder {
    let mut entry = DataFileBuilder::default();
    entry
        .file_path(location(table, file))
        .file_format(DataFileFormat::Parquet)
        .partition(like.partition().clone())
        .partition_spec_id(table.metadata().default_partition_spec_id())
        .record_count(rows as u64)
        .file_size_in_bytes(bytes.len() as u64);
    entry
}
