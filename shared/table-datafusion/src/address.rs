//! Rows with their address: the data file that holds a row, and its place there.
//!
//! DataFusion's own Parquet opener does not ask the reader for row numbers, so addressed scans have an opener of their own.
//! The numbers come from the reader and count all rows of the file: row groups that are pruned, ranges of a split file and
//! deleted rows don't shift them.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue, exec_err, internal_datafusion_err};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::{ParquetAccessPlan, RowGroupAccessPlanFilter};
use datafusion::datasource::physical_plan::{
    FileOpenFuture, FileOpener, FileScanConfig, FileSource, ParquetFileMetrics, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::simplifier::PhysicalExprSimplifier;
use datafusion::physical_expr::utils::reassign_expr_columns;
use datafusion::physical_expr_adapter::{PhysicalExprAdapterFactory, replace_columns_with_literals};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStore;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask, RowNumber};
use parquet::file::metadata::PageIndexPolicy;

/// The column with the location of the data file, as the manifest names it.
pub(super) const FILE: &str = "_file";
/// The column with the row's place in the file, from 0.
pub(super) const POS: &str = "_pos";

pub(super) fn file_field() -> Field {
    Field::new(FILE, DataType::Utf8, false)
}

pub(super) fn pos_field() -> Field {
    Field::new(POS, DataType::Int64, false)
}

/// A Parquet source whose files have the column [`POS`] besides their own.
#[derive(Clone)]
pub(super) struct AddressedSource {
    /// Keeps schema, projection, predicate and options.
    parquet: ParquetSource,
    batch_size: Option<usize>,
}

impl AddressedSource {
    pub(super) fn new(parquet: ParquetSource) -> Self {
        Self { parquet, batch_size: None }
    }

    fn around(&self, source: &Arc<dyn FileSource>) -> Result<Arc<dyn FileSource>> {
        let parquet = source.downcast_ref::<ParquetSource>().cloned();
        let parquet = parquet.ok_or_else(|| internal_datafusion_err!("expected a Parquet source"))?;
        Ok(Arc::new(Self { parquet, batch_size: self.batch_size }))
    }
}

impl FileSource for AddressedSource {
    fn create_file_opener(
        &self,
        _object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let missing = |what: &str| internal_datafusion_err!("expected {what} for an addressed scan, found none");
        let options = &self.parquet.table_parquet_options().global;
        let projection = self.parquet.projection().ok_or_else(|| missing("a projection"))?.clone();
        let table_schema = self.parquet.table_schema().clone();
        let output = Arc::new(projection.project_schema(table_schema.table_schema())?);
        Ok(Arc::new(AddressedOpener(Arc::new(Opening {
            partition,
            output,
            projection,
            table_schema,
            predicate: self.parquet.filter().filter(|_| options.pruning),
            readers: self.parquet.parquet_file_reader_factory().ok_or_else(|| missing("a reader"))?.clone(),
            adapters: base_config.expr_adapter_factory.clone().ok_or_else(|| missing("an adapter"))?,
            metrics: self.parquet.metrics().clone(),
            batch_size: self.batch_size.ok_or_else(|| missing("a batch size"))?,
            footer_hint: options.metadata_size_hint,
        }))))
    }

    fn table_schema(&self) -> &TableSchema {
        self.parquet.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_size: Some(batch_size), ..self.clone() })
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.parquet.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.parquet.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.parquet.metrics()
    }

    fn file_type(&self) -> &str {
        self.parquet.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parquet.fmt_extra(t, f)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.parquet.apply_expressions(f)
    }

    /// Filters prune row groups; rows are left to whoever asked.
    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let kept = vec![PushedDown::No; filters.len()];
        let pushed = self.parquet.try_pushdown_filters(filters, config)?;
        let answer = FilterPushdownPropagation::with_parent_pushdown_result(kept);
        match &pushed.updated_node {
            Some(source) => Ok(answer.with_updated_node(self.around(source)?)),
            None => Ok(answer),
        }
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let pushed = self.parquet.try_pushdown_projection(projection)?;
        pushed.map(|source| self.around(&source)).transpose()
    }
}

struct AddressedOpener(Arc<Opening>);

impl FileOpener for AddressedOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let opening = self.0.clone();
        Ok(Box::pin(async move { opening.rows(file).await }))
    }
}

/// What opening any file of a scan takes.
struct Opening {
    partition: usize,
    /// The columns that leave the scan.
    output: SchemaRef,
    projection: ProjectionExprs,
    table_schema: TableSchema,
    predicate: Option<Arc<dyn PhysicalExpr>>,
    readers: Arc<dyn ParquetFileReaderFactory>,
    adapters: Arc<dyn PhysicalExprAdapterFactory>,
    metrics: ExecutionPlanMetricsSet,
    batch_size: usize,
    footer_hint: Option<usize>,
}

