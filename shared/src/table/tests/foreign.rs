//! Files that others wrote: made here, listed in the table as another engine would list them.

use bytes::Bytes;
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Struct};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

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
    format!("{}/data/{file}", table.metadata.location().trim_end_matches('/'))
}

/// Puts a Parquet file into an unpartitioned table.
pub(super) async fn add_file(table: &Table, file: &str, bytes: Bytes) -> Table {
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    let table = table.reload().await.unwrap();
    let rows = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap().metadata().file_metadata().num_rows();
    let entry = entry(&table, file, &bytes, rows.unsigned_abs());
    table.io.put(&location(&table, file), bytes).await.unwrap();
    let delta = snapshot::Delta { added: vec![snapshot::AddedFile::new(entry, 0)], ..snapshot::Delta::default() };
    let id = table.metadata.last_sequence_number() + 1;
    let mut manifests = manifests::Manifests::new(id);
    let prepared = snapshot::prepare(&table, &mut manifests, id, &delta, None).await.unwrap();
    table.swap(&prepared.metadata, prepared.location).await.unwrap()
}
