//! File tables: the folders of CSV, JSON and Parquet files that the catalog describes, as DataFusion tables.
//!
//! A scan asks the catalog for the partitions that the filters leave, drops those that only the filters themselves can rule out,
//! lists the folders of the rest, and hands their files to DataFusion's own readers. Nothing is listed before a filter could
//! spare it.

mod csv;
mod files;
mod named;
mod partitions;

use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, JsonSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_expr::expressions::Column as ColumnExpr;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::union::UnionExec;
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};
use url::Url;

use self::csv::CsvFiles;
use self::files::TableFile;
use self::named::NamedFiles;
use crate::catalog::{Catalog, Table};
use crate::format::glue::FileFilter;
use crate::format::{Compression, Encoding, FileFormat as Format, JsonFormat};
use crate::model::{Column, TableName};
use crate::storage::Storage;
use crate::table::guarded;
use crate::{Error, Result};

type DfResult<T> = datafusion::common::Result<T>;

/// How many partitions of a table a query reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pruned {
    pub(super) table: TableName,
    pub(super) read: usize,
    /// `None` where the catalog was asked for some only.
    pub(super) total: Option<usize>,
}

/// What the scans of one query pruned.
#[derive(Debug, Clone, Default)]
pub(super) struct ScanLog(Arc<Mutex<Vec<Pruned>>>);

impl ScanLog {
    fn note(&self, pruned: Pruned) {
        let mut log = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !log.contains(&pruned) {
            log.push(pruned);
        }
    }

    pub(super) fn entries(&self) -> Vec<Pruned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A file table of the catalog, as one query sees it.
#[derive(Debug)]
pub(super) struct FileTable {
    table: Table,
    format: Format,
    filter: FileFilter,
    schema: TableSchema,
    /// Read instead of everything that lies in the table's folders.
    only: Option<Vec<Url>>,
    catalog: Arc<dyn Catalog>,
    storage: Storage,
    log: ScanLog,
}

impl FileTable {
    /// The table, or `only` some of its files.
    ///
    /// # Errors
    /// `Invalid` for a table of a format that is not read, or without columns.
    pub(super) fn new(
        table: Table,
        only: Option<Vec<Url>>,
        catalog: Arc<dyn Catalog>,
        storage: Storage,
        log: ScanLog,
    ) -> Result<Self> {
        let format = Format::from_table(&table.input)?;
        let filter = FileFilter::from_table(&table.input)?;
        if table.input.storage.columns.is_empty() && table.input.partition_keys.is_empty() {
            return Err(Error::invalid(format!("table `{}` has no columns in the catalog", table.input.name)));
        }
        let file_schema = Schema::new(fields(&table.input.storage.columns, format.encoding == Encoding::Parquet));
        let keys = fields(&table.input.partition_keys, false);
        let schema = TableSchema::builder(Arc::new(file_schema)).with_table_partition_cols(keys).build();
        Ok(Self { table, format, filter, schema, only, catalog, storage, log })
    }

    fn partition_names(&self) -> Vec<&str> {
        self.schema.table_partition_cols().iter().map(|f| f.name().as_str()).collect()
    }

    fn prunes_partitions(&self, filter: &Expr) -> bool {
        let names = self.partition_names();
        !names.is_empty() && expr_applicable_for_cols(&names, filter)
    }

    /// The surviving partitions' files, and what that spared, noted in the log.
    async fn files(&self, filters: &[Expr]) -> Result<Vec<TableFile>> {
        let name = &self.table.input.name;
        if self.schema.table_partition_cols().is_empty() {
            let folder = files::folder(&self.table.input.storage.location, name)?;
            return match &self.only {
                Some(only) => files::given(&self.storage, only, |_| Ok(Vec::new())).await,
                None => files::listed(&self.storage, &self.filter, vec![(folder, Vec::new())]).await,
            };
        }
        let keys = self.schema.table_partition_cols();
        let asked = partitions::asked(keys, filters);
        let given = self.catalog.list_partitions(name, &asked).await?;
        let total = asked.is_empty().then_some(given.len());
        let kept = partitions::surviving(name, keys, given, filters)?;
        self.log.note(Pruned { table: name.clone(), read: kept.len(), total });
        let folders = kept
            .into_iter()
            .map(|(partition, values)| Ok((files::folder(&partition.storage.location, name)?, values)))
            .collect::<Result<Vec<_>>>()?;
        match &self.only {
            Some(only) => {
                let within = |url: &Url| folders.iter().any(|(f, _)| url.as_str().starts_with(f.as_str()));
                let only: Vec<Url> = only.iter().filter(|u| within(u)).cloned().collect();
                files::given(&self.storage, &only, |url| {
                    let longest = folders
                        .iter()
                        .filter(|(folder, _)| url.as_str().starts_with(folder.as_str()))
                        .max_by_key(|(folder, _)| folder.as_str().len());
                    longest.map(|(_, values)| values.clone()).ok_or_else(|| {
                        Error::invalid(format!(
                            "table `{name}`: expected a file of one of its partitions, found `{url}`"
                        ))
                    })
                })
                .await
            }
            None => files::listed(&self.storage, &self.filter, folders).await,
        }
    }

