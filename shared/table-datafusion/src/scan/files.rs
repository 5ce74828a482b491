//! Some files of a table as a DataFusion table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema as ArrowSchema, SchemaRef as ArrowSchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{ColumnStatistics, DFSchema, DataFusionError, ScalarValue, Statistics, project_schema};
use datafusion::datasource::TableType;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileGroup, FileScanConfig, FileScanConfigBuilder, FileSource, ParquetSource,
};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use datafusion::physical_plan::union::UnionExec;
use iceberg::spec::{DataFileFormat, ManifestFile, NameMapping, NestedFieldRef, Schema, TableMetadata};
use object_store::ObjectMeta;

use super::lineage::{FIRST_ID, SEQUENCE, STORED_ID, STORED_UPDATED};
use super::order;
use crate::address::{self, AddressedSource};
use crate::deletes::{DeletedPlaces, EqualityColumn, EqualityDeletes, Loader, ScopeUse};
use crate::field_id::{FieldIdAdapterFactory, name_mapping};
use crate::floats::{floating, on_values};
use crate::footers::FooterReaders;
use crate::prune::{Files, Manifests, add_constants, statistics};
use crate::source::PrunedSource;
use crate::transcode::{Foreign, Transcoder, TranscodingReaders};
use shared::{Error, Result};
use table::io::Io;
use table::lineage;
use table::live::{LiveFile, files_of, live_manifests};
use table::{Table, schema};

type DfResult<T> = datafusion::common::Result<T>;

/// The column that tells the files of a scan with equality deletes apart.
const NUMBER: &str = "file number";

/// Some files of a table, as DataFusion reads them.
#[derive(Debug)]
pub(super) struct IcebergTable {
    /// The table's columns, and those of the address if rows have one.
    schema: TableSchema,
    /// The fields of the table's columns, in their order, and their ids.
    fields: Vec<NestedFieldRef>,
    ids: Vec<i32>,
    mapping: Option<Arc<NameMapping>>,
    rows: Rows,
    metadata: Arc<TableMetadata>,
    io: Io,
    /// Whether rows have what their file knows of their lineage.
    has_lineage: bool,
}

/// Where the files come from.
#[derive(Debug)]
pub(super) enum Rows {
    Files(Vec<LiveFile>),
    /// All of a snapshot. Its manifests are read when a query's filters are known: they rule out whole manifests.
    Snapshot(Arc<Vec<ManifestFile>>),
}

/// Files that one Parquet scan reads.
struct Part<'a> {
    schema: TableSchema,
    /// The fields of the columns that are sought in the files, by the columns' names.
    fields: HashMap<String, NestedFieldRef>,
    files: Vec<&'a LiveFile>,
    /// Files that there are before filters rule some out.
    files_total: usize,
    projection: Option<Vec<usize>>,
    limit: Option<usize>,
    /// Whether rows carry the number of their file.
    numbered: bool,
}

#[async_trait]
impl TableProvider for IcebergTable {
    fn schema(&self) -> ArrowSchemaRef {
        self.schema.table_schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> DfResult<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let predicate = self.predicate(state, filters)?;
        let (found, files_total) = self.found(predicate.as_ref()).await?;
        let kept = self.prune(predicate.as_ref(), &found);
        let kept = if filters.is_empty() { enough(kept, limit) } else { kept };
        let loader = self.loader(state, &kept)?;
        let mut plans = Vec::new();
        for (store, files) in by_store(&self.io, kept)? {
            let (compared, plain): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| !file.equality().is_empty());
            if !plain.is_empty() {
                let part = Part {
                    schema: self.schema.clone(),
                    fields: self.named_fields(),
                    files: plain,
                    projection: projection.cloned(),
                    limit,
                    files_total,
                    numbered: false,
                };
                plans.push(self.parquet(state, store.clone(), part, &loader).await?);
            }
            if !compared.is_empty() {
                plans.push(self.compared(state, store, (compared, files_total), projection, &loader).await?);
            }
        }
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(project_schema(self.schema.table_schema(), projection)?))),
            1 => Ok(plans.swap_remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}

