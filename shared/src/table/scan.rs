//! Reads: manifests name the files, filters prune them, DataFusion's own Parquet scan reads what is left.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{Fields, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{ColumnStatistics, DFSchema, DataFusionError, ScalarValue, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::PruningPredicate;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::prelude::SessionContext;
use iceberg::spec::{Operation, Schema, SchemaRef, SnapshotRef, TableMetadata};
use object_store::ObjectMeta;

use super::address::{self, AddressedSource};
use super::field_id::FieldIdAdapterFactory;
use super::io::{IcebergContext, url};
use super::prune::{Files, statistics};
use super::snapshot::{LiveFile, live_files};
use super::source::PrunedSource;
use super::{Read, Table, ancestors, refs, schema};
use crate::storage::Storage;
use crate::{Error, Result};

/// Some files of a table, as DataFusion reads them.
#[derive(Debug)]
struct IcebergTable {
    /// The table's columns, and those of the address if rows have one.
    schema: TableSchema,
    /// Field ids of the table's columns, in their order.
    ids: Vec<i32>,
    files: Vec<LiveFile>,
    storage: Storage,
}

pub(super) async fn provider(table: &Table, read: Read) -> Result<Arc<dyn TableProvider>> {
    let metadata = &table.metadata;
    let (schema, files) = match read {
        Read::Current => (metadata.current_schema().clone(), live(table, metadata.current_snapshot()).await?),
        Read::Added { after, to } => (metadata.current_schema().clone(), added(table, after, to).await?),
        Read::Snapshot(_) | Read::AsOf { .. } | Read::Reference(_) => {
            let (schema, snapshot) = travel(metadata, &read)?;
            (schema, live(table, Some(snapshot)).await?)
        }
    };
    Ok(Arc::new(IcebergTable::new(table, &schema, files)?))
}

async fn live(table: &Table, snapshot: Option<&SnapshotRef>) -> Result<Vec<LiveFile>> {
    match snapshot {
        Some(snapshot) => live_files(&table.io, &table.metadata, snapshot).await,
        None => Ok(Vec::new()),
    }
}

/// The snapshot that a read back in time names, and its columns. A branch goes on with the table's present columns, as the
/// specification has it.
fn travel<'a>(metadata: &'a TableMetadata, read: &Read) -> Result<(SchemaRef, &'a SnapshotRef)> {
    let snapshot = match read {
        Read::AsOf { ms } => {
            let log = metadata.history().iter().rev().find(|entry| entry.timestamp_ms <= *ms);
            let entry = log.ok_or_else(|| {
                let first = metadata
                    .history()
                    .first()
                    .map_or("none".to_owned(), |e| format!("the first of `{}`", e.timestamp_ms));
                Error::not_found(format!(
                    "expected a snapshot from before `{ms}` (milliseconds since 1970), found {first}"
                ))
            })?;
            find(metadata, entry.snapshot_id)?
        }
        Read::Reference(name) => metadata.snapshot_for_ref(name).ok_or_else(|| {
            let known = refs::all(metadata)
                .map(|refs| refs.into_iter().map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>());
            let known = known.unwrap_or_default().join(", ");
            Error::not_found(format!("expected a tag or branch of the table ({known}), found `{name}`"))
        })?,
        Read::Snapshot(id) => find(metadata, *id)?,
        Read::Current | Read::Added { .. } => return Err(Error::bug("expected a read back in time")),
    };
    let is_branch = match read {
        Read::Reference(name) => refs::all(metadata)?.iter().any(|(n, r)| n == name && r.is_branch()),
        _ => false,
    };
    if is_branch {
        return Ok((metadata.current_schema().clone(), snapshot));
    }
    let schema = snapshot.schema(metadata);
    Ok((schema.doing(|| format!("reading the schema of snapshot `{}`", snapshot.snapshot_id()))?, snapshot))
}

/// The current rows with their addresses.
pub(super) async fn addressed(table: &Table) -> Result<Arc<dyn TableProvider>> {
    let files = live(table, table.metadata.current_snapshot()).await?;
    Ok(Arc::new(IcebergTable::new(table, table.metadata.current_schema(), files)?.addressed()?))
}

/// Some files of a table in its present schema.
pub(super) fn files(table: &Table, files: Vec<LiveFile>) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(IcebergTable::new(table, table.metadata.current_schema(), files)?))
}

/// Some files of a table in its present schema, with the addresses of their rows.
pub(super) fn addressed_files(table: &Table, files: Vec<LiveFile>) -> Result<Arc<dyn TableProvider>> {
    Ok(Arc::new(IcebergTable::new(table, table.metadata.current_schema(), files)?.addressed()?))
}

