//! A store whose objects keep the addresses of the folder that they were made in, after the folder was copied or moved.
//!
//! The URLs of objects stand in catalogs, in Iceberg metadata and in states: whole, as their formats want it. So they stay as they
//! are, and what lies below the first folder is looked for below the present one. Nothing below the first one is touched, be it
//! still there: a copy never changes its original.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// `store`, whose paths below `from` lie below `to`.
#[derive(Debug)]
pub(super) struct Moved {
    store: Arc<dyn ObjectStore>,
    from: Path,
    to: Path,
}

impl Moved {
    pub(super) fn new(store: Arc<dyn ObjectStore>, from: Path, to: Path) -> Self {
        Self { store, from, to }
    }

    /// Where an object lies.
    ///
    /// # Errors
    /// `NotFound` for one outside the first folder.
    fn inside(&self, path: &Path) -> Result<Path> {
        rebased(path, &self.from, &self.to).ok_or_else(|| object_store::Error::NotFound {
            path: path.to_string(),
            source: "it lies outside the folder that was moved".into(),
        })
    }

    fn meta(&self, meta: ObjectMeta) -> ObjectMeta {
        named(meta, &self.to, &self.from)
    }
}

fn rebased(path: &Path, from: &Path, to: &Path) -> Option<Path> {
    let rest: Vec<_> = path.prefix_match(from)?.collect();
    Some(Path::from_iter(to.parts().chain(rest)))
}

/// The object under the name that it is known by.
fn named(meta: ObjectMeta, to: &Path, from: &Path) -> ObjectMeta {
    match rebased(&meta.location, to, from) {
        Some(location) => ObjectMeta { location, ..meta },
        None => meta,
    }
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Moved({} from {} to {})", self.store, self.from, self.to)
    }
}

#[async_trait]
impl ObjectStore for Moved {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(&self.inside(location)?, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(&self.inside(location)?, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let result = self.store.get_opts(&self.inside(location)?, options).await?;
        Ok(GetResult { meta: self.meta(result.meta), ..result })
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.store.get_ranges(&self.inside(location)?, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (from, to) = (self.from.clone(), self.to.clone());
        let (back_from, back_to) = (self.from.clone(), self.to.clone());
        let inside = locations.map(move |location| {
            let location = location?;
            rebased(&location, &from, &to).ok_or_else(|| object_store::Error::NotFound {
                path: location.to_string(),
                source: "it lies outside the folder that was moved".into(),
            })
        });
        let deleted = self.store.delete_stream(inside.boxed());
        deleted.map(move |path| path.map(|path| rebased(&path, &back_to, &back_from).unwrap_or(path))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let inside = match prefix.map(|prefix| self.inside(prefix)).transpose() {
            Ok(inside) => inside.unwrap_or_else(|| self.to.clone()),
            Err(_) => return futures::stream::empty().boxed(),
        };
        let (from, to) = (self.from.clone(), self.to.clone());
        self.store.list(Some(&inside)).map(move |meta| meta.map(|meta| named(meta, &to, &from))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let inside = prefix.map_or_else(|| Ok(self.to.clone()), |prefix| self.inside(prefix))?;
        let listed = self.store.list_with_delimiter(Some(&inside)).await?;
        let folder = |path: Path| rebased(&path, &self.to, &self.from).unwrap_or(path);
        Ok(ListResult {
            common_prefixes: listed.common_prefixes.into_iter().map(folder).collect(),
            objects: listed.objects.into_iter().map(|meta| self.meta(meta)).collect(),
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(&self.inside(from)?, &self.inside(to)?, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.store.rename_opts(&self.inside(from)?, &self.inside(to)?, options).await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn objects_keep_their_names_and_lie_elsewhere() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let moved = Moved::new(inner.clone(), Path::from("old/objects"), Path::from("new/place/objects"));
        let (name, place) = (Path::from("old/objects/a/b.csv"), Path::from("new/place/objects/a/b.csv"));
        moved.put(&name, "x".into()).await.unwrap();
        assert_eq!(inner.head(&place).await.unwrap().size, 1);
        assert_eq!(moved.get(&name).await.unwrap().meta.location, name);
        let listed: Vec<_> = moved.list(Some(&Path::from("old/objects/a"))).try_collect().await.unwrap();
        assert_eq!(listed.iter().map(|meta| &meta.location).collect::<Vec<_>>(), [&name]);
        let folders = moved.list_with_delimiter(Some(&Path::from("old/objects"))).await.unwrap().common_prefixes;
        assert_eq!(folders, [Path::from("old/objects/a")]);
        moved.delete(&name).await.unwrap();
        assert!(inner.head(&place).await.is_err());
    }

    #[tokio::test]
    async fn what_lies_outside_is_not_there() {
        let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        inner.put(&Path::from("old/objects/x"), "original".into()).await.unwrap();
        let moved = Moved::new(inner.clone(), Path::from("old/objects"), Path::from("new"));
        assert!(moved.get(&Path::from("old/objects/x")).await.is_err(), "the original is another's");
        assert!(moved.get(&Path::from("new/x")).await.is_err());
        let _ = moved.delete(&Path::from("old/objects/x")).await;
        assert!(inner.head(&Path::from("old/objects/x")).await.is_ok());
    }
}
