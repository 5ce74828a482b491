//! Parquet files: what their footers say before they are read, and a source around DataFusion's whose errors name the file.
//!
//! A file that somebody broke must not look like a passing fault of the store, nor like one of this program: what its footer
//! promises is checked against the file's size, and a panic of the decoder is that file's fault.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::Session;
use datafusion::common::{DataFusionError, Result};
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::parquet::metadata::DFParquetMetadata;
use datafusion::datasource::physical_plan::{FileSource, ParquetSource};
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion_datasource::morsel::{Morsel, MorselPlan, MorselPlanner, Morselizer};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};
use parquet::arrow::parquet_to_arrow_schema;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};

use super::files::CONCURRENCY;
use format::parquet::check_footer;
use format::rows::{BATCH_BYTES, MAX_ROW_BYTES};
use shared::{Error, ErrorKind};
use table_datafusion::{FooterReaders, guarded};

/// What the footer of a file says.
#[derive(Debug, Clone)]
pub(super) struct Footer {
    pub(super) metadata: Arc<ParquetMetaData>,
    /// The file's own schema.
    pub(super) schema: Schema,
}

impl Footer {
    /// Uncompressed bytes of a row on average, of the row group in which it is the largest.
    pub(super) fn row_bytes(&self) -> usize {
        let average = |group: &parquet::file::metadata::RowGroupMetaData| {
            let rows = usize::try_from(group.num_rows()).unwrap_or(0).max(1);
            let bytes =
                group.columns().iter().map(|c| usize::try_from(c.uncompressed_size()).unwrap_or(0)).sum::<usize>();
            bytes / rows
        };
        self.metadata.row_groups().iter().map(average).max().unwrap_or(0)
    }
}

/// The footers of files, from the cache where the file is still the same.
///
/// # Errors
/// `Invalid`, naming the file, for one that is broken; `Limit` for one whose rows are too large.
pub(super) async fn footers(
    state: &dyn Session,
    store: &ObjectStoreUrl,
    files: &[PartitionedFile],
) -> Result<Vec<Footer>> {
    let store = state.runtime_env().object_store(store)?;
    // In boxes: whether the futures can be sent is told of each by itself.
    let footers: Vec<BoxFuture<'_, Result<Footer>>> =
        files.iter().map(|file| footer(state, &store, &file.object_meta).boxed()).collect();
    futures::stream::iter(footers).buffered(CONCURRENCY).try_collect().await
}

async fn footer(state: &dyn Session, store: &Arc<dyn ObjectStore>, meta: &ObjectMeta) -> Result<Footer> {
    let cache = state.runtime_env().cache_manager.get_file_metadata_cache();
    let hint = state.config_options().execution.parquet.metadata_size_hint;
    let found = async {
        let metadata = DFParquetMetadata::new(store.as_ref(), meta)
            .with_metadata_size_hint(hint)
            .with_file_metadata_cache(Some(cache))
            // The indexes lie where the footer says, which is to be checked first.
            .with_page_index_policy(Some(PageIndexPolicy::Skip))
            .fetch_metadata()
            .await?;
        check_footer(&metadata, meta.size).map_err(|found| DataFusionError::from(Error::invalid(found)))?;
        let file = metadata.file_metadata();
        let schema = parquet_to_arrow_schema(file.schema_descr(), file.key_value_metadata())?;
        let footer = Footer { metadata, schema };
        let bytes = footer.row_bytes();
        if bytes > MAX_ROW_BYTES {
            return Err(DataFusionError::from(Error::limit(format!(
                "expected rows of at most {MAX_ROW_BYTES} bytes, found rows of {bytes} bytes on average"
            ))));
        }
        Ok(footer)
    };
    let caught = AssertUnwindSafe(found).catch_unwind().await;
    let doing = doing(meta);
    caught.unwrap_or_else(|_| Err(broken())).map_err(|error| named(error, &doing))
}

/// Rows of a batch of these files, if they are so large that the usual number would take too much memory.
pub(super) fn batch_rows(footers: &[Footer], usual: usize) -> Option<usize> {
    let widest = footers.iter().map(Footer::row_bytes).max().unwrap_or(0).max(1);
    let rows = (BATCH_BYTES / widest).max(1);
    (rows < usual).then_some(rows)
}