impl IcebergTable {
    pub(super) fn new(table: &Table, iceberg_schema: &Schema, rows: Rows) -> Result<Self> {
        let schema = schema::without_ids(&*schema::arrow_schema(iceberg_schema)?);
        let fields = iceberg_schema.as_struct().fields().to_vec();
        let ids = fields.iter().map(|field| field.id).collect();
        let mapping = name_mapping(table.metadata())?;
        let (metadata, io) = (table.metadata().clone(), table.io().clone());
        Ok(Self { schema: schema.into(), fields, ids, mapping, rows, metadata, io, has_lineage: false })
    }

    /// The same rows with their addresses: the location is constant in a file, the place comes from the reader.
    pub(super) fn addressed(self) -> Result<Self> {
        let columns = self.schema.file_schema();
        address::check_names(columns)?;
        let fields = columns.fields().iter().cloned().chain([Arc::new(address::pos_field())]);
        let schema = TableSchema::builder(Arc::new(ArrowSchema::new(fields.collect::<Fields>())))
            .with_table_partition_cols(vec![Arc::new(address::file_field())])
            .build();
        Ok(Self { schema, ..self })
    }

    /// The same rows with text and binary as views, which Parquet is decoded to without a copy.
    pub(super) fn with_views(self) -> Self {
        let view = |field: &FieldRef| match field.data_type() {
            DataType::Utf8 => Arc::new(Field::clone(field).with_data_type(DataType::Utf8View)),
            DataType::Binary => Arc::new(Field::clone(field).with_data_type(DataType::BinaryView)),
            _ => field.clone(),
        };
        let columns = self.schema.file_schema().fields().iter().map(view).collect::<Fields>();
        let schema = TableSchema::builder(Arc::new(ArrowSchema::new(columns)))
            .with_table_partition_cols(self.schema.table_partition_cols().clone())
            .build();
        Self { schema, ..self }
    }

    /// The same rows with their addresses, what their file holds of their lineage, and what they inherit it from.
    pub(super) fn with_stored_lineage(self) -> Result<Self> {
        lineage::check_names(self.schema.file_schema())?;
        let addressed = self.addressed()?;
        let long = |name: &str| Arc::new(Field::new(name, DataType::Int64, true));
        let columns = addressed.schema.file_schema().fields().iter().cloned();
        let columns = columns.chain([STORED_ID, STORED_UPDATED].map(long)).collect::<Fields>();
        let constants = addressed.schema.table_partition_cols().iter().cloned();
        let constants: Fields = constants.chain([FIRST_ID, SEQUENCE].map(long)).collect();
        let schema =
            TableSchema::builder(Arc::new(ArrowSchema::new(columns))).with_table_partition_cols(constants).build();
        Ok(Self { schema, has_lineage: true, ..addressed })
    }

    fn is_addressed(&self) -> bool {
        !self.schema.table_partition_cols().is_empty()
    }

    fn named_fields(&self) -> HashMap<String, NestedFieldRef> {
        let own = self.fields.iter().map(|field| (field.name.clone(), field.clone()));
        let stored = [STORED_ID, STORED_UPDATED].map(str::to_owned).into_iter().zip(lineage::fields());
        own.chain(stored.filter(|_| self.has_lineage)).collect()
    }

    /// What the manifest knows of the columns that are read from a file.
    fn file_statistics(&self, file: &LiveFile, schema: &TableSchema) -> Statistics {
        let known = statistics(file.data(), schema.file_schema(), &self.ids);
        if file.deletes().is_some() { known.to_inexact() } else { known }
    }

