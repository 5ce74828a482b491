//! A file source around another whose errors name the file (and the place of a split file) that they happened in.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::filter_pushdown::FilterPushdownPropagation;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::StreamExt;
use object_store::ObjectStore;

use crate::Error;

/// Wraps a row-format source (CSV, JSON).
#[derive(Clone)]
pub(super) struct NamedFiles {
    source: Arc<dyn FileSource>,
    splittable: bool,
}

impl NamedFiles {
    /// `splittable` says that a file may be cut at any line's end.
    pub(super) fn new(source: Arc<dyn FileSource>, splittable: bool) -> Self {
        Self { source, splittable }
    }

    fn around(&self, source: Arc<dyn FileSource>) -> Arc<dyn FileSource> {
        Arc::new(Self { source, ..self.clone() })
    }
}

impl FileSource for NamedFiles {
    fn create_file_opener(
        &self,
        object_store: Arc<dyn ObjectStore>,
        base_config: &FileScanConfig,
        partition: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        Ok(Arc::new(NamedOpener(self.source.create_file_opener(object_store, base_config, partition)?)))
    }

    fn table_schema(&self) -> &TableSchema {
        self.source.table_schema()
    }

    fn with_batch_size(&self, batch_size: usize) -> Arc<dyn FileSource> {
        self.around(self.source.with_batch_size(batch_size))
    }

    fn filter(&self) -> Option<Arc<dyn PhysicalExpr>> {
        self.source.filter()
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        self.source.projection()
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        self.source.metrics()
    }

    fn file_type(&self) -> &str {
        self.source.file_type()
    }

    fn fmt_extra(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt_extra(t, f)
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.source.apply_expressions(f)
    }

    fn supports_repartitioning(&self) -> bool {
        self.splittable && self.source.supports_repartitioning()
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn FileSource>>> {
        let mut pushed = self.source.try_pushdown_filters(filters, config)?;
        pushed.updated_node = pushed.updated_node.map(|source| self.around(source));
        Ok(pushed)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let pushed = self.source.try_pushdown_projection(projection)?;
        Ok(pushed.map(|source| self.around(source)))
    }
}

struct NamedOpener(Arc<dyn FileOpener>);

impl FileOpener for NamedOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let doing = doing(&file);
        let opening = self.0.open(file).map_err(|e| named(e, &doing))?;
        Ok(Box::pin(async move {
            let rows = opening.await.map_err(|e| named(e, &doing))?;
            let rows = rows.map(move |batch: Result<RecordBatch>| batch.map_err(|e| named(e, &doing)));
            Ok(rows.boxed())
        }))
    }
}

/// Line numbers in errors count from the beginning of the range that one reader took.
fn doing(file: &PartitionedFile) -> String {
    let path = &file.object_meta.location;
    match &file.range {
        Some(range) if range.start > 0 => format!("reading `{path}` from byte {}", range.start),
        _ => format!("reading `{path}`"),
    }
}

fn named(error: DataFusionError, doing: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::from(error).context(doing)))
}
