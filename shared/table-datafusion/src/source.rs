//! The Parquet source of a scan: filters that statistics can't decide stay above it, and EXPLAIN is told how many of the table's files
//! the filters left.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{
    FileOpener, FileScanConfig, FileSource, ParquetFileReaderFactory, ParquetSource,
};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use datafusion_datasource::morsel::Morselizer;
use object_store::ObjectStore;

use super::deletes::DeletingMorselizer;
use super::floats;

/// Bytes of constants that a scan writes into each row.
const MAX_CONSTANT_BYTES: usize = 1 << 10;

/// Whether a scan is not to write the constants of a projection into its rows.
pub fn writes_constants(projection: &ProjectionExprs) -> bool {
    projection.iter().any(|column| constant_bytes(&column.expr) > MAX_CONSTANT_BYTES)
}

/// Bytes of the constants of an expression.
pub fn constant_bytes(expr: &Arc<dyn PhysicalExpr>) -> usize {
    let own = expr.downcast_ref::<Literal>().map_or(0, |literal| literal.value().size());
    own + expr.children().into_iter().map(constant_bytes).sum::<usize>()
}

/// Something around what reads the files of a scan.
pub type WrapMorselizer = fn(Box<dyn Morselizer>) -> Box<dyn Morselizer>;

/// A source of Parquet files that leaves filters which statistics of Parquet can't decide to whoever asked; `wrap` goes around what
/// reads them.
pub fn guarded(parquet: ParquetSource, wrap: WrapMorselizer) -> Arc<dyn FileSource> {
    Arc::new(PrunedSource { wrap: Some(wrap), ..PrunedSource::new(Arc::new(parquet)) })
}

/// DataFusion's Parquet source, and what was pruned before it came into play.
#[derive(Clone)]
pub(super) struct PrunedSource {
    inner: Arc<dyn FileSource>,
    wrap: Option<WrapMorselizer>,
    /// What reads footers, when files have deleted rows.
    readers: Option<Arc<dyn ParquetFileReaderFactory>>,
    /// Whether the sizes of the files are those of Parquet, so that they can be read in parts.
    is_splittable: bool,
    /// Files that are read, and those that there are.
    files: Option<(usize, usize)>,
    /// Columns of floating point numbers.
    floats: Arc<HashSet<String>>,
    /// Those of them that may hold NaN, which statistics leave out.
    suspects: Arc<HashSet<String>>,
}

impl PrunedSource {
    /// A source of files any of whose floating point columns may hold NaN.
    pub(super) fn new(inner: Arc<dyn FileSource>) -> Self {
        let floats = floats::floating(inner.table_schema().table_schema()).map(str::to_owned);
        let floats = Arc::new(floats.collect::<HashSet<_>>());
        Self {
            inner,
            wrap: None,
            readers: None,
            is_splittable: true,
            files: None,
            suspects: Arc::clone(&floats),
            floats,
        }
    }

    /// The same where only these columns may hold NaN.
    pub(super) fn with_suspects(self, suspects: HashSet<String>) -> Self {
        Self { suspects: Arc::new(suspects), ..self }
    }

    /// The same, telling how many files are read of how many.
    pub(super) fn with_files(self, read: usize, total: usize) -> Self {
        Self { files: Some((read, total)), ..self }
    }

    /// The same for files with deleted rows; `readers` reads their footers.
    pub(super) fn with_readers(self, readers: Option<Arc<dyn ParquetFileReaderFactory>>) -> Self {
        Self { readers, ..self }
    }

    /// The same for files each of which is read by one.
    pub(super) fn whole(self) -> Self {
        Self { is_splittable: false, ..self }
    }

    /// What takes `filters`: bloom filters tell the zeros apart, and the forms of NaN.
    fn source_for(&self, filters: &[Arc<dyn PhysicalExpr>]) -> Arc<dyn FileSource> {
        match self.inner.downcast_ref::<ParquetSource>() {
            Some(parquet) if filters.iter().any(|filter| floats::names(filter, &self.floats)) => {
                Arc::new(parquet.clone().with_bloom_filter_on_read(false))
            }
            _ => Arc::clone(&self.inner),
        }
    }

    fn around(&self, inner: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { inner, ..self.clone() })
    }
}

impl FileSource for PrunedSource {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        self.inner.create_file_opener(object_store, base_config, partition)
    }

    fn create_morselizer(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Box<dyn Morselizer>> {
        let mut inner = self.inner.create_morselizer(object_store, base_config, partition)?;
        if let Some(wrap) = self.wrap {
            inner = wrap(inner);
        }
        let Some(readers) = self.readers.clone() else { return Ok(inner) };
        let metrics = self.inner.metrics().clone();
        Ok(Box::new(DeletingMorselizer { inner: Arc::from(inner), readers, metrics, partition }))
    }

    fn table_schema(&self) -> &TableSchema {
        self.inner.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        self.around(self.inner.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.inner.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.inner.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.inner.metrics()
    }

    fn file_type(&self) -> &str {
        self.inner.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.files, t) {
            (Some((read, total)), DisplayFormatType::TreeRender) => writeln!(f, "files={read} of {total}")?,
            (Some((read, total)), _) => write!(f, ", files={read} of {total}")?,
            (None, _) => {}
        }
        self.inner.fmt_extra(t, f)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.inner.apply_expressions(f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.is_splittable && self.inner.supports_repartitioning()
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
        config: &FileScanConfig,
    ) -> Result<Option<FileScanConfig>> {
        if !self.is_splittable {
            return Ok(None);
        }
        self.inner.repartitioned(target_partitions, repartition_file_min_size, output_ordering, config)
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let filters = filters.iter().map(floats::on_columns).collect::<Result<Vec<_>>>()?;
        let prunes: Vec<bool> = filters.iter().map(|filter| floats::may_prune(filter, &self.suspects)).collect();
        let sent: Vec<_> =
            filters.iter().zip(&prunes).filter(|(_, prunes)| **prunes).map(|(f, _)| Arc::clone(f)).collect();
        let pushed = self.source_for(&sent).try_pushdown_filters(sent, config)?;
        let mut answers = pushed.filters.into_iter();
        let filters = prunes.into_iter().map(|sent| match sent {
            true => answers.next().unwrap_or(PushedDown::No),
            // Whoever asked applies it.
            false => PushedDown::No,
        });
        let propagation = FilterPushdownPropagation::with_parent_pushdown_result(filters.collect());
        Ok(match pushed.updated_node {
            Some(source) => propagation.with_updated_node(self.around(source)),
            None => propagation,
        })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
        eq_properties: &EquivalenceProperties,
    ) -> Result<SortOrderPushdownResult<Arc<dyn FileSource>>> {
        Ok(self.inner.try_pushdown_sort(order, eq_properties)?.map(|source| self.around(source)))
    }

    fn reorder_files(&self, files: Vec<PartitionedFile>) -> Vec<PartitionedFile> {
        self.inner.reorder_files(files)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        // A constant in each row of a batch takes memory that the engine sees to above the scan.
        if writes_constants(projection) {
            return Ok(None);
        }
        Ok(self.inner.try_pushdown_projection(projection)?.map(|source| self.around(source)))
    }
}
