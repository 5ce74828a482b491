//! The files of a table: listed or given, with the values of their partition, and with the statistics of Parquet footers.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, ScalarValue, Statistics, TableReference};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::FileGroup;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::cache::cache_manager::CachedFileMetadata;
use datafusion::execution::cache::{SchemaFingerprint, TableScopedPath};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStoreExt};
use url::Url;

use super::parquet::Footer;

use format::listing::{ListedFile, TableFiles};
use shared::catalog::Table;
use shared::error::Context;
use shared::model::TableName;
use shared::storage::Storage;
use shared::{Error, Result};

/// Folders listed, or footers read, at the same time.
pub(super) const CONCURRENCY: usize = 32;

/// A file and where it lies.
pub(super) struct TableFile {
    pub(super) url: Url,
    pub(super) file: PartitionedFile,
}

/// The URL of a folder of `table`, with a final slash.
pub(super) fn folder(location: &str, table: &TableName) -> Result<Url> {
    let mut url = Url::parse(location).map_err(|e| {
        Error::invalid(format!("table `{table}`: expected a URL as its location, found `{location}`")).with_source(e)
    })?;
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Every file of the table below the folders, in order.
///
/// # Errors
/// As [`TableFiles::list`].
pub(super) async fn listed(
    storage: &Storage,
    files: &TableFiles,
    folders: Vec<(Url, Vec<ScalarValue>)>,
) -> Result<Vec<TableFile>> {
    let listings = futures::stream::iter(folders.into_iter().map(|(folder, values)| async move {
        let listed = files.list(storage, &folder).await?;
        let file = |file: ListedFile| TableFile { url: file.url, file: with_values(file.meta, values.clone()) };
        Ok::<_, Error>(listed.into_iter().map(file).collect::<Vec<_>>())
    }));
    let mut files: Vec<TableFile> =
        listings.buffered(CONCURRENCY).try_collect::<Vec<_>>().await?.into_iter().flatten().collect();
    files.sort_by(|a, b| a.file.object_meta.location.cmp(&b.file.object_meta.location));
    Ok(files)
}

/// The given files, each with the values that `values_of` finds for it.
///
/// # Errors
/// `NotFound` for one that is gone.
pub(super) async fn given(
    storage: &Storage,
    urls: &[Url],
    values_of: impl Fn(&Url) -> Result<Vec<ScalarValue>>,
) -> Result<Vec<TableFile>> {
    let mut files = Vec::with_capacity(urls.len());
    for url in urls {
        let (store, path) = storage.resolve(url)?;
        let meta = store.head(&path).await.context(|| format!("looking up `{url}`"))?;
        if meta.size > 0 {
            files.push(TableFile { url: url.clone(), file: with_values(meta, values_of(url)?) });
        }
    }
    Ok(files)
}

fn with_values(meta: ObjectMeta, values: Vec<ScalarValue>) -> PartitionedFile {
    PartitionedFile::new_from_meta(meta).with_partition_values(values)
}

/// Adds what the footers of Parquet files say, from the cache where the file is still the same.
///
/// # Errors
/// Whatever the statistics of a footer give, naming the file.
pub(super) fn with_statistics(
    state: &dyn Session,
    table: &Table,
    schema: &TableSchema,
    files: Vec<PartitionedFile>,
    footers: &[Footer],
) -> Result<Vec<PartitionedFile>, DataFusionError> {
    let name = &table.input.name;
    let reference = TableReference::full(name.database.as_str(), name.table.as_str(), table.version.as_str());
    let fingerprint = Arc::new(SchemaFingerprint::from_schema(schema.file_schema()));
    let with = |(file, footer): (PartitionedFile, &Footer)| {
        let statistics = statistics_of(state, footer, schema, &reference, &fingerprint, &file.object_meta)?;
        let has_null = file.partition_values.iter().any(ScalarValue::is_null);
        // DataFusion takes partition values to be there; statistics of a null one would be wrong.
        Ok(if has_null { file } else { file.with_statistics(statistics) })
    };
    files.into_iter().zip(footers).map(with).collect()
}

fn statistics_of(
    state: &dyn Session,
    footer: &Footer,
    schema: &TableSchema,
    table: &TableReference,
    fingerprint: &Arc<SchemaFingerprint>,
    meta: &ObjectMeta,
) -> Result<Arc<Statistics>, DataFusionError> {
    let caches = &state.runtime_env().cache_manager;
    let key = TableScopedPath { table: Some(table.clone()), path: meta.location.clone() };
    let statistics_cache = caches.get_file_statistic_cache();
    if let Some(cached) = statistics_cache.as_ref().and_then(|cache| cache.get(&key))
        && cached.is_valid_for(meta, fingerprint)
        && cached.meta.e_tag == meta.e_tag
    {
        return Ok(cached.statistics);
    }
    let found = DFParquetMetadata::statistics_from_parquet_metadata(&footer.metadata, schema.file_schema());
    let found =
        found.map_err(|e| DataFusionError::from(Error::from(e).context(format!("reading `{}`", meta.location))))?;
    let statistics = Arc::new(without_float_bounds(found, schema));
    if let Some(cache) = statistics_cache {
        cache.put(&key, CachedFileMetadata::new(meta.clone(), Arc::clone(fingerprint), Arc::clone(&statistics), None));
    }
    Ok(statistics)
}

/// Footers bound the numbers of a column, not its NaN, which is the greatest value here.
fn without_float_bounds(mut statistics: Statistics, schema: &TableSchema) -> Statistics {
    let columns = statistics.column_statistics.iter_mut().zip(schema.file_schema().fields());
    for (column, _) in columns.filter(|(_, field)| field.data_type().is_floating()) {
        column.min_value = Precision::Absent;
        column.max_value = Precision::Absent;
    }
    statistics
}

/// DataFusion takes a cached footer for valid while size and time of change are equal. Stores tell whole seconds only, so a
/// file replaced within one is told by its etag.
pub(super) fn forget_changed_footers(state: &dyn Session, files: &[PartitionedFile]) {
    let footers = state.runtime_env().cache_manager.get_file_metadata_cache();
    for meta in files.iter().map(|file| &file.object_meta) {
        if footers.get(&meta.location).is_some_and(|cached| cached.meta.e_tag != meta.e_tag) {
            footers.remove(&meta.location);
        }
    }
}

/// Statistics of all files together; unknown when one file has none.
pub(super) fn merged_statistics(groups: &[FileGroup], schema: &SchemaRef) -> Result<Statistics, DataFusionError> {
    let files: Option<Vec<&Statistics>> =
        groups.iter().flat_map(|g| g.iter()).map(|f| f.statistics.as_deref()).collect();
    match files {
        Some(files) => Statistics::try_merge_iter(files, schema),
        None => Ok(Statistics::new_unknown(schema)),
    }
}
