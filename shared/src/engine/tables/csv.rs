//! CSV files with texts that stand for no value (`NA`), or without quotes: DataFusion's own CSV source hands neither to the
//! reader. Files are read whole, one by one.

use std::fmt;
use std::sync::Arc;

use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Decoder;
use arrow::record_batch::RecordBatch;
use bytes::{Buf, Bytes};
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileOpenFuture, FileOpener, FileScanConfig, FileSource};
use datafusion::datasource::projection::{ProjectionOpener, SplitProjection};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_plan::DisplayFormatType;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetResultPayload, ObjectStore};

use super::files::external;
use crate::format::CsvFormat;

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

    fn reader(&self) -> Result<ReaderBuilder> {
        let reader = self.format.reader(Arc::clone(self.schema.file_schema())).map_err(external)?;
        Ok(reader.with_batch_size(self.batch_rows).with_projection(self.projection.file_indices.clone()))
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
            _ => write!(f, ", has_header={}, nulls={:?}", self.format.header, self.format.nulls),
        }
    }

    fn supports_repartitioning(&self) -> bool {
        false
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
        let (reader, store, compression) = (self.source.reader()?, Arc::clone(&self.store), self.compression);
        Ok(Box::pin(async move {
            let found = store.get_opts(&file.object_meta.location, GetOptions::default()).await?;
            match found.payload {
                GetResultPayload::File(file, _) => {
                    let rows = reader.build(compression.convert_read(file)?)?;
                    Ok(futures::stream::iter(rows).map_err(DataFusionError::from).boxed())
                }
                GetResultPayload::Stream(bytes) => {
                    let bytes = compression.convert_stream(bytes.map_err(DataFusionError::from).boxed())?;
                    Ok(decoded(bytes, reader.build_decoder()))
                }
            }
        }))
    }
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
