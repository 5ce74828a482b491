//! Objects by URL: `s3://bucket/key`, `file:///path`, `memory:///path`.
//!
//! The port is [`object_store::ObjectStore`]; [`Storage`] chooses the store by URL, keeps every access below the roots it was
//! opened with (SQL and requests can't reach the machine's own files), and names the URL in every error. What a store's own API does beside it is a
//! [`NativeApi`].

use std::fmt::Debug;
use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio::time::Instant;
use url::Url;

use crate::error::Context;
use crate::{Error, ErrorKind, Result};

mod location;

pub use location::{location_of, url_of};

/// Waits before a call that ended without an answer is made again.
const WAITS: [Duration; 3] = [Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];
/// Once so much time has passed the store itself has tried often enough.
const LONG_ENOUGH: Duration = Duration::from_secs(5);

/// An object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectInfo {
    pub url: Url,
    /// Bytes.
    pub size: u64,
    /// Changes when the content does, where the store tells.
    pub etag: Option<String>,
    /// Milliseconds since the epoch.
    pub modified_ms: i64,
}

/// The stores of some roots. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Storage {
    roots: Arc<Vec<Root>>,
}

/// A folder of a store, and all that lies below it.
#[derive(Debug, Clone)]
pub struct Root {
    /// With a final slash.
    url: Url,
    store: Arc<dyn ObjectStore>,
    native: Option<Arc<dyn NativeApi>>,
    /// Set where the objects do not lie where their URLs say.
    place: Option<Url>,
}

impl Root {
    /// The folder `url` of `store`, whose paths are those of the URL.
    pub fn new(url: &Url, store: Arc<dyn ObjectStore>) -> Self {
        let mut url = url.clone();
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Self { url, store, native: None, place: None }
    }

    /// With the store's own API beside it.
    #[must_use]
    pub fn with_native(self, native: Arc<dyn NativeApi>) -> Self {
        Self { native: Some(native), ..self }
    }

    /// Whose objects lie in the folder `place`, whatever their URLs say.
    #[must_use]
    pub fn in_place(self, place: Url) -> Self {
        Self { place: Some(place), ..self }
    }
}

/// What the own API of a store does that `object_store` does not do, or does not tell. Paths are whole: those of URLs.
#[async_trait]
pub trait NativeApi: Debug + Send + Sync {
    /// An address to which anyone may `PUT` the object's bytes until it expires, without credentials.
    ///
    /// # Errors
    /// `Invalid` for more time than the store allows.
    async fn presigned_put(&self, url: &Url, path: &Path, expires: Duration) -> Result<String>;

    /// An address from which anyone may `GET` the object's bytes until it expires, without credentials.
    ///
    /// # Errors
    /// `Invalid` for more time than the store allows.
    async fn presigned_get(&self, url: &Url, path: &Path, expires: Duration) -> Result<String>;

    /// Removes the object; made again when the answer is lost.
    ///
    /// # Errors
    /// Any, with the action that a policy must grant.
    async fn delete(&self, url: &Url, path: &Path) -> Result<()>;

    /// Lists a folder for the reason why it can't be listed.
    ///
    /// # Errors
    /// The reason.
    async fn can_list(&self, folder: &Url, path: &Path) -> Result<()>;
}

impl Storage {
    /// Only objects below a root can be reached.
    pub fn new(roots: Vec<Root>) -> Self {
        Self { roots: Arc::new(roots) }
    }

    /// Where the object lies, for who reads it without this storage.
    pub fn address(&self, url: &Url) -> Url {
        let place = self.root_of(url).ok().and_then(|root| {
            let rest = url.as_str().strip_prefix(root.url.as_str())?;
            Url::parse(&format!("{}{rest}", root.place.as_ref()?)).ok()
        });
        place.unwrap_or_else(|| url.clone())
    }

    /// A store in memory below `memory:///`, for tests.
    pub fn in_memory() -> Self {
        Self::new(vec![Root::new(&memory_root(), Arc::new(InMemory::new()))])
    }

    /// The same roots, with every store wrapped (metering, fault injection).
    #[must_use]
    pub fn wrapped(&self, wrap: impl Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        let wrap = |root: &Root| Root { store: wrap(root.store.clone()), ..root.clone() };
        Self::new(self.roots.iter().map(wrap).collect())
    }

