//! Metadata files between the warehouse and memory: table metadata (JSON), manifest lists and manifests (Avro).
//!
//! All of them are written once under a name of their own and never changed, so what was read once is kept.

use std::any::Any;
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{StreamExt, stream};
use iceberg::io::FileIO;
use iceberg::spec::{FormatVersion, Manifest, ManifestFile, ManifestList, Snapshot, TableMetadata};
use url::Url;

use super::{Extensions, manifest_names};
use shared::error::Context;
use shared::storage::Storage;
use shared::{Error, ErrorKind, Result};

/// How a compressed metadata file begins.
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Files that are written, or removed, at the same time.
const PARALLEL_WRITES: usize = 16;

/// Bytes of metadata files that are kept in memory; past it everything is forgotten and read anew.
const CACHE_BYTES: usize = 256 << 20;

/// Reads and writes metadata files. Cheap to clone; clones share what was read.
#[derive(Debug, Clone)]
pub struct Io {
    storage: Storage,
    cache: Arc<Mutex<Cache>>,
    /// Bytes that the cache holds at most.
    capacity: usize,
    extensions: Extensions,
}

#[derive(Debug, Default)]
struct Cache {
    bytes: usize,
    files: HashMap<String, Cached>,
}

#[derive(Debug, Clone)]
enum Cached {
    Metadata(Arc<TableMetadata>),
    List(Arc<Vec<ManifestFile>>),
    Manifest(Arc<Manifest>),
}

impl Io {
    pub fn new(storage: Storage) -> Self {
        Self { storage, cache: Arc::default(), capacity: CACHE_BYTES, extensions: Extensions::default() }
    }

    /// The same over another way to the same objects: what was read by one is known to the other.
    pub fn through(&self, storage: Storage) -> Self {
        Self { storage, ..self.clone() }
    }

    /// With room for fewer bytes in memory.
    pub fn within(self, bytes: usize) -> Self {
        Self { capacity: self.capacity.min(bytes), ..self }
    }

    pub fn with_extension<T: Any + Send + Sync>(self, extension: T) -> Self {
        let extensions = self.extensions.with(extension);
        Self { extensions, ..self }
    }

    /// What crates above this one keep beside tables.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// Where the files are.
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// Where a file lies that metadata names.
    ///
    /// # Errors
    /// `Invalid` for a location that names no object.
    pub fn url(&self, location: &str) -> Result<Url> {
        self.storage.locate(location)
    }

    /// # Errors
    /// `Bug`, naming the file, when it is missing or can't be parsed: the catalog points at it.
    pub async fn metadata(&self, location: &str) -> Result<Arc<TableMetadata>> {
        if let Some(Cached::Metadata(found)) = self.cached(location) {
            return Ok(found);
        }
        let bytes = self.get(location).await?;
        let json = match bytes.starts_with(&GZIP) {
            true => {
                let mut json = Vec::new();
                let read = flate2::read::GzDecoder::new(bytes.as_ref()).read_to_end(&mut json);
                read.map_err(|e| damaged("table metadata", location).with_source(e))?;
                Bytes::from(json)
            }
            false => bytes.clone(),
        };
        let parsed: TableMetadata =
            serde_json::from_slice(&json).map_err(|e| damaged("table metadata", location).with_source(e))?;
        let parsed = Arc::new(parsed);
        self.keep(location, bytes.len(), Cached::Metadata(parsed.clone()));
        Ok(parsed)
    }

    /// Writes metadata under a name that nobody else writes.
    pub async fn put_metadata(&self, location: &str, metadata: &Arc<TableMetadata>) -> Result<()> {
        self.put_with_metadata(Vec::new(), location, metadata).await
    }

    /// Writes metadata and files that it names, all at the same time: nobody reads any of them before the catalog names the
    /// metadata.
    pub async fn put_with_metadata(
        &self,
        mut files: Vec<(String, Bytes)>,
        location: &str,
        metadata: &Arc<TableMetadata>,
    ) -> Result<()> {
        let bytes = serde_json::to_vec(metadata.as_ref())
            .map_err(|e| Error::bug(format!("table metadata `{location}` has no JSON")).with_source(e))?;
        let size = bytes.len();
        files.push((location.to_owned(), bytes.into()));
        self.put_all(files).await?;
        self.keep(location, size, Cached::Metadata(metadata.clone()));
        Ok(())
    }

    /// The manifests of a snapshot.
    ///
    /// # Errors
    /// `Bug`, naming the file, when it is missing or can't be parsed.
    pub async fn manifest_list(&self, snapshot: &Snapshot, version: FormatVersion) -> Result<Arc<Vec<ManifestFile>>> {
        let location = snapshot.manifest_list();
        if let Some(Cached::List(found)) = self.cached(location) {
            return Ok(found);
        }
        let bytes = self.get(location).await?;
        // A table that was upgraded keeps the lists of its older snapshots.
        let older = |error| ManifestList::parse_with_version(&bytes, FormatVersion::V1).map_err(|_| error);
        let list = ManifestList::parse_with_version(&bytes, version)
            .or_else(older)
            .map_err(|e| damaged("the manifest list", location).with_source(e))?;
        let list: Arc<Vec<_>> = Arc::new(list.consume_entries().into_iter().collect());
        self.keep(location, bytes.len(), Cached::List(list.clone()));
        Ok(list)
    }

