//! Local files that survive a power cut.
//!
//! object_store 0.13 writes a local object under another name and renames it, so `kill -9` never leaves half an object; but it
//! leaves flushing to the operating system (later versions have a setting for it). A table's pointer in the catalog is flushed,
//! so what it points to must be: each file that was written, and the folders that name it.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// [`LocalFileSystem`] whose writes are on the disk when they return.
#[derive(Debug)]
pub(super) struct DurableFiles {
    files: LocalFileSystem,
    /// Folders above it are not ours to flush.
    root: Arc<PathBuf>,
}

impl DurableFiles {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { files: LocalFileSystem::new(), root: Arc::new(root) }
    }

    fn flush(&self, location: &Path) -> Result<Flush> {
        Ok(Flush { path: self.files.path_to_filesystem(location)?, root: self.root.clone() })
    }
}

/// A file to flush, with the folders between it and the root.
#[derive(Debug, Clone)]
struct Flush {
    path: PathBuf,
    root: Arc<PathBuf>,
}

impl Flush {
    async fn run(self) -> Result<()> {
        let flushed = tokio::task::spawn_blocking(move || self.sync()).await;
        flushed
            .map_err(|e| Error::JoinError { source: e })?
            .map_err(|e| Error::Generic { store: "LocalFileSystem", source: Box::new(e) })
    }

    fn sync(&self) -> std::io::Result<()> {
        let folders = self.path.ancestors().skip(1).take_while(|folder| folder.starts_with(&*self.root));
        for path in std::iter::once(self.path.as_path()).chain(folders) {
            match File::open(path) {
                // Somebody removed it meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                file => file?.sync_all()?,
            }
        }
        Ok(())
    }
}

impl fmt::Display for DurableFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableFiles({})", self.root.display())
    }
}

#[async_trait]
impl ObjectStore for DurableFiles {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let result = self.files.put_opts(location, payload, opts).await?;
        self.flush(location)?.run().await?;
        Ok(result)
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        let flush = self.flush(location)?;
        Ok(Box::new(DurableUpload { upload: self.files.put_multipart_opts(location, opts).await?, flush }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.files.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.files.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.files.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.files.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.files.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.files.copy_opts(from, to, options).await?;
        self.flush(to)?.run().await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.files.rename_opts(from, to, options).await?;
        self.flush(to)?.run().await
    }
}

#[derive(Debug)]
struct DurableUpload {
    upload: Box<dyn MultipartUpload>,
    flush: Flush,
}

#[async_trait]
impl MultipartUpload for DurableUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let result = self.upload.complete().await?;
        self.flush.clone().run().await?;
        Ok(result)
    }

    async fn abort(&mut self) -> Result<()> {
        self.upload.abort().await
    }
}