    /// What the filters say of files; `None` when that is nothing.
    fn predicate(&self, state: &dyn Session, filters: &[Expr]) -> DfResult<Option<PruningPredicate>> {
        let Some(filter) = conjunction(filters.iter().cloned()) else { return Ok(None) };
        let filter = on_values(filter)?;
        let columns = self.schema.table_schema();
        let schema = DFSchema::try_from(columns.as_ref().clone())?;
        let filter = state.create_physical_expr(filter, &schema)?;
        // What can't prune is applied above the scan all the same.
        match PruningPredicateBuilder::new().with_file_schema(columns.clone()).try_build(filter) {
            Ok(predicate) => Ok(Some(predicate).filter(|predicate| !predicate.always_true())),
            Err(error) => {
                tracing::debug!(%error, "a filter prunes no files");
                Ok(None)
            }
        }
    }

    /// Field ids of the columns by name.
    fn ids_by_name(&self) -> HashMap<String, i32> {
        self.fields.iter().map(|field| (field.name.clone(), field.id)).collect()
    }

    /// The files, without those whose whole manifest the predicate rules out, and how many there are with them.
    async fn found(&self, predicate: Option<&PruningPredicate>) -> DfResult<(Vec<LiveFile>, usize)> {
        let list = match &self.rows {
            Rows::Files(files) => return Ok((files.clone(), files.len())),
            Rows::Snapshot(list) => list,
        };
        let (data, deletes) = live_manifests(list);
        let schema = self.schema.table_schema();
        let kept = match predicate {
            Some(predicate) => {
                let ids = self.ids_by_name();
                let known = Manifests { manifests: &data, metadata: &self.metadata, schema, ids: &ids };
                let keep = kept(predicate, &known);
                data.iter().zip(keep).filter_map(|(manifest, keep)| keep.then_some(*manifest)).collect()
            }
            None => data.clone(),
        };
        let files = files_of(&self.io, &kept, &deletes).await?;
        let total = files.len() + listed(&data) - listed(&kept);
        Ok((files, total))
    }

    /// Those of `files` that may hold rows which all filters let pass.
    pub(super) fn may_match(
        &self,
        state: &dyn Session,
        files: &[LiveFile],
        filters: &[Expr],
    ) -> DfResult<Vec<LiveFile>> {
        let predicate = self.predicate(state, filters)?;
        Ok(self.prune(predicate.as_ref(), files).into_iter().cloned().collect())
    }

