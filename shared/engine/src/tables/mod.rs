//! File tables: the folders of CSV, JSON and Parquet files that the catalog describes, as DataFusion tables.
//!
//! A scan asks the catalog for the partitions that the filters leave, drops those that only the filters themselves can rule out,
//! lists the folders of the rest, and hands their files to DataFusion's own readers. Nothing is listed before a filter could
//! spare it.

mod files;
mod parquet;
mod partitions;
mod rows;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::listing::helpers::expr_applicable_for_cols;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder};
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

use self::files::TableFile;
use self::parquet::{Footer, parquet_source};
use self::rows::{RowFiles, RowFormat};
use format::csv::decode::CsvTable;
use format::folders;
use format::listing::TableFiles;
use format::records::Source;
use format::{Compression, CsvFormat, Encoding, FileFormat as Format, JsonFormat};
use shared::catalog::{Catalog, Partition, StorageDescriptor, Table};
use shared::model::name::to_column_name;
use shared::model::{Column, TableName};
use shared::storage::Storage;
use shared::{Error, Result};

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
    files: TableFiles,
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
        table.check()?;
        let format = Format::from_table(&table.input)?;
        let files = TableFiles::of(&table.input)?;
        if table.input.storage.columns.is_empty() && table.input.partition_keys.is_empty() {
            return Err(Error::invalid(format!("table `{}` has no columns in the catalog", table.input.name)));
        }
        let file_schema = Schema::new(fields(&table.input.storage.columns, format.encoding == Encoding::Parquet));
        let keys = fields(&table.input.partition_keys, false);
        let schema = TableSchema::builder(Arc::new(file_schema)).with_table_partition_cols(keys).build();
        Ok(Self { table, format, files, schema, only, catalog, storage, log })
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
                None => files::listed(&self.storage, &self.files, vec![(folder, Vec::new())]).await,
            };
        }
        let keys = self.schema.table_partition_cols();
        let asked = partitions::asked(keys, filters);
        let given = self.catalog.list_partitions(name, &asked).await?;
        let total = asked.is_empty().then_some(given.len());
        if self.only.is_none() {
            self.check_left_out(&given, filters).await?;
        }
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
            None => files::listed(&self.storage, &self.files, folders).await,
        }
    }

    /// # Errors
    /// `Invalid`, naming it, for a file that a crawl left out and that lies in none of the partitions, unless the filters leave out
    /// the partition that it would be in.
    async fn check_left_out(&self, partitions: &[Partition], filters: &[Expr]) -> Result<()> {
        let name = &self.table.input.name;
        let folders =
            partitions.iter().map(|p| files::folder(&p.storage.location, name)).collect::<Result<Vec<_>>>()?;
        for left_out in self.files.left_out_beside(&folders)? {
            if self.may_match(&left_out.folder, filters) {
                self.files.refuse(&self.storage, &left_out).await?;
            }
        }
        Ok(())
    }

    /// Whether rows of a folder in the table, by its first levels, may be in the answer. No filter can rule out values that are none
    /// of the keys' types.
    fn may_match(&self, folder: &str, filters: &[Expr]) -> bool {
        let keys = &self.table.input.partition_keys;
        let levels = folders::segments(folder);
        let levels = levels.get(..keys.len()).unwrap_or(&levels).join("/");
        let Ok(values) = folders::values_under(keys, &levels) else { return true };
        let partition = Partition { values, storage: StorageDescriptor::default(), parameters: BTreeMap::new() };
        let keys = self.schema.table_partition_cols();
        partitions::surviving(&self.table.input.name, keys, vec![partition], filters)
            .map_or(true, |kept| !kept.is_empty())
    }

    /// One scan of files of one store and codec; of Parquet files, one for each way in which they name the columns.
    async fn scan_files(
        &self,
        state: &dyn Session,
        group: FileSet,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DfResult<Vec<Arc<dyn ExecutionPlan>>> {
        let source = match &self.format.encoding {
            Encoding::Parquet => return self.scan_parquet(state, group, projection, limit).await,
            Encoding::Csv(csv) => self.csv_source(csv),
            Encoding::Json(json) => RowFiles::new(
                RowFormat::Json(Arc::new(self.sources())),
                self.schema.clone(),
                *json == JsonFormat::Lines,
            ),
        };
        let statistics = Statistics::new_unknown(self.schema.table_schema());
        let target = state.config_options().execution.target_partitions;
        let config = FileScanConfigBuilder::new(group.store, Arc::new(source))
            .with_file_groups(FileGroup::new(group.files).split_files(target))
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .with_file_compression_type(rows::datafusion_compression(group.compression))
            .build();
        Ok(vec![DataSourceExec::from_data_source(config)])
    }

    async fn scan_parquet(
        &self,
        state: &dyn Session,
        group: FileSet,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> DfResult<Vec<Arc<dyn ExecutionPlan>>> {
        files::forget_changed_footers(state, &group.files);
        let footers = parquet::footers(state, &group.store, &group.files).await?;
        let mut alike: BTreeMap<Vec<String>, Vec<(PartitionedFile, Footer)>> = BTreeMap::new();
        let sources = self.sources();
        for (file, footer) in group.files.into_iter().zip(footers) {
            alike.entry(names_in(&footer.schema, &sources)).or_default().push((file, footer));
        }
        let execution = &state.config_options().execution;
        let mut plans = Vec::with_capacity(alike.len());
        for (names, files) in alike {
            let schema = renamed(&self.schema, &names);
            let (files, footers): (Vec<_>, Vec<_>) = files.into_iter().unzip();
            let files = files::with_statistics(state, &self.table, &schema, files, &footers)?;
            let groups = FileGroup::new(files).split_files(execution.target_partitions);
            let statistics = files::merged_statistics(&groups, schema.table_schema())?;
            let source = parquet_source(state, &group.store, schema)?;
            let config = FileScanConfigBuilder::new(group.store.clone(), source)
                .with_file_groups(groups)
                .with_statistics(statistics)
                .with_batch_size(parquet::batch_rows(&footers, execution.batch_size.get()))
                .with_projection_indices(projection.cloned())?
                .with_limit(limit)
                .build();
            plans.push(name_columns(DataSourceExec::from_data_source(config), &self.schema, projection)?);
        }
        Ok(plans)
    }

    fn csv_source(&self, csv: &CsvFormat) -> RowFiles {
        let input = &self.table.input;
        let table = CsvTable {
            format: csv.clone(),
            columns: input.storage.columns.clone(),
            keys: input.partition_keys.iter().map(|key| key.name.clone()).collect(),
        };
        // Where a field may hold line breaks, a part of a file can begin only after all before was looked at, which takes too long
        // over a network.
        let splittable = csv.quote.is_none() || !self.is_remote();
        RowFiles::new(RowFormat::Csv(Arc::new(table)), self.schema.clone(), splittable)
    }

    fn is_remote(&self) -> bool {
        self.table.input.storage.location.starts_with("s3:")
    }

    /// The columns with their names in the files: the `mapping.{column}` of the serde.
    fn sources(&self) -> Vec<Source> {
        let mapped = &self.table.input.storage.serde_parameters;
        let source = |column: &Column| Source {
            name: column.name.clone(),
            key: mapped.get(&format!("mapping.{}", column.name)).unwrap_or(&column.name).clone(),
            ty: column.ty.clone(),
        };
        self.table.input.storage.columns.iter().map(source).collect()
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
        let files = self.files(&pruning).await?;
        let mut plans = Vec::new();
        for group in self.grouped(files).await? {
            plans.extend(self.scan_files(state, group, projection, limit).await?);
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

/// The names of the columns in a file of such a schema: that which the crawl saw, else one that differs in case only, else one that
/// is the column's but for what names can't hold. What the file does not have keeps its name.
fn names_in(found: &Schema, columns: &[Source]) -> Vec<String> {
    let fields = found.fields();
    let name = |column: &Source| {
        let near = |is: &dyn Fn(&str) -> bool| {
            let other = |name: &str| columns.iter().any(|c| c.key == name);
            fields.iter().map(|f| f.name()).find(|name| !other(name) && is(name))
        };
        let exact = fields.iter().map(|f| f.name()).find(|name| **name == column.key);
        let lower = column.key.to_lowercase();
        let found = exact
            .or_else(|| near(&|name| name.to_lowercase() == lower))
            .or_else(|| near(&|name| to_column_name(name) == column.name));
        found.unwrap_or(&column.key).clone()
    };
    columns.iter().map(name).collect()
}
