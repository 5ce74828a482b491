//! Files of deleted rows, with the names of the data files in them exchanged: position deletes in Parquet, deletion vectors in Puffin.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::arrow::{ArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use serde_json::Value;
use shared::{Error, Result};

const PARQUET: &[u8] = b"PAR1";
const PUFFIN: &[u8] = b"PFA1";
/// The id of the column of position deletes that names a data file.
const DELETED_PATH: &str = "2147483546";
/// The property of a deletion vector that does.
const REFERENCED: &str = "referenced-data-file";
/// What the writer adds by itself.
const ARROW_SCHEMA: &str = "ARROW:schema";

/// The file with `moved` applied to the names of data files.
///
/// # Errors
/// `Invalid` for a file of another format, or one that is damaged.
pub(super) fn with_paths(file: Vec<u8>, moved: &dyn Fn(&str) -> String) -> Result<Vec<u8>> {
    match file.get(..4) {
        Some(magic) if magic == PARQUET => parquet(Bytes::from(file), moved).map_err(|e| {
            Error::invalid("expected position deletes that can be rewritten, found others").with_source(e)
        }),
        Some(magic) if magic == PUFFIN => puffin(&file, moved),
        _ => Err(Error::invalid("expected deletes in Parquet or Puffin, found another format")),
    }
}

fn parquet(file: Bytes, moved: &dyn Fn(&str) -> String) -> Result<Vec<u8>, ParquetError> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?;
    let properties = properties(reader.metadata());
    let schema = reader.schema().clone();
    let column = path_column(&schema).ok_or_else(|| ParquetError::General("no column `file_path`".into()))?;
    // What else the file says of itself is among the properties.
    let plain = Arc::new(Schema::new(schema.fields().clone()));
    let mut writer = ArrowWriter::try_new(Vec::new(), plain.clone(), Some(properties))?;
    for batch in reader.build()? {
        let batch = batch?;
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns[column] = exchanged(&columns[column], moved)?;
        writer.write(&RecordBatch::try_new(plain.clone(), columns)?)?;
    }
    writer.into_inner()
}

fn path_column(schema: &Schema) -> Option<usize> {
    let by_id = schema
        .fields()
        .iter()
        .position(|field| field.metadata().get(PARQUET_FIELD_ID_META_KEY).is_some_and(|id| id == DELETED_PATH));
    by_id.or_else(|| schema.index_of("file_path").ok())
}

fn exchanged(column: &ArrayRef, moved: &dyn Fn(&str) -> String) -> Result<ArrayRef, ParquetError> {
    let texts = cast(column, &DataType::Utf8)?;
    let texts: StringArray = texts.as_string::<i32>().iter().map(|path| path.map(moved)).collect();
    Ok(cast(&texts, column.data_type())?)
}

/// Compression and what the file says of itself, as they were.
fn properties(metadata: &ParquetMetaData) -> WriterProperties {
    let said = metadata.file_metadata().key_value_metadata().cloned().unwrap_or_default();
    let said = said.into_iter().filter(|pair| pair.key != ARROW_SCHEMA).collect();
    let builder = WriterProperties::builder().set_key_value_metadata(Some(said));
    let compression = metadata.row_groups().first().and_then(|group| group.columns().first()).map(|c| c.compression());
    match compression {
        Some(compression) => builder.set_compression(compression).build(),
        None => builder.build(),
    }
}