    fn prune<'a>(&self, predicate: Option<&PruningPredicate>, files: &'a [LiveFile]) -> Vec<&'a LiveFile> {
        let Some(predicate) = predicate else { return files.iter().collect() };
        let (ids, schema) = (self.ids_by_name(), self.schema.table_schema());
        let keep = kept(predicate, &Files { files, schema, ids: &ids });
        files.iter().zip(keep).filter_map(|(file, keep)| keep.then_some(file)).collect()
    }

    /// What reads the deletes of these files; `None` when they have none.
    fn loader(&self, state: &dyn Session, files: &[&LiveFile]) -> Result<Option<Arc<Loader>>> {
        let mut wanted = HashSet::new();
        let mut columns: HashMap<i32, EqualityColumn> = HashMap::new();
        let deleted = files.iter().filter_map(|file| Some((file, file.deletes()?)));
        for (file, deletes) in deleted {
            wanted.insert(file.data().file_path().to_owned());
            for id in deletes.equality.iter().flat_map(|scope| &scope.ids) {
                if !columns.contains_key(id) {
                    columns.insert(*id, self.equality_column(*id)?);
                }
            }
        }
        if wanted.is_empty() {
            return Ok(None);
        }
        let (io, runtime) = (self.io.clone(), state.runtime_env().clone());
        Ok(Some(Arc::new(Loader::new(io, runtime, wanted, columns))))
    }

    /// A column that deletes compare, which the table may have dropped since.
    fn equality_column(&self, id: i32) -> Result<EqualityColumn> {
        if let Some(place) = self.ids.iter().position(|known| *known == id) {
            let field = self.schema.file_schema().field(place);
            return Ok(EqualityColumn { name: field.name().clone(), ty: field.data_type().clone() });
        }
        let field = self.dropped_field(id)?;
        let name = format!("{} (dropped field {id})", field.name);
        Ok(EqualityColumn { name, ty: schema::arrow_type(&field.field_type)? })
    }

    fn dropped_field(&self, id: i32) -> Result<NestedFieldRef> {
        let schemas = self.metadata.schemas_iter();
        let field = schemas.filter_map(|schema| schema.as_struct().field_by_id(id)).last().cloned();
        field.ok_or_else(|| {
            Error::invalid(format!(
                "expected equality deletes by top-level columns of the table, found some by the field id {id}"
            ))
        })
    }

    /// A scan of files with equality deletes: the columns that are compared are read besides those that are wanted.
    async fn compared(
        &self,
        state: &dyn Session,
        store: ObjectStoreUrl,
        (files, files_total): (Vec<&LiveFile>, usize),
        projection: Option<&Vec<usize>>,
        loader: &Option<Arc<Loader>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let Some(reader) = loader else {
            return Err(DataFusionError::from(Error::bug("expected a reader of the deletes")));
        };
        let ids: HashSet<i32> = files.iter().flat_map(|f| f.equality()).flat_map(|s| s.ids.iter().copied()).collect();
        let mut sought = self.named_fields();
        let mut columns: Vec<FieldRef> = self.schema.file_schema().fields().to_vec();
        for id in ids.iter().filter(|id| !self.ids.contains(id)) {
            if let Some(column) = reader.column(*id) {
                sought.insert(column.name.clone(), self.dropped_field(*id)?);
                columns.push(Arc::new(Field::new(&column.name, column.ty.clone(), true)));
            }
        }
        let number: FieldRef = Arc::new(Field::new(NUMBER, DataType::Int32, false));
        let constants: Fields = self.schema.table_partition_cols().iter().cloned().chain([number]).collect();
        let schema =
            TableSchema::builder(Arc::new(ArrowSchema::new(columns))).with_table_partition_cols(constants).build();
        let read = schema.table_schema();
        let output = project_schema(self.schema.table_schema(), projection)?;
        let mut wanted = output.fields().iter().map(|f| read.index_of(f.name())).collect::<Result<Vec<_>, _>>()?;
        let width = wanted.len();
        let mut places: HashMap<i32, usize> = HashMap::new();
        for id in ids {
            let column = read.index_of(reader.column(id).map_or("", |column| &column.name))?;
            let place = wanted.iter().position(|known| *known == column).unwrap_or_else(|| {
                wanted.push(column);
                wanted.len() - 1
            });
            places.insert(id, place);
        }
        wanted.push(read.index_of(NUMBER)?);
        let uses = files.iter().map(|file| {
            let scopes = file.equality().iter().map(|scope| ScopeUse {
                scope: scope.clone(),
                columns: scope.ids.iter().filter_map(|id| places.get(id).copied()).collect(),
                sequence: file.sequence(),
            });
            scopes.collect::<Vec<_>>()
        });
        let uses = Arc::new(uses.collect::<Vec<_>>());
        let part =
            Part { schema, fields: sought, files, files_total, projection: Some(wanted), limit: None, numbered: true };
        let plan = self.parquet(state, store, part, loader).await?;
        Ok(Arc::new(EqualityDeletes::try_new(plan, width, uses, reader.clone())?))
    }

    /// DataFusion's scan of Parquet files, without the rows that are deleted by their place.
    async fn parquet(
        &self,
        state: &dyn Session,
        store: ObjectStoreUrl,
        part: Part<'_>,
        loader: &Option<Arc<Loader>>,
    ) -> DfResult<Arc<dyn ExecutionPlan>> {
        let files_read = part.files.len();
        let is_foreign = part.files.iter().any(|file| Foreign::of(file.data()).is_some());
        let suspects = suspects(&part);
        let known: Vec<_> = part.files.iter().map(|file| self.file_statistics(file, &part.schema)).collect();
        let all = with_constants(&part.schema, Statistics::try_merge_iter(&known, part.schema.file_schema())?);
        let files =
            part.files.iter().zip(known).zip(0..).map(|((file, known), number)| {
                self.partitioned_file(file, known, part.numbered.then_some(number), loader)
            });
        let files = files.collect::<Result<Vec<_>>>()?;
        let partitions = state.config().target_partitions().max(1);
        let columns = part.schema.table_schema();
        let ordered = order::common(&self.metadata, &self.fields, columns, &part.files)
            .and_then(|order| order::grouped(order, columns, &files, partitions));
        let (groups, order) = match ordered {
            Some((groups, order)) => (groups, vec![order]),
            None => (FileGroup::new(files).split_files(partitions), Vec::new()),
        };
        let config = FileScanConfigBuilder::new(store, Arc::new(ParquetSource::new(part.schema)))
            .with_file_groups(groups)
            .with_output_ordering(order)
            .with_statistics(all)
            .with_projection_indices(part.projection)?
            .with_limit(part.limit)
            .with_expr_adapter(Some(Arc::new(FieldIdAdapterFactory::new(part.fields, self.mapping.clone()))))
            .build();
        let format = ParquetFormat::new().with_options(state.default_table_options().parquet);
        let plan = format.create_physical_plan(state, config).await?;
        let config =
            plan.downcast_ref::<DataSourceExec>().and_then(|e| e.data_source().downcast_ref::<FileScanConfig>());
        let Some((config, parquet)) =
            config.and_then(|config| Some((config, config.file_source().downcast_ref::<ParquetSource>()?)))
        else {
            return Err(DataFusionError::from(Error::bug("expected a scan of Parquet files")));
        };
        let readers = FooterReaders::new(state.runtime_env(), &config.object_store_url)?;
        let parquet = parquet.clone().with_parquet_file_reader_factory(Arc::new(readers));
        let parquet = if is_foreign { self.transcoded(state, &parquet)? } else { parquet };
        let readers = parquet.parquet_file_reader_factory().filter(|_| loader.is_some()).cloned();
        let inner: Arc<dyn FileSource> = match self.is_addressed() {
            true => Arc::new(AddressedSource::new(parquet)),
            false => Arc::new(parquet),
        };
        let source = PrunedSource::new(inner).with_suspects(suspects).with_files(files_read, part.files_total);
        let source = source.with_readers(readers);
        let source = if is_foreign { source.whole() } else { source };
        let config = FileScanConfigBuilder::from(config.clone()).with_source(Arc::new(source)).build();
        Ok(DataSourceExec::from_data_source(config))
    }

    /// The same source, reading files in Avro and ORC too.
    fn transcoded(&self, state: &dyn Session, parquet: &ParquetSource) -> DfResult<ParquetSource> {
        let inner = parquet.parquet_file_reader_factory().cloned();
        let inner = inner.ok_or_else(|| DataFusionError::from(Error::bug("expected a reader of Parquet files")))?;
        let readers = TranscodingReaders {
            inner,
            transcoder: Transcoder::of(&self.io),
            storage: self.io.storage().clone(),
            runtime: state.runtime_env().clone(),
            is_mapped: self.mapping.is_some(),
        };
        Ok(parquet.clone().with_parquet_file_reader_factory(Arc::new(readers)))
    }

    fn partitioned_file(
        &self,
        file: &LiveFile,
        mut known: Statistics,
        number: Option<i32>,
        loader: &Option<Arc<Loader>>,
    ) -> Result<PartitionedFile> {
        let data = file.data();
        let location = data.file_path();
        let foreign = Foreign::of(data);
        if data.file_format() != DataFileFormat::Parquet && foreign.is_none() {
            let found = data.file_format();
            return Err(Error::invalid(format!(
                "expected data files in Parquet, Avro or ORC, found `{found}` in `{location}`"
            )));
        }
        let (_, path) = self.io.storage().resolve(&self.io.url(location)?)?;
        // Data files never change, so a constant time keeps what the caches know of them.
        let meta = ObjectMeta {
            location: path,
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: data.file_size_in_bytes(),
            e_tag: None,
            version: None,
        };
        let mut partitioned = PartitionedFile::new_from_meta(meta);
        if let Some(foreign) = foreign {
            partitioned.extensions.insert(foreign);
        }
        if self.is_addressed() {
            partitioned.partition_values.push(ScalarValue::Utf8(Some(location.to_owned())));
        }
        if self.has_lineage {
            let first = file.first_row_id().and_then(|id| i64::try_from(id).ok());
            partitioned.partition_values.extend([first, Some(file.sequence())].map(ScalarValue::Int64));
        }
        partitioned.partition_values.extend(number.map(|number| ScalarValue::Int32(Some(number))));
        if let (Some(deletes), Some(loader)) = (file.deletes(), loader)
            && deletes.has_places()
        {
            let (deletes, loader) = (deletes.clone(), loader.clone());
            partitioned.extensions.insert(DeletedPlaces { location: location.to_owned(), deletes, loader });
        }
        add_constants(file, &self.fields, self.schema.file_schema(), &mut known);
        Ok(partitioned.with_statistics(Arc::new(known)))
    }
}

