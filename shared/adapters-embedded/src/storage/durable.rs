//! Local files that survive a power cut.
//!
//! object_store 0.13 writes a local object under another name and renames it, so `kill -9` never leaves half an object; but it
//! leaves flushing to the operating system (later versions have a setting for it). A table's pointer in the catalog is flushed,
//! so what it points to must be: each file that was written, the folder that names it, and the folders above that are new. A
//! flush waits for the disk, so folders that were flushed once are remembered.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result, UploadPart,
};

/// Folders that are remembered; past it all are forgotten and flushed anew.
const FOLDERS: usize = 10_000;

/// [`LocalFileSystem`] whose writes are on the disk when they return.
#[derive(Debug)]
pub(super) struct DurableFiles {
    files: LocalFileSystem,
    folders: Arc<Folders>,
}

/// The folders of a store.
#[derive(Debug)]
struct Folders {
    /// Folders above it are not ours to flush.
    root: PathBuf,
    /// Those whose name is on the disk.
    flushed: Mutex<HashSet<Folder>>,
}

impl Folders {
    fn flushed(&self) -> MutexGuard<'_, HashSet<Folder>> {
        self.flushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A folder; one that was removed and made again is another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Folder {
    path: PathBuf,
    made: SystemTime,
}

impl Folder {
    fn at(path: &std::path::Path) -> std::io::Result<Self> {
        Ok(Self { path: path.to_owned(), made: std::fs::metadata(path)?.created()? })
    }
}

impl DurableFiles {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { files: LocalFileSystem::new(), folders: Arc::new(Folders { root, flushed: Mutex::default() }) }
    }

    fn flush(&self, location: &Path) -> Result<Flush> {
        Ok(Flush { path: self.files.path_to_filesystem(location)?, folders: self.folders.clone() })
    }
}

/// A file to flush, with the folders between it and the root.
#[derive(Debug, Clone)]
struct Flush {
    path: PathBuf,
    folders: Arc<Folders>,
}

impl Flush {
    async fn run(self) -> Result<()> {
        let flushed = tokio::task::spawn_blocking(move || self.sync()).await;
        flushed
            .map_err(|e| Error::JoinError { source: e })?
            .map_err(|e| Error::Generic { store: "LocalFileSystem", source: Box::new(e) })
    }

    fn sync(&self) -> std::io::Result<()> {
        sync(&self.path)?;
        let (mut new, mut complete) = (Vec::new(), true);
        // A folder's name is on the disk once the folder above is flushed.
        for folder in self.path.ancestors().skip(1).take_while(|folder| folder.starts_with(&self.folders.root)) {
            sync(folder)?;
            match Folder::at(folder) {
                Ok(named) if self.folders.flushed().contains(&named) => break,
                Ok(named) => new.push(named),
                // It is gone, or the file system does not tell when it was made.
                Err(_) => complete = false,
            }
        }
        if !complete {
            return Ok(());
        }
        let mut flushed = self.folders.flushed();
        if flushed.len() + new.len() > FOLDERS {
            flushed.clear();
        }
        flushed.extend(new);
        Ok(())
    }
}

/// Flushes a file or a folder, if somebody did not remove it meanwhile.
fn sync(path: &std::path::Path) -> std::io::Result<()> {
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        file => file?.sync_all(),
    }
}

impl fmt::Display for DurableFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DurableFiles({})", self.folders.root.display())
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

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;

    #[tokio::test]
    async fn a_folder_is_flushed_once_and_anew_when_it_was_made_anew() {
        let root = tempfile::tempdir().unwrap();
        let store = DurableFiles::new(root.path().to_owned());
        let known = || store.folders.flushed().iter().map(|folder| folder.path.clone()).collect::<HashSet<_>>();
        store.put(&store.path(root.path().join("a/b/x")), "x".into()).await.unwrap();
        let folders = [root.path().to_owned(), root.path().join("a"), root.path().join("a/b")];
        assert_eq!(known(), folders.into_iter().collect());
        store.put(&store.path(root.path().join("a/b/y")), "y".into()).await.unwrap();
        assert_eq!(store.folders.flushed().len(), 3);
        // Past the grain of the clock that stamps files.
        std::thread::sleep(std::time::Duration::from_millis(20));
        std::fs::remove_dir_all(root.path().join("a/b")).unwrap();
        store.put(&store.path(root.path().join("a/b/x")), "z".into()).await.unwrap();
        assert_eq!(store.folders.flushed().len(), 4, "a new folder of the same name");
    }

    impl DurableFiles {
        fn path(&self, file: PathBuf) -> Path {
            Path::from_absolute_path(file).unwrap()
        }
    }
}
