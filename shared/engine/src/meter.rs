//! Object stores that count what one query reads, keep it below the warehouse's roots, and stop it at its limit.
//!
//! Every query has its own [`Meter`] and its own stores around the shared ones, so concurrent queries never mix.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::common::DataFusionError;
use datafusion::execution::object_store::ObjectStoreRegistry;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult,
};
use url::Url;

use shared::Error;
use shared::storage::Storage;

/// What one query has read, and how much it may.
#[derive(Debug, Default)]
pub(super) struct Meter {
    bytes: AtomicU64,
    requests: AtomicU64,
    limit: Option<u64>,
    /// The first object that was to be read and was not there.
    missing: OnceLock<String>,
}

impl Meter {
    /// Counts from zero up to `limit` bytes.
    pub(super) fn new(limit: Option<u64>) -> Self {
        Self { limit, ..Self::default() }
    }

    /// Bytes read so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The error of a query: when an object was gone, that it was, because readers of files pass only its text on.
    pub(super) fn explain(&self, error: DataFusionError) -> DataFusionError {
        match self.missing.get() {
            Some(path) => DataFusionError::from(
                Error::not_found(format!("no object `{path}`; it was there when the table's files were listed"))
                    .with_source(error),
            ),
            None => error,
        }
    }

    /// Remembers the object that a failed read did not find.
    fn note<T>(&self, read: object_store::Result<T>) -> object_store::Result<T> {
        if let Err(object_store::Error::NotFound { path, .. }) = &read {
            self.missing.get_or_init(|| path.clone());
        }
        read
    }

    fn ask(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts `bytes` that are about to be read; refuses them past the limit.
    fn charge(&self, bytes: u64) -> object_store::Result<()> {
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        match self.limit {
            Some(limit) if total > limit => Err(object_store::Error::Generic {
                store: "metered",
                source: Box::new(Error::limit(format!(
                    "the query was stopped: expected to scan at most {limit} bytes, needs at least {total}"
                ))),
            }),
            _ => Ok(()),
        }
    }
}

/// The stores of one scheme and host: reads below the roots only, every byte counted, no writes.
struct MeteredStore {
    roots: Vec<(Path, Arc<dyn ObjectStore>)>,
    meter: Arc<Meter>,
}

impl MeteredStore {
    fn below(&self, location: &Path) -> object_store::Result<&Arc<dyn ObjectStore>> {
        match self.roots.iter().find(|(root, _)| location.prefix_matches(root)) {
            Some((_, store)) => Ok(store),
            None => Err(object_store::Error::PermissionDenied {
                path: location.to_string(),
                source: "the object lies outside the warehouse".into(),
            }),
        }
    }

    fn read_only<T>(location: &Path) -> object_store::Result<T> {
        Err(object_store::Error::PermissionDenied { path: location.to_string(), source: "queries only read".into() })
    }
}

impl fmt::Debug for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MeteredStore").field("meter", &self.meter).finish_non_exhaustive()
    }
}

impl fmt::Display for MeteredStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MeteredStore")
    }
}

/// Marks a read that finds out where another one begins: the query reads those bytes elsewhere, and is charged for them there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Uncharged;

#[async_trait]
impl ObjectStore for MeteredStore {
    async fn put_opts(&self, location: &Path, _: PutPayload, _: PutOptions) -> object_store::Result<PutResult> {
        Self::read_only(location)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        Self::read_only(location)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.meter.ask();
        if options.head {
            // A look-up may find nothing: only what was to be read is missed.
            return self.below(location)?.get_opts(location, options).await;
        }
        let counts = options.extensions.get::<Uncharged>().is_none();
        let result = self.meter.note(self.below(location)?.get_opts(location, options).await)?;
        if counts {
            self.meter.charge(result.range.end - result.range.start)?;
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.meter.ask();
        self.meter.charge(ranges.iter().map(|r| r.end - r.start).sum())?;
        self.meter.note(self.below(location)?.get_ranges(location, ranges).await)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        locations.map(|location| Self::read_only(&location?)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.meter.ask();
        match self.below(prefix.unwrap_or(&Path::default())) {
            Ok(store) => store.list(prefix),
            Err(error) => futures::stream::once(async { Err(error) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.meter.ask();
        self.below(prefix.unwrap_or(&Path::default()))?.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, to: &Path, _: CopyOptions) -> object_store::Result<()> {
        Self::read_only(to)
    }
}

/// The storage that metadata is read through: the same roots, counted by `meter`.
pub(super) fn metered(storage: &Storage, meter: &Arc<Meter>) -> Storage {
    storage.wrapped(|store| Arc::new(MeteredStore { roots: vec![(Path::default(), store)], meter: Arc::clone(meter) }))
}

/// Gives DataFusion the stores of the warehouse's roots and no others.
#[derive(Debug)]
pub(super) struct WarehouseStores {
    storage: Storage,
    meter: Arc<Meter>,
}

impl WarehouseStores {
    pub(super) fn new(storage: Storage, meter: Arc<Meter>) -> Self {
        Self { storage, meter }
    }
}

impl ObjectStoreRegistry for WarehouseStores {
    /// Stores can't be added: nothing is registered.
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> datafusion::common::Result<Arc<dyn ObjectStore>> {
        let roots = self.storage.stores_of(url);
        if roots.is_empty() {
            let error = Error::denied(format!("expected an object of the warehouse, found `{url}`"));
            return Err(DataFusionError::from(error));
        }
        Ok(Arc::new(MeteredStore { roots, meter: Arc::clone(&self.meter) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::ObjectStoreExt;

    async fn a_store(limit: Option<u64>) -> (Arc<dyn ObjectStore>, Arc<Meter>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let root = Url::from_directory_path(dir.path()).unwrap();
        let storage = adapters_embedded::storage::open(std::slice::from_ref(&root)).unwrap();
        storage.put(&root.join("a").unwrap(), vec![0_u8; 10]).await.unwrap();
        let meter = Arc::new(Meter::new(limit));
        let store = WarehouseStores::new(storage, meter.clone()).get_store(&Url::parse("file:///").unwrap()).unwrap();
        (store, meter, dir)
    }

    #[tokio::test]
    async fn bytes_are_counted_and_the_limit_stops_the_read_that_passes_it() {
        let (store, meter, dir) = a_store(Some(15)).await;
        let path = Path::from_absolute_path(dir.path().join("a")).unwrap();
        store.get_range(&path, 0..10).await.unwrap();
        assert_eq!(meter.bytes(), 10);
        let error = Error::from(DataFusionError::from(store.get(&path).await.unwrap_err()));
        assert_eq!(error.kind(), shared::ErrorKind::Limit, "{error}");
    }

    #[tokio::test]
    async fn nothing_outside_the_roots_is_read_and_nothing_is_written() {
        let (store, _, dir) = a_store(None).await;
        let outside = store.get(&Path::from("etc/passwd")).await.unwrap_err();
        assert!(matches!(outside, object_store::Error::PermissionDenied { .. }), "{outside}");
        let inside = Path::from_absolute_path(dir.path().join("a")).unwrap();
        let written = store.put(&inside, "x".into()).await.unwrap_err();
        assert!(matches!(written, object_store::Error::PermissionDenied { .. }), "{written}");
    }
}