/// The format: <https://iceberg.apache.org/puffin-spec/>. Blobs stay where they are; only the footer names files.
fn puffin(file: &[u8], moved: &dyn Fn(&str) -> String) -> Result<Vec<u8>> {
    let damaged = || Error::invalid("expected a Puffin file, found it damaged");
    let (rest, magic) = file.split_last_chunk::<4>().ok_or_else(damaged)?;
    let (rest, flags) = rest.split_last_chunk::<4>().ok_or_else(damaged)?;
    let (rest, size) = rest.split_last_chunk::<4>().ok_or_else(damaged)?;
    let size = usize::try_from(u32::from_le_bytes(*size)).map_err(|e| damaged().with_source(e))?;
    let at = rest.len().checked_sub(size).ok_or_else(damaged)?;
    let (blobs, payload) = rest.split_at(at);
    if magic != PUFFIN || !blobs.ends_with(PUFFIN) {
        return Err(damaged());
    }
    if flags != &[0; 4] {
        return Err(Error::invalid("expected a Puffin file whose footer is not compressed, found one that is"));
    }
    let mut footer: Value = serde_json::from_slice(payload).map_err(|e| damaged().with_source(e))?;
    for blob in footer["blobs"].as_array_mut().into_iter().flatten() {
        if let Some(Value::String(path)) =
            blob.get_mut("properties").and_then(|properties| properties.get_mut(REFERENCED))
        {
            *path = moved(path);
        }
    }
    let payload = serde_json::to_vec(&footer).map_err(|e| Error::bug("a footer has no JSON form").with_source(e))?;
    let size = u32::try_from(payload.len()).map_err(|e| damaged().with_source(e))?;
    Ok([blobs, &payload, &size.to_le_bytes(), flags, magic].concat())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use arrow::array::Int64Array;
    use arrow::datatypes::Field;
    use parquet::basic::{Compression, ZstdLevel};
    use parquet::file::metadata::KeyValue;

    use super::*;

    fn moved(path: &str) -> String {
        path.replace("/old/", "/a new place/")
    }

    #[test]
    fn position_deletes_name_the_files_of_the_new_place_and_are_else_the_same() {
        let field = |name: &str, of: DataType, id: &str| {
            let id = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_owned())]);
            Field::new(name, of, false).with_metadata(id)
        };
        let schema = Arc::new(Schema::new(vec![
            field("file_path", DataType::Utf8, DELETED_PATH),
            field("pos", DataType::Int64, "2147483545"),
        ]));
        let paths: ArrayRef = Arc::new(StringArray::from(vec!["file:///old/a", "file:///old/b"]));
        let batch = RecordBatch::try_new(schema.clone(), vec![paths, Arc::new(Int64Array::from(vec![3, 1]))]).unwrap();
        let said = vec![KeyValue { key: "delete-type".into(), value: Some("position".into()) }];
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_key_value_metadata(Some(said))
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), schema, Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        let bytes = with_paths(writer.into_inner().unwrap(), &moved).unwrap();

        let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).unwrap();
        let metadata = reader.metadata().clone();
        let said = metadata.file_metadata().key_value_metadata().unwrap();
        assert!(said.iter().any(|pair| pair.key == "delete-type" && pair.value.as_deref() == Some("position")));
        assert!(matches!(metadata.row_group(0).column(0).compression(), Compression::ZSTD(_)));
        assert_eq!(reader.schema().field(1).metadata()[PARQUET_FIELD_ID_META_KEY], "2147483545");
        let batch = reader.build().unwrap().next().unwrap().unwrap();
        let paths: Vec<_> = batch.column(0).as_string::<i32>().iter().flatten().collect();
        assert_eq!(paths, ["file:///a new place/a", "file:///a new place/b"]);
        assert_eq!(batch.column(1).as_ref(), &Int64Array::from(vec![3, 1]) as &dyn Array);
    }

    #[test]
    fn deletion_vectors_stay_where_they_are_in_their_file() {
        let footer = |path: &str| {
            let blob = serde_json::json!({"type": "deletion-vector-v1", "offset": 4, "length": 5, "properties": {REFERENCED: path}});
            serde_json::json!({"blobs": [blob], "properties": {"created-by": "x"}}).to_string()
        };
        let file = |path: &str| {
            let footer = footer(path);
            let size = u32::try_from(footer.len()).unwrap().to_le_bytes();
            [PUFFIN, b"12345", PUFFIN, footer.as_bytes(), &size, &[0; 4], PUFFIN].concat()
        };
        assert_eq!(with_paths(file("file:///old/a"), &moved).unwrap(), file("file:///a new place/a"));
        let whole = file("file:///old/a");
        for end in 0..whole.len() {
            assert!(with_paths(whole[..end].to_vec(), &moved).is_err(), "cut at {end}");
        }
    }
}