/// Those of `files` that may hold rows which all filters let pass.
pub(super) fn may_match(
    state: &dyn Session,
    table: &Table,
    files: Vec<LiveFile>,
    filters: &[Expr],
) -> Result<Vec<LiveFile>> {
    let table = IcebergTable::new(table, table.metadata.current_schema(), files)?;
    Ok(table.prune(state, filters)?.into_iter().cloned().collect())
}

/// Lets a session find the store of a table's file.
pub(super) fn register_store(session: &SessionContext, table: &Table, file: &LiveFile) -> Result<()> {
    let url = url(file.data().file_path())?;
    let (store, _) = table.io.storage.resolve(&url)?;
    session.register_object_store(&url, store);
    Ok(())
}

fn find(metadata: &TableMetadata, id: i64) -> Result<&SnapshotRef> {
    metadata.snapshot_by_id(id).ok_or_else(|| {
        let known = metadata.snapshots().len();
        Error::not_found(format!("expected one of the table's {known} snapshots, found `{id}`"))
    })
}

/// The files that came in the snapshots after `after` up to `to`.
async fn added(table: &Table, after: Option<i64>, to: i64) -> Result<Vec<LiveFile>> {
    let metadata = &table.metadata;
    find(metadata, to)?;
    if let Some(after) = after {
        find(metadata, after)?;
    }
    let mut files = Vec::new();
    let mut next = after;
    for snapshot in ancestors(metadata, Some(to)) {
        if Some(snapshot.snapshot_id()) == after {
            next = None;
            break;
        }
        match snapshot.summary().operation {
            Operation::Append => {}
            Operation::Replace => continue,
            ref other => {
                return Err(Error::invalid(format!(
                    "expected snapshots that only add rows, found `{}` of the kind `{}`: read the table whole",
                    snapshot.snapshot_id(),
                    other.as_str()
                )));
            }
        }
        let live = live_files(&table.io, metadata, snapshot).await?;
        files.extend(live.into_iter().filter(|file| file.added_by(snapshot.snapshot_id())));
    }
    match next {
        None => Ok(files),
        Some(after) => Err(Error::invalid(format!("expected an ancestor of the snapshot `{to}`, found `{after}`"))),
    }
}

#[async_trait]
impl TableProvider for IcebergTable {
    fn schema(&self) -> ArrowSchemaRef {
        self.schema.table_schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn statistics(&self) -> Option<Statistics> {
        let all: Vec<_> = self.files.iter().map(|file| self.file_statistics(file)).collect();
        let merged = Statistics::try_merge_iter(&all, self.schema.file_schema()).ok()?;
        Some(self.with_address(merged))
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let kept = self.prune(state, filters)?;
        let kept = if filters.is_empty() { enough(kept, limit) } else { kept };
        let files_read = kept.len();
        let Some(store) = self.store_url(&kept)? else {
            return Ok(Arc::new(EmptyExec::new(project_schema(self.schema.table_schema(), projection)?)));
        };
        let files = kept.iter().map(|file| self.partitioned_file(file)).collect::<Result<Vec<_>>>();
        let files = files.map_err(|e| DataFusionError::External(Box::new(e)))?;
        let all: Vec<_> = kept.iter().map(|file| self.file_statistics(file)).collect();
        let all = self.with_address(Statistics::try_merge_iter(&all, self.schema.file_schema())?);
        let columns = self.schema.file_schema().fields();
        let names = self.ids.iter().copied().zip(columns.iter().map(|f| f.name().clone())).collect();
        let groups = FileGroup::new(files).split_files(state.config().target_partitions().max(1));
        let config = FileScanConfigBuilder::new(store, Arc::new(ParquetSource::new(self.schema.clone())))
            .with_file_groups(groups)
            .with_statistics(all)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_expr_adapter(Some(Arc::new(FieldIdAdapterFactory { names })))
            .build();
        let format = ParquetFormat::new().with_options(state.default_table_options().parquet);
        let plan = format.create_physical_plan(state, config).await?;
        let Some(config) =
            plan.downcast_ref::<DataSourceExec>().and_then(|exec| exec.data_source().downcast_ref::<FileScanConfig>())
        else {
            return Ok(plan);
        };
        let inner = match config.file_source().downcast_ref::<ParquetSource>() {
            Some(parquet) if self.is_addressed() => Arc::new(AddressedSource::new(parquet.clone())),
            _ => config.file_source().clone(),
        };
        let source = PrunedSource { inner, files_read, files_total: self.files.len() };
        let config = FileScanConfigBuilder::from(config.clone()).with_source(Arc::new(source)).build();
        Ok(DataSourceExec::from_data_source(config))
    }
}

impl IcebergTable {
    fn new(table: &Table, iceberg_schema: &Schema, files: Vec<LiveFile>) -> Result<Self> {
        let schema = schema::without_ids(&*schema::arrow_schema(iceberg_schema)?);
        let ids = iceberg_schema.as_struct().fields().iter().map(|f| f.id).collect();
        Ok(Self { schema: TableSchema::new(schema, Vec::new()), ids, files, storage: table.io.storage.clone() })
    }

