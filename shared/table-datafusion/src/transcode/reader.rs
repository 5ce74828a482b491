//! Hands a scan the Parquet that stands for a file in Avro or ORC, which is made when the file is opened.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{ParquetFileMetrics, ParquetFileReaderFactory};
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

use super::{Foreign, Transcoded, Transcoder};
use shared::storage::Storage;

/// Readers of a scan's files, some of which have [`Foreign`] among their extensions.
pub(crate) struct TranscodingReaders {
    /// Those of the files that are Parquet already.
    pub(crate) inner: Arc<dyn ParquetFileReaderFactory>,
    pub(crate) transcoder: Arc<Transcoder>,
    pub(crate) storage: Storage,
    pub(crate) runtime: Arc<RuntimeEnv>,
    /// Whether the table tells the ids of fields by their names.
    pub(crate) is_mapped: bool,
}

impl std::fmt::Debug for TranscodingReaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TranscodingReaders").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl ParquetFileReaderFactory for TranscodingReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        let Some(foreign) = file.extensions.get::<Foreign>().cloned() else {
            return self.inner.create_reader(partition, file, hint, metrics);
        };
        Ok(Box::new(Reader {
            foreign,
            transcoder: Arc::clone(&self.transcoder),
            storage: self.storage.clone(),
            runtime: Arc::clone(&self.runtime),
            is_mapped: self.is_mapped,
            opened: None,
            metrics: ParquetFileMetrics::new(partition, file.object_meta.location.as_ref(), metrics),
        }))
    }
}

struct Reader {
    foreign: Foreign,
    transcoder: Arc<Transcoder>,
    storage: Storage,
    runtime: Arc<RuntimeEnv>,
    is_mapped: bool,
    opened: Option<Arc<Transcoded>>,
    metrics: ParquetFileMetrics,
}

impl Reader {
    async fn opened(&mut self) -> parquet::errors::Result<Arc<Transcoded>> {
        if let Some(opened) = &self.opened {
            return Ok(Arc::clone(opened));
        }
        let opened = self.transcoder.parquet(&self.storage, &self.runtime, &self.foreign, self.is_mapped).await;
        let opened = opened.map_err(|e| ParquetError::External(Box::new(e)))?;
        self.opened = Some(Arc::clone(&opened));
        Ok(opened)
    }

    async fn read(&mut self, ranges: Vec<Range<u64>>) -> parquet::errors::Result<Vec<Bytes>> {
        let bytes: u64 = ranges.iter().map(|range| range.end.saturating_sub(range.start)).sum();
        self.metrics.bytes_scanned.add(usize::try_from(bytes).unwrap_or(usize::MAX));
        let opened = self.opened().await?;
        opened.ranges(ranges).await.map_err(|e| ParquetError::External(Box::new(e)))
    }
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        async move { Ok(self.read(vec![range]).await?.swap_remove(0)) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.read(ranges).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move { Ok(Arc::clone(&self.opened().await?.footer)) }.boxed()
    }
}