/// Which of the containers may hold rows that a predicate lets pass: all of them where it can't be told, as the filter is applied
/// above the scan all the same.
fn kept(predicate: &PruningPredicate, known: &impl PruningStatistics) -> Vec<bool> {
    match predicate.prune(known) {
        Ok(kept) => kept,
        Err(error) => {
            tracing::debug!(%error, "a filter prunes no files");
            vec![true; known.num_containers()]
        }
    }
}

/// The columns that may hold NaN in one of the files.
fn suspects(part: &Part<'_>) -> HashSet<String> {
    let known = |name: &str| {
        let field = part.fields.get(name).filter(|field| field.field_type.is_primitive());
        field.is_some_and(|field| part.files.iter().all(|f| f.data().nan_value_counts().get(&field.id) == Some(&0)))
    };
    floating(part.schema.table_schema()).filter(|name| !known(name)).map(str::to_owned).collect()
}

/// How many files manifests list, as far as they say.
fn listed(manifests: &[&ManifestFile]) -> usize {
    let counts = manifests.iter().flat_map(|manifest| [manifest.added_files_count, manifest.existing_files_count]);
    counts.flatten().map(|count| count as usize).sum()
}

/// Statistics that also have the columns which are constant in a file.
fn with_constants(schema: &TableSchema, mut statistics: Statistics) -> Statistics {
    let more = schema.table_partition_cols().iter().map(|_| ColumnStatistics::new_unknown());
    statistics.column_statistics.extend(more);
    statistics
}

/// Files apart by the store that holds them: those of one scan lie in one.
fn by_store<'a>(io: &Io, files: Vec<&'a LiveFile>) -> Result<Vec<(ObjectStoreUrl, Vec<&'a LiveFile>)>> {
    let mut stores: BTreeMap<String, Vec<&LiveFile>> = BTreeMap::new();
    for file in files {
        let url = io.url(file.data().file_path())?;
        let store = &url[..url::Position::BeforePath];
        match stores.get_mut(store) {
            Some(files) => files.push(file),
            None => drop(stores.insert(store.to_owned(), vec![file])),
        }
    }
    stores.into_iter().map(|(store, files)| Ok((ObjectStoreUrl::parse(store)?, files))).collect()
}

/// The first files that hold `limit` rows for certain.
fn enough(files: Vec<&LiveFile>, limit: Option<usize>) -> Vec<&LiveFile> {
    let Some(limit) = limit else { return files };
    let mut rows = 0;
    let mut open = |file: &&LiveFile| {
        let more = rows < limit as u64;
        if file.deletes().is_none() {
            rows += file.data().record_count();
        }
        more
    };
    files.into_iter().take_while(|file| open(file)).collect()
}