    /// One scan of files of one store and codec.
    async fn scan_files(
        &self,
        state: &dyn Session,
        group: FileSet,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        if self.is_parquet() {
            files::forget_changed_footers(state, &group.files);
        }
        let names = self.source_names(state, &group).await?;
        let schema = renamed(&self.schema, &names);
        let files = match self.is_parquet() {
            true => files::with_statistics(state, &self.table, &schema, &group.store, group.files).await?,
            false => group.files,
        };
        let target = state.config_options().execution.target_partitions;
        let groups = FileGroup::new(files).split_files(target);
        let statistics = match self.is_parquet() {
            true => files::merged_statistics(&groups, schema.table_schema())?,
            false => Statistics::new_unknown(schema.table_schema()),
        };
        let source = self.source(schema, state);
        let config = FileScanConfigBuilder::new(group.store, source)
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_file_compression_type(group.compression.into())
            .build();
        let plan: Arc<dyn ExecutionPlan> = match self.is_parquet() {
            true => guarded(parquet_format(state).create_physical_plan(state, config).await?),
            false => DataSourceExec::from_data_source(config),
        };
        name_columns(plan, &self.schema, projection)
    }

    fn source(&self, schema: TableSchema, state: &dyn Session) -> Arc<dyn FileSource> {
        match &self.format.encoding {
            Encoding::Parquet => parquet_format(state).file_source(schema),
            Encoding::Csv(csv) => {
                Arc::new(NamedFiles::new(Arc::new(CsvFiles::new(csv.clone(), schema)), !csv.multiline))
            }
            Encoding::Json(json) => {
                let source = JsonSource::new(schema).with_newline_delimited(*json != JsonFormat::Array);
                Arc::new(NamedFiles::new(Arc::new(source), *json == JsonFormat::Lines))
            }
        }
    }

    fn is_parquet(&self) -> bool {
        self.format.encoding == Encoding::Parquet
    }