    /// The store and the path in it that `url` names.
    ///
    /// # Errors
    /// `Denied` when the URL lies below no root; `Invalid` when it has a path that the store can't hold.
    pub fn resolve(&self, url: &Url) -> Result<(Arc<dyn ObjectStore>, Path)> {
        let root = self.root_of(url)?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(Error::invalid(format!(
                "expected an object URL with `?` and `#` percent-encoded, found `{url}`"
            )));
        }
        let path = Path::from_url_path(url.path())
            .map_err(|e| Error::invalid(format!("expected an object URL, found `{url}`")).with_source(e))?;
        Ok((root.store.clone(), path))
    }

    fn root_of(&self, url: &Url) -> Result<&Root> {
        self.roots.iter().find(|root| is_below(url, &root.url)).ok_or_else(|| {
            let roots: Vec<_> = self.roots.iter().map(|r| format!("`{}`", r.url)).collect();
            Error::denied(format!("expected an object below {}, found `{url}`", roots.join(" or ")))
        })
    }

    /// An address to which anyone may `PUT` the object's bytes until it expires, without credentials.
    ///
    /// # Errors
    /// `Invalid` for an object that is not on S3, or more than the 7 days that S3 allows; as [`Storage::resolve`] otherwise.
    pub async fn presigned_put(&self, url: &Url, expires: Duration) -> Result<String> {
        let (_, path) = self.resolve(url)?;
        match self.native(url)? {
            Some(native) => native.presigned_put(url, &path, expires).await,
            None => {
                Err(Error::invalid(format!("expected an object on S3, which alone signs addresses, found `{url}`")))
            }
        }
    }

    /// An address from which anyone may `GET` the object's bytes until it expires, without credentials; none where the store signs
    /// no addresses.
    ///
    /// # Errors
    /// `Invalid` for more than the 7 days that S3 allows; as [`Storage::resolve`] otherwise.
    pub async fn presigned_get(&self, url: &Url, expires: Duration) -> Result<Option<String>> {
        let (_, path) = self.resolve(url)?;
        match self.native(url)? {
            Some(native) => native.presigned_get(url, &path, expires).await.map(Some),
            None => Ok(None),
        }
    }

    /// The own API of the store that holds `url`.
    fn native(&self, url: &Url) -> Result<Option<&dyn NativeApi>> {
        Ok(self.root_of(url)?.native.as_deref())
    }

    /// The stores that serve the scheme and host of `url`, each with the path that it may be read below.
    pub fn stores_of(&self, url: &Url) -> Vec<(Path, Arc<dyn ObjectStore>)> {
        let same = |root: &&Root| root.url.scheme() == url.scheme() && root.url.host_str() == url.host_str();
        let store = |root: &Root| Some((Path::from_url_path(root.url.path()).ok()?, Arc::clone(&root.store)));
        self.roots.iter().filter(same).filter_map(store).collect()
    }

    /// The whole object.
    ///
    /// # Errors
    /// `NotFound`, naming the URL.
    pub async fn get(&self, url: &Url) -> Result<Bytes> {
        let (store, path) = self.resolve(url)?;
        let bytes = async { store.get(&path).await?.bytes().await }.await;
        bytes.map_err(|e| refused(e, "s3:GetObject", "reading", url))
    }

    /// Bytes `range` of the object.
    ///
    /// # Errors
    /// `NotFound`, naming the URL.
    pub async fn get_range(&self, url: &Url, range: std::ops::Range<u64>) -> Result<Bytes> {
        let (store, path) = self.resolve(url)?;
        store.get_range(&path, range).await.map_err(|e| refused(e, "s3:GetObject", "reading", url))
    }

    /// Size and version of the object.
    ///
    /// # Errors
    /// `NotFound`, naming the URL.
    pub async fn head(&self, url: &Url) -> Result<ObjectInfo> {
        let (store, path) = self.resolve(url)?;
        let meta = store.head(&path).await.map_err(|e| refused(e, "s3:GetObject", "looking up", url))?;
        Ok(info(url, meta))
    }

    /// Whether the object exists.
    ///
    /// # Errors
    /// Any but `NotFound`.
    pub async fn exists(&self, url: &Url) -> Result<bool> {
        match self.head(url).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == crate::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes the whole object, replacing one that exists. Atomic: readers see all or nothing. Durable when it returns.
    ///
    /// # Errors
    /// `Limit` on a full disk; nothing is left behind then.
    pub async fn put(&self, url: &Url, bytes: impl Into<Bytes>) -> Result<()> {
        let (store, path) = self.resolve(url)?;
        let put = store.put(&path, bytes.into().into()).await;
        put.map(drop).map_err(|e| refused(e, "s3:PutObject", "writing", url))
    }

    /// Writes the object only if none exists. Atomic.
    ///
    /// # Errors
    /// `Conflict` when one exists.
    pub async fn put_if_absent(&self, url: &Url, bytes: impl Into<Bytes>) -> Result<()> {
        let ((store, path), bytes) = (self.resolve(url)?, bytes.into());
        let put = || store.put_opts(&path, bytes.clone().into(), PutOptions::from(PutMode::Create));
        match until_answered(put).await {
            // The try before, whose answer was lost, has made it.
            (Err(object_store::Error::AlreadyExists { .. }), true) if self.get(url).await? == bytes => Ok(()),
            (answer, _) => answer.map(drop).map_err(|e| refused(e, "s3:PutObject", "writing", url)),
        }
    }

    /// A writer that uploads in parts as it is fed; the object appears when it is shut down.
    ///
    /// # Errors
    /// As [`Storage::resolve`].
    pub fn writer(&self, url: &Url) -> Result<BufWriter> {
        let (store, path) = self.resolve(url)?;
        Ok(BufWriter::new(store, path))
    }

    /// Removes the object; an absent one is passed over.
    ///
    /// # Errors
    /// Any but `NotFound`.
    pub async fn delete(&self, url: &Url) -> Result<()> {
        let (store, path) = self.resolve(url)?;
        let deleted = match self.native(url)? {
            Some(native) => native.delete(url, &path).await,
            None => store.delete(&path).await.context(|| format!("deleting `{url}`")),
        };
        match deleted {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            deleted => deleted,
        }
    }

    /// Every object below the folder `prefix`, at any depth, in order of URL. A folder that does not exist is empty.
    ///
    /// # Errors
    /// `Denied` outside the roots, or what the store answers.
    pub async fn list(&self, prefix: &Url) -> Result<Vec<ObjectInfo>> {
        let metas = self.list_first(prefix, usize::MAX, |_| true).await?;
        let mut infos: Vec<_> = metas.into_iter().map(|meta| info(&at(prefix, &meta.location), meta)).collect();
        infos.sort_by(|a, b| a.url.as_str().cmp(b.url.as_str()));
        Ok(infos)
    }
}

