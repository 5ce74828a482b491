//! DataFusion's readers of Parquet files, whose errors keep what the store said of a footer: DataFusion makes a text of it, which no
//! longer tells a passing fault from a broken file.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;

/// Readers of the files of one store, whose footers are kept in the runtime's cache.
#[derive(Debug)]
pub struct FooterReaders {
    inner: CachedParquetFileReaderFactory,
    store: Arc<dyn ObjectStore>,
    runtime: Arc<RuntimeEnv>,
}

impl FooterReaders {
    /// # Errors
    /// When the runtime has no such store.
    pub fn new(runtime: &Arc<RuntimeEnv>, store: &ObjectStoreUrl) -> Result<Self> {
        let store = runtime.object_store(store)?;
        let footers = runtime.cache_manager.get_file_metadata_cache();
        let inner = CachedParquetFileReaderFactory::new(Arc::clone(&store), footers);
        Ok(Self { inner, store, runtime: Arc::clone(runtime) })
    }
}

impl ParquetFileReaderFactory for FooterReaders {
    fn create_reader(
        &self,
        partition: usize,
        file: PartitionedFile,
        hint: Option<usize>,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn AsyncFileReader + Send>> {
        Ok(Box::new(Reader {
            meta: file.object_meta.clone(),
            inner: self.inner.create_reader(partition, file, hint, metrics)?,
            store: Arc::clone(&self.store),
            runtime: Arc::clone(&self.runtime),
            hint,
        }))
    }
}

struct Reader {
    inner: Box<dyn AsyncFileReader + Send>,
    meta: ObjectMeta,
    store: Arc<dyn ObjectStore>,
    runtime: Arc<RuntimeEnv>,
    hint: Option<usize>,
}

impl AsyncFileReader for Reader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        self.inner.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, parquet::errors::Result<Vec<Bytes>>> {
        self.inner.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        let footers = self.runtime.cache_manager.get_file_metadata_cache();
        async move {
            let footer = DFParquetMetadata::new(self.store.as_ref(), &self.meta)
                .with_file_metadata_cache(Some(footers))
                .with_metadata_size_hint(self.hint)
                .with_page_index_policy(options.map(ArrowReaderOptions::column_index_policy));
            footer.fetch_metadata().await.map_err(|error| ParquetError::External(Box::new(error)))
        }
        .boxed()
    }
}