    /// The names of the columns in the files: the `mapping.{column}` of a JSON table's serde; in Parquet files, the column that has the name in other
    /// letters' case.
    async fn source_names(&self, state: &dyn Session, group: &FileSet) -> DfResult<Vec<String>> {
        let columns = &self.table.input.storage.columns;
        match (&self.format.encoding, group.files.first()) {
            (Encoding::Json(_), _) => {
                let mapped = &self.table.input.storage.serde_parameters;
                let name = |c: &Column| mapped.get(&format!("mapping.{}", c.name)).unwrap_or(&c.name).clone();
                Ok(columns.iter().map(name).collect())
            }
            (Encoding::Parquet, Some(file)) => {
                let store = state.runtime_env().object_store(&group.store)?;
                let meta = file.object_meta.clone();
                let doing = format!("reading `{}`", meta.location);
                let found = parquet_format(state).infer_schema(state, &store, &[meta]).await;
                let found = found.map_err(|e| files::external(Error::from(e).context(doing)))?;
                Ok(columns.iter().map(|c| name_in(&found, &c.name)).collect())
            }
            _ => Ok(columns.iter().map(|c| c.name.clone()).collect()),
        }
    }
}

/// Files that one scan can read.
struct FileSet {
    store: ObjectStoreUrl,
    compression: Compression,
    files: Vec<PartitionedFile>,
}

#[async_trait]
impl TableProvider for FileTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        let pushed = |filter: &&Expr| match self.prunes_partitions(filter) {
            true => TableProviderFilterPushDown::Exact,
            false => TableProviderFilterPushDown::Inexact,
        };
        Ok(filters.iter().map(pushed).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let pruning: Vec<Expr> = filters.iter().filter(|f| self.prunes_partitions(f)).cloned().collect();
        let files = self.files(&pruning).await.map_err(files::external)?;
        let mut plans = Vec::new();
        for group in self.grouped(files).await.map_err(files::external)? {
            plans.push(self.scan_files(state, group, projection, limit).await?);
        }
        match plans.len() {
            0 => {
                let schema = self.schema();
                let schema = projection.map_or(Ok(schema.as_ref().clone()), |p| schema.project(p))?;
                Ok(Arc::new(EmptyExec::new(Arc::new(schema))))
            }
            1 => Ok(plans.swap_remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}

impl FileTable {
    /// Files apart by store and codec, in order of their first file.
    async fn grouped(&self, files: Vec<TableFile>) -> Result<Vec<FileSet>> {
        let mut sets: Vec<FileSet> = Vec::new();
        for TableFile { url, file } in files {
            let compression = self.compression(&url).await?;
            let store = ObjectStoreUrl::parse(&url[..url::Position::BeforePath])?;
            match sets.iter_mut().find(|s| s.store == store && s.compression == compression) {
                Some(set) => set.files.push(file),
                None => sets.push(FileSet { store, compression, files: vec![file] }),
            }
        }
        Ok(sets)
    }

    /// What the name says, otherwise the table. Where the table says that it is compressed but the name has the ending of plain
    /// files, the first bytes decide: folders mix `a.csv` with `b.csv.gz`.
    async fn compression(&self, url: &Url) -> Result<Compression> {
        let told = self.format.compression_of(url.path());
        let plain = [".csv", ".tsv", ".txt", ".json", ".ndjson", ".jsonl"];
        if told == Compression::None || !plain.iter().any(|ending| url.path().ends_with(ending)) {
            return Ok(told);
        }
        Ok(Compression::of_bytes(&self.storage.get_range(url, 0..6).await?))
    }
}

/// Arrow fields; text in views where the reader makes them without a copy.
fn fields(columns: &[Column], views: bool) -> Vec<FieldRef> {
    let field = |column: &Column| {
        let ty = match (views, column.ty.to_arrow()) {
            (true, DataType::Utf8) => DataType::Utf8View,
            (true, DataType::Binary) => DataType::BinaryView,
            (_, other) => other,
        };
        Arc::new(Field::new(&column.name, ty, true))
    };
    columns.iter().map(field).collect()
}

/// The same schema under the names that the files use.
fn renamed(schema: &TableSchema, names: &[String]) -> TableSchema {
    let fields: Vec<FieldRef> = schema
        .file_schema()
        .fields()
        .iter()
        .zip(names)
        .map(|(field, name)| match field.name() == name {
            true => Arc::clone(field),
            false => Arc::new(Field::clone(field).with_name(name)),
        })
        .collect();
    TableSchema::builder(Arc::new(Schema::new(fields)))
        .with_table_partition_cols(schema.table_partition_cols().clone())
        .build()
}

/// Gives the columns of `plan` the table's names back, where the files have others.
fn name_columns(
    plan: Arc<dyn ExecutionPlan>,
    schema: &TableSchema,
    projection: Option<&Vec<usize>>,
) -> DfResult<Arc<dyn ExecutionPlan>> {
    let wanted = schema.table_schema();
    let wanted = projection.map_or(Ok(wanted.as_ref().clone()), |p| wanted.project(p))?;
    let found = plan.schema();
    if wanted.fields().iter().zip(found.fields()).all(|(w, f)| w.name() == f.name()) {
        return Ok(plan);
    }
    let expressions = found.fields().iter().zip(wanted.fields()).enumerate().map(|(i, (f, w))| {
        let column: Arc<dyn PhysicalExpr> = Arc::new(ColumnExpr::new(f.name(), i));
        ProjectionExpr { expr: column, alias: w.name().clone() }
    });
    Ok(Arc::new(ProjectionExec::try_new(expressions.collect::<Vec<_>>(), plan)?))
}

fn name_in(found: &Schema, column: &str) -> String {
    let fields = found.fields();
    let exact = fields.iter().find(|f| f.name() == column);
    let near = || fields.iter().find(|f| crate::model::name::to_identifier(f.name()) == column);
    exact.or_else(near).map_or_else(|| column.to_owned(), |f| f.name().clone())
}

fn parquet_format(state: &dyn Session) -> ParquetFormat {
    ParquetFormat::default().with_options(state.default_table_options().parquet)
}