    /// The entries of a manifest, with what they inherit from the list, whatever the format of the files that it lists.
    ///
    /// # Errors
    /// `Bug`, naming the file, when it is missing or can't be parsed.
    pub async fn any_manifest(&self, file: &ManifestFile) -> Result<Arc<Manifest>> {
        let location = &file.manifest_path;
        if let Some(found) = self.known_manifest(file) {
            return Ok(found);
        }
        let bytes = self.get(location).await?;
        let size = bytes.len();
        let bytes =
            manifest_names::with_avro_names(bytes).map_err(|e| damaged("the manifest", location).with_source(e))?;
        let parsed = async {
            let memory = FileIO::new_with_memory();
            memory.new_output(location)?.write(bytes).await?;
            file.load_manifest(&memory).await
        };
        let manifest = parsed.await.map_err(|e| damaged("the manifest", location).with_source(e))?;
        let manifest = Arc::new(manifest);
        // Parsed entries take several times their compressed size.
        self.keep(location, size * 8, Cached::Manifest(manifest.clone()));
        Ok(manifest)
    }

    /// A manifest that was read before.
    pub fn known_manifest(&self, file: &ManifestFile) -> Option<Arc<Manifest>> {
        match self.cached(&file.manifest_path) {
            Some(Cached::Manifest(found)) => Some(found),
            _ => None,
        }
    }

    /// As [`Io::put_all`], one file.
    pub async fn put(&self, location: &str, bytes: Bytes) -> Result<()> {
        self.storage.put(&self.url(location)?, bytes).await
    }

    /// Writes files under names that nobody else writes, so that a repeated request does no harm.
    pub async fn put_all(&self, files: Vec<(String, Bytes)>) -> Result<()> {
        let puts = files.into_iter().map(|(location, bytes)| async move {
            let url = self.url(&location)?;
            self.storage.put(&url, bytes).await
        });
        let puts: Vec<_> = puts.collect();
        // To the end, whatever fails: none of them may appear after it was removed.
        let written: Vec<Result<()>> = stream::iter(puts).buffer_unordered(PARALLEL_WRITES).collect().await;
        written.into_iter().collect()
    }

    /// Removes files that no snapshot names. What can't be removed is left behind and logged: it takes space, nothing else.
    pub async fn discard(&self, locations: impl IntoIterator<Item = String>) {
        let removals: Vec<_> = locations
            .into_iter()
            .map(|location| async move {
                let removed = match self.url(&location) {
                    Ok(url) => self.storage.delete(&url).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = removed {
                    tracing::warn!(%error, location, "left an unused file behind");
                }
            })
            .collect();
        stream::iter(removals).buffer_unordered(PARALLEL_WRITES).collect::<()>().await;
    }

    /// A file that the table's metadata names.
    async fn get(&self, location: &str) -> Result<Bytes> {
        self.storage.get(&self.url(location)?).await.map_err(|error| match error.kind() {
            ErrorKind::NotFound => damaged("an existing metadata file", location).with_source(error),
            _ => error,
        })
    }

    /// Has a file read anew: it may be gone.
    pub fn forget(&self, location: &str) {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).files.remove(location);
    }

    fn cached(&self, location: &str) -> Option<Cached> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).files.get(location).cloned()
    }

    fn keep(&self, location: &str, size: usize, what: Cached) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.bytes + size > self.capacity {
            *cache = Cache::default();
        }
        cache.bytes += size;
        cache.files.insert(location.to_owned(), what);
    }
}

/// Bytes that the `iceberg` crate writes to an output file, which we store ourselves.
pub struct Scratch {
    memory: FileIO,
    location: String,
}

impl Scratch {
    pub fn new(location: &str) -> Self {
        Self { memory: FileIO::new_with_memory(), location: location.to_owned() }
    }

    pub fn output(&self) -> Result<iceberg::io::OutputFile> {
        self.memory.new_output(&self.location).map_err(|e| from_iceberg(e, || format!("writing `{}`", self.location)))
    }

    pub async fn bytes(&self) -> Result<Bytes> {
        let read = async { self.memory.new_input(&self.location)?.read().await };
        read.await.map_err(|e| from_iceberg(e, || format!("writing `{}`", self.location)))
    }
}

/// An error of the `iceberg` crate about values that we made ourselves.
pub fn from_iceberg(error: iceberg::Error, doing: impl FnOnce() -> String) -> Error {
    let kind = match error.kind() {
        iceberg::ErrorKind::FeatureUnsupported => ErrorKind::Invalid,
        _ => ErrorKind::Bug,
    };
    Error::new(kind, "iceberg refused the request").with_source(error).context(doing())
}

fn damaged(expected: &str, location: &str) -> Error {
    Error::bug(format!("expected {expected} in `{location}`, found none that can be read"))
}

/// Adds what was being done to a result of the `iceberg` crate.
pub trait IcebergContext<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T>;
}

impl<T> IcebergContext<T> for iceberg::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| from_iceberg(e, doing))
    }
}

impl<T> IcebergContext<T> for parquet::errors::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T> {
        self.map_err(from_parquet).context(doing)
    }
}

/// The kind of a Parquet error is that of the storage error underneath, if there is one.
fn from_parquet(error: parquet::errors::ParquetError) -> Error {
    use parquet::errors::ParquetError as P;
    match error {
        P::External(source) => match source.downcast::<object_store::Error>() {
            Ok(error) => Error::from(*error),
            Err(source) => match source.downcast::<std::io::Error>() {
                Ok(error) => from_io(*error),
                Err(source) => Error::bug("parquet refused the request").with_source(source),
            },
        },
        other => Error::bug("parquet refused the request").with_source(other),
    }
}

/// An upload's I/O error carries the object store's own error inside.
fn from_io(error: std::io::Error) -> Error {
    let inner = error.get_ref().is_some_and(|e| e.is::<object_store::Error>());
    match inner.then(|| error.downcast::<object_store::Error>()) {
        Some(Ok(error)) => Error::from(error),
        Some(Err(error)) => Error::from(error),
        None => Error::retry("the upload failed"),
    }
}
