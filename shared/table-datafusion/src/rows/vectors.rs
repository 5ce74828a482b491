//! Merge on read in format v3: deletion vectors, a bitmap for each data file, all of a commit in one Puffin file.
//!
//! A data file has one vector at most, so a new one also holds what was deleted before and takes the place of older delete
//! files of that data file alone.

use std::collections::HashMap;

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use datafusion::prelude::{SessionConfig, SessionContext, col};
use futures::TryStreamExt;
use iceberg::spec::{DataContentType, DataFile, DataFileBuilder, DataFileFormat};
use roaring::RoaringTreemap;
use serde_json::json;

use crate::address::POS;
use crate::scan;
use shared::{Error, Result};
use table::Table;
use table::deletes::vector_blob;
use table::manifests::only_target;
use table::snapshot::{AddedFile, DeleteFile, LiveFile};
use table::write::Writer;

const PUFFIN: [u8; 4] = *b"PFA1";
/// Field id that the specification reserves for the row's position, which a vector is over.
const ROW_POSITION: i32 = 2_147_483_645;

/// Vectors that come, and delete files that they take the place of.
#[derive(Default)]
pub(super) struct Vectors {
    pub(super) added: Vec<AddedFile>,
    pub(super) removed: Vec<DeleteFile>,
}

/// Writes a vector for each file that holds the places which go now and those that went before.
///
/// # Errors
/// What reading and writing answer.
pub(super) async fn write(base: &Table, files: &[(LiveFile, RoaringTreemap)], writer: &mut Writer) -> Result<Vectors> {
    let mut vectors = Vectors::default();
    if files.is_empty() {
        return Ok(vectors);
    }
    let location = writer.next_vectors();
    let mut puffin = PUFFIN.to_vec();
    let mut blobs = Vec::new();
    let mut entries = Vec::new();
    for (file, gone) in files {
        let path = file.data().file_path();
        let mut vector = match file.deletes() {
            Some(_) => gone_before(base, file).await?,
            None => RoaringTreemap::new(),
        };
        vector |= gone;
        let (offset, blob) = (puffin.len(), vector_blob(&vector)?);
        puffin.extend_from_slice(&blob);
        blobs.push(json!({
            "type": "deletion-vector-v1",
            "fields": [ROW_POSITION],
            "snapshot-id": -1,
            "sequence-number": -1,
            "offset": offset,
            "length": blob.len(),
            "properties": {"referenced-data-file": path, "cardinality": vector.len().to_string()},
        }));
        entries.push((file, vector.len(), offset, blob.len()));
        let deletes = file.deletes().into_iter().flat_map(|deletes| deletes.positions.iter().chain(&deletes.vector));
        let replaced = deletes.filter(|delete| only_target(delete.data()).as_deref() == Some(path));
        vectors.removed.extend(replaced.map(|delete| DeleteFile::of(delete.data())));
    }
    let footer = json!({"blobs": blobs, "properties": {"created-by": "tarn"}}).to_string();
    puffin.extend_from_slice(&PUFFIN);
    puffin.extend_from_slice(footer.as_bytes());
    puffin.extend_from_slice(&u32::try_from(footer.len()).unwrap_or(u32::MAX).to_le_bytes());
    puffin.extend_from_slice(&[0; 4]);
    puffin.extend_from_slice(&PUFFIN);
    let size = puffin.len();
    base.io().put(&location, puffin.into()).await?;
    for (file, rows, offset, length) in entries {
        let entry = entry(&location, size, file, rows, (offset, length))?;
        vectors.added.push(AddedFile::new(entry, file.spec_id()));
    }
    Ok(vectors)
}

fn entry(
    location: &str,
    size: usize,
    file: &LiveFile,
    rows: u64,
    (offset, length): (usize, usize),
) -> Result<DataFile> {
    DataFileBuilder::default()
        .content(DataContentType::PositionDeletes)
        .file_path(location.to_owned())
        .file_format(DataFileFormat::Puffin)
        .partition(file.data().partition().clone())
        .partition_spec_id(file.spec_id())
        .record_count(rows)
        .file_size_in_bytes(size as u64)
        .referenced_data_file(Some(file.data().file_path().to_owned()))
        .content_offset(i64::try_from(offset).ok())
        .content_size_in_bytes(i64::try_from(length).ok())
        .column_sizes(HashMap::new())
        .build()
        .map_err(|e| Error::bug("describing a deletion vector").with_source(e))
}

/// The places of a file whose rows a scan leaves out, whatever kind of delete file says so.
async fn gone_before(base: &Table, file: &LiveFile) -> Result<RoaringTreemap> {
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    scan::register_store(&session, base, file)?;
    let frame = session.read_table(scan::addressed_files(base, vec![file.clone()])?)?;
    let mut rows = frame.select(vec![col(POS)])?.execute_stream().await?;
    let mut gone = RoaringTreemap::new();
    gone.insert_range(0..file.data().record_count());
    while let Some(batch) = rows.try_next().await? {
        let places = cast(batch.column(0), &DataType::Int64)?;
        for place in places.as_primitive::<Int64Type>().values() {
            gone.remove(place.unsigned_abs());
        }
    }
    Ok(gone)
}
