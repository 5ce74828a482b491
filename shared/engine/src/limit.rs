//! The scan limit before a scan: what a plan would read at most, told from file sizes and footers.

use std::collections::BTreeSet;

use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::physical_plan::parquet::metadata::CachedParquetMetaData;
use datafusion::execution::cache::cache_manager::FileMetadataCache;
use datafusion::execution::session_state::SessionState;
use datafusion::physical_plan::ExecutionPlan;

use super::stats::scan_of;
use shared::{Error, Result};

/// Refuses a plan that would scan more than `limit` bytes.
///
/// # Errors
/// `Limit`, with the estimate.
pub(super) fn check(plan: &dyn ExecutionPlan, state: &SessionState, limit: u64) -> Result<()> {
    let estimate = estimate(plan, state);
    if estimate > limit {
        return Err(Error::limit(format!(
            "the query was refused: expected it to scan at most {limit} bytes, estimated {estimate}"
        )));
    }
    Ok(())
}

/// Bytes that the plan would read at most, as far as that is known before it runs.
pub(super) fn estimate(plan: &dyn ExecutionPlan, state: &SessionState) -> u64 {
    bytes_of(plan, state.runtime_env().cache_manager.get_file_metadata_cache().as_ref())
}

/// Bytes that all scans of the plan read together. A scan that may stop early counts nothing: it is cut off as it runs.
fn bytes_of(plan: &dyn ExecutionPlan, footers: &FileMetadataCache) -> u64 {
    let here = scan_of(plan).filter(|scan| scan.limit.is_none()).map_or(0, |scan| scan_bytes(scan, footers));
    here + plan.children().into_iter().map(|child| bytes_of(child.as_ref(), footers)).sum::<u64>()
}

fn scan_bytes(scan: &FileScanConfig, footers: &FileMetadataCache) -> u64 {
    let source = scan.file_source();
    let schema = source.table_schema().file_schema();
    let columns: Option<BTreeSet<&str>> =
        Some(source).filter(|source| source.file_type() == "parquet").and_then(|source| {
            let read = source.projection()?.column_indices().into_iter();
            Some(read.filter_map(|i| schema.fields().get(i)).map(|f| f.name().as_str()).collect())
        });
    let files = scan.file_groups.iter().flat_map(|g| g.iter());
    files.map(|file| columns.as_ref().and_then(|c| chunks(file, c, footers)).unwrap_or(file.effective_size())).sum()
}

/// Compressed bytes of these columns of a Parquet file, when its footer is known.
fn chunks(file: &PartitionedFile, columns: &BTreeSet<&str>, footers: &FileMetadataCache) -> Option<u64> {
    let cached = footers.get(&file.object_meta.location)?;
    if file.range.is_some() || !cached.is_valid_for(&file.object_meta) {
        return None;
    }
    let footer = cached.file_metadata.as_any().downcast_ref::<CachedParquetMetaData>()?.parquet_metadata();
    let read = footer
        .row_groups()
        .iter()
        .flat_map(|group| group.columns())
        .filter(|chunk| chunk.column_path().parts().first().is_some_and(|name| columns.contains(name.as_str())));
    Some(read.map(|chunk| u64::try_from(chunk.compressed_size()).unwrap_or(0)).sum())
}
