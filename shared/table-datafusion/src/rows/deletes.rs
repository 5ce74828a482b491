//! Merge on read in format v2: position delete files that name the rows which left, one for each partition.
//!
//! As the specification asks: sorted by file and position, in the partition and with the partition spec of the data files,
//! bounds of the paths in full.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, PartitionSpecRef, Struct};
use parquet::arrow::{AsyncArrowWriter, PARQUET_FIELD_ID_META_KEY};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use roaring::RoaringTreemap;

use shared::{Error, Result};
use table::Table;
use table::io::IcebergContext;
use table::manifests::{DELETED_PATH, DELETED_POS};
use table::properties::read;
use table::snapshot::{AddedFile, LiveFile};
use table::write::Writer;

/// Positions that are encoded at a time.
const BATCH_ROWS: usize = 8192;

type Places = (LiveFile, RoaringTreemap);

/// Writes the places that go with each file. `writer` gives the names.
///
/// # Errors
/// `Invalid` for a table property that can't be read; what the store answers.
pub(super) async fn write(base: &Table, files: &[Places], writer: &mut Writer) -> Result<Vec<AddedFile>> {
    let each = match read::<String>(base.metadata(), "write.delete.granularity", "a text")?.as_deref() {
        None | Some("partition") => false,
        Some("file") => true,
        Some(found) => {
            return Err(Error::invalid(format!(
                "table property `write.delete.granularity`: expected `partition` or `file`, found `{found}`"
            )));
        }
    };
    let mut groups: Vec<Vec<&Places>> = Vec::new();
    let mut partitions: HashMap<(i32, &Struct), usize> = HashMap::new();
    for places in files {
        let key = (places.0.spec_id(), places.0.data().partition());
        match partitions.get(&key) {
            Some(group) if !each => groups[*group].push(places),
            _ => {
                partitions.insert(key, groups.len());
                groups.push(vec![places]);
            }
        }
    }
    let mut written = Vec::with_capacity(groups.len());
    for group in groups {
        let Some((first, _)) = group.first() else { continue };
        let spec_id = first.spec_id();
        let spec = base.metadata().partition_spec_by_id(spec_id);
        let spec = spec.ok_or_else(|| Error::bug(format!("expected the partition spec {spec_id}, found none")))?;
        written.push(AddedFile::new(write_group(base, spec, &group, writer).await?, spec_id));
    }
    Ok(written)
}

async fn write_group(
    base: &Table,
    spec: &PartitionSpecRef,
    group: &[&Places],
    writer: &mut Writer,
) -> Result<DataFile> {
    let partition = group.first().map_or_else(Struct::empty, |(file, _)| file.data().partition().clone());
    let by_path: BTreeMap<&str, &RoaringTreemap> =
        group.iter().map(|(file, places)| (file.data().file_path(), places)).collect();
    let location = writer.next_location(&partition, spec, "deletes");
    let doing = || format!("writing `{location}`");
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_truncate_length(None)
        .build();
    let mut parquet =
        AsyncArrowWriter::try_new(base.io().storage().writer(&base.io().url(&location)?)?, schema(), Some(properties))
            .doing(doing)?;
    let mut rows = 0;
    for (path, places) in &by_path {
        let mut places = places.iter().map(u64::cast_signed);
        loop {
            let batch: Vec<i64> = places.by_ref().take(BATCH_ROWS).collect();
            if batch.is_empty() {
                break;
            }
            rows += batch.len() as u64;
            let paths = StringArray::from_iter_values(std::iter::repeat_n(path, batch.len()));
            let columns: Vec<ArrayRef> = vec![Arc::new(paths), Arc::new(Int64Array::from(batch))];
            parquet.write(&RecordBatch::try_new(schema(), columns)?).await.doing(doing)?;
        }
    }
    parquet.finish().await.doing(doing)?;
    let size = parquet.bytes_written() as u64;
    let least = by_path.values().filter_map(|places| places.min()).min().unwrap_or(0);
    let greatest = by_path.values().filter_map(|places| places.max()).max().unwrap_or(0);
    let bounds = |path: Option<&&str>, place: u64| {
        let path = Datum::string(path.copied().unwrap_or_default());
        HashMap::from([(DELETED_PATH, path), (DELETED_POS, Datum::long(place.cast_signed()))])
    };
    let only = if by_path.len() == 1 { by_path.keys().next().map(|path| (*path).to_owned()) } else { None };
    DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .lower_bounds(bounds(by_path.keys().next(), least))
        .upper_bounds(bounds(by_path.keys().next_back(), greatest))
        .file_path(location)
        .file_format(DataFileFormat::Parquet)
        .partition(partition)
        .partition_spec_id(spec.spec_id())
        .record_count(rows)
        .file_size_in_bytes(size)
        .value_counts(HashMap::from([(DELETED_PATH, rows), (DELETED_POS, rows)]))
        .null_value_counts(HashMap::from([(DELETED_PATH, 0), (DELETED_POS, 0)]))
        .referenced_data_file(only)
        .build()
        .map_err(|e| Error::bug("describing a delete file").with_source(e))
}

/// The columns of a position delete file.
fn schema() -> SchemaRef {
    let field = |name, ty, id: i32| {
        let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
        Field::new(name, ty, false).with_metadata(metadata)
    };
    Arc::new(Schema::new(vec![
        field("file_path", DataType::Utf8, DELETED_PATH),
        field("pos", DataType::Int64, DELETED_POS),
    ]))
}
