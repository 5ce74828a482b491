//! CSV files. DataFusion's own source has no texts that stand for no value (`NA`), insists on quotes, and refuses rows with more
//! fields than the table.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Decoder;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use bytes::{Buf, Bytes};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::{DisplayFormatType, apply_expression_roots};
use datafusion_datasource::boundary_stream::AlignedBoundaryStream;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetResultPayload, ObjectStore};

use super::files::external;
use crate::format::CsvFormat;
use crate::format::csv::{Trim, Trimmed};

/// Rows of a batch unless the scan says otherwise.
const BATCH_ROWS: usize = 8192;

/// A scan of CSV files by this project's own reader.
#[derive(Clone)]
pub(super) struct CsvFiles {
    format: CsvFormat,
    schema: TableSchema,
    projection: SplitProjection,
    batch_rows: usize,
    metrics: ExecutionPlanMetricsSet,
}

impl CsvFiles {
    pub(super) fn new(format: CsvFormat, schema: TableSchema) -> Self {
        let projection = SplitProjection::unprojected(&schema);
        Self { format, schema, projection, batch_rows: BATCH_ROWS, metrics: ExecutionPlanMetricsSet::new() }
    }

    /// A reader of a file from its beginning, or from the beginning of another row.
    fn reader(&self, from_beginning: bool) -> Result<ReaderBuilder> {
        let reader = self.format.reader(Arc::clone(self.schema.file_schema())).map_err(external)?;
        let reader = reader.with_header(self.format.header && from_beginning);
        Ok(reader.with_batch_size(self.batch_rows).with_projection(self.projection.file_indices.clone()))
    }

    fn trim(&self) -> Option<Trim> {
        self.format.trim(self.schema.file_schema().fields().len())
    }
}

impl FileSource for CsvFiles {
    fn create_file_opener(
        &self,
        store: Arc<dyn ObjectStore>,
        config: &FileScanConfig,
        _: usize,
    ) -> Result<Arc<dyn FileOpener>> {
        let opener = CsvOpener { source: self.clone(), store, compression: config.file_compression_type };
        ProjectionOpener::try_new(self.projection.clone(), Arc::new(opener), self.schema.file_schema())
    }

    fn table_schema(&self) -> &TableSchema {
        &self.schema
    }

    fn with_batch_size(&self, batch_rows: usize) -> Arc<dyn FileSource> {
        Arc::new(Self { batch_rows, ..self.clone() })
    }

    fn projection(&self) -> Option<&ProjectionExprs> {
        Some(&self.projection.source)
    }

    fn metrics(&self) -> &ExecutionPlanMetricsSet {
        &self.metrics
    }

    fn file_type(&self) -> &str {
        "csv"
    }

    fn fmt_extra(&self, kind: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match kind {
            DisplayFormatType::TreeRender => Ok(()),
            _ if self.format.nulls.is_empty() => write!(f, ", has_header={}", self.format.header),
            _ => write!(f, ", has_header={}, nulls={:?}", self.format.header, self.format.nulls),
        }
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        apply_expression_roots(self.projection.source.iter().map(|projected| &projected.expr), f)
    }

    fn try_pushdown_projection(&self, projection: &ProjectionExprs) -> Result<Option<Arc<dyn FileSource>>> {
        let merged = self.projection.source.try_merge(projection)?;
        let projection = SplitProjection::new(self.schema.file_schema(), &merged);
        Ok(Some(Arc::new(Self { projection, ..self.clone() })))
    }
}

struct CsvOpener {
    source: CsvFiles,
    store: Arc<dyn ObjectStore>,
    compression: FileCompressionType,
}

impl FileOpener for CsvOpener {
    fn open(&self, file: PartitionedFile) -> Result<FileOpenFuture> {
        let from_beginning = file.range.as_ref().is_none_or(|range| range.start == 0);
        let (reader, trim) = (self.source.reader(from_beginning)?, self.source.trim());
        let (store, compression) = (Arc::clone(&self.store), self.compression);
        Ok(Box::pin(async move {
            if let Some(range) = &file.range {
                let bytes = rows_of_range(store, &file, range.start, range.end).await?;
                return Ok(decoded(trimmed(bytes, trim), reader.build_decoder()));
            }
            match store.get_opts(&file.object_meta.location, GetOptions::default()).await?.payload {
                GetResultPayload::File(file, _) => {
                    let bytes = compression.convert_read(file)?;
                    let rows = match trim {
                        Some(trim) => batches(reader.build_buffered(Trimmed::new(bytes, trim))?),
                        None => batches(reader.build(bytes)?),
                    };
                    Ok(rows)
                }
                GetResultPayload::Stream(bytes) => {
                    let bytes = compression.convert_stream(bytes.map_err(DataFusionError::from).boxed())?;
                    Ok(decoded(trimmed(bytes, trim), reader.build_decoder()))
                }
            }
        }))
    }
}

/// The bytes of the rows that begin in a range of a file that is not compressed.
async fn rows_of_range(
    store: Arc<dyn ObjectStore>,
    file: &PartitionedFile,
    start: i64,
    end: i64,
) -> Result<BoxStream<'static, Result<Bytes>>> {
    let (location, size) = (file.object_meta.location.clone(), file.object_meta.size);
    let rows =
        AlignedBoundaryStream::new(store, location, start.unsigned_abs(), end.unsigned_abs(), size, b'\n').await?;
    Ok(rows.map_err(DataFusionError::from).boxed())
}

fn batches(
    rows: impl Iterator<Item = std::result::Result<RecordBatch, ArrowError>> + Send + 'static,
) -> BoxStream<'static, Result<RecordBatch>> {
    futures::stream::iter(rows).map_err(DataFusionError::from).boxed()
}

/// The bytes without what rows have too much.
fn trimmed(bytes: BoxStream<'static, Result<Bytes>>, trim: Option<Trim>) -> BoxStream<'static, Result<Bytes>> {
    let Some(mut trim) = trim else { return bytes };
    let keep = move |bytes: Bytes| match trim.keep(&bytes) {
        Cow::Borrowed(_) => bytes,
        Cow::Owned(kept) => kept.into(),
    };
    // Nothing would be the end to the decoder.
    bytes.map_ok(keep).try_filter(|kept| std::future::ready(!kept.is_empty())).boxed()
}

/// Batches out of bytes as they come.
fn decoded(bytes: BoxStream<'static, Result<Bytes>>, decoder: Decoder) -> BoxStream<'static, Result<RecordBatch>> {
    let state = (bytes, decoder, Bytes::new());
    futures::stream::try_unfold(state, |(mut bytes, mut decoder, mut held)| async move {
        loop {
            if held.is_empty() {
                held = bytes.try_next().await?.unwrap_or_default();
            }
            let taken = decoder.decode(&held)?;
            held.advance(taken);
            if taken == 0 || decoder.capacity() == 0 {
                return Ok(decoder.flush()?.map(|batch| (batch, (bytes, decoder, held))));
            }
        }
    })
    .boxed()
}