fn doing(meta: &ObjectMeta) -> String {
    format!("reading `{}`", meta.location)
}

fn broken() -> DataFusionError {
    DataFusionError::from(Error::invalid("expected a whole Parquet file, found one that can't be decoded"))
}

/// The error with the file's name. What the decoder calls a bug of its own is a file that nobody can read.
fn named(error: DataFusionError, doing: &str) -> DataFusionError {
    let error = Error::from(error);
    let error = match error.kind() {
        ErrorKind::Bug => {
            Error::invalid(format!("expected a whole Parquet file: {}", error.message())).with_source(error)
        }
        _ => error,
    };
    DataFusionError::from(error.context(doing))
}

/// A source of Parquet files in `store`, whose footers are kept, and whose errors, panics among them, name the file.
pub(super) fn parquet_source(
    state: &dyn Session,
    store: &ObjectStoreUrl,
    schema: TableSchema,
) -> Result<Arc<dyn FileSource>> {
    let readers = FooterReaders::new(state.runtime_env(), store)?;
    let options = state.default_table_options().parquet;
    let source = ParquetSource::new(schema)
        .with_table_parquet_options(options)
        .with_parquet_file_reader_factory(Arc::new(readers));
    Ok(guarded(source, |morsels| Box::new(NamedMorsels(morsels))))
}

#[derive(Debug)]
struct NamedMorsels(Box<dyn Morselizer>);

impl Morselizer for NamedMorsels {
    fn plan_file(&self, file: PartitionedFile) -> Result<Box<dyn MorselPlanner>> {
        let doing: Arc<str> = doing(&file.object_meta).into();
        let planner = caught(&doing, || self.0.plan_file(file))?;
        Ok(Box::new(NamedPlanner { planner, doing }))
    }
}

#[derive(Debug)]
struct NamedPlanner {
    planner: Box<dyn MorselPlanner>,
    doing: Arc<str>,
}

impl MorselPlanner for NamedPlanner {
    fn plan(self: Box<Self>) -> Result<Option<MorselPlan>> {
        let Self { planner, doing } = *self;
        let Some(mut plan) = caught(&doing, || planner.plan())? else { return Ok(None) };
        let morsels = plan.take_morsels().into_iter();
        let morsels = morsels.map(|morsel| Box::new(NamedMorsel { morsel, doing: doing.clone() }) as Box<dyn Morsel>);
        let planners = plan.take_ready_planners().into_iter();
        let planners =
            planners.map(|planner| Box::new(Self { planner, doing: doing.clone() }) as Box<dyn MorselPlanner>);
        let mut around = MorselPlan::new().with_morsels(morsels.collect()).with_planners(planners.collect());
        if let Some(pending) = plan.take_pending_planner() {
            around.set_pending_planner(async move {
                let planner = AssertUnwindSafe(pending).catch_unwind().await;
                let planner = planner.unwrap_or_else(|_| Err(broken())).map_err(|error| named(error, &doing))?;
                Ok(Box::new(Self { planner, doing }) as Box<dyn MorselPlanner>)
            });
        }
        Ok(Some(around))
    }
}

#[derive(Debug)]
struct NamedMorsel {
    morsel: Box<dyn Morsel>,
    doing: Arc<str>,
}

impl Morsel for NamedMorsel {
    fn into_stream(self: Box<Self>) -> BoxStream<'static, Result<RecordBatch>> {
        let Self { morsel, doing } = *self;
        let rows = AssertUnwindSafe(morsel.into_stream()).catch_unwind();
        rows.map(move |batch| batch.unwrap_or_else(|_| Err(broken())).map_err(|error| named(error, &doing))).boxed()
    }
}

/// What `work` gives, its panic and its error those of the file.
fn caught<T>(doing: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let found = std::panic::catch_unwind(AssertUnwindSafe(work));
    found.unwrap_or_else(|_| Err(broken())).map_err(|error| named(error, doing))
}