impl Storage {
    /// The wanted objects below a folder. Of S3, which lists in the order of keys, the first `most`: it is asked for no more.
    ///
    /// # Errors
    /// As [`Storage::list`].
    pub async fn list_first(
        &self,
        folder: &Url,
        most: usize,
        wanted: impl Fn(&ObjectMeta) -> bool,
    ) -> Result<Vec<ObjectMeta>> {
        let (store, path) = self.resolve(folder)?;
        let most = if self.native(folder)?.is_some() { most } else { usize::MAX };
        let listed = store.list(Some(&path)).try_filter(|meta| ready(wanted(meta))).take(most);
        match listed.try_collect().await {
            Ok(metas) => Ok(metas),
            Err(error) => Err(self.unlisted(folder, &path, error.into()).await),
        }
    }

    /// Why a folder could not be listed: S3 is asked, as `object_store` does not tell.
    async fn unlisted(&self, folder: &Url, path: &Path, error: Error) -> Error {
        let says_enough = error.kind() == ErrorKind::Invalid;
        let error = error.context(format!("listing `{folder}`"));
        match self.native(folder) {
            Ok(Some(native)) if !says_enough => native.can_list(folder, path).await.err().unwrap_or(error),
            _ => error,
        }
    }
}

/// The error of a store, with what was done to `url`. On S3 a missing grant is named as policies write it.
pub fn refused(error: object_store::Error, action: &str, doing: &str, url: &Url) -> Error {
    let error = Error::from(error);
    if error.kind() == ErrorKind::Denied && url.scheme() == "s3" {
        return Error::denied(format!("`{action}` on `{url}` is not allowed")).with_source(error);
    }
    error.context(format!("{doing} `{url}`"))
}

/// Makes a call again that ended without an answer, so that it may have taken effect; says whether it did. `object_store` does so
/// itself for calls that HTTP calls harmless, which removals and conditional writes are not.
pub async fn until_answered<T, F>(call: impl Fn() -> F) -> (object_store::Result<T>, bool)
where
    F: Future<Output = object_store::Result<T>>,
{
    let begun = Instant::now();
    for (tries, wait) in WAITS.iter().enumerate() {
        match call().await {
            Err(error) if ErrorKind::of_store(&error) == ErrorKind::Retry && begun.elapsed() < LONG_ENOUGH => {
                tracing::debug!(%error, "a call to the store ended without an answer");
                tokio::time::sleep(*wait).await;
            }
            answer => return (answer, tries > 0),
        }
    }
    (call().await, true)
}

/// Whether `url` names the root or something below it. URLs are normalised when parsed, so `..` can't climb out; an encoded
/// slash or dot segment is refused with the rest.
fn is_below(url: &Url, root: &Url) -> bool {
    let path = url.path().to_ascii_lowercase();
    let climbs = path.contains("%2f") || path.split('/').any(|s| s.replace("%2e", ".") == "..");
    let same_store = url.scheme() == root.scheme() && url.host_str() == root.host_str();
    same_store && !climbs && (url.path().starts_with(root.path()) || format!("{}/", url.path()) == root.path())
}

fn at(base: &Url, path: &Path) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(path.parts().map(|part| part.as_ref().to_owned()));
    }
    url
}

fn info(url: &Url, meta: ObjectMeta) -> ObjectInfo {
    ObjectInfo {
        url: url.clone(),
        size: meta.size,
        etag: meta.e_tag,
        modified_ms: meta.last_modified.timestamp_millis(),
    }
}

/// The root of [`Storage::in_memory`].
pub fn memory_root() -> Url {
    // A constant that parses.
    #[allow(clippy::unwrap_used)]
    Url::parse("memory:///").unwrap()
}