impl Opening {
    async fn rows(&self, file: PartitionedFile) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let hint = file.metadata_size_hint.or(self.footer_hint);
        let mut reader: Box<dyn AsyncFileReader> =
            self.readers.create_reader(self.partition, file.clone(), hint, &self.metrics)?;
        let row_number = Arc::new(pos_field().with_extension_type(RowNumber));
        let options = ArrowReaderOptions::new()
            .with_page_index_policy(PageIndexPolicy::Skip)
            .with_virtual_columns(vec![row_number])?;
        let footer = ArrowReaderMetadata::load_async(&mut reader, options).await?;
        let physical = footer.schema().clone();
        let (projection, predicate) = self.adapted(&file, &physical)?;
        let plan = self.row_groups(&file, &footer, predicate)?;

        let wanted = projection.column_indices();
        let roots = footer.parquet_schema().root_schema().get_fields().len();
        let columns: Vec<_> = wanted.into_iter().filter(|index| *index < roots).collect();
        let mask = ProjectionMask::roots(footer.parquet_schema(), columns.iter().copied());
        // The reader gives the columns of the file in their order, then the row number.
        let read = Schema::new(
            (0..roots)
                .filter(|i| columns.contains(i))
                .chain([roots])
                .map(|i| physical.field(i).clone())
                .collect::<Vec<_>>(),
        );
        let projector = projection.try_map_exprs(|expr| reassign_expr_columns(expr, &read))?.make_projector(&read)?;

        let groups = plan.row_group_indexes();
        let selection = plan.into_overall_row_selection(footer.metadata().row_groups())?;
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(reader, footer)
            .with_projection(mask)
            .with_row_groups(groups)
            .with_batch_size(self.batch_size);
        if let Some(selection) = selection {
            builder = builder.with_row_selection(selection);
        }
        let output = self.output.clone();
        let rows = builder.build()?.map(move |batch| {
            let batch = projector.project_batch(&batch?)?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            Ok(RecordBatch::try_new_with_options(output.clone(), batch.columns().to_vec(), &options)?)
        });
        Ok(rows.boxed())
    }

    /// Projection and predicate over the columns that the file has.
    fn adapted(
        &self,
        file: &PartitionedFile,
        physical: &SchemaRef,
    ) -> Result<(ProjectionExprs, Option<Arc<dyn PhysicalExpr>>)> {
        let constants = self.table_schema.table_partition_cols().iter().map(|field| field.name().as_str());
        let mut constants: HashMap<&str, &ScalarValue> = constants.zip(&file.partition_values).collect();
        let columns = self.table_schema.file_schema().fields();
        let known = file.statistics.iter().flat_map(|known| known.column_statistics.iter().zip(columns));
        constants.extend(known.filter_map(|(known, field)| match (&known.min_value, &known.max_value) {
            (Precision::Exact(least), Precision::Exact(most))
                if least == most && known.null_count == Precision::Exact(0) =>
            {
                Some((field.name().as_str(), least))
            }
            _ => None,
        }));
        let adapter = self.adapters.create(self.table_schema.file_schema().clone(), physical.clone())?;
        let simplifier = PhysicalExprSimplifier::new(physical);
        let adapt = |expr| simplifier.simplify(adapter.rewrite(replace_columns_with_literals(expr, &constants)?)?);
        let predicate = self.predicate.clone().map(adapt).transpose()?;
        Ok((self.projection.clone().try_map_exprs(adapt)?, predicate))
    }

    /// The parts of the file that may hold rows which are wanted.
    fn row_groups(
        &self,
        file: &PartitionedFile,
        footer: &ArrowReaderMetadata,
        predicate: Option<Arc<dyn PhysicalExpr>>,
    ) -> Result<ParquetAccessPlan> {
        let groups = footer.metadata().row_groups();
        let all = match file.extensions.get::<ParquetAccessPlan>() {
            Some(plan) if plan.len() == groups.len() => plan.clone(),
            Some(plan) => return exec_err!("expected {} row groups, found {}", plan.len(), groups.len()),
            None => ParquetAccessPlan::new_all(groups.len()),
        };
        let mut kept = RowGroupAccessPlanFilter::new(all);
        if let Some(range) = &file.range {
            kept.prune_by_range(groups, range);
        }
        // What can't prune is applied above the scan all the same.
        let pruning = PruningPredicateBuilder::new().with_file_schema(footer.schema().clone());
        if let Some(predicate) = predicate.and_then(|predicate| pruning.build(predicate)) {
            let metrics = ParquetFileMetrics::new(self.partition, file.object_meta.location.as_ref(), &self.metrics);
            kept.prune_by_statistics(footer.schema(), footer.parquet_schema(), groups, &predicate, &metrics);
        }
        Ok(kept.build())
    }
}

/// # Errors
/// `Invalid` when a column of the table has a name that addresses take.
pub(super) fn check_names(schema: &Schema) -> shared::Result<()> {
    match schema.fields().iter().find(|field| [FILE, POS].contains(&field.name().as_str())) {
        None => Ok(()),
        Some(field) => Err(shared::Error::invalid(format!(
            "expected no column of the table under a name that stands for a row's address (`{FILE}`, `{POS}`), found `{}`",
            field.name()
        ))),
    }
}