    /// The same rows with their addresses: the location is constant in a file, the place comes from the reader.
    fn addressed(self) -> Result<Self> {
        let columns = self.schema.file_schema();
        address::check_names(columns)?;
        let fields = columns.fields().iter().cloned().chain([Arc::new(address::pos_field())]);
        let schema = TableSchema::new(
            Arc::new(ArrowSchema::new(fields.collect::<Fields>())),
            vec![Arc::new(address::file_field())],
        );
        Ok(Self { schema, ..self })
    }

    fn is_addressed(&self) -> bool {
        !self.schema.table_partition_cols().is_empty()
    }

    /// What the manifest knows of the columns that are read from a file.
    fn file_statistics(&self, file: &LiveFile) -> Statistics {
        statistics(file.data(), self.schema.file_schema(), &self.ids)
    }

    /// Statistics that also have the columns which are constant in a file.
    fn with_address(&self, mut statistics: Statistics) -> Statistics {
        let more = self.schema.table_partition_cols().iter().map(|_| ColumnStatistics::new_unknown());
        statistics.column_statistics.extend(more);
        statistics
    }

    /// The files that may hold rows which the filters let pass.
    fn prune(&self, state: &dyn Session, filters: &[Expr]) -> datafusion::common::Result<Vec<&LiveFile>> {
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(self.files.iter().collect()) };
        let columns = self.schema.table_schema();
        let schema = DFSchema::try_from(columns.as_ref().clone())?;
        let filter = state.create_physical_expr(filter, &schema)?;
        // What can't prune is applied above the scan all the same.
        let predicate = match PruningPredicate::try_new(filter, columns.clone()) {
            Ok(predicate) if !predicate.always_true() => predicate,
            Ok(_) => return Ok(self.files.iter().collect()),
            Err(error) => {
                tracing::debug!(%error, "a filter prunes no files");
                return Ok(self.files.iter().collect());
            }
        };
        let ids: HashMap<_, _> =
            columns.fields().iter().zip(&self.ids).map(|(field, id)| (field.name().clone(), *id)).collect();
        let keep = predicate.prune(&Files { files: &self.files, schema: columns, ids: &ids })?;
        Ok(self.files.iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect())
    }

    /// The store of all files; `None` without files.
    fn store_url(&self, files: &[&LiveFile]) -> datafusion::common::Result<Option<ObjectStoreUrl>> {
        let Some(first) = files.first() else { return Ok(None) };
        let location = first.data().file_path();
        let url = url(location).map_err(|e| DataFusionError::External(Box::new(e)))?;
        ObjectStoreUrl::parse(&url[..url::Position::BeforePath]).map(Some)
    }

    fn partitioned_file(&self, file: &LiveFile) -> Result<PartitionedFile> {
        let data = file.data();
        let (_, path) = self.storage.resolve(&url(data.file_path())?)?;
        // Data files never change, so a constant time keeps what the caches know of them.
        let meta = ObjectMeta {
            location: path,
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: data.file_size_in_bytes(),
            e_tag: None,
            version: None,
        };
        let mut file_of_scan = PartitionedFile::new_from_meta(meta);
        if self.is_addressed() {
            file_of_scan.partition_values = vec![ScalarValue::Utf8(Some(data.file_path().to_owned()))];
        }
        Ok(file_of_scan.with_statistics(Arc::new(self.file_statistics(file))))
    }
}

/// The first files that hold `limit` rows.
fn enough(files: Vec<&LiveFile>, limit: Option<usize>) -> Vec<&LiveFile> {
    let Some(limit) = limit else { return files };
    let mut rows = 0;
    let mut open = |file: &&LiveFile| {
        let more = rows < limit as u64;
        rows += file.data().record_count();
        more
    };
    files.into_iter().take_while(|file| open(file)).collect()
}
